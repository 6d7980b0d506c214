//! Real connections over real sockets in one process.

mod browser;
mod candidates;
mod data_channel;
mod early_media;
mod frames;
mod impaired;
mod media;
mod negotiation;
mod pair;
mod relayed;
mod unauthenticated;
