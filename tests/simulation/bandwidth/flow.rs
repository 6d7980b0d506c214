//! A sender with an encoder, the pacer and the estimator, and its receiver.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use quintet::{
    bandwidth::{
        BandwidthEstimator, ClusterId, Content, FeedbackReport, FramePart, Pacer, PacketClass,
        PacketKind, PacketResult, Pushed, Release, SentPacket,
    },
    model::{Bitrate, MediaTime},
};

use super::network::{Link, seconds};
use crate::rng::SeededRng;

/// What a flow does.
#[derive(Clone)]
pub(crate) struct FlowSetup {
    /// The seconds in which it sends.
    pub(crate) active: Range<f64>,
    /// The seconds in which it pauses altogether.
    pub(crate) pause: Range<f64>,
    /// The seconds in which it sends video; audio it sends always.
    pub(crate) video: Range<f64>,
    /// The bounds of the encoder, in bits per second.
    pub(crate) encoder: Range<f64>,
    /// What it would use at most.
    pub(crate) desired: f64,
    /// The delay of reports.
    pub(crate) return_delay: Duration,
    pub(crate) feedback_interval: Duration,
    /// The part of the reports that are lost.
    pub(crate) feedback_loss: f64,
    /// The seconds in which all reports are lost.
    pub(crate) deaf: Range<f64>,
    /// The links of the packets and of the reports.
    pub(crate) links: (usize, Option<usize>),
    /// Whether it encodes at 65 % of its target.
    pub(crate) is_shy: bool,
    /// Whether it may probe.
    pub(crate) may_probe: bool,
    /// The bytes of the keyframe that it sends each three seconds; 0 if it sends none.
    pub(crate) keyframe: u32,
}

impl FlowSetup {
    /// A camera and a microphone for so long: 150 to 1500 kbit/s, a round trip of 100 ms, and a
    /// report each 100 ms.
    pub(crate) fn new(until: f64) -> Self {
        Self {
            active: 0.0..until,
            pause: 0.0..0.0,
            video: 0.0..until,
            encoder: 150e3..1.5e6,
            desired: 1.71e6,
            return_delay: Duration::from_millis(50),
            feedback_interval: Duration::from_millis(100),
            feedback_loss: 0.0,
            deaf: 0.0..0.0,
            links: (0, None),
            is_shy: false,
            may_probe: true,
            keyframe: 0,
        }
    }

    pub(crate) fn max_video(mut self, bps: f64) -> Self {
        self.encoder.end = bps;
        self.desired = bps * 1.1 + 60e3;
        self
    }
}

pub(crate) struct Flow {
    pub(crate) setup: FlowSetup,
    pub(crate) estimator: BandwidthEstimator,
    pacer: Pacer<Packet>,
    rng: SeededRng,
    next_number: u64,
    /// What arrived since the last report, and the number that follows the last one reported.
    arrived: BTreeMap<u64, MediaTime>,
    reported_to: u64,
    /// Time, bytes, and whether it is media.
    pub(crate) sent: Vec<(f64, u32, bool)>,
    pub(crate) received: Vec<(f64, u32, bool)>,
    /// The target and the queue after each report.
    pub(crate) targets: Vec<(f64, f64, f64)>,
    pub(crate) probes: u32,
    frames: u32,
}

/// A packet in the pacer.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    bytes: u32,
    kind: PacketKind,
}

/// A packet that arrives.
pub(crate) struct Arrival {
    pub(crate) at: MediaTime,
    pub(crate) number: u64,
    pub(crate) bytes: u32,
    pub(crate) is_media: bool,
}

/// RTP with its extension, SRTP, UDP and IP.
const OVERHEAD: u32 = 64;

/// An audio packet on the wire.
pub(crate) const AUDIO_BYTES: u32 = 100 + OVERHEAD;

impl Flow {
    pub(crate) fn new(setup: FlowSetup, seed: u64) -> Self {
        let bounds = Bitrate::from_kbps(50)..=Bitrate::from_kbps(4000);
        let mut estimator = BandwidthEstimator::new(Bitrate::from_kbps(300), bounds);
        estimator.set_desired(Bitrate::from_bps(setup.desired as u64));
        estimator.set_may_probe(setup.may_probe);
        let pacer = Pacer::new(estimator.estimate().pacing_rate());
        Self {
            setup,
            estimator,
            pacer,
            rng: SeededRng::new(seed),
            next_number: 1,
            arrived: BTreeMap::new(),
            reported_to: 0,
            sent: vec![],
            received: vec![],
            targets: vec![],
            probes: 0,
            frames: 0,
        }
    }

    pub(crate) fn is_active(&self, now: MediaTime) -> bool {
        let at = seconds(now);
        self.setup.active.contains(&at) && !self.setup.pause.contains(&at)
    }

