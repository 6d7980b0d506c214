//! Where a client keeps the tokens that hubs gave it.

use std::{collections::BTreeMap, fmt};

use crate::model::{HubPlace, Secret};

/// The tokens that make us the same participants again, each for the place that gave it and for no
/// other: a hub that sends us on, or takes another's place, gets none.
///
/// Called on the client's task, which may wait for a file for a moment.
pub trait TokenStore: fmt::Debug + Send {
    /// The token to come back with at that place; `None` leaves it to the hub to make one.
    fn token(&mut self, place: &HubPlace) -> Option<Secret>;

    /// The hub at that place has welcomed the bearer of that token, which may be another one.
    fn keep(&mut self, place: &HubPlace, token: &Secret);

    /// The seats at all places were left properly: nobody comes back for them.
    fn forget(&mut self);
}

/// Tokens that end with the process.
#[derive(Clone, Debug, Default)]
pub struct TokensInMemory(BTreeMap<HubPlace, Secret>);

impl TokenStore for TokensInMemory {
    fn token(&mut self, place: &HubPlace) -> Option<Secret> {
        self.0.get(place).cloned()
    }

    fn keep(&mut self, place: &HubPlace, token: &Secret) {
        self.0.insert(place.clone(), token.clone());
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}
