//! A viewer that is not ours and means harm: a whole connection over real sockets.

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
    rig::{process::Hub, stranger::Stranger},
    wire::{Manners, Wire},
};

/// What the library is told that the opener takes: far longer messages than it does.
const ANY_SIZE: &str = "a=max-message-size:268435456";

/// Channels that it opens.
const CHANNELS: usize = 200;

/// How long it waits for anything: it has what processor time the others leave.
const PATIENCE: Duration = Duration::from_secs(120);

/// A viewer that joined a session and attacks its opener until dropped. When the opener replaces
/// the connection, it attacks the next one.
pub(crate) struct HostileViewer {
    /// What it was sent, by all its connections.
    ledger: Ledger,
    connected: Arc<Notify>,
    /// Told each time a connection was taken from it.
    cut: Arc<Notify>,
    /// Tells it to leave.
    quit: Arc<Notify>,
    tasks: JoinSet<()>,
}

impl HostileViewer {
    pub(crate) async fn join(hub: &Hub, session: &str, attack: Attack) -> Self {
        let mut stranger = Stranger::greet(hub).await;
        stranger.say(json!({"type": "join", "session": session, "wait": false})).await;
        let ledger = Ledger::default();
        let [connected, cut, quit] = std::array::from_fn(|_| Arc::<Notify>::default());
        let mut tasks = JoinSet::new();
        let peers = Peers {
            session: session.to_owned(),
            attack,
            ledger: Arc::clone(&ledger),
            connected: Arc::clone(&connected),
            cut: Arc::clone(&cut),
            quit: Arc::clone(&quit),
            newest: None,
        };
        tasks.spawn(peers.serve(stranger));
        let viewer = Self { ledger, connected, cut, quit, tasks };
        timeout(PATIENCE, viewer.connected.notified()).await.expect("it connects");
        viewer
    }

    /// Waits until a connection was taken from it.
    pub(crate) async fn cut_off(&self) {
        timeout(PATIENCE, self.cut.notified()).await.expect("it is cut off");
    }

