//! What others may write in a chat, made up by a fuzzer (`tests/fuzz`).

use super::{ChatMessage, MAX_CHAT_BYTES, MAX_TEXT_BYTES};

/// A message on a data channel, from anybody.
pub fn chat(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(message) = ChatMessage::read(&text) else { return };
    assert!(text.len() <= MAX_CHAT_BYTES);
    let again = message.write();
    assert_eq!(ChatMessage::read(&again).as_ref(), Some(&message), "what is written can be read");
    if let ChatMessage::Text { text, .. } = message {
        let text = text.as_str();
        assert!(!text.is_empty() && text.len() <= MAX_TEXT_BYTES);
        assert_eq!(text.trim(), text, "no space around it");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    }
}
