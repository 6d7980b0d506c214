//! The built program's window on a screen without a monitor: clicked, typed to, looked at.

mod rig;

use std::{fs, time::Duration};

use rig::{
    process::{Hub, PATTERN, Program, alone, list},
    screen::{Colour, Place, Screen, Start, Window},
};
use serde_json::Value;

/// The accent of the dark theme: the one button that invites.
const ACCENT: Colour = [0x4F, 0x8C, 0xFF];

/// The colours of the lanes.
const LANES: [Colour; 5] = [
    [0xE6, 0x9F, 0x00],
    [0x56, 0xB4, 0xE9],
    [0x00, 0x9E, 0x73],
    [0xD5, 0x5E, 0x00],
    [0xCC, 0x79, 0xA7],
];

/// The columns of the bars that show lanes' colours.
const BARS: std::ops::Range<usize> = 0..24;

/// Where in a lane its link is copied: in the middle row, that column.
const LINK: usize = 239;

/// Left of it are the sessions and the own picture.
const REMOTE: usize = 620;

fn settings(hub: &Hub) -> String {
    format!(
        "name = \"Olga\"\nhub = \"{}\"\ncamera = \"{PATTERN}\"\nmicrophone = \"tone:440\"\n\
         speaker = \"none\"\n",
        hub.url
    )
}

/// Clicks "Open all five" and returns where the five lanes are.
fn open_five(window: &mut Window<'_>, screen: &Screen) -> [Place; 5] {
    let button = window.wait("a button that invites", |_| screen.shot().around(ACCENT, 0..300));
    window.click(button.middle());
    LANES.map(|colour| window.wait("a lane of each colour", |_| screen.shot().around(colour, BARS)))
}

/// Has the link of a lane copied, and takes it from the clipboard.
fn link_of(window: &mut Window<'_>, screen: &Screen, lane: Place) -> String {
    screen.copy("nothing yet");
    window.wait("a link on the clipboard", |window| {
        // The icon comes when the hub has answered.
        window.click((LINK, lane.middle().1));
        std::thread::sleep(Duration::from_millis(300));
        Some(screen.clipboard()).filter(|text| text.starts_with("http://"))
    })
}

fn join(link: &str, name: &str) -> Program {
    let sends = ["--camera", PATTERN, "--microphone", "tone:880", "--speaker", "none"];
    Program::start(&[&["join", link, "--name", name], &sends[..]].concat())
}

/// Waits until Olga's voice in the one session of a program is as loud as `wanted` says.
fn hear(program: &mut Program, what: &str, wanted: impl Fn(f64) -> bool) {
    program.wait_next(what, |event| event["event"] == "stats" && level(event).is_some_and(&wanted));
}

fn level(stats: &Value) -> Option<f64> {
    let session = list(stats, "sessions").first()?;
    let olga = list(session, "participants").iter().find(|one| one["name"] == "Olga")?;
    olga["audio"]["level_dbfs"].as_f64()
}

#[test]
fn five_sessions_are_opened_by_a_click_and_their_joiners_tiles_move() {
    let _turn = alone();
    let (hub, screen) = (Hub::start(), Screen::start());
    let mut window = Window::open(&screen, &settings(&hub));
    let before = screen.shot();
    let lanes = open_five(&mut window, &screen);
    let links = lanes.map(|lane| link_of(&mut window, &screen, lane));
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
        let now = screen.shot();
        // A picture that moves changes a good part of its tile, again and again; a word or a
        // ring does not.
        moves += usize::from(now.changed(&last, REMOTE) > 5_000);
        last = now;
        (moves >= 5).then_some(())
    });
    // Muted by a key, the audio conference hears nothing; by the same key, the tone again.
    let listener = &mut joiners[2];
    hear(listener, "a tone", |level| level > -40.0);
    window.key("m");
    hear(listener, "silence", |level| level < -60.0);
    window.key("m");
    hear(listener, "the tone again", |level| level > -40.0);
}

