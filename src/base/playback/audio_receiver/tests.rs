use bytes::Bytes;

use super::*;
use crate::{
    audio::{History, level_dbfs, tone_hz},
    media::{EncodedAudio, has_fec},
    model::AudioStats,
    playback::testing::{ToneEncoder, at, packet},
};

/// A receiver, and the audio that it has played.
struct TestPlayout {
    decoder: AudioReceiver,
    played: Vec<f32>,
    blocks: u64,
}

impl TestPlayout {
    fn new() -> Self {
        Self { decoder: AudioReceiver::new().unwrap(), played: vec![], blocks: 0 }
    }

    /// Plays this many blocks. `arrivals` are the packets in order of arrival.
    fn play(&mut self, blocks: u64, arrivals: &mut Arrivals) {
        for _ in 0..blocks {
            let now = at(1000 + self.blocks * 10);
            self.blocks += 1;
            while let Some(packet) = arrivals.next_if(|packet| packet.arrival <= now) {
                self.decoder.push(&packet);
            }
            let block = self.decoder.pull(now);
            self.played.extend(block.map_or([0.0; BLOCK_SAMPLES], |block| block.mid));
        }
    }

    /// The statistics, with the level and the tone of the last second.
    fn stats(&self) -> AudioStats {
        let mut history = History::new();
        for block in self.played.as_chunks::<BLOCK_SAMPLES>().0 {
            history.push(block);
        }
        let samples = history.samples();
        let (level_dbfs, tone_hz) = (level_dbfs(&samples), tone_hz(&samples));
        AudioStats { level_dbfs, tone_hz, ..self.decoder.stats(level_dbfs).stats() }
    }
}

type Arrivals = std::iter::Peekable<std::vec::IntoIter<RtpPacket>>;

/// The packets of a tone. Each arrives `late` milliseconds after it was sent; `None` if it is
/// lost.
fn tone_packets(
    mut encoder: ToneEncoder,
    count: u64,
    late: impl Fn(u64) -> Option<u64>,
) -> Arrivals {
    let mut packets: Vec<_> = (0..count)
        .filter_map(|n| {
            let payload = encoder.next_packet();
            let arrival = at(1000 + n * 20 + late(n)?);
            Some(packet(n as u16, (n * 960) as u32, false, payload, arrival))
        })
        .collect();
    packets.sort_by_key(|packet| packet.arrival);
    packets.into_iter().peekable()
}

/// The level of the quietest 5 ms relative to the level of the whole, in dB.
fn deepest_gap(samples: &[f32]) -> f64 {
    let quietest = samples.chunks_exact(240).map(level_dbfs).fold(f64::MAX, f64::min);
    quietest - level_dbfs(samples)
}

/// The largest step from one sample to the next.
fn max_step(samples: &[f32]) -> f32 {
    samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max)
}

#[test]
fn only_packets_with_fec_data_are_used_for_fec() {
    let count =
        |mut encoder: ToneEncoder| (0..50).filter(|_| has_fec(&encoder.next_packet())).count();
    assert!(count(ToneEncoder::with_fec(440.0, 0.5)) > 40);
    assert_eq!(count(ToneEncoder::speech(440.0, 0.5)), 0, "a mode that supports FEC");
    assert_eq!(count(ToneEncoder::without_fec(440.0, 0.5)), 0, "a mode without FEC");
    assert!(!has_fec(&[]) && !has_fec(&[0x48]));
}

#[test]
fn a_tone_without_losses_is_played_unchanged() {
    let mut playout = TestPlayout::new();
    playout.play(300, &mut tone_packets(ToneEncoder::without_fec(440.0, 0.5), 200, |_| Some(0)));
    let stats = playout.stats();
    assert_eq!((stats.packets, stats.lost, stats.concealed_ms), (150, 0, 0));
    assert!((stats.level_dbfs - -9.03).abs() < 0.5, "{stats:?}");
    assert!((stats.tone_hz.unwrap() - 440.0).abs() < 1.0, "{stats:?}");
    let start = playout.played.iter().position(|sample| *sample != 0.0).unwrap();
    assert!(start <= 960 + 480, "audible after {start} samples");
    assert!(deepest_gap(&playout.played[4800..]) > -3.0);
}

