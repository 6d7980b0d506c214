//! The actions that panels return. Only `app.rs` performs them.

use super::{chosen::Chosen, devices::DeviceKind};
use crate::{
    engine::Picture,
    model::{Command, JoinTarget, MediaSet, ParticipantId, SessionId, SessionLink, Topology},
};

/// An action of the user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    /// Send a command to the engine.
    Command(Command),
    /// Open the five standard sessions with new ids.
    OpenFive,
    /// Open a session.
    Open(Opening),
    /// Show the dialog that opens a session.
    ShowOpen,
    /// Copy a text. The second string names it in a toast.
    Copy(String, String),
    /// Open a URL from a chat message. A session at a hub in use is joined at once, a session
    /// elsewhere after a question, and any other URL opens in a browser.
    Follow(String),
    /// Join a session from a chat message, after the user has confirmed it.
    JoinLinked {
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
    ShowCode(SessionLink),
    /// Show the settings.
    ShowSettings,
    /// Show the keyboard shortcuts.
    ShowHelp,
    /// Pin the tile of a source. If it is pinned already, unpin it.
    Pin(Picture),
    /// Enter or leave full screen.
    FullScreen,
    /// Whether the preview of the local video is mirrored.
    Mirror(bool),
    /// Use another camera, microphone or speaker.
    Use(DeviceKind, Chosen),
    /// Leave all sessions, after a question if participants are present.
    AskLeaveAll,
    /// Close a session for everyone, after a question.
    AskClose(SessionId),
    /// Open a session's chat, or close it if it is open.
    ShowChat(SessionId),
    /// Eject a participant from a session, after a question.
    AskEject {
        /// The session.
        session: SessionId,
        /// The participant.
        participant: ParticipantId,
        /// The participant's name.
        name: String,
    },
    /// Dismiss the error with that index.
    Dismiss(usize),
}

/// A session to open, as entered in the dialog.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Opening {
    /// The chosen id. `None` for a new one.
    pub(crate) session: Option<SessionId>,
    /// The media.
    pub(crate) media: MediaSet,
    /// The topology.
    pub(crate) topology: Topology,
    /// The maximum number of participants. `None` for the default of the kind.
    pub(crate) limit: Option<u16>,
}

impl From<Command> for Want {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}
