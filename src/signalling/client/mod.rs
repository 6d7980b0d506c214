//! The client's end: one connection to one hub, made again for as long as it is wanted.

mod certificate;
mod open;
mod reason;
mod tls;

use std::{net::IpAddr, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream,
    tungstenite::{self, Message},
};
use tracing::{debug, info};

use crate::model::{ClientMessage, HubMessage, HubUrl, Instance, PROTOCOL, ParticipantId, Secret};
use open::{Socket, open};

/// Messages that wait to be sent.
///
/// The opener of a full broadcast says some 2800 words when all its viewers come back, and the
/// hub reads 200 a second once it has read 400.
const OUTGOING: usize = 4096;

/// How long a connection may take to be made, and the hub to answer hello.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// How long one message may take to be taken by the network.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long closing may take.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// A hub that is silent for this many heartbeats is taken for dead: it answers each ping.
const SILENT_HEARTBEATS: u32 = 3;

/// Heartbeats that a hub may ask for: less is a flood, more hides a dead hub for too long.
const HEARTBEATS: std::ops::RangeInclusive<u64> = 100..=10_000;

/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(4);

/// A connection that lasted this long was a good one: after it, pauses begin anew. Two programs
/// with one token, which throw each other out, do not, and slow down.
const GOOD_AFTER: Duration = Duration::from_secs(10);

/// Which hub, and as whom.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The hub's address.
    pub hub: HubUrl,
    /// How the person wants to be called; empty leaves it to the hub.
    pub name: String,
    /// This run of the program.
    pub instance: Instance,
    /// The token of an earlier run, to be the same participant again.
    pub token: Option<Secret>,
}

/// What happens on the connection to a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// The hub said welcome. What is still wanted is to be asked for again: it may not know it.
    Up {
        /// What links of the hub's sessions start with: the address by which it was reached (the
        /// given one, or where that sent us), unless that is good on this machine only; then what
        /// the hub says.
        link_base: HubUrl,
        /// Who we are there.
        participant: ParticipantId,
        /// What the others call us.
        name: String,
        /// What makes us the same participant in a later run.
        token: Secret,
        /// The address of this machine that the connection was made from, if the system tells.
        local: Option<IpAddr>,
    },
    /// The hub has another address, and links of its sessions start with it from now on.
    Moved {
        /// The address.
        link_base: HubUrl,
    },
    /// The connection failed or was lost; told once, however many attempts follow.
    Down {
        /// What, why and the way out, for a person.
        reason: String,
    },
    /// The hub said something else.
    Message(HubMessage),
}

/// A connection to a hub, which is made again whenever it breaks. Dropping it ends it.
///
/// It runs in a task of the tokio runtime. Events wait for their receiver; meanwhile nothing more
/// is read. When the receiver is gone, the task ends.
#[derive(Debug)]
pub struct Client {
    /// `None` once the client is being closed.
    messages: Option<mpsc::Sender<ClientMessage>>,
    /// How the person wants to be called, for the next hello.
    name: watch::Sender<String>,
    task: JoinHandle<()>,
}

impl Client {
    /// Begins to connect; call it inside of a tokio runtime.
    pub fn start(options: ClientOptions, events: mpsc::Sender<ClientEvent>) -> Self {
        let (messages, queue) = mpsc::channel(OUTGOING);
        let pauses = Pauses::default();
        let (name, wanted) = watch::channel(options.name.clone());
        let life = Life {
            options,
            name: wanted,
            given: String::new(),
            queue,
            events,
            pauses,
            is_down: false,
        };
        Self { messages: Some(messages), name, task: tokio::spawn(life.run()) }
    }

    /// Sends a message without waiting. It is lost if the connection is not up: what still
    /// matters is to be said again after [`ClientEvent::Up`].
    ///
    /// `false` if 4096 messages wait already: the link is dead, and will be found out to be.
    pub fn send(&self, message: ClientMessage) -> bool {
        self.messages.as_ref().is_some_and(|messages| messages.try_send(message).is_ok())
    }

    /// Says another name in every hello from now on. A connection that is up has to be told by
    /// [`ClientMessage::Rename`] as well.
    pub fn set_name(&self, name: String) {
        self.name.send_replace(name);
    }

