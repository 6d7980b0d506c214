//! The statistics of one peer connection, as they are collected.

use crate::{
    model::{AudioStats, Retransmissions, RtcStats, VideoStats},
    playback::ToneTap,
};

/// The statistics of one peer connection's remote tracks.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerStats {
    /// Of the video track, if there is one.
    pub(super) video: Option<VideoStats>,
    /// Of the audio track, if there is one.
    pub(super) audio: Option<AudioStats>,
    /// The tone of the audio track, if it is measured.
    pub(super) tone: Option<ToneTap>,
    /// Packets that were sent again.
    pub(super) retransmissions: Retransmissions,
    /// The rate that the path was last estimated to carry, in bit/s.
    pub(super) estimate_bps: Option<u64>,
    /// Of the connection and its streams; empty once it has ended.
    pub(super) rtc: Vec<RtcStats>,
}

impl PeerStats {
    /// Adds what the connection counts, with its streams.
    pub(super) fn add_connection(&mut self, rtc: Vec<RtcStats>) {
        self.retransmissions = Retransmissions::of(&rtc);
        self.estimate_bps = rtc.iter().find_map(|object| {
            let RtcStats::CandidatePair(pair) = object else { return None };
            Some(pair.available_outgoing_bitrate).filter(|rate| *rate > 0)
        });
        self.rtc = rtc;
    }

    /// Adds the counts of an earlier peer connection to the same participant; the other values stay
    /// those of `self`, or are taken from `earlier` if `self` has none.
    pub(super) fn added_to(self, earlier: &Self) -> Self {
        let video = match (self.video, &earlier.video) {
            (Some(now), Some(then)) => Some(VideoStats {
                received: then.received + now.received,
                decoded: then.decoded + now.decoded,
                frozen_ms: then.frozen_ms + now.frozen_ms,
                freezes: then.freezes + now.freezes,
                longest_freeze_ms: then.longest_freeze_ms.max(now.longest_freeze_ms),
                ..now
            }),
            (now, then) => now.or_else(|| then.clone()),
        };
        let audio = match (self.audio, &earlier.audio) {
            (Some(now), Some(then)) => Some(now.added_to(then)),
            (now, then) => now.or_else(|| then.clone()),
        };
        let tone = self.tone.or_else(|| earlier.tone.clone());
        let retransmissions = self.retransmissions.plus(earlier.retransmissions);
        let estimate_bps = self.estimate_bps.or(earlier.estimate_bps);
        Self { video, audio, tone, retransmissions, estimate_bps, rtc: self.rtc }
    }
}
