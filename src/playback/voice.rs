//! One remote sound, decoded: fetched block by block, gaps filled in.

use std::{collections::VecDeque, time::Duration};

use super::jitter::{AudioJitter, Pull};
use crate::{
    audio::{Fade, History, STRETCH_WINDOW, lengthen, level_dbfs, shorten, tone_hz},
    media::{AUDIO_RATE, BLOCK_SAMPLES, RtpPacket},
    model::{AudioStats, MediaTime},
};

/// Turns the packets of one sound into blocks of 10 ms, whatever does not arrive.
pub(super) struct VoiceDecoder {
    decoder: opus::Decoder,
    jitter: AudioJitter,
    /// Decoded and not yet fetched.
    ahead: VecDeque<f32>,
    /// Where packets are decoded to.
    decoded: Box<[f32; LONGEST]>,
    /// Length of the packet before, in samples.
    packet: usize,
    state: State,
    /// Samples in a row that were filled in.
    filled: usize,
    fade: Fade,
    drift: Drift,
    tally: Concealed,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Nothing is played: before the first packet, and after the sound stopped.
    Resting,
    /// Blocks are played.
    Playing,
}

/// Samples of the longest Opus packet: 120 ms (RFC 6716, section 2.1.4).
const LONGEST: usize = 5760;

/// Samples of the usual packet: 20 ms.
const USUAL: usize = 960;

/// Samples that are filled in at full gain; what a decoder makes up is then no longer likely.
const FILL_FULL: usize = AUDIO_RATE as usize * 80 / 1000;

/// Samples over which the filling fades out after that.
const FILL_FADE: usize = AUDIO_RATE as usize * 40 / 1000;

/// Samples over which a sound that rested fades in.
const FADE_IN: usize = AUDIO_RATE as usize * 5 / 1000;

impl VoiceDecoder {
    /// A decoder for one sound.
    ///
    /// # Errors
    /// If Opus has no memory for it.
    pub(super) fn new() -> Result<Self, opus::Error> {
        Ok(Self {
            decoder: opus::Decoder::new(AUDIO_RATE, opus::Channels::Mono)?,
            jitter: AudioJitter::new(),
            ahead: VecDeque::with_capacity(2 * LONGEST),
            decoded: Box::new([0.0; LONGEST]),
            packet: USUAL,
            state: State::Resting,
            filled: 0,
            fade: Fade::SILENT,
            drift: Drift::default(),
            tally: Concealed::default(),
        })
    }

    /// Takes a packet in.
    pub(super) fn push(&mut self, packet: &RtpPacket) {
        self.jitter.push(packet);
    }

    /// The next 10 ms, to be played about `now`; `None` while nothing is played.
    pub(super) fn pull(&mut self, now: MediaTime) -> Option<[f32; BLOCK_SAMPLES]> {
        self.jitter.fade();
        if self.state == State::Resting {
            if !self.jitter.is_ready(now) {
                return None;
            }
            self.state = State::Playing;
            self.jitter.start();
            self.tally.resume(self.jitter.lost());
        }
        self.jitter.catch_up(now);
        self.follow_drift(now);
        while self.ahead.len() < BLOCK_SAMPLES {
            self.extend();
        }
        let mut block = [0.0; BLOCK_SAMPLES];
        block.iter_mut().zip(self.ahead.drain(..BLOCK_SAMPLES)).for_each(|(to, from)| *to = from);
        if self.filled > FILL_FULL {
            self.fade.apply(&mut block, 0.0, FILL_FADE);
        } else {
            self.fade.apply(&mut block, 1.0, FADE_IN);
        }
        if self.fade.is_silent() && self.jitter.is_empty() {
            self.rest();
        }
        Some(block)
    }

