//! Ids for sessions that are given none, and the keys that they are bound to.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::keys::fresh_secret;
use crate::model::{HubPlace, Secret, SessionId};

/// The keys of all ids that this process has made, for as long as it runs: a session that was left
/// can be opened again. A person opens few.
static MADE: Mutex<BTreeMap<SessionId, Made>> = Mutex::new(BTreeMap::new());

/// What an id was made of.
struct Made {
    key: Secret,
    /// The hub that was told; it is told to no other.
    told: Option<HubPlace>,
}

/// An id for a session that was given none, bound to a fresh key: only this program can open it.
pub fn fresh_session_id() -> SessionId {
    let key = fresh_secret();
    let id = SessionId::of_key(&key);
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    made.insert(id.clone(), Made { key, told: None });
    id
}

/// The key of an id that this process has made, for the hub that is to have the session; `None`
/// for other ids, and for a second hub.
pub(super) fn key_of(session: &SessionId, hub: &HubPlace) -> Option<Secret> {
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let Made { key, told } = made.get_mut(session)?;
    (told.get_or_insert_with(|| hub.clone()) == hub).then(|| key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HubOwner;

    #[test]
    fn the_key_of_an_id_is_told_to_one_hub_and_again_to_the_same() {
        let place = |url: &str| HubPlace { url: url.parse().unwrap(), owner: HubOwner::Elsewhere };
        let places = ["http://192.0.2.1:7340", "http://192.0.2.2:7340"].map(place);
        let id = fresh_session_id();
        assert_ne!(id, fresh_session_id());
        let key = key_of(&id, &places[0]).unwrap();
        assert_eq!(SessionId::of_key(&key), id);
        assert_eq!(key_of(&id, &places[1]), None);
        assert_eq!(key_of(&id, &places[0]), Some(key));
        assert_eq!(key_of(&SessionId::parse("town-hall").unwrap(), &places[0]), None);
    }
}
