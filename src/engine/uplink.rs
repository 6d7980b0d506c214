//! The uplink of this machine, which its peer connections share.
//!
//! A task of its own passes the estimates of all connections to the governor ten times a second,
//! and its shares back. It shares a lock with the engine's task and with those of the video layers,
//! for microseconds.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::ticks::{OwnedTask, tick_unless_idle};
use crate::{
    bandwidth::{
        AUDIO_WIRE_RATE, Estimate, GovernedPeer, Governor, LayerCost, Precedence, PriorityClass,
        Share,
    },
    conference::SessionPriority,
    media::now,
    model::{Bitrate, MediaTime, PeerId, Topology},
    transport::{Connection, ProbeTurns, RateControl},
};

/// Divides the uplink among peer connections, and lets one of them probe at a time. Dropping it ends
/// its task; the connections keep their shares.
#[derive(Debug, Default)]
pub struct Uplink {
    shared: Arc<Shared>,
    task: OwnedTask,
}

/// What a connection would send.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct UplinkNeeds {
    /// The rate on the wire of its audio.
    pub audio: Bitrate,
    /// The rates on the wire of the layers of its video, the smallest first, up to the highest one
    /// that is wanted.
    pub layers: [Option<LayerCost>; 3],
    /// The most that it could use on the wire.
    pub desired: Bitrate,
}

/// Told when the uplink becomes full, and when it is not any more. It must not block.
pub(super) type FullReport = Box<dyn Fn(bool) + Send>;

/// A connection that uses the uplink, until this is dropped.
#[derive(Debug)]
pub struct UplinkMember {
    shared: Arc<Shared>,
    peer: PeerId,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Notified when there is a first connection.
    has_peers: Notify,
}

#[derive(Default)]
struct State {
    governor: Governor<PeerId>,
    peers: BTreeMap<PeerId, UplinkPeer>,
    turns: ProbeTurns,
    /// Whether it was full at the last look.
    was_full: bool,
    report_full: Option<FullReport>,
}

#[derive(Debug)]
struct UplinkPeer {
    setup: GovernedPeer,
    estimates: watch::Receiver<Estimate>,
    control: RateControl,
}

impl UplinkNeeds {
    /// Audio alone.
    const AUDIO: Self =
        Self { audio: AUDIO_WIRE_RATE, layers: [None; 3], desired: AUDIO_WIRE_RATE };
}

/// Whose turn it is in a session. A person may have raised it by one class, or within the highest
/// one.
pub fn class_and_precedence(session: SessionPriority) -> (PriorityClass, Precedence) {
    let SessionPriority { kind, is_raised, is_spoken_in } = session;
    let usual = match kind.topology {
        Topology::OneToOne | Topology::ManyToMany => PriorityClass::Conference,
        Topology::OneToMany => PriorityClass::Star,
        Topology::OneWay => PriorityClass::OneWay,
    };
    let class = if is_raised { usual.lifted() } else { usual };
    let precedence = if is_raised && class == usual {
        Precedence::Raised
    } else if is_spoken_in {
        Precedence::Speaking
    } else {
        Precedence::Usual
    };
    (class, precedence)
}

impl Uplink {
    /// Sets what is told when the uplink becomes full, and when it is not any more.
    pub(super) fn set_full_report(&self, report: FullReport) {
        self.shared.lock().report_full = Some(report);
    }

