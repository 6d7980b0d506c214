//! The speaker, which plays all remote audio streams.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::{
    SpeakerSpec,
    audio_receive_stats::AudioReceiveStats,
    audio_receiver::AudioReceiver,
    audio_track::AudioTrack,
    clip::Clip,
    lip_sync::{HeardSound, SoundClock},
    mixer::{MixedVoice, MixerOutputs, MixerThread, VoiceControl},
    tone_tap::ToneTap,
};
use crate::{
    audio::{Fade, LevelWindow},
    devices::{AudioDirection, Device, list_audio_devices},
    media::{FarEnd, Meter, Slot, Stop, Worker},
    model::{AudioPlayoutStats, AudioStats, DeviceState},
    supervision::Panicked,
};

/// Plays all remote audio streams of this process. Dropping it stops playing and waits until the
/// output is closed; [`Self::close`] does not wait.
pub struct Speaker {
    new_voices: SyncSender<MixedVoice>,
    next_output: Arc<Slot<SpeakerSpec>>,
    clip: Arc<Slot<Clip>>,
    /// The mixer thread. Dropping it stops and joins the thread.
    mixing: Option<Worker>,
    ended: Receiver<()>,
}

/// A speaker that is being closed on its own thread.
#[derive(Debug)]
pub struct ClosingSpeaker(Receiver<()>);

/// How long to wait for a speaker that is closing: longer than a device or a file takes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The most new voices that wait for the mixer thread, which takes them within 25 ms. More than this
/// at once only occur when all participants of several large sessions appear at once.
const MAX_NEW_VOICES: usize = 64;

/// Packets of one stream that may wait for the mixer thread: ten seconds.
const MAX_PACKETS: usize = 512;

impl Speaker {
    /// Starts to open the speaker; does not wait for it.
    ///
    /// `notify` is called on the mixer thread with each new state `Opening`, `Running` or `Failed`;
    /// it must not block. After a failure the speaker is reopened every two seconds, and audio is
    /// decoded and measured without being played. The speaker opened `before` is closed first,
    /// because it may be the same device or file. `far_end` gets what a device plays.
    pub fn open(
        spec: &SpeakerSpec,
        before: Option<ClosingSpeaker>,
        far_end: FarEnd,
        notify: Arc<dyn Fn(DeviceState) + Send + Sync>,
    ) -> Self {
        let (new_voices, arriving) = sync_channel(MAX_NEW_VOICES);
        let (end, ended) = channel::<()>();
        let (report, report_panic) = (Arc::clone(&notify), Arc::clone(&notify));
        let (next_output, clip) = (Arc::new(Slot::default()), Arc::new(Slot::default()));
        let outputs = MixerOutputs {
            spec: spec.clone(),
            next: Arc::clone(&next_output),
            clip: Arc::clone(&clip),
            far_end,
        };
        let (mut parts, mut mixer) = (Some((before, arriving, report)), None::<MixerThread>);
        let work = move |stop: &Stop| {
            let _end: &Sender<()> = &end;
            if let Some((before, arriving, report)) = parts.take() {
                before.into_iter().for_each(ClosingSpeaker::wait);
                mixer = Some(MixerThread::new(outputs.clone(), arriving, report));
            } else if let Some(mixer) = &mut mixer {
                mixer.restart();
            }
            mixer.iter_mut().for_each(|mixer| mixer.run(stop));
        };
        let on_panic = move |panicked: &Panicked| {
            let message = format!("{panicked}; it is started again");
            report_panic(DeviceState::Failed { message });
        };
        let mixing = Worker::spawn_supervised("audio mixer", work, on_panic);
        let mixing = mixing.map_err(|error| {
            let message = format!("no thread is left to play sound: {error}; end other programs");
            notify(DeviceState::Failed { message });
        });
        Self { new_voices, next_output, clip, mixing: mixing.ok(), ended }
    }

    /// Stops playing without waiting for the device or file, which may hang.
    pub fn close(self) -> ClosingSpeaker {
        if let Some(mixing) = self.mixing {
            mixing.abandon();
        }
        ClosingSpeaker(self.ended)
    }

    /// Switches to another output from the next block on. Streams continue without a restart. Never
    /// waits; `notify` is called as after [`Self::open`].
    pub fn switch_to(&self, spec: &SpeakerSpec) {
        self.next_output.put(spec.clone());
    }

    /// Plays a sound of this program once, beside the streams, as soon as the device plays. Samples at
    /// 48 kHz. `on_end` is called at its end, or when it is replaced by another, on any thread: it
    /// must not block. Never waits.
    pub fn play_clip(&self, samples: Vec<f32>, on_end: Box<dyn FnOnce() + Send>) {
        self.clip.put(Clip::new(samples, on_end));
    }

