//! What an engine is started with.

use std::net::IpAddr;

use super::Impairment;
use crate::{
    capture::SourceSpec,
    model::{Bitrate, HubUrl},
    playback::SpeakerSpec,
    signalling::ListenAt,
};

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Which hub to use for sessions that name none.
    pub hub: HubChoice,
    /// The address that links carry and that people use, if a hub of our own is started and is
    /// reached by another address than it can know.
    pub public_url: Option<HubUrl>,
    /// How the person wants to be called; empty leaves it to the hub.
    pub name: String,
    /// What is sent as picture.
    pub camera: SourceSpec,
    /// The rate at which pictures are encoded; `None` for the usual one of their size.
    pub rate: Option<Bitrate>,
    /// What is sent as sound.
    pub microphone: SourceSpec,
    /// Where received sound is played.
    pub speaker: SpeakerSpec,
    /// Which remote pictures are decoded.
    pub decode: Decode,
    /// Whether owner keys and resume tokens are kept on disk, so that a crash costs no seat.
    pub keeps_secrets: bool,
    /// Makes this process's own media sockets worse, for tests.
    pub impairment: Option<Impairment>,
}

/// Which remote pictures are decoded; packets are received and counted either way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Decode {
    /// All of them.
    #[default]
    Always,
    /// Those that somebody holds a tap on, see [`Handle::picture`](super::Handle::picture). A
    /// picture that nobody looks at costs no decoding; it comes with the next keyframe, which is
    /// asked for at once.
    WhenSeen,
}

/// Which hub is the default one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HubChoice {
    /// That one.
    At(HubUrl),
    /// The one that answers on 127.0.0.1:7340, else an own one on port 7340 of that address, or
    /// the next free port.
    Find {
        /// Where an own one listens, as in [`ListenAt`].
        listen: Option<IpAddr>,
    },
    /// An own one, there and nowhere else.
    Embed(ListenAt),
}
