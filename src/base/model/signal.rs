//! The messages of the signalling protocol; `signalling/PROTOCOL.md` specifies their meaning.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

use super::{
    Instance, ParticipantId, Role, Secret, SessionId, SessionKind, TrackList, WantedTracks,
};

/// The version of the protocol that this program implements.
pub const PROTOCOL: u32 = 1;

/// The longest message that a hub accepts, in bytes of JSON.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// The longest message that a client accepts, in bytes of JSON: a roster of 255 members with names
/// of maximum length is 100 KiB.
pub const MAX_HUB_MESSAGE_BYTES: usize = 256 * 1024;

/// The longest session description that a hub forwards, in bytes.
pub const MAX_SDP_BYTES: usize = 32 * 1024;

/// The longest candidate line that a hub forwards, in bytes.
pub const MAX_CANDIDATE_BYTES: usize = 512;

/// The longest name of a participant, in characters; longer names are cut.
pub const MAX_NAME_CHARS: usize = 64;

/// A message from a client to its hub.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ClientMessage {
    /// The first message on a connection.
    Hello {
        /// The version that the client implements, [`PROTOCOL`].
        protocol: u32,
        /// The user's name; if it is empty, the hub chooses one ("Guest 3").
        #[serde(default)]
        name: String,
        /// The run of the client's program.
        instance: Instance,
        /// The resume token of an earlier connection, to become the same participant again.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token: Option<Secret>,
        /// Proves to a hub that the client is a program of the hub's own user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<String>,
    },
    /// Opens a session, or takes an own session back with its owner key.
    Open {
        /// The session's id.
        session: SessionId,
        /// The session's kind.
        kind: SessionKind,
        /// The most participants, including the opener, if fewer than the kind's own limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit: Option<u16>,
        /// The key that the hub gave to the owner of the session.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner_key: Option<Secret>,
    },
    /// Joins a session, or returns to it.
    Join {
        /// The session.
        session: SessionId,
        /// Whether to wait for a session that is not open yet.
        #[serde(default)]
        wait: bool,
    },
    /// Leaves a session, or stops waiting for it.
    Leave {
        /// The session.
        session: SessionId,
    },
    /// Closes a session for all participants. Only its owner may.
    Close {
        /// The session.
        session: SessionId,
    },
    /// Ejects a participant. Only the owner of the session may.
    Eject {
        /// The session.
        session: SessionId,
        /// The participant to eject.
        participant: ParticipantId,
        /// Whether all clients at the same address are blocked as well, unless that is the hub's
        /// own machine.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        address: bool,
    },
    /// Lets an ejected participant join again. Only the owner of the session may.
    Allow {
        /// The session.
        session: SessionId,
        /// The ejected participant.
        participant: ParticipantId,
    },
    /// Locks or unlocks a session. Only its owner may.
    Lock {
        /// The session.
        session: SessionId,
        /// Whether new participants are kept out.
        locked: bool,
    },
    /// Changes the participant's name, in all sessions at once.
    Rename {
        /// The new name; if it is empty, the hub chooses one.
        #[serde(default)]
        name: String,
    },
    /// A signal to one other member, which must be paired with the sender by the session's
    /// topology.
    Signal {
        /// The session.
        session: SessionId,
        /// The receiver.
        to: ParticipantId,
        /// The signal itself.
        payload: SignalPayload,
    },
    /// A keepalive, sent when no other message was sent for a heartbeat.
    Ping,
}

