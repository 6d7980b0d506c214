//! Faults of whole peer connections of the library, whose packets the test carries, in its own time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rtc::{
    media_stream::MediaStreamTrack,
    peer_connection::{
        RTCPeerConnection, RTCPeerConnectionBuilder,
        configuration::media_engine::{MIME_TYPE_OPUS, MediaEngine},
        event::RTCPeerConnectionEvent,
        message::RTCMessage,
        state::{RTCIceConnectionState, RTCPeerConnectionState},
        transport::{CandidateConfig, CandidateHostConfig, RTCIceCandidate},
    },
    rtp,
    rtp_transceiver::{
        RTCRtpSenderId,
        rtp_sender::{RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind},
    },
    sansio::Protocol as _,
    shared::{TaggedBytesMut, TransportContext},
};

use super::{super::unauthenticated::forged, answer};

/// The addresses of the two ends.
const ADDRESSES: [([u8; 4], u16); 2] = [([10, 0, 0, 1], 5001), ([10, 0, 0, 2], 5002)];

/// How far the time goes in one step.
const STEP: Duration = Duration::from_millis(20);

/// The SSRC of the offerer's audio.
const SSRC: u32 = 7;

/// An audio track.
fn audio_track() -> MediaStreamTrack {
    let codec = RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: 48_000,
        channels: 2,
        sdp_fmtp_line: String::new(),
        rtcp_feedback: vec![],
    };
    let coding = RTCRtpCodingParameters { ssrc: Some(SSRC), ..RTCRtpCodingParameters::default() };
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: coding,
        codec,
        ..RTCRtpEncodingParameters::default()
    };
    let name = || "canary".to_owned();
    MediaStreamTrack::new(name(), name(), name(), RtpCodecKind::Audio, vec![encoding])
}

/// Two connections that negotiate a data channel, and audio of the offerer.
struct Pair {
    now: Instant,
    /// The offerer and the answerer.
    ends: [RTCPeerConnection; 2],
    /// Sends audio of the offerer.
    sender: RTCRtpSenderId,
    ice: [RTCIceConnectionState; 2],
    state: [RTCPeerConnectionState; 2],
}

impl Pair {
    fn new() -> Self {
        let now = Instant::now();
        let mut ends = ADDRESSES.map(|address| {
            let mut engine = MediaEngine::default();
            engine.register_default_codecs().expect("codecs");
            let builder = RTCPeerConnectionBuilder::new().with_media_engine(engine);
            let mut end = builder.build(now).expect("a connection");
            let address = SocketAddr::from(address);
            let base_config = CandidateConfig {
                network: "udp".to_owned(),
                address: address.ip().to_string(),
                port: address.port(),
                component: 1,
                ..CandidateConfig::default()
            };
            let config = CandidateHostConfig { base_config, ..CandidateHostConfig::default() };
            let candidate = config.new_candidate_host().expect("a candidate");
            let candidate = RTCIceCandidate::from(&candidate).to_json().expect("its text");
            end.add_local_candidate(candidate).expect("the first");
            end
        });
        let [offerer, answerer] = &mut ends;
        offerer.create_data_channel("canary", None).expect("a channel");
        let sender = offerer.add_track(audio_track()).expect("a track");
        let offer = offerer.create_offer(None).expect("an offer");
        offerer.set_local_description(now, offer.clone()).expect("its own offer");
        answerer.set_remote_description(now, offer).expect("a valid offer");
        let answer = answerer.create_answer(None).expect("an answer");
        answerer.set_local_description(now, answer.clone()).expect("its own answer");
        offerer.set_remote_description(now, answer).expect("a valid answer");
        let (ice, state) = (RTCIceConnectionState::New, RTCPeerConnectionState::New);
        Self { now, ends, sender, ice: [ice; 2], state: [state; 2] }
    }

    /// Lets time pass, and carries the datagrams of each end that `passes` lets through.
    fn step(&mut self, mut passes: impl FnMut(usize, &[u8]) -> bool) {
        self.now += STEP;
        for from in [0, 1] {
            // A connection that has failed goes on saying so.
            let _ = self.ends[from].handle_timeout(self.now);
            while let Some(sent) = self.ends[from].poll_write() {
                if passes(from, &sent.message) {
                    self.deliver(1 - from, ADDRESSES[from].into(), &sent.message);
                }
            }
        }
        for end in [0, 1] {
            while let Some(event) = self.ends[end].poll_event() {
                if let RTCPeerConnectionEvent::OnIceConnectionStateChangeEvent(state) = event {
                    self.ice[end] = state;
                } else if let RTCPeerConnectionEvent::OnConnectionStateChangeEvent(state) = event {
                    self.state[end] = state;
                }
            }
        }
    }

    /// Gives a datagram to one end.
    fn deliver(&mut self, to: usize, from: SocketAddr, datagram: &[u8]) {
        let transport = TransportContext {
            local_addr: ADDRESSES[to].into(),
            peer_addr: from,
            ..TransportContext::default()
        };
        let message = TaggedBytesMut { now: self.now, transport, message: datagram.into() };
        self.ends[to].handle_read(message).expect("errors stay in the library");
    }

