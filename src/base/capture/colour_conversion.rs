//! Converts pixels of a camera to I420 of BT.709, limited range.
//!
//! The loops work on whole rows and do the same to each pixel, so the compiler vectorises them;
//! `benches/media.rs` measures them. YUYV and NV12 are converted from BT.601 directly, without RGB
//! between.

use super::pixels::PixelFormat;

/// The weights of red and blue in the luma of a colour space (ITU-T H.273, table 4).
struct LumaWeights {
    red: f64,
    blue: f64,
}

const BT601: LumaWeights = LumaWeights { red: 0.299, blue: 0.114 };
const BT709: LumaWeights = LumaWeights { red: 0.2126, blue: 0.0722 };

impl LumaWeights {
    const fn green(&self) -> f64 {
        1.0 - self.red - self.blue
    }

    /// B' - Y' divided by this is Cb, from -0.5 to 0.5.
    const fn blue_range(&self) -> f64 {
        2.0 * (1.0 - self.blue)
    }

    /// R' - Y' divided by this is Cr, from -0.5 to 0.5.
    const fn red_range(&self) -> f64 {
        2.0 * (1.0 - self.red)
    }
}

/// The coefficients of BT.601 Cb and Cr in BT.709 luma; that of BT.601 luma is 1. Grey is the same in
/// both, so BT.709 Cb and Cr depend on BT.601 Cb and Cr only.
const LUMA_OF_CB: f64 = BT709.blue * BT601.blue_range()
    - BT709.green() * BT601.blue * BT601.blue_range() / BT601.green();
const LUMA_OF_CR: f64 =
    BT709.red * BT601.red_range() - BT709.green() * BT601.red * BT601.red_range() / BT601.green();

/// The ranges of 8-bit luma and chroma: 16 to 235 and 16 to 240, and of RGB: 0 to 255.
const LUMA_RANGE: f64 = 219.0;
const CHROMA_RANGE: f64 = 224.0;
const RGB_RANGE: f64 = 255.0;

/// Pixels that are split into their colours at a time, so that they stay in the first cache.
const BLOCK: usize = 256;

/// The planes of an I420 frame. The width is even.
pub(super) struct I420Planes<'a> {
    pub(super) width: usize,
    pub(super) luma: &'a mut [u8],
    pub(super) cb: &'a mut [u8],
    pub(super) cr: &'a mut [u8],
}

/// Two rows of luma and the row of chroma that they share.
struct RowPair<'a> {
    top: &'a mut [u8],
    bottom: &'a mut [u8],
    cb: &'a mut [u8],
    cr: &'a mut [u8],
}

impl I420Planes<'_> {
    #[inline(always)]
    fn row_pairs(&mut self) -> impl Iterator<Item = RowPair<'_>> {
        let lumas = self.luma.chunks_exact_mut(2 * self.width);
        let cbs = self.cb.chunks_exact_mut(self.width / 2);
        let crs = self.cr.chunks_exact_mut(self.width / 2);
        let width = self.width;
        lumas.zip(cbs).zip(crs).map(move |((luma, cb), cr)| {
            let (top, bottom) = luma.split_at_mut(width);
            RowPair { top, bottom, cb, cr }
        })
    }
}

/// A camera's frame of any format but JPEG.
pub(super) struct CameraPixels<'a> {
    pub(super) format: PixelFormat,
    pub(super) width: usize,
    pub(super) height: usize,
    /// At least one frame.
    pub(super) bytes: &'a [u8],
}

