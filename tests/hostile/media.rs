//! One who is let in, and turns on the one who sends to all.

use serde_json::Value;

use crate::{
    assault::{Attack, LONGEST, Sent},
    rig::process::alone,
    stage::{Show, Stages, elsewhere},
    viewer::HostileViewer,
};

/// Keyframes that are forced in a second at most, whoever asks.
const FORCED: f64 = 2.0;

/// Packets that are repeated for one viewer beyond one for each new one.
const REPEAT_BURST: u64 = 128;

/// Memory that all attacks together may cost the opener: what its allocator keeps of the 4 MiB
/// that one connection may hold of words, and of as much on their way.
const MEMORY_MIB: usize = 64;

#[test]
fn no_viewer_hurts_another() {
    let _turn = alone();
    let mut stages = Stages { attacked: Show::begin(), spared: Show::begin() };
    let elsewhere = elsewhere();
    let before = stages.watch("Peace").resident_mib;
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
        let viewer = HostileViewer::join(&stages.attacked.hub, "show", attack);
        let hostile = elsewhere.block_on(viewer);
        stages.watch(&format!("{attack:?}"));
        // Longer words than are agreed on are dropped by the library, which then takes no more.
        if let Attack::Words(LONGEST) | Attack::Channels = attack {
            elsewhere.block_on(hostile.cut_off());
        }
        elsewhere.block_on(hostile.until(|sent| has_been_heard(attack, sent)));
        judge(&elsewhere.block_on(hostile.leave()));
    }
    let stopped = stages.attacked.hub.person("Stan", &["join", "show"]);
    stages.attacked.opener().participant("Stan", "live");
    stopped.signal("STOP");
    let after = stages.watch("Stopped").resident_mib;
    assert!(after < before + MEMORY_MIB, "{after} MiB, it was {before}");
    for end in stages.end(vec![]) {
        let lost = |event: &&Value| event["name"] == "Vera" && event["state"] == "gone";
        assert_eq!(end.all("participant").into_iter().filter(lost).count(), 0);
    }
}

/// What holds however fast this machine is: of keyframes, repetitions and pictures.
fn judge(sent: &Sent) {
    let (seconds, keyframes) = (sent.seconds(), sent.keyframes.len());
    let Sent { new, repeated, bytes, fired, .. } = sent;
    println!(
        "    was sent {new} packets and {repeated} again, {} KiB, {keyframes} keyframes in \
         {seconds:.1} s; fired {fired}",
        bytes / 1024,
    );
    assert!(keyframes as f64 <= FORCED * seconds + 2.0, "{keyframes} keyframes in {seconds} s");
    assert!(*repeated <= new + REPEAT_BURST, "{repeated} of {new} packets were repeated");
}

/// Whether an attack that asks for something was answered: it is only then that a limit is tried.
fn has_been_heard(attack: Attack, sent: &Sent) -> bool {
    match attack {
        Attack::Keyframes => sent.keyframes.len() > 2,
        Attack::Losses => sent.repeated > 0,
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
