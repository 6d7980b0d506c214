//! Tests of the window's texts, toasts and warnings: they are true, readable, and cover no
//! controls.

use super::*;
use crate::{
    devices::Device,
    model::{
        ActiveSpeaker, AudioContent, DataUse, Enabled, HubEndpoint, HubOwner, PerSource,
        Processing, SoundCheck, SoundCheckStage, Source, VoiceProcessing,
    },
    ui::devices::device_kinds,
};

#[test]
fn a_session_switch_that_is_muted_everywhere_shows_it_and_still_works() {
    let mut snapshot =
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 1)]);
    snapshot.enabled = Enabled::NONE;
    let mut window = window(LARGE, snapshot);
    for (name, gate) in [
        ("Microphone", MuteSwitch::MICROPHONE),
        ("Camera", MuteSwitch::CAMERA),
        ("Sound", MuteSwitch::Listening),
    ] {
        assert!(
            window.query_by_label(&format!("{name} in Conference")).is_none(),
            "the label mentions the global mute"
        );
        let command =
            Command::SetEnabled { session: Some(session_id("a")), switch: gate, enabled: false };
        assert_eq!(click(&mut window, &format!("{name} in Conference, off everywhere")), [command]);
    }
}

#[test]
fn a_card_warns_if_a_local_hub_is_not_the_users_own() {
    let place = |owner| HubEndpoint { url: "http://127.0.0.1:7341".parse().unwrap(), owner };
    for (owner, text) in [
        (HubOwner::ThisUser, "Your hub at http://127.0.0.1:7341"),
        (HubOwner::Elsewhere, "Hub at http://127.0.0.1:7341"),
        (
            HubOwner::Unproven,
            "Not your own hub, but another one on this computer: http://127.0.0.1:7341",
        ),
    ] {
        assert_eq!(labels::hub(&place(owner)), text);
        let one = session_status("a", SessionKind::FIVE[0], Role::Opener, 1);
        let window =
            window(LARGE, snapshot_of(vec![SessionStatus { hub: Some(place(owner)), ..one }]));
        let is_shown = window.query_by_label(text).is_some();
        assert_eq!(is_shown, owner == HubOwner::Unproven, "{text}");
    }
}

#[test]
fn the_tile_of_who_speaks_says_so_where_several_may_speak() {
    for (kind, shows) in [(SessionKind::FIVE[0], true), (SessionKind::FIVE[1], false)] {
        let mut one = session_status("a", kind, Role::Guest, 2);
        let who = one.participants.get(0).unwrap().participant.clone();
        let name = one.participants.get(0).unwrap().name.clone();
        one.active_speaker = Some(ActiveSpeaker::Participant(who));
        let window = window(LARGE, snapshot_of(vec![one]));
        let label = format!("{name} in {}, speaking", labels::kind(kind));
        assert_eq!(window.query_by_label(&label).is_some(), shows, "{label}");
    }
}

#[test]
fn a_sound_check_is_started_in_the_menus_and_says_what_it_does() {
    for (menu, button, check) in [
        ("Choose microphone", "Hear yourself", SoundCheck::HearYourself),
        ("Choose speaker", "Play a test sound", SoundCheck::TestSound),
    ] {
        let mut window = window(LARGE, Snapshot::default());
        click(&mut window, menu);
        assert_eq!(click(&mut window, button), [Command::StartSoundCheck(check)]);
    }
    for (stage, text) in [
        (SoundCheckStage::Recording, "Say something…"),
        (SoundCheckStage::PlayingBack, "This is how you sound…"),
    ] {
        let snapshot = Snapshot { sound_check: Some(stage), ..Snapshot::default() };
        let mut window = window(LARGE, snapshot);
        click(&mut window, "Choose microphone");
        assert_eq!(click(&mut window, text), [], "one check at a time");
    }
}

#[test]
fn a_hubs_name_omits_default_ports() {
    for (url, text) in [
        ("http://hub.example:7340", "hub.example"),
        ("https://hub.example:443", "hub.example"),
        ("http://hub.example:80/x", "hub.example:80/x"),
        ("http://hub.example:443", "hub.example:443"),
        ("https://hub.example:8443", "hub.example:8443"),
        ("http://[2001:db8::5]:7340", "[2001:db8::5]"),
    ] {
        assert_eq!(labels::hub_host(&url.parse().unwrap()), text);
    }
}

