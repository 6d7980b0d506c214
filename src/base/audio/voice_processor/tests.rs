//! A room in virtual time: a speaker and a microphone with clocks of their own, and two people who
//! speak. It measures what is left of the echo, and what becomes of the near voice.

use super::*;
use crate::audio::level_dbfs;

const RATE: usize = AUDIO_RATE as usize;

/// Numbers that look random, the same in each run (xorshift64*).
struct Random(u64);

impl Random {
    /// The next number in -1..1.
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 40) as f32 / 8_388_608.0 - 1.0
    }

    fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * (self.next() + 1.0) / 2.0
    }
}

/// A resonance of the vocal tract: a filter with two poles.
#[derive(Clone, Copy, Default)]
struct Formant {
    hz: f32,
    past: [f32; 2],
}

impl Formant {
    fn filter(&mut self, input: f32) -> f32 {
        let radius = (-std::f32::consts::PI * 90.0 / RATE as f32).exp();
        let angle = std::f32::consts::TAU * self.hz / RATE as f32;
        let output = (1.0 - radius) * input + 2.0 * radius * angle.cos() * self.past[0]
            - radius * radius * self.past[1];
        self.past = [output, self.past[0]];
        output
    }
}

/// Something like speech: syllables with a vowel, some of them with a hiss, in phrases with rests
/// between. The level of the syllables is about `dbfs`.
fn speech(seed: u64, pitch_hz: f32, seconds: usize, dbfs: f64) -> Vec<f32> {
    let (mut random, mut samples) = (Random(seed), vec![]);
    let mut formants = [Formant::default(); 4];
    let mut phase = 0.0;
    while samples.len() < seconds * RATE {
        for _ in 0..random.between(4.0, 10.0) as usize {
            syllable(&mut random, &mut samples, (&mut formants, &mut phase, pitch_hz));
        }
        let rest = random.between(0.15, 0.5) * RATE as f32;
        samples.resize(samples.len() + rest as usize, 0.0);
    }
    samples.truncate(seconds * RATE);
    let factor = 10_f64.powf((dbfs - level_dbfs(&samples)) / 20.0) as f32;
    samples.iter_mut().for_each(|sample| *sample = (*sample * factor).clamp(-1.0, 1.0));
    samples
}

fn syllable(
    random: &mut Random,
    samples: &mut Vec<f32>,
    (formants, phase, pitch_hz): (&mut [Formant; 4], &mut f32, f32),
) {
    let length = (random.between(0.1, 0.24) * RATE as f32) as usize;
    let (mut pitch, end) = (pitch_hz * random.between(0.85, 1.2), random.between(0.75, 1.2));
    let glide = end.powf(1.0 / length as f32);
    let ranges = [(300.0, 800.0), (900.0, 2200.0), (2300.0, 3000.0), (3300.0, 4500.0)];
    for (formant, (low, high)) in formants.iter_mut().zip(ranges) {
        formant.hz = random.between(low, high);
    }
    let hiss = if random.next() > 0.2 { 0.03 } else { 0.001 };
    for n in 0..length {
        let envelope = (std::f32::consts::PI * n as f32 / length as f32).sin();
        pitch *= glide;
        *phase += pitch * (1.0 + 0.02 * random.next()) / RATE as f32;
        let pulse = if *phase >= 1.0 { 1.0 } else { 0.0 };
        *phase = phase.fract();
        // The glottis closes once a period, and breath passes it all the time.
        let source = pulse + 0.01 * random.next();
        let voice: f32 = formants.iter_mut().map(|formant| formant.filter(source)).sum();
        let noise = random.next() * hiss * if n < length / 4 { 1.0 } else { 0.1 };
        samples.push((voice + noise) * envelope);
    }
}

/// What happens in the room.
struct Room {
    /// What the other end says.
    far: Vec<f32>,
    /// What is said at the microphone.
    near: Vec<f32>,
    /// How much quieter the echo is, in dB; `None` for headphones.
    echo_loss_db: Option<f64>,
    /// How much faster the speaker's clock is than the microphone's, in parts per million.
    ppm: f64,
    stages: Stages,
    fault: Fault,
}

/// A planted fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The processor is not told what the speaker plays.
    FarEndNotPassed,
    /// It is told 300 ms too late.
    FarEndLate,
}

