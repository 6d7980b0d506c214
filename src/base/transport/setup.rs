//! Builds one peer connection of webrtc-rs: codecs, interceptors, timers and tracks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use rtc::{
    crypto::CryptoError,
    dtls::{cipher_suite::CipherSuiteId, extension::extension_use_srtp::SrtpProtectionProfile},
    ice::mdns::MulticastDnsMode,
    interceptor::{ReceiverReportBuilder, SenderReportBuilder, TwccReceiverBuilder},
    media_stream::MediaStreamTrack,
    peer_connection::configuration::{
        media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS},
        setting_engine::SctpMaxMessageSize,
    },
    rtp_transceiver::{
        RTCRtpTransceiverInit,
        rtp_sender::{
            RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters,
            RTCRtpEncodingParameters, RTCRtpHeaderExtensionCapability, RTCRtpRtxParameters,
            RtpCodecKind,
        },
    },
    sdp::extmap::SDES_MID_URI,
};
use tokio::sync::{Notify, watch};
use webrtc::{
    data_channel::{DataChannel, RTCDataChannelInit},
    error::Error,
    media_stream::track_local::static_rtp::TrackLocalStaticRTP,
    peer_connection::{
        MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, Registry,
        SettingEngine, SettingEngineBuilder, Slot,
    },
    rtp_transceiver::{RTCRtpTransceiverDirection, RtpTransceiver},
    runtime::TokioRuntime,
};

use super::{
    ConnectionConfig, Impairment,
    addresses::HostAddresses,
    audio_level::AUDIO_LEVEL_URI,
    congestion::{BandwidthControl, SEND_TIME_URI, TRANSPORT_NUMBER_URI},
    crypto::CheckedCrypto,
    data_channel::SEND_BUFFER_LIMIT,
    ice_gate::IceGateShared,
    negotiation::RemoteLimits,
    red::RED_MIME_TYPE,
    retransmission::{LossRecovery, RECOVERY_SLOT, RTX_MIME_TYPE},
    rtp_dump::DUMP_SLOT,
    runtime::PeerRuntime,
    tap::{LocalStream, TAP_SLOT, Tap, TapShared, VIDEO_CLOCK_RATE},
};
use crate::{
    media::{AUDIO_RATE, SenderReports},
    model::{
        DataChannelKind, Direction, MAX_CHAT_BYTES, Media, PeerMedia, PerChannel, PerSource, Source,
    },
};

/// Silence after which a connection is disconnected.
const DISCONNECTED_TIMEOUT: Duration = Duration::from_secs(3);

/// Further silence after which it has failed.
const FAILED_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an idle connection sends a packet: five of them may be lost without consequence.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);

/// The interval between checks of each pair of addresses until one works (RFC 8445, section 14.2:
/// 50 ms if nothing is known about the network, never less than 5 ms). The 200 ms that webrtc-rs
/// uses by default are a noticeable delay for every user who joins.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_millis(25);

/// Checks until a pair fails: 8 s, so that a peer whose signalling is slow still finds this end
/// checking.
const MAX_CHECKS: u16 = 320;

/// How many packets behind the newest one a retransmission may be. The 64 that webrtc-rs uses by
/// default are a tenth of a second of video: later retransmissions would be taken for replays and
/// dropped.
const REPLAY_WINDOW: usize = 1024;

/// The H.264 profiles that are offered, all with packetization mode 1, with their payload types.
/// This program sends constrained baseline (42e0). webrtc-rs matches the first two bytes of a
/// profile exactly, so compatible profiles that other programs use are offered as well. Each has
/// the payload type of its retransmissions as well (RFC 4588).
const H264_PROFILES: [(u8, u8, &str); 3] =
    [(102, 105, "42e01f"), (103, 106, "42001f"), (104, 107, "42c01f")];

