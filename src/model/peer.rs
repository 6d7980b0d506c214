//! What the core says to a connection and hears from it.

use super::{ChatMessage, Direction, Media, MediaSet};

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
    /// The two ends agreed, for the first time or anew; told after the outcome of the command.
    Agreed(Agreement),
    /// A local candidate to be sent to the other end.
    Candidate(Candidate),
    /// Packets flow, stopped, or will never flow again.
    State(PeerState),
    /// The data channel is open.
    Writable,
    /// The other end wrote something on the data channel.
    Read(ChatMessage),
}

/// What the two ends of a connection agreed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Agreement {
    /// Whether the other end takes our sound.
    pub sends_audio: bool,
    /// Whether the other end takes our pictures.
    pub sends_video: bool,
    /// Whether the other end may send sound, and we take it.
    pub receives_audio: bool,
    /// Whether the other end may send pictures, and we take them.
    pub receives_video: bool,
    /// The media that one of the two programs cannot do, and that go neither way.
    pub left_out: Option<MediaSet>,
}

impl Agreement {
    /// A medium goes neither way.
    pub fn leave_out(&mut self, media: Media) {
        self.send_no(media);
        self.receive_no(media);
        self.left_out = Some(self.left_out.map_or_else(|| media.into(), |set| set.with(media)));
    }

    /// A medium is not sent from here.
    pub const fn send_no(&mut self, media: Media) {
        match media {
            Media::Audio => self.sends_audio = false,
            Media::Video => self.sends_video = false,
            Media::Data => {}
        }
    }

    /// A medium is not received here.
    pub const fn receive_no(&mut self, media: Media) {
        match media {
            Media::Audio => self.receives_audio = false,
            Media::Video => self.receives_video = false,
            Media::Data => {}
        }
    }

    /// Whether nothing goes either way of what was wanted.
    pub fn is_empty(&self, wanted: PeerMedia) -> bool {
        let is_left_out = |media| self.left_out.is_some_and(|set| set.has(media));
        let goes = |is_wanted: bool, media| is_wanted && !is_left_out(media);
        !goes(wanted.audio.is_some(), Media::Audio)
            && !goes(wanted.video.is_some(), Media::Video)
            && !goes(wanted.data, Media::Data)
    }
}

impl Default for Agreement {
    /// Everything that the session is made of.
    fn default() -> Self {
        Self {
            sends_audio: true,
            sends_video: true,
            receives_audio: true,
            receives_video: true,
            left_out: None,
        }
    }
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
