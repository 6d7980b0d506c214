//! Links that are too slow.

use quintet::{model::Bitrate, transport::Impairment};

use super::{
    script::{
        Bound::{AtLeast, AtMost},
        Step::{self, Check, Conditions, Measure, Media},
        figure, run, seconds,
    },
    sender,
};

const CAMERA: sender::Media = sender::Media { video: Some(Bitrate::from_kbps(1500)), audio: true };

/// A bottleneck with a queue of 300 ms (RFC 8867, section 4.4).
const fn bottleneck(rate: Bitrate) -> Step {
    Conditions(Impairment { rate: Some(rate), ..Impairment::NONE })
}

/// The video gets the rate that the path carries.
#[test]
fn a_link_of_1_mbit_is_slower_than_the_video() {
    let steps = [
        bottleneck(Bitrate::from_kbps(1000)),
        Media(CAMERA),
        seconds(2),
        Measure,
        seconds(10),
        figure("frames a second", |m| m.fps, AtLeast(29.0), AtLeast(29.0)),
        figure("frozen share", |m| m.frozen, AtMost(0.0), AtMost(0.0)),
        figure("concealed share", |m| m.concealed, AtMost(0.01), AtMost(0.01)),
    ];
    run("1 Mbit/s", &steps);
}

/// The queue becomes empty again, although packets were lost and sent again.
#[test]
fn a_link_of_2_mbit_becomes_one_of_1_mbit_and_recovers() {
    let fast = bottleneck(Bitrate::from_kbps(2000));
    let steps = [
        fast,
        Media(CAMERA),
        seconds(2),
        bottleneck(Bitrate::from_kbps(1000)),
        seconds(3),
        bottleneck(Bitrate::from_kbps(2000)),
        seconds(1),
        Measure,
        seconds(5),
        figure("frames a second", |m| m.fps, AtLeast(29.0), AtLeast(29.0)),
        figure("concealed share", |m| m.concealed, AtMost(0.01), AtMost(0.01)),
    ];
    run("2 to 1 to 2 Mbit/s", &steps);
}

/// Sound comes first where there is hardly room for pictures.
#[test]
fn a_narrow_link_keeps_the_sound() {
    for kbps in [500, 250] {
        let steps = [
            bottleneck(Bitrate::from_kbps(kbps)),
            Media(CAMERA),
            seconds(6),
            Measure,
            seconds(30),
            figure("frames a second", |m| m.fps, AtLeast(28.0), AtLeast(24.0)),
            figure("concealed share", |m| m.concealed, AtMost(0.005), AtMost(0.01)),
        ];
        run(&format!("{kbps} kbit/s"), &steps);
    }
}

/// Copies of sound need a rate that such a link does not have: with them, the queue would lose
/// more than they repair.
#[test]
fn copies_do_not_fill_the_queue_of_a_narrow_link() {
    let rate = Some(Bitrate::from_kbps(100));
    let steps = [
        Conditions(Impairment { rate, loss: 0.05, seed: 1, ..Impairment::NONE }),
        Media(sender::Media { video: None, audio: true }),
        seconds(6),
        Measure,
        seconds(60),
        Check("the queue loses little", |m| m.audio_packets.1 <= 200),
        figure("concealed share", |m| m.concealed, AtMost(0.006), AtMost(0.01)),
    ];
    run("100 kbit/s, 5 % lost", &steps);
}
