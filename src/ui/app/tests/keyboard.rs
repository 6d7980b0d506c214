//! Tests of the window by keyboard: the tab order, Enter, and where the focus returns.

use egui_kittest::Node;

use super::*;
use crate::model::{MediaSet, Topology};

/// The roles of the widgets that Tab must reach while they are enabled.
const CONTROLS: [NodeRole; 9] = [
    NodeRole::Button,
    NodeRole::CheckBox,
    NodeRole::RadioButton,
    NodeRole::TextInput,
    NodeRole::MultilineTextInput,
    NodeRole::SpinButton,
    NodeRole::Slider,
    NodeRole::Splitter,
    NodeRole::Link,
];

/// The label and rectangle of the widget with the focus.
fn focused(window: &Harness<'_, Option<App>>) -> Option<(String, Rect)> {
    let node = window.query_by(|node| node.is_focused())?;
    Some((name(&node), node.rect()))
}

fn name(node: &Node<'_>) -> String {
    let node = node.accesskit_node();
    node.label().unwrap_or_else(|| format!("{:?} without a name", node.role()))
}

/// The labels of all enabled controls.
fn controls(window: &Harness<'_, Option<App>>) -> Vec<String> {
    let nodes = CONTROLS.into_iter().flat_map(|part| window.query_all_by_role(part));
    let nodes = nodes.filter(|node| !node.accesskit_node().is_disabled());
    nodes.map(|node| name(&node)).collect()
}

/// Presses Tab until the focus is back at the first control.
fn tab_through(window: &mut Harness<'static, Option<App>>) -> Vec<(String, Rect)> {
    let mut walked: Vec<(String, Rect)> = vec![];
    loop {
        window.key_press(Key::Tab);
        window.run();
        window.run();
        let (name, rect) = focused(window).expect("Tab always focuses a control");
        if walked.first().is_some_and(|(first, _)| *first == name) {
            return walked;
        }
        assert!(walked.len() < 200, "the tab order does not end: {walked:?}");
        let whole = window.ctx.content_rect();
        assert!(whole.contains_rect(rect), "{name} has the focus but is not visible: {rect:?}");
        walked.push((name, rect));
    }
}

/// Asserts that Tab reaches every control once, except those behind a dialog, and compares the
/// order with the file.
fn assert_tab_order(name: &str, window: &mut Harness<'static, Option<App>>, behind: &[String]) {
    let mut walked: Vec<_> = tab_through(window).into_iter().map(|(name, _)| name).collect();
    let text = walked.join("\n") + "\n";
    assert_matches_file(&format!("tab-{name}.txt"), text.as_bytes(), |kept| {
        let kept = String::from_utf8_lossy(kept);
        if kept == text { Ok(()) } else { Err(format!("the order is now\n{text}")) }
    });
    let mut expected = controls(window);
    for name in behind {
        let index = expected
            .iter()
            .position(|one| one == name)
            .expect("controls behind the dialog are still drawn");
        expected.remove(index);
    }
    walked.sort();
    expected.sort();
    assert_eq!(walked, expected, "{name}: Tab reaches each control once");
}

/// Five sessions with two participants each. All participant lists are expanded.
fn window_with_expanded_sessions(size: [f32; 2]) -> Harness<'static, Option<App>> {
    let names = ["red", "blue", "green", "brown", "pink"];
    let mut next_peer = 0..;
    let one = |(name, kind): (&str, SessionKind)| {
        let mut one = session_status(name, kind, Role::Opener, 2);
        for participant in one.participants.iter_mut() {
            participant.name = format!("{} of {name}", participant.name);
            participant.peer = next_peer.next().map(PeerId);
        }
        one
    };
    let mut window =
        window(size, snapshot_of(names.into_iter().zip(SessionKind::FIVE).map(one).collect()));
    for key in [Key::Num1, Key::Num2, Key::Num3, Key::Num4, Key::Num5] {
        window.key_press(key);
        window.run();
    }
    window
}

fn press(window: &mut Harness<'static, Option<App>>, key: Key) {
    window.key_press(key);
    window.run();
    window.run();
}

