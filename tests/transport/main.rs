//! Real connections over real sockets in one process.

mod browser;
mod candidates;
mod chat;
mod early;
mod frames;
mod links;
mod media;
mod negotiation;
mod pair;
mod relayed;
mod strangers;
