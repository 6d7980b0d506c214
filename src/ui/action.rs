//! The actions that panels return. Only `app.rs` performs them.

use super::device_choice::DeviceChoice;
use crate::{
    engine::TrackRef,
    model::{
        Command, DeviceKind, JoinTarget, MediaSet, ParticipantId, SessionId, SessionLink, Topology,
        VoiceProcessing,
    },
};

/// An action of the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// Send a command to the engine.
    Command(Command),
    /// Open the five standard sessions with new ids.
    OpenFive,
    /// Open a session.
    Open(NewSession),
    /// Show the dialog that opens a session.
    ShowNewSession,
    /// Copy a text. The second string names it in a toast.
    Copy(String, String),
    /// Open a URL from a chat message. A session at a hub in use is joined at once, a session
    /// elsewhere after a question, and any other URL opens in a browser.
    OpenUrl(String),
    /// Join a session from a chat message, after the user has confirmed it.
    JoinFromChat {
        /// The session.
        target: JoinTarget,
        /// Whether microphone and camera are muted in it.
        muted: bool,
    },
    /// Leave a session whose link may be wrong, and edit the link.
    EditLink {
        /// The session.
        session: SessionId,
        /// The link, or the id if no link is known.
        link: String,
    },
    /// Resume the sessions of an earlier window (`true`), or discard the offer.
    Resume(bool),
    /// Change the user's name.
    Rename(String),
    /// Show a link as a QR code.
    ShowQrCode(SessionLink),
    /// Show the settings.
    ShowSettings,
    /// Save a report about this run.
    SaveReport,
    /// Show the keyboard shortcuts.
    ShowHelp,
    /// Show the statistics of the connections, or hide them if they are shown.
    ToggleStatistics,
    /// Show figures of the media on the tiles, or hide them if they are shown.
    ToggleTileFigures,
    /// Pin the tile of a source. If it is pinned already, unpin it.
    Pin(TrackRef),
    /// Enter or leave full screen.
    ToggleFullScreen,
    /// Whether the preview of the local video is mirrored.
    SetMirror(bool),
    /// Change what is done to the sound of the microphone.
    SetVoiceProcessing(VoiceProcessing),
    /// Use another camera, microphone or speaker.
    UseDevice(DeviceKind, DeviceChoice),
    /// Leave all sessions, after a question if participants are present.
    ConfirmLeaveAll,
    /// Close a session for everyone, after a question.
    ConfirmClose(SessionId),
    /// Open a session's chat, or close it if it is open.
    ToggleChat(SessionId),
    /// Eject a participant from a session, after a question.
    ConfirmEject {
        /// The session.
        session: SessionId,
        /// The participant.
        participant: ParticipantId,
        /// The participant's name.
        name: String,
    },
    /// Dismiss the error with that index.
    DismissError(usize),
}

/// A session to open, as entered in the dialog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NewSession {
    /// The chosen id. `None` for a new one.
    pub(crate) session: Option<SessionId>,
    /// The media.
    pub(crate) media: MediaSet,
    /// The topology.
    pub(crate) topology: Topology,
    /// The maximum number of participants. `None` for the default of the kind.
    pub(crate) limit: Option<u16>,
}

impl From<Command> for Action {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}
