//! Faults of webrtc-rs 0.21 for which `src/base/transport` has a work-around.
//!
//! Each test drives the library without our code, and asserts the fault. If one fails after an
//! update, the fault is mended, and the work-around that the test names can be removed.

use std::{
    io::Cursor,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use rtc::{
    crypto::default_provider,
    dtls::{
        config::{ClientAuthType, ConfigBuilder, HandshakeConfig},
        crypto::Certificate,
        endpoint::Endpoint as DtlsEndpoint,
    },
    interceptor::{
        AttributedPacket, Interceptor, NackResponderBuilder, Packet, Registry, SenderReportBuilder,
        Slot, StreamInfo, TaggedPacket,
    },
    peer_connection::{
        RTCPeerConnectionBuilder,
        configuration::media_engine::{MIME_TYPE_OPUS, MediaEngine},
        sdp::RTCSessionDescription,
    },
    rtcp::{
        sender_report::SenderReport,
        transport_feedbacks::transport_layer_nack::{
            TransportLayerNack, nack_pairs_from_sequence_numbers,
        },
    },
    rtp,
    rtp_transceiver::rtp_sender::{RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind},
    sansio::Protocol as _,
    sctp::{
        Association, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Payload, ServerConfig,
        TransportConfig,
    },
    sdp::SessionDescription,
    shared::{TransportContext, TransportProtocol, replay_detector::NoOpReplayDetector},
    srtp::{context::Context, option::ContextOption, protection_profile::ProtectionProfile},
};

mod connection;

const CLIENT: ([u8; 4], u16) = ([127, 0, 0, 1], 5001);
const SERVER: ([u8; 4], u16) = ([127, 0, 0, 1], 5002);

fn dtls_config(is_client: bool) -> Arc<HandshakeConfig> {
    let provider = default_provider().expect("a provider");
    let names = ["canary".to_owned()];
    let certificate = Certificate::generate_self_signed(names, provider.crypto());
    let certificate = certificate.expect("a certificate");
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![certificate])
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_insecure_skip_verify(true);
    Arc::new(config.build(is_client, None).expect("a valid configuration"))
}

/// `transport/dtls_handshake.rs`
#[test]
fn dtls_forgets_its_retransmission_timer_when_the_previous_flight_arrives_again() {
    let now = Instant::now();
    let [client_address, server_address] = [CLIENT, SERVER].map(SocketAddr::from);
    let udp = TransportProtocol::UDP;
    let mut client = DtlsEndpoint::new(client_address, udp, None);
    let mut server = DtlsEndpoint::new(server_address, udp, Some(dtls_config(false)));
    client.connect(now, server_address, dtls_config(true), None).unwrap();
    let flight = |from: &mut DtlsEndpoint| -> Vec<BytesMut> {
        std::iter::from_fn(|| from.poll_transmit()).map(|sent| sent.message).collect()
    };
    let deliver = |to: &mut DtlsEndpoint, from: SocketAddr, flight: &[BytesMut]| {
        for datagram in flight {
            to.read(now, from, None, datagram.clone()).unwrap();
        }
    };
    // ClientHello, HelloVerifyRequest, ClientHello with the cookie.
    deliver(&mut server, client_address, &flight(&mut client));
    deliver(&mut client, server_address, &flight(&mut server));
    let hello = flight(&mut client);
    deliver(&mut server, client_address, &hello);
    assert!(!flight(&mut server).is_empty(), "the server answers");
    assert!(server.poll_timeout(&client_address).is_some(), "and would answer again");

    // The answer is lost, so the client repeats itself.
    let due = client.poll_timeout(&server_address).expect("it waits for the answer");
    client.handle_timeout(server_address, due).unwrap();
    let repeated = flight(&mut client);
    assert!(!repeated.is_empty());
    deliver(&mut server, client_address, &repeated);
    assert!(flight(&mut server).is_empty());
    assert_eq!(server.poll_timeout(&client_address), None);
}

/// An SCTP packet with a valid checksum (RFC 9260, section 3.1).
fn sctp_packet(tag: [u8; 4], chunk: &[u8]) -> Bytes {
    let mut packet = [&[0x13, 0x88, 0x13, 0x88][..], &tag, &[0; 4], chunk].concat();
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    let crc = packet.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step));
    packet[8..12].copy_from_slice(&(!crc).to_le_bytes());
    packet.into()
}

/// A number in an SCTP packet.
fn number(packet: &[u8], at: usize) -> u32 {
    let bytes = packet[at..at + 4].try_into();
    u32::from_be_bytes(bytes.expect("four bytes"))
}

/// An SCTP association, as the other end of it.
struct SctpServer {
    now: Instant,
    endpoint: Endpoint,
    association: Association,
    /// The verification tag of packets to it.
    tag: [u8; 4],
    /// The first TSN of what is sent to it.
    first_tsn: u32,
}

