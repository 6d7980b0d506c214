//! The client: one connection to one hub, made again until it is closed.

mod certificate;
mod connect;
mod error_text;
mod hub_check;
mod link_base_policy;
mod tls;
mod tokens;

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

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
use crate::{
    model::{
        ClientMessage, HubEndpoint, HubMessage, HubOwner, HubUrl, Instance, PROTOCOL,
        ParticipantId, Secret,
    },
    network,
    supervision::{Panicked, catch_async},
};
use connect::{OpenedHub, Socket, open_hub, socket_addresses};
use link_base_policy::LinkBasePolicy;

pub use hub_check::is_hub;
pub use tokens::{TokenStore, TokensInMemory};

/// The most messages that wait to be sent.
///
/// The opener of a full broadcast sends some 2800 messages when all its viewers come back, and the
/// hub reads 200 a second after a burst of 400.
const MESSAGE_QUEUE: usize = 4096;

/// The time limit for making a connection and for the hub's `welcome`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for sending one message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The time limit for closing.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of heartbeats without a message after which the hub counts as dead: it answers each
/// ping.
const SILENT_HEARTBEATS: u32 = 3;

/// The heartbeats that a hub may ask for, in milliseconds: a shorter one is a flood, a longer one
/// hides a dead hub for too long.
const HEARTBEAT_RANGE_MS: std::ops::RangeInclusive<u64> = 100..=10_000;

/// The delay before the second attempt; it doubles with each further one.
const MIN_BACKOFF: Duration = Duration::from_millis(250);

/// The longest delay between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(4);

/// The longest delay of the first attempts after a connection that had lasted, some forty seconds of
/// them: when the network is back, media wait for the hub.
const QUICK_BACKOFF: Duration = Duration::from_secs(1);
const QUICK_ATTEMPTS: u32 = 40;

/// After a connection that lasted this long, the delays start anew. Two programs with one token,
/// which replace each other's connection, do not last, so they slow down.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// The hub of a client, and how the client presents itself.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The hub's address.
    pub hub: HubUrl,
    /// The requested name; empty if the hub is to choose one.
    pub name: String,
    /// This run of the program.
    pub instance: Instance,
    /// Verifies the hubs of this user; without it, no hub is known to be this user's.
    pub identity: Option<HubIdentity>,
    /// Whether to refuse a hub that is not known to be this user's.
    pub only_own: bool,
}

/// An event of the connection to a hub.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ClientEvent {
    /// The hub sent `welcome`. Sessions must be requested again: the hub may not know them.
    Up {
        /// Where the hub was reached, and whose it is.
        endpoint: HubEndpoint,
        /// The base URL of session links: the address by which the hub was reached (the given one,
        /// or the target of a redirect), unless only this machine can use it; then the URL that the
        /// hub announces, if it is this user's or names an address of this machine. It is for
        /// people; no secret is stored under it.
        link_base: HubUrl,
        /// The participant of this client.
        participant: ParticipantId,
        /// The name that others see.
        name: String,
        /// The token for the same participant in a later run; the store has it already.
        token: Secret,
        /// The local address of the connection, if the system knows it.
        local: Option<IpAddr>,
    },
    /// The hub announced another base URL for session links.
    LinkBaseChanged {
        /// The new base URL.
        link_base: HubUrl,
    },
    /// The connection failed or was lost; sent once, however many attempts follow.
    Down {
        /// A sentence for a person: what happened, why, and what to do.
        reason: String,
    },
    /// Another message of the hub.
    Message(HubMessage),
}

/// A connection to a hub, which is made again whenever it breaks. Dropping it ends it.
///
/// It runs in a task of the tokio runtime. While events wait for their receiver, no messages are
/// read. When the receiver is dropped, the task ends. If the task panics, the events end.
#[derive(Debug)]
pub struct Client {
    /// `None` once the client is being closed.
    messages: Option<mpsc::Sender<Outgoing>>,
    /// The requested name, for the next `hello`.
    name: watch::Sender<String>,
    /// Returns the tokens at its end, unless it panics.
    task: JoinHandle<Result<Box<dyn TokenStore>, Panicked>>,
}

