//! The estimator without a network; `tests/simulation/bandwidth` has networks.

use std::time::Duration;

use super::*;
use crate::model::{Bitrate, MediaTime};

const fn kbps(rate: u64) -> Bitrate {
    Bitrate::from_kbps(rate)
}

const fn at(ms: u64) -> MediaTime {
    MediaTime::from_micros(ms * 1000)
}

fn estimator() -> BandwidthEstimator {
    let mut estimator = BandwidthEstimator::new(kbps(500), kbps(50)..=kbps(30_000));
    estimator.set_desired(kbps(1700));
    estimator
}

/// A peer that sends 1000 bytes each 10 ms, 800 kbit/s, over a path without a queue.
struct Path {
    estimator: BandwidthEstimator,
    now_ms: u64,
    number: u64,
    /// The other end's clock minus ours.
    clock_us: i64,
}

impl Path {
    fn new() -> Self {
        Self { estimator: estimator(), now_ms: 1000, number: 0, clock_us: -5_000_000 }
    }

    /// Sends for a tenth of a second, and reports it 50 ms later.
    fn pass(&mut self) -> &mut Self {
        let mut packets = vec![];
        for step in 0..10 {
            let sent_at = at(self.now_ms + step * 10);
            self.number += 1;
            self.estimator.on_sent(packet(self.number, sent_at));
            let arrival_us = sent_at.as_micros() as i64 + 20_000 + self.clock_us;
            packets.push(PacketResult::Received { number: self.number, arrival_us });
        }
        self.now_ms += 150;
        self.estimator.on_feedback(&FeedbackReport { at: at(self.now_ms), packets });
        self.now_ms -= 50;
        self
    }

    fn pass_seconds(&mut self, seconds: u32) -> &mut Self {
        (0..seconds * 10).for_each(|_| {
            self.pass();
        });
        self
    }

    fn target(&self) -> u64 {
        self.estimator.estimate().target.as_bps() / 1000
    }
}

fn packet(number: u64, at: MediaTime) -> SentPacket {
    SentPacket { number, at, bytes: 1000, kind: PacketKind::Video, cluster: None }
}

#[test]
fn a_rate_that_arrives_without_a_queue_grows_and_is_measured() {
    let mut path = Path::new();
    path.pass_seconds(20);
    let estimate = path.estimator.estimate();
    assert!((1190..=1220).contains(&path.target()), "half as much again: {estimate:?}");
    let acknowledged = estimate.acknowledged.map_or(0, Bitrate::as_bps);
    assert!((780_000..=820_000).contains(&acknowledged), "{estimate:?}");
    assert_eq!((estimate.limited_by, estimate.queue), (LimitedBy::Delay, Duration::ZERO));
    path.estimator.set_desired(kbps(900));
    assert_eq!(path.estimator.estimate().limited_by, LimitedBy::Demand);
}

#[test]
fn what_arrives_and_what_a_probe_shows_is_proved_and_what_grows_beyond_it_is_not() {
    let mut path = Path::new();
    let proved = |path: &Path| path.estimator.estimate().proved.as_bps() / 1000;
    assert_eq!(proved(&path), 0, "nothing is known at the start");
    path.pass_seconds(20);
    assert!(path.target() > 1190 && (780..=820).contains(&proved(&path)), "{}", proved(&path));
    path.estimator.set_ceiling(Some(kbps(600)));
    assert_eq!(proved(&path), 600, "a share of the uplink is proved");
    path.estimator.set_ceiling(Some(kbps(1500)));
    assert_eq!(proved(&path), 1500);
    path.estimator.on_route_change(at(path.now_ms));
    assert_eq!(proved(&path), 0);
}

#[test]
fn a_changed_clock_of_the_other_end_is_no_queue() {
    let mut path = Path::new();
    let before = path.pass_seconds(5).target();
    for step in [8_000_000, -20_000_000] {
        path.clock_us += step;
        path.pass_seconds(3);
        let estimate = path.estimator.estimate();
        assert!(
            path.target() >= before && estimate.queue < Duration::from_millis(5),
            "{estimate:?}"
        );
    }
}

#[test]
fn a_new_route_keeps_the_rate_as_far_as_it_was_used() {
    let mut path = Path::new();
    path.pass_seconds(10);
    path.estimator.on_route_change(at(path.now_ms));
    assert!((780..=820).contains(&path.target()), "{}", path.target());
    let estimate = path.estimator.estimate();
    assert_eq!((estimate.acknowledged, estimate.round_trip), (None, None));
    // What was sent on the old route says nothing of the new one.
    let packets = vec![PacketResult::Lost { number: path.number }];
    path.estimator.on_feedback(&FeedbackReport { at: at(path.now_ms + 10), packets });
    assert_eq!(path.estimator.poll(at(path.now_ms + 10)), None);
    path.pass();
    assert!(path.estimator.poll(at(path.now_ms)).is_some(), "it probes as at the start");
}

