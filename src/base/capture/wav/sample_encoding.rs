//! The encodings of a sample in a WAV file.

/// The encoding of a sample, little-endian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SampleEncoding {
    /// One unsigned byte; 128 is silence.
    Unsigned8,
    /// Two's complement in two to eight bytes; fewer valid bits are left-aligned.
    Signed(usize),
    /// IEEE 754, four bytes.
    Float32,
    /// IEEE 754, eight bytes.
    Float64,
    /// A-law, one byte (ITU-T G.711).
    ALaw,
    /// µ-law, one byte (ITU-T G.711).
    MuLaw,
}

impl SampleEncoding {
    /// The encoding for a format tag (RFC 2361) and the number of bytes in a sample.
    pub(super) fn new(tag: u16, bytes: u64) -> Result<Self, String> {
        let unusual = |name: &str| format!("its sound is {name} in {bytes} bytes a sample");
        match (tag, bytes) {
            (1, 1) => Ok(Self::Unsigned8),
            (1, 2..=8) => Ok(Self::Signed(bytes as usize)),
            (1, _) => Err(unusual("PCM")),
            (3, 4) => Ok(Self::Float32),
            (3, 8) => Ok(Self::Float64),
            (3, _) => Err(unusual("float")),
            (6, 1) => Ok(Self::ALaw),
            (6, _) => Err(unusual("A-law")),
            (7, 1) => Ok(Self::MuLaw),
            (7, _) => Err(unusual("µ-law")),
            (other, _) => {
                let name = match other {
                    2 => "MS ADPCM",
                    0x11 => "IMA ADPCM",
                    0x31 => "GSM",
                    0x50 => "MPEG",
                    0x55 => "MP3",
                    0xff => "AAC",
                    _ => "unknown here",
                };
                Err(format!(
                    "its sound's format is {other:#06x} ({name}), and only PCM, float, A-law and \
                     µ-law are read"
                ))
            }
        }
    }

    /// Bytes in a sample.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Unsigned8 | Self::ALaw | Self::MuLaw => 1,
            Self::Signed(bytes) => bytes,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// Decodes a sample to full scale ±1; NaN and infinity become silence.
    ///
    /// # Panics
    /// If `bytes` has not [`Self::bytes`] bytes: a bug of the caller.
    pub(super) fn decode(self, bytes: &[u8]) -> f32 {
        let mut wide = [0; 8];
        let sample = match self {
            Self::Unsigned8 => (f32::from(bytes[0]) - 128.0) / 128.0,
            Self::Signed(count) => {
                wide[8 - count..].copy_from_slice(bytes);
                (i64::from_le_bytes(wide) as f64 / 2_f64.powi(63)) as f32
            }
            Self::Float32 => {
                wide[..4].copy_from_slice(bytes);
                f32::from_bits(u64::from_le_bytes(wide) as u32)
            }
            Self::Float64 => {
                wide.copy_from_slice(bytes);
                f64::from_le_bytes(wide) as f32
            }
            Self::ALaw => f32::from(a_law(bytes[0])) / 32_768.0,
            Self::MuLaw => f32::from(mu_law(bytes[0])) / 32_768.0,
        };
        if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 }
    }
}

/// Decodes A-law: sign, exponent, mantissa, every other bit inverted (G.711, table 1).
fn a_law(byte: u8) -> i16 {
    let code = byte ^ 0x55;
    let (exponent, mantissa) = ((code >> 4) & 7, i16::from(code & 15) << 4);
    let level = match exponent {
        0 => mantissa + 8,
        exponent => (mantissa + 0x108) << (exponent - 1),
    };
    if code & 0x80 == 0 { -level } else { level }
}

/// Decodes µ-law: sign, exponent, mantissa, all bits inverted (G.711, table 2).
fn mu_law(byte: u8) -> i16 {
    let code = !byte;
    let level = (((i16::from(code & 15) << 3) + 0x84) << ((code >> 4) & 7)) - 0x84;
    if code & 0x80 == 0 { level } else { -level }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_decodes_full_scale_half_scale_and_silence() {
        let all: [(SampleEncoding, &[u8], f32); 18] = [
            (SampleEncoding::Unsigned8, &[0], -1.0),
            (SampleEncoding::Unsigned8, &[128], 0.0),
            (SampleEncoding::Unsigned8, &[192], 0.5),
            (SampleEncoding::Signed(2), &[0, 0x80], -1.0),
            (SampleEncoding::Signed(2), &[0, 0x40], 0.5),
            (SampleEncoding::Signed(3), &[0, 0, 0xc0], -0.5),
            (SampleEncoding::Signed(4), &[0, 0, 0, 0x40], 0.5),
            (SampleEncoding::Signed(8), &[0, 0, 0, 0, 0, 0, 0, 0xc0], -0.5),
            (SampleEncoding::Float32, &0.25_f32.to_le_bytes(), 0.25),
            (SampleEncoding::Float32, &f32::NAN.to_le_bytes(), 0.0),
            (SampleEncoding::Float32, &9.0_f32.to_le_bytes(), 1.0),
            (SampleEncoding::Float64, &(-0.25_f64).to_le_bytes(), -0.25),
            (SampleEncoding::Float64, &f64::INFINITY.to_le_bytes(), 0.0),
            // The extremes and the smallest steps of G.711's tables, for 16 bits.
            (SampleEncoding::ALaw, &[0xaa], 32_256.0 / 32_768.0),
            (SampleEncoding::ALaw, &[0x55], -8.0 / 32_768.0),
            (SampleEncoding::MuLaw, &[0x80], 32_124.0 / 32_768.0),
            (SampleEncoding::MuLaw, &[0x00], -32_124.0 / 32_768.0),
            (SampleEncoding::MuLaw, &[0xff], 0.0),
        ];
        for (encoding, bytes, level) in all {
            assert_eq!(encoding.bytes(), bytes.len());
            assert_eq!(encoding.decode(bytes), level, "{encoding:?} {bytes:?}");
        }
    }
}
