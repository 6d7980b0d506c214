//! Tests of the chat in the whole window.

use super::*;
use crate::model::{ChatText, MediaSet, Topology};

fn chat_session(name: &str, topology: Topology, role: Role, count: usize) -> SessionStatus {
    let kind = SessionKind { media: MediaSet::DATA, topology };
    SessionStatus { heard: false, seen: false, ..session(name, kind, role, count) }
}

fn mesh(name: &str) -> SessionStatus {
    chat_session(name, Topology::ManyToMany, Role::Opener, 2)
}

fn message(of: &str, name: &str, text: &str) -> Event {
    Event::Message {
        session: id(of),
        participant: ParticipantId::from_digest([0; 10]),
        name: name.to_owned(),
        text: ChatText::new(text).unwrap(),
    }
}

fn happen(window: &mut Harness<'static, Option<App>>, event: &Event) {
    app(window).chats.note(event, "14:05");
    window.run();
}

fn say(of: &str, text: &str) -> Command {
    Command::Say { session: id(of), text: ChatText::new(text).unwrap() }
}

/// Types into the message box of the open chat.
fn write(window: &mut Harness<'static, Option<App>>, of: &str, text: &str) {
    let label = format!("Message to {of}");
    window.get_by_label(&label).focus();
    window.run();
    window.get_by_label(&label).type_text(text);
    window.run();
}

#[test]
fn messages_count_as_unread_until_the_chat_opens_and_show_name_and_time() {
    let mut window = window(LARGE, with(vec![mesh("a"), mesh("b")]));
    happen(&mut window, &message("a", "Ada", "hello"));
    happen(&mut window, &message("a", "Ben", "how are you?"));
    window.get_by_label("Chat in Group chat b");
    assert!(window.query_by_label("hello").is_none(), "no chat is open");
    assert_eq!(click(&mut window, "Chat in Group chat a: 2 unread"), []);
    for shown in ["Ada", "hello", "Ben", "how are you?"] {
        window.get_by_label(shown);
    }
    assert_eq!(window.query_all_by_label("14:05").count(), 2);
    happen(&mut window, &Event::Said { session: id("a"), text: ChatText::new("fine").unwrap() });
    happen(&mut window, &message("b", "Cleo", "elsewhere"));
    window.get_by_label("You");
    assert!(window.query_by_label("elsewhere").is_none());
    let (session, participant) = (id("a"), ParticipantId::from_digest([0; 10]));
    let lost = Event::Undelivered { session, participant, name: "Ben".into(), count: 2 };
    happen(&mut window, &lost);
    window.get_by_label_contains("2 messages may not have reached Ben");
    click(&mut window, "Chat in Group chat b: 1 unread");
    window.get_by_label("elsewhere");
    click(&mut window, "Close chat");
    window.get_by_label("Chat in Group chat a");
    assert!(window.query_by_label("elsewhere").is_none());
}

#[test]
fn enter_sends_the_message_and_no_key_is_a_shortcut_while_typing() {
    let mut window = window(LARGE, with(vec![mesh("a")]));
    click(&mut window, "Chat in Group chat");
    window.get_by_label("Message to Group chat").type_text("mvd f?");
    window.run();
    window.key_press(Key::M);
    window.key_press_modifiers(Modifiers::SHIFT, Key::Enter);
    window.run();
    window.get_by_label("Message to Group chat").type_text("1 2");
    assert_eq!(sent(&mut window), [], "nothing is sent yet, and the box had the focus");
    window.key_press(Key::Enter);
    assert_eq!(sent(&mut window), [say("a", "mvd f?\n1 2")]);
    window.key_press(Key::Enter);
    assert_eq!(sent(&mut window), [], "the box is empty again");
    write(&mut window, "Group chat", "by the button");
    assert_eq!(click(&mut window, "Send"), [say("a", "by the button")]);
}

#[test]
fn each_session_keeps_its_draft_until_a_participant_is_there() {
    let empty = chat_session("b", Topology::OneToOne, Role::Opener, 0);
    let mut window = window(LARGE, with(vec![mesh("a"), empty]));
    click(&mut window, "Chat in Group chat");
    write(&mut window, "Group chat", "for a");
    click(&mut window, "Chat in Private chat");
    window.get_by_label("Nobody is here to read it yet");
    write(&mut window, "Private chat", "for b");
    window.key_press(Key::Enter);
    assert_eq!(sent(&mut window), []);
    click(&mut window, "Chat in Group chat");
    assert_eq!(click(&mut window, "Send"), [say("a", "for a")]);
    let snapshot = with(vec![chat_session("b", Topology::OneToOne, Role::Opener, 1)]);
    app(&mut window).snapshot = Arc::new(snapshot);
    window.run();
    assert!(
        window.query_by_label("Close chat").is_none(),
        "session a has ended, and its chat closed"
    );
    click(&mut window, "Chat in Private chat");
    window.key_press(Key::Enter);
    assert_eq!(sent(&mut window), [say("b", "for b")]);
}

