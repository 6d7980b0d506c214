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
    let (width, height) = size(&body).ok_or(Unfit::Damaged)?;
    if width.saturating_mul(height) > MAX_MACROBLOCKS {
        return Err(Unfit::TooLarge { width: width * 16, height: height * 16 });
    }
    Ok(())
}

/// Macroblocks across and down.
fn size(body: &[u8]) -> Option<(u64, u64)> {
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
    bits.number().filter(|frames| *frames <= 16)?; // max_num_ref_frames
    bits.bit()?; // gaps_in_frame_num_value_allowed_flag
    let width = bits.number()? + 1;
    let rows = bits.number()? + 1;
    let fields = 2 - bits.bit()?; // frame_mbs_only_flag
    Some((width, rows * fields))
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

    /// The parameter set of a baseline stream of so many macroblocks.
    fn baseline(width: u64, height: u64) -> Vec<u8> {
        let mut bits = String::new();
        let mut number = |value: u64| {
            let digits = format!("{:b}", value + 1);
            bits.push_str(&"0".repeat(digits.len() - 1));
            bits.push_str(&digits);
        };
        [0, 0, 2, 1].into_iter().for_each(&mut number);
        bits.push('0');
        let mut number = |value: u64| {
            let digits = format!("{:b}", value + 1);
            bits.push_str(&"0".repeat(digits.len() - 1));
            bits.push_str(&digits);
        };
        number(width - 1);
        number(height - 1);
        bits.push('1');
        let mut nal = vec![0x67, 66, 0xc0, 31];
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
            let macroblocks = (size.width.div_ceil(16).into(), size.height.div_ceil(16).into());
            assert_eq!(super::size(&body), Some(macroblocks));
        }
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
