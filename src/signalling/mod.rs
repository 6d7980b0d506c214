//! Signalling: the hub's rooms (pure), its WebSocket server, and the client. `PROTOCOL.md`
//! describes the protocol.

mod bucket;
mod client;
mod dial;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod hub;
#[cfg(test)]
mod protocol;
mod rooms;

pub use client::{Client, ClientEvent, ClientOptions, TokenStore, TokensInMemory, is_hub};
pub use hub::{
    DEFAULT_PORT, Found, Hub, HubError, HubIdentity, HubOptions, ListenAt, OpensFor, Signature,
    Subnet, SubnetError, find_hub, find_hub_of,
};
pub use rooms::{Dismissal, LinkId, OwnerKeys, Rooms, RoomsInput, RoomsOutput, SourceAddress};