/// The DTLS cipher suites, preferred ones first: only authenticated ciphers. The suite that
/// browsers must support (RFC 8827, section 6.5) is among them. Our certificates are for ECDSA, but
/// a peer that offers RSA is accepted.
const CIPHER_SUITES: [CipherSuiteId; 4] = [
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_Aes_128_Gcm_Sha256,
    CipherSuiteId::Tls_Ecdhe_Rsa_With_ChaCha20_Poly1305_Sha256,
];

/// The SRTP protection profiles, preferred ones first (RFC 7714, RFC 5764). Profiles with a tag of
/// 32 bits are left out, because such a tag can be guessed.
const SRTP_PROFILES: [SrtpProtectionProfile; 3] = [
    SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    SrtpProtectionProfile::Srtp_Aead_Aes_256_Gcm,
    SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
];

/// The payload type of Opus.
const OPUS_PAYLOAD_TYPE: u8 = 111;

/// The payload type of redundant audio.
const RED_PAYLOAD_TYPE: u8 = 63;

/// A peer connection of webrtc-rs, and the parts that the connection's task needs.
pub(super) struct BuiltConnection {
    pub(super) peer_connection: Arc<dyn PeerConnection>,
    /// The transceivers of the media sections.
    pub(super) transceivers: PerSource<Option<LocalTransceiver>>,
    pub(super) channels: PerChannel<Option<Arc<dyn DataChannel>>>,
    pub(super) reports: SenderReports,
    /// Limits and checks remote descriptions and candidates.
    pub(super) remote_limits: RemoteLimits,
}

/// The transceiver of the media section of a source.
pub(super) struct LocalTransceiver {
    pub(super) transceiver: Arc<dyn RtpTransceiver>,
    /// The direction to negotiate, as far as the remote peer agrees.
    pub(super) direction: Direction,
    /// The track that it sends, if it sends.
    pub(super) track: Option<LocalTrack>,
}

/// A track that this end sends.
pub(super) struct LocalTrack {
    pub(super) track: Arc<TrackLocalStaticRTP>,
    pub(super) stream: LocalStream,
    /// The first packet's sequence number.
    pub(super) sequence: u16,
}

/// The shared objects that a new connection uses and notifies.
pub(super) struct BuildContext {
    pub(super) handler: Arc<dyn PeerConnectionEventHandler>,
    pub(super) driver_ended: Arc<Notify>,
    pub(super) connected: watch::Receiver<bool>,
    pub(super) impairment: Option<watch::Receiver<Impairment>>,
    pub(super) ice_gate: IceGateShared,
    pub(super) bandwidth: Arc<BandwidthControl>,
    pub(super) addresses: HostAddresses,
}

