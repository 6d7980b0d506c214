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
    attack::{Attack, AttackInterceptor, MAX_MESSAGE_BYTES, SharedTraffic, Traffic},
    hostile_runtime::{HostileRuntime, SocketBehaviour},
    sctp_forgery::{self, Forgery, ForgingCrypto},
};
use crate::rig::{process::Hub, raw_client::RawClient};

/// Replaces the opener's `a=max-message-size`, so that webrtc-rs sends far longer messages than
/// the opener accepts.
const UNLIMITED_MESSAGE_SIZE: &str = "a=max-message-size:268435456";

/// The number of data channels that the viewer opens.
const MAX_CHANNELS: usize = 200;

/// How long the viewer waits for anything. It is long because its threads have the lowest
/// priority.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A viewer that has joined a session and attacks its opener until dropped. When the opener
/// replaces the connection, the viewer attacks the next one.
pub(crate) struct HostileViewer {
    /// The traffic of all its connections.
    traffic: SharedTraffic,
    connected: Arc<Notify>,
    /// Notified each time the opener has replaced a connection.
    replaced: Arc<Notify>,
    /// Makes the viewer leave.
    quit: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl HostileViewer {
    /// Joins the session and waits until the viewer is connected to the opener.
    pub(crate) async fn join(hub: &Hub, session: &str, attack: Attack) -> Self {
        let mut client = RawClient::connect(hub).await;
        client.send(json!({"type": "join", "session": session, "wait": false})).await;
        let traffic = SharedTraffic::default();
        let [connected, cut, quit] = std::array::from_fn(|_| Arc::<Notify>::default());
        let mut tasks = JoinSet::new();
        let peers = ViewerConnections {
            session: session.to_owned(),
            attack,
            traffic: Arc::clone(&traffic),
            connected: Arc::clone(&connected),
            replaced: Arc::clone(&cut),
            quit: Arc::clone(&quit),
            newest: None,
        };
        tasks.spawn(peers.serve(client));
        let viewer = Self { traffic, connected, replaced: cut, quit, tasks };
        timeout(TIMEOUT, viewer.connected.notified()).await.expect("the viewer connects");
        viewer
    }

    /// Waits until the opener has replaced a connection.
    pub(crate) async fn wait_until_replaced(&self) {
        timeout(TIMEOUT, self.replaced.notified())
            .await
            .expect("the opener replaces the connection");
    }

    /// Waits until the traffic matches the condition.
    pub(crate) async fn wait_until(&self, holds: impl Fn(&Traffic) -> bool) {
        let waiting = async {
            while !holds(&self.traffic.lock().unwrap_or_else(PoisonError::into_inner)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(TIMEOUT, waiting).await.expect("the traffic matches in time");
    }

    /// Ends the attack and leaves the session. Returns the viewer's traffic.
    pub(crate) async fn leave(mut self) -> Traffic {
        self.quit.notify_one();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("the viewer's task does not panic");
        }
        std::mem::take(&mut *self.traffic.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The viewer's connections to the opener, one at a time.
struct ViewerConnections {
    session: String,
    attack: Attack,
    traffic: SharedTraffic,
    connected: Arc<Notify>,
    replaced: Arc<Notify>,
    quit: Arc<Notify>,
    newest: Option<ViewerConnection>,
}

struct ViewerConnection {
    generation: Value,
    connection: Arc<dyn PeerConnection>,
    _writing: JoinSet<()>,
}

impl ViewerConnections {
    /// Answers offers and takes candidates until `quit` is notified.
    async fn serve(mut self, mut hub: RawClient) {
        let mut heartbeat = interval(Duration::from_secs(1));
        loop {
            let received = tokio::select! {
                _ = heartbeat.tick() => {
                    hub.send(json!({"type": "ping"})).await;
                    continue;
                }
                received = hub.0.next() => received,
                () = self.quit.notified() => {
                    self.end_newest().await;
                    hub.send(json!({"type": "leave", "session": self.session})).await;
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
                hub.send(json!({"type": "signal", "session": self.session, "to": signal["from"],
                    "payload": answer}))
                    .await;
            } else if payload["type"] == "candidate" {
                self.add_candidate(payload).await;
            }
        }
    }

    /// Makes a new connection for an offer. Returns the SDP of the answer, which includes all
    /// candidates.
    async fn answer(&mut self, offer: &Value) -> String {
        // An offer of the same generation is an ICE restart of the same connection.
        if self.newest.as_ref().is_some_and(|old| old.generation != offer["generation"]) {
            self.replaced.notify_one();
        }
        self.end_newest().await;
        let gathered = Arc::new(Notify::new());
        let (connected, complete) = (Arc::clone(&self.connected), Arc::clone(&gathered));
        let behaviour = if self.attack == Attack::StopReading {
            SocketBehaviour::StopReading
        } else {
            SocketBehaviour::Normal
        };
        let runtime = HostileRuntime { traffic: Arc::clone(&self.traffic), behaviour };
        let connection = build_connection(
            self.attack,
            runtime,
            ConnectionEvents { connected, gathering_complete: complete },
        )
        .await;
        let sdp = offer["sdp"].as_str().expect("a description");
        let announced = format!("a=max-message-size:{MAX_MESSAGE_BYTES}");
        assert!(sdp.contains(&announced), "{sdp}");
        let sdp = sdp.replace(&announced, UNLIMITED_MESSAGE_SIZE);
        let remote = RTCSessionDescription::offer(sdp).expect("a description");
        let channel = create_channel(&*connection, Some(0)).await.expect("a channel");
        connection.set_remote_description(remote).await.expect("the offer is valid");
        let answer = connection.create_answer(None).await.expect("an answer");
        connection.set_local_description(answer).await.expect("the answer is valid");
        timeout(TIMEOUT, gathered.notified()).await.expect("gathering completes");
        let sdp = connection.local_description().await.expect("a local description").sdp;
        let mut writing = JoinSet::new();
        match self.attack {
            Attack::DataMessages(bytes) => drop(writing.spawn(send_forever(channel, bytes))),
            Attack::DataChannels => {
                drop(writing.spawn(open_channels(Arc::clone(&connection), channel)))
            }
            Attack::SctpFalseLengths | Attack::SctpForwardTsn => {
                drop(writing.spawn(send_forever(channel, 1000)))
            }
            Attack::KeyframeRequests
            | Attack::Nacks
            | Attack::LowBandwidth
            | Attack::Garbage
            | Attack::Idle
            | Attack::StopReading => {}
        }
        let generation = offer["generation"].clone();
        self.newest = Some(ViewerConnection { generation, connection, _writing: writing });
        sdp
    }

    /// Closes the newest connection. Dropping it would not do: webrtc-rs keeps it running.
    async fn end_newest(&mut self) {
        if let Some(peer) = self.newest.take() {
            let _ = peer.connection.close().await;
        }
    }

    async fn add_candidate(&self, payload: &Value) {
        if let Some(peer) = &self.newest
            && peer.generation == payload["generation"]
        {
            let candidate = RTCIceCandidateInit {
                candidate: payload["candidate"].as_str().expect("a line").to_owned(),
                sdp_mline_index: Some(0),
                ..RTCIceCandidateInit::default()
            };
            let _ = peer.connection.add_ice_candidate(candidate).await;
        }
    }
}

/// Builds a peer connection over the hostile runtime's sockets, without media sections of its own.
pub(crate) async fn build_connection(
    attack: Attack,
    runtime: HostileRuntime,
    events: ConnectionEvents,
) -> Arc<dyn PeerConnection> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().expect("codecs");
    let interceptor = AttackInterceptor::new(attack, Arc::clone(&runtime.traffic));
    let mut settings =
        SettingEngineBuilder::new().with_sctp_max_message_size(SctpMaxMessageSize::Unbounded);
    let forgery: Option<Forgery> = match attack {
        Attack::SctpFalseLengths => Some(sctp_forgery::abort_with_false_length),
        Attack::SctpForwardTsn => Some(sctp_forgery::forward_tsn_chunks),
        Attack::KeyframeRequests
        | Attack::Nacks
        | Attack::LowBandwidth
        | Attack::Garbage
        | Attack::Idle
        | Attack::StopReading
        | Attack::DataMessages(_)
        | Attack::DataChannels => None,
    };
    if let Some(forgery) = forgery {
        settings = settings.with_crypto_provider(ForgingCrypto::new(forgery));
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
async fn create_channel(
    connection: &dyn PeerConnection,
    negotiated: Option<u16>,
) -> Option<Arc<dyn DataChannel>> {
    let options = RTCDataChannelInit { negotiated, ..RTCDataChannelInit::default() };
    connection.create_data_channel("quintet", Some(options)).await.ok()
}

/// Sends messages without end, as fast as the channel accepts them.
async fn send_forever(channel: Arc<dyn DataChannel>, bytes: usize) {
    let message = BytesMut::zeroed(bytes);
    loop {
        if channel.send(message.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Opens one channel after the other, and sends on all of them.
async fn open_channels(connection: Arc<dyn PeerConnection>, first: Arc<dyn DataChannel>) {
    while first.send(BytesMut::zeroed(1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut writing = JoinSet::new();
    loop {
        if writing.len() < MAX_CHANNELS {
            let Some(channel) = create_channel(&*connection, None).await else { return };
            writing.spawn(send_forever(channel, MAX_MESSAGE_BYTES));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Notified of state changes of a hostile connection.
#[derive(Default)]
pub(crate) struct ConnectionEvents {
    pub(crate) connected: Arc<Notify>,
    pub(crate) gathering_complete: Arc<Notify>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for ConnectionEvents {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathering_complete.notify_one();
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Connected {
            self.connected.notify_one();
        }
    }
}
