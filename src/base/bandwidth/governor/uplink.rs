//! Which peers share the uplink of this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::likeness::{QueueSeries, likeness, mean_of, upper};
use crate::model::MediaTime;

/// Finds the peers whose queues rise and fall together: their packets wait in the same queue.
///
/// (RFC 8382 compares skewness and variability over 17 s, which is slower.) A false join costs a few
/// seconds of a lower share.
///
/// A queue that is full all the time does not rise and fall. So peers that see such queues at the
/// same time are taken in, too, and then those that lose packets: a peer that came when the queue
/// was full takes it for the path, sees no queue, and would take everything.
#[derive(Debug)]
pub(super) struct UplinkGroup<K> {
    queues: BTreeMap<K, QueueSeries>,
    /// The peers of whose queues nothing is known.
    blind: BTreeSet<K>,
    members: BTreeSet<K>,
    /// How often in a row two peers were alike; a peer with itself is one with the mean of others.
    alike: BTreeMap<(K, K), u32>,
    /// Since when a member has been unlike the others.
    unlike_since: BTreeMap<K, MediaTime>,
    sampled_at: Option<MediaTime>,
    compared_at: Option<MediaTime>,
}

/// The peers that have seen an overload a short time ago.
#[derive(Debug)]
pub(super) struct Signs<K> {
    pub(super) overused: BTreeSet<K>,
    /// Those that lose many packets.
    pub(super) lossy: BTreeSet<K>,
}

/// The time between two samples, and between two comparisons.
const SAMPLE: Duration = Duration::from_millis(100);
const COMPARISON: Duration = Duration::from_secs(4);

/// Queues that are shorter tell nothing, in milliseconds.
const LEAST_QUEUE_MS: f64 = 15.0;

/// Who sees no queue longer than this while the others see one of that length is not behind it.
const NO_QUEUE_MS: f64 = 8.0;
const SEEN_QUEUE_MS: f64 = 30.0;
const UNSEEN_TIME: Duration = Duration::from_secs(4);

/// Peers are alike above this, at so many comparisons; and unlike below that, for so long.
const ALIKE: f64 = 0.8;
const COMPARISONS: u32 = 3;
const UNLIKE: f64 = 0.6;
const UNLIKE_TIME: Duration = Duration::from_secs(10);

/// A queue that has been longer than this for so many samples is full, in milliseconds.
const FULL_QUEUE_MS: f64 = 120.0;
const FULL_SAMPLES: usize = 30;

/// A queue that has grown by so much within so many samples has risen, in milliseconds. Such queues
/// are one if none is longer than this multiple of another, and this part of the peers sees it.
const RISE_MS: f64 = 25.0;
const RISE_SAMPLES: usize = 10;
const NEAR: f64 = 1.6;
const NEARLY_ALL: f64 = 0.7;

/// A queue that only one member has seen for so many samples is another one, in milliseconds.
const ALONE_MS: f64 = 40.0;
const ALONE_SAMPLES: usize = 4;

/// With more peers each is compared with the mean of the others.
const MAX_PAIRED: usize = 12;

impl<K: Ord + Copy> Default for UplinkGroup<K> {
    fn default() -> Self {
        Self {
            queues: BTreeMap::new(),
            blind: BTreeSet::new(),
            members: BTreeSet::new(),
            alike: BTreeMap::new(),
            unlike_since: BTreeMap::new(),
            sampled_at: None,
            compared_at: None,
        }
    }
}

impl<K: Ord + Copy> UplinkGroup<K> {
    pub(super) fn contains(&self, key: K) -> bool {
        self.members.contains(&key)
    }

    /// Notes the queue of a peer.
    pub(super) fn on_queue(&mut self, key: K, queue: Duration) {
        self.blind.remove(&key);
        self.queues.entry(key).or_default().add(queue);
    }

    /// Notes a peer of whose queue nothing is known. It is a member while there are others.
    pub(super) fn on_blind(&mut self, key: K) {
        self.queues.remove(&key);
        self.blind.insert(key);
    }

