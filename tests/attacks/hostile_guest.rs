//! A hostile guest: a WebRTC client that joins a call and attacks the participants it is paired
//! with.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use rtc::rtp_transceiver::RTCRtpTransceiverInit;
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use webrtc::{
    peer_connection::{PeerConnection, RTCIceCandidateInit, RTCSessionDescription},
    rtp_transceiver::RTCRtpTransceiverDirection,
};

use super::{
    attack::{Attack, SharedTraffic},
    crafted_video,
    hostile_runtime::{HostileRuntime, SocketBehaviour},
    hostile_viewer::{ConnectionEvents, build_connection, own_address},
};
use crate::rig::{process::Hub, raw_client::RawClient};

/// How long the guest waits for anything. It is long because its threads have the lowest priority.
const TIMEOUT: Duration = Duration::from_secs(120);

/// The number of candidates with the victim's address in an answer.
const VICTIM_CANDIDATES: usize = 350;

/// How long the guest stays in the session before it joins again.
const STAY: Duration = Duration::from_millis(1500);

/// A guest with a peer connection to each participant it is paired with, over sockets of the given
/// behaviour. It does not replace a connection that a participant closes.
pub(crate) struct HostileGuest {
    /// The traffic of all its connections.
    pub(crate) traffic: SharedTraffic,
    quit: Arc<Notify>,
    task: JoinSet<()>,
}

impl HostileGuest {
    /// Joins the session and waits until `others` participants are connected. Sends them
    /// `access_unit`, if given, as each frame of a video stream.
    pub(crate) async fn join(
        (hub, session): (&Hub, &str),
        behaviour: SocketBehaviour,
        access_unit: Option<Bytes>,
        others: usize,
    ) -> Self {
        let client = join_session(&hub.url, session).await;
        let (connected, quit) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let traffic = SharedTraffic::default();
        let connections = Connections {
            session: session.to_owned(),
            wire: (Arc::clone(&traffic), behaviour),
            connected: Arc::clone(&connected),
            access_unit,
            connections: BTreeMap::new(),
            sending: JoinSet::new(),
        };
        let mut task = JoinSet::new();
        task.spawn(connections.serve(client, Arc::clone(&quit)));
        let all = async {
            for _ in 0..others {
                connected.notified().await;
            }
        };
        timeout(TIMEOUT, all).await.expect("all participants connect to the guest");
        Self { traffic, quit, task }
    }

    /// Closes its connections and leaves the session.
    pub(crate) async fn leave(mut self) {
        self.quit.notify_one();
        while let Some(ended) = self.task.join_next().await {
            ended.expect("the guest's task does not panic");
        }
    }
}

/// Joins again and again, each time as a new participant, and answers each offer with candidates
/// that point to the victim. Returns how often it joined.
pub(crate) async fn rejoin_with_victim_candidates(
    hub: &str,
    session: &str,
    victim: &UdpSocket,
    length: Duration,
) -> u32 {
    let lines = candidate_lines(victim);
    let mut joins = 0;
    let attack = async {
        loop {
            let mut client = join_session(hub, session).await;
            joins += 1;
            let answering = async {
                loop {
                    let signal = client.receive("signal").await;
                    if signal["payload"]["type"] == "offer" {
                        let sdp = answer_with_candidates(&signal["payload"], &lines).await;
                        answer(&mut client, session, &signal, sdp).await;
                    }
                }
            };
            let _ = timeout(STAY, answering).await;
            client.send(json!({"type": "leave", "session": session})).await;
        }
    };
    let _ = timeout(length, attack).await;
    joins
}

/// How often a flooding guest joins: a seat stays reserved for a minute.
const REJOINS: usize = 3;

/// The time between two messages of the flood. It makes 3 MB per second, and leaves time to
/// receive the hub's refusals.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(10);

