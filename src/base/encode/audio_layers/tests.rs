use std::f32::consts::TAU;

use super::*;
use crate::{
    media::{AUDIO_RATE, LayerSwitch, Subscription},
    model::MediaTime,
};

use AudioLayer::{FullBand, Low, Standard};

/// The amplitude of the tones.
const AMPLITUDE: f32 = 0.1414;

/// The layers of a microphone that gives a tone.
struct Tone {
    out: Fanout<EncodedAudio>,
    layers: AudioLayers,
    hz: f64,
    amplitude: f32,
    /// What the left channel has more than the right one.
    side: Option<[f32; 480]>,
    blocks: u64,
}

impl Tone {
    fn new(hz: f64) -> Self {
        let out = Fanout::default();
        let layers = AudioLayers::new(out.clone());
        Self { out, layers, hz, amplitude: AMPLITUDE, side: None, blocks: 0 }
    }

    fn run(&mut self, seconds: f64) {
        for _ in 0..(seconds * 100.0).round() as u64 {
            let sample = self.blocks * BLOCK_SAMPLES;
            let phase = |n: usize| (sample + n as u64) as f64 * self.hz / f64::from(AUDIO_RATE);
            let tone = |n| self.amplitude * (phase(n).fract() as f32 * TAU).sin();
            let time = MediaTime::from_micros(self.blocks * 10_000);
            let block =
                AudioBlock { side: self.side, ..AudioBlock::mono(time, std::array::from_fn(tone)) };
            self.layers.encode(&block, sample).unwrap();
            self.blocks += 1;
        }
    }

    fn encoded(&self) -> Vec<AudioLayer> {
        let runs = |layer: &AudioLayer| self.layers.layers[*layer as usize].is_some();
        AudioLayer::ALL.into_iter().filter(runs).collect()
    }
}

/// A peer that gets audio, and what its decoder makes of it.
struct Listener {
    packets: Subscription<EncodedAudio>,
    switch: LayerSwitch,
    decoder: opus::Decoder,
    next_sample: Option<u64>,
    heard: Vec<f32>,
    /// The layer of each packet.
    layers: Vec<AudioLayer>,
}

impl Listener {
    fn new(tone: &Tone) -> Self {
        let packets = tone.out.subscribe(10_000);
        let switch = packets.layer_switch();
        let decoder = opus::Decoder::new(AUDIO_RATE, opus::Channels::Mono).unwrap();
        Self { packets, switch, decoder, next_sample: None, heard: vec![], layers: vec![] }
    }

    /// Decodes what has come. No sample is missing, and none comes twice.
    fn listen(&mut self) {
        while let Some(packet) = self.packets.try_recv() {
            assert_eq!(packet.sample, self.next_sample.unwrap_or(packet.sample));
            let mut part = [0.0; 5760];
            let length = self.decoder.decode_float(&packet.data, &mut part, false).unwrap();
            assert_eq!(length as u64, packet.layer.packet_samples());
            self.next_sample = Some(packet.sample + length as u64);
            self.heard.extend(&part[..length]);
            self.layers.push(packet.layer);
        }
    }

    /// The level in dB and the phase in degrees of a tone in each 10 ms, of those after a time.
    fn tone(&self, hz: f64, after: f64) -> Vec<(f64, f64)> {
        let first = (after * 48_000.0) as usize;
        let parts = (first..self.heard.len().saturating_sub(480)).step_by(120);
        parts.map(|from| tone_of(&self.heard[from..from + 480], from, hz)).collect()
    }
}

/// The level relative to [`AMPLITUDE`] in dB and the phase in degrees of a tone.
fn tone_of(samples: &[f32], from: usize, hz: f64) -> (f64, f64) {
    let turn = std::f64::consts::TAU * hz / f64::from(AUDIO_RATE);
    let sums = samples.iter().enumerate().fold((0.0, 0.0), |sum, (n, sample)| {
        let (sin, cos) = (turn * (from + n) as f64).sin_cos();
        (sum.0 + f64::from(*sample) * sin, sum.1 + f64::from(*sample) * cos)
    });
    let amplitude = f64::hypot(sums.0, sums.1) * 2.0 / samples.len() as f64;
    (20.0 * (amplitude / f64::from(AMPLITUDE)).log10(), sums.1.atan2(sums.0).to_degrees())
}

