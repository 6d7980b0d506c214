//! The reports of the measurements, as JSON and as text.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::args::VideoFormat;
use crate::model::Bitrate;

/// The result of a measurement.
pub(super) trait Report {
    /// Returns one JSON object.
    fn as_json(&self) -> Value;
    /// Returns lines of text.
    fn as_text(&self) -> String;
}

/// The result of `bench fanout`. Cores are seconds of CPU time, user and system, per second.
#[derive(Debug)]
pub(super) struct FanoutReport {
    pub(super) peers: usize,
    pub(super) sessions: usize,
    pub(super) format: VideoFormat,
    pub(super) bitrate: Option<Bitrate>,
    pub(super) seconds: f64,
    /// CPU use of the sender.
    pub(super) cores: f64,
    /// CPU use of the sender before the first viewer.
    pub(super) cores_without_viewers: f64,
    /// CPU use of the sender with its camera off, if it was measured.
    pub(super) cores_camera_off: Option<f64>,
    /// Complete frames that each viewer received.
    pub(super) frames: Vec<u64>,
    pub(super) memory: Memory,
    pub(super) first_frames: FirstFrameTimes,
    pub(super) viewers_cores: f64,
    pub(super) viewers_pss: Option<u64>,
}

impl Report for FanoutReport {
    fn as_json(&self) -> Value {
        let frames = Spread::of(&self.frames);
        json!({
            "bench": "fanout",
            "peers": self.peers,
            "sessions": self.sessions,
            "size": self.format.size.to_string(),
            "fps": self.format.fps,
            "bitrate_bps": self.bitrate.map(Bitrate::as_bps),
            "seconds": rounded(self.seconds),
            "cpu_cores": rounded(self.cores),
            "cpu_cores_nobody": rounded(self.cores_without_viewers),
            "cpu_cores_camera_off": self.cores_camera_off.map(rounded),
            "frames_per_viewer": self.frames,
            "frames": frames.as_json(),
            "frames_per_second": frames.per_second(self.seconds).as_json(),
            "pss_mib": self.memory.total.map(mib),
            "pss_mib_per_peer": self.memory.per_peer().map(rounded),
            "first_frame_ms": {
                "alone": Percentiles::of(&self.first_frames.alone).map(|all| all.as_json()),
                "crowded": Percentiles::of(&self.first_frames.crowded).map(|all| all.as_json()),
            },
            "viewers": {
                "cpu_cores": rounded(self.viewers_cores),
                "pss_mib": self.viewers_pss.map(mib),
            },
        })
    }

    fn as_text(&self) -> String {
        let VideoFormat { size, fps } = self.format;
        let mut text = format!(
            "{} viewers of {size}@{fps} in {} sessions, {:.0} s\n",
            self.peers, self.sessions, self.seconds,
        );
        let mut line = |name: &str, value: String| {
            let _ = writeln!(text, "  {name:<22}{value}");
        };
        line("sender", format!("{:.3} cores", self.cores));
        line("  without viewers", format!("{:.3} cores", self.cores_without_viewers));
        if let Some(cores) = self.cores_camera_off {
            line("  with its camera off", format!("{cores:.3} cores"));
        }
        let Spread { min, median, max } = Spread::of(&self.frames).per_second(self.seconds);
        line("frames per second", format!("{min:.1} to {max:.1}, median {median:.1}"));
        if let Some(total) = self.memory.total {
            line("memory", format!("{:.1} MiB", mib(total)));
        }
        if let Some(more) = self.memory.per_peer() {
            line("  each further viewer", format!("{more:.2} MiB"));
        }
        for (name, all) in [
            ("first frame, alone", &self.first_frames.alone),
            ("  crowded", &self.first_frames.crowded),
        ] {
            if let Some(Percentiles { p50, p95, max, .. }) = Percentiles::of(all) {
                line(name, format!("{p50} ms, 95 of 100 within {p95}, all within {max}"));
            }
        }
        text.pop();
        text
    }
}

/// The result of `bench latency`; times are in milliseconds.
#[derive(Debug)]
pub(super) struct LatencyReport {
    pub(super) format: VideoFormat,
    pub(super) frames: u64,
    pub(super) p50: f64,
    pub(super) p95: f64,
    pub(super) first_frame_ms: u64,
}

