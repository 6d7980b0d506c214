//! What the core is told.

use crate::model::{
    Command, HubMessage, HubPlace, HubUrl, ParticipantId, PeerEvent, PeerId, SourceKind,
    SourceState,
};

/// Anything that the core is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Input {
    /// A person wants something.
    Command(Command),
    /// The connection to a hub changed, or the hub said something.
    Hub(HubRef, HubEvent),
    /// A connection to a participant tells something.
    Peer(PeerId, PeerEvent),
    /// A source or the speaker changed.
    Source(SourceKind, SourceState),
    /// What there is to be sent at all, in place of what was said before. Before the first time,
    /// everything is.
    Equipped {
        /// Whether there is a picture.
        camera: bool,
        /// Whether there is sound.
        microphone: bool,
    },
    /// What the person looks at here, before or while others do; in place of what was said before.
    Preview {
        /// The own picture.
        camera: bool,
        /// The own level.
        microphone: bool,
    },
}

/// Which hub.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HubRef {
    /// The one that the program finds or embeds on demand.
    Default,
    /// The one at an address, from a link.
    At(HubUrl),
}

/// What the connection to a hub tells. It says hello, pings and comes back by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HubEvent {
    /// The hub has welcomed us, for the first time or again.
    Up {
        /// The address that others reach it by: links are made of it.
        url: HubUrl,
        /// Where it was reached, and whose it is there.
        place: HubPlace,
        /// Who we are there.
        participant: ParticipantId,
        /// How the others see us called.
        name: String,
    },
    /// The hub has another address: links are made of it from now on.
    Moved {
        /// The address that others reach it by.
        url: HubUrl,
    },
    /// The hub was lost, or another attempt to reach it failed; it is tried again.
    Down {
        /// Why, for a person.
        reason: String,
    },
    /// The hub is our own, and others meet there: who was counted last is void.
    Guests {
        /// How many people besides us are connected and sit in a session or wait for one.
        count: usize,
    },
    /// The hub said something.
    Message(HubMessage),
}
