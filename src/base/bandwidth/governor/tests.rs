use super::*;
use crate::{
    bandwidth::{LimitedBy, Pacing},
    model::Layer,
};

const fn kbps(rate: u64) -> Bitrate {
    Bitrate::from_kbps(rate)
}

/// A peer that wants everything, with the usual rates of a camera of 720p.
fn peer(class: PriorityClass) -> GovernedPeer {
    let layer = |half, full| Some(LayerCost { least: kbps(half), usual: kbps(full) });
    GovernedPeer {
        class,
        precedence: Precedence::Usual,
        audio: kbps(66),
        layers: [layer(110, 165), layer(440, 660), layer(1050, 1600)],
        screen: None,
        desired: kbps(1710),
    }
}

/// Divides a sum among peers that came in this order.
fn divide(peers: &[GovernedPeer], sum: u64) -> Vec<Share> {
    let rank = |(peer, arrival): (&GovernedPeer, u64)| {
        (*peer, Rank { precedence: peer.precedence, arrival })
    };
    let ranked: Vec<_> = peers.iter().zip(0..).map(rank).collect();
    shares::divide(&ranked, kbps(sum).as_bps() as f64)
}

fn points(shares: &[Share]) -> Vec<Option<(Layer, bool)>> {
    shares.iter().map(|share| share.video).collect()
}

const Q: Option<(Layer, bool)> = Some((Layer::Quarter, true));
const H_AT_HALF: Option<(Layer, bool)> = Some((Layer::Half, false));

#[test]
fn a_conference_comes_before_a_broadcast() {
    let conference = [peer(PriorityClass::Conference); 3];
    let mut peers = [conference.to_vec(), vec![peer(PriorityClass::OneWay); 6]].concat();
    let shares = divide(&peers, 3000);
    // 66 of audio for nine, q for all, and h at half of the frame rate for the two that came first.
    assert_eq!(points(&shares), [H_AT_HALF, H_AT_HALF, Q, Q, Q, Q, Q, Q, Q]);
    let sum: u64 = shares.iter().map(|share| share.target.as_bps()).sum();
    assert!((2_999_000..3_000_100).contains(&sum), "{sum}");
    assert_eq!(shares[8].target, Bitrate::from_bps(243_158), "a broadcast gets what q needs");
    peers[2].precedence = Precedence::Speaking;
    assert_eq!(
        points(&divide(&peers, 3000))[..3],
        [H_AT_HALF, Q, H_AT_HALF],
        "who speaks is first"
    );
    peers[1].precedence = Precedence::Raised;
    assert_eq!(points(&divide(&peers, 3000))[..3], [Q, H_AT_HALF, H_AT_HALF]);
    assert_eq!(
        points(&divide(&peers, 2700))[..3],
        [Q, H_AT_HALF, Q],
        "a person's word counts most"
    );
    peers[8].class = PriorityClass::OneWay.lifted().lifted();
    assert_eq!(points(&divide(&peers, 3000))[8], Q, "it came last, but is not before others");
}

#[test]
fn audio_comes_first_and_video_fits_or_is_left_out() {
    let peers = [peer(PriorityClass::OneWay); 4];
    let shares = divide(&peers, 500);
    // 475 without the reserve, 211 without audio: q at half of the frame rate for one.
    assert_eq!(points(&shares), [Some((Layer::Quarter, false)), None, None, None]);
    assert!(shares.iter().all(|share| share.target >= kbps(66)));
    assert_eq!(points(&divide(&peers, 100)), [None; 4]);
    assert!(divide(&peers, 100).iter().all(|share| share.target >= kbps(66)));
}

#[test]
fn nobody_gets_more_than_it_can_use() {
    let narrow =
        GovernedPeer { layers: [None; 3], desired: kbps(66), ..peer(PriorityClass::Conference) };
    let shares = divide(&[narrow, peer(PriorityClass::OneWay)], 30_000);
    assert_eq!(shares[0].target, Bitrate::from_bps(69_474));
    assert_eq!(shares[1].video, Some((Layer::Full, true)));
    assert_eq!(shares[1].target, kbps(1800));
}

#[test]
fn a_screen_comes_after_the_middle_layer_of_conferences() {
    let mut peers = [peer(PriorityClass::Conference), peer(PriorityClass::OneWay)];
    peers[1].screen = Some(kbps(1000));
    // 132 of audio, 330 of q, 495 for h: 1 Mbit/s is left of 2060.
    let shares = divide(&peers, 2_061);
    assert_eq!(points(&shares), [Some((Layer::Half, true)), Q]);
    assert!(shares[1].target >= kbps(1290));
}

fn estimate(target: u64, queue_ms: u64, ceiling: Option<Bitrate>) -> Estimate {
    Estimate {
        target: kbps(target),
        proved: kbps(target),
        limited_by: LimitedBy::Delay,
        loss: 0.0,
        queue: Duration::from_millis(queue_ms),
        round_trip: None,
        acknowledged: None,
        reports_arrivals: true,
        is_testing: false,
        is_application_limited: false,
        pacing: Pacing::Limited,
        is_overused: queue_ms > 30,
        ceiling,
    }
}

