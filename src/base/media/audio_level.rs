//! The level of the audio in one packet, as its sender tells it.

/// The level of the audio in a packet, and whether it has a voice (RFC 6464).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// How far the level is below full scale, in dB: 0 to 127.
    below_full_scale: u8,
    /// Whether the sender takes it for a voice. Browsers say so of everything.
    has_voice: bool,
}

/// The lowest level that can be told, and that of digital silence.
const LOWEST: u8 = 127;

/// The bit that says that there is a voice.
const VOICE: u8 = 0x80;

impl AudioLevel {
    /// Digital silence.
    pub const SILENCE: Self = Self { below_full_scale: LOWEST, has_voice: false };

    /// A level in dB relative to full scale, of which a full-scale square wave has 0.
    pub fn new(dbfs: f64, has_voice: bool) -> Self {
        let below_full_scale = (-dbfs).round().clamp(0.0, f64::from(LOWEST)) as u8;
        Self { below_full_scale, has_voice }
    }

    /// Reads the byte of a packet (RFC 6464, section 3).
    pub const fn from_byte(byte: u8) -> Self {
        Self { below_full_scale: byte & LOWEST, has_voice: byte & VOICE != 0 }
    }

    /// The byte of a packet (RFC 6464, section 3).
    pub const fn to_byte(self) -> u8 {
        self.below_full_scale | if self.has_voice { VOICE } else { 0 }
    }

    /// The level in dB relative to full scale: -127 to 0.
    pub fn dbfs(self) -> f32 {
        -f32::from(self.below_full_scale)
    }

    /// Whether the sender takes the audio for a voice.
    pub const fn has_voice(self) -> bool {
        self.has_voice
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_the_distance_to_full_scale_with_the_voice_in_the_highest_bit() {
        let cases = [
            (0.0, true, 0x80),
            (-3.01, false, 3),
            (-30.4, true, 0x80 | 30),
            (-126.7, false, 127),
            (-400.0, false, 127),
            (2.0, false, 0),
            (f64::NEG_INFINITY, false, 127),
        ];
        for (dbfs, has_voice, byte) in cases {
            let level = AudioLevel::new(dbfs, has_voice);
            assert_eq!(level.to_byte(), byte, "{dbfs}");
            assert_eq!(AudioLevel::from_byte(byte), level);
        }
        let level = AudioLevel::from_byte(0xa0);
        assert_eq!((level.dbfs(), level.has_voice()), (-32.0, true));
        assert_eq!(AudioLevel::SILENCE.to_byte(), 127);
    }
}
