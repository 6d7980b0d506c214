//! One who besieges the hub.

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

use crate::{
    rig::{
        held::Held,
        process::{Hub, alone, alone_with_sockets},
        stranger::Stranger,
    },
    stage::{Show, Stages, elsewhere},
    viewer::own_address,
};

/// Connections that are tried at a time: more than one address of another machine gets.
const CONNECTIONS: usize = 300;

/// Bytes of the longest message that is tried.
const HUGE: usize = 64 << 20;

/// Bytes of a description that is too long.
const WORDY: usize = 1 << 20;

/// Bytes of each part of a message that comes in parts: fewer than a message may have.
const PART: usize = 1 << 15;

/// How long the hub may take to turn somebody away, in the time that others leave to both.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause of those who take their time, between two requests or two lines of one.
const PAUSE: Duration = Duration::from_millis(200);

/// Memory that the siege may cost the hub's process at its worst: half of the longest message.
const MEMORY_KIB: usize = 32 << 10;

/// Connections that the hub takes from one address of another machine.
const FROM_ONE_ADDRESS: usize = 64;

/// Those that may be there besides: 16 of people who come back, and 64 that are told that there are
/// too many; the programs that hold the sessions have some as well.
const MOST_FROM_ONE_ADDRESS: usize = FROM_ONE_ADDRESS + 16 + 64 + 16;

#[test]
fn a_siege_of_a_hub_takes_nobody_out_of_a_call_and_keeps_nobody_out() {
    besiege(Show::begin);
}

#[test]
fn a_siege_of_the_hub_that_an_opener_brought_takes_nobody_out_of_its_call() {
    besiege(Show::with_its_hub);
}

fn besiege(show: fn() -> Show) {
    let _turn = alone();
    let mut stages = Stages { attacked: show(), spared: show() };
    let elsewhere = elsewhere();
    stages.watch("Peace");
    let besieged = stages.attacked.hub.program.id();
    let before = Held::by(besieged);

    let outside = own_address();
    println!("    from {outside}");
    let hub = (outside, listening(&stages.attacked.hub).port()).into();
    let siege = elsewhere.block_on(Siege::lay(hub));
    let begun = elsewhere.block_on(at_least(before.descriptors + FROM_ONE_ADDRESS, besieged));
    stages.watch("Siege");
    let during = Held::by(besieged);
    let mut newcomer = stages.attacked.hub.person("Nora", &["join", "show"]);
    newcomer.event("first-frame");
    let done = elsewhere.block_on(siege.lift());
    let after = Held::by(besieged);

    println!(
        "    the hub's process held {} descriptors, then {} and {}; {} MiB at its worst, \
         {} before, {} after; {done:?}",
        before.descriptors,
        begun.descriptors,
        during.descriptors,
        after.peak_kib >> 10,
        before.resident_kib >> 10,
        after.resident_kib >> 10,
    );
    if !outside.is_loopback() {
        let most = before.descriptors + MOST_FROM_ONE_ADDRESS;
        assert!(during.descriptors <= most, "one address holds {during:?}, not {most}");
    }
    assert!(after.peak_kib < before.resident_kib + MEMORY_KIB, "{after:?}, it was {before:?}");
    let newcomer = newcomer.interrupt();
    stages.end(vec![newcomer]);
}

/// What a process holds once it has this many descriptors.
///
/// A connection that its client calls established may still wait for the hub to accept it.
async fn at_least(descriptors: usize, process: u32) -> Held {
    let held = async {
        loop {
            let held = Held::by(process);
            if held.descriptors >= descriptors {
                return held;
            }
            sleep(PAUSE).await;
        }
    };
    timeout(PATIENCE, held).await.expect("the hub accepts as many connections as it may")
}

/// What one of the besiegers does, again and again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Besieger {
    /// Says nothing.
    Silent,
    /// Never finishes the head of its request.
    Slow,
    /// Hurries through a request, and begins again.
    Hasty,
    /// Says hello, and dribbles frames of a message that never ends, byte by byte.
    Dribbling,
    /// Sends a message of [`HUGE`] bytes.
    Loud,
    /// Sends such a message in parts.
    Torn,
    /// Signals a description of [`WORDY`] bytes.
    Wordy,
}

