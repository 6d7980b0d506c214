//! Fuzz targets for everything that our code and webrtc-rs receive from a remote peer
//! (`tests/fuzz`).

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use rtc::{
    interceptor::{
        AttributedPacket, Interceptor, Packet, RTCPFeedback, RTPHeaderExtension, StreamInfo,
        TaggedPacket,
    },
    rtcp, rtp,
    sansio::Protocol,
    sctp::{
        Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig,
        Payload, ServerConfig, TransportConfig,
    },
    shared::{TransportContext, TransportProtocol, marshal::Unmarshal},
};
use tokio::sync::mpsc;

use super::{
    CheckBudget, Connection, ConnectionConfig, EventSinks, Impairment,
    congestion::{BandwidthControl, TRANSPORT_NUMBER_URI},
    red, rejected_sections,
    retransmission::LossRecovery,
    sctp_filter as filter,
    sdp::{self, Description},
    ssrc_limiter::SsrcLimiter,
    tap::{LocalStream, Tap, TapShared},
};
use crate::{
    media::{RoundTripTime, SenderReports},
    model::{
        Candidate, Direction, Media, OperationId, PeerCommand, PeerEvent, PeerId, PeerMedia,
        PerChannel, PerSource,
    },
    network::KnownPaths,
};

/// What is negotiated about a video: NACKs, RTX, and transport-wide feedback.
fn negotiated_video() -> StreamInfo {
    let feedback = |typ: &str| RTCPFeedback { typ: typ.to_owned(), parameter: String::new() };
    StreamInfo {
        ssrc: 7,
        payload_type: 102,
        ssrc_rtx: Some(8),
        payload_type_rtx: Some(105),
        rtcp_feedback: vec![feedback("nack"), feedback("transport-cc")],
        rtp_header_extensions: vec![RTPHeaderExtension {
            uri: TRANSPORT_NUMBER_URI.to_owned(),
            id: 3,
        }],
        ..StreamInfo::default()
    }
}

/// Passes RTP packets of a video and of its RTX stream to what requests lost packets.
pub fn rtx(data: &[u8]) {
    let mut recovery = LossRecovery::new(RoundTripTime::default());
    recovery.bind_remote_stream(&negotiated_video());
    let mut now = Instant::now();
    for (kind, datagram) in parts(data) {
        now += Duration::from_millis(kind.into());
        let mut bytes = BytesMut::from(datagram);
        if let Ok(packet) = rtp::Packet::unmarshal(&mut bytes) {
            let message = AttributedPacket::new(Packet::Rtp(packet));
            let tagged = TaggedPacket { now, transport: TransportContext::default(), message };
            recovery.handle_read(tagged).expect("it returns no errors");
        }
        recovery.handle_timeout(now).expect("it returns no errors");
        while recovery.poll_read().is_some() {}
        while recovery.poll_write().is_some() {}
        assert!(recovery.poll_timeout().is_none_or(|due| due > now));
    }
}

/// Passes RTP and RTCP packets through the tap of one connection. Among them are transport-wide
/// feedback and REMB.
pub fn rtcp(data: &[u8]) {
    let own = [LocalStream::new(3, Media::Audio), LocalStream::new(7, Media::Video)];
    let shared = TapShared {
        stats: Arc::default(),
        limiter: Arc::new(SsrcLimiter::new()),
        bandwidth: BandwidthControl::new(PeerId(1)),
        batch: Arc::default(),
    };
    let mut tap = Tap::new(&own, SenderReports::default(), shared);
    tap.bind_local_stream(&negotiated_video());
    let mut now = Instant::now();
    for (kind, datagram) in parts(data) {
        let mut bytes = BytesMut::from(datagram);
        let packet = match kind {
            // RTCP that is received or sent.
            0..=4 => rtcp::packet::unmarshal(&mut bytes).ok().map(Packet::Rtcp),
            // RTP that is sent.
            5 | 6 => rtp::Packet::unmarshal(&mut bytes).ok().map(Packet::Rtp),
            _ => {
                now += Duration::from_millis(datagram.len() as u64);
                tap.handle_timeout(now).expect("the tap returns no errors");
                None
            }
        };
        if let Some(packet) = packet {
            let message = AttributedPacket::new(packet);
            let tagged = TaggedPacket { now, transport: TransportContext::default(), message };
            let result = if kind < 4 { tap.handle_read(tagged) } else { tap.handle_write(tagged) };
            result.expect("the tap returns no errors");
        }
        while tap.poll_read().is_some() {}
        while tap.poll_write().is_some() {}
    }
}