#[test]
fn the_local_panel_shows_how_many_sessions_are_sent_to() {
    let kind = SessionKind::FIVE[0];
    let one = |index: usize, count| {
        let mut one = session_status(&format!("s{index}"), kind, Role::Opener, count);
        one.participants
            .iter_mut()
            .for_each(|participant| participant.peer = Some(PeerId(index as u64)));
        one
    };
    let not_sending = SessionStatus { sending: PerSource::NONE, ..one(0, 1) };
    for (sessions, text) in [
        (vec![one(0, 0)], "Ready, nobody is here yet"),
        ((0..5).map(|index| one(index, 0)).collect(), "Ready, nobody is here yet"),
        (vec![one(0, 1)], "Sending to 1 session"),
        ((0..5).map(|index| one(index, 1)).collect(), "Sending to 5 sessions"),
        ((0..5).map(|index| one(index, index % 2)).collect(), "Sending to 2 of 5 sessions"),
        (vec![not_sending], "Not sending"),
    ] {
        window(LARGE, snapshot_of(sessions)).get_by_label(text);
    }
    let alone = snapshot_with(DeviceKind::CAMERA, DeviceState::Running);
    window(LARGE, alone).get_by_label("Only you see this");
}

#[test]
fn a_missing_default_device_shows_a_warning_before_it_is_used() {
    let mut window = window(LARGE, Snapshot::default());
    let headset = Device { id: "usb-1".to_owned(), name: "Headset".to_owned(), is_default: true };
    let shows_warning = |window: &mut Harness<'static, Option<App>>, devices: &[Device]| {
        app(window).devices.set_answer(DeviceKind::MICROPHONE, devices);
        window.run();
        window.query_by_label("No microphone found. You can join to watch and listen.").is_some()
    };
    assert!(!shows_warning(&mut window, &[headset]));
    assert!(shows_warning(&mut window, &[]));
    assert!(
        window.query_by_label_contains("speaker found").is_none(),
        "the speakers are not known"
    );
    app(&mut window).settings.microphone = "tone:440".into();
    assert!(!shows_warning(&mut window, &[]), "the tone is no device");
    app(&mut window).settings.microphone = "default".into();
    let message = "microphone in use".to_owned();
    let failed = snapshot_with(DeviceKind::MICROPHONE, DeviceState::Failed { message });
    app(&mut window).snapshot = Arc::new(failed);
    assert!(!shows_warning(&mut window, &[]), "the device error is more precise");
    window.get_by_label("Microphone in use.");
}

#[test]
fn one_sentence_names_all_missing_devices() {
    let mut window = window(LARGE, Snapshot::default());
    for device in device_kinds() {
        app(&mut window).devices.set_answer(device, &[]);
    }
    window.run();
    window.get_by_label("No microphone, camera or speaker found. You can join to watch.");
}

#[test]
fn toasts_cover_only_session_cards_and_a_click_removes_them() {
    for size in [LARGE, SMALL] {
        let mut window = window(size, five_sessions());
        for index in 0..4 {
            let text = format!("Guest {index} joined the conference, and that is a long line");
            app(&mut window).notices.toast(text, Some(&session_id("red")), 1e9);
        }
        window.run();
        let toasts: Vec<_> = window
            .query_all_by_label_contains("joined the conference")
            .map(|toast| toast.rect())
            .collect();
        assert_eq!(toasts.len(), 4);
        for part in [NodeRole::Button, NodeRole::CheckBox, NodeRole::TextInput] {
            for node in window.query_all_by_role(part) {
                let (rect, clip) = (node.rect(), 0.5);
                // A narrow window has space for toasts only over the session cards.
                let is_card = size == SMALL && rect.left() < 300.0 && rect.top() > 180.0;
                let covered = toasts.iter().any(|toast| toast.shrink(clip).intersects(rect));
                assert!(is_card || !covered, "{node:?} in {size:?}");
            }
        }
        let beside =
            if size == SMALL { "Local Media Streams" } else { "Remote Media Streams · 2" };
        let edge = window.get_by_label(beside).rect().left();
        let bar = window.get_by_label("Leave all").rect().top();
        assert!(toasts.iter().all(|toast| toast.right() < edge && toast.bottom() < bar));
        // The click does not reach the widget behind the toast.
        window.hover_at(toasts[3].center());
        window.drag_at(toasts[3].center());
        window.drop_at(toasts[3].center());
        assert_eq!(sent_commands(&mut window), []);
        assert_eq!(window.query_all_by_label_contains("joined the conference").count(), 3);
    }
}

