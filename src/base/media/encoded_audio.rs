//! Encoded audio: each packet is encoded once, packed once for each level of redundancy, and shared by
//! all its senders.

use std::{collections::VecDeque, sync::OnceLock, time::Duration};

use bytes::Bytes;

use super::{AudioLevel, Keyframe, has_fec};
use crate::model::{AudioLayer, MediaTime};

/// One Opus packet (RFC 6716).
#[derive(Debug)]
pub struct EncodedAudio {
    /// The capture time of the first sample.
    pub time: MediaTime,
    /// The index of the first sample since the source started, at 48 kHz, the RTP clock rate of
    /// audio.
    pub sample: u64,
    /// The packet's bytes.
    pub data: Bytes,
    /// The level of what is in it; `None` if it was not measured.
    pub level: Option<AudioLevel>,
    /// The layer that it belongs to, which says how long it is.
    pub layer: AudioLayer,
    /// The packet before this one, if this one has no in-band FEC of it, and the packets two and four
    /// before.
    copies: [Option<AudioCopy>; 3],
    /// The packet packed for each level, each with the payload type that it was packed for.
    packed: [OnceLock<(u8, Bytes)>; 3],
}

/// An earlier packet that is sent again beside a later one.
#[derive(Clone, Debug)]
pub struct AudioCopy {
    /// The index of its first sample.
    pub sample: u64,
    /// Its bytes.
    pub data: Bytes,
}

/// Which copies of earlier packets a packet has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Redundancy {
    /// None.
    #[default]
    None,
    /// The packet before, where in-band FEC is missing: Opus makes it of voices only.
    Fill,
    /// The same, and the packet two before.
    One,
    /// The same, and the packet four before.
    Two,
}

/// How many packets before a packet the copies in it are. The copy of packet n has the in-band FEC of
/// packet n - 1 in it, so each packet can be had from four others.
const DISTANCES: [usize; 3] = [1, 2, 4];

/// A packet up to this length is a silent one, of which no copy is worth its header: discontinuous
/// transmission ends with such packets (RFC 7587, section 3.1.3).
pub const SILENT_BYTES: usize = 2;

/// An Opus packet of 20 ms of silence: the configuration (CELT, full band, mono, one frame; RFC
/// 6716, section 3.1), and a frame that begins with the silence flag (section 4.3).
const SILENT_PACKET: &[u8] = &[31 << 3, 0xff, 0xfe];

impl EncodedAudio {
    /// A packet of the standard layer without copies of earlier ones; [`RecentAudio`] adds them.
    pub fn new(time: MediaTime, sample: u64, data: Bytes) -> Self {
        let copies = [const { None }; 3];
        let layer = AudioLayer::Standard;
        Self { time, sample, data, level: None, layer, copies, packed: Default::default() }
    }

    /// The same packet, of that layer.
    #[must_use]
    pub fn of_layer(self, layer: AudioLayer) -> Self {
        Self { layer, ..self }
    }

    /// A packet of silence that follows this one. It is 20 ms long.
    pub fn silence_after(&self) -> Self {
        let length = self.layer.packet_samples();
        let (time, sample) = (self.time + self.layer.packet_time(), self.sample + length);
        let level = Some(AudioLevel::SILENCE);
        Self { level, ..Self::new(time, sample, Bytes::from_static(SILENT_PACKET)) }
    }

    /// Which of the copies a peer may get that was sent so much before this packet: what was before
    /// that may be what was muted.
    pub const fn redundancy_within(&self, redundancy: Redundancy, sent: Duration) -> Redundancy {
        redundancy.within((sent.as_micros() / self.layer.packet_time().as_micros()) as usize)
    }

    /// The packet with copies of earlier ones, packed by `pack` for this payload type. The first
    /// caller packs it, all others share the result. Returns `None` if there is no copy at that level.
    ///
    /// The copies are of what was captured, also where it was not sent: a sender asks only for
    /// copies of what it has sent before.
    pub fn packed(
        &self,
        redundancy: Redundancy,
        payload_type: u8,
        pack: impl Fn(&Bytes, u64, &[&AudioCopy], u8) -> Bytes,
    ) -> Option<Bytes> {
        let count = redundancy as usize;
        let shared = &self.packed[count.checked_sub(1)?];
        self.copies[..count].iter().any(Option::is_some).then_some(())?;
        // Oldest first.
        let copies: Vec<_> = self.copies[..count].iter().rev().flatten().collect();
        let pack = || (payload_type, pack(&self.data, self.sample, &copies, payload_type));
        let (packed_for, packed) = shared.get_or_init(pack);
        // Peers that use another type are rare.
        Some(if *packed_for == payload_type { packed.clone() } else { pack().1 })
    }
}

impl Keyframe for EncodedAudio {
    /// Every Opus packet can be decoded on its own.
    fn is_keyframe(&self) -> bool {
        true
    }

    fn audio_layer(&self) -> AudioLayer {
        self.layer
    }
}

impl Redundancy {
    /// All levels.
    pub const ALL: [Self; 4] = [Self::None, Self::Fill, Self::One, Self::Two];