    /// Plays a remote audio track until the returned voice is dropped, and shows its level on
    /// `meter` every 10 ms. `on_first` is called once, on the mixer thread, when the first packet
    /// is played: it must not block.
    pub fn play(
        &self,
        track: &AudioTrack,
        meter: Meter,
        on_first: Box<dyn FnOnce() + Send>,
    ) -> Voice {
        let (stats_sender, stats) = watch::channel(AudioReceiveStats::default());
        let is_audible = AtomicBool::new(true);
        let control = Arc::new(VoiceControl { is_audible, ..VoiceControl::default() });
        let heard = HeardSound::new(track.ssrc(), track.sender_reports());
        let sound_clock = heard.clock();
        match AudioReceiver::new() {
            Ok(receiver) => {
                let voice = MixedVoice {
                    meter,
                    level: LevelWindow::default(),
                    long_level: LevelWindow::default(),
                    packets: track.subscribe(MAX_PACKETS),
                    receiver,
                    stats: stats_sender,
                    control: Arc::clone(&control),
                    fade: Fade::FULL,
                    heard,
                    on_first: Some(on_first),
                    restart_at: None,
                };
                if self.new_voices.send(voice).is_err() {
                    tracing::error!(peer = ?track.peer(), "audio track not played: no mixer thread");
                }
            }
            Err(error) => {
                tracing::error!(peer = ?track.peer(), %error, "audio track not played: no decoder");
            }
        }
        Voice { control, stats, sound_clock }
    }
}

impl ClosingSpeaker {
    /// Waits until the speaker is closed, for three seconds at most.
    pub fn wait(self) {
        // Nothing is sent on the channel. The sender is dropped when the thread ends.
        self.0.recv_timeout(CLOSE_TIMEOUT).ok();
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Speaker")
    }
}

/// One remote audio stream that is being played. Dropping it stops playing.
#[derive(Debug)]
pub struct Voice {
    control: Arc<VoiceControl>,
    stats: watch::Receiver<AudioReceiveStats>,
    sound_clock: SoundClock,
}

impl Voice {
    /// Tells the video of the same participant when this sound is heard. While nothing is played, and
    /// where no device plays, it tells nothing.
    pub fn sound_clock(&self) -> SoundClock {
        self.sound_clock.clone()
    }

    /// The receive statistics since the start. The level is that of the last second, whether the
    /// stream is audible or not. The tone is unknown: see [`Self::tap_tone`].
    pub fn stats(&self) -> AudioStats {
        self.stats.borrow().stats()
    }

    /// The same in the terms of W3C webrtc-stats.
    pub fn playout_stats(&self) -> AudioPlayoutStats {
        self.stats.borrow().playout_stats()
    }

    /// Attaches a tap that measures the tone of the stream, audible or not. It keeps a second of
    /// audio. Further calls return the same tap while it is held.
    pub fn tap_tone(&self) -> ToneTap {
        self.control.tone.attach()
    }

    /// Sets whether the stream is part of the mix. If not, it is still decoded and measured.
    pub fn set_audible(&self, on: bool) {
        self.control.is_audible.store(on, Ordering::Release);
    }

    /// Sets whether the sender signals that it sends nothing. The stream then fades when its packets
    /// end, and no loss is concealed.
    pub fn set_muted(&self, is_muted: bool) {
        self.control.is_muted.store(is_muted, Ordering::Release);
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.control.is_removed.store(true, Ordering::Release);
    }
}

