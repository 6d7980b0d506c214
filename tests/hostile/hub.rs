//! One who besieges the hub.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    runtime::Runtime,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{Bytes, Message};

use crate::rig::{
    process::{Hub, Program, alone, at},
    stranger::Stranger,
};

/// Connections that one address holds at the hub: more than would be let in from another machine.
const CONNECTIONS: usize = 300;

/// Bytes of the longest message that is tried.
const HUGE: usize = 64 << 20;

/// How long the hub may take to turn somebody away.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long pictures are counted, in seconds of the viewer's figures.
const COUNTED: usize = 4;

#[test]
fn a_siege_of_the_hub_takes_nobody_out_of_a_call_and_keeps_nobody_out() {
    let _turn = alone();
    let hub = Hub::start();
    let opener = hub.open("av-broadcast", "show");
    let mut viewer = hub.person("Vera", &["join", "show"]);
    viewer.event("first-frame");
    let in_peace = pictures(&mut viewer);

    let siege = Runtime::new().expect("a runtime starts");
    for number in 0..CONNECTIONS {
        siege.spawn(hold(hub.url.clone(), number));
    }
    let [loud, wordy] = [0, 1].map(|_| siege.block_on(Stranger::greet(&hub)));
    let (loud, wordy) = (siege.spawn(shout(loud)), siege.spawn(describe(wordy)));
    let under_siege = pictures(&mut viewer);
    println!("{under_siege} pictures in {COUNTED} s under siege, {in_peace} in peace");
    assert!(under_siege * 10 >= in_peace * 7, "{under_siege} pictures instead of {in_peace}");

    let mut newcomer = hub.person("Nora", &["join", "show"]);
    newcomer.event("first-frame");
    for besieger in [loud, wordy] {
        siege.block_on(besieger).expect("it was turned away");
    }
    siege.shutdown_background();
    for end in [viewer.interrupt(), newcomer.interrupt(), opener.interrupt()] {
        assert_eq!(end.code, Some(0));
        assert!(end.all("hub-lost").is_empty() && end.all("error").is_empty());
    }
}

/// The pictures that came within [`COUNTED`] seconds.
fn pictures(viewer: &mut Program) -> u64 {
    let mut received = || {
        let stats = viewer.wait_next("stats", |event| event["event"] == "stats");
        at(&stats, "sessions/0/participants/0/video/received").as_u64().expect("a count")
    };
    let before = received();
    (0..COUNTED).map(|_| received()).last().expect("some") - before
}

/// Holds a connection: a third say nothing, a third never finish the head of their request, and
/// a third hurry through theirs and begin again.
async fn hold(hub: String, number: usize) {
    let address = hub.trim_start_matches("http://").to_owned();
    loop {
        let Ok(mut socket) = TcpStream::connect(&address).await else { return };
        match number % 3 {
            0 => sleep(Duration::from_secs(60)).await,
            1 => {
                let mut lost = socket.write_all(b"GET /signal HTTP/1.1\r\n").await;
                while lost.is_ok() {
                    sleep(Duration::from_millis(200)).await;
                    lost = socket.write_all(b"a: b\r\n").await;
                }
            }
            _ => {
                let _ = socket.write_all(b"GET /s/show HTTP/1.1\r\nhost: a\r\n\r\n").await;
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Sends a message that is far too long; the hub closes the link at the first bytes too many.
async fn shout(mut stranger: Stranger) {
    let message = Message::Binary(Bytes::from(vec![b'a'; HUGE]));
    let sent = timeout(PATIENCE, stranger.0.send(message)).await;
    assert!(matches!(sent, Ok(Err(_))), "the hub took it all, or never closed the link");
}

/// Signals a description of a mebibyte, which is answered and ends the link.
async fn describe(mut stranger: Stranger) {
    let sdp = format!("v=0\r\n{}", "a=mid:0\r\n".repeat(1 << 17));
    let payload = json!({"type": "offer", "generation": 1, "sdp": sdp});
    let signal = json!({"type": "signal", "session": "show", "to": "p", "payload": payload});
    let _ = stranger.0.send(Message::text(signal.to_string())).await;
    let ended = async { while let Some(Ok(_)) = stranger.0.next().await {} };
    assert!(timeout(PATIENCE, ended).await.is_ok(), "the hub keeps the link");
}
