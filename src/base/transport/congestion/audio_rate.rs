//! How much of a path the audio uses.

use std::time::Duration;

use crate::{
    bandwidth::AUDIO_WIRE_RATE,
    model::{Bitrate, MediaTime},
};

/// The rate on the wire of the audio that one connection sends, with all copies in it. It rises at
/// once, and falls by a fifth a second: after a pause a voice has its room.
#[derive(Debug)]
pub(super) struct AudioRate {
    rate: Bitrate,
    /// The bytes of the current second, and its begin.
    bytes: u64,
    since: Option<MediaTime>,
}

/// The time that is measured.
const PERIOD: Duration = Duration::from_secs(1);

/// What is left of the rate after each period, if less was sent.
const FALL: f64 = 0.8;

impl AudioRate {
    /// Of a connection that has sent nothing yet.
    pub(super) const fn new() -> Self {
        Self { rate: AUDIO_WIRE_RATE, bytes: 0, since: None }
    }

    /// A packet of audio leaves, of so many bytes on the wire. Returns the rate if it was measured: at
    /// least `least`.
    pub(super) fn on_sent(
        &mut self,
        bytes: u32,
        now: MediaTime,
        least: Bitrate,
    ) -> Option<Bitrate> {
        let begin = *self.since.get_or_insert(now);
        let elapsed = now.since(begin);
        let measured = (elapsed >= PERIOD).then(|| self.bytes as f64 * 8.0 / elapsed.as_secs_f64());
        if measured.is_some() {
            (self.bytes, self.since) = (0, Some(now));
        }
        self.bytes += u64::from(bytes);
        let rate = Bitrate::from_bps(measured?.max(self.rate.as_bps() as f64 * FALL) as u64);
        self.rate = rate.max(least);
        Some(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_at_once_and_falls_slowly_to_that_of_a_voice_without_copies() {
        let (mut audio, mut packets) = (AudioRate::new(), 0);
        let mut send = |bytes: u32, seconds: u64| {
            for _ in 0..seconds * 50 {
                audio.on_sent(bytes, MediaTime::from_micros(packets * 20_000), AUDIO_WIRE_RATE);
                packets += 1;
            }
            audio.rate.as_bps() / 1000
        };
        let voice = AUDIO_WIRE_RATE.as_bps() / 1000;
        assert_eq!(send(164, 2), voice);
        assert_eq!(send(364, 2), 145, "with two copies");
        assert_eq!(send(364, 10), 145);
        assert_eq!(send(64, 2), 116);
        assert_eq!(send(64, 10), voice);
    }
}
