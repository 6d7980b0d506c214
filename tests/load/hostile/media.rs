//! A hostile viewer attacks the opener of a one-way session: the other viewer is not affected.

use serde_json::Value;

use super::{
    assault::{Attack, LONGEST, Sent},
    stage::{Show, Stages, elsewhere},
    viewer::HostileViewer,
};
use crate::rig::process::alone;

/// The highest number of keyframes per second that requests may force.
const FORCED: f64 = 2.0;

/// Packets that may be retransmitted to a viewer beyond one for each new packet.
const REPEAT_BURST: u64 = 128;

/// Memory in MiB that all attacks together may cost the opener. One connection may hold 4 MiB of
/// unread messages and as much in transit, of which the allocator keeps a part.
const MEMORY_MIB: usize = 64;

#[test]
fn no_viewer_reduces_the_frame_rate_of_another() {
    let _turn = alone();
    let mut broadcasts = Stages { attacked: Show::begin(), spared: Show::begin() };
    let runtime = elsewhere();
    let before = broadcasts.watch("No attack").resident_mib;
    for attack in [
        Attack::Mute,
        Attack::Deaf,
        Attack::Keyframes,
        Attack::Losses,
        Attack::Modest,
        Attack::Garbage,
        Attack::Words(LONGEST),
        Attack::Words(1 << 20),
        Attack::Channels,
        Attack::FalseLengths,
        Attack::FarAhead,
    ] {
        let viewer = HostileViewer::join(&broadcasts.attacked.hub, "show", attack);
        let hostile = runtime.block_on(viewer);
        broadcasts.watch(&format!("{attack:?}"));
        // Messages longer than the announced maximum do not close the connection: the receiving
        // SCTP stack drops them, and then accepts no more.
        if let Attack::Words(LONGEST) | Attack::Channels = attack {
            runtime.block_on(hostile.cut_off());
        }
        runtime.block_on(hostile.until(|traffic| has_been_heard(attack, traffic)));
        judge(&runtime.block_on(hostile.leave()));
    }
    let stopped = broadcasts.attacked.hub.person("Stan", &["join", "show"]);
    broadcasts.attacked.opener().participant("Stan", "live");
    stopped.signal("STOP");
    let after = broadcasts.watch("Stopped").resident_mib;
    assert!(after < before + MEMORY_MIB, "{after} MiB, it was {before}");
    for exit in broadcasts.end(vec![]) {
        let lost = |event: &&Value| event["name"] == "Vera" && event["state"] == "gone";
        assert_eq!(exit.all("participant").into_iter().filter(lost).count(), 0);
    }
}

/// Asserts the limits of keyframes and retransmissions, which hold on a machine of any speed.
fn judge(traffic: &Sent) {
    let (seconds, keyframes) = (traffic.seconds(), traffic.keyframes.len());
    let Sent { new, repeated: retransmitted, bytes, fired: attack_packets, .. } = traffic;
    println!(
        "    received {new} packets and {retransmitted} retransmissions, {} KiB, {keyframes} \
         keyframes in {seconds:.1} s; sent {attack_packets} attack packets",
        bytes / 1024,
    );
    assert!(keyframes as f64 <= FORCED * seconds + 2.0, "{keyframes} keyframes in {seconds} s");
    let limit = new + REPEAT_BURST;
    assert!(*retransmitted <= limit, "{retransmitted} retransmissions of {new} packets");
}

/// Whether the opener has answered the requests of an attack. Only then is its limit tested.
fn has_been_heard(attack: Attack, traffic: &Sent) -> bool {
    match attack {
        Attack::Keyframes => traffic.keyframes.len() > 2,
        Attack::Losses => traffic.repeated > 0,
        Attack::Modest
        | Attack::Garbage
        | Attack::Mute
        | Attack::Deaf
        | Attack::Words(_)
        | Attack::Channels
        | Attack::FalseLengths
        | Attack::FarAhead => true,
    }
}
