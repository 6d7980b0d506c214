//! A machine-readable code at the top of a video frame that survives encoding and transport.

use super::VideoFrame;

/// The name of the source that painted a frame, the frame's number and its capture time.
///
/// Painted as 40 columns × 4 rows of black and white cells along the top of the frame. A cell is
/// `width / 40` pixels square, so it survives scaling and low bitrates. Bits, most significant
/// first: 64 of the name, 32 of `frame`, 48 of `unix_ms`, 16 of CRC-16/CCITT over the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BurntInTimecode {
    name: [u8; 8],
    /// The frame's number since its source started, modulo 2³².
    pub frame: u32,
    /// The capture time in Unix milliseconds (48 bits).
    pub unix_ms: u64,
}

const COLUMNS: usize = 40;
const ROWS: usize = 4;
const BYTES: usize = COLUMNS * ROWS / 8;
/// Black and white in the limited range.
const LUMA: [u8; 2] = [16, 235];

impl BurntInTimecode {
    /// Builds a timecode; `name` is cut to eight bytes.
    pub fn new(name: &str, frame: u32, unix_ms: u64) -> Self {
        let mut short = [0; 8];
        let mut end = name.len().min(8);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        short[..end].copy_from_slice(&name.as_bytes()[..end]);
        Self { name: short, frame, unix_ms: unix_ms & 0xffff_ffff_ffff }
    }

    /// The first eight bytes of the source's name.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(&self.name).trim_end_matches('\0').to_owned()
    }

    /// The height of the timecode in a frame that is `width` pixels wide, in pixels.
    pub const fn height(width: u32) -> u32 {
        width / COLUMNS as u32 * ROWS as u32
    }

    /// Paints the timecode into the top of a luma plane whose rows are `width` bytes. Does nothing
    /// if the frame is too small.
    pub fn paint(&self, luma: &mut [u8], width: u32) {
        let (width, cell) = (width as usize, width as usize / COLUMNS);
        if cell < 2 || luma.len() < width * cell * ROWS {
            return;
        }
        let bytes = self.to_bytes();
        for (y, row) in luma.chunks_exact_mut(width).take(cell * ROWS).enumerate() {
            for (column, pixels) in row.chunks_exact_mut(cell).take(COLUMNS).enumerate() {
                let bit = y / cell * COLUMNS + column;
                pixels.fill(LUMA[usize::from(bytes[bit / 8] >> (7 - bit % 8) & 1)]);
            }
        }
    }

    /// Reads the timecode of a frame; `None` if there is none or it is damaged.
    pub fn read(frame: &VideoFrame) -> Option<Self> {
        let (width, cell) = (frame.size.width as usize, frame.size.width as usize / COLUMNS);
        let luma = frame.y();
        if cell < 2 || luma.len() < width * cell * ROWS {
            return None;
        }
        let mut bytes = [0_u8; BYTES];
        for bit in 0..COLUMNS * ROWS {
            let (left, top) = (bit % COLUMNS * cell + cell / 4, bit / COLUMNS * cell + cell / 4);
            let side = (cell / 2).max(1);
            // Four rows are as reliable as all of them, at a quarter of the cost.
            let rows = side.min(4);
            let sum: usize = (0..rows)
                .map(|row| (top + row * side / rows) * width + left)
                .map(|at| {
                    luma[at..at + side].iter().map(|pixel| usize::from(*pixel)).sum::<usize>()
                })
                .sum();
            if sum > 126 * rows * side {
                bytes[bit / 8] |= 128 >> (bit % 8);
            }
        }
        Self::from_bytes(&bytes)
    }

    fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.name);
        bytes[8..12].copy_from_slice(&self.frame.to_be_bytes());
        bytes[12..18].copy_from_slice(&self.unix_ms.to_be_bytes()[2..]);
        let crc = crc16(&bytes[..18]);
        bytes[18..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Option<Self> {
        if crc16(&bytes[..18]) != u16::from_be_bytes([bytes[18], bytes[19]]) {
            return None;
        }
        let mut timecode = Self { name: [0; 8], frame: 0, unix_ms: 0 };
        timecode.name.copy_from_slice(&bytes[..8]);
        timecode.frame = bytes[8..12].iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
        timecode.unix_ms = bytes[12..18].iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        Some(timecode)
    }
}

/// CRC-16/CCITT-FALSE: polynomial 0x1021, initial value 0xffff, so that an all-black frame fails
/// the check.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc: u16, _| {
            if crc & 0x8000 != 0 { crc << 1 ^ 0x1021 } else { crc << 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{MediaTime, Size};

    fn painted(timecode: BurntInTimecode, size: Size, fill: u8) -> Vec<u8> {
        let mut data = vec![fill; size.i420_bytes()];
        timecode.paint(&mut data[..(size.width * size.height) as usize], size.width);
        data
    }

    fn read(size: Size, data: Vec<u8>) -> Option<BurntInTimecode> {
        BurntInTimecode::read(&VideoFrame::new(size, MediaTime::default(), Arc::new(data)))
    }

    #[test]
    fn a_timecode_is_read_back_at_every_size() {
        let timecode = BurntInTimecode::new("Ada Lovelace", 7, 1_790_000_000_123);
        assert_eq!(timecode.name(), "Ada Love");
        for size in [Size::new(320, 180), Size::new(648, 480), Size::new(1280, 720)] {
            assert_eq!(read(size, painted(timecode, size, 90)), Some(timecode), "{size}");
        }
    }

    #[test]
    fn a_timecode_survives_noise_and_one_flipped_cell_invalidates_it() {
        let size = Size::new(320, 180);
        let timecode = BurntInTimecode::new("émile-à", u32::MAX, 1);
        let mut data = painted(timecode, size, 0);
        data.iter_mut().enumerate().for_each(|(n, byte)| {
            *byte = byte.saturating_add_signed(((n * 7919) % 81) as i8 - 40);
        });
        assert_eq!(read(size, data), Some(timecode));
        let mut data = painted(timecode, size, 0);
        (0..8).for_each(|y| data[y * 320..y * 320 + 8].iter_mut().for_each(|p| *p = 251 - *p));
        assert_eq!(read(size, data), None);
    }

    #[test]
    fn a_plain_frame_has_no_timecode() {
        let size = Size::new(320, 180);
        for fill in [0, 16, 128, 235] {
            assert_eq!(read(size, vec![fill; size.i420_bytes()]), None, "{fill}");
        }
    }
}