#[test]
fn an_estimate_ages_while_nothing_is_sent() {
    let mut path = Path::new();
    let before = path.pass_seconds(10).target();
    path.now_ms += 9_000;
    assert!(path.pass().target() >= before);
    path.now_ms += 11_000;
    assert!(path.pass().target() <= before * 55 / 100, "{}", path.target());
    path.now_ms += 3_600_000;
    assert!((450..=550).contains(&path.pass().target()), "{}", path.target());
    assert_eq!(path.estimator.poll_timeout(), Some(MediaTime::default()), "it probes again");
}

#[test]
fn nothing_is_due_while_nothing_is_sent() {
    let mut estimator = estimator();
    assert_eq!((estimator.poll_timeout(), estimator.poll(at(5000))), (None, None));
    estimator.set_desired(Bitrate::default());
    assert_eq!(estimator.poll_timeout(), None);
}

#[test]
fn a_share_is_where_the_estimator_goes_on_from() {
    let mut path = Path::new();
    path.pass_seconds(3);
    path.estimator.set_ceiling(Some(kbps(1000)));
    assert_eq!(path.target(), 1000);
    let grown = path.pass().target();
    assert!(grown > 1000, "{grown}");
    path.estimator.set_ceiling(Some(kbps(1000)));
    assert_eq!(path.target(), grown, "it has started from that share");
    path.estimator.set_ceiling(Some(kbps(600)));
    let estimate = path.estimator.estimate();
    assert_eq!((path.target(), estimate.limited_by), (600, LimitedBy::Ceiling));
}

#[test]
fn only_one_peer_probes() {
    let mut path = Path::new();
    path.estimator.set_may_probe(false);
    path.pass();
    assert!(path.estimator.wants_probe() && path.estimator.poll(at(path.now_ms)).is_none());
    path.estimator.set_may_probe(true);
    let now = at(path.now_ms);
    let rates: Vec<_> = std::iter::from_fn(|| path.estimator.poll(now)).collect();
    assert_eq!(rates.len(), 2, "three and six times the start");
}

#[test]
fn without_feedback_the_rate_follows_the_receiver_reports() {
    let mut estimator = estimator();
    let target = |estimator: &BandwidthEstimator| estimator.estimate().target.as_bps() / 1000;
    let send = |estimator: &mut BandwidthEstimator, second: u64, per_second: u64| {
        for index in 0..per_second {
            let ms = second * 1000 + index * 1000 / per_second;
            estimator.on_sent_without_number(PacketKind::Video, 1000, at(ms));
        }
    };
    // A tenth of the rate is used: it does not grow.
    for second in 1..5 {
        send(&mut estimator, second, 6);
        estimator.on_receiver_report(0.0, at(second * 1000 + 1000));
    }
    assert_eq!(target(&estimator), 512);
    for second in 5..8 {
        send(&mut estimator, second, 80);
        estimator.on_receiver_report(0.0, at(second * 1000 + 1000));
    }
    assert_eq!(target(&estimator), 1290, "half as much more, up to twice what is sent");
    estimator.on_receiver_report(0.05, at(9000));
    assert_eq!(target(&estimator), 1290);
    estimator.on_receiver_report(0.5, at(10_000));
    assert_eq!((target(&estimator), estimator.estimate().limited_by), (967, LimitedBy::Loss));
    send(&mut estimator, 10, 80);
    estimator.on_remb(kbps(300), at(11_000));
    assert_eq!(target(&estimator), 320, "its payload is 300");
    estimator.on_receiver_report(f64::NAN, at(22_000));
    assert_eq!(target(&estimator), 967, "that rate was asked for eleven seconds ago");
    send(&mut estimator, 22, 80);
    estimator.on_receiver_report(0.0, at(23_000));
    assert_eq!(target(&estimator), 970, "5 % more, up to 1.5 times what is sent");
    estimator.on_round_trip(Duration::from_millis(50));
    estimator.on_receiver_report(0.0, at(24_000));
    estimator.on_round_trip(Duration::from_millis(120));
    estimator.on_receiver_report(0.0, at(25_000));
    assert_eq!(target(&estimator), 776, "a queue");
}

#[test]
fn older_reports_count_for_nothing_beside_feedback() {
    let mut path = Path::new();
    let before = path.pass_seconds(5).target();
    path.estimator.on_remb(kbps(100), at(path.now_ms));
    path.estimator.on_receiver_report(1.0, at(path.now_ms));
    assert_eq!(path.target(), before);
}

