//! A minimal client of the hub, independent of ours: it sends JSON over a WebSocket.

use std::{collections::BTreeMap, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::process::Hub;

/// A minimal client of the hub, independent of ours. Its participant is named "Stranger".
pub(crate) struct RawClient(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl RawClient {
    /// Connects, sends `hello` and waits for `welcome`.
    pub(crate) async fn connect(hub: &Hub) -> Self {
        Self::connect_to(&hub.url).await
    }

    /// Connects to the hub with this URL, as [`RawClient::connect`] does.
    pub(crate) async fn connect_to(hub: &str) -> Self {
        let url = format!("{}/signal", hub.replace("http", "ws"));
        let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("the hub answers");
        let mut client = Self(socket);
        let hello = json!({
            "type": "hello", "protocol": 1, "name": "Stranger", "instance": "00000000000000aa",
        });
        client.send(hello).await;
        client.receive("welcome").await;
        client
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.expect("the hub is connected");
    }

    /// Waits for the next message of this type; skips others.
    pub(crate) async fn receive(&mut self, kind: &str) -> Value {
        self.receive_any_of(&[kind]).await
    }

    /// Waits for the next message of one of these types; skips others, but panics at an error.
    /// Sends heartbeats meanwhile.
    pub(crate) async fn receive_any_of(&mut self, kinds: &[&str]) -> Value {
        let receive = async {
            loop {
                let Ok(message) = timeout(HEARTBEAT_INTERVAL, self.0.next()).await else {
                    self.send(json!({"type": "ping"})).await;
                    continue;
                };
                let message = message.expect("the hub is connected").expect("well formed");
                let Message::Text(text) = message else { continue };
                let value: Value = serde_json::from_str(&text).expect("JSON");
                assert_ne!(value["type"], "error", "{value}");
                if kinds.iter().any(|kind| value["type"] == *kind) {
                    return value;
                }
            }
        };
        timeout(Duration::from_secs(20), receive).await.unwrap_or_else(|_| panic!("no {kinds:?}"))
    }

    /// Joins a session and waits for the offer of its present member; returns the SDP.
    pub(crate) async fn join_and_receive_offer(&mut self, session: &str) -> String {
        self.send(json!({"type": "join", "session": session, "wait": false})).await;
        self.receive("joined").await;
        loop {
            let signal = self.receive("signal").await;
            if signal["payload"]["type"] == "offer" {
                return signal["payload"]["sdp"].as_str().expect("a description").to_owned();
            }
        }
    }

    /// Opens a session of this kind (`MEDIA/DIRECTION`) with this id.
    pub(crate) async fn open(&mut self, session: &str, kind: &str) {
        let (media, direction) = kind.split_once('/').expect("MEDIA/DIRECTION");
        let media: Vec<_> = media.split('+').collect();
        let kind = json!({"media": media, "direction": direction});
        self.send(json!({"type": "open", "session": session, "kind": kind})).await;
        self.receive("opened").await;
    }

    /// Sends the offer of each session (SDP by session id) to the participant that joins it, and
    /// returns the SDP of the answers by session id.
    pub(crate) async fn offer_to_newcomers(
        &mut self,
        offers: &BTreeMap<String, String>,
    ) -> BTreeMap<String, String> {
        let mut answers = BTreeMap::new();
        while answers.len() < offers.len() {
            let message = self.receive_any_of(&["participant-joined", "signal"]).await;
            let session = message["session"].as_str().expect("a session").to_owned();
            if message["type"] == "participant-joined" {
                let payload = json!({"type": "offer", "generation": 1, "sdp": offers[&session]});
                let to = &message["participant"]["participant"];
                let signal =
                    json!({"type": "signal", "session": session, "to": to, "payload": payload});
                self.send(signal).await;
            } else if message["payload"]["type"] == "answer" {
                let sdp = message["payload"]["sdp"].as_str().expect("a description").to_owned();
                answers.insert(session, sdp);
            } else {
                assert_ne!(message["payload"]["type"], "offer", "the newcomer waits for our offer");
            }
        }
        answers
    }
}

/// The longest time between two messages to the hub: less than the 3.5 s after which the hub
/// reports a silent client as away.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
