//! From capture to picture: how soon the first frame is shown, and how soon each later one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quintet::{
    media::{self, BurntInTimecode, Codec, IncomingTrack, Tee},
    model::{Direction, PeerMedia, PerChannel, PerSource, Source},
    playback::{DecodePool, VideoPlayer, VideoTrack},
    transport::Impairment,
};
use tokio::{runtime, sync::mpsc, task::JoinSet, time::interval};

use super::camera::{self, Viewer};
use crate::transport::pair::Pair;

/// The frames that a viewer saw: when, in ms since the start of the camera, and how long after their
/// capture.
type Shown = Vec<(u64, u64)>;

/// Shows a camera to viewers that join at those times, for so long, and returns what each saw.
fn watch(network: Impairment, joins: &[Duration], time: Duration) -> Vec<Shown> {
    // The epoch of media times is before the virtual clock's first moment.
    media::now();
    let runtime = runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(async {
        let mut tasks = JoinSet::new();
        let (mut viewers, mut pairs, mut seen) = (vec![], vec![], vec![]);
        for join in joins {
            let pair = connected(network).await;
            let connection = &pair.a.connection;
            viewers.push(Viewer {
                slot: connection.video_slot(Source::Camera).expect("a section of video"),
                estimates: connection.estimates(),
                set_desired: Box::new(connection.desired_rate()),
                joins: *join,
            });
            pairs.push(pair);
        }
        for pair in &mut pairs {
            let (_, unused) = mpsc::channel(1);
            let tracks = std::mem::replace(&mut pair.b.tracks, unused);
            seen.push(Arc::<Mutex<Shown>>::default());
            tasks.spawn(receive(tracks, Arc::clone(&seen[seen.len() - 1])));
        }
        tasks.spawn(camera::send(viewers));
        tokio::time::sleep(time).await;
        let shown = |one: &Arc<Mutex<Shown>>| {
            std::mem::take(&mut *one.lock().unwrap_or_else(PoisonError::into_inner))
        };
        seen.iter().map(shown).collect()
    })
}

/// A connection that carries video only, over that network, which begins when it is connected.
async fn connected(network: Impairment) -> Pair {
    let video = |direction| PeerMedia {
        sections: PerSource { camera: Some(direction), microphone: None },
        channels: PerChannel::NONE,
    };
    // The round trip time is known then, as in a real call.
    let connecting = Impairment { loss: 0.0, ..network };
    let directions = [Direction::SendOnly, Direction::RecvOnly].map(video);
    let mut pair = Pair::impaired(directions, connecting);
    pair.connect().await;
    pair.a.connection.impair(network);
    pair.b.connection.impair(Impairment { seed: network.seed + 1, ..network });
    pair
}

/// Plays the video, and notes each frame that is shown.
async fn receive(mut tracks: mpsc::Receiver<IncomingTrack>, seen: Arc<Mutex<Shown>>) {
    // The camera starts now, too.
    let begun = media::now();
    let track = tracks.recv().await.expect("a track");
    assert_eq!(track.codec, Codec::H264);
    let (sink, pool) = (Tee::default(), Arc::new(DecodePool::without_threads()));
    let shown = sink.attach();
    let mut track = VideoTrack::new(track);
    let player = VideoPlayer::new(&track, &pool, sink, Box::new(|| ()));
    player.set_decoding(true);
    track.start();
    let mut clock = interval(Duration::from_millis(1));
    loop {
        clock.tick().await;
        let Some(timecode) = shown.slot.take().as_ref().and_then(BurntInTimecode::read) else {
            continue;
        };
        let ms = media::now().since(begun).as_millis() as u64;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((ms, ms.saturating_sub(timecode.unix_ms)));
    }
}

/// The median and the 95th percentile of the delays from `from` on.
fn delays(shown: &Shown, from: Duration) -> (u64, u64) {
    let from = from.as_millis() as u64;
    let late = shown.iter().filter(|(at, _)| *at >= from).map(|(_, delay)| *delay);
    let mut delays: Vec<_> = late.collect();
    delays.sort_unstable();
    assert!(delays.len() > 20, "{} frames", delays.len());
    (delays[delays.len() / 2], delays[delays.len() * 95 / 100])
}

/// A cable: 1 ms each way.
const CLEAN: Impairment = Impairment { delay: Duration::from_millis(1), ..Impairment::NONE };

/// Longer than a change of layer.
const RUN: Duration = Duration::from_secs(10);

/// The bar is 15 and 25 ms from capture to decoded, of which a camera of 1280x720 takes up to 10
/// for capture, encoder, decoder and threads. These take no time here.
#[test]
fn on_a_clean_path_frames_are_shown_at_once_from_the_start_on() {
    let shown = watch(CLEAN, &[Duration::ZERO], RUN);
    assert_eq!(shown[0].len(), 300, "each frame is shown");
    for from in [0, 2, 6] {
        let (median, p95) = delays(&shown[0], Duration::from_secs(from));
        assert!(median <= 6 && p95 <= 10, "from {from} s on: {median} and {p95} ms");
    }
    let latest = shown[0].iter().map(|(_, delay)| *delay).max();
    assert!(latest <= Some(50), "the keyframe of another layer: {latest:?}");
}

#[test]
fn five_viewers_that_join_one_after_another_delay_no_frame() {
    let joins: Vec<_> = (0..5).map(|n| Duration::from_millis(n * 700)).collect();
    for (shown, join) in watch(CLEAN, &joins, RUN).iter().zip(&joins) {
        let first = shown[0].0 - join.as_millis() as u64;
        assert!(first <= 60, "the first picture after {first} ms");
        for from in [Duration::ZERO, Duration::from_secs(4)] {
            let (median, p95) = delays(shown, from);
            assert!(median <= 6 && p95 <= 10, "{median} and {p95} ms");
        }
    }
}

/// 5 % lost, 51 ms each way. A change of layer costs some frames: its keyframe is
/// seldom complete at once.
#[test]
fn where_packets_are_lost_the_first_picture_comes_soon_and_the_others_follow() {
    let seeds = [1, 2, 4, 7, 8, 11];
    let fps = seeds.map(|seed| {
        let delay = Duration::from_millis(51);
        let network = Impairment { seed, loss: 0.05, delay, ..Impairment::NONE };
        let shown = &watch(network, &[Duration::ZERO], Duration::from_secs(6))[0];
        let first = shown[0].0;
        let fps = shown.iter().filter(|(at, _)| *at < first + 5000).count() as f64 / 5.0;
        println!("5 % lost, seed {seed}: first picture after {first} ms, {fps} frames a second");
        assert!(first <= 300 && fps >= 23.0, "seed {seed}: {first} ms, {fps}");
        fps
    });
    let mean = fps.iter().sum::<f64>() / seeds.len() as f64;
    // The goal is 25. Reports that get lost move it a little from run to run.
    assert!(mean >= 24.5, "{mean}");
}

/// What came before the first packet that arrives is asked for.
#[test]
fn where_the_very_first_packet_is_lost_the_first_picture_comes_two_round_trips_later() {
    for seed in FIRST_LOST {
        let delay = Duration::from_millis(51);
        let network = Impairment { seed, loss: 0.05, delay, ..Impairment::NONE };
        let shown = &watch(network, &[Duration::ZERO], Duration::from_secs(2))[0];
        println!("seed {seed}: first picture after {} ms", shown[0].0);
        assert!(shown[0].0 <= 400, "seed {seed}: {} ms", shown[0].0);
    }
}

/// Seeds that lose the first packet, where 5 % are lost. Without that request it took 0.7 s.
const FIRST_LOST: [u64; 3] = [10, 21, 48];
