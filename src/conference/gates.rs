//! What switches do: tests of everything that is behind them.

use super::{Effect, Input, stage::*};
use crate::model::{
    ClientMessage, CloseReason, Command, ErrorCode, FailureCode, Gate, HubMessage, LeaveReason,
    OpenRequest, ParticipantId, Payload, PeerId, PeerState, Presence, Role, SessionId, SourceKind,
    SourceState,
};

/// What connections are fed with from now on: number, sound, picture.
fn fed(stage: &Stage) -> Vec<(u64, bool, bool)> {
    let fed = stage.done.iter().filter_map(|effect| {
        let Effect::SetSending { peer, audio, video } = effect else { return None };
        Some((peer.0, *audio, video.is_some()))
    });
    fed.collect()
}

/// How connections are listened to from now on: number, heard, speaks.
fn heard(stage: &Stage) -> Vec<(u64, bool, bool)> {
    let heard = stage.done.iter().filter_map(|effect| {
        let Effect::SetHeard { peer, heard, speaks } = effect else { return None };
        Some((peer.0, *heard, *speaks))
    });
    heard.collect()
}

/// What is wanted now: camera, microphone.
fn demand(stage: &Stage) -> Vec<(bool, bool)> {
    let demand = stage.done.iter().filter_map(|effect| {
        let Effect::Demand { camera, microphone, .. } = effect else { return None };
        Some((*camera, *microphone))
    });
    demand.collect()
}

/// A mesh of ours in which "a" is live by connection 1.
fn live() -> Stage {
    let mut stage = Stage::opened(MESH);
    stage.hear(came(member("a"))).state(1, PeerState::Connected);
    stage
}

fn runs(stage: &mut Stage) {
    for kind in [SourceKind::Camera, SourceKind::Microphone] {
        stage.give(Input::Source(kind, SourceState::Running));
    }
}

/// The same again under another id, with "b" live by connection 2.
fn and_another(stage: &mut Stage) -> SessionId {
    let other = SessionId::parse("other").unwrap();
    let request = OpenRequest { session: other.clone(), kind: MESH, limit: None };
    stage.give(Input::Command(Command::Open(request)));
    let mut answer = opened(MESH, vec![]);
    if let crate::model::HubMessage::Opened { session, .. } = &mut answer {
        *session = other.clone();
    }
    stage.hear(answer);
    let participant = member("b");
    let came = crate::model::HubMessage::ParticipantJoined { session: other.clone(), participant };
    stage.hear(came).state(2, PeerState::Connected);
    other
}

fn view(stage: &Stage, who: &str) -> (bool, bool) {
    let all = stage.status().participants;
    let one = all.into_iter().find(|one| one.participant == id(who)).unwrap();
    (one.microphone, one.camera)
}

#[test]
fn what_passes_needs_both_gates_open() {
    let mut stage = live();
    let other = and_another(&mut stage);
    stage.turn(Some(session()), Gate::Microphone, false);
    assert_eq!(fed(&stage), [(1, false, true)]);
    stage.turn(None, Gate::Microphone, false);
    assert_eq!(fed(&stage), [(2, false, true)]);
    stage.turn(Some(session()), Gate::Microphone, true);
    assert_eq!(fed(&stage), [], "the global one is closed");
    stage.turn(None, Gate::Microphone, true);
    assert_eq!(fed(&stage), [(1, true, true), (2, true, true)]);
    stage.turn(Some(other), Gate::Camera, false);
    assert_eq!(fed(&stage), [(2, true, false)]);
}

