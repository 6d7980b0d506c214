//! Peer connections that share the uplink of their machine, in virtual time: whole connections, the
//! governor and the layers of the program. Only the encoders are others: their frames have the
//! right lengths and no content.

use std::time::Duration;

use bytes::Bytes;
use quintet::{
    bandwidth::{AUDIO_WIRE_RATE, LayerAllocator, Precedence, PriorityClass, ViewerState},
    engine::{Uplink, UplinkMember, UplinkNeeds},
    media::{self, EncodedAudio, EncodedVideo, Fanout, IncomingTrack},
    model::{Bitrate, Direction, Layer, MediaTime, PeerId, Size},
    transport::{VirtualNetwork, VirtualUplink},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, interval},
};

use crate::transport::{
    pair::{Endpoint, Pair, audio_video},
    stats::sent_bits,
};

const SIZE: Size = Size::new(1280, 720);
const FPS: u32 = 30;

/// The least time between two keyframes of a layer, as in the program.
const KEYFRAME_PAUSE: Duration = Duration::from_millis(500);

/// How many times as long as other frames keyframes are.
const KEYFRAME_FACTOR: usize = 4;

/// A machine that sends its camera and its microphone to others.
struct Machine {
    network: VirtualNetwork,
    bottleneck: VirtualUplink,
    uplink: Uplink,
    peers: Vec<Peer>,
    allocator: LayerAllocator<PeerId>,
    video: [Encoder; 3],
    audio: Fanout<EncodedAudio>,
    frames: u32,
    tasks: JoinSet<()>,
}

struct Peer {
    id: PeerId,
    pair: Pair,
    member: UplinkMember,
}

#[derive(Default)]
struct Encoder {
    frames: Fanout<EncodedVideo>,
    target: Bitrate,
    keyframe_at: Option<MediaTime>,
    wants_keyframe: bool,
}

impl Machine {
    fn new(kbps: u64) -> Self {
        let queue = Duration::from_millis(300);
        Self {
            network: VirtualNetwork::default(),
            bottleneck: VirtualUplink::new(Bitrate::from_kbps(kbps), queue),
            uplink: Uplink::default(),
            peers: vec![],
            allocator: LayerAllocator::new(SIZE, FPS, None),
            video: Default::default(),
            audio: Fanout::default(),
            frames: 0,
            tasks: JoinSet::new(),
        }
    }

    /// Connects to another peer, and sends to it from now on.
    async fn add(&mut self, class: PriorityClass) {
        let id = PeerId(self.peers.len() as u64 + 1);
        let endpoint = |name, direction, network| {
            Endpoint::configured(name, audio_video(direction), |config| {
                (config.peer, config.network) = (id, Some(network));
            })
        };
        let a = endpoint("a", Direction::SendOnly, self.network.behind(&self.bottleneck));
        let b = endpoint("b", Direction::RecvOnly, self.network.clone());
        let mut pair = Pair { a, b };
        pair.connect().await;
        let (_, unused) = mpsc::channel(1);
        self.tasks.spawn(read_all(std::mem::replace(&mut pair.b.tracks, unused)));
        pair.a.connection.send_audio(Some(self.audio.subscribe(25)));
        let member = self.uplink.add(id, &pair.a.connection, (class, Precedence::Usual));
        self.peers.push(Peer { id, pair, member });
    }

    /// Sends for so long.
    async fn run(&mut self, time: Duration) {
        let end = Instant::now() + time;
        let mut clock = interval(Duration::from_millis(10));
        let mut step = 0_u32;
        while Instant::now() < end {
            clock.tick().await;
            step += 1;
            if step.is_multiple_of(2) {
                self.send_audio();
            }
            if step.is_multiple_of(10) {
                self.choose_layers();
            }
            // Thirty frames in a second: three in ten steps.
            if matches!(step % 10, 0 | 3 | 7) {
                self.send_frames();
            }
        }
    }

    fn send_audio(&self) {
        let now = media::now();
        let sample = now.as_micros() * 48 / 1000 / 960 * 960;
        self.audio.publish(EncodedAudio::new(now, sample, Bytes::from_static(&[0x55; 100])));
    }

    fn choose_layers(&mut self) {
        let now = media::now();
        for Peer { id, pair, member } in &self.peers {
            let estimate = *pair.a.connection.estimates().borrow();
            let state = ViewerState::measured(Some(Layer::Full), &estimate, AUDIO_WIRE_RATE);
            self.allocator.set_viewer(*id, state, now);
            self.allocator.set_governed(*id, estimate.ceiling.is_some());
            let video = self.allocator.desired(*id);
            let desired = Bitrate::from_bps(video.as_bps() + AUDIO_WIRE_RATE.as_bps());
            pair.a.connection.set_desired_rate(desired);
            let layers = self.allocator.costs(*id);
            member.needs()(UplinkNeeds { audio: AUDIO_WIRE_RATE, layers, desired });
        }
        let before: Vec<_> = self.peers.iter().map(|one| self.allocator.layer(one.id)).collect();
        let allocation = self.allocator.update(now);
        for (id, layer) in allocation.layers {
            let index = self.peers.iter().position(|one| one.id == id).expect("it is known");
            let connection = &self.peers[index].pair.a.connection;
            let frames =
                layer.map(|layer| self.video[layer as usize].frames.subscribe(media::MAX_LAG));
            connection.send_video(if before[index].is_some() {
                frames.map(|frames| frames.as_successor())
            } else {
                frames
            });
        }
        for (layer, target) in allocation.targets {
            self.video[layer as usize].target = target;
        }
    }

