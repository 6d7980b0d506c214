//! A call in virtual time: one end sends, the other receives and plays.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quintet::{
    media::{
        self, AudioPacket, BLOCK_SAMPLES, BurntInTimecode, Codec, EncodedAudio, EncodedVideo,
        Fanout, IncomingTrack, Subscription, Tee, TeeGuard, VideoFrame,
    },
    model::{Direction, MediaTime},
    playback::{
        AudioReceiver, AudioTrack, ConcealmentCauses, DecodePool, HeardSound, VideoPlayer,
        VideoTrack,
    },
    transport::Impairment,
};
use tokio::{
    runtime,
    sync::watch,
    task::JoinSet,
    time::{Instant, interval_at},
};

use super::{
    ladder,
    sender::{self, Media, Sound},
};
use crate::{
    rig::process::lower_priority,
    transport::{
        pair::{Pair, audio_video},
        stats::{outbound, sent_bits},
    },
};

/// How often the receiving end plays and looks at what it shows.
const BLOCK: Duration = Duration::from_millis(10);

/// When the first block is played. Without jitter, audio then arrives in the middle between two
/// blocks, as it does on average.
const FIRST_BLOCK: Duration = Duration::from_millis(4);

/// Packets that wait for the next block, as many as the program's mixer keeps.
const AUDIO_QUEUE: usize = 512;

/// Packets of audio by which the sending end may lag, as in the program.
const SENDER_QUEUE: usize = 25;

/// The network over which a call is connected. webrtc-rs chooses at random between a packet and a
/// timer of the same moment. With this delay there is no such moment, so each call begins alike.
const CONNECTING: Impairment = Impairment { delay: Duration::from_millis(3), ..Impairment::NONE };

/// A call between two connected ends, of which `a` sends.
pub(crate) struct Call {
    pair: Pair,
    media: watch::Sender<Media>,
    sound: watch::Sender<Sound>,
    speaker: watch::Sender<Option<Duration>>,
    audio: Fanout<EncodedAudio>,
    video: Fanout<EncodedVideo>,
    seen: Arc<Mutex<Seen>>,
    before: Seen,
    sent_before: (u64, u64),
    bits_before: f64,
    begun: Instant,
    tasks: JoinSet<()>,
}

/// What the receiving end has seen and heard so far.
#[derive(Clone, Default)]
struct Seen {
    /// Frames that were shown: when, and how long after their capture, in milliseconds.
    shown: Vec<(u128, u64)>,
    frozen_ms: u64,
    /// Frames that were decoded too late to be shown.
    dropped: u64,
    /// Audio packets received and lost, samples concealed and samples played.
    audio: (u64, u64, u64, u64),
    causes: ConcealmentCauses,
    /// By how many milliseconds the sound of each shown frame was heard before it.
    leads: Vec<f64>,
    /// How long after it was captured sound was heard last.
    sound_delay_ms: Option<f64>,
    /// The moments at which a block with sound was played.
    heard: Vec<Instant>,
}

/// Figures of a span of a call.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Frames shown a second.
    pub(crate) fps: f64,
    /// The share of time in which the video was frozen: more than 200 ms without a new frame.
    pub(crate) frozen: f64,
    /// Frames that were decoded too late to be shown.
    pub(crate) dropped: u64,
    longest_gap_ms: Option<u128>,
    p95_ms: Option<u64>,
    /// The share of the played audio that was concealed.
    pub(crate) concealed: f64,
    /// Milliseconds that were concealed, by cause.
    pub(crate) causes: ConcealmentCauses,
    /// Audio packets received and lost.
    pub(crate) audio_packets: (u64, u64),
    /// RTP packets sent for the first time, and sent again.
    pub(crate) sent: (u64, u64),
    /// The kilobits a second of media on the wire that left.
    pub(crate) kbps: f64,
    /// By how many milliseconds sound was heard before its picture was shown: the 5th and the 95th
    /// percentile. Only with a speaker.
    pub(crate) sound_lead_ms: Option<(f64, f64)>,
    /// How long after it was captured sound was heard last.
    pub(crate) sound_delay_ms: Option<f64>,
    /// When sound was heard first, and until when, in milliseconds since the start.
    pub(crate) heard_ms: Option<(u128, u128)>,
}

