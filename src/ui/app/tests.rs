//! Tests of the whole window over literal snapshots. Widgets are found by their accessibility
//! labels.

mod chat;

use std::{collections::BTreeSet, sync::Arc};

use eframe::egui::{self, Key, Modifiers, Rect, accesskit::Role as NodeRole};
use egui_kittest::{
    Harness, HarnessBuilder,
    kittest::{NodeT as _, Queryable as _},
};

use super::*;
use crate::{
    engine::TrackRef,
    media::VideoFrame,
    model::fixtures::{session_id, session_status, snapshot_of, snapshot_with},
    model::{
        DeviceState, EndReason, ErrorCode, HubFailure, HubState, HubStatus, JoinTarget, Media,
        MediaTime, ParticipantId, ParticipantState, PeerId, PerSource, Size, Source,
    },
    ui::bindings::{Bindable, Bindings},
};

mod chat_urls;
mod images;
mod joining;
mod keyboard;
mod landmarks;
mod leaving;
mod outlines;
mod raster;
mod right_to_left;
mod statistics;
mod status_texts;

const LARGE: [f32; 2] = [1280.0, 800.0];
const SMALL: [f32; 2] = [800.0, 600.0];

/// A window of that size that shows the snapshot.
fn window(size: [f32; 2], snapshot: Snapshot) -> Harness<'static, Option<App>> {
    window_of(Harness::builder().with_size(size), Settings::default(), snapshot)
}

fn window_of(
    builder: HarnessBuilder<Option<App>>,
    settings: Settings,
    snapshot: Snapshot,
) -> Harness<'static, Option<App>> {
    let mut initial = Some((settings, Arc::new(snapshot)));
    let draw = move |ui: &mut Ui, app: &mut Option<App>| {
        let app = app.get_or_insert_with(|| {
            let (settings, snapshot) = initial.take().expect("the app is created once");
            let mut app = App::new(ui.ctx(), settings, None);
            app.snapshot = snapshot;
            app
        });
        app.draw(ui);
    };
    let mut harness = builder.build_ui_state(draw, None);
    harness.run();
    harness
}

/// Five sessions that this user opened, with one connected guest each.
fn five_sessions() -> Snapshot {
    let one = |(index, kind): (usize, SessionKind)| {
        let mut one =
            session_status(["red", "blue", "green", "brown", "pink"][index], kind, Role::Opener, 1);
        one.participants[0].peer = Some(PeerId(index as u64));
        one.participants[0].name = format!("Guest {}", index + 1);
        one
    };
    snapshot_of(SessionKind::FIVE.into_iter().enumerate().map(one).collect())
}

/// Compares with the file of that name in `tests/window`, or writes it if `KEEP` is set.
fn assert_matches_file(
    name: &str,
    bytes: &[u8],
    compare: impl FnOnce(&[u8]) -> Result<(), String>,
) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/window").join(name);
    if std::env::var_os("KEEP").is_some() {
        return std::fs::write(path, bytes).unwrap();
    }
    let kept = std::fs::read(&path).unwrap_or_default();
    if let Err(difference) = compare(&kept) {
        let actual = std::env::temp_dir().join(format!("quintet-{name}"));
        std::fs::write(&actual, bytes).unwrap();
        panic!(
            "tests/window/{name}: {difference}; {} holds the new version. To keep it: \
             KEEP=1 cargo test ui::",
            actual.display()
        );
    }
}

fn app<'a>(window: &'a mut Harness<'static, Option<App>>) -> &'a mut App {
    window.state_mut().as_mut().expect("the first frame creates the app")
}

/// The commands since the last call.
fn sent_commands(window: &mut Harness<'static, Option<App>>) -> Vec<Command> {
    window.run();
    let sent = app(window).unsent.drain(..).collect();
    window.run();
    sent
}

fn click(window: &mut Harness<'static, Option<App>>, label: &str) -> Vec<Command> {
    window.get_by_label(label).click();
    sent_commands(window)
}

