//! Failures as data: what failed, and the facts that a sentence about it needs. `wording` makes the
//! sentences.

use serde::Serialize;

use super::{DeviceKind, ErrorCode, HubUrl, SessionId, SessionKind};

/// A failure that the user should know about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Failure {
    /// What failed, and why.
    pub cause: FailureCause,
    /// The session that failed; `None` if the failure is not about one.
    pub session: Option<SessionId>,
}

impl Failure {
    /// The kind of failure, for programs.
    pub const fn code(&self) -> FailureCode {
        self.cause.code()
    }
}

/// What failed, with the facts that a sentence about it needs. A `reason` is a sentence of the
/// system, a library or a hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCause {
    /// A hub did not do what it was asked for.
    Hub {
        /// The hub's address; `None` for the default hub before it was found.
        hub: Option<HubUrl>,
        /// What it did not do.
        failure: HubFailure,
    },
    /// The hub of a requested session cannot be reached.
    HubUnreachable {
        /// Why, with the hub's name and the way out.
        reason: String,
        /// Whether it is tried again.
        retries: bool,
    },
    /// A command does not fit the state of its session.
    Session(SessionFailure),
    /// A chat message cannot be sent.
    Chat(ChatFailure),
    /// A participant could not be connected for long, or several times in a row; it is tried again.
    NoConnection {
        /// The participant's name.
        name: String,
        /// Why no packet arrives.
        failure: ConnectionFailure,
    },
    /// A source or the speaker cannot be used.
    Device {
        /// The device.
        device: DeviceKind,
        /// What failed, and the way out.
        reason: String,
    },
    /// A failure that the window or the command line found, with its sentence.
    Other {
        /// The kind of failure.
        code: FailureCode,
        /// The sentence.
        message: String,
    },
}

impl FailureCause {
    const fn code(&self) -> FailureCode {
        match self {
            Self::Hub { failure, .. } => failure.code(),
            Self::HubUnreachable { .. } => FailureCode::HubUnreachable,
            Self::Session(failure) => failure.code(),
            Self::Chat(_) => FailureCode::Chat,
            Self::NoConnection { failure, .. } => FailureCode::Connection(failure.fault()),
            Self::Device { device, .. } => FailureCode::Device(*device),
            Self::Other { code, .. } => *code,
        }
    }
}

/// What a hub did not do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HubFailure {
    /// It refused a request for the session.
    Refused {
        /// The hub's code.
        code: ErrorCode,
        /// The hub's explanation.
        reason: String,
    },
    /// It is too busy to look up the session now, and is asked again.
    Busy {
        /// The hub's explanation.
        reason: String,
    },
    /// It reported an error that is not about a session.
    Reported {
        /// The hub's code.
        code: ErrorCode,
        /// The hub's explanation.
        reason: String,
    },
    /// It is of an earlier version, which cannot change a name while the connection is up.
    RenameUnsupported,
    /// It is of an earlier version, which can neither lock sessions nor block ejected participants.
    LockUnsupported,
    /// It is not connected, so it cannot be asked for anything about the session.
    NotConnected,
    /// It has another session of the same id, which was opened while it was away.
    IdTakenMeanwhile,
}

impl HubFailure {
    /// The failure of a request for that session at that hub.
    pub fn of(self, session: &SessionId, hub: Option<HubUrl>) -> Failure {
        let cause = FailureCause::Hub { hub, failure: self };
        Failure { cause, session: Some(session.clone()) }
    }

    const fn code(&self) -> FailureCode {
        match self {
            Self::Refused { code, .. } | Self::Reported { code, .. } => FailureCode::Hub(*code),
            Self::Busy { .. } => FailureCode::Hub(ErrorCode::TooMany),
            Self::RenameUnsupported => FailureCode::Rename,
            Self::LockUnsupported => FailureCode::Hub(ErrorCode::Unsupported),
            Self::NotConnected => FailureCode::HubUnreachable,
            Self::IdTakenMeanwhile => FailureCode::Hub(ErrorCode::IdTaken),
        }
    }
}

