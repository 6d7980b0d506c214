//! Bitrates and frame rates: differences of counters between two reports.

use std::collections::BTreeMap;

use super::{InboundRtpStats, MediaTime, PlayoutStats, RtcStats, Stats};

/// Adds rates to reports: the differences since the report before. Each reader of statistics has
/// its own, since readers ask at different times. Pure: time is a parameter.
#[derive(Debug, Default)]
pub struct RtcRates {
    /// When the report before was made.
    previous_at: Option<MediaTime>,
    /// Its counters.
    previous: BTreeMap<CounterKey, u64>,
}

/// A counter: the session and the participant (both empty for this end's sources), the id of the
/// object, and what is counted.
type CounterKey = (String, String, String, Counter);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Counter {
    BytesSent,
    BytesReceived,
    Frames,
    /// Microseconds in the jitter buffer.
    WaitedUs,
    /// Frames or samples that left it.
    Emitted,
}

impl RtcRates {
    /// Sets the rates in a report that was made at `now`. The first report of an object has none,
    /// and neither has one whose counter was reset.
    pub fn update(&mut self, stats: &mut Stats, now: MediaTime) {
        let span = self.previous_at.map(|at| now.since(at).as_secs_f64());
        let interval = Interval {
            seconds: span.filter(|seconds| *seconds > 0.0),
            before: std::mem::take(&mut self.previous),
        };
        for object in &mut stats.rtc {
            self.update_object(["", ""], object, &interval);
        }
        for session in &mut stats.sessions {
            for participant in &mut session.participants {
                let owner = [session.session.as_str(), participant.participant.as_str()];
                for object in &mut participant.rtc {
                    self.update_object(owner, object, &interval);
                }
            }
        }
        self.previous_at = Some(now);
    }

    fn update_object(&mut self, owner: [&str; 2], object: &mut RtcStats, interval: &Interval) {
        let mut counters = ObjectCounters {
            owner: owner.map(str::to_owned),
            id: object.id().to_owned(),
            interval,
            latest: &mut self.previous,
        };
        match object {
            RtcStats::CandidatePair(pair) => {
                pair.bitrate_sent = counters.bitrate(Counter::BytesSent, pair.bytes_sent);
                pair.bitrate_received =
                    counters.bitrate(Counter::BytesReceived, pair.bytes_received);
            }
            RtcStats::OutboundRtp(stream) => {
                stream.bitrate = counters.bitrate(Counter::BytesSent, stream.bytes_sent);
                stream.frames_per_second =
                    stream.frames_sent.and_then(|frames| counters.rate(Counter::Frames, frames));
            }
            RtcStats::InboundRtp(stream) => update_inbound(stream, &mut counters),
            RtcStats::MediaSource(source) => {
                source.frames_per_second =
                    source.frames_encoded.and_then(|frames| counters.rate(Counter::Frames, frames));
            }
            RtcStats::Transport(_)
            | RtcStats::LocalCandidate(_)
            | RtcStats::RemoteCandidate(_)
            | RtcStats::Codec(_)
            | RtcStats::RemoteInboundRtp(_)
            | RtcStats::RemoteOutboundRtp(_) => {}
        }
    }
}

fn update_inbound(stream: &mut InboundRtpStats, counters: &mut ObjectCounters<'_>) {
    stream.bitrate = counters.bitrate(Counter::BytesReceived, stream.bytes_received);
    let Some(playout) = &stream.playout else { return };
    if let PlayoutStats::Video(video) = playout {
        stream.frames_per_second = counters.rate(Counter::Frames, video.frames_decoded);
    }
    let buffer = playout.jitter_buffer();
    let waited_us = (buffer.jitter_buffer_delay * 1e6) as u64;
    let waited_us = counters.increase(Counter::WaitedUs, waited_us);
    let emitted = counters.increase(Counter::Emitted, buffer.jitter_buffer_emitted_count);
    stream.mean_jitter_buffer_delay = match (waited_us, emitted) {
        (Some(waited_us), Some(emitted)) if emitted > 0 => {
            Some(waited_us as f64 / emitted as f64 / 1e6)
        }
        _ => None,
    };
}

/// The counters of one object, now and in the report before.
struct ObjectCounters<'a> {
    owner: [String; 2],
    id: String,
    interval: &'a Interval,
    latest: &'a mut BTreeMap<CounterKey, u64>,
}

impl ObjectCounters<'_> {
    /// Keeps the value of a counter. Returns its increase; `None` if it is new or was reset.
    fn increase(&mut self, counter: Counter, value: u64) -> Option<u64> {
        let [session, participant] = self.owner.clone();
        let key = (session, participant, self.id.clone(), counter);
        let before = self.interval.before.get(&key).copied();
        self.latest.insert(key, value);
        value.checked_sub(before?)
    }

    /// The same per second.
    fn rate(&mut self, counter: Counter, value: u64) -> Option<f64> {
        let increase = self.increase(counter, value)?;
        Some(increase as f64 / self.interval.seconds?)
    }

    /// The same of bytes, in bits per second.
    fn bitrate(&mut self, counter: Counter, bytes: u64) -> Option<u64> {
        self.rate(counter, bytes).map(|rate| (rate * 8.0).round() as u64)
    }
}

/// The time since the report before, and the counters of that report.
struct Interval {
    /// `None` for the first report.
    seconds: Option<f64>,
    before: BTreeMap<CounterKey, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Media, MediaSourceStats};

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    fn report(frames_encoded: u64) -> Stats {
        let mut source = MediaSourceStats::new("camera", Media::Video);
        source.frames_encoded = Some(frames_encoded);
        Stats { rtc: vec![RtcStats::MediaSource(source)], ..Stats::default() }
    }

    /// The frame rate in each of these reports: when it is made, and the frames until then.
    fn frame_rates<const N: usize>(reports: [(u64, u64); N]) -> [Option<f64>; N] {
        let mut rates = RtcRates::default();
        reports.map(|(ms, frames)| {
            let mut stats = report(frames);
            rates.update(&mut stats, at(ms));
            let [RtcStats::MediaSource(source)] = &stats.rtc[..] else { panic!("{stats:?}") };
            source.frames_per_second
        })
    }

    #[test]
    fn a_rate_is_the_increase_since_the_report_before_per_second() {
        let rates = frame_rates([(5000, 100), (6000, 130), (8000, 150), (8500, 150)]);
        assert_eq!(rates, [None, Some(30.0), Some(10.0), Some(0.0)]);
    }

    #[test]
    fn a_counter_that_was_reset_and_a_report_at_the_same_time_have_no_rate() {
        assert_eq!(frame_rates([(0, 100), (1000, 50), (2000, 60)]), [None, None, Some(10.0)]);
        assert_eq!(frame_rates([(1000, 100), (1000, 130)]), [None, None]);
    }
}
