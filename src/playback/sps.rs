//! What a sequence parameter set asks a decoder to reserve, before it does.

/// Why a stream is not decoded here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum Unfit {
    /// It ends too early, or a number in it is out of range.
    #[error("its parameters are damaged")]
    Damaged,
    /// Not baseline, main or extended (ITU-T H.264, annex A): never negotiated.
    #[error("profile {0}")]
    Profile(u8),
    /// More than [`MAX_MACROBLOCKS`].
    #[error("{width}x{height} is larger than 1920x1088")]
    TooLarge {
        /// Pixels across.
        width: u64,
        /// Pixels down.
        height: u64,
    },
    /// More reference pictures than its level allows (annex A, table A-1), or level 4.2.
    #[error("{references} reference pictures of {width}x{height} are more than {most} macroblocks")]
    TooManyReferences {
        /// Reference pictures.
        references: u64,
        /// Pixels across.
        width: u64,
        /// Pixels down.
        height: u64,
        /// Macroblocks that they may have together.
        most: u64,
    },
}

/// Macroblocks (16×16 pixels) of a picture at most: those of level 4.2, 1080p and a bit.
///
/// The decoder itself would take four times that and reserve 14 MB for each of up to 17
/// pictures, for one packet of a stranger.
pub(crate) const MAX_MACROBLOCKS: u64 = 8704;

/// Passes the sequence parameter set of a stream that is decoded here (ITU-T H.264, 7.3.2.1.1).
pub(crate) fn check(nal: &[u8]) -> Result<(), Unfit> {
    let body = unescaped(nal.get(1..).ok_or(Unfit::Damaged)?);
    let profile = *body.first().ok_or(Unfit::Damaged)?;
    if !matches!(profile, 66 | 77 | 88) {
        return Err(Unfit::Profile(profile));
    }
    let Shape { width, height, references } = shape(&body).ok_or(Unfit::Damaged)?;
    let macroblocks = width.saturating_mul(height);
    if macroblocks > MAX_MACROBLOCKS {
        return Err(Unfit::TooLarge { width: width * 16, height: height * 16 });
    }
    let most = max_references(body[2]);
    if references * macroblocks > most {
        let (width, height) = (width * 16, height * 16);
        return Err(Unfit::TooManyReferences { references, width, height, most });
    }
    Ok(())
}

/// The macroblocks that all reference pictures may have together at a level (`MaxDpbMbs` in annex A,
/// table A-1): four of 1080p at 4.2, which is the most for any level. The decoder reserves all of
/// them at once, 384 bytes for each macroblock.
const fn max_references(level_idc: u8) -> u64 {
    match level_idc {
        // 1b in the baseline and main profiles is 11 with a flag, and has less than 1.1.
        9 | 10 => 396,
        11 => 900,
        12 | 13 | 20 => 2376,
        21 => 4752,
        22 | 30 => 8100,
        31 => 18_000,
        32 => 20_480,
        40 | 41 => 32_768,
        // 4.2, those above it, and what is no level.
        _ => 34_816,
    }
}

/// What decides how much a decoder reserves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    /// Macroblocks across.
    width: u64,
    /// Macroblocks down.
    height: u64,
    /// Reference pictures.
    references: u64,
}

fn shape(body: &[u8]) -> Option<Shape> {
    let mut bits = Bits { bytes: body, at: 24 };
    bits.number()?; // seq_parameter_set_id
    bits.number()?; // log2_max_frame_num_minus4
    match bits.number()? {
        0 => bits.number().map(drop)?, // log2_max_pic_order_cnt_lsb_minus4
        1 => {
            bits.bit()?; // delta_pic_order_always_zero_flag
            bits.number()?; // offset_for_non_ref_pic
            bits.number()?; // offset_for_top_to_bottom_field
            let cycle = bits.number().filter(|cycle| *cycle <= 255)?;
            (0..cycle).try_for_each(|_| bits.number().map(drop))?;
        }
        2 => {}
        _ => return None,
    }
    let references = bits.number().filter(|frames| *frames <= 16)?; // max_num_ref_frames
    bits.bit()?; // gaps_in_frame_num_value_allowed_flag
    let width = bits.number()? + 1;
    let rows = bits.number()? + 1;
    let fields = 2 - bits.bit()?; // frame_mbs_only_flag
    Some(Shape { width, height: rows * fields, references })
}