    /// Sends what waits to be sent, and closes the connection; takes 1 s at most.
    pub async fn close(mut self) {
        self.messages = None;
        if timeout(CLOSE_PATIENCE, &mut self.task).await.is_err() {
            debug!("hub link closed without a farewell");
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task has.
struct Life {
    options: ClientOptions,
    /// How the person wants to be called.
    name: watch::Receiver<String>,
    /// The name that a hub gave to a person who has none, so that a restarted hub gives it again.
    given: String,
    queue: mpsc::Receiver<ClientMessage>,
    events: mpsc::Sender<ClientEvent>,
    pauses: Pauses,
    /// Whether the outage was told.
    is_down: bool,
}

/// Why a connection, or the task, ended.
#[derive(Debug)]
enum End {
    /// It broke, or was never made; it is tried again.
    Broken(String),
    /// Nobody wants it any more.
    Unwanted,
}

/// What a welcome says.
struct Welcome {
    participant: ParticipantId,
    name: String,
    token: Secret,
    heartbeat: Duration,
    link_base: HubUrl,
    /// Whether links follow the hub when it tells of another address.
    follows: bool,
    local: Option<IpAddr>,
}

impl Life {
    async fn run(mut self) {
        loop {
            let begin = Instant::now();
            let End::Broken(reason) = self.connect_and_talk().await else { return };
            debug!(reason, "hub link down");
            if begin.elapsed() >= GOOD_AFTER {
                self.pauses = Pauses::default();
            }
            if !self.is_down {
                self.is_down = true;
                if self.events.send(ClientEvent::Down { reason }).await.is_err() {
                    return;
                }
            }
            let pause = self.pauses.next();
            if self.unless_unwanted(sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn connect_and_talk(&mut self) -> End {
        let hub = self.options.hub.clone();
        let hello = ClientMessage::Hello {
            protocol: PROTOCOL,
            name: self.name_to_say(),
            instance: self.options.instance.clone(),
            token: self.options.token.clone(),
        };
        let connecting = timeout(CONNECT_PATIENCE, connect(&hub, hello));
        let (socket, welcome) = match self.unless_unwanted(connecting).await {
            Some(Ok(Ok(connected))) => connected,
            Some(Ok(Err(reason))) => return End::Broken(reason),
            Some(Err(_)) => return End::Broken(reason::no_answer(&hub)),
            None => return End::Unwanted,
        };
        let Welcome { participant, name, token, heartbeat, link_base, follows, local } = welcome;
        if self.name.borrow().is_empty() {
            // A hub that was restarted calls us as before.
            self.given.clone_from(&name);
        }
        self.options.token = Some(token.clone());
        self.is_down = false;
        info!("hub link up");
        let up = ClientEvent::Up { link_base, participant, name, token, local };
        if self.events.send(up).await.is_err() {
            return End::Unwanted;
        }
        self.talk(socket, Manner { heartbeat, follows }).await
    }

    fn name_to_say(&self) -> String {
        let wanted = self.name.borrow().clone();
        if wanted.is_empty() { self.given.clone() } else { wanted }
    }

    async fn talk(&mut self, socket: Socket, manner: Manner) -> End {
        let heartbeat = manner.heartbeat;
        let (mut sink, mut stream) = socket.split();
        let end = tokio::select! {
            end = read(&mut stream, manner, &self.events) => end,
            end = write(&mut sink, heartbeat, &mut self.queue) => end,
        };
        let end = match end {
            Ok(Gone::Unwanted) => End::Unwanted,
            Ok(Gone::Silent) => {
                End::Broken(reason::silent(&self.options.hub, heartbeat * SILENT_HEARTBEATS))
            }
            Ok(Gone::Closed) => End::Broken(reason::lost(&self.options.hub, "the hub closed it")),
            Err(error) => End::Broken(reason::broken(&self.options.hub, &error)),
        };
        if let (End::Unwanted, Ok(mut socket)) = (&end, sink.reunite(stream)) {
            // Whoever closes is not interested in how the other end takes it.
            let _ = socket.close(None).await;
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        }
        end
    }

    /// Waits for something; messages that are to be sent meanwhile are lost. `None` if nobody
    /// wants the connection any more.
    async fn unless_unwanted<T>(&mut self, wanted: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(wanted);
        loop {
            tokio::select! {
                done = &mut wanted => return Some(done),
                message = self.queue.recv() => { message?; }
                () = self.events.closed() => return None,
            }
        }
    }
}

/// How a conversation ended, unless the network broke.
enum Gone {
    Unwanted,
    Silent,
    Closed,
}

/// Connects and says hello; an error is for a person.
async fn connect(hub: &HubUrl, hello: ClientMessage) -> Result<(Socket, Welcome), String> {
    let (mut socket, hub) = open(hub).await?;
    let hub = &hub;
    socket.send(text_of(&hello)).await.map_err(|error| reason::broken(hub, &error))?;
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(reason::broken(hub, &error)),
            None => return Err(reason::lost(hub, "the hub closed it")),
        };
        return match serde_json::from_str(&text) {
            Ok(HubMessage::Welcome {
                participant, name, token, heartbeat_ms, link_base, ..
            }) => {
                let heartbeat_ms = heartbeat_ms.clamp(*HEARTBEATS.start(), *HEARTBEATS.end());
                let heartbeat = Duration::from_millis(heartbeat_ms);
                let said: Option<HubUrl> = link_base.parse().ok();
                // An address that was given, and is not the hub's own idea, may lead through what
                // the hub knows nothing of: it is kept.
                let follows = hub.is_loopback() || said.as_ref() == Some(hub);
                let link_base = said.filter(|_| follows).unwrap_or_else(|| hub.clone());
                let local = local_ip(&socket);
                let welcome =
                    Welcome { participant, name, token, heartbeat, link_base, follows, local };
                Ok((socket, welcome))
            }
            Ok(HubMessage::Error { message, .. }) => Err(reason::unwelcome(hub, &message)),
            Ok(_) | Err(_) => Err(reason::no_hub(hub, "it does not say welcome")),
        };
    }
}

/// How a hub is listened to.
#[derive(Clone, Copy, Debug)]
struct Manner {
    heartbeat: Duration,
    /// Whether links follow the hub when it tells of another address.
    follows: bool,
}

/// The address of this machine that a connection was made from.
fn local_ip(socket: &Socket) -> Option<IpAddr> {
    let stream = match socket.get_ref() {
        MaybeTlsStream::Plain(stream) => stream,
        MaybeTlsStream::Rustls(stream) => stream.get_ref().0,
        _ => return None,
    };
    stream.local_addr().ok().map(|address| address.ip())
}

/// Passes on what the hub says, until the connection or the wish for it ends.
async fn read(
    stream: &mut SplitStream<Socket>,
    Manner { heartbeat, follows }: Manner,
    events: &mpsc::Sender<ClientEvent>,
) -> Result<Gone, tungstenite::Error> {
    loop {
        let text = match timeout(heartbeat * SILENT_HEARTBEATS, stream.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(Message::Close(_))) | None) => return Ok(Gone::Closed),
            Ok(Some(Ok(_))) => continue,
            Ok(Some(Err(error))) => return Err(error),
            Err(_) => return Ok(Gone::Silent),
        };
        let message = match serde_json::from_str(&text) {
            Ok(HubMessage::Welcome { .. } | HubMessage::Pong) => continue,
            Ok(message) => message,
            Err(error) => {
                // A later version may say things that this one does not know.
                debug!(%error, kind = ?kind_of(&text), "a message of the hub was ignored");
                continue;
            }
        };
        let event = if let HubMessage::LinkBase { link_base } = message {
            match link_base.parse() {
                Ok(link_base) if follows => ClientEvent::Moved { link_base },
                Ok(_) | Err(_) => continue,
            }
        } else {
            ClientEvent::Message(message)
        };
        if events.send(event).await.is_err() {
            return Ok(Gone::Unwanted);
        }
    }
}

/// Sends what is to be sent, and a sign of life with each heartbeat, whatever else is sent: its
/// answer shows that the hub lives.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    heartbeat: Duration,
    queue: &mut mpsc::Receiver<ClientMessage>,
) -> Result<Gone, tungstenite::Error> {
    let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            _ = beat.tick() => ClientMessage::Ping,
            message = queue.recv() => match message {
                Some(message) => message,
                None => return Ok(Gone::Unwanted),
            },
        };
        match timeout(WRITE_PATIENCE, sink.send(text_of(&message))).await {
            Ok(sent) => sent?,
            Err(_) => return Ok(Gone::Silent),
        }
    }
}

