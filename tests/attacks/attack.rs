//! The attacks of a hostile viewer, run by an interceptor in its connection, and the traffic that
//! the viewer receives and sends.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use rtc::{
    interceptor::{AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket},
    rtcp::{
        self,
        payload_feedbacks::{
            full_intra_request::{FirEntry, FullIntraRequest},
            picture_loss_indication::PictureLossIndication,
            receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate,
        },
        raw_packet::RawPacket,
        receiver_report::ReceiverReport,
        reception_report::ReceptionReport,
        transport_feedbacks::{
            transport_layer_cc::{
                PacketStatusChunk, RunLengthChunk, StatusChunkTypeTcc, SymbolTypeTcc,
                TransportLayerCc,
            },
            transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers},
        },
    },
    rtp,
    sansio::Protocol,
    shared::{TransportContext, error::Error},
};

/// How often a batch of messages is sent. webrtc-rs runs no timer more often.
const BATCH_INTERVAL: Duration = Duration::from_millis(1);

/// Messages in a batch, each in its own datagram: as many as the processor can make.
const MESSAGES_PER_BATCH: u8 = 20;

/// Packets that each NACK reports as lost: more than a second of video.
const NACKED_PACKETS: u16 = 500;

/// The payload type of Opus, in the offers of all our programs.
const OPUS_PAYLOAD_TYPE: u8 = 111;

/// Those of H.264.
const H264_PAYLOAD_TYPES: RangeInclusive<u8> = 102..=104;

/// Those of its retransmissions (RFC 4588).
const RTX_PAYLOAD_TYPES: RangeInclusive<u8> = 105..=107;

/// Bytes of the longest data channel message that the opener accepts, as its SDP announces.
pub(crate) const MAX_MESSAGE_BYTES: usize = 16 << 10;

/// What a hostile viewer does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Attack {
    /// Requests keyframes, with PLI and FIR.
    KeyframeRequests,
    /// Reports by NACK that all packets of the last second were lost.
    Nacks,
    /// Reports a bandwidth of 10 kbit/s and that no packet arrives.
    LowBandwidth,
    /// Sends malformed RTCP and RTP, up to the size of a datagram.
    Garbage,
    /// Answers connectivity checks and sends nothing else.
    Idle,
    /// Stops reading its socket.
    StopReading,
    /// Sends messages of this many bytes on the data channel, without end.
    DataMessages(usize),
    /// Opens data channels and sends on each of them.
    DataChannels,
    /// Sends SCTP packets that contain a false length.
    SctpFalseLengths,
    /// Sends SCTP packets that skip nearly all sequence numbers (FORWARD TSN).
    SctpForwardTsn,
}

/// The traffic of a hostile viewer.
#[derive(Default, Debug)]
pub(crate) struct Traffic {
    /// Received RTP packets with a new sequence number.
    pub(crate) new_packets: u64,
    /// Received RTP packets of RTX streams, or with a sequence number that was received before.
    pub(crate) retransmitted: u64,
    /// Bytes of all received datagrams.
    pub(crate) bytes: u64,
    /// Attack packets that the viewer has sent.
    pub(crate) attack_packets: u64,
    /// The RTP timestamp of each received keyframe (90 kHz).
    pub(crate) keyframe_times: BTreeSet<u32>,
    /// The RTP timestamps of the first and the newest received video frame (90 kHz).
    pub(crate) frame_times: Option<(u32, u32)>,
    sequence_numbers: HashSet<(u32, u16)>,
}

impl Traffic {
    /// Seconds of received video, by its RTP timestamps.
    pub(crate) fn video_seconds(&self) -> f64 {
        self.frame_times.map_or(0.0, |(first, newest)| f64::from(newest.wrapping_sub(first)) / 90e3)
    }

    /// Counts a received datagram, which may be encrypted.
    pub(crate) fn on_datagram(&mut self, datagram: &[u8]) {
        self.bytes += datagram.len() as u64;
        // RTP, not RTCP (RFC 5761, section 4): payload type, sequence number, timestamp, SSRC.
        let &[128..=191, kind, high, low, _, _, _, _, a, b, c, d, ..] = datagram else { return };
        let payload_type = kind & 0x7f;
        if matches!(payload_type, 64..=95) {
            return;
        }
        if RTX_PAYLOAD_TYPES.contains(&payload_type) {
            self.retransmitted += 1;
            return;
        }
        let number = (u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([high, low]));
        match self.sequence_numbers.insert(number) {
            true => self.new_packets += 1,
            false => self.retransmitted += 1,
        }
    }

    /// Counts a decrypted packet of the video stream.
    fn on_video_packet(&mut self, packet: &rtp::Packet) {
        let (header, payload) = (&packet.header, &packet.payload);
        let first = self.frame_times.map_or(header.timestamp, |(first, _)| first);
        self.frame_times = Some((first, header.timestamp));
        // The type of a whole NAL unit or of a fragmented one (RFC 6184, sections 5.4 and 5.8).
        let unit = match payload.first().map(|byte| byte & 0x1f) {
            Some(28) => payload.get(1).map(|byte| byte & 0x1f),
            whole => whole,
        };
        if unit == Some(5) {
            self.keyframe_times.insert(header.timestamp);
        }
    }
}

/// Traffic shared between a viewer's connections and the test.
pub(crate) type SharedTraffic = Arc<Mutex<Traffic>>;

