//! The client's end: one connection to one hub, made again for as long as it is wanted.

mod certificate;
mod follows;
mod look;
mod open;
mod reason;
mod tls;
mod tokens;

use std::{net::IpAddr, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout, timeout_at},
};
use tokio_tungstenite::tungstenite::{self, Message};
use tracing::{debug, info};

use super::HubIdentity;
use crate::model::{
    ClientMessage, HubMessage, HubOwner, HubPlace, HubUrl, Instance, PROTOCOL, ParticipantId,
    Secret,
};
use follows::Follows;
use open::{Opened, Socket, ends, open};

pub use look::is_hub;
pub use tokens::{TokenStore, TokensInMemory};

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
    /// What this user's hubs prove themselves with; without it none is known to be this user's.
    pub identity: Option<HubIdentity>,
    /// Whether only a hub of this user will do: whatever else answers is no hub.
    pub only_own: bool,
}

/// What happens on the connection to a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// The hub said welcome. What is still wanted is to be asked for again: it may not know it.
    Up {
        /// Where it was reached, and whose it is there.
        place: HubPlace,
        /// What links of the hub's sessions start with: the address by which it was reached (the
        /// given one, or where that sent us), unless that is good on this machine only; then what
        /// the hub says, if it is this user's or names an address of this machine. It is for
        /// people; no secret is kept for it.
        link_base: HubUrl,
        /// Who we are there.
        participant: ParticipantId,
        /// What the others call us.
        name: String,
        /// What makes us the same participant in a later run; the store has it already.
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
    messages: Option<mpsc::Sender<Outgoing>>,
    /// How the person wants to be called, for the next hello.
    name: watch::Sender<String>,
    /// Gives the tokens back at its end.
    task: JoinHandle<Box<dyn TokenStore>>,
}

impl Client {
    /// Begins to connect; call it inside of a tokio runtime. Tokens are taken from the store when a
    /// hub was reached, and kept there.
    pub fn start(
        options: ClientOptions,
        tokens: impl TokenStore + 'static,
        events: mpsc::Sender<ClientEvent>,
    ) -> Self {
        let (messages, queue) = mpsc::channel(OUTGOING);
        let backoff = Pauses::default();
        let (name, requested_name) = watch::channel(options.name.clone());
        let tokens = Box::new(tokens);
        let task = Life {
            options,
            tokens,
            name: requested_name,
            given: String::new(),
            queue,
            events,
            pauses: backoff,
            is_down: false,
        };
        Self { messages: Some(messages), name, task: tokio::spawn(task.run()) }
    }

    /// Sends a message without waiting. It is lost if the connection is not up: what still
    /// matters is to be said again after [`ClientEvent::Up`].
    ///
    /// `false` if 4096 messages wait already: the link is dead, and will be found out to be.
    pub fn send(&self, message: ClientMessage) -> bool {
        self.send_to(None, message)
    }

    /// The same, but only to the hub at that place: a secret in the message is meant for nobody who
    /// has come to be reached instead meanwhile.
    pub fn send_to(&self, place: Option<HubPlace>, message: ClientMessage) -> bool {
        let outgoing = Outgoing { place, message };
        self.messages.as_ref().is_some_and(|messages| messages.try_send(outgoing).is_ok())
    }

    /// Says another name in every hello from now on. A connection that is up has to be told by
    /// [`ClientMessage::Rename`] as well.
    pub fn set_name(&self, name: String) {
        self.name.send_replace(name);
    }