    /// Encodes a frame, 30 each second.
    pub(crate) fn encode_frame(&mut self, now: MediaTime) {
        let estimate = self.estimator.estimate();
        let is_late = self.pacer.queued_video() > Duration::from_millis(350);
        if !self.is_active(now) || !self.setup.video.contains(&seconds(now)) || is_late {
            return;
        }
        self.frames += 1;
        let is_keyframe = self.setup.keyframe > 0 && self.frames.is_multiple_of(90);
        let (frame, start) = if is_keyframe {
            (f64::from(self.setup.keyframe), FramePart::KeyframeStart)
        } else {
            (self.delta_frame_bytes(estimate.target), FramePart::FrameStart)
        };
        let packets = (frame / 1200.0).ceil().max(1.0);
        for index in 0..packets as u32 {
            let part = if index == 0 { start } else { FramePart::Continuation };
            let bytes = (frame / packets) as u32 + OVERHEAD;
            self.push(PacketClass::Video(part), Packet { bytes, kind: PacketKind::Video });
        }
    }

    fn delta_frame_bytes(&mut self, target: Bitrate) -> f64 {
        let target = target.as_bps() as f64;
        let share = if self.setup.is_shy { 0.65 * target } else { 0.95 * target - 50e3 };
        let Range { start, end } = self.setup.encoder;
        let scale = (1.0 + 0.15 * self.rng.normal()).clamp(0.5, 1.8);
        0.93 * share.clamp(start, end) / 30.0 / 8.0 * scale
    }

    /// Encodes 20 ms of audio.
    pub(crate) fn encode_audio(&mut self, now: MediaTime) {
        if self.is_active(now) {
            self.push(PacketClass::Audio, Packet { bytes: AUDIO_BYTES, kind: PacketKind::Audio });
        }
    }

    fn push(&mut self, class: PacketClass, packet: Packet) {
        assert_eq!(self.pacer.push(class, packet.bytes, packet), Pushed::Queued);
    }

    /// Sends what may leave now. Returns what arrives later.
    pub(crate) fn drive(&mut self, link: &mut Link, now: MediaTime) -> Vec<Arrival> {
        while let Some(cluster) = self.estimator.poll(now) {
            self.pacer.push_probe(cluster);
            self.probes += 1;
        }
        self.pacer.set_rate(self.estimator.estimate().pacing_rate());
        let mut arrivals = vec![];
        while let Some(Release { content, at, cluster }) = self.pacer.poll(now) {
            let packet = match content {
                Content::Packet(packet) => packet,
                Content::Padding(bytes) => Packet { bytes, kind: PacketKind::Padding },
            };
            arrivals.extend(self.send(packet, (at, cluster), (link, now)));
        }
        arrivals
    }

    fn send(
        &mut self,
        packet: Packet,
        (at, cluster): (MediaTime, Option<ClusterId>),
        (link, now): (&mut Link, MediaTime),
    ) -> Option<Arrival> {
        let Packet { bytes, kind } = packet;
        let number = self.next_number;
        self.next_number += 1;
        self.estimator.on_sent(SentPacket { number, at, bytes, kind, cluster });
        let is_media = kind != PacketKind::Padding;
        self.sent.push((seconds(now), bytes, is_media));
        let at = link.send(now, bytes)?;
        Some(Arrival { at, number, bytes, is_media })
    }

    /// When it has something to do beside encoding.
    pub(crate) fn timeout(&self) -> Option<MediaTime> {
        self.pacer.poll_timeout().into_iter().chain(self.estimator.poll_timeout()).min()
    }

    pub(crate) fn receive(&mut self, arrival: &Arrival) {
        let Arrival { at, number, bytes, is_media } = *arrival;
        self.arrived.insert(number, at);
        self.received.push((seconds(at), bytes, is_media));
    }

    /// The report of the receiver, unless nothing arrived.
    pub(crate) fn make_report(&mut self, now: MediaTime) -> Option<FeedbackReport> {
        let last = *self.arrived.keys().next_back()?;
        let first = (self.reported_to + 1).min(*self.arrived.keys().next()?);
        let arrived = std::mem::take(&mut self.arrived);
        let result = |number| match arrived.get(&number) {
            Some(at) => {
                // The format has steps of 250 µs; the receiver's clock is another one.
                let arrival_us = (at.as_micros() / 250 * 250) as i64 + 7_000_000_000;
                PacketResult::Received { number, arrival_us }
            }
            None => PacketResult::Lost { number },
        };
        self.reported_to = self.reported_to.max(last);
        let is_lost =
            self.rng.unit() < self.setup.feedback_loss || self.setup.deaf.contains(&seconds(now));
        let packets = (first..=last).map(result).collect();
        (!is_lost).then_some(FeedbackReport { at: now, packets })
    }

    pub(crate) fn take_report(&mut self, report: &FeedbackReport) {
        self.estimator.on_feedback(report);
        let estimate = self.estimator.estimate();
        let target = estimate.target.as_bps() as f64;
        self.targets.push((seconds(report.at), target, estimate.queue.as_secs_f64()));
    }

    /// The bits per second of media that arrived in a span.
    pub(crate) fn rate(&self, from: f64, to: f64) -> f64 {
        rate(&self.received, from..to)
    }
}

/// The bits per second of media in a span.
pub(crate) fn rate(log: &[(f64, u32, bool)], span: Range<f64>) -> f64 {
    let inside = log.iter().filter(|(at, _, is_media)| *is_media && span.contains(at));
    inside.map(|(_, bytes, _)| f64::from(*bytes) * 8.0).sum::<f64>() / (span.end - span.start)
}