#[test]
fn an_empty_window_explains_what_to_do_and_opens_five_kinds_with_five_ids() {
    let mut window = window(LARGE, Snapshot::default());
    window.get_by_label("Paste a link to join, or open a session");
    assert!(window.query_by_label("Leave all").is_none(), "no button without a session to leave");
    let sent = click(&mut window, "Open all five");
    let mut ids = BTreeSet::new();
    for (command, kind) in sent.iter().zip(SessionKind::FIVE) {
        let Command::Open(request) = command else { panic!("{command:?}") };
        assert_eq!((request.kind, request.limit), (kind, None));
        ids.insert(request.session.clone());
    }
    assert_eq!((sent.len(), ids.len()), (5, 5));
}

#[test]
fn an_engine_that_panicked_is_restarted_with_the_sessions_of_the_last_snapshot() {
    let snapshot = snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 2)]);
    let mut window = window(LARGE, snapshot.clone());
    let (name, message) = ("engine".to_owned(), "index out of bounds".to_owned());
    app(&mut window).engine_failure = Some(crate::supervision::Panicked { name, message });
    app(&mut window).unsent.push_back(Command::Undo);
    window.run();
    window.get_by_label("Quintet's engine stopped unexpectedly");
    let expected = crate::ui::saved_sessions::restore_commands(&snapshot);
    let sent = click(&mut window, "Restart");
    assert_eq!(sent, [expected, vec![Command::Undo]].concat());
    assert!(window.query_by_label("Restart").is_none());
}

#[test]
fn each_control_of_an_opened_sessions_card_sends_its_command() {
    let mut window = window(
        LARGE,
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 2)]),
    );
    let gate = |session: Option<&str>, gate| Command::SetEnabled {
        session: session.map(session_id),
        switch: gate,
        enabled: false,
    };
    for (label, command) in [
        ("Microphone in Conference", gate(Some("a"), MuteSwitch::MICROPHONE)),
        ("Camera in Conference", gate(Some("a"), MuteSwitch::CAMERA)),
        ("Sound in Conference", gate(Some("a"), MuteSwitch::Listening)),
        ("Leave Conference", Command::Depart(Departure::Leave(session_id("a")))),
        ("Microphone (M)", gate(None, MuteSwitch::MICROPHONE)),
        ("Camera (V)", gate(None, MuteSwitch::CAMERA)),
        ("Sound (D)", gate(None, MuteSwitch::Listening)),
    ] {
        assert_eq!(click(&mut window, label), [command], "{label}");
    }
    assert_eq!(click(&mut window, "Show people in Conference (2)"), []);
    let participant = ParticipantId::from_digest([1; 10]);
    let eject = |address| Command::Eject {
        session: session_id("a"),
        participant: participant.clone(),
        address,
    };
    assert_eq!(click(&mut window, "Remove Person 1 from Conference"), [], "a dialog asks first");
    assert_eq!(click(&mut window, "Remove"), [eject(false)]);
    click(&mut window, "Remove Person 1 from Conference");
    click(&mut window, "Keep out everybody else at the same network address");
    assert_eq!(click(&mut window, "Remove"), [eject(true)]);
    assert_eq!(click(&mut window, "End Conference for everyone"), [], "a dialog asks first");
    let close = Command::Depart(Departure::Close(session_id("a")));
    assert_eq!(click(&mut window, "End for everyone"), [close]);
}

#[test]
fn a_viewer_of_a_broadcast_has_no_sending_controls() {
    let viewer = session_status("b", SessionKind::FIVE[1], Role::Guest, 1);
    let window = window(LARGE, snapshot_of(vec![viewer]));
    for label in ["Microphone in Broadcast", "Camera in Broadcast", "End Broadcast for everyone"] {
        assert!(window.query_by_label(label).is_none(), "{label}: a viewer sends nothing");
    }
    window.get_by_label("Sound in Broadcast");
    window.get_by_label("Person 0 in Broadcast");
}

