//! Checks how much memory a sequence parameter set makes a decoder allocate.

/// Why a stream is not decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum SpsError {
    /// The parameter set is too short, or a value in it is out of range.
    #[error("its parameters are damaged")]
    Damaged,
    /// Not the baseline, main or extended profile (ITU-T H.264, annex A): never negotiated.
    #[error("profile {0}")]
    Profile(u8),
    /// More than [`MAX_MACROBLOCKS`].
    #[error("{width}x{height} is larger than 1920x1088")]
    TooLarge {
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
    },
    /// More reference pictures than its level allows (annex A, table A-1), or level 4.2.
    #[error("{references} reference pictures of {width}x{height} are more than {most} macroblocks")]
    TooManyReferences {
        /// The number of reference pictures.
        references: u64,
        /// Width in pixels.
        width: u64,
        /// Height in pixels.
        height: u64,
        /// The most macroblocks that all reference pictures may have together.
        most: u64,
    },
}

/// The most macroblocks (16×16 pixels) of a picture: those of level 4.2, slightly more than 1080p.
///
/// OpenH264 accepts four times as many and would allocate 14 MB for each of up to 17 pictures,
/// after a single packet from an untrusted sender.
pub(crate) const MAX_MACROBLOCKS: u64 = 8704;

/// Checks a sequence parameter set (ITU-T H.264, 7.3.2.1.1). Accepts those of streams that are
/// decoded.
pub(crate) fn check(nal: &[u8]) -> Result<(), SpsError> {
    let body = without_emulation_prevention(nal.get(1..).ok_or(SpsError::Damaged)?);
    let profile = *body.first().ok_or(SpsError::Damaged)?;
    if !matches!(profile, 66 | 77 | 88) {
        return Err(SpsError::Profile(profile));
    }
    let SpsFields { width, height, references } = parse(&body).ok_or(SpsError::Damaged)?;
    let macroblocks = width.saturating_mul(height);
    if macroblocks > MAX_MACROBLOCKS {
        return Err(SpsError::TooLarge { width: width * 16, height: height * 16 });
    }
    let most = max_dpb_macroblocks(body[2]);
    if references * macroblocks > most {
        let (width, height) = (width * 16, height * 16);
        return Err(SpsError::TooManyReferences { references, width, height, most });
    }
    Ok(())
}

/// The most macroblocks that all reference pictures of a level may have together (`MaxDpbMbs` in
/// annex A, table A-1). Capped at the value of level 4.2, which is four pictures of 1080p. The
/// decoder allocates all of them at once, 384 bytes for each macroblock.
const fn max_dpb_macroblocks(level_idc: u8) -> u64 {
    match level_idc {
        // Level 1b is 9. In the baseline and main profiles it is 11 with a flag, which is ignored:
        // it allows less than level 1.1.
        9 | 10 => 396,
        11 => 900,
        12 | 13 | 20 => 2376,
        21 => 4752,
        22 | 30 => 8100,
        31 => 18_000,
        32 => 20_480,
        40 | 41 => 32_768,
        // Level 4.2, higher levels and invalid values.
        _ => 34_816,
    }
}

/// The fields that determine how much memory a decoder allocates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct SpsFields {
    /// Width in macroblocks.
    width: u64,
    /// Height in macroblocks.
    height: u64,
    /// The number of reference pictures.
    references: u64,
}

fn parse(body: &[u8]) -> Option<SpsFields> {
    let mut bits = BitReader { bytes: body, at: 24 };
    bits.read_ue()?; // seq_parameter_set_id
    bits.read_ue()?; // log2_max_frame_num_minus4
    match bits.read_ue()? {
        0 => bits.read_ue().map(drop)?, // log2_max_pic_order_cnt_lsb_minus4
        1 => {
            bits.read_bit()?; // delta_pic_order_always_zero_flag
            bits.read_ue()?; // offset_for_non_ref_pic
            bits.read_ue()?; // offset_for_top_to_bottom_field
            let cycle = bits.read_ue().filter(|cycle| *cycle <= 255)?;
            (0..cycle).try_for_each(|_| bits.read_ue().map(drop))?;
        }
        2 => {}
        _ => return None,
    }
    let references = bits.read_ue().filter(|frames| *frames <= 16)?; // max_num_ref_frames
    bits.read_bit()?; // gaps_in_frame_num_value_allowed_flag
    let width = bits.read_ue()? + 1;
    let rows = bits.read_ue()? + 1;
    let fields = 2 - bits.read_bit()?; // frame_mbs_only_flag
    Some(SpsFields { width, height: rows * fields, references })
}

