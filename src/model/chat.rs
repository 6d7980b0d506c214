//! What people write to each other, and how it travels on a data channel (see
//! `signalling/PROTOCOL.md`, "Chat").

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest text of one message, in bytes of UTF-8.
///
/// A page and a half: what is longer is a file, and two hundred viewers get it from one uplink.
pub const MAX_TEXT_BYTES: usize = 4096;

/// The longest message on the channel, in bytes of UTF-8: a text of which each character is
/// escaped fits, and browsers send messages of this size to each other.
pub const MAX_CHAT_BYTES: usize = 16 * 1024;

/// A text that may be said: not empty, at most [`MAX_TEXT_BYTES`] long, without control
/// characters other than line breaks and tabs, and without marks that turn its direction around.
///
/// Its `Debug` shows its length only: what people write never reaches a log.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChatText(String);

/// A message on the channel: one JSON object in one text message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ChatMessage {
    /// Somebody says something.
    Text {
        /// Greater than that of everything the sender said here before.
        number: u64,
        /// What.
        text: ChatText,
    },
    /// Everything up to that number has arrived.
    Received {
        /// The number of a text.
        number: u64,
    },
    /// Something of a later version.
    #[serde(other)]
    Unknown,
}

impl ChatText {
    /// The text without what does not belong into one, and without empty space around it.
    ///
    /// # Errors
    /// [`TextError`] if nothing is left, or too much.
    pub fn new(text: &str) -> Result<Self, TextError> {
        let text: String = text.replace("\r\n", "\n").chars().filter(|c| may_stand(*c)).collect();
        let text = text.trim();
        match text.len() {
            0 => Err(TextError::Empty),
            length if length > MAX_TEXT_BYTES => Err(TextError::TooLong(length)),
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The text, for people and programs, not for logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not said.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TextError {
    /// Nothing in it can be seen.
    #[error("a message cannot be empty")]
    Empty,
    /// More than [`MAX_TEXT_BYTES`].
    #[error("this message is too long ({0} of at most {MAX_TEXT_BYTES} bytes); send it in parts")]
    TooLong(usize),
}

impl ChatMessage {
    /// The message that somebody sent; `None` if it is none: too long, not JSON, or with a text
    /// that may not be said. Takes any text without panic.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_CHAT_BYTES {
            return None;
        }
        serde_json::from_str(text).ok()
    }

    /// The message as it travels, at most [`MAX_CHAT_BYTES`] long.
    pub fn write(&self) -> String {
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

fn may_stand(c: char) -> bool {
    let breaks = matches!(c, '\n' | '\t');
    let turns = matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    breaks || !(c.is_control() || turns)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> ChatText {
        ChatText::new(text).unwrap()
    }

    #[test]
    fn a_message_travels_as_one_tagged_object_and_more_fields_are_ignored() {
        let message = ChatMessage::Text { number: 7, text: text("hello, \"Ada\"") };
        let json = r#"{"type":"text","number":7,"text":"hello, \"Ada\""}"#;
        assert_eq!(message.write(), json);
        assert_eq!(ChatMessage::read(json), Some(message));
        let more = r#"{"type":"received","number":7,"colour":"red"}"#;
        assert_eq!(ChatMessage::read(more), Some(ChatMessage::Received { number: 7 }));
        let later = r#"{"type":"file","name":"x"}"#;
        assert_eq!(ChatMessage::read(later), Some(ChatMessage::Unknown));
    }

    #[test]
    fn what_is_no_message_is_none() {
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
            assert_eq!(ChatMessage::read(wrong), None, "{wrong:.40}");
        }
    }

    #[test]
    fn a_text_keeps_its_lines_and_loses_what_disturbs_a_terminal_or_a_reader() {
        assert_eq!(text(" a\r\nb\tc \u{1b}[2J\u{202e}d\n").as_str(), "a\nb\tc [2Jd");
        assert_eq!(ChatText::new("\u{7} \n"), Err(TextError::Empty));
        assert_eq!(text(&"ä".repeat(2048)).as_str().len(), MAX_TEXT_BYTES);
        assert_eq!(ChatText::new(&"ä".repeat(2049)), Err(TextError::TooLong(4098)));
    }

    #[test]
    fn a_text_does_not_show_itself_in_a_log() {
        let message = ChatMessage::Text { number: 1, text: text("my secret") };
        assert!(!format!("{message:?}").contains("secret"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_text_that_may_be_said_arrives_as_it_was(said in any::<String>(), number in any::<u64>()) {
            if let Ok(text) = ChatText::new(&said) {
                let message = ChatMessage::Text { number, text };
                prop_assert!(message.write().len() <= MAX_CHAT_BYTES);
                prop_assert_eq!(ChatMessage::read(&message.write()), Some(message));
            }
        }

        #[test]
        fn whatever_arrives_does_no_harm(arrived in any::<String>()) {
            let _ = ChatMessage::read(&arrived);
        }
    }
}
