//! Parses the text of a client into a message, or into an error that names the mistake.

use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::model::{
    ClientMessage, ErrorCode, HubMessage, PROTOCOL, ParticipantId, Secret, SessionId, SignalPayload,
};

/// The deepest nesting of a message: the protocol needs four levels, and nesting costs stack.
const MAX_NESTING: usize = 16;

/// The most characters of a client's text, or of a parser's error, in an error message.
const MAX_QUOTED_CHARS: usize = 120;

/// The types of all client messages.
const MESSAGE_TYPES: [&str; 11] = [
    "hello", "open", "join", "leave", "close", "eject", "allow", "lock", "rename", "signal", "ping",
];

/// Why a message of a client is rejected before it reaches the rooms.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MessageRejection {
    code: ErrorCode,
    text: String,
    session: Option<SessionId>,
}

/// Parses a message. A malformed token in `hello` is treated as no token.
pub(super) fn parse(text: &str) -> Result<ClientMessage, MessageRejection> {
    check_nesting(text)?;
    let mut value: Value = serde_json::from_str(text)
        .map_err(|error| bad(format!("this is not JSON: {error}"), None))?;
    let session = value.get("session").and_then(Value::as_str);
    let session = session.and_then(|id| SessionId::parse(id).ok());
    let Some(kind) = value.get("type").and_then(Value::as_str) else {
        let text = "a message is a JSON object with a text called `type`";
        return Err(bad(text.to_owned(), session));
    };
    if !MESSAGE_TYPES.contains(&kind) {
        let text = format!("this hub does not know messages of the type {:?}", truncate(kind));
        return Err(MessageRejection { code: ErrorCode::Unsupported, text, session });
    }
    if kind == "hello" {
        check_version(&value)?;
        drop_bad_token(&mut value);
    }
    let kind = type_of(&value);
    let message = if kind == "signal" { parse_signal(text) } else { serde_json::from_value(value) };
    message.map_err(|error| bad(format!("{kind} is not complete: {error}"), session))
}

/// Parses a signal; its payload is kept unchanged, to be relayed.
fn parse_signal(text: &str) -> Result<ClientMessage, serde_json::Error> {
    #[derive(Deserialize)]
    struct Signal {
        session: SessionId,
        to: ParticipantId,
        payload: Box<RawValue>,
    }
    let Signal { session, to, payload } = serde_json::from_str(text)?;
    Ok(ClientMessage::Signal { session, to, payload: SignalPayload::parse_to_relay(payload)? })
}

impl MessageRejection {
    /// A text that is not a message of the protocol.
    pub(super) fn bad_message(text: &str) -> Self {
        bad(text.to_owned(), None)
    }

    /// A join or open that has waited for too long behind others of the same address.
    pub(super) fn too_many_joins(session: SessionId) -> Self {
        let text = "too many sessions are opened or joined from your address; try again later";
        Self { code: ErrorCode::TooMany, text: text.to_owned(), session: Some(session) }
    }

    /// A client without a seat on a connection that only returning clients may use.
    pub(super) fn too_many_connections() -> Self {
        let text = "this hub has too many connections from your address; try again later";
        Self { code: ErrorCode::TooMany, text: text.to_owned(), session: None }
    }

    /// Whether it is a mistake of the sender, and not a message of another version.
    pub(super) fn is_bad_message(&self) -> bool {
        self.code == ErrorCode::BadMessage
    }

    /// The error message for the sender.
    pub(super) fn into_message(self) -> HubMessage {
        let (code, message, session) = (self.code, truncate(&self.text), self.session);
        HubMessage::Error { code, message, session }
    }
}

fn bad(text: String, session: Option<SessionId>) -> MessageRejection {
    MessageRejection { code: ErrorCode::BadMessage, text, session }
}

fn type_of(value: &Value) -> String {
    value.get("type").and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Checks the version before the fields: a `hello` of another version may have other fields.
fn check_version(hello: &Value) -> Result<(), MessageRejection> {
    let version = hello.get("protocol");
    if version.is_none_or(|version| version.as_u64() == Some(u64::from(PROTOCOL))) {
        return Ok(());
    }
    let text = format!(
        "this hub speaks version {PROTOCOL} of the protocol; use a program that does, or another \
         hub"
    );
    Err(MessageRejection { code: ErrorCode::Unsupported, text, session: None })
}

fn drop_bad_token(hello: &mut Value) {
    let Some(fields) = hello.as_object_mut() else { return };
    let is_good = |token: &Value| {
        token.as_str().is_some_and(|token| Secret::try_from(token.to_owned()).is_ok())
    };
    if fields.get("token").is_some_and(|token| !is_good(token)) {
        fields.remove("token");
    }
}

/// Checks the nesting before a value is built.
fn check_nesting(text: &str) -> Result<(), MessageRejection> {
    let (mut depth, mut in_string, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = is_escaped || byte != b'"';
            is_escaped = !is_escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            let text = format!("JSON is nested {MAX_NESTING} deep at most; byte {at} goes deeper");
            return Err(bad(text, None));
        }
    }
    Ok(())
}

