//! Sends lost packets again: those that the remote peer asks for, and those that its transport-wide
//! feedback shows.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rtc::{
    interceptor::StreamInfo, rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack,
    rtp,
};

use super::{
    recovery::answers_nacks,
    rtx::{self, RtxStream},
    transmissions::{PacketId, PacketStatus, Transmissions},
};
use crate::bandwidth::PacketResult;

/// Sent packets of one stream that are kept: more than a second of video at 5 Mbit/s. Without RTX,
/// an older packet would be outside the replay window of the other end.
const HISTORY: usize = 1024;

/// An older packet is not sent again, unless three round trips take longer.
const MAX_AGE: Duration = Duration::from_secs(1);

/// The round trip time before one is measured.
const UNKNOWN_ROUND_TRIP: Duration = Duration::from_millis(100);

/// Bytes that may be sent again for each 100 bytes that are sent for the first time. More would keep
/// a queue full that is the cause of the losses.
const BUDGET_PERCENT: usize = 30;

/// So many times the lost part more where much is lost: a path that loses three of ten needs 43 of 100,
/// and copies of what was lost again, and more than that for a keyframe. With 60, what was asked for was
/// left out now and then, and the picture stood still until the next keyframe.
const BUDGET_PER_LOSS: f64 = 2.0;

/// Above this part of lost packets, what is sent again for the second time is sent twice: of a hundred
/// packets, at 30 % loss in each direction, two are asked for five times in vain otherwise, and
/// one of two thousand with it, for a tenth more packets.
const HEAVY_LOSS: f64 = 0.1;

/// Bytes that may be sent again beyond that: about one keyframe.
const BUDGET_BURST: usize = 64 * 1024;

/// The last packets of which one is sent as padding.
const PADDING_CHOICE: usize = 16;

/// The bytes of a packet on the wire beside its payload: IPv4, UDP, RTP with an extension, and the
/// authentication tag.
const OVERHEAD: usize = 64;

/// The sent packets of one connection's videos, and what may be sent again of them. A packet is not
/// sent again within about one round trip, and all of them together are limited. So a viewer that asks
/// for more costs little more than others.
#[derive(Default)]
pub(in crate::transport) struct Retransmitter {
    streams: Vec<SentStream>,
    /// Bytes that may be sent again now.
    budget: usize,
    /// The part of the packets that are lost, 0 to 1.
    loss: f64,
    transmissions: Transmissions,
}

struct SentStream {
    ssrc: u32,
    rtx: Option<RtxStream>,
    /// The newest packets in order; each has the next sequence number.
    packets: VecDeque<SentPacket>,
}

struct SentPacket {
    packet: rtp::Packet,
    sent_at: Instant,
    repeated_at: Option<Instant>,
    /// Its latest transmissions that are not known to be lost.
    outstanding: usize,
    /// The number after which they left; `None` for the first transmission.
    outstanding_after: Option<u64>,
    has_arrived: bool,
}

impl Retransmitter {
    /// Adds a stream that this end sends, or updates how its packets are sent again.
    pub(in crate::transport) fn bind(&mut self, info: &StreamInfo) {
        if !answers_nacks(info) {
            return;
        }
        let negotiated = info.ssrc_rtx.zip(info.payload_type_rtx);
        if !self.streams.iter().any(|stream| stream.ssrc == info.ssrc) {
            let packets = VecDeque::new();
            self.streams.push(SentStream { ssrc: info.ssrc, rtx: None, packets });
            self.budget = BUDGET_BURST;
        }
        let Some(stream) = self.stream(info.ssrc) else { return };
        stream.rtx = match (stream.rtx, negotiated) {
            // Its sequence numbers go on, also with another payload type.
            (Some(rtx), Some((ssrc, payload_type))) if rtx.ssrc == ssrc => {
                Some(rtx.with_payload_type(payload_type))
            }
            (_, negotiated) => negotiated.map(|(ssrc, kind)| RtxStream::new(ssrc, kind)),
        };
    }

    /// Sets the part of the packets that are lost, 0 to 1.
    pub(in crate::transport) fn set_loss(&mut self, loss: f64) {
        self.loss = loss.clamp(0.0, 1.0);
    }

