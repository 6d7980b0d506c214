//! The round trip time.

use std::time::Duration;

use super::history::Outcome;
use crate::model::MediaTime;

/// The smoothed round trip time: measured by others (ICE), or else from the reports.
#[derive(Debug, Default)]
pub(super) struct RoundTrip {
    measured: Option<Duration>,
    /// From the reports. It contains the time that the other end waits before it reports.
    reported: Option<Duration>,
}

/// What is assumed at first.
const ASSUMED: Duration = Duration::from_millis(200);

impl RoundTrip {
    /// The time that was found; `None` before.
    pub(super) fn known(&self) -> Option<Duration> {
        self.measured.or(self.reported)
    }

    /// The time to reckon with.
    pub(super) fn smoothed(&self) -> Duration {
        self.known().unwrap_or(ASSUMED)
    }

    pub(super) fn on_measured(&mut self, sample: Duration) {
        self.measured = Some(self.measured.map_or(sample, |old| old * 7 / 8 + sample / 8));
    }

    pub(super) fn on_report(&mut self, outcome: &Outcome, now: MediaTime) {
        let sample = outcome.received.iter().map(|packet| now.since(packet.sent.at)).max();
        if let Some(sample) = sample {
            let old = self.reported.unwrap_or(ASSUMED);
            self.reported = Some(old * 9 / 10 + sample / 10);
        }
    }
}
