//! The statistics of one connection: counters that its tap, its sockets and its task keep, and the
//! report of them in the terms of W3C webrtc-stats.
//!
//! The `get_stats` of webrtc-rs 0.21 is not used. It locks the connection against its driver, and
//! some of its figures are not true: the round trip time of reports is always 0
//! (`peer_connection/handler/interceptor.rs`), retransmissions are not told apart, and what is
//! unknown is 0.

mod paths;
mod round_trip;
mod rtp_streams;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError, Weak},
};

pub(super) use self::{
    paths::{PathCounters, SelectedPath},
    rtp_streams::RtpStreams,
};
use super::{ice_gate::IceGate, opus_preferences::OpusPreferences};
use crate::{
    media::RoundTripTime,
    model::{
        CandidatePairStats, CandidateStats, CandidateType, DtlsTransportState, IceTransportState,
        RtcStats, TransportStats,
    },
};

/// The id of a connection's only transport: everything is bundled (RFC 8843).
const TRANSPORT_ID: &str = "T";

/// Remote candidates whose types are remembered, and candidate pairs that keep their id: more than
/// one ICE generation may have.
const MAX_REMEMBERED: usize = 64;

/// The counters of one connection. The connection's task and driver write, any thread may read.
#[derive(Debug, Default)]
pub(super) struct ConnectionStats {
    streams: Mutex<RtpStreams>,
    round_trip: RoundTripTime,
    path: Mutex<PathState>,
    opus: OpusPreferences,
}

/// What is known about the paths to the remote peer.
#[derive(Debug, Default)]
struct PathState {
    /// The sockets, by their local addresses.
    sockets: Vec<(SocketAddr, Weak<Mutex<IceGate>>)>,
    /// The types of the remote candidates.
    remote_types: VecDeque<(SocketAddr, CandidateType)>,
    /// The local and remote addresses of the pairs that were selected; the position is the number
    /// in their ids.
    pairs: Vec<(SocketAddr, SocketAddr)>,
    ice_state: Option<IceTransportState>,
    /// Whether the connection has been connected.
    was_connected: bool,
}

impl ConnectionStats {
    /// The counters of the streams.
    pub(super) fn streams(&self) -> MutexGuard<'_, RtpStreams> {
        lock(&self.streams)
    }

    /// The round trip time of the path on which media are sent.
    pub(super) const fn round_trip(&self) -> &RoundTripTime {
        &self.round_trip
    }

    /// What the other end wants of the audio that it gets.
    pub(super) const fn opus(&self) -> &OpusPreferences {
        &self.opus
    }

    /// Adds a socket of the connection, which counts what passes it.
    pub(super) fn add_socket(&self, local: SocketAddr, gate: Weak<Mutex<IceGate>>) {
        let mut path = lock(&self.path);
        path.sockets.retain(|(_, gate)| gate.strong_count() > 0);
        path.sockets.push((local, gate));
    }

    /// Records a remote candidate that is passed to webrtc-rs (`candidate:` and its fields).
    pub(super) fn on_remote_candidate(&self, line: &str) {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let [_, _, _, _, ip, port, _, kind, ..] = fields[..] else { return };
        let (Ok(ip), Ok(port)) = (ip.parse(), port.parse()) else { return };
        let kind = match kind {
            "host" => CandidateType::Host,
            "srflx" => CandidateType::Srflx,
            "relay" => CandidateType::Relay,
            _ => return,
        };
        let remembered = &mut lock(&self.path).remote_types;
        if remembered.len() == MAX_REMEMBERED {
            remembered.pop_front();
        }
        remembered.push_back((SocketAddr::new(ip, port), kind));
    }

    /// Records a state of ICE.
    pub(super) fn on_ice_state(&self, state: IceTransportState) {
        lock(&self.path).ice_state = Some(state);
    }

    /// Records that the connection is connected, that is, the DTLS handshake is complete.
    pub(super) fn on_connected(&self) {
        lock(&self.path).was_connected = true;
    }

    /// The local and the remote address over which packets were sent last. Takes short locks.
    pub(super) fn route(&self) -> Option<(SocketAddr, SocketAddr)> {
        let (local, path) = lock(&self.path).selected_path()?;
        Some((local, path.remote))
    }

    /// The report. Takes short locks.
    pub(super) fn report(&self) -> Vec<RtcStats> {
        let mut report = lock(&self.path).report();
        self.streams().report(&mut report);
        report
    }
}

