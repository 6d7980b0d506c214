//! The words of the signalling protocol; `signalling/PROTOCOL.md` says what they mean.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

use super::{Instance, ParticipantId, Role, Secret, SessionId, SessionKind};

/// The version of the protocol that this program speaks.
pub const PROTOCOL: u32 = 1;

/// The longest message that a hub takes, in bytes of JSON.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The longest message that a client takes, in bytes of JSON: a roster of 255 members whose
/// names are as long as names may be is 100 KiB.
pub const MAX_HUB_MESSAGE_BYTES: usize = 256 * 1024;

/// The longest session description that a hub forwards, in bytes.
pub const MAX_SDP_BYTES: usize = 32 * 1024;

/// The longest candidate line that a hub forwards, in bytes.
pub const MAX_CANDIDATE_BYTES: usize = 512;

/// The longest name of a participant, in characters; longer ones are cut.
pub const MAX_NAME_CHARS: usize = 64;

/// What a client says to its hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// The first message on a connection.
    Hello {
        /// The version the client speaks, [`PROTOCOL`].
        protocol: u32,
        /// How the person wants to be called; empty leaves it to the hub ("Guest 3").
        #[serde(default)]
        name: String,
        /// This run of the client's program.
        instance: Instance,
        /// The resume token of an earlier connection, to be the same participant again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Secret>,
        /// What proves to a hub that the client is a program of the hub's own user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<String>,
    },
    /// Opens a session, or takes an own one back with its key.
    Open {
        /// Its id.
        session: SessionId,
        /// What it is.
        kind: SessionKind,
        /// How many may be in it, the opener included, if fewer than the kind's own limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u16>,
        /// The key that the hub gave to the session's owner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner_key: Option<Secret>,
    },
    /// Joins a session, or comes back to it.
    Join {
        /// Which.
        session: SessionId,
        /// Whether to wait for a session that is not open yet.
        #[serde(default)]
        wait: bool,
    },
    /// Leaves a session, or stops waiting for it.
    Leave {
        /// Which.
        session: SessionId,
    },
    /// Closes a session for everybody; the owner's right.
    Close {
        /// Which.
        session: SessionId,
    },
    /// Sends somebody out; the owner's right.
    Eject {
        /// From which session.
        session: SessionId,
        /// Whom.
        participant: ParticipantId,
        /// Whether to keep everybody at the same address out as well, unless it is the hub's own
        /// machine.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        address: bool,
    },
    /// Lets somebody who was sent out come again; the owner's right.
    Allow {
        /// Into which session.
        session: SessionId,
        /// Whom.
        participant: ParticipantId,
    },
    /// Lets nobody new in, or everybody again; the owner's right.
    Lock {
        /// Into which session.
        session: SessionId,
        /// Whether nobody new is let in.
        locked: bool,
    },
    /// Takes another name, in all sessions at once.
    Rename {
        /// How the person wants to be called; empty leaves it to the hub.
        #[serde(default)]
        name: String,
    },
    /// A word to one other member, whom the session's direction must link to the sender.
    Signal {
        /// In which session.
        session: SessionId,
        /// To whom.
        to: ParticipantId,
        /// What.
        payload: SignalPayload,
    },
    /// A sign of life, when nothing else was said for a heartbeat.
    Ping,
}

/// What a hub says to a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum HubMessage {
    /// The answer to `hello`.
    Welcome {
        /// The version that the hub speaks.
        protocol: u32,
        /// Who the client is now.
        participant: ParticipantId,
        /// The name that the others see.
        name: String,
        /// The token to come back with.
        token: Secret,
        /// A client that is silent for longer than twice this is taken for lost, in milliseconds.
        heartbeat_ms: u64,
        /// The address that others reach this hub by.
        link_base: String,
    },
    /// The session is open and the client owns it.
    Opened {
        /// Which.
        session: SessionId,
        /// What it is.
        kind: SessionKind,
        /// How many may be in it.
        limit: u16,
        /// The key that proves ownership after a crash.
        owner_key: Secret,
        /// The members that the client is linked to; not empty when it took a session back.
        participants: Vec<Member>,
    },
    /// The client is in the session.
    Joined {
        /// Which.
        session: SessionId,
        /// What it is.
        kind: SessionKind,
        /// How many may be in it.
        limit: u16,
        /// The client's own part in it: a returning opener is the opener still.
        role: Role,
        /// The members that the client is linked to.
        participants: Vec<Member>,
    },
    /// The session is not open yet; `joined` follows when it is.
    Waiting {
        /// Which.
        session: SessionId,
    },
    /// Somebody that the client is linked to came in, or came back (perhaps as a new instance).
    ParticipantJoined {
        /// Where.
        session: SessionId,
        /// Who.
        participant: Member,
    },
    /// Somebody is out for good.
    ParticipantLeft {
        /// Where.
        session: SessionId,
        /// Who.
        participant: ParticipantId,
        /// Why.
        reason: LeaveReason,
    },
    /// Somebody's connection to the hub broke off or came back; the seat is kept.
    ParticipantPresence {
        /// Where.
        session: SessionId,
        /// Who.
        participant: ParticipantId,
        /// How it is now.
        presence: Presence,
    },
    /// The answer to `rename`.
    Renamed {
        /// The name that the others see from now on.
        name: String,
    },
    /// Somebody has another name; nothing else changed.
    ParticipantRenamed {
        /// Where.
        session: SessionId,
        /// Who.
        participant: ParticipantId,
        /// How the person is called from now on.
        name: String,
    },
    /// The session has a new owner.
    Owner {
        /// Which session.
        session: SessionId,
        /// Who owns it now.
        participant: ParticipantId,
        /// The new key, told to the new owner only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner_key: Option<Secret>,
    },
    /// Who is let into the session anew, as it is now; told to the owner only.
    Access {
        /// Which session.
        session: SessionId,
        /// Whether nobody new is let in.
        locked: bool,
        /// Who was sent out and is still kept out.
        removed: Vec<RemovedMember>,
    },
    /// The session is over for this client.
    Closed {
        /// Which.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// A word from another member.
    Signal {
        /// In which session.
        session: SessionId,
        /// From whom; the hub vouches for it.
        from: ParticipantId,
        /// What.
        payload: SignalPayload,
    },
    /// Something that the client asked for was not done.
    Error {
        /// What kind of failure.
        code: ErrorCode,
        /// A sentence for a person.
        message: String,
        /// The session it is about.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
    },
    /// The address that others reach this hub by has changed; the links that were made of the old
    /// one lead nowhere, or will not for long.
    LinkBase {
        /// The address.
        link_base: String,
    },
    /// The answer to `ping`.
    Pong,
}