/// What is heard and seen within 200 ms of a click has nothing to wait for but the next frame of
/// the window and the next packet: the core does all of it in the step that takes the command.
#[test]
fn a_switch_holds_in_the_very_step_that_takes_its_command() {
    for (gate, fed_with, ears) in [
        (Gate::Microphone, Some((1, false, true)), None),
        (Gate::Camera, Some((1, true, false)), None),
        (Gate::Listening, None, Some((1, false, true))),
    ] {
        for of in [None, Some(session())] {
            let mut stage = live();
            runs(&mut stage);
            stage.turn(of.clone(), gate, false);
            assert_eq!(fed(&stage), Vec::from_iter(fed_with), "{gate:?} of {of:?}: what leaves");
            assert_eq!(heard(&stage), Vec::from_iter(ears), "{gate:?} of {of:?}: what is heard");
            let snapshot = stage.core.snapshot();
            let shown = if of.is_some() { stage.status().gates } else { snapshot.gates };
            assert!(!shown.is_open(gate), "{gate:?} of {of:?} is shown at once");
            let on_air = (stage.status().heard, stage.status().seen);
            assert_eq!(on_air, (gate != Gate::Microphone, gate != Gate::Camera));
            let told = media(gate != Gate::Microphone, gate != Gate::Camera);
            let said = if gate == Gate::Listening { vec![] } else { vec![told] };
            assert_eq!(stage.said(), said, "the others are told at once");
        }
    }
}

#[test]
fn a_switch_that_stands_so_already_changes_nothing() {
    let mut stage = live();
    for gate in [Gate::Microphone, Gate::Camera, Gate::Listening] {
        stage.turn(None, gate, true).turn(Some(session()), gate, true);
        assert_eq!(stage.done, []);
        stage.turn(None, gate, false).turn(None, gate, false);
        assert_eq!(stage.done, []);
    }
}

#[test]
fn a_new_connection_starts_with_the_gates_as_they_stand() {
    let mut stage = live();
    stage.turn(Some(session()), Gate::Camera, false).turn(None, Gate::Listening, false);
    stage.hear(came(member("b")));
    assert_eq!(heard(&stage), [(2, false, true)], "before any sound of it comes");
    assert_eq!(fed(&stage), []);
    stage.state(2, PeerState::Connected);
    assert_eq!((fed(&stage), stage.said()), (vec![(2, true, false)], vec![media(true, false)]));
    stage
        .turn(None, Gate::Microphone, false)
        .hear(came(member("c")))
        .state(3, PeerState::Connected);
    assert_eq!((fed(&stage), stage.said()), (vec![], vec![media(false, false)]));
}

#[test]
fn a_closed_ear_hears_nobody_in_one_session_or_in_all() {
    let mut stage = live();
    let other = and_another(&mut stage);
    stage.turn(Some(other.clone()), Gate::Listening, false);
    assert_eq!(heard(&stage), [(2, false, true)]);
    stage.turn(None, Gate::Listening, false);
    assert_eq!(heard(&stage), [(1, false, true)]);
    stage.turn(None, Gate::Listening, true).turn(Some(other), Gate::Listening, true);
    assert_eq!(heard(&stage), [(2, true, true)]);
}

#[test]
fn a_microphone_that_every_gate_holds_back_is_closed_after_a_while() {
    let mut stage = live();
    stage.turn(None, Gate::Microphone, false);
    assert_eq!((fed(&stage), demand(&stage)), (vec![(1, false, true)], vec![]));
    stage.pass_ms(4999);
    assert_eq!(demand(&stage), []);
    stage.pass_ms(1);
    assert_eq!(demand(&stage), [(true, false)]);
    stage.turn(None, Gate::Microphone, true);
    assert_eq!(demand(&stage), [(true, true)]);
}

#[test]
fn a_gate_of_one_session_leaves_the_microphone_to_the_other() {
    let mut stage = live();
    and_another(&mut stage);
    stage.turn(Some(session()), Gate::Microphone, false).pass_ms(60_000);
    assert_eq!(demand(&stage), []);
}

#[test]
fn the_own_picture_has_the_camera_opened_for_nobody_else() {
    let mut stage = Stage::opened(MESH);
    stage.give(Input::Preview { camera: true, microphone: false });
    assert_eq!(demand(&stage), [(true, false)]);
    stage.turn(None, Gate::Camera, false).pass_ms(60_000);
    assert_eq!(demand(&stage), [], "whatever the gates");
    stage.give(Input::Preview { camera: false, microphone: true });
    assert_eq!(demand(&stage), [(true, true)]);
    stage.pass_ms(5000);
    assert_eq!(demand(&stage), [(false, true)]);
}

