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

use tokio::sync::watch;

use super::{
    SpeakerSpec,
    audio_receive_stats::AudioReceiveStats,
    audio_receiver::AudioReceiver,
    clip::Clip,
    lip_sync::HeardSound,
    output::{BlockDemand, Output},
    tone_tap::ToneTapSlot,
};
use crate::{
    audio::{Fade, LevelWindow, Mixer},
    media::{
        AudioPacket, BLOCK_SAMPLES, FarEnd, Meter, Slot, StereoBlock, Stop, Subscription, now,
    },
    model::{DeviceState, MediaTime},
    supervision::{RESTART_DELAY, catch},
};

/// Mixes one block of each remote audio stream every 10 ms and plays the sum.
pub(super) struct MixerThread {
    new_voices: Receiver<MixedVoice>,
    voices: Vec<MixedVoice>,
    /// The sound of this program that is being played.
    clip: Option<Clip>,
    mixer: Mixer,
    output: Output,
    /// After what time the newest block is heard in the room; `None` if it is not.
    heard_after: Option<Duration>,
    outputs: MixerOutputs,
    notify: Arc<dyn Fn(DeviceState) + Send + Sync>,
    reported_state: DeviceState,
    /// When the next block is due by the clock.
    next_block: MediaTime,
    /// When the output last demanded a block.
    last_demand: MediaTime,
}

/// Where a mixer plays.
#[derive(Clone, Debug, Default)]
pub(super) struct MixerOutputs {
    /// The first output.
    pub(super) spec: SpeakerSpec,
    /// The output to switch to, if any.
    pub(super) next: Arc<Slot<SpeakerSpec>>,
    /// A sound to play once, if any.
    pub(super) clip: Arc<Slot<Clip>>,
    /// Gets what a device plays.
    pub(super) far_end: FarEnd,
}

/// One remote audio stream on the mixer thread.
pub(super) struct MixedVoice {
    /// Shows the level, whether the stream is audible or not.
    pub(super) meter: Meter,
    /// Measures the level.
    pub(super) level: LevelWindow,
    /// Measures the level of the last second, for statistics.
    pub(super) long_level: LevelWindow<100>,
    /// The received packets.
    pub(super) packets: Subscription<AudioPacket>,
    /// Reorders and decodes the packets.
    pub(super) receiver: AudioReceiver,
    /// Publishes the receive statistics.
    pub(super) stats: watch::Sender<AudioReceiveStats>,
    /// The switches that the owner sets.
    pub(super) control: Arc<VoiceControl>,
    /// The gain in the mix.
    pub(super) fade: Fade,
    /// Tells the video of the same participant when the sound is heard.
    pub(super) heard: HeardSound,
    /// Called once, when playout starts.
    pub(super) on_first: Option<Box<dyn FnOnce() + Send>>,
    /// When the stream is decoded again after a panic.
    pub(super) restart_at: Option<MediaTime>,
}

/// The switches that the owner of a [`Voice`](super::Voice) sets.
#[derive(Debug, Default)]
pub(super) struct VoiceControl {
    /// Whether the stream is part of the mix.
    pub(super) is_audible: AtomicBool,
    /// Whether the stream must be removed from the mixer thread.
    pub(super) is_removed: AtomicBool,
    /// Whether the sender signals that it sends nothing.
    pub(super) is_muted: AtomicBool,
    /// Keeps the audio if somebody measures its tone.
    pub(super) tone: ToneTapSlot,
}

/// The length of a block.
const BLOCK: Duration = Duration::from_millis(10);

/// The longest wait for a callback, which wakes this thread: longer than the time between two of
/// them, and short enough to notice in time that there are none.
const CALLBACK_WAIT: Duration = Duration::from_millis(25);

/// If the thread lags behind the clock by more than this, it skips to the current time. The jitter
/// buffers would skip the blocks in between anyway.
const RESYNC_THRESHOLD: Duration = Duration::from_millis(200);

/// The most packets taken from one stream per block. A sender of more floods the queue, which is
/// cleared when it is full.
const MAX_PACKETS_PER_BLOCK: usize = 64;