    /// Keeps a packet that is sent for the first time, as it leaves.
    pub(in crate::transport) fn on_sent(&mut self, packet: &rtp::Packet, now: Instant) {
        let percent = self.budget_percent();
        let Some(stream) = self.stream(packet.header.ssrc) else { return };
        let expected = stream.packets.back().map(|newest| newest.number().wrapping_add(1));
        if expected.is_some_and(|number| number != packet.header.sequence_number) {
            stream.packets.clear();
        }
        if stream.packets.len() == HISTORY {
            stream.packets.pop_front();
        }
        let packet = packet.clone();
        let earned = (packet.payload.len() + OVERHEAD) * percent / 100;
        stream.packets.push_back(SentPacket::new(packet, now));
        self.budget = (self.budget + earned).min(BUDGET_BURST);
    }

    /// Whether packets of a stream are sent again on an RTX stream.
    pub(in crate::transport) fn has_rtx(&self, ssrc: u32) -> bool {
        self.streams.iter().any(|stream| stream.ssrc == ssrc && stream.rtx.is_some())
    }

    /// The packets to send again in answer to a NACK (RFC 4585, section 6.2.1): on the RTX stream,
    /// or without one bit-identical copies.
    pub(in crate::transport) fn on_nack(
        &mut self,
        nack: &TransportLayerNack,
        round_trip: Option<Duration>,
        now: Instant,
    ) -> Vec<rtp::Packet> {
        let round_trip = round_trip.unwrap_or(UNKNOWN_ROUND_TRIP);
        let ssrc = nack.media_ssrc;
        let numbers = nack.nacks.iter().flat_map(|pair| pair.packet_list());
        let may_be_repeated = |sent: &SentPacket| sent.may_be_repeated(round_trip, now);
        let mut repeats = vec![];
        for sequence in numbers {
            repeats.extend(self.repeat(PacketId { ssrc, sequence }, now, may_be_repeated));
        }
        repeats
    }

    /// Notes the transport-wide number of a packet of video that leaves, for the first time or again.
    pub(in crate::transport) fn on_numbered(&mut self, packet: &rtp::Packet, number: u64) {
        let ssrc = packet.header.ssrc;
        let id = self.streams.iter().find_map(|stream| {
            if stream.ssrc == ssrc {
                return Some(PacketId { ssrc, sequence: packet.header.sequence_number });
            }
            let is_rtx = stream.rtx.is_some_and(|rtx| rtx.ssrc == ssrc);
            let sequence = is_rtx.then(|| rtx::repeated_number(packet)).flatten()?;
            Some(PacketId { ssrc: stream.ssrc, sequence })
        });
        if let Some(id) = id {
            self.transmissions.on_sent(number, id);
        }
    }

    /// The packets to send again because transport-wide feedback shows that their latest
    /// transmissions are lost: nobody has to ask for them, and none of them is on its way. At least a
    /// round trip has passed since they left.
    pub(in crate::transport) fn on_feedback(
        &mut self,
        results: &[PacketResult],
        now: Instant,
    ) -> Vec<rtp::Packet> {
        let mut lost = vec![];
        for (number, id, status) in self.transmissions.on_feedback(results, now) {
            let sent = self.stream(id.ssrc).and_then(|stream| stream.find(id.sequence));
            if let Some(sent) = sent {
                sent.follow(number, status);
                lost.extend((status == PacketStatus::Lost).then_some(id));
            }
        }
        let mut repeats = vec![];
        for id in lost {
            repeats.extend(self.repeat(id, now, |sent| sent.is_lost(now)));
        }
        repeats
    }

    /// A packet once more, or twice, if that is allowed and the budget suffices.
    fn repeat(
        &mut self,
        id: PacketId,
        now: Instant,
        is_allowed: impl Fn(&SentPacket) -> bool,
    ) -> Vec<rtp::Packet> {
        let (budget, is_loss_heavy) = (self.budget, self.is_loss_heavy());
        let newest = self.transmissions.newest();
        let Some(stream) = self.stream(id.ssrc) else { return vec![] };
        let Some(sent) = stream.find(id.sequence).filter(|sent| is_allowed(sent)) else {
            return vec![];
        };
        let bytes = sent.packet.payload.len() + OVERHEAD;
        if bytes > budget {
            return vec![];
        }
        let is_again = sent.repeated_at.replace(now).is_some();
        let copies = if is_again && is_loss_heavy && 2 * bytes <= budget { 2 } else { 1 };
        (sent.outstanding, sent.outstanding_after) = (copies, newest);
        let lost = sent.packet.clone();
        let mut repeat = || {
            let repeat = stream.rtx.as_mut().map(|rtx| rtx.encapsulate(&lost));
            repeat.unwrap_or_else(|| lost.clone())
        };
        let repeats = (0..copies).map(|_| repeat()).collect();
        self.budget = budget - copies * bytes;
        repeats
    }

