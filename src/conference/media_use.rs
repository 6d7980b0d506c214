//! What peer connections use of our devices, counted, so that a change of one needs no look at the
//! others.

use super::peer::Peer;
use crate::model::{PerSource, Source};

/// What one or several peer connections use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct MediaUse {
    /// The sources that they send.
    pub(super) sends: PerSource<bool>,
    /// Those of them that the remote peer receives now.
    pub(super) delivers: PerSource<bool>,
    /// Whether they may receive audio.
    pub(super) receives_audio: bool,
    /// Whether a remote peer hears us as soon as no switch mutes our microphone.
    pub(super) may_send_audio: bool,
}

/// How many peer connections use what.
#[derive(Debug, Default)]
pub(super) struct MediaUseCounts {
    sends: PerSource<usize>,
    delivers: PerSource<usize>,
    receives_audio: usize,
    may_send_audio: usize,
}

impl MediaUse {
    /// What a connection uses. `is_live` tells whether media arrives there.
    pub(super) fn of(peer: &Peer, is_live: bool) -> Self {
        let sends = peer.sending();
        let delivers = if is_live { sends } else { PerSource::NONE };
        let may_send_audio = is_live && peer.may_send_audio();
        Self { sends, delivers, receives_audio: peer.receives_audio(), may_send_audio }
    }
}

impl MediaUseCounts {
    /// Replaces what one connection uses.
    pub(super) fn replace(&mut self, before: MediaUse, after: MediaUse) {
        for source in Source::ALL {
            replace(&mut self.sends[source], before.sends[source], after.sends[source]);
            replace(&mut self.delivers[source], before.delivers[source], after.delivers[source]);
        }
        replace(&mut self.receives_audio, before.receives_audio, after.receives_audio);
        replace(&mut self.may_send_audio, before.may_send_audio, after.may_send_audio);
    }

    /// What at least one connection uses.
    pub(super) fn any(&self) -> MediaUse {
        MediaUse {
            sends: self.sends.map(|count| count > 0),
            delivers: self.delivers.map(|count| count > 0),
            receives_audio: self.receives_audio > 0,
            may_send_audio: self.may_send_audio > 0,
        }
    }
}

fn replace(count: &mut usize, before: bool, after: bool) {
    *count = *count + usize::from(after) - usize::from(before);
}
