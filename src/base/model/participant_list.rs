//! The participants of one session in a snapshot. Copies share what is equal in both, so that a
//! snapshot after a change costs as much as the change.

use std::{
    fmt,
    ops::{Index, IndexMut},
    sync::Arc,
};

use serde::{Serialize, Serializer};

use super::ParticipantStatus;

/// The participants of a session, in the order in which they joined.
///
/// A copy costs one atomic increment. A change after it clones the pointers of one chunk (at most 32)
/// and one pointer for each chunk. Chunks are not merged, so after many have left there may be as
/// many chunks as participants.
#[derive(Clone, Default)]
pub struct ParticipantList {
    chunks: Arc<Vec<Arc<Chunk>>>,
}

/// Some consecutive participants, each with its number. Never empty.
type Chunk = Vec<(u64, Arc<ParticipantStatus>)>;

/// The most participants of one chunk.
const MAX_CHUNK: usize = 32;

impl ParticipantList {
    /// How many participants there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The participants.
    pub fn iter(&self) -> impl Iterator<Item = &ParticipantStatus> + Clone {
        self.shared().map(|status| &**status)
    }

    /// The participants, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut ParticipantStatus> {
        let chunks = Arc::make_mut(&mut self.chunks).iter_mut();
        let entries = chunks.flat_map(|chunk| Arc::make_mut(chunk).iter_mut());
        entries.map(|(_, status)| Arc::make_mut(status))
    }

    /// The participant with that index.
    pub fn get(&self, index: usize) -> Option<&ParticipantStatus> {
        self.iter().nth(index)
    }

    /// Whether it is the same list, or both are empty. Lists that differ in this may be equal.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.chunks, &other.chunks) || (self.is_empty() && other.is_empty())
    }

    /// Sets the participant with that number. The number of a new one is higher than all others.
    pub fn set(&mut self, number: u64, status: ParticipantStatus) {
        let entry = (number, Arc::new(status));
        if let Some((chunk, index)) = self.position(number) {
            let chunks = Arc::make_mut(&mut self.chunks);
            Arc::make_mut(&mut chunks[chunk])[index] = entry;
            return;
        }
        let chunks = Arc::make_mut(&mut self.chunks);
        match chunks.last_mut().filter(|last| last.len() < MAX_CHUNK) {
            Some(last) => Arc::make_mut(last).push(entry),
            None => chunks.push(Arc::new(vec![entry])),
        }
    }

    /// Removes the participant with that number, if it is in the list.
    pub fn remove(&mut self, number: u64) {
        let Some((chunk, index)) = self.position(number) else { return };
        let chunks = Arc::make_mut(&mut self.chunks);
        Arc::make_mut(&mut chunks[chunk]).remove(index);
        chunks.retain(|chunk| !chunk.is_empty());
    }

    /// The participant with that number.
    pub fn of_number(&self, number: u64) -> Option<&ParticipantStatus> {
        let (chunk, index) = self.position(number)?;
        Some(&self.chunks[chunk][index].1)
    }

    /// The index of the chunk that has the participant with that number, and the index in the chunk.
    fn position(&self, number: u64) -> Option<(usize, usize)> {
        let before = self.chunks.partition_point(|chunk| chunk[0].0 <= number);
        let chunk = before.checked_sub(1)?;
        let index = self.chunks[chunk].binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some((chunk, index))
    }

    fn shared(&self) -> impl Iterator<Item = &Arc<ParticipantStatus>> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter().map(|(_, status)| status))
    }
}

impl PartialEq for ParticipantList {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || self.shared().eq(other.shared())
    }
}

impl Eq for ParticipantList {}

impl fmt::Debug for ParticipantList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for ParticipantList {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl FromIterator<ParticipantStatus> for ParticipantList {
    fn from_iter<T: IntoIterator<Item = ParticipantStatus>>(statuses: T) -> Self {
        let mut list = Self::default();
        for (number, status) in (0..).zip(statuses) {
            list.set(number, status);
        }
        list
    }
}

impl IntoIterator for ParticipantList {
    type Item = ParticipantStatus;
    type IntoIter = std::vec::IntoIter<ParticipantStatus>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter().cloned().collect::<Vec<_>>().into_iter()
    }
}

impl Index<usize> for ParticipantList {
    type Output = ParticipantStatus;

    fn index(&self, index: usize) -> &ParticipantStatus {
        self.get(index).expect("the index is less than the number of participants")
    }
}

impl IndexMut<usize> for ParticipantList {
    fn index_mut(&mut self, index: usize) -> &mut ParticipantStatus {
        self.iter_mut().nth(index).expect("the index is less than the number of participants")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{Role, SessionKind, fixtures::session_status};

    fn named(name: u32) -> ParticipantStatus {
        let one = session_status("s", SessionKind::FIVE[0], Role::Opener, 1);
        ParticipantStatus { name: name.to_string(), ..one.participants[0].clone() }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_list_equals_a_map_by_number_and_its_copies_do_not_change(
            changes in proptest::collection::vec((0_u64..150, any::<u32>(), 0_u8..4), 0..400),
        ) {
            let (mut list, mut map, mut next) = (ParticipantList::default(), BTreeMap::new(), 0);
            for (number, name, change) in changes {
                let (before, names) = (list.clone(), list.clone().into_iter().map(|one| one.name));
                let names: Vec<_> = names.collect();
                match change {
                    0 => { list.remove(number); map.remove(&number); }
                    1 if map.contains_key(&number) => {
                        list.set(number, named(name));
                        map.insert(number, named(name));
                    }
                    _ => { list.set(next, named(name)); map.insert(next, named(name)); next += 1; }
                }
                prop_assert!(list.iter().eq(map.values()));
                prop_assert_eq!((list.len(), list.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!(list.of_number(number), map.get(&number));
                prop_assert!(before.iter().map(|one| &one.name).eq(&names));
            }
            prop_assert_eq!(&list, &map.into_values().collect::<ParticipantList>());
            prop_assert!(list.chunks.iter().all(|chunk| (1..=MAX_CHUNK).contains(&chunk.len())));
        }
    }
}
