//! How good the media of each participant are for this user, from the statistics of each second.

use std::collections::{BTreeMap, VecDeque};

use super::{
    InboundRtpStats, Media, ParticipantId, ParticipantStats, PlayoutStats, QualityLimitation,
    RtcStats, SessionId, Stats,
};

/// The figures of this many intervals of a second are judged together.
const WINDOW: usize = 5;

/// The quality gets worse after this many bad judgements in a row, one each second.
const WORSE_AFTER: u32 = 2;

/// It gets better after this many good ones.
const BETTER_AFTER: u32 = 8;

/// From this share of lost packets on, a loss is called one.
const LOSS: f64 = 0.03;

/// How good media are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum QualityLevel {
    /// Nothing is noticed.
    #[default]
    Good,
    /// Something is noticed now and then.
    Fair,
    /// It is tiring to listen or to watch.
    Poor,
}

/// What is noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QualityProblem {
    /// The audio has gaps.
    #[default]
    Audio,
    /// The video stands still again and again, or has few frames.
    Video,
    /// Both come late.
    Delay,
}

/// Whose connection it is, as far as that can be told from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum QualityCause {
    /// That between this user and the participant.
    #[default]
    Path,
    /// The participant's: those of others are good.
    Theirs,
    /// This user's: packets from everybody are lost.
    Own,
    /// This user's upload: it is full, so that questions and answers come late.
    Upload,
    /// No connection: this computer is too busy to encode in time.
    Computer,
}

/// The quality of the media of a participant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CallQuality {
    /// How good it is.
    pub level: QualityLevel,
    /// What is worst.
    pub problem: QualityProblem,
    /// Whose connection it is.
    pub cause: QualityCause,
}

/// Judges the quality of each participant, once a second.
#[derive(Debug, Default)]
pub struct QualityMonitor {
    participants: BTreeMap<(SessionId, ParticipantId), History>,
}

impl QualityMonitor {
    /// Takes the statistics of another second.
    pub fn update(&mut self, stats: &Stats) {
        let mut before = std::mem::take(&mut self.participants);
        for session in &stats.sessions {
            for participant in session.participants.iter().filter(|one| !one.rtc.is_empty()) {
                let key = (session.session.clone(), participant.participant.clone());
                let mut history = before.remove(&key).unwrap_or_default();
                history.add(Totals::of(participant));
                self.participants.insert(key, history);
            }
        }
        let losing = |history: &&History| history.loss() > LOSS;
        let with_media = || self.participants.values().filter(|one| one.has_media());
        let (count, losing) = (with_media().count(), with_media().filter(losing).count());
        let is_busy = is_encoder_late(stats);
        let is_full = stats.upload_full;
        for history in self.participants.values_mut() {
            history.settle(match (count, losing) {
                _ if is_full && history.is_late() => QualityCause::Upload,
                (1.., losing) if is_busy && losing < count => QualityCause::Computer,
                (2.., losing) if losing == count => QualityCause::Own,
                (2.., _) => QualityCause::Theirs,
                _ => QualityCause::Path,
            });
        }
    }

    /// The quality of a participant; good for one that is not known.
    pub fn of(&self, session: &SessionId, participant: &ParticipantId) -> CallQuality {
        let key = (session.clone(), participant.clone());
        self.participants.get(&key).map(|history| history.quality).unwrap_or_default()
    }
}

/// Whether a video is sent smaller than it is wanted, because an encoder was late.
fn is_encoder_late(stats: &Stats) -> bool {
    let participants = stats.sessions.iter().flat_map(|session| &session.participants);
    participants.flat_map(|one| &one.rtc).any(|one| match one {
        RtcStats::OutboundRtp(stream) => {
            stream.quality_limitation_reason == Some(QualityLimitation::Cpu)
        }
        RtcStats::MediaSource(_)
        | RtcStats::Transport(_)
        | RtcStats::CandidatePair(_)
        | RtcStats::LocalCandidate(_)
        | RtcStats::RemoteCandidate(_)
        | RtcStats::Codec(_)
        | RtcStats::InboundRtp(_)
        | RtcStats::RemoteInboundRtp(_)
        | RtcStats::RemoteOutboundRtp(_) => false,
    })
}

/// What was counted of a participant until some moment.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    samples: u64,
    concealed: u64,
    frames: u64,
    /// Frames that arrived, displayed or not.
    frames_received: u64,
    frozen_seconds: f64,
    received: u64,
    lost: i64,
    /// From the other end to the ear, in seconds, now.
    delay: f64,
}

