//! The keys that prove who owns a session, and may open it again at a hub that remembers nothing.

use crate::model::{Secret, SessionId};

/// Makes owner keys, and knows again those that it has made for heirs.
pub trait OwnerKeys {
    /// A key of 128 random bits.
    fn fresh(&mut self) -> Secret;

    /// A key for the heir of a session whose id is bound to its first key. [`Self::succession`]
    /// knows it again, even in a later run of the hub.
    fn for_heir(&mut self, session: &SessionId, number: u16) -> Secret {
        let _ = (session, number);
        self.fresh()
    }

    /// How many heirs there were up to the one whom this key was made for, counted from 1; `None`
    /// if it was made for nobody.
    fn succession(&self, session: &SessionId, key: &Secret) -> Option<u16> {
        let _ = (session, key);
        None
    }
}

impl<F: FnMut() -> Secret> OwnerKeys for F {
    fn fresh(&mut self) -> Secret {
        self()
    }
}
