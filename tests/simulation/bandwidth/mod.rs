//! The bandwidth estimator and the pacer over models of networks.
//!
//! The cases are those of RFC 8867 ("Test Cases for Evaluating Congestion Control for Interactive
//! Real-Time Media"), of libwebrtc, and faults that other programs had. A failure prints its seed.

mod capacity;
mod fallback;
mod faults;
mod flow;
mod governing;
mod loss;
mod network;
mod remb_receiver;
mod sharing;
mod tcp;
mod world;

/// The runs of each case, unless `QUINTET_SEEDS` says otherwise. The bounds hold for most others.
const SEEDS: u64 = 6;

/// Runs a case with each seed.
fn with_seeds(mut case: impl FnMut(u64)) {
    for seed in crate::seeds(SEEDS) {
        println!("QUINTET_SEED={seed}");
        case(seed);
    }
}

/// The mean of some values.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
