//! The hub's rooms (pure), and a socket for each end. `PROTOCOL.md` is the language.

mod client;
mod dial;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod hub;
#[cfg(test)]
mod protocol;
mod rooms;

pub use client::{Client, ClientEvent, ClientOptions};
pub use hub::{DEFAULT_PORT, Found, Hub, HubError, HubOptions, ListenAt, find_hub};
pub use rooms::{Dismissal, LinkId, Rooms, RoomsInput, RoomsOutput};