impl PathState {
    fn report(&mut self) -> Vec<RtcStats> {
        let selected = self.selected_path();
        let number = selected.as_ref().map(|(local, path)| self.number((*local, path.remote)));
        let dtls_state = match (self.was_connected, &selected) {
            (true, _) => DtlsTransportState::Connected,
            (false, Some(_)) => DtlsTransportState::Connecting,
            (false, None) => DtlsTransportState::New,
        };
        let mut report = vec![RtcStats::Transport(TransportStats {
            id: TRANSPORT_ID.to_owned(),
            ice_state: self.ice_state,
            dtls_state,
            selected_candidate_pair_id: number.map(|number| format!("P{number}")),
        })];
        if let (Some((local, path)), Some(number)) = (selected, number) {
            report.push(RtcStats::CandidatePair(candidate_pair(number, &path.counters)));
            let local = candidate(format!("L{number}"), local, CandidateType::Host);
            report.push(RtcStats::LocalCandidate(local));
            let kind = self.remote_type(path.remote);
            let remote = candidate(format!("R{number}"), path.remote, kind);
            report.push(RtcStats::RemoteCandidate(remote));
        }
        report
    }

    /// The local address and the path over which packets were sent last.
    fn selected_path(&self) -> Option<(SocketAddr, SelectedPath)> {
        let paths = self.sockets.iter().filter_map(|(local, gate)| {
            let gate = gate.upgrade()?;
            let path = lock(&gate).selected_path()?;
            Some((*local, path))
        });
        paths.max_by_key(|(_, path)| path.used_at)
    }

    /// The number of a pair, for its ids.
    fn number(&mut self, pair: (SocketAddr, SocketAddr)) -> usize {
        if let Some(number) = self.pairs.iter().position(|known| *known == pair) {
            return number;
        }
        if self.pairs.len() == MAX_REMEMBERED {
            self.pairs.clear();
        }
        self.pairs.push(pair);
        self.pairs.len() - 1
    }

    /// The type of a remote candidate. One that was not signalled was found by a check.
    fn remote_type(&self, remote: SocketAddr) -> CandidateType {
        let mut known = self.remote_types.iter().rev();
        known
            .find(|(address, _)| *address == remote)
            .map_or(CandidateType::Prflx, |(_, kind)| *kind)
    }
}

fn candidate_pair(number: usize, counters: &PathCounters) -> CandidatePairStats {
    CandidatePairStats {
        id: format!("P{number}"),
        transport_id: TRANSPORT_ID.to_owned(),
        local_candidate_id: format!("L{number}"),
        remote_candidate_id: format!("R{number}"),
        nominated: true,
        packets_sent: counters.packets_sent,
        packets_received: counters.packets_received,
        bytes_sent: counters.bytes_sent,
        bytes_received: counters.bytes_received,
        requests_sent: counters.requests_sent,
        responses_received: counters.responses_received,
        current_round_trip_time: counters.round_trip.latest().map(|time| time.as_secs_f64()),
        total_round_trip_time: counters.round_trip.total().as_secs_f64(),
        available_outgoing_bitrate: 0,
        bitrate_sent: None,
        bitrate_received: None,
    }
}

/// A candidate. STUN and TURN servers are not used, so every local candidate is an address of this
/// machine.
fn candidate(id: String, address: SocketAddr, candidate_type: CandidateType) -> CandidateStats {
    CandidateStats {
        id,
        transport_id: TRANSPORT_ID.to_owned(),
        address: address.ip(),
        port: address.port(),
        protocol: "udp",
        candidate_type,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_candidate_that_was_not_signalled_is_peer_reflexive() {
        let stats = ConnectionStats::default();
        for line in [
            "candidate:1 1 udp 9 192.0.2.1 50 typ host",
            "candidate:2 1 udp 8 2001:db8::1 60 typ srflx raddr 0.0.0.0 rport 0",
            "candidate:3 1 udp 7 192.0.2.9 70 typ relay raddr 0.0.0.0 rport 0",
        ] {
            stats.on_remote_candidate(line);
        }
        let kind = |address: &str| lock(&stats.path).remote_type(address.parse().unwrap());
        assert_eq!(kind("192.0.2.1:50"), CandidateType::Host);
        assert_eq!(kind("[2001:db8::1]:60"), CandidateType::Srflx);
        assert_eq!(kind("192.0.2.9:70"), CandidateType::Relay);
        assert_eq!(kind("192.0.2.1:51"), CandidateType::Prflx);
    }

    #[test]
    fn the_ids_of_a_pair_stay_and_contain_no_address() {
        let mut path = PathState::default();
        let pair = |port| (([10, 0, 0, 1], 5).into(), ([10, 0, 0, 2], port).into());
        assert_eq!([1, 2, 1].map(|port| path.number(pair(port))), [0, 1, 0]);
    }

    #[test]
    fn a_connection_without_a_path_reports_its_transport_only() {
        let report = ConnectionStats::default().report();
        let [RtcStats::Transport(transport)] = &report[..] else { panic!("{report:?}") };
        assert_eq!((transport.ice_state, transport.dtls_state), (None, DtlsTransportState::New));
    }
}
