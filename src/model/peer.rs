//! What the core says to a connection and hears from it.

use super::{ChatMessage, Direction};

/// Media of one connection: a direction for each section it negotiates, `None` for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerMedia {
    /// The audio section.
    pub audio: Option<Direction>,
    /// The video section.
    pub video: Option<Direction>,
    /// Whether there is a data channel.
    pub data: bool,
}

/// Numbers the commands of one connection, so that an outcome finds its cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Step(pub u32);

/// What a connection is told to do. Commands are carried out one after another, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerCommand {
    /// Make an offer and take it as the local description; legal in the stable state. Outcome:
    /// [`PeerEvent::Description`] or [`PeerEvent::Refused`].
    MakeOffer {
        /// Which command this is.
        step: Step,
        /// Whether to restart ICE with it (RFC 8445, section 9).
        restart_ice: bool,
    },
    /// Take the local offer back; legal while it stands unanswered. Outcome:
    /// [`PeerEvent::Done`] or [`PeerEvent::Refused`].
    Rollback {
        /// Which command this is.
        step: Step,
    },
    /// Take a remote offer and answer it; legal in the stable state. Outcome:
    /// [`PeerEvent::Description`] or [`PeerEvent::Refused`].
    AcceptOffer {
        /// Which command this is.
        step: Step,
        /// The remote description.
        sdp: String,
    },
    /// Take the answer to the local offer; legal while that stands. Outcome:
    /// [`PeerEvent::Done`] or [`PeerEvent::Refused`].
    AcceptAnswer {
        /// Which command this is.
        step: Step,
        /// The remote description.
        sdp: String,
    },
    /// Take a remote candidate; legal once a remote description was taken. No outcome.
    AddCandidate(Candidate),
    /// Write on the data channel; legal once it told [`PeerEvent::Writable`]. No outcome: what
    /// matters is whether the other end says that it has received it.
    Write(ChatMessage),
}

/// What a connection tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PeerEvent {
    /// The local description that a command asked for, now in force.
    Description {
        /// The command.
        step: Step,
        /// Offer or answer.
        kind: DescriptionKind,
        /// The description.
        sdp: String,
    },
    /// A command without a result was carried out.
    Done {
        /// The command.
        step: Step,
    },
    /// A command failed.
    Refused {
        /// The command.
        step: Step,
        /// Why, for a log and a person.
        reason: String,
    },
    /// A local candidate to be sent to the other end.
    Candidate(Candidate),
    /// Packets flow, stopped, or will never flow again.
    State(PeerState),
    /// The data channel is open.
    Writable,
    /// The other end wrote something on the data channel.
    Read(ChatMessage),
}

/// Offer or answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DescriptionKind {
    /// To be answered.
    Offer,
    /// Answers.
    Answer,
}

/// How a connection is, as ICE and DTLS together see it (W3C `RTCPeerConnectionState`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PeerState {
    /// Being set up.
    Connecting,
    /// Packets flow.
    Connected,
    /// Nothing was heard for some seconds; it may come back.
    Disconnected,
    /// Given up.
    Failed,
}

/// A trickled ICE candidate (RFC 8838); an empty line marks the end of candidates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The candidate attribute's value, `candidate:…`.
    pub line: String,
    /// The `mid` of its media section.
    pub mid: Option<String>,
    /// The index of its media section.
    pub index: Option<u16>,
}
