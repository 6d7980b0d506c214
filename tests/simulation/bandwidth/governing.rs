//! Peers of one machine: who shares an uplink, and how the governor divides it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use quintet::{
    bandwidth::{GovernedPeer, Governor, LayerCost, Precedence, PriorityClass, ProbeToken},
    model::Bitrate,
};

use super::{
    flow::{Flow, FlowSetup},
    mean,
    network::{LinkSetup, quantile},
    with_seeds,
    world::World,
};

/// The peers of a machine, over the links that their setups name.
struct Machine {
    world: World,
    governor: Rc<RefCell<Governor<usize>>>,
}

/// What joins the peers of a machine.
#[derive(Clone, Copy, PartialEq)]
enum Joined {
    /// One probe at a time, nothing else.
    Token,
    Governor,
}

fn machine(
    links: Vec<LinkSetup>,
    flows: Vec<FlowSetup>,
    classes: &[PriorityClass],
    (joined, seed): (Joined, u64),
) -> Machine {
    let mut world = World::new(links, flows, seed);
    let governor = Rc::new(RefCell::new(Governor::default()));
    for (key, class) in classes.iter().enumerate() {
        governor.borrow_mut().set_peer(key, peer(*class));
    }
    let mut token = ProbeToken::default();
    let shared = governor.clone();
    world.coupling = Some(Box::new(move |flows: &mut [Flow], index, now| {
        let mut governor = shared.borrow_mut();
        if joined == Joined::Governor {
            governor.on_estimate(index, &flows[index].estimator.estimate(), now);
            for (key, share) in governor.update(now) {
                let estimator = &mut flows[key].estimator;
                estimator.set_ceiling(share.map(|share| share.target));
                estimator.set_probe_limit(share.map(|share| share.probe_limit));
            }
        }
        let estimator = &mut flows[index].estimator;
        let may_probe =
            governor.may_probe(index) && estimator.wants_probe() && token.acquire(index, now);
        estimator.set_may_probe(may_probe);
    }));
    Machine { world, governor }
}

