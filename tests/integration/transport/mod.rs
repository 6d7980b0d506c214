//! Real connections over real sockets in one process.

mod audio_level;
mod browser;
mod canary;
mod candidates;
mod data_channel;
mod early_media;
pub(crate) mod frames;
mod impaired;
mod media;
mod negotiation;
pub(crate) mod pair;
mod redundancy;
mod relay;
mod relayed;
mod retransmission;
mod rtp_dump;
pub(crate) mod stats;
mod stereo;
mod unauthenticated;
