//! Tests of the built program's window on a virtual screen: clicks, keys and screenshots.

use std::{fs, time::Duration};

use crate::rig::{
    process::{Hub, PATTERN, Program, list, share_turn},
    screen::{PixelRect, Screen, Window, WindowLauncher},
};
use quintet::ui::landmarks::{
    ACCENT, COLOUR_BARS, COPY_LINK_COLUMN, REMOTE_TILES_LEFT, SESSION_COLOURS,
};
use serde_json::Value;

fn settings(hub: &Hub) -> String {
    format!(
        "name = \"Olga\"\nhub = \"{}\"\ncamera = \"{PATTERN}\"\nmicrophone = \"tone:440\"\n\
         speaker = \"none\"\n",
        hub.url
    )
}

/// Clicks "Open all five" and returns the places of the five session cards.
fn open_five(window: &mut Window<'_>, screen: &Screen) -> [PixelRect; 5] {
    let button =
        window.wait("the primary button", |_| screen.screenshot().bounding_box(ACCENT, 0..300));
    window.click(button.centre());
    SESSION_COLOURS.map(|colour| {
        window.wait("a session card of each colour", |_| {
            screen.screenshot().bounding_box(colour, COLOUR_BARS)
        })
    })
}

/// Copies the link of a session card and reads it from the clipboard.
fn copy_link(window: &mut Window<'_>, screen: &Screen, card: PixelRect) -> String {
    screen.set_clipboard("nothing yet");
    window.wait("a link on the clipboard", |window| {
        // The button appears once the hub has answered.
        window.click((COPY_LINK_COLUMN, card.centre().1));
        std::thread::sleep(Duration::from_millis(300));
        Some(screen.clipboard()).filter(|text| text.starts_with("http://"))
    })
}

fn join(link: &str, name: &str) -> Program {
    let sends = ["--camera", PATTERN, "--microphone", "tone:880", "--speaker", "none"];
    Program::start(&[&["join", link, "--name", name], &sends[..]].concat())
}

/// Waits until the audio level of Olga in the program's only session meets `wanted`.
fn wait_for_level(program: &mut Program, what: &str, wanted: impl Fn(f64) -> bool) {
    program.wait_next(what, |event| event["event"] == "stats" && level(event).is_some_and(&wanted));
}

fn level(stats: &Value) -> Option<f64> {
    let session = list(stats, "sessions").first()?;
    let olga = list(session, "participants").iter().find(|one| one["name"] == "Olga")?;
    olga["audio"]["level_dbfs"].as_f64()
}

#[test]
fn one_click_opens_five_sessions_and_the_tiles_of_their_guests_move() {
    let _turn = share_turn();
    let (hub, screen) = (Hub::start(), Screen::start());
    let mut window = Window::open(&screen, &settings(&hub));
    let before = screen.screenshot();
    let cards = open_five(&mut window, &screen);
    let links = cards.map(|card| copy_link(&mut window, &screen, card));
    let mut joiners: Vec<_> = links
        .iter()
        .enumerate()
        .map(|(index, link)| join(link, &format!("Guest{index}")))
        .collect();
    for joiner in &mut joiners {
        joiner.participant("Olga", "live");
        joiner.event("first-frame");
    }
    let mut last = before;
    let mut moves = 0;
    window.wait("a moving tile", |_| {
        let now = screen.screenshot();
        // Moving video changes a large part of its tile in every frame. A text or a ring does not.
        moves += usize::from(now.changed_pixels(&last, REMOTE_TILES_LEFT) > 5_000);
        last = now;
        (moves >= 5).then_some(())
    });
    // After the mute key, the audio conference is silent. After the same key, the tone is back.
    let listener = &mut joiners[2];
    wait_for_level(listener, "a tone", |level| level > -40.0);
    window.key("m");
    wait_for_level(listener, "silence", |level| level < -60.0);
    window.key("m");
    wait_for_level(listener, "the tone again", |level| level > -40.0);
}

/// Opens the conference "town-hall" as Piet, and returns its link.
fn town_hall(hub: &Hub) -> (Program, String) {
    let sends = ["--camera", PATTERN, "--microphone", "tone:880", "--speaker", "none"];
    let opens = ["open", "--kind", "av-conference", "--id", "town-hall", "--hub", &hub.url];
    let mut opener = Program::start(&[&opens[..], &["--name", "Piet"], &sends].concat());
    let link = opener.event("opened")["link"].as_str().expect("a link").to_owned();
    (opener, link)
}