/// A message from a hub to a client.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum HubMessage {
    /// The answer to `hello`.
    Welcome {
        /// The version that the hub implements.
        protocol: u32,
        /// The client's participant id at this hub.
        participant: ParticipantId,
        /// The name that the other participants see.
        name: String,
        /// The token with which the client becomes the same participant again.
        token: Secret,
        /// The heartbeat in milliseconds. The hub treats a client as lost if it sends nothing for
        /// more than twice this time.
        heartbeat_ms: u64,
        /// The address at which other computers reach this hub.
        link_base: String,
    },
    /// The session is open and the client owns it.
    Opened {
        /// The session.
        session: SessionId,
        /// The session's kind.
        kind: SessionKind,
        /// The most participants.
        limit: u16,
        /// The key that proves ownership after a crash.
        owner_key: Secret,
        /// The members that the client is paired with; not empty if the client took a session back.
        participants: Vec<Member>,
    },
    /// The client is in the session.
    Joined {
        /// The session.
        session: SessionId,
        /// The session's kind.
        kind: SessionKind,
        /// The most participants.
        limit: u16,
        /// The client's own role: a returning opener is still the opener.
        role: Role,
        /// The members that the client is paired with.
        participants: Vec<Member>,
    },
    /// The session is not open yet; `joined` follows when it opens.
    Waiting {
        /// The session.
        session: SessionId,
    },
    /// A member that the client is paired with joined or came back, possibly as a new instance.
    ParticipantJoined {
        /// The session.
        session: SessionId,
        /// The member.
        participant: Member,
    },
    /// A member left for good.
    ParticipantLeft {
        /// The session.
        session: SessionId,
        /// The member.
        participant: ParticipantId,
        /// Why it left.
        reason: LeaveReason,
    },
    /// A member's connection to the hub broke or came back; its seat is kept.
    ParticipantPresence {
        /// The session.
        session: SessionId,
        /// The member.
        participant: ParticipantId,
        /// The member's presence now.
        presence: Presence,
    },
    /// The answer to `rename`.
    Renamed {
        /// The name that the other participants see from now on.
        name: String,
    },
    /// A member has a new name; nothing else changed.
    ParticipantRenamed {
        /// The session.
        session: SessionId,
        /// The member.
        participant: ParticipantId,
        /// The new name.
        name: String,
    },
    /// The session has a new owner.
    Owner {
        /// The session.
        session: SessionId,
        /// The new owner.
        participant: ParticipantId,
        /// The new key, sent only to the new owner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner_key: Option<Secret>,
    },
    /// The lock and the ejected participants of a session, sent only to its owner.
    Access {
        /// The session.
        session: SessionId,
        /// Whether the session is locked, so that no new participant can join.
        locked: bool,
        /// The ejected participants that cannot join again yet.
        removed: Vec<RemovedMember>,
    },
    /// The session has ended for this client.
    Closed {
        /// The session.
        session: SessionId,
        /// Why it ended.
        reason: CloseReason,
    },
    /// A signal from another member.
    Signal {
        /// The session.
        session: SessionId,
        /// The sender, verified by the hub.
        from: ParticipantId,
        /// The signal itself.
        payload: SignalPayload,
    },
    /// A request of the client failed.
    Error {
        /// The kind of failure.
        code: ErrorCode,
        /// A sentence for the user.
        message: String,
        /// The session that the request was about, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<SessionId>,
    },
    /// The address at which other computers reach this hub changed. Links with the old address no
    /// longer work, or will soon stop working.
    LinkBase {
        /// The new address.
        link_base: String,
    },
    /// The answer to `ping`.
    Pong,
}

/// A member of a session, as other members see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Member {
    /// The member's id.
    pub participant: ParticipantId,
    /// The member's name.
    pub name: String,
    /// The member's role in the session.
    pub role: Role,
    /// The run of the member's program.
    pub instance: Instance,
    /// The state of the member's connection to the hub.
    pub presence: Presence,
}

/// A member that was ejected from a session and cannot join again yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemovedMember {
    /// The member's id.
    pub participant: ParticipantId,
    /// The member's name when it was ejected.
    pub name: String,
    /// The time until it may join again, in milliseconds, measured when this message was sent.
    pub rest_ms: u64,
}

/// The state of a member's connection to the hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Presence {
    /// It is up.
    Here,
    /// It is down or silent.
    Away {
        /// For how long, in milliseconds, measured when this message was sent.
        silent_ms: u64,
    },
}

