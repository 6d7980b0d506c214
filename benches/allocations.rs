//! Counts the heap allocations of the sending side for each packet that it sends, at one viewer and at
//! many: `cargo bench --bench allocations`, or with `--profile dev`, which counts the same and builds
//! sooner. Real sockets, one tokio worker for the sender and one for the viewers. Counts, unlike times, are the same
//! on a busy machine.
//!
//! All that the sender does counts: reading feedback and checking the path, too. It fails if a packet
//! costs more than today.

#![expect(unsafe_code, reason = "an allocator is unsafe to implement")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use quintet::{
    media::{EncodedVideo, Fanout, MAX_LAG},
    model::{
        Bitrate, Direction, Layer, MediaTime, PeerMedia, PerChannel, PerSource, RtcStats, Size,
    },
    transport::Connection,
};
use tokio::{
    runtime::{Builder, Runtime},
    time::{MissedTickBehavior, interval, sleep},
};

#[path = "../tests/integration/transport/pair.rs"]
#[expect(dead_code, reason = "the tests need more of it")]
mod pair;

use pair::{Endpoint, Pair};

/// What a sent packet may cost. Five of these are made for each packet: one for the header extension with
/// the transport-wide number, two as the library parses the header with it again before it encrypts, and one each to
/// write and to encrypt the packet. The others are for each frame, for feedback, and for checks of the path.
const MOST: f64 = 12.0;

/// How long to wait until the estimates have grown to what is sent.
const SETTLE_TIME: Duration = Duration::from_secs(6);

/// How long to count.
const COUNT_TIME: Duration = Duration::from_secs(5);

/// The bytes of a frame: six packets, 1.6 Mbit/s at 30 frames a second.
const FRAME_BYTES: usize = 6900;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whether this thread belongs to the sender.
    static SENDS: Cell<bool> = const { Cell::new(false) };
}

impl Counting {
    fn count() {
        if SENDS.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// SAFETY: all of it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        // SAFETY: as the caller promises.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let sender = runtime(true);
    let viewers = runtime(false);
    for count in [1, 20] {
        let figures = viewers.block_on(measure(&sender, &viewers, count));
        println!(
            "{count:3} viewers: {:.2} allocations a packet, {:.1} packets a second each",
            figures.per_packet, figures.packets_a_second,
        );
        assert!(figures.per_packet <= MOST, "a packet may cost {MOST} allocations");
    }
}

fn runtime(sends: bool) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().on_thread_start(move || SENDS.set(sends));
    builder.build().expect("a runtime")
}

struct Figures {
    per_packet: f64,
    packets_a_second: f64,
}

async fn measure(sender: &Runtime, viewers: &Runtime, count: usize) -> Figures {
    let fanout = Fanout::default();
    let mut pairs = vec![];
    for _ in 0..count {
        pairs.push(connected(sender, viewers, &fanout).await);
    }
    let frames = sender.spawn(publish(fanout));
    sleep(SETTLE_TIME).await;
    let sample = || {
        let packets: u64 = pairs.iter().map(|pair| packets_sent(&pair.a.connection)).sum();
        (ALLOCATIONS.load(Ordering::Relaxed), packets)
    };
    let before = sample();
    sleep(COUNT_TIME).await;
    let after = sample();
    frames.abort();
    let packets = (after.1 - before.1) as f64;
    Figures {
        per_packet: (after.0 - before.0) as f64 / packets,
        packets_a_second: packets / COUNT_TIME.as_secs_f64() / count as f64,
    }
}

/// A viewer that is sent what `fanout` carries.
async fn connected(sender: &Runtime, viewers: &Runtime, fanout: &Fanout<EncodedVideo>) -> Pair {
    let mut pair = Pair {
        a: {
            let _guard = sender.enter();
            Endpoint::open("a", video(Direction::SendOnly), None)
        },
        b: {
            let _guard = viewers.enter();
            Endpoint::open("b", video(Direction::RecvOnly), None)
        },
    };
    pair.connect().await;
    pair.a.connection.set_desired_rate(Bitrate::from_kbps(2000));
    pair.a.connection.send_video(Some(fanout.subscribe(MAX_LAG)));
    pair
}

fn video(direction: Direction) -> PeerMedia {
    let sections = PerSource { camera: Some(direction), microphone: None };
    PeerMedia { sections, channels: PerChannel::NONE }
}

/// Publishes 30 frames a second, of which each hundredth is a keyframe.
async fn publish(fanout: Fanout<EncodedVideo>) {
    let mut ticks = interval(Duration::from_micros(33_333));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let frames = [0x65, 0x41].map(frame);
    let (layer, size) = (Layer::Full, Size::new(1280, 720));
    let mut number = 0_u64;
    loop {
        ticks.tick().await;
        let is_key = number.is_multiple_of(100);
        let time = MediaTime::from_micros(number * 33_333);
        let data = frames[usize::from(!is_key)].clone();
        fanout.publish(EncodedVideo::new(layer, time, size, is_key, data));
        number += 1;
    }
}

/// One NAL unit with that header.
fn frame(header: u8) -> Bytes {
    let mut bytes = vec![0, 0, 0, 1, header];
    bytes.resize(FRAME_BYTES, 0x55);
    bytes.into()
}

fn packets_sent(connection: &Connection) -> u64 {
    let sent = |object: &RtcStats| {
        let RtcStats::OutboundRtp(stream) = object else { return None };
        Some(stream.packets_sent)
    };
    connection.stats().iter().filter_map(sent).sum()
}
