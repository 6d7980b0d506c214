//! A hostile viewer attacks the opener of a one-way session: the other viewer is not affected.

use serde_json::Value;

use super::{
    attack::{Attack, MAX_MESSAGE_BYTES, Traffic},
    broadcast::{Broadcast, Broadcasts, low_priority_runtime},
    hostile_viewer::HostileViewer,
};
use crate::rig::process::take_turn;

/// The highest number of keyframes per second that requests may force.
const MAX_KEYFRAMES_PER_SECOND: f64 = 2.0;

/// Packets that may be retransmitted to a viewer beyond one for each new packet.
const RETRANSMIT_BURST: u64 = 128;

/// Memory in MiB that all attacks together may cost the opener. One connection may hold 4 MiB of
/// unread messages and as much in transit, of which the allocator keeps a part.
const MEMORY_MIB: usize = 64;

/// The attacks, in groups that go on at the same time, each by a viewer of its own. Those that make
/// the opener work most are alone, so that its work is not shared out between them.
const ATTACKS: [&[Attack]; 7] = [
    &[Attack::Idle, Attack::StopReading, Attack::KeyframeRequests],
    &[Attack::Nacks],
    &[Attack::LowBandwidth],
    &[Attack::Garbage],
    &[Attack::DataMessages(MAX_MESSAGE_BYTES), Attack::DataMessages(1 << 20)],
    &[Attack::DataChannels],
    &[Attack::SctpFalseLengths, Attack::SctpForwardTsn],
];

#[test]
fn no_viewer_reduces_the_frame_rate_of_another() {
    let _turn = take_turn();
    let mut broadcasts = Broadcasts { attacked: Broadcast::start(), control: Broadcast::start() };
    let runtime = low_priority_runtime();
    let before = broadcasts.compare("No attack").resident_mib;
    for attacks in ATTACKS {
        let join = |attack: &Attack| {
            runtime.block_on(HostileViewer::join(&broadcasts.attacked.hub, "show", *attack))
        };
        let viewers: Vec<_> = attacks.iter().map(join).collect();
        broadcasts.compare(&format!("{attacks:?}"));
        for (attack, viewer) in attacks.iter().zip(viewers) {
            // Messages longer than the announced maximum do not close the connection: the receiving
            // SCTP stack drops them, and then accepts no more.
            if let Attack::DataMessages(MAX_MESSAGE_BYTES) | Attack::DataChannels = attack {
                runtime.block_on(viewer.wait_until_replaced());
            }
            runtime.block_on(viewer.wait_until(|traffic| was_answered(*attack, traffic)));
            assert_within_limits(&runtime.block_on(viewer.leave()));
        }
    }
    let stopped = broadcasts.attacked.hub.start_participant("Stan", &["join", "show"]);
    broadcasts.attacked.opener().participant("Stan", "live");
    stopped.signal("STOP");
    let after = broadcasts.compare("Stopped").resident_mib;
    assert!(after < before + MEMORY_MIB, "{after} MiB, it was {before}");
    for exit in broadcasts.finish(vec![]) {
        let lost = |event: &&Value| event["name"] == "Vera" && event["state"] == "gone";
        assert_eq!(exit.events_named("participant").into_iter().filter(lost).count(), 0);
    }
}

/// Asserts the limits of keyframes and retransmissions, which hold on a machine of any speed.
fn assert_within_limits(traffic: &Traffic) {
    let (seconds, keyframes) = (traffic.video_seconds(), traffic.keyframe_times.len());
    let Traffic { new_packets: new, retransmitted, bytes, attack_packets, .. } = traffic;
    println!(
        "    received {new} packets and {retransmitted} retransmissions, {} KiB, {keyframes} \
         keyframes in {seconds:.1} s; sent {attack_packets} attack packets",
        bytes / 1024,
    );
    assert!(
        keyframes as f64 <= MAX_KEYFRAMES_PER_SECOND * seconds + 2.0,
        "{keyframes} keyframes in {seconds} s"
    );
    let limit = new + RETRANSMIT_BURST;
    assert!(*retransmitted <= limit, "{retransmitted} retransmissions of {new} packets");
}

/// Whether the opener has answered the requests of an attack. Only then is its limit tested.
fn was_answered(attack: Attack, traffic: &Traffic) -> bool {
    match attack {
        Attack::KeyframeRequests => traffic.keyframe_times.len() > 2,
        Attack::Nacks => traffic.retransmitted > 0,
        Attack::LowBandwidth
        | Attack::Garbage
        | Attack::Idle
        | Attack::StopReading
        | Attack::DataMessages(_)
        | Attack::DataChannels
        | Attack::SctpFalseLengths
        | Attack::SctpForwardTsn => true,
    }
}
