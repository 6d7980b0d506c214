//! An interceptor that requests lost packets of received video, and takes them out of RTX streams.

use std::{collections::VecDeque, time::Instant};

use rtc::{
    interceptor::{AttributedPacket, Interceptor, Packet, Slot, StreamInfo, TaggedPacket},
    rtcp::transport_feedbacks::transport_layer_nack::{
        TransportLayerNack, nack_pairs_from_sequence_numbers,
    },
    rtp,
    sansio::Protocol,
    shared::{TransportContext, error::Error},
};

use super::{missing_packets::MissingPackets, rtx};
use crate::media::RoundTripTime;

/// The position of the interceptor: after those that report what arrived on an RTX stream (8,000
/// and 10,000), and before webrtc-rs takes packets out of such streams itself.
pub(in crate::transport) const RECOVERY_SLOT: Slot = Slot::Custom(10_500);

/// Streams whose packets are requested. Two are negotiated; a hostile peer may send on more.
const MAX_STREAMS: usize = 16;

/// Requests the lost packets of each video of one connection by NACK (RFC 4585, section 6.2.1).
/// The driver of webrtc-rs calls it.
pub(in crate::transport) struct LossRecovery {
    streams: Vec<RecoveredStream>,
    round_trip: RoundTripTime,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

struct RecoveredStream {
    ssrc: u32,
    payload_type: u8,
    /// The SSRC of its RTX stream.
    rtx_ssrc: Option<u32>,
    missing: MissingPackets,
}

impl LossRecovery {
    /// For a connection whose round trip time is measured there.
    pub(in crate::transport) const fn new(round_trip: RoundTripTime) -> Self {
        Self { streams: vec![], round_trip, reads: VecDeque::new(), writes: VecDeque::new() }
    }

    /// Notes a received packet. Returns `false` if it ends here.
    fn handle_rtp(&mut self, packet: &mut rtp::Packet, now: Instant) -> bool {
        let ssrc = packet.header.ssrc;
        let is_of =
            |stream: &&mut RecoveredStream| stream.ssrc == ssrc || stream.rtx_ssrc == Some(ssrc);
        let Some(stream) = self.streams.iter_mut().find(is_of) else { return true };
        let is_retransmission = stream.ssrc != ssrc;
        if is_retransmission && !rtx::restore(packet, stream.ssrc, stream.payload_type) {
            return false;
        }
        let number = packet.header.sequence_number;
        if !is_retransmission && lacks_begin(&packet.payload) {
            stream.missing.on_late_start(number, now);
        }
        let is_wanted = stream.missing.on_packet(number, is_retransmission, now);
        self.request_due(now);
        is_wanted || !is_retransmission
    }

    fn request_due(&mut self, now: Instant) {
        let round_trip = self.round_trip.latest();
        for stream in &mut self.streams {
            let due = stream.missing.take_due(round_trip, now);
            if due.is_empty() {
                continue;
            }
            let nacks = nack_pairs_from_sequence_numbers(&due);
            let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: stream.ssrc, nacks };
            self.writes.push_back(TaggedPacket {
                now,
                transport: TransportContext::default(),
                message: AttributedPacket::new(Packet::Rtcp(vec![Box::new(nack)])),
            });
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for LossRecovery {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, mut message: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtp(packet) = &mut message.message.packet
            && !self.handle_rtp(packet, message.now)
        {
            return Ok(());
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
        self.request_due(now);
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.streams.iter().filter_map(|stream| stream.missing.next_timeout()).min()
    }

    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Interceptor for LossRecovery {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        // webrtc-rs binds an RTX stream as well, under the codec of its video.
        let is_rtx = self.streams.iter().any(|stream| stream.rtx_ssrc == Some(info.ssrc));
        if is_rtx || !answers_nacks(info) {
            return;
        }
        let rtx_ssrc = info.payload_type_rtx.and(info.ssrc_rtx);
        self.streams.retain(|stream| Some(stream.ssrc) != rtx_ssrc);
        let (ssrc, payload_type) = (info.ssrc, info.payload_type);
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == ssrc) {
            (stream.payload_type, stream.rtx_ssrc) = (payload_type, rtx_ssrc);
        } else if self.streams.len() < MAX_STREAMS {
            let missing = MissingPackets::default();
            self.streams.push(RecoveredStream { ssrc, payload_type, rtx_ssrc, missing });
        }
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.streams.retain(|stream| stream.ssrc != info.ssrc);
    }
}

/// Whether the payload (RFC 6184) shows that the stream did not begin with it: it is of a keyframe and not
/// its begin, which has a sequence parameter set, or it continues a fragment.
fn lacks_begin(payload: &[u8]) -> bool {
    const IDR: u8 = 5;
    const PICTURE_PARAMETERS: u8 = 8;
    let kind = |byte: &u8| byte & 0x1f;
    let is_inside = |kind| kind == IDR || kind == PICTURE_PARAMETERS;
    match payload {
        // An aggregation packet, and a fragment.
        [first, _, _, inner, ..] if kind(first) == 24 => is_inside(kind(inner)),
        [first, fragment, ..] if kind(first) == 28 => fragment & 0x80 == 0 || kind(fragment) == IDR,
        [first, ..] => is_inside(kind(first)),
        [] => false,
    }
}

/// Whether the sender of a stream answers NACKs (RFC 4585, section 4.2).
pub(super) fn answers_nacks(info: &StreamInfo) -> bool {
    info.rtcp_feedback.iter().any(|one| one.typ == "nack" && one.parameter.is_empty())
}

#[cfg(test)]
mod tests {
    use super::lacks_begin;

    #[test]
    fn a_first_frame_whose_begin_is_missing_is_recognised_in_each_packetization() {
        let inside = [&[0x65_u8][..], &[0x68], &[0x78, 0, 9, 0x68], &[0x7c, 0x85], &[0x7c, 0x41]];
        for payload in inside {
            assert!(lacks_begin(payload), "{payload:?}");
        }
        for payload in [&[][..], &[0x67], &[0x41], &[0x78, 0, 9, 0x67], &[0x7c, 0x81], &[0x7c]] {
            assert!(!lacks_begin(payload), "{payload:?}");
        }
    }
}
