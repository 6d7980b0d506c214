//! The pacer: spreads packets over time, so that a frame is no burst that fills a queue.

use std::{collections::VecDeque, time::Duration};

use super::{
    ClusterId, Content, Pacing, PacingRate, PacketClass, ProbeCluster, Pushed, Release,
    video_queue::VideoQueue,
};
use crate::model::MediaTime;

/// Decides when each packet of one peer connection leaves.
///
/// Packets leave in the order of their classes. Audio never waits. The others leave in quanta of
/// three packets, one run of generic segmentation offload, at a multiple of the target: a fraction
/// of a frame's interval is left for what comes late. How many and how fast depends on what is known
/// of the path ([`Pacing`]). `T` is the packet; the pacer only stores it.
///
/// A probe takes what is queued, one packet at a time at its own rate, and asks for padding where
/// there is nothing.
#[derive(Debug)]
pub struct Pacer<T> {
    audio: VecDeque<Queued<T>>,
    audio_retransmissions: VecDeque<Queued<T>>,
    video_retransmissions: VecDeque<Queued<T>>,
    video: VideoQueue<T>,
    probes: VecDeque<RunningProbe>,
    rate: PacingRate,
    quantum: Quantum,
    /// The packets that still leave at once at the start.
    window: u32,
    /// The departure time that the newest packet was given.
    stamp: MediaTime,
}

/// A packet that waits, and its bytes on the wire.
#[derive(Debug)]
pub(super) struct Queued<T> {
    pub(super) bytes: u32,
    pub(super) item: T,
}

#[derive(Debug)]
struct RunningProbe {
    cluster: ProbeCluster,
    sent_bytes: u32,
    sent_packets: u32,
}

impl RunningProbe {
    const fn is_complete(&self) -> bool {
        self.sent_bytes >= self.cluster.bytes && self.sent_packets >= self.cluster.packets
    }
}

/// The packets that left last, and what follows from them.
#[derive(Clone, Copy, Debug, Default)]
struct Quantum {
    started_at: MediaTime,
    packets: u32,
    bytes: u32,
    /// When the next one may leave.
    ends_at: MediaTime,
    /// The bytes of padding that was asked for last.
    padding: u32,
}

/// The most video that waits, counted at the target rate. A second of a full queue helps nobody:
/// what comes out is late.
const MAX_QUEUED_VIDEO: Duration = Duration::from_millis(350);

/// How long a quantum takes further packets: those of one frame are pushed one after another.
const QUANTUM_SPAN: Duration = Duration::from_millis(1);

/// The packets that leave at once at the start, as those of a TCP connection (RFC 6928): most of the
/// first picture. Paced at the first estimate it would take a tenth of a second.
const INITIAL_WINDOW: u32 = 10;

/// How far above the target keyframes leave where the queue overflows: faster sending moves their
/// queue there and gains nothing. Elsewhere frames that wait behind a keyframe would be late for longer.
const KEYFRAME_FACTOR: f64 = 1.25;

/// The most packets in a queue of audio or of retransmissions: half a second of 1000 packets.
const MAX_QUEUED_PACKETS: usize = 512;

/// The most probes that wait.
const MAX_PROBES: usize = 4;

/// The bytes of a padding packet on the wire. Five of full size are 340 ms of queue at 150 kbit/s.
const PADDING_BYTES: (u32, u32) = (264, 1264);

impl<T> Pacer<T> {
    /// A pacer without packets.
    pub fn new(rate: PacingRate) -> Self {
        Self {
            audio: VecDeque::new(),
            audio_retransmissions: VecDeque::new(),
            video_retransmissions: VecDeque::new(),
            video: VideoQueue::default(),
            probes: VecDeque::new(),
            rate,
            quantum: Quantum::default(),
            window: INITIAL_WINDOW,
            stamp: MediaTime::default(),
        }
    }

    /// Sets how fast packets leave from the next quantum on.
    pub const fn set_rate(&mut self, rate: PacingRate) {
        self.rate = rate;
    }