    /// Packets that arrived, packets that did not, and samples that were filled in.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        (self.jitter.received(), self.jitter.lost(), self.tally.samples)
    }

    /// Whether a first packet was decoded and is heard.
    pub(super) fn is_playing(&self) -> bool {
        self.state == State::Playing
    }

    fn rest(&mut self) {
        self.state = State::Resting;
        self.ahead.clear();
        self.filled = 0;
        self.drift = Drift::default();
        self.tally.rest(self.jitter.lost());
    }

    /// Decodes what comes next, or fills in for it.
    fn extend(&mut self) {
        match self.jitter.pull() {
            Pull::Packet(payload) => {
                let samples = self.decode(&payload, false, LONGEST);
                self.jitter.played(samples.unwrap_or(self.packet));
                match samples {
                    Some(samples) => {
                        self.packet = samples;
                        self.filled = 0;
                        self.ahead.extend(&self.decoded[..samples]);
                    }
                    None => self.fill(self.packet),
                }
            }
            Pull::Repair { next, samples } => {
                let span = samples.next_multiple_of(SHORTEST).max(self.packet).min(LONGEST);
                let repaired =
                    repeats_the_one_before(&next).then(|| self.decode(&next, true, span));
                match repaired.flatten() {
                    // What was filled in already of the lost packet is not heard again.
                    Some(got) => {
                        self.ahead.extend(&self.decoded[got.saturating_sub(samples)..got]);
                    }
                    None => self.fill(samples),
                }
            }
            Pull::Lost(samples) => self.fill(samples),
            Pull::Empty => {
                self.fill(BLOCK_SAMPLES);
                self.jitter.stall(BLOCK_SAMPLES);
            }
        }
    }

    /// Decodes the packet, or with `before` what it repeats of the `span` samples before it.
    /// Returns how many samples `self.decoded` then holds.
    fn decode(&mut self, payload: &[u8], before: bool, span: usize) -> Option<usize> {
        match self.decoder.decode_float(payload, &mut self.decoded[..span], before) {
            Ok(samples) if samples > 0 => Some(samples),
            Ok(_) => None,
            Err(error) => {
                tracing::debug!(%error, "a sound packet cannot be decoded");
                None
            }
        }
    }

    /// Fills in so many samples by what Opus makes up from those before.
    fn fill(&mut self, samples: usize) {
        // Opus fills in multiples of its shortest frame only.
        let span = samples.next_multiple_of(SHORTEST).min(LONGEST);
        self.decoded[..span].fill(0.0);
        if self.filled < FILL_FULL + FILL_FADE
            && let Err(error) = self.decoder.decode_float(&[], &mut self.decoded[..span], false)
        {
            tracing::debug!(%error, "a gap in a sound stays silent");
        }
        let samples = samples.min(span);
        self.ahead.extend(&self.decoded[..samples]);
        self.filled += samples;
        self.tally.samples += samples as u64;
    }

    /// Shortens or lengthens what comes next when it was held too long or not long enough.
    fn follow_drift(&mut self, now: MediaTime) {
        let Some(excess) = self.jitter.excess(now, self.ahead.len()) else { return };
        let Some(correction) = self.drift.note(excess) else { return };
        while self.ahead.len() < STRETCH_WINDOW && !self.jitter.is_empty() && self.filled == 0 {
            self.extend();
        }
        let shift = match correction {
            Correction::Shorten => shorten(&mut self.ahead),
            Correction::Lengthen => lengthen(&mut self.ahead),
        };
        if shift == 0 {
            // Too little is there just now; the next block brings more.
            return;
        }
        self.drift = Drift::default();
        tracing::trace!(?correction, shift, "a sound follows its sender's clock");
    }
}

/// Samples of the shortest Opus frame: 2.5 ms.
const SHORTEST: usize = 120;

/// Whether the packet repeats the one before it at low quality (RFC 6716, section 4.2.4: the
/// LBRR flag of the first frame, after the voice activity flag of each 20 ms).
fn repeats_the_one_before(packet: &[u8]) -> bool {
    const CELT_ONLY: u8 = 16;
    if packet.first().is_none_or(|toc| toc >> 3 >= CELT_ONLY) {
        return false;
    }
    let (Ok(parsed), Ok(span)) =
        (opus::packet::parse(packet), opus::packet::get_samples_per_frame(packet, AUDIO_RATE))
    else {
        return false;
    };
    let frames = (span / USUAL).clamp(1, 3);
    let first = parsed.frames.first().and_then(|frame| frame.first());
    first.is_some_and(|flags| flags >> (7 - frames) & 1 == 1)
}

/// Samples that were filled in. Silence on purpose is not counted: only when the sound goes on do
/// the sequence numbers say which it was.
#[derive(Debug, Default)]
struct Concealed {
    samples: u64,
    lost_at_rest: u64,
}

impl Concealed {
    fn rest(&mut self, lost: u64) {
        self.lost_at_rest = lost;
    }

