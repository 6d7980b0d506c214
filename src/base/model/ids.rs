//! Ids of sessions, participants and peer connections, and the secrets that prove a claim.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A session id: 1 to 64 characters of `A-Z a-z 0-9 - _ .`, starting with a letter or digit.
///
/// Generated ids are derived from a key: 100 bits in five groups of four,
/// `7h3k-q2m9-x4tz-p8wd-5v0c`. That is too long to guess and short enough to be read aloud. Earlier
/// versions generated ids of 80 random bits in four groups, which are bound to no key. Case matters
/// in an id that the opener chose; generated ids are all lower case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(String);

/// Digits and letters without `i`, `l`, `o`, `u`, which are easily misread (Crockford's base 32).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// The longest session id, in characters.
const MAX_SESSION_ID: usize = 64;

impl SessionId {
    /// The id for 80 random bits, which the caller provides.
    pub fn from_random(bytes: [u8; 10]) -> Self {
        let bits = bytes.iter().fold(0_u128, |bits, byte| bits << 8 | u128::from(*byte));
        Self(grouped(bits, 4))
    }

    /// Parses an id that an opener chose, or a generated one.
    ///
    /// # Errors
    /// [`IdError`] names the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let Some(first) = text.chars().next() else { return Err(IdError::Empty) };
        if text.chars().count() > MAX_SESSION_ID {
            return Err(IdError::TooLong);
        }
        if !first.is_ascii_alphanumeric() {
            return Err(IdError::BadStart(first));
        }
        match text.chars().find(|c| !Self::may_contain(*c)) {
            Some(bad) => Err(IdError::BadCharacter(bad)),
            None => Ok(Self(text.to_owned())),
        }
    }

    /// The id as it is typed and shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id that is bound to a key: the first 100 bits of a SHA-256 of it, in five groups. Only
    /// the holder of the key can prove to a hub that the id is its own; the hub needs to store
    /// nothing for that.
    pub fn of_key(key: &Secret) -> Self {
        let digest = Sha256::digest(format!("quintet session\n{}", key.expose()));
        let bits = digest[..16].iter().fold(0, |bits: u128, byte| bits << 8 | u128::from(*byte));
        Self(grouped(bits >> 28, 5))
    }

    /// Whether the id has the form of an id from [`Self::from_random`] or [`Self::of_key`].
    pub fn is_generated(&self) -> bool {
        Self::generated(&self.0).is_some()
    }

    /// Whether the id has the form of an id from [`Self::of_key`].
    pub fn is_bound(&self) -> bool {
        self.0.len() == Self::GENERATED_CHARS[0] && self.is_generated()
    }

    /// The lengths of generated ids in characters, the longer first.
    pub(super) const GENERATED_CHARS: [usize; 2] = [24, 19];

    /// The id, if the text has the form of a generated one.
    pub(super) fn generated(text: &str) -> Option<Self> {
        let is_group =
            |group: &str| group.len() == 4 && group.bytes().all(|byte| ALPHABET.contains(&byte));
        let is_generated =
            Self::GENERATED_CHARS.contains(&text.len()) && text.split('-').all(is_group);
        is_generated.then(|| Self(text.to_owned()))
    }

    /// Whether an id may contain that character after its first.
    pub(super) const fn may_contain(c: char) -> bool {
        c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
    }
}

/// The lowest bits in base 32, as that many groups of four.
fn grouped(bits: u128, groups: u32) -> String {
    let digits = 4 * groups;
    let mut text = String::new();
    for index in 0..digits {
        if index > 0 && index % 4 == 0 {
            text.push('-');
        }
        let digit = (bits >> (5 * (digits - 1 - index))) & 31;
        text.push(char::from(ALPHABET[digit as usize]));
    }
    text
}

/// Why a text is not a session id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("a session id is needed")]
    Empty,
    /// More than 64 characters.
    #[error("a session id has at most 64 characters")]
    TooLong,
    /// The first character is neither a letter nor a digit.
    #[error("a session id starts with a letter or digit, not {0:?}")]
    BadStart(char),
    /// A character that is not allowed in a link.
    #[error("a session id has only letters, digits, '-', '_' and '.', not {0:?}")]
    BadCharacter(char),
    /// An id that an opener chose is read as another one where people paste it.
    #[error("where people paste {id:?} it is read as {read:?}; choose another id")]
    Misread {
        /// The id.
        id: String,
        /// The id that is read instead.
        read: String,
    },
}

