//! The options of an engine.

use std::net::IpAddr;

use super::{CoreTrace, Impairment, RtpDump};
use crate::{
    capture::SourceSpec,
    model::{Bitrate, HubUrl, VoiceProcessing},
    playback::SpeakerSpec,
    signalling::{HubCertificate, ListenAt, OpensFor, Subnet},
};

/// The options with which an engine is started.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The hub for sessions that name none.
    pub hub: HubChoice,
    /// The options of an embedded hub, if one is started.
    pub own_hub: OwnHubOptions,
    /// The user's name; if it is empty, the hub gives one.
    pub name: String,
    /// The source of the video to send.
    pub camera: SourceSpec,
    /// The target bitrate of the video encoder; `None` for the usual one of the frame size.
    pub video_bitrate: Option<Bitrate>,
    /// The source of the audio to send.
    pub microphone: SourceSpec,
    /// What is done to the sound of the microphone.
    pub voice_processing: VoiceProcessing,
    /// The output for received audio.
    pub speaker: SpeakerSpec,
    /// Which remote video is decoded.
    pub decode: Decode,
    /// Whether the tone of received audio is measured for the statistics: it keeps a second of each
    /// stream, and takes some milliseconds at each request for statistics.
    pub measures_tones: bool,
    /// Whether owner keys and resume tokens are kept on disk, so that a crash costs no seat.
    pub keeps_secrets: bool,
    /// Simulates a bad network on this process's media sockets, for tests.
    pub impairment: Option<Impairment>,
    /// Where all RTP and RTCP packets are dumped, if anywhere.
    pub rtp_dump: Option<RtpDump>,
    /// Where the inputs, effects and timers of the core are traced, if anywhere.
    pub trace: Option<CoreTrace>,
}

/// The options of a hub that runs inside a program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnHubOptions {
    /// The public URL of the hub, for links, if clients reach it by an address that the hub cannot
    /// know.
    pub public_url: Option<HubUrl>,
    /// Who may open sessions there.
    pub opens_for: OpensFor,
    /// The proxies in front of it. The client address that they report is trusted.
    pub trusted_proxies: Vec<Subnet>,
    /// Its certificate for TLS.
    pub certificate: Option<HubCertificate>,
}

impl Default for OwnHubOptions {
    /// Returns a hub without a public URL, proxies and TLS, where only programs of this user open
    /// sessions.
    fn default() -> Self {
        Self {
            public_url: None,
            opens_for: OpensFor::Mine,
            trusted_proxies: vec![],
            certificate: None,
        }
    }
}

/// Which remote video is decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Decode {
    /// All remote video.
    #[default]
    Always,
    /// Only video with an open tap, see [`Handle::tap_frames`](super::Handle::tap_frames). Video
    /// without a tap costs no decoding. When a tap is opened, decoding starts at the next keyframe,
    /// which is requested at once. The senders are told at which size their video is shown, so that
    /// they send no more, and nothing without a tap.
    WhenSeen,
    /// The same, but all video is received in full size, also without a tap: for measurements.
    WhenTapped,
}

/// Which hub is the default one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HubChoice {
    /// The hub at that URL.
    At(HubUrl),
    /// This user's hub on this machine, on port 7340 or a following port. If there is none, an
    /// embedded hub on the first of these ports that is free.
    Find {
        /// The address on which an embedded hub listens, as in [`ListenAt`].
        listen: Option<IpAddr>,
    },
    /// An embedded hub on that address and port only.
    Embed(ListenAt),
}

impl EngineOptions {
    /// Options without devices: the base of those for tests and measurements.
    pub(crate) fn without_devices() -> Self {
        Self {
            hub: HubChoice::Find { listen: None },
            own_hub: OwnHubOptions::default(),
            name: String::new(),
            camera: SourceSpec::None,
            video_bitrate: None,
            microphone: SourceSpec::None,
            voice_processing: VoiceProcessing::default(),
            speaker: SpeakerSpec::None,
            decode: Decode::Always,
            measures_tones: false,
            keeps_secrets: false,
            impairment: None,
            rtp_dump: None,
            trace: None,
        }
    }
}
