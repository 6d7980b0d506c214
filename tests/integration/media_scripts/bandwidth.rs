//! Links that are too slow.

use quintet::{model::Bitrate, transport::Impairment};

use super::{
    script::{
        Bound::{AtLeast, AtMost},
        Step::{self, Conditions, Measure, Media},
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
