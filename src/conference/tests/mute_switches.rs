//! Tests of the mute switches through the whole core.

use super::{
    super::{Effect, Input},
    fixture::*,
};
use crate::model::{
    ClientMessage, CloseReason, Command, DeviceKind, DeviceState, ErrorCode, FailureCode,
    HubMessage, LeaveReason, MuteSwitch, OpenRequest, ParticipantId, Payload, PeerId, PeerState,
    PerSource, Presence, Role, SessionId, Source,
};

/// The changes of what connections send: connection, sources.
fn sending_changes(fixture: &Fixture) -> Vec<(u64, PerSource<bool>)> {
    let changes = fixture.effects.iter().filter_map(|effect| {
        let Effect::SetSending { peer, layers } = effect else { return None };
        Some((peer.0, layers.map(|layer| layer.is_some())))
    });
    changes.collect()
}

/// The changes of how audio is played: connection, audible, expected.
fn playback_changes(fixture: &Fixture) -> Vec<(u64, bool, bool)> {
    let changes = fixture.effects.iter().filter_map(|effect| {
        let Effect::SetPlayback { peer, playback } = effect else { return None };
        Some((peer.0, playback.is_audible, playback.is_expected))
    });
    changes.collect()
}

/// The changes of the needed sources.
fn demands(fixture: &Fixture) -> Vec<PerSource<bool>> {
    let demand = fixture.effects.iter().filter_map(|effect| {
        let Effect::Demand(needed) = effect else { return None };
        Some(needed.sources)
    });
    demand.collect()
}

/// A mesh of ours that is connected to "a" by connection 1.
fn live() -> Fixture {
    let mut fixture = Fixture::opened(MESH);
    fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
    fixture
}

fn start_sources(fixture: &mut Fixture) {
    for kind in [DeviceKind::CAMERA, DeviceKind::MICROPHONE] {
        fixture.handle(Input::Device(kind, DeviceState::Running));
    }
}

/// Opens a second session of ours that is connected to "b" by connection 2.
fn join_another(fixture: &mut Fixture) -> SessionId {
    let other = SessionId::parse("other").unwrap();
    let request = OpenRequest { session: other.clone(), kind: MESH, limit: None };
    fixture.handle(Input::Command(Command::Open(request)));
    let mut answer = opened(MESH, vec![]);
    if let crate::model::HubMessage::Opened { session, .. } = &mut answer {
        *session = other.clone();
    }
    fixture.receive(answer);
    let participant = member("b");
    let came = crate::model::HubMessage::ParticipantJoined { session: other.clone(), participant };
    fixture.receive(came).peer_state(2, PeerState::Connected);
    other
}

fn shown_media(fixture: &Fixture, letter: &str) -> PerSource<bool> {
    let all = fixture.status().participants;
    let one = all.into_iter().find(|one| one.participant == id(letter)).unwrap();
    one.sends
}

#[test]
fn media_flows_only_if_both_switches_are_enabled() {
    let mut fixture = live();
    let other = join_another(&mut fixture);
    fixture.set_switch(Some(session()), MuteSwitch::MICROPHONE, false);
    assert_eq!(sending_changes(&fixture), [(1, CAMERA)]);
    fixture.set_switch(None, MuteSwitch::MICROPHONE, false);
    assert_eq!(sending_changes(&fixture), [(2, CAMERA)]);
    fixture.set_switch(Some(session()), MuteSwitch::MICROPHONE, true);
    assert_eq!(sending_changes(&fixture), [], "the global switch is muted");
    fixture.set_switch(None, MuteSwitch::MICROPHONE, true);
    assert_eq!(sending_changes(&fixture), [(1, BOTH), (2, BOTH)]);
    fixture.set_switch(Some(other), MuteSwitch::CAMERA, false);
    assert_eq!(sending_changes(&fixture), [(2, MICROPHONE)]);
}

