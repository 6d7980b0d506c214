//! The colour formats of Y4M files, and their conversion to 8-bit 4:2:0.

use super::header::Header;

/// The colour format of a file: planes of luma, Cb and Cr, and optionally of alpha.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ColourFormat {
    /// The chroma subsampling; `None` for grey video.
    chroma: Option<ChromaSubsampling>,
    /// Whether an alpha plane follows, which is ignored.
    has_alpha: bool,
    /// Bits per sample, 8 to 16; more than 8 take two bytes, little-endian.
    bits: u32,
}

/// The number of luma samples per chroma sample in each direction, as powers of two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct ChromaSubsampling {
    across: u32,
    down: u32,
}

/// The 8-bit planes of a frame and the lengths of their rows.
struct Planes<'a> {
    luma: &'a [u8],
    blue: &'a [u8],
    red: &'a [u8],
    width: usize,
    chroma_width: usize,
}

impl ColourFormat {
    /// Parses a colour format as mjpegtools and ffmpeg write it.
    ///
    /// The positions of chroma samples between luma samples differ by less than a pixel and are
    /// ignored.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let lower = name.to_ascii_lowercase();
        let chroma = |across, down| Some(ChromaSubsampling { across, down });
        let families = [
            ("420", chroma(1, 1)),
            ("422", chroma(1, 0)),
            ("444", chroma(0, 0)),
            ("440", chroma(0, 1)),
            ("411", chroma(2, 0)),
            ("410", chroma(2, 2)),
            ("mono", None),
        ];
        let found = families.iter().find_map(|(family, chroma)| {
            let rest = lower.strip_prefix(family)?;
            let has_alpha = rest == "alpha";
            let bits = match rest {
                "" | "jpeg" | "mpeg2" | "paldv" | "alpha" => Some(8),
                rest => {
                    let bits = rest.strip_prefix('p').unwrap_or(rest).parse::<u32>().ok();
                    bits.filter(|bits| (8..=16).contains(bits))
                }
            };
            Some(Self { chroma: *chroma, has_alpha, bits: bits? })
        });
        found.ok_or_else(|| {
            format!(
                "its colours are C{name}, and only 4:2:0, 4:2:2, 4:4:4, 4:1:1 and mono are read"
            )
        })
    }

    /// Bytes in a frame of the file.
    pub(super) fn frame_bytes(self, (width, height): (usize, usize)) -> usize {
        let (across, down) = self.chroma_size((width, height));
        let alpha = if self.has_alpha { width * height } else { 0 };
        (width * height + 2 * across * down + alpha) * self.sample_bytes()
    }

    fn sample_bytes(self) -> usize {
        if self.bits > 8 { 2 } else { 1 }
    }

    fn chroma_size(self, (width, height): (usize, usize)) -> (usize, usize) {
        match self.chroma {
            Some(ChromaSubsampling { across, down }) => {
                (width.div_ceil(1 << across), height.div_ceil(1 << down))
            }
            None => (0, 0),
        }
    }
}

impl Header {
    /// Bytes in a frame of the file.
    pub(super) fn frame_bytes(&self) -> usize {
        self.colour_format.frame_bytes((self.width, self.height))
    }

    /// Converts a frame of the file to an I420 frame of [`Header::even_size`] in `data`. `scratch`
    /// is a buffer that is reused between frames.
    pub(super) fn unpack(&self, raw: &[u8], scratch: &mut Vec<u8>, data: &mut [u8]) {
        let raw = match self.colour_format.bits {
            8 => raw,
            bits => {
                scratch.clear();
                let (pairs, _) = raw.as_chunks::<2>();
                let eight = |pair| (u16::from_le_bytes(pair) >> (bits - 8)).min(255) as u8;
                scratch.extend(pairs.iter().copied().map(eight));
                &scratch[..]
            }
        };
        let (across, down) = self.colour_format.chroma_size((self.width, self.height));
        let (luma, rest) = raw.split_at(self.width * self.height);
        let (blue, rest) = rest.split_at(across * down);
        let red = &rest[..across * down];
        let planes = Planes { luma, blue, red, width: self.width, chroma_width: across };
        self.write_i420(&planes, data);
    }

    fn write_i420(&self, planes: &Planes<'_>, data: &mut [u8]) {
        let size = self.even_size();
        let (width, height) = (size.width as usize, size.height as usize);
        let (luma, chroma) = data.split_at_mut(width * height);
        let (blue, red) = chroma.split_at_mut(width * height / 4);
        copy_rows(luma, width, planes.luma, planes.width);
        match self.colour_format.chroma {
            None => fill_grey_chroma(blue, red),
            Some(ChromaSubsampling { across: 1, down: 1 }) => {
                copy_rows(blue, width / 2, planes.blue, planes.chroma_width);
                copy_rows(red, width / 2, planes.red, planes.chroma_width);
            }
            Some(layout) => {
                resample_chroma(blue, width / 2, (planes.blue, planes.chroma_width), layout);
                resample_chroma(red, width / 2, (planes.red, planes.chroma_width), layout);
            }
        }
        if self.is_full_range {
            luma.iter_mut().for_each(|pixel| *pixel = (16 + u32::from(*pixel) * 219 / 255) as u8);
            for pixel in blue.iter_mut().chain(red) {
                *pixel = (16 + u32::from(*pixel) * 224 / 255) as u8;
            }
        }
    }
}

