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

/// Peers are alike above this, at so many comparisons; and unlike below that, for so long.
const ALIKE: f64 = 0.8;
const COMPARISONS: u32 = 3;
const UNLIKE: f64 = 0.6;
const UNLIKE_TIME: Duration = Duration::from_secs(10);

/// A queue that has been longer than this for so many samples is full, in milliseconds.
const FULL_QUEUE_MS: f64 = 120.0;
const FULL_SAMPLES: usize = 30;

/// With more peers each is compared with the mean of the others.
const MAX_PAIRED: usize = 12;

impl<K: Ord + Copy> Default for UplinkGroup<K> {
    fn default() -> Self {
        Self {
            queues: BTreeMap::new(),
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
        self.queues.entry(key).or_default().add(queue);
    }

    pub(super) fn remove(&mut self, key: K) {
        self.queues.remove(&key);
        self.members.remove(&key);
        self.unlike_since.remove(&key);
        self.alike.retain(|(one, other), _| *one != key && *other != key);
        if self.members.len() < 2 {
            self.members.clear();
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

    /// The samples of the peers whose queue tells something.
    fn samples(&self) -> BTreeMap<K, Vec<f64>> {
        let samples = self.queues.iter().filter_map(|(key, queue)| Some((*key, queue.samples()?)));
        samples.filter(|(_, samples)| upper(samples) >= LEAST_QUEUE_MS).collect()
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
            let Some(own) = samples.get(&key).filter(|_| !others.is_empty()) else { continue };
            if likeness(own, &mean_of(others.into_iter())) >= UNLIKE {
                self.unlike_since.remove(&key);
                continue;
            }
            let since = *self.unlike_since.entry(key).or_insert(now);
            if now.since(since) >= UNLIKE_TIME {
                self.members.remove(&key);
                self.unlike_since.remove(&key);
            }
        }
        if self.members.len() == 1 {
            self.dissolve();
        }
    }
}