    /// Waits until what it was sent, and did, is enough to judge by.
    pub(crate) async fn until(&self, holds: impl Fn(&Sent) -> bool) {
        let waiting = async {
            while !holds(&self.ledger.lock().unwrap_or_else(PoisonError::into_inner)) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the attack has shown what it does");
    }

    /// Ends its attack and leaves; what it was sent.
    pub(crate) async fn leave(mut self) -> Sent {
        self.quit.notify_one();
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("it does not panic");
        }
        std::mem::take(&mut *self.ledger.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Its connections, one after the other.
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
    async fn serve(mut self, mut hub: Stranger) {
        let mut heartbeat = interval(Duration::from_secs(1));
        loop {
            let said = tokio::select! {
                _ = heartbeat.tick() => {
                    hub.say(json!({"type": "ping"})).await;
                    continue;
                }
                said = hub.0.next() => said,
                () = self.quit.notified() => {
                    self.end_newest().await;
                    hub.say(json!({"type": "leave", "session": self.session})).await;
                    return;
                }
            };
            let Some(Ok(Message::Text(text))) = said else { continue };
            let said: Value = serde_json::from_str(&text).expect("JSON");
            let payload = &said["payload"];
            if payload["type"] == "offer" {
                let sdp = self.answer(payload).await;
                let answer =
                    json!({"type": "answer", "generation": payload["generation"], "sdp": sdp});
                hub.say(json!({"type": "signal", "session": self.session, "to": said["from"],
                    "payload": answer}))
                    .await;
            } else if payload["type"] == "candidate" {
                self.take_candidate(payload).await;
            }
        }
    }

    /// Answers with a new connection, candidates included.
    async fn answer(&mut self, offer: &Value) -> String {
        // The same generation again would be the same connection, mended.
        if self.newest.as_ref().is_some_and(|old| old.generation != offer["generation"]) {
            self.cut.notify_one();
        }
        self.end_newest().await;
        let gathered = Arc::new(Notify::new());
        let (connected, complete) = (Arc::clone(&self.connected), Arc::clone(&gathered));
        let manners = if self.attack == Attack::Deaf { Manners::Deaf } else { Manners::Good };
        let wire = Wire { ledger: Arc::clone(&self.ledger), manners };
        let library = build(self.attack, wire, Watch { connected, complete }).await;
        let sdp = offer["sdp"].as_str().expect("a description");
        let taken = format!("a=max-message-size:{LONGEST}");
        assert!(sdp.contains(&taken), "{sdp}");
        let sdp = sdp.replace(&taken, ANY_SIZE);
        let offered = RTCSessionDescription::offer(sdp).expect("a description");
        let channel = channel(&*library, Some(0)).await.expect("a channel");
        library.set_remote_description(offered).await.expect("it is taken");
        let answer = library.create_answer(None).await.expect("an answer");
        library.set_local_description(answer).await.expect("it is taken");
        timeout(PATIENCE, gathered.notified()).await.expect("candidates");
        let sdp = library.local_description().await.expect("it is there").sdp;
        let mut writing = JoinSet::new();
        match self.attack {
            Attack::Words(bytes) => drop(writing.spawn(flood(channel, bytes))),
            Attack::Channels => drop(writing.spawn(open_many(Arc::clone(&library), channel))),
            Attack::FalseLengths | Attack::FarAhead => drop(writing.spawn(flood(channel, 1000))),
            Attack::Keyframes
            | Attack::Losses
            | Attack::Modest
            | Attack::Garbage
            | Attack::Mute
            | Attack::Deaf => {}
        }
        let generation = offer["generation"].clone();
        self.newest = Some(Peer { generation, library, _writing: writing });
        sdp
    }

    /// Ends the newest connection: the library goes on with one that is only forgotten.
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

/// A connection over such sockets, without sections of its own.
pub(crate) async fn build(attack: Attack, wire: Wire, watch: Watch) -> Arc<dyn PeerConnection> {
    let mut engine = MediaEngine::default();
    engine.register_default_codecs().expect("codecs");
    let assault = Assault::new(attack, Arc::clone(&wire.ledger));
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
        .with_interceptor_registry(Registry::new().with(Slot::Custom(3_500), assault))
        .with_setting_engine(settings)
        .with_runtime(Arc::new(wire))
        .with_handler(Arc::new(watch))
        .with_data_channel_send_buffer_limit(4 << 20)
        .with_udp_addrs(vec![SocketAddr::new(own_address(), 0)])
        .build();
    Arc::new(peer.await.expect("a connection"))
}

/// Where our programs on this machine listen, too.
pub(crate) fn own_address() -> std::net::IpAddr {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let routable =
        interfaces.iter().map(|one| one.ip()).find(|ip| ip.is_ipv4() && !ip.is_loopback());
    routable.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into())
}

/// A channel; none of a connection that is closed.
async fn channel(
    library: &dyn PeerConnection,
    negotiated: Option<u16>,
) -> Option<Arc<dyn DataChannel>> {
    let options = RTCDataChannelInit { negotiated, ..RTCDataChannelInit::default() };
    library.create_data_channel("quintet", Some(options)).await.ok()
}

/// Writes without end, as fast as it is taken.
async fn flood(channel: Arc<dyn DataChannel>, bytes: usize) {
    let message = BytesMut::zeroed(bytes);
    loop {
        if channel.send(message.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Opens one channel after the other, and writes on all of them.
async fn open_many(library: Arc<dyn PeerConnection>, first: Arc<dyn DataChannel>) {
    while first.send(BytesMut::zeroed(1)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut writing = JoinSet::new();
    loop {
        if writing.len() < CHANNELS {
            let Some(channel) = channel(&*library, None).await else { return };
            writing.spawn(flood(channel, LONGEST));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What it wants to know of its own connection.
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