#[test]
fn every_session_state_has_a_text_and_an_exit_button() {
    let since = MediaTime::default();
    for (state, text, exit) in [
        (SessionState::Connecting, "Connecting…", "Leave Conference"),
        (SessionState::Waiting, "Waiting for the host", "Stop waiting for Conference"),
        (SessionState::Live, "Joined", "Leave Conference"),
        (
            SessionState::Reconnecting { since },
            "No answer from the hub. Trying again… (4 s)",
            "Leave Conference",
        ),
        (
            SessionState::HostLost { since },
            "The host lost connection. Waiting for them to come back… (4 s)",
            "Leave Conference",
        ),
        (
            SessionState::Ended { reason: EndReason::Closed },
            "Ended by the host",
            "Remove Conference from the list",
        ),
        (refused_by_hub(ErrorCode::SessionFull), "Full", "Remove Conference from the list"),
        (refused_by_hub(ErrorCode::NotAllowed), "Not allowed", "Remove Conference from the list"),
        (refused_by_hub(ErrorCode::NoSuchSession), "Not found", "Remove Conference from the list"),
    ] {
        let one =
            SessionStatus { state, ..session_status("s", SessionKind::FIVE[0], Role::Guest, 0) };
        let mut window = window(SMALL, snapshot_of(vec![one]));
        app(&mut window).now = MediaTime::from_micros(4_999_999);
        window.run();
        window.get_by_label(text);
        let sent = click(&mut window, exit);
        let leaves = [Command::Leave { session: session_id("s") }];
        assert!(
            sent == leaves || sent == [Command::Depart(Departure::Leave(session_id("s")))],
            "{sent:?}"
        );
    }
}

#[test]
fn an_ended_session_offers_a_retry() {
    let kind = SessionKind::FIVE[0];
    let guest = |state| SessionStatus { state, ..session_status("s", kind, Role::Guest, 0) };
    let opener = |state| SessionStatus { state, ..session_status("s", kind, Role::Opener, 0) };
    let hub = Some("http://127.0.0.1:7340".parse().unwrap());
    let join = Command::Join { target: JoinTarget { session: session_id("s"), hub }, wait: true };
    let open = Command::Open(OpenRequest { session: session_id("s"), kind, limit: Some(12) });
    for (one, retry, command) in [
        (guest(refused_by_hub(ErrorCode::SessionFull)), "Try again", join.clone()),
        (guest(refused_by_hub(ErrorCode::NoSuchSession)), "Wait until it opens", join.clone()),
        (guest(refused_by_hub(ErrorCode::NotAllowed)), "Try again", join.clone()),
        (
            guest(SessionState::Ended { reason: EndReason::Closed }),
            "Wait until it opens",
            join.clone(),
        ),
        (guest(SessionState::Ended { reason: EndReason::Ejected }), "Join again", join),
        (opener(refused_by_hub(ErrorCode::TooMany)), "Try again", open),
    ] {
        let mut window = window(SMALL, snapshot_of(vec![one]));
        assert_eq!(click(&mut window, retry), [command]);
    }
    let mut window = window(SMALL, snapshot_of(vec![opener(refused_by_hub(ErrorCode::IdTaken))]));
    let sent = click(&mut window, "Open with a new id");
    let [Command::Open(request)] = &sent[..] else { panic!("{sent:?}") };
    assert!(request.kind == kind && request.session != session_id("s"), "{request:?}");
}

/// The state of a session that a hub refused.
fn refused_by_hub(code: ErrorCode) -> SessionState {
    let reason = format!("it says {}", code.name());
    SessionState::Failed(HubFailure::Refused { code, reason }.of(&session_id("s"), None))
}

