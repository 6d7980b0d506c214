//! What happened, one thing after another: for the command line's lines and the window's toasts.

use super::{
    ChatText, ErrorCode, HubUrl, LeaveReason, MediaSet, ParticipantId, ParticipantState,
    RemovedPerson, SessionId, SessionKind, SessionLink, SourceKind,
};

/// Something a person may want to know. Unlike a snapshot, none is ever skipped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The default hub answers: one that was there, or the embedded one.
    Listening {
        /// The address that others reach it by.
        hub: HubUrl,
    },
    /// A hub that was connected is lost: what runs goes on, nobody new can come in.
    HubLost {
        /// Which.
        hub: HubUrl,
        /// Why, for a person.
        reason: String,
    },
    /// A lost hub is connected again.
    HubBack {
        /// Which.
        hub: HubUrl,
    },
    /// A session has another link, because its hub has another address. The old one may lead
    /// nowhere: whoever is still to come needs the new one.
    LinkChanged {
        /// Which.
        session: SessionId,
        /// Its link now.
        link: SessionLink,
    },
    /// A session is open and ours.
    Opened {
        /// Which.
        session: SessionId,
        /// What it is.
        kind: SessionKind,
        /// Its link.
        link: SessionLink,
    },
    /// A session is not open yet, or not any more as its opener was lost; it is joined by itself
    /// when it opens.
    Waiting {
        /// Which.
        session: SessionId,
        /// The hubs it is awaited at.
        hubs: Vec<HubUrl>,
    },
    /// We are in a session, perhaps again after it was awaited.
    Joined {
        /// Which.
        session: SessionId,
        /// What it is.
        kind: SessionKind,
    },
    /// A participant came, went, or fell silent.
    Participant {
        /// In which session.
        session: SessionId,
        /// Who.
        participant: ParticipantId,
        /// How the person is called.
        name: String,
        /// How it is now.
        state: ParticipantState,
        /// Why the person left, if that is the state and the hub said why.
        reason: Option<LeaveReason>,
    },
    /// A participant is called otherwise now; media and seat are as they were.
    Renamed {
        /// In which session.
        session: SessionId,
        /// Who.
        participant: ParticipantId,
        /// How the person was called.
        before: String,
        /// How the person is called now.
        name: String,
    },
    /// Who may take a new seat in an own session has changed, or is told anew.
    Access {
        /// Which session.
        session: SessionId,
        /// Whether nobody new is let in.
        locked: bool,
        /// Who was sent out and is still kept out.
        removed: Vec<RemovedPerson>,
    },
    /// The first picture of a participant was decoded (or, without video, the first sound).
    FirstFrame {
        /// In which session.
        session: SessionId,
        /// Whose.
        participant: ParticipantId,
        /// Milliseconds since the session was asked for.
        ms: u64,
    },
    /// A participant said something in a session's chat.
    Message {
        /// In which session.
        session: SessionId,
        /// Who.
        participant: ParticipantId,
        /// How the person is called.
        name: String,
        /// What.
        text: ChatText,
    },
    /// We said something in a session's chat: it is on its way to everybody there.
    Said {
        /// In which session.
        session: SessionId,
        /// What.
        text: ChatText,
    },
    /// Something that we said may not have reached a participant, and will not any more: the
    /// person left before saying that it arrived, or too much else waited.
    Undelivered {
        /// In which session.
        session: SessionId,
        /// Whom it does not reach.
        participant: ParticipantId,
        /// How the person is called.
        name: String,
        /// How many messages.
        count: usize,
    },
    /// A participant's program and ours have no common format for some media of the session; these
    /// go neither way, the others do. Told once for each medium.
    LeftOut {
        /// In which session.
        session: SessionId,
        /// Whose program.
        participant: ParticipantId,
        /// What is left out.
        media: MediaSet,
        /// The sentence that is shown.
        message: String,
    },
    /// Something went wrong.
    Failed(Failure),
    /// A session is over.
    Ended {
        /// Which.
        session: SessionId,
        /// Why.
        reason: EndReason,
    },
}

/// Something that went wrong, for a person: what, why, and the way out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What kind.
    pub code: FailureCode,
    /// The sentence that is shown.
    pub message: String,
    /// The session it is about, if it is about one.
    pub session: Option<SessionId>,
}

/// Kinds of failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum FailureCode {
    /// The hub refused.
    Hub(ErrorCode),
    /// The hub cannot be reached.
    HubUnreachable,
    /// This process has that session already.
    AlreadyHere,
    /// A camera, microphone, speaker or a file in its place cannot be used.
    Device(SourceKind),
    /// The connection to a participant could not be made.
    Connection(ConnectionFault),
    /// Nothing can be said in a session's chat.
    Chat,
    /// A line of standard input is no command that can be carried out.
    Command,
    /// A hub is too old to change a name at once.
    Rename,
}

impl FailureCode {
    /// The code as it is printed, `no-such-session`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hub(code) => code.name(),
            Self::HubUnreachable => "hub-unreachable",
            Self::AlreadyHere => "already-here",
            Self::Device(_) => "device",
            Self::Connection(_) => "connection",
            Self::Chat => "chat",
            Self::Command => "command",
            Self::Rename => "rename",
        }
    }
}

/// Why the connection to a participant could not be made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ConnectionFault {
    /// The other end did not answer the offer, or this end could not take what it said.
    NotAgreed,
    /// The two ends name no pair of addresses of which one could reach the other.
    NoUsableAddress,
    /// No packet came back on any pair of addresses.
    NoPairAnswered,
    /// It was connected, and broke off.
    BrokenOff,
}

impl ConnectionFault {
    /// The fault as it is printed, `no-pair-answered`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotAgreed => "not-agreed",
            Self::NoUsableAddress => "no-usable-address",
            Self::NoPairAnswered => "no-pair-answered",
            Self::BrokenOff => "broken-off",
        }
    }
}

/// Why a session is over for us.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum EndReason {
    /// We left it.
    Left,
    /// The opener left and the session does not outlive it.
    OpenerLeft,
    /// The opener closed it for everybody.
    Closed,
    /// We were sent out.
    Ejected,
    /// Another program took our session over with its owner key.
    Replaced,
    /// It could not be opened or joined; the failure before says why.
    Failed,
}

impl EndReason {
    /// The reason as it is printed, `opener-left`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::OpenerLeft => "opener-left",
            Self::Closed => "closed",
            Self::Ejected => "ejected",
            Self::Replaced => "replaced",
            Self::Failed => "failed",
        }
    }
}
