//! Tests of the mute switches through the whole core.

use super::{
    super::{Effect, Input},
    fixture::*,
};
use crate::model::{
    ClientMessage, CloseReason, Command, ErrorCode, FailureCode, Gate, HubMessage, LeaveReason,
    OpenRequest, ParticipantId, Payload, PeerId, PeerState, Presence, Role, SessionId, SourceKind,
    SourceState,
};

/// The changes of what connections send: connection, audio, video.
fn fed(fixture: &Stage) -> Vec<(u64, bool, bool)> {
    let changes = fixture.done.iter().filter_map(|effect| {
        let Effect::SetSending { peer, audio, video } = effect else { return None };
        Some((peer.0, *audio, video.is_some()))
    });
    changes.collect()
}

/// The changes of how audio is played: connection, audible, expected.
fn heard(fixture: &Stage) -> Vec<(u64, bool, bool)> {
    let changes = fixture.done.iter().filter_map(|effect| {
        let Effect::SetHeard { peer, heard: audible, speaks: expected } = effect else {
            return None;
        };
        Some((peer.0, *audible, *expected))
    });
    changes.collect()
}

/// The changes of the needed devices: camera, microphone.
fn demand(fixture: &Stage) -> Vec<(bool, bool)> {
    let demand = fixture.done.iter().filter_map(|effect| {
        let Effect::Demand { camera, microphone, .. } = effect else { return None };
        Some((*camera, *microphone))
    });
    demand.collect()
}

/// A mesh of ours that is connected to "a" by connection 1.
fn live() -> Stage {
    let mut fixture = Stage::opened(MESH);
    fixture.hear(came(member("a"))).state(1, PeerState::Connected);
    fixture
}

fn runs(fixture: &mut Stage) {
    for kind in [SourceKind::Camera, SourceKind::Microphone] {
        fixture.give(Input::Source(kind, SourceState::Running));
    }
}

/// Opens a second session of ours that is connected to "b" by connection 2.
fn and_another(fixture: &mut Stage) -> SessionId {
    let other = SessionId::parse("other").unwrap();
    let request = OpenRequest { session: other.clone(), kind: MESH, limit: None };
    fixture.give(Input::Command(Command::Open(request)));
    let mut answer = opened(MESH, vec![]);
    if let crate::model::HubMessage::Opened { session, .. } = &mut answer {
        *session = other.clone();
    }
    fixture.hear(answer);
    let participant = member("b");
    let came = crate::model::HubMessage::ParticipantJoined { session: other.clone(), participant };
    fixture.hear(came).state(2, PeerState::Connected);
    other
}

fn view(fixture: &Stage, letter: &str) -> (bool, bool) {
    let all = fixture.status().participants;
    let one = all.into_iter().find(|one| one.participant == id(letter)).unwrap();
    (one.microphone, one.camera)
}

#[test]
fn media_flows_only_if_both_switches_are_enabled() {
    let mut fixture = live();
    let other = and_another(&mut fixture);
    fixture.turn(Some(session()), Gate::Microphone, false);
    assert_eq!(fed(&fixture), [(1, false, true)]);
    fixture.turn(None, Gate::Microphone, false);
    assert_eq!(fed(&fixture), [(2, false, true)]);
    fixture.turn(Some(session()), Gate::Microphone, true);
    assert_eq!(fed(&fixture), [], "the global switch is muted");
    fixture.turn(None, Gate::Microphone, true);
    assert_eq!(fed(&fixture), [(1, true, true), (2, true, true)]);
    fixture.turn(Some(other), Gate::Camera, false);
    assert_eq!(fed(&fixture), [(2, true, false)]);
}

