//! Figures of the media on each tile, for those who look for the cause of a fault.

use std::collections::BTreeMap;

use super::{bitrate, milliseconds, source_line};
use crate::{
    model::{
        AudioPlayoutStats, CandidatePairStats, InboundRtpStats, Media, OutboundRtpStats,
        ParticipantId, ParticipantStats, PlayoutStats, QualityLimitation, RemoteInboundRtpStats,
        RtcStats, SessionId, SessionStats, Stats, VideoPlayoutStats,
    },
    ui::labels,
};

/// The figures that the tiles show, as lines of text.
#[derive(Debug, Default)]
pub(crate) struct TileFigures {
    is_on: bool,
    participants: BTreeMap<(SessionId, ParticipantId), Vec<String>>,
    own: Vec<String>,
}

impl TileFigures {
    /// Shows the figures, or hides them if they are shown.
    pub(crate) fn toggle(&mut self) {
        *self = Self { is_on: !self.is_on, ..Self::default() };
    }

    /// Whether they are shown.
    pub(crate) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// Shows these statistics from now on.
    pub(crate) fn on_stats(&mut self, stats: &Stats) {
        if !self.is_on {
            return;
        }
        self.own = super::media_sources(&stats.rtc).map(source_line).collect();
        self.own.extend(stats.sessions.iter().map(session_line));
        let all = stats.sessions.iter().flat_map(|session| {
            let lines = |one: &ParticipantStats| {
                ((session.session.clone(), one.participant.clone()), Connection::of(one).lines())
            };
            session.participants.iter().map(lines)
        });
        self.participants = all.collect();
    }

    /// Those of a participant in a session; none while they are hidden.
    pub(crate) fn of(&self, session: &SessionId, participant: &ParticipantId) -> &[String] {
        let key = (session.clone(), participant.clone());
        self.participants.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Those of this program: its sources, and the sums of each session.
    pub(crate) fn own(&self) -> &[String] {
        &self.own
    }
}

/// What is sent and received in a session.
fn session_line(session: &SessionStats) -> String {
    let pairs = || session.participants.iter().filter_map(|one| Connection::of(one).pair);
    let sent: u64 = pairs().filter_map(|pair| pair.bitrate_sent).sum();
    let received: u64 = pairs().filter_map(|pair| pair.bitrate_received).sum();
    let name = labels::kind(session.kind);
    format!("{name}: in {}, out {}", bitrate(received), bitrate(sent))
}

/// What is known of the connection to a participant.
#[derive(Default)]
struct Connection<'a> {
    pair: Option<&'a CandidatePairStats>,
    video_in: Option<&'a InboundRtpStats>,
    audio_in: Option<&'a InboundRtpStats>,
    video_out: Option<&'a OutboundRtpStats>,
    /// What the other end reports of the streams that it receives.
    reports: Vec<&'a RemoteInboundRtpStats>,
    sent_again: u64,
    received_again: u64,
}

impl<'a> Connection<'a> {
    fn of(participant: &'a ParticipantStats) -> Self {
        let mut all = Self {
            sent_again: participant.retransmissions.sent,
            received_again: participant.retransmissions.received,
            ..Self::default()
        };
        for object in &participant.rtc {
            if let RtcStats::CandidatePair(pair) = object {
                all.pair = Some(pair);
            } else if let RtcStats::InboundRtp(stream) = object {
                let of_medium = match stream.kind {
                    Media::Audio => &mut all.audio_in,
                    Media::Video => &mut all.video_in,
                    Media::Data => continue,
                };
                *of_medium = Some(stream);
            } else if let RtcStats::OutboundRtp(stream) = object
                && stream.kind == Media::Video
            {
                all.video_out = Some(stream);
            } else if let RtcStats::RemoteInboundRtp(report) = object {
                all.reports.push(report);
            }
        }
        all
    }

    fn lines(&self) -> Vec<String> {
        let lines = [self.received(), self.sent(), self.path(), self.playout(), self.repairs()];
        lines.into_iter().filter(|parts| !parts.is_empty()).map(|parts| parts.join(", ")).collect()
    }