#[test]
fn a_link_pasted_outside_a_text_box_is_joined() {
    let _turn = share_turn();
    let (hub, screen) = (Hub::start(), Screen::start());
    let (mut opener, link) = town_hall(&hub);
    let mut window = Window::open(&screen, &settings(&hub));
    window.wait("a drawn window", |_| screen.screenshot().bounding_box(ACCENT, 0..300));
    screen.set_clipboard(&link);
    window.key("ctrl+v");
    opener.participant("Olga", "live");
    window.wait("the session's card", |_| {
        screen.screenshot().bounding_box(SESSION_COLOURS[0], COLOUR_BARS)
    });
    assert!(window.settings_path().exists(), "the settings file still exists");
}

#[test]
fn a_clipboard_owner_that_hangs_does_not_block_the_window() {
    let _turn = share_turn();
    let (hub, screen) = (Hub::start(), Screen::start());
    let (mut opener, link) = town_hall(&hub);
    let mut window = Window::open(&screen, &settings(&hub));
    window.wait("a drawn window", |_| screen.screenshot().bounding_box(ACCENT, 0..300));
    let hung = screen.set_clipboard_and_hang(&link);
    // The keyboard shortcuts are drawn while the other program still owes its answer. A busy machine
    // may need longer than the reader waits for it, so several attempts count.
    let is_drawn_meanwhile = (0..5).any(|_| {
        let before = screen.screenshot();
        window.key("ctrl+v");
        window.key("question");
        window.wait("the keyboard shortcuts", |_| {
            (screen.screenshot().changed_pixels(&before, REMOTE_TILES_LEFT) > 5_000).then_some(())
        });
        let still_reads = window.has_thread("clipboard read");
        let shown = screen.screenshot();
        window.key("Escape");
        window.wait("the window without the shortcuts", |_| {
            (screen.screenshot().changed_pixels(&shown, REMOTE_TILES_LEFT) > 5_000).then_some(())
        });
        still_reads
    });
    assert!(is_drawn_meanwhile, "the clipboard is read on its own thread");
    drop(hung);
    screen.set_clipboard(&link);
    window.key("ctrl+v");
    opener.participant("Olga", "live");
    // Other programs can paste what the window has copied.
    let card = window.wait("the session's card", |_| {
        screen.screenshot().bounding_box(SESSION_COLOURS[0], COLOUR_BARS)
    });
    assert_eq!(copy_link(&mut window, &screen, card), link);
}

#[test]
fn a_covered_window_stops_the_camera() {
    let _turn = share_turn();
    let (hub, screen) = (Hub::start(), Screen::start());
    let mut window = Window::open(&screen, &settings(&hub));
    let expect_capture = |window: &mut Window<'_>, is_captured: bool| {
        let what = if is_captured { "a running camera" } else { "a stopped camera" };
        window.wait(what, |window| (window.has_thread("camera") == is_captured).then_some(()));
    };
    expect_capture(&mut window, true);
    // The window of another program, of the same size and on top.
    let cover = Window::open(&screen, &settings(&hub));
    expect_capture(&mut window, false);
    drop(cover);
    expect_capture(&mut window, true);
}

#[test]
fn an_invalid_settings_file_is_copied_and_the_window_opens_with_defaults() {
    let _turn = share_turn();
    let screen = Screen::start();
    let broken = "name = \"Olga\"\ncamera =\n";
    let mut window = Window::open(&screen, broken);
    let button =
        window.wait("a drawn window", |_| screen.screenshot().bounding_box(ACCENT, 0..300));
    assert!(button.right > 100, "{button:?}");
    let copy = window.settings_path().with_extension("toml.bak");
    assert_eq!(fs::read_to_string(copy).expect("a copy"), broken);
}

/// A program that has opened a session, and the session's link.
fn open_session(hub: &Hub) -> (Program, String) {
    let silent = ["--camera", "none", "--microphone", "none"];
    let opens = ["open", "--kind", "av-conference", "--id", "town-hall"];
    let mut opener = hub.start_participant("Piet", &[&opens[..], &silent].concat());
    let link = opener.event("opened")["link"].as_str().expect("a link").to_owned();
    (opener, link)
}

/// Whether a participant of that name was ever reported as gone without leaving.
fn was_reported_gone(program: &Program, name: &str) -> bool {
    program.seen().iter().any(|event| event["state"] == "gone" && event["name"] == name)
}

#[test]
fn a_window_that_gets_a_signal_leaves_its_sessions_and_saves_its_size() {
    let _turn = share_turn();
    let (hub, screen) = (Hub::start(), Screen::start());
    for signal in ["TERM", "HUP"] {
        let (mut opener, link) = open_session(&hub);
        let mut window = WindowLauncher::new(&screen, &settings(&hub)).args(&[&link]).open(&screen);
        opener.participant("Olga", "live");
        window.resize(900, 700);
        window.wait("a drawn window of that size", |_| {
            screen.screenshot().bounding_box(ACCENT, 0..300)
        });
        window.signal(signal);
        assert_eq!(window.wait_for_exit(), Some(0), "{signal}");
        opener.participant("Olga", "left");
        assert!(!was_reported_gone(&opener, "Olga"), "{}", opener.transcript());
        let kept = fs::read_to_string(window.settings_path()).expect("the settings are there");
        assert!(kept.contains("width = 900") && kept.contains("height = 700"), "{kept}");
        assert_eq!(opener.terminate().code, Some(0));
    }
}