#[test]
fn any_number_of_tiles_stays_inside_the_window() {
    for size in [LARGE, SMALL] {
        for count in [1, 5, 25] {
            let kind = SessionKind::FIVE[0];
            let mut window =
                window(size, snapshot_of(vec![session_status("a", kind, Role::Opener, count)]));
            let frame = Size::new(64, 36);
            let black = VideoFrame::new(
                frame,
                MediaTime::default(),
                Arc::new(vec![16; frame.i420_bytes()]),
            );
            app(&mut window).feeds.set_frame(TrackRef::Peer(PeerId(0), Source::Camera), black, 0.0);
            window.run();
            let whole = Rect::from_min_size(egui::Pos2::ZERO, size.into());
            let mut tiles = 0;
            for part in [NodeRole::Button, NodeRole::CheckBox, NodeRole::TextInput] {
                for node in window.query_all_by_role(part) {
                    // With many tiles the panel scrolls, so a tile may be outside vertically.
                    let is_tile =
                        node.accesskit_node().label().is_some_and(|l| l.starts_with("Person "));
                    let rect = node.rect();
                    let is_inside = if is_tile {
                        whole.x_range().contains(rect.left())
                            && whole.x_range().contains(rect.right())
                    } else {
                        whole.contains_rect(rect)
                    };
                    assert!(is_inside, "{node:?} of {count} in {size:?}");
                }
            }
            for index in 0..count {
                let label = format!("Person {index} in Conference");
                tiles += window.query_all_by_label(&label).count();
            }
            assert_eq!(tiles, count);
        }
    }
}

#[test]
fn a_clicked_tile_is_pinned_and_released_by_another_click() {
    let mut window = window(
        LARGE,
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 5)]),
    );
    let tile = |window: &Harness<'_, Option<App>>| {
        window.get_by_label("Person 3 in Conference").rect().area()
    };
    let before = tile(&window);
    click(&mut window, "Person 3 in Conference");
    assert!(tile(&window) > 2.0 * before);
    click(&mut window, "Person 3 in Conference");
    assert_eq!(tile(&window), before);
}

#[test]
fn shortcuts_work_unless_a_text_box_has_the_focus() {
    let mut window = window(
        LARGE,
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 1)]),
    );
    let mute = |switch| vec![Command::SetEnabled { session: None, switch, enabled: false }];
    for (key, command) in [
        (Key::M, mute(MuteSwitch::MICROPHONE)),
        (Key::V, mute(MuteSwitch::CAMERA)),
        (Key::D, mute(MuteSwitch::Listening)),
    ] {
        window.key_press(key);
        assert_eq!(sent_commands(&mut window), command);
    }
    window.key_press(Key::Num1);
    window.run();
    window.get_by_label("Hide people in Conference (1)");
    window.event(egui::Event::Paste("http://h:1/s/pasted".to_owned()));
    assert!(matches!(&sent_commands(&mut window)[..], [Command::Join { target, .. }]
        if target.session == session_id("pasted")));
    window.get_by_label("Paste a link to join").focus();
    window.run();
    window.key_press(Key::M);
    window.get_by_label("Paste a link to join").type_text("md v");
    assert_eq!(sent_commands(&mut window), []);
}

#[test]
fn an_error_banner_does_not_move_the_tiles() {
    let mut window = window(LARGE, five_sessions());
    let rects = |window: &Harness<'_, Option<App>>| {
        let tiles = window.query_all_by_label_contains("Guest ");
        tiles.map(|tile| tile.rect()).collect::<Vec<_>>()
    };
    let before = rects(&window);
    app(&mut window).notices.show_error("the disk is full; free some of it".to_owned());
    window.run();
    window.get_by_label("The disk is full. Free some of it.");
    assert_eq!(rects(&window), before);
    click(&mut window, "Dismiss message");
    assert!(window.query_by_label("The disk is full. Free some of it.").is_none());
}

#[test]
fn a_participant_of_several_sessions_is_counted_once() {
    let one = |(index, count): (u64, usize)| {
        let mut one =
            session_status(&format!("s{index}"), SessionKind::FIVE[0], Role::Opener, count);
        for (other, participant) in (0..).zip(one.participants.iter_mut()) {
            participant.peer = Some(PeerId(10 * index + other));
        }
        one
    };
    let mut window = window(LARGE, snapshot_of([(1, 2), (2, 1), (3, 2)].map(one).into()));
    click(&mut window, "Leave all");
    window.get_by_label_contains("2 people are in your sessions");
}