/// An interceptor that sends the attack's RTP and RTCP packets.
pub(crate) struct AttackInterceptor {
    attack: Attack,
    traffic: SharedTraffic,
    /// The SSRC of the video stream and its newest sequence number.
    video_stream: Option<(u32, u16)>,
    next_batch_at: Option<Instant>,
    messages_made: u64,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl AttackInterceptor {
    pub(crate) fn new(attack: Attack, traffic: SharedTraffic) -> Self {
        let (reads, writes) = (VecDeque::new(), VecDeque::new());
        Self {
            attack,
            traffic,
            video_stream: None,
            next_batch_at: None,
            messages_made: 0,
            reads,
            writes,
        }
    }

    fn send_batch(&mut self, (ssrc, newest): (u32, u16), now: Instant) {
        for _ in 0..MESSAGES_PER_BATCH {
            self.messages_made += 1;
            let packets: Vec<Packet> = match self.attack {
                Attack::KeyframeRequests => {
                    vec![Packet::Rtcp(keyframe_requests(ssrc, self.messages_made as u8))]
                }
                Attack::Nacks => vec![Packet::Rtcp(vec![Box::new(nack(ssrc, newest))])],
                Attack::LowBandwidth => vec![Packet::Rtcp(low_bandwidth_reports(ssrc, newest))],
                Attack::Garbage => garbage(ssrc, self.messages_made),
                Attack::Idle
                | Attack::StopReading
                | Attack::DataMessages(_)
                | Attack::DataChannels
                | Attack::SctpFalseLengths
                | Attack::SctpForwardTsn => vec![],
            };
            let count = packets.len() as u64;
            self.traffic.lock().unwrap_or_else(PoisonError::into_inner).attack_packets += count;
            self.writes.extend(packets.into_iter().map(|packet| {
                let message = AttributedPacket::new(packet);
                TaggedPacket { now, transport: TransportContext::default(), message }
            }));
        }
    }
}

/// A PLI and a FIR. The sequence number of a FIR must be new each time.
fn keyframe_requests(ssrc: u32, number: u8) -> Vec<Box<dyn rtcp::Packet>> {
    let entry = FirEntry { ssrc, sequence_number: number };
    vec![
        Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: ssrc }),
        Box::new(FullIntraRequest { sender_ssrc: 1, media_ssrc: ssrc, fir: vec![entry] }),
    ]
}

fn nack(ssrc: u32, newest: u16) -> TransportLayerNack {
    let lost: Vec<u16> = (0..NACKED_PACKETS).rev().map(|back| newest.wrapping_sub(back)).collect();
    let nacks = nack_pairs_from_sequence_numbers(&lost);
    TransportLayerNack { sender_ssrc: 1, media_ssrc: ssrc, nacks }
}

fn low_bandwidth_reports(ssrc: u32, newest: u16) -> Vec<Box<dyn rtcp::Packet>> {
    let report = ReceptionReport {
        ssrc,
        fraction_lost: u8::MAX,
        total_lost: 0xff_ffff,
        last_sequence_number: newest.into(),
        jitter: u32::MAX,
        ..ReceptionReport::default()
    };
    let nothing = RunLengthChunk {
        type_tcc: StatusChunkTypeTcc::RunLengthChunk,
        packet_status_symbol: SymbolTypeTcc::PacketNotReceived,
        run_length: NACKED_PACKETS,
    };
    vec![
        Box::new(ReceiverReport { ssrc: 1, reports: vec![report], ..ReceiverReport::default() }),
        Box::new(ReceiverEstimatedMaximumBitrate {
            sender_ssrc: 1,
            bitrate: 10_000.0,
            ssrcs: vec![ssrc],
        }),
        Box::new(TransportLayerCc {
            sender_ssrc: 1,
            media_ssrc: ssrc,
            base_sequence_number: newest,
            packet_status_count: NACKED_PACKETS,
            packet_chunks: vec![PacketStatusChunk::RunLengthChunk(nothing)],
            ..TransportLayerCc::default()
        }),
    ]
}

/// RTCP of every type, in which only the length is valid, and RTP of unannounced streams.
fn garbage(ssrc: u32, number: u64) -> Vec<Packet> {
    let (kind, count) = (192 + number as u8 % 32, (number / 32) as u8 % 32);
    let words = [1, 2, 7, 300, 1500][number as usize % 5];
    let mut raw = vec![0x80 | count, kind];
    raw.extend((words as u16).to_be_bytes());
    raw.extend(ssrc.to_be_bytes());
    raw.extend((0..(words - 1) * 4).map(|byte| (byte as u64 * number) as u8));
    let header = rtp::Header {
        version: 2,
        payload_type: [OPUS_PAYLOAD_TYPE, 102, 96, 127][number as usize % 4],
        sequence_number: number as u16,
        ssrc: number as u32,
        ..rtp::Header::default()
    };
    let payload = vec![number as u8; [0, 1, 1200, 6000][number as usize / 4 % 4]];
    vec![
        Packet::Rtcp(vec![Box::new(RawPacket(raw.into()))]),
        Packet::Rtp(rtp::Packet { header, payload: payload.into() }),
    ]
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for AttackInterceptor {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(packet) = &message.message.packet
            && H264_PAYLOAD_TYPES.contains(&packet.header.payload_type)
        {
            self.traffic.lock().unwrap_or_else(PoisonError::into_inner).on_video_packet(packet);
            self.video_stream = Some((packet.header.ssrc, packet.header.sequence_number));
            self.next_batch_at.get_or_insert(message.now);
        }
        self.reads.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.writes.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if let (Some(stream), Some(next)) = (self.video_stream, self.next_batch_at)
            && next <= now
        {
            self.next_batch_at = Some(now + BATCH_INTERVAL);
            self.send_batch(stream, now);
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.next_batch_at
    }

    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Interceptor for AttackInterceptor {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