/// Feeds a governor for so many seconds with the queues of its peers, in milliseconds.
fn feed(
    governor: &mut Governor<u32>,
    seconds: std::ops::Range<u64>,
    queue: impl Fn(u32, u64) -> u64,
) {
    for tenth in seconds.start * 10..seconds.end * 10 {
        let now = MediaTime::from_micros(tenth * 100_000);
        for key in 0..4 {
            let share = governor.share(key).map(|share| share.target);
            let target = share.map_or(500, |share| share.as_bps() / 1000);
            let share = share.map(|_| kbps(target));
            governor.on_estimate(key, &estimate(target, queue(key, tenth), share), now);
        }
        governor.update(now);
    }
}

/// A queue that rises and falls, with a period of so many tenths of a second.
fn wave(tenth: u64, period: u64) -> u64 {
    5 + (tenth % period) * 60 / period
}

fn governor() -> Governor<u32> {
    let mut governor = Governor::default();
    (0..4).for_each(|key| governor.set_peer(key, peer(PriorityClass::Conference)));
    governor
}

#[test]
fn peers_whose_queues_rise_and_fall_together_are_governed() {
    let mut governor = governor();
    // The last one has a bottleneck of its own.
    let queue = |key, tenth| wave(tenth + u64::from(key == 1), if key == 3 { 13 } else { 30 });
    feed(&mut governor, 0..24, queue);
    let governed = |governor: &Governor<u32>| [0, 1, 2, 3].map(|key| governor.share(key).is_some());
    assert_eq!(governed(&governor), [true, true, true, false]);
    assert_eq!([0, 1, 2, 3].map(|key| governor.may_probe(key)), [true, false, false, true]);
    // One of them moves behind another bottleneck.
    let queue = |key, tenth| wave(tenth, if key > 1 { 13 + 10 * u64::from(key) } else { 30 });
    feed(&mut governor, 24..60, queue);
    assert_eq!(governed(&governor), [true, true, false, false]);
    governor.remove(0);
    governor.update(MediaTime::from_micros(61_000_000));
    assert_eq!(governed(&governor), [false; 4], "one alone shares with nobody");
}

#[test]
fn an_overload_that_all_see_is_counted_once() {
    let mut governor = governor();
    feed(&mut governor, 0..24, |_, tenth| wave(tenth, 30));
    let sum = governor.sum;
    assert!(governor.share(3).is_some() && sum > 1_900e3, "{sum}");
    let now = MediaTime::from_micros(24_000_000);
    for key in 0..4 {
        let share = governor.share(key).map(|share| share.target);
        let target = share.map_or(0, |share| share.as_bps() * 85 / 100_000);
        governor.on_estimate(key, &estimate(target, 50, share), now);
        // The same report once more changes nothing.
        governor.on_estimate(key, &estimate(target, 50, share), now);
        if key == 0 {
            governor.update(now);
        }
    }
    assert!(governor.sum >= 0.84 * sum && governor.sum <= 0.9 * sum, "{} of {sum}", governor.sum);
}

#[test]
fn an_overload_leaves_most_of_what_arrives_of_all() {
    let mut governor = governor();
    feed(&mut governor, 0..24, |_, tenth| wave(tenth, 30));
    let (sum, now) = (governor.sum, MediaTime::from_micros(24_000_000));
    // What arrives of two scatters upwards, and of the others downwards.
    let parts = [(0, 130), (1, 130), (2, 70), (3, 70)];
    for is_overused in [false, true] {
        for (key, part) in parts {
            let share = governor.share(key).map_or(0, |share| share.target.as_bps());
            let arrives = share * part / 100;
            let target = if is_overused { share.min(arrives * 85 / 100) } else { share };
            let report = Estimate {
                target: Bitrate::from_bps(target),
                acknowledged: Some(Bitrate::from_bps(arrives)),
                is_overused,
                ..estimate(0, 5, Some(Bitrate::from_bps(share)))
            };
            governor.on_estimate(key, &report, now);
        }
    }
    let arrives = governor.arriving();
    assert!(arrives > 0.9 * sum, "{arrives} of {sum}");
    assert!(governor.sum >= 0.849 * arrives && governor.sum < 0.95 * sum, "{}", governor.sum);
}

#[test]
fn an_estimator_that_has_moved_gets_its_share_again() {
    let mut governor = governor();
    // It gets the smallest layer, whatever the sum.
    governor.set_peer(3, peer(PriorityClass::OneWay));
    feed(&mut governor, 0..24, |_, tenth| wave(tenth, 30));
    let now = MediaTime::from_micros(24_000_000);
    governor.update(now);
    let share = |governor: &Governor<u32>| governor.share(3).map_or(0, |one| one.target.as_bps());
    let before = share(&governor);
    let reduced = estimate(before * 9 / 10_000, 5, Some(Bitrate::from_bps(before)));
    governor.on_estimate(3, &reduced, now);
    let changed = governor.update(now);
    assert!(changed.iter().any(|(key, _)| *key == 3), "{changed:?}");
    assert!(share(&governor) != before && share(&governor).abs_diff(before) <= 1);
    assert!(governor.update(now).is_empty(), "it has not reached the estimator yet");
}

