//! Owner keys: they prove who owns a session, and open it again at a hub that was restarted.

use crate::model::{Secret, SessionId};

/// Makes owner keys, and recognises those that it has made for successors.
pub trait OwnerKeys {
    /// A key of 128 random bits.
    fn generate(&mut self) -> Secret;

    /// A key for a successor: a member that becomes the owner of a session whose id is bound to its
    /// first key. [`Self::successor_number`] recognises it, even in a later run of the hub.
    /// `number` counts the successors of the session from 1.
    fn for_successor(&mut self, session: &SessionId, number: u16) -> Secret {
        let _ = (session, number);
        self.generate()
    }

    /// The number of the successor that this key was made for, counted from 1; `None` if it was not
    /// made for a successor.
    fn successor_number(&self, session: &SessionId, key: &Secret) -> Option<u16> {
        let _ = (session, key);
        None
    }
}

impl<F: FnMut() -> Secret> OwnerKeys for F {
    fn generate(&mut self) -> Secret {
        self()
    }
}