impl Call {
    /// Connects a call over [`CONNECTING`] and runs `script` on it, in virtual time.
    pub(crate) fn run<T>(script: impl AsyncFnOnce(&mut Self) -> T) -> T {
        lower_priority();
        // The epoch of media times is before the virtual clock's first moment.
        media::now();
        let runtime =
            runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        runtime.expect("a runtime starts").block_on(async {
            let mut call = Self::connected().await;
            script(&mut call).await
        })
    }

    async fn connected() -> Self {
        let directions = [Direction::SendOnly, Direction::RecvOnly].map(audio_video);
        let mut pair = Pair::impaired(directions, CONNECTING);
        pair.connect().await;
        let (video, audio) = (Fanout::default(), Fanout::default());
        pair.a.connection.send_video(Some(video.subscribe(media::MAX_LAG)));
        pair.a.connection.send_audio(Some(audio.subscribe(SENDER_QUEUE)));
        let media = watch::Sender::new(Media { video: None, audio: false });
        let seen = Arc::<Mutex<Seen>>::default();
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        let path = (pair.a.connection.estimates(), pair.a.connection.audio_rate());
        tasks.spawn(sender::send_video(media.subscribe(), path, video.clone()));
        let sound = watch::Sender::new(Sound::Voice);
        let chosen = (media.subscribe(), sound.subscribe());
        tasks.spawn(sender::send_audio(chosen, audio.clone()));
        let (_, unused) = tokio::sync::mpsc::channel(1);
        let tracks = std::mem::replace(&mut pair.b.tracks, unused);
        let speaker = watch::Sender::new(None);
        let receiver = Receiver::new(begun, Arc::clone(&seen), speaker.subscribe());
        tasks.spawn(receiver.run(tracks));
        Self {
            pair,
            media,
            sound,
            speaker,
            audio,
            video,
            seen,
            before: Seen::default(),
            sent_before: (0, 0),
            bits_before: 0.0,
            begun,
            tasks,
        }
    }

    /// Changes the network in both directions. Each restarts its random numbers with the seed.
    pub(crate) fn set_conditions(&mut self, impairment: Impairment) {
        let back = Impairment { seed: impairment.seed + 1, ..impairment };
        self.pair.a.connection.impair(impairment);
        self.pair.b.connection.impair(back);
    }

    /// Changes what is sent.
    pub(crate) fn set_media(&mut self, media: Media) {
        self.media.send_replace(media);
    }

    /// Changes what the audio is.
    pub(crate) fn set_sound(&mut self, sound: Sound) {
        self.sound.send_replace(sound);
    }

    /// Sends the layers of a camera from now on, as the program chooses them.
    pub(crate) fn send_layers(&mut self) {
        let path = (self.pair.a.connection.estimates(), self.pair.a.connection.audio_rate());
        self.tasks.spawn(ladder::send(path, self.video.clone()));
    }

    /// Plays on a speaker with that latency from now on, in sync with the video.
    pub(crate) fn set_speaker(&mut self, latency: Duration) {
        self.speaker.send_replace(Some(latency));
    }

    /// Mutes or unmutes the microphone of the sending end, as the program does.
    pub(crate) fn set_muted(&mut self, is_muted: bool) {
        let packets = (!is_muted).then(|| self.audio.subscribe(SENDER_QUEUE));
        self.pair.a.connection.send_audio(packets);
    }

    /// Figures are of the time from now on.
    pub(crate) fn start_measuring(&mut self) {
        self.before = self.seen();
        (self.sent_before, self.bits_before) = (self.sent(), sent_bits(&self.pair.a));
        self.begun = Instant::now();
    }

