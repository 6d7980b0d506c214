//! Events of a running engine, in order: for the lines of the command line and the window's
//! notices.

use serde::Serialize;

use super::{
    ActiveSpeaker, ChatText, Failure, HubUrl, LeaveReason, MediaSet, ParticipantId,
    ParticipantState, RemovedParticipant, SessionId, SessionKind, SessionLink,
};

/// An event that the user may want to know about. Unlike a snapshot, no event is ever skipped.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The default hub is connected: a hub that was already running, or the embedded one.
    Listening {
        /// The address at which other computers reach it.
        hub: HubUrl,
    },
    /// The connection to a hub broke. Running media goes on, but no new participant can join.
    HubLost {
        /// The hub's address.
        hub: HubUrl,
        /// The reason, as a sentence for the user.
        reason: String,
    },
    /// A lost hub is connected again.
    HubRestored {
        /// The hub's address.
        hub: HubUrl,
    },
    /// A session has a new link, because the address of its hub changed. The old link may not work
    /// any more: participants who join from now on need the new one.
    LinkChanged {
        /// The session.
        session: SessionId,
        /// The session's new link.
        link: SessionLink,
    },
    /// A session was opened, and we own it.
    Opened {
        /// The session.
        session: SessionId,
        /// The session's kind.
        kind: SessionKind,
        /// The session's link.
        link: SessionLink,
    },
    /// A session is not open yet, or was lost with its opener. It is joined automatically when it
    /// opens.
    Waiting {
        /// The session.
        session: SessionId,
        /// The hubs that notify us when it opens.
        hubs: Vec<HubUrl>,
    },
    /// We joined a session, possibly again after waiting for it.
    Joined {
        /// The session.
        session: SessionId,
        /// The session's kind.
        kind: SessionKind,
    },
    /// The state of a participant changed: it joined, left, or stopped sending.
    Participant {
        /// The session.
        session: SessionId,
        /// The participant.
        participant: ParticipantId,
        /// The participant's name.
        name: String,
        /// The new state.
        state: ParticipantState,
        /// Why the participant left, if it did and the hub gave a reason.
        reason: Option<LeaveReason>,
    },
    /// A participant changed its name. Its media and its seat are unchanged.
    Renamed {
        /// The session.
        session: SessionId,
        /// The participant.
        participant: ParticipantId,
        /// The old name.
        before: String,
        /// The new name.
        name: String,
    },
    /// The lock or the list of ejected participants of a session that we own changed, or the hub
    /// sent both again.
    Access {
        /// The session.
        session: SessionId,
        /// Whether the session is locked, so that no new participant can join.
        locked: bool,
        /// The ejected participants that cannot join again yet.
        removed: Vec<RemovedParticipant>,
    },
    /// The first video frame of a participant was decoded (or, in a session without video, the
    /// first audio).
    FirstFrame {
        /// The session.
        session: SessionId,
        /// The participant.
        participant: ParticipantId,
        /// Milliseconds since the user asked for the session.
        ms: u64,
    },
    /// A chat message of another participant arrived.
    MessageReceived {
        /// The session.
        session: SessionId,
        /// The sender.
        participant: ParticipantId,
        /// The sender's name.
        name: String,
        /// The text of the message.
        text: ChatText,
    },
    /// Our own chat message was accepted and is being delivered to all participants.
    MessageSent {
        /// The session.
        session: SessionId,
        /// The text of the message.
        text: ChatText,
    },
    /// Chat messages of ours may not have reached a participant and will not be sent again: the
    /// participant left without acknowledging them, or too many messages were waiting.
    Undelivered {
        /// The session.
        session: SessionId,
        /// The participant that did not receive them.
        participant: ParticipantId,
        /// The participant's name.
        name: String,
        /// The number of messages.
        count: usize,
    },
    /// A participant's program and ours have no common codec or format for some media of the
    /// session. These media flow in neither direction, the others do. Announced once for each
    /// medium.
    LeftOut {
        /// The session.
        session: SessionId,
        /// The participant.
        participant: ParticipantId,
        /// The participant's name.
        name: String,
        /// The media that are left out.
        media: MediaSet,
        /// Whether other media flow.
        has_rest: bool,
    },
    /// Another one speaks in a session, or nobody any more.
    ActiveSpeaker {
        /// The session.
        session: SessionId,
        /// Who speaks.
        speaker: Option<ActiveSpeaker>,
        /// The name of the participant that speaks; `None` for the user of this program.
        name: Option<String>,
    },
    /// The microphone has given nothing but digital silence for five seconds.
    MicrophoneSilent,
    /// The user speaks, and somebody would hear it, but a switch mutes the microphone everywhere.
    /// Announced once for each mute.
    SpeakingWhileMuted,
    /// This computer is too busy to encode the video as large as it is wanted: it is sent smaller for
    /// a while. The snapshot says for how long.
    EncoderLate,
    /// The upload of this machine is full: somebody who shares it with others gets less video than it
    /// could show. The snapshot says for how long.
    UploadFull,
    /// The upload of this machine has room again for all that is to be sent.
    UploadOk,
    /// Something failed.
    Failed(Failure),
    /// A session ended for us.
    Ended {
        /// The session.
        session: SessionId,
        /// Why it ended.
        reason: EndReason,
    },
}

/// Why a session ended for us.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// We left it.
    Left,
    /// The opener left, and a session of this kind ends with its opener.
    OpenerLeft,
    /// The owner closed it for all participants.
    Closed,
    /// The owner ejected us.
    Ejected,
    /// Another program took our session over with its owner key.
    Replaced,
    /// It could not be opened or joined; the preceding failure says why.
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