#[test]
fn fec_recovers_a_single_loss_from_the_next_packet() {
    let lost = |n| (n % 10 != 7).then_some(0);
    let mut playout = TestPlayout::new();
    playout.play(300, &mut tone_packets(ToneEncoder::with_fec(440.0, 0.5), 200, lost));
    let stats = playout.stats();
    assert_eq!((stats.lost, stats.concealed_ms), (15, 0), "nothing was concealed");
    assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
    let gap = deepest_gap(&playout.played[9600..]);
    assert!(gap > -6.0, "a gap of {gap} dB");
}

#[test]
fn a_loss_without_fec_is_concealed_and_counted() {
    let lost = |n| (n % 20 != 7).then_some(0);
    let mut playout = TestPlayout::new();
    playout.play(300, &mut tone_packets(ToneEncoder::without_fec(440.0, 0.5), 200, lost));
    let stats = playout.stats();
    assert_eq!((stats.lost, stats.concealed_ms), (8, 160));
    assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
    let gap = deepest_gap(&playout.played[9600..]);
    assert!(gap > -12.0, "a gap of {gap} dB");
}

#[test]
fn a_stream_that_stops_fades_out_and_fades_in_when_it_continues() {
    let mut playout = TestPlayout::new();
    let lost = |n| (!(50..100).contains(&n)).then_some(0);
    playout.play(300, &mut tone_packets(ToneEncoder::without_fec(440.0, 0.5), 200, lost));
    let level =
        |ms: std::ops::Range<usize>| level_dbfs(&playout.played[ms.start * 48..ms.end * 48]);
    assert!(level(900..1000) > -10.0);
    assert!(level(1160..2000) <= -119.0, "silent: {}", level(1160..2000));
    assert!(level(2050..3000) > -10.0, "back: {}", level(2050..3000));
    let step = max_step(&playout.played);
    assert!(step < 0.1, "a click of {step}");
    assert_eq!(playout.stats().lost, 50);
    let concealed = playout.stats().concealed_ms;
    assert!((980..=1020).contains(&concealed), "{concealed}");
}

#[test]
fn a_pause_of_the_sender_does_not_count_as_concealment() {
    let mut playout = TestPlayout::new();
    let mut encoder = ToneEncoder::without_fec(440.0, 0.5);
    let packets: Vec<_> = (0..100_u64)
        .map(|n| {
            // Sequence numbers continue after two seconds, as after a mute.
            let time = if n < 50 { n } else { n + 100 };
            let stamp = (time * 960) as u32;
            packet(n as u16, stamp, false, encoder.next_packet(), at(1000 + time * 20))
        })
        .collect();
    playout.play(390, &mut packets.into_iter().peekable());
    let stats = playout.stats();
    assert_eq!(stats.lost, 0);
    assert!(stats.concealed_ms <= 130, "{stats:?}");
    assert!(stats.level_dbfs > -14.0, "{stats:?}");
}

/// Plays a second of a tone that ends, and returns how long it is heard after its end, in ms, and
/// the milliseconds that were concealed.
fn heard_after_the_end(silent_packets: u64, is_muted: bool) -> (u64, u64) {
    let mut encoder = ToneEncoder::with_fec(440.0, 0.5);
    let mut packets: Vec<_> = (0..50_u64)
        .map(|n| {
            let (payload, arrival) = (encoder.next_packet(), at(1000 + n * 20));
            packet(n as u16, (n * 960) as u32, false, payload, arrival)
        })
        .collect();
    let mut last = EncodedAudio::new(at(0), 49 * 960, Bytes::new());
    for n in 50..50 + silent_packets {
        last = last.silence_after();
        let (stamp, payload) = (last.sample as u32, last.data.to_vec());
        packets.push(packet(n as u16, stamp, false, payload, at(1000 + n * 20)));
    }
    let mut playout = TestPlayout::new();
    let mut arrivals = packets.into_iter().peekable();
    playout.play(100, &mut arrivals);
    playout.decoder.set_muted(is_muted);
    playout.play(40, &mut arrivals);
    let last = playout.played.chunks(48).rposition(|ms| level_dbfs(ms) > -60.0);
    // The last packet with a tone covers the 20 ms before second 1.0, and arrives at 0.98.
    let end = 980 + 20;
    let steps = max_step(&playout.played[4800..]);
    assert!(steps < 0.1, "{silent_packets} {is_muted}: a click of {steps}");
    (last.unwrap() as u64 - end, playout.stats().concealed_ms)
}