    /// Adds a connection, which sends audio until [`UplinkMember::needs`] tells more. The first call
    /// starts the task.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn add(
        &mut self,
        peer: PeerId,
        connection: &Connection,
        (class, precedence): (PriorityClass, Precedence),
    ) -> UplinkMember {
        self.task.start_once(|| run(Arc::clone(&self.shared)));
        let control = connection.rate_control();
        let mut state = self.shared.lock();
        control.set_probe_turns(&state.turns);
        let UplinkNeeds { audio, layers, desired } = UplinkNeeds::AUDIO;
        let setup = GovernedPeer { class, precedence, audio, layers, screen: None, desired };
        let added = UplinkPeer { setup, estimates: connection.estimates(), control };
        state.governor.set_peer(peer, setup);
        state.peers.insert(peer, added);
        drop(state);
        self.shared.has_peers.notify_one();
        UplinkMember { shared: Arc::clone(&self.shared), peer }
    }

    /// The share of a connection; `None` if it has a bottleneck of its own.
    pub fn share(&self, peer: PeerId) -> Option<Share> {
        self.shared.lock().governor.share(peer)
    }

    /// The number of connections that share the uplink: it limits them.
    pub fn governed(&self) -> usize {
        let state = self.shared.lock();
        state.peers.keys().filter(|peer| state.governor.share(**peer).is_some()).count()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl UplinkMember {
    /// Changes whose turn it is.
    pub fn set_priority(&self, (class, precedence): (PriorityClass, Precedence)) {
        self.shared.lock().change(self.peer, |setup| {
            (setup.class, setup.precedence) = (class, precedence);
        });
    }

    /// Returns a function that tells what it would send.
    pub fn needs(&self) -> impl Fn(UplinkNeeds) + Send + use<> {
        let (shared, peer) = (Arc::clone(&self.shared), self.peer);
        move |UplinkNeeds { audio, layers, desired }| {
            shared.lock().change(peer, |setup| {
                (setup.audio, setup.layers, setup.desired) = (audio, layers, desired);
            });
        }
    }
}

impl Drop for UplinkMember {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.peers.remove(&self.peer);
        state.governor.remove(self.peer);
        // The task sleeps while there is no peer.
        if state.peers.is_empty() {
            state.follow_fullness(false);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Divides the uplink again and again, while there are connections.
async fn run(shared: Arc<Shared>) {
    let is_idle = || shared.lock().peers.is_empty();
    tick_unless_idle(&shared.has_peers, is_idle, || shared.lock().tick(now())).await;
}

impl State {
    fn change(&mut self, peer: PeerId, change: impl FnOnce(&mut GovernedPeer)) {
        if let Some(known) = self.peers.get_mut(&peer) {
            let before = known.setup;
            change(&mut known.setup);
            if known.setup != before {
                self.governor.set_peer(peer, known.setup);
            }
        }
    }

    /// Tells a change of whether the uplink is full.
    fn follow_fullness(&mut self, is_full: bool) {
        if std::mem::replace(&mut self.was_full, is_full) != is_full {
            tracing::info!(is_full, "the upload");
            if let Some(report) = &self.report_full {
                report(is_full);
            }
        }
    }

    fn tick(&mut self, now: MediaTime) {
        for (peer, UplinkPeer { estimates, .. }) in &mut self.peers {
            // Of who has reported nothing yet, nothing is known.
            if estimates.has_changed().unwrap_or(false) {
                let estimate = *estimates.borrow_and_update();
                if estimate.acknowledged.is_some() {
                    self.governor.on_estimate(*peer, &estimate, now);
                }
            }
        }
        for (peer, share) in self.governor.update(now) {
            if let Some(peer) = self.peers.get(&peer) {
                peer.control.set_share(share);
            }
        }
        for (peer, UplinkPeer { control, .. }) in &self.peers {
            control.set_may_probe(self.governor.may_probe(*peer));
        }
        let arriving = self.peers.values().filter_map(|peer| peer.estimates.borrow().acknowledged);
        self.turns.set_arriving(Bitrate::from_bps(arriving.map(Bitrate::as_bps).sum()));
        self.follow_fullness(self.governor.is_full());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::SessionKind;

    #[test]
    fn conferences_come_before_stars_and_broadcasts_and_a_person_may_raise_one() {
        let turn = |topology, is_raised, is_spoken_in| {
            let kind = SessionKind { topology, ..SessionKind::FIVE[0] };
            class_and_precedence(SessionPriority { kind, is_raised, is_spoken_in })
        };
        let class = |topology, is_raised| turn(topology, is_raised, false).0;
        assert_eq!(class(Topology::OneToOne, false), PriorityClass::Conference);
        assert_eq!(class(Topology::ManyToMany, true), PriorityClass::Conference);
        assert_eq!(class(Topology::OneToMany, false), PriorityClass::Star);
        assert_eq!(class(Topology::OneToMany, true), PriorityClass::Conference);
        assert_eq!(class(Topology::OneWay, false), PriorityClass::OneWay);
        assert_eq!(class(Topology::OneWay, true), PriorityClass::Star);
        let precedence =
            |topology, is_raised, is_spoken_in| turn(topology, is_raised, is_spoken_in).1;
        assert_eq!(precedence(Topology::ManyToMany, true, true), Precedence::Raised);
        assert_eq!(precedence(Topology::OneToMany, true, false), Precedence::Usual);
        assert_eq!(precedence(Topology::OneToMany, true, true), Precedence::Speaking);
        assert_eq!(precedence(Topology::OneWay, false, false), Precedence::Usual);
    }
}
