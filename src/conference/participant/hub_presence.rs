//! Whether a participant is at the hub.

use std::time::Duration;

use super::ParticipantContext;
use crate::model::{MediaTime, Presence};

/// The participant's connection to the hub, as far as we know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HubPresence {
    Here,
    Away {
        since: MediaTime,
    },
    /// The hub no longer lists it; it is kept because its media flows.
    Missing {
        since: MediaTime,
    },
}

impl HubPresence {
    /// The presence that the hub reports.
    pub(super) fn of(presence: Presence, cx: &ParticipantContext<'_>) -> Self {
        match presence {
            Presence::Here => Self::Here,
            Presence::Away { silent_ms } => {
                Self::Away { since: cx.time_before(Duration::from_millis(silent_ms)) }
            }
        }
    }
}
