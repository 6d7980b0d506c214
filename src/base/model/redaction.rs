//! What is overwritten in traces and reports: secrets, and chat texts.

use serde_json::Value;

use super::SessionId;

/// What stands for each byte that is overwritten. The length stays, because the core limits it.
const BLANK: &str = "x";

/// Overwrites what is secret in a value, and the text of chat messages unless `with_chat`.
pub fn redact(value: &mut Value, with_chat: bool) {
    match value {
        Value::String(text) => redact_description(text),
        Value::Array(values) => values.iter_mut().for_each(|one| redact(one, with_chat)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_secret(name, with_chat)
                    && let Value::String(text) = value
                {
                    *text = blank(text);
                } else {
                    redact(value, with_chat);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Whether a field of that name is a secret, or the text of a chat message.
fn is_secret(name: &str, with_chat: bool) -> bool {
    matches!(name, "owner_key" | "token" | "proof") || (name == "text" && !with_chat)
}

/// Overwrites in a text for others: what [`redact`] does, each word that has the form of a
/// [`Secret`](super::Secret), and most of each generated session id, because whoever has an id can
/// join.
pub fn redact_text(text: &mut String) {
    redact_description(text);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let mut rest = text.as_str();
    let mut all = String::with_capacity(text.len());
    while let Some(start) = rest.find(is_part) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        all += before;
        all += &redact_word(word);
        rest = after;
    }
    *text = all + rest;
}

/// How many hexadecimal digits make a word a secret.
const SECRET_DIGITS: usize = 32;

/// How many characters of a generated session id stay: its first group.
const ID_PREFIX: usize = 4;

fn redact_word(word: &str) -> String {
    let is_secret =
        word.len() >= SECRET_DIGITS && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    match SessionId::generated(word) {
        Some(_) => format!("{}-{}", &word[..ID_PREFIX], blank(&word[ID_PREFIX + 1..])),
        None if is_secret => blank(word),
        None => word.to_owned(),
    }
}

/// Overwrites the ICE passwords and the SRTP keys (`a=crypto`, RFC 4568) in a text, which may be a
/// description.
fn redact_description(text: &mut String) {
    let is_found = |line: &str| SECRET_ATTRIBUTES.iter().any(|name| find(line, name).is_some());
    if !is_found(text) {
        return;
    }
    let lines = text.split_inclusive(['\r', '\n']);
    *text = lines.map(redact_line).collect();
}

/// The attributes of a description with a secret in them.
const SECRET_ATTRIBUTES: [&str; 2] = ["ice-pwd", "crypto:"];

/// Overwrites what follows the name of a secret attribute, up to the end of the line.
fn redact_line(line: &str) -> String {
    let ends = SECRET_ATTRIBUTES.iter().filter_map(|name| Some(find(line, name)? + name.len()));
    let Some(end) = ends.min() else { return line.to_owned() };
    let value = line[end..].trim_end_matches(['\r', '\n']);
    let rest = &line[end + value.len()..];
    let (separator, secret) = value.split_at(value.len() - value.trim_start_matches(':').len());
    format!("{}{separator}{}{rest}", &line[..end], blank(secret))
}

/// Where a text contains a name, whatever the case of its letters.
fn find(text: &str, name: &str) -> Option<usize> {
    let windows = text.as_bytes().windows(name.len());
    windows.into_iter().position(|part| part.eq_ignore_ascii_case(name.as_bytes()))
}

fn blank(text: &str) -> String {
    BLANK.repeat(text.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn passwords_keys_and_chat_are_overwritten_and_keep_their_length() {
        let sdp = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:hunter2\r\na= ICE-PWD: hunter2\r\n\
                   a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:hunter2\r\na=mid:0\r\n";
        let mut value = json!({
            "sdp": sdp,
            "reason": ["bad line: a=ice-pwd:hunter2"],
            "message": { "owner_key": "hunter2", "token": "hunter2" },
            "channel-message": { "type": "text", "number": 1, "text": "hunter2" },
        });
        let length = value.to_string().len();
        redact(&mut value, false);
        let text = value.to_string();
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text.len(), length);
        assert!(text.contains("a=ice-ufrag:abcd") && text.contains("a=mid:0"), "{text}");
        let mut chat = json!({ "text": "a word" });
        redact(&mut chat, true);
        assert_eq!(chat, json!({ "text": "a word" }));
    }
}