impl Client {
    /// Starts to connect; call it inside a tokio runtime. When a hub is reached, its token is taken
    /// from the store and kept there.
    pub fn start(
        options: ClientOptions,
        tokens: impl TokenStore + 'static,
        events: mpsc::Sender<ClientEvent>,
    ) -> Self {
        let (messages, queue) = mpsc::channel(MESSAGE_QUEUE);
        let backoff = Backoff::default();
        let (name, requested_name) = watch::channel(options.name.clone());
        let tokens = Box::new(tokens);
        let task = ClientTask {
            options,
            tokens,
            name: requested_name,
            assigned_name: String::new(),
            queue,
            events,
            backoff,
            is_outage_reported: false,
        };
        Self {
            messages: Some(messages),
            name,
            task: tokio::spawn(catch_async("hub connection", task.run())),
        }
    }

    /// Sends a message without waiting. It is lost if the connection is not up: send it again after
    /// [`ClientEvent::Up`] if it still matters.
    ///
    /// `false` if 4096 messages wait already: the connection is dead, and will time out.
    pub fn send(&self, message: ClientMessage) -> bool {
        self.send_to(None, message)
    }

    /// Like [`Self::send`], but only to the hub at that endpoint: a secret in the message must not
    /// go to another hub that is reached in the meantime.
    pub fn send_to(&self, endpoint: Option<HubEndpoint>, message: ClientMessage) -> bool {
        let outgoing = Outgoing { endpoint, message };
        self.messages.as_ref().is_some_and(|messages| messages.try_send(outgoing).is_ok())
    }

    /// Changes the name in every further `hello`. On an open connection, send
    /// [`ClientMessage::Rename`] as well.
    pub fn set_name(&self, name: String) {
        self.name.send_replace(name);
    }