impl TryFrom<String> for SessionId {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A participant at one hub, the same in all sessions there: 16 characters of base 32.
///
/// The hub derives it from the participant's resume token. So it survives a lost connection, a
/// crash of a program that stored its token, and a restart of the hub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ParticipantId(String);

impl ParticipantId {
    /// The id for 80 bits of a digest of the resume token.
    pub fn from_digest(bytes: [u8; 10]) -> Self {
        Self(SessionId::from_random(bytes).0.replace('-', ""))
    }

    /// The id as text, as it is sent on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ParticipantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of a participant's program: 16 hexadecimal digits, random at each start.
///
/// If a participant appears with another instance, its program crashed and was started again: its
/// old peer connections are dead, whatever their state.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instance(String);

impl Instance {
    /// The instance of 64 random bits.
    pub fn from_random(bits: u64) -> Self {
        Self(format!("{bits:016x}"))
    }

    /// The instance as text, as it is sent on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One peer connection to one participant of one session. Unique in this process and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer-{}", self.0)
    }
}

/// 128 random bits that prove a claim (owner key, resume token), as 32 hexadecimal digits.
///
/// Its `Debug` hides the digits, so that a secret never reaches a log or an event.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(String);

impl Secret {
    /// The secret of 128 random bits, which the caller provides.
    pub fn from_random(bytes: [u8; 16]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The digits, only for the wire and the key file.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether both secrets are equal. The comparison takes the same time wherever they differ.
    pub fn constant_time_eq(&self, other: &Self) -> bool {
        let pairs = self.0.bytes().zip(other.0.bytes());
        pairs.fold(0, |differences, (a, b)| differences | (a ^ b)) == 0
    }
}

impl TryFrom<String> for Secret {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        if text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(Self(text))
        } else {
            Err("a secret is 32 hexadecimal digits")
        }
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_has_four_groups_and_keeps_all_eighty_bits() {
        let low = SessionId::from_random([0; 10]);
        let high = SessionId::from_random([255; 10]);
        assert_eq!(low.as_str(), "0000-0000-0000-0000");
        assert_eq!(high.as_str(), "zzzz-zzzz-zzzz-zzzz");
        let mut seen = std::collections::BTreeSet::new();
        for bit in 0..80 {
            let mut bytes = [0_u8; 10];
            bytes[bit / 8] = 1 << (bit % 8);
            seen.insert(SessionId::from_random(bytes));
        }
        assert_eq!(seen.len(), 80, "each bit changes the id");
        assert_eq!(SessionId::parse(high.as_str()), Ok(high));
    }

    #[test]
    fn an_id_is_bound_to_its_key_and_to_no_other() {
        let id = SessionId::of_key(&Secret::from_random([7; 16]));
        // By `printf 'quintet session\n07…07' | sha256sum`, in base 32.
        assert_eq!(id.as_str(), "rt4h-xhcy-m0xg-y8ss-ve5t");
        assert!(id.is_bound() && id.is_generated());
        let mut seen = std::collections::BTreeSet::new();
        for byte in 0..=255 {
            seen.insert(SessionId::of_key(&Secret::from_random([byte; 16])));
        }
        assert_eq!(seen.len(), 256);
        assert!(!SessionId::from_random([1; 10]).is_bound());
        for other in ["0000-0000-0000-0000-000l", "0000-0000-0000-0000_0000", "town-hall"] {
            assert!(!SessionId::parse(other).unwrap().is_bound(), "{other}");
        }
    }

    #[test]
    fn an_invalid_id_is_rejected_with_the_broken_rule() {
        assert_eq!(SessionId::parse(""), Err(IdError::Empty));
        assert_eq!(SessionId::parse(&"a".repeat(65)), Err(IdError::TooLong));
        assert_eq!(SessionId::parse("-x"), Err(IdError::BadStart('-')));
        assert_eq!(SessionId::parse("a/b"), Err(IdError::BadCharacter('/')));
        assert_eq!(SessionId::parse("Stand-up_2.a").map(String::from), Ok("Stand-up_2.a".into()));
    }

    #[test]
    fn debug_output_of_a_secret_hides_its_digits() {
        let secret = Secret::from_random([0xab; 16]);
        assert_eq!(secret.expose(), "ab".repeat(16));
        assert!(!format!("{secret:?}").contains("ab"));
        assert!(Secret::try_from("short".to_owned()).is_err());
    }
}