/// Floods a participant with long signalling messages through the hub, and joins again when the
/// hub closes the connection. Returns how often the hub refused a message.
pub(crate) async fn flood_signalling(hub: &str, session: &str, length: Duration) -> usize {
    let refused = AtomicUsize::new(0);
    let flooding = async {
        for _ in 0..REJOINS {
            let mut client = RawClient::connect_to(hub).await;
            client.send(json!({"type": "join", "session": session, "wait": false})).await;
            let joined = client.receive("joined").await;
            let to = &joined["participants"][0]["participant"];
            let sdp = format!("v=0\r\nm=audio 9 x 0\r\na={}\r\n", "x".repeat(30_000));
            let payload = json!({"type": "offer", "generation": 1, "sdp": sdp});
            let signal =
                json!({"type": "signal", "session": session, "to": to, "payload": payload});
            let signal = Message::text(signal.to_string());
            let (mut sink, mut stream) = client.0.split();
            let receiving = async {
                while let Some(Ok(message)) = stream.next().await {
                    let is_refusal = message.to_text().is_ok_and(|text| text.contains("too-many"));
                    refused.fetch_add(is_refusal.into(), Ordering::Relaxed);
                }
            };
            let sending = async {
                let mut clock = interval(MESSAGE_INTERVAL);
                while sink.send(signal.clone()).await.is_ok() {
                    clock.tick().await;
                }
            };
            tokio::join!(receiving, sending);
        }
    };
    let _ = timeout(length, flooding).await;
    refused.load(Ordering::Relaxed)
}

/// Candidate lines with the victim's address and port, as many as a description may hold.
fn candidate_lines(victim: &UdpSocket) -> String {
    let address = victim.local_addr().expect("the socket is bound");
    let line = |number: usize| {
        format!(
            "a=candidate:{number} 1 udp {} {} {} typ srflx raddr 10.0.{}.{} rport 9\r\n",
            2_000_000_000 - number,
            address.ip(),
            address.port(),
            number / 250,
            number % 250,
        )
    };
    (0..VICTIM_CANDIDATES).map(line).collect()
}

/// Answers an offer with these candidate lines only.
async fn answer_with_candidates(offer: &Value, lines: &str) -> String {
    let runtime =
        HostileRuntime { traffic: SharedTraffic::default(), behaviour: SocketBehaviour::Normal };
    let connection = build_connection(Attack::Idle, runtime, ConnectionEvents::default()).await;
    let offer = RTCSessionDescription::offer(sdp_of(offer)).expect("a description");
    connection.set_remote_description(offer).await.expect("the offer is valid");
    let answer = connection.create_answer(None).await.expect("an answer");
    let _ = connection.close().await;
    let kept = answer.sdp.split_inclusive('\n').filter(|line| !line.starts_with("a=candidate"));
    kept.collect::<String>().replacen("a=mid:", &format!("{lines}a=mid:"), 1)
}

/// The guest's peer connections, and what it needs to make more of them.
struct Connections {
    session: String,
    wire: (SharedTraffic, SocketBehaviour),
    connected: Arc<Notify>,
    access_unit: Option<Bytes>,
    /// The connections by the id of the remote participant.
    connections: BTreeMap<String, Arc<dyn PeerConnection>>,
    sending: JoinSet<()>,
}

impl Connections {
    /// Answers offers and takes candidates until `quit` is notified.
    async fn serve(mut self, mut hub: RawClient, quit: Arc<Notify>) {
        let mut heartbeat = interval(Duration::from_secs(1));
        // At its low priority the guest may miss heartbeats, and the hub closes its connection.
        // The peer connections go on without the hub.
        let mut is_at_hub = true;
        loop {
            let received = tokio::select! {
                _ = heartbeat.tick(), if is_at_hub => {
                    let ping = Message::text(json!({"type": "ping"}).to_string());
                    is_at_hub = hub.0.send(ping).await.is_ok();
                    continue;
                }
                received = hub.0.next(), if is_at_hub => received,
                () = quit.notified() => {
                    for connection in self.connections.values() {
                        let _ = connection.close().await;
                    }
                    let leave = json!({"type": "leave", "session": self.session});
                    let _ = hub.0.send(Message::text(leave.to_string())).await;
                    return;
                }
            };
            is_at_hub = matches!(received, Some(Ok(_)));
            let Some(Ok(Message::Text(text))) = received else { continue };
            let signal: Value = serde_json::from_str(&text).expect("JSON");
            let from = signal["from"].as_str().unwrap_or_default().to_owned();
            let known = self.connections.get(&from);
            match (signal["payload"]["type"].as_str(), known) {
                (Some("offer"), None) => {
                    let (connection, sdp) = self.connect(&signal["payload"]).await;
                    self.connections.insert(from, connection);
                    answer(&mut hub, &self.session, &signal, sdp).await;
                }
                (Some("candidate"), Some(connection)) => {
                    let line = signal["payload"]["candidate"].as_str().expect("a line");
                    let candidate = RTCIceCandidateInit {
                        candidate: line.to_owned(),
                        sdp_mline_index: Some(0),
                        ..RTCIceCandidateInit::default()
                    };
                    let _ = connection.add_ice_candidate(candidate).await;
                }
                _ => {}
            }
        }
    }