#[test]
fn holding_space_unmutes_the_microphone_and_presses_no_button() {
    let mut snapshot =
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 1)]);
    snapshot.enabled.sources.microphone = false;
    let mut window = window(LARGE, snapshot);
    window.get_by_label("Leave all").focus();
    window.run();
    let gate =
        |open| Command::SetEnabled { session: None, switch: MuteSwitch::MICROPHONE, enabled: open };
    window.key_down(Key::Space);
    assert_eq!(sent_commands(&mut window), [gate(true)]);
    window.key_up(Key::Space);
    assert_eq!(sent_commands(&mut window), [gate(false)]);
}

#[test]
fn a_failed_camera_can_be_switched_off() {
    let message = "no camera is connected; pick another".to_owned();
    let failed = snapshot_with(DeviceKind::CAMERA, DeviceState::Failed { message });
    let mut window = window(LARGE, failed);
    window.get_by_label("No camera is connected. Pick another.");
    click(&mut window, "Go on without a camera");
    assert_eq!(app(&mut window).settings.camera, "none".into());
}

#[test]
fn an_error_stays_until_it_is_dismissed() {
    let mut window = window(SMALL, Snapshot::default());
    app(&mut window).show_error("the hub is gone; start one".to_owned());
    window.run();
    window.get_by_label("The hub is gone. Start one.");
    click(&mut window, "Dismiss message");
    assert!(window.query_by_label("The hub is gone. Start one.").is_none());
}

