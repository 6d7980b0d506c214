//! Retransmission of lost packets: which of them are requested, how often and until when, and how
//! requests are answered.
//!
//! The interceptors of `rtc-interceptor` 0.21.1 for it are not used. Its NACK generator asks each
//! 100 ms, whatever the round trip time is, and takes a packet that was overtaken for lost. It does
//! not see what arrives on an RTX stream either, because webrtc-rs takes the packets out of it
//! after all interceptors (`peer_connection/handler/endpoint.rs`), so it would ask for ever. Its
//! NACK responder answers every NACK at once, however often it asks for the same packet. No issue
//! is known; pion/webrtc#3063 describes the first fault. Canaries: yes.

mod missing_packets;
mod recovery;
mod retransmitter;
mod rtx;
mod transmissions;

pub(super) use self::{
    recovery::{LossRecovery, RECOVERY_SLOT},
    retransmitter::Retransmitter,
    rtx::RTX_MIME_TYPE,
};
