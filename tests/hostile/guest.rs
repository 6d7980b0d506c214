//! A guest that is not ours, is linked to people who send and receive, and means harm to them.

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
    assault::{Attack, Ledger},
    pictures,
    rig::{process::Hub, stranger::Stranger},
    viewer::{Watch, build, own_address},
    wire::{Manners, Wire},
};

/// How long it waits for anything: it has what processor time the others leave.
const PATIENCE: Duration = Duration::from_secs(60);

/// Candidates that a scatterer says are its own.
const SCATTERED: usize = 350;

/// How long it waits for what comes of them before it comes in again.
const LINGERS: Duration = Duration::from_millis(1500);

/// A guest with a connection to everybody it is linked to, and sockets of such manners. A connection
/// that is taken from it stays so.
pub(crate) struct HostileGuest {
    /// What it was sent, by all its connections.
    pub(crate) ledger: Ledger,
    quit: Arc<Notify>,
    task: JoinSet<()>,
}

impl HostileGuest {
    /// Joins, and waits until all of so many are connected to it. It sends them that picture, if there
    /// is one, again and again.
    pub(crate) async fn join(
        (hub, session): (&Hub, &str),
        manners: Manners,
        picture: Option<Bytes>,
        others: usize,
    ) -> Self {
        let stranger = enter(hub, session).await;
        let (connected, quit) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let ledger = Ledger::default();
        let connections = Connections {
            session: session.to_owned(),
            wire: (Arc::clone(&ledger), manners),
            connected: Arc::clone(&connected),
            picture,
            others: BTreeMap::new(),
            sending: JoinSet::new(),
        };
        let mut task = JoinSet::new();
        task.spawn(connections.serve(stranger, Arc::clone(&quit)));
        let all = async {
            for _ in 0..others {
                connected.notified().await;
            }
        };
        timeout(PATIENCE, all).await.expect("everybody is connected to it");
        Self { ledger, quit, task }
    }

    /// Ends its connections and leaves.
    pub(crate) async fn leave(mut self) {
        self.quit.notify_one();
        while let Some(ended) = self.task.join_next().await {
            ended.expect("it does not panic");
        }
    }
}

/// Comes in again and again, under a new name each time, and names the victim's ports as its own to
/// everybody who offers.
pub(crate) async fn scatter(hub: &Hub, session: &str, victim: &UdpSocket, length: Duration) -> u32 {
    let lines = named(victim);
    let mut comings = 0;
    let scattering = async {
        loop {
            let mut stranger = enter(hub, session).await;
            comings += 1;
            let answering = async {
                loop {
                    let signal = stranger.hear("signal").await;
                    if signal["payload"]["type"] == "offer" {
                        let sdp = scattered(&signal["payload"], &lines).await;
                        answer(&mut stranger, session, &signal, sdp).await;
                    }
                }
            };
            let _ = timeout(LINGERS, answering).await;
            stranger.say(json!({"type": "leave", "session": session})).await;
        }
    };
    let _ = timeout(length, scattering).await;
    comings
}

/// How often who floods comes in: a seat stays taken for a minute.
const COMINGS: usize = 3;

/// The time between two of its words: 3 MB a second, and time to hear what the hub says to that.
const WORD: Duration = Duration::from_millis(10);

/// Sends somebody long words through the hub, without end, and comes in again when it is thrown out. How often it was told that this is too much.
pub(crate) async fn flood(hub: &Hub, session: &str, length: Duration) -> usize {
    let refused = AtomicUsize::new(0);
    let flooding = async {
        for _ in 0..COMINGS {
            let mut stranger = Stranger::greet(hub).await;
            stranger.say(json!({"type": "join", "session": session, "wait": false})).await;
            let joined = stranger.hear("joined").await;
            let to = &joined["participants"][0]["participant"];
            let sdp = format!("v=0\r\nm=audio 9 x 0\r\na={}\r\n", "x".repeat(30_000));
            let payload = json!({"type": "offer", "generation": 1, "sdp": sdp});
            let word = json!({"type": "signal", "session": session, "to": to, "payload": payload});
            let word = Message::text(word.to_string());
            let (mut say, mut hear) = stranger.0.split();
            let listening = async {
                while let Some(Ok(heard)) = hear.next().await {
                    let is_refusal = heard.to_text().is_ok_and(|text| text.contains("too-many"));
                    refused.fetch_add(is_refusal.into(), Ordering::Relaxed);
                }
            };
            let saying = async {
                let mut clock = interval(WORD);
                while say.send(word.clone()).await.is_ok() {
                    clock.tick().await;
                }
            };
            tokio::join!(listening, saying);
        }
    };
    let _ = timeout(length, flooding).await;
    refused.load(Ordering::Relaxed)
}

/// That address and port, again and again, as many candidates as a description holds.
fn named(victim: &UdpSocket) -> String {
    let address = victim.local_addr().expect("it is bound");
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
    (0..SCATTERED).map(line).collect()
}