/// A signal between two members, about one peer connection between them.
///
/// Two members may replace a peer connection that failed. Each connection has a `generation`;
/// signals about an older generation than the receiver knows are ignored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Payload {
    /// An SDP offer (RFC 9429).
    Offer {
        /// The generation of the peer connection, counted from 1.
        generation: u32,
        /// The description.
        sdp: String,
    },
    /// The answer to an offer.
    Answer {
        /// The generation of the peer connection.
        generation: u32,
        /// The description.
        sdp: String,
    },
    /// A trickled ICE candidate (RFC 8838).
    Candidate {
        /// The generation of the peer connection.
        generation: u32,
        /// The value of the candidate attribute, `candidate:…`; empty at the end of candidates.
        candidate: String,
        /// The `mid` of its media section.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mid: Option<String>,
        /// The index of its media section.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<u16>,
    },
    /// The media that the sender sends now, signalled when a peer connection is up and at each
    /// change. It has no generation: `microphone` and `camera` are about the participant, and a later
    /// signal replaces the ids in `tracks`, which are those of the sender's connection at the time.
    Media {
        /// Whether audio is sent.
        microphone: bool,
        /// Whether video is sent.
        camera: bool,
        /// Each track that the sender has on the peer connection: its id, source and mix, and
        /// whether it is sent. `None` from a program of an earlier version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tracks: Option<TrackList>,
        /// The videos of the receiver that the sender shows, and at which size at most. `None` if
        /// it wants all of them in full size, as a program of an earlier version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wants: Option<WantedTracks>,
    },
    /// A payload that this version does not know: a client ignores it, a hub relays it.
    #[serde(other)]
    Unknown,
}

impl Payload {
    /// The approximate length of the payload as JSON, in bytes.
    fn bytes(&self) -> usize {
        let fields = 64;
        let (track, wanted) = (192, 64);
        fields
            + match self {
                Self::Offer { sdp, .. } | Self::Answer { sdp, .. } => sdp.len(),
                Self::Candidate { candidate, .. } => candidate.len(),
                Self::Media { tracks, wants, .. } => {
                    tracks.as_ref().map_or(0, TrackList::len) * track
                        + wants.as_ref().map_or(0, WantedTracks::len) * wanted
                }
                Self::Unknown => 0,
            }
    }
}

/// A signal payload: what this version understands of it and, at a hub, the JSON text as it
/// arrived. A hub relays the text unchanged, so two clients can use fields that the hub between
/// them does not know.
#[derive(Clone, Debug)]
pub struct SignalPayload {
    known: Payload,
    /// The JSON object as it arrived; `None` at a client.
    raw: Option<Box<RawValue>>,
}

impl SignalPayload {
    /// Parses a payload that is to be relayed; serialising it yields `text` again.
    ///
    /// # Errors
    /// If `text` is not a JSON object with a string field `type`, or if a field of a type that this
    /// version knows is missing, has the wrong type, or appears twice.
    pub fn parse_to_relay(text: Box<RawValue>) -> Result<Self, serde_json::Error> {
        /// [`Payload`] alone would also accept an array or a number: serde reads them as a struct
        /// without field names, and as the index of a type.
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            _kind: String,
        }
        if !text.get().starts_with('{') {
            return Err(serde_json::Error::custom("a payload is a JSON object"));
        }
        let _: Typed = serde_json::from_str(text.get())?;
        Ok(Self { known: serde_json::from_str(text.get())?, raw: Some(text) })
    }

    /// The part that this version understands.
    pub const fn known(&self) -> &Payload {
        &self.known
    }

    /// The part that this version understands, without the text.
    pub fn into_known(self) -> Payload {
        self.known
    }

    /// The length of the payload as JSON, in bytes; approximate if it was not parsed from a text.
    pub fn bytes(&self) -> usize {
        self.raw().map_or_else(|| self.known.bytes(), str::len)
    }

    fn raw(&self) -> Option<&str> {
        self.raw.as_ref().map(|text| text.get())
    }
}

impl From<Payload> for SignalPayload {
    fn from(known: Payload) -> Self {
        Self { known, raw: None }
    }
}