/// What the microphone hears, and what is sent.
struct Heard {
    microphone: Vec<f32>,
    sent: Vec<f32>,
}

/// From the mixer to the speaker: the ring of a device that takes 20 ms at a time.
const PLAYOUT_MS: usize = 30;

/// From the speaker to the microphone, with the sound server's buffers.
const ROOM_MS: usize = 40;

/// The microphone delivers two blocks at a time.
const FRAGMENT: usize = 2;

impl Room {
    fn new(seconds: usize) -> Self {
        Self {
            far: speech(7, 110.0, seconds, -24.0),
            near: vec![0.0; seconds * RATE],
            echo_loss_db: Some(10.0),
            ppm: 0.0,
            stages: Stages { echo: true, noise: true, gain: false },
            fault: Fault::None,
        }
    }

    /// What the microphone hears: the near voice, the echo and some noise.
    fn microphone(&self) -> Vec<f32> {
        let mut random = Random(99);
        let response = room_response(&mut random);
        let gain = self.echo_loss_db.map_or(0.0, |loss| 10_f64.powf(-loss / 20.0) as f32);
        // The sample that the speaker plays while the microphone records its number `n`.
        let delay = ((PLAYOUT_MS + ROOM_MS) * RATE / 1000) as f64;
        let played: Vec<_> = (0..self.near.len())
            .map(|n| sample_at(&self.far, (n as f64 - delay) * (1.0 + self.ppm / 1e6)))
            .collect();
        let mut heard: Vec<_> = self.near.iter().map(|near| near + random.next() * 3e-5).collect();
        for (delay, weight) in response {
            let weight = gain * weight;
            let late = heard.iter_mut().skip(delay);
            late.zip(&played).for_each(|(heard, played)| *heard += weight * played);
        }
        heard
    }

    fn run(&self) -> Heard {
        let microphone = self.microphone();
        let mut processor = VoiceProcessor::new(self.stages);
        let (mut sent, mut played) = (vec![], 0);
        let late = if self.fault == Fault::FarEndLate { 30 } else { 0 };
        let blocks = |samples: &[f32]| samples.as_chunks::<BLOCK_SAMPLES>().0.to_vec();
        let (far, heard) = (blocks(&self.far), blocks(&microphone));
        for (number, fragment) in heard.chunks(FRAGMENT).enumerate() {
            // Blocks are mixed ahead of the speaker, two at a time.
            let time = ((number + 1) * FRAGMENT) as f64 * (1.0 + self.ppm / 1e6);
            let mixed = (time / 2.0).floor() as usize * 2;
            let mixed = mixed.saturating_sub(late).min(far.len());
            for block in &far[played..mixed] {
                if self.fault != Fault::FarEndNotPassed {
                    processor.play(block);
                }
            }
            played = mixed;
            for block in fragment {
                let mut block = *block;
                processor.process(&mut block, (PLAYOUT_MS + 20) as u32);
                sent.extend_from_slice(&block);
            }
        }
        Heard { microphone, sent }
    }
}

/// A short room: the direct sound, and reflections within 60 ms that decay. Each has a delay in
/// samples and a weight.
fn room_response(random: &mut Random) -> Vec<(usize, f32)> {
    let mut response = vec![(0, 1.0)];
    for n in 1..60 {
        let delay = n as f32 * 48.0 + random.between(-20.0, 20.0);
        response.push((delay as usize, 0.35 * random.next() * (-(n as f32) / 15.0).exp()));
    }
    let energy: f32 = response.iter().map(|(_, weight)| weight * weight).sum();
    response.iter_mut().for_each(|(_, weight)| *weight /= energy.sqrt());
    response
}

/// The value between two samples (sinc, Hann window).
fn sample_at(samples: &[f32], position: f64) -> f32 {
    let (base, part) = (position.floor() as i64, position - position.floor());
    let at = |n: i64| usize::try_from(n).ok().and_then(|n| samples.get(n)).copied().unwrap_or(0.0);
    if part == 0.0 {
        return at(base);
    }
    (-7..=8)
        .map(|tap| {
            let x = part - tap as f64;
            let (angle, window) =
                (std::f64::consts::PI * x, (x / 8.5 * std::f64::consts::PI).cos());
            at(base + tap) * (angle.sin() / angle * (0.5 + 0.5 * window)) as f32
        })
        .sum()
}

