//! What media look and sound like at the other end of a bad network, as scripts in virtual time.
//!
//! One end sends, the other end receives and plays. Everything between encoder and screen is the
//! program's own: connections with ICE, DTLS and SRTP, retransmissions, jitter buffers, decoders,
//! playout. Only the network is in memory, and the clock stands still while anything works. So a
//! call of ten seconds takes about half a second, and with the same seed it is the same call.
//!
//! A script is a list of steps (`script::Step`). CONTRIBUTING.md says how to write one.

mod audio;
mod bandwidth;
mod call;
mod camera;
mod delay;
mod ladder;
mod loss;
mod mute;
mod script;
mod sender;
mod sync;
