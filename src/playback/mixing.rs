//! The thread on which voices are decoded and mixed, 10 ms at a time.

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

/// Fetches a block of each voice every 10 ms and plays their sum.
pub(super) struct Mixing {
    newcomers: Receiver<Playing>,
    voices: Vec<Playing>,
    mixer: Mixer,
    output: Output,
    /// Another output, if one is wanted.
    elsewhere: Arc<Slot<SpeakerSpec>>,
    notify: Arc<dyn Fn(SourceState) + Send + Sync>,
    told: SourceState,
    /// When the next block is due by the clock.
    due: MediaTime,
    /// When the output last wanted a block.
    wanted: MediaTime,
}

/// One voice on the mixing thread.
pub(super) struct Playing {
    /// Where its level is shown, whether it is heard or not.
    pub(super) meter: Meter,
    /// What the level is measured by.
    pub(super) level: LevelWindow,
    /// Its packets.
    pub(super) packets: mpsc::Receiver<RtpPacket>,
    /// What decodes them.
    pub(super) decoder: VoiceDecoder,
    /// Where its figures are seen.
    pub(super) tally: watch::Sender<VoiceTally>,
    /// What its owner wants.
    pub(super) wishes: Arc<Wishes>,
    /// The gain it is mixed with.
    pub(super) fade: Fade,
    /// Called once when it is first heard.
    pub(super) on_first: Option<Box<dyn FnOnce() + Send>>,
}

/// What the owner of a voice wants.
#[derive(Debug)]
pub(super) struct Wishes {
    /// Whether it is mixed.
    pub(super) heard: AtomicBool,
    /// The voice is no longer wanted.
    pub(super) gone: AtomicBool,
}

/// A block's length.
const BLOCK: Duration = Duration::from_millis(10);

/// How often the ring to a device is looked at: four times a block, so that what is kept in it
/// can be short.
const LOOK: Duration = Duration::from_micros(2500);

/// A thread that fell behind its clock by more than this goes on from now: the blocks in between
/// would only be skipped again.
const GIVE_UP: Duration = Duration::from_millis(200);

/// Packets that are taken from one voice in a block at most: whoever sends more is flooding, and
/// what a queue cannot hold is dropped at its other end.
const PACKETS_A_BLOCK: usize = 64;

/// Samples over which a voice appears in the mix or vanishes from it: 5 ms.
const TURN: usize = BLOCK_SAMPLES / 2;

impl Mixing {
    /// A mix without voices.
    pub(super) fn new(
        (output, elsewhere): (Output, Arc<Slot<SpeakerSpec>>),
        newcomers: Receiver<Playing>,
        notify: Arc<dyn Fn(SourceState) + Send + Sync>,
    ) -> Self {
        Self {
            newcomers,
            voices: vec![],
            mixer: Mixer::new(),
            output,
            elsewhere,
            notify,
            told: SourceState::Idle,
            due: now(),
            wanted: now(),
        }
    }

    /// Mixes until told to stop.
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

    /// Plays elsewhere from now on, if that is wanted.
    fn move_out(&mut self) {
        if let Some(spec) = self.elsewhere.take() {
            // The old device first: the new one may be the same, and open for one only.
            self.output = Output::Silent;
            self.output = Output::new(&spec);
            self.tell(SourceState::Opening);
            self.wanted = now();
        }
    }

    /// Tells how the output is, if that is news. Attempts after a failure are none until one
    /// succeeds or fails for another reason.
    fn tell(&mut self, state: SourceState) {
        if state != self.told {
            self.told = state.clone();
            (self.notify)(state);
        }
    }

    /// Mixes the blocks that are due; returns how long to wait.
    fn mix_what_is_due(&mut self, now: MediaTime) -> Duration {
        let mut pace = self.output.pace();
        while pace == Pace::Now {
            self.mix(now);
            (self.wanted, self.due) = (now, now + BLOCK);
            pace = self.output.pace();
        }
        if let Pace::Wait(patience) = pace
            && now.since(self.wanted) <= patience
        {
            self.due = now + BLOCK;
            return LOOK;
        }
        // By the clock: there is no device, or it does not want what it should, and voices are
        // decoded and measured all the same.
        if now.since(self.due) > GIVE_UP {
            self.due = now;
        }
        while now >= self.due {
            self.mix(self.due);
            self.due = self.due + BLOCK;
        }
        match pace {
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
    /// The next block; takes in what arrived, and counts.
    fn fetch(&mut self, now: MediaTime) -> Option<[f32; BLOCK_SAMPLES]> {
        for _ in 0..PACKETS_A_BLOCK {
            let Ok(packet) = self.packets.try_recv() else { break };
            self.decoder.push(&packet);
        }
        let block = self.decoder.pull(now);
        self.meter.set(self.level.push(&block.unwrap_or([0.0; BLOCK_SAMPLES])));
        self.tally.send_modify(|tally| {
            tally.counts = self.decoder.counts();
            tally.history.push(&block.unwrap_or([0.0; BLOCK_SAMPLES]));
        });
        if self.decoder.is_playing()
            && let Some(on_first) = self.on_first.take()
        {
            on_first();
        }
        block
    }
}
