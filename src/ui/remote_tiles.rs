//! The remote tiles of a snapshot: one per participant that sends to this user.

use super::labels;
use crate::{
    engine::TrackRef,
    model::{
        ActiveSpeaker, Media, MediaTime, ParticipantId, ParticipantState, ParticipantStatus, Role,
        SessionKind, SessionState, SessionStatus, Snapshot, Source, Topology,
    },
};

/// The tile of a participant in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RemoteTile {
    /// The video that it shows.
    pub(crate) track: TrackRef,
    /// The participant.
    pub(crate) participant: ParticipantId,
    /// The participant's name.
    pub(crate) name: String,
    /// The session's index in the snapshot.
    pub(crate) session_index: usize,
    /// The kind of the session.
    pub(crate) kind: SessionKind,
    /// Whether video is expected: the session has video and the participant's camera is on.
    pub(crate) has_video: bool,
    /// Whether the participant's microphone is off in a session with audio.
    pub(crate) muted: bool,
    /// Whether the participant's camera is off in a session with video.
    pub(crate) camera_off: bool,
    /// Whether the participant is the active speaker of a session in which several may speak.
    pub(crate) is_active_speaker: bool,
    /// The participant's state.
    pub(crate) state: ParticipantState,
    /// The state as text. Empty if all is well.
    pub(crate) state_label: String,
    /// Whether the tile is large, as in a one-way stream.
    pub(crate) large: bool,
}

/// A participant that sent to this user and has lost its connection, while its seat is reserved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DisconnectedParticipant {
    /// The participant's name.
    pub(crate) name: String,
    /// The session's index in the snapshot.
    pub(crate) session_index: usize,
    /// The accessibility label: name, session and state.
    pub(crate) label: String,
}

/// The disconnected participants that send to this user, in the order of [`all`].
pub(crate) fn disconnected(snapshot: &Snapshot, now: MediaTime) -> Vec<DisconnectedParticipant> {
    let mut all = vec![];
    for (session_index, session) in snapshot.sessions.iter().enumerate() {
        let Some(kind) = session.kind.filter(|_| carries_media(&session.state)) else { continue };
        let is_missing = |participant: &&ParticipantStatus| {
            participant.state == ParticipantState::Gone && sends_to_us((session, kind), participant)
        };
        for participant in session.participants.iter().filter(is_missing) {
            let state = labels::participant_state(participant, now);
            let label = format!("{} in {}: {state}", participant.name, labels::kind(kind));
            all.push(DisconnectedParticipant {
                name: participant.name.clone(),
                session_index,
                label,
            });
        }
    }
    all
}

/// Whether the participant sends audio or video to this user.
fn sends_to_us(
    (session, kind): (&SessionStatus, SessionKind),
    participant: &ParticipantStatus,
) -> bool {
    let one_way = kind.topology == Topology::OneWay;
    let has_streams = kind.media.has(Media::Audio) || kind.media.has(Media::Video);
    has_streams && (!one_way || (participant.role == Role::Opener && session.role == Role::Guest))
}

impl RemoteTile {
    /// The accessibility label of the tile.
    pub(crate) fn label(&self) -> String {
        let kind_name = labels::kind(self.kind);
        match self.state_label.as_str() {
            "" if self.is_active_speaker => format!("{} in {kind_name}, speaking", self.name),
            "" => format!("{} in {kind_name}", self.name),
            state => format!("{} in {kind_name}: {state}", self.name),
        }
    }
}

/// The tiles of all participants that send to this user, in the order of sessions and of their
/// joining.
pub(crate) fn all(snapshot: &Snapshot, now: MediaTime) -> Vec<RemoteTile> {
    let mut tiles = vec![];
    for (session_index, session) in snapshot.sessions.iter().enumerate() {
        let Some(kind) = session.kind else { continue };
        if !carries_media(&session.state) {
            continue;
        }
        let participants = session.participants.iter();
        tiles.extend(participants.flat_map(|participant| {
            let videos = Source::ALL.into_iter().filter(|source| source.media() == Media::Video);
            videos.filter_map(move |source| {
                remote_tile((session_index, session), kind, (participant, now), source)
            })
        }));
    }
    tiles
}

/// The tile of a source of video. The camera's is that of the person, and is always shown; others
/// are shown while they are on.
fn remote_tile(
    (session_index, session): (usize, &SessionStatus),
    kind: SessionKind,
    (participant, now): (&ParticipantStatus, MediaTime),
    source: Source,
) -> Option<RemoteTile> {
    let peer =
        participant.peer.filter(|_| source == Source::Camera || participant.sends[source])?;
    let one_way = kind.topology == Topology::OneWay;
    let (audio, video) = (kind.media.has(Media::Audio), kind.media.has(Media::Video));
    let is_present = !matches!(participant.state, ParticipantState::Gone | ParticipantState::Left);
    (is_present && sends_to_us((session, kind), participant)).then(|| RemoteTile {
        track: TrackRef::Peer(peer, source),
        participant: participant.participant.clone(),
        name: participant.name.clone(),
        session_index,
        kind,
        has_video: video && participant.sends[source] && !is_left_out(participant, Media::Video),
        muted: audio && (!participant.sends.microphone || is_left_out(participant, Media::Audio)),
        camera_off: video && (!participant.sends.camera || is_left_out(participant, Media::Video)),
        is_active_speaker: !one_way && is_active_speaker(session, participant),
        state: participant.state,
        state_label: labels::participant_state(participant, now),
        large: one_way && video,
    })
}

fn is_active_speaker(session: &SessionStatus, participant: &ParticipantStatus) -> bool {
    let speaker = session.active_speaker.as_ref().and_then(ActiveSpeaker::participant);
    speaker == Some(&participant.participant)
}

/// Whether the medium flows in neither direction, because the participant's program does not
/// support it.
fn is_left_out(participant: &ParticipantStatus, medium: Media) -> bool {
    participant.left_out.is_some_and(|set| set.has(medium))
}

const fn carries_media(state: &SessionState) -> bool {
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
