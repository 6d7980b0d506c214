//! Detects speech by its level.

use super::level_dbfs;
use crate::media::BLOCK_SAMPLES;

/// Tells whether somebody speaks, from blocks of 10 ms.
///
/// Speech is what is well above the noise for a quarter of a second within two thirds of one: a key
/// that is pressed or a door that closes is shorter, and a fan raises the noise.
#[derive(Clone, Debug, Default)]
pub struct SpeechDetector {
    /// The level of the noise in dB relative to full scale; `None` before the first block.
    noise_dbfs: Option<f64>,
    /// Which of the last 64 blocks were loud, the newest in the lowest bit.
    loud_blocks: u64,
    is_speaking: bool,
}

/// How far above the noise speech is, in dB.
const ABOVE_NOISE_DB: f64 = 12.0;

/// Below this level nothing is speech, in dB relative to full scale.
const LOWEST_DBFS: f64 = -50.0;

/// By how much the noise rises with each block, in dB: 3 dB a second. It falls at once.
const NOISE_RISE_DB: f64 = 0.03;

/// Loud blocks of the last 64 with which speech begins.
const BEGIN_BLOCKS: u32 = 25;

/// Loud blocks of the last 64 with which it has ended.
const END_BLOCKS: u32 = 6;

impl SpeechDetector {
    /// Takes a block. Returns whether somebody speaks.
    pub fn push(&mut self, block: &[f32; BLOCK_SAMPLES]) -> bool {
        let level = level_dbfs(block);
        let noise = self.noise_dbfs.map_or(level, |noise| level.min(noise + NOISE_RISE_DB));
        self.noise_dbfs = Some(noise);
        let is_loud = level > (noise + ABOVE_NOISE_DB).max(LOWEST_DBFS);
        self.loud_blocks = self.loud_blocks << 1 | u64::from(is_loud);
        let enough = if self.is_speaking { END_BLOCKS } else { BEGIN_BLOCKS };
        self.is_speaking = self.loud_blocks.count_ones() >= enough;
        self.is_speaking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A square wave with this level.
    fn block(dbfs: f64) -> [f32; BLOCK_SAMPLES] {
        [10_f64.powf(dbfs / 20.0) as f32; BLOCK_SAMPLES]
    }

    /// How often speech began in blocks with these levels.
    fn beginnings(levels: impl Iterator<Item = f64>) -> usize {
        let mut detector = SpeechDetector::default();
        let speaks: Vec<_> = levels.map(|level| detector.push(&block(level))).collect();
        speaks.windows(2).filter(|pair| !pair[0] && pair[1]).count()
    }

    #[test]
    fn speech_begins_after_a_quarter_of_a_second_and_ends_in_a_pause() {
        // Syllables of 150 ms with 50 ms between them, and a pause of a second after 2 s.
        let level = |n: u32| if n % 300 < 200 && n % 20 > 4 { -30.0 } else { -70.0 };
        let mut detector = SpeechDetector::default();
        let speaks: Vec<_> = (0..600).map(|n| detector.push(&block(level(n)))).collect();
        let first = speaks.iter().position(|one| *one).expect("speech");
        assert!((25..40).contains(&first), "{first}");
        assert!(speaks[first..200].iter().all(|one| *one) && !speaks[270]);
        assert_eq!(beginnings((0..600).map(level)), 2);
    }

    #[test]
    fn keys_and_noise_are_no_speech() {
        let keys = |n: u32| if n % 20 < 3 { -20.0 } else { -70.0 };
        assert_eq!(beginnings((0..1000).map(keys)), 0, "a key each 200 ms");
        assert_eq!(beginnings((0..1000).map(|_| -35.0)), 0, "a fan");
        assert_eq!(
            beginnings((0..1000).map(|n| if n < 500 { -70.0 } else { -45.0 })),
            1,
            "until the fan is known"
        );
        assert_eq!(
            beginnings((0..1000).map(|n| if n % 100 < 50 { -55.0 } else { -90.0 })),
            0,
            "far away"
        );
    }
}
