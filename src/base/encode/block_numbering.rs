//! The numbers of captured samples, by the times of capture.

use crate::{
    media::{AUDIO_RATE, BLOCK_SAMPLES},
    model::{AudioLayer, MediaTime},
};

/// Numbers blocks of 10 ms in samples, so that RTP timestamps stay in step with time. After lost
/// blocks, which show as a gap in the capture times, the number skips as many whole packets of 20 ms.
#[derive(Debug, Default)]
pub(super) struct BlockNumbering {
    /// The capture time that the next block should have.
    expected_time: Option<MediaTime>,
    next: u64,
    /// Microseconds of earlier gaps that were not a multiple of a packet.
    gap_remainder_micros: i64,
}

/// The unit in which numbers are skipped: 20 ms.
const PACKET_SAMPLES: u64 = AudioLayer::Standard.packet_samples();

/// A block that starts this much later than the end of the previous one follows a gap.
///
/// Three blocks: more than the jitter of a capture thread, less than an audible gap.
const GAP_MICROS: u64 = 30_000;

impl BlockNumbering {
    /// The number of the first sample of the next block, which was captured at `time`.
    pub(super) fn number(&mut self, time: MediaTime) -> u64 {
        let block_micros = BLOCK_SAMPLES as u64 * 1_000_000 / u64::from(AUDIO_RATE);
        let expected = self.expected_time.unwrap_or(time);
        self.expected_time = Some(MediaTime::from_micros(time.as_micros() + block_micros));
        let gap = time.as_micros().saturating_sub(expected.as_micros());
        if gap >= GAP_MICROS {
            self.skip(gap, 2 * block_micros as i64);
        }
        let number = self.next;
        self.next += BLOCK_SAMPLES as u64;
        number
    }

    fn skip(&mut self, gap: u64, packet_micros: i64) {
        // The half packet before the gap is dropped, too.
        let half = self.next % PACKET_SAMPLES;
        let half_micros = half * 1_000_000 / u64::from(AUDIO_RATE);
        let lost = (gap + half_micros) as i64 + self.gap_remainder_micros;
        let packets = (lost + packet_micros / 2) / packet_micros;
        self.gap_remainder_micros = lost - packets * packet_micros;
        self.next = self.next - half + packets as u64 * PACKET_SAMPLES;
    }
}