/// A click takes effect within 200 ms. That leaves time only for the next frame of the window and
/// for the next packet, so the core does everything in the call that handles the command.
#[test]
fn a_switch_takes_effect_in_the_call_that_handles_its_command() {
    for (gate, sending, playback) in [
        (MuteSwitch::MICROPHONE, Some((1, CAMERA)), None),
        (MuteSwitch::CAMERA, Some((1, MICROPHONE)), None),
        (MuteSwitch::Listening, None, Some((1, false, true))),
    ] {
        for session_id in [None, Some(session())] {
            let mut fixture = live();
            start_sources(&mut fixture);
            fixture.set_switch(session_id.clone(), gate, false);
            assert_eq!(
                sending_changes(&fixture),
                Vec::from_iter(sending),
                "{gate:?} of {session_id:?}: what is sent"
            );
            assert_eq!(
                playback_changes(&fixture),
                Vec::from_iter(playback),
                "{gate:?} of {session_id:?}: what is played"
            );
            let snapshot = fixture.core.snapshot();
            let shown =
                if session_id.is_some() { fixture.status().enabled } else { snapshot.enabled };
            assert!(!shown.has(gate), "{gate:?} of {session_id:?} is shown at once");
            let enabled = PerSource::from_fn(|source| gate != MuteSwitch::Source(source));
            assert_eq!(fixture.status().sending, enabled);
            let signals = if gate == MuteSwitch::Listening { vec![] } else { vec![media(enabled)] };
            assert_eq!(fixture.signals(), signals, "the others are notified at once");
        }
    }
}

#[test]
fn setting_a_switch_to_its_present_state_changes_nothing() {
    let mut fixture = live();
    for gate in [MuteSwitch::MICROPHONE, MuteSwitch::CAMERA, MuteSwitch::Listening] {
        fixture.set_switch(None, gate, true).set_switch(Some(session()), gate, true);
        assert_eq!(fixture.effects, []);
        fixture.set_switch(None, gate, false).set_switch(None, gate, false);
        assert_eq!(fixture.effects, []);
    }
}

#[test]
fn a_new_connection_starts_with_the_present_switches() {
    let mut fixture = live();
    fixture.set_switch(Some(session()), MuteSwitch::CAMERA, false).set_switch(
        None,
        MuteSwitch::Listening,
        false,
    );
    fixture.receive(participant_joined(member("b")));
    assert_eq!(playback_changes(&fixture), [(2, false, true)], "before any of its audio arrives");
    assert_eq!(sending_changes(&fixture), []);
    fixture.peer_state(2, PeerState::Connected);
    assert_eq!(
        (sending_changes(&fixture), fixture.signals()),
        (vec![(2, MICROPHONE)], vec![media(MICROPHONE)])
    );
    fixture
        .set_switch(None, MuteSwitch::MICROPHONE, false)
        .receive(participant_joined(member("c")))
        .peer_state(3, PeerState::Connected);
    assert_eq!((sending_changes(&fixture), fixture.signals()), (vec![], vec![media(NEITHER)]));
}

#[test]
fn muted_listening_silences_one_session_or_all() {
    let mut fixture = live();
    let other = join_another(&mut fixture);
    fixture.set_switch(Some(other.clone()), MuteSwitch::Listening, false);
    assert_eq!(playback_changes(&fixture), [(2, false, true)]);
    fixture.set_switch(None, MuteSwitch::Listening, false);
    assert_eq!(playback_changes(&fixture), [(1, false, true)]);
    fixture.set_switch(None, MuteSwitch::Listening, true).set_switch(
        Some(other),
        MuteSwitch::Listening,
        true,
    );
    assert_eq!(playback_changes(&fixture), [(2, true, true)]);
}

#[test]
fn a_microphone_that_is_muted_everywhere_is_closed_after_a_while() {
    let mut fixture = live();
    fixture.set_switch(None, MuteSwitch::MICROPHONE, false);
    assert_eq!((sending_changes(&fixture), demands(&fixture)), (vec![(1, CAMERA)], vec![]));
    fixture.advance_ms(4999);
    assert_eq!(demands(&fixture), []);
    fixture.advance_ms(1);
    assert_eq!(demands(&fixture), [CAMERA]);
    fixture.set_switch(None, MuteSwitch::MICROPHONE, true);
    assert_eq!(demands(&fixture), [BOTH]);
}

#[test]
fn muting_one_session_leaves_the_microphone_to_the_other() {
    let mut fixture = live();
    join_another(&mut fixture);
    fixture.set_switch(Some(session()), MuteSwitch::MICROPHONE, false).advance_ms(60_000);
    assert_eq!(demands(&fixture), []);
}

#[test]
fn the_preview_opens_the_camera_without_any_connection() {
    let mut fixture = Fixture::opened(MESH);
    fixture.handle(Input::Preview(CAMERA));
    assert_eq!(demands(&fixture), [CAMERA]);
    fixture.set_switch(None, MuteSwitch::CAMERA, false).advance_ms(60_000);
    assert_eq!(demands(&fixture), [], "whatever the switches");
    fixture.handle(Input::Preview(MICROPHONE));
    assert_eq!(demands(&fixture), [BOTH]);
    fixture.advance_ms(5000);
    assert_eq!(demands(&fixture), [MICROPHONE]);
}

