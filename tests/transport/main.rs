//! Real connections over real sockets in one process.

mod chat;
mod frames;
mod links;
mod media;
mod negotiation;
mod pair;
mod strangers;