/// Why a command does not fit the state of its session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionFailure {
    /// This process already has a session of that id.
    AlreadyHere,
    /// This process has no session of that id.
    NotInSession,
    /// Only the owner can close a session for all participants.
    NotOwner,
    /// Only the owner decides which participants may be in a session.
    NotHost,
    /// The participant to eject is not in the session.
    NoSuchParticipant,
    /// The participant to allow is not ejected.
    NotRemoved,
}

impl SessionFailure {
    /// The failure of a command for that session.
    pub fn of(self, session: &SessionId) -> Failure {
        Failure { cause: FailureCause::Session(self), session: Some(session.clone()) }
    }

    const fn code(self) -> FailureCode {
        match self {
            Self::AlreadyHere => FailureCode::AlreadyHere,
            Self::NotInSession => FailureCode::Hub(ErrorCode::NoSuchSession),
            Self::NotOwner | Self::NotHost | Self::NoSuchParticipant | Self::NotRemoved => {
                FailureCode::Hub(ErrorCode::NotAllowed)
            }
        }
    }
}

/// Why a chat message cannot be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChatFailure {
    /// We have not joined the session.
    NotOpen,
    /// The session has no data channel.
    NoChat(SessionKind),
    /// A viewer cannot write in a broadcast.
    GuestsCannotWrite,
    /// The session has no other participant that could read it.
    NobodyToRead,
}

impl ChatFailure {
    /// The failure of a message to that session.
    pub fn of(self, session: &SessionId) -> Failure {
        Failure { cause: FailureCause::Chat(self), session: Some(session.clone()) }
    }
}

/// The kinds of failure.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// A hub refused a request.
    Hub(ErrorCode),
    /// A hub cannot be reached.
    HubUnreachable,
    /// This process is in that session already.
    AlreadyHere,
    /// A camera, microphone or speaker, or a file used in its place, cannot be used.
    Device(DeviceKind),
    /// The peer connection to a participant could not be established, or broke.
    Connection(ConnectionFault),
    /// The chat message cannot be sent.
    Chat,
    /// A line of standard input is not a valid command.
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

/// Why there is no peer connection to a participant, in the few kinds that programs tell apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionFault {
    /// The remote peer did not answer the offer, or we could not apply its description.
    NotAgreed,
    /// The candidates of the two peers form no pair of addresses that could reach each other.
    NoUsableAddress,
    /// No packet came back on any candidate pair.
    NoPairAnswered,
    /// The connection was established, and broke.
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

/// Why there is no peer connection to a participant, in detail.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConnectionFailure {
    /// The remote peer did not answer the offer.
    NoAnswer,
    /// A description was not valid here or there.
    NotAgreed {
        /// Why not, from the library that read it.
        reason: String,
    },
    /// This end names no address that another computer could use: none, or only loopback addresses.
    NoLocalAddress,
    /// The other end names no address that another computer could use.
    NoRemoteAddress,
    /// One end has IPv4 only, the other IPv6 only.
    NoCommonIpVersion,
    /// No packet came back on any candidate pair.
    NoPairAnswered,
    /// Packets arrived, and then no more.
    Silent,
    /// The connection was established, and ICE or DTLS ended it.
    BrokenOff,
}

impl ConnectionFailure {
    /// The kind of the failure.
    pub const fn fault(&self) -> ConnectionFault {
        match self {
            Self::NoAnswer | Self::NotAgreed { .. } => ConnectionFault::NotAgreed,
            Self::NoLocalAddress | Self::NoRemoteAddress | Self::NoCommonIpVersion => {
                ConnectionFault::NoUsableAddress
            }
            Self::NoPairAnswered => ConnectionFault::NoPairAnswered,
            Self::Silent | Self::BrokenOff => ConnectionFault::BrokenOff,
        }
    }
}
