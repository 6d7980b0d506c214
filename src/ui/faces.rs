//! Who is to be seen or heard: the tiles that a snapshot asks for.

use super::words;
use crate::{
    engine::Picture,
    model::{
        Media, MediaTime, ParticipantId, ParticipantState, ParticipantStatus, Role, SessionKind,
        SessionState, SessionStatus, Snapshot, Topology,
    },
};

/// One tile: a person in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Face {
    /// Whose picture and sound.
    pub(crate) picture: Picture,
    /// Who it is.
    pub(crate) participant: ParticipantId,
    /// How the person is called.
    pub(crate) name: String,
    /// The session's place in the snapshot.
    pub(crate) lane: usize,
    /// What the session is.
    pub(crate) kind: SessionKind,
    /// Whether a picture comes: the session has video and the person's camera is on.
    pub(crate) video: bool,
    /// Whether the person's microphone is off in a session with sound.
    pub(crate) muted: bool,
    /// Whether the person's camera is off in a session with video.
    pub(crate) camera_off: bool,
    /// How the person is.
    pub(crate) state: ParticipantState,
    /// The same in words.
    pub(crate) state_words: String,
    /// Whether it is shown large: one-way streams.
    pub(crate) large: bool,
}

/// Somebody who sent to us and was lost, while the seat is kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    /// How the person is called.
    pub(crate) name: String,
    /// The session's place in the snapshot.
    pub(crate) lane: usize,
    /// What screen readers are told: who, where, and how the person is.
    pub(crate) label: String,
}

/// Those who are lost of everybody who sends to us, in the order of [`remote`].
pub(crate) fn missing(snapshot: &Snapshot, now: MediaTime) -> Vec<Missing> {
    let mut all = vec![];
    for (lane, session) in snapshot.sessions.iter().enumerate() {
        let Some(kind) = session.kind.filter(|_| has_media(&session.state)) else { continue };
        let is_missing = |person: &&ParticipantStatus| {
            person.state == ParticipantState::Gone && sends((session, kind), person)
        };
        for person in session.participants.iter().filter(is_missing) {
            let state = words::participant(person, now);
            let label = format!("{} in {}: {state}", person.name, words::kind(kind));
            all.push(Missing { name: person.name.clone(), lane, label });
        }
    }
    all
}

/// Whether the person is to be seen or heard by us.
fn sends((session, kind): (&SessionStatus, SessionKind), person: &ParticipantStatus) -> bool {
    let one_way = kind.topology == Topology::OneWay;
    let has_streams = kind.media.has(Media::Audio) || kind.media.has(Media::Video);
    has_streams && (!one_way || (person.role == Role::Opener && session.role == Role::Guest))
}

impl Face {
    /// What the tile is called by screen readers.
    pub(crate) fn label(&self) -> String {
        let place = words::kind(self.kind);
        match self.state_words.as_str() {
            "" => format!("{} in {place}", self.name),
            state => format!("{} in {place}: {state}", self.name),
        }
    }
}

/// The tiles of everybody who sends to us, in the order of sessions and arrivals.
pub(crate) fn remote(snapshot: &Snapshot, now: MediaTime) -> Vec<Face> {
    let mut faces = vec![];
    for (lane, session) in snapshot.sessions.iter().enumerate() {
        let Some(kind) = session.kind else { continue };
        if !has_media(&session.state) {
            continue;
        }
        let people = session.participants.iter();
        faces.extend(people.filter_map(|person| face((lane, session), kind, (person, now))));
    }
    faces
}

fn face(
    (lane, session): (usize, &SessionStatus),
    kind: SessionKind,
    (person, now): (&ParticipantStatus, MediaTime),
) -> Option<Face> {
    let peer = person.peer?;
    let one_way = kind.topology == Topology::OneWay;
    let (audio, video) = (kind.media.has(Media::Audio), kind.media.has(Media::Video));
    let here = !matches!(person.state, ParticipantState::Gone | ParticipantState::Left);
    (here && sends((session, kind), person)).then(|| Face {
        picture: Picture::Peer(peer),
        participant: person.participant.clone(),
        name: person.name.clone(),
        lane,
        kind,
        video: video && person.camera && !without(person, Media::Video),
        muted: audio && (!person.microphone || without(person, Media::Audio)),
        camera_off: video && (!person.camera || without(person, Media::Video)),
        state: person.state,
        state_words: words::participant(person, now),
        large: one_way && video,
    })
}

/// Whether the medium goes neither way: the person's program cannot do it.
fn without(person: &ParticipantStatus, medium: Media) -> bool {
    person.left_out.is_some_and(|set| set.has(medium))
}

const fn has_media(state: &SessionState) -> bool {
    match state {
        SessionState::Live | SessionState::Reconnecting { .. } => true,
        SessionState::Connecting
        | SessionState::Unreachable { .. }
        | SessionState::Waiting
        | SessionState::HostLost { .. }
        | SessionState::Ended { .. }
        | SessionState::Failed(_) => false,
    }
}
