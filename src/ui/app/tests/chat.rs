//! Tests of the chat in the whole window.

use super::*;
use crate::model::{ChatText, MediaSet, PerSource, Topology};

fn chat_session(name: &str, topology: Topology, role: Role, count: usize) -> SessionStatus {
    let kind = SessionKind { media: MediaSet::DATA, topology };
    SessionStatus { sending: PerSource::NONE, ..session_status(name, kind, role, count) }
}

fn group_chat(name: &str) -> SessionStatus {
    chat_session(name, Topology::ManyToMany, Role::Opener, 2)
}

fn message(of: &str, name: &str, text: &str) -> Event {
    Event::MessageReceived {
        session: session_id(of),
        participant: ParticipantId::from_digest([0; 10]),
        name: name.to_owned(),
        text: ChatText::new(text).unwrap(),
    }
}

fn deliver(window: &mut Harness<'static, Option<App>>, event: &Event) {
    app(window).chats.on_event(event, "14:05");
    window.run();
}

fn send_message(of: &str, text: &str) -> Command {
    Command::SendMessage { session: session_id(of), text: ChatText::new(text).unwrap() }
}

/// Types into the message box of the open chat.
fn type_message(window: &mut Harness<'static, Option<App>>, of: &str, text: &str) {
    let label = format!("Message to {of}");
    window.get_by_label(&label).focus();
    window.run();
    window.get_by_label(&label).type_text(text);
    window.run();
}

#[test]
fn messages_count_as_unread_until_the_chat_opens_and_show_name_and_time() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a"), group_chat("b")]));
    deliver(&mut window, &message("a", "Ada", "hello"));
    deliver(&mut window, &message("a", "Ben", "how are you?"));
    window.get_by_label("Chat in Group chat b");
    assert!(window.query_by_label("hello").is_none(), "no chat is open");
    assert_eq!(click(&mut window, "Chat in Group chat a: 2 unread"), []);
    for shown in ["Ada", "hello", "Ben", "how are you?"] {
        window.get_by_label(shown);
    }
    assert_eq!(window.query_all_by_label("14:05").count(), 2);
    deliver(
        &mut window,
        &Event::MessageSent { session: session_id("a"), text: ChatText::new("fine").unwrap() },
    );
    deliver(&mut window, &message("b", "Cleo", "elsewhere"));
    window.get_by_label("You");
    assert!(window.query_by_label("elsewhere").is_none());
    let (session, participant) = (session_id("a"), ParticipantId::from_digest([0; 10]));
    let lost = Event::Undelivered { session, participant, name: "Ben".into(), count: 2 };
    deliver(&mut window, &lost);
    window.get_by_label_contains("2 messages may not have reached Ben");
    click(&mut window, "Chat in Group chat b: 1 unread");
    window.get_by_label("elsewhere");
    click(&mut window, "Close chat");
    window.get_by_label("Chat in Group chat a");
    assert!(window.query_by_label("elsewhere").is_none());
}

#[test]
fn enter_sends_the_message_and_no_key_is_a_shortcut_while_typing() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a")]));
    click(&mut window, "Chat in Group chat");
    window.get_by_label("Message to Group chat").type_text("mvd f?");
    window.run();
    window.key_press(Key::M);
    window.key_press_modifiers(Modifiers::SHIFT, Key::Enter);
    window.run();
    window.get_by_label("Message to Group chat").type_text("1 2");
    assert_eq!(sent_commands(&mut window), [], "nothing is sent yet, and the box had the focus");
    window.key_press(Key::Enter);
    assert_eq!(sent_commands(&mut window), [send_message("a", "mvd f?\n1 2")]);
    window.key_press(Key::Enter);
    assert_eq!(sent_commands(&mut window), [], "the box is empty again");
    type_message(&mut window, "Group chat", "by the button");
    assert_eq!(click(&mut window, "Send"), [send_message("a", "by the button")]);
}

#[test]
fn each_session_keeps_its_draft_until_a_participant_is_there() {
    let empty = chat_session("b", Topology::OneToOne, Role::Opener, 0);
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a"), empty]));
    click(&mut window, "Chat in Group chat");
    type_message(&mut window, "Group chat", "for a");
    click(&mut window, "Chat in Private chat");
    window.get_by_label("Nobody is here to read it yet");
    type_message(&mut window, "Private chat", "for b");
    window.key_press(Key::Enter);
    assert_eq!(sent_commands(&mut window), []);
    click(&mut window, "Chat in Group chat");
    assert_eq!(click(&mut window, "Send"), [send_message("a", "for a")]);
    let snapshot = snapshot_of(vec![chat_session("b", Topology::OneToOne, Role::Opener, 1)]);
    app(&mut window).snapshot = Arc::new(snapshot);
    window.run();
    assert!(
        window.query_by_label("Close chat").is_none(),
        "session a has ended, and its chat closed"
    );
    click(&mut window, "Chat in Private chat");
    window.key_press(Key::Enter);
    assert_eq!(sent_commands(&mut window), [send_message("b", "for b")]);
}

