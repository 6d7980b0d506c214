//! Tests that closed connections free all descriptors, threads and memory. They have a test program
//! of their own, because they count the descriptors and threads of the whole process.
#![cfg(target_os = "linux")]

#[path = "integration/transport/frames.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod frames;
#[path = "integration/transport/pair.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod pair;
#[path = "rig/resource_usage.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod resource_usage;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quintet::{
    media::{EncodedAudio, Fanout},
    model::{Direction::SendRecv, PeerMedia, PerChannel, PerSource},
};
use tokio::runtime::Builder;

use crate::{
    frames::{audio_packet, frame, next_frame},
    pair::{Endpoint, Pair, guarded},
    resource_usage::ResourceUsage,
};

const ALL_MEDIA: PeerMedia = PeerMedia {
    sections: PerSource { camera: Some(SendRecv), microphone: Some(SendRecv) },
    channels: PerChannel::ALL,
};

/// Runs one test at a time, with its own runtime, because the counts are those of the whole
/// process.
fn run_exclusively(mut runtime: Builder, test: impl Future<Output = ()>) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _guard = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    // Until then the test harness has started the threads of all tests, which would be counted.
    std::thread::sleep(Duration::from_millis(50));
    runtime.enable_all().build().expect("a runtime starts").block_on(test);
}

/// The held resources, once the dropped connections have closed their descriptors.
async fn held_after_closing(descriptors: usize) -> ResourceUsage {
    let mut clock = tokio::time::interval(Duration::from_millis(10));
    guarded("sockets to be closed", async {
        while ResourceUsage::of_this_process().descriptors > descriptors {
            clock.tick().await;
        }
    })
    .await;
    ResourceUsage::of_this_process()
}

/// Connects a pair, sends audio and a video frame in both directions, and drops the pair.
async fn connect_and_drop() {
    let (video, audio) = (Fanout::default(), Fanout::<EncodedAudio>::default());
    let mut pair = Pair::connected(ALL_MEDIA, ALL_MEDIA).await;
    for end in [&pair.a, &pair.b] {
        end.connection.send_video(Some(video.subscribe(8)));
        end.connection.send_audio(Some(audio.subscribe(8)));
    }
    video.publish(frame(1, true, 20_000));
    audio.publish(audio_packet(1));
    for end in [&mut pair.a, &mut pair.b] {
        for _ in 0..2 {
            let mut track = guarded("a track", end.tracks.recv()).await.expect("alive");
            if track.codec == quintet::media::Codec::H264 {
                next_frame(&mut track.packets).await;
            }
        }
    }
}

/// Connects and drops that many pairs, five at the same time, as when several users join.
async fn connect_and_drop_pairs(count: usize) {
    for _ in 0..count / 5 {
        let pairs = std::iter::repeat_with(|| tokio::spawn(connect_and_drop())).take(5);
        for pair in pairs.collect::<Vec<_>>() {
            pair.await.expect("the pair connected");
        }
    }
}

#[test]
fn two_hundred_connections_leave_nothing_behind() {
    run_exclusively(Builder::new_multi_thread(), async {
        let before = ResourceUsage::of_this_process();
        connect_and_drop_pairs(25).await;
        let some = held_after_closing(before.descriptors).await;
        connect_and_drop_pairs(75).await;
        let many = held_after_closing(before.descriptors).await;
        println!("before {before:?}, after 50 {some:?}, after 200 {many:?}");
        assert!(many.descriptors <= some.descriptors);
        assert!(many.threads <= some.threads);
        // One connection uses about 450 KiB: the test fails if each leaks a tenth of that.
        assert!(many.resident_kib < some.resident_kib + 150 * 45);
    });
}

/// Each connection is dropped one scheduler turn later than the one before.
#[test]
fn a_connection_dropped_at_any_moment_leaves_nothing_behind() {
    run_exclusively(Builder::new_current_thread(), async {
        let before = ResourceUsage::of_this_process();
        for turns in 0..60 {
            let mut a = Endpoint::open("a", ALL_MEDIA, None);
            let b = Endpoint::open("b", ALL_MEDIA, None);
            let offer = a.make_offer(false);
            if turns >= 30 {
                let offer = a.description(offer).await;
                let mut b = b;
                b.accept_offer(&offer);
                for _ in 30..turns {
                    tokio::task::yield_now().await;
                }
            } else {
                for _ in 0..turns {
                    tokio::task::yield_now().await;
                }
            }
        }
        let after = held_after_closing(before.descriptors).await;
        assert!(after.threads <= before.threads);
    });
}