/// A click takes effect within 200 ms. That leaves time only for the next frame of the window and
/// for the next packet, so the core does everything in the call that handles the command.
#[test]
fn a_switch_takes_effect_in_the_call_that_handles_its_command() {
    for (gate, sending, playback) in [
        (Gate::Microphone, Some((1, false, true)), None),
        (Gate::Camera, Some((1, true, false)), None),
        (Gate::Listening, None, Some((1, false, true))),
    ] {
        for session_id in [None, Some(session())] {
            let mut fixture = live();
            runs(&mut fixture);
            fixture.turn(session_id.clone(), gate, false);
            assert_eq!(
                fed(&fixture),
                Vec::from_iter(sending),
                "{gate:?} of {session_id:?}: what is sent"
            );
            assert_eq!(
                heard(&fixture),
                Vec::from_iter(playback),
                "{gate:?} of {session_id:?}: what is played"
            );
            let snapshot = fixture.core.snapshot();
            let shown = if session_id.is_some() { fixture.status().gates } else { snapshot.gates };
            assert!(!shown.is_open(gate), "{gate:?} of {session_id:?} is shown at once");
            let on_air = (fixture.status().heard, fixture.status().seen);
            assert_eq!(on_air, (gate != Gate::Microphone, gate != Gate::Camera));
            let expected = media(gate != Gate::Microphone, gate != Gate::Camera);
            let signals = if gate == Gate::Listening { vec![] } else { vec![expected] };
            assert_eq!(fixture.said(), signals, "the others are notified at once");
        }
    }
}

#[test]
fn setting_a_switch_to_its_present_state_changes_nothing() {
    let mut fixture = live();
    for gate in [Gate::Microphone, Gate::Camera, Gate::Listening] {
        fixture.turn(None, gate, true).turn(Some(session()), gate, true);
        assert_eq!(fixture.done, []);
        fixture.turn(None, gate, false).turn(None, gate, false);
        assert_eq!(fixture.done, []);
    }
}

#[test]
fn a_new_connection_starts_with_the_present_switches() {
    let mut fixture = live();
    fixture.turn(Some(session()), Gate::Camera, false).turn(None, Gate::Listening, false);
    fixture.hear(came(member("b")));
    assert_eq!(heard(&fixture), [(2, false, true)], "before any of its audio arrives");
    assert_eq!(fed(&fixture), []);
    fixture.state(2, PeerState::Connected);
    assert_eq!((fed(&fixture), fixture.said()), (vec![(2, true, false)], vec![media(true, false)]));
    fixture
        .turn(None, Gate::Microphone, false)
        .hear(came(member("c")))
        .state(3, PeerState::Connected);
    assert_eq!((fed(&fixture), fixture.said()), (vec![], vec![media(false, false)]));
}

#[test]
fn muted_listening_silences_one_session_or_all() {
    let mut fixture = live();
    let other = and_another(&mut fixture);
    fixture.turn(Some(other.clone()), Gate::Listening, false);
    assert_eq!(heard(&fixture), [(2, false, true)]);
    fixture.turn(None, Gate::Listening, false);
    assert_eq!(heard(&fixture), [(1, false, true)]);
    fixture.turn(None, Gate::Listening, true).turn(Some(other), Gate::Listening, true);
    assert_eq!(heard(&fixture), [(2, true, true)]);
}

#[test]
fn a_microphone_that_is_muted_everywhere_is_closed_after_a_while() {
    let mut fixture = live();
    fixture.turn(None, Gate::Microphone, false);
    assert_eq!((fed(&fixture), demand(&fixture)), (vec![(1, false, true)], vec![]));
    fixture.pass_ms(4999);
    assert_eq!(demand(&fixture), []);
    fixture.pass_ms(1);
    assert_eq!(demand(&fixture), [(true, false)]);
    fixture.turn(None, Gate::Microphone, true);
    assert_eq!(demand(&fixture), [(true, true)]);
}

#[test]
fn muting_one_session_leaves_the_microphone_to_the_other() {
    let mut fixture = live();
    and_another(&mut fixture);
    fixture.turn(Some(session()), Gate::Microphone, false).pass_ms(60_000);
    assert_eq!(demand(&fixture), []);
}

#[test]
fn the_preview_opens_the_camera_without_any_connection() {
    let mut fixture = Stage::opened(MESH);
    fixture.give(Input::Preview { camera: true, microphone: false });
    assert_eq!(demand(&fixture), [(true, false)]);
    fixture.turn(None, Gate::Camera, false).pass_ms(60_000);
    assert_eq!(demand(&fixture), [], "whatever the switches");
    fixture.give(Input::Preview { camera: false, microphone: true });
    assert_eq!(demand(&fixture), [(true, true)]);
    fixture.pass_ms(5000);
    assert_eq!(demand(&fixture), [(false, true)]);
}