#[test]
fn a_viewer_cannot_write_and_a_session_without_data_has_no_chat() {
    let viewer = chat_session("a", Topology::OneWay, Role::Guest, 1);
    let without_chat = session_status("b", SessionKind::FIVE[0], Role::Opener, 1);
    let mut window = window(SMALL, snapshot_of(vec![viewer, without_chat]));
    assert!(window.query_by_label("Chat in Conference").is_none());
    click(&mut window, "Chat in Chat broadcast");
    window.get_by_label("Only the host can write here.");
    assert!(window.query_by_label("Message to Chat broadcast").is_none());
    assert!(window.query_by_label("Send").is_none());
}

#[test]
fn a_click_opens_a_url_and_a_javascript_text_is_no_url() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a")]));
    click(&mut window, "Chat in Group chat");
    let text = "see https://example.org/x?y, not javascript:alert(1)";
    deliver(&mut window, &message("a", "Ada", text));
    window.get_by_label("see ");
    assert_eq!(window.query_all_by_role(NodeRole::Link).count(), 1);
    assert_eq!(click(&mut window, "https://example.org/x?y"), []);
    // The test has no browser, so the URL is reported as not opened.
    let failed = app(&mut window).browser.take_failed();
    assert_eq!(failed.as_deref(), Some("https://example.org/x?y"));
}

#[test]
fn a_url_that_no_browser_opens_is_copied_and_a_toast_reports_it() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a")]));
    let ctx = window.ctx.clone();
    app(&mut window).browser.open("https://example.org/x".to_owned(), &ctx);
    app(&mut window).refresh(&ctx);
    window.run();
    window.get_by_label("No browser opened. The link is copied instead.");
    assert_eq!(app(&mut window).browser.take_failed(), None, "reported once");
}

#[test]
fn a_message_that_is_too_long_stays_in_the_box_with_an_error() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a")]));
    click(&mut window, "Chat in Group chat");
    type_message(&mut window, "Group chat", &"word ".repeat(900));
    window.key_press(Key::Enter);
    assert_eq!(sent_commands(&mut window), []);
    window.get_by_label_contains("of at most 4096 bytes");
    type_message(&mut window, "Group chat", "!");
    assert!(window.query_by_label_contains("of at most 4096 bytes").is_none(), "edited");
}

#[test]
fn an_open_chat_leaves_every_control_inside_the_window() {
    for size in [LARGE, SMALL] {
        let conference =
            SessionKind { media: MediaSet::AUDIO_VIDEO.with(Media::Data), ..group_chat_kind() };
        let mut window =
            window(size, snapshot_of(vec![session_status("a", conference, Role::Opener, 4)]));
        click(&mut window, "Chat in Conference");
        for text in
            ["x".repeat(4000), "one\n\ntwo".to_owned(), format!("https://h/{}", "y".repeat(400))]
        {
            deliver(&mut window, &message("a", &"Long Name ".repeat(6), &text));
        }
        let whole = Rect::from_min_size(egui::Pos2::ZERO, size.into());
        for part in [
            NodeRole::Button,
            NodeRole::CheckBox,
            NodeRole::TextInput,
            NodeRole::MultilineTextInput,
        ] {
            for node in window.query_all_by_role(part) {
                assert!(whole.contains_rect(node.rect()), "{node:?} in {size:?}");
            }
        }
        for index in 0..4 {
            window.get_by_label(&format!("Person {index} in Conference"));
        }
        let link = window.get_by_role(NodeRole::Link).rect();
        let panel = window.get_by_label("Close chat").rect();
        assert!(link.right() <= panel.right() + 8.0, "{link:?} beside {panel:?}");
    }
}

fn group_chat_kind() -> SessionKind {
    SessionKind { media: MediaSet::DATA, topology: Topology::ManyToMany }
}

#[test]
fn the_dialog_opens_a_chat_only_session_and_it_needs_no_tiles() {
    let mut window = window(SMALL, Snapshot::default());
    click(&mut window, "New session…");
    for medium in ["Audio", "Video"] {
        click(&mut window, medium);
    }
    window.get_by_label("Choose audio, video or chat.");
    click(&mut window, "Chat");
    let sent = click(&mut window, "Open session");
    let [Command::Open(request)] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(request.kind, group_chat_kind());
    let window = self::window(SMALL, snapshot_of(vec![group_chat("a")]));
    window.get_by_label("Chat only");
    window.get_by_label("Only you see this");
}

