//! Converts the sample rate of audio of one channel or two.

use super::Resampler;

/// Resamples audio of one channel or two, like [`Resampler`]. Both channels stay together to the
/// sample, and while there is one, the other costs nothing.
#[derive(Clone, Debug)]
pub struct StereoResampler {
    mid: Resampler,
    /// Present while there are two channels, and until its filter has only silence in it.
    side: Option<Resampler>,
    mid_output: Vec<f32>,
    side_output: Vec<f32>,
}

impl StereoResampler {
    /// A resampler from `rate` in hertz.
    ///
    /// # Panics
    /// If the rate is 0, which is a bug of the caller.
    pub fn new(rate: u32) -> Self {
        let (mid_output, side_output) = (vec![], vec![]);
        Self { mid: Resampler::new(rate), side: None, mid_output, side_output }
    }

    /// Takes input samples, of which there are as many of the side if there are any, and returns the
    /// output samples that are complete: the mid, and the side if there is one.
    pub fn push(&mut self, mid: &[f32], side: Option<&[f32]>) -> (&[f32], Option<&[f32]>) {
        self.side_output.clear();
        let has_side = side.is_some() || self.side.is_some();
        match (side, &mut self.side) {
            (Some(side), resampler) => {
                let resampler = resampler.get_or_insert_with(|| self.mid.after_silence());
                resampler.push(side, &mut self.side_output);
            }
            (None, Some(resampler)) => {
                resampler.push(&vec![0.0; mid.len()], &mut self.side_output);
                // At 48 kHz there is no filter.
                self.side = self.side.take().filter(|side| !side.is_silent());
            }
            (None, None) => {}
        }
        self.mid_output.clear();
        self.mid.push(mid, &mut self.mid_output);
        (&self.mid_output, has_side.then_some(&self.side_output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_channels_stay_together_when_the_second_one_comes_and_goes() {
        let tone = |n: usize| (n as f32 * 0.05).sin() / 2.0;
        for rate in [44_100, 96_000] {
            let block = rate as usize / 100;
            let mut resampler = StereoResampler::new(rate);
            let (mut mid, mut side, mut mono) = (vec![], vec![], 0);
            for number in 0..60 {
                let input: Vec<_> = (number * block..(number + 1) * block).map(tone).collect();
                let is_stereo = (20..40).contains(&number);
                let (of_mid, of_side) =
                    resampler.push(&input, is_stereo.then_some(input.as_slice()));
                mid.extend_from_slice(of_mid);
                mono += usize::from(of_side.is_none());
                match of_side {
                    Some(of_side) => side.extend_from_slice(of_side),
                    None => side.extend(vec![0.0; of_mid.len()]),
                }
            }
            assert_eq!((mono, mid.len()), (39, side.len()), "{rate}");
            let same = mid[10_000..18_000].iter().zip(&side[10_000..18_000]);
            assert!(same.clone().all(|(mid, side)| mid == side), "{rate}");
            assert!(side[..9000].iter().chain(&side[20_000..]).all(|sample| *sample == 0.0));
            let step = side.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
            assert!(step < 0.7, "{rate}: {step}");
        }
    }
}
