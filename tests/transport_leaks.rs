//! Two hundred connections leave nothing behind. Alone in its program: it counts the program's
//! own descriptors and threads.
#![cfg(target_os = "linux")]

#[path = "transport/frames.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod frames;
#[path = "rig/held.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod held;
#[path = "transport/pair.rs"]
#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod pair;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use quintet::{
    media::{EncodedAudio, Fanout},
    model::{Direction::SendRecv, PeerMedia},
};
use tokio::runtime::Builder;

use crate::{
    frames::{frame, next_frame, sound},
    held::Held,
    pair::{End, Pair, guarded},
};

const EVERYTHING: PeerMedia =
    PeerMedia { audio: Some(SendRecv), video: Some(SendRecv), data: true };

/// Runs one test at a time, its runtime included: what they count is the whole program's.
fn alone(mut runtime: Builder, test: impl Future<Output = ()>) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    runtime.enable_all().build().expect("a runtime starts").block_on(test);
}

/// What is held once connections that were dropped have closed.
async fn settled(descriptors: usize) -> Held {
    let mut clock = tokio::time::interval(Duration::from_millis(10));
    guarded("sockets to be closed", async {
        while Held::now().descriptors > descriptors {
            clock.tick().await;
        }
    })
    .await;
    Held::now()
}

/// A pair that is connected and has exchanged sound and a picture both ways, and then dropped.
async fn live_and_die() {
    let (pictures, sounds) = (Fanout::default(), Fanout::<EncodedAudio>::default());
    let mut pair = Pair::connected(EVERYTHING, EVERYTHING).await;
    for end in [&pair.a, &pair.b] {
        end.connection.send_video(Some(pictures.subscribe(8)));
        end.connection.send_audio(Some(sounds.subscribe(8)));
    }
    pictures.publish(frame(1, true, 20_000));
    sounds.publish(sound(1));
    for end in [&mut pair.a, &mut pair.b] {
        for _ in 0..2 {
            let mut track = guarded("a track", end.tracks.recv()).await.expect("alive");
            if track.media == quintet::model::Media::Video {
                next_frame(&mut track.packets).await;
            }
        }
    }
}

async fn pairs(count: usize) {
    // Several at a time, as people join.
    for _ in 0..count / 5 {
        let together = std::iter::repeat_with(|| tokio::spawn(live_and_die())).take(5);
        for one in together.collect::<Vec<_>>() {
            one.await.expect("the pair lived");
        }
    }
}

#[test]
fn two_hundred_connections_leave_nothing_behind() {
    alone(Builder::new_multi_thread(), async {
        let before = Held::now();
        pairs(25).await;
        let some = settled(before.descriptors).await;
        pairs(75).await;
        let many = settled(before.descriptors).await;
        println!("before {before:?}, after 50 {some:?}, after 200 {many:?}");
        assert!(many.descriptors <= some.descriptors);
        assert!(many.threads <= some.threads);
        // One connection takes some 450 KiB: a tenth of that kept by each would show.
        assert!(many.resident_kib < some.resident_kib + 150 * 45);
    });
}

/// Whatever it was doing: each connection is dropped one scheduler's turn later than the last.
#[test]
fn a_connection_dropped_at_any_moment_leaves_nothing_behind() {
    alone(Builder::new_current_thread(), async {
        let before = Held::now();
        for turns in 0..60 {
            let mut a = End::open("a", EVERYTHING, None);
            let b = End::open("b", EVERYTHING, None);
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
        let after = settled(before.descriptors).await;
        assert!(after.threads <= before.threads);
    });
}
