//! Chat messages, and their form on a data channel (see `signalling/PROTOCOL.md`, "Chat").

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest text of one message, in bytes of UTF-8.
///
/// About a page and a half. Longer texts are better sent as files: one uplink sends each message to
/// up to two hundred viewers.
pub const MAX_TEXT_BYTES: usize = 4096;

/// The longest message on the channel, in bytes of UTF-8. A text in which every character is
/// escaped fits, and browsers send messages of this size to each other.
pub const MAX_CHAT_BYTES: usize = 16 * 1024;

/// A valid chat text: not empty, at most [`MAX_TEXT_BYTES`] long, without control characters other
/// than line breaks and tabs, and without characters that change the direction of text.
///
/// Its `Debug` shows only its length: what people write never reaches a log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChatText(String);

/// A message on the channel: one JSON object in one text message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ChatMessage {
    /// A chat text.
    Text {
        /// Greater than the number of every earlier text of this sender in the session.
        number: u64,
        /// The text.
        text: ChatText,
    },
    /// Acknowledges all texts up to a number.
    Received {
        /// The number of the newest text that arrived.
        number: u64,
    },
    /// A message type of a later version.
    #[serde(other)]
    Unknown,
}

impl ChatText {
    /// The text without characters that are not allowed, and without surrounding white space.
    ///
    /// # Errors
    /// [`TextError`] if nothing is left, or if too much is.
    pub fn new(text: &str) -> Result<Self, TextError> {
        let text: String = text.replace("\r\n", "\n").chars().filter(|c| is_allowed(*c)).collect();
        let text = text.trim();
        match text.len() {
            0 => Err(TextError::Empty),
            length if length > MAX_TEXT_BYTES => Err(TextError::TooLong(length)),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The text, for users and programs, not for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text cannot be sent.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TextError {
    /// The text has no visible characters.
    #[error("a message cannot be empty")]
    Empty,
    /// The text is longer than [`MAX_TEXT_BYTES`].
    #[error("this message is too long ({0} of at most {MAX_TEXT_BYTES} bytes); send it in parts")]
    TooLong(usize),
}

impl ChatMessage {
    /// Parses a received message; `None` if it is too long, not JSON, or has an invalid text. Never
    /// panics, whatever the text.
    pub fn from_json(text: &str) -> Option<Self> {
        if text.len() > MAX_CHAT_BYTES {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// The message as JSON, at most [`MAX_CHAT_BYTES`] long.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("numbers and text are always JSON")
    }
}

impl TryFrom<String> for ChatText {
    type Error = TextError;

    fn try_from(text: String) -> Result<Self, TextError> {
        Self::new(&text)
    }
}

impl From<ChatText> for String {
    fn from(text: ChatText) -> Self {
        text.0
    }
}

impl fmt::Debug for ChatText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChatText({} bytes)", self.0.len())
    }
}

fn is_allowed(c: char) -> bool {
    let is_break = matches!(c, '\n' | '\t');
    let changes_direction = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    is_break || !(c.is_control() || changes_direction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> ChatText {
        ChatText::new(text).unwrap()
    }

    #[test]
    fn a_message_is_one_tagged_json_object_and_unknown_fields_are_ignored() {
        let message = ChatMessage::Text { number: 7, text: text("hello, \"Ada\"") };
        let json = r#"{"type":"text","number":7,"text":"hello, \"Ada\""}"#;
        assert_eq!(message.to_json(), json);
        assert_eq!(ChatMessage::from_json(json), Some(message));
        let more = r#"{"type":"received","number":7,"colour":"red"}"#;
        assert_eq!(ChatMessage::from_json(more), Some(ChatMessage::Received { number: 7 }));
        let later = r#"{"type":"file","name":"x"}"#;
        assert_eq!(ChatMessage::from_json(later), Some(ChatMessage::Unknown));
    }

    #[test]
    fn an_invalid_message_is_not_parsed() {
        let long = format!(r#"{{"type":"text","number":1,"text":"{}"}}"#, "x".repeat(4097));
        let padded = format!("{}{}", r#"{"type":"received","number":1}"#, " ".repeat(16_384));
        for wrong in [
            "",
            "hello",
            "[]",
            r#"{"type":"text"}"#,
            r#"{"type":"text","number":-1,"text":"x"}"#,
            r#"{"type":"text","number":1,"text":"  "}"#,
            r#"{"type":"text","number":1,"text":3}"#,
            &long,
            &padded,
        ] {
            assert_eq!(ChatMessage::from_json(wrong), None, "{wrong:.40}");
        }
    }

    #[test]
    fn a_text_keeps_its_line_breaks_and_loses_control_and_direction_characters() {
        assert_eq!(text(" a\r\nb\tc \u{1b}[2J\u{202e}d\n").as_str(), "a\nb\tc [2Jd");
        assert_eq!(ChatText::new("\u{7} \n"), Err(TextError::Empty));
        assert_eq!(text(&"ä".repeat(2048)).as_str().len(), MAX_TEXT_BYTES);
        assert_eq!(ChatText::new(&"ä".repeat(2049)), Err(TextError::TooLong(4098)));
    }

    #[test]
    fn debug_output_does_not_contain_the_text() {
        let message = ChatMessage::Text { number: 1, text: text("my secret") };
        assert!(!format!("{message:?}").contains("secret"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn every_valid_text_is_parsed_as_it_was_sent(
            input in any::<String>(),
            number in any::<u64>(),
        ) {
            if let Ok(text) = ChatText::new(&input) {
                let message = ChatMessage::Text { number, text };
                prop_assert!(message.to_json().len() <= MAX_CHAT_BYTES);
                prop_assert_eq!(ChatMessage::from_json(&message.to_json()), Some(message));
            }
        }

        #[test]
        fn parsing_never_panics(received in any::<String>()) {
            let _ = ChatMessage::from_json(&received);
        }
    }
}
