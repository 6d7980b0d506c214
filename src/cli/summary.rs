//! The sentence about the whole run.

use crate::model::{AudioStats, Bitrate, ParticipantStats, Stats};

/// The statistics of the whole run as a sentence. What went well is left out.
pub(super) fn sentence(stats: &Stats) -> String {
    let participants = || stats.sessions.iter().flat_map(|session| &session.participants);
    let mut parts = vec![format!(
        "summary     sessions {}, participants {}; opened: camera {}×, microphone {}×; CPU {:.1} s",
        stats.sessions.len(),
        participants().count(),
        stats.captures.video,
        stats.captures.audio,
        stats.cpu_seconds,
    )];
    parts.extend(received(participants().collect()));
    parts.extend(sent(stats, participants().collect()));
    parts.join("; ")
}

/// What was wrong with the received media.
fn received(participants: Vec<&ParticipantStats>) -> Vec<String> {
    let audio = || participants.iter().filter_map(|one| one.audio.as_ref());
    let video = || participants.iter().filter_map(|one| one.video.as_ref());
    let concealed = AudioStats::share(
        audio().map(|audio| audio.concealed_ms).sum(),
        audio().map(|audio| audio.played_ms).sum(),
    );
    let freezes: u64 = video().map(|video| video.freezes).sum();
    let frozen: u64 = video().map(|video| video.frozen_ms).sum();
    let mut parts = vec![];
    if concealed > 0.0 {
        parts.push(format!("sound made up {:.1} %", concealed * 100.0));
    }
    if freezes > 0 {
        parts.push(format!("video stood still {freezes}×, {:.1} s", frozen as f64 / 1000.0));
    }
    parts
}

/// What the paths to others were like.
fn sent(stats: &Stats, participants: Vec<&ParticipantStats>) -> Vec<String> {
    let repeats: u64 = participants.iter().map(|one| one.retransmissions.sent).sum();
    let mut parts = vec![];
    if repeats > 0 {
        parts.push(format!("packets sent again {repeats}"));
    }
    if stats.layer_changes > 0 {
        parts.push(format!("changes of layer {}", stats.layer_changes));
    }
    let slowest = participants.iter().filter_map(|one| one.estimate_bps).min();
    if let Some(slowest) = slowest {
        parts.push(format!("slowest path {}", Bitrate::from_bps(slowest)));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ParticipantId, Retransmissions, SessionId, SessionKind, SessionStats, VideoStats,
    };

    fn participant(freezes: u64, sent: u64, estimate_bps: Option<u64>) -> ParticipantStats {
        ParticipantStats {
            participant: ParticipantId::from_digest([0; 10]),
            name: "Ada".to_owned(),
            video: Some(VideoStats { freezes, frozen_ms: freezes * 600, ..Default::default() }),
            audio: Some(AudioStats { concealed_ms: 30, played_ms: 1000, ..AudioStats::silent() }),
            retransmissions: Retransmissions { sent, received: 0 },
            estimate_bps,
            rtc: vec![],
        }
    }

    #[test]
    fn a_summary_says_what_was_made_up_frozen_and_sent_again_and_how_slow_the_paths_are() {
        let mut stats = Stats { layer_changes: 3, cpu_seconds: 1.5, ..Stats::default() };
        let participants =
            vec![participant(1, 20, Some(2_000_000)), participant(1, 14, Some(500_000))];
        stats.sessions.push(SessionStats {
            session: SessionId::parse("town-hall").unwrap(),
            kind: SessionKind::FIVE[0],
            participants,
        });
        let expected = "summary     sessions 1, participants 2; opened: camera 0×, microphone 0×; \
                        CPU 1.5 s; sound made up 3.0 %; video stood still 2×, 1.2 s; packets sent \
                        again 34; changes of layer 3; slowest path 500 kbit/s";
        assert_eq!(sentence(&stats), expected);
        let calm =
            "summary     sessions 0, participants 0; opened: camera 0×, microphone 0×; CPU 0.0 s";
        assert_eq!(sentence(&Stats::default()), calm);
    }
}
