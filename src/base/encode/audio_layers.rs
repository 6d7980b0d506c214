//! The encoders of the layers of one microphone, and when a subscriber changes between them.

use super::{EncodeError, OpusEncoder};
use crate::{
    audio::PacketLevel,
    media::{AudioBlock, EncodedAudio, Fanout, LayerSwitch, is_celt_only},
    model::AudioLayer,
};

/// The layers of one microphone. Each is encoded once, while a subscriber gets it or is to get it, and
/// all are published to one fan-out.
///
/// A subscriber changes between two packets, when an encoder that would sound the same in its place
/// has settled. Then a receiver's decoder goes on without a break: the phase of a tone moves by less
/// than two degrees. When one packet was made by another of Opus's two modes than the next, the decoder
/// begins anew, which takes up to 9 dB from a tone for 20 ms; so that waits for a quiet moment.
pub(super) struct AudioLayers {
    out: Fanout<EncodedAudio>,
    layers: [Option<LayerEncoder>; AudioLayer::ALL.len()],
    packets: u64,
}

/// The encoder of one layer.
struct LayerEncoder {
    opus: OpusEncoder,
    level: PacketLevel,
    /// The length of a packet in samples.
    length: u64,
    /// Whether the newest packet has no SILK part.
    is_celt_only: bool,
    /// Whether nothing is heard in the newest packet.
    is_quiet: bool,
    /// The rounds since it was started, and since it was needed last.
    rounds: u32,
    unused_rounds: u32,
}

/// The length of a round in samples, the longest packet: packets of all layers end with it.
const ROUND_SAMPLES: u64 = AudioLayer::Low.packet_samples();

/// The length of the shortest packet in samples.
const PACKET_SAMPLES: u64 = AudioLayer::Standard.packet_samples();

/// The length of a block in samples.
const BLOCK_SAMPLES: u64 = crate::media::BLOCK_SAMPLES as u64;

/// The rounds after which an encoder has settled: 1 s. After 200 ms it still is in another mode than
/// one that has seen more.
const SETTLED: u32 = 25;

/// The rounds for which a change waits for a good moment: 2 s.
const MAX_WAITS: u8 = 50;

/// The rounds for which an encoder is kept that nobody needs: 2 s.
const LINGER: u32 = 50;

/// Rounds between two adaptations to the losses of the subscribers: 480 ms.
const ROUNDS_PER_ADAPTATION: u64 = 12;

/// Below this level, in dB relative to full scale, a change is not heard.
const QUIET_DBFS: f32 = -50.0;

/// The losses in percent that Opus is told: it has in-band FEC at the least of them, and has no more
/// at larger ones than at the most.
const EXPECTED_LOSSES: std::ops::RangeInclusive<u8> = 5..=25;

/// With larger losses, in percent, a peer hears nothing in any case, or reports what is not so.
const MAX_SENSIBLE_LOSS: u8 = 40;

/// From this number of subscribers on, the worst of them does not decide alone: it has copies of
/// packets of its own, and the quality of all others depends on it.
const MANY_SUBSCRIBERS: usize = 4;

/// The packet loss in percent to prepare for: that of the worst subscriber with sensible losses.
fn expected_loss(mut losses: Vec<u8>) -> u8 {
    let count = losses.len();
    losses.retain(|loss| *loss <= MAX_SENSIBLE_LOSS);
    losses.sort_unstable_by(|a, b| b.cmp(a));
    let decisive = losses.get(usize::from(count >= MANY_SUBSCRIBERS)).copied().unwrap_or(0);
    decisive.clamp(*EXPECTED_LOSSES.start(), *EXPECTED_LOSSES.end())
}

impl AudioLayers {
    /// Without encoders, which are started as they are needed.
    pub(super) fn new(out: Fanout<EncodedAudio>) -> Self {
        Self { out, layers: [const { None }; AudioLayer::ALL.len()], packets: 0 }
    }