    /// Sends what waits to be sent, closes the connection and has the tokens forgotten; takes 1 s
    /// at most.
    pub async fn close(mut self) {
        self.messages = None;
        match timeout(CLOSE_PATIENCE, &mut self.task).await {
            Ok(Ok(mut tokens)) => tokens.forget(),
            Ok(Err(_)) | Err(_) => debug!("hub link closed without a farewell"),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message to be sent, and where to; `None` to whoever is reached.
#[derive(Debug)]
struct Outgoing {
    place: Option<HubPlace>,
    message: ClientMessage,
}

/// What the task has.
struct Life {
    options: ClientOptions,
    tokens: Box<dyn TokenStore>,
    /// How the person wants to be called.
    name: watch::Receiver<String>,
    /// The name that a hub gave to a person who has none, so that a restarted hub gives it again.
    given: String,
    queue: mpsc::Receiver<Outgoing>,
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
    link_base: String,
}

impl Life {
    async fn run(mut self) -> Box<dyn TokenStore> {
        self.stay().await;
        self.tokens
    }

    /// Connects again and again, until nobody wants it any more.
    async fn stay(&mut self) {
        loop {
            let start = Instant::now();
            let End::Broken(reason) = self.connect_and_talk().await else { return };
            debug!(reason, "hub link down");
            if start.elapsed() >= GOOD_AFTER {
                self.pauses = Pauses::default();
            }
            if !self.is_down {
                self.is_down = true;
                if self.events.send(ClientEvent::Down { reason }).await.is_err() {
                    return;
                }
            }
            let delay = self.pauses.next();
            if self.unless_unwanted(sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    async fn connect_and_talk(&mut self) -> End {
        let (hub, identity) = (self.options.hub.clone(), self.options.identity.clone());
        let deadline = Instant::now() + CONNECT_PATIENCE;
        let opening = timeout_at(deadline, open(&hub, identity.as_ref()));
        let Opened { socket, place, proof } = match self.unless_unwanted(opening).await {
            Some(Ok(Ok(opened))) => opened,
            Some(Ok(Err(reason))) => return End::Broken(reason),
            Some(Err(_)) => return End::Broken(reason::no_answer(&hub)),
            None => return End::Unwanted,
        };
        if self.options.only_own && place.owner != HubOwner::ThisUser {
            return End::Broken(reason::not_ours(&place.url));
        }
        let hello = ClientMessage::Hello {
            protocol: PROTOCOL,
            name: self.name_to_say(),
            instance: self.options.instance.clone(),
            token: self.tokens.token(&place),
            proof,
        };
        let greeting = timeout_at(deadline, greet(socket, hello, &place.url));
        let (socket, welcome) = match self.unless_unwanted(greeting).await {
            Some(Ok(Ok(greeted))) => greeted,
            Some(Ok(Err(reason))) => return End::Broken(reason),
            Some(Err(_)) => return End::Broken(reason::no_answer(&hub)),
            None => return End::Unwanted,
        };
        let Welcome { participant, name, token, heartbeat, link_base } = welcome;
        if self.name.borrow().is_empty() {
            // A hub that was restarted calls us as before.
            self.given.clone_from(&name);
        }
        self.tokens.keep(&place, &token);
        self.is_down = false;
        info!("hub link up");
        let announced: Option<HubUrl> = link_base.parse().ok();
        let policy = Follows::of(&place, announced.as_ref());
        let link_base = announced.filter(|announced| policy.believes(announced));
        let link_base = link_base.unwrap_or_else(|| place.url.clone());
        let local = ends(socket.get_ref()).0.map(|address| address.ip());
        let params = Manner { heartbeat, follows: policy, place: place.clone() };
        let up = ClientEvent::Up { place, link_base, participant, name, token, local };
        if self.events.send(up).await.is_err() {
            return End::Unwanted;
        }
        self.talk(socket, params).await
    }

    fn name_to_say(&self) -> String {
        let requested = self.name.borrow().clone();
        if requested.is_empty() { self.given.clone() } else { requested }
    }

    async fn talk(&mut self, socket: Socket, params: Manner) -> End {
        let heartbeat = params.heartbeat;
        let (mut sink, mut stream) = socket.split();
        let end = tokio::select! {
            end = read(&mut stream, &params, &self.events) => end,
            end = write(&mut sink, &params, &mut self.queue) => end,
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
    async fn unless_unwanted<T>(&mut self, operation: impl Future<Output = T>) -> Option<T> {
        tokio::pin!(operation);
        loop {
            tokio::select! {
                done = &mut operation => return Some(done),
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

/// Says hello and hears welcome; an error is for a person.
async fn greet(
    mut socket: Socket,
    hello: ClientMessage,
    hub: &HubUrl,
) -> Result<(Socket, Welcome), String> {
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
                Ok((socket, Welcome { participant, name, token, heartbeat, link_base }))
            }
            Ok(HubMessage::Error { message, .. }) => Err(reason::unwelcome(hub, &message)),
            Ok(_) | Err(_) => Err(reason::no_hub(hub, "it does not say welcome")),
        };
    }
}

/// How a hub is listened and spoken to.
#[derive(Debug)]
struct Manner {
    heartbeat: Duration,
    /// Whether links follow the hub when it tells of another address.
    follows: Follows,
    place: HubPlace,
}

/// Passes on what the hub says, until the connection or the wish for it ends.
async fn read(
    stream: &mut SplitStream<Socket>,
    params: &Manner,
    events: &mpsc::Sender<ClientEvent>,
) -> Result<Gone, tungstenite::Error> {
    loop {
        let text = match timeout(params.heartbeat * SILENT_HEARTBEATS, stream.next()).await {
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
                Ok(link_base) if params.follows.believes(&link_base) => {
                    ClientEvent::Moved { link_base }
                }
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
    params: &Manner,
    queue: &mut mpsc::Receiver<Outgoing>,
) -> Result<Gone, tungstenite::Error> {
    let heartbeat = params.heartbeat;
    let mut heartbeats = interval_at(Instant::now() + heartbeat, heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            _ = heartbeats.tick() => ClientMessage::Ping,
            outgoing = queue.recv() => match outgoing {
                Some(Outgoing { place: Some(place), .. }) if place != params.place => continue,
                Some(Outgoing { message, .. }) => message,
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
        let jitter = getrandom::u32().unwrap_or(0) % 256;
        full - full / 4 * jitter / 256
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
        let options = ClientOptions { hub, name, instance, identity: None, only_own: false };
        let client = Client::start(options, TokensInMemory::default(), events);
        // Nothing is awaited, so the task has no turn.
        let accepted = (0..10_000).take_while(|_| client.send(ClientMessage::Ping)).count();
        assert_eq!(accepted, OUTGOING);
    }

    #[test]
    fn pauses_double_up_to_four_seconds_and_differ_between_clients() {
        let mut backoff = Pauses::default();
        for full_ms in [250, 500, 1000, 2000, 4000, 4000, 4000] {
            let delay = backoff.next().as_millis();
            assert!((full_ms * 3 / 4..=full_ms).contains(&delay), "{delay} of {full_ms}");
        }
        let first: std::collections::BTreeSet<_> =
            (0..100).map(|_| Pauses::default().next()).collect();
        assert!(first.len() > 10, "{first:?}");
        let mut backoff = Pauses { made: u32::MAX };
        assert!(backoff.next() <= LONGEST_PAUSE);
    }
}
