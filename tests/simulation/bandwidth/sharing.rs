//! How flows share a bottleneck with each other and with a download (RFC 8867, sections 5.2 and 5.4
//! to 5.8).

use std::time::Duration;

use super::{
    flow::{FlowSetup, rate},
    mean,
    network::{LinkSetup, quantile},
    tcp::Tcp,
    with_seeds,
    world::World,
};

/// What each flow got in a span, in Mbit/s.
fn shares(world: &World, from: f64, to: f64) -> Vec<f64> {
    let queue = quantile(&world.links[0].waits(from, to), 0.95);
    let all: Vec<_> = world.flows.iter().map(|flow| flow.rate(from, to) / 1e6).collect();
    println!("{from}..{to}: {all:.2?}, queue {queue:.3}");
    all
}

/// How often the smallest share fits into the largest.
fn ratio(shares: &[f64]) -> f64 {
    let (least, most) = (f64::INFINITY, 0.0);
    let (least, most) =
        shares.iter().fold((least, most), |(least, most), one| (one.min(least), one.max(most)));
    most / least
}

fn run(link: LinkSetup, flows: Vec<FlowSetup>, seed: u64) -> World {
    let end = flows[0].active.end;
    let mut world = World::new(vec![link], flows, seed);
    world.run(end + 1.0);
    world
}

#[test]
fn two_flows_share_a_capacity_that_changes() {
    with_seeds(|seed| {
        let steps = [(0, 4e6), (25, 2e6), (50, 3.5e6), (75, 1e6), (100, 2e6)];
        let link = LinkSetup::new(0.0).scheduled(&steps);
        let world = run(link, vec![FlowSetup::new(125.0); 2], seed);
        let used = steps.iter().map(|(from, bps)| {
            let all = shares(&world, *from as f64 + 10.0, *from as f64 + 25.0);
            assert!(ratio(&all) <= 4.0, "{all:?}");
            all.iter().sum::<f64>() * 1e6 / bps.min(3.1e6)
        });
        let used: Vec<_> = used.collect();
        assert!(mean(&used) >= 0.85 && used.iter().all(|part| *part >= 0.75), "{used:?}");
    });
}

#[test]
fn a_flow_that_comes_later_gets_its_share() {
    with_seeds(|seed| {
        let flow = |from| FlowSetup { active: from..120.0, ..FlowSetup::new(120.0) };
        let flows = [0.0, 20.0, 40.0].map(flow).to_vec();
        let world = run(LinkSetup::new(3.5e6), flows, seed);
        let all = shares(&world, 60.0, 120.0);
        assert!(ratio(&all) <= 2.5 && all.iter().sum::<f64>() >= 0.85 * 3.5, "{all:?}");
        // Ten seconds after it came, it has half of what is fair.
        let last = world.flows[2].rate(50.0, 60.0);
        assert!(last >= 0.45 * 3.5e6 / 3.0, "{last}");
    });
}

#[test]
fn flows_with_round_trips_of_20_to_300_ms_share_a_path() {
    let mut sums = [0.0; 5];
    with_seeds(|seed| {
        let flow = |(index, delay): (usize, u64)| FlowSetup {
            active: 10.0 * index as f64..150.0,
            return_delay: Duration::from_millis(2 * delay - 10),
            ..FlowSetup::new(150.0)
        };
        let flows = [10, 25, 50, 100, 150].into_iter().enumerate().map(flow).collect();
        let link = LinkSetup { delay: Duration::from_millis(10), ..LinkSetup::new(4e6) };
        let world = run(link, flows, seed);
        let all = shares(&world, 60.0, 150.0);
        assert!(ratio(&all) <= 5.0 && all.iter().sum::<f64>() >= 0.85 * 4.0, "{all:?}");
        sums.iter_mut().zip(all).for_each(|(sum, one)| *sum += one);
    });
    assert!(ratio(&sums) <= 3.0, "{sums:?}");
}

#[test]
fn a_flow_survives_a_download_that_fills_the_queue() {
    with_seeds(|seed| {
        for (queue, is_cubic) in [(300, true), (300, false), (1000, true)] {
            let link = LinkSetup { queue: Duration::from_millis(queue), ..LinkSetup::new(2e6) };
            let flow = FlowSetup { active: 5.0..60.0, ..FlowSetup::new(60.0) };
            let mut world = World::new(vec![link], vec![flow], seed);
            world.add_tcp(Tcp::new(is_cubic, 60.0), 0.0);
            world.run(61.0);
            let ours = shares(&world, 15.0, 60.0)[0];
            let tcp = world.tcp.as_ref().map_or(0.0, |tcp| rate(&tcp.received, 15.0..60.0));
            // Audio and the smallest video: the encoder goes no lower.
            assert!(ours >= 0.19 && ours * 1e6 + tcp >= 0.95 * 2e6, "{ours} beside {tcp}");
        }
    });
}

#[test]
fn a_flow_that_paused_gets_its_share_back() {
    with_seeds(|seed| {
        let paused = FlowSetup { pause: 40.0..60.0, ..FlowSetup::new(120.0) };
        let flows = vec![FlowSetup::new(120.0), paused, FlowSetup::new(120.0)];
        let world = run(LinkSetup::new(3.5e6), flows, seed);
        for (from, to) in [(15.0, 40.0), (70.0, 120.0)] {
            let all = shares(&world, from, to);
            assert!(ratio(&all) <= 3.0 && all.iter().sum::<f64>() >= 0.8 * 3.5, "{all:?}");
        }
        let others = shares(&world, 50.0, 60.0);
        assert!(others[0] >= 1.45 && others[2] >= 1.45, "{others:?}");
    });
}

/// Behind a queue that is full all the time no delay grows: only its length tells.
#[test]
fn nobody_starves_behind_a_standing_queue() {
    with_seeds(|seed| {
        let delay = [20, 50, 50, 80];
        let flow = |index: usize| FlowSetup {
            active: index as f64 * 0.5..90.0,
            return_delay: Duration::from_millis(2 * delay[index] - 20),
            ..FlowSetup::new(90.0)
        };
        let link = LinkSetup { delay: Duration::from_millis(20), ..LinkSetup::new(1.5e6) };
        let world = run(link, (0..4).map(flow).collect(), seed);
        let all = shares(&world, 20.0, 90.0);
        let queue = quantile(&world.links[0].waits(20.0, 90.0), 0.5);
        assert!(queue <= 0.1 && ratio(&all) <= 3.0, "{queue} {all:?}");
    });
}
