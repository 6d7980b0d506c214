//! Stores the tokens that hubs gave to a client.

use std::{collections::BTreeMap, fmt};

use crate::model::{HubEndpoint, Secret};

/// The tokens by which a client becomes the same participant again, each for the place that gave it
/// and for no other: a hub after a redirect, or one that took another's place, gets none.
///
/// Called on the client's task, which may wait for a file access.
pub trait TokenStore: fmt::Debug + Send {
    /// The token for that place; `None` lets the hub make one.
    fn token(&mut self, endpoint: &HubEndpoint) -> Option<Secret>;

    /// The hub at that place has welcomed the client with that token, which may be a new one.
    fn keep(&mut self, endpoint: &HubEndpoint, token: &Secret);

    /// The client has left all its seats: no token is needed to return.
    fn forget(&mut self);
}

/// Tokens that are kept in memory, until the process ends.
#[derive(Clone, Debug, Default)]
pub struct TokensInMemory(BTreeMap<HubEndpoint, Secret>);

impl TokenStore for TokensInMemory {
    fn token(&mut self, endpoint: &HubEndpoint) -> Option<Secret> {
        self.0.get(endpoint).cloned()
    }

    fn keep(&mut self, endpoint: &HubEndpoint, token: &Secret) {
        self.0.insert(endpoint.clone(), token.clone());
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}
