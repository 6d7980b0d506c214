//! Who speaks in each session: watches the levels of all audio, a tenth of a second at a time.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    audio::ActiveSpeakerDetector,
    model::{ActiveSpeaker, MediaTime, SessionId},
};

/// The time between two looks at the levels.
const STEP: Duration = Duration::from_millis(100);

/// The active speaker of each session in which audio arrives or is sent.
#[derive(Debug, Default)]
pub(super) struct SpeakerWatch {
    sessions: BTreeMap<SessionId, Watched>,
    /// When to look next; `None` while no audio arrives and none is sent.
    next: Option<MediaTime>,
}

#[derive(Debug, Default)]
struct Watched {
    active: ActiveSpeakerDetector<ActiveSpeaker>,
    told: Option<ActiveSpeaker>,
}

/// The levels of all who may speak in a session, in dB relative to full scale; `None` of those of whom
/// nothing arrived.
pub(super) type SessionLevels = BTreeMap<SessionId, Vec<(ActiveSpeaker, Option<f32>)>>;

impl SpeakerWatch {
    /// Audio arrives or is sent: looks at the levels from now on.
    pub(super) fn start(&mut self, now: MediaTime) {
        self.next.get_or_insert(now + STEP);
    }

    /// When [`Self::update`] is to be called.
    pub(super) const fn next_deadline(&self) -> Option<MediaTime> {
        self.next
    }

    /// Whether it is time to look.
    pub(super) fn is_due(&self, now: MediaTime) -> bool {
        self.next.is_some_and(|at| at <= now)
    }

    /// Takes the levels since the last call, of all sessions in which audio may arrive or is sent. Returns where
    /// another one speaks, or nobody any more. Looks no more while there are none.
    pub(super) fn update(
        &mut self,
        levels: SessionLevels,
        now: MediaTime,
    ) -> Vec<(SessionId, Option<ActiveSpeaker>)> {
        self.next = (!levels.is_empty()).then(|| now + STEP);
        let mut before = std::mem::take(&mut self.sessions);
        let mut changes = vec![];
        for (session, levels) in levels {
            let mut watched = before.remove(&session).unwrap_or_default();
            let active = watched.active.update(levels).cloned();
            if active != watched.told {
                changes.push((session.clone(), active.clone()));
                watched.told = active;
            }
            self.sessions.insert(session, watched);
        }
        let ended = before.into_iter().filter(|(_, watched)| watched.told.is_some());
        changes.extend(ended.map(|(session, _)| (session, None)));
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_once_and_a_session_without_audio_has_no_speaker() {
        let (mut watch, mut now) = (SpeakerWatch::default(), MediaTime::default());
        assert_eq!(watch.next_deadline(), None);
        watch.start(now);
        let session = SessionId::parse("town-hall").unwrap();
        let mut step = |levels: &[f32]| {
            now = now + STEP;
            assert!(watch.is_due(now));
            let levels: Vec<_> =
                levels.iter().map(|dbfs| (ActiveSpeaker::Own, Some(*dbfs))).collect();
            let all = (!levels.is_empty()).then(|| (session.clone(), levels));
            watch.update(all.into_iter().collect(), now)
        };
        let spoken: Vec<_> = (0..20).flat_map(|_| step(&[-20.0])).collect();
        assert_eq!(spoken, [(session.clone(), Some(ActiveSpeaker::Own))]);
        assert_eq!(step(&[]), [(session.clone(), None)]);
        assert_eq!(watch.next_deadline(), None, "nothing wakes the engine without audio");
    }
}
