//! The statistics of all sessions and participants of this run, also of those that have ended or
//! left.

use std::collections::BTreeMap;

use super::reception::{Figures, Source};
use crate::model::{
    AudioStats, Event, Media, MediaTime, ParticipantId, ParticipantState, ParticipantStats,
    SessionId, SessionKind, SessionStats, VideoStats,
};

/// The most participants of one session in the statistics, departed ones included. A session of a
/// whole day may have many more, and each line of statistics would list them all.
const KEPT: usize = 500;

/// Collects the statistics of all sessions of this run, with the newest participants of each.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sessions: Vec<Session>,
    asked: BTreeMap<SessionId, MediaTime>,
}

#[derive(Debug)]
struct Session {
    session: SessionId,
    kind: SessionKind,
    /// When it was requested.
    asked: MediaTime,
    /// When it was opened or joined.
    live: MediaTime,
    participants: Vec<Participant>,
}

#[derive(Debug)]
struct Participant {
    participant: ParticipantId,
    name: String,
    seen: MediaTime,
    first_frame: bool,
    is_here: bool,
    /// Statistics of peer connections that have ended.
    past: Figures,
}

impl Ledger {
    /// Notes when a session was requested.
    pub(super) fn ask(&mut self, session: &SessionId, now: MediaTime) {
        self.asked.insert(session.clone(), now);
    }

    /// Updates the sessions and participants from an event.
    pub(super) fn note(&mut self, event: &Event, now: MediaTime) {
        match event {
            Event::Opened { session, kind, .. } | Event::Joined { session, kind } => {
                let asked = self.asked.remove(session).unwrap_or(now);
                match self.session(session) {
                    Some(known) => (known.asked, known.live) = (asked, now),
                    None => self.sessions.push(Session {
                        session: session.clone(),
                        kind: *kind,
                        asked,
                        live: now,
                        participants: vec![],
                    }),
                }
            }
            Event::Participant { session, participant, name, state, .. } => {
                let Some(session) = self.session(session) else { return };
                let is_here = *state != ParticipantState::Left;
                match session.participant(participant) {
                    Some(known) => {
                        // The first frame of a participant that comes back is measured again.
                        known.first_frame &= known.is_here || !is_here;
                        known.is_here = is_here;
                        known.name.clone_from(name);
                    }
                    None => session.participants.push(Participant {
                        is_here,
                        participant: participant.clone(),
                        name: name.clone(),
                        seen: now,
                        first_frame: false,
                        past: Figures::default(),
                    }),
                }
                session.forget_old();
            }
            Event::Renamed { session, participant, name, .. } => {
                let known = self.session(session).and_then(|one| one.participant(participant));
                if let Some(known) = known {
                    known.name.clone_from(name);
                }
            }
            Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubBack { .. }
            | Event::Waiting { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            | Event::LeftOut { .. }
            | Event::Message { .. }
            | Event::Said { .. }
            | Event::Undelivered { .. }
            | Event::Failed(_)
            | Event::Ended { .. } => {}
        }
    }

    /// Returns the event for a participant's first video frame, or for its first audio if the
    /// session has no video; `None` if it is not the first.
    ///
    /// The time counts from the request for the session, or from the arrival of a participant that
    /// came later.
    pub(super) fn first(
        &mut self,
        (session, participant): &Source,
        media: Media,
        now: MediaTime,
    ) -> Option<Event> {
        let known = self.session(session)?;
        let (asked, live) = (known.asked, known.live);
        let leading = if known.kind.media.has(Media::Video) { Media::Video } else { Media::Audio };
        let one = known.participant(participant)?;
        if media != leading || std::mem::replace(&mut one.first_frame, true) {
            return None;
        }
        let from = if one.seen == live { asked } else { one.seen };
        Some(Event::FirstFrame {
            session: session.clone(),
            participant: participant.clone(),
            ms: now.since(from).as_millis() as u64,
        })
    }

    /// Adds the last statistics of a peer connection that has ended.
    pub(super) fn keep(&mut self, (session, participant): &Source, stats: Figures) {
        if let Some(session) = self.session(session)
            && let Some(participant) = session.participant(participant)
        {
            participant.past = stats.after(&participant.past);
        }
    }

    /// Returns the statistics of all sessions, including the peer connections of now. Participants
    /// that left are included only `with_past`.
    pub(super) fn sessions<'a>(
        &self,
        now: impl Iterator<Item = (&'a Source, Figures)>,
        with_past: bool,
    ) -> Vec<SessionStats> {
        let now: BTreeMap<_, _> = now.map(|(key, stats)| (key.clone(), stats)).collect();
        let of = |session: &Session, one: &Participant| {
            let key = (session.session.clone(), one.participant.clone());
            let peer = now.get(&key).cloned().unwrap_or_default().after(&one.past);
            let media = session.kind.media;
            ParticipantStats {
                participant: one.participant.clone(),
                name: one.name.clone(),
                video: media
                    .has(Media::Video)
                    .then(|| peer.video.unwrap_or_else(VideoStats::default)),
                audio: media
                    .has(Media::Audio)
                    .then(|| peer.audio.unwrap_or_else(AudioStats::silent)),
            }
        };
        let stats = self.sessions.iter().map(|session| SessionStats {
            session: session.session.clone(),
            kind: session.kind,
            participants: session
                .participants
                .iter()
                .filter(|one| with_past || one.is_here)
                .map(|one| of(session, one))
                .collect(),
        });
        stats.collect()
    }

    fn session(&mut self, session: &SessionId) -> Option<&mut Session> {
        self.sessions.iter_mut().find(|known| known.session == *session)
    }
}

impl Session {
    /// Removes the oldest participant that has left, if there are more than [`MAX_PARTICIPANTS`].
    fn forget_old(&mut self) {
        if self.participants.len() > KEPT
            && let Some(old) = self.participants.iter().position(|one| !one.is_here)
        {
            self.participants.remove(old);
        }
    }

    fn participant(&mut self, participant: &ParticipantId) -> Option<&mut Participant> {
        self.participants.iter_mut().find(|known| known.participant == *participant)
    }
}