    /// Whether there is something to send as padding.
    pub(in crate::transport) fn has_padding(&self) -> bool {
        self.streams.iter().any(|stream| stream.rtx.is_some() && !stream.packets.is_empty())
    }

    /// A packet of padding, about as large as that on the wire: one of the last packets once more,
    /// which repairs a loss if it was lost. `None` without an RTX stream.
    pub(in crate::transport) fn padding(&mut self, bytes: u32) -> Option<rtp::Packet> {
        let wanted = (bytes as usize).saturating_sub(OVERHEAD);
        let has_packets =
            |stream: &&mut SentStream| stream.rtx.is_some() && !stream.packets.is_empty();
        let SentStream { rtx: Some(rtx), packets, .. } =
            self.streams.iter_mut().find(has_packets)?
        else {
            return None;
        };
        let newest = packets.iter().rev().take(PADDING_CHOICE);
        let nearest = newest.min_by_key(|sent| sent.packet.payload.len().abs_diff(wanted))?;
        Some(rtx.encapsulate(&nearest.packet))
    }

    fn is_loss_heavy(&self) -> bool {
        self.loss > HEAVY_LOSS
    }

    /// The bytes that may be sent again for each 100 that are new.
    fn budget_percent(&self) -> usize {
        let more = if self.is_loss_heavy() { self.loss * BUDGET_PER_LOSS } else { 0.0 };
        (BUDGET_PERCENT + (more * 100.0) as usize).min(100)
    }

    fn stream(&mut self, ssrc: u32) -> Option<&mut SentStream> {
        self.streams.iter_mut().find(|stream| stream.ssrc == ssrc)
    }
}

impl SentStream {
    fn find(&mut self, number: u16) -> Option<&mut SentPacket> {
        let oldest = self.packets.front()?.number();
        self.packets.get_mut(usize::from(number.wrapping_sub(oldest)))
    }
}

impl SentPacket {
    /// A packet that leaves for the first time.
    const fn new(packet: rtp::Packet, sent_at: Instant) -> Self {
        Self {
            packet,
            sent_at,
            repeated_at: None,
            outstanding: 1,
            outstanding_after: None,
            has_arrived: false,
        }
    }

    const fn number(&self) -> u16 {
        self.packet.header.sequence_number
    }

    /// Follows what is told of one of its transmissions.
    fn follow(&mut self, number: u64, status: PacketStatus) {
        match status {
            PacketStatus::Received => self.has_arrived = true,
            PacketStatus::Lost if self.outstanding_after.is_none_or(|after| number > after) => {
                self.outstanding = self.outstanding.saturating_sub(1);
            }
            PacketStatus::Lost => {}
        }
    }

