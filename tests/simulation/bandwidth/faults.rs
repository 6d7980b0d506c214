//! Faults that other programs had: each was reported by their users.

use std::time::Duration;

use quintet::{
    bandwidth::{FeedbackReport, LimitedBy, PacketResult},
    model::{Bitrate, MediaTime},
};

use super::{
    flow::{AUDIO_BYTES, Flow, FlowSetup, rate},
    mean,
    network::{LinkSetup, quantile},
    with_seeds,
    world::World,
};

fn run(link: LinkSetup, flow: FlowSetup, seed: u64) -> World {
    let end = flow.active.end;
    let mut world = World::new(vec![link], vec![flow], seed);
    world.run(end + 1.0);
    world
}

/// The target of the first flow at a second, in Mbit/s.
fn target(world: &World, at: f64) -> f64 {
    let mut targets = world.flows[0].targets.iter();
    targets.find(|(time, ..)| *time >= at).map_or(0.0, |(_, target, _)| target / 1e6)
}

/// pion/interceptor#299: the estimate grows although nothing is sent.
#[test]
fn a_rate_that_is_not_used_does_not_grow() {
    with_seeds(|seed| {
        let flow = FlowSetup { encoder: 150e3..240e3, may_probe: false, ..FlowSetup::new(60.0) };
        let world = run(LinkSetup::new(4e6), flow, seed);
        for (at, target, _) in &world.flows[0].targets {
            // Half as much again, and what a burst of frames adds to the rate of a moment.
            let sent = rate(&world.flows[0].sent, at - 2.0..*at);
            assert!(!(2.0..60.0).contains(at) || *target <= 2.0 * sent, "{at}: {target} of {sent}");
        }
    });
}

/// str0m#1018: a source that uses two thirds of the estimate never learns of more.
#[test]
fn a_source_that_uses_two_thirds_of_its_target_learns_of_more() {
    with_seeds(|seed| {
        let link = LinkSetup::new(0.0).scheduled(&[(0, 0.8e6), (30, 4e6)]);
        let world = run(link, FlowSetup { is_shy: true, ..FlowSetup::new(60.0) }, seed);
        let targets = [target(&world, 29.0), target(&world, 45.0)];
        println!("{targets:.2?}");
        assert!(targets[1] >= 0.85 * 1.71, "{targets:?}");
    });
}

/// str0m#771: a peer that sends audio alone has nothing to probe with.
#[test]
fn a_peer_that_sends_audio_alone_probes() {
    with_seeds(|seed| {
        let world =
            run(LinkSetup::new(3e6), FlowSetup { video: 20.0..40.0, ..FlowSetup::new(40.0) }, seed);
        let (before, second) = (target(&world, 18.0), world.flows[0].rate(21.0, 23.0) / 1e6);
        println!("{before:.2}, {second:.2}");
        assert!(before >= 1.4 && second >= 1.2, "{before} {second}");
    });
}

/// str0m#599: reordering is taken for loss or for congestion.
#[test]
fn reordering_costs_no_rate() {
    with_seeds(|seed| {
        let both = [0.0, 0.05].map(|swapped| {
            let link = LinkSetup { swapped, ..LinkSetup::new(3e6) };
            run(link, FlowSetup::new(40.0), seed).flows[0].rate(10.0, 40.0)
        });
        println!("{both:.0?}");
        assert!(both[1] >= 0.95 * both[0], "{both:?}");
    });
}

/// membrane_rtp_plugin#94: feedback that is lost is taken for packets that are lost.
#[test]
fn lost_feedback_costs_no_rate() {
    with_seeds(|seed| {
        let both = [0.0, 0.3].map(|feedback_loss| {
            let flow = FlowSetup { feedback_loss, ..FlowSetup::new(60.0) };
            run(LinkSetup::new(1e6), flow, seed).flows[0].rate(10.0, 60.0)
        });
        println!("{both:.0?}");
        assert!(both[1] >= 0.9 * both[0], "{both:?}");
    });
}