#[test]
fn what_we_send_is_signalled_and_what_others_signal_is_shown() {
    let mut fixture = live();
    fixture.set_switch(None, MuteSwitch::MICROPHONE, false);
    assert_eq!(fixture.signals(), [media(CAMERA)]);
    fixture.set_switch(Some(session()), MuteSwitch::MICROPHONE, false);
    assert_eq!(fixture.signals(), [], "nothing changed for them");
    assert_eq!(shown_media(&fixture, "a"), BOTH, "until they signal otherwise");
    fixture.receive(signal("a", media(MICROPHONE)));
    assert_eq!(shown_media(&fixture, "a"), MICROPHONE);
    assert_eq!(playback_changes(&fixture), []);
    let expected = |expected| {
        let (peer, source) = (PeerId(1), Source::Camera);
        Effect::ExpectVideo { peer, source, expected }
    };
    assert_eq!(fixture.effects, [expected(false)], "nothing is answered");
    fixture.receive(signal("a", media(CAMERA)));
    assert_eq!(
        (shown_media(&fixture, "a"), playback_changes(&fixture)),
        (CAMERA, vec![(1, true, false)])
    );
    assert!(fixture.effects.contains(&expected(true)));
    assert_eq!(fixture.effects.len(), 2, "nothing is answered");
}

#[test]
fn a_viewer_sends_nothing_and_signals_that() {
    let mut opener = member("o");
    opener.role = Role::Opener;
    let mut fixture = Fixture::joined(BROADCAST, vec![opener]);
    fixture.receive(signal("o", offer(1))).peer_state(1, PeerState::Connected);
    assert_eq!((fixture.signals(), sending_changes(&fixture)), (vec![media(NEITHER)], vec![]));
    fixture.set_switch(None, MuteSwitch::MICROPHONE, false);
    assert_eq!(fixture.effects, []);
}

#[test]
fn a_missing_camera_is_signalled_and_so_is_its_arrival() {
    let mut fixture = Fixture::opened(MESH);
    fixture.handle(Input::SourcesAvailable(MICROPHONE));
    fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
    assert_eq!(
        (fixture.signals(), sending_changes(&fixture)),
        (vec![media(MICROPHONE)], vec![(1, MICROPHONE)])
    );
    fixture.handle(Input::SourcesAvailable(BOTH));
    assert_eq!(
        (fixture.signals(), sending_changes(&fixture)),
        (vec![media(BOTH)], vec![(1, BOTH)])
    );
}

#[test]
fn a_failed_device_is_signalled_as_off_and_stays_in_demand() {
    let failed = || DeviceState::Failed { message: "unplugged".to_owned() };
    let mut fixture = live();
    fixture.handle(Input::Device(DeviceKind::CAMERA, failed()));
    assert_eq!((fixture.signals(), sending_changes(&fixture)), (vec![media(MICROPHONE)], vec![]));
    fixture.handle(Input::Device(DeviceKind::CAMERA, DeviceState::Opening)).advance_ms(60_000);
    assert_eq!((fixture.signals(), demands(&fixture)), (vec![], vec![]), "it is not running yet");
    fixture.handle(Input::Device(DeviceKind::MICROPHONE, failed()));
    assert_eq!(fixture.signals(), [media(NEITHER)]);
    fixture.handle(Input::Device(DeviceKind::CAMERA, DeviceState::Running));
    assert_eq!(fixture.signals(), [media(CAMERA)]);
}

#[test]
fn a_participant_that_was_away_gets_the_media_signal_again() {
    let mut fixture = live();
    fixture.receive(presence("a", away(0))).set_switch(None, MuteSwitch::CAMERA, false);
    assert_eq!(fixture.signals(), [], "the signal would be lost");
    fixture.receive(presence("a", Presence::Here));
    assert_eq!(fixture.signals(), [media(MICROPHONE)]);
    fixture.receive(presence("a", Presence::Here));
    assert_eq!(fixture.signals(), [], "it was not away");
    fixture.receive(presence("a", away(0))).receive(presence("a", Presence::Here));
    assert_eq!(fixture.signals(), [media(MICROPHONE)], "the last signal may have been lost");
}