#[test]
fn a_session_of_any_kind_can_be_opened_with_a_chosen_id() {
    let mut window = window(SMALL, Snapshot::default());
    click(&mut window, "New session…");
    click(&mut window, "Video");
    click(&mut window, "Private line");
    window.get_by_label("Id in the link (optional)").focus();
    window.run();
    window.get_by_label("Id in the link (optional)").type_text("private");
    window.run();
    let sent = click(&mut window, "Open session");
    let [Command::Open(request)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(request.session, session_id("private"));
    assert_eq!(request.kind.to_string(), "audio/one-to-one");
    assert!(window.query_by_label("Open session").is_none(), "the dialog is gone");
}

#[test]
fn a_muted_switch_unmutes_and_the_on_air_badges_follow_the_session() {
    let mut one = session_status("a", SessionKind::FIVE[0], Role::Opener, 1);
    one.enabled.sources.microphone = false;
    let mut window = window(LARGE, snapshot_of(vec![one.clone()]));
    assert_eq!(window.query_all_by_label("ON AIR").count(), 2, "on the card and in the bar");
    let gate = MuteSwitch::MICROPHONE;
    let command =
        Command::SetEnabled { session: Some(session_id("a")), switch: gate, enabled: true };
    assert_eq!(click(&mut window, "Microphone in Conference"), [command]);
    let window =
        self::window(LARGE, snapshot_of(vec![SessionStatus { sending: PerSource::NONE, ..one }]));
    assert_eq!(window.query_all_by_label("ON AIR").count(), 0);
}

#[test]
fn pressing_a_key_rebinds_a_shortcut_and_a_used_key_is_refused_with_the_reason() {
    let mut window = window(LARGE, Snapshot::default());
    click(&mut window, "Settings");
    let mute = "M: Microphone on or off, everywhere";
    click(&mut window, mute);
    window.key_press(Key::V);
    assert_eq!(sent_commands(&mut window), [], "the dialog takes the key");
    window.get_by_label("V is already used: Camera on or off, everywhere. Press another key.");
    window.key_press(Key::Escape);
    window.run();
    window.get_by_label(mute);
    click(&mut window, mute);
    window.key_press(Key::F9);
    window.run();
    click(&mut window, "Save");
    assert_eq!(app(&mut window).settings.keys.key_name(Bindable::Mute), "F9");
    let command =
        Command::SetEnabled { session: None, switch: MuteSwitch::MICROPHONE, enabled: false };
    window.key_press(Key::M);
    assert_eq!(sent_commands(&mut window), []);
    window.key_press(Key::F9);
    assert_eq!(sent_commands(&mut window), [command]);
    click(&mut window, "Keyboard shortcuts (?)");
    window.get_by_label("F9");
    window.key_press(Key::Escape);
    window.run();
    click(&mut window, "Settings");
    click(&mut window, "Reset");
    click(&mut window, "Save");
    assert_eq!(app(&mut window).settings.keys, Bindings::default());
}

#[test]
fn a_dragged_panel_size_is_saved_and_a_size_forced_by_a_small_window_is_not() {
    let mut window = window(LARGE, Snapshot::default());
    let edge = egui::pos2(304.0, 400.0);
    window.hover_at(edge);
    window.run();
    window.drag_at(edge);
    window.run();
    window.hover_at(edge + egui::vec2(60.0, 0.0));
    window.run();
    window.drop_at(edge + egui::vec2(60.0, 0.0));
    window.run();
    let kept = app(&mut window).settings.panels;
    assert!((354..=372).contains(&kept.sessions), "{kept:?}");
    assert_eq!(kept.local_beside, 272, "the other panels keep their sizes");
    window.set_size(egui::vec2(640.0, 480.0));
    window.run();
    assert_eq!(app(&mut window).settings.panels, kept);
    let settings = Settings { panels: kept, ..Settings::default() };
    let again = window_of(Harness::builder().with_size(LARGE), settings, Snapshot::default());
    let right = again.get_by_label("Local Media Streams").rect().left();
    assert!(right > 354.0, "the next run starts with the saved size: {right}");
}

#[test]
fn only_visible_videos_are_taken() {
    let snapshot = snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 25)]);
    let mut window = window([640.0, 480.0], snapshot);
    let all = |window: &mut Harness<'static, Option<App>>, menu| {
        let app = app(window);
        visible_media(&app.snapshot, &app.stream_panels.visible, menu)
    };
    let media = all(&mut window, None);
    let (local, hidden) = (TrackRef::CAMERA, TrackRef::Peer(PeerId(24), Source::Camera));
    assert!(
        media.video.contains(&local)
            && media.video.contains(&TrackRef::Peer(PeerId(0), Source::Camera))
    );
    assert!(
        !media.video.contains(&hidden)
            && !media.levels.contains(&hidden.beside(Source::Microphone)),
        "scrolled out: {media:?}"
    );
    assert!(!media.microphone);
    app(&mut window).stream_panels.full_screen = true;
    window.run();
    assert!(!all(&mut window, None).video.contains(&local), "not drawn");
    app(&mut window).stream_panels.full_screen = false;
    let mut off = (*app(&mut window).snapshot).clone();
    off.enabled.sources.camera = false;
    app(&mut window).snapshot = Arc::new(off);
    window.run();
    assert!(!all(&mut window, None).video.contains(&local), "the camera is off");
    assert!(all(&mut window, Some(DeviceKind::CAMERA)).video.contains(&local), "its menu shows it");
    assert!(all(&mut window, Some(DeviceKind::MICROPHONE)).microphone);
}

#[test]
fn a_device_that_opens_slowly_shows_a_text_and_can_be_switched_off() {
    let mut window = window(LARGE, Snapshot::default());
    let app_of = app(&mut window);
    app_of.settings.camera = "Logitech C920 (default)".into();
    app_of.snapshot = Arc::new(snapshot_with(DeviceKind::CAMERA, DeviceState::Opening));
    // A step of the harness is a quarter of a second.
    window.run_steps(2);
    assert!(window.query_by_label("Go on without a camera").is_none(), "most devices open faster");
    window.run_steps(3);
    window.get_by_label("Starting Logitech C920…");
    window.get_by_label("Go on without a camera").click();
    window.run();
    assert_eq!(app(&mut window).settings.camera, "none".into());
}