#[test]
fn what_we_send_is_signalled_and_what_others_signal_is_shown() {
    let mut fixture = live();
    fixture.turn(None, Gate::Microphone, false);
    assert_eq!(fixture.said(), [media(false, true)]);
    fixture.turn(Some(session()), Gate::Microphone, false);
    assert_eq!(fixture.said(), [], "nothing changed for them");
    assert_eq!(view(&fixture, "a"), (true, true), "until they signal otherwise");
    fixture.hear(word("a", media(true, false)));
    assert_eq!(view(&fixture, "a"), (true, false));
    assert_eq!(heard(&fixture), []);
    let expected = |expected| Effect::ExpectPictures { peer: PeerId(1), expected };
    assert_eq!(fixture.done, [expected(false)], "nothing is answered");
    fixture.hear(word("a", media(false, true)));
    assert_eq!((view(&fixture, "a"), heard(&fixture)), ((false, true), vec![(1, true, false)]));
    assert!(fixture.done.contains(&expected(true)));
    assert_eq!(fixture.done.len(), 2, "nothing is answered");
}

#[test]
fn a_viewer_sends_nothing_and_signals_that() {
    let mut opener = member("o");
    opener.role = Role::Opener;
    let mut fixture = Stage::joined(BROADCAST, vec![opener]);
    fixture.hear(word("o", offer(1))).state(1, PeerState::Connected);
    assert_eq!((fixture.said(), fed(&fixture)), (vec![media(false, false)], vec![]));
    fixture.turn(None, Gate::Microphone, false);
    assert_eq!(fixture.done, []);
}

#[test]
fn a_missing_camera_is_signalled_and_so_is_its_arrival() {
    let mut fixture = Stage::opened(MESH);
    fixture.give(Input::Equipped { camera: false, microphone: true });
    fixture.hear(came(member("a"))).state(1, PeerState::Connected);
    assert_eq!((fixture.said(), fed(&fixture)), (vec![media(true, false)], vec![(1, true, false)]));
    fixture.give(Input::Equipped { camera: true, microphone: true });
    assert_eq!((fixture.said(), fed(&fixture)), (vec![media(true, true)], vec![(1, true, true)]));
}

#[test]
fn a_failed_device_is_signalled_as_off_and_stays_in_demand() {
    let failed = || SourceState::Failed { message: "unplugged".to_owned() };
    let mut fixture = live();
    fixture.give(Input::Source(SourceKind::Camera, failed()));
    assert_eq!((fixture.said(), fed(&fixture)), (vec![media(true, false)], vec![]));
    fixture.give(Input::Source(SourceKind::Camera, SourceState::Opening)).pass_ms(60_000);
    assert_eq!((fixture.said(), demand(&fixture)), (vec![], vec![]), "it is not running yet");
    fixture.give(Input::Source(SourceKind::Microphone, failed()));
    assert_eq!(fixture.said(), [media(false, false)]);
    fixture.give(Input::Source(SourceKind::Camera, SourceState::Running));
    assert_eq!(fixture.said(), [media(false, true)]);
}

#[test]
fn a_participant_that_was_away_gets_the_media_signal_again() {
    let mut fixture = live();
    fixture.hear(presence("a", away(0))).turn(None, Gate::Camera, false);
    assert_eq!(fixture.said(), [], "the signal would be lost");
    fixture.hear(presence("a", Presence::Here));
    assert_eq!(fixture.said(), [media(true, false)]);
    fixture.hear(presence("a", Presence::Here));
    assert_eq!(fixture.said(), [], "it was not away");
    fixture.hear(presence("a", away(0))).hear(presence("a", Presence::Here));
    assert_eq!(fixture.said(), [media(true, false)], "the last signal may have been lost");
}

#[test]
fn switches_outlive_an_outage_of_the_hub_but_not_the_session() {
    let hub = super::super::HubRef::Default;
    let mut fixture = live();
    fixture.turn(Some(session()), Gate::Microphone, false).turn(None, Gate::Camera, false);
    fixture.down(&hub).up(&hub).hear(opened(MESH, vec![member("a")]));
    assert_eq!(fixture.said(), [media(false, false)]);
    assert!(!fixture.status().gates.microphone && fixture.status().gates.camera);
    assert_eq!(fed(&fixture), []);
    fixture.leave().open(MESH).hear(opened(MESH, vec![]));
    assert!(fixture.status().gates.microphone);
    let global = fixture.core.snapshot().gates;
    assert!(global.microphone && !global.camera);
}