    /// The highest level up to this one that has no copy older than the newest `sent` packets.
    #[must_use]
    pub const fn within(self, sent: usize) -> Self {
        match self {
            Self::Two if sent >= DISTANCES[2] => Self::Two,
            Self::One | Self::Two if sent >= DISTANCES[1] => Self::One,
            Self::Fill | Self::One | Self::Two if sent >= DISTANCES[0] => Self::Fill,
            Self::None | Self::Fill | Self::One | Self::Two => Self::None,
        }
    }
}

/// The newest packets of an encoder.
#[derive(Debug, Default)]
pub struct RecentAudio {
    packets: VecDeque<AudioCopy>,
}

impl RecentAudio {
    /// Returns the next packet, with copies of earlier ones.
    pub fn next_packet(&mut self, time: MediaTime, sample: u64, data: Bytes) -> EncodedAudio {
        let at = |distance: usize| {
            let index = self.packets.len().checked_sub(distance)?;
            let copy = self.packets.get(index).filter(|copy| copy.data.len() > SILENT_BYTES);
            copy.filter(|_| distance > 1 || !has_fec(&data)).cloned()
        };
        let copies = DISTANCES.map(at);
        self.packets.push_back(AudioCopy { sample, data: data.clone() });
        if self.packets.len() > DISTANCES[2] {
            self.packets.pop_front();
        }
        EncodedAudio { copies, ..EncodedAudio::new(time, sample, data) }
    }

    /// The next packet is not sent: later ones have no copies of those before.
    pub fn forget(&mut self) {
        self.packets.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A packet of three bytes that has no in-band FEC, or has it: a SILK frame of 20 ms with its flag.
    fn data(n: u8, has_fec: bool) -> Bytes {
        vec![if has_fec { 9 << 3 } else { 31 << 3 }, 0x40, n].into()
    }

    /// The numbers of the copies, the packet's own, and before them the payload type.
    fn pack(newest: &Bytes, _: u64, copies: &[&AudioCopy], payload_type: u8) -> Bytes {
        let copies = copies.iter().map(|copy| copy.data[2]);
        [payload_type].into_iter().chain(copies).chain([newest[2]]).collect()
    }

    #[test]
    fn packets_are_packed_once_for_each_level_with_copies_at_all_distances() {
        let (mut recent, time) = (RecentAudio::default(), MediaTime::default());
        let packets: Vec<_> = (0..6_u8)
            .map(|n| recent.next_packet(time, u64::from(n) * 960, data(n, false)))
            .collect();
        let calls = Cell::new(0);
        let counted = |newest: &Bytes, sample, copies: &[&AudioCopy], payload_type| {
            calls.set(calls.get() + 1);
            pack(newest, sample, copies, payload_type)
        };
        let packed =
            |n: usize, level, payload_type| packets[n].packed(level, payload_type, counted);
        assert_eq!(packed(5, Redundancy::None, 111), None);
        for _ in 0..2 {
            assert_eq!(packed(5, Redundancy::Fill, 111).unwrap(), [111, 4, 5].as_slice());
            assert_eq!(packed(5, Redundancy::One, 111).unwrap(), [111, 3, 4, 5].as_slice());
            assert_eq!(packed(5, Redundancy::Two, 111).unwrap(), [111, 1, 3, 4, 5].as_slice());
        }
        assert_eq!(calls.get(), 3);
        assert_eq!(packed(5, Redundancy::One, 96).unwrap(), [96, 3, 4, 5].as_slice());
        assert_eq!(packed(3, Redundancy::Two, 111).unwrap(), [111, 1, 2, 3].as_slice());
        assert_eq!(packed(0, Redundancy::Two, 111), None, "it is sent as it is");
    }

    #[test]
    fn in_band_fec_replaces_the_copy_of_the_packet_before_and_silence_has_none() {
        let (mut recent, time) = (RecentAudio::default(), MediaTime::default());
        let mut next = |data| recent.next_packet(time, 0, data);
        let packed = |packet: &EncodedAudio, level| packet.packed(level, 111, pack);
        assert!(has_fec(&data(0, true)) && !has_fec(&data(0, false)));
        next(data(0, false));
        let with_fec = next(data(1, true));
        assert_eq!(packed(&with_fec, Redundancy::Fill), None);
        let with_fec = next(data(2, true));
        assert_eq!(packed(&with_fec, Redundancy::Fill), None);
        assert_eq!(packed(&with_fec, Redundancy::One).unwrap(), [111, 0, 2].as_slice());
        next(vec![31 << 3, 0].into());
        let after_silence = next(data(4, false));
        assert_eq!(packed(&after_silence, Redundancy::Fill), None);
        assert_eq!(packed(&after_silence, Redundancy::One).unwrap(), [111, 2, 4].as_slice());
    }

    #[test]
    fn copies_are_only_of_what_was_sent() {
        let within = |level: Redundancy| [0, 1, 2, 3, 4].map(|sent| level.within(sent));
        use Redundancy::{Fill, None, One, Two};
        assert_eq!(within(Two), [None, Fill, One, One, Two]);
        assert_eq!(within(One), [None, Fill, One, One, One]);
        assert_eq!(within(Fill), [None, Fill, Fill, Fill, Fill]);
        assert_eq!(within(None), [None; 5]);
    }
}