    pub(super) fn remove(&mut self, key: K) {
        self.queues.remove(&key);
        self.blind.remove(&key);
        self.alike.retain(|(one, other), _| *one != key && *other != key);
        self.let_go(key);
    }

    /// Takes a member out. One alone shares with nobody.
    fn let_go(&mut self, key: K) {
        self.members.remove(&key);
        self.unlike_since.remove(&key);
        if self.members.difference(&self.blind).count() < 2 {
            self.dissolve();
        }
    }

    /// Ends the group: the uplink limits nobody.
    pub(super) fn dissolve(&mut self) {
        self.members.clear();
        self.alike.clear();
        self.unlike_since.clear();
    }

    /// Follows the time.
    pub(super) fn update(&mut self, signs: &Signs<K>, now: MediaTime) {
        if self.sampled_at.is_some_and(|at| now.since(at) < SAMPLE) {
            return;
        }
        self.sampled_at = Some(now);
        self.queues.values_mut().for_each(QueueSeries::tick);
        self.join_risen(signs);
        self.join_new();
        self.leave_alone();
        let compared_at = *self.compared_at.get_or_insert(now);
        if now.since(compared_at) >= COMPARISON {
            self.compared_at = Some(now);
            let samples = self.samples();
            self.compare(&samples);
            self.join(&signs.overused);
            self.join_full(signs);
            self.leave(&samples, now);
        }
    }

    /// Takes in those whose queues have just risen together, if nearly all see it: two links that fill
    /// up in the same second are rare, and the others of them would see nothing.
    fn join_risen(&mut self, signs: &Signs<K>) {
        let rises: Vec<_> = self
            .queues
            .iter()
            .filter_map(|(key, queue)| Some((*key, queue.rise(RISE_SAMPLES)?)))
            .collect();
        let is_risen = |rise: f64| rise >= RISE_MS;
        let mut risen: Vec<_> = rises.iter().filter(|(_, (_, rise))| is_risen(*rise)).collect();
        risen.sort_by(|(_, (one, _)), (_, (other, _))| one.total_cmp(other));
        let Some((_, (median, _))) = risen.get(risen.len() / 2) else { return };
        let is_near = |level: f64| level <= NEAR * median && median <= &(NEAR * level);
        let alike: Vec<_> =
            risen.iter().filter(|(_, (level, _))| is_near(*level)).map(|(key, _)| *key).collect();
        let is_seen_by_all = alike.len() as f64 >= NEARLY_ALL * rises.len() as f64;
        if alike.len() >= 2
            && is_seen_by_all
            && alike.iter().any(|key| signs.overused.contains(key))
        {
            self.members.extend(alike);
            self.members.extend(&signs.lossy);
        }
    }

    /// Takes in who came a moment ago, while there is a group: most peers are behind the uplink, and
    /// who comes while its queue is full takes that for the path.
    fn join_new(&mut self) {
        if !self.members.is_empty() {
            let is_new = |queue: &QueueSeries| queue.rise(RISE_SAMPLES).is_none();
            let new = self.queues.iter().filter(|(_, queue)| is_new(queue)).map(|(key, _)| *key);
            self.members.extend(new);
            self.members.extend(&self.blind);
        }
    }

    /// Lets go who sees a queue that no other member sees: it is another one.
    fn leave_alone(&mut self) {
        let least = |key: &K| self.queues.get(key).and_then(|queue| queue.least(ALONE_SAMPLES));
        let last =
            |key: &K| self.queues.get(key).and_then(|queue| queue.rise(1)).map(|rise| rise.0);
        let members: Vec<_> = self.members.difference(&self.blind).copied().collect();
        let long: Vec<_> = members
            .iter()
            .filter(|key| least(key).is_some_and(|least| least >= ALONE_MS))
            .copied()
            .collect();
        let [alone] = long[..] else { return };
        let mut others = members.iter().filter(|key| **key != alone);
        if others.all(|key| last(key).is_some_and(|last| last < LEAST_QUEUE_MS)) {
            self.let_go(alone);
        }
    }

