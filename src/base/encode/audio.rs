//! The path of captured audio to all subscribers: level, numbers, Opus, fan-out.

use super::{EncodeError, audio_layers::AudioLayers, block_numbering::BlockNumbering};
use crate::{
    audio::LevelWindow,
    media::{AudioBlock, EncodedAudio, Fanout, Meter, SILENCE_DBFS, now},
    model::MediaTime,
    supervision::{RESTART_DELAY, catch},
};

/// Encodes the blocks of one microphone for all subscribers, and shows their level.
///
/// It has no thread of its own: [`Self::encode`] runs on the thread of the audio source. It serves
/// one microphone after another, so that the RTP timestamps of its packets continue.
pub struct AudioEncoder {
    level: LevelWindow,
    meter: Meter,
    numbering: BlockNumbering,
    layers: AudioLayers,
    notify: Notify,
    /// When the encoders start again after a panic.
    restart_at: Option<MediaTime>,
}

/// Called when blocks cannot be encoded, and when they can be again.
type Notify = Box<dyn Fn(Result<(), &EncodeError>) + Send>;

impl AudioEncoder {
    /// Creates an encoder that shows the level in `meter` and publishes its packets to `out`.
    ///
    /// `notify` is called on the thread of the audio source with the error after a panic, or if Opus
    /// cannot allocate memory, and with `Ok` when it encodes again; it must not block.
    pub fn new(meter: Meter, out: Fanout<EncodedAudio>, notify: Notify) -> Self {
        Self {
            level: LevelWindow::default(),
            meter,
            numbering: BlockNumbering::default(),
            layers: AudioLayers::new(out),
            notify,
            restart_at: None,
        }
    }

    /// Takes a block of 10 ms. Updates the level, and publishes the packets of all layers that are
    /// complete. Takes less than a millisecond for each layer, and never waits.
    ///
    /// After a panic nothing is encoded for two seconds.
    pub fn encode(&mut self, block: &AudioBlock) {
        self.meter.set(self.level.push(&block.samples));
        if self.restart_at.is_some_and(|at| now() < at) {
            return;
        }
        let is_restart = self.restart_at.take().is_some();
        let encoded = catch("audio encoder", || {
            let sample = self.numbering.number(block.time);
            self.layers.encode(block, sample)
        });
        match encoded.map_err(EncodeError::from).and_then(|encoded| encoded) {
            Ok(()) if is_restart => (self.notify)(Ok(())),
            Ok(()) => {}
            Err(error) => {
                self.layers.restart();
                self.restart_at = Some(now() + RESTART_DELAY);
                if !is_restart {
                    (self.notify)(Err(&error));
                }
            }
        }
    }