    /// Whether all its transmissions are known to be lost, and it is not too old.
    fn is_lost(&self, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.sent_at);
        self.outstanding == 0 && !self.has_arrived && age <= MAX_AGE
    }

    fn may_be_repeated(&self, round_trip: Duration, now: Instant) -> bool {
        let is_known = now.saturating_duration_since(self.sent_at) <= MAX_AGE.max(round_trip * 3);
        // Chromium asks again after the round trip that it measures. One that ours exceeds by little
        // would have to ask once more.
        let answered_for = round_trip - round_trip / 8;
        let is_answered =
            self.repeated_at.is_some_and(|at| now.saturating_duration_since(at) < answered_for);
        is_known && !is_answered
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rtc::{
        interceptor::RTCPFeedback,
        rtcp::transport_feedbacks::transport_layer_nack::nack_pairs_from_sequence_numbers,
    };

    use super::*;

    const ROUND_TRIP: Duration = Duration::from_millis(100);

    fn stream(rtx: Option<(u32, u8)>) -> StreamInfo {
        let nack = RTCPFeedback { typ: "nack".to_owned(), parameter: String::new() };
        StreamInfo {
            ssrc: 7,
            payload_type: 102,
            ssrc_rtx: rtx.map(|(ssrc, _)| ssrc),
            payload_type_rtx: rtx.map(|(_, kind)| kind),
            rtcp_feedback: vec![nack],
            ..StreamInfo::default()
        }
    }

    fn packet(sequence_number: u16, payload: usize) -> rtp::Packet {
        let header = rtp::Header { version: 2, ssrc: 7, sequence_number, ..Default::default() };
        rtp::Packet { header, payload: Bytes::from(vec![1; payload]) }
    }

    struct Fixture {
        retransmitter: Retransmitter,
        start: Instant,
    }

    impl Fixture {
        fn new(rtx: Option<(u32, u8)>) -> Self {
            let mut retransmitter = Retransmitter::default();
            retransmitter.bind(&stream(rtx));
            Self { retransmitter, start: Instant::now() }
        }

        fn send(&mut self, number: u16, payload: usize, ms: u64) {
            let now = self.start + Duration::from_millis(ms);
            self.retransmitter.on_sent(&packet(number, payload), now);
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// Notes that these packets left, under these transport-wide numbers and the following ones.
        fn number(&mut self, from: u64, packets: &[rtp::Packet]) {
            for (number, packet) in (from..).zip(packets) {
                self.retransmitter.on_numbered(packet, number);
            }
        }

        /// Reports these transport-wide numbers, or that they were lost.
        fn report(&mut self, results: &[(u64, bool)], ms: u64) -> Vec<rtp::Packet> {
            let result = |&(number, is_lost): &(u64, bool)| match is_lost {
                true => PacketResult::Lost { number },
                false => PacketResult::Received { number, arrival_us: 0 },
            };
            let results: Vec<_> = results.iter().map(result).collect();
            self.retransmitter.on_feedback(&results, self.at(ms))
        }

        fn ask(&mut self, numbers: &[u16], ms: u64) -> Vec<rtp::Packet> {
            let nacks = nack_pairs_from_sequence_numbers(numbers);
            let nack = TransportLayerNack { sender_ssrc: 1, media_ssrc: 7, nacks };
            let now = self.start + Duration::from_millis(ms);
            self.retransmitter.on_nack(&nack, Some(ROUND_TRIP), now)
        }
    }

    #[test]
    fn a_packet_is_sent_again_at_most_once_per_round_trip_and_for_a_second() {
        let mut sender = Fixture::new(None);
        sender.send(65_535, 100, 0);
        sender.send(0, 100, 5);
        assert_eq!(sender.ask(&[65_535, 1], 50), [packet(65_535, 100)]);
        assert_eq!(sender.ask(&[65_535, 0], 137), [packet(0, 100)]);
        assert_eq!(sender.ask(&[65_535, 0], 138), [packet(65_535, 100)]);
        assert_eq!(sender.ask(&[65_535], 1000).len(), 1);
        assert_eq!(sender.ask(&[65_535], 1001).len(), 0);
        assert_eq!(sender.ask(&[0], 1005).len(), 1);
    }

    #[test]
    fn on_an_rtx_stream_no_number_is_used_twice_also_after_another_negotiation() {
        let mut sender = Fixture::new(Some((9, 105)));
        sender.send(1, 100, 0);
        let mut numbers = vec![];
        for ms in [0, 100, 200] {
            let [repeat] = &sender.ask(&[1], ms)[..] else { panic!("one repeat") };
            assert_eq!((repeat.header.ssrc, &repeat.payload[..3]), (9, &[0, 1, 1][..]));
            numbers.push((repeat.header.payload_type, repeat.header.sequence_number));
            sender.retransmitter.bind(&stream(Some((9, 96))));
        }
        assert_eq!(numbers, [(105, 0), (96, 1), (96, 2)]);
    }

    #[test]
    fn repeats_are_limited_to_a_burst_and_a_share_of_what_is_new() {
        let mut sender = Fixture::new(None);
        for number in 0..200 {
            sender.send(number, 1000 - OVERHEAD, 0);
        }
        let all: Vec<_> = (0..200).collect();
        let first = sender.ask(&all, 10);
        assert_eq!(first.len(), BUDGET_BURST / 1000);
        assert_eq!(sender.ask(&all, 10).len(), 0);
        for number in 200..300 {
            sender.send(number, 1000 - OVERHEAD, 20);
        }
        assert_eq!(sender.ask(&all, 300).len(), 30);
        for number in 300..1000 {
            sender.send(number, 1000 - OVERHEAD, 310);
        }
        assert_eq!(sender.ask(&all, 500).len(), first.len(), "it does not grow beyond the burst");
    }

    #[test]
    fn what_feedback_shows_lost_is_sent_again_without_a_request_and_so_is_a_lost_repeat() {
        let mut sender = Fixture::new(Some((9, 105)));
        (1..=3).for_each(|number| sender.send(number, 100, 0));
        sender.number(10, &[packet(1, 100), packet(2, 100), packet(3, 100)]);
        let first = sender.report(&[(10, false), (11, true), (12, false)], 100);
        let repeated: Vec<_> = first.iter().map(rtx::repeated_number).collect();
        assert_eq!(repeated, [Some(2)]);
        assert_eq!(sender.ask(&[2], 110), [], "it is on its way");
        assert_eq!(sender.report(&[(11, true)], 120), [], "that is known");
        sender.number(13, &first);
        assert_eq!(sender.report(&[(13, true)], 200).len(), 1, "again");
        let third = sender.ask(&[2], 300);
        sender.number(14, &third);
        assert_eq!(sender.report(&[(13, true), (14, false)], 400), []);
        // Nothing is known of a repeat that no message names: it is asked for.
        assert_eq!(sender.ask(&[2], 500).len(), 1);
    }

    #[test]
    fn of_two_repeats_both_must_be_lost_and_what_is_old_is_left() {
        let mut sender = Fixture::new(Some((9, 105)));
        sender.retransmitter.set_loss(0.2);
        sender.send(1, 100, 0);
        sender.number(10, &[packet(1, 100)]);
        let first = sender.report(&[(10, true)], 100);
        sender.number(11, &first);
        let second = sender.report(&[(11, true)], 200);
        assert_eq!(second.len(), 2, "much is lost");
        sender.number(12, &second);
        assert_eq!(sender.report(&[(12, true)], 300), []);
        assert_eq!(sender.report(&[(13, true)], 310).len(), 2);
        sender.number(14, &second);
        assert_eq!(sender.report(&[(14, true), (15, true)], 1100), []);
    }

    #[test]
    fn the_history_is_bounded_and_ends_where_numbers_jump() {
        let mut sender = Fixture::new(None);
        (0..1025).for_each(|number| sender.send(number, 1, 0));
        assert_eq!(sender.ask(&[0, 1, 1024], 0).len(), 2);
        sender.send(2000, 1, 0);
        assert_eq!(sender.ask(&[1, 1024, 2000], 200), [packet(2000, 1)]);
    }

    #[test]
    fn padding_is_the_recent_packet_of_the_nearest_size_on_the_rtx_stream() {
        let mut sender = Fixture::new(Some((9, 105)));
        assert!(!sender.retransmitter.has_padding());
        for (number, payload) in [(1, 1000), (2, 300), (3, 600)] {
            sender.send(number, payload, 0);
        }
        assert!(sender.retransmitter.has_padding());
        let sizes = [264, 700, 1264].map(|bytes| {
            let padding = sender.retransmitter.padding(bytes).unwrap();
            assert_eq!(padding.header.ssrc, 9);
            padding.payload.len()
        });
        assert_eq!(sizes, [302, 602, 1002]);
        let mut without = Fixture::new(None);
        without.send(1, 1000, 0);
        assert!(!without.retransmitter.has_padding());
        assert_eq!(without.retransmitter.padding(1264), None);
    }

    #[test]
    fn only_streams_with_nacks_are_kept() {
        let mut sender = Fixture::new(None);
        let other = StreamInfo { ssrc: 8, ..StreamInfo::default() };
        sender.retransmitter.bind(&other);
        assert_eq!(sender.retransmitter.streams.len(), 1);
    }
}
