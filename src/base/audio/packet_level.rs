//! The level of each packet of a microphone.

use super::{SpeechDetector, level_dbfs};
use crate::media::{AudioLevel, BLOCK_SAMPLES};

/// Measures the audio between two packets, in blocks of 10 ms.
#[derive(Clone, Debug, Default)]
pub struct PacketLevel {
    speech: SpeechDetector,
    /// The sum of the mean squares of the blocks since the last packet.
    energy: f64,
    blocks: u32,
    is_speaking: bool,
}

impl PacketLevel {
    /// Adds a block.
    pub fn push(&mut self, block: &[f32; BLOCK_SAMPLES]) {
        self.energy += 10_f64.powf(level_dbfs(block) / 10.0);
        self.blocks += 1;
        self.is_speaking = self.speech.push(block);
    }

    /// The level of the blocks since the last call: of those in the packet that is sent now.
    pub fn take(&mut self) -> AudioLevel {
        let mean = self.energy / f64::from(self.blocks.max(1));
        (self.energy, self.blocks) = (0.0, 0);
        AudioLevel::new(10.0 * mean.log10(), self.is_speaking)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_has_the_level_of_its_own_blocks_and_says_when_somebody_speaks() {
        let mut level = PacketLevel::default();
        let mut packet = |dbfs: f64| {
            let block = [10_f64.powf(dbfs / 20.0) as f32; BLOCK_SAMPLES];
            level.push(&block);
            level.push(&block);
            level.take()
        };
        assert_eq!(packet(-60.0).dbfs(), -60.0);
        assert_eq!(packet(-20.0).dbfs(), -20.0, "nothing of the packet before");
        assert!(!packet(-20.0).has_voice(), "a noise may be as short");
        assert!((0..20).any(|_| packet(-20.0).has_voice()));
        assert!(!(0..40).map(|_| packet(-60.0)).last().unwrap().has_voice());
        assert_eq!(PacketLevel::default().take(), AudioLevel::SILENCE);
    }
}