#[test]
fn a_session_that_is_requested_again_keeps_its_switches() {
    let mut fixture = Stage::joined(MESH, vec![member("a")]);
    fixture.turn(Some(session()), Gate::Microphone, false);
    fixture.hear(HubMessage::Closed { session: session(), reason: CloseReason::Closed });
    fixture.join(None, true).hear(joined(MESH, Role::Guest, vec![member("a")]));
    assert!(!fixture.status().gates.microphone && fixture.status().gates.camera);
}

#[test]
fn we_are_on_air_where_a_participant_is_live_and_a_source_runs() {
    let mut fixture = Stage::opened(MESH);
    runs(&mut fixture);
    let on_air = |fixture: &Stage| (fixture.status().heard, fixture.status().seen);
    assert_eq!(on_air(&fixture), (false, false), "there is no participant");
    fixture.hear(came(member("a")));
    assert_eq!(on_air(&fixture), (false, false), "no participant is connected");
    fixture.state(1, PeerState::Connected);
    assert_eq!(on_air(&fixture), (true, true));
    fixture.turn(None, Gate::Microphone, false);
    assert_eq!(on_air(&fixture), (false, true));
    let message = "unplugged".to_owned();
    fixture.give(Input::Source(SourceKind::Camera, SourceState::Failed { message }));
    fixture.turn(None, Gate::Microphone, true);
    assert_eq!(on_air(&fixture), (true, false));
    fixture.hear(left("a", LeaveReason::Left));
    assert_eq!(on_air(&fixture), (false, false));
}

#[test]
fn only_the_opener_ejects() {
    let eject = |letter: &str| {
        let participant: ParticipantId = id(letter);
        Input::Command(Command::Eject { session: session(), participant, address: false })
    };
    let not_allowed = FailureCode::Hub(ErrorCode::NotAllowed);
    let mut fixture = live();
    fixture.give(eject("a"));
    let (session_id, participant) = (session(), id("a"));
    let message = ClientMessage::Eject { session: session_id, participant, address: false };
    assert_eq!(fixture.sent()[0].1, &message);
    fixture.give(eject("x"));
    assert_eq!((fixture.failures()[0].code, fixture.sent().len()), (not_allowed, 0));
    fixture.down(&super::super::HubRef::Default).give(eject("a"));
    assert_eq!(
        (fixture.failures()[0].code, fixture.sent().len()),
        (FailureCode::HubUnreachable, 0)
    );

    let mut fixture = Stage::joined(MESH, vec![member("a")]);
    fixture.give(eject("a"));
    assert_eq!((fixture.failures()[0].code, fixture.sent().len()), (not_allowed, 0));
    let mut fixture = Stage::new();
    fixture.give(eject("a"));
    assert_eq!(fixture.failures()[0].code, FailureCode::Hub(ErrorCode::NoSuchSession));
}

#[test]
fn a_switch_of_an_unknown_session_is_refused() {
    let mut fixture = live();
    fixture.turn(Some(SessionId::parse("nowhere").unwrap()), Gate::Camera, false);
    assert_eq!(fixture.failures()[0].code, FailureCode::Hub(ErrorCode::NoSuchSession));
    assert_eq!(fixture.done.len(), 1);
}

#[test]
fn a_restarted_program_is_assumed_to_send_everything_until_it_signals_otherwise() {
    let mut fixture = live();
    fixture.hear(word("a", media(false, false)));
    let mut restarted = member("a");
    restarted.instance = crate::model::Instance::from_random(9);
    fixture.hear(came(restarted));
    assert_eq!(view(&fixture, "a"), (true, true));
    fixture.hear(word("a", Payload::Unknown)).state(2, PeerState::Connected);
    assert_eq!(fed(&fixture), [(2, true, true)]);
    assert!(fixture.core.peer(PeerId(2)).is_some());
}
