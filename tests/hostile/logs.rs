//! What programs log while others come, go and mean harm tells nobody who and where they are.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use serde_json::json;

use crate::rig::{
    Folder,
    process::{End, Hub, Program, alone_with_sockets, person},
    stranger::Stranger,
};

/// All that is said at `info`, by whatever library.
const LOUD: [(&str, &str); 1] = [("RUST_LOG", "info")];

/// What a session description is made of (RFC 8866; RFC 8839, section 5).
const DESCRIPTION: [&str; 9] = [
    "a=",
    "m=audio",
    "m=video",
    "v=0",
    "candidate:",
    "ice-ufrag",
    "ice-pwd",
    "fingerprint",
    "sha-256",
];

/// Where nobody is found (RFC 6761, section 6.4).
const NOWHERE: &str = "http://nowhere.invalid:7340";

#[test]
fn logs_carry_no_description_no_key_no_address_and_no_name() {
    alone_with_sockets(async {
        let start = |args: &[&str]| Program::start_in(Folder::new(), args, &LOUD);
        let mut program = start(&["serve", "--listen", "127.0.0.1:0"]);
        let url = program.event("listening")["hub"].as_str().expect("an address").to_owned();
        let hub = Hub { program, url };
        let [opener_home, guest_home] = [Folder::new(), Folder::new()];
        let states = [&opener_home, &guest_home].map(|home| home.file("state"));
        let come = |home, name, task: &[&str]| {
            Program::start_in(home, &person(&hub.url, name, task), &LOUD)
        };
        let open = ["open", "--kind", "audio+video+data/many-to-many"];
        let mut opener = come(opener_home, "Olga-Opener", &open);
        let session = opener.event("opened")["session"].as_str().expect("an id").to_owned();
        let mut guest = come(guest_home, "Gustav-Guest", &["join", &session]);
        guest.event("first-frame");

        let mut secrets = harm(&hub, &session).await;
        opener.participant("Stranger", "connecting");
        let kept = states.each_ref().map(|state| secrets_in(state));
        let and_identity = "owner key, token, the hubs' identity; token, identity";
        assert_eq!(kept.each_ref().map(Vec::len), [3, 2], "{and_identity}");
        secrets.extend(kept.concat());
        secrets.extend([session, "nowhere.invalid".to_owned()]);

        // The hub is lost, and another takes its place; others are where there is none.
        let Hub { program, url } = hub;
        let mut ends = vec![program.interrupt()];
        for program in [&mut opener, &mut guest] {
            program.event("hub-lost");
        }
        let address = url.trim_start_matches("http://");
        let mut second = start(&["serve", "--listen", address]);
        second.event("listening");
        for program in [&mut opener, &mut guest] {
            program.event("hub-back");
        }
        opener.participant("Gustav-Guest", "live");
        secrets.extend(secrets_in(&states[0]));
        let lost = [NOWHERE, "http://127.0.0.1:9"]
            .map(|nowhere| start(&person(nowhere, "Norman-Nobody", &["join", "x", "--no-wait"])));
        for nobody in lost {
            let end = nobody.end();
            assert_eq!((end.code, &end.all("error")[0]["code"]), (Some(3), &UNREACHABLE.into()));
            assert_told_nothing(&end, &secrets);
        }

        ends.extend([guest.interrupt(), opener.interrupt(), second.interrupt()]);
        for end in &ends {
            assert_eq!(end.code, Some(0));
            assert!(!end.errors.is_empty(), "nothing is logged at all");
            assert_told_nothing(end, &secrets);
        }
    });
}

/// Everything, with wishes for the library that carries the hub's messages.
const LOUDEST: [(&str, &str); 1] =
    [("RUST_LOG", "trace,tungstenite=trace,tungstenite::protocol::frame=trace")];

#[test]
fn no_token_and_no_owner_key_is_logged_whatever_is_wished_for() {
    alone_with_sockets(async {
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        let mut hub = Program::start_in(Folder::new(), &serve, &LOUDEST);
        let url = hub.event("listening")["hub"].as_str().expect("an address").to_owned();
        let home = Folder::new();
        let state = home.file("state");
        let open = ["open", "--kind", "audio/one-way", "--id", "town-hall"];
        let mut opener = Program::start_in(home, &person(&url, "Olga", &open), &LOUDEST);
        opener.event("opened");
        let secrets = secrets_in(&state);
        assert_eq!(secrets.len(), 3, "owner key, token, the hubs' identity");
        for end in [opener.interrupt(), hub.interrupt()] {
            assert!(end.errors.contains("DEBUG"), "nothing is logged: {:.2000}", end.errors);
            for secret in &secrets {
                let line = end.errors.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "a secret");
            }
        }
    });
}