/// The least level, and the most that the phase differs from its mean.
fn worst(parts: &[(f64, f64)]) -> (f64, f64) {
    let level = parts.iter().map(|part| part.0).fold(f64::MAX, f64::min);
    let apart = |a: f64, b: f64| ((a - b + 540.0).rem_euclid(360.0) - 180.0).abs();
    let phase = parts.iter().map(|part| apart(part.1, parts[0].1)).fold(0.0, f64::max);
    (level, phase)
}

#[test]
fn each_layer_is_encoded_while_somebody_gets_it_and_once_for_all() {
    let mut tone = Tone::new(1000.0);
    tone.run(0.1);
    assert_eq!(tone.encoded(), []);
    let (mut first, mut second) = (Listener::new(&tone), Listener::new(&tone));
    tone.run(0.1);
    assert_eq!(tone.encoded(), [Standard]);
    let [one, other] = [&mut first, &mut second].map(|one| one.packets.try_recv().unwrap());
    assert!(std::sync::Arc::ptr_eq(&one, &other));
    first.switch.want(FullBand);
    tone.run(0.1);
    assert_eq!(tone.encoded(), [Standard, FullBand]);
    tone.run(3.5);
    assert_eq!([first.switch.taken(), second.switch.taken()], [FullBand, Standard]);
    drop(second);
    tone.run(1.9);
    assert_eq!(tone.encoded(), [Standard, FullBand], "it lingers");
    tone.run(0.2);
    assert_eq!(tone.encoded(), [FullBand]);
    drop(first);
    tone.run(2.2);
    assert_eq!(tone.encoded(), []);
}

#[test]
fn a_change_of_the_layer_is_not_heard() {
    for hz in [400.0, 1000.0] {
        let mut tone = Tone::new(hz);
        let mut listener = Listener::new(&tone);
        let changes = [FullBand, Standard, Low, Standard];
        tone.run(3.0);
        for layer in changes {
            listener.switch.want(layer);
            tone.run(3.0);
            assert_eq!(listener.switch.taken(), layer);
        }
        listener.listen();
        let mut layers = listener.layers.clone();
        layers.dedup();
        assert_eq!(layers, [[Standard].as_slice(), &changes].concat());
        let (level, phase) = worst(&listener.tone(hz, 2.0));
        println!("{hz} Hz: {level:.2} dB, {phase:.2}°");
        assert!(level > -1.0 && phase < 5.0, "{hz} Hz: {level:.2} dB, {phase:.2}°");
    }
}

#[test]
fn a_change_between_two_modes_of_opus_waits_for_a_quiet_moment_and_not_for_ever() {
    let mut tone = Tone::new(400.0);
    let (listener, other) = (Listener::new(&tone), Listener::new(&tone));
    // Losses let Opus take the SILK mode for all.
    other.packets.report_loss(20);
    tone.run(2.0);
    listener.switch.want(FullBand);
    tone.run(1.2);
    assert_eq!(listener.switch.taken(), Standard);
    tone.amplitude = 0.0;
    tone.run(0.1);
    assert_eq!(listener.switch.taken(), FullBand, "it is quiet");
    tone.amplitude = AMPLITUDE;
    tone.run(2.0);
    listener.switch.want(Standard);
    tone.run(1.9);
    assert_eq!(listener.switch.taken(), FullBand);
    tone.run(0.3);
    assert_eq!(listener.switch.taken(), Standard, "it has waited for long");
}

#[test]
fn full_band_carries_high_tones_and_a_tone_more_exactly() {
    let decoded = |layer: AudioLayer, hz: f64| {
        let mut tone = Tone::new(hz);
        let mut listener = Listener::new(&tone);
        listener.switch.take(layer);
        listener.switch.want(layer);
        tone.run(3.0);
        listener.listen();
        listener.heard.split_off(48_000)
    };
    for hz in [14_000.0, 16_000.0, 18_000.0] {
        let (level, _) = tone_of(&decoded(FullBand, hz), 0, hz);
        println!("{hz} Hz: {level:.2} dB");
        assert!(level.abs() < 1.0, "{hz} Hz: {level:.2} dB");
    }
    let noise = |layer| {
        let samples = decoded(layer, 1000.0);
        let (level, _) = tone_of(&samples, 0, 1000.0);
        let power = samples.iter().map(|x| f64::from(x * x)).sum::<f64>() / samples.len() as f64;
        let of_tone = (f64::from(AMPLITUDE) * 10_f64.powf(level / 20.0)).powi(2) / 2.0;
        10.0 * ((power - of_tone).max(1e-12) / of_tone).log10()
    };
    let (standard, full) = (noise(Standard), noise(FullBand));
    println!("THD+N of 1 kHz: {standard:.1} dB, full band {full:.1} dB");
    assert!(full < -47.0 && full < standard - 3.0, "{standard:.1} dB, full band {full:.1} dB");
}