    /// Shows silence from now on, because the microphone is closed. The next block may come from
    /// another one: its packet has the number that belongs to its capture time.
    pub fn stop(&mut self) {
        self.level = LevelWindow::default();
        self.layers.forget_levels();
        self.meter.set(SILENCE_DBFS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        media::{AUDIO_RATE, BLOCK_SAMPLES, Subscription},
        model::MediaTime,
    };

    /// A block of a square wave, number `number` of 10 ms since the start of the clock.
    fn block(number: u64, amplitude: f32) -> AudioBlock {
        let sign = |n: usize| if (n / 50).is_multiple_of(2) { amplitude } else { -amplitude };
        let time = MediaTime::from_micros(number * 10_000);
        AudioBlock::mono(time, std::array::from_fn(sign))
    }

    fn encoder() -> (AudioEncoder, Meter, Subscription<EncodedAudio>) {
        let (meter, out) = (Meter::default(), Fanout::default());
        let packets = out.subscribe(100);
        (AudioEncoder::new(meter.clone(), out, Box::new(|_| ())), meter, packets)
    }

    /// The capture times in milliseconds and the sample numbers of the packets so far.
    fn numbers(packets: &mut Subscription<EncodedAudio>) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| packets.try_recv())
            .map(|packet| (packet.time.as_micros() / 1000, packet.sample))
            .collect()
    }

    #[test]
    fn each_block_updates_the_level_and_every_second_one_gives_a_packet() {
        let (mut encoder, meter, mut packets) = encoder();
        assert_eq!(meter.dbfs(), SILENCE_DBFS);
        encoder.encode(&block(0, 0.1));
        assert!((meter.dbfs() - -30.0).abs() < 0.1, "a tenth of the window: {}", meter.dbfs());
        assert_eq!(numbers(&mut packets), []);
        for number in 1..10 {
            encoder.encode(&block(number, 0.1));
        }
        assert!((meter.dbfs() - -20.0).abs() < 0.1, "{}", meter.dbfs());
        let expected = [(0, 0), (20, 960), (40, 1920), (60, 2880), (80, 3840)];
        assert_eq!(numbers(&mut packets), expected);
    }

    #[test]
    fn each_packet_tells_the_level_of_what_is_in_it() {
        let (mut encoder, _, mut packets) = encoder();
        for (number, amplitude) in [0.1, 0.1, 0.01, 0.01].into_iter().enumerate() {
            encoder.encode(&block(number as u64, amplitude));
        }
        let levels = std::iter::from_fn(|| packets.try_recv());
        let levels: Vec<_> = levels.map(|packet| packet.level.map(|level| level.dbfs())).collect();
        assert_eq!(levels, [Some(-20.0), Some(-40.0)]);
    }

    #[test]
    fn every_subscriber_gets_the_packet_that_was_encoded_once() {
        let out = Fanout::default();
        let (mut first, mut second) = (out.subscribe(100), out.subscribe(100));
        let mut encoder = AudioEncoder::new(Meter::default(), out, Box::new(|_| ()));
        encoder.encode(&block(0, 0.1));
        encoder.encode(&block(1, 0.1));
        let (first, second) = (first.try_recv().unwrap(), second.try_recv().unwrap());
        assert!(std::sync::Arc::ptr_eq(&first, &second));
        let mut decoder = opus::Decoder::new(AUDIO_RATE, opus::Channels::Mono).unwrap();
        let mut samples = [0.0; 2 * BLOCK_SAMPLES];
        assert_eq!(decoder.decode_float(&first.data, &mut samples, false).unwrap(), samples.len());
    }

    #[test]
    fn after_a_panic_the_encoder_is_reported_and_starts_again_with_the_next_numbers() {
        let (report, reports) = std::sync::mpsc::channel();
        let notify = Box::new(move |health: Result<(), &EncodeError>| {
            report.send(health.map_err(ToString::to_string)).unwrap();
        });
        let out = Fanout::default();
        let mut packets = out.subscribe(100);
        let mut encoder = AudioEncoder::new(Meter::default(), out, notify);
        encoder.encode(&block(0, 0.1));
        encoder.encode(&block(1, 0.1));
        // The end of this block is after the end of time.
        let last = AudioBlock { time: MediaTime::from_micros(u64::MAX), ..block(2, 0.1) };
        encoder.encode(&last);
        let error = reports.recv().unwrap().unwrap_err();
        assert_eq!(error, "the audio encoder stopped unexpectedly; it is started again");
        while reports.try_recv().is_err() {
            encoder.encode(&block(100, 0.1));
        }
        encoder.encode(&block(101, 0.1));
        assert_eq!(numbers(&mut packets), [(0, 0), (1000, 48_000)]);
    }

    #[test]
    fn a_closed_microphone_is_silent_and_the_next_one_continues_the_clock() {
        let (mut encoder, meter, mut packets) = encoder();
        for number in 0..3 {
            encoder.encode(&block(number, 0.1));
        }
        encoder.stop();
        assert_eq!(meter.dbfs(), SILENCE_DBFS);
        assert_eq!(numbers(&mut packets), [(0, 0)]);
        // One second later. The half packet before the pause is not sent.
        encoder.encode(&block(103, 0.01));
        assert!((meter.dbfs() - -50.0).abs() < 0.1, "no block of before: {}", meter.dbfs());
        encoder.encode(&block(104, 0.01));
        let numbers = numbers(&mut packets);
        assert_eq!(numbers.len(), 1, "{numbers:?}");
        let (ms, sample) = numbers[0];
        assert_eq!(ms, 1030);
        assert!(sample % 960 == 0 && sample.abs_diff(1030 * 48) <= 480, "{sample}");
    }
}