impl Report for LatencyReport {
    fn as_json(&self) -> Value {
        json!({
            "bench": "latency",
            "size": self.format.size.to_string(),
            "fps": self.format.fps,
            "pictures": self.frames,
            "latency_ms": {"p50": self.p50, "p95": self.p95},
            "first_frame_ms": self.first_frame_ms,
        })
    }

    fn as_text(&self) -> String {
        let VideoFormat { size, fps } = self.format;
        format!(
            "{size}@{fps}, {} frames, capture to screen: {} ms, 95 of 100 within {} ms; the first \
             after {} ms",
            self.frames, self.p50, self.p95, self.first_frame_ms,
        )
    }
}

/// The minimum, the median and the maximum over all viewers.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    /// Returns the spread of these values; zeros if there are none.
    fn of(values: &[u64]) -> Self {
        let mut values = values.to_vec();
        values.sort_unstable();
        let at = |index: usize| values.get(index).copied().unwrap_or_default() as f64;
        Self { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }

    /// Divides by a number of seconds.
    fn per_second(self, seconds: f64) -> Self {
        Self { min: self.min / seconds, median: self.median / seconds, max: self.max / seconds }
    }

    fn as_json(self) -> Value {
        let Self { min, median, max } = self;
        json!({"min": rounded(min), "median": rounded(median), "max": rounded(max)})
    }
}

/// The memory of the sender's process (PSS).
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    /// With all viewers, in bytes.
    pub(super) total: Option<u64>,
    /// With the first viewer, at its first frame, in bytes.
    pub(super) with_first: Option<u64>,
    pub(super) peers: usize,
}

impl Memory {
    /// Returns the MiB that each viewer after the first one added; `None` if there was only one.
    fn per_peer(self) -> Option<f64> {
        let more = mib(self.total?) - mib(self.with_first?);
        (self.peers > 1).then(|| more / (self.peers - 1) as f64)
    }
}

/// The milliseconds from the request to join to the first frame, of each viewer.
#[derive(Debug, Default)]
pub(super) struct FirstFrameTimes {
    /// Of viewers that joined when no keyframe was forced in the half second before.
    alone: Vec<u64>,
    /// Of viewers that joined at ten per second.
    crowded: Vec<u64>,
}

impl FirstFrameTimes {
    /// Adds the time of one viewer.
    pub(super) fn add(&mut self, ms: u64, alone: bool) {
        if alone { &mut self.alone } else { &mut self.crowded }.push(ms);
    }
}

/// Percentiles of times in milliseconds, by nearest rank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Percentiles {
    count: usize,
    p50: u64,
    p95: u64,
    max: u64,
}

impl Percentiles {
    fn of(values: &[u64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100) - 1];
        let max = *sorted.last()?;
        Some(Self { count: sorted.len(), p50: at(50), p95: at(95), max })
    }

    fn as_json(self) -> Value {
        let Self { count, p50, p95, max } = self;
        json!({"count": count, "p50": p50, "p95": p95, "max": max})
    }
}

/// Returns the proportional set size (PSS) of this process in bytes, in which shared pages count by
/// this process's share; `None` on systems other than Linux.
pub(super) fn pss() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn mib(bytes: u64) -> f64 {
    rounded(bytes as f64 / f64::from(1 << 20))
}

/// Rounds to four decimals, which is finer than the precision of the measurements.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=100).rev().collect();
        let expected = Percentiles { count: 100, p50: 50, p95: 95, max: 100 };
        assert_eq!(Percentiles::of(&values), Some(expected));
        let one = Percentiles { count: 1, p50: 7, p95: 7, max: 7 };
        assert_eq!(Percentiles::of(&[7]), Some(one));
        assert_eq!(Percentiles::of(&[]), None);
    }

    #[test]
    fn memory_per_viewer_is_what_the_viewers_after_the_first_added() {
        let memory = |total: u64, peers| {
            Memory { total: Some(total << 20), with_first: Some(30 << 20), peers }.per_peer()
        };
        assert_eq!(memory(39, 10), Some(1.0));
        assert_eq!(memory(30, 1), None);
    }

    #[test]
    fn a_spread_is_minimum_median_and_maximum() {
        let spread = Spread::of(&[300, 290, 310]).per_second(10.0);
        assert_eq!(spread, Spread { min: 29.0, median: 30.0, max: 31.0 });
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_is_read_from_the_system() {
        assert!(pss().is_some_and(|bytes| bytes > 1 << 20));
    }
}