    /// The figures since the start of measuring.
    pub(crate) fn measured(&self) -> Measured {
        let (seen, before, seconds) =
            (self.seen(), &self.before, self.begun.elapsed().as_secs_f64());
        let shown = &seen.shown[before.shown.len()..];
        let with_previous = &seen.shown[before.shown.len().saturating_sub(1)..];
        let gaps = with_previous.windows(2).map(|pair| pair[1].0 - pair[0].0);
        let mut delays: Vec<_> = shown.iter().map(|(_, delay)| *delay).collect();
        delays.sort_unstable();
        let mut leads = seen.leads[before.leads.len()..].to_vec();
        leads.sort_unstable_by(f64::total_cmp);
        let (audio, earlier) = (seen.audio, before.audio);
        let (sent, sent_before) = (self.sent(), self.sent_before);
        Measured {
            fps: shown.len() as f64 / seconds,
            frozen: (seen.frozen_ms - before.frozen_ms) as f64 / 1000.0 / seconds,
            dropped: seen.dropped - before.dropped,
            longest_gap_ms: gaps.max(),
            p95_ms: delays.get(delays.len() * 95 / 100).copied(),
            concealed: (audio.2 - earlier.2) as f64 / (audio.3 - earlier.3).max(1) as f64,
            causes: seen.causes.since(&before.causes).in_ms(),
            audio_packets: (audio.0 - earlier.0, audio.1 - earlier.1),
            sent: (sent.0 - sent_before.0, sent.1 - sent_before.1),
            kbps: (sent_bits(&self.pair.a) - self.bits_before) / 1000.0 / seconds,
            sound_lead_ms: leads
                .get(leads.len() / 20)
                .copied()
                .zip(leads.get(leads.len() * 95 / 100).copied()),
            sound_delay_ms: seen.sound_delay_ms,
            heard_ms: self.heard_since(&seen.heard[before.heard.len()..]),
        }
    }

    /// RTP packets sent for the first time, and sent again.
    fn sent(&self) -> (u64, u64) {
        outbound(&self.pair.a).iter().fold((0, 0), |(first, again), stream| {
            let retransmitted = stream.retransmitted_packets_sent;
            (first + stream.packets_sent - retransmitted, again + retransmitted)
        })
    }