/// Why a connection could not be built.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("`{0}` is not a valid stream or track id: use 1 to 64 letters, digits or -_.:+")]
    Name(String),
    #[error("two tracks have the same id `{0}`; use different ids")]
    SameName(String),
    #[error("no cryptography available: {0}")]
    Crypto(#[from] CryptoError),
    #[error("no random numbers available: {0}")]
    Random(#[from] getrandom::Error),
    #[error("{0}")]
    Library(#[from] Error),
}

/// Builds the connection with all its transceivers and data channels.
///
/// # Errors
/// If a stream or track id is invalid, or sockets or certificates cannot be created.
pub(super) async fn build(
    config: &ConnectionConfig,
    context: BuildContext,
) -> Result<BuiltConnection, SetupError> {
    check_names(config)?;
    let streams = PerSource::try_from_fn(|source| {
        getrandom::u32().map(|ssrc| LocalStream::new(ssrc, source.media()))
    })?;
    let local = Source::ALL.map(|source| streams[source].clone());
    let reports = SenderReports::default();
    let engine = media_engine()?;
    let ssrc_limiter = Arc::clone(&context.ice_gate.ssrc_limiter);
    let crypto = CheckedCrypto::new()?;
    let stats = Arc::clone(&context.ice_gate.stats);
    let batch = Arc::default();
    let shared = TapShared {
        stats: Arc::clone(&stats),
        limiter: Arc::clone(&ssrc_limiter),
        bandwidth: Arc::clone(&context.bandwidth),
        batch: Arc::clone(&batch),
    };
    let tap = Tap::new(&local, reports.clone(), shared);
    let recovery = LossRecovery::new(stats.round_trip().clone());
    let mut registry = interceptors(tap, recovery, config.media);
    if let Some(dump) = &config.rtp_dump {
        registry = registry.with(DUMP_SLOT, dump.interceptor(config.peer));
    }
    let peer_connection = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(registry)
        .with_setting_engine(setting_engine(Arc::clone(&crypto)))
        .with_runtime(Arc::new(PeerRuntime {
            tokio: TokioRuntime,
            network: config.network.clone(),
            impairment: context.impairment,
            driver_ended: context.driver_ended,
            connected: context.connected,
            ice_gate: context.ice_gate,
            batch,
        }))
        .with_handler(context.handler)
        .with_data_channel_send_buffer_limit(SEND_BUFFER_LIMIT)
        .with_udp_addrs(vec![context.addresses.clone()])
        .build()
        .await?;
    let mut built = BuiltConnection {
        peer_connection: Arc::new(peer_connection),
        transceivers: PerSource::default(),
        channels: PerChannel::default(),
        reports,
        remote_limits: RemoteLimits { addresses: context.addresses, ssrc_limiter, crypto, stats },
    };
    if let Err(error) = add_transceivers(&mut built, config, streams).await {
        // The driver of webrtc-rs runs until the connection is closed.
        let _ = built.peer_connection.close().await;
        return Err(error.into());
    }
    Ok(built)
}

async fn add_transceivers(
    built: &mut BuiltConnection,
    config: &ConnectionConfig,
    streams: PerSource<LocalStream>,
) -> Result<(), Error> {
    for source in Source::SECTIONS {
        let Some(direction) = config.media.sections[source] else { continue };
        let stream = streams[source].clone();
        let track = media_track(config, source, &stream);
        let transceiver =
            add_transceiver(&*built.peer_connection, direction, track, stream).await?;
        built.transceivers[source] = Some(transceiver);
    }
    for channel in DataChannelKind::ALL.into_iter().filter(|one| config.media.channels[*one]) {
        let options = RTCDataChannelInit {
            negotiated: Some(channel.stream()),
            ..RTCDataChannelInit::default()
        };
        let created =
            built.peer_connection.create_data_channel(channel.label(), Some(options)).await?;
        built.channels[channel] = Some(created);
    }
    Ok(())
}

async fn add_transceiver(
    peer_connection: &dyn PeerConnection,
    direction: Direction,
    track: MediaStreamTrack,
    stream: LocalStream,
) -> Result<LocalTransceiver, Error> {
    let init =
        |direction| RTCRtpTransceiverInit { direction, streams: vec![], send_encodings: vec![] };
    if direction.sends() {
        let track = Arc::new(TrackLocalStaticRTP::new(track));
        let init = init(to_rtc_direction(direction));
        let transceiver =
            peer_connection.add_transceiver_from_track(Arc::clone(&track) as _, Some(init)).await?;
        // In the lower half of the range, so that it does not wrap around before a receiver has
        // learned it (RFC 3711, appendix A, on the rollover counter).
        let sequence = (stream.ssrc >> 8) as u16 & 0x7fff;
        let track = Some(LocalTrack { track, stream, sequence });
        return Ok(LocalTransceiver { transceiver, direction, track });
    }
    let init = init(RTCRtpTransceiverDirection::Recvonly);
    let transceiver = peer_connection.add_transceiver_from_kind(track.kind(), Some(init)).await?;
    transceiver.set_direction(to_rtc_direction(direction)).await?;
    Ok(LocalTransceiver { transceiver, direction, track: None })
}

/// The direction as a type of webrtc-rs.
pub(super) const fn to_rtc_direction(direction: Direction) -> RTCRtpTransceiverDirection {
    match direction {
        Direction::SendRecv => RTCRtpTransceiverDirection::Sendrecv,
        Direction::SendOnly => RTCRtpTransceiverDirection::Sendonly,
        Direction::RecvOnly => RTCRtpTransceiverDirection::Recvonly,
        Direction::Inactive => RTCRtpTransceiverDirection::Inactive,
    }
}

fn check_names(config: &ConnectionConfig) -> Result<(), SetupError> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '+');
    let mixes = Source::ALL.map(|source| &config.mixes[source]);
    for name in mixes.into_iter().chain([&config.stream]) {
        if name.is_empty() || name.len() > 64 || !name.chars().all(is_legal) {
            return Err(SetupError::Name(name.clone()));
        }
    }
    // webrtc-rs finds tracks by their id.
    let mut seen = BTreeSet::new();
    match mixes.into_iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(SetupError::SameName(name.clone())),
        None => Ok(()),
    }
}

