//! Everything that is heard: the speaker, and the voices that it plays.

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
    mixing::{Mixing, Playing, Wishes},
    output::Output,
    voice::{VoiceDecoder, VoiceTally},
};
use crate::{
    audio::{Fade, LevelWindow},
    media::{Device, IncomingTrack, Meter, Slot, SoundEnd, Worker, sound_devices},
    model::{AudioStats, SourceState},
};

/// What plays all voices of this process. Dropping it stops that and waits until it is closed;
/// [`Self::close`] does not wait.
pub struct Speaker {
    newcomers: SyncSender<Playing>,
    elsewhere: Arc<Slot<SpeakerSpec>>,
    /// Dropped, it stops and joins the mixing thread.
    mixing: Option<Worker>,
    ended: Receiver<()>,
}

/// A speaker that is being closed on its own thread.
#[derive(Debug)]
pub struct ClosingSpeaker(Receiver<()>);

/// How long a speaker that is closed is waited for: longer than a device or a file takes.
const CLOSING: Duration = Duration::from_secs(3);

/// Voices that wait for the mixing thread at most. It takes them every 10 ms, so that more come
/// in that time only when everybody of several large sessions appears at once.
const NEWCOMERS: usize = 64;

impl Speaker {
    /// Begins to open the speaker; never waits for it.
    ///
    /// `notify` is called on the mixing thread with `Opening`, `Running` and `Failed` as they
    /// come about; it must not block. While failed, it is tried again every two seconds, and
    /// voices are decoded and measured without being heard. What was open `before` is closed
    /// first: it may be the same device or file.
    pub fn open(
        spec: &SpeakerSpec,
        before: Option<ClosingSpeaker>,
        notify: Arc<dyn Fn(SourceState) + Send + Sync>,
    ) -> Self {
        let (newcomers, arriving) = sync_channel(NEWCOMERS);
        let (end, ended) = channel::<()>();
        let (output, tell) = (Output::new(spec), Arc::clone(&notify));
        let elsewhere = Arc::new(Slot::default());
        let outputs = (output, Arc::clone(&elsewhere));
        let mixing = Worker::spawn("mixing", move |stop| {
            let _end: Sender<()> = end;
            if let Some(before) = before {
                before.wait();
            }
            Mixing::new(outputs, arriving, tell).run(stop);
        });
        let mixing = mixing.map_err(|error| {
            let message = format!("no thread is left to play sound: {error}; end other programs");
            notify(SourceState::Failed { message });
        });
        Self { newcomers, elsewhere, mixing: mixing.ok(), ended }
    }

    /// Stops playing and does not wait for the device or file, which may hang.
    pub fn close(self) -> ClosingSpeaker {
        if let Some(mixing) = self.mixing {
            mixing.abandon();
        }
        ClosingSpeaker(self.ended)
    }

    /// Plays elsewhere from the next block on; no voice is begun anew. Never waits; told to
    /// `notify` as at first.
    pub fn move_to(&self, spec: &SpeakerSpec) {
        self.elsewhere.put(spec.clone());
    }

    /// Plays a remote sound until the voice is dropped, and shows its level on `meter` every
    /// 10 ms. `on_first` is called once, when its first packet is played, on the mixing thread: it
    /// must not block.
    pub fn play(
        &self,
        track: IncomingTrack,
        meter: Meter,
        on_first: Box<dyn FnOnce() + Send>,
    ) -> Voice {
        let (tally, seen) = watch::channel(VoiceTally::default());
        let (heard, gone) = (AtomicBool::new(true), AtomicBool::new(false));
        let wishes = Arc::new(Wishes { heard, gone });
        match VoiceDecoder::new() {
            Ok(decoder) => {
                let playing = Playing {
                    meter,
                    level: LevelWindow::default(),
                    packets: track.packets,
                    decoder,
                    tally,
                    wishes: Arc::clone(&wishes),
                    fade: Fade::FULL,
                    on_first: Some(on_first),
                };
                if self.newcomers.send(playing).is_err() {
                    tracing::error!(peer = ?track.peer, "a voice is not heard: no mixing thread");
                }
            }
            Err(error) => {
                tracing::error!(peer = ?track.peer, %error, "a voice is not heard: no decoder");
            }
        }
        Voice { wishes, tally: seen }
    }
}

impl ClosingSpeaker {
    /// Waits until it is closed, for three seconds at most: then it is left alone.
    pub fn wait(self) {
        // Nothing is ever said; the other end goes with the thread.
        self.0.recv_timeout(CLOSING).ok();
    }
}

impl fmt::Debug for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Speaker")
    }
}

/// One remote sound that is played. Dropping it stops that.
#[derive(Debug)]
pub struct Voice {
    wishes: Arc<Wishes>,
    tally: watch::Receiver<VoiceTally>,
}

impl Voice {
    /// The figures since the start; level and tone are those of the last second, whether heard or
    /// not. Takes some milliseconds of this thread, once a second is enough.
    pub fn stats(&self) -> AudioStats {
        let tally = self.tally.borrow().clone();
        tally.stats()
    }

    /// Whether it is heard. If not, it is decoded and measured all the same.
    pub fn set_heard(&self, on: bool) {
        self.wishes.heard.store(on, Ordering::Release);
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.wishes.gone.store(true, Ordering::Release);
    }
}