impl CameraPixels<'_> {
    /// Converts the frame; an odd last row or column is left out.
    pub(super) fn convert(&self, out: &mut I420Planes<'_>) {
        #[cfg(target_arch = "x86_64")]
        {
            if std::is_x86_feature_detected!("avx2") {
                #[expect(
                    unsafe_code,
                    reason = "the compiler cannot see what the processor can do"
                )]
                // SAFETY: the processor has AVX2.
                return unsafe { self.convert_with_avx2(out) };
            }
            if std::is_x86_feature_detected!("sse4.1") {
                #[expect(
                    unsafe_code,
                    reason = "the compiler cannot see what the processor can do"
                )]
                // SAFETY: the processor has SSE 4.1.
                return unsafe { self.convert_with_sse41(out) };
            }
        }
        self.convert_anywhere(out);
    }

    /// The conversion, compiled for processors with AVX2.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn convert_with_avx2(&self, out: &mut I420Planes<'_>) {
        self.convert_anywhere(out);
    }

    /// The conversion, compiled for processors with SSE 4.1.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "sse4.1")]
    fn convert_with_sse41(&self, out: &mut I420Planes<'_>) {
        self.convert_anywhere(out);
    }

    /// The conversion, for what the surrounding function is compiled for.
    #[inline(always)]
    fn convert_anywhere(&self, out: &mut I420Planes<'_>) {
        let (width, even_width) = (self.width, self.width.next_multiple_of(2));
        match self.format {
            PixelFormat::Mjpeg => {}
            PixelFormat::Yuyv => {
                for (rows, pair) in self.bytes.chunks_exact(4 * even_width).zip(out.row_pairs()) {
                    convert_yuyv(rows.split_at(2 * even_width), pair);
                }
            }
            PixelFormat::Nv12 => {
                let (luma, chroma) = self.bytes.split_at(width * self.height);
                let rows = luma.chunks_exact(2 * width).zip(chroma.chunks_exact(even_width));
                for ((luma, chroma), pair) in rows.zip(out.row_pairs()) {
                    convert_nv12(luma.split_at(width), chroma, pair);
                }
            }
            PixelFormat::Grey => {
                for (rows, pair) in self.bytes.chunks_exact(2 * width).zip(out.row_pairs()) {
                    convert_grey(rows.split_at(width), pair);
                }
            }
            PixelFormat::Rgb | PixelFormat::Bgr => {
                let is_bgr = self.format == PixelFormat::Bgr;
                for (rows, pair) in self.bytes.chunks_exact(6 * width).zip(out.row_pairs()) {
                    convert_rgb(rows.split_at(3 * width), is_bgr, pair);
                }
            }
        }
    }
}

#[inline(always)]
fn convert_yuyv((top, bottom): (&[u8], &[u8]), out: RowPair<'_>) {
    for (row, luma) in [(top, out.top), (bottom, out.bottom)] {
        for (luma, pair) in luma.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
            let [first, cb, second, cr] = *pair;
            *luma = luma_pair([first, second], [cb, cr]);
        }
    }
    let rows = top.as_chunks().0.iter().zip(bottom.as_chunks().0);
    for ((top, bottom), (to_cb, to_cr)) in rows.zip(out.cb.iter_mut().zip(out.cr)) {
        let ([_, cb, _, cr], [_, cb_below, _, cr_below]) = (*top, *bottom);
        let sum = |one, other| i16::from(one) + i16::from(other);
        [*to_cb, *to_cr] = chroma([sum(cb, cb_below), sum(cr, cr_below)]);
    }
}

#[inline(always)]
fn convert_nv12((top, bottom): (&[u8], &[u8]), chromas: &[u8], out: RowPair<'_>) {
    for (row, luma) in [(top, out.top), (bottom, out.bottom)] {
        let rows = row.as_chunks().0.iter().zip(chromas.as_chunks().0);
        for (luma, (pair, chroma)) in luma.as_chunks_mut().0.iter_mut().zip(rows) {
            *luma = luma_pair(*pair, *chroma);
        }
    }
    let to = out.cb.iter_mut().zip(out.cr);
    for ([cb, cr], (to_cb, to_cr)) in chromas.as_chunks().0.iter().zip(to) {
        [*to_cb, *to_cr] = chroma([2 * i16::from(*cb), 2 * i16::from(*cr)]);
    }
}

#[inline(always)]
fn convert_grey((top, bottom): (&[u8], &[u8]), out: RowPair<'_>) {
    for (row, luma) in [(top, out.top), (bottom, out.bottom)] {
        for (luma, grey) in luma.iter_mut().zip(row) {
            *luma = rgb_luma([(*grey).into(); 3]);
        }
    }
    out.cb.fill(128);
    out.cr.fill(128);
}

