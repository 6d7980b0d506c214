//! The governor: one rate control for all peers behind the same way out of this machine.

mod fullness;
mod likeness;
mod shares;
mod token;
mod uplink;

use std::{collections::BTreeMap, time::Duration};

use self::{
    fullness::Fullness,
    shares::Rank,
    uplink::{Signs, UplinkGroup},
};
pub use self::{
    shares::{GovernedPeer, LayerCost, Precedence, PriorityClass, Share},
    token::ProbeToken,
};
use super::{Estimate, LimitedBy};
use crate::model::{Bitrate, Layer, MediaTime};

/// Couples the estimators of peers that share this machine's uplink (RFC 8699, section 5.3, the
/// active form). `K` names a peer.
///
/// Estimators that compete at one bottleneck starve each other, and know no priorities. So the
/// rates of these peers are one sum. Each report changes the sum by what it changed its own target
/// by, and then every peer gets its share of the sum, whatever its own estimator would say: ten
/// peers that see one overload reduce the sum by 15 %, not each its own rate and all of them
/// together by far more. No overload leaves less than 85 % of what arrives of all of them.
///
/// Peers with bottlenecks of their own are left alone. It is pure: the owner calls
/// [`Self::update`] each 100 ms, and after a report of an overuse.
#[derive(Debug)]
pub struct Governor<K> {
    peers: BTreeMap<K, Peer>,
    uplink: UplinkGroup<K>,
    /// The sum of the members' targets, in bits per second.
    sum: f64,
    /// How many peers there have been: the order in which they came.
    arrivals: u64,
    /// When the sum grew last.
    grown_at: Option<MediaTime>,
    /// Since when the members have wanted clearly less than the sum.
    spare_since: Option<MediaTime>,
    fullness: Fullness,
}

#[derive(Debug)]
struct Peer {
    setup: GovernedPeer,
    rank: Rank,
    /// What was reported last: the target, and the share that it started from.
    reported: Option<(f64, Option<Bitrate>)>,
    share: Option<Share>,
    overused_at: Option<MediaTime>,
    /// Whether a rate that lost packets keeps its target low, and that was counted.
    is_held: bool,
    /// Whether it reports no arrivals, so that nothing is known of its queue.
    is_blind: bool,
    /// The part of its packets that are lost.
    loss: f64,
    /// How long its packets wait, and the rate at which they arrive, in bits per second.
    queue: Duration,
    acknowledged: f64,
}

impl Peer {
    /// The target of an estimate, as far as it says something of the uplink. What keeps a target low for a while
    /// keeps it low whatever the share, so it counts at its beginning only: a rate that was found to
    /// lose packets. A test of the loss, the loss of the path, and missing reports do not count.
    ///
    /// What older programs report follows their own path, and grows by what is sent: it counts never.
    fn counted(&mut self, estimate: &Estimate) -> Bitrate {
        let is_kept_low = match estimate.limited_by {
            LimitedBy::Loss | LimitedBy::MissingFeedback => true,
            LimitedBy::Demand | LimitedBy::Delay | LimitedBy::Ceiling => false,
        };
        let is_held = is_kept_low && estimate.is_overused;
        let was_held = std::mem::replace(&mut self.is_held, is_held);
        match estimate.ceiling {
            Some(ceiling) if !estimate.reports_arrivals => ceiling,
            Some(ceiling) if is_kept_low && (was_held || !is_held) => ceiling,
            Some(_) | None => estimate.target,
        }
    }

    /// Whether its share has no room for the largest video that it wants, with all of its frames.
    fn lacks_video(&self) -> bool {
        let wanted = Layer::ALL.into_iter().rfind(|one| self.setup.layers[*one as usize].is_some());
        self.share.is_some_and(|share| share.video != wanted.map(|layer| (layer, true)))
    }

    /// Whether the estimator has gone on from its share by more than a little.
    fn has_moved(&self) -> bool {
        let (Some(share), Some((target, from))) = (self.share, self.reported) else { return false };
        let share = share.target;
        from == Some(share) && (target / share.as_bps() as f64 - 1.0).abs() > MOVED
    }
}

/// A target that differs from its share by more than this part gets the share again.
const MOVED: f64 = 0.02;

/// The sum of the first members that see a full queue, as a part of what arrives.
const FIRST: f64 = 0.9;

/// An overload leaves this part of what arrives of all members. What arrives of each scatters: if each
/// falls to a part of its own, the sum falls further.
const DECREASE: f64 = 0.85;

/// Members that see an overload this long ago share it.
const OVERUSE_MEMORY: Duration = Duration::from_secs(5);

/// Whoever loses more beside a full queue shares that queue.
const MUCH_LOSS: f64 = 0.05;