fn focus(window: &mut Harness<'static, Option<App>>, label: &str) {
    window.get_by_label(label).focus();
    window.run();
    assert_eq!(focused(window).map(|(name, _)| name).as_deref(), Some(label));
}

#[test]
fn tab_reaches_every_control_of_the_window_once() {
    assert_tab_order("empty", &mut window(LARGE, Snapshot::default()), &[]);
    assert_tab_order("five", &mut window_with_expanded_sessions(LARGE), &[]);
    let conference = SessionKind {
        media: MediaSet::AUDIO_VIDEO.with(Media::Data),
        topology: Topology::ManyToMany,
    };
    let mut window =
        window(LARGE, snapshot_of(vec![session_status("a", conference, Role::Opener, 2)]));
    click(&mut window, "Chat in Conference");
    let text = crate::model::ChatText::new("see https://example.org/x").unwrap();
    let sent_message = Event::MessageSent { session: session_id("a"), text };
    app(&mut window).chats.on_event(&sent_message, "14:05");
    window.get_by_label("Message to Conference").type_text("hello");
    window.run();
    app(&mut window).show_error("the hub is gone; start one".to_owned());
    press(&mut window, Key::Escape);
    assert_tab_order("chat", &mut window, &[]);
}

#[test]
fn tab_goes_through_the_session_cards_row_by_row_and_from_left_to_right() {
    for size in [LARGE, SMALL] {
        let mut window = window_with_expanded_sessions(size);
        let edge = window.get_by_label("Local Media Streams").rect().left();
        let mut cards = tab_through(&mut window);
        cards.retain(|(_, rect)| rect.right() < edge);
        let names = SessionKind::FIVE.map(crate::ui::labels::kind);
        for name in names {
            let rects: Vec<_> = cards
                .iter()
                .filter(|(label, _)| label.ends_with(&*name) || label.contains(&format!("{name} ")))
                .map(|(label, _)| window.get_by_label(label).rect())
                .collect();
            assert!(rects.len() >= 7, "{name}: {cards:?}");
            for pair in rects.windows(2) {
                let same_row = pair[0].y_range().contains(pair[1].center().y);
                let follows = if same_row {
                    pair[0].right() <= pair[1].left()
                } else {
                    pair[0].bottom() <= pair[1].top() + 1.0
                };
                assert!(follows, "{name}: {pair:?} of {rects:?}");
            }
        }
    }
}

#[test]
fn a_dialog_keeps_the_focus_and_escape_returns_it() {
    for (name, opener) in [
        ("dialog-open", "New session…"),
        ("dialog-settings", "Settings"),
        ("dialog-keys", "Keyboard shortcuts (?)"),
        ("dialog-code", "Show QR code of Conference"),
        ("dialog-close", "End Conference for everyone"),
        ("dialog-eject", "Remove Person 0 of red from Conference"),
    ] {
        let mut window = window_with_expanded_sessions(SMALL);
        focus(&mut window, opener);
        let behind = controls(&window);
        press(&mut window, Key::Enter);
        assert!(app(&mut window).dialog.is_some(), "{opener} is pressed by Enter");
        assert_tab_order(name, &mut window, &behind);
        press(&mut window, Key::Escape);
        assert!(app(&mut window).dialog.is_none(), "{name} is closed by Escape");
        assert_eq!(focused(&window).map(|(name, _)| name).as_deref(), Some(opener));
        assert_eq!(sent_commands(&mut window), []);
    }
}

#[test]
fn a_device_menu_works_by_keyboard() {
    let mut window = window(SMALL, Snapshot::default());
    focus(&mut window, "Choose camera");
    press(&mut window, Key::Enter);
    for entry in ["System default", "Test picture"] {
        press(&mut window, Key::Tab);
        assert_eq!(focused(&window).unwrap().0, entry);
    }
    press(&mut window, Key::Enter);
    assert_eq!(app(&mut window).settings.camera, "pattern:1280x720@30".into());
    press(&mut window, Key::Escape);
    assert!(window.query_by_label("Test picture").is_none());
    assert_eq!(focused(&window).unwrap().0, "Choose camera");
}