impl Totals {
    fn of(participant: &ParticipantStats) -> Self {
        let mut totals = Self::default();
        let mut buffered: f64 = 0.0;
        let mut round_trip = 0.0;
        for stats in &participant.rtc {
            match stats {
                RtcStats::InboundRtp(inbound) => {
                    totals.add(inbound);
                    if inbound.kind == Media::Audio {
                        buffered = inbound.mean_jitter_buffer_delay.unwrap_or_default();
                    }
                }
                RtcStats::CandidatePair(pair) => {
                    round_trip = pair.current_round_trip_time.unwrap_or_default();
                }
                RtcStats::MediaSource(_)
                | RtcStats::Transport(_)
                | RtcStats::LocalCandidate(_)
                | RtcStats::RemoteCandidate(_)
                | RtcStats::Codec(_)
                | RtcStats::OutboundRtp(_)
                | RtcStats::RemoteInboundRtp(_)
                | RtcStats::RemoteOutboundRtp(_) => {}
            }
        }
        Self { delay: round_trip / 2.0 + buffered, ..totals }
    }

    fn add(&mut self, inbound: &InboundRtpStats) {
        self.received += inbound.packets_received;
        self.lost += inbound.packets_lost;
        match &inbound.playout {
            Some(PlayoutStats::Audio(audio)) => {
                self.samples += audio.total_samples_received;
                self.concealed += audio.concealed_samples;
            }
            Some(PlayoutStats::Video(video)) => {
                self.frames += video.frames_decoded;
                self.frames_received += video.frames_received;
                self.frozen_seconds += video.total_freezes_duration;
            }
            None => {}
        }
    }
}

/// The last seconds of a participant.
#[derive(Clone, Debug, Default)]
struct History {
    totals: VecDeque<Totals>,
    quality: CallQuality,
    /// How many judgements in a row were worse or better than the quality.
    differing: u32,
}

impl History {
    fn add(&mut self, totals: Totals) {
        self.totals.push_back(totals);
        if self.totals.len() > WINDOW + 1 {
            self.totals.pop_front();
        }
    }

    /// The oldest and the newest figures, and the seconds between them.
    fn span(&self) -> Option<(Totals, Totals, f64)> {
        let (first, last) = (self.totals.front()?, self.totals.back()?);
        let seconds = self.totals.len() - 1;
        (seconds > 0).then_some((*first, *last, seconds as f64))
    }

    fn has_media(&self) -> bool {
        self.span().is_some_and(|(first, last, _)| last.received > first.received)
    }

    /// The share of packets that are missing.
    fn loss(&self) -> f64 {
        let Some((first, last, _)) = self.span() else { return 0.0 };
        let lost = (last.lost - first.lost).max(0) as f64;
        let received = last.received.saturating_sub(first.received) as f64;
        if lost + received > 0.0 { lost / (lost + received) } else { 0.0 }
    }

    /// Judges the last seconds: the worst of audio, video and delay.
    fn judged(&self) -> (QualityLevel, QualityProblem) {
        let Some((first, last, seconds)) = self.span() else { return Default::default() };
        let samples = last.samples.saturating_sub(first.samples);
        let concealed = last.concealed.saturating_sub(first.concealed);
        let gaps = if samples > 0 { concealed as f64 / samples as f64 } else { 0.0 };
        let frozen = (last.frozen_seconds - first.frozen_seconds).max(0.0) / seconds;
        let frames = last.frames.saturating_sub(first.frames) as f64 / seconds;
        // Video that nobody sees is not decoded. A freeze counts only while somebody watches.
        let is_watched = frames > 0.0 || frozen > 0.0;
        let sends_video = last.frames_received > first.frames_received || frozen > 0.0;
        let few = is_watched && sends_video && frames < 10.0;
        let video = if few { QualityLevel::Poor } else { level(frozen, 0.02, 0.1) };
        // Nothing comes late where nothing comes.
        let delay = if self.has_media() { last.delay } else { 0.0 };
        [
            (level(gaps, 0.01, 0.05), QualityProblem::Audio),
            (video, QualityProblem::Video),
            (level(delay, 0.15, 0.4), QualityProblem::Delay),
        ]
        .into_iter()
        .reduce(|worst, other| if other.0 > worst.0 { other } else { worst })
        .unwrap_or_default()
    }

    /// Whether nothing is worse than the delay.
    fn is_late(&self) -> bool {
        matches!(self.judged(), (QualityLevel::Fair | QualityLevel::Poor, QualityProblem::Delay))
    }

    /// Judges again, and follows the judgement once it holds.
    fn settle(&mut self, cause: QualityCause) {
        let (level, problem) = self.judged();
        if level == self.quality.level {
            self.differing = 0;
            (self.quality.problem, self.quality.cause) = (problem, cause);
            return;
        }
        self.differing += 1;
        let patience = if level > self.quality.level { WORSE_AFTER } else { BETTER_AFTER };
        if self.differing >= patience {
            self.differing = 0;
            self.quality = CallQuality { level, problem, cause };
        }
    }
}

/// A level by two limits: beyond the first it is fair, beyond the second poor.
fn level(value: f64, fair: f64, poor: f64) -> QualityLevel {
    if value > poor {
        QualityLevel::Poor
    } else if value > fair {
        QualityLevel::Fair
    } else {
        QualityLevel::Good
    }
}

#[cfg(test)]
mod tests;