/// A member of a session, as the others see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub participant: ParticipantId,
    /// How the person is called.
    pub name: String,
    /// The part played in the session.
    pub role: Role,
    /// Which run of the member's program.
    pub instance: Instance,
    /// Whether the member's connection to the hub is up.
    pub presence: Presence,
}

/// Somebody who was sent out of a session and cannot come again yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemovedMember {
    /// Who.
    pub participant: ParticipantId,
    /// How the person was called.
    pub name: String,
    /// For how long still, in milliseconds, when this was sent.
    pub rest_ms: u64,
}

/// Whether a member's connection to the hub is up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Presence {
    /// It is.
    Here,
    /// It has not been heard of.
    Away {
        /// For how long already, in milliseconds, when this was sent.
        silent_ms: u64,
    },
}

/// A word between two members, about one connection of theirs.
///
/// Two members may replace a connection that failed: each carries a `generation`, and words about
/// an older one than the receiver knows are void.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Payload {
    /// A session description to be answered (RFC 9429).
    Offer {
        /// The connection it is about, counted from 1.
        generation: u32,
        /// The description.
        sdp: String,
    },
    /// The answer to an offer.
    Answer {
        /// The connection it is about.
        generation: u32,
        /// The description.
        sdp: String,
    },
    /// A trickled ICE candidate (RFC 8838).
    Candidate {
        /// The connection it is about.
        generation: u32,
        /// The candidate attribute's value, `candidate:…`; empty at the end of candidates.
        candidate: String,
        /// The `mid` of its media section.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mid: Option<String>,
        /// The index of its media section.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<u16>,
    },
    /// What the sender sends now, said when a connection is up and at each change. It belongs to
    /// no generation: it is about the person.
    Media {
        /// Whether sound is sent.
        microphone: bool,
        /// Whether a picture is sent.
        camera: bool,
    },
    /// Anything this version does not know: ignored by a client, passed on by a hub.
    #[serde(other)]
    Unknown,
}

impl Payload {
    /// About how many bytes it has as it travels.
    fn bytes(&self) -> usize {
        let fields = 64;
        fields
            + match self {
                Self::Offer { sdp, .. } | Self::Answer { sdp, .. } => sdp.len(),
                Self::Candidate { candidate, .. } => candidate.len(),
                Self::Media { .. } | Self::Unknown => 0,
            }
    }
}

/// A payload as it travels: what this version understands of it and, at a hub, the text that came,
/// which is passed on as it is. So two clients can use what the hub between them does not know.
#[derive(Clone, Debug)]
pub struct SignalPayload {
    known: Payload,
    /// The JSON object that came; `None` at a client.
    text: Option<Box<RawValue>>,
}

impl SignalPayload {
    /// Reads a payload that is to be passed on; what is written of it again is `text`.
    ///
    /// # Errors
    /// If it is no JSON object with a text called `type`, or if a field of a type that this version
    /// knows is missing, is of the wrong kind, or is there twice.
    pub fn to_pass_on(text: Box<RawValue>) -> Result<Self, serde_json::Error> {
        /// An array and a number would do for [`Payload`] itself: serde takes them for a struct
        /// without names, and for the index of a type.
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            _kind: String,
        }
        if !text.get().starts_with('{') {
            return Err(serde_json::Error::custom("a payload is a JSON object"));
        }
        let _: Typed = serde_json::from_str(text.get())?;
        Ok(Self { known: serde_json::from_str(text.get())?, text: Some(text) })
    }

    /// What this version understands.
    pub const fn known(&self) -> &Payload {
        &self.known
    }

    /// What this version understands, without the rest.
    pub fn into_known(self) -> Payload {
        self.known
    }

    /// How long it is as it travels, in bytes; about as long if it did not come as a text.
    pub fn bytes(&self) -> usize {
        self.text().map_or_else(|| self.known.bytes(), str::len)
    }

    fn text(&self) -> Option<&str> {
        self.text.as_ref().map(|text| text.get())
    }
}

