//! What programs log while others come, go and mean harm tells nobody who and where they are.

use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use crate::rig::{
    Folder,
    process::{Hub, Program, alone_with_sockets, person},
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

#[test]
fn logs_carry_no_description_no_key_no_address_and_no_name() {
    alone_with_sockets(async {
        let start = |args: &[&str]| Program::start_in(Folder::new(), args, &LOUD);
        let mut program = start(&["serve", "--listen", "127.0.0.1:0"]);
        let url = program.event("listening")["hub"].as_str().expect("an address").to_owned();
        let hub = Hub { program, url };
        let open = ["open", "--kind", "audio+video+data/many-to-many", "--id", "show"];
        let mut opener = start(&person(&hub.url, "Olga-Opener", &open));
        opener.event("opened");
        let mut guest = start(&person(&hub.url, "Gustav-Guest", &["join", "show"]));
        guest.event("first-frame");

        let secrets = harm(&hub).await;

        opener.participant("Stranger", "connecting");
        let ends = [guest.interrupt(), opener.interrupt(), hub.program.interrupt()];
        for end in &ends {
            assert_eq!(end.code, Some(0));
            assert!(!end.errors.is_empty(), "nothing is logged at all");
            for line in end.errors.lines() {
                assert_eq!(said_too_much(line, &secrets), None, "{line}");
            }
        }
    });
}

/// Joins, answers with nonsense and with addresses, and says what nobody may say; the secrets that
/// it was told meanwhile.
async fn harm(hub: &Hub) -> Vec<String> {
    let mut stranger = Stranger::greet(hub).await;
    stranger.say(json!({"type": "join", "session": "show", "wait": false})).await;
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
        let signal = json!({"type": "signal", "session": "show", "to": to, "payload": payload});
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
    let names = ["Olga-Opener", "Gustav-Guest"].map(str::to_owned);
    let told =
        DESCRIPTION.map(str::to_owned).into_iter().chain(names).chain(secrets.iter().cloned());
    // Colours and punctuation around them are no part of an address.
    let words =
        line.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '[' | ']')));
    let is_address = |word: &&str| {
        let word = word.trim_matches(|c| matches!(c, '.' | ':'));
        word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok()
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
        "INFO Olga-Opener is here",
        "INFO user uFrAg",
    ] {
        assert!(said_too_much(line, &secrets).is_some(), "{line}");
    }
    let fine =
        "2026-01-01T10:20:30.123456Z  INFO quintet::signalling::hub: hub listening port=7340";
    assert_eq!(said_too_much(fine, &secrets), None);
}