/// The speakers that can be chosen, the default one first. May take two seconds.
pub fn speakers() -> Vec<Device> {
    sound_devices(SoundEnd::Output)
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::PathBuf,
        sync::mpsc::{Receiver, channel},
        time::Duration,
    };

    use super::*;
    use crate::{
        audio::tone_hz,
        media::{RtpPacket, now},
        model::Media,
        playback::testing::{Singer, packet, track},
    };

    /// Longer than anything here takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Rig {
        speaker: Speaker,
        states: Receiver<SourceState>,
    }

    fn rig(spec: &SpeakerSpec) -> Rig {
        let (tell, states) = channel();
        let notify = move |state| tell.send(state).unwrap();
        Rig { speaker: Speaker::open(spec, None, Arc::new(notify)), states }
    }

    impl Rig {
        /// The first state after `Opening`.
        fn settled(&self) -> SourceState {
            loop {
                let state = self.states.recv_timeout(PATIENCE).expect("it opens or fails");
                if state != SourceState::Opening {
                    return state;
                }
            }
        }

        /// Plays one second of a tone, sent as fast as the queue takes it and begun just now;
        /// returns when all of it was measured.
        fn sing(&self, hz: f64, before: impl FnOnce(&Voice)) -> Voice {
            let (track, packets, _) = track(Media::Audio);
            let (tell, first) = channel();
            let voice = self.speaker.play(
                track,
                Meter::default(),
                Box::new(move || tell.send(()).unwrap()),
            );
            before(&voice);
            let (mut singer, begun) = (Singer::plain(hz, 0.25), now());
            for n in 0..75_u64 {
                // As if each had arrived in its time; those of the future wait in the buffer.
                let arrival = begun + Duration::from_millis(20 * n);
                let sent = packet(n as u16, (n * 960) as u32, false, singer.sing(), arrival);
                packets.try_send(sent).unwrap();
            }
            first.recv_timeout(PATIENCE).expect("the first packet was told");
            self.measured(&voice, packets);
            voice
        }

        fn measured(&self, voice: &Voice, _open: tokio::sync::mpsc::Sender<RtpPacket>) {
            let begun = now();
            let mut seen = voice.tally.clone();
            let full = |tally: &VoiceTally| {
                let samples = tally.history.samples();
                samples[0] != 0.0 && samples[47_990..].iter().any(|sample| *sample != 0.0)
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(seen.wait_for(full)).expect("the mixing thread runs");
            assert!(now().since(begun) < PATIENCE);
        }
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
    fn a_tone_is_measured_and_is_in_the_file_it_was_played_to() {
        let path = WavPath::new("tone");
        let rig = rig(&SpeakerSpec::File(path.0.clone()));
        let voice = rig.sing(440.0, |_| ());
        assert_eq!(rig.settled(), SourceState::Running);
        let stats = voice.stats();
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
        assert!((stats.level_dbfs - -15.05).abs() < 1.0, "{stats:?}");
        assert_eq!((stats.packets, stats.lost), (75, 0));
        drop(rig);
        let heard = path.read();
        assert!(heard.len() >= 48_000, "{}", heard.len());
        assert!((tone_hz(&heard).unwrap() - 440.0).abs() < 2.0);
    }

    #[test]
    fn a_voice_that_is_not_heard_is_measured_and_not_in_the_mix() {
        let path = WavPath::new("unheard");
        let rig = rig(&SpeakerSpec::File(path.0.clone()));
        let voice = rig.sing(660.0, |voice| voice.set_heard(false));
        assert!((voice.stats().tone_hz.unwrap() - 660.0).abs() < 2.0);
        drop(rig);
        let heard = path.read();
        assert!(heard.len() >= 48_000);
        assert!(heard.iter().all(|sample| *sample == 0.0));
    }

    #[test]
    fn voices_are_measured_whatever_the_speaker_does() {
        let broken = SpeakerSpec::File("/nowhere/a.wav".into());
        for spec in [SpeakerSpec::None, broken] {
            let rig = rig(&spec);
            let voice = rig.sing(300.0, |_| ());
            assert!((voice.stats().tone_hz.unwrap() - 300.0).abs() < 2.0, "{spec}");
            let state = rig.settled();
            match spec {
                SpeakerSpec::None => assert_eq!(state, SourceState::Running),
                SpeakerSpec::Default | SpeakerSpec::File(_) | SpeakerSpec::Device(_) => {
                    let SourceState::Failed { message } = state else { panic!("{state:?}") };
                    assert!(message.contains("\"/nowhere/a.wav\""), "{message}");
                }
            }
        }
    }

    #[test]
    fn a_dropped_voice_and_a_dropped_speaker_let_go_of_their_packets() {
        let rig = rig(&SpeakerSpec::None);
        let (first, packets, _) = track(Media::Audio);
        let (second, others, _) = track(Media::Audio);
        let voice = rig.speaker.play(first, Meter::default(), Box::new(|| ()));
        let _kept = rig.speaker.play(second, Meter::default(), Box::new(|| ()));
        drop(voice);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(packets.closed());
        assert!(!others.is_closed());
        drop(rig);
        assert!(others.is_closed());
    }
}
