use std::time::Duration;

use super::*;
use crate::bandwidth::BandwidthEstimator;

const CAMERA: Size = Size::new(1280, 720);

/// An allocator that is called ten times a second.
struct Run {
    allocator: LayerAllocator<u32>,
    now: MediaTime,
    /// The changes of layers so far.
    changes: Vec<(u32, Option<Layer>)>,
    targets: [Bitrate; 3],
}

impl Run {
    fn new() -> Self {
        let allocator = LayerAllocator::new(CAMERA, 30, None);
        let (now, targets) = (MediaTime::from_micros(1_000_000), [Bitrate::default(); 3]);
        Self { allocator, now, changes: vec![], targets }
    }

    fn set(&mut self, key: u32, kbps: u64) -> &mut Self {
        self.set_state(key, Some(Layer::Full), Some(kbps))
    }

    fn set_state(&mut self, key: u32, limit: Option<Layer>, kbps: Option<u64>) -> &mut Self {
        let share = kbps.map(Bitrate::from_kbps);
        let proved = share.map(|_| Bitrate::default());
        let state = ViewerState { limit, share, proved, is_testing: false };
        self.allocator.set_viewer(key, state, self.now);
        self
    }

    /// Lets time pass. Returns the changes of layers.
    fn pass_ms(&mut self, ms: u64) -> Vec<(u32, Option<Layer>)> {
        let before = self.changes.len();
        for _ in 0..ms / 100 {
            let Allocation { layers, targets } = self.allocator.update(self.now);
            self.changes.extend(layers);
            targets.into_iter().for_each(|(layer, rate)| self.targets[layer as usize] = rate);
            self.now = self.now + Duration::from_millis(100);
        }
        self.changes[before..].to_vec()
    }

    fn layer(&self, key: u32) -> Option<Layer> {
        self.allocator.layer(key)
    }

    fn target_kbps(&self, layer: Layer) -> u64 {
        self.targets[layer as usize].as_bps() / 1000
    }
}

/// Numbers between 0 and 1 that look random (xorshift64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[test]
fn a_slow_viewer_beside_nine_fast_ones_moves_none_of_them() {
    let mut run = Run::new();
    for key in 0..9 {
        run.set(key, 20_000);
    }
    run.pass_ms(20_000);
    let before = run.target_kbps(Layer::Full);
    assert_eq!(before, 2500);
    run.changes.clear();
    run.set(9, 300).pass_ms(30_000);
    assert!(run.changes.iter().all(|(key, _)| *key == 9), "{:?}", run.changes);
    assert_eq!((run.layer(9), run.layer(0)), (Some(Layer::Half), Some(Layer::Full)));
    assert_eq!(run.target_kbps(Layer::Full), before);
    assert!((240..300).contains(&run.target_kbps(Layer::Half)), "its own layer follows it");
    // It was fast, and becomes slow.
    run.set(9, 20_000).pass_ms(30_000);
    assert_eq!(run.layer(9), Some(Layer::Full));
    run.changes.clear();
    for kbps in [2400, 1700, 900, 400, 120] {
        run.set(9, kbps).pass_ms(300);
    }
    assert!(run.changes.iter().all(|(key, _)| *key == 9), "{:?}", run.changes);
    assert_eq!(run.layer(9), Some(Layer::Quarter));
    run.pass_ms(10_000);
    assert_eq!(run.target_kbps(Layer::Full), before, "more than usual comes back");
    assert!(run.changes.len() <= 3, "{:?}", run.changes);
}

#[test]
fn no_viewer_keeps_the_others_below_four_fifths_of_the_usual_rate() {
    let mut random = Random(7);
    for case in 0..200 {
        let mut run = Run::new();
        let count = 2 + (random.next() * 10.0) as u32;
        for key in 0..count {
            run.set(key, 100 + (random.next().powi(3) * 5000.0) as u64);
        }
        run.pass_ms(20_000);
        for layer in [Layer::Half, Layer::Full] {
            let takers = (0..count).filter(|key| run.layer(*key) == Some(layer)).count();
            let usual = layer.rates(CAMERA, 30).usual.as_bps() / 1000;
            assert!(takers < 2 || run.target_kbps(layer) >= usual * 4 / 5, "case {case}");
        }
    }
}

