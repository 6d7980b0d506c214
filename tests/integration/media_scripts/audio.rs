//! Sound alone where packets are lost or late.

use std::time::Duration;

use quintet::transport::Impairment;

use super::{
    script::{
        Bound::{self, AtMost},
        Step::{Conditions, Measure, Media},
        figure, run, seconds,
    },
    sender,
};

const VOICE: sender::Media = sender::Media { video: None, audio: true };

/// A network with 51 ms of delay in each direction; see `loss.rs`.
const NETWORK: Impairment =
    Impairment { seed: 1, delay: Duration::from_millis(51), ..Impairment::NONE };

/// A minute of sound over a network, from the sixth second on. The bounds are of the share that is
/// made up: today, and the goal.
fn minute(name: &str, network: Impairment, today: Bound, goal: Bound) {
    let steps = [
        Conditions(network),
        Media(VOICE),
        seconds(6),
        Measure,
        seconds(60),
        figure("concealed share", |m| m.concealed, today, goal),
    ];
    run(name, &steps);
}

#[test]
fn independent_losses_are_made_good_by_copies() {
    let losses = [
        (0.01, 0.003, 0.001),
        (0.05, 0.006, 0.002),
        (0.1, 0.005, 0.003),
        (0.2, 0.008, 0.005),
        (0.3, 0.025, 0.02),
    ];
    for (loss, today, goal) in losses {
        let network = Impairment { loss, ..NETWORK };
        minute(&format!("sound, {loss} lost"), network, AtMost(today), AtMost(goal));
    }
}

#[test]
fn losses_in_bursts_are_made_good_in_part() {
    for (loss, today, goal) in [(0.05, 0.025, 0.007), (0.2, 0.07, 0.03)] {
        let network = Impairment { loss, burst: 3.0, ..NETWORK };
        minute(&format!("sound, {loss} lost in bursts of 3"), network, AtMost(today), AtMost(goal));
    }
}

#[test]
fn jitter_is_hidden() {
    let network = Impairment { jitter: Duration::from_millis(30), ..NETWORK };
    minute("sound, jitter of 30 ms", network, AtMost(0.001), AtMost(0.001));
}