#[test]
fn a_link_that_is_pasted_anywhere_is_joined() {
    let _turn = alone();
    let (hub, screen) = (Hub::start(), Screen::start());
    let sends = ["--camera", PATTERN, "--microphone", "tone:880", "--speaker", "none"];
    let opens = ["open", "--kind", "av-conference", "--id", "town-hall", "--hub", &hub.url];
    let mut opener = Program::start(&[&opens[..], &["--name", "Piet"], &sends].concat());
    let link = opener.event("opened")["link"].as_str().expect("a link").to_owned();
    let mut window = Window::open(&screen, &settings(&hub));
    window.wait("a drawn window", |_| screen.shot().around(ACCENT, 0..300));
    screen.copy(&link);
    window.key("ctrl+v");
    opener.participant("Olga", "live");
    window.wait("the session's lane", |_| screen.shot().around(LANES[0], BARS));
    assert!(window.settings().exists(), "the settings are where they were");
}

#[test]
fn a_program_that_has_the_clipboard_and_hangs_does_not_make_the_window_hang() {
    let _turn = alone();
    let (hub, screen) = (Hub::start(), Screen::start());
    let sends = ["--camera", PATTERN, "--microphone", "tone:880", "--speaker", "none"];
    let opens = ["open", "--kind", "av-conference", "--id", "town-hall", "--hub", &hub.url];
    let mut opener = Program::start(&[&opens[..], &["--name", "Piet"], &sends].concat());
    let link = opener.event("opened")["link"].as_str().expect("a link").to_owned();
    let mut window = Window::open(&screen, &settings(&hub));
    window.wait("a drawn window", |_| screen.shot().around(ACCENT, 0..300));
    let hung = screen.copy_and_hang(&link);
    let before = screen.shot();
    window.key("ctrl+v");
    window.key("question");
    // The list of keys is drawn while the other program is still asked.
    window.wait("the keyboard shortcuts", |_| {
        (screen.shot().changed(&before, REMOTE) > 5_000).then_some(())
    });
    assert!(window.runs("clipboard read"), "the clipboard is asked on a thread of its own");
    window.key("Escape");
    drop(hung);
    screen.copy(&link);
    window.key("ctrl+v");
    opener.participant("Olga", "live");
    // What the window copies is handed out to others.
    let lane = window.wait("the session's lane", |_| screen.shot().around(LANES[0], BARS));
    assert_eq!(link_of(&mut window, &screen, lane), link);
}

#[test]
fn a_window_that_nobody_can_see_wants_no_picture() {
    let _turn = alone();
    let (hub, screen) = (Hub::start(), Screen::start());
    let mut window = Window::open(&screen, &settings(&hub));
    let wants = |window: &mut Window<'_>, picture: bool| {
        let what = if picture { "a picture that is looked at" } else { "no picture under cover" };
        window.wait(what, |window| (window.runs("capture video") == picture).then_some(()));
    };
    wants(&mut window, true);
    // Another program's window of the same size, on top of it.
    let cover = Window::open(&screen, &settings(&hub));
    wants(&mut window, false);
    drop(cover);
    wants(&mut window, true);
}

#[test]
fn settings_that_cannot_be_read_are_kept_beside_and_the_window_opens_all_the_same() {
    let _turn = alone();
    let screen = Screen::start();
    let broken = "name = \"Olga\"\ncamera =\n";
    let mut window = Window::open(&screen, broken);
    let button = window.wait("a drawn window", |_| screen.shot().around(ACCENT, 0..300));
    assert!(button.right > 100, "{button:?}");
    let copy = window.settings().with_extension("toml.bak");
    assert_eq!(fs::read_to_string(copy).expect("a copy"), broken);
}

/// Somebody who has opened a session, and its link.
fn opener(hub: &Hub) -> (Program, String) {
    let silent = ["--camera", "none", "--microphone", "none"];
    let opens = ["open", "--kind", "av-conference", "--id", "town-hall"];
    let mut opener = hub.person("Piet", &[&opens[..], &silent].concat());
    let link = opener.event("opened")["link"].as_str().expect("a link").to_owned();
    (opener, link)
}

/// Whether somebody of that name ever went away without a word.
fn was_missed(program: &Program, name: &str) -> bool {
    program.seen().iter().any(|event| event["state"] == "gone" && event["name"] == name)
}