#[test]
fn the_expected_loss_follows_the_worst_sensible_subscriber() {
    let expected = [vec![], vec![0, 1], vec![12, 3], vec![30], vec![100, 12], vec![30, 6, 1, 0]];
    assert_eq!(expected.map(expected_loss), [5, 5, 12, 25, 12, 6]);
    let out = Fanout::<EncodedAudio>::default();
    let subscriptions = [out.subscribe(1), out.subscribe(1)];
    subscriptions[0].report_loss(7);
    assert_eq!(expected_loss(out.losses(AudioLayer::Standard)), 7);
}

#[test]
fn silence_is_left_out_only_if_all_who_get_it_prefer_that() {
    let mut tone = Tone::new(400.0);
    let (mut first, second) = (Listener::new(&tone), Listener::new(&tone));
    let samples = |one: &mut Listener| {
        std::iter::from_fn(|| one.packets.try_recv()).map(|packet| packet.sample).collect()
    };
    first.switch.set_accepts_dtx(true);
    tone.run(1.0);
    tone.amplitude = 0.0;
    tone.run(3.0);
    let before: Vec<u64> = samples(&mut first);
    assert_eq!(before.len(), 200);
    second.switch.set_accepts_dtx(true);
    tone.run(3.0);
    let silent: Vec<u64> = samples(&mut first);
    assert!(silent.len() < 40, "{} of 150 packets", silent.len());
    let longest = silent.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest.is_some_and(|longest| longest <= 21 * PACKET_SAMPLES), "{longest:?} samples");
    tone.amplitude = AMPLITUDE;
    tone.run(0.5);
    let spoken: Vec<u64> = samples(&mut first);
    assert_eq!(spoken.len(), 25);
    assert_eq!(spoken[0], 7 * 48_000, "the time of what was not sent is counted");
}

#[test]
fn music_of_two_channels_keeps_them_and_who_takes_one_gets_the_mean() {
    let mut tone = Tone::new(1000.0);
    let other = |n: usize| (n as f32 * 0.5 * TAU / 48.0).sin() * AMPLITUDE;
    tone.side = Some(std::array::from_fn(other));
    let (mut one, two) = (Listener::new(&tone), Listener::new(&tone));
    one.switch.want(AudioLayer::Music);
    two.switch.want(AudioLayer::StereoMusic);
    tone.run(4.0);
    assert_eq!(tone.encoded(), [AudioLayer::Music, AudioLayer::StereoMusic]);
    one.listen();
    assert!(one.tone(1000.0, 3.5).iter().all(|(level, _)| level.abs() < 0.5));
    assert!(one.tone(500.0, 3.5).iter().all(|(level, _)| *level < -20.0), "it is the mean");
    let Listener { mut packets, .. } = two;
    let mut decoder = opus::Decoder::new(AUDIO_RATE, opus::Channels::Stereo).unwrap();
    let (mut left, mut right, mut bytes) = (vec![], vec![], 0);
    while let Some(packet) = packets.try_recv() {
        let mut part = [0.0; 2 * 1920];
        let length = decoder.decode_float(&packet.data, &mut part, false).unwrap();
        bytes += if packet.layer == AudioLayer::StereoMusic { packet.data.len() } else { 0 };
        left.extend(part[..2 * length].iter().step_by(2));
        right.extend(part[1..2 * length].iter().step_by(2));
    }
    assert!((44_000..52_000).contains(&bytes), "3 s of 128 kbit/s: {bytes}");
    let from = 4 * 48_000 - 24_000;
    for (hz, apart) in [(500.0, 180.0), (1000.0, 0.0)] {
        let [left, right] =
            [&left, &right].map(|channel| tone_of(&channel[from..from + 9600], from, hz));
        assert!(left.0.abs() < 0.5 && right.0.abs() < 0.5, "{hz} Hz: {left:?} {right:?}");
        let phase = (left.1 - right.1).abs().rem_euclid(360.0);
        assert!((phase - apart).abs() < 5.0, "{hz} Hz: {phase} degrees apart");
    }
}
