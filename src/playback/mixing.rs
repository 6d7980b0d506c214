//! The mixer thread, which decodes and mixes remote audio streams, 10 ms at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Receiver,
    },
    thread,
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    SpeakerSpec,
    output::{Output, Pace},
    voice::{VoiceDecoder, VoiceTally},
};
use crate::{
    audio::{Fade, LevelWindow, Mixer},
    media::{BLOCK_SAMPLES, Meter, RtpPacket, Slot, Stop, now},
    model::{MediaTime, SourceState},
};

/// Mixes one block of each remote audio stream every 10 ms and plays the sum.
pub(super) struct Mixing {
    newcomers: Receiver<Playing>,
    voices: Vec<Playing>,
    mixer: Mixer,
    output: Output,
    /// The output to switch to, if any.
    elsewhere: Arc<Slot<SpeakerSpec>>,
    notify: Arc<dyn Fn(SourceState) + Send + Sync>,
    told: SourceState,
    /// When the next block is due by the clock.
    due: MediaTime,
    /// When the output last demanded a block.
    wanted: MediaTime,
}

/// One remote audio stream on the mixer thread.
pub(super) struct Playing {
    /// Shows the level, whether the stream is audible or not.
    pub(super) meter: Meter,
    /// Measures the level.
    pub(super) level: LevelWindow,
    /// The received packets.
    pub(super) packets: mpsc::Receiver<RtpPacket>,
    /// Reorders and decodes the packets.
    pub(super) decoder: VoiceDecoder,
    /// Publishes the receive statistics.
    pub(super) tally: watch::Sender<VoiceTally>,
    /// The switches that the owner sets.
    pub(super) wishes: Arc<Wishes>,
    /// The gain in the mix.
    pub(super) fade: Fade,
    /// Called once, when playout starts.
    pub(super) on_first: Option<Box<dyn FnOnce() + Send>>,
}

/// The switches that the owner of a [`Voice`](super::Voice) sets.
#[derive(Debug)]
pub(super) struct Wishes {
    /// Whether the stream is part of the mix.
    pub(super) heard: AtomicBool,
    /// Whether the stream must be removed from the mixer thread.
    pub(super) gone: AtomicBool,
}

/// The length of a block.
const BLOCK: Duration = Duration::from_millis(10);

/// How often the fill of a device's ring is checked: four times per block, which keeps the fill and
/// so the latency low.
const LOOK: Duration = Duration::from_micros(2500);

/// If the thread lags behind the clock by more than this, it skips to the current time. The jitter
/// buffers would skip the blocks in between anyway.
const GIVE_UP: Duration = Duration::from_millis(200);

/// The most packets taken from one stream per block. A sender of more floods the queue, which drops
/// the newest packets when it is full.
const PACKETS_A_BLOCK: usize = 64;

/// The length of the fade in samples when a stream becomes audible or inaudible: 5 ms.
const TURN: usize = BLOCK_SAMPLES / 2;

impl Mixing {
    /// Creates a mixer without streams.
    pub(super) fn new(
        (output, next_output): (Output, Arc<Slot<SpeakerSpec>>),
        new_voices: Receiver<Playing>,
        notify: Arc<dyn Fn(SourceState) + Send + Sync>,
    ) -> Self {
        Self {
            newcomers: new_voices,
            voices: vec![],
            mixer: Mixer::new(),
            output,
            elsewhere: next_output,
            notify,
            told: SourceState::Idle,
            due: now(),
            wanted: now(),
        }
    }

    /// Mixes until the stop signal.
    pub(super) fn run(mut self, stop: &Stop) {
        while !stop.is_set() {
            self.voices.extend(self.newcomers.try_iter());
            self.voices.retain(|voice| !voice.wishes.gone.load(Ordering::Acquire));
            self.move_out();
            let state = self.output.tend(now());
            self.tell(state);
            let wait = self.mix_what_is_due(now());
            thread::sleep(wait);
        }
    }

    /// Switches to another output if one is set.
    fn move_out(&mut self) {
        if let Some(spec) = self.elsewhere.take() {
            // The old output is closed first: the new one may be the same device, which may allow
            // only one user.
            self.output = Output::Silent;
            self.output = Output::new(&spec);
            self.tell(SourceState::Opening);
            self.wanted = now();
        }
    }

    /// Reports the state of the output if it has changed. After a failure, retries are not reported
    /// until one succeeds or fails for another reason.
    fn tell(&mut self, state: SourceState) {
        if state != self.told {
            self.told = state.clone();
            (self.notify)(state);
        }
    }

    /// Mixes the blocks that are due. Returns how long to sleep.
    fn mix_what_is_due(&mut self, now: MediaTime) -> Duration {
        let mut demand = self.output.pace();
        while demand == Pace::Now {
            self.mix(now);
            (self.wanted, self.due) = (now, now + BLOCK);
            demand = self.output.pace();
        }
        if let Pace::Wait(timeout) = demand
            && now.since(self.wanted) <= timeout
        {
            self.due = now + BLOCK;
            return LOOK;
        }
        // By the clock: there is no device or it has stalled. Streams are still decoded and
        // measured.
        if now.since(self.due) > GIVE_UP {
            self.due = now;
        }
        while now >= self.due {
            self.mix(self.due);
            self.due = self.due + BLOCK;
        }
        match demand {
            Pace::Clock => self.due.since(now),
            Pace::Now | Pace::Wait(_) => LOOK,
        }
    }

    /// Mixes one block and plays it.
    fn mix(&mut self, now: MediaTime) {
        for voice in &mut self.voices {
            let gain = f32::from(u8::from(voice.wishes.heard.load(Ordering::Acquire)));
            if !voice.decoder.is_playing() {
                voice.fade = Fade::at(gain);
            }
            if let Some(mut block) = voice.fetch(now) {
                voice.fade.apply(&mut block, gain, TURN);
                self.mixer.add(&block);
            }
        }
        let block = self.mixer.take();
        self.output.play(&block);
    }
}

impl Playing {
    /// Takes the packets that arrived, returns the next block and updates the statistics.
    fn fetch(&mut self, now: MediaTime) -> Option<[f32; BLOCK_SAMPLES]> {
        for _ in 0..PACKETS_A_BLOCK {
            let Ok(packet) = self.packets.try_recv() else { break };
            self.decoder.push(&packet);
        }
        let block = self.decoder.pull(now);
        self.meter.set(self.level.push(&block.unwrap_or([0.0; BLOCK_SAMPLES])));
        self.tally.send_modify(|stats| {
            stats.counts = self.decoder.counts();
            stats.history.push(&block.unwrap_or([0.0; BLOCK_SAMPLES]));
        });
        if self.decoder.is_playing()
            && let Some(on_first) = self.on_first.take()
        {
            on_first();
        }
        block
    }
}