#[test]
fn a_long_chat_shows_its_newest_messages_and_draws_only_visible_ones() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a")]));
    click(&mut window, "Chat in Group chat");
    for index in 0..300 {
        let rows = "row\n".repeat(index % 50);
        app(&mut window)
            .chats
            .on_event(&message("a", "Ada", &format!("{rows}end {index}")), "14:05");
    }
    window.run();
    window.run();
    window.get_by_label_contains("end 299");
    assert!(window.query_all_by_label("14:05").count() < 50);
    deliver(&mut window, &message("a", "Ada", "newest"));
    let newest = window.get_by_label("newest").rect();
    let message_box = window.get_by_label("Message to Group chat").rect();
    assert!(newest.bottom() <= message_box.top(), "{newest:?} above {message_box:?}");
}

#[test]
fn page_up_and_page_down_scroll_a_long_chat() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a")]));
    click(&mut window, "Chat in Group chat");
    for index in 0..100 {
        app(&mut window).chats.on_event(&message("a", "Ada", &format!("line {index}")), "14:05");
    }
    window.run();
    window.run();
    assert!(
        window.query_by_label("line 99").is_some() && window.query_by_label("line 0").is_none()
    );
    for _ in 0..12 {
        window.key_press(Key::PageUp);
        window.run();
    }
    assert!(
        window.query_by_label("line 0").is_some() && window.query_by_label("line 99").is_none()
    );
    for _ in 0..12 {
        window.key_press(Key::PageDown);
        window.run();
    }
    assert!(window.query_by_label("line 99").is_some());
}

#[test]
fn an_unread_message_shows_a_toast_and_one_in_the_open_chat_does_not() {
    let mut window = window(LARGE, snapshot_of(vec![group_chat("a")]));
    let receive = |window: &mut Harness<'static, Option<App>>, text: &str| {
        app(window).on_event(&message("a", "Ada", text), 0.0);
        window.run();
    };
    receive(&mut window, "hello\nthere");
    window.get_by_label("Ada in Group chat: hello there");
    window.get_by_label("Chat in Group chat: 1 unread").click();
    window.step();
    receive(&mut window, "seen");
    assert!(window.query_by_label("Ada in Group chat: seen").is_none());
}

#[test]
fn in_a_small_window_the_chat_covers_the_sessions_and_never_the_tiles() {
    let conference =
        SessionKind { media: MediaSet::AUDIO_VIDEO.with(Media::Data), ..group_chat_kind() };
    for (size, covers) in
        [([640.0, 480.0], true), (SMALL, true), ([899.0, 600.0], true), (LARGE, false)]
    {
        for count in [1, 3, 9] {
            let mut window = window(
                size,
                snapshot_of(vec![session_status("a", conference, Role::Opener, count)]),
            );
            let tiles = |window: &Harness<'_, Option<App>>| -> Vec<Rect> {
                let names = (0..count).map(|index| format!("Person {index} in Conference"));
                names.map(|name| window.get_by_label(&name).rect()).collect()
            };
            let before = tiles(&window);
            click(&mut window, "Chat in Conference");
            let case = format!("{count} tiles in {size:?}");
            window.get_by_label("Message to Conference");
            assert_eq!(window.query_by_label("Open all five").is_none(), covers, "{case}");
            let after = tiles(&window);
            assert!(!covers || after == before, "{case}: {before:?} and {after:?}");
            let whole = Rect::from_min_size(egui::Pos2::ZERO, size.into());
            assert!(
                after[0].width() >= 131.0 && whole.contains_rect(after[0]),
                "{case}: {after:?}"
            );
            click(&mut window, "Close chat");
            window.get_by_label("Open all five");
            assert_eq!(tiles(&window), before, "{case}");
        }
    }
}

#[test]
fn a_session_key_or_a_pasted_link_closes_the_chat_that_covers_the_sessions() {
    for action in [
        |window: &mut Harness<'static, Option<App>>| window.key_press(Key::Num1),
        |window: &mut Harness<'static, Option<App>>| {
            window.event(egui::Event::Paste("no link".to_owned()));
        },
    ] {
        let viewer = chat_session("a", Topology::OneWay, Role::Guest, 1);
        let mut window = window(SMALL, snapshot_of(vec![viewer]));
        click(&mut window, "Chat in Chat broadcast");
        window.get_by_label("Close chat");
        action(&mut window);
        sent_commands(&mut window);
        assert!(window.query_by_label("Close chat").is_none());
        window.get_by_label("Chat in Chat broadcast");
    }
}
