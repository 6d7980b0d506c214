//! A message of the hub that several participants may get.

use std::{
    io::{self, Write},
    sync::{Arc, OnceLock},
};

use serde::Serialize;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use crate::model::HubMessage;

/// A message of the hub, shared by all that get it.
///
/// Its length counts for the limits of outboxes, so it is counted at once. Its text is made by the
/// first connection that sends it, in the task of that connection, and shared with the others.
#[derive(Clone, Debug)]
pub(super) struct SharedMessage(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    message: HubMessage,
    bytes: usize,
    text: OnceLock<Utf8Bytes>,
}

impl SharedMessage {
    /// The message.
    pub(super) fn message(&self) -> &HubMessage {
        &self.0.message
    }

    /// The length of its text, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Whether it was made a text.
    #[cfg(test)]
    pub(super) fn has_text(&self) -> bool {
        self.0.text.get().is_some()
    }

    /// The message as the text of a WebSocket message.
    pub(super) fn text(&self) -> Utf8Bytes {
        let to_json = || {
            let mut text = Vec::with_capacity(self.0.bytes);
            write_json(&mut text, &self.0.message);
            let text = String::from_utf8(text).expect("JSON is UTF-8");
            text.into()
        };
        self.0.text.get_or_init(to_json).clone()
    }
}

impl From<HubMessage> for SharedMessage {
    fn from(message: HubMessage) -> Self {
        let mut length = ByteCount(0);
        write_json(&mut length, &message);
        Self(Arc::new(Shared { message, bytes: length.0, text: OnceLock::new() }))
    }
}

fn write_json(writer: impl Write, message: &impl Serialize) {
    serde_json::to_writer(writer, message).expect("a hub message is serializable");
}

/// Counts the bytes that are written.
struct ByteCount(usize);

impl Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ErrorCode, SessionId};

    fn error(text: &str) -> HubMessage {
        let session = SessionId::parse("a").ok();
        HubMessage::Error { code: ErrorCode::BadMessage, message: text.to_owned(), session }
    }

    #[test]
    fn the_length_is_that_of_the_text() {
        for text in ["", "plain", "\"quoted\" \\ \n \u{1}", "\u{e4}\u{1f980}"] {
            let shared = SharedMessage::from(error(text));
            assert_eq!(shared.bytes(), shared.text().len());
            assert_eq!(*shared.text(), *serde_json::to_string(shared.message()).unwrap());
        }
    }

    #[test]
    fn the_text_is_made_once_and_only_if_it_is_sent() {
        let shared = SharedMessage::from(error("x"));
        let other = shared.clone();
        assert!(!shared.has_text());
        assert_eq!(shared.text().as_ptr(), other.text().as_ptr());
    }
}