#[test]
fn an_error_about_the_hub_moves_no_control_of_the_settings() {
    let mut window = window(SMALL, Snapshot::default());
    click(&mut window, "Settings");
    let rects = |window: &Harness<'_, Option<App>>| {
        ["Hub", "Dark", "Reset", "Save"].map(|label| window.get_by_label(label).rect())
    };
    let before = rects(&window);
    window.get_by_label("Hub").focus();
    window.run();
    window
        .get_by(|node| node.is_focused())
        .type_text("ftp://a.very.long.example.org/with/a/path/that/goes/on");
    window.run();
    window.get_by_label_contains("Cannot use this hub");
    assert_eq!(rects(&window), before);
}

#[test]
fn an_id_is_elided_in_its_middle_at_any_scale() {
    let long = "a-session-id-that-is-longer-than-its-lane-is-wide-at-any-scale-0";
    for scale in [1.0, 1.25, 1.5, 2.0, 3.0] {
        let builder = Harness::builder().with_size(LARGE).with_pixels_per_point(scale);
        let one = session_status(long, SessionKind::FIVE[0], Role::Opener, 0);
        let window = window_of(builder, Settings::default(), snapshot_of(vec![one]));
        let shown = window.output().shapes.iter().find_map(|shape| {
            let egui::Shape::Text(text) = &shape.shape else { return None };
            text.galley.text().starts_with("a-session").then_some(&text.galley)
        });
        let shown = shown.expect("the id is drawn");
        assert!(!shown.elided && shown.text().contains('…'), "{} at {scale}", shown.text());
    }
}

#[test]
fn a_camera_preview_is_mirrored_unless_switched_off_and_a_test_pattern_is_not() {
    let mut window = window(LARGE, Snapshot::default());
    assert!(app(&mut window).settings.mirrors_preview());
    click(&mut window, "Choose camera");
    assert_eq!(click(&mut window, "Mirror my picture"), [], "remote participants see no change");
    assert!(!app(&mut window).settings.mirrors_preview());
    click(&mut window, "Mirror my picture");
    assert!(app(&mut window).settings.mirrors_preview());
    click(&mut window, "Test picture");
    assert!(
        !app(&mut window).settings.mirrors_preview(),
        "the text in the pattern would be mirrored"
    );
    assert!(window.query_by_label("Mirror my picture").is_none());
}

#[test]
fn the_sound_of_a_microphone_is_processed_as_the_menu_says_and_a_tone_has_no_switches() {
    let mut window = window(LARGE, Snapshot::default());
    click(&mut window, "Choose microphone");
    let off = VoiceProcessing { echo_cancellation: Processing::Off, ..Default::default() };
    let sent = click(&mut window, "Remove echo");
    assert_eq!(sent, [Command::SetVoiceProcessing(off)]);
    let settings = app(&mut window).settings.clone();
    assert_eq!((settings.echo, settings.noise, settings.gain), (false, true, true));
    assert_eq!(settings.engine_options().0.voice_processing, off);
    let sent = click(&mut window, "Music");
    let music = VoiceProcessing { content: AudioContent::Music, ..VoiceProcessing::default() };
    assert_eq!(sent, [Command::SetVoiceProcessing(music)]);
    assert!(app(&mut window).settings.music);
    click(&mut window, "Test tone");
    assert!(window.query_by_label("Remove echo").is_none());
}

