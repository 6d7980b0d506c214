//! Commands from the core to one peer connection, and events from it.

use serde::{Deserialize, Serialize};

use super::{
    ChatMessage, DataChannelKind, Direction, Media, MediaSet, PerChannel, PerSource, TrackId,
};

/// The media of one peer connection: its table of media sections, and its table of data
/// channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PeerMedia {
    /// The direction of the section of each source; `None` for no section. It carries our source
    /// to the remote peer, and the remote peer's source of the same kind to us.
    pub sections: PerSource<Option<Direction>>,
    /// Which data channels there are.
    pub channels: PerChannel<bool>,
}

impl PeerMedia {
    /// The sources that it may send.
    pub fn sends(&self) -> PerSource<bool> {
        self.sections.map(|section| section.is_some_and(Direction::sends))
    }

    /// The sources of the remote peer that it may receive.
    pub fn receives(&self) -> PerSource<bool> {
        self.sections.map(|section| section.is_some_and(Direction::receives))
    }
}

/// The number of a command of one peer connection, which its outcome carries too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OperationId(pub u32);

/// A command to a peer connection. Commands are carried out one after another, in order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerCommand {
    /// Creates an offer and sets it as the local description. Legal in the stable state. Outcome:
    /// [`PeerEvent::LocalDescription`] or [`PeerEvent::Failed`].
    MakeOffer {
        /// The number of this command.
        operation: OperationId,
        /// Whether the offer restarts ICE (RFC 8445, section 9).
        restart_ice: bool,
    },
    /// Rolls the local offer back. Legal while the offer is not answered. Outcome:
    /// [`PeerEvent::Applied`] or [`PeerEvent::Failed`].
    Rollback {
        /// The number of this command.
        operation: OperationId,
    },
    /// Sets a remote offer, creates the answer and sets it as the local description. Legal in the
    /// stable state. Outcome: [`PeerEvent::LocalDescription`] or [`PeerEvent::Failed`].
    AcceptOffer {
        /// The number of this command.
        operation: OperationId,
        /// The remote offer.
        sdp: String,
    },
    /// Sets the remote answer to the local offer. Legal while that offer is not answered. Outcome:
    /// [`PeerEvent::Applied`] or [`PeerEvent::Failed`].
    AcceptAnswer {
        /// The number of this command.
        operation: OperationId,
        /// The remote answer.
        sdp: String,
    },
    /// Adds a remote ICE candidate. Legal once a remote description is set. No outcome.
    AddCandidate(Candidate),
    /// Sends a chat message. Legal once [`PeerEvent::ChannelOpen`] has reported the chat's channel. No
    /// outcome:
    /// delivery counts only when the remote peer acknowledges it.
    SendChannelMessage(ChatMessage),
}

/// An event of a peer connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerEvent {
    /// The local description that a command asked for. It is set.
    LocalDescription {
        /// The number of the command.
        operation: OperationId,
        /// Offer or answer.
        kind: DescriptionKind,
        /// The description.
        sdp: String,
    },
    /// A command that produces no description was carried out.
    Applied {
        /// The number of the command.
        operation: OperationId,
    },
    /// A command failed.
    Failed {
        /// The number of the command.
        operation: OperationId,
        /// The reason, for the log and the user.
        reason: String,
    },
    /// An offer/answer exchange is complete, the first one or a later one. Sent after the outcome
    /// of the command.
    Negotiated(NegotiatedMedia),
    /// A local ICE candidate, to be sent to the remote peer.
    Candidate(Candidate),
    /// The connection state changed.
    State(PeerState),
    /// This machine no longer has the address that media are sent from. Sent once for each socket.
    AddressLost,
    /// A data channel is open.
    ChannelOpen(DataChannelKind),
    /// A message of the remote peer arrived on the channel of the chat.
    ChannelMessage(ChatMessage),
}

/// The media that the two ends of a peer connection negotiated.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NegotiatedMedia {
    /// The sources that we may send: the remote peer accepts them.
    pub sends: PerSource<bool>,
    /// The sources that the remote peer may send, and that we accept.
    pub receives: PerSource<bool>,
    /// The id of the track that each negotiated section carries; `None` if it is not known.
    pub tracks: PerSource<Option<TrackId>>,
    /// The media that one of the two programs does not support. They flow in neither direction.
    pub left_out: Option<MediaSet>,
}

impl NegotiatedMedia {
    /// Records that a medium flows in neither direction.
    pub fn leave_out(&mut self, media: Media) {
        self.disable_sending(media);
        self.disable_receiving(media);
        self.left_out = Some(self.left_out.map_or_else(|| media.into(), |set| set.with(media)));
    }

    /// Records that we do not send a medium.
    pub fn disable_sending(&mut self, media: Media) {
        self.sends = PerSource::from_fn(|one| self.sends[one] && one.media() != media);
    }

    /// Records that we do not receive a medium.
    pub fn disable_receiving(&mut self, media: Media) {
        self.receives = PerSource::from_fn(|one| self.receives[one] && one.media() != media);
    }

    /// Whether all media of `wanted` are left out.
    pub fn is_empty(&self, wanted: PeerMedia) -> bool {
        let is_left_out = |media| self.left_out.is_some_and(|set| set.has(media));
        let mut sections = wanted.sections.iter();
        sections.all(|(source, section)| section.is_none() || is_left_out(source.media()))
            && (!wanted.channels.any() || is_left_out(Media::Data))
    }
}

impl Default for NegotiatedMedia {
    /// All media in both directions.
    fn default() -> Self {
        Self {
            sends: PerSource::ALL,
            receives: PerSource::ALL,
            tracks: PerSource::default(),
            left_out: None,
        }
    }
}

/// The type of a session description.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DescriptionKind {
    /// An offer.
    Offer,
    /// An answer.
    Answer,
}

/// The state of a peer connection, as ICE and DTLS together see it (W3C `RTCPeerConnectionState`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerState {
    /// ICE or DTLS is being established.
    Connecting,
    /// Packets flow.
    Connected,
    /// No packet has arrived for some seconds; the connection may recover.
    Disconnected,
    /// The connection has failed for good.
    Failed,
}

/// A trickled ICE candidate (RFC 8838); an empty `line` marks the end of candidates.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Candidate {
    /// The value of the candidate attribute, `candidate:…`.
    pub line: String,
    /// The `mid` of its media section.
    pub mid: Option<String>,
    /// The index of its media section.
    pub index: Option<u16>,
}
