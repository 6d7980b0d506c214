//! The commands that the user gives.

use serde::{Deserialize, Serialize};

use super::{
    ChatText, DataUse, HubUrl, ParticipantId, SessionId, SessionKind, SoundCheck, Source,
    VoiceProcessing,
};

/// A command of the user. The window or the command line sends it, the engine carries it out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Opens a session.
    Open(OpenRequest),
    /// Opens a session of an earlier run again. If another participant took the session over
    /// meanwhile, joins it.
    Reopen(OpenRequest),
    /// Joins a session.
    Join {
        /// The session to join, and its hub if known.
        target: JoinTarget,
        /// Whether to wait for a session that is not open yet. Otherwise joining fails at once.
        wait: bool,
    },
    /// Leaves a session at once, stops waiting for it, or dismisses one that has ended.
    Leave {
        /// The session to leave.
        session: SessionId,
    },
    /// Closes a session that we own, for all participants.
    Close {
        /// The session to close.
        session: SessionId,
    },
    /// Ejects a participant from a session that we own.
    Eject {
        /// The session.
        session: SessionId,
        /// The participant to eject.
        participant: ParticipantId,
        /// Whether the hub also blocks all clients at the same address, unless that is the hub's
        /// own machine.
        address: bool,
    },
    /// Lets an ejected participant join a session that we own again.
    Allow {
        /// The session.
        session: SessionId,
        /// The ejected participant.
        participant: ParticipantId,
    },
    /// Locks or unlocks a session that we own. A locked session takes no new participants.
    Lock {
        /// The session.
        session: SessionId,
        /// `true` locks the session, `false` unlocks it.
        locked: bool,
    },
    /// Turns a mute switch on or off, in one session or in all. Media flows only if the global
    /// switch and the session's own are both enabled.
    SetEnabled {
        /// The session whose switch is set; `None` for the global switch.
        session: Option<SessionId>,
        /// The switch.
        switch: MuteSwitch,
        /// Whether the media is enabled; `false` mutes it.
        enabled: bool,
    },
    /// Sets how much data a session may use. A session that is requested again keeps it.
    SetDataUse {
        /// The session.
        session: SessionId,
        /// How much.
        data_use: DataUse,
    },
    /// Raises the priority of a session by one class, or no longer: whose video comes first when the
    /// own upload is full. Without it one-to-one and many-to-many sessions come first, then
    /// one-to-many, then one-way.
    SetPriority {
        /// The session.
        session: SessionId,
        /// Whether it is raised.
        raised: bool,
    },
    /// Changes the user's name in every session.
    Rename {
        /// The new name; if it is empty, the hub chooses one ("Guest 3").
        name: String,
    },
    /// Changes what is done to the sound of the microphone, in every session.
    SetVoiceProcessing(VoiceProcessing),
    /// Lets the user hear their own microphone or the speaker; nobody else hears it. Ignored while a
    /// check runs.
    StartSoundCheck(SoundCheck),
    /// Sends a chat message to all participants of a session.
    SendMessage {
        /// The session.
        session: SessionId,
        /// The text of the message.
        text: ChatText,
    },
    /// Leaves every session at once.
    LeaveAll,
    /// Leaves or closes sessions so that it can be undone for 8 s. Media stops at once, and the
    /// hubs are notified after the 8 s. Only one departure is pending at a time: the next one makes
    /// the last final.
    Depart(Departure),
    /// Cancels the pending departure.
    Undo,
    /// Makes the pending departure final now.
    Confirm,
}

/// What is left or closed by [`Command::Depart`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Departure {
    /// One session is left.
    Leave(SessionId),
    /// One session that we own is closed for all participants.
    Close(SessionId),
    /// Every session is left.
    LeaveAll,
}

/// A mute switch of the user. Enabled means not muted, as in W3C `MediaStreamTrack.enabled`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MuteSwitch {
    /// A source of ours to the other participants. While it is muted, none of its packets is sent.
    Source(Source),
    /// The audio of the other participants to our speaker.
    Listening,
}

impl MuteSwitch {
    /// Our audio to the other participants.
    pub const MICROPHONE: Self = Self::Source(Source::Microphone);
    /// Our video to the other participants.
    pub const CAMERA: Self = Self::Source(Source::Camera);
    /// All switches: those of the sources, in the order of [`Source::SECTIONS`], then listening.
    pub fn all() -> impl Iterator<Item = Self> {
        Source::SECTIONS.into_iter().map(Self::Source).chain([Self::Listening])
    }
}

impl Command {
    /// The session that the command is about; `None` if it is about no single session.
    pub const fn session(&self) -> Option<&SessionId> {
        match self {
            Self::Open(OpenRequest { session, .. })
            | Self::Reopen(OpenRequest { session, .. })
            | Self::Join { target: JoinTarget { session, .. }, .. }
            | Self::Leave { session }
            | Self::Depart(Departure::Leave(session) | Departure::Close(session))
            | Self::Close { session }
            | Self::Eject { session, .. }
            | Self::Allow { session, .. }
            | Self::Lock { session, .. }
            | Self::SendMessage { session, .. }
            | Self::SetDataUse { session, .. }
            | Self::SetPriority { session, .. }
            | Self::SetEnabled { session: Some(session), .. } => Some(session),
            Self::SetEnabled { session: None, .. }
            | Self::Rename { .. }
            | Self::SetVoiceProcessing(_)
            | Self::StartSoundCheck(_)
            | Self::LeaveAll
            | Self::Depart(Departure::LeaveAll)
            | Self::Undo
            | Self::Confirm => None,
        }
    }
}

/// A session to open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OpenRequest {
    /// The session's id: chosen by the opener, or generated.
    pub session: SessionId,
    /// The session's kind.
    pub kind: SessionKind,
    /// The most participants, including the opener; `None` for the kind's own limit.
    pub limit: Option<u16>,
}

/// A session to join.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JoinTarget {
    /// The session's id.
    pub session: SessionId,
    /// The session's hub, from a link. With `None`, the session is looked up at every hub that the
    /// program is connected to.
    pub hub: Option<HubUrl>,
}
