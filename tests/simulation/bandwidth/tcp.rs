//! A download beside a call: TCP with one long flow, clocked by its acknowledgements.

use std::time::Duration;

use quintet::model::MediaTime;

use super::network::seconds;

/// A sender of TCP: Cubic (RFC 9438) or Reno (RFC 5681), without timeouts.
pub(crate) struct Tcp {
    pub(crate) is_cubic: bool,
    pub(crate) until: f64,
    window: f64,
    slow_start_to: f64,
    in_flight: u32,
    largest: f64,
    epoch: Option<f64>,
    deaf_until: f64,
    pub(crate) received: Vec<(f64, u32, bool)>,
}

pub(crate) const SEGMENT: u32 = 1500;

/// The round trip without the queue, and when a loss is noticed after that.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(100);
pub(crate) const LOSS_NOTICE: Duration = Duration::from_millis(400);

impl Tcp {
    pub(crate) fn new(is_cubic: bool, until: f64) -> Self {
        Self {
            is_cubic,
            until,
            window: 10.0,
            slow_start_to: f64::INFINITY,
            in_flight: 0,
            largest: 0.0,
            epoch: None,
            deaf_until: 0.0,
            received: vec![],
        }
    }

    /// Takes a segment, if one may leave.
    pub(crate) fn take_segment(&mut self, now: MediaTime) -> bool {
        let may_send = seconds(now) < self.until && f64::from(self.in_flight) < self.window.floor();
        self.in_flight += u32::from(may_send);
        may_send
    }

    pub(crate) fn on_acknowledgement(&mut self, now: MediaTime) {
        self.in_flight -= 1;
        if self.window < self.slow_start_to {
            self.window += 1.0;
        } else if self.is_cubic {
            let at = seconds(now);
            if self.epoch.is_none() {
                self.largest = self.largest.max(self.window);
            }
            let since = at - *self.epoch.get_or_insert(at);
            let turn = (self.largest * 0.3 / 0.4).cbrt();
            let wanted = 0.4 * (since + ROUND_TRIP.as_secs_f64() - turn).powi(3) + self.largest;
            let step = (wanted - self.window).max(0.01);
            self.window += if wanted > self.window { step } else { 0.5 } / self.window;
        } else {
            self.window += 1.0 / self.window;
        }
    }

    pub(crate) fn on_loss(&mut self, now: MediaTime) {
        self.in_flight -= 1;
        let at = seconds(now);
        if at > self.deaf_until {
            self.largest = self.window;
            self.window = (self.window * if self.is_cubic { 0.7 } else { 0.5 }).max(2.0);
            self.slow_start_to = self.window;
            self.epoch = self.is_cubic.then_some(at);
            self.deaf_until = at + LOSS_NOTICE.as_secs_f64();
        }
    }
}