/// All who besiege a hub, until dropped.
struct Siege {
    ledger: watch::Sender<Ledger>,
    tasks: JoinSet<()>,
}

#[derive(Default, Debug)]
struct Ledger {
    /// Connections that there are now.
    here: usize,
    /// How often each was turned away, or answered if it was in a hurry.
    done: BTreeMap<Besieger, usize>,
}

impl Siege {
    /// Begins it, from the address that the hub is reached by; returns when those have their
    /// connections that get any.
    async fn lay(hub: SocketAddr) -> Self {
        let mut siege = Self { ledger: watch::Sender::default(), tasks: JoinSet::new() };
        for number in 0..CONNECTIONS {
            let besieger = match number {
                0 => Besieger::Loud,
                1 => Besieger::Torn,
                2 => Besieger::Wordy,
                number => [Besieger::Silent, Besieger::Slow, Besieger::Hasty, Besieger::Dribbling]
                    [number % 4],
            };
            siege.tasks.spawn(besieger.besiege(hub, siege.ledger.clone()));
        }
        siege.until("the siege stands", |ledger| ledger.here > FROM_ONE_ADDRESS).await;
        siege
    }

    /// Ends it when each kind was turned away; how often each was.
    async fn lift(mut self) -> BTreeMap<Besieger, usize> {
        self.until("each is turned away", |ledger| ledger.done.len() == 7).await;
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            assert!(!ended.is_err_and(|error| error.is_panic()), "a besieger failed, see above");
        }
        self.ledger.borrow().done.clone()
    }

    async fn until(&self, what: &str, holds: impl Fn(&Ledger) -> bool) {
        let mut ledger = self.ledger.subscribe();
        let in_time = timeout(PATIENCE, ledger.wait_for(|ledger| holds(ledger))).await.is_ok();
        assert!(in_time, "in vain until {what}: {:?}", self.ledger.borrow());
    }
}

impl Besieger {
    async fn besiege(self, hub: SocketAddr, ledger: watch::Sender<Ledger>) {
        loop {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((hub.ip(), 0).into()).expect("a free port");
            let socket = socket.connect(hub).await.expect("the hub listens");
            ledger.send_modify(|ledger| ledger.here += 1);
            let done = timeout(PATIENCE, self.visit(socket)).await;
            let done = done.unwrap_or_else(|_| panic!("the hub keeps one who is {self:?}"));
            ledger.send_modify(|ledger| {
                ledger.here -= 1;
                if done.is_some() {
                    *ledger.done.entry(self).or_default() += 1;
                }
            });
            // Most are let in by nobody, and come again.
            sleep(PAUSE).await;
        }
    }

