//! The jitter buffer of audio: which packet is decoded next, and how long packets are held.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Unwrapper,
    repair_span::RepairSpan,
    sequence::{SequenceStatus, SequenceTracker},
    target::DelayMemory,
};
use crate::{
    media::{RedundantPayload, RtpPacket, SILENT_BYTES},
    model::MediaTime,
    playback::playout_clock::ArrivalDelay,
};

/// The packets of one audio stream in order, with an adaptive delay that compensates jitter.
///
/// Holds at most [`AudioJitterBuffer::MAX_PACKETS`] packets, none larger than
/// [`AudioJitterBuffer::MAX_PACKET_BYTES`]. All positions are samples at 48 kHz.
#[derive(Debug)]
pub(crate) struct AudioJitterBuffer {
    sequence: SequenceTracker,
    timestamps: Unwrapper,
    arrival_delay: ArrivalDelay,
    held: BTreeMap<i64, Held>,
    /// The sequence numbers of padding packets, which have no payload. They do not count as lost.
    padding: BTreeSet<i64>,
    /// The position of the next packet and sample; `None` before the first packet.
    next: Option<Position>,
    /// Samples concealed while the buffer was empty, since `next` last changed.
    underrun_samples: i64,
    /// What delays were needed earlier.
    memory: DelayMemory,
    /// How long after a lost packet what repairs it comes.
    repair: RepairSpan,
    /// The maximum target delay at present, and for how many blocks another one is wanted.
    max_target: Duration,
    blocks_at_other_max: u32,
    /// The minimum target delay that the owner sets.
    floor: Duration,
    /// Whether packets are being played.
    is_started: bool,
    /// The length in samples of the packet that was decoded last.
    packet_samples: i64,
    /// The latest packets that were made up although later ones had arrived.
    made_up: VecDeque<i64>,
    /// Whether the packet that was pulled last says that nothing is sent for a while.
    is_silent: bool,
    /// When the packet arrived that was pulled last.
    pulled_arrival: Option<MediaTime>,
}

#[derive(Debug)]
struct Held {
    stamp: i64,
    arrival: MediaTime,
    payload: Bytes,
    /// Whether it came beside a later packet, because this one is lost.
    is_copy: bool,
}

#[derive(Clone, Copy, Debug)]
struct Position {
    number: i64,
    stamp: i64,
}

/// What the decoder must do next.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Pull {
    /// Decode this packet.
    Packet(Bytes),
    /// The packet before `next` is lost: decode the FEC data that `next` contains (RFC 6716,
    /// section 2.1.7), which ends where `next` begins.
    Fec {
        /// The packet after the lost one, which stays in the buffer.
        next: Bytes,
        /// The samples of the lost packet that are still to be played.
        samples: usize,
    },
    /// A packet is lost and later ones have arrived: conceal this many samples.
    Conceal(usize),
    /// Nothing is missing: the sender sends no silence (DTX). Make this many samples of comfort noise,
    /// and report them with [`AudioJitterBuffer::on_underrun`].
    Silence(usize),
    /// The buffer is empty: conceal, and report the samples with
    /// [`AudioJitterBuffer::on_underrun`].
    Empty,
}

impl AudioJitterBuffer {
    /// The most packets held: more than two seconds in packets of 20 ms.
    pub(crate) const MAX_PACKETS: usize = 128;

    /// The largest Opus packet: 120 ms in 20 ms frames of 1275 bytes, with headers.
    pub(crate) const MAX_PACKET_BYTES: usize = 8 << 10;

    /// The minimum target delay: one packet, so that two packets may arrive in reverse order.
    pub(crate) const MIN_TARGET_DELAY: Duration = Duration::from_millis(20);

    /// The maximum target delay. A longer delay harms a conversation more than losses do.
    pub(crate) const MAX_TARGET_DELAY: Duration = Duration::from_millis(200);

    /// The maximum where packets need more for several seconds: then nothing would be understood.
    pub(crate) const LONG_MAX_TARGET_DELAY: Duration = Duration::from_millis(400);

    /// The largest floor.
    pub(crate) const MAX_FLOOR: Duration = Duration::from_millis(120);

    /// For how many blocks of 10 ms a longer maximum must be needed, or not: 5 s.
    const LASTING_BLOCKS: u32 = 500;

    /// The length of a pulled block. A packet is needed up to one block before its playout time.
    const BLOCK: Duration = Duration::from_millis(10);

    /// Samples. A longer jump of the timestamps is followed, not concealed.
    const MAX_GAP: i64 = 48_000;

