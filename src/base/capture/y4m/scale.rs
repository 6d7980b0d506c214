//! Scales frames to square pixels.

use crate::model::Size;

/// Scales I420 frames to another size by bilinear interpolation. That is good enough here: the
/// size differs by the pixel aspect ratio, seldom by more than a third.
pub(super) struct Scaler {
    from: Size,
    to: Size,
    /// The source samples of each column and row, for luma and for chroma.
    columns: [Vec<Tap>; 2],
    rows: [Vec<Tap>; 2],
}

/// Two neighbouring source samples, and the weight of the second one in 256ths.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    weight: u32,
}

impl Scaler {
    pub(super) fn new(from: Size, to: Size) -> Self {
        let both = |from: u32, to: u32| [taps(from, to), taps(from / 2, to / 2)];
        let (columns, rows) = (both(from.width, to.width), both(from.height, to.height));
        Self { from, to, columns, rows }
    }

    /// Scales the frame `source` into `target`, both I420 in the sizes given to [`Self::new`].
    pub(super) fn scale(&self, source: &[u8], target: &mut [u8]) {
        let pixels = |size: Size| size.width as usize * size.height as usize;
        let planes = [pixels(self.from), pixels(self.from) / 4, pixels(self.from) / 4];
        let scaled_planes = [pixels(self.to), pixels(self.to) / 4, pixels(self.to) / 4];
        let (mut source, mut target) = (source, target);
        for (number, (from, to)) in planes.into_iter().zip(scaled_planes).enumerate() {
            let (plane, source_rest) = source.split_at(from);
            let (scaled, target_rest) = target.split_at_mut(to);
            (source, target) = (source_rest, target_rest);
            // 0 for luma, 1 for chroma, which has half the size in each direction.
            let kind = number.min(1);
            let stride = self.from.width as usize >> kind;
            let width = self.to.width as usize >> kind;
            for (row, tap) in scaled.chunks_exact_mut(width).zip(&self.rows[kind]) {
                let source_row = |at: usize| &plane[at * stride..(at + 1) * stride];
                let rows = (source_row(tap.first), source_row(tap.second));
                blend(row, rows, tap.weight, &self.columns[kind]);
            }
        }
    }
}

fn blend(row: &mut [u8], (upper, lower): (&[u8], &[u8]), weight: u32, columns: &[Tap]) {
    for (pixel, tap) in row.iter_mut().zip(columns) {
        let across = |row: &[u8]| {
            u32::from(row[tap.first]) * (256 - tap.weight) + u32::from(row[tap.second]) * tap.weight
        };
        let sum = across(upper) * (256 - weight) + across(lower) * weight;
        *pixel = ((sum + (1 << 15)) >> 16) as u8;
    }
}

fn taps(from: u32, to: u32) -> Vec<Tap> {
    let last = (from - 1) as usize;
    let tap = |n: u32| {
        // The centre of a target sample, in 256ths of a source sample.
        let centre = (2 * u64::from(n) + 1) * u64::from(from) * 128 / u64::from(to);
        let position = centre.saturating_sub(128);
        let first = ((position / 256) as usize).min(last);
        Tap { first, second: (first + 1).min(last), weight: (position % 256) as u32 }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gradient_stays_a_gradient_and_a_plain_colour_stays_the_same() {
        let (from, to) = (Size::new(32, 16), Size::new(48, 20));
        let luma = (0..512).map(|n| 100 + (n % 32) as u8);
        let source: Vec<_> = luma.chain([60; 128]).chain([200; 128]).collect();
        let mut target = vec![0; to.i420_bytes()];
        Scaler::new(from, to).scale(&source, &mut target);
        for (number, row) in target[..960].chunks(48).enumerate() {
            assert!(row.is_sorted(), "{row:?}");
            assert_eq!((row[0], row[47]), (100, 131), "row {number}");
            assert!((115..=116).contains(&row[23]), "{row:?}");
        }
        assert!(target[960..1200].iter().all(|sample| *sample == 60));
        assert!(target[1200..].iter().all(|sample| *sample == 200));
    }

    #[test]
    fn scaling_to_the_same_size_changes_nothing() {
        let size = Size::new(16, 16);
        let source: Vec<_> = (0..384).map(|n| (n * 7 % 251) as u8).collect();
        let mut target = vec![0; 384];
        Scaler::new(size, size).scale(&source, &mut target);
        assert_eq!(target, source);
    }
}