    /// One connection, to its end; `None` if it was none that counts.
    async fn visit(self, mut socket: TcpStream) -> Option<()> {
        match self {
            Self::Silent => drop(socket.read_to_end(&mut vec![]).await),
            Self::Slow => {
                let mut lost = socket.write_all(b"GET /signal HTTP/1.1\r\n").await;
                while lost.is_ok() {
                    sleep(PAUSE).await;
                    lost = socket.write_all(b"a: b\r\n").await;
                }
            }
            Self::Hasty => {
                let status = status(&mut socket).await;
                sleep(PAUSE).await;
                status.filter(|status| *status == 200)?;
            }
            Self::Dribbling => {
                let mut link = greet(socket).await?;
                // RFC 6455, section 5.2: text, then more of it; of one byte, whose mask is zero.
                let (first, further) = ([1, 0x81, 0, 0, 0, 0, b'a'], [0, 0x81, 0, 0, 0, 0, b'a']);
                let mut bytes = first.into_iter().chain(further.into_iter().cycle());
                let mut lost = Ok(());
                while lost.is_ok() {
                    lost = link.get_mut().write_all(bytes.next().as_slice()).await;
                    sleep(PAUSE / 4).await;
                }
            }
            Self::Loud => {
                let message = Message::binary(vec![b'a'; HUGE]);
                let sent = greet(socket).await?.send(message).await;
                assert!(sent.is_err(), "the hub took it all");
            }
            Self::Torn => {
                let mut link = greet(socket).await?;
                let part = |kind| Frame::message(vec![b'a'; PART], OpCode::Data(kind), false);
                let mut sent = link.send(Message::Frame(part(Data::Text))).await;
                for _ in 1..HUGE / PART {
                    sent = match sent {
                        Ok(()) => link.send(Message::Frame(part(Data::Continue))).await,
                        Err(_) => break,
                    };
                }
                assert!(sent.is_err(), "the hub took it all");
            }
            Self::Wordy => {
                let mut link = greet(socket).await?;
                let line = "a=mid:0\r\n";
                let sdp = format!("v=0\r\n{}", line.repeat(WORDY / line.len()));
                let payload = json!({"type": "offer", "generation": 1, "sdp": sdp});
                let signal =
                    json!({"type": "signal", "session": "show", "to": "p", "payload": payload});
                // It is answered and closed, or closed while it is still being sent.
                let _ = link.send(Message::text(signal.to_string())).await;
                while let Some(Ok(_)) = link.next().await {}
            }
        }
        Some(())
    }
}

/// Where a hub listens.
fn listening(hub: &Hub) -> SocketAddr {
    hub.url.trim_start_matches("http://").parse().expect("an address and a port")
}

/// Becomes a link of the hub and says hello; `None` if the hub has closed it meanwhile.
async fn greet(socket: TcpStream) -> Option<WebSocketStream<TcpStream>> {
    let (mut link, _) = client_async("ws://127.0.0.1/signal", socket).await.ok()?;
    let hello = json!({"type": "hello", "protocol": 1, "instance": "00000000000000bb"});
    link.send(Message::text(hello.to_string())).await.ok()?;
    Some(link)
}

/// Asks for a session's page; the status of the answer, if there is one.
async fn status(socket: &mut TcpStream) -> Option<u16> {
    socket.write_all(b"GET /s/show HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await.ok()?;
    let mut answer = [0; 4096];
    let length = socket.read(&mut answer).await.ok()?;
    let words = String::from_utf8_lossy(&answer[..length]);
    words.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

#[test]
fn one_address_takes_its_own_share_of_a_hub_and_no_more() {
    let outside = own_address();
    if outside.is_loopback() {
        println!("this machine has loopback only: what one address may have is not looked at");
        return;
    }
    alone_with_sockets(async {
        // What it says is its address for others, this machine's best.
        let hub = Hub::start_on("0.0.0.0:0");
        let port = listening(&hub).port();
        let hub = Hub { url: format!("http://{outside}:{port}"), ..hub };
        let mut links = vec![];
        for _ in 0..FROM_ONE_ADDRESS {
            links.push(Stranger::greet(&hub).await);
        }
        let from_outside = async || {
            let socket = TcpSocket::new_v4().expect("a socket");
            socket.bind((outside, 0).into()).expect("a free port");
            let mut socket = socket.connect((outside, port).into()).await.expect("it listens");
            status(&mut socket).await
        };
        let refused = from_outside().await;
        let mut own = vec![];
        for _ in 0..CONNECTIONS {
            own.push(TcpStream::connect(("127.0.0.1", port)).await.expect("it listens"));
        }
        // Those before it say nothing, and stay as long as one may.
        let last = status(own.last_mut().expect("there are some")).await;
        println!(
            "{} connections from {outside}, one more: {refused:?}; {} from loopback, the last: \
             {last:?}",
            links.len(),
            own.len()
        );
        assert_eq!((refused, last), (Some(503), Some(200)));
        links.pop();
        let freed = async { while from_outside().await != Some(200) {} };
        assert!(timeout(PATIENCE, freed).await.is_ok(), "who left still counts");
    });
}
