//! A hostile viewer: a WebRTC client over real sockets that attacks the opener of a session.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError},
    time::Duration,
};

use bytes::BytesMut;
use futures_util::StreamExt as _;
use rtc::{interceptor::Slot, peer_connection::configuration::setting_engine::SctpMaxMessageSize};
use serde_json::{Value, json};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use webrtc::{
    data_channel::{DataChannel, RTCDataChannelInit},
    peer_connection::{
        MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
        RTCIceCandidateInit, RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription,
        Registry, SettingEngineBuilder,
    },
};

use super::{
    assault::{Assault, Attack, LONGEST, Ledger, Sent},
    forger::{self, Forger, Forgery},
    wire::{Manners, Wire},
};
use crate::rig::{process::Hub, stranger::Stranger};

/// Replaces the opener's `a=max-message-size`, so that webrtc-rs sends far longer messages than
/// the opener accepts.
const ANY_SIZE: &str = "a=max-message-size:268435456";

/// The number of data channels that the viewer opens.
const CHANNELS: usize = 200;

/// How long the viewer waits for anything. It is long because its threads have the lowest
/// priority.
const PATIENCE: Duration = Duration::from_secs(120);

/// A viewer that has joined a session and attacks its opener until dropped. When the opener
/// replaces the connection, the viewer attacks the next one.
pub(crate) struct HostileViewer {
    /// The traffic of all its connections.
    ledger: Ledger,
    connected: Arc<Notify>,
    /// Notified each time the opener has replaced a connection.
    cut: Arc<Notify>,
    /// Makes the viewer leave.
    quit: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl HostileViewer {
    /// Joins the session and waits until the viewer is connected to the opener.
    pub(crate) async fn join(hub: &Hub, session: &str, attack: Attack) -> Self {
        let mut client = Stranger::greet(hub).await;
        client.say(json!({"type": "join", "session": session, "wait": false})).await;
        let traffic = Ledger::default();
        let [connected, cut, quit] = std::array::from_fn(|_| Arc::<Notify>::default());
        let mut tasks = JoinSet::new();
        let peers = Peers {
            session: session.to_owned(),
            attack,
            ledger: Arc::clone(&traffic),
            connected: Arc::clone(&connected),
            cut: Arc::clone(&cut),
            quit: Arc::clone(&quit),
            newest: None,
        };
        tasks.spawn(peers.serve(client));
        let viewer = Self { ledger: traffic, connected, cut, quit, tasks };
        timeout(PATIENCE, viewer.connected.notified()).await.expect("the viewer connects");
        viewer
    }

    /// Waits until the opener has replaced a connection.
    pub(crate) async fn cut_off(&self) {
        timeout(PATIENCE, self.cut.notified()).await.expect("the opener replaces the connection");
    }

    /// Waits until the traffic matches the condition.
    pub(crate) async fn until(&self, holds: impl Fn(&Sent) -> bool) {
        let waiting = async {
            while !holds(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the traffic matches in time");
    }

    /// Ends the attack and leaves the session. Returns the viewer's traffic.
    pub(crate) async fn leave(mut self) -> Sent {
        self.quit.notify_one();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("the viewer's task does not panic");
        }
        std::mem::take(&mut *self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The viewer's connections to the opener, one at a time.
struct Peers {
    session: String,
    attack: Attack,
    ledger: Ledger,
    connected: Arc<Notify>,
    cut: Arc<Notify>,
    quit: Arc<Notify>,
    newest: Option<Peer>,
}

struct Peer {
    generation: Value,
    library: Arc<dyn PeerConnection>,
    _writing: JoinSet<()>,
}

impl Peers {
    /// Answers offers and takes candidates until `quit` is notified.
    async fn serve(mut self, mut hub: Stranger) {
        let mut heartbeat = interval(Duration::from_secs(1));
        loop {
            let received = tokio::select! {
                _ = heartbeat.tick() => {
                    hub.say(json!({"type": "ping"})).await;
                    continue;
                }
                received = hub.0.next() => received,
                () = self.quit.notified() => {
                    self.end_newest().await;
                    hub.say(json!({"type": "leave", "session": self.session})).await;
                    return;
                }
            };
            let Some(Ok(Message::Text(text))) = received else { continue };
            let signal: Value = serde_json::from_str(&text).expect("JSON");
            let payload = &signal["payload"];
            if payload["type"] == "offer" {
                let sdp = self.answer(payload).await;
                let answer =
                    json!({"type": "answer", "generation": payload["generation"], "sdp": sdp});
                hub.say(json!({"type": "signal", "session": self.session, "to": signal["from"],
                    "payload": answer}))
                    .await;
            } else if payload["type"] == "candidate" {
                self.take_candidate(payload).await;
            }
        }
    }

    /// Makes a new connection for an offer. Returns the SDP of the answer, which includes all
    /// candidates.
    async fn answer(&mut self, offer: &Value) -> String {
        // An offer of the same generation is an ICE restart of the same connection.
        if self.newest.as_ref().is_some_and(|old| old.generation != offer["generation"]) {
            self.cut.notify_one();
        }
        self.end_newest().await;
        let gathered = Arc::new(Notify::new());
        let (connected, complete) = (Arc::clone(&self.connected), Arc::clone(&gathered));
        let behaviour = if self.attack == Attack::Deaf { Manners::Deaf } else { Manners::Good };
        let runtime = Wire { ledger: Arc::clone(&self.ledger), manners: behaviour };
        let connection = build(self.attack, runtime, Watch { connected, complete }).await;
        let sdp = offer["sdp"].as_str().expect("a description");
        let announced = format!("a=max-message-size:{LONGEST}");
        assert!(sdp.contains(&announced), "{sdp}");
        let sdp = sdp.replace(&announced, ANY_SIZE);
        let remote = RTCSessionDescription::offer(sdp).expect("a description");
        let channel = channel(&*connection, Some(0)).await.expect("a channel");
        connection.set_remote_description(remote).await.expect("the offer is valid");
        let answer = connection.create_answer(None).await.expect("an answer");
        connection.set_local_description(answer).await.expect("the answer is valid");
        timeout(PATIENCE, gathered.notified()).await.expect("gathering completes");
        let sdp = connection.local_description().await.expect("a local description").sdp;
        let mut writing = JoinSet::new();
        match self.attack {
            Attack::Words(bytes) => drop(writing.spawn(flood(channel, bytes))),
            Attack::Channels => drop(writing.spawn(open_many(Arc::clone(&connection), channel))),
            Attack::FalseLengths | Attack::FarAhead => drop(writing.spawn(flood(channel, 1000))),
            Attack::Keyframes
            | Attack::Losses
            | Attack::Modest
            | Attack::Garbage
            | Attack::Mute
            | Attack::Deaf => {}
        }
        let generation = offer["generation"].clone();
        self.newest = Some(Peer { generation, library: connection, _writing: writing });
        sdp
    }

    /// Closes the newest connection. Dropping it would not do: webrtc-rs keeps it running.
    async fn end_newest(&mut self) {
        if let Some(peer) = self.newest.take() {
            let _ = peer.library.close().await;
        }
    }

    async fn take_candidate(&self, payload: &Value) {
        if let Some(peer) = &self.newest
            && peer.generation == payload["generation"]
        {
            let candidate = RTCIceCandidateInit {
                candidate: payload["candidate"].as_str().expect("a line").to_owned(),
                sdp_mline_index: Some(0),
                ..RTCIceCandidateInit::default()
            };
            let _ = peer.library.add_ice_candidate(candidate).await;
        }
    }
}

/// Builds a peer connection over the hostile runtime's sockets, without media sections of its own.
pub(crate) async fn build(attack: Attack, runtime: Wire, events: Watch) -> Arc<dyn PeerConnection> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().expect("codecs");
    let interceptor = Assault::new(attack, Arc::clone(&runtime.ledger));
    let mut settings =
        SettingEngineBuilder::new().with_sctp_max_message_size(SctpMaxMessageSize::Unbounded);
    let forgery: Option<Forgery> = match attack {
        Attack::FalseLengths => Some(forger::false_length),
        Attack::FarAhead => Some(forger::far_ahead),
        Attack::Keyframes
        | Attack::Losses
        | Attack::Modest
        | Attack::Garbage
        | Attack::Mute
        | Attack::Deaf
        | Attack::Words(_)
        | Attack::Channels => None,
    };
    if let Some(forgery) = forgery {
        settings = settings.with_crypto_provider(Forger::new(forgery));
    }
    let settings = settings.build();
    let peer = PeerConnectionBuilder::new()
        .with_media_engine(engine)
        .with_interceptor_registry(Registry::new().with(Slot::Custom(3_500), interceptor))
        .with_setting_engine(settings)
        .with_runtime(Arc::new(runtime))
        .with_handler(Arc::new(events))
        .with_data_channel_send_buffer_limit(4 << 20)
        .with_udp_addrs(vec![SocketAddr::new(own_address(), 0)])
        .build();
    Arc::new(peer.await.expect("a connection"))
}

/// The first IPv4 address of this machine that is not loopback, at which our programs listen, too.
/// Loopback if there is none.
pub(crate) fn own_address() -> std::net::IpAddr {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let routable =
        interfaces.iter().map(|one| one.ip()).find(|ip| ip.is_ipv4() && !ip.is_loopback());
    routable.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
}

/// Opens a data channel. `None` if the connection is closed.
async fn channel(
    connection: &dyn PeerConnection,
    negotiated: Option<u16>,
) -> Option<Arc<dyn DataChannel>> {
    let options = RTCDataChannelInit { negotiated, ..RTCDataChannelInit::default() };
    connection.create_data_channel("quintet", Some(options)).await.ok()
}

/// Sends messages without end, as fast as the channel accepts them.
async fn flood(channel: Arc<dyn DataChannel>, bytes: usize) {
    let message = BytesMut::zeroed(bytes);
    loop {
        if channel.send(message.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Opens one channel after the other, and sends on all of them.
async fn open_many(connection: Arc<dyn PeerConnection>, first: Arc<dyn DataChannel>) {
    while first.send(BytesMut::zeroed(1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut writing = JoinSet::new();
    loop {
        if writing.len() < CHANNELS {
            let Some(channel) = channel(&*connection, None).await else { return };
            writing.spawn(flood(channel, LONGEST));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Notified of state changes of a hostile connection.
#[derive(Default)]
pub(crate) struct Watch {
    pub(crate) connected: Arc<Notify>,
    pub(crate) complete: Arc<Notify>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Watch {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.complete.notify_one();
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Connected {
            self.connected.notify_one();
        }
    }
}