impl PartialEq for SignalPayload {
    fn eq(&self, other: &Self) -> bool {
        self.known == other.known && self.raw() == other.raw()
    }
}

impl Eq for SignalPayload {}

impl Serialize for SignalPayload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.raw {
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

/// Why a hub did not carry out a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// No session of that id is open.
    NoSuchSession,
    /// A session of that id is open already, and the client does not own it.
    IdTaken,
    /// The session takes no further participant.
    SessionFull,
    /// The client has no right to do that.
    NotAllowed,
    /// The message could not be parsed.
    BadMessage,
    /// The client exceeds a limit of the hub.
    TooMany,
    /// This hub does not know the message or the version.
    Unsupported,
}

impl ErrorCode {
    /// The code on the wire, `no-such-session`.
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

/// Why a member left a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeaveReason {
    /// It left by itself.
    Left,
    /// The owner ejected it.
    Ejected,
    /// Its connection was silent until the hub gave up its seat.
    Lost,
    /// The owner came back under another participant id.
    Replaced,
}

/// Why a session ended for a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// The opener left, and a session of this kind ends with its opener.
    OpenerLeft,
    /// The opener's connection was silent until the hub gave up its seat.
    OpenerLost,
    /// The owner closed it for all participants.
    Closed,
    /// The owner ejected this client.
    Ejected,
    /// Another client took the session over with its owner key.
    Replaced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_tagged_kebab_case_json_objects() {
        let text = r#"{"type":"join","session":"town-hall","wait":true,"colour":"red"}"#;
        let join: ClientMessage = serde_json::from_str(text).unwrap();
        let session = SessionId::parse("town-hall").unwrap();
        assert_eq!(join, ClientMessage::Join { session, wait: true });
        assert_eq!(serde_json::to_string(&ClientMessage::Ping).unwrap(), r#"{"type":"ping"}"#);
    }

    #[test]
    fn a_payload_of_a_later_version_is_parsed_as_unknown() {
        let text = r#"{"type":"hand-raised","since":3}"#;
        assert_eq!(serde_json::from_str::<Payload>(text).unwrap(), Payload::Unknown);
    }

    #[test]
    fn a_payload_is_relayed_with_fields_that_this_version_does_not_know() {
        let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).unwrap();
        for text in [
            r#"{"type":"media","microphone":true,"camera":false,"screen":{"x":[0.1,1e3]}}"#,
            r#"{"type":"media","microphone":true,"camera":false,"tracks":[{"id":"0","size":"4k"},7]}"#,
            r#"{ "colour" : "r\u00e9d", "type":"hand-raised", "since":36893488147419103232 }"#,
        ] {
            let payload = SignalPayload::parse_to_relay(raw(text)).unwrap();
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
    fn an_invalid_payload_of_a_known_type_is_not_relayed() {
        for text in [
            "null",
            "[]",
            r#"["media",true,true]"#,
            "{}",
            r#"{"type":3}"#,
            r#"{"type":null}"#,
            r#"{"type":0,"generation":1,"sdp":""}"#,
            r#"{"type":"media","microphone":true}"#,
            r#"{"type":"media","microphone":true,"camera":false,"tracks":{}}"#,
            r#"{"type":"media","microphone":1,"camera":false}"#,
            r#"{"type":"media","microphone":true,"microphone":true,"camera":false}"#,
            r#"{"type":"x","type":"offer"}"#,
            r#"{"type":"offer","generation":-1,"sdp":""}"#,
            r#"{"type":"offer","generation":4294967296,"sdp":""}"#,
            r#"{"type":"candidate","generation":1,"candidate":"","line":65536}"#,
        ] {
            let raw = serde_json::from_str::<Box<RawValue>>(text).unwrap();
            assert!(SignalPayload::parse_to_relay(raw).is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_code_has_one_spelling() {
        for code in [ErrorCode::NoSuchSession, ErrorCode::TooMany, ErrorCode::BadMessage] {
            assert_eq!(serde_json::to_string(&code).unwrap(), format!("{:?}", code.name()));
        }
    }
}