    pub(crate) fn new() -> Self {
        Self {
            sequence: SequenceTracker::new(),
            timestamps: Unwrapper::of_32_bits(),
            arrival_delay: ArrivalDelay::of_audio(),
            held: BTreeMap::new(),
            padding: BTreeSet::new(),
            next: None,
            underrun_samples: 0,
            memory: DelayMemory::new(),
            repair: RepairSpan::default(),
            max_target: Self::MAX_TARGET_DELAY,
            blocks_at_other_max: 0,
            floor: Duration::ZERO,
            is_started: false,
            packet_samples: 960,
            made_up: VecDeque::with_capacity(Self::MAX_MADE_UP),
            is_silent: false,
            pulled_arrival: None,
        }
    }

    /// Adds a packet. Duplicate, late and oversize packets are dropped. When the buffer is full,
    /// the oldest packet is dropped. Packets without a payload are padding (RFC 3550, section 5.1):
    /// they count as received and have no effect on audio and delay.
    pub(crate) fn push(&mut self, packet: &RtpPacket) {
        let (number, status) = self.sequence.record(packet.sequence);
        match status {
            SequenceStatus::Duplicate => return,
            SequenceStatus::New => {}
            SequenceStatus::Restarted => {
                self.held.clear();
                self.padding.clear();
                self.timestamps = Unwrapper::of_32_bits();
                self.arrival_delay = ArrivalDelay::of_audio();
                self.next = None;
            }
        }
        self.repair.on_arrival(number);
        if packet.payload.is_empty() {
            return self.record_padding(number);
        }
        let stamp = self.timestamps.unwrap(packet.timestamp);
        let delay = self.arrival_delay.record(stamp, packet.arrival);
        let is_reordered = self.sequence.has(number + 1);
        self.memory.record(delay, packet.arrival, is_reordered);
        if packet.payload.len() > Self::MAX_PACKET_BYTES {
            return;
        }
        if let Some(distance) = packet.copies.iter().map(|copy| copy.offset).max() {
            self.repair.on_copies(distance.into(), self.packet_samples);
        }
        for copy in &packet.copies {
            self.push_copy(copy, (number, stamp), packet.arrival);
        }
        if self.next.is_some_and(|next| number < next.number) {
            return self.memory.on_late(delay, packet.arrival);
        }
        if self.underrun_samples > 0 && !self.is_after_silence(stamp) {
            let needed = self.late_repair(packet, (number, stamp)).unwrap_or_default().max(delay);
            self.memory.on_late(needed + Self::BLOCK, packet.arrival);
        }
        let (arrival, payload) = (packet.arrival, packet.payload.clone());
        self.hold(number, Held { stamp, arrival, payload, is_copy: false });
    }

    /// Adds a copy of an earlier packet, which came with the packet of this number and timestamp,
    /// if that earlier packet is missing and still to be played. A packet that arrives later
    /// replaces it.
    fn push_copy(
        &mut self,
        copy: &RedundantPayload,
        (number, stamp): (i64, i64),
        arrival: MediaTime,
    ) {
        let (offset, packet) = (i64::from(copy.offset), self.packet_samples);
        let Some(next) = self.next.filter(|_| self.is_started && offset % packet == 0) else {
            return;
        };
        let (number, stamp) = (number - offset / packet, stamp - offset);
        let is_in_order = self.held.range(..number).all(|(_, held)| held.stamp < stamp)
            && self.held.range(number..).all(|(_, held)| held.stamp > stamp);
        if self.made_up.contains(&number) {
            // Had it been held for longer, the copy would have been in time.
            self.on_late_copy(stamp, arrival);
        }
        if number < next.number || stamp < next.stamp || !is_in_order || self.sequence.has(number) {
            return;
        }
        if copy.payload.len() > Self::MAX_PACKET_BYTES {
            return;
        }
        // If the next packet is there, the missing one could be had from it, and sooner.
        if !self.held.contains_key(&(number + 1)) {
            self.on_late_copy(stamp, arrival);
        }
        let payload = copy.payload.clone();
        self.hold(number, Held { stamp, arrival, payload, is_copy: true });
    }

    /// The delay with which what is due would have been had from this packet, before which none was
    /// held: from a copy in it, or from in-band FEC. `None` if it cannot be had.
    fn late_repair(&self, packet: &RtpPacket, (number, stamp): (i64, i64)) -> Option<Duration> {
        let next = self.next?;
        let is_even = stamp - next.stamp == (number - next.number) * self.packet_samples;
        let copies = packet.copies.iter().map(|copy| i64::from(copy.offset) / self.packet_samples);
        let carries_repair = |distance| (0..=1).contains(&(number - distance - next.number));
        let is_repaired = copies.chain([0]).any(carries_repair);
        let earliest = self.arrival_delay.earliest_arrival(next.stamp)?;
        (is_even && is_repaired).then(|| packet.arrival.since(earliest))
    }

