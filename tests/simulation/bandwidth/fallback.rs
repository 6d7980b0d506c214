//! Peers that give no transport-wide feedback: some ask for a rate, all report losses.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use quintet::{
    bandwidth::{
        BandwidthEstimator, Content, FramePart, Pacer, PacketClass, PacketKind, Pushed, Release,
    },
    model::{Bitrate, MediaTime},
};

use super::{
    flow::AUDIO_BYTES,
    mean,
    network::{Link, LinkSetup, quantile, seconds, time},
    remb_receiver::RembReceiver,
    with_seeds,
};
use crate::rng::SeededRng;

/// A call to an older program, in steps of a millisecond.
struct OldPeer {
    estimator: BandwidthEstimator,
    pacer: Pacer<Packet>,
    link: Link,
    receiver: Option<RembReceiver>,
    rng: SeededRng,
    /// The bounds of the encoder, in bits per second.
    encoder: (f64, f64),
    in_flight: BinaryHeap<Reverse<(u64, u64, Packet)>>,
    /// What comes back: when, and what.
    returning: Vec<(MediaTime, Returning)>,
    /// Packets that were sent and that were lost since the last report.
    reported: (u32, u32),
    report_at: u64,
    targets: Vec<(f64, f64)>,
    received: Vec<(f64, f64)>,
    next: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    bytes: u32,
    is_video: bool,
    sent_us: u64,
}

#[derive(Clone, Copy)]
enum Returning {
    Remb(f64),
    Loss(f64),
    RoundTrip(Duration),
}

const HEADERS: u32 = 64;
const DELAY: Duration = Duration::from_millis(50);

impl OldPeer {
    fn new(link: LinkSetup, has_remb: bool, seed: u64) -> Self {
        let bounds = Bitrate::from_kbps(50)..=Bitrate::from_kbps(30_000);
        let mut estimator = BandwidthEstimator::new(Bitrate::from_kbps(500), bounds);
        estimator.set_desired(Bitrate::from_kbps(2500));
        Self {
            pacer: Pacer::new(estimator.estimate().pacing_rate()),
            estimator,
            link: Link::new(link, seed),
            receiver: has_remb.then(RembReceiver::default),
            rng: SeededRng::new(seed),
            encoder: (60e3, 2.2e6),
            in_flight: BinaryHeap::new(),
            returning: vec![],
            reported: (0, 0),
            report_at: 1_000,
            targets: vec![],
            received: vec![],
            next: 0,
        }
    }

    /// Runs from that millisecond to the other one.
    fn run(&mut self, from: u64, to: u64) {
        for ms in from..to {
            let now = MediaTime::from_micros(ms * 1000);
            if ms % 33 == 0 {
                self.encode();
            }
            if ms % 20 == 0 {
                let audio = Packet { bytes: AUDIO_BYTES, is_video: false, sent_us: 0 };
                self.push(PacketClass::Audio, audio);
            }
            self.send(now);
            self.receive(now);
            self.take_returning(now);
            if ms % 100 == 0 {
                let target = self.estimator.estimate().target.as_bps() as f64;
                self.targets.push((seconds(now), target));
            }
        }
    }

    fn encode(&mut self) {
        if self.pacer.queued_video() > Duration::from_millis(300) {
            return;
        }
        let target = self.estimator.estimate().target.as_bps() as f64;
        let scale = (1.0 + 0.15 * self.rng.normal()).clamp(0.5, 1.8);
        let rate = (0.93 * (0.95 * target - 66e3)).clamp(self.encoder.0, self.encoder.1);
        let frame = rate * 0.033 / 8.0 * scale;
        let packets = (frame / 1150.0).ceil().max(1.0);
        for index in 0..packets as u32 {
            let part = if index == 0 { FramePart::FrameStart } else { FramePart::Continuation };
            let bytes = (frame / packets) as u32 + HEADERS;
            self.push(PacketClass::Video(part), Packet { bytes, is_video: true, sent_us: 0 });
        }
    }

    fn push(&mut self, class: PacketClass, packet: Packet) {
        assert_eq!(self.pacer.push(class, packet.bytes, packet), Pushed::Queued);
    }

    fn send(&mut self, now: MediaTime) {
        assert!(self.estimator.poll(now).is_none(), "no probe is answered");
        self.pacer.set_rate(self.estimator.estimate().pacing_rate());
        while let Some(Release { content: Content::Packet(packet), .. }) = self.pacer.poll(now) {
            let Packet { bytes, is_video, .. } = packet;
            let kind = if is_video { PacketKind::Video } else { PacketKind::Audio };
            self.estimator.on_sent_without_number(kind, bytes, now);
            self.reported.0 += 1;
            let sent = Packet { sent_us: now.as_micros(), ..packet };
            match self.link.send(now, bytes) {
                Some(at) => {
                    self.next += 1;
                    self.in_flight.push(Reverse((at.as_micros(), self.next, sent)));
                }
                None => self.reported.1 += 1,
            }
        }
    }

