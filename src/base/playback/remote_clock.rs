//! The clock of a remote sender: when the media of an RTP timestamp was captured.

use std::{collections::VecDeque, time::Duration};

use crate::media::SenderReport;

/// Maps the RTP timestamps of one stream to times of capture on the sender's wall clock, from its
/// sender reports (RFC 3550, section 6.4.1). Pure.
///
/// The map is a line through the last eight reports (least squares), so that reports which are
/// written a little early or late do not move it. It follows a sender whose sampling clock is not
/// exact. Reports that contradict the others count for nothing: a time that stands still, one that
/// is far from the line, and a jump of more than a second, until a second report agrees with it.
#[derive(Debug)]
pub(crate) struct RemoteClock {
    /// RTP timestamps per second.
    rate: i64,
    /// The latest reports, oldest first.
    reports: VecDeque<Point>,
    /// A report that is far from the others.
    suspect: Option<Point>,
    line: Option<Line>,
    newest: Option<SenderReport>,
}

/// A report: the wall clock, and how much earlier it would be if the timestamps alone were counted.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// The time in microseconds since 1900.
    micros: i64,
    /// The timestamp, without wraps.
    stamp: i64,
}

/// The map, relative to its newest point.
#[derive(Clone, Copy, Debug)]
struct Line {
    origin: Point,
    /// Microseconds that the line is above its origin.
    offset: f64,
    /// Microseconds per microsecond of the timestamps.
    slope: f64,
}

impl RemoteClock {
    /// The reports of which the line is made.
    const REPORTS: usize = 8;

    /// The fewest reports that make a line: one alone may be wrong.
    const FEWEST: usize = 2;

    /// A report further away from the median of the others is left out.
    const MAX_RESIDUAL: i64 = 50_000;

    /// A jump that needs a second report to be believed.
    const MAX_JUMP: i64 = 1_000_000;

    /// The most that a sampling clock differs from its nominal rate: 1000 ppm. A steeper line comes
    /// from reports that are written at uneven times.
    const MAX_DRIFT: f64 = 1e-3;

    /// A clock with that many RTP timestamps per second.
    pub(crate) fn new(rate: u32) -> Self {
        let reports = VecDeque::with_capacity(Self::REPORTS);
        Self { rate: i64::from(rate), reports, suspect: None, line: None, newest: None }
    }

    /// Takes the newest sender report. The same one again changes nothing.
    pub(crate) fn record(&mut self, report: SenderReport) {
        if self.newest == Some(report) {
            return;
        }
        let before = self.newest.replace(report);
        // A time of zero means that there is no clock (RFC 3550, section 6.4.1).
        if report.ntp == 0 || before.is_some_and(|before| before.ntp == report.ntp) {
            return;
        }
        let stamp = self.unwrap(report.rtp);
        self.add(Point { micros: ntp_micros(report.ntp), stamp });
        self.line = self.fit();
    }

    /// When the media of that timestamp was captured, in microseconds on the sender's wall clock;
    /// `None` before two reports agree.
    pub(crate) fn capture_micros(&self, timestamp: u32) -> Option<i64> {
        let Line { origin, offset, slope } = self.line?;
        let ticks = i64::from(timestamp.wrapping_sub(origin.stamp as u32) as i32);
        let micros = ticks as f64 * 1e6 / self.rate as f64;
        Some(origin.micros + (offset + slope * micros).round() as i64)
    }

    /// The timestamp without wraps: near that of the newest report.
    fn unwrap(&self, timestamp: u32) -> i64 {
        let near = self.suspect.or(self.reports.back().copied()).map_or(0, |point| point.stamp);
        near + i64::from(timestamp.wrapping_sub(near as u32) as i32)
    }

    fn add(&mut self, point: Point) {
        let usual = self.median();
        let this = self.intercept(point);
        let is_far = |other: i64| (this - other).abs() > Self::MAX_JUMP;
        if usual.is_some_and(is_far) {
            let suspect = self.suspect.replace(point);
            let Some(agreeing) = suspect.filter(|one| !is_far(self.intercept(*one))) else {
                return;
            };
            self.reports.clear();
            self.reports.push_back(agreeing);
        }
        self.suspect = None;
        if self.reports.len() == Self::REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back(point);
    }

    /// The wall clock at timestamp zero, in microseconds, if the sampling clock were exact.
    fn intercept(&self, point: Point) -> i64 {
        // Whole seconds are converted separately, so that no timestamp overflows.
        let (seconds, rest) = (point.stamp / self.rate, point.stamp % self.rate);
        point.micros - seconds * 1_000_000 - rest * 1_000_000 / self.rate
    }

    fn median(&self) -> Option<i64> {
        let mut intercepts: Vec<_> =
            self.reports.iter().map(|point| self.intercept(*point)).collect();
        intercepts.sort_unstable();
        intercepts.get(intercepts.len() / 2).copied()
    }

