//! Attacks on the hub by many connections from one address.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        protocol::frame::{
            Frame,
            coding::{Data, OpCode},
        },
    },
};

use super::{
    broadcast::{Broadcast, Broadcasts, low_priority_runtime},
    hostile_viewer::own_address,
};
use crate::rig::{
    process::{Hub, run_async, share_turn},
    raw_client::RawClient,
    resource_usage::ResourceUsage,
};

/// Connections that the attack keeps open at a time: more than the hub allows for one address of
/// another machine.
const CONNECTIONS: usize = 300;

/// Bytes of the longest message that is sent.
const HUGE_MESSAGE_BYTES: usize = 64 << 20;

/// Bytes of a session description that is too long.
const LONG_SDP_BYTES: usize = 1 << 20;

/// Bytes of each fragment of a fragmented message: fewer than a whole message may have.
const FRAGMENT_BYTES: usize = 1 << 15;

/// How long the hub may take to close a hostile connection on a fully loaded machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The pause of slow clients between two lines of a request, and before a connection is replaced.
const PAUSE: Duration = Duration::from_millis(200);

/// Memory that the attack may cost the hub's process at its peak: half of the longest message.
const MEMORY_KIB: usize = 32 << 10;

/// Connections that the hub accepts from one address of another machine.
const MAX_FROM_ONE_ADDRESS: usize = 64;

/// Descriptors that the connections of one address may need: besides the accepted ones, 16 for
/// returning participants, 64 that are being refused, and 16 of the programs in the session.
const MAX_DESCRIPTORS_FROM_ONE_ADDRESS: usize = MAX_FROM_ONE_ADDRESS + 16 + 64 + 16;

#[test]
fn a_siege_of_a_hub_removes_no_participant_and_blocks_no_newcomer() {
    attack_hub(Broadcast::start);
}

#[test]
fn a_siege_of_the_hub_in_an_openers_process_removes_no_participant() {
    attack_hub(Broadcast::with_embedded_hub);
}

fn attack_hub(start: fn() -> Broadcast) {
    let _turn = share_turn();
    let mut broadcasts = Broadcasts { attacked: start(), control: start() };
    let runtime = low_priority_runtime();
    broadcasts.compare("No attack");
    let process = broadcasts.attacked.hub.program.process_id();
    let before = ResourceUsage::of_process(process);

    let outside = own_address();
    println!("    from {outside}");
    let hub = (outside, socket_addr(&broadcasts.attacked.hub).port()).into();
    let flood = runtime.block_on(ConnectionFlood::start(hub));
    let begun =
        runtime.block_on(wait_for_descriptors(before.descriptors + MAX_FROM_ONE_ADDRESS, process));
    broadcasts.compare("Attack");
    let during = ResourceUsage::of_process(process);
    let mut newcomer = broadcasts.attacked.hub.start_participant("Nora", &["join", "show"]);
    newcomer.event("first-frame");
    let completed = runtime.block_on(flood.stop());
    let after = ResourceUsage::of_process(process);

    println!(
        "    the hub's process held {} descriptors, then {} and {}; {} MiB at its peak, \
         {} before, {} after; {completed:?}",
        before.descriptors,
        begun.descriptors,
        during.descriptors,
        after.peak_kib >> 10,
        before.resident_kib >> 10,
        after.resident_kib >> 10,
    );
    if !outside.is_loopback() {
        let most = before.descriptors + MAX_DESCRIPTORS_FROM_ONE_ADDRESS;
        assert!(during.descriptors <= most, "one address holds {during:?}, not {most}");
    }
    assert!(after.peak_kib < before.resident_kib + MEMORY_KIB, "{after:?}, it was {before:?}");
    let newcomer = newcomer.terminate();
    broadcasts.finish(vec![newcomer]);
}

/// Waits until a process has this many descriptors. Returns the resources that it then holds.
///
/// A connection that is established for the client may still wait for the hub to accept it.
async fn wait_for_descriptors(descriptors: usize, process: u32) -> ResourceUsage {
    let usage = async {
        loop {
            let usage = ResourceUsage::of_process(process);
            if usage.descriptors >= descriptors {
                return usage;
            }
            sleep(PAUSE).await;
        }
    };
    timeout(TIMEOUT, usage).await.expect("the hub accepts as many connections as it may")
}