fn media_track(
    config: &ConnectionConfig,
    source: Source,
    stream: &LocalStream,
) -> MediaStreamTrack {
    let (kind, codec) = if source.media() == Media::Audio {
        (RtpCodecKind::Audio, opus())
    } else {
        (RtpCodecKind::Video, h264(H264_PROFILES[0].2))
    };
    let mix = &config.mixes[source];
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            ssrc: Some(stream.ssrc),
            rtx: stream.rtx_ssrc().map(|ssrc| RTCRtpRtxParameters { ssrc }),
            ..RTCRtpCodingParameters::default()
        },
        codec,
        ..RTCRtpEncodingParameters::default()
    };
    MediaStreamTrack::new(config.stream.clone(), mix.clone(), mix.clone(), kind, vec![encoding])
}

/// Registers Opus and H.264 with its retransmissions, and no others: a browser that is offered VP8
/// uses VP8.
fn media_engine() -> Result<MediaEngine, Error> {
    let mut engine = MediaEngine::default();
    // Before Opus, so that a browser sends it.
    let redundant = RTCRtpCodecParameters { payload_type: RED_PAYLOAD_TYPE, rtp_codec: red() };
    engine.register_codec(redundant, RtpCodecKind::Audio)?;
    let audio = RTCRtpCodecParameters { payload_type: OPUS_PAYLOAD_TYPE, rtp_codec: opus() };
    engine.register_codec(audio, RtpCodecKind::Audio)?;
    for (payload_type, rtx_payload_type, profile) in H264_PROFILES {
        let video = RTCRtpCodecParameters { payload_type, rtp_codec: h264(profile) };
        engine.register_codec(video, RtpCodecKind::Video)?;
        let repeats =
            RTCRtpCodecParameters { payload_type: rtx_payload_type, rtp_codec: rtx(payload_type) };
        engine.register_codec(repeats, RtpCodecKind::Video)?;
    }
    for kind in [RtpCodecKind::Audio, RtpCodecKind::Video] {
        let mid = RTCRtpHeaderExtensionCapability { uri: SDES_MID_URI.to_owned() };
        engine.register_header_extension(mid, kind, None)?;
        let number = RTCRtpHeaderExtensionCapability { uri: TRANSPORT_NUMBER_URI.to_owned() };
        engine.register_header_extension(number, kind, None)?;
    }
    let time = RTCRtpHeaderExtensionCapability { uri: SEND_TIME_URI.to_owned() };
    engine.register_header_extension(time, RtpCodecKind::Video, None)?;
    let level = RTCRtpHeaderExtensionCapability { uri: AUDIO_LEVEL_URI.to_owned() };
    engine.register_header_extension(level, RtpCodecKind::Audio, None)?;
    Ok(engine)
}

fn opus() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_OPUS.to_owned(),
        clock_rate: AUDIO_RATE,
        channels: 2,
        // No `stereo=1`: it would make browsers send voices in two channels, at twice the rate.
        sdp_fmtp_line: "minptime=10;useinbandfec=1;sprop-stereo=1;usedtx=1".to_owned(),
        rtcp_feedback: vec![feedback("transport-cc", "")],
    }
}

