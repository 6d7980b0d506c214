//! A client of the hub that is not ours: it speaks JSON over a WebSocket.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::process::Hub;

/// A client of the hub that is not ours.
pub(crate) struct Stranger(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Stranger {
    /// Connects and says hello.
    pub(crate) async fn greet(hub: &Hub) -> Self {
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

    /// Says a message.
    pub(crate) async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("the hub listens");
    }

    /// The next message of that type.
    pub(crate) async fn hear(&mut self, kind: &str) -> Value {
        self.hear_one_of(&[kind]).await
    }

    /// The next message of one of these types.
    pub(crate) async fn hear_one_of(&mut self, kinds: &[&str]) -> Value {
        let hear = async {
            loop {
                let Ok(message) = timeout(HEARTBEAT, self.0.next()).await else {
                    self.say(json!({"type": "ping"})).await;
                    continue;
                };
                let message = message.expect("the hub speaks").expect("well formed");
                let Message::Text(text) = message else { continue };
                let value: Value = serde_json::from_str(&text).expect("JSON");
                assert_ne!(value["type"], "error", "{value}");
                if kinds.iter().any(|kind| value["type"] == *kind) {
                    return value;
                }
            }
        };
        timeout(Duration::from_secs(20), hear).await.unwrap_or_else(|_| panic!("no {kinds:?}"))
    }

    /// The offer that the incumbent of a session makes to a newcomer.
    pub(crate) async fn offer_of(&mut self, session: &str) -> String {
        self.say(json!({"type": "join", "session": session, "wait": false})).await;
        self.hear("joined").await;
        loop {
            let signal = self.hear("signal").await;
            if signal["payload"]["type"] == "offer" {
                return signal["payload"]["sdp"].as_str().expect("a description").to_owned();
            }
        }
    }

    /// Opens a session of that kind under that id.
    pub(crate) async fn open(&mut self, session: &str, kind: &str) {
        let (media, direction) = kind.split_once('/').expect("MEDIA/DIRECTION");
        let media: Vec<_> = media.split('+').collect();
        let kind = json!({"media": media, "direction": direction});
        self.say(json!({"type": "open", "session": session, "kind": kind})).await;
        self.hear("opened").await;
    }

    /// Offers to whoever comes into each of these sessions, once; the answers, by session.
    pub(crate) async fn answers_to(
        &mut self,
        offers: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut answers = BTreeMap::new();
        while answers.len() < offers.len() {
            let heard = self.hear_one_of(&["participant-joined", "signal"]).await;
            let session = heard["session"].as_str().expect("a session").to_owned();
            if heard["type"] == "participant-joined" {
                let payload = json!({"type": "offer", "generation": 1, "sdp": offers[&session]});
                let to = &heard["participant"]["participant"];
                let signal =
                    json!({"type": "signal", "session": session, "to": to, "payload": payload});
                self.say(signal).await;
            } else if heard["payload"]["type"] == "answer" {
                let sdp = heard["payload"]["sdp"].as_str().expect("a description").to_owned();
                answers.insert(session, sdp);
            } else {
                assert_ne!(heard["payload"]["type"], "offer", "who comes waits for our offer");
            }
        }
        answers
    }
}

/// How often the hub hears something of a stranger: less than the 3.5 s after which it is away.
const HEARTBEAT: Duration = Duration::from_secs(1);
