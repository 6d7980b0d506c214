//! Signalling: the hub's rooms (pure), its WebSocket server, and the client. `PROTOCOL.md`
//! describes the protocol.

mod client;
mod dial;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod hub;
#[cfg(test)]
mod protocol_tests;
mod rooms;

pub use client::{Client, ClientEvent, ClientOptions, TokenStore, TokensInMemory, is_hub};
pub use hub::{
    DEFAULT_PORT, Hub, HubCertificate, HubError, HubIdentity, HubOptions, ListenAt, OpensFor,
    ProbeResult, Signature, Subnet, SubnetError, TlsError, probe_hub, probe_hub_of,
};
pub use rooms::{
    ConnectionId, DisconnectReason, OwnerKeys, Rooms, RoomsInput, RoomsOutput, RoomsTimer,
    SessionAbout, SourceAddress,
};
