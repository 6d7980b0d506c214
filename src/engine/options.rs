//! What an engine is started with.

use std::net::IpAddr;

use super::Impairment;
use crate::{
    capture::SourceSpec,
    model::{Bitrate, HubUrl},
    playback::SpeakerSpec,
    signalling::{ListenAt, OpensFor, Subnet},
};

/// What an engine is started with.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Which hub to use for sessions that name none.
    pub hub: HubChoice,
    /// How a hub of our own is, if one is started.
    pub own_hub: OwnHubOptions,
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

/// How a hub is that a program brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnHubOptions {
    /// The address that links carry and that people use, if the hub is reached by another address
    /// than it can know.
    pub public_url: Option<HubUrl>,
    /// Who may open sessions there.
    pub opens_for: OpensFor,
    /// The proxies in front of it, which tell the address of whoever connects through them.
    pub trusted_proxies: Vec<Subnet>,
}

impl Default for OwnHubOptions {
    /// A hub without a name and without proxies, where only programs of this user open sessions.
    fn default() -> Self {
        Self { public_url: None, opens_for: OpensFor::Mine, trusted_proxies: vec![] }
    }
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