    /// Makes the offerer send an audio packet. Returns the datagrams that it sends.
    fn send_audio(&mut self, sequence_number: u16) -> Vec<Vec<u8>> {
        let header = rtp::Header {
            version: 2,
            payload_type: 111,
            ssrc: SSRC,
            sequence_number,
            ..rtp::Header::default()
        };
        let packet = rtp::Packet { header, payload: Bytes::from_static(b"audio") };
        let mut sender = self.ends[0].rtp_sender(self.sender).expect("it sends");
        sender.write_rtp(self.now, packet).expect("it is connected");
        let sent = std::iter::from_fn(|| self.ends[0].poll_write());
        sent.map(|sent| sent.message.to_vec()).collect()
    }

    /// The sequence numbers of the audio packets that the answerer has received.
    fn received_audio(&mut self) -> Vec<u16> {
        let received = std::iter::from_fn(|| self.ends[1].poll_read());
        let numbers = received.filter_map(|received| {
            let RTCMessage::RtpPacket(_, packet) = received.message else { return None };
            Some(packet.header.sequence_number)
        });
        numbers.collect()
    }

    /// Steps until `is_reached`, at most ten seconds.
    fn run_until(
        &mut self,
        what: &str,
        mut passes: impl FnMut(usize, &[u8]) -> bool,
        is_reached: impl Fn(&Self) -> bool,
    ) {
        let end = self.now + Duration::from_secs(10);
        while !is_reached(self) {
            assert!(self.now < end, "{what}: ICE {:?}, {:?}", self.ice, self.state);
            self.step(&mut passes);
        }
    }
}

/// Whether a datagram is STUN (RFC 7983).
fn is_stun(datagram: &[u8]) -> bool {
    datagram[0] < 4
}

/// Whether a datagram is a Binding request (RFC 8489, section 5).
fn is_stun_request(datagram: &[u8]) -> bool {
    datagram[..2] == [0, 1]
}

/// A pair with a path, and no DTLS yet.
fn pair_with_path() -> Pair {
    let mut pair = Pair::new();
    let is_connected = |state: &RTCIceConnectionState| {
        matches!(state, RTCIceConnectionState::Connected | RTCIceConnectionState::Completed)
    };
    pair.run_until(
        "a path",
        |_, datagram| is_stun(datagram),
        |pair| pair.ice.iter().all(is_connected),
    );
    pair
}

/// A pair whose DTLS handshake is complete, too.
fn connected_pair() -> Pair {
    let mut pair = pair_with_path();
    let is_connected = |state: &RTCPeerConnectionState| *state == RTCPeerConnectionState::Connected;
    pair.run_until("a connection", |_, _| true, |pair| pair.state.iter().all(is_connected));
    pair
}

/// `transport/early_media.rs`
#[test]
fn media_that_overtake_the_last_flight_of_the_handshake_are_dropped() {
    let mut pair = pair_with_path();
    // The offerer is the DTLS server: its last flight begins with ChangeCipherSpec.
    let mut last_flight = vec![];
    let hold = |from: usize, datagram: &[u8]| {
        let is_held = from == 0 && (datagram[0] == 20 || !last_flight.is_empty());
        if is_held {
            last_flight.push(datagram.to_vec());
        }
        !is_held
    };
    pair.run_until("the server's end", hold, |pair| {
        pair.state[0] == RTCPeerConnectionState::Connected
    });
    for datagram in pair.send_audio(1) {
        pair.deliver(1, ADDRESSES[0].into(), &datagram);
    }
    for datagram in last_flight {
        pair.deliver(1, ADDRESSES[0].into(), &datagram);
    }
    pair.run_until(
        "the client's end",
        |_, _| true,
        |pair| pair.state[1] == RTCPeerConnectionState::Connected,
    );
    for datagram in pair.send_audio(2) {
        pair.deliver(1, ADDRESSES[0].into(), &datagram);
    }
    assert_eq!(pair.received_audio(), [2]);
}

/// `transport/ice_gate.rs`
#[test]
fn a_forged_record_from_any_source_ends_the_handshake() {
    let stranger = SocketAddr::from(([203, 0, 113, 9], 4444));
    let mut pair = pair_with_path();
    for record in forged() {
        pair.deliver(0, stranger, &record);
    }
    for _ in 0..500 {
        pair.step(|_, _| true);
    }
    assert!(!pair.state.contains(&RTCPeerConnectionState::Connected), "{:?}", pair.state);
}

/// `transport/ice_gate.rs`
#[test]
fn requests_of_the_other_end_count_as_its_consent() {
    let mut pair = connected_pair();
    // The first end gets no response to its checks, only the checks of the other end: by RFC 7675
    // it has no consent after 30 s.
    for _ in 0..(60_000 / STEP.as_millis()) {
        pair.step(|from, datagram| from == 0 || is_stun_request(datagram));
    }
    assert_eq!(pair.state[0], RTCPeerConnectionState::Connected);
}

/// `transport/crypto.rs`
#[test]
fn a_description_with_several_fingerprints_of_a_certificate_is_refused() {
    let offer = include_str!("../chromium-offer-vp8-only.sdp");
    assert!(answer(offer).is_ok());
    let (audio, video) = offer.split_once("m=video").expect("a section");
    // The same certificate, first by another hash: RFC 8122, section 5.
    let other = format!("a=fingerprint:sha-512 {}\r\na=fingerprint:", ["AB"; 64].join(":"));
    let video = video.replacen("a=fingerprint:", &other, 1);
    let refused = answer(&format!("{audio}m=video{video}"));
    assert!(refused.is_err_and(|error| error.contains("ingerprint")));
}
