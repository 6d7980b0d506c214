//! Figures of a running engine, as the command line prints them.

use serde::Serialize;

use super::{ParticipantId, RtcStats, SessionId, SessionKind};

/// All figures, counted since the engine started.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Stats {
    /// How often a source was opened.
    pub captures: Counts,
    /// How often an encoder was started.
    pub encoders: Counts,
    /// How often a peer got another layer of a video than it had.
    pub layer_changes: u64,
    /// Whether the upload of this machine is full, so that others get less video.
    pub upload_full: bool,
    /// Processor time of this process, user and system, in seconds.
    pub cpu_seconds: f64,
    /// The sources of this end, which all sessions share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rtc: Vec<RtcStats>,
    /// Every session that was opened or joined, including ended ones.
    pub sessions: Vec<SessionStats>,
}

/// One number for each medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// For video.
    pub video: u32,
    /// For audio.
    pub audio: u32,
}

/// Figures of one session.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SessionStats {
    /// The session's id.
    pub session: SessionId,
    /// The session's kind.
    #[serde(serialize_with = "as_text")]
    pub kind: SessionKind,
    /// Every participant that we were paired with, including those that left.
    pub participants: Vec<ParticipantStats>,
}

fn as_text<S: serde::Serializer>(kind: &SessionKind, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(kind)
}

/// Figures of one participant in one session.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ParticipantStats {
    /// The participant's id.
    pub participant: ParticipantId,
    /// The participant's name.
    pub name: String,
    /// The received video; `None` if the session has none.
    pub video: Option<VideoStats>,
    /// The received audio; `None` if the session has none.
    pub audio: Option<AudioStats>,
    /// Packets that were sent again.
    pub retransmissions: Retransmissions,
    /// The rate that the path to the participant was last estimated to carry, in bit/s; `None`
    /// before anything is known of it.
    pub estimate_bps: Option<u64>,
    /// The peer connection of now, both directions; empty without one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rtc: Vec<RtcStats>,
}

/// Packets that were sent again because they were lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Retransmissions {
    /// By this program.
    pub sent: u64,
    /// To this program, on a stream of their own.
    pub received: u64,
}

impl Retransmissions {
    /// Those of the streams of a connection.
    pub fn of(rtc: &[RtcStats]) -> Self {
        let mut all = Self::default();
        for object in rtc {
            if let RtcStats::OutboundRtp(stream) = object {
                all.sent += stream.retransmitted_packets_sent;
            } else if let RtcStats::InboundRtp(stream) = object {
                all.received += stream.retransmitted_packets_received;
            }
        }
        all
    }

    /// The sum of both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { sent: self.sent + other.sent, received: self.received + other.received }
    }
}

/// Figures of one received video stream.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct VideoStats {
    /// Complete frames that arrived.
    pub received: u64,
    /// Frames that were decoded.
    pub decoded: u64,
    /// The width of the newest frame, in pixels.
    pub width: u32,
    /// The height of the newest frame, in pixels.
    pub height: u32,
    /// Milliseconds for which frames were shown that were shown far longer than others (by the
    /// definition of `totalFreezesDuration` in W3C webrtc-stats), and, beyond one second, the wait
    /// for the first. Counting goes on while the video is frozen. Time in which the camera is off, or in
    /// which nothing displays the video, does not count.
    pub frozen_ms: u64,
    /// How often it froze, by the same definition.
    pub freezes: u64,
    /// The longest freeze in milliseconds, by the same definition; the wait for the first frame is none.
    pub longest_freeze_ms: u64,
    /// The delay from capture to the decoded frame, read from the timecode burnt into the test
    /// pattern: valid only on a single host. `None` without a timecode.
    pub latency_ms: Option<Latency>,
    /// The sender's name that is burnt in with the timecode; `None` without a timecode.
    pub strip: Option<String>,
}

/// Two percentiles of a delay, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Latency {
    /// The median: half of the frames were faster.
    pub p50: f64,
    /// The 95th percentile: 95 of 100 frames were faster.
    pub p95: f64,
}

/// Figures of one received audio stream.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AudioStats {
    /// Packets that arrived.
    pub packets: u64,
    /// Packets that did not arrive.
    pub lost: u64,
    /// Milliseconds of audio that were concealed for lost or late packets.
    pub concealed_ms: u64,
    /// Milliseconds of audio that were played, with those that were concealed.
    pub played_ms: u64,
    /// The share of the concealed in what was played: 0 to 1.
    pub concealed_share: f64,
    /// The level of the last second, in dB below full scale (RMS); at least -120.
    pub level_dbfs: f64,
    /// The strongest tone of the last second, in hertz; `None` in silence.
    pub tone_hz: Option<f64>,
}

impl AudioStats {
    /// The level of digital silence, in dB below full scale.
    pub const FLOOR_DBFS: f64 = -120.0;

    /// The figures of a stream of which nothing was received.
    pub const fn silent() -> Self {
        let level_dbfs = Self::FLOOR_DBFS;
        Self {
            packets: 0,
            lost: 0,
            concealed_ms: 0,
            played_ms: 0,
            concealed_share: 0.0,
            level_dbfs,
            tone_hz: None,
        }
    }

    /// Adds the counts of an earlier stream of the same participant.
    #[must_use]
    pub fn added_to(self, earlier: &Self) -> Self {
        let concealed_ms = earlier.concealed_ms + self.concealed_ms;
        let played_ms = earlier.played_ms + self.played_ms;
        Self {
            packets: earlier.packets + self.packets,
            lost: earlier.lost + self.lost,
            concealed_ms,
            played_ms,
            concealed_share: Self::share(concealed_ms, played_ms),
            ..self
        }
    }

    /// The share of concealed audio in what was played: 0 if nothing was.
    pub fn share(concealed_ms: u64, played_ms: u64) -> f64 {
        concealed_ms as f64 / played_ms.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::fixtures;

    #[test]
    fn an_earlier_stream_counts_in_all_sums_and_in_the_share() {
        let stream = |lost, concealed_ms, played_ms| AudioStats {
            packets: 100,
            lost,
            concealed_ms,
            played_ms,
            ..AudioStats::silent()
        };
        let both = stream(1, 100, 1000).added_to(&stream(2, 0, 1000));
        let sums = (both.packets, both.lost, both.concealed_ms, both.played_ms);
        assert_eq!(sums, (200, 3, 100, 2000));
        assert!((both.concealed_share - 0.05).abs() < 1e-9);
        assert_eq!(AudioStats::share(0, 0), 0.0);
    }

    #[test]
    fn retransmissions_are_those_of_all_streams() {
        let stream = |packets| {
            RtcStats::InboundRtp(Box::new(crate::model::InboundRtpStats {
                retransmitted_packets_received: packets,
                ..fixtures::inbound_rtp(crate::model::Media::Video)
            }))
        };
        let all = Retransmissions::of(&[stream(3), stream(4)]);
        assert_eq!(all, Retransmissions { sent: 0, received: 7 });
        assert_eq!(all.plus(Retransmissions { sent: 5, received: 1 }).received, 8);
    }
}
