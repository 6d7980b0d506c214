//! Leaving and coming back, and by which name.

use super::*;
use crate::model::DepartureStatus;

#[test]
fn what_is_left_can_be_undone_and_the_seconds_are_counted() {
    let departed = |sessions: Vec<SessionStatus>, closes| {
        let until = MediaTime::from_micros(8_000_000);
        Snapshot {
            departure: Some(DepartureStatus { sessions, closes, until }),
            ..Snapshot::default()
        }
    };
    let one = || session("a", SessionKind::FIVE[0], Role::Opener, 1);
    for (snapshot, said) in [
        (departed(vec![one()], false), "Left the conference"),
        (departed(vec![one()], true), "Ended the conference for everyone"),
        (departed(five().sessions, false), "Left 5 sessions"),
    ] {
        for size in [LARGE, SMALL] {
            let mut window = window(size, snapshot.clone());
            window.get_by_label(said);
            window.get_by_label("Undo (8 s)");
            app(&mut window).now = MediaTime::from_micros(1_500_000);
            window.run();
            assert_eq!(click(&mut window, "Undo (7 s)"), [Command::Undo]);
            assert_eq!(click(&mut window, "Do not undo"), [Command::Confirm]);
        }
    }
}

#[test]
fn the_sessions_of_a_window_that_crashed_are_offered_and_come_back_by_one_click() {
    let folder = std::env::temp_dir().join(format!("quintet-offer-{}", std::process::id()));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let crashed = || {
        let (keeper, ending) = Keeper::start(runtime.handle(), folder.clone());
        keeper.keep(&five());
        runtime.block_on(ending.finish());
        LeftBehind::find(&folder)
    };
    for (label, commands) in [("Resume 5 sessions of ", 5), ("Do not offer them again", 0)] {
        let mut window = window(LARGE, Snapshot::default());
        app(&mut window).left_behind = crashed();
        window.run();
        window.get_by_label_contains("Resume 5 sessions of ");
        window.get_by_label_contains(label).click();
        let sent = sent(&mut window);
        assert!(sent.iter().all(|one| matches!(one, Command::Reopen(_))), "{sent:?}");
        assert_eq!(sent.len(), commands);
        assert!(window.query_by_label_contains("Resume 5 sessions of ").is_none());
        assert!(LeftBehind::find(&folder).is_none(), "it is not offered again");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn enter_harms_nobody_in_a_dialog_that_destroys_something() {
    for open in ["Leave all", "End Conference for everyone"] {
        let one = session("a", SessionKind::FIVE[0], Role::Opener, 2);
        let mut window = window(LARGE, with(vec![one]));
        click(&mut window, open);
        assert!(window.get_by_label("Cancel").is_focused(), "{open}");
        window.key_press(Key::Enter);
        assert_eq!(sent(&mut window), [], "{open}");
        assert!(window.query_by_label("Cancel").is_none(), "{open}: it is gone");
    }
}

#[test]
fn a_name_is_asked_for_on_the_first_screen_and_changed_at_any_time() {
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
    assert_eq!(sent(&mut window), [], "it is being typed");
    window.key_press(Key::Enter);
    assert_eq!(sent(&mut window), [rename("Mira")]);
    type_name(&mut window, "Your name", "Mira B.");
    let mut all = click(&mut window, "Open all five");
    app(&mut window).snapshot = Arc::new(five());
    all.extend(sent(&mut window));
    assert!(all.contains(&rename("Mira B.")), "whatever was clicked meanwhile: {all:?}");
    assert!(window.query_by_label("Your name").is_none(), "the settings have it");
    click(&mut window, "Settings");
    type_name(&mut window, "Your name, as others see it", "Ada");
    assert_eq!(click(&mut window, "Save"), [rename("Ada")]);
    assert_eq!(app(&mut window).settings.name, "Ada");
}

#[test]
fn leaving_all_sessions_asks_while_people_are_present_and_no_key_does_anything_meanwhile() {
    let alone = session("a", SessionKind::FIVE[0], Role::Opener, 0);
    let mut window = window(LARGE, with(vec![alone]));
    assert_eq!(click(&mut window, "Leave all"), [Command::Depart(Departure::LeaveAll)]);
    let kept = session("a", SessionKind::FIVE[0], Role::Opener, 2);
    let mut window = self::window(LARGE, with(vec![kept]));
    assert_eq!(click(&mut window, "Leave all"), []);
    window.get_by_label_contains("2 people are in your sessions");
    window.key_press(Key::M);
    assert_eq!(sent(&mut window), [], "who is asked something does not mute by it");
    click(&mut window, "Cancel");
    window.key_press(Key::M);
    assert_eq!(sent(&mut window).len(), 1);
}

#[test]
fn quitting_asks_while_people_are_present() {
    let close = |window: &mut Harness<'static, Option<App>>| {
        let viewport = window.input_mut().viewports.entry(egui::ViewportId::ROOT).or_default();
        viewport.events.push(egui::ViewportEvent::Close);
        window.step();
        let commands = &window.output().viewport_output[&egui::ViewportId::ROOT].commands;
        let kept = commands.contains(&ViewportCommand::CancelClose);
        window.run();
        kept
    };
    let mut alone = window(SMALL, with(vec![session("a", SessionKind::FIVE[0], Role::Opener, 0)]));
    assert!(!close(&mut alone), "nobody is there");
    let mut window = window(SMALL, with(vec![session("a", SessionKind::FIVE[0], Role::Opener, 2)]));
    assert!(close(&mut window), "asked first");
    window.get_by_label_contains("2 people are in your sessions");
    click(&mut window, "Quit");
    assert!(app(&mut window).quitting);
    assert!(!close(&mut window), "asked once");
    let hub = HubStatus { url: None, state: HubState::Connected, guests: 1, place: None };
    let host = Snapshot { hubs: vec![hub], ..Snapshot::default() };
    let mut host = self::window(SMALL, host);
    assert!(close(&mut host), "whoever meets at our hub would lose it");
    host.get_by_label_contains("1 person uses this window as their hub");
}
