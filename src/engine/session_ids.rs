//! Generated session ids, and the owner keys that they are bound to.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::secret_store::fresh_secret;
use crate::model::{HubEndpoint, Secret, SessionId};

/// The keys of all ids that this process has generated. They are kept as long as it runs, so that a
/// session that was left can be opened again. A user opens few sessions.
static GENERATED: Mutex<BTreeMap<SessionId, GeneratedId>> = Mutex::new(BTreeMap::new());

/// The key of a generated id.
struct GeneratedId {
    key: Secret,
    /// The hub that got the key; no other hub gets it.
    hub: Option<HubEndpoint>,
}

/// Returns a generated session id that is bound to a fresh owner key: only this program can open
/// the session.
pub fn fresh_session_id() -> SessionId {
    let key = fresh_secret();
    let id = SessionId::of_key(&key);
    let mut generated = GENERATED.lock().unwrap_or_else(PoisonError::into_inner);
    generated.insert(id.clone(), GeneratedId { key, hub: None });
    id
}

/// Returns the owner key of a generated id for the hub at which the session is opened; `None` for
/// other ids, and for a second hub.
pub(super) fn owner_key_of(session: &SessionId, hub: &HubEndpoint) -> Option<Secret> {
    let mut generated = GENERATED.lock().unwrap_or_else(PoisonError::into_inner);
    let GeneratedId { key, hub: told } = generated.get_mut(session)?;
    (told.get_or_insert_with(|| hub.clone()) == hub).then(|| key.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::HubOwner;

    #[test]
    fn the_key_of_an_id_is_given_to_one_hub_only() {
        let endpoint =
            |url: &str| HubEndpoint { url: url.parse().unwrap(), owner: HubOwner::Elsewhere };
        let endpoints = ["http://192.0.2.1:7340", "http://192.0.2.2:7340"].map(endpoint);
        let id = fresh_session_id();
        assert_ne!(id, fresh_session_id());
        let key = owner_key_of(&id, &endpoints[0]).unwrap();
        assert_eq!(SessionId::of_key(&key), id);
        assert_eq!(owner_key_of(&id, &endpoints[1]), None);
        assert_eq!(owner_key_of(&id, &endpoints[0]), Some(key));
        assert_eq!(owner_key_of(&SessionId::parse("town-hall").unwrap(), &endpoints[0]), None);
    }
}