fn truncate(text: &str) -> String {
    match text.char_indices().nth(MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Instance;

    fn error(text: &str) -> (ErrorCode, String) {
        let error = parse(text).unwrap_err();
        (error.code, error.text)
    }

    #[test]
    fn every_type_of_message_is_listed() {
        for kind in MESSAGE_TYPES {
            let text = format!(r#"{{"type":"{kind}"}}"#);
            let read = serde_json::from_str::<ClientMessage>(&text).map_err(|e| e.to_string());
            assert!(read.as_ref().map_or_else(|e| !e.contains("variant"), |_| true), "{read:?}");
        }
        let unknown = serde_json::from_str::<ClientMessage>(r#"{"type":"x"}"#).unwrap_err();
        let listed = unknown.to_string().matches('`').count() / 2 - 1;
        assert_eq!(listed, MESSAGE_TYPES.len(), "{unknown}");
    }

    #[test]
    fn the_error_for_invalid_json_has_its_position() {
        let (code, text) = error("{\"type\":\n  ping}");
        assert_eq!(code, ErrorCode::BadMessage);
        assert!(text.contains("line 2 column 3"), "{text}");
    }

    #[test]
    fn the_error_for_a_missing_field_names_it() {
        let (code, text) = error(r#"{"type":"join"}"#);
        assert_eq!(code, ErrorCode::BadMessage);
        assert!(text.contains("`session`"), "{text}");
        for none in ["[]", "3", "{}", r#"{"type":3}"#, "null"] {
            let (code, text) = error(none);
            assert!(code == ErrorCode::BadMessage && text.contains("`type`"), "{text}");
        }
    }

    #[test]
    fn an_error_about_a_session_names_it() {
        let error = parse(r#"{"type":"open","session":"a","kind":{"media":[]}}"#).unwrap_err();
        assert_eq!(error.session, Some(SessionId::parse("a").unwrap()));
    }

    #[test]
    fn a_message_of_a_later_version_is_unsupported_and_named() {
        let (code, text) = error(r#"{"type":"raise-hand","session":"a"}"#);
        assert_eq!(code, ErrorCode::Unsupported);
        assert!(text.contains("raise-hand"), "{text}");
    }

    #[test]
    fn a_hello_of_another_version_is_unsupported_whatever_its_fields_are() {
        for protocol in ["2", "0", "-1", "\"1\"", "1.5", "99999999999999999999"] {
            let (code, _) = error(&format!(r#"{{"type":"hello","protocol":{protocol}}}"#));
            assert_eq!(code, ErrorCode::Unsupported, "{protocol}");
        }
        assert_eq!(error(r#"{"type":"hello"}"#).0, ErrorCode::BadMessage);
    }

    #[test]
    fn a_malformed_token_is_treated_as_none() {
        let hello = |token: &str| {
            let start = r#"{"type":"hello","protocol":1,"instance":"0000000000000001""#;
            let hello = parse(&format!("{start},\"token\":{token}}}")).unwrap();
            let ClientMessage::Hello { token, instance, .. } = hello else {
                panic!("{hello:?}");
            };
            assert_eq!(instance, Instance::from_random(1));
            token
        };
        for bad in ["\"\"", "\"xyz\"", "7", "null", "[]"] {
            assert_eq!(hello(bad), None, "{bad}");
        }
        assert!(hello(&format!("{:?}", "ab".repeat(16))).is_some());
    }

    #[test]
    fn a_payload_is_kept_unchanged_and_a_malformed_one_is_rejected() {
        let signal = |payload: &str| {
            let to = "4nfw8z2c0qxk5r7h";
            let text =
                format!(r#"{{"type":"signal","session":"a","to":"{to}","payload":{payload}}}"#);
            parse(&text)
        };
        for payload in [
            r#"{"type":"hand-raised","since":[1,{"x":null}]}"#,
            r#"{"type":"candidate","generation":1,"candidate":"","usernameFragment":"abcd"}"#,
        ] {
            let json = serde_json::to_string(&signal(payload).unwrap()).unwrap();
            assert!(json.contains(payload), "{json}");
        }
        for payload in ["7", "{}", r#"{"type":"offer","generation":1}"#, "[\"media\",true,true]"] {
            let rejected = signal(payload).unwrap_err();
            assert_eq!((rejected.code, rejected.session.is_some()), (ErrorCode::BadMessage, true));
            assert!(rejected.text.starts_with("signal is not complete: "), "{}", rejected.text);
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_strings_only() {
        let nested = |depth: usize| {
            let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
            format!(r#"{{"type":"ping","x":{open}{close}}}"#)
        };
        assert_eq!(parse(&nested(16)), Ok(ClientMessage::Ping));
        assert!(error(&nested(17)).1.contains("16 deep"));
        let bomb = "[".repeat(60_000);
        assert!(error(&bomb).1.contains("16 deep"));
        let text = format!(r#"{{"type":"ping","x":"\\\"{}"}}"#, "[{".repeat(100));
        assert_eq!(parse(&text), Ok(ClientMessage::Ping));
        let tail = format!(r#"{{"type":"ping","x":"\\","y":{}}}"#, "[".repeat(20));
        assert!(error(&tail).1.contains("16 deep"), "a string ends after an escaped backslash");
    }

    #[test]
    fn an_error_quotes_a_bounded_part() {
        let long = format!(r#"{{"type":"{}"}}"#, "ä".repeat(5_000));
        let HubMessage::Error { message, .. } = parse(&long).unwrap_err().into_message() else {
            panic!("an error");
        };
        assert!(message.chars().count() <= MAX_QUOTED_CHARS + 1, "{message}");
    }
}