    /// Sends the queued messages, closes the connection and lets the store forget the tokens; takes
    /// 1 s at most.
    pub async fn close(mut self) {
        self.messages = None;
        match timeout(CLOSE_TIMEOUT, &mut self.task).await {
            Ok(Ok(Ok(mut tokens))) => tokens.forget(),
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => {
                debug!("hub connection closed without a close handshake")
            }
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message to send, and the endpoint of the hub that may get it; `None` for any.
#[derive(Debug)]
struct Outgoing {
    endpoint: Option<HubEndpoint>,
    message: ClientMessage,
}

/// The state of the client's task.
struct ClientTask {
    options: ClientOptions,
    tokens: Box<dyn TokenStore>,
    /// The requested name.
    name: watch::Receiver<String>,
    /// The name that a hub chose, so that a restarted hub chooses the same.
    assigned_name: String,
    queue: mpsc::Receiver<Outgoing>,
    events: mpsc::Sender<ClientEvent>,
    backoff: Backoff,
    /// Whether the outage was reported.
    is_outage_reported: bool,
}

/// Why a connection, or the task, ended.
#[derive(Debug)]
enum ConnectionEnd {
    /// The connection failed or could not be made; it is tried again.
    Failed(String),
    /// The client was closed or dropped.
    ClientClosed,
}

/// The content of `welcome`.
struct Welcome {
    participant: ParticipantId,
    name: String,
    token: Secret,
    heartbeat: Duration,
    link_base: String,
}

impl ClientTask {
    async fn run(mut self) -> Box<dyn TokenStore> {
        self.keep_connected().await;
        self.tokens
    }

    /// Connects again and again, until the client is closed.
    async fn keep_connected(&mut self) {
        loop {
            let start = Instant::now();
            let ConnectionEnd::Failed(reason) = self.run_connection().await else { return };
            debug!(reason, "hub connection down");
            if start.elapsed() >= STABLE_AFTER {
                self.backoff = Backoff { attempts: 0, is_quick: true };
            } else if !self.is_outage_reported {
                // It was up, and was soon lost again.
                self.backoff.is_quick = false;
            }
            if !self.is_outage_reported {
                self.is_outage_reported = true;
                if self.events.send(ClientEvent::Down { reason }).await.is_err() {
                    return;
                }
            }
            let delay = self.backoff.delay_after(start.elapsed());
            if self.until_closed(sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    async fn run_connection(&mut self) -> ConnectionEnd {
        let (hub, identity) = (self.options.hub.clone(), self.options.identity.clone());
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let opening = timeout_at(deadline, open_hub(&hub, identity.as_ref()));
        let OpenedHub { socket, endpoint, proof } = match self.until_closed(opening).await {
            Some(Ok(Ok(opened))) => opened,
            Some(Ok(Err(reason))) => return ConnectionEnd::Failed(reason),
            Some(Err(_)) => return ConnectionEnd::Failed(error_text::no_answer(&hub)),
            None => return ConnectionEnd::ClientClosed,
        };
        if self.options.only_own && endpoint.owner != HubOwner::ThisUser {
            return ConnectionEnd::Failed(error_text::not_own_hub(&endpoint.url));
        }
        let hello = ClientMessage::Hello {
            protocol: PROTOCOL,
            name: self.hello_name(),
            instance: self.options.instance.clone(),
            token: self.tokens.token(&endpoint),
            proof,
        };
        let greeting = timeout_at(deadline, exchange_hello(socket, hello, &endpoint.url));
        let (socket, welcome) = match self.until_closed(greeting).await {
            Some(Ok(Ok(greeted))) => greeted,
            Some(Ok(Err(reason))) => return ConnectionEnd::Failed(reason),
            Some(Err(_)) => return ConnectionEnd::Failed(error_text::no_answer(&hub)),
            None => return ConnectionEnd::ClientClosed,
        };
        let Welcome { participant, name, token, heartbeat, link_base } = welcome;
        if self.name.borrow().is_empty() {
            // A hub that was restarted chooses the same name.
            self.assigned_name.clone_from(&name);
        }
        self.tokens.keep(&endpoint, &token);
        self.is_outage_reported = false;
        info!("hub connection up");
        let announced: Option<HubUrl> = link_base.parse().ok();
        let policy = LinkBasePolicy::for_hub(&endpoint, announced.as_ref());
        let link_base = announced.filter(|announced| policy.accepts(announced));
        let link_base = link_base.unwrap_or_else(|| endpoint.url.clone());
        let local = socket_addresses(socket.get_ref()).0;
        let params = ConnectionParams {
            heartbeat,
            link_base_policy: policy,
            endpoint: endpoint.clone(),
            local,
        };
        let local = local.map(|address| address.ip());
        let up = ClientEvent::Up { endpoint, link_base, participant, name, token, local };
        if self.events.send(up).await.is_err() {
            return ConnectionEnd::ClientClosed;
        }
        self.exchange_messages(socket, params).await
    }

    fn hello_name(&self) -> String {
        let requested = self.name.borrow().clone();
        if requested.is_empty() { self.assigned_name.clone() } else { requested }
    }

    async fn exchange_messages(
        &mut self,
        socket: Socket,
        params: ConnectionParams,
    ) -> ConnectionEnd {
        let heartbeat = params.heartbeat;
        let (mut sink, mut stream) = socket.split();
        let end = tokio::select! {
            end = read(&mut stream, &params, &self.events) => end,
            end = write(&mut sink, &params, &mut self.queue) => end,
            () = until_address_gone(params.local) => Ok(ExchangeEnd::AddressGone),
        };
        let end = match end {
            Ok(ExchangeEnd::ClientClosed) => ConnectionEnd::ClientClosed,
            Ok(ExchangeEnd::HubSilent) => ConnectionEnd::Failed(error_text::hub_silent(
                &self.options.hub,
                heartbeat * SILENT_HEARTBEATS,
            )),
            Ok(ExchangeEnd::AddressGone) => {
                ConnectionEnd::Failed(error_text::address_gone(&self.options.hub))
            }
            Ok(ExchangeEnd::HubClosed) => {
                ConnectionEnd::Failed(error_text::lost(&self.options.hub, "the hub closed it"))
            }
            Err(error) => ConnectionEnd::Failed(error_text::broken(&self.options.hub, &error)),
        };
        if let (ConnectionEnd::ClientClosed, Ok(mut socket)) = (&end, sink.reunite(stream)) {
            // The client closes in any case, whatever the hub answers.
            let _ = socket.close(None).await;
            while socket.next().await.is_some_and(|message| message.is_ok()) {}
        }
        end
    }

    /// Waits for an operation; messages in the meantime are dropped. `None` if the client is
    /// closed.
    async fn until_closed<T>(&mut self, operation: impl Future<Output = T>) -> Option<T> {
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

/// How an exchange of messages ended, unless the network failed.
enum ExchangeEnd {
    ClientClosed,
    HubSilent,
    HubClosed,
    /// This machine no longer has the address of the connection.
    AddressGone,
}

/// Sends `hello` and receives `welcome`; an error is a sentence for a person.
async fn exchange_hello(
    mut socket: Socket,
    hello: ClientMessage,
    hub: &HubUrl,
) -> Result<(Socket, Welcome), String> {
    socket.send(to_text_message(&hello)).await.map_err(|error| error_text::broken(hub, &error))?;
    loop {
        let text = match socket.next().await {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(_)) => continue,
            Some(Err(error)) => return Err(error_text::broken(hub, &error)),
            None => return Err(error_text::lost(hub, "the hub closed it")),
        };
        return match serde_json::from_str(&text) {
            Ok(HubMessage::Welcome {
                participant, name, token, heartbeat_ms, link_base, ..
            }) => {
                let heartbeat_ms =
                    heartbeat_ms.clamp(*HEARTBEAT_RANGE_MS.start(), *HEARTBEAT_RANGE_MS.end());
                let heartbeat = Duration::from_millis(heartbeat_ms);
                Ok((socket, Welcome { participant, name, token, heartbeat, link_base }))
            }
            Ok(HubMessage::Error { message, .. }) => Err(error_text::hello_refused(hub, &message)),
            Ok(_) | Err(_) => Err(error_text::no_hub(hub, "it does not say welcome")),
        };
    }
}

/// The parameters of one connection.
#[derive(Debug)]
struct ConnectionParams {
    heartbeat: Duration,
    /// Which base URLs that the hub announces are accepted.
    link_base_policy: LinkBasePolicy,
    endpoint: HubEndpoint,
    /// The local address, if the system knows it.
    local: Option<SocketAddr>,
}

/// Returns when this machine no longer has the address, which TCP would notice much later.
async fn until_address_gone(local: Option<SocketAddr>) {
    let Some(local) = local else { return std::future::pending().await };
    network::until_gone(local).await;
}

/// Forwards the messages of the hub, until the connection ends or the client is closed.
async fn read(
    stream: &mut SplitStream<Socket>,
    params: &ConnectionParams,
    events: &mpsc::Sender<ClientEvent>,
) -> Result<ExchangeEnd, tungstenite::Error> {
    loop {
        let text = match timeout(params.heartbeat * SILENT_HEARTBEATS, stream.next()).await {
            Ok(Some(Ok(Message::Text(text)))) => text,
            Ok(Some(Ok(Message::Close(_))) | None) => return Ok(ExchangeEnd::HubClosed),
            Ok(Some(Ok(_))) => continue,
            Ok(Some(Err(error))) => return Err(error),
            Err(_) => return Ok(ExchangeEnd::HubSilent),
        };
        let message = match serde_json::from_str(&text) {
            Ok(HubMessage::Welcome { .. } | HubMessage::Pong) => continue,
            Ok(message) => message,
            Err(error) => {
                // A hub of a later version may send messages that this version does not know.
                debug!(%error, kind = ?type_of(&text), "unknown message of the hub ignored");
                continue;
            }
        };
        let event = if let HubMessage::LinkBase { link_base } = message {
            match link_base.parse() {
                Ok(link_base) if params.link_base_policy.accepts(&link_base) => {
                    ClientEvent::LinkBaseChanged { link_base }
                }
                Ok(_) | Err(_) => continue,
            }
        } else {
            ClientEvent::Message(message)
        };
        if events.send(event).await.is_err() {
            return Ok(ExchangeEnd::ClientClosed);
        }
    }
}

/// Sends queued messages, and a ping at each heartbeat in any case: its answer shows that the hub
/// is alive.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    params: &ConnectionParams,
    queue: &mut mpsc::Receiver<Outgoing>,
) -> Result<ExchangeEnd, tungstenite::Error> {
    let heartbeat = params.heartbeat;
    let mut heartbeats = interval_at(Instant::now() + heartbeat, heartbeat);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            biased;
            _ = heartbeats.tick() => ClientMessage::Ping,
            outgoing = queue.recv() => match outgoing {
                Some(Outgoing { endpoint: Some(endpoint), .. }) if endpoint != params.endpoint => continue,
                Some(Outgoing { message, .. }) => message,
                None => return Ok(ExchangeEnd::ClientClosed),
            },
        };
        match timeout(WRITE_TIMEOUT, sink.send(to_text_message(&message))).await {
            Ok(sent) => sent?,
            Err(_) => return Ok(ExchangeEnd::HubSilent),
        }
    }
}

fn to_text_message(message: &ClientMessage) -> Message {
    let text = serde_json::to_string(message).expect("a client message is serializable");
    Message::text(text)
}

fn type_of(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    Some(value.get("type")?.as_str()?.chars().take(40).collect())
}

/// The delays between attempts: 0.25, 0.5, 1, 2, 4, 4 … seconds, each up to a quarter shorter, so
/// that the clients of a restarted hub do not all return at once.
#[derive(Debug, Default)]
struct Backoff {
    attempts: u32,
    /// Whether a connection that had lasted was lost.
    is_quick: bool,
}

impl Backoff {
    /// The delay after an attempt that took so long. One that nobody answered needs no further pause.
    fn delay_after(&mut self, attempt: Duration) -> Duration {
        let delay = self.next_delay();
        if self.is_quick { delay.saturating_sub(attempt).max(MIN_BACKOFF) } else { delay }
    }

    fn next_delay(&mut self) -> Duration {
        let is_quick = self.is_quick && self.attempts < QUICK_ATTEMPTS;
        let most = if is_quick { QUICK_BACKOFF } else { MAX_BACKOFF };
        let full = (MIN_BACKOFF * 2_u32.pow(self.attempts.min(8))).min(most);
        self.attempts = self.attempts.saturating_add(1);
        // Without randomness the delay is not shortened.
        let jitter = getrandom::u32().unwrap_or(0) % 256;
        full - full / 4 * jitter / 256
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sending_to_a_full_queue_returns_false_without_waiting() {
        let hub = "http://127.0.0.1:9".parse().unwrap();
        let (name, instance) = (String::new(), Instance::from_random(9));
        let (events, _kept) = mpsc::channel(1);
        let options = ClientOptions { hub, name, instance, identity: None, only_own: false };
        let client = Client::start(options, TokensInMemory::default(), events);
        // Nothing is awaited, so the task does not run.
        let accepted = (0..10_000).take_while(|_| client.send(ClientMessage::Ping)).count();
        assert_eq!(accepted, MESSAGE_QUEUE);
    }

    #[test]
    fn after_a_connection_that_had_lasted_delays_stay_below_a_second_for_a_while() {
        let mut backoff = Backoff { attempts: 0, is_quick: true };
        let delays: Vec<_> = (0..50).map(|_| backoff.next_delay().as_millis()).collect();
        assert!(delays[..40].iter().all(|delay| *delay <= 1000), "{delays:?}");
        assert!(delays[..40].iter().sum::<u128>() >= 28_000, "{delays:?}");
        assert!(delays[40..].iter().all(|delay| *delay >= 3000), "{delays:?}");
    }

    /// The hub is called at least each 1.25 s: an attempt calls each second, and ends after five.
    #[test]
    fn after_an_attempt_that_nobody_answered_the_next_one_begins_at_once() {
        let mut backoff = Backoff { attempts: 5, is_quick: true };
        assert_eq!(backoff.delay_after(CONNECT_TIMEOUT), MIN_BACKOFF);
        assert!(backoff.delay_after(Duration::ZERO) > Duration::from_millis(700), "it was refused");
        let mut backoff = Backoff { attempts: 5, is_quick: false };
        assert!(backoff.delay_after(CONNECT_TIMEOUT) >= Duration::from_secs(3));
    }

    #[test]
    fn delays_double_up_to_four_seconds_and_differ_between_clients() {
        let mut backoff = Backoff::default();
        for full_ms in [250, 500, 1000, 2000, 4000, 4000, 4000] {
            let delay = backoff.next_delay().as_millis();
            assert!((full_ms * 3 / 4..=full_ms).contains(&delay), "{delay} of {full_ms}");
        }
        let first: std::collections::BTreeSet<_> =
            (0..100).map(|_| Backoff::default().next_delay()).collect();
        assert!(first.len() > 10, "{first:?}");
        let mut backoff = Backoff { attempts: u32::MAX, is_quick: false };
        assert!(backoff.next_delay() <= MAX_BACKOFF);
    }
}