#[test]
fn a_session_saves_data_as_its_menu_says() {
    let mut window =
        window(LARGE, snapshot_of(vec![session_status("s", SessionKind::FIVE[0], Role::Guest, 1)]));
    click(&mut window, "Data use of Conference");
    let session = session_id("s");
    let sent = click(&mut window, "Save data");
    let data_use = DataUse::Saving;
    assert_eq!(sent, [Command::SetDataUse { session: session.clone(), data_use }]);
    let sent = click(&mut window, "Audio only");
    let data_use = DataUse::AudioOnly;
    assert_eq!(sent, [Command::SetDataUse { session: session.clone(), data_use }]);
    let sent = click(&mut window, "Send first");
    assert_eq!(sent, [Command::SetPriority { session: session.clone(), raised: true }]);
    let mut raised = session_status("s", SessionKind::FIVE[0], Role::Guest, 1);
    raised.is_raised = true;
    app(&mut window).snapshot = Arc::new(snapshot_of(vec![raised]));
    let sent = click(&mut window, "Send first");
    assert_eq!(sent, [Command::SetPriority { session, raised: false }]);
}

#[test]
fn a_silent_microphone_and_speech_while_muted_are_told_and_the_menu_says_why_the_level_is_flat() {
    let mut snapshot = snapshot_with(DeviceKind::MICROPHONE, DeviceState::Running);
    snapshot.is_microphone_silent = true;
    let mut window = window(LARGE, snapshot);
    let silent = "Your microphone is silent. Turn it on, or pick another microphone.";
    assert!(window.query_by_label(silent).is_none());
    for (event, text) in [
        (Event::MicrophoneSilent, silent),
        (Event::SpeakingWhileMuted, "You are muted. Nobody hears you."),
        (Event::EncoderLate, "This computer is busy. Your video is sent smaller for now."),
        (Event::UploadFull, "Your upload is full. Others see you smaller for now."),
    ] {
        app(&mut window).on_event(&event, 0.0);
        window.run_steps(2);
        assert!(window.query_by_label(text).is_some(), "{text}");
    }
    click(&mut window, "Choose microphone");
    assert_eq!(window.query_all_by_label(silent).count(), 2, "the notice and the menu");
    assert!(window.query_by_label("Your level").is_none());
}

#[test]
fn the_title_shows_on_air_while_a_session_is_sent_to() {
    let kind = SessionKind::FIVE[0];
    let mut window = window(LARGE, Snapshot::default());
    let mut title = |session: SessionStatus| {
        app(&mut window).snapshot = Arc::new(snapshot_of(vec![session]));
        let ctx = window.ctx.clone();
        app(&mut window).refresh(&ctx);
        app(&mut window).title
    };
    let alone = || session_status("a", kind, Role::Opener, 0);
    assert_eq!(title(SessionStatus { sending: PerSource::NONE, ..alone() }), "Quintet");
    assert_eq!(
        title(SessionStatus { sending: PerSource { microphone: true, camera: false }, ..alone() }),
        "Quintet · On air"
    );
    assert_eq!(
        title(SessionStatus { sending: PerSource { microphone: false, camera: true }, ..alone() }),
        "Quintet · On air"
    );
    assert_eq!(title(SessionStatus { sending: PerSource::NONE, ..alone() }), "Quintet");
}

#[test]
fn frozen_and_disconnected_participants_are_marked_at_every_tile_size() {
    for size in [[640.0, 480.0], SMALL, LARGE] {
        for count in [1, 6, 25] {
            let kind = SessionKind::FIVE[0];
            let snapshot = snapshot_of(vec![session_status("a", kind, Role::Opener, count)]);
            let mut window = window(size, snapshot.clone());
            let now = window.ctx.input(|input| input.time);
            let frame = Size::new(64, 36);
            let grey = VideoFrame::new(
                frame,
                MediaTime::default(),
                Arc::new(vec![128; frame.i420_bytes()]),
            );
            app(&mut window).feeds.set_frame(TrackRef::Peer(PeerId(0), Source::Camera), grey, now);
            window.step();
            let is_shown = |window: &Harness<'_, Option<App>>, text: &str| {
                window.query_by_label(text).is_some()
            };
            assert!(!is_shown(&window, "Person 0's video stopped"), "not yet");
            // A step of the harness is a quarter of a second.
            window.run_steps(12);
            assert!(is_shown(&window, "Person 0's video stopped"), "{count} in {size:?}");
            let mut disconnected = snapshot;
            Arc::make_mut(&mut disconnected.sessions[0]).participants[0].state =
                ParticipantState::Gone;
            app(&mut window).snapshot = Arc::new(disconnected);
            window.run_steps(2);
            window.get_by_label("Person 0 in Conference: Disconnected, may return");
        }
    }
}