/// Splits a payload of redundant audio.
pub fn red(data: &[u8]) {
    let payload = Bytes::copy_from_slice(data);
    if let Some((newest, copies)) = red::split(&payload) {
        let total: usize = copies.iter().map(|copy| copy.payload.len()).sum();
        assert!(total + newest.len() < data.len(), "no byte is used twice");
        assert!(copies.iter().all(|copy| (1..1 << 14).contains(&copy.offset)));
    }
}

/// Parses a session description, and checks that its rewritten forms parse to the same.
pub fn description(data: &[u8]) {
    let sdp = sdp::normalize(&String::from_utf8_lossy(data));
    if let Ok(description) = Description::read(&sdp) {
        let bare = sdp::without_candidates(&sdp);
        assert_eq!(sdp::candidates(&bare).count(), 0);
        let bare = Description::read(&bare).expect("it parses without candidates");
        assert_eq!(bare, description);
        if description.first_accepted().is_some() {
            let taken = rejected_sections::without_rejected(&sdp, &description);
            let taken = Description::read(&taken).expect("it parses without the rejected sections");
            assert_eq!(taken, description.accepted());
        }
        let complete = rejected_sections::with_rejected(&sdp, &description.sections);
        let complete = Description::read(&complete).expect("it has the same sections");
        complete.check_answers(&description).expect("in the same order");
    }
}

/// Splits a fuzzer's bytes into parts. Before each part are two bytes: three bits for its kind and
/// thirteen for its length.
fn parts(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let ([high, low], rest) = data.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high & 0x1f, *low]));
        let (part, rest) = rest.split_at(length.min(rest.len()));
        data = rest;
        Some((high >> 5, part))
    })
}

/// Gives descriptions and candidates to a connection without a reachable peer.
pub fn remote(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let direction = Some(Direction::SendRecv);
        let (event_sink, mut events) = mpsc::channel(1024);
        let (tracks, _tracks) = mpsc::channel(16);
        let config = ConnectionConfig {
            peer: PeerId(1),
            media: PeerMedia {
                sections: PerSource::from_fn(|_| direction),
                channels: PerChannel::ALL,
            },
            stream: "stream".to_owned(),
            mixes: PerSource::from_fn(|source| source.name().to_owned()),
            // Its sockets send and receive nothing.
            rtp_dump: None,
            impairment: Some(Impairment { down: true, ..Impairment::default() }),
            network: None,
            paths: KnownPaths::default(),
            checks: CheckBudget::default(),
        };
        let connection = Connection::open(config, EventSinks { events: event_sink, tracks });
        for (number, (kind, text)) in (1..).zip(parts(data).take(32)) {
            let operation = OperationId(number);
            let text = String::from_utf8_lossy(text).into_owned();
            let command = match kind {
                0 => PeerCommand::MakeOffer { operation, restart_ice: text.is_empty() },
                1 => PeerCommand::Rollback { operation },
                2 | 3 => PeerCommand::AcceptOffer { operation, sdp: text },
                4 | 5 => PeerCommand::AcceptAnswer { operation, sdp: text },
                _ => {
                    let (mid, index) = (Some("0".to_owned()), Some(u16::from(kind & 1)));
                    let candidate = Candidate { line: text, mid, index };
                    connection.command(PeerCommand::AddCandidate(candidate));
                    continue;
                }
            };
            connection.command(command);
            while let Some((_, event)) = events.recv().await {
                match event {
                    PeerEvent::Failed { operation: refused, reason } if refused == operation => {
                        assert_ne!(reason, "webrtc-rs panicked");
                        break;
                    }
                    PeerEvent::LocalDescription { operation: done, .. }
                    | PeerEvent::Applied { operation: done }
                        if done == operation =>
                    {
                        break;
                    }
                    PeerEvent::LocalDescription { .. }
                    | PeerEvent::Applied { .. }
                    | PeerEvent::Failed { .. }
                    | PeerEvent::Negotiated(_)
                    | PeerEvent::Candidate(_)
                    | PeerEvent::State(_)
                    | PeerEvent::AddressLost
                    | PeerEvent::ChannelOpen(_)
                    | PeerEvent::ChannelMessage(_) => {}
                }
            }
        }
    });
}

