//! Compares the accessibility tree of every panel and state with the files in `tests/window`.
//!
//! `KEEP=1 cargo test --lib ui::` writes the files again. Review the difference, and run the tests
//! without it, before you commit it.

use eframe::egui::accesskit::{Role as NodeRole, Toggled};
use egui_kittest::kittest::AccessKitNode;

use super::*;
use crate::{
    engine::TrackRef,
    model::{PerDevice, PerSource, RemovedParticipant, Source},
};

/// What is done to a window before its outline is taken.
type WindowStep = fn(&mut Harness<'static, Option<App>>);

/// Compares the accessibility tree of the window with the file of that name.
fn assert_outline(name: &str, window: &Harness<'_, Option<App>>) {
    let mut text = String::new();
    for node in window.root().children() {
        outline(&mut text, &node.accesskit_node(), 0);
    }
    assert_matches_file(&format!("{name}.txt"), text.as_bytes(), |kept| {
        let kept = String::from_utf8_lossy(kept);
        if kept == text { Ok(()) } else { Err(first_difference(&kept, &text)) }
    });
}

/// Writes one line for each node with a label or value. Children are indented.
fn outline(text: &mut String, node: &AccessKitNode<'_>, depth: usize) {
    // Text runs are parts of a label, not widgets.
    let role = node.role();
    let is_text_run = role == NodeRole::TextRun;
    let label = node.label().or_else(|| (role == NodeRole::Label).then(|| node.value()).flatten());
    let has_text = !is_text_run && (label.is_some() || node.value().is_some());
    if has_text {
        let mut line = format!("{}{role:?}", "  ".repeat(depth));
        if let Some(label) = &label {
            line += &format!(" {label:?}");
        }
        if let Some(value) = node.value().filter(|value| Some(value) != label.as_ref()) {
            line += &format!(" = {value:?}");
        }
        match node.toggled() {
            Some(Toggled::True) => line += " on",
            Some(Toggled::False) => line += " off",
            Some(Toggled::Mixed) | None => {}
        }
        if node.is_disabled() {
            line += " disabled";
        }
        *text += &(line + "\n");
    }
    if !is_text_run {
        for child in node.children() {
            outline(text, &child, depth + usize::from(has_text));
        }
    }
}

fn first_difference(kept: &str, now: &str) -> String {
    let none = "(nothing)";
    let lines = kept.lines().map(Some).chain(std::iter::repeat(None));
    let pairs = lines.zip(now.lines().map(Some).chain(std::iter::repeat(None)));
    let found = pairs.enumerate().find(|(_, (one, other))| one != other);
    found.map_or_else(String::new, |(line, (one, other))| {
        let (one, other) = (one.unwrap_or(none), other.unwrap_or(none));
        format!("line {}: {one} is now {other}", line + 1)
    })
}

/// A snapshot with one session that this user joined as a guest, in that state.
fn guest(state: SessionState) -> Snapshot {
    snapshot_of(vec![SessionStatus {
        state,
        ..session_status("town-hall", SessionKind::FIVE[0], Role::Guest, 0)
    }])
}

fn unreachable() -> SessionState {
    let reason = "nobody answers at http://127.0.0.1:7340: check the address, or start a hub there";
    SessionState::Unreachable { reason: reason.to_owned() }
}

fn snapshot_with_participants(count: usize) -> Snapshot {
    snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, count)])
}