    /// The line through the reports that agree; `None` if most do not.
    fn fit(&self) -> Option<Line> {
        let (median, origin) = (self.median()?, *self.reports.back()?);
        let agrees =
            |point: &&Point| (self.intercept(**point) - median).abs() <= Self::MAX_RESIDUAL;
        let points: Vec<(f64, f64)> = self
            .reports
            .iter()
            .filter(agrees)
            .map(|point| {
                let ticks = (point.stamp - origin.stamp) as f64;
                (ticks * 1e6 / self.rate as f64, (point.micros - origin.micros) as f64)
            })
            .collect();
        if points.len() < Self::FEWEST || points.len() * 2 <= self.reports.len() {
            return None;
        }
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let common: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let slope = if spread > 0.0 { common / spread } else { 1.0 };
        let slope = slope.clamp(1.0 - Self::MAX_DRIFT, 1.0 + Self::MAX_DRIFT);
        Some(Line { origin, offset: y - slope * x, slope })
    }
}

/// Microseconds since 1900 of a time in 32.32 fixed point.
fn ntp_micros(ntp: u64) -> i64 {
    let seconds = Duration::from_secs(ntp >> 32).as_micros() as i64;
    seconds + (((ntp & 0xffff_ffff) * 1_000_000) >> 32) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds between 1900 and the begin of the tests.
    const BEGIN: f64 = 3.9e9;

    fn report(seconds: f64, stamp: u32) -> SenderReport {
        let whole = (BEGIN + seconds).floor();
        let part = ((BEGIN + seconds - whole) * 4_294_967_296.0) as u64;
        SenderReport { ntp: ((whole as u64) << 32) | part, rtp: stamp }
    }

    /// The timestamp of video captured so many seconds after the begin, which wraps soon.
    fn stamp(seconds: f64) -> u32 {
        ((seconds * 90_000.0).round() as i64 + (1 << 32) - 400_000) as u32
    }

    /// By how many milliseconds the clock is wrong about media captured then.
    fn error_ms(clock: &RemoteClock, seconds: f64, stamp: u32) -> Option<f64> {
        let exact = (BEGIN + seconds) * 1e6;
        clock.capture_micros(stamp).map(|micros| (micros as f64 - exact) / 1000.0)
    }

    #[test]
    fn two_reports_tell_when_each_timestamp_was_captured_and_one_does_not() {
        let mut clock = RemoteClock::new(90_000);
        clock.record(report(1.0, stamp(1.0)));
        clock.record(report(1.0, stamp(1.0)));
        assert_eq!(clock.capture_micros(stamp(1.0)), None);
        for second in 2..12 {
            clock.record(report(f64::from(second), stamp(f64::from(second))));
            for at in [-3.0, 0.0, 7.5] {
                let at = f64::from(second) + at;
                let error = error_ms(&clock, at, stamp(at)).expect("a line");
                assert!(error.abs() < 0.1, "{second}: {error}");
            }
        }
    }

    #[test]
    fn a_sampling_clock_of_100_ppm_is_followed_for_ten_minutes() {
        let mut clock = RemoteClock::new(90_000);
        for second in 0..600 {
            let (at, fast) = (f64::from(second), 1.0001);
            clock.record(report(at, stamp(at * fast)));
            if let Some(error) = error_ms(&clock, at + 1.0, stamp((at + 1.0) * fast)) {
                assert!(error.abs() < 0.1, "{second}: {error}");
            }
        }
    }

    /// Some programs take the time of sending for that of capture, which varies.
    #[test]
    fn reports_with_the_time_of_sending_are_averaged() {
        let mut clock = RemoteClock::new(90_000);
        for second in 0..60_u32 {
            let at = f64::from(second);
            let late = f64::from(second * second * 31 % 20) / 1000.0;
            clock.record(report(at + late, stamp(at)));
            if let Some(error) = error_ms(&clock, at, stamp(at)).filter(|_| second > 8) {
                assert!((error - 9.5).abs() < 8.0, "{second}: {error}");
            }
        }
    }

    #[test]
    fn a_time_that_stands_still_makes_no_map_and_a_single_wrong_report_moves_none() {
        let mut clock = RemoteClock::new(90_000);
        for second in 0..20 {
            clock.record(report(5.0, stamp(f64::from(second))));
            clock.record(SenderReport { ntp: 0, rtp: stamp(f64::from(second)) });
        }
        assert_eq!(clock.capture_micros(stamp(20.0)), None);
        let mut clock = RemoteClock::new(90_000);
        for second in 0..20 {
            let at = f64::from(second);
            let wrong = [0.0, -0.2, 0.6, 40.0][(second % 5 / 4 * (second / 5)).min(3) as usize];
            clock.record(report(at + wrong, stamp(at)));
            if let Some(error) = error_ms(&clock, at, stamp(at)) {
                assert!(error.abs() < 0.1, "{second}: {error}");
            }
        }
    }

    #[test]
    fn a_jump_of_more_than_a_second_is_believed_when_a_second_report_agrees() {
        let mut clock = RemoteClock::new(90_000);
        (0..10).map(f64::from).for_each(|at| clock.record(report(at, stamp(at))));
        clock.record(report(110.0, stamp(10.0)));
        assert!(error_ms(&clock, 10.0, stamp(10.0)).expect("the old line").abs() < 0.1);
        clock.record(report(111.0, stamp(11.0)));
        assert!(error_ms(&clock, 111.0, stamp(11.0)).expect("the new line").abs() < 0.1);
    }
}
