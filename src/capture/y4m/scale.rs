//! Pictures with square pixels.

use crate::model::Size;

/// Makes an I420 picture of another size, bilinearly: the difference is a pixel's shape, seldom
/// more than a third.
pub(super) struct Scaler {
    from: Size,
    to: Size,
    /// Where the samples of a row come from, for luma and for colour.
    columns: [Vec<Tap>; 2],
    rows: [Vec<Tap>; 2],
}

/// Two neighbours in the source, and how much of the second one, in 256ths.
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

    /// Fills `target` with the picture `source`, both I420 of the sizes given at first.
    pub(super) fn scale(&self, source: &[u8], target: &mut [u8]) {
        let pixels = |size: Size| size.width as usize * size.height as usize;
        let planes = [pixels(self.from), pixels(self.from) / 4, pixels(self.from) / 4];
        let wanted = [pixels(self.to), pixels(self.to) / 4, pixels(self.to) / 4];
        let (mut source, mut target) = (source, target);
        for (number, (from, to)) in planes.into_iter().zip(wanted).enumerate() {
            let (plane, rest) = source.split_at(from);
            let (made, others) = target.split_at_mut(to);
            (source, target) = (rest, others);
            let kind = number.min(1);
            let stride = self.from.width as usize >> kind;
            let width = self.to.width as usize >> kind;
            for (row, tap) in made.chunks_exact_mut(width).zip(&self.rows[kind]) {
                let line = |at: usize| &plane[at * stride..(at + 1) * stride];
                blend(row, (line(tap.first), line(tap.second)), tap.weight, &self.columns[kind]);
            }
        }
    }
}

fn blend(row: &mut [u8], (upper, lower): (&[u8], &[u8]), weight: u32, columns: &[Tap]) {
    for (pixel, tap) in row.iter_mut().zip(columns) {
        let across = |line: &[u8]| {
            u32::from(line[tap.first]) * (256 - tap.weight)
                + u32::from(line[tap.second]) * tap.weight
        };
        let sum = across(upper) * (256 - weight) + across(lower) * weight;
        *pixel = ((sum + (1 << 15)) >> 16) as u8;
    }
}

fn taps(from: u32, to: u32) -> Vec<Tap> {
    let last = (from - 1) as usize;
    let tap = |n: u32| {
        // The middle of a target sample, in 256ths of a source sample.
        let middle = (2 * u64::from(n) + 1) * u64::from(from) * 128 / u64::from(to);
        let place = middle.saturating_sub(128);
        let first = ((place / 256) as usize).min(last);
        Tap { first, second: (first + 1).min(last), weight: (place % 256) as u32 }
    };
    (0..to).map(tap).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slope_stays_a_slope_and_one_colour_stays_one() {
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
    fn the_same_size_is_the_same_picture() {
        let size = Size::new(16, 16);
        let source: Vec<_> = (0..384).map(|n| (n * 7 % 251) as u8).collect();
        let mut target = vec![0; 384];
        Scaler::new(size, size).scale(&source, &mut target);
        assert_eq!(target, source);
    }
}
