//! The hub's owner keys: random ones, and those of successors, which the hub's identity signs, so
//! that a later run of the hub recognises them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{HubIdentity, rooms_actor::fresh_secret};
use crate::{
    model::{Secret, SessionId},
    signalling::rooms::OwnerKeys,
};

/// How long a successor may open the session again: longer than a hub is away, and short enough
/// that a successor of an old meeting does not take over a later one with the same link.
const KEY_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// The purpose of the signature in a successor's key.
const SUCCESSOR_PURPOSE: &str = "heir";

/// The owner keys of a hub with an identity.
///
/// A successor's key has 128 bits like any other: 32 of the time in minutes since 1970, 16 of the
/// number of the successor, and 80 of the identity's signature (HMAC-SHA256) of both and of the
/// session's id.
pub(super) struct SignedKeys {
    identity: HubIdentity,
    /// Returns the time, in minutes since 1970.
    now: fn() -> u32,
}

impl SignedKeys {
    /// Keys that the identity signs, with the system's clock.
    pub(super) fn new(identity: HubIdentity) -> Self {
        Self { identity, now: minutes_since_1970 }
    }

    fn sign_key(&self, session: &SessionId, made: u32, succession: u16) -> Secret {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&made.to_be_bytes());
        key[4..6].copy_from_slice(&succession.to_be_bytes());
        let signature =
            self.identity.sign(SUCCESSOR_PURPOSE, &[session.as_str().as_bytes(), &key[..6]]);
        key[6..].copy_from_slice(&signature[..10]);
        Secret::from_random(key)
    }
}

impl OwnerKeys for SignedKeys {
    fn generate(&mut self) -> Secret {
        fresh_secret()
    }

    fn for_successor(&mut self, session: &SessionId, succession: u16) -> Secret {
        self.sign_key(session, (self.now)(), succession)
    }

    fn successor_number(&self, session: &SessionId, key: &Secret) -> Option<u16> {
        let digits = key.expose();
        let made = u32::from_str_radix(&digits[..8], 16).ok()?;
        let succession = u16::from_str_radix(&digits[8..12], 16).ok()?;
        let is_fresh = (self.now)().abs_diff(made) <= (KEY_LIFETIME.as_secs() / 60) as u32;
        let expected = self.sign_key(session, made, succession);
        (is_fresh && expected.constant_time_eq(key)).then_some(succession)
    }
}

fn minutes_since_1970() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs() / 60).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(identity: &HubIdentity, now: fn() -> u32) -> SignedKeys {
        SignedKeys { identity: identity.clone(), now }
    }

    #[test]
    fn a_successors_key_is_valid_for_a_week_for_its_session_at_hubs_of_the_same_identity() {
        let identity = HubIdentity::fresh();
        let [a, b] = ["a", "b"].map(|id| SessionId::parse(id).unwrap());
        let mut hub = keys(&identity, || 1_000_000);
        let key = hub.for_successor(&a, 3);
        assert_ne!(key, hub.for_successor(&a, 4));
        assert_eq!(keys(&identity, || 1_000_000 + 7 * 24 * 60).successor_number(&a, &key), Some(3));
        assert_eq!(keys(&identity, || 1_000_001 + 7 * 24 * 60).successor_number(&a, &key), None);
        assert_eq!(hub.successor_number(&b, &key), None, "the key of another session");
        assert_eq!(keys(&HubIdentity::fresh(), || 1_000_000).successor_number(&a, &key), None);
        for bit in 0..128 {
            let mut bytes = [0; 16];
            for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
                *byte = u8::from_str_radix(&key.expose()[at..at + 2], 16).unwrap();
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(hub.successor_number(&a, &Secret::from_random(bytes)), None, "{bit}");
        }
        assert_eq!(hub.successor_number(&a, &Secret::from_random([0xff; 16])), None);
    }
}