#[test]
fn a_mute_is_heard_at_once_and_is_no_loss() {
    for (silent_packets, is_muted) in [(3, false), (3, true), (1, false), (0, true)] {
        let (heard, concealed) = heard_after_the_end(silent_packets, is_muted);
        let what = format!("{silent_packets} packets, {is_muted}: {heard} ms");
        assert!(heard <= 45 && concealed == 0, "{what}, {concealed} ms concealed");
    }
    let (heard, concealed) = heard_after_the_end(0, false);
    assert!(heard > 60 && concealed >= 100, "a loss is concealed: {heard} {concealed}");
}

#[test]
fn jitter_is_compensated_after_a_short_time() {
    let mut playout = TestPlayout::new();
    let late = |n: u64| Some(n * 7919 % 83);
    let mut arrivals = tone_packets(ToneEncoder::without_fec(440.0, 0.5), 1500, late);
    playout.play(1000, &mut arrivals);
    let before = playout.stats().concealed_ms;
    playout.play(2010, &mut arrivals);
    let stats = playout.stats();
    assert_eq!(stats.lost, 0);
    assert!(stats.concealed_ms - before <= 200, "1 % of 20 s: {} ms", stats.concealed_ms - before);
    assert!(playout.delay() <= 130, "{} ms", playout.delay());
    assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
}

#[test]
fn the_drift_of_the_senders_clock_is_corrected_without_a_gap() {
    for ppm in [-300_i64, 300] {
        let mut encoder = ToneEncoder::without_fec(440.0, 0.5);
        let packets: Vec<_> = (0..10_000_u64)
            .map(|n| {
                let micros = (1_000_000 + n * 20_000).saturating_add_signed(n as i64 * ppm / 50);
                let arrival = MediaTime::from_micros(micros);
                packet(n as u16, (n * 960) as u32, false, encoder.next_packet(), arrival)
            })
            .collect();
        let mut playout = TestPlayout::new();
        playout.play(19_900, &mut packets.into_iter().peekable());
        let stats = playout.stats();
        // 200 seconds at 300 ppm are 60 ms: three times the target delay.
        assert!(playout.delay() <= 50, "{ppm}: {} ms", playout.delay());
        assert!(stats.concealed_ms == 0, "{ppm}: {stats:?}");
        let gap = deepest_gap(&playout.played[48_000..]);
        assert!(gap > -3.0, "{ppm}: a gap of {gap} dB");
        let step = max_step(&playout.played[48_000..]);
        assert!(step < 0.04, "{ppm}: a click of {step}; the tone's own steps are 0.029");
    }
}

impl TestPlayout {
    /// The delay of the next sample in milliseconds, relative to the fastest packet.
    fn delay(&self) -> i64 {
        let now = at(1000 + self.blocks * 10);
        let excess = self.decoder.jitter.excess_delay(now, self.decoder.pending.len()).unwrap();
        excess / 1000 + self.decoder.jitter.target_delay().as_millis() as i64
    }
}

#[test]
fn after_a_bad_time_the_delay_is_back_within_seconds() {
    // For two seconds, packets are up to 300 ms late.
    let late = |n: u64| Some(if (200..300).contains(&n) { n * 7919 % 301 } else { 0 });
    let mut arrivals = tone_packets(ToneEncoder::without_fec(440.0, 0.5), 1000, late);
    let mut playout = TestPlayout::new();
    playout.play(400, &mut arrivals);
    let before = playout.delay();
    playout.play(220, &mut arrivals);
    assert!(playout.delay() >= 150, "{} ms", playout.delay());
    playout.play(500, &mut arrivals);
    assert!(playout.delay() <= before + 20, "{before} ms before, {} now", playout.delay());
}