/// What a hostile client does on each of its connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum AttackClient {
    /// Sends nothing.
    Silent,
    /// Sends the head of a request line by line and never completes it.
    SlowRequest,
    /// Sends a complete HTTP request on each of many short connections.
    RapidRequests,
    /// Sends `hello`, then frames of an endless message, byte by byte.
    SlowFrames,
    /// Sends a message of [`HUGE_MESSAGE_BYTES`].
    HugeMessage,
    /// Sends a message of [`HUGE_MESSAGE_BYTES`] in fragments.
    HugeFragments,
    /// Sends a signal with a description of [`LONG_SDP_BYTES`].
    LongDescription,
}

/// The hostile clients that attack a hub, until dropped.
struct ConnectionFlood {
    progress: watch::Sender<Progress>,
    tasks: JoinSet<()>,
}

/// The progress of the attack.
#[derive(Default, Debug)]
struct Progress {
    /// Connections that are open now.
    open_connections: usize,
    /// How often the hub closed a connection of each kind of client, or answered the request of a
    /// [`AttackClient::RapidRequests`].
    completed: BTreeMap<AttackClient, usize>,
}

impl ConnectionFlood {
    /// Starts the attack from this machine's own address, which is the address of `hub`. Returns
    /// when more connections are open than the hub accepts.
    async fn start(hub: SocketAddr) -> Self {
        let mut flood = Self { progress: watch::Sender::default(), tasks: JoinSet::new() };
        for number in 0..CONNECTIONS {
            let client = match number {
                0 => AttackClient::HugeMessage,
                1 => AttackClient::HugeFragments,
                2 => AttackClient::LongDescription,
                number => [
                    AttackClient::Silent,
                    AttackClient::SlowRequest,
                    AttackClient::RapidRequests,
                    AttackClient::SlowFrames,
                ][number % 4],
            };
            flood.tasks.spawn(client.run(hub, flood.progress.clone()));
        }
        flood
            .wait_until("the limit is reached", |progress| {
                progress.open_connections > MAX_FROM_ONE_ADDRESS
            })
            .await;
        flood
    }

    /// Ends the attack once each kind of client has completed a connection. Returns the number of
    /// completed connections of each kind.
    async fn stop(mut self) -> BTreeMap<AttackClient, usize> {
        self.wait_until("each kind of client completes", |progress| progress.completed.len() == 7)
            .await;
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            assert!(!ended.is_err_and(|error| error.is_panic()), "a client panicked, see above");
        }
        self.progress.borrow().completed.clone()
    }

    async fn wait_until(&self, what: &str, holds: impl Fn(&Progress) -> bool) {
        let mut progress = self.progress.subscribe();
        let in_time = timeout(TIMEOUT, progress.wait_for(|progress| holds(progress))).await.is_ok();
        assert!(in_time, "timed out until {what}: {:?}", self.progress.borrow());
    }
}

impl AttackClient {
    /// Connects to the hub again and again, from the hub's own address.
    async fn run(self, hub: SocketAddr, progress: watch::Sender<Progress>) {
        loop {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((hub.ip(), 0).into()).expect("a free port");
            let socket = socket.connect(hub).await.expect("the hub listens");
            progress.send_modify(|progress| progress.open_connections += 1);
            let completed = timeout(TIMEOUT, self.run_connection(socket)).await;
            let completed = completed.unwrap_or_else(|_| panic!("the hub does not close {self:?}"));
            progress.send_modify(|progress| {
                progress.open_connections -= 1;
                if completed.is_some() {
                    *progress.completed.entry(self).or_default() += 1;
                }
            });
            // The hub refuses most connections; they are tried again.
            sleep(PAUSE).await;
        }
    }