#[test]
fn a_window_that_is_asked_to_end_says_goodbye_and_keeps_its_size() {
    let _turn = alone();
    let (hub, screen) = (Hub::start(), Screen::start());
    for signal in ["TERM", "HUP"] {
        let (mut opener, link) = opener(&hub);
        let mut window = Start::new(&screen, &settings(&hub)).args(&[&link]).open(&screen);
        opener.participant("Olga", "live");
        window.resize(900, 700);
        window.wait("a drawn window of that size", |_| screen.shot().around(ACCENT, 0..300));
        window.signal(signal);
        assert_eq!(window.end(), Some(0), "{signal}");
        opener.participant("Olga", "left");
        assert!(!was_missed(&opener, "Olga"), "{}", opener.transcript());
        let kept = fs::read_to_string(window.settings()).expect("the settings are there");
        assert!(kept.contains("width = 900") && kept.contains("height = 700"), "{kept}");
        assert_eq!(opener.interrupt().code, Some(0));
    }
}

#[test]
fn a_window_whose_display_vanishes_says_goodbye_and_keeps_its_size() {
    let _turn = alone();
    let (hub, screen) = (Hub::start(), Screen::start());
    let (mut opener, link) = opener(&hub);
    let mut window = Start::new(&screen, &settings(&hub)).args(&[&link]).open(&screen);
    opener.participant("Olga", "live");
    hear(&mut opener, "a tone", |level| level > -40.0);
    window.resize(900, 700);
    // Whoever has muted after that knows the size.
    window.key("m");
    hear(&mut opener, "silence", |level| level < -60.0);
    screen.vanish();
    window.end();
    opener.participant("Olga", "left");
    assert!(!was_missed(&opener, "Olga"), "{}", opener.transcript());
    let kept = fs::read_to_string(window.settings()).expect("the settings are there");
    assert!(kept.contains("width = 900") && kept.contains("height = 700"), "{kept}");
}

#[test]
fn a_window_opens_on_x11_though_a_wayland_display_was_left_over() {
    let _turn = alone();
    let screen = Screen::start();
    let start = Start::new(&screen, "").env("WAYLAND_DISPLAY", "wayland-9");
    start.open(&screen).wait("a drawn window", |_| screen.shot().around(ACCENT, 0..300));
}

#[test]
fn a_window_opens_whatever_the_screens_scale_is_said_to_be() {
    let _turn = alone();
    let screen = Screen::start();
    for dpi in ["0", "-96", "nan", "1e9"] {
        let start = Start::new(&screen, "");
        fs::write(start.home().file(".Xdefaults"), format!("Xft.dpi: {dpi}\n")).expect("a home");
        let mut window = start.open(&screen);
        window.wait(&format!("a window at {dpi}"), |_| screen.shot().around(ACCENT, 0..300));
    }
    for scale in ["0", "large"] {
        let start = Start::new(&screen, "").env("WINIT_X11_SCALE_FACTOR", scale);
        let mut window = start.open(&screen);
        window.wait(&format!("a window at {scale}"), |_| screen.shot().around(ACCENT, 0..300));
    }
}

#[test]
fn where_no_window_can_be_opened_a_sentence_says_what_to_do() {
    let _turn = alone();
    let (screen, bare) = (Screen::start(), Screen::start_without(&["RANDR", "GLX"]));
    let faults = [
        ("no screen", Start::new(&screen, "").env("DISPLAY", "")),
        ("no such screen", Start::new(&screen, "").env("DISPLAY", ":99999")),
        ("no compositor", {
            Start::new(&screen, "").env("DISPLAY", "").env("WAYLAND_DISPLAY", "wayland-9")
        }),
        ("a bare server", Start::new(&bare, "")),
    ];
    for (fault, start) in faults {
        let (code, said) = start.fail();
        assert_eq!(code, Some(1), "{fault}: {said}");
        assert!(said.contains("cannot open a window"), "{fault}: {said}");
        assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{fault}: {said}");
    }
}

#[test]
fn a_second_start_hands_its_link_to_the_window_that_is_open() {
    let _turn = alone();
    let (hub, screen) = (Hub::start(), Screen::start());
    let (mut opener, link) = opener(&hub);
    let mut window = Window::open(&screen, &settings(&hub));
    assert_eq!(window.start_again(&[&link]), Some(0));
    opener.participant("Olga", "live");
    window.wait("the session's lane", |_| screen.shot().around(LANES[0], BARS));
    // Without a link there is nothing to join, and still no second person.
    assert_eq!(window.start_again(&[]), Some(0));
    let other = Start::new(&screen, &settings(&hub).replace("Olga", "Otto"));
    let _other = other.args(&["--new-window", &link]).open(&screen);
    opener.participant("Otto", "live");
}