#[test]
fn others_are_told_what_is_sent_and_what_they_say_is_shown() {
    let mut stage = live();
    stage.turn(None, Gate::Microphone, false);
    assert_eq!(stage.said(), [media(false, true)]);
    stage.turn(Some(session()), Gate::Microphone, false);
    assert_eq!(stage.said(), [], "nothing changed for them");
    assert_eq!(view(&stage, "a"), (true, true), "until they say otherwise");
    stage.hear(word("a", media(true, false)));
    assert_eq!(view(&stage, "a"), (true, false));
    assert_eq!(heard(&stage), []);
    let expected = |expected| Effect::ExpectPictures { peer: PeerId(1), expected };
    assert_eq!(stage.done, [expected(false)], "nothing is answered");
    stage.hear(word("a", media(false, true)));
    assert_eq!((view(&stage, "a"), heard(&stage)), ((false, true), vec![(1, true, false)]));
    assert!(stage.done.contains(&expected(true)));
    assert_eq!(stage.done.len(), 2, "nothing is answered");
}

#[test]
fn a_viewer_sends_nothing_and_says_so() {
    let mut opener = member("o");
    opener.role = Role::Opener;
    let mut stage = Stage::joined(BROADCAST, vec![opener]);
    stage.hear(word("o", offer(1))).state(1, PeerState::Connected);
    assert_eq!((stage.said(), fed(&stage)), (vec![media(false, false)], vec![]));
    stage.turn(None, Gate::Microphone, false);
    assert_eq!(stage.done, []);
}

#[test]
fn who_has_no_camera_says_so_and_gets_one_later() {
    let mut stage = Stage::opened(MESH);
    stage.give(Input::Equipped { camera: false, microphone: true });
    stage.hear(came(member("a"))).state(1, PeerState::Connected);
    assert_eq!((stage.said(), fed(&stage)), (vec![media(true, false)], vec![(1, true, false)]));
    stage.give(Input::Equipped { camera: true, microphone: true });
    assert_eq!((stage.said(), fed(&stage)), (vec![media(true, true)], vec![(1, true, true)]));
}

#[test]
fn a_device_that_failed_is_told_as_off_and_goes_on_being_wanted() {
    let failed = || SourceState::Failed { message: "unplugged".to_owned() };
    let mut stage = live();
    stage.give(Input::Source(SourceKind::Camera, failed()));
    assert_eq!((stage.said(), fed(&stage)), (vec![media(true, false)], vec![]));
    stage.give(Input::Source(SourceKind::Camera, SourceState::Opening)).pass_ms(60_000);
    assert_eq!((stage.said(), demand(&stage)), (vec![], vec![]), "it is not there yet");
    stage.give(Input::Source(SourceKind::Microphone, failed()));
    assert_eq!(stage.said(), [media(false, false)]);
    stage.give(Input::Source(SourceKind::Camera, SourceState::Running));
    assert_eq!(stage.said(), [media(false, true)]);
}

#[test]
fn whoever_was_away_is_told_again() {
    let mut stage = live();
    stage.hear(presence("a", away(0))).turn(None, Gate::Camera, false);
    assert_eq!(stage.said(), [], "it would be lost");
    stage.hear(presence("a", Presence::Here));
    assert_eq!(stage.said(), [media(true, false)]);
    stage.hear(presence("a", Presence::Here));
    assert_eq!(stage.said(), [], "it was there");
    stage.hear(presence("a", away(0))).hear(presence("a", Presence::Here));
    assert_eq!(stage.said(), [media(true, false)], "the last word may have been lost");
}

