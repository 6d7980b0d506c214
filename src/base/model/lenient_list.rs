//! Reads lists of the wire, of which a later version may have entries of another form.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

/// A list that takes entries until it is full.
pub(super) trait LenientList: Default {
    /// An entry.
    type Entry;
    /// Adds an entry, unless it is not wanted.
    fn add(&mut self, entry: Self::Entry);
    /// Whether further entries are ignored.
    fn is_full(&self) -> bool;
}

/// Reads a list. Entries of another form are ignored, and so is what follows when it is full.
///
/// # Errors
/// If it is no list.
pub(super) fn deserialize<'de, D, L>(deserializer: D) -> Result<L, D::Error>
where
    D: Deserializer<'de>,
    L: LenientList,
    L::Entry: Deserialize<'de>,
{
    deserializer.deserialize_seq(ListVisitor(PhantomData))
}

struct ListVisitor<L>(PhantomData<L>);

impl<'de, L: LenientList> Visitor<'de> for ListVisitor<L>
where
    L::Entry: Deserialize<'de>,
{
    type Value = L;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<L, A::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Entry<T> {
            Known(T),
            Other(IgnoredAny),
        }
        let mut list = L::default();
        while !list.is_full() {
            match entries.next_element()? {
                Some(Entry::Known(entry)) => list.add(entry),
                Some(Entry::Other(IgnoredAny)) => {}
                None => return Ok(list),
            }
        }
        while entries.next_element::<IgnoredAny>()?.is_some() {}
        Ok(list)
    }
}