#[inline(always)]
fn convert_rgb((top, bottom): (&[u8], &[u8]), is_bgr: bool, out: RowPair<'_>) {
    let mut colours = [[[0; BLOCK]; 3]; 2];
    let mut sums = [[0; BLOCK / 2]; 3];
    let rows = top.chunks(3 * BLOCK).zip(bottom.chunks(3 * BLOCK));
    let lumas = out.top.chunks_mut(BLOCK).zip(out.bottom.chunks_mut(BLOCK));
    let chromas = out.cb.chunks_mut(BLOCK / 2).zip(out.cr.chunks_mut(BLOCK / 2));
    for ((rows, lumas), (to_cb, to_cr)) in rows.zip(lumas).zip(chromas) {
        let of_row = [(rows.0, lumas.0), (rows.1, lumas.1)];
        for (colours, (row, luma)) in colours.iter_mut().zip(of_row) {
            split_colours(row, colours);
            if is_bgr {
                colours.swap(0, 2);
            }
            let [red, green, blue] = &*colours;
            for (((luma, red), green), blue) in luma.iter_mut().zip(red).zip(green).zip(blue) {
                *luma = rgb_luma([*red, *green, *blue].map(u16::from));
            }
        }
        for (number, sums) in sums.iter_mut().enumerate() {
            sum_squares(&colours[0][number], &colours[1][number], sums);
        }
        let [red, green, blue] = &sums;
        let sums = red.iter().zip(green).zip(blue);
        for (((red, green), blue), (cb, cr)) in sums.zip(to_cb.iter_mut().zip(to_cr)) {
            [*cb, *cr] = rgb_chroma([*red, *green, *blue]);
        }
    }
}

/// Splits pixels into a plane for each colour.
#[inline(always)]
fn split_colours(row: &[u8], [first, second, third]: &mut [[u8; BLOCK]; 3]) {
    for (((pixel, first), second), third) in
        row.as_chunks::<3>().0.iter().zip(first).zip(second).zip(third)
    {
        [*first, *second, *third] = *pixel;
    }
}

/// Adds each four pixels that share a chroma sample.
#[inline(always)]
fn sum_squares(top: &[u8; BLOCK], bottom: &[u8; BLOCK], sums: &mut [u16; BLOCK / 2]) {
    let rows = top.as_chunks().0.iter().zip(bottom.as_chunks().0);
    for (sum, ([a, b], [c, d])) in sums.iter_mut().zip(rows) {
        *sum = u16::from(*a) + u16::from(*b) + u16::from(*c) + u16::from(*d);
    }
}

/// One in the fixed-point numbers of [`signed_part`].
const ONE: f64 = 16384.0;

/// Half of a value and what two [`signed_part`]s lose on average, in 64ths.
const ROUND_SIGNED: i16 = 33;

/// Half of a value and what three [`unsigned_part`]s lose on average, in 256ths.
const ROUND_UNSIGNED: u16 = 129;

const fn fixed(factor: f64, one: f64) -> i32 {
    let half = if factor < 0.0 { -0.5 } else { 0.5 };
    (factor * one + half) as i32
}

/// Multiplies 256ths by a factor in units of [`ONE`] and returns 64ths.
#[inline(always)]
fn signed_part(value: i16, factor: i32) -> i16 {
    ((i32::from(value) * factor) >> 16) as i16
}

/// Multiplies by a factor of less than 1, given in 65536ths.
#[inline(always)]
fn unsigned_part(value: u16, factor: u16) -> u16 {
    ((u32::from(value) * u32::from(factor)) >> 16) as u16
}

/// The BT.709 luma of two BT.601 pixels that share Cb and Cr.
#[inline(always)]
fn luma_pair(lumas: [u8; 2], [cb, cr]: [u8; 2]) -> [u8; 2] {
    const FROM_CB: i32 = fixed(LUMA_OF_CB * LUMA_RANGE / CHROMA_RANGE, ONE);
    const FROM_CR: i32 = fixed(LUMA_OF_CR * LUMA_RANGE / CHROMA_RANGE, ONE);
    let centred = |chroma| (i16::from(chroma) - 128) << 8;
    let change = signed_part(centred(cb), FROM_CB) + signed_part(centred(cr), FROM_CR);
    lumas.map(|luma| (((i16::from(luma) << 6) + change + ROUND_SIGNED) >> 6).clamp(16, 235) as u8)
}