/// Removes the emulation prevention bytes, the 03 of each 00 00 03 (7.4.1). Returns only as many
/// bytes as may be parsed.
fn without_emulation_prevention(bytes: &[u8]) -> Vec<u8> {
    // The size comes after at most 255 offsets of up to 63 bits.
    const MAX_PARSED: usize = 2200;
    let mut zeros = 0;
    let mut clean = Vec::with_capacity(bytes.len().min(MAX_PARSED));
    for byte in bytes.iter().take(MAX_PARSED) {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        clean.push(*byte);
    }
    clean
}

struct BitReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl BitReader<'_> {
    fn read_bit(&mut self) -> Option<u64> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(u64::from(bit))
    }

    /// Reads an unsigned Exp-Golomb number `ue(v)` (9.1), at most 2³² - 2.
    fn read_ue(&mut self) -> Option<u64> {
        let mut zeros = 0;
        while self.read_bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let mut number = 1;
        for _ in 0..zeros {
            number = number << 1 | self.read_bit()?;
        }
        Some(number - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Size, playback::testing::TestVideoEncoder};

    /// The parameter set of a baseline stream of this size in macroblocks, level 4.2 and one
    /// reference picture.
    fn baseline(width: u64, height: u64) -> Vec<u8> {
        with_references(width, height, (42, 1))
    }

    /// Like [`baseline`], with a level and a number of reference pictures.
    fn with_references(width: u64, height: u64, (level, references): (u8, u64)) -> Vec<u8> {
        let mut bits = String::new();
        let mut number = |value: u64| {
            let digits = format!("{:b}", value + 1);
            bits.push_str(&"0".repeat(digits.len() - 1));
            bits.push_str(&digits);
        };
        [0, 0, 2, references].into_iter().for_each(&mut number);
        bits.push('0');
        let mut number = |value: u64| {
            let digits = format!("{:b}", value + 1);
            bits.push_str(&"0".repeat(digits.len() - 1));
            bits.push_str(&digits);
        };
        number(width - 1);
        number(height - 1);
        bits.push('1');
        let mut nal = vec![0x67, 66, 0xc0, level];
        for byte in bits.as_bytes().chunks(8) {
            let byte = byte.iter().fold(0, |sum, bit| sum << 1 | (bit - b'0')) << (8 - byte.len());
            if nal.ends_with(&[0, 0]) && byte <= 3 {
                nal.push(3);
            }
            nal.push(byte);
        }
        nal
    }

    #[test]
    fn parameter_sets_of_openh264_are_accepted() {
        for size in [Size::new(160, 90), Size::new(320, 180), Size::new(1920, 1080)] {
            let nals = TestVideoEncoder::new(size).next_frame(true, 0);
            let set = nals.iter().find(|nal| nal[0] & 0x1f == 7).unwrap();
            assert_eq!(check(set), Ok(()), "{size}");
            let body = without_emulation_prevention(&set[1..]);
            let (width, height) = (size.width.div_ceil(16).into(), size.height.div_ceil(16).into());
            let fields = parse(&body).unwrap();
            assert_eq!((fields.width, fields.height), (width, height));
            assert!(fields.references <= 4, "{fields:?}");
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Parameter sets of other encoders, with width, height and number of reference pictures.
    const REAL: [(&str, &str, [u64; 3]); 10] = [
        ("OpenH264, used by Chromium and Firefox", "6742c01f8c8d40501e900f08846a", [40, 30, 1]),
        ("x264 ultrafast", "6742c028da01e0089f970110000003001000000303c0f1832a", [120, 68, 1]),
        ("x264 veryfast", "6742c01fda014016ec0440000003004000000f03c60ca8", [80, 45, 1]),
        (
            "x264 medium, used by FFmpeg and GStreamer",
            "6742c028d900780227e5c044000003000400000300f03c60c920",
            [120, 68, 3],
        ),
        (
            "x264 medium, main profile",
            "674d4028eca03c0113f2e022000003000200000300781e30632c",
            [120, 68, 4],
        ),
        (
            "x264 slow at level 4.0",
            "674d4028eca03c0113f2e022000003000200000300781e30632c",
            [120, 68, 4],
        ),
        (
            "x264 slow at level 4.2",
            "674d402aeca03c0113f2e022000003000200000300781e30632c",
            [120, 68, 4],
        ),
        ("x264 slower", "674d4028ab1202802dd80880000003008000001e078c18c4c0", [80, 45, 8]),
        ("x264 veryslow", "674d401fb902205017fcb80880000003008000001e078c18c230", [40, 23, 16]),
        ("x264 veryslow", "6742c016a6110507ec0440000003004000000f03c58b8460", [20, 15, 16]),
    ];

    #[test]
    fn parameter_sets_of_browsers_and_encoders_are_accepted() {
        for (encoder, set, [width, height, references]) in REAL {
            let set = bytes(set);
            let fields = parse(&without_emulation_prevention(&set[1..])).unwrap();
            assert_eq!(fields, SpsFields { width, height, references }, "{encoder}");
            assert_eq!(check(&set), Ok(()), "{encoder}");
        }
    }

    #[test]
    fn more_reference_pictures_than_a_level_allows_are_rejected() {
        let passes = |width, height, level| check(&with_references(width, height, level)).is_ok();
        // 1080p at level 4.2: at most four.
        assert!(passes(120, 68, (42, 4)) && !passes(120, 68, (42, 5)));
        assert!(!passes(120, 68, (42, 16)));
        // At level 3.1, which most browsers use: two of 1080p or five of 720p.
        assert!(passes(120, 68, (31, 2)) && !passes(120, 68, (31, 3)));
        assert!(passes(80, 45, (31, 5)) && !passes(80, 45, (31, 6)));
        // Higher and invalid levels do not allow more.
        for level in [50, 51, 62, 255, 0] {
            assert!(passes(120, 68, (level, 4)) && !passes(120, 68, (level, 5)), "{level}");
        }
        // All levels of table A-1.
        for (level, most) in [
            (10, 396),
            (11, 900),
            (12, 2376),
            (13, 2376),
            (20, 2376),
            (21, 4752),
            (22, 8100),
            (30, 8100),
            (31, 18_000),
            (32, 20_480),
            (40, 32_768),
            (41, 32_768),
            (42, 34_816),
        ] {
            assert!(passes(1, most / 16, (level, 16)), "{level}");
            assert!(!passes(1, most / 16 + 1, (level, 16)), "{level}");
        }
        // x264 at 1080p without a given level uses five and sixteen.
        for set in [
            "674d4032ecc03c0113f2e022000003000200000300781e306334",
            "674d4033b902203c0113f2e022000003000200000300781e306308c0",
        ] {
            assert!(matches!(check(&bytes(set)), Err(SpsError::TooManyReferences { .. })), "{set}");
        }
        let rejected = check(&with_references(120, 68, (42, 16))).unwrap_err().to_string();
        assert_eq!(rejected, "16 reference pictures of 1920x1088 are more than 34816 macroblocks");
    }

    #[test]
    fn a_picture_that_is_too_large_is_rejected_before_memory_is_allocated() {
        assert_eq!(check(&baseline(120, 68)), Ok(()));
        let rejected = |width, height| check(&baseline(width, height)).unwrap_err().to_string();
        assert_eq!(rejected(256, 144), "4096x2304 is larger than 1920x1088");
        assert!(rejected(1 << 31, 1 << 31).contains("larger"));
        assert!(rejected(1, 100_000).contains("larger"));
    }

    #[test]
    fn other_profiles_and_damaged_sets_are_rejected() {
        assert_eq!(check(&[0x67, 100, 0, 31, 0xff]), Err(SpsError::Profile(100)));
        let complete = baseline(80, 45);
        for end in 0..complete.len() - 1 {
            assert!(check(&complete[..end]).is_err(), "{end}");
        }
        assert_eq!(check(&[&[0x67, 66, 0, 31][..], &[0; 5000]].concat()), Err(SpsError::Damaged));
    }
}