/// Lists the speakers that can be chosen, the default one first. May block for two seconds.
pub fn speakers() -> Vec<Device> {
    list_audio_devices(AudioDirection::Output)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        sync::mpsc::{Receiver, channel},
        time::Duration,
    };

    use tokio::{
        runtime::{Builder, Runtime},
        sync::mpsc,
    };

    use super::*;
    use crate::{
        audio::tone_hz,
        media::{Codec, RtpPacket, now},
        playback::testing::{ToneEncoder, incoming_track, packet},
    };

    /// Longer than any step takes on a busy machine.
    const TIMEOUT: Duration = Duration::from_secs(20);

    /// A track that is not started, and the sender of its packets.
    fn audio_track() -> (AudioTrack, mpsc::Sender<RtpPacket>) {
        let (track, packets, _) = incoming_track(Codec::Opus);
        (AudioTrack::new(track), packets)
    }

    struct Fixture {
        speaker: Speaker,
        states: Receiver<DeviceState>,
        runtime: Runtime,
    }

    fn fixture(spec: &SpeakerSpec) -> Fixture {
        let (sender, states) = channel();
        let notify = move |state| sender.send(state).unwrap();
        let speaker = Speaker::open(spec, None, FarEnd::default(), Arc::new(notify));
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
        Fixture { speaker, states, runtime }
    }

    impl Fixture {
        /// The first state after `Opening`.
        fn settled_state(&self) -> DeviceState {
            loop {
                let state = self.states.recv_timeout(TIMEOUT).expect("the speaker opens or fails");
                if state != DeviceState::Opening {
                    return state;
                }
            }
        }

        /// Plays a tone whose packets are sent at once. Returns when a full second was measured.
        fn play_tone(&self, hz: f64, before: impl FnOnce(&Voice)) -> Playing {
            let (mut track, packets) = audio_track();
            self.play_track(hz, before, (&mut track, packets))
        }

        /// The same on this track, which is started.
        fn play_track(
            &self,
            hz: f64,
            before: impl FnOnce(&Voice),
            (track, packets): (&mut AudioTrack, mpsc::Sender<RtpPacket>),
        ) -> Playing {
            let (sender, first) = channel();
            let on_first = Box::new(move || sender.send(()).unwrap());
            let voice = self.speaker.play(track, Meter::default(), on_first);
            before(&voice);
            let playing = Playing { tone: voice.tap_tone(), voice };
            let _guard = self.runtime.enter();
            track.start();
            send_tone(hz, 0, &packets);
            first.recv_timeout(TIMEOUT).expect("the first packet is reported");
            self.wait_until_measured(&playing, packets);
            playing
        }

        fn wait_until_measured(&self, playing: &Playing, _open: mpsc::Sender<RtpPacket>) {
            let start = now();
            let mut stats = playing.voice.stats.clone();
            let is_full = |_: &AudioReceiveStats| {
                let samples = playing.tone.samples();
                samples[0] != 0.0 && samples[47_990..].iter().any(|sample| *sample != 0.0)
            };
            self.runtime.block_on(stats.wait_for(is_full)).expect("the mixer thread runs");
            assert!(now().since(start) < TIMEOUT);
        }
    }

    /// Sends one and a half seconds of a tone at once, in packets numbered from `first`.
    fn send_tone(hz: f64, first: u64, packets: &mpsc::Sender<RtpPacket>) {
        let (mut encoder, start) = (ToneEncoder::without_fec(hz, 0.25), now());
        for n in 0..75_u64 {
            // Arrival times as in real time. Packets of the future stay in the jitter buffer.
            let arrival = start + Duration::from_millis(20 * n);
            let number = first + n;
            let (sequence, timestamp) = (number as u16, (number * 960) as u32);
            let sent = packet(sequence, timestamp, false, encoder.next_packet(), arrival);
            packets.try_send(sent).unwrap();
        }
    }

    /// A voice, and its tone.
    struct Playing {
        voice: Voice,
        tone: ToneTap,
    }

    struct WavPath(PathBuf);

    impl WavPath {
        fn new(name: &str) -> Self {
            let name = format!("quintet-speaker-{name}-{}.wav", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn read(&self) -> Vec<f32> {
            let mut file = hound::WavReader::open(&self.0).unwrap();
            file.samples::<i16>().map(|sample| f32::from(sample.unwrap()) / 32_768.0).collect()
        }
    }

    impl Drop for WavPath {
        fn drop(&mut self) {
            fs::remove_file(&self.0).ok();
        }
    }

    #[test]
    fn a_tone_is_measured_and_recorded_in_the_output_file() {
        let path = WavPath::new("tone");
        let fixture = fixture(&SpeakerSpec::File(path.0.clone()));
        let Playing { voice, tone } = fixture.play_tone(440.0, |_| ());
        assert_eq!(fixture.settled_state(), DeviceState::Running);
        let stats = voice.stats();
        assert!((tone.tone_hz().unwrap() - 440.0).abs() < 2.0, "{tone:?}");
        assert!((stats.level_dbfs - -15.05).abs() < 1.0, "{stats:?}");
        assert_eq!((stats.packets, stats.lost), (75, 0));
        drop(fixture);
        let recorded = path.read();
        assert!(recorded.len() >= 48_000, "{}", recorded.len());
        assert!((tone_hz(&recorded).unwrap() - 440.0).abs() < 2.0);
    }

    #[test]
    fn a_second_subscriber_receives_each_packet_beside_the_voice() {
        let fixture = fixture(&SpeakerSpec::None);
        let (mut track, packets) = audio_track();
        let (mut recorder, mut slow) = (track.subscribe(75), track.subscribe(10));
        let playing = fixture.play_track(440.0, |_| (), (&mut track, packets));
        let stats = playing.voice.stats();
        assert_eq!((stats.packets, stats.lost, stats.concealed_ms), (75, 0, 0));
        let recorded: Vec<_> = std::iter::from_fn(|| recorder.try_recv()).collect();
        assert!(recorded.iter().map(|packet| packet.0.sequence).eq(0..75));
        assert!(slow.try_recv().is_some() && slow.dropped() > 0);
    }

    #[test]
    fn an_inaudible_voice_is_measured_and_not_in_the_mix() {
        let path = WavPath::new("inaudible");
        let fixture = fixture(&SpeakerSpec::File(path.0.clone()));
        let playing = fixture.play_tone(660.0, |voice| voice.set_audible(false));
        assert!((playing.tone.tone_hz().unwrap() - 660.0).abs() < 2.0);
        drop(fixture);
        let recorded = path.read();
        assert!(recorded.len() >= 48_000);
        assert!(recorded.iter().all(|sample| *sample == 0.0));
    }

    #[test]
    fn voices_are_measured_without_and_with_a_broken_speaker() {
        let broken = SpeakerSpec::File("/nowhere/a.wav".into());
        for spec in [SpeakerSpec::None, broken] {
            let fixture = fixture(&spec);
            let playing = fixture.play_tone(300.0, |_| ());
            assert!((playing.tone.tone_hz().unwrap() - 300.0).abs() < 2.0, "{spec}");
            let state = fixture.settled_state();
            match spec {
                SpeakerSpec::None => assert_eq!(state, DeviceState::Running),
                SpeakerSpec::Default | SpeakerSpec::File(_) | SpeakerSpec::Device(_) => {
                    let DeviceState::Failed { message } = state else { panic!("{state:?}") };
                    assert!(message.contains("\"/nowhere/a.wav\""), "{message}");
                }
            }
        }
    }

    #[test]
    fn a_stream_whose_decoding_panics_stops_no_other_stream_and_is_played_again() {
        let fixture = fixture(&SpeakerSpec::None);
        let (mut track, packets) = audio_track();
        let (sender, first) = channel();
        let on_first = Box::new(move || {
            sender.send(()).unwrap();
            panic!("planted");
        });
        let broken = fixture.speaker.play(&track, Meter::default(), on_first);
        let broken = Playing { tone: broken.tap_tone(), voice: broken };
        {
            let _guard = fixture.runtime.enter();
            track.start();
        }
        send_tone(440.0, 0, &packets);
        first.recv_timeout(TIMEOUT).expect("the first packet is played");
        let playing = fixture.play_tone(660.0, |_| ());
        assert!((playing.tone.tone_hz().unwrap() - 660.0).abs() < 2.0);
        send_tone(440.0, 75, &packets);
        fixture.wait_until_measured(&broken, packets);
        assert!((broken.tone.tone_hz().unwrap() - 440.0).abs() < 2.0);
    }

    #[test]
    fn a_mixer_that_panics_is_reported_and_started_again() {
        let (sender, states) = channel();
        let has_panicked = AtomicBool::new(false);
        let notify = move |state: DeviceState| {
            sender.send(state.clone()).unwrap();
            let is_first = !has_panicked.fetch_or(state == DeviceState::Running, Ordering::Relaxed);
            assert!(state != DeviceState::Running || !is_first, "planted");
        };
        let far_end = FarEnd::default();
        let _speaker = Speaker::open(&SpeakerSpec::None, None, far_end, Arc::new(notify));
        let next = || states.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(next(), DeviceState::Running);
        let message = "the audio mixer stopped unexpectedly; it is started again".to_owned();
        assert_eq!(next(), DeviceState::Failed { message });
        assert_eq!((next(), next()), (DeviceState::Opening, DeviceState::Running));
    }

    #[test]
    fn a_dropped_voice_and_a_dropped_speaker_unsubscribe() {
        let fixture = fixture(&SpeakerSpec::None);
        let [(first, _), (second, _)] = [audio_track(), audio_track()];
        let voice = fixture.speaker.play(&first, Meter::default(), Box::new(|| ()));
        let _kept = fixture.speaker.play(&second, Meter::default(), Box::new(|| ()));
        assert_eq!((first.subscribers(), second.subscribers()), (1, 1));
        drop(voice);
        let deadline = now() + TIMEOUT;
        while first.subscribers() > 0 {
            assert!(now() < deadline, "the mixer still receives the track");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(second.subscribers(), 1);
        drop(fixture);
        assert_eq!(second.subscribers(), 0);
    }
}