fn text_of(message: &ClientMessage) -> Message {
    let text = serde_json::to_string(message).expect("the protocol's words are JSON");
    Message::text(text)
}

fn kind_of(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(value.get("type")?.as_str()?.chars().take(40).collect())
}

/// The pauses between attempts: 0.25, 0.5, 1, 2, 4, 4 … seconds, each up to a quarter shorter, so
/// that the clients of a restarted hub do not come all at once.
#[derive(Debug, Default)]
struct Pauses {
    made: u32,
}

impl Pauses {
    fn next(&mut self) -> Duration {
        let full = (FIRST_PAUSE * 2_u32.pow(self.made.min(8))).min(LONGEST_PAUSE);
        self.made = self.made.saturating_add(1);
        // Without randomness the pause is a full one.
        let share = getrandom::u32().unwrap_or(0) % 256;
        full - full / 4 * share / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_is_told_and_nothing_waits() {
        let hub = "http://127.0.0.1:9".parse().unwrap();
        let (name, instance) = (String::new(), Instance::from_random(9));
        let (events, _kept) = mpsc::channel(1);
        let client = Client::start(ClientOptions { hub, name, instance, token: None }, events);
        // Nothing is awaited, so the task has no turn.
        let taken = (0..10_000).take_while(|_| client.send(ClientMessage::Ping)).count();
        assert_eq!(taken, OUTGOING);
    }

    #[test]
    fn pauses_double_up_to_four_seconds_and_differ_between_clients() {
        let mut pauses = Pauses::default();
        for full_ms in [250, 500, 1000, 2000, 4000, 4000, 4000] {
            let pause = pauses.next().as_millis();
            assert!((full_ms * 3 / 4..=full_ms).contains(&pause), "{pause} of {full_ms}");
        }
        let first: std::collections::BTreeSet<_> =
            (0..100).map(|_| Pauses::default().next()).collect();
        assert!(first.len() > 10, "{first:?}");
        let mut pauses = Pauses { made: u32::MAX };
        assert!(pauses.next() <= LONGEST_PAUSE);
    }
}
