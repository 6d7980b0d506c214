//! The receive statistics of an audio stream.

use super::receive_stats::JitterBufferDelay;
use crate::{
    audio::{SILENCE_DBFS, linear_level},
    media::AUDIO_RATE,
    model::{AudioPlayoutStats, AudioStats},
};

/// The receive statistics of one audio stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct AudioReceiveStats {
    /// Packets that arrived.
    pub(super) packets: u64,
    /// Packets that did not arrive.
    pub(super) lost: u64,
    pub(super) concealed_samples: u64,
    pub(super) total_samples: u64,
    pub(super) jitter_delay: JitterBufferDelay,
    /// The level of the last second.
    pub(super) level_dbfs: f64,
}

impl Default for AudioReceiveStats {
    /// Of a stream of which nothing was received.
    fn default() -> Self {
        Self {
            packets: 0,
            lost: 0,
            concealed_samples: 0,
            total_samples: 0,
            jitter_delay: JitterBufferDelay::default(),
            level_dbfs: SILENCE_DBFS,
        }
    }
}

impl AudioReceiveStats {
    /// The statistics without the tone.
    pub(super) fn stats(&self) -> AudioStats {
        let ms = |samples: u64| samples / u64::from(AUDIO_RATE / 1000);
        let (concealed_ms, played_ms) = (ms(self.concealed_samples), ms(self.total_samples));
        AudioStats {
            packets: self.packets,
            lost: self.lost,
            concealed_ms,
            played_ms,
            concealed_share: AudioStats::share(concealed_ms, played_ms),
            level_dbfs: self.level_dbfs,
            tone_hz: None,
        }
    }

    /// The statistics in the terms of W3C webrtc-stats.
    pub(super) fn playout_stats(&self) -> AudioPlayoutStats {
        AudioPlayoutStats {
            total_samples_received: self.total_samples,
            concealed_samples: self.concealed_samples,
            audio_level: linear_level(self.level_dbfs),
            jitter_buffer: self.jitter_delay.stats(),
        }
    }
}
