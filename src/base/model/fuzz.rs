//! Fuzz targets for untrusted chat messages (`tests/fuzz`).

use super::{ChatMessage, MAX_CHAT_BYTES, MAX_TEXT_BYTES};

/// Parses a message on a data channel from an untrusted peer.
pub fn chat(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Some(message) = ChatMessage::from_json(&text) else { return };
    assert!(text.len() <= MAX_CHAT_BYTES);
    let again = message.to_json();
    assert_eq!(
        ChatMessage::from_json(&again).as_ref(),
        Some(&message),
        "serialised and parsed again"
    );
    if let ChatMessage::Text { text, .. } = message {
        let text = text.as_str();
        assert!(!text.is_empty() && text.len() <= MAX_TEXT_BYTES);
        assert_eq!(text.trim(), text, "no surrounding white space");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{text:?}");
    }
}
