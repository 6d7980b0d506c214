//! The built program's window on a screen without a monitor: clicked, typed to, looked at.

mod rig;

use std::time::Duration;

use rig::{
    process::{Hub, PATTERN, Program, alone, list},
    screen::{Colour, Place, Screen, Window},
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
    let broken = "name = \"Olga\"\ncamera = 3\n";
    let mut window = Window::open(&screen, broken);
    let button = window.wait("a drawn window", |_| screen.shot().around(ACCENT, 0..300));
    assert!(button.right > 100, "{button:?}");
    let copy = window.settings().with_extension("toml.bak");
    assert_eq!(std::fs::read_to_string(copy).expect("a copy"), broken);
}
