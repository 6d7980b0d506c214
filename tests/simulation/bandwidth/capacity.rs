//! How well one flow uses a path whose capacity changes (RFC 8867, sections 5.1 and 5.3).

use std::time::Duration;

use super::{
    flow::{Flow, FlowSetup, rate},
    mean,
    network::{LinkSetup, quantile},
    with_seeds,
    world::World,
};

/// How a flow used one segment of a schedule.
#[derive(Debug)]
struct Segment {
    /// The part that arrived of what the link carries or the source has, after the first seconds.
    utilisation: f64,
    /// Seconds until 85 % of that arrive.
    rise: f64,
    /// Seconds until no more is sent than the link carries.
    fall: f64,
}

fn segment(flow: &Flow, (from, to): (f64, f64), (capacity, reference): (f64, f64)) -> Segment {
    let warm_up = if to - from > 15.0 { 10.0 } else { 5.0 };
    let first = |is_reached: &dyn Fn(f64) -> bool| {
        let steps = 0..((to - from) * 10.0) as u32;
        let mut times = steps.map(|step| f64::from(step) / 10.0);
        times.find(|after| is_reached(from + after)).unwrap_or(f64::INFINITY)
    };
    Segment {
        utilisation: flow.rate(from + warm_up, to) / reference,
        rise: first(&|at| rate(&flow.received, at..at + 0.5) >= 0.85 * reference),
        fall: first(&|at| rate(&flow.sent, at..at + 0.3) <= capacity),
    }
}

/// Section 5.1: 1, 2.5, 0.6 and 1 Mbit/s.
const STEPS: [(u64, f64); 4] = [(0, 1e6), (40, 2.5e6), (60, 0.6e6), (80, 1e6)];

/// The path and the sender of section 5.1; some seeds have a longer delay, more jitter, or more
/// frequent reports.
fn varied(seed: u64) -> (LinkSetup, FlowSetup) {
    let mut link = LinkSetup::new(1e6).scheduled(&STEPS);
    let mut flow = FlowSetup::new(100.0).max_video(3e6);
    if seed % 3 == 1 {
        (link.delay, flow.return_delay) = (2 * link.delay, 2 * flow.return_delay);
    }
    if seed % 4 == 1 {
        link.jitter *= 2;
    }
    if seed % 5 == 1 {
        flow.feedback_interval /= 2;
    }
    (link, flow)
}

#[test]
fn a_flow_follows_a_capacity_that_changes() {
    let (mut all, mut recoveries) = (vec![], vec![]);
    with_seeds(|seed| {
        let (link, flow) = varied(seed);
        let desired = flow.desired;
        let mut world = World::new(vec![link], vec![flow], seed);
        world.run(102.0);
        let ends = STEPS.iter().skip(1).map(|(from, _)| *from as f64).chain([100.0]);
        let segments: Vec<_> = STEPS
            .iter()
            .zip(ends)
            .map(|((from, bps), to)| {
                segment(&world.flows[0], (*from as f64, to), (*bps, bps.min(desired)))
            })
            .collect();
        let waits = world.links[0].waits(0.0, 100.0);
        let queue = (quantile(&waits, 0.5), quantile(&waits, 0.95));
        println!("{segments:.2?}, queue {queue:.3?}");
        for one in &segments {
            assert!(one.utilisation >= 0.8 && one.fall <= 1.0, "{one:?}");
        }
        recoveries.extend([segments[1].rise, segments[3].rise]);
        assert!(segments[1].rise <= 10.0 && segments[3].rise <= 10.0, "{segments:?}");
        // Four times this jitter is a queue of its own.
        let most = if seed % 4 == 1 { 0.15 } else { 0.1 };
        assert!(queue.0 <= 0.02 && queue.1 <= most, "{queue:?}");
        all.push(mean(&segments.iter().map(|one| one.utilisation).collect::<Vec<_>>()));
    });
    assert!(mean(&all) >= 0.85, "{all:?}");
    recoveries.sort_by(f64::total_cmp);
    println!("mean {:.3}, median recovery {:.1} s", mean(&all), quantile(&recoveries, 0.5));
    assert!(quantile(&recoveries, 0.5) <= 5.0, "{recoveries:?}");
}

#[test]
fn media_in_both_directions_and_their_reports_share_the_path() {
    with_seeds(|seed| {
        let there = [(0, 2e6), (20, 1e6), (40, 0.5e6), (60, 2e6)];
        let back = [(0, 2e6), (35, 0.8e6), (70, 2e6)];
        let links = [&there[..], &back].map(|steps| LinkSetup::new(0.0).scheduled(steps));
        let flow = |links| FlowSetup { links, ..FlowSetup::new(100.0) };
        let flows = vec![flow((0, Some(1))), flow((1, Some(0)))];
        let mut world = World::new(links.to_vec(), flows, seed);
        world.run(101.0);
        for (index, steps) in [&there[..], &back].into_iter().enumerate() {
            let ends = steps.iter().skip(1).map(|(from, _)| *from as f64).chain([100.0]);
            let used = steps.iter().zip(ends).map(|((from, bps), to)| {
                world.flows[index].rate(*from as f64 + 8.0, to) / bps.min(1.55e6)
            });
            let used: Vec<_> = used.collect();
            let queue = quantile(&world.links[index].waits(8.0, 100.0), 0.95);
            println!("{used:.2?}, queue {queue:.3}");
            assert!(mean(&used) >= 0.85 && used.iter().all(|part| *part >= 0.8), "{used:?}");
            assert!(queue <= 0.1, "{queue}");
        }
    });
}

/// libwebrtc's own tests of narrow and lossy paths.
#[test]
fn narrow_and_lossy_paths_are_used() {
    let narrow = |bps: f64, loss: f64, delay: u64, queue: f64| LinkSetup {
        loss,
        delay: Duration::from_millis(delay),
        queue: Duration::from_secs_f64(queue),
        jitter: Duration::from_millis(2),
        ..LinkSetup::new(bps)
    };
    let ten_packets = 10.0 * 1264.0 * 8.0 / 250e3;
    let cases = [
        (150e3, narrow(150e3, 0.0, 50, 0.3)),
        (250e3, narrow(250e3, 0.01, 100, ten_packets)),
        (500e3, narrow(500e3, 0.03, 50, 0.3)),
        (1e6, narrow(1e6, 0.1, 50, 0.3)),
        (1e6, narrow(1e6, 0.0, 50, 0.03)),
    ];
    for (bps, link) in cases {
        let mut all = vec![];
        with_seeds(|seed| {
            let flow = FlowSetup { encoder: 60e3..1.5e6, ..FlowSetup::new(45.0) };
            let flow = FlowSetup { return_delay: link.delay, ..flow };
            let mut world = World::new(vec![link.clone()], vec![flow], seed);
            world.run(46.0);
            all.push(world.flows[0].rate(10.0, 45.0) / bps / (1.0 - link.loss));
            let queue = quantile(&world.links[0].waits(10.0, 45.0), 0.95);
            let log = &world.links[0].log;
            let dropped = log.iter().filter(|passage| passage.is_dropped).count();
            println!("{:.2?}, queue {queue:.3}, {dropped} of {} dropped", all.last(), log.len());
            assert!(queue <= 0.12 && dropped as f64 <= 0.04 * log.len() as f64);
        });
        assert!(mean(&all) >= 0.85 && all.iter().all(|used| *used >= 0.75), "{bps}: {all:?}");
    }
}