/// BT.709 Cb and Cr. Takes the sums of two BT.601 samples.
#[inline(always)]
fn chroma([cb, cr]: [i16; 2]) -> [u8; 2] {
    const OF_CB: [i32; 2] = [
        fixed((BT601.blue_range() - LUMA_OF_CB) / BT709.blue_range(), ONE),
        fixed(-LUMA_OF_CR / BT709.blue_range(), ONE),
    ];
    const OF_CR: [i32; 2] = [
        fixed(-LUMA_OF_CB / BT709.red_range(), ONE),
        fixed((BT601.red_range() - LUMA_OF_CR) / BT709.red_range(), ONE),
    ];
    let (cb, cr) = ((cb - 2 * 128) << 7, (cr - 2 * 128) << 7);
    [OF_CB, OF_CR].map(|[from_cb, from_cr]| {
        let sum = signed_part(cb, from_cb) + signed_part(cr, from_cr);
        (((128 << 6) + sum + ROUND_SIGNED) >> 6).clamp(16, 240) as u8
    })
}

/// The luma of a pixel.
#[inline(always)]
fn rgb_luma([red, green, blue]: [u16; 3]) -> u8 {
    const RED: u16 = fixed(BT709.red * LUMA_RANGE / RGB_RANGE, 65536.0) as u16;
    const GREEN: u16 = fixed(BT709.green() * LUMA_RANGE / RGB_RANGE, 65536.0) as u16;
    const BLUE: u16 = fixed(BT709.blue * LUMA_RANGE / RGB_RANGE, 65536.0) as u16;
    let sum = unsigned_part(red << 8, RED)
        + unsigned_part(green << 8, GREEN)
        + unsigned_part(blue << 8, BLUE);
    (((16 << 8) + sum + ROUND_UNSIGNED) >> 8) as u8
}