    /// Makes a connection for an offer. Returns it and the SDP of the answer, which includes all
    /// candidates.
    async fn connect(&mut self, offer: &Value) -> (Arc<dyn PeerConnection>, String) {
        let runtime = HostileRuntime { traffic: Arc::clone(&self.wire.0), behaviour: self.wire.1 };
        let events = ConnectionEvents {
            connected: Arc::clone(&self.connected),
            ..ConnectionEvents::default()
        };
        let complete = Arc::clone(&events.gathering_complete);
        let connection = build_connection(Attack::Idle, runtime, events).await;
        if let Some(access_unit) = &self.access_unit {
            let track = Arc::new(crafted_video::local_track());
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Sendrecv,
                streams: vec![],
                send_encodings: vec![],
            };
            let local = Arc::clone(&track);
            let transceiver = connection.add_transceiver_from_track(local, Some(init)).await;
            transceiver.expect("a transceiver");
            self.sending.spawn(crafted_video::send_repeatedly(track, access_unit.clone()));
        }
        let offer = RTCSessionDescription::offer(sdp_of(offer)).expect("a description");
        connection.set_remote_description(offer).await.expect("the offer is valid");
        let answer = connection.create_answer(None).await.expect("an answer");
        connection.set_local_description(answer).await.expect("the answer is valid");
        timeout(TIMEOUT, complete.notified()).await.expect("gathering completes");
        let sdp = connection.local_description().await.expect("a local description").sdp;
        (connection, sdp)
    }
}

/// Connects to the hub and joins the session.
async fn join_session(hub: &str, session: &str) -> RawClient {
    let mut client = RawClient::connect_to(hub).await;
    client.send(json!({"type": "join", "session": session, "wait": false})).await;
    client.receive("joined").await;
    client
}

/// Sends an answer to the sender of an offer.
async fn answer(hub: &mut RawClient, session: &str, offer: &Value, sdp: String) {
    let generation = &offer["payload"]["generation"];
    let answer = json!({"type": "answer", "generation": generation, "sdp": sdp});
    let to = &offer["from"];
    hub.send(json!({"type": "signal", "session": session, "to": to, "payload": answer})).await;
}

fn sdp_of(payload: &Value) -> String {
    payload["sdp"].as_str().expect("a description").to_owned()
}

/// Binds the socket of a third party on this machine that takes no part in the call.
pub(crate) fn bind_victim() -> UdpSocket {
    let socket = UdpSocket::bind((own_address(), 0)).expect("a free port");
    socket.set_nonblocking(true).expect("the socket can be nonblocking");
    socket
}

/// Counts the packets that the victim receives. They are read at once, because the kernel buffers
/// only few.
pub(crate) async fn count_packets(victim: UdpSocket, length: Duration) -> usize {
    let victim = tokio::net::UdpSocket::from_std(victim).expect("the socket is nonblocking");
    let mut packets = 0;
    let counting = async {
        let mut buffer = [0; 2048];
        while victim.recv(&mut buffer).await.is_ok() {
            packets += 1;
        }
    };
    let _ = timeout(length, counting).await;
    packets
}
