//! One WebRTC connection per peer. This is the only module that names the `webrtc` crates.
//!
//! A [`Connection`] is a task that owns the peer connection of webrtc-rs, with small tasks beside
//! it: one for each medium that is sent (it pulls a `Subscription` and writes RTP headers), one for
//! each remote track (it drains webrtc-rs into a bounded queue at once), and two for the data
//! channel. Commands come in as `PeerCommand`, events go out as `PeerEvent`, both in order.
//!
//! Several modules work around a fault of webrtc-rs 0.21. Each describes the fault and its place
//! under "The fault", and names the upstream issue if one is known. `tests/integration/transport/
//! canary.rs` fails once a fault is mended, for those that a short test can show.
//!
//! webrtc-rs logs each dropped packet with its bytes, and it logs addresses: [`NOISY_LOGS`] names
//! the log targets that a program switches off.

mod addresses;
mod audio_level;
mod batch_size;
mod candidates;
mod check_budget;
mod congestion;
mod connection;
mod crypto;
mod data_channel;
mod dtls_handshake;
mod early_media;
mod ending;
mod frame_parts;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod h264_packetizer;
mod ice_gate;
mod impaired_socket;
mod impairment;
mod inbound_data_limit;
mod library_events;
mod local_address;
mod negotiation;
mod opus_preferences;
mod pcap;
mod rate_control;
mod red;
mod redundancy;
mod rejected_sections;
mod retransmission;
mod rtp_dump;
mod runtime;
mod rx_limiter;
mod sctp_filter;
mod sdp;
mod setup;
mod ssrc_limiter;
mod stats;
mod tap;
mod task;
mod track_receiver;
mod track_sender;
mod virtual_network;
mod virtual_uplink;

pub use check_budget::{CheckBudget, CheckBudgets};
pub use connection::{Connection, ConnectionConfig, EventSinks, SourceMedia};
pub use h264_packetizer::packetize_h264;
pub use impairment::{Impairment, ImpairmentError};
pub use rate_control::{ProbeTurns, RateControl};
pub use rtp_dump::RtpDump;
pub use virtual_network::{VirtualNetwork, VirtualSocket};
pub use virtual_uplink::VirtualUplink;

/// Directives for a program's log filter that silence webrtc-rs (`target=level`, as `tracing`'s
/// `EnvFilter` reads them; a target also stands for all targets that begin with it). webrtc-rs logs
/// errors per packet, warnings per connectivity check, and addresses. Everything that matters
/// arrives as an event.
pub const NOISY_LOGS: [&str; 2] = ["webrtc=off", "rtc=off"];

/// Tokio's clock, which tests can stop.
impl crate::model::TimePoint for tokio::time::Instant {
    fn since(self, earlier: Self) -> std::time::Duration {
        self.saturating_duration_since(earlier)
    }
}
