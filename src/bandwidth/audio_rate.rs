//! The rate at which audio leaves.

use std::{collections::VecDeque, time::Duration};

use crate::model::{Bitrate, MediaTime};

/// Measures the rate of audio on the wire: the most of the last four half seconds. It follows copies
/// of packets, other rates of the encoder and silence.
///
/// While nothing at all is sent, it stays as it was.
#[derive(Debug, Default)]
pub(super) struct AudioRate {
    /// The begin of the current half second.
    since: Option<MediaTime>,
    bytes: u64,
    /// Of the half seconds before it, the newest last.
    rates: VecDeque<Bitrate>,
}

/// Ten packets of 40 ms are 3 % off at most.
const WINDOW: Duration = Duration::from_millis(500);

/// The half seconds that count.
const WINDOWS: usize = 4;

impl AudioRate {
    /// Notes a packet of any kind, and the bytes of audio in it.
    pub(super) fn on_sent(&mut self, audio_bytes: u32, at: MediaTime) {
        let since = *self.since.get_or_insert(at);
        let span = at.since(since);
        if span >= WINDOW {
            let rate = self.bytes as f64 * 8.0 / span.as_secs_f64();
            if self.rates.len() >= WINDOWS {
                self.rates.pop_front();
            }
            self.rates.push_back(Bitrate::from_bps(rate as u64));
            (self.since, self.bytes) = (Some(at), 0);
        }
        self.bytes += u64::from(audio_bytes);
    }

    /// The rate; `None` in the first half second, and where no audio was sent so far.
    pub(super) fn rate(&self) -> Option<Bitrate> {
        self.rates.iter().max().copied().filter(|rate| rate.as_bps() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends packets of audio every 20 ms, beside others, for so long.
    fn send(rate: &mut AudioRate, bytes: u32, ms: std::ops::Range<u64>) -> Option<u64> {
        for at in ms.step_by(10) {
            let audio = if at % 20 == 0 { bytes } else { 0 };
            rate.on_sent(audio, MediaTime::from_micros(at * 1000));
        }
        rate.rate().map(|rate| rate.as_bps() / 1000)
    }

    #[test]
    fn the_rate_follows_copies_at_once_and_silence_after_two_seconds() {
        let mut rate = AudioRate::default();
        assert_eq!(send(&mut rate, 165, 0..490), None);
        assert_eq!(send(&mut rate, 165, 490..3000), Some(66));
        assert_eq!(send(&mut rate, 265, 3000..4000), Some(106));
        assert_eq!(send(&mut rate, 165, 4000..5500), Some(106));
        assert_eq!(send(&mut rate, 165, 5500..6600), Some(66));
        assert_eq!(send(&mut rate, 0, 6600..9000), None);
    }
}