#[test]
fn enter_presses_each_kind_of_control() {
    let mut window = window_with_expanded_sessions(LARGE);
    focus(&mut window, "Microphone in Conference");
    press(&mut window, Key::Enter);
    let gate = MuteSwitch::MICROPHONE;
    let command =
        Command::SetEnabled { session: Some(session_id("red")), switch: gate, enabled: false };
    assert_eq!(sent_commands(&mut window), [command]);
    focus(&mut window, "Hide people in Conference (2)");
    press(&mut window, Key::Enter);
    window.get_by_label("Show people in Conference (2)");
    let tile = "Person 0 of red in Conference";
    focus(&mut window, tile);
    press(&mut window, Key::Enter);
    assert!(app(&mut window).stream_panels.pinned.is_some(), "a tile is pinned");
    assert_eq!(focused(&window).unwrap().0, tile, "the pinned tile keeps the focus");
    press(&mut window, Key::Enter);
    assert!(app(&mut window).stream_panels.pinned.is_none());
    focus(&mut window, "Copy link to Conference");
    window.key_down(Key::Enter);
    window.step();
    let copied = window.output().platform_output.commands.iter();
    let link = "http://127.0.0.1:7340/s/red".to_owned();
    assert!(copied.clone().any(|one| *one == egui::OutputCommand::CopyText(link.clone())));
    focus(&mut window, "Settings");
    press(&mut window, Key::Enter);
    focus(&mut window, "M: Microphone on or off, everywhere");
    press(&mut window, Key::Enter);
    press(&mut window, Key::Enter);
    window.get_by_label_contains("Enter presses the control that has the focus");
    press(&mut window, Key::F9);
    focus(&mut window, "Light");
    press(&mut window, Key::Enter);
    focus(&mut window, "Save");
    press(&mut window, Key::Enter);
    let settings = &app(&mut window).settings;
    assert_eq!(settings.keys.key_name(Bindable::Mute), "F9");
    assert_eq!(settings.theme, ThemeChoice::Light);
}

/// A window whose open chat shows these messages.
fn window_with_chat(lines: impl IntoIterator<Item = String>) -> Harness<'static, Option<App>> {
    let chat = SessionKind { media: MediaSet::DATA, topology: Topology::ManyToMany };
    let mut window = window(LARGE, snapshot_of(vec![session_status("a", chat, Role::Opener, 1)]));
    click(&mut window, "Chat in Group chat");
    for line in lines {
        let text = crate::model::ChatText::new(&line).unwrap();
        app(&mut window)
            .chats
            .on_event(&Event::MessageSent { session: session_id("a"), text }, "14:05");
    }
    for _ in 0..3 {
        window.run();
    }
    window
}

#[test]
fn enter_opens_a_url_in_the_chat() {
    let mut window = window_with_chat(["see https://example.org/x".to_owned()]);
    focus(&mut window, "https://example.org/x");
    press(&mut window, Key::Enter);
    assert_eq!(app(&mut window).browser.take_failed().as_deref(), Some("https://example.org/x"));
}

#[test]
fn tab_reaches_every_url_of_a_long_chat_in_order_and_back() {
    let line = |index: usize| match index % 40 {
        7 => format!("https://example.org/{index}"),
        _ => format!("line {index}"),
    };
    let mut window = window_with_chat((0..300).map(line));
    let urls: Vec<_> = (0..300).map(line).filter(|line| line.starts_with("http")).collect();
    focus(&mut window, "Message to Group chat");
    let tab_through_urls = |window: &mut Harness<'static, Option<App>>, modifiers: Modifiers| {
        let mut reached = vec![];
        while reached.len() < urls.len() {
            window.key_press_modifiers(modifiers, Key::Tab);
            for _ in 0..3 {
                window.run();
            }
            let (name, rect) = focused(window).expect("Tab always focuses a control");
            let whole = window.ctx.content_rect();
            assert!(whole.contains_rect(rect), "{name} has the focus but is not visible: {rect:?}");
            if !name.starts_with("http") {
                break;
            }
            reached.push(name);
        }
        reached
    };
    // Tab enters the chat at the newest URL above the visible part, because the chat shows its end.
    let entered = tab_through_urls(&mut window, Modifiers::NONE);
    assert_eq!(entered, urls[urls.len() - entered.len()..], "on to the newest");
    focus(&mut window, urls.last().unwrap());
    let mut back = tab_through_urls(&mut window, Modifiers::SHIFT);
    back.reverse();
    assert_eq!(back, urls[..urls.len() - 1], "back to the oldest");
    focus(&mut window, &urls[0]);
    assert_eq!(tab_through_urls(&mut window, Modifiers::NONE), urls[1..], "and on again");
}

