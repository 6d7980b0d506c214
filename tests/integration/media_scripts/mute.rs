//! From the mute key to silence, and back.

use std::time::Duration;

use quintet::transport::Impairment;

use super::{
    script::{
        Bound::{self, AtMost},
        Step::{self, Check, Conditions, Measure, Media, Mute, Run},
        figure, run, seconds,
    },
    sender,
};

const VOICE: sender::Media = sender::Media { video: None, audio: true };

/// The delay of the network, which is part of all figures here: that of a cable.
const DELAY: Duration = Duration::from_millis(1);

const fn losses(loss: f64, seed: u64) -> Step {
    Conditions(Impairment { seed, loss, delay: DELAY, ..Impairment::NONE })
}

/// Mutes and unmutes at this moment, relative to the packets of 20 ms.
fn switches(loss: Step, offset_ms: u64, silence: Bound) -> [Step; 10] {
    [
        loss,
        Media(VOICE),
        Run(Duration::from_millis(2000 + offset_ms)),
        Measure,
        Mute(true),
        seconds(2),
        figure(
            "mute to silence in ms",
            |m| m.heard_ms.map_or(0.0, |at| at.1 as f64),
            silence,
            AtMost(120.0),
        ),
        Measure,
        Mute(false),
        seconds(1),
    ]
}

#[test]
fn a_mute_is_heard_as_silence_at_once_and_an_unmute_as_sound() {
    for offset_ms in [0, 5, 10, 15] {
        let unmuted = figure(
            "press to sound in ms",
            |m| m.heard_ms.map_or(f64::INFINITY, |at| at.0 as f64),
            AtMost(65.0),
            AtMost(80.0),
        );
        let mut steps = Vec::from(switches(losses(0.0, 1), offset_ms, AtMost(75.0)));
        steps.insert(6, Check("the mute is no loss", |m| m.concealed == 0.0));
        steps.push(unmuted);
        run("mute", &steps);
    }
}

#[test]
fn a_mute_is_heard_as_silence_also_where_packets_are_lost() {
    for seed in 1..6 {
        let steps = switches(losses(0.2, seed), 0, AtMost(110.0));
        run("mute at 20 % loss", &steps);
    }
}