    fn heard_since(&self, heard: &[Instant]) -> Option<(u128, u128)> {
        let ms = |at: &Instant| at.duration_since(self.begun).as_millis();
        Some((ms(heard.first()?), ms(heard.last()?) + BLOCK.as_millis()))
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Measured {
    /// The longest time between two frames, in milliseconds, of which the first may have been shown
    /// before; infinite if fewer were shown.
    pub(crate) fn longest_gap_ms(&self) -> f64 {
        self.longest_gap_ms.map_or(f64::INFINITY, |gap| gap as f64)
    }

    /// The delay from capture to screen that 95 of 100 frames do not exceed, in milliseconds, measured every 10 ms;
    /// infinite if none was shown.
    pub(crate) fn p95_ms(&self) -> f64 {
        self.p95_ms.map_or(f64::INFINITY, |delay| delay as f64)
    }
}

/// The receiving end: plays like the program does, without a device and a window.
struct Receiver {
    begun: Instant,
    seen: Arc<Mutex<Seen>>,
    pool: Arc<DecodePool>,
    video: Option<(VideoTrack, VideoPlayer, TeeGuard<VideoFrame>)>,
    audio: Option<(AudioTrack, Subscription<AudioPacket>, AudioReceiver, HeardSound)>,
    /// The latency of the speaker, with which video is in sync; `None` if it is not.
    speaker: watch::Receiver<Option<Duration>>,
    /// The time from capture to ear in milliseconds, of the newest block.
    sound_delay_ms: Option<f64>,
    begun_at: MediaTime,
}

impl Receiver {
    fn new(
        begun: Instant,
        seen: Arc<Mutex<Seen>>,
        speaker: watch::Receiver<Option<Duration>>,
    ) -> Self {
        let pool = Arc::new(DecodePool::without_threads());
        let (begun_at, sound_delay_ms) = (media::now(), None);
        Self { begun, seen, pool, video: None, audio: None, speaker, sound_delay_ms, begun_at }
    }

    async fn run(mut self, mut tracks: tokio::sync::mpsc::Receiver<IncomingTrack>) {
        let mut clock = interval_at(self.begun + FIRST_BLOCK, BLOCK);
        loop {
            tokio::select! {
                biased;
                Some(track) = tracks.recv() => self.add_track(track),
                _ = clock.tick() => self.play(),
            }
        }
    }

    fn add_track(&mut self, track: IncomingTrack) {
        match track.codec {
            Codec::H264 => {
                let sink = Tee::default();
                let shown = sink.attach();
                let mut track = VideoTrack::new(track);
                let player = VideoPlayer::new(&track, &self.pool, sink, Box::new(|| ()));
                player.set_decoding(true);
                track.start();
                self.video = Some((track, player, shown));
            }
            Codec::Opus => {
                let mut track = AudioTrack::new(track);
                let packets = track.subscribe(AUDIO_QUEUE);
                track.start();
                let receiver = AudioReceiver::new().expect("a decoder");
                let heard = HeardSound::new(track.ssrc(), track.sender_reports());
                self.audio = Some((track, packets, receiver, heard));
            }
        }
    }

    fn play(&mut self) {
        let (now, ms) = (media::now(), self.begun.elapsed().as_millis());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((track, _, shown)) = &self.video {
            seen.frozen_ms = track.stats().frozen_ms;
            seen.dropped = track.playout_stats().frames_dropped;
            let frame = shown.slot.take();
            if let Some((frame, timecode)) =
                frame.as_ref().and_then(|frame| Some((frame, BurntInTimecode::read(frame)?)))
            {
                let delay = (ms as u64).saturating_sub(timecode.unix_ms);
                seen.shown.push((ms, delay));
                if let Some(sound_delay_ms) = self.sound_delay_ms {
                    let at = frame.time.since(self.begun_at).as_secs_f64() * 1000.0;
                    seen.leads.push(at - timecode.unix_ms as f64 - sound_delay_ms);
                }
            }
        }
        let latency = *self.speaker.borrow();
        if let Some((_, packets, receiver, heard)) = &mut self.audio {
            receiver.set_min_delay(heard.min_delay());
            if play_audio(packets, receiver, now) {
                seen.heard.push(Instant::now());
            }
            seen.audio = receiver.counts();
            seen.causes = receiver.concealment_causes();
            if let (Some(next), Some(latency)) = (receiver.position(), latency) {
                let (first, at) = (next.wrapping_sub(BLOCK_SAMPLES as u32), now + latency);
                heard.on_block(first, at);
                let captured = f64::from(first) / 48.0 + sender::FIRST_AUDIO_MS;
                let heard_ms = at.since(self.begun_at).as_secs_f64() * 1000.0;
                self.sound_delay_ms = Some(heard_ms - captured);
                seen.sound_delay_ms = self.sound_delay_ms;
            }
        }
        if let (Some((_, player, _)), Some((_, _, _, heard)), Some(_)) =
            (&self.video, &self.audio, latency)
        {
            player.set_sound(Some(heard.clock()));
        }
    }
}

/// Plays 10 ms, like the program's mixer. Returns whether there is any sound in it.
fn play_audio(
    packets: &mut Subscription<AudioPacket>,
    receiver: &mut AudioReceiver,
    now: MediaTime,
) -> bool {
    while let Some(packet) = packets.try_recv() {
        receiver.push(&packet.0);
    }
    receiver.pull(now).is_some_and(|block| block.mid.iter().any(|sample| sample.abs() > AUDIBLE))
}

/// A peak of -50 dBFS.
const AUDIBLE: f32 = 0.003;