/// sipsorcery#1579: a keyframe overruns a short queue, and the audio in it is lost.
#[test]
fn a_keyframe_passes_a_short_queue_without_loss_of_audio() {
    let (mut all, mut audio) = (vec![], vec![]);
    with_seeds(|seed| {
        let queue = Duration::from_secs_f64(20.0 * 1264.0 * 8.0 / 2e6);
        let link = LinkSetup { queue, ..LinkSetup::new(2e6) };
        let world = run(link, FlowSetup { keyframe: 40_000, ..FlowSetup::new(30.0) }, seed);
        let count = |log: &[(f64, u32, bool)], is_audio: bool| {
            let after_start = log.iter().filter(|(at, ..)| *at > 2.0);
            after_start.filter(|(_, bytes, _)| !is_audio || *bytes == AUDIO_BYTES).count()
        };
        let Flow { sent, received, .. } = &world.flows[0];
        let lost = |is_audio| count(sent, is_audio).saturating_sub(count(received, is_audio));
        println!("{} of audio, {} of all {}", lost(true), lost(false), count(sent, false));
        assert!(lost(true) <= 2 && lost(false) <= 20);
        all.push(lost(false) as f64);
        audio.push(lost(true) as f64);
    });
    // Of 120 seeds 111 lose no audio and the others one or two of 1500 packets: there a keyframe leaves
    // just after a probe that measured far too much. Of all packets 3.3 of 6100 are lost on average.
    assert!(mean(&audio) <= 0.25 && mean(&all) <= 5.5, "{audio:?} {all:?}");
}

/// A path may become so bad that nothing comes back.
#[test]
fn the_rate_falls_slowly_while_no_feedback_comes_and_returns_after_it() {
    with_seeds(|seed| {
        let mut world = World::new(
            vec![LinkSetup::new(2e6)],
            vec![FlowSetup { deaf: 20.0..26.0, ..FlowSetup::new(45.0) }],
            seed,
        );
        world.run(25.9);
        let estimate = world.flows[0].estimator.estimate();
        assert_eq!(estimate.limited_by, LimitedBy::MissingFeedback);
        world.run(46.0);
        let sent = |from| (rate(&world.flows[0].sent, from..from + 1.0) / 1e3).round();
        let rates = [19.0, 20.0, 23.0, 25.0, 35.0].map(sent);
        println!("{rates:?}");
        assert!(rates[1] >= 0.85 * rates[0] && rates[3] <= 0.65 * rates[0], "{rates:?}");
        assert!(rates[3] >= 231.0 && rates[4] >= 0.85 * rates[0], "{rates:?}");
    });
}

/// Whatever a receiver reports, nobody sends much more than was received, and the work is bounded.
#[test]
fn hostile_feedback_moves_nothing_but_its_own_rate() {
    let lies: [fn(u64) -> PacketResult; 4] = [
        |number| PacketResult::Received { number, arrival_us: 0 },
        |number| PacketResult::Received { number, arrival_us: i64::MAX - number as i64 },
        |number| PacketResult::Received { number, arrival_us: i64::MIN + number as i64 * 7 },
        |number| PacketResult::Lost { number: number.wrapping_mul(0x9e37_79b9_7f4a_7c15) },
    ];
    for lie in lies {
        let flow = FlowSetup { desired: 30e6, encoder: 150e3..300e3, ..FlowSetup::new(20.0) };
        let mut world = World::new(vec![LinkSetup::new(4e6)], vec![flow], 1);
        for second in 1..20 {
            world.run(f64::from(second));
            let at = MediaTime::from_micros(u64::from(second as u32) * 1_000_000);
            let packets = (0..65_535).map(|number| lie(number / 2)).collect();
            world.flows[0].estimator.on_feedback(&FeedbackReport { at, packets });
        }
        let estimate = world.flows[0].estimator.estimate();
        println!("{estimate:?}");
        assert!(estimate.target <= Bitrate::from_kbps(4000));
    }
}

/// Five packets of full size are a third of a second of a queue at this rate.
#[test]
fn a_probe_does_not_fill_a_narrow_path() {
    with_seeds(|seed| {
        let world = run(
            LinkSetup::new(150e3),
            FlowSetup { encoder: 60e3..1.5e6, ..FlowSetup::new(40.0) },
            seed,
        );
        let queue = quantile(&world.links[0].waits(10.0, 40.0), 0.95);
        println!("{queue:.3}");
        assert!(queue <= 0.18 && world.flows[0].probes >= 3, "{queue}");
    });
}
