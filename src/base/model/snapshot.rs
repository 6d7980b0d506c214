//! The state of the engine at one moment, which the window draws. It is a function of the core's
//! state.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::{
    DataUse, EndReason, Failure, HubEndpoint, HubOwner, HubUrl, MediaSet, MediaTime, MuteSwitch,
    ParticipantId, ParticipantList, PeerId, PerDevice, PerSource, Role, SessionId, SessionKind,
    SessionLink, SoundCheckStage, Source, VoiceProcessing,
};

/// The state of the engine at one moment. A newer snapshot replaces all older ones.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Snapshot {
    /// The hubs in use; the default hub is first.
    pub hubs: Vec<HubStatus>,
    /// The sessions, in the order in which they were requested, without those of a pending
    /// departure. A session that did not change is shared with the snapshot before.
    #[serde(serialize_with = "serialize_shared")]
    pub sessions: Vec<Arc<SessionStatus>>,
    /// The sessions that are being left, while that can be undone.
    pub departure: Option<DepartureStatus>,
    /// The global mute switches.
    pub enabled: Enabled,
    /// The states of the local sources and of the speaker.
    pub devices: PerDevice<DeviceState>,
    /// What is done to the sound of the microphone.
    pub voice_processing: VoiceProcessing,
    /// Whether the microphone gives nothing but digital silence.
    pub is_microphone_silent: bool,
    /// Whether this computer is too busy to encode the video as large as it is wanted.
    pub is_encoder_late: bool,
    /// Whether the upload of this machine is full, so that others get less video.
    pub is_upload_full: bool,
    /// What the check of the user's own sound does, while one runs.
    pub sound_check: Option<SoundCheckStage>,
}

impl Snapshot {
    /// Whether a session belongs to the pending departure, which can be undone.
    pub fn is_departing(&self, session: &SessionId) -> bool {
        let mut departing = self.departure.iter().flat_map(|departure| &departure.sessions);
        departing.any(|one| one.session == *session)
    }
}

fn serialize_shared<S: Serializer>(
    sessions: &[Arc<SessionStatus>],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(sessions.iter().map(|one| &**one))
}

/// A pending departure: sessions that are being left, which can be undone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DepartureStatus {
    /// The sessions, as they will be if the departure is undone.
    #[serde(serialize_with = "serialize_shared")]
    pub sessions: Vec<Arc<SessionStatus>>,
    /// Whether the sessions are closed for all participants.
    pub closes: bool,
    /// When the departure becomes final, on the engine's clock.
    pub until: MediaTime,
}

/// The states of the mute switches of the user. `true` means enabled, not muted, as in W3C
/// `MediaStreamTrack.enabled`. By default listening is enabled, and each source as
/// [`Source::is_on_by_default`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Enabled {
    /// Our sources to the other participants.
    pub sources: PerSource<bool>,
    /// The audio of the other participants to our speaker.
    pub listening: bool,
}

impl Enabled {
    /// Everything is muted.
    pub const NONE: Self = Self { sources: PerSource::NONE, listening: false };

    /// The media that is enabled in both: in the global switches and in those of a session.
    pub const fn and(self, other: Self) -> Self {
        Self {
            sources: self.sources.and(other.sources),
            listening: self.listening && other.listening,
        }
    }

    /// Whether the media of a switch is enabled.
    pub const fn has(self, switch: MuteSwitch) -> bool {
        match switch {
            MuteSwitch::Source(source) => *self.sources.get(source),
            MuteSwitch::Listening => self.listening,
        }
    }

    /// Enables or mutes the media of a switch.
    pub const fn set(&mut self, switch: MuteSwitch, enabled: bool) {
        match switch {
            MuteSwitch::Source(source) => *self.sources.get_mut(source) = enabled,
            MuteSwitch::Listening => self.listening = enabled,
        }
    }
}

impl Default for Enabled {
    fn default() -> Self {
        Self { sources: PerSource::from_fn(Source::is_on_by_default), listening: true }
    }
}

/// The state of one hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct HubStatus {
    /// The hub's address; `None` for the default hub before it was found or embedded.
    pub url: Option<HubUrl>,
    /// The state of the connection to it.
    pub state: HubState,
    /// How many other participants are connected to it, if this program embeds the hub; otherwise
    /// 0.
    pub guests: usize,
    /// The endpoint at which the hub was last reached; `None` before the first connection.
    pub endpoint: Option<HubEndpoint>,
}

/// The state of the connection to a hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HubState {
    /// The connection is being established.
    Connecting,
    /// The connection is up.
    Connected,
    /// The connection was lost or refused; it is retried.
    Unreachable {
        /// The reason, as a sentence for the user.
        reason: String,
    },
}