/// A peer that wants the camera at 720p.
fn peer(class: PriorityClass) -> GovernedPeer {
    let kbps = Bitrate::from_kbps;
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

/// A flow that starts then, with a delay of 20 to 80 ms.
fn flow(index: usize, start: f64, end: f64) -> FlowSetup {
    let delay = [20, 50, 50, 80][index % 4];
    FlowSetup {
        active: start..end,
        return_delay: Duration::from_millis(2 * delay - 20),
        ..FlowSetup::new(end)
    }
}

fn uplink(bps: f64) -> LinkSetup {
    LinkSetup { delay: Duration::from_millis(20), ..LinkSetup::new(bps) }
}

/// What the peers got in the last 40 of 90 seconds, in Mbit/s, and the 95th percentile of the queue.
fn settled(machine: &mut Machine) -> (Vec<f64>, f64) {
    machine.world.run(90.0);
    let rates: Vec<_> =
        machine.world.flows.iter().map(|flow| flow.rate(50.0, 90.0) / 1e6).collect();
    let queue = quantile(&machine.world.links[0].waits(50.0, 90.0), 0.95);
    println!("{rates:.2?}, queue {queue:.3}");
    (rates, queue)
}

#[test]
fn equal_peers_share_an_uplink_equally_with_a_short_queue() {
    for (count, bps) in [(4, 1.5e6), (4, 3e6), (10, 6e6)] {
        let (mut used, mut queues) = (vec![], vec![]);
        with_seeds(|seed| {
            let flows = (0..count).map(|index| flow(index, 0.5 * index as f64, 90.0)).collect();
            let classes = vec![PriorityClass::Conference; count];
            let mut machine = machine(vec![uplink(bps)], flows, &classes, (Joined::Governor, seed));
            let (rates, queue) = settled(&mut machine);
            let governor = machine.governor.borrow();
            assert!((0..count).all(|key| governor.share(key).is_some()), "all share the uplink");
            used.push(rates.iter().sum::<f64>() * 1e6 / bps);
            queues.push(queue);
            // Levels are no weights: one of four on 1.5 Mbit/s has the middle layer, 0.54 Mbit/s, and the
            // others all of the smallest, 0.28.
            let (least, most) =
                rates.iter().fold((9.0_f64, 0.0_f64), |(l, m), rate| (l.min(*rate), m.max(*rate)));
            assert!(most / least <= 2.1, "{rates:?}");
        });
        println!("{count} peers on {bps}: {:.3} used, queue {:.3}", mean(&used), mean(&queues));
        assert!(mean(&used) >= 0.92 && mean(&queues) <= 0.08, "{used:?} {queues:?}");
        assert!(used.iter().all(|used| *used >= 0.88), "{used:?}");
    }
}

#[test]
fn a_conference_gets_more_of_a_full_uplink_than_a_broadcast_and_no_viewer_starves() {
    with_seeds(|seed| {
        let flows = (0..9).map(|index| flow(index, 0.5 * index as f64, 90.0)).collect();
        let mut classes = [PriorityClass::Conference; 9];
        classes[3..].fill(PriorityClass::OneWay);
        let mut machine = machine(vec![uplink(3e6)], flows, &classes, (Joined::Governor, seed));
        let (rates, queue) = settled(&mut machine);
        let (conference, broadcast) = rates.split_at(3);
        assert!(mean(conference) >= 0.36 && queue <= 0.15, "{rates:?}");
        assert!(broadcast.iter().all(|rate| (0.2..0.27).contains(rate)), "{rates:?}");
    });
}

#[test]
fn peers_with_bottlenecks_of_their_own_are_not_governed() {
    let equal = [0.75e6; 4];
    let different = [0.3e6, 0.5e6, 0.75e6, 1e6, 1.3e6, 20e6];
    for (widths, pause) in [(&equal[..], 0.0), (&different[..], 0.3), (&different[..2], 0.0)] {
        let mut governed = vec![];
        with_seeds(|seed| {
            let links = widths.iter().map(|bps| uplink(*bps)).collect();
            let flow = |index| FlowSetup {
                links: (index, None),
                ..flow(index, pause * index as f64, 90.0)
            };
            let count = widths.len();
            let classes = vec![PriorityClass::Conference; count];
            let flows = (0..count).map(flow).collect();
            let mut machine = machine(links, flows, &classes, (Joined::Governor, seed));
            let seconds = (1..90).map(|second| {
                machine.world.run(f64::from(second));
                machine.governed() as f64 / count as f64
            });
            governed.push(mean(&seconds.collect::<Vec<_>>()));
        });
        println!("{governed:.2?} of the time");
        assert!(mean(&governed) <= 0.05, "{governed:?}");
    }
}

/// livekit#1839: probes of many peers that join at once fill the queue, and measure each other.
#[test]
fn peers_that_join_at_once_do_not_keep_the_queue_full() {
    for (joined, most) in [(Joined::Token, 0.2), (Joined::Governor, 0.11)] {
        let mut queues = vec![];
        with_seeds(|seed| {
            let flows = (0..11).map(|index| joining(index, 0.1 * index as f64)).collect();
            let classes = [PriorityClass::Conference; 11];
            let mut machine = machine(vec![uplink(3e6)], flows, &classes, (joined, seed));
            machine.world.run(20.0);
            let waits = machine.world.links[0].waits(5.0, 20.0);
            let (median, upper) = (quantile(&waits, 0.5), quantile(&waits, 0.95));
            println!("queue {median:.3}, {upper:.3}, {:.2} used", used(&machine, 5.0, 20.0) / 3e6);
            assert!(median <= 0.05, "{median}");
            queues.push(upper);
        });
        assert!(mean(&queues) <= most, "{queues:?}");
    }
}

#[test]
fn a_full_uplink_is_found_and_used_within_seconds() {
    let (mut parts, mut queues) = (vec![], vec![]);
    with_seeds(|seed| {
        let flows = (0..9).map(|index| joining(index, 0.3 * index as f64)).collect();
        let mut classes = [PriorityClass::Conference; 9];
        classes[3..].fill(PriorityClass::OneWay);
        let mut machine = machine(vec![uplink(3e6)], flows, &classes, (Joined::Governor, seed));
        machine.world.run(8.0);
        let governed = machine.governed();
        machine.world.run(20.0);
        let part = used(&machine, 10.0, 20.0) / 3e6;
        let queue = quantile(&machine.world.links[0].waits(8.0, 20.0), 0.95);
        println!("{governed} governed, {part:.2} used, queue {queue:.3}");
        assert!(governed == 9 && part >= 0.88, "{governed}, {part}");
        parts.push(part);
        queues.push(queue);
    });
    assert!(mean(&parts) >= 0.93 && mean(&queues) <= 0.08, "{parts:?} {queues:?}");
}

#[test]
fn who_comes_to_a_full_uplink_gets_a_share_at_once() {
    let mut queues = vec![];
    with_seeds(|seed| {
        let start = |index| if index < 4 { 0.3 * index as f64 } else { 26.0 + index as f64 };
        let flows = (0..8).map(|index| joining(index, start(index))).collect();
        let classes = [PriorityClass::Conference; 8];
        let mut machine = machine(vec![uplink(3e6)], flows, &classes, (Joined::Governor, seed));
        machine.world.run(29.0);
        assert_eq!(machine.governed(), 4);
        machine.world.run(34.0);
        assert_eq!(machine.governed(), 8, "a second after the last one came");
        machine.world.run(50.0);
        let queue = quantile(&machine.world.links[0].waits(30.0, 50.0), 0.95);
        let part = used(&machine, 30.0, 50.0) / 3e6;
        println!("queue {queue:.3}, {part:.2} used");
        assert!(part >= 0.85, "{part}");
        queues.push(queue);
    });
    assert!(mean(&queues) <= 0.1, "{queues:?}");
}

/// Somebody in the same house, whose packets do not leave it.
#[test]
fn who_is_not_behind_the_full_uplink_is_let_go() {
    with_seeds(|seed| {
        let flow = |index: usize| FlowSetup {
            links: (usize::from(index == 8), None),
            ..joining(index, if index < 8 { 0.3 * index as f64 } else { 20.0 })
        };
        let classes = [PriorityClass::Conference; 9];
        let flows = (0..9).map(flow).collect();
        let links = vec![uplink(3e6), uplink(50e6)];
        let mut machine = machine(links, flows, &classes, (Joined::Governor, seed));
        machine.world.run(40.0);
        assert!(machine.governor.borrow().share(8).is_none());
        assert_eq!(machine.governed(), 8);
        machine.world.run(70.0);
        let rate = machine.world.flows[8].rate(50.0, 70.0);
        assert!(rate >= 1.3e6, "{rate}");
    });
}

/// A flow that sends no more than a narrow uplink carries for many.
fn joining(index: usize, start: f64) -> FlowSetup {
    FlowSetup { encoder: 60e3..1.5e6, ..flow(index, start, 90.0) }
}

/// What arrives of all flows in a span, in bits per second.
fn used(machine: &Machine, from: f64, to: f64) -> f64 {
    machine.world.flows.iter().map(|flow| flow.rate(from, to)).sum()
}

impl Machine {
    /// How many peers share the uplink.
    fn governed(&self) -> usize {
        let governor = self.governor.borrow();
        (0..self.world.flows.len()).filter(|key| governor.share(*key).is_some()).count()
    }
}