#[test]
fn switches_outlive_an_outage_of_the_hub_but_not_the_session() {
    let hub = super::super::HubRef::Default;
    let mut fixture = live();
    fixture.set_switch(Some(session()), MuteSwitch::MICROPHONE, false).set_switch(
        None,
        MuteSwitch::CAMERA,
        false,
    );
    fixture.hub_down(&hub).hub_up(&hub).receive(opened(MESH, vec![member("a")]));
    assert_eq!(fixture.signals(), [media(NEITHER)]);
    assert_eq!(fixture.status().enabled.sources, CAMERA);
    assert_eq!(sending_changes(&fixture), []);
    fixture.leave().open(MESH).receive(opened(MESH, vec![]));
    assert!(fixture.status().enabled.sources.microphone);
    let global = fixture.core.snapshot().enabled;
    assert_eq!(global.sources, MICROPHONE);
}

#[test]
fn a_session_that_is_requested_again_keeps_its_switches() {
    let mut fixture = Fixture::joined(MESH, vec![member("a")]);
    fixture.set_switch(Some(session()), MuteSwitch::MICROPHONE, false);
    fixture.receive(HubMessage::Closed { session: session(), reason: CloseReason::Closed });
    fixture.join(None, true).receive(joined(MESH, Role::Guest, vec![member("a")]));
    assert_eq!(fixture.status().enabled.sources, CAMERA);
}

#[test]
fn we_are_on_air_where_a_participant_is_live_and_a_source_runs() {
    let mut fixture = Fixture::opened(MESH);
    start_sources(&mut fixture);
    let on_air = |fixture: &Fixture| fixture.status().sending;
    assert_eq!(on_air(&fixture), NEITHER, "there is no participant");
    fixture.receive(participant_joined(member("a")));
    assert_eq!(on_air(&fixture), NEITHER, "no participant is connected");
    fixture.peer_state(1, PeerState::Connected);
    assert_eq!(on_air(&fixture), BOTH);
    fixture.set_switch(None, MuteSwitch::MICROPHONE, false);
    assert_eq!(on_air(&fixture), CAMERA);
    let message = "unplugged".to_owned();
    fixture.handle(Input::Device(DeviceKind::CAMERA, DeviceState::Failed { message }));
    fixture.set_switch(None, MuteSwitch::MICROPHONE, true);
    assert_eq!(on_air(&fixture), MICROPHONE);
    fixture.receive(participant_left("a", LeaveReason::Left));
    assert_eq!(on_air(&fixture), NEITHER);
}

#[test]
fn only_the_opener_ejects() {
    let eject = |letter: &str| {
        let participant: ParticipantId = id(letter);
        Input::Command(Command::Eject { session: session(), participant, address: false })
    };
    let not_allowed = FailureCode::Hub(ErrorCode::NotAllowed);
    let mut fixture = live();
    fixture.handle(eject("a"));
    let (session_id, participant) = (session(), id("a"));
    let message = ClientMessage::Eject { session: session_id, participant, address: false };
    assert_eq!(fixture.sent()[0].1, &message);
    fixture.handle(eject("x"));
    assert_eq!((fixture.failures()[0].code(), fixture.sent().len()), (not_allowed, 0));
    fixture.hub_down(&super::super::HubRef::Default).handle(eject("a"));
    assert_eq!(
        (fixture.failures()[0].code(), fixture.sent().len()),
        (FailureCode::HubUnreachable, 0)
    );

    let mut fixture = Fixture::joined(MESH, vec![member("a")]);
    fixture.handle(eject("a"));
    assert_eq!((fixture.failures()[0].code(), fixture.sent().len()), (not_allowed, 0));
    let mut fixture = Fixture::new();
    fixture.handle(eject("a"));
    assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::NoSuchSession));
}

#[test]
fn a_switch_of_an_unknown_session_is_refused() {
    let mut fixture = live();
    fixture.set_switch(Some(SessionId::parse("nowhere").unwrap()), MuteSwitch::CAMERA, false);
    assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::NoSuchSession));
    assert_eq!(fixture.effects.len(), 1);
}

#[test]
fn a_restarted_program_is_assumed_to_send_everything_until_it_signals_otherwise() {
    let mut fixture = live();
    fixture.receive(signal("a", media(NEITHER)));
    let mut restarted = member("a");
    restarted.instance = crate::model::Instance::from_random(9);
    fixture.receive(participant_joined(restarted));
    assert_eq!(shown_media(&fixture, "a"), BOTH);
    fixture.receive(signal("a", Payload::Unknown)).peer_state(2, PeerState::Connected);
    assert_eq!(sending_changes(&fixture), [(2, BOTH)]);
    assert!(fixture.core.session_of_peer(PeerId(2)).is_some());
}
