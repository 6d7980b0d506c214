//! Joining a session: by id, by link, by a pasted sentence, and after a mistake.

use super::*;

#[test]
fn enter_joins_a_typed_id_and_a_wrong_link_shows_an_error_until_it_is_edited() {
    let mut window = window(LARGE, Snapshot::default());
    window.get_by_label("Paste a link to join").focus();
    window.run();
    window.get_by_label("Paste a link to join").type_text("http://x/nowhere");
    window.run();
    window.key_press(Key::Enter);
    assert_eq!(sent_commands(&mut window), []);
    let is_shown = |window: &Harness<'_, Option<App>>| {
        window.query_by_label_contains("ends in /s/ID").is_some()
    };
    assert!(is_shown(&window));
    window.get_by_label("Paste a link to join").focus();
    window.run();
    window.get_by_label("Paste a link to join").type_text("z");
    window.run();
    assert!(!is_shown(&window), "edited");
    window.key_press_modifiers(Modifiers::COMMAND, Key::A);
    window.get_by_label("Paste a link to join").type_text("town-hall");
    window.run();
    window.key_press(Key::Enter);
    let target = JoinTarget { session: session_id("town-hall"), hub: None };
    assert_eq!(sent_commands(&mut window), [Command::Join { target, wait: true }]);
}

#[test]
fn a_wrong_link_keeps_the_focus_so_that_correcting_it_triggers_no_shortcut() {
    let mut window = window(LARGE, Snapshot::default());
    window.get_by_label("Paste a link to join").focus();
    window.run();
    window.get_by_label("Paste a link to join").type_text("a b");
    window.key_press(Key::Enter);
    window.run();
    window.key_press(Key::M);
    assert_eq!(sent_commands(&mut window), []);
    assert!(window.get_by_label("Paste a link to join").is_focused());
}

#[test]
fn a_pasted_sentence_with_a_link_joins_and_the_link_of_a_listed_session_shows_its_card() {
    let here = session_status("here", SessionKind::FIVE[0], Role::Guest, 1);
    let mut window = window(LARGE, snapshot_of(vec![here]));
    let mut paste = |text: &str| {
        window.event(egui::Event::Paste(text.to_owned()));
        sent_commands(&mut window)
    };
    let joins = paste("Come to http://h:1/s/town-hall, we begin at ten.");
    let target =
        JoinTarget { session: session_id("town-hall"), hub: Some("http://h:1".parse().unwrap()) };
    assert_eq!(joins, [Command::Join { target, wait: true }]);
    assert_eq!(paste("no link at all"), []);
    assert_eq!(paste("http://h:1/s/here"), []);
    window.get_by_label("Hide people in Conference (1)");
}

#[test]
fn a_corrected_link_replaces_the_join_at_the_wrong_hub() {
    let mut sought = session_status("demo", SessionKind::FIVE[0], Role::Guest, 0);
    sought.state = SessionState::Connecting;
    let mut window = window(LARGE, snapshot_of(vec![sought]));
    let mut paste = |text: &str| {
        window.event(egui::Event::Paste(text.to_owned()));
        sent_commands(&mut window)
    };
    assert_eq!(paste("http://127.0.0.1:7340/s/demo"), []);
    let target =
        JoinTarget { session: session_id("demo"), hub: Some("http://h:1".parse().unwrap()) };
    assert_eq!(
        paste("http://h:1/s/demo"),
        [Command::Leave { session: session_id("demo") }, Command::Join { target, wait: true }]
    );
}

#[test]
fn the_card_of_an_unreachable_hub_shows_the_reason_and_edits_the_link() {
    let mut one = session_status("demo", SessionKind::FIVE[0], Role::Guest, 0);
    one.state = SessionState::Unreachable { reason: "nobody answers at http://h:1".to_owned() };
    let mut window = window(LARGE, snapshot_of(vec![one]));
    window.get_by_label("Nobody answers at http://h:1. Trying again…");
    assert_eq!(click(&mut window, "Edit link"), [Command::Leave { session: session_id("demo") }]);
    let edit = window.get_by_label("Paste a link to join");
    assert!(edit.is_focused());
    assert_eq!(edit.value().as_deref(), Some("http://127.0.0.1:7340/s/demo"));
}