/// The length of the fade in samples when a stream becomes audible or inaudible: 5 ms.
const FADE_SAMPLES: usize = BLOCK_SAMPLES / 2;

impl MixerThread {
    /// Creates a mixer without streams.
    pub(super) fn new(
        outputs: MixerOutputs,
        new_voices: Receiver<MixedVoice>,
        notify: Arc<dyn Fn(DeviceState) + Send + Sync>,
    ) -> Self {
        Self {
            new_voices,
            voices: vec![],
            clip: None,
            mixer: Mixer::new(),
            output: Output::new(&outputs.spec),
            heard_after: None,
            outputs,
            notify,
            reported_state: DeviceState::Idle,
            next_block: now(),
            last_demand: now(),
        }
    }

    /// Opens a device again after a panic. Streams and a recording continue.
    pub(super) fn restart(&mut self) {
        self.mixer = Mixer::new();
        if matches!(self.output, Output::Device(_)) {
            self.set_output(self.outputs.spec.clone());
        }
        self.report_state(DeviceState::Opening);
    }

    /// Mixes until the stop signal.
    pub(super) fn run(&mut self, stop: &Stop) {
        while !stop.is_set() {
            self.voices.extend(self.new_voices.try_iter());
            self.voices.retain(|voice| !voice.control.is_removed.load(Ordering::Acquire));
            self.switch_output();
            self.clip = self.outputs.clip.take().or(self.clip.take());
            let state = self.output.poll(now());
            self.report_state(state);
            let wait = self.mix_due_blocks(now());
            // The callback of a device unparks this thread.
            thread::park_timeout(wait);
        }
    }

    /// Switches to another output if one is set.
    fn switch_output(&mut self) {
        if let Some(spec) = self.outputs.next.take() {
            self.set_output(spec);
            self.report_state(DeviceState::Opening);
        }
    }

    fn set_output(&mut self, spec: SpeakerSpec) {
        // The old output is closed first: the new one may be the same device, which may allow only
        // one user.
        self.output = Output::Silent;
        self.output = Output::new(&spec);
        self.outputs.spec = spec;
        self.last_demand = now();
    }

    /// Reports the state of the output if it has changed. After a failure, retries are not reported
    /// until one succeeds or fails for another reason.
    fn report_state(&mut self, state: DeviceState) {
        if state != self.reported_state {
            self.reported_state = state.clone();
            (self.notify)(state);
        }
    }

    /// Mixes the blocks that are due. Returns how long to sleep.
    fn mix_due_blocks(&mut self, now: MediaTime) -> Duration {
        let mut demand = self.output.demand();
        while demand == BlockDemand::Now {
            self.mix(now);
            (self.last_demand, self.next_block) = (now, now + BLOCK);
            demand = self.output.demand();
        }
        if let BlockDemand::Wait(timeout) = demand
            && now.since(self.last_demand) <= timeout
        {
            return CALLBACK_WAIT;
        }
        // By the clock: there is no device or it has stalled. Streams are still decoded and
        // measured, also the blocks for which the device was waited for. So when it is back, it
        // continues with what is said then.
        if now.since(self.next_block) > RESYNC_THRESHOLD {
            self.next_block = now;
        }
        while now >= self.next_block {
            self.mix(self.next_block);
            self.next_block = self.next_block + BLOCK;
        }
        self.next_block.since(now)
    }

    /// Mixes one block and plays it.
    fn mix(&mut self, now: MediaTime) {
        let heard_at = self.heard_after.map(|after| now + after);
        for voice in &mut self.voices {
            let gain = f32::from(u8::from(voice.control.is_audible.load(Ordering::Acquire)));
            if !voice.receiver.is_playing() {
                voice.fade = Fade::at(gain);
            }
            if let Some(mut block) = voice.next_block_supervised(now, heard_at) {
                voice.fade.apply_to_block(&mut block, gain, FADE_SAMPLES);
                self.mixer.add(&block);
            }
        }
        self.mix_clip();
        let block = self.mixer.take();
        self.heard_after = self.output.play(&block);
        if let Some(delay) = self.heard_after {
            self.outputs.far_end.push(&block.mid, delay);
        }
    }
}