/// The bytes without the 03 of each 00 00 03 (7.4.1), as many as matter here.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    // 255 offsets of up to 63 bits are the longest way to the size.
    const MATTER: usize = 2200;
    let mut zeros = 0;
    let mut clean = Vec::with_capacity(bytes.len().min(MATTER));
    for byte in bytes.iter().take(MATTER) {
        if zeros >= 2 && *byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        clean.push(*byte);
    }
    clean
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn bit(&mut self) -> Option<u64> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(u64::from(bit))
    }

    /// An Exp-Golomb number (9.1), at most 2³² - 2.
    fn number(&mut self) -> Option<u64> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        let mut number = 1;
        for _ in 0..zeros {
            number = number << 1 | self.bit()?;
        }
        Some(number - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Size, playback::testing::Painter};

    /// The parameter set of a baseline stream of so many macroblocks, of level 4.2 and with one
    /// reference picture.
    fn baseline(width: u64, height: u64) -> Vec<u8> {
        with_references(width, height, (42, 1))
    }

    /// The same with that level and so many reference pictures.
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
    fn real_parameter_sets_pass() {
        for size in [Size::new(160, 90), Size::new(320, 180), Size::new(1920, 1080)] {
            let nals = Painter::new(size).paint(true, 0);
            let set = nals.iter().find(|nal| nal[0] & 0x1f == 7).unwrap();
            assert_eq!(check(set), Ok(()), "{size}");
            let body = unescaped(&set[1..]);
            let (width, height) = (size.width.div_ceil(16).into(), size.height.div_ceil(16).into());
            let shape = shape(&body).unwrap();
            assert_eq!((shape.width, shape.height), (width, height));
            assert!(shape.references <= 4, "{shape:?}");
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect()
    }

    /// Parameter sets as other programs wrote them, with their size and reference pictures.
    const REAL: [(&str, &str, [u64; 3]); 10] = [
        ("OpenH264, as of Chromium and Firefox", "6742c01f8c8d40501e900f08846a", [40, 30, 1]),
        ("x264 ultrafast", "6742c028da01e0089f970110000003001000000303c0f1832a", [120, 68, 1]),
        ("x264 veryfast", "6742c01fda014016ec0440000003004000000f03c60ca8", [80, 45, 1]),
        (
            "x264 medium, as of FFmpeg and GStreamer",
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
    fn what_browsers_and_encoders_send_passes() {
        for (writer, set, [width, height, references]) in REAL {
            let set = bytes(set);
            let shape = shape(&unescaped(&set[1..])).unwrap();
            assert_eq!(shape, Shape { width, height, references }, "{writer}");
            assert_eq!(check(&set), Ok(()), "{writer}");
        }
    }

    #[test]
    fn more_reference_pictures_than_a_level_allows_are_refused() {
        let passes = |width, height, level| check(&with_references(width, height, level)).is_ok();
        // 1080p, at 4.2: four and no fifth.
        assert!(passes(120, 68, (42, 4)) && !passes(120, 68, (42, 5)));
        assert!(!passes(120, 68, (42, 16)));
        // At the level of most browsers, two of 1080p or five of 720p.
        assert!(passes(120, 68, (31, 2)) && !passes(120, 68, (31, 3)));
        assert!(passes(80, 45, (31, 5)) && !passes(80, 45, (31, 6)));
        // A level above what is decoded here, and none at all, give no more.
        for level in [50, 51, 62, 255, 0] {
            assert!(passes(120, 68, (level, 4)) && !passes(120, 68, (level, 5)), "{level}");
        }
        // All levels as table A-1 has them.
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
        // x264 at 1080p without a level: five and sixteen.
        for set in [
            "674d4032ecc03c0113f2e022000003000200000300781e306334",
            "674d4033b902203c0113f2e022000003000200000300781e306308c0",
        ] {
            assert!(matches!(check(&bytes(set)), Err(Unfit::TooManyReferences { .. })), "{set}");
        }
        let refused = check(&with_references(120, 68, (42, 16))).unwrap_err().to_string();
        assert_eq!(refused, "16 reference pictures of 1920x1088 are more than 34816 macroblocks");
    }

    #[test]
    fn a_picture_too_large_is_refused_before_anything_is_reserved() {
        assert_eq!(check(&baseline(120, 68)), Ok(()));
        let refused = |width, height| check(&baseline(width, height)).unwrap_err().to_string();
        assert_eq!(refused(256, 144), "4096x2304 is larger than 1920x1088");
        assert!(refused(1 << 31, 1 << 31).contains("larger"));
        assert!(refused(1, 100_000).contains("larger"));
    }

    #[test]
    fn other_profiles_and_damaged_sets_are_refused() {
        assert_eq!(check(&[0x67, 100, 0, 31, 0xff]), Err(Unfit::Profile(100)));
        let whole = baseline(80, 45);
        for end in 0..whole.len() - 1 {
            assert!(check(&whole[..end]).is_err(), "{end}");
        }
        assert_eq!(check(&[&[0x67, 66, 0, 31][..], &[0; 5000]].concat()), Err(Unfit::Damaged));
    }
}