/// What a program says of a hub that is not there.
const UNREACHABLE: &str = "hub-unreachable";

/// What goes to standard error with `--json` is logged, or says that the program failed: all that
/// is for a person is an event.
fn assert_told_nothing(end: &End, secrets: &[String]) {
    for line in end.errors.lines() {
        assert_eq!(said_too_much(line, secrets), None, "{line}");
    }
}

/// All that a program keeps in the files of its folder, and of the folders therein: owner keys and
/// resume tokens.
fn secrets_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("is there"));
    entries
        .flat_map(|entry| match entry.file_type().expect("it is known").is_dir() {
            true => secrets_in(&entry.path()),
            false => vec![fs::read_to_string(entry.path()).expect("a secret")],
        })
        .collect()
}

/// Joins, answers with nonsense and with addresses, and says what nobody may say; the secrets that
/// it was told meanwhile.
async fn harm(hub: &Hub, session: &str) -> Vec<String> {
    let mut stranger = Stranger::greet(hub).await;
    stranger.say(json!({"type": "join", "session": session, "wait": false})).await;
    let offer = loop {
        let signal = stranger.hear("signal").await;
        if signal["payload"]["type"] == "offer" {
            break signal;
        }
    };
    let sdp = offer["payload"]["sdp"].as_str().expect("a description");
    let generation = &offer["payload"]["generation"];
    let candidate = "candidate:1 1 udp 2130706431 203.0.113.7 5000 typ host";
    let broken = sdp.replace("H264", "H261").replace("a=mid:1", "a=mid:203.0.113.8");
    for payload in [
        json!({"type": "candidate", "generation": generation, "candidate": candidate}),
        json!({"type": "candidate", "generation": generation, "candidate": "candidate:203.0.113.9"}),
        json!({"type": "answer", "generation": generation, "sdp": "v=0\r\no=- 1 1 IN IP4 203.0.113.6"}),
        json!({"type": "answer", "generation": generation, "sdp": broken}),
        json!({"type": "offer", "generation": generation, "sdp": sdp}),
    ] {
        let to = &offer["from"];
        let signal = json!({"type": "signal", "session": session, "to": to, "payload": payload});
        stranger.say(signal).await;
    }
    let secret = |line: &str| {
        let (name, value) = line.split_once(':')?;
        ["a=ice-ufrag", "a=ice-pwd"].contains(&name).then(|| value.to_owned())
    };
    sdp.lines().filter_map(secret).collect()
}

/// What of a line nobody may read, if anything.
fn said_too_much(line: &str, secrets: &[String]) -> Option<String> {
    let names = ["Olga-Opener", "Gustav-Guest", "Norman-Nobody"].map(str::to_owned);
    let told =
        DESCRIPTION.map(str::to_owned).into_iter().chain(names).chain(secrets.iter().cloned());
    // Colours and punctuation around them are no part of an address.
    let words =
        line.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '[' | ']')));
    let is_address = |word: &&str| {
        let word = word.trim_matches(|c| matches!(c, '.' | ':'));
        let has_ipv4 = word.split([':', '[', ']']).any(|part| part.parse::<Ipv4Addr>().is_ok());
        has_ipv4 || word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok()
    };
    told.into_iter()
        .find(|told| line.contains(told))
        .or_else(|| words.into_iter().find(is_address).map(str::to_owned))
}

#[test]
fn whatever_is_too_much_is_noticed() {
    let secrets = ["uFrAg".to_owned()];
    for line in [
        "WARN refused a=mid:0",
        "INFO hub client{addr=127.0.0.1:4000}: up",
        "INFO from [::1]:4000",
        "INFO to fe80::1.",
        "INFO lost http://127.0.0.1:4000/signal",
        "INFO bound udp:192.0.2.1:5000",
        "INFO Olga-Opener is here",
        "INFO user uFrAg",
    ] {
        assert!(said_too_much(line, &secrets).is_some(), "{line}");
    }
    let fine =
        "2026-01-01T10:20:30.123456Z  INFO quintet::signalling::hub: hub listening port=7340";
    assert_eq!(said_too_much(fine, &secrets), None);
}