#[test]
fn audio_after_malformed_packets_is_played() {
    let mut seed = 7_u32;
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 8
    };
    let mut playout = TestPlayout::new();
    let mut malformed: Vec<_> = (0..2000_u64)
        .map(|n| {
            let payload: Vec<_> = (0..next() % 300).map(|_| next() as u8).collect();
            packet(n as u16, next() % 100_000, next() % 2 == 0, payload, at(1000 + n * 3))
        })
        .collect();
    malformed.sort_by_key(|packet| packet.arrival);
    playout.play(700, &mut malformed.into_iter().peekable());
    assert!(playout.decoder.pending.len() < 4 * MAX_PACKET_SAMPLES);
    let mut encoder = ToneEncoder::without_fec(440.0, 0.5);
    let packets: Vec<_> = (0..200_u64)
        .map(|n| {
            let stamp = 4_000_000_000_u64 + n * 960;
            packet(2000 + n as u16, stamp as u32, false, encoder.next_packet(), at(8000 + n * 20))
        })
        .collect();
    playout.play(400, &mut packets.into_iter().peekable());
    let stats = playout.stats();
    assert!((stats.tone_hz.unwrap() - 440.0).abs() < 2.0, "{stats:?}");
    assert!((stats.level_dbfs - -9.03).abs() < 1.0, "{stats:?}");
}

/// The packets of a tone that arrive when their last sample is captured: of 20 ms, after a second of
/// 40 ms, and after the third second of 20 ms again.
fn packets_of_two_lengths(mut encoder: ToneEncoder) -> Arrivals {
    let (mut packets, mut sample, mut number) = (vec![], 0, 0);
    while sample < 4 * 48_000 {
        let length = if (48_000..3 * 48_000).contains(&sample) { 1920 } else { 960 };
        encoder.length = length;
        let arrival = at(1000 + (sample + length) / 48);
        let payload = encoder.next_packet();
        packets.push(packet(number as u16, sample as u32, false, payload, arrival));
        (sample, number) = (sample + length, number + 1);
    }
    packets.into_iter().peekable()
}

#[test]
fn packets_of_another_length_are_played_without_a_gap() {
    let mut playout = TestPlayout::new();
    let mut arrivals = packets_of_two_lengths(ToneEncoder::without_fec(400.0, 0.5));
    playout.play(390, &mut arrivals);
    let stats = playout.stats();
    // The first packet of 40 ms has to be waited for.
    assert!(stats.concealed_ms <= 20 && stats.lost == 0, "{stats:?}");
    let levels = playout.played[4800..].chunks(480).map(level_dbfs);
    let quietest = levels.fold(f64::MAX, f64::min);
    assert!(quietest > -10.5, "{quietest} of -9 dBFS");
}

/// A sender without packets for silence: half a second of a tone, three seconds of a faint noise and half
/// a second of the tone. After 200 ms of noise it sends a packet each 400 ms, and an empty one behind.
fn packets_without_silence() -> Vec<RtpPacket> {
    let mut encoder = ToneEncoder::speech(300.0, 0.3);
    encoder.make_noise(25..175);
    let mut packets = vec![];
    for n in 0..200_u64 {
        let payload = encoder.next_packet();
        let payload = match n {
            35..175 if n % 20 == 15 => payload,
            35..175 if n % 20 == 16 => vec![payload[0] & !3],
            35..175 => continue,
            _ => payload,
        };
        let (number, arrival) = (packets.len() as u16, at(1000 + n * 20));
        packets.push(packet(number, (n * 960) as u32, false, payload, arrival));
    }
    packets
}

#[test]
fn silence_that_is_not_sent_is_no_loss_and_takes_its_time() {
    let packets = packets_without_silence();
    let mut playout = TestPlayout::new();
    playout.play(395, &mut packets.into_iter().peekable());
    let stats = playout.stats();
    assert_eq!((stats.lost, stats.concealed_ms), (0, 0), "{stats:?}");
    let levels: Vec<_> = playout.played.chunks(480).map(level_dbfs).collect();
    // Opus learns the level of the noise from the packets that come.
    let noise = &levels[150..340];
    assert!(noise.iter().all(|level| (-90.0..-50.0).contains(level)), "{noise:?}");
    // The tone begins again at 3.5 s, and is heard 20 ms later and Opus's delay.
    let begin = levels.iter().skip(200).position(|level| *level > -25.0).unwrap() + 200;
    assert!((352..=355).contains(&begin), "{begin}");
    assert!(playout.delay() <= 40, "{} ms", playout.delay());
}

#[test]
fn a_sender_that_ends_in_a_silence_is_not_played_for_ever() {
    let mut packets = packets_without_silence();
    packets.retain(|packet| packet.arrival < at(3000));
    let mut playout = TestPlayout::new();
    playout.play(340, &mut packets.into_iter().peekable());
    assert!(!playout.decoder.is_playing());
}