    /// Adds a packet of so many bytes on the wire.
    pub fn push(&mut self, class: PacketClass, bytes: u32, item: T) -> Pushed {
        let queued = Queued { bytes, item };
        let queue = match class {
            PacketClass::Audio => &mut self.audio,
            PacketClass::AudioRetransmission => &mut self.audio_retransmissions,
            PacketClass::VideoRetransmission => &mut self.video_retransmissions,
            PacketClass::Video(part) => {
                let target = self.rate.target.as_bps() as f64;
                let most = (target * MAX_QUEUED_VIDEO.as_secs_f64() / 8.0) as u64;
                return self.video.push(part, queued, most);
            }
        };
        if queue.len() >= MAX_QUEUED_PACKETS {
            return Pushed::Dropped;
        }
        queue.push_back(queued);
        Pushed::Queued
    }

    /// Adds a probe. It is dropped if several wait already.
    pub fn push_probe(&mut self, cluster: ProbeCluster) {
        if self.probes.len() < MAX_PROBES {
            self.probes.push_back(RunningProbe { cluster, sent_bytes: 0, sent_packets: 0 });
        }
    }

    /// Returns what leaves now; to be called until it returns nothing.
    pub fn poll(&mut self, now: MediaTime) -> Option<Release<T>> {
        if let Some(audio) = self.audio.pop_front() {
            // A probe measures all that leaves during it.
            let has_begun = self.probes.front().is_some_and(|probe| probe.sent_packets > 0);
            let cluster = if has_begun { self.count_in_probe(audio.bytes) } else { None };
            let at = self.stamped(now);
            return Some(Release { content: Content::Packet(audio.item), at, cluster });
        }
        // Not earlier: the size of its last padding may have been corrected.
        if self.probes.front().is_some_and(RunningProbe::is_complete) {
            self.probes.pop_front();
        }
        if self.probes.is_empty() { self.poll_media(now) } else { self.poll_probe(now) }
    }

    /// When [`Self::poll`] returns something, which may be in the past; `None` while nothing waits.
    pub fn poll_timeout(&self) -> Option<MediaTime> {
        if !self.audio.is_empty() {
            return Some(MediaTime::default());
        }
        let probes = self.probes.iter().any(|probe| !probe.is_complete());
        let is_at_once = self.window > 0 && self.rate.pacing == Pacing::Starting;
        let waits = probes || !self.is_media_empty();
        waits.then_some(if is_at_once { MediaTime::default() } else { self.quantum.ends_at })
    }

    /// How long the queued video takes at the target rate, without what belongs to a keyframe.
    pub fn queued_video(&self) -> Duration {
        time_to_send(self.video.delta_bytes(), self.rate.target.as_bps() as f64)
    }

    /// Corrects the bytes of the padding that was asked for last.
    pub fn on_padding_sent(&mut self, bytes: u32) {
        let asked = std::mem::take(&mut self.quantum.padding);
        if let Some(probe) = self.probes.front_mut().filter(|_| asked > 0) {
            probe.sent_bytes = (probe.sent_bytes + bytes).saturating_sub(asked);
            let rate = probe.cluster.rate.as_bps() as f64;
            self.quantum.ends_at = self.quantum.started_at + time_to_send(bytes.into(), rate);
        }
    }

    /// The next packets of a quantum, in the order of their classes.
    fn poll_media(&mut self, now: MediaTime) -> Option<Release<T>> {
        if self.window > 0 && self.rate.pacing == Pacing::Starting {
            return self.poll_window(now);
        }
        let (bps, quantum_packets) = self.media_rate();
        let may_start = now >= self.quantum.ends_at;
        let may_continue = self.quantum.packets < quantum_packets
            && now.since(self.quantum.started_at) < QUANTUM_SPAN;
        if !may_start && !may_continue {
            return None;
        }
        let queued = self.pop_media()?;
        if may_start {
            self.quantum = Quantum { started_at: now, ..Quantum::default() };
        }
        self.count_in_quantum(queued.bytes, bps);
        let at = self.stamped(now);
        Some(Release { content: Content::Packet(queued.item), at, cluster: None })
    }