/// Injects SCTP chunks and packets, as they come out of DTLS, into one endpoint of an established
/// association.
pub fn sctp(data: &[u8]) {
    let mut pair = SctpPair::new();
    for (kind, part) in parts(data).take(64) {
        match kind {
            // Chunks in a valid packet, a raw packet, and a raw packet behind valid ports and tag.
            0..=3 => pair.inject(pair.packet(part)),
            4 => pair.inject(part.to_vec()),
            5 => pair.inject([&pair.packet(&[])[..8], part].concat()),
            _ => pair.advance(Duration::from_millis(part.len() as u64 * 100)),
        }
    }
}

/// The two endpoints of an association. The second one also receives the fuzzer's packets.
struct SctpPair {
    now: Instant,
    endpoints: [SctpEndpoint; 2],
    /// The verification tag of packets to the second endpoint.
    tag: [u8; 4],
}

struct SctpEndpoint {
    endpoint: Endpoint,
    associations: Vec<(AssociationHandle, Association)>,
}

impl SctpPair {
    fn new() -> Self {
        let (now, address) = (Instant::now(), SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)));
        let endpoint = || {
            let server = Arc::new(ServerConfig::new(TransportConfig::default()));
            let config = Arc::new(EndpointConfig::new());
            let (udp, server) = (TransportProtocol::UDP, Some(server));
            let endpoint = Endpoint::new(address, udp, config, server);
            SctpEndpoint { endpoint, associations: vec![] }
        };
        let mut pair = Self { now, endpoints: [endpoint(), endpoint()], tag: [0; 4] };
        let client = ClientConfig::new(TransportConfig::default());
        let association = pair.endpoints[0].endpoint.connect(now, client, address);
        pair.endpoints[0].associations.push(association.expect("it is the first"));
        pair.exchange();
        pair
    }

    /// A packet to the second endpoint with a valid header and checksum.
    fn packet(&self, chunks: &[u8]) -> Vec<u8> {
        let mut packet = [&[0x13, 0x88, 0x13, 0x88][..], &self.tag, &[0; 4], chunks].concat();
        packet.resize(packet.len().next_multiple_of(4), 0);
        let checksum = crc32c(&packet);
        packet[8..12].copy_from_slice(&checksum.to_le_bytes());
        packet
    }

    fn inject(&mut self, packet: Vec<u8>) {
        self.deliver(1, packet);
        self.exchange();
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        for endpoint in &mut self.endpoints {
            endpoint.associations.iter_mut().for_each(|(_, one)| one.handle_timeout(self.now));
        }
        self.exchange();
    }

    fn deliver(&mut self, to: usize, packet: Vec<u8>) {
        if !filter::is_harmless(&packet) {
            return;
        }
        let SctpEndpoint { endpoint, associations } = &mut self.endpoints[to];
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000));
        match endpoint.handle(self.now, address, None, Bytes::from(packet)) {
            Some((handle, DatagramEvent::NewAssociation(new))) => associations.push((handle, new)),
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, one)) = associations.iter_mut().find(|known| known.0 == handle) {
                    one.handle_event(event);
                }
            }
            _ => {}
        }
    }

    /// Exchanges packets until both endpoints have nothing to send, for at most 32 rounds: more
    /// than honest endpoints need.
    fn exchange(&mut self) {
        for _ in 0..32 {
            let mut packets = VecDeque::new();
            for from in 0..2 {
                let polled = self.endpoints[from].poll_packets(self.now);
                packets.extend(polled.into_iter().map(|packet| (1 - from, packet)));
            }
            if packets.is_empty() {
                return;
            }
            for (to, packet) in packets {
                if to == 1 && packet.len() > 8 && packet[4..8] != [0; 4] {
                    self.tag.copy_from_slice(&packet[4..8]);
                }
                self.deliver(to, packet);
            }
        }
    }
}

impl SctpEndpoint {
    /// Reads all received messages. Returns the packets that it sends now.
    fn poll_packets(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut sent = vec![];
        for (handle, association) in &mut self.associations {
            for id in association.stream_ids() {
                if let Ok(mut stream) = association.stream(id) {
                    while let Ok(Some(chunks)) = stream.read_sctp() {
                        let mut buffer = vec![0; 1 << 16];
                        let _ = chunks.read(&mut buffer);
                    }
                }
            }
            while association.poll().is_some() {}
            while let Some(event) = association.poll_endpoint_event() {
                self.endpoint.handle_event(*handle, event);
            }
            while let Some(message) = association.poll_transmit(now) {
                if let Payload::RawEncode(packets) = message.message {
                    sent.extend(packets.iter().map(|packet| packet.to_vec()));
                }
            }
        }
        self.associations.retain(|(_, association)| !association.is_drained());
        sent
    }
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
