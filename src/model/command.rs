//! What a person wants.

use super::{ChatText, HubUrl, ParticipantId, SessionId, SessionKind};

/// What a person wants; sent by the window or the command line, carried out by the engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Open a session.
    Open(OpenRequest),
    /// Open a session of an earlier run again. If it lives on under an heir, it is joined.
    Reopen(OpenRequest),
    /// Join a session.
    Join {
        /// Which.
        target: JoinTarget,
        /// Whether to wait for a session that is not open yet, or to fail at once.
        wait: bool,
    },
    /// Leave a session at once, stop waiting for it, or dismiss one that is over.
    Leave {
        /// Which.
        session: SessionId,
    },
    /// Close an own session for everybody.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Send somebody out of an own session.
    Eject {
        /// From which session.
        session: SessionId,
        /// Whom.
        participant: ParticipantId,
        /// Whether to keep everybody at the same address out as well, unless it is the hub's own
        /// machine.
        address: bool,
    },
    /// Let somebody who was sent out of an own session come again.
    Allow {
        /// Into which session.
        session: SessionId,
        /// Whom.
        participant: ParticipantId,
    },
    /// Let nobody new into an own session, or everybody again.
    Lock {
        /// Which session.
        session: SessionId,
        /// Whether nobody new is let in.
        locked: bool,
    },
    /// Open or close a gate, in one session or in all. What passes must find both open: the
    /// global gate and the session's own.
    SetGate {
        /// Whose gate; `None` for the global one.
        session: Option<SessionId>,
        /// Which.
        gate: Gate,
        /// Whether it is to be open.
        open: bool,
    },
    /// Be called otherwise from now on, in every session.
    Rename {
        /// How; empty leaves it to the hub ("Guest 3").
        name: String,
    },
    /// Say something in a session's chat, to everybody there.
    Say {
        /// In which session.
        session: SessionId,
        /// What.
        text: ChatText,
    },
    /// Leave every session, at once.
    LeaveAll,
    /// Leave or close, so that it can be undone for 8 s: nothing is sent or heard from now on, and
    /// the hubs are told when the time is over. One departure at a time: the next makes the last
    /// final.
    Depart(Departure),
    /// Take the departure back.
    Undo,
    /// Make the departure final now.
    Confirm,
}

/// What is left so that it can be undone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Departure {
    /// One session.
    Leave(SessionId),
    /// An own session, which is closed for everybody.
    Close(SessionId),
    /// Every session.
    LeaveAll,
}

/// A switch that a person has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Gate {
    /// Our sound, to others. Closed, no packet of it is sent.
    Microphone,
    /// Our picture, to others. Closed, no packet of it is sent.
    Camera,
    /// Others' sound, to our speaker.
    Listening,
}

impl Command {
    /// The session that it is about, if it is about one.
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
            | Self::Say { session, .. }
            | Self::SetGate { session: Some(session), .. } => Some(session),
            Self::SetGate { session: None, .. }
            | Self::Rename { .. }
            | Self::LeaveAll
            | Self::Depart(Departure::LeaveAll)
            | Self::Undo
            | Self::Confirm => None,
        }
    }
}

/// A session to be opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenRequest {
    /// Its id: the opener's own or a generated one.
    pub session: SessionId,
    /// What it is.
    pub kind: SessionKind,
    /// How many may be in it, the opener included; `None` for as many as its kind carries.
    pub limit: Option<u16>,
}

/// A session to be joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JoinTarget {
    /// Its id.
    pub session: SessionId,
    /// Its hub, from a link; `None` seeks it at every hub that the program is connected to.
    pub hub: Option<HubUrl>,
}