impl From<Payload> for SignalPayload {
    fn from(known: Payload) -> Self {
        Self { known, text: None }
    }
}

impl PartialEq for SignalPayload {
    fn eq(&self, other: &Self) -> bool {
        self.known == other.known && self.text() == other.text()
    }
}

impl Eq for SignalPayload {}

impl Serialize for SignalPayload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.text {
            Some(text) => text.serialize(serializer),
            None => self.known.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SignalPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Payload::deserialize(deserializer).map(Self::from)
    }
}

/// Why a hub did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// No session of that id is open.
    NoSuchSession,
    /// A session of that id is open already, and not the client's.
    IdTaken,
    /// Nobody more fits in.
    SessionFull,
    /// The client has no right to that.
    NotAllowed,
    /// The message could not be read.
    BadMessage,
    /// More than one client may have or send.
    TooMany,
    /// A message or version that this hub does not know.
    Unsupported,
}

impl ErrorCode {
    /// The code as it travels, `no-such-session`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoSuchSession => "no-such-session",
            Self::IdTaken => "id-taken",
            Self::SessionFull => "session-full",
            Self::NotAllowed => "not-allowed",
            Self::BadMessage => "bad-message",
            Self::TooMany => "too-many",
            Self::Unsupported => "unsupported",
        }
    }
}

/// Why a member is out of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveReason {
    /// It said so.
    Left,
    /// The owner sent it out.
    Ejected,
    /// It was silent until its seat was given up.
    Lost,
    /// The owner came back under another participant id.
    Replaced,
}

/// Why a session is over for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// The opener left a session that does not outlive it.
    OpenerLeft,
    /// The opener was silent until its seat was given up.
    OpenerLost,
    /// The owner closed it for everybody.
    Closed,
    /// The owner sent this client out.
    Ejected,
    /// Somebody else took the session over with its owner key.
    Replaced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_travel_as_tagged_kebab_case_objects() {
        let text = r#"{"type":"join","session":"town-hall","wait":true,"colour":"red"}"#;
        let join: ClientMessage = serde_json::from_str(text).unwrap();
        let session = SessionId::parse("town-hall").unwrap();
        assert_eq!(join, ClientMessage::Join { session, wait: true });
        assert_eq!(serde_json::to_string(&ClientMessage::Ping).unwrap(), r#"{"type":"ping"}"#);
    }

    #[test]
    fn a_payload_of_a_later_version_is_unknown_and_no_error() {
        let text = r#"{"type":"hand-raised","since":3}"#;
        assert_eq!(serde_json::from_str::<Payload>(text).unwrap(), Payload::Unknown);
    }

    #[test]
    fn a_payload_is_passed_on_with_what_this_version_does_not_know() {
        let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).unwrap();
        for text in [
            r#"{"type":"media","microphone":true,"camera":false,"screen":{"x":[0.1,1e3]}}"#,
            r#"{ "colour" : "r\u00e9d", "type":"hand-raised", "since":36893488147419103232 }"#,
        ] {
            let payload = SignalPayload::to_pass_on(raw(text)).unwrap();
            assert_eq!(serde_json::to_string(&payload).unwrap(), text);
            let signal = HubMessage::Signal {
                session: SessionId::parse("a").unwrap(),
                from: ParticipantId::from_digest([1; 10]),
                payload,
            };
            let sent = serde_json::to_string(&signal).unwrap();
            assert!(sent.ends_with(&format!(r#""payload":{text}}}"#)), "{sent}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_payload_of_a_known_type_is_not_passed_on() {
        for text in [
            "null",
            "[]",
            r#"["media",true,true]"#,
            "{}",
            r#"{"type":3}"#,
            r#"{"type":null}"#,
            r#"{"type":0,"generation":1,"sdp":""}"#,
            r#"{"type":"media","microphone":true}"#,
            r#"{"type":"media","microphone":1,"camera":false}"#,
            r#"{"type":"media","microphone":true,"microphone":true,"camera":false}"#,
            r#"{"type":"x","type":"offer"}"#,
            r#"{"type":"offer","generation":-1,"sdp":""}"#,
            r#"{"type":"offer","generation":4294967296,"sdp":""}"#,
            r#"{"type":"candidate","generation":1,"candidate":"","line":65536}"#,
        ] {
            let raw = serde_json::from_str::<Box<RawValue>>(text).unwrap();
            assert!(SignalPayload::to_pass_on(raw).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_code_has_one_spelling() {
        for code in [ErrorCode::NoSuchSession, ErrorCode::TooMany, ErrorCode::BadMessage] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("{:?}", code.name()));
        }
    }
}