impl Heard {
    /// How much of the microphone's sound is taken away between these seconds, in dB: the echo
    /// return loss enhancement, while nobody speaks at the microphone.
    fn erle_db(&self, from: f64, to: f64) -> f64 {
        let range = (from * RATE as f64) as usize..(to * RATE as f64) as usize;
        level_dbfs(&self.microphone[range.clone()]) - level_dbfs(&self.sent[range])
    }
}

/// By how many samples `sent` is later than `spoken`: the shift at which they agree best.
fn shift(spoken: &[f32], sent: &[f32]) -> usize {
    let length = RATE / 2;
    let agreement = |shift: usize| -> f32 {
        spoken[..length].iter().zip(&sent[shift..]).map(|(one, other)| one * other).sum()
    };
    let shifts = 0..1000;
    shifts.max_by(|one, other| agreement(*one).total_cmp(&agreement(*other))).unwrap()
}

/// What became of the near voice, in dB, in each piece of 100 ms with speech between these seconds,
/// sorted: the level of what was sent relative to what was said.
fn near_changes_db(near: &[f32], sent: &[f32], (from, to): (usize, usize)) -> Vec<f64> {
    let pieces = |samples: &[f32]| -> Vec<f64> {
        samples[from * RATE..to * RATE].chunks(RATE / 10).map(level_dbfs).collect()
    };
    let (near, sent) = (pieces(near), pieces(sent));
    let spoken = near.iter().zip(&sent).filter(|(near, _)| **near > -32.0);
    let mut changes: Vec<_> = spoken.map(|(near, sent)| sent - near).collect();
    changes.sort_by(f64::total_cmp);
    changes
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

/// What was sent, earlier by the delay of the stages.
fn aligned(sent: &[f32], stages: Stages) -> Vec<f32> {
    let late = (stages.delay().as_micros() * 48 / 1000) as usize;
    let mut aligned = sent[late..].to_vec();
    aligned.resize(sent.len(), 0.0);
    aligned
}

#[test]
fn echo_is_taken_away_also_with_clocks_that_differ() {
    for (seed, ppm, bound) in [(7, 0.0, 70.0), (7, -100.0, 50.0), (9, 300.0, 47.0)] {
        let heard = Room { ppm, far: speech(seed, 110.0, 30, -24.0), ..Room::new(30) }.run();
        let second = |second: u32| heard.erle_db(f64::from(second), f64::from(second) + 1.0);
        let mut seconds: Vec<_> = (3..30).map(second).collect();
        seconds.sort_by(f64::total_cmp);
        let (early, later) = (heard.erle_db(2.0, 3.0), heard.erle_db(3.0, 30.0));
        let figures = format!("{ppm} ppm: {early:.1} dB, later {later:.1} dB: {seconds:.0?}");
        assert!(early >= 28.0 && later >= bound && median(&seconds) >= 65.0, "{figures}");
    }
}

#[test]
fn the_rig_notices_a_far_end_that_is_not_passed_or_late() {
    for fault in [Fault::FarEndNotPassed, Fault::FarEndLate] {
        let heard = Room { fault, ..Room::new(6) }.run();
        let (early, later) = (heard.erle_db(2.0, 3.0), heard.erle_db(3.0, 6.0));
        assert!(early < 10.0 && later < 10.0, "{early:.1} dB, later {later:.1} dB");
    }
}

#[test]
fn the_near_voice_passes_beside_the_echo_and_without_one() {
    let mut near = speech(11, 190.0, 20, -24.0);
    near[..10 * RATE].fill(0.0);
    for echo_loss_db in [Some(10.0), None] {
        let room = Room { near: near.clone(), echo_loss_db, ..Room::new(20) };
        let sent = aligned(&room.run().sent, room.stages);
        for range in [(10, 12), (12, 20)] {
            let change = median(&near_changes_db(&near, &sent, range));
            assert!(change.abs() <= 2.0, "echo {echo_loss_db:?}, {range:?} s: {change:.1} dB");
        }
    }
}

#[test]
fn the_gain_makes_a_quiet_voice_louder() {
    let near = speech(11, 190.0, 12, -44.0);
    for (gain, wanted) in [(false, -3.0..1.0), (true, 12.0..24.0)] {
        let stages = Stages { echo: true, noise: true, gain };
        let room = Room { near: near.clone(), echo_loss_db: None, stages, ..Room::new(12) };
        let sent = Room { far: vec![0.0; near.len()], ..room }.run().sent;
        let change = level_dbfs(&sent[6 * RATE..]) - level_dbfs(&near[6 * RATE..]);
        assert!(wanted.contains(&change), "gain {gain}: {change:.1} dB");
    }
}

#[test]
fn noise_is_reduced() {
    let mut random = Random(3);
    let near: Vec<_> = (0..6 * RATE).map(|_| random.next() * 0.01).collect();
    for (noise, wanted) in [(false, -6.0..1.0), (true, -40.0..-12.0)] {
        let stages = Stages { echo: true, noise, gain: false };
        let room = Room { near: near.clone(), echo_loss_db: None, stages, ..Room::new(6) };
        let sent = Room { far: vec![0.0; near.len()], ..room }.run().sent;
        let change = level_dbfs(&sent[3 * RATE..]) - level_dbfs(&near[3 * RATE..]);
        assert!(wanted.contains(&change), "noise suppression {noise}: {change:.1} dB");
    }
}

#[test]
fn the_delay_of_the_stages_is_known() {
    for bits in 1..8 {
        let stages = Stages { echo: bits & 1 != 0, noise: bits & 2 != 0, gain: bits & 4 != 0 };
        let near = speech(11, 190.0, 3, -24.0);
        let heard = Room { far: vec![0.0; near.len()], near, stages, ..Room::new(3) }.run();
        let range = RATE..;
        let found = shift(&heard.microphone[range.clone()], &heard.sent[range]) * 1000 / 48;
        let stated = stages.delay().as_micros() as usize;
        assert!(found.abs_diff(stated) < 100, "{stages:?}: {found} µs, stated {stated} µs");
    }
}

#[test]
fn without_an_echo_the_near_voice_is_not_ducked_when_the_far_end_begins() {
    let near = speech(11, 190.0, 16, -24.0);
    // At first nothing is known, so a voice that begins together with the far end is lost for as
    // long as it takes to find no echo.
    for (from, bound) in [(0, 7), (12, 0)] {
        let mut room = Room { near: near.clone(), echo_loss_db: None, ..Room::new(16) };
        room.far[..from * RATE].fill(0.0);
        let sent = aligned(&room.run().sent, room.stages);
        let changes = near_changes_db(&near, &sent, (from, 16));
        let ducked = changes.iter().filter(|change| **change < -6.0).count();
        let figures = format!("from {from} s: {ducked} pieces, {:.1} dB", median(&changes));
        assert!(ducked <= bound && median(&changes).abs() < 1.0, "{figures}");
    }
}

#[test]
fn an_echo_is_found_in_a_moment_also_beside_a_voice_and_none_is_found_without_one() {
    let (quiet, near) = (vec![0.0; 8 * RATE], speech(11, 190.0, 8, -24.0));
    for (near, echo_loss_db, (from, until), wanted) in [
        (&quiet, Some(10.0), (10, 50), Presence::Present),
        (&near, Some(10.0), (10, 50), Presence::Present),
        (&quiet, Some(40.0), (10, 50), Presence::Present),
        (&quiet, None, (40, 90), Presence::Absent),
        (&near, None, (40, 90), Presence::Absent),
    ] {
        let mut room = Room { near: near.clone(), echo_loss_db, ppm: 100.0, ..Room::new(8) };
        room.far[..2 * RATE].fill(0.0);
        let (far, heard) = (room.far.clone(), room.microphone());
        let mut presence = EchoPresence::default();
        // The far end may come late: 50 ms here.
        let far = [vec![0.0; 5 * BLOCK_SAMPLES], far].concat();
        for _ in 0..5 {
            presence.push(&[0.0; BLOCK_SAMPLES]);
        }
        let blocks = far.as_chunks::<BLOCK_SAMPLES>().0.iter().zip(heard.as_chunks().0);
        let known: Vec<_> = blocks
            .map(|(far, heard)| {
                presence.play(far);
                presence.push(heard)
            })
            .collect();
        let found = known.iter().position(|known| *known == wanted).expect("it is found");
        assert!((200 + from..200 + until).contains(&found), "{echo_loss_db:?}: block {found}");
        assert!(known[found..].iter().all(|known| *known == wanted), "{echo_loss_db:?}");
    }
}