#[test]
fn who_speaks_comes_first_from_then_on() {
    let mut governor = governor();
    feed(&mut governor, 0..24, |_, tenth| wave(tenth, 30));
    let video =
        |governor: &Governor<u32>| [0, 1, 2, 3].map(|key| governor.share(key).unwrap().video);
    assert_eq!(video(&governor), [H_AT_HALF, H_AT_HALF, H_AT_HALF, Q]);
    let speaking =
        GovernedPeer { precedence: Precedence::Speaking, ..peer(PriorityClass::Conference) };
    governor.set_peer(3, speaking);
    governor.update(MediaTime::from_micros(24_000_000));
    assert_eq!(video(&governor), [H_AT_HALF, H_AT_HALF, Q, H_AT_HALF]);
}

#[test]
fn who_reports_no_arrivals_gets_a_share_and_changes_no_sum() {
    let mut governor = governor();
    governor.set_peer(9, peer(PriorityClass::Conference));
    let tell = |governor: &mut Governor<u32>, seconds: std::ops::Range<u64>| {
        for second in seconds {
            feed(governor, second..second + 1, |_, tenth| wave(tenth, 30));
            let ceiling = governor.share(9).map(|share| share.target);
            // It follows losses of its own path.
            let estimate = Estimate { reports_arrivals: false, ..estimate(100, 0, ceiling) };
            governor.on_estimate(9, &estimate, MediaTime::from_micros((second + 1) * 1_000_000));
        }
    };
    tell(&mut governor, 0..24);
    let sum = governor.sum;
    assert!(governor.share(9).is_some() && governor.share(0).is_some());
    assert!(!governor.may_probe(9));
    tell(&mut governor, 24..44);
    assert!(governor.sum >= 0.99 * sum, "{} of {sum}", governor.sum);
    (1..4).for_each(|key| governor.remove(key));
    governor.update(MediaTime::from_micros(45_000_000));
    assert!(
        governor.share(0).is_none() && governor.share(9).is_none(),
        "there is nobody to compare"
    );
}

#[test]
fn the_uplink_is_full_while_members_lack_video() {
    let mut governor = governor();
    feed(&mut governor, 0..20, |_, tenth| wave(tenth, 30));
    assert!(governor.share(0).is_some() && !governor.is_full(), "this may pass");
    feed(&mut governor, 20..30, |_, tenth| wave(tenth, 30));
    assert!(governor.is_full());
    for key in 0..4 {
        let [smallest, ..] = peer(PriorityClass::Conference).layers;
        let layers = [smallest, None, None];
        governor.set_peer(key, GovernedPeer { layers, ..peer(PriorityClass::Conference) });
    }
    feed(&mut governor, 30..36, |_, tenth| wave(tenth, 30));
    assert!(governor.is_full(), "this may pass, too");
    feed(&mut governor, 36..44, |_, tenth| wave(tenth, 30));
    assert!(governor.share(0).is_some() && !governor.is_full(), "a small picture is all they want");
}

#[test]
fn the_group_ends_when_little_is_wanted() {
    let mut governor = governor();
    feed(&mut governor, 0..24, |_, tenth| wave(tenth, 30));
    assert!(governor.share(0).is_some());
    for key in 0..4 {
        let quiet = GovernedPeer { desired: kbps(66), ..peer(PriorityClass::Conference) };
        governor.set_peer(key, quiet);
    }
    feed(&mut governor, 24..36, |_, _| 1);
    assert!((0..4).all(|key| governor.share(key).is_none() && governor.may_probe(key)));
}

#[test]
fn peers_take_turns_to_probe() {
    let mut token = ProbeToken::default();
    let at = |ms: u64| MediaTime::from_micros(ms * 1000);
    assert!(token.acquire(1, at(0)) && token.acquire(1, at(10)));
    assert!(!token.acquire(2, at(50)));
    assert_eq!(token.free_at(at(50)), Some(at(110)));
    assert!(token.acquire(2, at(110)) && !token.acquire(1, at(111)));
    token.set_arriving(kbps(10_000));
    assert!(token.acquire(3, at(300)) && !token.acquire(4, at(399)), "a probe adds much");
    token.set_arriving(kbps(64_000));
    assert!(token.acquire(4, at(400)) && !token.acquire(5, at(424)) && token.acquire(5, at(425)));
    token.set_arriving(kbps(1_000_000));
    assert!(token.acquire(6, at(450)) && !token.acquire(7, at(459)) && token.acquire(7, at(460)));
}