    /// Encodes the block whose first sample has that number, and publishes the packets that are
    /// complete.
    ///
    /// # Errors
    /// If Opus cannot allocate memory.
    pub(super) fn encode(&mut self, block: &AudioBlock, sample: u64) -> Result<(), EncodeError> {
        if sample.is_multiple_of(PACKET_SAMPLES) {
            self.start_needed()?;
        }
        for layer in self.layers.iter_mut().flatten() {
            if let Some(packet) = layer.encode(block, sample) {
                self.out.publish(packet);
            }
        }
        if (sample + BLOCK_SAMPLES).is_multiple_of(ROUND_SAMPLES) {
            self.end_round();
        }
        Ok(())
    }

    /// Drops all encoders: after a panic, or a break.
    pub(super) fn restart(&mut self) {
        self.layers = [const { None }; AudioLayer::ALL.len()];
    }

    /// Begins the levels anew.
    pub(super) fn forget_levels(&mut self) {
        self.layers.iter_mut().flatten().for_each(|layer| layer.level = PacketLevel::default());
    }

    /// Starts the encoders that subscribers need, and notes which are needed.
    fn start_needed(&mut self) -> Result<(), EncodeError> {
        for switch in self.out.layer_switches() {
            for needed in [switch.taken(), switch.wanted()] {
                let layer = &mut self.layers[needed as usize];
                match layer {
                    Some(layer) => layer.unused_rounds = 0,
                    None => *layer = Some(LayerEncoder::new(needed)?),
                }
            }
        }
        Ok(())
    }

    fn end_round(&mut self) {
        self.packets += 1;
        let adapts = self.packets.is_multiple_of(ROUNDS_PER_ADAPTATION);
        for (layer, encoder) in AudioLayer::ALL.into_iter().zip(&mut self.layers) {
            let Some(one) = encoder else { continue };
            one.rounds = one.rounds.saturating_add(1);
            one.unused_rounds += 1;
            if one.unused_rounds > LINGER {
                *encoder = None;
            } else if adapts {
                one.opus.set_expected_loss(expected_loss(self.out.losses(layer)));
            }
        }
        self.switch();
        self.set_dtx();
    }

    /// Leaves out silence where all who get a layer prefer that.
    fn set_dtx(&mut self) {
        let switches = self.out.layer_switches();
        for (layer, encoder) in AudioLayer::ALL.into_iter().zip(&mut self.layers) {
            if let Some(encoder) = encoder {
                let mut takers = switches.iter().filter(|switch| switch.taken() == layer);
                encoder.opus.set_dtx(takers.all(LayerSwitch::accepts_dtx));
            }
        }
    }

    /// Lets subscribers change to the layers that they want.
    fn switch(&mut self) {
        for switch in self.out.layer_switches() {
            let (taken, wanted) = (switch.taken(), switch.wanted());
            let to = self.layers[wanted as usize].as_ref();
            let Some(to) = to.filter(|to| taken != wanted && to.rounds >= SETTLED) else {
                continue;
            };
            let from = self.layers[taken as usize].as_ref();
            if from.is_none_or(|from| to.continues(from)) || switch.wait() >= MAX_WAITS {
                switch.take(wanted);
                if let Some(to) = &mut self.layers[wanted as usize] {
                    to.opus.repeat_silence();
                }
            }
        }
    }
}

impl LayerEncoder {
    fn new(layer: AudioLayer) -> Result<Self, EncodeError> {
        Ok(Self {
            opus: OpusEncoder::of_layer(layer)?,
            level: PacketLevel::default(),
            length: layer.packet_samples(),
            is_celt_only: false,
            is_quiet: true,
            rounds: 0,
            unused_rounds: 0,
        })
    }

    fn encode(&mut self, block: &AudioBlock, sample: u64) -> Option<EncodedAudio> {
        self.level.push(&block.samples);
        let packet = self.opus.encode_at(block, sample);
        if !(sample + BLOCK_SAMPLES).is_multiple_of(self.length) {
            return None;
        }
        // Also of what is not sent.
        let level = self.level.take();
        self.is_quiet = level.dbfs() < QUIET_DBFS;
        let mut packet = packet?;
        self.is_celt_only = is_celt_only(&packet.data);
        packet.level = Some(level);
        Some(packet)
    }

    /// Whether its packets may follow those of another encoder, unheard.
    const fn continues(&self, other: &Self) -> bool {
        self.is_celt_only == other.is_celt_only || (self.is_quiet && other.is_quiet)
    }
}

#[cfg(test)]
mod tests;
