//! Sound and picture together.

use std::time::Duration;

use quintet::{model::Bitrate, transport::Impairment};

use super::{
    script::{
        Bound::{AtLeast, AtMost},
        Step::{self, Conditions, Measure, Media, Speaker},
        figure, run, seconds,
    },
    sender,
};

const CAMERA: sender::Media = sender::Media { video: Some(Bitrate::from_kbps(1200)), audio: true };

/// The delay in each direction; see `loss.rs`.
const DELAY: Duration = Duration::from_millis(51);

/// Sound and picture stay within EBU R37, sound 40 ms early to 60 ms late, for 90 of 100 frames,
/// from the tenth second on: a map needs two reports of each track.
fn in_sync(network: Impairment, speaker: Duration) -> [Step; 7] {
    [
        Conditions(network),
        Media(CAMERA),
        Speaker(speaker),
        seconds(10),
        Measure,
        seconds(20),
        figure(
            "sound is late by at most, in ms",
            |m| m.sound_lead_ms.map_or(f64::NEG_INFINITY, |lead| lead.0),
            AtLeast(-60.0),
            AtLeast(-60.0),
        ),
    ]
}

/// The other side of [`in_sync`], in ms: today.
fn not_early(today: f64) -> Step {
    figure(
        "sound is early by at most, in ms",
        |m| m.sound_lead_ms.map_or(f64::INFINITY, |lead| lead.1),
        AtMost(today),
        AtMost(40.0),
    )
}

/// A Bluetooth headset has 150 ms and more.
#[test]
fn pictures_wait_for_sound_that_a_speaker_delays() {
    // A packet that is lost twice delays its frame by 200 ms: by more than sound may be held.
    for (speaker_ms, loss, early, heard_after) in [
        (20, 0.0, 40.0, 110.0),
        (80, 0.0, 40.0, 170.0),
        (150, 0.0, 40.0, 240.0),
        (150, 0.05, 40.0, 330.0),
        (20, 0.05, 120.0, 220.0),
    ] {
        let network = Impairment { seed: 1, loss, delay: DELAY, ..Impairment::NONE };
        let mut steps = Vec::from(in_sync(network, Duration::from_millis(speaker_ms)));
        steps.push(not_early(early));
        steps.push(figure(
            "sound is heard after, in ms",
            |m| m.sound_delay_ms.unwrap_or(f64::INFINITY),
            AtMost(heard_after),
            AtMost(heard_after),
        ));
        run(&format!("sync, speaker {speaker_ms} ms, loss {loss}"), &steps);
    }
}