#[test]
fn nobody_is_sent_much_more_than_its_path_carries() {
    let mut random = Random(11);
    let mut run = Run::new();
    let mut shares = [2000.0_f64; 8];
    for step in 0..3000 {
        for (key, share) in (0..).zip(&mut shares) {
            // A path changes at times; in between its estimate saws as that of a real one.
            *share = if random.next() < 0.01 { 50.0 + random.next() * 4000.0 } else { *share };
            let saw = 0.85 + 0.15 * f64::from((step + 7 * key) % 30) / 30.0;
            run.set(key, (*share * saw) as u64);
        }
        run.pass_ms(100);
        for (key, share) in (0..).zip(&shares) {
            let Some(layer) = run.layer(key) else { continue };
            let target = run.targets[layer as usize];
            let sent = wire_rate(target, layer.fps_at(CAMERA, 30, target)).as_bps() / 1000;
            let is_least = layer == Layer::Quarter;
            let sent = sent as f64 * if run.allocator.is_base_only(key) { 0.64 } else { 1.0 };
            assert!(is_least || sent <= share * 1.08 + 30.0, "{step}: {sent} of {share}");
        }
    }
}

#[test]
fn ten_viewers_whose_estimates_saw_keep_their_layer() {
    let mut run = Run::new();
    let mut random = Random(5);
    let shares: Vec<_> = (0..10).map(|_| 1650.0 + random.next() * 300.0).collect();
    for (key, share) in (0..).zip(&shares) {
        run.set(key, *share as u64 * 2);
    }
    run.pass_ms(5000);
    run.changes.clear();
    for step in 0..1200 {
        for (key, share) in (0..).zip(&shares) {
            let saw = 0.85 + 0.15 * f64::from((step + 7 * key) % 30) / 30.0;
            run.set(key, (share * saw) as u64);
        }
        run.pass_ms(100);
    }
    assert!(run.changes.len() <= 2, "in two minutes: {:?}", run.changes);
    assert!((0..10).filter(|key| run.layer(*key) == Some(Layer::Full)).count() >= 8);
    assert!(run.target_kbps(Layer::Full) >= 1200);
}

#[test]
fn a_layer_goes_down_at_once_and_up_after_four_seconds_with_room() {
    let mut run = Run::new();
    run.set(1, 1700).pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Full));
    run.set(1, 850);
    assert_eq!(run.pass_ms(100), [(1, Some(Layer::Half))]);
    run.set(1, 1100).pass_ms(20_000);
    assert_eq!(run.layer(1), Some(Layer::Half), "enough to stay, but no room");
    for kbps in 1200..1700 {
        run.set(1, kbps).pass_ms(100);
        if run.layer(1) == Some(Layer::Full) {
            assert!((1310..1320).contains(&kbps), "just carried, and 10 s: {kbps}");
            break;
        }
    }
    run.set(1, 1000).pass_ms(100);
    run.set(1, 850).pass_ms(30_000);
    run.set(1, 1100).pass_ms(5000);
    run.set(1, 1300).pass_ms(5000);
    run.set(1, 1550).pass_ms(3900);
    assert_eq!(run.layer(1), Some(Layer::Half));
    run.pass_ms(200);
    assert_eq!(run.layer(1), Some(Layer::Full), "a fifth to spare, and 4 s");
}

#[test]
fn what_a_probe_proves_is_taken_at_once_but_not_soon_after_going_down() {
    let mut run = Run::new();
    run.set(1, 409).pass_ms(400);
    assert_eq!(run.changes, [(1, Some(Layer::Half))], "the first picture");
    run.set(1, 2500).pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Full));
    run.set(1, 500).pass_ms(100);
    run.set(1, 2500).pass_ms(15_000);
    assert_eq!(run.changes[2..], [(1, Some(Layer::Half))], "it flapped: 16 s");
    run.pass_ms(2000);
    assert_eq!(run.layer(1), Some(Layer::Full));
}