/// The amplitude of a tone in one of the channels.
fn amplitude(samples: &[f32], hz: f32) -> f32 {
    let parts = samples.iter().enumerate().map(|(n, sample)| {
        let (sin, cos) = (n as f32 * hz / 48_000.0 * std::f32::consts::TAU).sin_cos();
        (sample * sin, sample * cos)
    });
    let sum = parts.fold((0.0, 0.0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
    f32::hypot(sum.0, sum.1) * 2.0 / samples.len() as f32
}

/// Packets of 20 ms of 440 Hz at the left and 660 Hz at the right, or of the mean of both.
fn packets_of_two_tones(channels: opus::Channels, count: usize) -> Vec<Vec<u8>> {
    let tone = |n: usize, hz: f32| (n as f32 * hz / 48_000.0 * std::f32::consts::TAU).sin() / 4.0;
    let mut encoder = opus::Encoder::new(48_000, channels, opus::Application::LowDelay).unwrap();
    encoder.set_bitrate(opus::Bitrate::Bits(128_000)).unwrap();
    let frame = |n: usize| match channels {
        opus::Channels::Mono => vec![f32::midpoint(tone(n, 440.0), tone(n, 660.0))],
        opus::Channels::Stereo => vec![tone(n, 440.0), tone(n, 660.0)],
    };
    let packet = |number: usize| (number * 960..(number + 1) * 960).flat_map(frame).collect();
    let packets: Vec<Vec<f32>> = (0..count).map(packet).collect();
    packets.iter().map(|samples| encoder.encode_vec_float(samples, 1275).unwrap()).collect()
}

#[test]
fn two_channels_are_played_from_the_first_packet_that_has_them_on() {
    let mono = packets_of_two_tones(opus::Channels::Mono, 100);
    let stereo = packets_of_two_tones(opus::Channels::Stereo, 200);
    let mut receiver = AudioReceiver::new().unwrap();
    let mut blocks = vec![];
    for n in 0..400_u64 {
        let now = at(1000 + n * 10);
        if n % 2 == 0 {
            let number = n as usize / 2;
            let payload = mono.get(number).unwrap_or(&stereo[number]).clone();
            receiver.push(&packet(number as u16, (number * 960) as u32, false, payload, now));
        }
        blocks.extend(receiver.pull(now));
    }
    assert!(blocks[..190].iter().all(|block| block.side.is_none()), "one channel costs less");
    let channel = |sign: f32| {
        let frames = blocks[220..380].iter().flat_map(|block| {
            block.mid.into_iter().zip(block.side.unwrap_or([0.0; BLOCK_SAMPLES]))
        });
        frames.map(|(mid, side)| mid + sign * side).collect::<Vec<_>>()
    };
    for (sign, own, other) in [(1.0, 440.0, 660.0), (-1.0, 660.0, 440.0)] {
        let (own, other) = (amplitude(&channel(sign), own), amplitude(&channel(sign), other));
        assert!((own - 0.25).abs() < 0.01 && other < 0.01, "{own} {other}");
    }
    let quietest =
        |part: &[StereoBlock]| part.iter().map(|block| level_dbfs(&block.mid)).fold(0.0, f64::min);
    let first = blocks.iter().position(|block| block.side.is_some()).unwrap();
    let dip = |from: usize| quietest(&blocks[from..from + 100]) - quietest(&blocks[100..180]);
    // The other encoder refers to what it has encoded before, for two packets.
    let dips = (dip(first - 1), dip(first + 5));
    assert!(dips.0 > -7.0 && dips.1 > -2.5, "the mean of both goes on: {dips:?} dB");
}

#[test]
fn a_lost_packet_of_two_channels_is_made_up_in_both() {
    let stereo = packets_of_two_tones(opus::Channels::Stereo, 100);
    let mut receiver = AudioReceiver::new().unwrap();
    let mut blocks = vec![];
    for n in 0..200_u64 {
        let now = at(1000 + n * 10);
        let number = n as usize / 2;
        if n % 2 == 0 && number != 60 {
            let payload = stereo[number].clone();
            receiver.push(&packet(number as u16, (number * 960) as u32, false, payload, now));
        }
        blocks.extend(receiver.pull(now));
    }
    assert!(receiver.counts().2 > 0);
    let sides = blocks[100..].iter().map(|block| level_dbfs(&block.side.unwrap()));
    let quietest = sides.fold(0.0, f64::min);
    assert!(quietest > -26.0, "{quietest} dBFS");
}
