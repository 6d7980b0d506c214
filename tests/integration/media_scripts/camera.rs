//! A camera in three layers, each encoded once for all viewers that take it.
//!
//! It does what `engine/video_layers.rs` and the threads of the encoders do, on one task in virtual
//! time, with the allocator of the program. The frames have the lengths of those of 1280x720@30.

use std::{sync::Arc, time::Duration};

use quintet::{
    bandwidth::{AUDIO_WIRE_RATE, Allocation, Estimate, LayerAllocator, ViewerState},
    encode::{H264Encoder, KeyframePacer},
    media::{self, EncodedVideo, Fanout, FramePool, MAX_LAG, SubscriptionSlot},
    model::{Bitrate, Layer, MediaTime, Size},
};
use tokio::{
    sync::watch,
    time::{Instant, interval},
};

use super::sender::{SIZE, padded, paint};

/// The size and frame rate that the camera is said to have.
const SOURCE: Size = Size::new(1280, 720);
const FPS: u32 = 30;

/// Frames between two choices of layers: 100 ms.
const CHOICE_FRAMES: u32 = 3;

/// How many times as long as other frames keyframes are.
const KEYFRAME_FACTOR: f64 = 8.0;

/// The lengths of frames relative to their mean, again and again: a moving picture is not even.
const LENGTHS: [f64; 8] = [1.0, 0.8, 1.3, 0.9, 1.1, 0.7, 1.2, 1.0];

/// A connection that gets the camera.
pub(crate) struct Viewer {
    pub(crate) slot: Arc<SubscriptionSlot<EncodedVideo>>,
    pub(crate) estimates: watch::Receiver<Estimate>,
    pub(crate) set_desired: Box<dyn Fn(Bitrate) + Send>,
    /// When it joins, counted from the start of the camera.
    pub(crate) joins: Duration,
}

/// Sends the camera for ever.
pub(crate) async fn send(viewers: Vec<Viewer>) {
    let begun = Instant::now();
    let mut camera = Camera::new(viewers);
    let mut clock = interval(Duration::from_secs(1) / FPS);
    for number in 0.. {
        clock.tick().await;
        if number % CHOICE_FRAMES == 0 {
            camera.choose(begun.elapsed());
        }
        camera.encode(number, begun.elapsed().as_millis() as u64);
    }
}

struct Camera {
    viewers: Vec<Viewer>,
    allocator: LayerAllocator<usize>,
    outputs: [Output; 3],
    pool: FramePool,
}

/// One layer.
#[derive(Default)]
struct Output {
    frames: Fanout<EncodedVideo>,
    encoder: Option<H264Encoder>,
    keyframes: KeyframePacer,
    target: Bitrate,
}

impl Camera {
    fn new(viewers: Vec<Viewer>) -> Self {
        let allocator = LayerAllocator::new(SOURCE, FPS, None);
        Self { viewers, allocator, outputs: Default::default(), pool: FramePool::default() }
    }

    fn choose(&mut self, passed: Duration) {
        let now = media::now();
        let before: Vec<_> = (0..self.viewers.len()).map(|key| self.allocator.layer(key)).collect();
        for (key, viewer) in self.viewers.iter().enumerate() {
            if passed < viewer.joins {
                continue;
            }
            let estimate = *viewer.estimates.borrow();
            let state = ViewerState::measured(Some(Layer::Full), &estimate, AUDIO_WIRE_RATE);
            let state = ViewerState { is_testing: false, ..state };
            self.allocator.set_viewer(key, state, now);
            let desired = self.allocator.desired(key).as_bps() + AUDIO_WIRE_RATE.as_bps();
            (viewer.set_desired)(Bitrate::from_bps(desired));
        }
        let Allocation { layers, targets } = self.allocator.update(now);
        for (layer, target) in targets {
            self.outputs[layer as usize].target = target;
        }
        for (key, layer) in layers {
            let frames = layer.map(|layer| self.outputs[layer as usize].frames.subscribe(MAX_LAG));
            let is_change = before[key].is_some();
            let frames =
                frames.map(|frames| if is_change { frames.as_successor() } else { frames });
            self.viewers[key].slot.set(frames);
        }
    }

    fn encode(&mut self, number: u32, ms: u64) {
        let now = media::now();
        let frame = self.pool.frame(SIZE, now, |bytes| paint(bytes, number, ms));
        for (layer, output) in Layer::ALL.into_iter().zip(&mut self.outputs) {
            let is_left_out = layer.fps(FPS) < FPS && number % 2 == 1;
            if output.frames.subscribers() == 0 {
                output.encoder = None;
            } else if !is_left_out {
                output.encode((layer, &frame), now, number);
            }
        }
    }
}

impl Output {
    fn encode(&mut self, (layer, frame): (Layer, &media::VideoFrame), now: MediaTime, number: u32) {
        if self.frames.take_keyframe_request() {
            self.keyframes.request();
        }
        let encoder = self.encoder.get_or_insert_with(|| {
            H264Encoder::new(SIZE, FPS, Bitrate::from_kbps(200)).expect("an encoder")
        });
        let encoded = encoder.encode(frame, self.keyframes.is_due(now)).expect("it is encoded");
        let Some(encoded) = encoded else { return };
        if encoded.is_key {
            self.keyframes.on_keyframe(now);
        }
        let mean = self.target.as_bps() as f64 / 8.0 / f64::from(layer.fps(FPS));
        let length = match encoded.is_key {
            true => mean * KEYFRAME_FACTOR,
            false => mean * LENGTHS[number as usize % LENGTHS.len()],
        };
        let data = padded(&encoded.data, length as usize);
        self.frames.publish(EncodedVideo::new(layer, now, SIZE, encoded.is_key, data.into()));
    }
}