#[test]
fn packets_that_no_report_names_are_not_lost() {
    let mut history = history::SentHistory::default();
    (1..=6).for_each(|number| history.insert(packet(number, at(number))));
    let received = |number| PacketResult::Received { number, arrival_us: 7 };
    let report = |packets| FeedbackReport { at: at(10), packets };
    let first = history.resolve(&report(vec![received(1), PacketResult::Lost { number: 2 }]));
    assert_eq!((first.received.len(), first.lost.len(), first.unknown_bytes), (1, 1, 0));
    // The report of 3 and 4 was lost.
    let packets = vec![received(5), received(5), received(2), PacketResult::Lost { number: 99 }];
    let second = history.resolve(&report(packets));
    assert_eq!((second.received.len(), second.lost.len()), (2, 0), "each once");
    assert!(second.received.iter().any(|packet| packet.was_lost && packet.sent.number == 2));
    assert_eq!(history.resolve(&report(vec![received(6)])).unknown_bytes, 0);
}

#[test]
fn a_packet_that_was_only_late_is_no_longer_lost() {
    let mut path = Path::new();
    path.pass();
    let loss = |path: &Path| path.estimator.estimate().loss;
    path.number += 1;
    path.estimator.on_sent(packet(path.number, at(path.now_ms)));
    let report = |path: &mut Path, result| {
        path.now_ms += 50;
        path.estimator.on_feedback(&FeedbackReport { at: at(path.now_ms), packets: vec![result] });
    };
    let number = path.number;
    report(&mut path, PacketResult::Lost { number });
    assert!((0.09..0.092).contains(&loss(&path)), "one of eleven: {}", loss(&path));
    report(&mut path, PacketResult::Lost { number });
    assert!((0.09..0.092).contains(&loss(&path)), "counted once: {}", loss(&path));
    let arrival_us = at(path.now_ms).as_micros() as i64 + path.clock_us;
    report(&mut path, PacketResult::Received { number, arrival_us });
    assert_eq!(loss(&path), 0.0);
}

#[test]
fn the_bytes_of_a_lost_report_are_known() {
    let mut history = history::SentHistory::default();
    (1..=6).for_each(|number| history.insert(packet(number, at(number))));
    let report = |number| FeedbackReport {
        at: at(10),
        packets: vec![PacketResult::Received { number, arrival_us: 7 }],
    };
    assert_eq!(history.resolve(&report(1)).unknown_bytes, 0);
    assert_eq!(history.resolve(&report(5)).unknown_bytes, 3000);
    assert_eq!(history.resolve(&report(6)).unknown_bytes, 0);
}

#[test]
fn a_history_is_bounded() {
    let mut history = history::SentHistory::default();
    (0..10_000).for_each(|number| history.insert(packet(number, at(0))));
    history.insert(packet(u64::MAX - 1, at(1)));
    history.insert(packet(3, at(1)));
    let all = (0..10_000).chain([u64::MAX - 1]).map(|number| PacketResult::Lost { number });
    let outcome = history.resolve(&FeedbackReport { at: at(2), packets: all.collect() });
    assert_eq!(outcome.lost.len(), 1, "after a jump nothing older is known");
}

#[test]
fn a_group_is_what_left_within_five_milliseconds_or_arrived_as_a_burst() {
    let mut groups = packet_groups::PacketGroups::default();
    let mut add = |sent_us: u64, arrival_us| {
        let sent = packet(1, MediaTime::from_micros(sent_us));
        groups.add(&history::ReceivedPacket { sent, arrival_us, was_lost: false })
    };
    let none = packet_groups::GroupChange::None;
    assert_eq!([add(0, 0), add(4_000, 4_000), add(20_000, 20_000)], [none; 3]);
    // The third group: 20 ms later, and 30 ms in arrival. It completes the second one.
    let packet_groups::GroupChange::Complete(delta) = add(40_000, 50_000) else {
        panic!("a group is complete")
    };
    assert_eq!((delta.send_ms, delta.arrival_ms), (16.0, 16.0));
    // Later packets that caught up with it belong to it.
    assert_eq!(add(50_000, 52_000), none);
    assert_eq!(add(60_000, 54_000), none);
    let packet_groups::GroupChange::Complete(delta) = add(80_000, 90_000) else {
        panic!("a group is complete")
    };
    assert_eq!((delta.send_ms, delta.arrival_ms), (40.0, 34.0));
    let jumped = add(90_000, 9_000_000);
    assert_eq!(jumped, packet_groups::GroupChange::ClockChanged);
}

#[test]
fn without_feedback_the_rate_stays_within_the_share_of_the_uplink() {
    let mut estimator = estimator();
    for index in 0..300 {
        estimator.on_sent_without_number(PacketKind::Video, 1000, at(index * 10));
        if index % 100 == 99 {
            estimator.on_receiver_report(0.0, at(index * 10 + 10));
        }
    }
    let estimate = estimator.estimate();
    assert_eq!((estimate.reports_arrivals, estimate.acknowledged), (false, Some(kbps(800))));
    assert!(estimate.target > kbps(1000), "{estimate:?}");
    estimator.set_ceiling(Some(kbps(400)));
    estimator.on_receiver_report(0.0, at(4000));
    assert_eq!(estimator.estimate().target, kbps(400));
}
