//! Measures the tones in received audio beside the engine's task: a Fourier transform takes
//! milliseconds, and everything else would wait for it.

use std::collections::BTreeMap;

use tokio::{sync::oneshot, task::spawn_blocking};

use super::remote_media::ParticipantKey;
use crate::{model::Stats, playback::ToneTap};

/// Statistics whose tones are not measured yet.
#[derive(Debug)]
pub(super) struct UnmeasuredStats {
    /// The statistics without tones.
    pub(super) stats: Stats,
    /// What to measure; empty unless tones are measured.
    pub(super) tones: BTreeMap<ParticipantKey, ToneTap>,
}

impl UnmeasuredStats {
    /// Sends the statistics with the tones; does not wait. Must be called in a Tokio runtime.
    pub(super) fn reply(self, reply: oneshot::Sender<Stats>) {
        if self.tones.is_empty() {
            // The requester may have gone meanwhile.
            drop(reply.send(self.stats));
        } else {
            spawn_blocking(move || drop(reply.send(self.measured())));
        }
    }

    /// The statistics with the tones. Takes some milliseconds for each.
    fn measured(mut self) -> Stats {
        for session in &mut self.stats.sessions {
            for participant in &mut session.participants {
                let key = (session.session.clone(), participant.participant.clone());
                if let (Some(audio), Some(tone)) = (&mut participant.audio, self.tones.get(&key)) {
                    audio.tone_hz = tone.tone_hz();
                }
            }
        }
        self.stats
    }
}