#[test]
fn a_window_whose_display_vanishes_leaves_its_sessions_and_saves_its_size() {
    let _turn = share_turn();
    let (hub, screen) = (Hub::start(), Screen::start());
    let (mut opener, link) = open_session(&hub);
    let mut window = WindowLauncher::new(&screen, &settings(&hub)).args(&[&link]).open(&screen);
    opener.participant("Olga", "live");
    wait_for_level(&mut opener, "a tone", |level| level > -40.0);
    window.resize(900, 700);
    // A program that handles the mute key has handled the resize before it.
    window.key("m");
    wait_for_level(&mut opener, "silence", |level| level < -60.0);
    screen.kill();
    window.wait_for_exit();
    opener.participant("Olga", "left");
    assert!(!was_reported_gone(&opener, "Olga"), "{}", opener.transcript());
    let kept = fs::read_to_string(window.settings_path()).expect("the settings are there");
    assert!(kept.contains("width = 900") && kept.contains("height = 700"), "{kept}");
}

#[test]
fn a_window_opens_on_x11_if_the_wayland_display_does_not_exist() {
    let _turn = share_turn();
    let screen = Screen::start();
    let start = WindowLauncher::new(&screen, "").env("WAYLAND_DISPLAY", "wayland-9");
    start
        .open(&screen)
        .wait("a drawn window", |_| screen.screenshot().bounding_box(ACCENT, 0..300));
}

#[test]
fn a_window_opens_with_an_invalid_screen_scale() {
    let _turn = share_turn();
    let screen = Screen::start();
    for dpi in ["0", "-96", "nan", "1e9"] {
        let start = WindowLauncher::new(&screen, "");
        fs::write(start.home().file(".Xdefaults"), format!("Xft.dpi: {dpi}\n")).expect("a home");
        let mut window = start.open(&screen);
        window.wait(&format!("a window at {dpi}"), |_| {
            screen.screenshot().bounding_box(ACCENT, 0..300)
        });
    }
    for scale in ["0", "large"] {
        let start = WindowLauncher::new(&screen, "").env("WINIT_X11_SCALE_FACTOR", scale);
        let mut window = start.open(&screen);
        window.wait(&format!("a window at {scale}"), |_| {
            screen.screenshot().bounding_box(ACCENT, 0..300)
        });
    }
}

#[test]
fn if_no_window_can_be_opened_an_error_says_what_to_do() {
    let _turn = share_turn();
    let (screen, bare) = (Screen::start(), Screen::start_without(&["RANDR", "GLX"]));
    let faults = [
        ("no screen", WindowLauncher::new(&screen, "").env("DISPLAY", "")),
        ("no such screen", WindowLauncher::new(&screen, "").env("DISPLAY", ":99999")),
        ("no compositor", {
            WindowLauncher::new(&screen, "").env("DISPLAY", "").env("WAYLAND_DISPLAY", "wayland-9")
        }),
        ("a bare server", WindowLauncher::new(&bare, "")),
    ];
    for (fault, start) in faults {
        let (code, output) = start.run_to_failure();
        assert_eq!(code, Some(1), "{fault}: {output}");
        assert!(output.contains("cannot open a window"), "{fault}: {output}");
        assert!(
            !output.contains("panicked") && !output.contains("RUST_BACKTRACE"),
            "{fault}: {output}"
        );
    }
}

#[test]
fn a_second_start_hands_its_link_to_the_window_that_is_open() {
    let _turn = share_turn();
    let (hub, screen) = (Hub::start(), Screen::start());
    let (mut opener, link) = open_session(&hub);
    let mut window = Window::open(&screen, &settings(&hub));
    assert_eq!(window.launch_again(&[&link]), Some(0));
    opener.participant("Olga", "live");
    window.wait("the session's card", |_| {
        screen.screenshot().bounding_box(SESSION_COLOURS[0], COLOUR_BARS)
    });
    // Without a link there is nothing to join, and no second window opens.
    assert_eq!(window.launch_again(&[]), Some(0));
    let other = WindowLauncher::new(&screen, &settings(&hub).replace("Olga", "Otto"));
    let _other = other.args(&["--new-window", &link]).open(&screen);
    opener.participant("Otto", "live");
}
