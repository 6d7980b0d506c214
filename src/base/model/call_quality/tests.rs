use super::*;
use crate::model::{
    AudioPlayoutStats, Retransmissions, SessionKind, SessionStats, VideoPlayoutStats, fixtures,
};

/// What one participant's media do in each second.
#[derive(Clone, Copy)]
struct Second {
    concealed_percent: u64,
    fps: u64,
    frozen: f64,
    lost: i64,
    delay: f64,
}

const GOOD: Second = Second { concealed_percent: 0, fps: 30, frozen: 0.0, lost: 0, delay: 0.05 };
const GAPS: Second = Second { concealed_percent: 8, lost: 20, ..GOOD };
const FROZEN: Second = Second { fps: 0, frozen: 1.0, ..GOOD };

/// A call with several participants.
#[derive(Default)]
struct Call {
    monitor: QualityMonitor,
    totals: [Totals; 3],
    count: usize,
    is_upload_full: bool,
}

fn name(index: usize) -> ParticipantId {
    ParticipantId::from_digest([index as u8; 10])
}

fn session() -> SessionId {
    fixtures::session_id("room")
}

fn inbound(kind: Media, totals: &Totals) -> InboundRtpStats {
    let audio = kind == Media::Audio;
    let playout = if audio {
        PlayoutStats::Audio(AudioPlayoutStats {
            total_samples_received: totals.samples,
            concealed_samples: totals.concealed,
            ..AudioPlayoutStats::default()
        })
    } else {
        PlayoutStats::Video(VideoPlayoutStats {
            frames_received: totals.frames_received,
            frames_decoded: totals.frames,
            total_freezes_duration: totals.frozen_seconds,
            ..VideoPlayoutStats::default()
        })
    };
    InboundRtpStats {
        packets_received: if audio { totals.received } else { 0 },
        packets_lost: if audio { totals.lost } else { 0 },
        mean_jitter_buffer_delay: audio.then_some(totals.delay),
        playout: Some(playout),
        ..fixtures::inbound_rtp(kind)
    }
}

impl Call {
    fn of(count: usize) -> Self {
        Self { count, ..Self::default() }
    }

    /// Lets seconds pass in which the participants' media do this.
    fn pass(&mut self, seconds: usize, each: &[Second]) -> &mut Self {
        for _ in 0..seconds {
            for (totals, second) in self.totals.iter_mut().zip(each) {
                totals.samples += 48_000;
                totals.concealed += 480 * second.concealed_percent;
                totals.frames += second.fps;
                totals.frames_received += second.fps;
                totals.frozen_seconds += second.frozen;
                totals.received += 150;
                totals.lost += second.lost;
                totals.delay = second.delay;
            }
            let participants = (0..self.count).map(|index| ParticipantStats {
                participant: name(index),
                name: String::new(),
                video: None,
                audio: None,
                retransmissions: Retransmissions::default(),
                estimate_bps: None,
                rtc: vec![
                    RtcStats::CandidatePair(fixtures::candidate_pair()),
                    RtcStats::InboundRtp(Box::new(inbound(Media::Audio, &self.totals[index]))),
                    RtcStats::InboundRtp(Box::new(inbound(Media::Video, &self.totals[index]))),
                ],
            });
            let session = SessionStats {
                session: session(),
                kind: SessionKind::FIVE[0],
                participants: participants.collect(),
            };
            self.monitor.update(&Stats {
                upload_full: self.is_upload_full,
                sessions: vec![session],
                ..Stats::default()
            });
        }
        self
    }

    fn quality(&self, index: usize) -> CallQuality {
        self.monitor.of(&session(), &name(index))
    }

    fn level(&self, index: usize) -> QualityLevel {
        self.quality(index).level
    }
}

#[test]
fn a_good_call_stays_good_and_one_bad_second_is_no_poor_quality() {
    let mut call = Call::of(1);
    assert_eq!(call.pass(20, &[GOOD]).level(0), QualityLevel::Good);
    assert_eq!(call.pass(1, &[FROZEN]).level(0), QualityLevel::Good);
    assert_eq!(call.monitor.of(&session(), &name(2)), CallQuality::default());
}

#[test]
fn gaps_freezes_and_delay_are_told_apart_and_forgotten_eight_seconds_after_they_end() {
    let late = Second { delay: 0.6, ..GOOD };
    let slow = Second { fps: 5, ..GOOD };
    for (bad, problem) in [
        (GAPS, QualityProblem::Audio),
        (FROZEN, QualityProblem::Video),
        (slow, QualityProblem::Video),
        (late, QualityProblem::Delay),
    ] {
        let mut call = Call::of(1);
        call.pass(8, &[GOOD]).pass(8, &[bad]);
        let quality = call.quality(0);
        let expected =
            CallQuality { level: QualityLevel::Poor, problem, cause: QualityCause::Path };
        assert_eq!(quality, expected);
        assert_eq!(call.pass(7, &[GOOD]).level(0), QualityLevel::Poor);
        assert_eq!(call.pass(8, &[GOOD]).level(0), QualityLevel::Good);
    }
}

#[test]
fn video_that_nobody_sees_is_not_judged() {
    let mut call = Call::of(1);
    call.pass(8, &[GOOD]);
    let hidden = Second { fps: 0, ..GOOD };
    assert_eq!(call.pass(10, &[hidden]).level(0), QualityLevel::Good);
}

#[test]
fn losses_from_everybody_are_this_users_and_losses_from_one_are_theirs() {
    let mut call = Call::of(3);
    call.pass(8, &[GOOD, GAPS, GOOD]);
    assert_eq!(call.quality(1).cause, QualityCause::Theirs);
    assert_eq!((call.level(0), call.level(1)), (QualityLevel::Good, QualityLevel::Poor));
    let mut call = Call::of(3);
    call.pass(8, &[GAPS, GAPS, GAPS]);
    assert!((0..3).all(|index| call.quality(index).cause == QualityCause::Own));
}

#[test]
fn a_full_upload_is_the_cause_of_delay_and_of_nothing_else() {
    let late = Second { delay: 0.6, ..GOOD };
    for (second, cause) in [(late, QualityCause::Upload), (GAPS, QualityCause::Path)] {
        let mut call = Call { is_upload_full: true, ..Call::of(1) };
        call.pass(8, &[GOOD]).pass(8, &[second]);
        assert_eq!(call.quality(0).cause, cause);
    }
}