/// A group that wants less than this part of its sum for so long is not limited by the uplink.
const SPARE: f64 = 0.8;
const SPARE_TIME: Duration = Duration::from_secs(10);

/// With less than this part of the sum used, the members do not find out whether there is more.
const USED: f64 = 0.95;

/// The sum grows then by so much each second while no member has a queue longer than this, nor has seen
/// an overload for so long, and up to that multiple of what arrives.
const GROWTH: f64 = 1.08;
const SHORT_QUEUE: Duration = Duration::from_millis(20);
const CALM: Duration = Duration::from_secs(2);
const MAX_UNPROVED: f64 = 1.5;

/// The least that a member needs: audio.
const LEAST_BPS: f64 = 80e3;

impl<K: Ord + Copy> Default for Governor<K> {
    fn default() -> Self {
        Self {
            peers: BTreeMap::new(),
            uplink: UplinkGroup::default(),
            sum: 0.0,
            arrivals: 0,
            grown_at: None,
            spare_since: None,
            fullness: Fullness::default(),
        }
    }
}

impl<K: Ord + Copy> Governor<K> {
    /// Adds a peer, or changes what it may get.
    pub fn set_peer(&mut self, key: K, setup: GovernedPeer) {
        let arrivals = &mut self.arrivals;
        let peer = self.peers.entry(key).or_insert_with(|| {
            *arrivals += 1;
            let rank = Rank { precedence: setup.precedence, arrival: *arrivals };
            Peer {
                setup,
                rank,
                reported: None,
                share: None,
                overused_at: None,
                is_held: false,
                is_blind: false,
                loss: 0.0,
                queue: Duration::ZERO,
                acknowledged: 0.0,
            }
        });
        peer.rank.precedence = setup.precedence;
        peer.setup = setup;
    }

    /// Removes a peer.
    pub fn remove(&mut self, key: K) {
        if let Some(peer) = self.peers.remove(&key) {
            self.sum -= peer.share.map_or(0.0, |share| share.target.as_bps() as f64);
        }
        self.uplink.remove(key);
    }