    /// The samples of the peers whose queue tells something.
    fn samples(&self) -> BTreeMap<K, Vec<f64>> {
        let samples = self.queues.iter().filter_map(|(key, queue)| Some((*key, queue.samples()?)));
        samples.filter(|(_, samples)| upper(samples) >= LEAST_QUEUE_MS).collect()
    }

    /// Whether a member has seen no queue in the last seconds.
    fn sees_none(&self, key: K) -> bool {
        let samples = self.queues.get(&key).and_then(QueueSeries::samples);
        samples.is_some_and(|samples| upper(&samples) < NO_QUEUE_MS)
    }

    /// Counts who is alike.
    fn compare(&mut self, samples: &BTreeMap<K, Vec<f64>>) {
        let mut alike = BTreeMap::new();
        let mut note = |pair, likeness| {
            if likeness >= ALIKE {
                alike.insert(pair, self.alike.get(&pair).map_or(1, |count| count + 1));
            }
        };
        if samples.len() <= MAX_PAIRED {
            for (one, first) in samples {
                for (other, second) in samples.range(..one) {
                    note((*one, *other), likeness(first, second));
                }
            }
        } else {
            for (key, own) in samples {
                let others = samples.iter().filter(|(other, _)| *other != key);
                note((*key, *key), likeness(own, &mean_of(others.map(|(_, samples)| samples))));
            }
        }
        self.alike = alike;
    }

    /// Takes in who was alike often enough, if one of two saw an overload: who sends audio alone
    /// hardly sees one.
    fn join(&mut self, overused: &BTreeSet<K>) {
        let is_overused = |key: &K| overused.contains(key);
        let pairs: Vec<_> = self
            .alike
            .iter()
            .filter(|(_, count)| **count >= COMPARISONS)
            .map(|(pair, _)| *pair)
            .filter(|(one, other)| is_overused(one) || is_overused(other))
            .collect();
        let alone: BTreeSet<_> =
            pairs.iter().filter(|(one, other)| one == other).map(|(key, _)| *key).collect();
        if alone.len() >= 2 || !self.members.is_empty() {
            self.members.extend(alone);
        }
        // There is one uplink: a second pair that is like no member waits.
        for (one, other) in pairs.into_iter().filter(|(one, other)| one != other) {
            let is_ours = self.contains(one) || self.contains(other);
            if self.members.is_empty() || is_ours {
                self.members.extend([one, other]);
            }
        }
    }

    /// Takes in who sees a full queue, and who loses packets meanwhile.
    fn join_full(&mut self, signs: &Signs<K>) {
        let is_full = |key: &K| {
            let least = self.queues.get(key).and_then(|queue| queue.least(FULL_SAMPLES));
            least.is_some_and(|least| least >= FULL_QUEUE_MS)
        };
        let full: Vec<_> = signs.overused.iter().filter(|key| is_full(key)).copied().collect();
        if full.len() >= 2 {
            self.members.extend(full);
            self.members.extend(&signs.lossy);
        }
    }

    /// Lets go who has been unlike the other members for long.
    fn leave(&mut self, samples: &BTreeMap<K, Vec<f64>>, now: MediaTime) {
        for key in self.members.clone() {
            let others =
                samples.iter().filter(|(other, _)| **other != key && self.contains(**other));
            let others: Vec<_> = others.map(|(_, samples)| samples).collect();
            if others.is_empty() {
                continue;
            }
            let others = mean_of(others.into_iter());
            let patience = match samples.get(&key) {
                Some(own) if likeness(own, &others) >= UNLIKE => {
                    self.unlike_since.remove(&key);
                    continue;
                }
                Some(_) => UNLIKE_TIME,
                None if upper(&others) >= SEEN_QUEUE_MS && self.sees_none(key) => UNSEEN_TIME,
                None => continue,
            };
            let since = *self.unlike_since.entry(key).or_insert(now);
            if now.since(since) >= patience {
                self.let_go(key);
            }
        }
    }
}