impl SctpServer {
    /// Opens an association with a client, which is not used after that.
    fn connected() -> Self {
        let now = Instant::now();
        let [client_address, server_address] = [CLIENT, SERVER].map(SocketAddr::from);
        let endpoint = |address, server| {
            Endpoint::new(address, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), server)
        };
        let accepting = Arc::new(ServerConfig::new(TransportConfig::default()));
        let mut client = endpoint(client_address, None);
        let mut endpoint = endpoint(server_address, Some(accepting));
        let config = ClientConfig::new(TransportConfig::default());
        let connecting = client.connect(now, config, server_address);
        let (_, mut connecting) = connecting.expect("it is the first");
        let init = sent(&mut connecting, now).remove(0);
        let accepted = endpoint.handle(now, client_address, None, init.clone());
        let Some((_, DatagramEvent::NewAssociation(mut association))) = accepted else {
            panic!("the server refuses");
        };
        let init_ack = sent(&mut association, now).remove(0);
        let tag = number(&init_ack, 16).to_be_bytes();
        let first_tsn = number(&init, 28);
        let mut server = Self { now, endpoint, association, tag, first_tsn };
        let answer = client.handle(now, server_address, None, init_ack);
        if let Some((_, DatagramEvent::AssociationEvent(event))) = answer {
            connecting.handle_event(event);
        }
        for packet in sent(&mut connecting, now) {
            server.receive_packet(packet);
        }
        server
    }

    /// Receives a chunk. Returns what it answers.
    fn receive(&mut self, chunk: &[u8]) -> Vec<Bytes> {
        self.receive_packet(sctp_packet(self.tag, chunk))
    }

    fn receive_packet(&mut self, packet: Bytes) -> Vec<Bytes> {
        let event = self.endpoint.handle(self.now, CLIENT.into(), None, packet);
        let Some((_, DatagramEvent::AssociationEvent(event))) = event else { panic!("unknown") };
        self.association.handle_event(event);
        sent(&mut self.association, self.now)
    }
}

/// The packets that an association sends now.
fn sent(association: &mut Association, now: Instant) -> Vec<Bytes> {
    let messages = std::iter::from_fn(|| association.poll_transmit(now));
    let packets = messages.filter_map(|sent| {
        if let Payload::RawEncode(packets) = sent.message { Some(packets) } else { None }
    });
    packets.flatten().collect()
}

/// `transport/sctp_filter.rs`
#[test]
fn sctp_panics_at_an_error_cause_that_claims_to_be_longer_than_its_chunk() {
    let mut server = SctpServer::connected();
    // ERROR chunks with a cause of 8 bytes, and with one that claims to have 64.
    server.receive(&[9, 0, 0, 12, 0, 6, 0, 8, 1, 2, 3, 4]);
    let harmful = [9, 0, 0, 12, 0, 6, 0, 64, 1, 2, 3, 4];
    assert!(catch_unwind(AssertUnwindSafe(|| server.receive(&harmful))).is_err());
}

/// `transport/sctp_filter.rs`
#[test]
fn sctp_counts_to_the_tsn_of_a_forward_tsn_chunk_one_by_one() {
    let mut server = SctpServer::connected();
    let steps = 1 << 24;
    let tsn = server.first_tsn.wrapping_add(steps).to_be_bytes();
    let start = Instant::now();
    server.receive(&[&[192, 0, 0, 8][..], &tsn].concat());
    // No processor takes sixteen million steps in that time.
    assert!(start.elapsed() > Duration::from_millis(1));
}

/// `transport/inbound_data_limit.rs`
#[test]
fn sctp_keeps_a_message_without_end_beyond_its_receive_buffer() {
    let mut server = SctpServer::connected();
    let mut acknowledged = 0;
    for n in 0..128_u32 {
        // Fragments of one message: the first has the flag B, and none has the flag E.
        let header = [0, if n == 0 { 2 } else { 0 }, 0x80, 16];
        let tsn = server.first_tsn.wrapping_add(n).to_be_bytes();
        let chunk = [&header[..], &tsn, &[0, 0, 0, 0, 0, 0, 0, 53], &[1; 0x8000]].concat();
        for answer in server.receive(&chunk) {
            // A SACK.
            if answer[12] == 3 {
                acknowledged = number(&answer, 16).wrapping_sub(server.first_tsn);
            }
        }
    }
    assert!(acknowledged > 100, "over 3 MiB, and the buffer has 1 MiB: {acknowledged}");
}

/// `transport/ssrc_limiter.rs`
#[test]
fn srtp_keeps_state_for_every_ssrc_of_forged_packets() {
    let created = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&created);
    let replay_protection: ContextOption = Box::new(move || {
        count.fetch_add(1, Ordering::Relaxed);
        Box::<NoOpReplayDetector>::default()
    });
    let (provider, profile) = (default_provider().unwrap(), ProtectionProfile::AeadAes128Gcm);
    let (key, salt) = (vec![1; profile.key_len()], vec![2; profile.salt_len()]);
    let crypto = provider.crypto();
    let context = Context::new(&key, &salt, profile, Some(replay_protection), None, crypto);
    let mut context = context.unwrap();
    for _ in 0..2 {
        for ssrc in 0..1000_u32 {
            let forged =
                [&[0x80, 111, 0, 1, 0, 0, 0, 0][..], &ssrc.to_be_bytes(), &[0; 40]].concat();
            assert!(context.decrypt_rtp(&forged).is_err());
        }
        // The second time, the state of the first time is still there.
        assert_eq!(created.load(Ordering::Relaxed), 1000);
    }
}

