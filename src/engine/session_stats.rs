//! The statistics of all sessions and participants of this run, also of those that have ended or
//! left.

use std::collections::BTreeMap;

use super::{peer_stats::PeerStats, remote_media::ParticipantKey};
use crate::{
    model::{
        AudioStats, Event, Media, MediaTime, ParticipantId, ParticipantState, ParticipantStats,
        SessionId, SessionKind, SessionStats, VideoStats,
    },
    playback::ToneTap,
};

/// The most participants of one session in the statistics, departed ones included. A session of a
/// whole day may have many more, and each line of statistics would list them all.
const MAX_PARTICIPANTS: usize = 500;

/// Collects the statistics of all sessions of this run, with the newest participants of each.
#[derive(Debug, Default)]
pub(super) struct StatsCollector {
    sessions: Vec<SessionEntry>,
    requested: BTreeMap<SessionId, MediaTime>,
}

/// The statistics of all sessions.
pub(super) struct CollectedStats {
    /// The sessions, without tones.
    pub(super) sessions: Vec<SessionStats>,
    /// The taps that measure the tones.
    pub(super) tones: BTreeMap<ParticipantKey, ToneTap>,
}

#[derive(Debug)]
struct SessionEntry {
    session: SessionId,
    kind: SessionKind,
    /// When it was requested.
    requested_at: MediaTime,
    /// When it was opened or joined.
    live_since: MediaTime,
    participants: Vec<ParticipantEntry>,
}

#[derive(Debug)]
struct ParticipantEntry {
    participant: ParticipantId,
    name: String,
    first_seen: MediaTime,
    has_first_frame: bool,
    is_present: bool,
    /// Statistics of peer connections that have ended.
    past_stats: PeerStats,
}

impl StatsCollector {
    /// Notes when a session was requested.
    pub(super) fn on_requested(&mut self, session: &SessionId, now: MediaTime) {
        self.requested.insert(session.clone(), now);
    }

    /// Updates the sessions and participants from an event.
    pub(super) fn on_event(&mut self, event: &Event, now: MediaTime) {
        match event {
            Event::Opened { session, kind, .. } | Event::Joined { session, kind } => {
                let asked = self.requested.remove(session).unwrap_or(now);
                match self.session(session) {
                    Some(known) => (known.requested_at, known.live_since) = (asked, now),
                    None => self.sessions.push(SessionEntry {
                        session: session.clone(),
                        kind: *kind,
                        requested_at: asked,
                        live_since: now,
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
                        known.has_first_frame &= known.is_present || !is_here;
                        known.is_present = is_here;
                        known.name.clone_from(name);
                    }
                    None => session.participants.push(ParticipantEntry {
                        is_present: is_here,
                        participant: participant.clone(),
                        name: name.clone(),
                        first_seen: now,
                        has_first_frame: false,
                        past_stats: PeerStats::default(),
                    }),
                }
                session.remove_oldest_departed();
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
            | Event::HubRestored { .. }
            | Event::Waiting { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            | Event::LeftOut { .. }
            | Event::MicrophoneSilent
            | Event::ActiveSpeaker { .. }
            | Event::SpeakingWhileMuted
            | Event::EncoderLate
            | Event::UploadFull
            | Event::UploadOk
            | Event::MessageReceived { .. }
            | Event::MessageSent { .. }
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
    pub(super) fn on_first_media(
        &mut self,
        (session, participant): &ParticipantKey,
        media: Media,
        now: MediaTime,
    ) -> Option<Event> {
        let known = self.session(session)?;
        let (asked, live) = (known.requested_at, known.live_since);
        let leading = if known.kind.media.has(Media::Video) { Media::Video } else { Media::Audio };
        let one = known.participant(participant)?;
        if media != leading || std::mem::replace(&mut one.has_first_frame, true) {
            return None;
        }
        let from = if one.first_seen == live { asked } else { one.first_seen };
        Some(Event::FirstFrame {
            session: session.clone(),
            participant: participant.clone(),
            ms: now.since(from).as_millis() as u64,
        })
    }

    /// Adds the last statistics of a peer connection that has ended.
    pub(super) fn on_connection_closed(
        &mut self,
        (session, participant): &ParticipantKey,
        stats: PeerStats,
    ) {
        if let Some(session) = self.session(session)
            && let Some(participant) = session.participant(participant)
        {
            participant.past_stats = stats.added_to(&participant.past_stats);
        }
    }

    /// Returns the statistics of all sessions, including the peer connections of now. Participants
    /// that left are included only `with_past`.
    pub(super) fn collect(
        &self,
        now: impl Iterator<Item = (ParticipantKey, PeerStats)>,
        with_past: bool,
    ) -> CollectedStats {
        let now: BTreeMap<_, _> = now.collect();
        let mut tones = BTreeMap::new();
        let mut of = |session: &SessionEntry, one: &ParticipantEntry| {
            let key = (session.session.clone(), one.participant.clone());
            let peer = now.get(&key).cloned().unwrap_or_default().added_to(&one.past_stats);
            if let Some(tone) = peer.tone {
                tones.insert(key, tone);
            }
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
                retransmissions: peer.retransmissions,
                estimate_bps: peer.estimate_bps,
                rtc: peer.rtc,
            }
        };
        let sessions = self.sessions.iter().map(|session| SessionStats {
            session: session.session.clone(),
            kind: session.kind,
            participants: session
                .participants
                .iter()
                .filter(|one| with_past || one.is_present)
                .map(|one| of(session, one))
                .collect(),
        });
        CollectedStats { sessions: sessions.collect(), tones }
    }

    fn session(&mut self, session: &SessionId) -> Option<&mut SessionEntry> {
        self.sessions.iter_mut().find(|known| known.session == *session)
    }
}

impl SessionEntry {
    /// Removes the oldest participant that has left, if there are more than [`MAX_PARTICIPANTS`].
    fn remove_oldest_departed(&mut self) {
        if self.participants.len() > MAX_PARTICIPANTS
            && let Some(old) = self.participants.iter().position(|one| !one.is_present)
        {
            self.participants.remove(old);
        }
    }

    fn participant(&mut self, participant: &ParticipantId) -> Option<&mut ParticipantEntry> {
        self.participants.iter_mut().find(|known| known.participant == *participant)
    }
}
