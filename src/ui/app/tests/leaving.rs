//! Tests of leaving, undoing, resuming, renaming and quitting.

use super::*;
use crate::model::DepartureStatus;

#[test]
fn leaving_can_be_undone_and_the_button_counts_the_seconds() {
    let departed = |sessions: Vec<SessionStatus>, closes| {
        let sessions = snapshot_of(sessions).sessions;
        let until = MediaTime::from_micros(8_000_000);
        Snapshot {
            departure: Some(DepartureStatus { sessions, closes, until }),
            ..Snapshot::default()
        }
    };
    let one = || session_status("a", SessionKind::FIVE[0], Role::Opener, 1);
    for (snapshot, text) in [
        (departed(vec![one()], false), "Left the conference"),
        (departed(vec![one()], true), "Ended the conference for everyone"),
        (
            departed(five_sessions().sessions.iter().map(|one| (**one).clone()).collect(), false),
            "Left 5 sessions",
        ),
    ] {
        for size in [LARGE, SMALL] {
            let mut window = window(size, snapshot.clone());
            window.get_by_label(text);
            window.get_by_label("Undo (8 s)");
            app(&mut window).now = MediaTime::from_micros(1_500_000);
            window.run();
            assert_eq!(click(&mut window, "Undo (7 s)"), [Command::Undo]);
            assert_eq!(click(&mut window, "Do not undo"), [Command::Confirm]);
        }
    }
}

#[test]
fn one_click_resumes_the_sessions_of_an_earlier_window() {
    let folder = std::env::temp_dir().join(format!("quintet-offer-{}", std::process::id()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended_window = || {
        let (saver, shutdown) = SessionSaver::start(runtime.handle(), folder.clone());
        saver.update(&five_sessions());
        runtime.block_on(shutdown.finish());
        ResumableSessions::find(&folder)
    };
    for (label, commands) in [("Resume 5 sessions of ", 5), ("Do not offer them again", 0)] {
        let mut window = window(LARGE, Snapshot::default());
        app(&mut window).resumable = ended_window();
        window.run();
        window.get_by_label_contains("Resume 5 sessions of ");
        window.get_by_label_contains(label).click();
        let sent = sent_commands(&mut window);
        assert!(sent.iter().all(|one| matches!(one, Command::Reopen(_))), "{sent:?}");
        assert_eq!(sent.len(), commands);
        assert!(window.query_by_label_contains("Resume 5 sessions of ").is_none());
        assert!(ResumableSessions::find(&folder).is_none(), "the offer is gone");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn enter_cancels_a_destructive_dialog() {
    for open in ["Leave all", "End Conference for everyone"] {
        let one = session_status("a", SessionKind::FIVE[0], Role::Opener, 2);
        let mut window = window(LARGE, snapshot_of(vec![one]));
        click(&mut window, open);
        assert!(window.get_by_label("Cancel").is_focused(), "{open}");
        window.key_press(Key::Enter);
        assert_eq!(sent_commands(&mut window), [], "{open}");
        assert!(window.query_by_label("Cancel").is_none(), "{open}: the dialog is closed");
    }
}

#[test]
fn the_empty_window_asks_for_a_name_and_the_settings_change_it() {
    let mut window = window(LARGE, Snapshot::default());
    let type_name = |window: &mut Harness<'static, Option<App>>, label: &str, name: &str| {
        window.get_by_label(label).focus();
        window.run();
        window.key_press_modifiers(Modifiers::COMMAND, Key::A);
        window.get_by_label(label).type_text(name);
        window.run();
    };
    let rename = |name: &str| Command::Rename { name: name.to_owned() };
    type_name(&mut window, "Your name", " Mira ");
    assert_eq!(sent_commands(&mut window), [], "the name is still being typed");
    window.key_press(Key::Enter);
    assert_eq!(sent_commands(&mut window), [rename("Mira")]);
    type_name(&mut window, "Your name", "Mira B.");
    let mut all = click(&mut window, "Open all five");
    app(&mut window).snapshot = Arc::new(five_sessions());
    all.extend(sent_commands(&mut window));
    assert!(all.contains(&rename("Mira B.")), "the typed name is sent with the click: {all:?}");
    assert!(window.query_by_label("Your name").is_none(), "only the settings change the name now");
    click(&mut window, "Settings");
    type_name(&mut window, "Your name, as others see it", "Ada");
    assert_eq!(click(&mut window, "Save"), [rename("Ada")]);
    assert_eq!(app(&mut window).settings.name, "Ada");
}

#[test]
fn leaving_all_asks_while_participants_are_present_and_the_dialog_takes_all_shortcuts() {
    let alone = session_status("a", SessionKind::FIVE[0], Role::Opener, 0);
    let mut window = window(LARGE, snapshot_of(vec![alone]));
    assert_eq!(click(&mut window, "Leave all"), [Command::Depart(Departure::LeaveAll)]);
    let kept = session_status("a", SessionKind::FIVE[0], Role::Opener, 2);
    let mut window = self::window(LARGE, snapshot_of(vec![kept]));
    assert_eq!(click(&mut window, "Leave all"), []);
    window.get_by_label_contains("2 people are in your sessions");
    window.key_press(Key::M);
    assert_eq!(sent_commands(&mut window), [], "the dialog takes the key");
    click(&mut window, "Cancel");
    window.key_press(Key::M);
    assert_eq!(sent_commands(&mut window).len(), 1);
}

#[test]
fn quitting_asks_while_participants_or_guests_are_present() {
    let close = |window: &mut Harness<'static, Option<App>>| {
        let viewport = window.input_mut().viewports.entry(egui::ViewportId::ROOT).or_default();
        viewport.events.push(egui::ViewportEvent::Close);
        window.step();
        let commands = &window.output().viewport_output[&egui::ViewportId::ROOT].commands;
        let is_canceled = commands.contains(&ViewportCommand::CancelClose);
        window.run();
        is_canceled
    };
    let mut alone = window(
        SMALL,
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 0)]),
    );
    assert!(!close(&mut alone), "no participant is present");
    let mut window = window(
        SMALL,
        snapshot_of(vec![session_status("a", SessionKind::FIVE[0], Role::Opener, 2)]),
    );
    assert!(close(&mut window), "the dialog asks first");
    window.get_by_label_contains("2 people are in your sessions");
    click(&mut window, "Quit");
    assert!(app(&mut window).quitting);
    assert!(!close(&mut window), "the user has confirmed");
    let hub = HubStatus { url: None, state: HubState::Connected, guests: 1, endpoint: None };
    let host = Snapshot { hubs: vec![hub], ..Snapshot::default() };
    let mut host = self::window(SMALL, host);
    assert!(close(&mut host), "the hub in this program has a guest");
    host.get_by_label_contains("1 person uses this window as their hub");
}