    /// Runs one connection until it is closed. `None` if the hub refused it, so that it does not
    /// count.
    async fn run_connection(self, mut socket: TcpStream) -> Option<()> {
        match self {
            Self::Silent => drop(socket.read_to_end(&mut vec![]).await),
            Self::SlowRequest => {
                let mut written = socket.write_all(b"GET /signal HTTP/1.1\r\n").await;
                while written.is_ok() {
                    sleep(PAUSE).await;
                    written = socket.write_all(b"a: b\r\n").await;
                }
            }
            Self::RapidRequests => {
                let status = request_status(&mut socket).await;
                sleep(PAUSE).await;
                status.filter(|status| *status == 200)?;
            }
            Self::SlowFrames => {
                let mut websocket = connect_and_greet(socket).await?;
                // A text frame, then continuation frames (RFC 6455, section 5.2), each with one
                // byte of payload and a mask of zero.
                let first = [1, 0x81, 0, 0, 0, 0, b'a'];
                let continuation = [0, 0x81, 0, 0, 0, 0, b'a'];
                let mut bytes = first.into_iter().chain(continuation.into_iter().cycle());
                let mut written = Ok(());
                while written.is_ok() {
                    written = websocket.get_mut().write_all(bytes.next().as_slice()).await;
                    sleep(PAUSE / 4).await;
                }
            }
            Self::HugeMessage => {
                let message = Message::binary(vec![b'a'; HUGE_MESSAGE_BYTES]);
                let sent = connect_and_greet(socket).await?.send(message).await;
                assert!(sent.is_err(), "the hub accepted the whole message");
            }
            Self::HugeFragments => {
                let mut websocket = connect_and_greet(socket).await?;
                let fragment =
                    |kind| Frame::message(vec![b'a'; FRAGMENT_BYTES], OpCode::Data(kind), false);
                let mut sent = websocket.send(Message::Frame(fragment(Data::Text))).await;
                for _ in 1..HUGE_MESSAGE_BYTES / FRAGMENT_BYTES {
                    sent = match sent {
                        Ok(()) => websocket.send(Message::Frame(fragment(Data::Continue))).await,
                        Err(_) => break,
                    };
                }
                assert!(sent.is_err(), "the hub accepted the whole message");
            }
            Self::LongDescription => {
                let mut websocket = connect_and_greet(socket).await?;
                let line = "a=mid:0\r\n";
                let sdp = format!("v=0\r\n{}", line.repeat(LONG_SDP_BYTES / line.len()));
                let payload = json!({"type": "offer", "generation": 1, "sdp": sdp});
                let signal =
                    json!({"type": "signal", "session": "show", "to": "p", "payload": payload});
                // The hub answers and closes the connection, or closes it during the message.
                let _ = websocket.send(Message::text(signal.to_string())).await;
                while let Some(Ok(_)) = websocket.next().await {}
            }
        }
        Some(())
    }
}

/// The address and port at which a hub listens.
fn socket_addr(hub: &Hub) -> SocketAddr {
    hub.url.trim_start_matches("http://").parse().expect("an address and a port")
}

/// Opens a WebSocket connection and sends `hello`. `None` if the hub closes the connection.
async fn connect_and_greet(socket: TcpStream) -> Option<WebSocketStream<TcpStream>> {
    let (mut websocket, _) = client_async("ws://127.0.0.1/signal", socket).await.ok()?;
    let hello = json!({"type": "hello", "protocol": 1, "instance": "00000000000000bb"});
    websocket.send(Message::text(hello.to_string())).await.ok()?;
    Some(websocket)
}

/// Requests a session's page. Returns the status of the response, if there is one.
async fn request_status(socket: &mut TcpStream) -> Option<u16> {
    socket.write_all(b"GET /s/show HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.ok()?;
    let mut response = [0; 4096];
    let length = socket.read(&mut response).await.ok()?;
    let text = String::from_utf8_lossy(&response[..length]);
    text.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[test]
fn the_connections_of_one_address_are_limited_and_leave_room_for_others() {
    let outside = own_address();
    if outside.is_loopback() {
        println!("skipped: this machine has a loopback address only");
        return;
    }
    run_async(async {
        // The hub prints this machine's best address; the test uses `outside`.
        let hub = Hub::start_on("0.0.0.0:0");
        let port = socket_addr(&hub).port();
        let hub = Hub { url: format!("http://{outside}:{port}"), ..hub };
        let mut clients = vec![];
        for _ in 0..MAX_FROM_ONE_ADDRESS {
            clients.push(RawClient::connect(&hub).await);
        }
        let from_outside = async || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((outside, 0).into()).expect("a free port");
            let mut socket = socket.connect((outside, port).into()).await.expect("the hub listens");
            request_status(&mut socket).await
        };
        let refused = from_outside().await;
        let mut local = vec![];
        for _ in 0..CONNECTIONS {
            local.push(TcpStream::connect(("127.0.0.1", port)).await.expect("the hub listens"));
        }
        // The connections before the last one send nothing and stay open until they time out.
        let last = request_status(local.last_mut().expect("there are connections")).await;
        println!(
            "{} connections from {outside}, one more: {refused:?}; {} from loopback, the last: \
             {last:?}",
            clients.len(),
            local.len()
        );
        assert_eq!((refused, last), (Some(503), Some(200)));
        clients.pop();
        let freed = async { while from_outside().await != Some(200) {} };
        assert!(timeout(TIMEOUT, freed).await.is_ok(), "a closed connection still counts");
    });
}