    /// How fast the next packet leaves, and how many at once. A keyframe may have fifty packets: where the
    /// path has just room for other frames at once, it would overrun a short queue, and the audio in it.
    /// So would the frames that wait behind it, all at once.
    fn media_rate(&self) -> (f64, u32) {
        let pacing = match self.rate.pacing {
            Pacing::Ample if self.video.follows_keyframe() || self.video.is_keyframe_next() => {
                Pacing::Starting
            }
            Pacing::Shallow if self.video.is_keyframe_next() => {
                let bps = KEYFRAME_FACTOR * self.rate.target.as_bps() as f64;
                return (bps, self.rate.pacing.quantum_packets());
            }
            Pacing::Starting | Pacing::Free | Pacing::Ample | Pacing::Limited | Pacing::Shallow => {
                self.rate.pacing
            }
        };
        (PacingRate { pacing, ..self.rate }.bps(), pacing.quantum_packets())
    }

    /// The next packet of the initial window. What follows it waits as long as one packet takes.
    fn poll_window(&mut self, now: MediaTime) -> Option<Release<T>> {
        let queued = self.pop_media()?;
        self.window -= 1;
        let packets = self.rate.pacing.quantum_packets() - 1;
        self.quantum = Quantum { started_at: now, packets, ..Quantum::default() };
        self.count_in_quantum(queued.bytes, self.rate.bps());
        let at = self.stamped(now);
        Some(Release { content: Content::Packet(queued.item), at, cluster: None })
    }

    /// The next packet of the probe at the head: one that waits, or padding.
    fn poll_probe(&mut self, now: MediaTime) -> Option<Release<T>> {
        if now < self.quantum.ends_at {
            return None;
        }
        let cluster = self.probes.front()?.cluster;
        let (bytes, content, padding) = match self.pop_media() {
            Some(queued) => (queued.bytes, Content::Packet(queued.item), 0),
            None => {
                let (least, most) = PADDING_BYTES;
                let bytes = (cluster.bytes / cluster.packets.max(1)).clamp(least, most);
                (bytes, Content::Padding(bytes), bytes)
            }
        };
        self.quantum = Quantum { started_at: now, padding, ..Quantum::default() };
        self.count_in_quantum(bytes, cluster.rate.as_bps() as f64);
        // A probe is no group of its own: each packet has its own departure time.
        self.stamp = self.stamp.max(now);
        let cluster = self.count_in_probe(bytes);
        Some(Release { content, at: self.stamp, cluster })
    }

    fn pop_media(&mut self) -> Option<Queued<T>> {
        let retransmitted = || self.video_retransmissions.pop_front();
        let first = self.audio_retransmissions.pop_front().or_else(retransmitted);
        first.or_else(|| self.video.pop())
    }

    fn is_media_empty(&self) -> bool {
        self.audio_retransmissions.is_empty()
            && self.video_retransmissions.is_empty()
            && self.video.is_empty()
    }

    fn count_in_quantum(&mut self, bytes: u32, bps: f64) {
        let quantum = &mut self.quantum;
        quantum.packets += 1;
        quantum.bytes += bytes;
        quantum.ends_at = quantum.started_at + time_to_send(quantum.bytes.into(), bps);
    }

    /// Counts a packet as part of the probe at the head.
    fn count_in_probe(&mut self, bytes: u32) -> Option<ClusterId> {
        let probe = self.probes.front_mut()?;
        probe.sent_bytes += bytes;
        probe.sent_packets += 1;
        Some(probe.cluster.id)
    }

    fn stamped(&mut self, now: MediaTime) -> MediaTime {
        if now.since(self.stamp) >= QUANTUM_SPAN {
            self.stamp = now;
        }
        self.stamp
    }
}

/// The time that so many bytes take at a rate; at most a second.
fn time_to_send(bytes: u64, bps: f64) -> Duration {
    Duration::from_secs_f64((bytes as f64 * 8.0 / bps.max(1.0)).min(1.0))
}

#[cfg(test)]
mod tests;
