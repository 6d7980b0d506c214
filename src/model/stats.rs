//! Figures of a running engine, as the command line prints them.

use serde::Serialize;

use super::{ParticipantId, SessionId, SessionKind};

/// All figures, counted since the start of the engine.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Stats {
    /// How often a capture was opened.
    pub captures: Counts,
    /// How often an encoder was started.
    pub encoders: Counts,
    /// Processor time of this process, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Each session that came about, ended ones too.
    pub sessions: Vec<SessionStats>,
}

/// A number for each medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Counts {
    /// Of pictures.
    pub video: u32,
    /// Of sound.
    pub audio: u32,
}

/// Figures of one session.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct SessionStats {
    /// Which.
    pub session: SessionId,
    /// What it is.
    #[serde(serialize_with = "as_text")]
    pub kind: SessionKind,
    /// Each participant that we were linked to, those who left too.
    pub participants: Vec<ParticipantStats>,
}

fn as_text<S: serde::Serializer>(kind: &SessionKind, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(kind)
}

/// Figures of one participant in one session.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ParticipantStats {
    /// Who.
    pub participant: ParticipantId,
    /// How the person is called.
    pub name: String,
    /// What was received of the picture; `None` where none is sent.
    pub video: Option<VideoStats>,
    /// What was received of the sound; `None` where none is sent.
    pub audio: Option<AudioStats>,
}

/// Figures of one received picture.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct VideoStats {
    /// Whole frames that arrived.
    pub received: u64,
    /// Frames that were decoded.
    pub decoded: u64,
    /// Pixels across, of the newest frame.
    pub width: u32,
    /// Pixels down, of the newest frame.
    pub height: u32,
    /// Milliseconds that the picture stood still or did not come, beyond 200 ms after a frame and a
    /// second before the first one. It goes on counting while the picture stands; a camera that is
    /// off, and a picture that nobody looks at, count as none.
    pub frozen_ms: u64,
    /// From capture to decoded picture, read from the pattern's strip: valid on one host only.
    /// `None` without a strip.
    pub latency_ms: Option<Latency>,
    /// Whose strip it is, `None` without a strip.
    pub strip: Option<String>,
}

/// Two percentiles of a delay, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub struct Latency {
    /// Half of the frames were faster.
    pub p50: f64,
    /// 95 of 100 frames were faster.
    pub p95: f64,
}

/// Figures of one received sound.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct AudioStats {
    /// Packets that arrived.
    pub packets: u64,
    /// Packets that never did.
    pub lost: u64,
    /// Milliseconds that were filled in for lost or late packets.
    pub concealed_ms: u64,
    /// The level of the last second, in dB below full scale (RMS); at least -120.
    pub level_dbfs: f64,
    /// The strongest tone of the last second, in hertz; `None` in silence.
    pub tone_hz: Option<f64>,
}

impl AudioStats {
    /// The level of digital silence, in dB below full scale.
    pub const FLOOR_DBFS: f64 = -120.0;

    /// Nothing received, nothing heard.
    pub const fn silent() -> Self {
        let level_dbfs = Self::FLOOR_DBFS;
        Self { packets: 0, lost: 0, concealed_ms: 0, level_dbfs, tone_hz: None }
    }
}