fn fill_grey_chroma(blue: &mut [u8], red: &mut [u8]) {
    blue.fill(128);
    red.fill(128);
}

fn copy_rows(to: &mut [u8], width: usize, from: &[u8], stride: usize) {
    for (row, raw) in to.chunks_exact_mut(width).zip(from.chunks_exact(stride)) {
        row.copy_from_slice(&raw[..width]);
    }
}

/// Resamples a chroma plane to half the luma resolution in each direction: each sample is the mean
/// of the source samples that it covers, or the source sample that covers it.
fn resample_chroma(
    to: &mut [u8],
    width: usize,
    (from, stride): (&[u8], usize),
    layout: ChromaSubsampling,
) {
    let covered = |at: usize, shift: u32| {
        let first = (2 * at) >> shift;
        (first, if shift == 0 { 2 } else { 1 })
    };
    for (y, row) in to.chunks_exact_mut(width).enumerate() {
        let (top, rows) = covered(y, layout.down);
        for (x, pixel) in row.iter_mut().enumerate() {
            let (left, columns) = covered(x, layout.across);
            let covered_rows = from.chunks_exact(stride).skip(top).take(rows);
            let samples = covered_rows.flat_map(|row| &row[left..left + columns]);
            let sum: usize = samples.map(|sample| usize::from(*sample)).sum();
            *pixel = ((sum + rows * columns / 2) / (rows * columns)) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(rest: &str, raw: &[u8]) -> Vec<u8> {
        let header = Header::parse(format!("YUV4MPEG2 F1:1 {rest}").as_bytes()).unwrap();
        assert_eq!(header.frame_bytes(), raw.len(), "{rest}");
        let mut data = vec![0; header.even_size().i420_bytes()];
        header.unpack(raw, &mut vec![], &mut data);
        data
    }

    /// The Y, Cb and Cr of a frame of one colour.
    fn colour(rest: &str, samples: &[(u8, usize)]) -> (u8, u8, u8) {
        let raw: Vec<_> = samples.iter().flat_map(|(value, count)| vec![*value; *count]).collect();
        let data = unpacked(&format!("W16 H16 {rest}"), &raw);
        let (luma, chroma) = data.split_at(256);
        let (blue, red) = chroma.split_at(64);
        for plane in [luma, blue, red] {
            assert!(plane.iter().all(|sample| *sample == plane[0]), "{rest}");
        }
        (luma[0], blue[0], red[0])
    }

    #[test]
    fn every_chroma_subsampling_gives_the_same_frame() {
        for (name, chroma, alpha) in [
            ("420jpeg", 64, 0),
            ("422", 128, 0),
            ("444", 256, 0),
            ("444alpha", 256, 256),
            ("440", 128, 0),
            ("411", 64, 0),
            ("410", 16, 0),
        ] {
            let planes = [(90, 256), (60, chroma), (200, chroma), (255, alpha)];
            assert_eq!(colour(&format!("C{name}"), &planes), (90, 60, 200), "{name}");
        }
        assert_eq!(colour("Cmono", &[(90, 256)]), (90, 128, 128));
    }

    #[test]
    fn samples_of_more_than_8_bits_lose_their_lowest_bits() {
        for (bits, shift) in [(9, 1), (10, 2), (12, 4), (14, 6), (16, 8)] {
            for (family, chroma) in [("420", 64), ("422", 128), ("444", 256)] {
                let plane = |value: u16, count| vec![(value << shift) | 1; count];
                let raw = [plane(90, 256), plane(60, chroma), plane(200, chroma)].concat();
                let raw: Vec<_> = raw.into_iter().flat_map(u16::to_le_bytes).collect();
                let data = unpacked(&format!("W16 H16 C{family}p{bits}"), &raw);
                assert_eq!((data[0], data[256], data[383]), (90, 60, 200), "{family} {bits}");
            }
            let grey: Vec<_> = vec![90_u16 << shift; 256];
            let grey: Vec<_> = grey.into_iter().flat_map(u16::to_le_bytes).collect();
            assert_eq!(unpacked(&format!("W16 H16 Cmono{bits}"), &grey)[255], 90, "{bits}");
        }
    }

    #[test]
    fn chroma_with_more_samples_than_needed_is_averaged() {
        let luma = vec![0; 17 * 17];
        // The first plane alternates by column: 10, 20, 10, 20, …. The second rises by row.
        let chroma: Vec<u8> = (0..17 * 17).map(|n| 10 + 10 * (n % 17 % 2) as u8).collect();
        let ramp: Vec<u8> = (0..17 * 17).map(|n| (n / 17) as u8 * 2).collect();
        let data = unpacked("W17 H17 C444", &[luma, chroma, ramp].concat());
        assert!(data[256..320].iter().all(|sample| *sample == 15));
        let rows: Vec<_> = data[320..].chunks(8).map(|row| row[0]).collect();
        assert_eq!(rows, [1, 5, 9, 13, 17, 21, 25, 29]);
    }

    #[test]
    fn an_unknown_colour_format_is_refused_by_name() {
        for name in ["", "420p7", "420p17", "rgb", "444p", "monochrome"] {
            let error = ColourFormat::parse(name).unwrap_err();
            assert!(error.contains(&format!("colours are C{name}, and only 4:2:0")), "{error}");
        }
    }
}
