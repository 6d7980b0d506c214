//! The logs reveal no names, addresses, session descriptions or secrets, even under attack.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use serde_json::json;

use crate::rig::{
    TempFolder,
    process::{Exit, Hub, Program, participant_args, run_async},
    raw_client::RawClient,
};

/// Logs everything at level `info`, of all crates.
const LOG_AT_INFO: [(&str, &str); 1] = [("RUST_LOG", "info")];

/// Texts that occur only in a session description (RFC 8866; RFC 8839, section 5).
const SDP_MARKERS: [&str; 9] = [
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

/// A hub whose host name never resolves (RFC 6761, section 6.4).
const UNRESOLVABLE_HUB: &str = "http://nowhere.invalid:7340";

#[test]
fn logs_carry_no_description_no_key_no_address_and_no_name() {
    run_async(async {
        let start = |args: &[&str]| Program::start_in(TempFolder::new(), args, &LOG_AT_INFO);
        let mut program = start(&["serve", "--listen", "127.0.0.1:0"]);
        let url = program.event("listening")["hub"].as_str().expect("an address").to_owned();
        let hub = Hub { program, url };
        let [opener_home, guest_home] = [TempFolder::new(), TempFolder::new()];
        let states = [&opener_home, &guest_home].map(|home| home.file("state"));
        let start_participant = |home, name, task: &[&str]| {
            Program::start_in(home, &participant_args(&hub.url, name, task), &LOG_AT_INFO)
        };
        let open = ["open", "--kind", "audio+video+data/many-to-many"];
        let mut opener = start_participant(opener_home, "Olga-Opener", &open);
        let session = opener.event("opened")["session"].as_str().expect("an id").to_owned();
        let mut guest = start_participant(guest_home, "Gustav-Guest", &["join", &session]);
        guest.event("first-frame");

        let mut secrets = send_malformed_signals(&hub, &session).await;
        opener.participant("Stranger", "connecting");
        let stored = states.each_ref().map(|state| read_secrets(state));
        let expected = "opener: owner key, token, hub identity; guest: token, hub identity";
        assert_eq!(stored.each_ref().map(Vec::len), [3, 2], "{expected}");
        secrets.extend(stored.concat());
        secrets.extend([session, "nowhere.invalid".to_owned()]);

        // The hub ends and another takes its place. Two programs find no hub at all.
        let Hub { program, url } = hub;
        let mut exits = vec![program.terminate()];
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
        secrets.extend(read_secrets(&states[0]));
        let without_hub = [UNRESOLVABLE_HUB, "http://127.0.0.1:9"]
            .map(|url| start(&participant_args(url, "Norman-Nobody", &["join", "x", "--no-wait"])));
        for program in without_hub {
            let exit = program.wait_for_exit();
            assert_eq!(
                (exit.code, &exit.events_named("error")[0]["code"]),
                (Some(3), &HUB_UNREACHABLE.into())
            );
            assert_no_leak(&exit, &secrets);
        }

        exits.extend([guest.terminate(), opener.terminate(), second.terminate()]);
        for exit in &exits {
            assert_eq!(exit.code, Some(0));
            assert!(!exit.stderr.is_empty(), "nothing is logged at all");
            assert_no_leak(exit, &secrets);
        }
    });
}

/// Logs everything, including the frames of the WebSocket library, which logs whole messages.
const LOG_AT_TRACE: [(&str, &str); 1] =
    [("RUST_LOG", "trace,tungstenite=trace,tungstenite::protocol::frame=trace")];

#[test]
fn no_token_and_no_owner_key_is_logged_at_any_level() {
    run_async(async {
        let serve = ["serve", "--listen", "127.0.0.1:0"];
        let mut hub = Program::start_in(TempFolder::new(), &serve, &LOG_AT_TRACE);
        let url = hub.event("listening")["hub"].as_str().expect("an address").to_owned();
        let home = TempFolder::new();
        let state = home.file("state");
        let open = ["open", "--kind", "audio/one-way", "--id", "town-hall"];
        let mut opener =
            Program::start_in(home, &participant_args(&url, "Olga", &open), &LOG_AT_TRACE);
        opener.event("opened");
        let secrets = read_secrets(&state);
        assert_eq!(secrets.len(), 3, "owner key, token, hub identity");
        for exit in [opener.terminate(), hub.terminate()] {
            assert!(exit.stderr.contains("DEBUG"), "nothing is logged: {:.2000}", exit.stderr);
            for secret in &secrets {
                let line = exit.stderr.lines().find(|line| line.contains(secret));
                assert_eq!(line, None, "a secret is logged");
            }
        }
    });
}

/// The code of the error event for a hub that cannot be reached.
const HUB_UNREACHABLE: &str = "hub-unreachable";

/// Asserts that no line on standard error contains a secret, a name, an address or a part of a
/// session description.
///
/// With `--json`, standard error has only logs and failures of the program. Messages for the user
/// are events on standard output.
fn assert_no_leak(exit: &Exit, secrets: &[String]) {
    for line in exit.stderr.lines() {
        assert_eq!(find_leak(line, secrets), None, "{line}");
    }
}

/// The contents of all files in a program's state folder and its subfolders: owner keys, resume
/// tokens and the hub identity.
fn read_secrets(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry"));
    entries
        .flat_map(|entry| match entry.file_type().expect("a file type").is_dir() {
            true => read_secrets(&entry.path()),
            false => vec![fs::read_to_string(entry.path()).expect("a secret")],
        })
        .collect()
}

/// Joins, and sends candidates and answers that are malformed or contain addresses, and an offer
/// out of turn. Returns the ICE credentials of the offer that it received.
async fn send_malformed_signals(hub: &Hub, session: &str) -> Vec<String> {
    let mut client = RawClient::connect(hub).await;
    client.send(json!({"type": "join", "session": session, "wait": false})).await;
    let offer = loop {
        let signal = client.receive("signal").await;
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
        client.send(signal).await;
    }
    let secret = |line: &str| {
        let (name, value) = line.split_once(':')?;
        ["a=ice-ufrag", "a=ice-pwd"].contains(&name).then(|| value.to_owned())
    };
    sdp.lines().filter_map(secret).collect()
}

/// The part of a log line that must not be logged, if there is one.
fn find_leak(line: &str, secrets: &[String]) -> Option<String> {
    let names = ["Olga-Opener", "Gustav-Guest", "Norman-Nobody"].map(str::to_owned);
    let forbidden =
        SDP_MARKERS.map(str::to_owned).into_iter().chain(names).chain(secrets.iter().cloned());
    // Colour codes and punctuation around an address are not part of it.
    let tokens =
        line.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '[' | ']')));
    let is_address = |token: &&str| {
        let token = token.trim_matches(|c| matches!(c, '.' | ':'));
        let has_ipv4 = token.split([':', '[', ']']).any(|part| part.parse::<Ipv4Addr>().is_ok());
        has_ipv4 || token.parse::<IpAddr>().is_ok() || token.parse::<SocketAddr>().is_ok()
    };
    forbidden
        .into_iter()
        .find(|text| line.contains(text))
        .or_else(|| tokens.into_iter().find(is_address).map(str::to_owned))
}

#[test]
fn addresses_names_secrets_and_descriptions_are_found_in_a_log_line() {
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
        assert!(find_leak(line, &secrets).is_some(), "{line}");
    }
    let harmless =
        "2026-01-01T10:20:30.123456Z  INFO quintet::signalling::hub: hub listening port=7340";
    assert_eq!(find_leak(harmless, &secrets), None);
}