/// An answer whose only candidates are these.
async fn scattered(offer: &Value, lines: &str) -> String {
    let wire = Wire { ledger: Ledger::default(), manners: Manners::Good };
    let library = build(Attack::Mute, wire, Watch::default()).await;
    let offered = RTCSessionDescription::offer(description(offer)).expect("a description");
    library.set_remote_description(offered).await.expect("it is taken");
    let answer = library.create_answer(None).await.expect("an answer");
    let _ = library.close().await;
    let own = answer.sdp.split_inclusive('\n').filter(|line| !line.starts_with("a=candidate"));
    own.collect::<String>().replacen("a=mid:", &format!("{lines}a=mid:"), 1)
}

struct Connections {
    session: String,
    wire: (Ledger, Manners),
    connected: Arc<Notify>,
    picture: Option<Bytes>,
    /// By the other end's id.
    others: BTreeMap<String, Arc<dyn PeerConnection>>,
    sending: JoinSet<()>,
}

impl Connections {
    async fn serve(mut self, mut hub: Stranger, quit: Arc<Notify>) {
        let mut heartbeat = interval(Duration::from_secs(1));
        // Its connections go on when the hub has given it up: it gets little processor time.
        let mut is_at_hub = true;
        loop {
            let said = tokio::select! {
                _ = heartbeat.tick(), if is_at_hub => {
                    let ping = Message::text(json!({"type": "ping"}).to_string());
                    is_at_hub = hub.0.send(ping).await.is_ok();
                    continue;
                }
                said = hub.0.next(), if is_at_hub => said,
                () = quit.notified() => {
                    for other in self.others.values() {
                        let _ = other.close().await;
                    }
                    let leave = json!({"type": "leave", "session": self.session});
                    let _ = hub.0.send(Message::text(leave.to_string())).await;
                    return;
                }
            };
            is_at_hub = matches!(said, Some(Ok(_)));
            let Some(Ok(Message::Text(text))) = said else { continue };
            let signal: Value = serde_json::from_str(&text).expect("JSON");
            let from = signal["from"].as_str().unwrap_or_default().to_owned();
            let known = self.others.get(&from);
            match (signal["payload"]["type"].as_str(), known) {
                (Some("offer"), None) => {
                    let (library, sdp) = self.connect(&signal["payload"]).await;
                    self.others.insert(from, library);
                    answer(&mut hub, &self.session, &signal, sdp).await;
                }
                (Some("candidate"), Some(library)) => {
                    let line = signal["payload"]["candidate"].as_str().expect("a line");
                    let candidate = RTCIceCandidateInit {
                        candidate: line.to_owned(),
                        sdp_mline_index: Some(0),
                        ..RTCIceCandidateInit::default()
                    };
                    let _ = library.add_ice_candidate(candidate).await;
                }
                _ => {}
            }
        }
    }

    /// A connection to who offers it, and the answer, candidates included.
    async fn connect(&mut self, offer: &Value) -> (Arc<dyn PeerConnection>, String) {
        let wire = Wire { ledger: Arc::clone(&self.wire.0), manners: self.wire.1 };
        let watch = Watch { connected: Arc::clone(&self.connected), ..Watch::default() };
        let complete = Arc::clone(&watch.complete);
        let library = build(Attack::Mute, wire, watch).await;
        if let Some(picture) = &self.picture {
            let track = Arc::new(pictures::track());
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Sendrecv,
                streams: vec![],
                send_encodings: vec![],
            };
            let local = Arc::clone(&track);
            library.add_transceiver_from_track(local, Some(init)).await.expect("a section");
            self.sending.spawn(pictures::send(track, picture.clone()));
        }
        let offered = RTCSessionDescription::offer(description(offer)).expect("a description");
        library.set_remote_description(offered).await.expect("it is taken");
        let answer = library.create_answer(None).await.expect("an answer");
        library.set_local_description(answer).await.expect("it is taken");
        timeout(PATIENCE, complete.notified()).await.expect("candidates");
        let sdp = library.local_description().await.expect("it is there").sdp;
        (library, sdp)
    }
}

async fn enter(hub: &Hub, session: &str) -> Stranger {
    let mut stranger = Stranger::greet(hub).await;
    stranger.say(json!({"type": "join", "session": session, "wait": false})).await;
    stranger.hear("joined").await;
    stranger
}

async fn answer(hub: &mut Stranger, session: &str, offer: &Value, sdp: String) {
    let generation = &offer["payload"]["generation"];
    let answer = json!({"type": "answer", "generation": generation, "sdp": sdp});
    let to = &offer["from"];
    hub.say(json!({"type": "signal", "session": session, "to": to, "payload": answer})).await;
}

fn description(payload: &Value) -> String {
    payload["sdp"].as_str().expect("a description").to_owned()
}

/// Somebody on this machine's own address who has nothing to do with it.
pub(crate) fn victim() -> UdpSocket {
    let socket = UdpSocket::bind((own_address(), 0)).expect("a free port");
    socket.set_nonblocking(true).expect("it can be told");
    socket
}

/// What came to the victim; its kernel keeps little, so this is asked often.
pub(crate) async fn suffered(victim: UdpSocket, length: Duration) -> usize {
    let victim = tokio::net::UdpSocket::from_std(victim).expect("it is nonblocking");
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
