//! The remote tiles of a snapshot: one per participant that sends to this user.

use super::words;
use crate::{
    engine::Picture,
    model::{
        Media, MediaTime, ParticipantId, ParticipantState, ParticipantStatus, Role, SessionKind,
        SessionState, SessionStatus, Snapshot, Topology,
    },
};

/// The tile of a participant in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Face {
    /// The video and audio that it shows.
    pub(crate) picture: Picture,
    /// The participant.
    pub(crate) participant: ParticipantId,
    /// The participant's name.
    pub(crate) name: String,
    /// The session's index in the snapshot.
    pub(crate) lane: usize,
    /// The kind of the session.
    pub(crate) kind: SessionKind,
    /// Whether video is expected: the session has video and the participant's camera is on.
    pub(crate) video: bool,
    /// Whether the participant's microphone is off in a session with audio.
    pub(crate) muted: bool,
    /// Whether the participant's camera is off in a session with video.
    pub(crate) camera_off: bool,
    /// The participant's state.
    pub(crate) state: ParticipantState,
    /// The state as text. Empty if all is well.
    pub(crate) state_words: String,
    /// Whether the tile is large, as in a one-way stream.
    pub(crate) large: bool,
}

/// A participant that sent to this user and has lost its connection, while its seat is reserved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Missing {
    /// The participant's name.
    pub(crate) name: String,
    /// The session's index in the snapshot.
    pub(crate) lane: usize,
    /// The accessibility label: name, session and state.
    pub(crate) label: String,
}

/// The disconnected participants that send to this user, in the order of [`all`].
pub(crate) fn missing(snapshot: &Snapshot, now: MediaTime) -> Vec<Missing> {
    let mut all = vec![];
    for (session_index, session) in snapshot.sessions.iter().enumerate() {
        let Some(kind) = session.kind.filter(|_| has_media(&session.state)) else { continue };
        let is_missing = |participant: &&ParticipantStatus| {
            participant.state == ParticipantState::Gone && sends((session, kind), participant)
        };
        for participant in session.participants.iter().filter(is_missing) {
            let state = words::participant(participant, now);
            let label = format!("{} in {}: {state}", participant.name, words::kind(kind));
            all.push(Missing { name: participant.name.clone(), lane: session_index, label });
        }
    }
    all
}

/// Whether the participant sends audio or video to this user.
fn sends((session, kind): (&SessionStatus, SessionKind), participant: &ParticipantStatus) -> bool {
    let one_way = kind.topology == Topology::OneWay;
    let has_streams = kind.media.has(Media::Audio) || kind.media.has(Media::Video);
    has_streams && (!one_way || (participant.role == Role::Opener && session.role == Role::Guest))
}

impl Face {
    /// The accessibility label of the tile.
    pub(crate) fn label(&self) -> String {
        let kind_name = words::kind(self.kind);
        match self.state_words.as_str() {
            "" => format!("{} in {kind_name}", self.name),
            state => format!("{} in {kind_name}: {state}", self.name),
        }
    }
}

/// The tiles of all participants that send to this user, in the order of sessions and of their
/// joining.
pub(crate) fn remote(snapshot: &Snapshot, now: MediaTime) -> Vec<Face> {
    let mut tiles = vec![];
    for (session_index, session) in snapshot.sessions.iter().enumerate() {
        let Some(kind) = session.kind else { continue };
        if !has_media(&session.state) {
            continue;
        }
        let participants = session.participants.iter();
        tiles
            .extend(participants.filter_map(|participant| {
                face((session_index, session), kind, (participant, now))
            }));
    }
    tiles
}

fn face(
    (session_index, session): (usize, &SessionStatus),
    kind: SessionKind,
    (participant, now): (&ParticipantStatus, MediaTime),
) -> Option<Face> {
    let peer = participant.peer?;
    let one_way = kind.topology == Topology::OneWay;
    let (audio, video) = (kind.media.has(Media::Audio), kind.media.has(Media::Video));
    let is_present = !matches!(participant.state, ParticipantState::Gone | ParticipantState::Left);
    (is_present && sends((session, kind), participant)).then(|| Face {
        picture: Picture::Peer(peer),
        participant: participant.participant.clone(),
        name: participant.name.clone(),
        lane: session_index,
        kind,
        video: video && participant.camera && !without(participant, Media::Video),
        muted: audio && (!participant.microphone || without(participant, Media::Audio)),
        camera_off: video && (!participant.camera || without(participant, Media::Video)),
        state: participant.state,
        state_words: words::participant(participant, now),
        large: one_way && video,
    })
}

/// Whether the medium flows in neither direction, because the participant's program does not
/// support it.
fn without(participant: &ParticipantStatus, medium: Media) -> bool {
    participant.left_out.is_some_and(|set| set.has(medium))
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
