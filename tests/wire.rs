//! What a stranger sees who speaks only JSON over a WebSocket: the m-lines of every kind of session.

mod rig;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use rig::process::{Hub, PATTERN, Program, alone_with_sockets};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// A client of the hub that is not ours.
struct Stranger(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Stranger {
    async fn greet(hub: &Hub) -> Self {
        let url = format!("{}/signal", hub.url.replace("http", "ws"));
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("the hub answers");
        let mut stranger = Self(socket);
        let hello = json!({
            "type": "hello", "protocol": 1, "name": "Stranger", "instance": "00000000000000aa",
        });
        stranger.say(hello).await;
        stranger.hear("welcome").await;
        stranger
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("the hub listens");
    }

    /// The next message of that type.
    async fn hear(&mut self, kind: &str) -> Value {
        let hear = async {
            loop {
                let message = self.0.next().await.expect("the hub speaks").expect("well formed");
                let Message::Text(text) = message else { continue };
                let value: Value = serde_json::from_str(&text).expect("JSON");
                assert_ne!(value["type"], "error", "{value}");
                if value["type"] == kind {
                    return value;
                }
            }
        };
        timeout(Duration::from_secs(20), hear).await.unwrap_or_else(|_| panic!("no {kind}"))
    }

    /// The offer that the incumbent of a session makes to a newcomer.
    async fn offer_of(&mut self, session: &str) -> String {
        self.say(json!({"type": "join", "session": session, "wait": false})).await;
        self.hear("joined").await;
        loop {
            let signal = self.hear("signal").await;
            if signal["payload"]["type"] == "offer" {
                return signal["payload"]["sdp"].as_str().expect("a description").to_owned();
            }
        }
    }
}

/// Each media section of a description: its medium and its direction.
fn sections(sdp: &str) -> Vec<(&str, &str)> {
    let mut sections: Vec<(&str, &str)> = vec![];
    for line in sdp.lines() {
        if let Some(medium) = line.strip_prefix("m=") {
            sections.push((medium.split(' ').next().unwrap_or_default(), "sendrecv"));
        }
        let direction = line.strip_prefix("a=").unwrap_or_default();
        if matches!(direction, "sendrecv" | "sendonly" | "recvonly" | "inactive")
            && let Some(last) = sections.last_mut()
        {
            last.1 = direction;
        }
    }
    sections
}

#[test]
fn the_m_lines_of_every_kind_say_what_the_kind_says() {
    alone_with_sockets(async {
        let hub = Hub::start();
        let kinds = [
            ("av-conference", vec![("audio", "sendrecv"), ("video", "sendrecv")]),
            ("av-broadcast", vec![("audio", "sendonly"), ("video", "sendonly")]),
            ("audio-conference", vec![("audio", "sendrecv")]),
            ("audio-broadcast", vec![("audio", "sendonly")]),
            ("video-broadcast", vec![("video", "sendonly")]),
            ("audio/one-to-one", vec![("audio", "sendrecv")]),
            ("video/one-to-many", vec![("video", "sendrecv")]),
            ("data/many-to-many", vec![("application", "sendrecv")]),
            (
                "audio+video+data/one-to-many",
                vec![("audio", "sendrecv"), ("video", "sendrecv"), ("application", "sendrecv")],
            ),
            ("video+data/one-way", vec![("video", "sendonly"), ("application", "sendrecv")]),
        ];
        let mut args = vec![
            "open",
            "--hub",
            &hub.url,
            "--camera",
            PATTERN,
            "--microphone",
            "tone",
            "--speaker",
            "none",
        ];
        for (kind, _) in &kinds {
            args.extend(["--kind", kind]);
        }
        let mut opener = Program::start(&args);
        let opened = opener.events("opened", kinds.len());
        let mut stranger = Stranger::greet(&hub).await;
        for (one, (kind, expected)) in opened.iter().zip(kinds) {
            assert_eq!(one["kind"], kind);
            let sdp = stranger.offer_of(one["session"].as_str().unwrap()).await;
            assert_eq!(sections(&sdp), expected, "{kind}:\n{sdp}");
            if sdp.contains("m=video") {
                let baseline =
                    sdp.contains("profile-level-id=42e01f") && !sdp.contains("rtx/90000");
                assert!(baseline && sdp.contains("packetization-mode=1"), "{kind}:\n{sdp}");
            }
        }
        assert_eq!(opener.interrupt().code, Some(0));
    });
}

#[test]
fn viewers_of_a_broadcast_learn_of_the_opener_only() {
    alone_with_sockets(async {
        let hub = Hub::start();
        let mut opener = Program::start(&[
            "open",
            "--kind",
            "av-broadcast",
            "--id",
            "show",
            "--hub",
            &hub.url,
            "--name",
            "Olga",
            "--camera",
            "none",
            "--microphone",
            "none",
        ]);
        opener.event("opened");
        let mut viewer = Program::start(&["join", "show", "--hub", &hub.url, "--speaker", "none"]);
        viewer.participant("Olga", "live");
        let mut stranger = Stranger::greet(&hub).await;
        stranger.say(json!({"type": "join", "session": "show", "wait": false})).await;
        let joined = stranger.hear("joined").await;
        let names: Vec<_> =
            joined["participants"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["Olga"]);
        opener.participant("Stranger", "connecting");
        let end = viewer.interrupt();
        let others = end.all("participant").into_iter().filter(|event| event["name"] != "Olga");
        assert_eq!(others.count(), 0, "viewers are not linked to each other");
    });
}