    fn received(&self) -> Vec<String> {
        let mut parts = vec![];
        if let Some(VideoPlayoutStats {
            frame_width: Some(width),
            frame_height: Some(height),
            ..
        }) = self.video()
        {
            parts.push(format!("in {width} × {height}"));
        }
        let Some(stream) = self.video_in.or(self.audio_in) else { return parts };
        parts.extend(stream.frames_per_second.map(|rate| format!("{rate:.1} fps")));
        parts.extend(self.pair.and_then(|pair| pair.bitrate_received).map(bitrate));
        parts
    }

    fn sent(&self) -> Vec<String> {
        let mut parts = vec![];
        if let Some(layer) = self.video_out.and_then(|stream| stream.rid) {
            parts.push(format!("out layer {}", layer.name()));
        }
        if let Some(pair) = self.pair {
            let estimate = bitrate(pair.available_outgoing_bitrate);
            let sent = pair.bitrate_sent.map(|sent| format!("{} of {estimate}", bitrate(sent)));
            parts.extend(sent);
        }
        match self.video_out.and_then(|stream| stream.quality_limitation_reason) {
            Some(QualityLimitation::Bandwidth) => parts.push("limited by the path".to_owned()),
            Some(QualityLimitation::Cpu) => parts.push("limited by this computer".to_owned()),
            Some(QualityLimitation::None) | None => {}
        }
        parts
    }

    fn path(&self) -> Vec<String> {
        let time = self.pair.and_then(|pair| pair.current_round_trip_time);
        let mut parts: Vec<_> =
            time.map(|time| format!("round trip {}", milliseconds(time))).into_iter().collect();
        let received = || self.video_in.into_iter().chain(self.audio_in);
        let lost: i64 = received().map(|stream| stream.packets_lost.max(0)).sum();
        let arrived: u64 = received().map(|stream| stream.packets_received).sum();
        if arrived > 0 {
            let share = lost as f64 / (lost as f64 + arrived as f64);
            parts.push(format!("lost in {:.1} %", share * 100.0));
        }
        let there = self.reports.iter().map(|report| report.fraction_lost).reduce(f64::max);
        parts.extend(there.map(|share| format!("out {:.1} %", share * 100.0)));
        parts
    }

    fn playout(&self) -> Vec<String> {
        let delay = |stream: Option<&InboundRtpStats>, name: &str| {
            let delay = stream?.mean_jitter_buffer_delay?;
            Some(format!("{name} buffer {}", milliseconds(delay)))
        };
        let mut parts: Vec<_> = [delay(self.video_in, "video"), delay(self.audio_in, "audio")]
            .into_iter()
            .flatten()
            .collect();
        if let Some(audio) = self.audio() {
            let share = audio.concealed_samples as f64 / audio.total_samples_received.max(1) as f64;
            parts.push(format!("concealed {:.1} %", share * 100.0));
        }
        if let Some(video) = self.video() {
            let (count, seconds) = (video.freeze_count, video.total_freezes_duration);
            parts.push(format!("freezes {count} ({seconds:.1} s)"));
        }
        parts
    }

    fn repairs(&self) -> Vec<String> {
        let Some(stream) = self.video_in else { return vec![] };
        vec![
            format!("retransmitted {} out, {} in", self.sent_again, self.received_again),
            format!("NACK {}", stream.nack_count),
            format!("PLI {}", stream.pli_count.unwrap_or(0)),
        ]
    }

    fn video(&self) -> Option<&'a VideoPlayoutStats> {
        let Some(PlayoutStats::Video(video)) = self.video_in?.playout.as_ref() else { return None };
        Some(video)
    }

    fn audio(&self) -> Option<&'a AudioPlayoutStats> {
        let Some(PlayoutStats::Audio(audio)) = self.audio_in?.playout.as_ref() else { return None };
        Some(audio)
    }
}
