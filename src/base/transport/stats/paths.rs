//! What passes between two addresses.

use std::net::SocketAddr;

use tokio::time::Instant;

use super::round_trip::RoundTrip;

/// Counters of one path: a local and a remote address. Packets are datagrams that are not STUN.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::transport) struct PathCounters {
    pub(in crate::transport) packets_sent: u64,
    pub(in crate::transport) packets_received: u64,
    /// UDP payload.
    pub(in crate::transport) bytes_sent: u64,
    /// UDP payload.
    pub(in crate::transport) bytes_received: u64,
    /// Checks that were sent: all since the path first worked, and those that were not answered
    /// yet then.
    pub(in crate::transport) requests_sent: u64,
    /// Responses to them.
    pub(in crate::transport) responses_received: u64,
    /// From a check to its response.
    pub(in crate::transport) round_trip: RoundTrip,
}

/// The path of a socket on which media are sent.
#[derive(Clone, Copy, Debug)]
pub(in crate::transport) struct SelectedPath {
    /// The remote address.
    pub(in crate::transport) remote: SocketAddr,
    /// When a packet was last sent.
    pub(in crate::transport) used_at: Instant,
    /// Its counters.
    pub(in crate::transport) counters: PathCounters,
}
