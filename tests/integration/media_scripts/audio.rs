//! Sound alone where packets are lost or late.

use std::time::Duration;

use quintet::transport::Impairment;

use super::{
    script::{
        Bound::{self, AtMost},
        Step::{self, Check, Conditions, Measure, Media},
        figure, run, seconds,
    },
    sender::{self, Sound},
};

const VOICE: sender::Media = sender::Media { video: None, audio: true };

/// A network with 51 ms of delay in each direction; see `loss.rs`.
const NETWORK: Impairment =
    Impairment { seed: 1, delay: Duration::from_millis(51), ..Impairment::NONE };

/// A minute of sound over a network, from the sixth second on. The bounds are of the share that is
/// made up: today, and the goal. The figures that are printed tell why it was.
fn minute(sound: Sound, network: Impairment, today: Bound, goal: Bound) {
    let steps = [
        Conditions(network),
        Step::Sound(sound),
        Media(VOICE),
        seconds(6),
        Measure,
        seconds(60),
        figure("concealed share", |m| m.concealed, today, goal),
    ];
    let Impairment { loss, burst, jitter, .. } = network;
    run(&format!("{sound:?}, {loss} lost in bursts of {burst}, jitter {jitter:?}"), &steps);
}

/// A voice has in-band FEC, and copies come to its help from 3 % on. A tone stands for all that
/// Opus makes no FEC of: music, noise, the ends of words.
#[test]
fn independent_losses_are_made_good_by_fec_and_copies() {
    let losses = [
        (0.01, 0.0005, 0.001),
        (0.05, 0.0015, 0.002),
        (0.1, 0.002, 0.003),
        (0.2, 0.005, 0.005),
        (0.3, 0.018, 0.02),
    ];
    for sound in [Sound::Voice, Sound::Tone] {
        for (loss, today, goal) in losses {
            minute(sound, Impairment { loss, ..NETWORK }, AtMost(today), AtMost(goal));
        }
    }
}

/// One lost packet of a hundred is had from the next packet, whatever the sound is: only what must
/// be waited for delays it.
#[test]
fn a_single_loss_costs_no_sound_and_one_packet_of_delay() {
    for sound in [Sound::Voice, Sound::Tone] {
        let steps = [
            Conditions(Impairment { loss: 0.01, ..NETWORK }),
            Step::Sound(sound),
            Media(VOICE),
            seconds(6),
            Measure,
            seconds(60),
            Check("packets were lost", |m| m.audio_packets.1 > 10),
            Check("none was made up for lack of FEC", |m| m.causes.no_fec == 0),
            Check("FEC was waited for", |m| m.causes.empty <= 10),
        ];
        run(&format!("{sound:?}, single losses"), &steps);
    }
}

#[test]
fn losses_in_bursts_are_made_good_in_part() {
    for (loss, today, goal) in [(0.05, 0.015, 0.007), (0.2, 0.065, 0.03)] {
        let network = Impairment { loss, burst: 3.0, ..NETWORK };
        minute(Sound::Voice, network, AtMost(today), AtMost(goal));
    }
}

#[test]
fn jitter_is_hidden() {
    let network = Impairment { jitter: Duration::from_millis(30), ..NETWORK };
    minute(Sound::Voice, network, AtMost(0.001), AtMost(0.001));
}