/// Applies an offer to a peer connection that supports only Opus, and returns its answer.
fn answer(offer: &str) -> Result<String, String> {
    let mut engine = MediaEngine::default();
    let opus = RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: vec![],
    };
    let opus = RTCRtpCodecParameters { payload_type: 111, rtp_codec: opus };
    engine.register_codec(opus, RtpCodecKind::Audio).expect("a valid codec");
    let builder = RTCPeerConnectionBuilder::new().with_media_engine(engine);
    let mut connection = builder.build(Instant::now()).expect("a connection");
    let offer = RTCSessionDescription::offer(offer.to_owned()).expect("a description");
    connection.set_remote_description(Instant::now(), offer).map_err(|error| error.to_string())?;
    let answer = connection.create_answer(None).map_err(|error| error.to_string())?;
    Ok(answer.sdp)
}

/// `transport/rejected_sections.rs`
#[test]
fn the_credentials_of_a_rejected_section_have_to_be_those_of_the_others() {
    let offer = include_str!("chromium-offer-vp8-only.sdp").replace("m=video 9", "m=video 0");
    assert!(answer(&offer).is_ok());
    let (audio, video) = offer.split_once("m=video").expect("a section");
    let video = video.replacen("a=ice-ufrag:", "a=ice-ufrag:other", 1);
    let refused = answer(&format!("{audio}m=video{video}"));
    assert!(refused.is_err_and(|error| error.contains("conflicting ice-ufrag")));
}

/// `transport/sdp.rs`, `normalize`
#[test]
fn white_space_before_the_name_of_an_attribute_is_ignored() {
    let sdp = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n\
               a= mid:0\r\n";
    let parsed = SessionDescription::unmarshal(&mut Cursor::new(sdp)).unwrap();
    assert_eq!(parsed.media_descriptions[0].attributes[0].key, "mid");
}

fn tagged(now: Instant, packet: Packet) -> TaggedPacket {
    let message = AttributedPacket::new(packet);
    TaggedPacket { now, transport: TransportContext::default(), message }
}

fn rtp_packet(timestamp: u32) -> Packet {
    let header = rtp::Header { version: 2, ssrc: 7, timestamp, ..rtp::Header::default() };
    Packet::Rtp(rtp::Packet { header, payload: Bytes::from_static(b"frame") })
}

fn stream() -> StreamInfo {
    let nack = rtc::interceptor::RTCPFeedback { typ: "nack".to_owned(), parameter: String::new() };
    StreamInfo { ssrc: 7, clock_rate: 90_000, rtcp_feedback: vec![nack], ..StreamInfo::default() }
}

/// `transport/retransmission`
#[test]
fn a_packet_is_retransmitted_as_often_as_a_viewer_likes() {
    let now = Instant::now();
    let responder = NackResponderBuilder::new().build();
    let mut chain = Registry::new().with(Slot::NackResponder, responder).build();
    chain.bind_local_stream(&stream());
    chain.handle_write(tagged(now, rtp_packet(1))).unwrap();
    assert_eq!(std::iter::from_fn(|| chain.poll_write()).count(), 1);
    for _ in 0..1000 {
        let nacks = nack_pairs_from_sequence_numbers(&[0]);
        let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: 7, nacks };
        chain.handle_read(tagged(now, Packet::Rtcp(vec![Box::new(nack)]))).unwrap();
    }
    assert_eq!(std::iter::from_fn(|| chain.poll_write()).count(), 1000);
}

/// `transport/tap/sender_reports.rs`
#[test]
fn a_sender_report_takes_the_time_at_which_a_frame_is_sent_for_that_of_its_capture() {
    let start = Instant::now();
    let reports = SenderReportBuilder::new().build();
    let mut chain = Registry::new().with(Slot::SenderReport, reports).build();
    chain.bind_local_stream(&stream());
    // A frame that was captured 80 ms before it is sent: RTP time 0 is the start.
    let sent_at = start + Duration::from_millis(80);
    chain.handle_write(tagged(sent_at, rtp_packet(0))).unwrap();
    let mut rtp_time = None;
    for ms in (100..3000).step_by(100) {
        chain.handle_timeout(start + Duration::from_millis(ms)).unwrap();
        while let Some(packet) = chain.poll_write() {
            if let Packet::Rtcp(packets) = packet.message.packet
                && let Some(report) = packets[0].as_any().downcast_ref::<SenderReport>()
            {
                rtp_time.get_or_insert((ms, report.rtp_time));
            }
        }
    }
    let (ms, rtp_time) = rtp_time.expect("a report");
    assert_eq!(rtp_time, (ms as u32 - 80) * 90, "not {}", ms * 90);
}