    fn receive(&mut self, now: MediaTime) {
        while let Some(Reverse((at, _, packet))) = self.in_flight.peek().copied()
            && at <= now.as_micros()
        {
            self.in_flight.pop();
            self.received.push((at as f64 / 1e6, f64::from(packet.bytes) * 8.0));
            let Some(receiver) = self.receiver.as_mut().filter(|_| packet.is_video) else {
                continue;
            };
            let (sent, arrived) = (packet.sent_us as f64 / 1e3, (at / 1000) as f64);
            if let Some(asked) = receiver.receive(sent, arrived, f64::from(packet.bytes - HEADERS))
            {
                self.returning.push((now + DELAY, Returning::Remb(asked)));
            }
        }
        if now.as_micros() >= self.report_at * 1000 {
            let (sent, lost) = std::mem::take(&mut self.reported);
            let loss = f64::from(lost) / f64::from(sent.max(1));
            self.returning.push((now + DELAY, Returning::Loss(loss)));
            self.report_at += 500 + self.rng.below(1000) as u64;
        }
        if now.as_micros().is_multiple_of(500_000) {
            let wait = self.link.log.last().map_or(0.0, |passage| passage.wait);
            let round_trip = 2 * DELAY + Duration::from_secs_f64(wait);
            self.returning.push((now + DELAY, Returning::RoundTrip(round_trip)));
        }
    }

    fn take_returning(&mut self, now: MediaTime) {
        let (due, later) = std::mem::take(&mut self.returning)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.returning = later;
        for (_, what) in due {
            match what {
                Returning::Remb(bps) => {
                    self.estimator.on_remb(Bitrate::from_bps(bps as u64), now);
                }
                Returning::Loss(loss) => self.estimator.on_receiver_report(loss, now),
                Returning::RoundTrip(time) => self.estimator.on_round_trip(time),
            }
        }
    }

    /// The targets of a span, in bits per second.
    fn targets(&self, from: f64, to: f64) -> Vec<f64> {
        let inside = self.targets.iter().filter(|(at, _)| (from..to).contains(at));
        inside.map(|(_, target)| *target).collect()
    }

    /// The bits per second that arrived in a span.
    fn rate(&self, from: f64, to: f64) -> f64 {
        let inside = self.received.iter().filter(|(at, _)| (from..to).contains(at));
        inside.map(|(_, bits)| bits).sum::<f64>() / (to - from)
    }
}

#[test]
fn an_older_peer_gets_the_whole_picture_within_five_seconds_on_an_ample_path() {
    for has_remb in [true, false] {
        with_seeds(|seed| {
            let mut peer = OldPeer::new(LinkSetup::new(20e6), has_remb, seed);
            peer.run(0, 30_000);
            let reached = peer.targets.iter().find(|(_, target)| *target >= 1.6e6);
            let least = peer.targets(6.0, 30.0).into_iter().fold(f64::INFINITY, f64::min);
            println!("REMB {has_remb}: 1.6 Mbit/s after {reached:?}, later at least {least:.0}");
            assert!(reached.is_some_and(|(at, _)| *at <= 5.0), "{reached:?}");
            assert!(least >= 1.3e6, "it stays: {least}");
        });
    }
}

/// The larger layer needs a rate that the smaller one does not use.
#[test]
fn an_older_peer_with_half_of_the_picture_gets_the_rate_of_the_whole_one() {
    for has_remb in [true, false] {
        with_seeds(|seed| {
            let mut peer = OldPeer::new(LinkSetup::new(20e6), has_remb, seed);
            peer.encoder.1 = 800e3;
            peer.run(0, 30_000);
            let (reached, most) = (mean(&peer.targets(5.0, 30.0)), 2.0 * peer.rate(5.0, 30.0));
            println!("REMB {has_remb}: {reached:.0}");
            assert!(reached >= 1.6e6, "{reached}");
            assert!(reached <= 1.15 * most, "what is not used is not proved: {reached}");
        });
    }
}

#[test]
fn an_older_peer_behind_500_kbps_neither_collapses_nor_overshoots() {
    for has_remb in [true, false] {
        let mut used = vec![];
        with_seeds(|seed| {
            let mut peer = OldPeer::new(LinkSetup::new(500e3), has_remb, seed);
            peer.run(0, 60_000);
            let targets = peer.targets(5.0, 60.0);
            let least = targets.iter().copied().fold(f64::INFINITY, f64::min);
            let most = targets.iter().copied().fold(0.0, f64::max);
            let waits = peer.link.waits(5.0, 60.0);
            let dropped = peer.link.log.iter().filter(|passage| passage.is_dropped).count();
            let rate = peer.rate(10.0, 60.0);
            let queue = quantile(&waits, 0.95);
            println!(
                "REMB {has_remb}: {least:.0} to {most:.0}, {rate:.0} arrive, queue {queue:.3}, {dropped} dropped"
            );
            assert!(least >= 250e3 && most <= 750e3, "{least} to {most}");
            assert!(queue <= 0.2, "{queue}");
            used.push(rate / 500e3);
        });
        println!("{used:.2?} used");
        assert!(mean(&used) >= 0.85, "{used:?}");
    }
}

#[test]
fn a_path_that_becomes_narrow_is_noticed_without_feedback() {
    for has_remb in [true, false] {
        with_seeds(|seed| {
            let link = LinkSetup::new(4e6).scheduled(&[(0, 4e6), (20, 600e3)]);
            let mut peer = OldPeer::new(link, has_remb, seed);
            peer.run(0, 40_000);
            let (before, after) = (peer.targets(18.0, 20.0), peer.targets(30.0, 40.0));
            println!("REMB {has_remb}: {:.0} then {:.0}", mean(&before), mean(&after));
            assert!(mean(&before) >= 1.5e6 && mean(&after) <= 800e3, "{before:?} {after:?}");
            assert!(mean(&after) >= 300e3, "{after:?}");
            assert_eq!(peer.link.capacity(seconds(time(30.0))), 600e3);
        });
    }
}