/// Cb and Cr. Takes the sums of four pixels.
#[inline(always)]
fn rgb_chroma(sums: [u16; 3]) -> [u8; 2] {
    const fn part(weight: f64, range: f64) -> u16 {
        fixed(weight / range * CHROMA_RANGE / RGB_RANGE, 65536.0) as u16
    }
    const HALF: u16 = part(0.5, 1.0);
    const CB_OF_RED: u16 = part(BT709.red, BT709.blue_range());
    const CB_OF_GREEN: u16 = part(BT709.green(), BT709.blue_range());
    const CR_OF_GREEN: u16 = part(BT709.green(), BT709.red_range());
    const CR_OF_BLUE: u16 = part(BT709.blue, BT709.red_range());
    let [red, green, blue] = sums.map(|sum| sum << 6);
    let grey = (128 << 8) + 128;
    let cb = grey + unsigned_part(blue, HALF)
        - unsigned_part(red, CB_OF_RED)
        - unsigned_part(green, CB_OF_GREEN);
    let cr = grey + unsigned_part(red, HALF)
        - unsigned_part(green, CR_OF_GREEN)
        - unsigned_part(blue, CR_OF_BLUE);
    [(cb >> 8) as u8, (cr >> 8) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A width that is odd, larger than [`BLOCK`], and no multiple of what a processor does at once.
    const SIZE: (usize, usize) = (301, 5);

    fn random_bytes(count: usize) -> Vec<u8> {
        let mut state = 1_u32;
        std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(count)
        .collect()
    }

    /// The planes of a frame of random bytes, converted by that function.
    fn converted(
        format: PixelFormat,
        convert: impl Fn(&CameraPixels<'_>, &mut I420Planes<'_>),
    ) -> [Vec<u8>; 3] {
        let (width, height) = SIZE;
        let bytes = random_bytes(3 * (width + 1) * (height + 1));
        let (even_width, even_height) = (width / 2 * 2, height / 2 * 2);
        let [mut luma, mut cb, mut cr] =
            [1, 4, 4].map(|part| vec![0; even_width * even_height / part]);
        let mut out = I420Planes { width: even_width, luma: &mut luma, cb: &mut cb, cr: &mut cr };
        convert(&CameraPixels { format, width, height, bytes: &bytes }, &mut out);
        [luma, cb, cr]
    }

    /// R', G' and B' of a pixel, from 0 to 1 and beyond.
    fn rgb_of(format: PixelFormat, bytes: &[u8], (x, y): (usize, usize)) -> [f64; 3] {
        let (width, height) = SIZE;
        let even_width = width.next_multiple_of(2);
        let at = |index: usize| f64::from(bytes[index]);
        let of_ycc = |luma: f64, cb: f64, cr: f64| {
            let (luma, cb, cr) =
                ((luma - 16.0) / 219.0, (cb - 128.0) / 224.0, (cr - 128.0) / 224.0);
            [luma + 1.402 * cr, luma - 0.344_136 * cb - 0.714_136 * cr, luma + 1.772 * cb]
        };
        match format {
            PixelFormat::Yuyv => {
                let pair = 2 * even_width * y + x / 2 * 4;
                of_ycc(at(pair + x % 2 * 2), at(pair + 1), at(pair + 3))
            }
            PixelFormat::Nv12 => {
                let chroma = width * height + even_width * (y / 2) + x / 2 * 2;
                of_ycc(at(width * y + x), at(chroma), at(chroma + 1))
            }
            PixelFormat::Grey => [at(width * y + x) / 255.0; 3],
            PixelFormat::Rgb => [0, 1, 2].map(|n| at(3 * (width * y + x) + n) / 255.0),
            PixelFormat::Bgr => [2, 1, 0].map(|n| at(3 * (width * y + x) + n) / 255.0),
            PixelFormat::Mjpeg => panic!("not converted here"),
        }
    }

    /// Luma, Cb and Cr of BT.709 as ITU-R BT.709 defines them, without rounding.
    fn bt709([red, green, blue]: [f64; 3]) -> [f64; 3] {
        let luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
        let (cb, cr) = ((blue - luma) / 1.8556, (red - luma) / 1.5748);
        [16.0 + 219.0 * luma, 128.0 + 224.0 * cb, 128.0 + 224.0 * cr]
    }

    const FORMATS: [PixelFormat; 5] = [
        PixelFormat::Yuyv,
        PixelFormat::Nv12,
        PixelFormat::Grey,
        PixelFormat::Rgb,
        PixelFormat::Bgr,
    ];

    #[test]
    fn each_sample_is_less_than_one_from_the_standards_formula() {
        let (width, height) = (SIZE.0 / 2 * 2, SIZE.1 / 2 * 2);
        let bytes = random_bytes(3 * (SIZE.0 + 1) * (SIZE.1 + 1));
        for format in FORMATS {
            let [luma, cb, cr] = converted(format, |pixels, out| pixels.convert(out));
            let exact = |x, y| bt709(rgb_of(format, &bytes, (x, y)));
            for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
                let wanted = exact(x, y)[0].clamp(16.0, 235.0);
                let got = luma[width * y + x];
                assert!(
                    (f64::from(got) - wanted).abs() < 0.6,
                    "{format:?} {x},{y}: {got} {wanted}"
                );
            }
            for (x, y) in (0..height / 2).flat_map(|y| (0..width / 2).map(move |x| (x, y))) {
                let square =
                    [(0, 0), (1, 0), (0, 1), (1, 1)].map(|(a, b)| exact(2 * x + a, 2 * y + b));
                for (plane, number) in [(&cb, 1), (&cr, 2)] {
                    let mean = square.iter().map(|pixel| pixel[number]).sum::<f64>() / 4.0;
                    let (wanted, got) = (mean.clamp(16.0, 240.0), plane[width / 2 * y + x]);
                    let far = (f64::from(got) - wanted).abs();
                    assert!(far < 0.6, "{format:?} {x},{y} {number}: {got} {wanted}");
                }
            }
        }
    }

    #[test]
    fn every_processor_converts_to_the_same_bytes() {
        for format in FORMATS {
            let anywhere = converted(format, |pixels, out| pixels.convert_anywhere(out));
            assert_eq!(
                converted(format, |pixels, out| pixels.convert(out)),
                anywhere,
                "{format:?}"
            );
        }
    }
}