impl MixerThread {
    /// Mixes the next block of the clip. It waits for a device that is being opened.
    fn mix_clip(&mut self) {
        if self.reported_state == DeviceState::Opening {
            return;
        }
        match self.clip.as_mut().and_then(Clip::next_block) {
            Some(block) => self.mixer.add(&StereoBlock::mono(block)),
            None => self.clip = None,
        }
    }
}

impl MixedVoice {
    /// Returns the next block. After a panic, the decoder is replaced, and the stream is silent for
    /// two seconds: the packets of a peer must not stop the audio of all.
    fn next_block_supervised(
        &mut self,
        now: MediaTime,
        heard_at: Option<MediaTime>,
    ) -> Option<StereoBlock> {
        if self.restart_at.is_some_and(|at| now < at) {
            return None;
        }
        if self.restart_at.take().is_some() {
            match AudioReceiver::new() {
                Ok(receiver) => self.receiver = receiver,
                Err(_) => return None,
            }
        }
        catch("audio decoder", || self.next_block(now, heard_at)).unwrap_or_else(|_| {
            self.restart_at = Some(now + RESTART_DELAY);
            None
        })
    }

    /// Takes the packets that arrived, returns the next block and updates the statistics.
    fn next_block(&mut self, now: MediaTime, heard_at: Option<MediaTime>) -> Option<StereoBlock> {
        for _ in 0..MAX_PACKETS_PER_BLOCK {
            let Some(packet) = self.packets.try_recv() else { break };
            self.receiver.push(&packet.0);
        }
        self.receiver.set_muted(self.control.is_muted.load(Ordering::Acquire));
        self.receiver.set_min_delay(self.heard.min_delay());
        let block = self.receiver.pull(now);
        if let (Some(next), Some(heard_at)) = (self.receiver.position(), heard_at) {
            self.heard.on_block(next.wrapping_sub(BLOCK_SAMPLES as u32), heard_at);
        }
        let samples = block.map_or([0.0; BLOCK_SAMPLES], |block| block.mid);
        self.meter.set(self.level.push(&samples));
        self.control.tone.record(&samples);
        let level_dbfs = f64::from(self.long_level.push(&samples));
        self.stats.send_replace(self.receiver.stats(level_dbfs));
        if self.receiver.is_playing()
            && let Some(on_first) = self.on_first.take()
        {
            on_first();
        }
        block
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;
    use crate::{
        media::{Fanout, SenderReports},
        playback::{
            device_output::DeviceOutput,
            speaker_ring::RingReader,
            testing::{ToneEncoder, packet},
        },
    };

    /// A mixer without streams that plays on a device, in virtual time.
    struct Playing {
        mixer: MixerThread,
        callback: RingReader,
        now: MediaTime,
        blocks: u64,
    }

    impl Playing {
        fn new() -> Self {
            let (_, new_voices) = sync_channel(1);
            let outputs = MixerOutputs { spec: SpeakerSpec::None, ..MixerOutputs::default() };
            let mut mixer = MixerThread::new(outputs, new_voices, Arc::new(|_| ()));
            let (device, callback) = DeviceOutput::running();
            mixer.output = Output::Device(device);
            Self { mixer, callback, now: now(), blocks: 0 }
        }

        /// Lets time pass. `callback` returns how many samples the device takes in each block of
        /// 10 ms, counted from the beginning.
        fn run(&mut self, blocks: u64, callback: impl Fn(u64) -> usize) {
            for _ in 0..blocks {
                for _ in 0..4 {
                    self.mixer.mix_due_blocks(self.now);
                    self.now = self.now + BLOCK / 4;
                }
                let mut out = vec![0.0_f32; callback(self.blocks)];
                if !out.is_empty() {
                    self.callback.fill(&mut out);
                }
                self.blocks += 1;
            }
        }

        fn fill(&self) -> usize {
            match &self.mixer.output {
                Output::Device(device) => device.fill(),
                Output::Silent | Output::File(_) => panic!("another output"),
            }
        }
    }

    /// What the ring holds at most while the device plays: a callback, the least cushion and the
    /// block that was just written.
    const USUAL_FILL: usize = 3 * BLOCK_SAMPLES;

    #[test]
    fn after_a_speaker_stood_still_the_ring_is_back_at_its_target_within_200_ms() {
        for stall in [10, 20, 50, 90] {
            // It then asks for what it has missed, at once or not at all.
            for missed in [0, stall as usize * BLOCK_SAMPLES] {
                let mut playing = Playing::new();
                playing.run(100, |_| BLOCK_SAMPLES);
                playing.run(stall, |_| 0);
                assert!(
                    playing.fill() <= USUAL_FILL,
                    "{stall}: {} while it stands",
                    playing.fill()
                );
                playing.run(1, |_| BLOCK_SAMPLES + missed);
                playing.run(19, |_| BLOCK_SAMPLES);
                assert!(playing.fill() <= USUAL_FILL, "{stall} {missed}: {}", playing.fill());
                let underruns = playing.callback.underruns();
                playing.run(100, |_| BLOCK_SAMPLES);
                assert!(playing.fill() <= USUAL_FILL, "{stall} {missed}: {}", playing.fill());
                assert_eq!(playing.callback.underruns(), underruns, "it is paced by the device");
            }
        }
    }

    #[test]
    fn the_far_end_is_what_enters_the_ring_and_nothing_while_the_speaker_stands_still() {
        let mut playing = Playing::new();
        let reader = playing.mixer.outputs.far_end.subscribe();
        let read = || {
            let mut blocks = 0;
            let delay = reader.drain(|_| blocks += 1);
            (blocks, delay)
        };
        playing.run(50, |_| BLOCK_SAMPLES);
        let (blocks, delay) = read();
        assert!((50..54).contains(&blocks), "{blocks}");
        assert!((10..30).contains(&delay.as_millis()), "{delay:?}");
        playing.run(50, |_| 0);
        assert!(read().0 <= 2, "mixed by the clock and left out");
    }

    #[test]
    fn a_speaker_that_begins_late_does_not_begin_with_a_delay() {
        let mut playing = Playing::new();
        // A sound server asks once when the stream is opened.
        playing.run(120, |n| if n == 0 { 2 * BLOCK_SAMPLES } else { 0 });
        playing.run(20, |_| BLOCK_SAMPLES);
        assert!(playing.fill() <= USUAL_FILL, "{}", playing.fill());
    }

    /// A stream of a tone of two seconds, whose packets arrive evenly from `start` on.
    fn tone_voice(start: MediaTime) -> MixedVoice {
        let (packets, mut encoder) = (Fanout::default(), ToneEncoder::without_fec(440.0, 0.25));
        let subscription = packets.subscribe(512);
        for n in 0..100_u64 {
            let arrival = start + Duration::from_millis(20 * n);
            let payload = encoder.next_packet();
            let sent = packet(n as u16, (n * 960) as u32, false, payload, arrival);
            packets.publish(AudioPacket(sent));
        }
        MixedVoice {
            meter: Meter::default(),
            level: LevelWindow::default(),
            long_level: LevelWindow::default(),
            packets: subscription,
            receiver: AudioReceiver::new().unwrap(),
            stats: watch::channel(AudioReceiveStats::default()).0,
            control: Arc::default(),
            fade: Fade::FULL,
            heard: HeardSound::new(1, SenderReports::default()),
            on_first: None,
            restart_at: None,
        }
    }

    #[test]
    fn no_time_is_left_out_while_a_speaker_stands_still() {
        let mut playing = Playing::new();
        playing.mixer.voices.push(tone_voice(playing.now));
        playing.run(50, |_| BLOCK_SAMPLES);
        playing.run(60, |_| 0);
        let played = playing.mixer.voices[0].receiver.counts().3 / BLOCK_SAMPLES as u64;
        assert!((105..=111).contains(&played), "of 110 blocks: {played}");
    }
}