    /// A copy of the packet with this timestamp is needed, and arrived at `arrival`.
    fn on_late_copy(&mut self, stamp: i64, arrival: MediaTime) {
        if let Some(earliest) = self.arrival_delay.earliest_arrival(stamp) {
            self.memory.on_late(arrival.since(earliest) + Self::BLOCK, arrival);
        }
    }

    fn hold(&mut self, number: i64, held: Held) {
        self.held.insert(number, held);
        if self.held.len() > Self::MAX_PACKETS {
            self.held.pop_first();
        }
    }

    /// Whether playout may start: the first packet has been held for the target delay.
    pub(crate) fn is_ready(&self, now: MediaTime) -> bool {
        let first = self.held.first_key_value().map(|(_, held)| held.stamp);
        let earliest = first.and_then(|stamp| self.arrival_delay.earliest_arrival(stamp));
        earliest.is_some_and(|earliest| now >= earliest + self.target_delay())
    }

    /// Starts playout at the first packet held, regardless of the previous position.
    pub(crate) fn start(&mut self) {
        self.is_started = true;
        if let Some((&number, held)) = self.held.first_key_value() {
            self.set_next(number, held.stamp);
        }
    }

    /// Ends playout: what comes next is played after a new [`Self::start`].
    pub(crate) const fn stop(&mut self) {
        self.is_started = false;
    }

    /// What to decode next, after everything returned before has been used.
    pub(crate) fn pull(&mut self) -> Pull {
        let Some((&number, held)) = self.held.first_key_value() else {
            let is_silent = self.is_silent();
            return if is_silent { Pull::Silence(Self::SILENCE_SAMPLES) } else { Pull::Empty };
        };
        let (stamp, next) =
            (held.stamp, self.next.unwrap_or(Position { number, stamp: held.stamp }));
        // Samples that were concealed before the loss was known belong to the gap.
        let gap = stamp - next.stamp - self.underrun_samples;
        if self.is_silent() && (1..=Self::MAX_GAP).contains(&gap) {
            return Pull::Silence(gap.min(Self::SILENCE_SAMPLES as i64) as usize);
        }
        if self.is_loss(next.number..number) && (1..=Self::MAX_GAP).contains(&gap) {
            self.repair.on_missing(next.number);
            let packet = self.packet_samples.max(Self::TYPICAL_PACKET);
            if gap > packet {
                let lost = (gap - packet).min(packet);
                self.set_next(next.number, next.stamp + self.underrun_samples + lost);
                return Pull::Conceal(lost as usize);
            }
            let next = held.payload.clone();
            self.set_next(number, stamp);
            return Pull::Fec { next, samples: gap as usize };
        }
        let Some((number, held)) = self.held.pop_first() else { return Pull::Empty };
        if held.is_copy {
            self.repair.on_missing(number);
        }
        self.set_next(number + 1, held.stamp);
        self.pulled_arrival = Some(held.arrival);
        self.is_silent = held.payload.len() <= SILENT_BYTES;
        Pull::Packet(held.payload)
    }

    /// Whether the sender is known to send no silence. It sends something each 400 ms.
    fn is_silent(&self) -> bool {
        self.is_silent && self.underrun_samples < Self::MAX_SILENCE
    }

    /// Whether a packet with this timestamp ends a silence that was not sent, and is in time.
    fn is_after_silence(&self, stamp: i64) -> bool {
        let is_in_time = |next: Position| stamp >= next.stamp + self.underrun_samples;
        self.is_silent() && self.next.is_some_and(is_in_time)
    }

    /// The samples that a silence is played in steps of: 10 ms.
    const SILENCE_SAMPLES: usize = 480;

    /// For so long nothing may come in a silence: one packet may be lost.
    const MAX_SILENCE: i64 = 48_000;

    /// How long the packet was held that [`Self::pull`] returned last.
    pub(crate) fn held_for(&self, now: MediaTime) -> Duration {
        self.pulled_arrival.map_or(Duration::ZERO, |arrival| now.since(arrival))
    }

    /// Samples of the usual packet, 20 ms. FEC recovers one packet at most.
    const TYPICAL_PACKET: i64 = 960;

    /// Advances the position by the length in samples of the packet that [`Self::pull`] returned.
    pub(crate) fn advance(&mut self, samples: usize) {
        if let Some(next) = &mut self.next {
            next.stamp += samples as i64;
        }
        self.packet_samples = (samples as i64).max(1);
    }

    /// Records that the packet before the next one was made up, because the next one has no FEC data.
    pub(crate) fn on_made_up(&mut self) {
        if let Some(next) = self.next {
            if self.made_up.len() == Self::MAX_MADE_UP {
                self.made_up.pop_front();
            }
            self.made_up.push_back(next.number - 1);
        }
    }