#[test]
fn a_viewer_cannot_write_and_a_session_without_data_has_no_chat() {
    let viewer = chat_session("a", Topology::OneWay, Role::Guest, 1);
    let without_chat = session("b", SessionKind::FIVE[0], Role::Opener, 1);
    let mut window = window(SMALL, with(vec![viewer, without_chat]));
    assert!(window.query_by_label("Chat in Conference").is_none());
    click(&mut window, "Chat in Chat broadcast");
    window.get_by_label("Only the host can write here.");
    assert!(window.query_by_label("Message to Chat broadcast").is_none());
    assert!(window.query_by_label("Send").is_none());
}

#[test]
fn a_click_opens_a_url_and_a_javascript_text_is_no_url() {
    let mut window = window(LARGE, with(vec![mesh("a")]));
    click(&mut window, "Chat in Group chat");
    let text = "see https://example.org/x?y, not javascript:alert(1)";
    happen(&mut window, &message("a", "Ada", text));
    window.get_by_label("see ");
    assert_eq!(window.query_all_by_role(NodeRole::Link).count(), 1);
    assert_eq!(click(&mut window, "https://example.org/x?y"), []);
    // The test has no browser, so the URL is reported as not opened.
    let failed = app(&mut window).browser.failed();
    assert_eq!(failed.as_deref(), Some("https://example.org/x?y"));
}

#[test]
fn a_url_that_no_browser_opens_is_copied_and_a_toast_reports_it() {
    let mut window = window(LARGE, with(vec![mesh("a")]));
    let ctx = window.ctx.clone();
    app(&mut window).browser.open("https://example.org/x".to_owned(), &ctx);
    app(&mut window).read(&ctx);
    window.run();
    window.get_by_label("No browser opened. The link is copied instead.");
    assert_eq!(app(&mut window).browser.failed(), None, "reported once");
}

#[test]
fn a_message_that_is_too_long_stays_in_the_box_with_an_error() {
    let mut window = window(LARGE, with(vec![mesh("a")]));
    click(&mut window, "Chat in Group chat");
    write(&mut window, "Group chat", &"word ".repeat(900));
    window.key_press(Key::Enter);
    assert_eq!(sent(&mut window), []);
    window.get_by_label_contains("of at most 4096 bytes");
    write(&mut window, "Group chat", "!");
    assert!(window.query_by_label_contains("of at most 4096 bytes").is_none(), "edited");
}

#[test]
fn an_open_chat_leaves_every_control_inside_the_window() {
    for size in [LARGE, SMALL] {
        let conference =
            SessionKind { media: MediaSet::AUDIO_VIDEO.with(Media::Data), ..mesh_kind() };
        let mut window = window(size, with(vec![session("a", conference, Role::Opener, 4)]));
        click(&mut window, "Chat in Conference");
        for text in
            ["x".repeat(4000), "one\n\ntwo".to_owned(), format!("https://h/{}", "y".repeat(400))]
        {
            happen(&mut window, &message("a", &"Long Name ".repeat(6), &text));
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

fn mesh_kind() -> SessionKind {
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
    assert_eq!(request.kind, mesh_kind());
    let window = self::window(SMALL, with(vec![mesh("a")]));
    window.get_by_label("Chat only");
    window.get_by_label("Only you see this");
}

#[test]
fn a_long_chat_shows_its_newest_messages_and_draws_only_visible_ones() {
    let mut window = window(LARGE, with(vec![mesh("a")]));
    click(&mut window, "Chat in Group chat");
    for index in 0..300 {
        let rows = "row\n".repeat(index % 50);
        app(&mut window).chats.note(&message("a", "Ada", &format!("{rows}end {index}")), "14:05");
    }
    window.run();
    window.run();
    window.get_by_label_contains("end 299");
    assert!(window.query_all_by_label("14:05").count() < 50);
    happen(&mut window, &message("a", "Ada", "newest"));
    let newest = window.get_by_label("newest").rect();
    let message_box = window.get_by_label("Message to Group chat").rect();
    assert!(newest.bottom() <= message_box.top(), "{newest:?} above {message_box:?}");
}

#[test]
fn page_up_and_page_down_scroll_a_long_chat() {
    let mut window = window(LARGE, with(vec![mesh("a")]));
    click(&mut window, "Chat in Group chat");
    for index in 0..100 {
        app(&mut window).chats.note(&message("a", "Ada", &format!("line {index}")), "14:05");
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
    let mut window = window(LARGE, with(vec![mesh("a")]));
    let receive = |window: &mut Harness<'static, Option<App>>, text: &str| {
        app(window).happened(&message("a", "Ada", text), 0.0);
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
    let conference = SessionKind { media: MediaSet::AUDIO_VIDEO.with(Media::Data), ..mesh_kind() };
    for (size, covers) in
        [([640.0, 480.0], true), (SMALL, true), ([899.0, 600.0], true), (LARGE, false)]
    {
        for count in [1, 3, 9] {
            let mut window =
                window(size, with(vec![session("a", conference, Role::Opener, count)]));
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
        let mut window = window(SMALL, with(vec![viewer]));
        click(&mut window, "Chat in Chat broadcast");
        window.get_by_label("Close chat");
        action(&mut window);
        sent(&mut window);
        assert!(window.query_by_label("Close chat").is_none());
        window.get_by_label("Chat in Chat broadcast");
    }
}
