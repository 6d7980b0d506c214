//! How alike the queues of two peers are.

use std::{collections::VecDeque, time::Duration};

/// The queue of a peer, ten times a second, each the mean of 300 ms.
#[derive(Debug, Default)]
pub(super) struct QueueSeries {
    /// The sums and numbers of the reports of the last tenths of a second.
    recent: VecDeque<(f64, u32)>,
    /// In milliseconds.
    samples: VecDeque<f64>,
}

/// The samples that are compared: eight seconds.
pub(super) const SAMPLES: usize = 80;

/// The samples that one series may be behind another: reports travel for different times.
const MAX_LAG: usize = 2;

/// The tenths of a second of which each sample is the mean.
const MEAN_OF: usize = 3;

impl QueueSeries {
    /// Notes a report.
    pub(super) fn add(&mut self, queue: Duration) {
        if self.recent.is_empty() {
            self.recent.push_back((0.0, 0));
        }
        if let Some((sum, count)) = self.recent.back_mut() {
            *sum += queue.as_secs_f64() * 1e3;
            *count += 1;
        }
    }

    /// Ends a tenth of a second.
    pub(super) fn tick(&mut self) {
        let (sum, count) = self
            .recent
            .iter()
            .fold((0.0, 0), |(sum, count), (one, number)| (sum + one, count + number));
        let last = self.samples.back().copied().unwrap_or(0.0);
        self.samples.push_back(if count > 0 { sum / f64::from(count) } else { last });
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        self.recent.push_back((0.0, 0));
        if self.recent.len() > MEAN_OF {
            self.recent.pop_front();
        }
    }

    /// The least of the last samples, so many, once there are enough.
    pub(super) fn least(&self, count: usize) -> Option<f64> {
        let last = self.samples.iter().rev().take(count);
        (self.samples.len() >= count).then(|| last.copied().fold(f64::INFINITY, f64::min))
    }

    /// The newest sample, and by how much it is above the least of the last ones, so many, once there
    /// are enough.
    pub(super) fn rise(&self, count: usize) -> Option<(f64, f64)> {
        let (last, least) = (*self.samples.back()?, self.least(count)?);
        Some((last, last - least))
    }

    /// The samples, once there are enough.
    pub(super) fn samples(&self) -> Option<Vec<f64>> {
        (self.samples.len() == SAMPLES).then(|| self.samples.iter().copied().collect())
    }
}

/// The sample below which 95 % are.
pub(super) fn upper(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() * 95 / 100).copied().unwrap_or(0.0)
}

/// The mean of several series.
pub(super) fn mean_of<'a>(series: impl Iterator<Item = &'a Vec<f64>>) -> Vec<f64> {
    let (mut sum, mut count) = (vec![0.0; SAMPLES], 0.0);
    for samples in series {
        sum.iter_mut().zip(samples).for_each(|(sum, sample)| *sum += sample);
        count += 1.0;
    }
    sum.iter().map(|sum| sum / f64::max(count, 1.0)).collect()
}

/// The largest correlation of two series, -1 to 1, if one may be behind the other.
pub(super) fn likeness(one: &[f64], other: &[f64]) -> f64 {
    let lagged = |lag: usize| {
        let length = one.len().min(other.len()) - lag;
        let ahead = correlation(&one[lag..lag + length], &other[..length]);
        ahead.max(correlation(&one[..length], &other[lag..lag + length]))
    };
    (0..=MAX_LAG).map(lagged).fold(-1.0, f64::max)
}

fn correlation(one: &[f64], other: &[f64]) -> f64 {
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len() as f64;
    let (mean_one, mean_other) = (mean(one), mean(other));
    let (mut products, mut squares_one, mut squares_other) = (0.0, 0.0, 0.0);
    for (x, y) in one.iter().zip(other) {
        products += (x - mean_one) * (y - mean_other);
        squares_one += (x - mean_one).powi(2);
        squares_other += (y - mean_other).powi(2);
    }
    let scale = (squares_one * squares_other).sqrt();
    if scale > 0.0 { products / scale } else { 0.0 }
}