/// The state of one session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SessionStatus {
    /// The session's id.
    pub session: SessionId,
    /// The session's kind; `None` until a joining program learns it from the hub.
    pub kind: Option<SessionKind>,
    /// Our role in it.
    pub role: Role,
    /// The session's link, once its hub is known.
    pub link: Option<SessionLink>,
    /// The endpoint of the session's hub, if the hub is known and was reached.
    pub hub: Option<HubEndpoint>,
    /// The most participants, including the opener, once known.
    pub limit: Option<u16>,
    /// The session's state.
    pub state: SessionState,
    /// The session's own mute switches.
    pub enabled: Enabled,
    /// How much data it may use.
    pub data_use: DataUse,
    /// Who speaks, as far as it can be heard here; `None` while nobody does. It changes within a second, and
    /// stays in short pauses.
    pub active_speaker: Option<ActiveSpeaker>,
    /// Whether the user has raised its priority by a class: it comes first when the own upload is full.
    pub is_raised: bool,
    /// The sources that at least one participant receives now: it is connected, the source runs,
    /// and both switches are enabled.
    pub sending: PerSource<bool>,
    /// The participants that we are paired with, in the order in which they joined.
    pub participants: ParticipantList,
    /// Whether no new participant can join. Known only of sessions that we own.
    pub locked: bool,
    /// The ejected participants that cannot join again yet. Known only of sessions that we own.
    pub removed: Vec<RemovedParticipant>,
}

/// Somebody who speaks in a session.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ActiveSpeaker {
    /// The user of this program.
    Own,
    /// A participant.
    Participant(ParticipantId),
}

impl ActiveSpeaker {
    /// The participant that speaks; `None` for the user of this program.
    pub const fn participant(&self) -> Option<&ParticipantId> {
        match self {
            Self::Own => None,
            Self::Participant(participant) => Some(participant),
        }
    }
}

/// A participant that was ejected from a session and cannot join again yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RemovedParticipant {
    /// The participant's id.
    pub participant: ParticipantId,
    /// The participant's name when it was ejected.
    pub name: String,
}

impl SessionStatus {
    /// The address at which a later run can ask the hub for the session again: the address that we
    /// connected to. For a hub of this user it is the address that the hub itself reports; what any
    /// other hub reports of itself is only shown.
    pub fn hub_address(&self) -> Option<&HubUrl> {
        let reached = self.hub.as_ref().filter(|hub| hub.owner != HubOwner::ThisUser);
        reached.map(|hub| &hub.url).or_else(|| self.link.as_ref().map(|link| &link.hub))
    }
}

/// The state of a session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// Requested; the hub has not answered.
    Connecting,
    /// Requested, but no hub that may have it can be reached; the hubs are retried.
    Unreachable {
        /// The reason, as a sentence for the user.
        reason: String,
    },
    /// Not open yet; it is joined automatically when it opens.
    Waiting,
    /// Open and joined.
    Live,
    /// Open, but the hub cannot be reached: media goes on, no new participant can join.
    Reconnecting {
        /// When the hub was lost, on the engine's clock.
        since: MediaTime,
    },
    /// The hub lost the session together with its opener. The session is joined again automatically
    /// when the opener is back.
    HostLost {
        /// When the hub reported it, or was lost itself, on the engine's clock.
        since: MediaTime,
    },
    /// Ended.
    Ended {
        /// Why it ended.
        reason: EndReason,
    },
    /// It could not be opened or joined, or could not be kept.
    Failed(Failure),
}

/// The state of one participant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ParticipantStatus {
    /// The participant's id.
    pub participant: ParticipantId,
    /// The participant's name.
    pub name: String,
    /// The participant's role in the session.
    pub role: Role,
    /// The participant's state.
    pub state: ParticipantState,
    /// When the participant entered that state, on the engine's clock.
    pub since: MediaTime,
    /// The sources that the participant sends, as its program reports.
    pub sends: PerSource<bool>,
    /// The media that flow in neither direction because the participant's program and ours have no
    /// common format.
    pub left_out: Option<MediaSet>,
    /// The open peer connection to the participant.
    pub peer: Option<PeerId>,
}

/// The state of a participant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParticipantState {
    /// The peer connection is being established.
    Connecting,
    /// The peer connection was not established within ten seconds; it is retried.
    Unreachable,
    /// Media can flow.
    Live,
    /// No packet arrives; the participant may come back.
    Reconnecting,
    /// No packet has arrived for ten seconds. The participant is not counted as live; its seat is
    /// kept.
    Gone,
    /// Not in the session any more. Appears only in events.
    Left,
}

impl ParticipantState {
    /// The state as it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Unreachable => "unreachable",
            Self::Live => "live",
            Self::Reconnecting => "reconnecting",
            Self::Gone => "gone",
            Self::Left => "left",
        }
    }
}

/// The state of a source or of the speaker.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// Not in use.
    #[default]
    Idle,
    /// Being opened.
    Opening,
    /// In use.
    Running,
    /// It cannot be used; everything else goes on.
    Failed {
        /// What failed, why, and the way out, for the user.
        message: String,
    },
}
