//! What limits the rate of a connection, for who does not have the connection.

use std::sync::{Arc, Mutex, PoisonError};

use super::congestion::BandwidthControl;
use crate::{
    bandwidth::{ProbeToken, Share},
    model::{Bitrate, MediaTime, PeerId},
};

/// Limits the rate of a connection, which may have ended. Any thread may use it; the connection
/// follows within a tenth of a second, while it sends.
#[derive(Clone, Debug)]
pub struct RateControl(pub(super) Arc<BandwidthControl>);

impl RateControl {
    /// Sets the share of this machine's uplink that the connection has; `None` for no limit.
    pub fn set_share(&self, share: Option<Share>) {
        self.0.set_ceiling(share.map(|share| share.target));
        self.0.set_probe_limit(share.map(|share| share.probe_limit));
    }

    /// Sets whether the connection may probe for more bandwidth: of those that share an uplink, one
    /// should.
    pub fn set_may_probe(&self, may_probe: bool) {
        self.0.set_may_probe(may_probe);
    }

    /// Lets the connection take turns with others that have the same turns. Once they are set they
    /// stay.
    pub fn set_probe_turns(&self, turns: &ProbeTurns) {
        self.0.set_probe_turns(turns.clone());
    }
}

/// Whose turn it is to probe, of the connections of a machine. Clones are the same.
///
/// The connections ask for their turns themselves when they have something to probe for: with a
/// grant from elsewhere each first probe would come a tenth of a second later, and with it the whole picture.
#[derive(Clone, Debug, Default)]
pub struct ProbeTurns(Arc<Mutex<ProbeToken<PeerId>>>);

impl ProbeTurns {
    /// Takes the turn, if nobody has it.
    pub(super) fn acquire(&self, peer: PeerId, now: MediaTime) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).acquire(peer, now)
    }

    /// Notes the rate at which packets of all these connections arrive. The more that is, the shorter are
    /// the turns.
    pub fn set_arriving(&self, rate: Bitrate) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set_arriving(rate);
    }

    /// When the last turn ends or has ended.
    pub(super) fn next(&self) -> Option<MediaTime> {
        let token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        token.free_at(MediaTime::default())
    }
}