#[test]
fn a_viewer_beside_others_first_loses_every_second_frame() {
    let mut run = Run::new();
    for key in 1..=4 {
        run.set(key, 20_000);
    }
    run.pass_ms(20_000);
    run.changes.clear();
    for key in 1..=4 {
        run.set(key, 1700);
    }
    run.pass_ms(1000);
    let before = run.target_kbps(Layer::Full);
    run.set(4, 1200).pass_ms(100);
    assert_eq!((run.layer(4), run.allocator.is_base_only(4)), (Some(Layer::Full), true));
    assert!(run.allocator.is_limited_by_path(4));
    run.pass_ms(10_000);
    assert!((1..4).all(|key| !run.allocator.is_base_only(key)));
    assert_eq!(run.target_kbps(Layer::Full), before, "the others lose nothing");
    run.set(4, 1700).pass_ms(1900);
    assert!(run.allocator.is_base_only(4));
    run.pass_ms(300);
    assert!(!run.allocator.is_base_only(4), "all frames come back without a keyframe");
    run.set(4, 1000).pass_ms(100);
    assert_eq!((run.layer(4), run.allocator.is_base_only(4)), (Some(Layer::Half), false));
    assert!(run.changes.iter().all(|(key, _)| *key == 4), "{:?}", run.changes);
}

#[test]
fn a_viewer_that_is_alone_gets_all_frames_at_its_own_rate() {
    let mut run = Run::new();
    run.set(1, 1700).set(2, 1700).pass_ms(1000);
    run.set(1, 1250).pass_ms(100);
    assert!(run.allocator.is_base_only(1));
    run.allocator.remove(2);
    run.pass_ms(100);
    assert_eq!((run.layer(1), run.allocator.is_base_only(1)), (Some(Layer::Full), false));
    assert!(run.target_kbps(Layer::Full) < 1250);
}

#[test]
fn a_path_that_flaps_changes_layers_less_and_less() {
    let mut run = Run::new();
    run.set(1, 3000).pass_ms(100);
    run.changes.clear();
    for second in 0..180 {
        run.set(1, if second % 6 < 3 { 3000 } else { 600 }).pass_ms(1000);
    }
    assert!(run.changes.len() <= 16, "in three minutes: {}", run.changes.len());
}

#[test]
fn a_target_falls_at_once_and_rises_by_eight_percent_in_a_second() {
    let mut run = Run::new();
    run.set(1, 2200).pass_ms(1000);
    let high = run.target_kbps(Layer::Full);
    assert!((2000..2150).contains(&high), "{high}");
    run.set(1, 1200).pass_ms(100);
    let low = run.target_kbps(Layer::Full);
    assert!((1080..1160).contains(&low), "{low}");
    run.set(1, 2200).pass_ms(1000);
    let risen = run.target_kbps(Layer::Full) as f64 / low as f64;
    assert!((1.07..1.085).contains(&risen), "{risen}");
    run.set(1, 2150).pass_ms(20_000);
    let settled = run.target_kbps(Layer::Full);
    run.set(1, 2100).pass_ms(1000);
    assert_eq!(run.target_kbps(Layer::Full), settled, "small falls are not followed");
}

#[test]
fn a_target_rises_at_once_to_what_is_proved() {
    let mut run = Run::new();
    let estimator =
        BandwidthEstimator::new(Bitrate::default(), Default::default()..=Default::default());
    let mut measured = |target, proved| {
        let [target, proved] = [target, proved].map(Bitrate::from_kbps);
        let estimate = Estimate { target, proved, ..estimator.estimate() };
        let state = ViewerState::measured(Some(Layer::Full), &estimate, AUDIO_WIRE_RATE);
        run.allocator.set_viewer(1, state, run.now);
        run.pass_ms(100);
        run.target_kbps(Layer::Half)
    };
    assert_eq!(measured(500, 0), 378);
    assert_eq!(measured(950, 0), 381, "nothing shows that the path carries it");
    let proved = measured(950, 700);
    assert!((540..560).contains(&proved), "{proved}");
    assert!((proved..proved + 6).contains(&measured(950, 700)), "slowly above it");
    assert!((770..800).contains(&measured(950, 950)));
}

#[test]
fn a_source_of_another_size_is_chosen_for_at_once() {
    let mut run = Run::new();
    run.set(1, 409).pass_ms(2000);
    assert_eq!(run.layer(1), Some(Layer::Half), "of the size that is assumed");
    run.allocator.set_source(Size::new(320, 180), 30);
    run.set(1, 409).pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Full));
    run.allocator.set_source(CAMERA, 30);
    run.set(1, 409).pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Half));
}