    /// Packets for which a copy may still come.
    const MAX_MADE_UP: usize = 8;

    /// Records that this many samples were concealed because the buffer was empty.
    pub(crate) fn on_underrun(&mut self, samples: usize) {
        if self.next.is_some() {
            self.underrun_samples += samples as i64;
        }
    }

    /// Drops packets down to the target delay if the excess is too large for faster playout, for
    /// example after the network or this machine was blocked.
    pub(crate) fn catch_up(&mut self, now: MediaTime) {
        let limit = self.target_delay() + Self::SKIP_THRESHOLD;
        while self.held.len() > 1 {
            let Some((&number, held)) = self.held.first_key_value() else { return };
            let Some(earliest) = self.arrival_delay.earliest_arrival(held.stamp) else { return };
            if now.since(earliest) <= limit {
                return;
            }
            self.held.pop_first();
            let next = self.held.first_key_value().map(|(number, held)| (*number, held.stamp));
            let (number, stamp) = next.unwrap_or((number + 1, 0));
            self.set_next(number, stamp);
        }
    }

    /// Audio that exceeds the target delay by more than this is skipped, not played faster.
    const SKIP_THRESHOLD: Duration = Duration::from_millis(400);

    /// The delay of the next sample minus the target delay, in microseconds. `ahead` is the number
    /// of decoded samples that are not yet played.
    pub(crate) fn excess_delay(&self, now: MediaTime, ahead: usize) -> Option<i64> {
        // Comfort noise takes the time of what was not sent.
        let silence = if self.is_silent() { self.underrun_samples } else { 0 };
        let stamp = self.next?.stamp + silence - ahead as i64;
        let earliest = self.arrival_delay.earliest_arrival(stamp)?;
        let waited = now.as_micros() as i64 - earliest.as_micros() as i64;
        Some(waited - self.target_delay().as_micros() as i64)
    }

    /// The RTP timestamp of the next sample to be played. `ahead` is the number of decoded samples that
    /// are not yet played.
    pub(crate) fn position(&self, ahead: usize) -> Option<u32> {
        Some((self.next?.stamp + self.underrun_samples - ahead as i64) as u32)
    }

    /// The target delay relative to the fastest packet.
    pub(crate) fn target_delay(&self) -> Duration {
        // What repairs a loss may be late, too.
        let repaired = self.usual_delay() + self.repair.span();
        let delay = repaired.max(self.memory.delay()).max(self.floor);
        delay.clamp(Self::MIN_TARGET_DELAY, self.max_target)
    }

    /// What the packets of the last second need.
    fn usual_delay(&self) -> Duration {
        self.arrival_delay.quantile(0.97) + Self::BLOCK
    }

    /// Sets the minimum of the target delay, for lip sync; at most [`Self::MAX_FLOOR`].
    pub(crate) fn set_floor(&mut self, floor: Duration) {
        self.floor = floor.min(Self::MAX_FLOOR);
    }

    /// Fades what is remembered of delays by the time of one block.
    pub(crate) fn fade_memory(&mut self) {
        self.memory.fade();
        self.repair.on_block(self.packet_samples);
        let (usual, max) = (Self::MAX_TARGET_DELAY, Self::LONG_MAX_TARGET_DELAY);
        let wanted = if self.usual_delay() > usual { max } else { usual };
        self.blocks_at_other_max =
            if wanted == self.max_target { 0 } else { self.blocks_at_other_max + 1 };
        if self.blocks_at_other_max >= Self::LASTING_BLOCKS {
            (self.max_target, self.blocks_at_other_max) = (wanted, 0);
        }
    }

    /// Whether no packet is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Packets that arrived, without duplicates.
    pub(crate) const fn received(&self) -> u64 {
        self.sequence.received()
    }

    /// Packets that did not arrive.
    pub(crate) const fn lost(&self) -> u64 {
        self.sequence.lost()
    }

    fn set_next(&mut self, number: i64, stamp: i64) {
        self.next = Some(Position { number, stamp });
        self.underrun_samples = 0;
        self.padding = self.padding.split_off(&number);
    }

    fn record_padding(&mut self, number: i64) {
        self.padding.insert(number);
        if self.padding.len() > Self::MAX_PACKETS {
            self.padding.pop_first();
        }
    }

    /// Whether any of these sequence numbers is a lost packet, not padding. None of them is held.
    fn is_loss(&self, numbers: Range<i64>) -> bool {
        if numbers.is_empty() {
            return false;
        }
        let padding = self.padding.range(numbers.clone()).count() as i64;
        numbers.end - numbers.start > padding
    }
}

#[cfg(test)]
mod tests;
