//! What a panel's user wants; `app.rs` alone acts on it.

use super::{chosen::Chosen, devices::DeviceKind};
use crate::{
    engine::Picture,
    model::{Command, JoinTarget, MediaSet, ParticipantId, SessionId, SessionLink, Topology},
};

/// What a panel's user wants.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Want {
    /// Something of the engine.
    Command(Command),
    /// The five sessions, with fresh ids.
    OpenFive,
    /// A session.
    Open(Opening),
    /// The dialog that opens a session.
    ShowOpen,
    /// A text on the clipboard; the second says what it was, for a toast.
    Copy(String, String),
    /// What somebody wrote in a chat links to: a session, joined at once only at a hub in use and
    /// elsewhere if the person says so, or else a page in a browser.
    Follow(String),
    /// A session to which a link in a chat led, after the person was asked.
    JoinLinked {
        /// Which.
        target: JoinTarget,
        /// Whether neither sound nor picture is to be sent there until the person wants it.
        muted: bool,
    },
    /// To leave a session whose link may be wrong, and to mend that.
    EditLink {
        /// Which session.
        session: SessionId,
        /// The link, or the id if only that was given.
        link: String,
    },
    /// The sessions of a window that crashed, or not to be offered them any more.
    Resume(bool),
    /// To be called so.
    Rename(String),
    /// A link as a square code.
    ShowCode(SessionLink),
    /// The settings.
    ShowSettings,
    /// The keys.
    ShowHelp,
    /// A picture large; again, and it is one of many.
    Pin(Picture),
    /// The whole screen, or the window again.
    FullScreen,
    /// The own picture as in a mirror, or as the others see it.
    Mirror(bool),
    /// Another camera, microphone or speaker.
    Use(DeviceKind, Chosen),
    /// To be asked before all sessions are left, if somebody is there.
    AskLeaveAll,
    /// To be asked before a session is closed for everybody.
    AskClose(SessionId),
    /// A session's chat, or none if it is open.
    ShowChat(SessionId),
    /// To be asked before somebody is sent out of a session.
    AskEject {
        /// Out of which.
        session: SessionId,
        /// Whom.
        participant: ParticipantId,
        /// How the person is called.
        name: String,
    },
    /// To have read the error at that place.
    Dismiss(usize),
}

/// A session to be opened, as the dialog gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Opening {
    /// An own id; `None` for a fresh one.
    pub(crate) session: Option<SessionId>,
    /// What is sent.
    pub(crate) media: MediaSet,
    /// Who sends to whom.
    pub(crate) topology: Topology,
    /// How many fit; `None` for as many as the kind carries.
    pub(crate) limit: Option<u16>,
}

impl From<Command> for Want {
    fn from(command: Command) -> Self {
        Self::Command(command)
    }
}