/// Opus with copies of earlier packets (RFC 2198).
fn red() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: RED_MIME_TYPE.to_owned(),
        clock_rate: AUDIO_RATE,
        channels: 2,
        sdp_fmtp_line: format!("{OPUS_PAYLOAD_TYPE}/{OPUS_PAYLOAD_TYPE}"),
        rtcp_feedback: vec![],
    }
}

fn h264(profile: &str) -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: MIME_TYPE_H264.to_owned(),
        clock_rate: VIDEO_CLOCK_RATE,
        channels: 0,
        sdp_fmtp_line: format!(
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}"
        ),
        rtcp_feedback: vec![
            feedback("transport-cc", ""),
            feedback("goog-remb", ""),
            feedback("ccm", "fir"),
            feedback("nack", ""),
            feedback("nack", "pli"),
        ],
    }
}

/// A kind of feedback that this end sends and accepts (RFC 4585, section 4.2).
fn feedback(kind: &str, parameter: &str) -> RTCPFeedback {
    RTCPFeedback { typ: kind.to_owned(), parameter: parameter.to_owned() }
}

/// Retransmissions of packets with that payload type (RFC 4588, section 8.6).
fn rtx(payload_type: u8) -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: RTX_MIME_TYPE.to_owned(),
        clock_rate: VIDEO_CLOCK_RATE,
        channels: 0,
        sdp_fmtp_line: format!("apt={payload_type}"),
        rtcp_feedback: vec![],
    }
}

/// Registers the tap and the interceptors for the negotiated directions. Sending needs sender
/// reports; the tap answers NACKs. Receiving needs NACKs, receiver reports, and transport-wide
/// feedback for the remote peer's bandwidth estimator; the tap has our own. Each packet passes all
/// registered interceptors, so an end that only sends does not register those for receiving.
fn interceptors(tap: Tap, recovery: LossRecovery, media: PeerMedia) -> Registry {
    let any =
        |has: fn(Direction) -> bool| media.sections.iter().filter_map(|(_, one)| *one).any(has);
    let mut registry = Registry::new().with(TAP_SLOT, tap);
    if any(Direction::sends) {
        registry = registry.with(Slot::SenderReport, SenderReportBuilder::new().build());
    }
    if any(Direction::receives) {
        registry = registry
            .with(RECOVERY_SLOT, recovery)
            .with(Slot::ReceiverReport, ReceiverReportBuilder::new().build())
            .with(Slot::TwccReceiver, TwccReceiverBuilder::new().build());
    }
    registry
}

/// The timers and limits of the connection. A peer-reflexive candidate is accepted at once: it is
/// as good as any, but webrtc-rs would wait a second for a better one. Multicast DNS is off: each
/// connection would open its own socket on port 5353, and only browsers without camera permission
/// hide their addresses behind mDNS names. An ICE restart binds new sockets, because the network
/// may have changed.
fn setting_engine(crypto: Arc<CheckedCrypto>) -> SettingEngine {
    SettingEngineBuilder::new()
        .with_crypto_provider(crypto)
        .with_dtls_cipher_suites(CIPHER_SUITES.to_vec())
        .with_srtp_protection_profiles(SRTP_PROFILES.to_vec())
        .with_ice_timeouts(
            Some(DISCONNECTED_TIMEOUT),
            Some(FAILED_TIMEOUT),
            Some(KEEPALIVE_INTERVAL),
        )
        .with_ice_connection_attempts(Some(CHECK_INTERVAL), Some(MAX_CHECKS))
        .with_prflx_acceptance_min_wait(Some(Duration::ZERO))
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_srtp_replay_protection_window(REPLAY_WINDOW)
        .with_sctp_max_message_size(SctpMaxMessageSize::Bounded(MAX_CHAT_BYTES as u32))
        .with_discard_local_candidates_during_ice_restart(true)
        .build()
}
