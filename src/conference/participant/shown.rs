//! What we show of a participant's videos.

use super::{ConnectionPhase, Participant};
use crate::model::{PerSource, ShownSize};

impl Participant {
    /// Sets at which size we show the participant's videos.
    pub(in crate::conference) fn set_shown(&mut self, sizes: PerSource<Option<ShownSize>>) {
        if let ConnectionPhase::Open(peer) = &mut self.connection {
            peer.set_shown(sizes);
        }
    }
}