#[test]
fn what_is_not_wanted_is_not_sent_and_a_limit_holds_at_once() {
    let mut run = Run::new();
    run.set(1, 20_000).set_state(2, Some(Layer::Full), None).pass_ms(100);
    assert_eq!(run.layer(2), Some(Layer::Full), "what is not measured counts as enough");
    run.set_state(1, Some(Layer::Quarter), Some(20_000)).pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Quarter));
    run.set_state(1, None, Some(20_000)).pass_ms(100);
    assert_eq!((run.layer(1), run.allocator.desired(1)), (None, Bitrate::default()));
    run.set_state(1, Some(Layer::Full), Some(20_000)).pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Full), "at once");
    run.allocator.set_ceiling(Layer::Half);
    run.pass_ms(100);
    assert_eq!((run.layer(1), run.layer(2)), (Some(Layer::Half), Some(Layer::Half)));
    assert!(!run.allocator.is_limited_by_path(1));
    assert!(run.allocator.desired(1) < Bitrate::from_kbps(900));
    run.allocator.remove(1);
    assert_eq!(run.layer(1), None);
}

#[test]
fn a_loss_test_changes_no_layer() {
    let mut run = Run::new();
    run.set(1, 350).pass_ms(3000);
    let test = ViewerState {
        limit: Some(Layer::Full),
        share: Some(Bitrate::from_kbps(230)),
        proved: Some(Bitrate::default()),
        is_testing: true,
    };
    run.allocator.set_viewer(1, test, run.now);
    run.pass_ms(1000);
    assert_eq!((run.layer(1), run.target_kbps(Layer::Half)), (Some(Layer::Half), 249));
    run.allocator.set_viewer(1, ViewerState { is_testing: false, ..test }, run.now);
    run.pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Quarter), "it was the rate");
    assert_eq!(run.changes.len(), 2);
}

#[test]
fn video_ends_only_after_seconds_with_too_little_and_comes_back_soon() {
    let mut run = Run::new();
    run.set(1, 60).pass_ms(1000);
    run.set(1, 20).pass_ms(4900);
    run.set(1, 60).pass_ms(500);
    run.set(1, 5).pass_ms(2000);
    assert_eq!(run.layer(1), Some(Layer::Quarter));
    run.pass_ms(200);
    assert_eq!(run.layer(1), None);
    run.set(1, 60).pass_ms(2500);
    assert_eq!(run.layer(1), None);
    run.pass_ms(500);
    assert_eq!(run.layer(1), Some(Layer::Quarter));
}

#[test]
fn below_the_smallest_layer_there_is_no_video() {
    let mut run = Run::new();
    run.set(1, 32).pass_ms(1000);
    assert_eq!(run.layer(1), None);
    assert!(run.allocator.is_limited_by_path(1));
    run.set(1, 50).pass_ms(1000);
    assert_eq!((run.layer(1), run.target_kbps(Layer::Quarter)), (Some(Layer::Quarter), 44));
    run.set(1, 100).set(2, 1000).pass_ms(6000);
    assert_eq!((run.layer(1), run.layer(2)), (Some(Layer::Quarter), Some(Layer::Half)));
    assert!((60..100).contains(&run.target_kbps(Layer::Quarter)));
}

#[test]
fn the_users_limit_is_the_usual_rate_of_the_whole_picture() {
    let cap = Some(Bitrate::from_kbps(600));
    let mut run = Run { allocator: LayerAllocator::new(CAMERA, 30, cap), ..Run::new() };
    run.set(1, 20_000).pass_ms(1000);
    assert_eq!((run.layer(1), run.target_kbps(Layer::Full)), (Some(Layer::Full), 600));
    run.set(1, 500).pass_ms(100);
    assert_eq!(run.layer(1), Some(Layer::Half));
}

#[test]
fn a_share_is_what_audio_and_repeats_leave() {
    let rate = Bitrate::from_kbps(1000);
    let estimate = BandwidthEstimator::new(rate, rate..=rate).estimate();
    let estimate = Estimate { target: rate, loss: 0.1, ..estimate };
    assert_eq!(video_share(&estimate, AUDIO_WIRE_RATE), Bitrate::from_bps(795_960));
    let lossy = Estimate { loss: 0.5, target: Bitrate::from_kbps(50), ..estimate };
    assert_eq!(video_share(&lossy, AUDIO_WIRE_RATE), Bitrate::default());
    let wire = |kbps, fps| wire_rate(Bitrate::from_kbps(kbps), fps).as_bps() / 1000;
    assert_eq!([wire(1500, 30), wire(600, 30), wire(150, 15)], [1592, 646, 165]);
}