    fn send_frames(&mut self) {
        self.frames += 1;
        for layer in Layer::ALL {
            let fps = layer.fps(FPS);
            if self.frames.is_multiple_of(FPS / fps) {
                self.video[layer as usize].encode(layer, fps);
            }
        }
    }

    /// The kilobits per second on the wire that each peer is sent in a time.
    async fn rates(&mut self, time: Duration) -> Vec<f64> {
        let before: Vec<_> = self.peers.iter().map(|peer| sent_bits(&peer.pair.a)).collect();
        self.run(time).await;
        let after = self.peers.iter().map(|peer| sent_bits(&peer.pair.a));
        let bits = after.zip(before).map(|(after, before)| after - before);
        bits.map(|bits| bits / 1000.0 / time.as_secs_f64()).collect()
    }

    /// The 95th percentile of the queue since then, in milliseconds.
    fn queue_since(&self, begun: Instant) -> f64 {
        let waits = self.bottleneck.waits();
        let mut waits: Vec<_> =
            waits.iter().filter(|(at, _)| *at >= begun).map(|(_, wait)| *wait).collect();
        waits.sort_unstable();
        waits[waits.len() * 95 / 100].as_secs_f64() * 1000.0
    }
}

impl Encoder {
    fn encode(&mut self, layer: Layer, fps: u32) {
        let now = media::now();
        self.wants_keyframe |= self.frames.take_keyframe_request();
        if self.frames.subscribers() == 0 || self.target == Bitrate::default() {
            return;
        }
        let may = self.keyframe_at.is_none_or(|at| now.since(at) >= KEYFRAME_PAUSE);
        let is_key = self.wants_keyframe && may;
        if is_key {
            (self.wants_keyframe, self.keyframe_at) = (false, Some(now));
        }
        let length = self.target.as_bps() as usize / 8 / fps as usize;
        let length = if is_key { KEYFRAME_FACTOR * length } else { length };
        let mut data = vec![0, 0, 0, 1];
        if is_key {
            data.extend([0x67, 0x42, 0xe0, 0x1f, 0, 0, 0, 1, 0x68, 0xce, 1, 0, 0, 0, 1]);
        }
        data.push(if is_key { 0x65 } else { 0x41 });
        data.resize(length.max(data.len() + 4), 0xab);
        let size = layer.size(SIZE);
        self.frames.publish(EncodedVideo::new(layer, now, size, is_key, data.into()));
    }
}

/// Reads the packets of all tracks.
async fn read_all(mut tracks: mpsc::Receiver<IncomingTrack>) {
    let mut reading = JoinSet::new();
    while let Some(mut track) = tracks.recv().await {
        reading.spawn(async move { while track.packets.recv().await.is_some() {} });
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The epoch of media times is before the virtual clock's first moment.
fn in_virtual_time<T>(test: impl Future<Output = T>) -> T {
    media::now();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime starts").block_on(test)
}

#[test]
fn a_conference_and_a_broadcast_share_an_uplink_of_3_mbit() {
    in_virtual_time(async {
        let mut machine = Machine::new(3000);
        for index in 0..9 {
            let is_conference = index < 3;
            let class =
                if is_conference { PriorityClass::Conference } else { PriorityClass::OneWay };
            machine.add(class).await;
            machine.run(Duration::from_millis(300)).await;
        }
        machine.run(seconds(5)).await;
        let first = machine.rates(seconds(10)).await;
        println!("{first:.0?} kbit/s at first, {} governed", machine.uplink.governed());
        assert!(first.iter().all(|rate| *rate >= 64.0), "everybody is heard at once: {first:?}");
        assert!(first.iter().sum::<f64>() >= 2400.0, "much of it is used at once: {first:?}");
        let begun = Instant::now();
        let rates = machine.rates(seconds(20)).await;
        let queue = machine.queue_since(begun);
        println!("{rates:.0?} kbit/s, queue {queue:.0} ms, {} governed", machine.uplink.governed());
        let (conference, broadcast) = rates.split_at(3);
        let mean = |rates: &[f64]| rates.iter().sum::<f64>() / rates.len() as f64;
        assert_eq!(machine.uplink.governed(), 9, "all share the uplink");
        assert!(rates.iter().sum::<f64>() >= 2500.0, "much of it is used: {rates:?}");
        assert!(rates.iter().all(|rate| *rate >= 64.0), "everybody is heard: {rates:?}");
        assert!(mean(conference) > 0.9 * mean(broadcast), "{conference:?} {broadcast:?}");
        assert!(queue <= 120.0, "{queue}");
    });
}