    /// Notes what the estimator of a peer says.
    pub fn on_estimate(&mut self, key: K, estimate: &Estimate, now: MediaTime) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if estimate.reports_arrivals {
            self.uplink.on_queue(key, estimate.queue);
        } else {
            self.uplink.on_blind(key);
        }
        peer.is_blind = !estimate.reports_arrivals;
        if estimate.is_overused {
            peer.overused_at = Some(now);
        }
        (peer.loss, peer.queue) = (estimate.loss, estimate.queue);
        peer.acknowledged = estimate.acknowledged.map_or(0.0, |rate| rate.as_bps() as f64);
        let target = peer.counted(estimate).as_bps() as f64;
        let before = peer.reported.replace((target, estimate.ceiling));
        let Some(ceiling) = estimate.ceiling.filter(|_| peer.share.is_some()) else { return };
        // A share that has not reached the estimator yet is no change of its own.
        let from = before
            .filter(|(_, before)| *before == estimate.ceiling)
            .map_or(ceiling.as_bps() as f64, |(target, _)| target);
        let sum = self.sum;
        self.sum += target - from;
        if target < from {
            self.sum = self.sum.max((DECREASE * self.arriving()).min(sum));
        }
    }

    /// Follows the time: who shares the uplink, and what each member gets. Returns the shares that
    /// changed, and `None` for peers that have left the group.
    pub fn update(&mut self, now: MediaTime) -> Vec<(K, Option<Share>)> {
        let overused =
            |peer: &Peer| peer.overused_at.is_some_and(|at| now.since(at) <= OVERUSE_MEMORY);
        let keys = |is: &dyn Fn(&Peer) -> bool| {
            self.peers.iter().filter(|(_, peer)| is(peer)).map(|(key, _)| *key).collect()
        };
        let signs =
            Signs { overused: keys(&overused), lossy: keys(&|peer| peer.loss >= MUCH_LOSS) };
        self.uplink.update(&signs, now);
        if self.is_spare(now) {
            self.uplink.dissolve();
        }
        let mut changed = self.follow_membership();
        self.grow(now);
        changed.extend(self.distribute());
        self.fullness.update(self.peers.values().any(Peer::lacks_video), now);
        changed
    }

    /// Whether the uplink has kept members from the video that they want for some seconds. It stays
    /// so until all have had it for ten.
    pub const fn is_full(&self) -> bool {
        self.fullness.is_full()
    }

    /// The share of a peer; `None` while it has a bottleneck of its own.
    pub fn share(&self, key: K) -> Option<Share> {
        self.peers.get(&key)?.share
    }

    /// Whether a peer may probe: one member probes for all, that with the largest share of those whose
    /// rate is not kept low by losses.
    pub fn may_probe(&self, key: K) -> bool {
        if self.share(key).is_none() {
            return true;
        }
        let able = self.peers.iter().filter(|(_, peer)| !peer.is_held && !peer.is_blind);
        let shares = able.filter_map(|(key, peer)| Some((peer.share?.target, *key)));
        let largest = shares.max_by_key(|(target, key)| (*target, std::cmp::Reverse(*key)));
        largest.is_some_and(|(_, prober)| prober == key)
    }

    /// Raises the sum while much of it is not used and no member sees a queue, as an estimator raises
    /// its target: up to 1.5 times what arrives. Members whose layers need less than their shares
    /// cannot.
    fn grow(&mut self, now: MediaTime) {
        let elapsed = self.grown_at.replace(now).map_or(0.0, |at| now.since(at).as_secs_f64());
        let members = || self.peers.values().filter(|peer| peer.share.is_some());
        let is_calm = |peer: &Peer| {
            let overused = peer.overused_at.filter(|_| !peer.is_held);
            peer.queue <= SHORT_QUEUE && overused.is_none_or(|at| now.since(at) > CALM)
        };
        let acknowledged = self.arriving();
        if acknowledged < USED * self.sum && members().all(is_calm) {
            let grown = self.sum * GROWTH.powf(elapsed.min(1.0));
            self.sum = grown.min(MAX_UNPROVED * acknowledged).max(self.sum);
        }
    }

    /// The rate at which the packets of all members arrive.
    fn arriving(&self) -> f64 {
        self.peers.values().filter(|peer| peer.share.is_some()).map(|peer| peer.acknowledged).sum()
    }

    /// Gives shares to new members, and takes them from those that left. Returns the latter.
    fn follow_membership(&mut self) -> Vec<(K, Option<Share>)> {
        let mut left = vec![];
        let was_empty = self.peers.values().all(|peer| peer.share.is_none());
        for (key, peer) in &mut self.peers {
            let is_member = self.uplink.contains(*key);
            match (peer.share, peer.reported) {
                (None, Some((target, _))) if is_member => {
                    // Who comes later uses no more of the uplink than what arrives.
                    let bps = if was_empty { target } else { target.min(peer.acknowledged) };
                    let target = Bitrate::from_bps(target as u64);
                    peer.share = Some(Share { target, probe_limit: target, video: None });
                    self.sum += bps;
                }
                (Some(share), _) if !is_member => {
                    self.sum -= share.target.as_bps() as f64;
                    peer.share = None;
                    left.push((*key, None));
                }
                (None | Some(_), _) => {}
            }
        }
        if was_empty {
            let members = || self.peers.values().filter(|peer| peer.share.is_some());
            let arrives: f64 = members().map(|peer| peer.acknowledged).sum();
            let is_full = members().any(|peer| peer.queue > SHORT_QUEUE);
            if is_full && arrives > 0.0 {
                self.sum = self.sum.min(FIRST * arrives);
            }
        }
        left
    }

    /// Divides the sum. Returns the shares that changed.
    fn distribute(&mut self) -> Vec<(K, Option<Share>)> {
        let members = self.peers.iter().filter(|(_, peer)| peer.share.is_some());
        let members: Vec<_> = members.map(|(key, peer)| (*key, (peer.setup, peer.rank))).collect();
        if members.is_empty() {
            self.sum = 0.0;
            return vec![];
        }
        self.sum = self.sum.max(members.len() as f64 * LEAST_BPS);
        let setups: Vec<_> = members.iter().map(|(_, member)| *member).collect();
        let mut changed = vec![];
        for ((key, _), share) in members.into_iter().zip(shares::divide(&setups, self.sum)) {
            let Some(peer) = self.peers.get_mut(&key) else { continue };
            if peer.share.is_none_or(|before| !before.is_like(&share)) || peer.has_moved() {
                let share = share.after(peer.share);
                peer.share = Some(share);
                changed.push((key, Some(share)));
            }
        }
        changed
    }

    /// Whether the members have wanted clearly less than the sum for a while.
    fn is_spare(&mut self, now: MediaTime) -> bool {
        let members = self.peers.values().filter(|peer| peer.share.is_some());
        let wanted: f64 = members.map(|peer| peer.setup.desired.as_bps() as f64).sum();
        if wanted >= SPARE * self.sum {
            self.spare_since = None;
            return false;
        }
        now.since(*self.spare_since.get_or_insert(now)) >= SPARE_TIME
    }
}

#[cfg(test)]
mod tests;
