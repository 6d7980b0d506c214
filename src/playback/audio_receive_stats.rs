//! The receive statistics of an audio stream.

use std::time::Duration;

use super::receive_stats::JitterBufferDelay;
use crate::{
    audio::{SILENCE_DBFS, linear_level},
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
    pub(super) const fn stats(&self) -> AudioStats {
        let concealed = Duration::from_micros(self.concealed_samples * 1000 / 48);
        AudioStats {
            packets: self.packets,
            lost: self.lost,
            concealed_ms: concealed.as_millis() as u64,
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
