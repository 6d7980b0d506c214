//! Counts the audio that was concealed, by its cause.

use super::audio_receiver::{
    CONCEAL_FADE_OUT_SAMPLES, CONCEAL_FULL_GAIN_SAMPLES, TYPICAL_PACKET_SAMPLES,
};

/// Why audio was concealed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cause {
    /// No packet is held: those that are due are lost, or late.
    Empty,
    /// The packet is missing, and the next one has no FEC data of it.
    NoFec,
    /// Two packets or more in a row are missing; the last of them may be had by FEC.
    LongGap,
    /// The packet cannot be decoded.
    Undecodable,
    /// The sender pauses. This is not counted.
    Pause,
}

/// Concealed samples of 48 kHz, by their cause.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ConcealmentCauses {
    /// No packet was held: those that were due were lost, or late.
    pub empty: u64,
    /// A packet was missing, and the next one had no FEC data of it.
    pub no_fec: u64,
    /// Two packets or more in a row were missing.
    pub long_gap: u64,
    /// A packet could not be decoded.
    pub undecodable: u64,
    /// The stream had stopped: nothing was played, and packets turned out to be lost.
    pub stopped: u64,
}

impl ConcealmentCauses {
    /// What was concealed since `earlier`.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            empty: self.empty - earlier.empty,
            no_fec: self.no_fec - earlier.no_fec,
            long_gap: self.long_gap - earlier.long_gap,
            undecodable: self.undecodable - earlier.undecodable,
            stopped: self.stopped - earlier.stopped,
        }
    }

    /// The same in milliseconds, rounded down.
    #[must_use]
    pub const fn in_ms(&self) -> Self {
        Self {
            empty: self.empty / 48,
            no_fec: self.no_fec / 48,
            long_gap: self.long_gap / 48,
            undecodable: self.undecodable / 48,
            stopped: self.stopped / 48,
        }
    }
}

/// Counts concealed samples. A pause of the sender is not counted. The sequence numbers distinguish
/// it from a loss, but only when the stream continues.
#[derive(Debug, Default)]
pub(super) struct Concealment {
    causes: ConcealmentCauses,
    lost_at_stop: u64,
}

impl Concealment {
    /// Counts concealed samples.
    pub(super) const fn add(&mut self, samples: u64, cause: Cause) {
        let count = match cause {
            Cause::Empty => &mut self.causes.empty,
            Cause::NoFec => &mut self.causes.no_fec,
            Cause::LongGap => &mut self.causes.long_gap,
            Cause::Undecodable => &mut self.causes.undecodable,
            Cause::Pause => return,
        };
        *count += samples;
    }

    /// All concealed samples.
    pub(super) const fn samples(&self) -> u64 {
        let ConcealmentCauses { empty, no_fec, long_gap, undecodable, stopped } = self.causes;
        empty + no_fec + long_gap + undecodable + stopped
    }

    /// The concealed samples by their cause.
    pub(super) const fn causes(&self) -> ConcealmentCauses {
        self.causes
    }

    /// The stream stops, after so many lost packets.
    pub(super) const fn on_stop(&mut self, lost: u64) {
        self.lost_at_stop = lost;
    }

    /// The stream continues, after so many lost packets.
    pub(super) fn on_resume(&mut self, lost: u64) {
        // The first of the lost packets were concealed, and counted, before the stop.
        let concealed =
            (CONCEAL_FULL_GAIN_SAMPLES + CONCEAL_FADE_OUT_SAMPLES) / TYPICAL_PACKET_SAMPLES;
        let silent = lost.saturating_sub(self.lost_at_stop).saturating_sub(concealed as u64);
        if self.samples() > 0 {
            self.causes.stopped += silent * TYPICAL_PACKET_SAMPLES as u64;
        }
    }
}