#[test]
fn every_session_state_matches_its_outline() {
    let since = MediaTime::from_micros(1_000_000);
    let mut silent = snapshot_with_participants(2);
    let session = Arc::make_mut(&mut silent.sessions[0]);
    session.participants[0].state = ParticipantState::Reconnecting;
    session.participants[0].since = since;
    session.participants[1].state = ParticipantState::Gone;
    let mut locked = snapshot_with_participants(2);
    let session = Arc::make_mut(&mut locked.sessions[0]);
    session.participants[1].name = "Per\u{455}on 0".to_owned();
    session.locked = true;
    let participant = ParticipantId::from_digest([9; 10]);
    session.removed = vec![RemovedParticipant { participant, name: "Eve".into() }];
    for (name, snapshot) in [
        ("locked", locked),
        ("empty", Snapshot::default()),
        ("connecting", guest(SessionState::Connecting)),
        ("unreachable", guest(unreachable())),
        ("waiting", guest(SessionState::Waiting)),
        ("live", guest(SessionState::Live)),
        ("hub-lost", guest(SessionState::Reconnecting { since })),
        ("host-lost", guest(SessionState::HostLost { since })),
        ("reconnecting", silent),
        ("ended", guest(SessionState::Ended { reason: EndReason::Closed })),
        ("full", guest(refused_by_hub(ErrorCode::SessionFull))),
        ("not-allowed", guest(refused_by_hub(ErrorCode::NotAllowed))),
        ("no-such-session", guest(refused_by_hub(ErrorCode::NoSuchSession))),
    ] {
        let mut window = window(LARGE, snapshot);
        app(&mut window).now = MediaTime::from_micros(5_500_000);
        window.key_press(Key::Num1);
        window.run();
        assert_outline(name, &window);
    }
}

#[test]
fn one_five_and_twenty_five_tiles_match_their_outlines() {
    for count in [1, 5, 25] {
        assert_outline(
            &format!("tiles-{count}"),
            &window(LARGE, snapshot_with_participants(count)),
        );
    }
    assert_outline("five-sessions", &window(LARGE, five_sessions()));
    assert_outline("five-sessions-narrow", &window(SMALL, five_sessions()));
}

#[test]
fn errors_and_missing_devices_match_their_outline() {
    let failed = |message: &str| DeviceState::Failed { message: message.to_owned() };
    let snapshot = Snapshot {
        devices: PerDevice {
            sources: PerSource {
                camera: failed("there is no camera; connect one"),
                microphone: failed(
                    "microphone \"USB\" is in use by another program; close it there",
                ),
            },
            speaker: failed("the speaker stopped asking for sound; it is tried again"),
        },
        hubs: vec![HubStatus { url: None, state: HubState::Connecting, guests: 0, endpoint: None }],
        ..Snapshot::default()
    };
    let mut window = window(LARGE, snapshot);
    app(&mut window).show_error("no session \"x\" is open at the hub; check the id".to_owned());
    window.run();
    assert_outline("error", &window);
}

#[test]
fn every_dialog_and_menu_matches_its_outline() {
    let press = |window: &mut Harness<'static, Option<App>>, label: &str| {
        window.get_by_label(label).click();
        window.run();
    };
    let open: [(&str, &str); 8] = [
        ("dialog-open", "New session…"),
        ("dialog-settings", "Settings"),
        ("dialog-keys", "Keyboard shortcuts (?)"),
        ("dialog-code", "Show QR code of Conference"),
        ("dialog-close", "End Conference for everyone"),
        ("menu-microphone", "Choose microphone"),
        ("menu-camera", "Choose camera"),
        ("menu-speaker", "Choose speaker"),
    ];
    for (name, label) in open {
        let mut window = window(SMALL, snapshot_with_participants(1));
        press(&mut window, label);
        assert_outline(name, &window);
    }
    let hub = "http://evil.example:7340".parse().ok();
    let mut asking = window(SMALL, snapshot_with_participants(1));
    let linked = Dialog::JoinFromChat(JoinTarget { session: session_id("town-hall"), hub });
    app(&mut asking).dialog = Some(linked);
    asking.run();
    assert_outline("dialog-join-linked", &asking);
    let mut window = window(SMALL, snapshot_with_participants(1));
    window.key_press(Key::Num1);
    window.run();
    press(&mut window, "Remove Person 0 from Conference");
    assert_outline("dialog-eject", &window);
}

#[test]
fn the_full_screen_view_matches_its_outline() {
    let pin: WindowStep = |window| {
        app(window).stream_panels.pinned = Some(TrackRef::Peer(PeerId(2), Source::Camera));
        window.key_press(Key::F);
        window.run();
    };
    let mut window = window(LARGE, snapshot_with_participants(5));
    pin(&mut window);
    assert_outline("full-screen-pinned", &window);
}