#[test]
fn switches_outlive_an_outage_of_the_hub_but_not_the_session() {
    let hub = super::HubRef::Default;
    let mut stage = live();
    stage.turn(Some(session()), Gate::Microphone, false).turn(None, Gate::Camera, false);
    stage.down(&hub).up(&hub).hear(opened(MESH, vec![member("a")]));
    assert_eq!(stage.said(), [media(false, false)]);
    assert!(!stage.status().gates.microphone && stage.status().gates.camera);
    assert_eq!(fed(&stage), []);
    stage.leave().open(MESH).hear(opened(MESH, vec![]));
    assert!(stage.status().gates.microphone);
    let global = stage.core.snapshot().gates;
    assert!(global.microphone && !global.camera);
}

#[test]
fn who_asks_again_for_a_session_that_is_over_is_as_muted_as_before() {
    let mut stage = Stage::joined(MESH, vec![member("a")]);
    stage.turn(Some(session()), Gate::Microphone, false);
    stage.hear(HubMessage::Closed { session: session(), reason: CloseReason::Closed });
    stage.join(None, true).hear(joined(MESH, Role::Guest, vec![member("a")]));
    assert!(!stage.status().gates.microphone && stage.status().gates.camera);
}

#[test]
fn on_air_is_where_somebody_is_live_and_a_source_runs() {
    let mut stage = Stage::opened(MESH);
    runs(&mut stage);
    let on_air = |stage: &Stage| (stage.status().heard, stage.status().seen);
    assert_eq!(on_air(&stage), (false, false), "nobody is there");
    stage.hear(came(member("a")));
    assert_eq!(on_air(&stage), (false, false), "nobody is connected");
    stage.state(1, PeerState::Connected);
    assert_eq!(on_air(&stage), (true, true));
    stage.turn(None, Gate::Microphone, false);
    assert_eq!(on_air(&stage), (false, true));
    let message = "unplugged".to_owned();
    stage.give(Input::Source(SourceKind::Camera, SourceState::Failed { message }));
    stage.turn(None, Gate::Microphone, true);
    assert_eq!(on_air(&stage), (true, false));
    stage.hear(left("a", LeaveReason::Left));
    assert_eq!(on_air(&stage), (false, false));
}

#[test]
fn the_opener_sends_somebody_out_and_nobody_else_does() {
    let eject = |who: &str| {
        let participant: ParticipantId = id(who);
        Input::Command(Command::Eject { session: session(), participant, address: false })
    };
    let not_allowed = FailureCode::Hub(ErrorCode::NotAllowed);
    let mut stage = live();
    stage.give(eject("a"));
    let (session_id, participant) = (session(), id("a"));
    let message = ClientMessage::Eject { session: session_id, participant, address: false };
    assert_eq!(stage.sent()[0].1, &message);
    stage.give(eject("x"));
    assert_eq!((stage.failures()[0].code, stage.sent().len()), (not_allowed, 0));
    stage.down(&super::HubRef::Default).give(eject("a"));
    assert_eq!((stage.failures()[0].code, stage.sent().len()), (FailureCode::HubUnreachable, 0));

    let mut stage = Stage::joined(MESH, vec![member("a")]);
    stage.give(eject("a"));
    assert_eq!((stage.failures()[0].code, stage.sent().len()), (not_allowed, 0));
    let mut stage = Stage::new();
    stage.give(eject("a"));
    assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::NoSuchSession));
}

#[test]
fn a_switch_of_a_session_that_is_not_here_is_refused() {
    let mut stage = live();
    stage.turn(Some(SessionId::parse("nowhere").unwrap()), Gate::Camera, false);
    assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::NoSuchSession));
    assert_eq!(stage.done.len(), 1);
}

#[test]
fn a_program_that_was_started_again_sends_everything_until_it_says_otherwise() {
    let mut stage = live();
    stage.hear(word("a", media(false, false)));
    let mut reborn = member("a");
    reborn.instance = crate::model::Instance::from_random(9);
    stage.hear(came(reborn));
    assert_eq!(view(&stage, "a"), (true, true));
    stage.hear(word("a", Payload::Unknown)).state(2, PeerState::Connected);
    assert_eq!(fed(&stage), [(2, true, true)]);
    assert!(stage.core.peer(PeerId(2)).is_some());
}