#[test]
fn arrow_keys_move_a_focused_splitter_and_the_size_is_saved() {
    for (size, splitters) in [
        (LARGE, [("sessions", Key::ArrowRight), ("your picture", Key::ArrowRight)]),
        (SMALL, [("sessions", Key::ArrowRight), ("your picture", Key::ArrowDown)]),
    ] {
        for (panel, larger) in splitters {
            let mut window = window(size, Snapshot::default());
            let label = format!("Resize {panel}");
            focus(&mut window, &label);
            window.run();
            let (before, kept) = (window.get_by_label(&label).rect(), panels(&mut window));
            press(&mut window, larger);
            let after = window.get_by_label(&label).rect();
            assert!((after.center() - before.center()).length() > 8.0, "{panel} in {size:?}");
            assert_eq!(focused(&window).unwrap().0, label, "the splitter keeps the focus");
            assert_ne!(panels(&mut window), kept, "{panel} in {size:?}");
            let smaller = if larger == Key::ArrowDown { Key::ArrowUp } else { Key::ArrowLeft };
            press(&mut window, smaller);
            assert_eq!(panels(&mut window), kept, "{panel} in {size:?}");
            press(&mut window, Key::Tab);
            assert_ne!(focused(&window).unwrap().0, label, "Tab leaves the splitter");
        }
    }
    let mut window = window_with_chat([]);
    focus(&mut window, "Resize chat");
    window.run();
    let (before, kept) = (window.get_by_label("Resize chat").rect(), panels(&mut window));
    press(&mut window, Key::ArrowLeft);
    assert!(window.get_by_label("Resize chat").rect().left() < before.left() - 8.0);
    assert!(panels(&mut window).chat_beside > kept.chat_beside);
}

fn panels(window: &mut Harness<'static, Option<App>>) -> crate::ui::settings::Panels {
    app(window).settings.panels
}

#[test]
fn space_is_push_to_talk_and_presses_buttons_only_if_rebound() {
    let mut snapshot =
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 1)]);
    snapshot.enabled.sources.microphone = false;
    let mut window = window(LARGE, snapshot);
    let talk =
        |open| Command::SetEnabled { session: None, switch: MuteSwitch::MICROPHONE, enabled: open };
    let talks = |window: &mut Harness<'static, Option<App>>| {
        window.key_down(Key::Space);
        assert_eq!(sent_commands(window), [talk(true)]);
        window.key_up(Key::Space);
        assert_eq!(sent_commands(window), [talk(false)]);
    };
    for control in [
        "Camera in Conference",
        "Person 0 in Conference",
        "Choose camera",
        "Copy link to Conference",
    ] {
        focus(&mut window, control);
        talks(&mut window);
    }
    assert!(app(&mut window).stream_panels.pinned.is_none());
    assert!(window.query_by_label("Test picture").is_none(), "no menu");
    click(&mut window, "New session…");
    focus(&mut window, "Chat");
    talks(&mut window);
    press(&mut window, Key::Enter);
    let chat = window.get_by_label("Chat").accesskit_node().toggled();
    assert_eq!(chat, Some(egui::accesskit::Toggled::True), "Enter toggles it, Space does not");
    press(&mut window, Key::Escape);
    press(&mut window, Key::Questionmark);
    window.get_by_label("Move through the controls and press one. Space only talks.");
    press(&mut window, Key::Escape);
    app(&mut window).settings.keys.bind(Bindable::Talk, Key::F7).unwrap();
    focus(&mut window, "Camera in Conference");
    window.key_press(Key::Space);
    let session = Some(session_id("a"));
    assert_eq!(
        sent_commands(&mut window),
        [Command::SetEnabled { session, switch: MuteSwitch::CAMERA, enabled: false }]
    );
    press(&mut window, Key::Questionmark);
    window.get_by_label("Move through the controls and press one, as Space does.");
}