    fn resume(&mut self, lost: u64) {
        // The filling before the rest covered the first of them.
        let covered = (FILL_FULL + FILL_FADE) / USUAL;
        let silent = lost.saturating_sub(self.lost_at_rest).saturating_sub(covered as u64);
        if self.samples > 0 {
            self.samples += silent * USUAL as u64;
        }
    }
}

/// Tells a lasting deviation from a passing one.
#[derive(Debug, Default)]
struct Drift {
    /// Least and greatest excess, µs, since the window began.
    range: Option<(i64, i64)>,
    blocks: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Correction {
    Shorten,
    Lengthen,
}

impl Drift {
    /// A deviation must last this many blocks: half a second.
    const LASTING: u32 = 50;

    /// With a deviation of more than [`Self::FAR`], only this many.
    const LASTING_FAR: u32 = 10;

    /// Sound held longer than it is to be by up to this is left alone, µs: a correction moves by 5
    /// to 15 ms.
    const LONG: i64 = 15_000;

    /// Sound held less long by up to this is left alone, µs. The target has nothing to spare: a
    /// packet is wanted up to a block before its first sample is played.
    const SHORT: i64 = 2_000;

    /// Beyond this, one hears the delay more than the corrections, µs.
    const FAR: i64 = 60_000;

    /// Notes a block's excess, µs; the correction to make, until it is made.
    fn note(&mut self, excess: i64) -> Option<Correction> {
        let (least, greatest) = self.range.unwrap_or((excess, excess));
        let (least, greatest) = (least.min(excess), greatest.max(excess));
        self.range = Some((least, greatest));
        self.blocks += 1;
        let far = least > Self::FAR || greatest < -Self::FAR;
        let lasting = if far { Self::LASTING_FAR } else { Self::LASTING };
        if self.blocks < lasting {
            return None;
        }
        if least > Self::LONG {
            Some(Correction::Shorten)
        } else if greatest < -Self::SHORT {
            Some(Correction::Lengthen)
        } else {
            *self = Self::default();
            None
        }
    }
}

/// What is known of one voice, for its figures.
#[derive(Clone, Debug, Default)]
pub(super) struct VoiceTally {
    /// Packets that arrived, packets that did not, and samples that were filled in.
    pub(super) counts: (u64, u64, u64),
    /// The last second.
    pub(super) history: History,
}

impl VoiceTally {
    /// The figures. Takes some milliseconds of this thread.
    pub(super) fn stats(&self) -> AudioStats {
        let samples = self.history.samples();
        let (packets, lost, concealed) = self.counts;
        let concealed = Duration::from_micros(concealed * 1000 / 48);
        AudioStats {
            packets,
            lost,
            concealed_ms: concealed.as_millis() as u64,
            level_dbfs: level_dbfs(&samples),
            tone_hz: tone_hz(&samples),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::testing::{Singer, at, packet};

    /// A sound that was sent, and how it is heard.
    struct Listener {
        decoder: VoiceDecoder,
        heard: Vec<f32>,
        blocks: u64,
    }

    impl Listener {
        fn new() -> Self {
            Self { decoder: VoiceDecoder::new().unwrap(), heard: vec![], blocks: 0 }
        }

        /// Listens for so many blocks; `arrivals` are those of the packets, in their order.
        fn listen(&mut self, blocks: u64, arrivals: &mut Arrivals) {
            for _ in 0..blocks {
                let now = at(1000 + self.blocks * 10);
                self.blocks += 1;
                while let Some(packet) = arrivals.next_if(|packet| packet.arrival <= now) {
                    self.decoder.push(&packet);
                }
                let block = self.decoder.pull(now);
                self.heard.extend(block.unwrap_or([0.0; BLOCK_SAMPLES]));
            }
        }

        fn stats(&self) -> AudioStats {
            let mut tally = VoiceTally { counts: self.decoder.counts(), history: History::new() };
            for block in self.heard.as_chunks::<BLOCK_SAMPLES>().0 {
                tally.history.push(block);
            }
            tally.stats()
        }
    }

    type Arrivals = std::iter::Peekable<std::vec::IntoIter<RtpPacket>>;

    /// So many packets, each `late` milliseconds after it was sent, `None` if it is lost.
    fn sent(mut singer: Singer, count: u64, late: impl Fn(u64) -> Option<u64>) -> Arrivals {
        let mut packets: Vec<_> = (0..count)
            .filter_map(|n| {
                let payload = singer.sing();
                let arrival = at(1000 + n * 20 + late(n)?);
                Some(packet(n as u16, (n * 960) as u32, false, payload, arrival))
            })
            .collect();
        packets.sort_by_key(|packet| packet.arrival);
        packets.into_iter().peekable()
    }

    /// The quietest 5 ms of the sound, against the level of the whole, in dB.
    fn deepest_hole(sound: &[f32]) -> f64 {
        let quietest = sound.chunks_exact(240).map(level_dbfs).fold(f64::MAX, f64::min);
        quietest - level_dbfs(sound)
    }

    /// The greatest step from one sample to the next.
    fn steepest(sound: &[f32]) -> f32 {
        sound.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn only_a_packet_that_repeats_the_one_before_is_used_for_that() {
        let count =
            |mut singer: Singer| (0..50).filter(|_| repeats_the_one_before(&singer.sing())).count();
        assert!(count(Singer::repeating(440.0, 0.5)) > 40);
        assert_eq!(count(Singer::speaking(440.0, 0.5)), 0, "of the kind that could");
        assert_eq!(count(Singer::plain(440.0, 0.5)), 0, "of the kind that cannot");
        assert!(!repeats_the_one_before(&[]) && !repeats_the_one_before(&[0x48]));
    }

    #[test]
    fn a_tone_without_losses_is_heard_as_it_was_sung() {
        let mut listener = Listener::new();
        listener.listen(300, &mut sent(Singer::plain(440.0, 0.5), 200, |_| Some(0)));
        let stats = listener.stats();
        assert_eq!((stats.packets, stats.lost, stats.concealed_ms), (150, 0, 0));
        assert!((stats.level_dbfs - -9.03).abs() < 0.5, "{stats:?}");
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 1.0, "{stats:?}");
        let start = listener.heard.iter().position(|sample| *sample != 0.0).unwrap();
        assert!(start <= 960 + 480, "heard after {start} samples");
        assert!(deepest_hole(&listener.heard[4800..]) > -3.0);
    }

    #[test]
    fn a_single_loss_is_repaired_from_the_packet_after_it() {
        let lost = |n| (n % 10 != 7).then_some(0);
        let mut listener = Listener::new();
        listener.listen(300, &mut sent(Singer::repeating(440.0, 0.5), 200, lost));
        let stats = listener.stats();
        assert_eq!((stats.lost, stats.concealed_ms), (15, 0), "nothing was made up");
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
        let hole = deepest_hole(&listener.heard[9600..]);
        assert!(hole > -6.0, "a hole of {hole} dB");
    }

    #[test]
    fn a_loss_that_nothing_repeats_is_filled_in_and_counted() {
        let lost = |n| (n % 20 != 7).then_some(0);
        let mut listener = Listener::new();
        listener.listen(300, &mut sent(Singer::plain(440.0, 0.5), 200, lost));
        let stats = listener.stats();
        assert_eq!((stats.lost, stats.concealed_ms), (8, 160));
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
        let hole = deepest_hole(&listener.heard[9600..]);
        assert!(hole > -12.0, "a hole of {hole} dB");
    }

    #[test]
    fn a_sound_that_stops_fades_away_and_comes_back() {
        let mut listener = Listener::new();
        let lost = |n| (!(50..100).contains(&n)).then_some(0);
        listener.listen(300, &mut sent(Singer::plain(440.0, 0.5), 200, lost));
        let level =
            |ms: std::ops::Range<usize>| level_dbfs(&listener.heard[ms.start * 48..ms.end * 48]);
        assert!(level(900..1000) > -10.0);
        assert!(level(1160..2000) <= -119.0, "silent: {}", level(1160..2000));
        assert!(level(2050..3000) > -10.0, "back: {}", level(2050..3000));
        let step = steepest(&listener.heard);
        assert!(step < 0.1, "a click of {step}");
        assert_eq!(listener.stats().lost, 50);
        let concealed = listener.stats().concealed_ms;
        assert!((980..=1020).contains(&concealed), "{concealed}");
    }

    #[test]
    fn silence_on_purpose_is_no_concealment() {
        let mut listener = Listener::new();
        let mut singer = Singer::plain(440.0, 0.5);
        let packets: Vec<_> = (0..100_u64)
            .map(|n| {
                // Numbers go on, time passes: a gate was closed for two seconds.
                let time = if n < 50 { n } else { n + 100 };
                let stamp = (time * 960) as u32;
                packet(n as u16, stamp, false, singer.sing(), at(1000 + time * 20))
            })
            .collect();
        listener.listen(390, &mut packets.into_iter().peekable());
        let stats = listener.stats();
        assert_eq!(stats.lost, 0);
        assert!(stats.concealed_ms <= 130, "{stats:?}");
        assert!(stats.level_dbfs > -14.0, "{stats:?}");
    }

    #[test]
    fn uneven_arrival_is_evened_out_after_a_moment() {
        let mut listener = Listener::new();
        let late = |n: u64| Some(n * 7919 % 83);
        let mut arrivals = sent(Singer::plain(440.0, 0.5), 1500, late);
        listener.listen(1000, &mut arrivals);
        let before = listener.stats().concealed_ms;
        listener.listen(2010, &mut arrivals);
        let stats = listener.stats();
        assert_eq!(stats.lost, 0);
        assert!(
            stats.concealed_ms - before <= 200,
            "1 % of 20 s: {} ms",
            stats.concealed_ms - before
        );
        assert!(listener.delay() <= 130, "{} ms", listener.delay());
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
    }

    #[test]
    fn a_sender_whose_clock_runs_fast_or_slow_is_followed_without_a_hole() {
        for ppm in [-300_i64, 300] {
            let mut singer = Singer::plain(440.0, 0.5);
            let packets: Vec<_> = (0..10_000_u64)
                .map(|n| {
                    let micros =
                        (1_000_000 + n * 20_000).saturating_add_signed(n as i64 * ppm / 50);
                    let arrival = MediaTime::from_micros(micros);
                    packet(n as u16, (n * 960) as u32, false, singer.sing(), arrival)
                })
                .collect();
            let mut listener = Listener::new();
            listener.listen(19_900, &mut packets.into_iter().peekable());
            let stats = listener.stats();
            // Two hundred seconds at 300 ppm are 60 ms: three times of what is held.
            assert!(listener.delay() <= 50, "{ppm}: {} ms", listener.delay());
            assert!(stats.concealed_ms == 0, "{ppm}: {stats:?}");
            let hole = deepest_hole(&listener.heard[48_000..]);
            assert!(hole > -3.0, "{ppm}: a hole of {hole} dB");
            let step = steepest(&listener.heard[48_000..]);
            assert!(step < 0.04, "{ppm}: a click of {step}; the tone's own steps are 0.029");
        }
    }

    impl Listener {
        /// How long the next sample was held, in milliseconds, against the fastest.
        fn delay(&self) -> i64 {
            let now = at(1000 + self.blocks * 10);
            let excess = self.decoder.jitter.excess(now, self.decoder.ahead.len()).unwrap();
            excess / 1000 + self.decoder.jitter.target().as_millis() as i64
        }
    }

    #[test]
    fn garbage_is_survived_and_what_follows_is_heard() {
        let mut seed = 7_u32;
        let mut next = move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        let mut listener = Listener::new();
        let mut garbage: Vec<_> = (0..2000_u64)
            .map(|n| {
                let payload: Vec<_> = (0..next() % 300).map(|_| next() as u8).collect();
                packet(n as u16, next() % 100_000, next() % 2 == 0, payload, at(1000 + n * 3))
            })
            .collect();
        garbage.sort_by_key(|packet| packet.arrival);
        listener.listen(700, &mut garbage.into_iter().peekable());
        assert!(listener.decoder.ahead.len() < 4 * LONGEST);
        let mut singer = Singer::plain(440.0, 0.5);
        let packets: Vec<_> = (0..200_u64)
            .map(|n| {
                let stamp = 4_000_000_000_u64 + n * 960;
                packet(2000 + n as u16, stamp as u32, false, singer.sing(), at(8000 + n * 20))
            })
            .collect();
        listener.listen(400, &mut packets.into_iter().peekable());
        let stats = listener.stats();
        assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
        assert!((stats.level_dbfs - -9.03).abs() < 1.0, "{stats:?}");
    }
}
