//! The task for one hub: it finds or embeds the hub, keeps the connection to it, and adds the
//! secrets that this hub gave to the messages for it.

use std::{
    collections::BTreeMap,
    future::pending,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{interval, sleep, timeout},
};

use tracing::Instrument as _;
use url::Url;

use super::{
    HubChoice, OwnHubOptions,
    event_loop::HubTaskEvent,
    secret_store::{SecretStore, StoredOwnerKey, TokenLeases},
    session_ids,
};
use crate::{
    conference::{HubEvent, HubNews, HubRef},
    model::{ClientMessage, HubEndpoint, HubMessage, HubUrl, Instance, Secret, SessionId},
    network::KnownPaths,
    signalling::{
        self, Client, ClientEvent, ClientOptions, DEFAULT_PORT, Hub, HubError, HubOptions,
        ListenAt, probe_hub_of,
    },
    supervision::{RESTART_DELAY, catch_async},
};

/// Messages to a hub that may wait for its task, and events from its client. The core sends bursts
/// of a few messages per session and participant.
const QUEUE_CAPACITY: usize = 512;

/// How long the last messages to a hub may take before the connection is dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long to wait before a hub that could not be found or embedded is tried again, and how often
/// a lost hub is checked.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How often a program that does not answer on a port is probed before the next port is tried: a
/// hub on a busy machine must not be skipped.
const PROBES_PER_PORT: u32 = 6;

/// How many ports after the first one are probed for a hub on this machine.
const MAX_OTHER_PORTS: u16 = 20;

/// The number of a hub task in this process. A hub that is disconnected and connected again gets a
/// new task with a new number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct HubTaskId(pub(super) u64);

/// The parameters of a hub task.
#[derive(Clone, Debug)]
pub(super) struct HubTaskOptions {
    /// The number of this task.
    pub(super) id: HubTaskId,
    /// The hub that [`HubRef::Default`] stands for.
    pub(super) choice: HubChoice,
    /// The options of an embedded hub.
    pub(super) own_hub: OwnHubOptions,
    /// The user's current name.
    pub(super) name: watch::Receiver<String>,
    /// The id of this run of the program at this hub.
    pub(super) instance: Instance,
    /// The secrets on disk.
    pub(super) secrets: SecretStore,
    /// Where the local addresses that reach the hub are noted.
    pub(super) paths: KnownPaths,
    /// Where the task sends its events.
    pub(super) events: mpsc::Sender<HubTaskEvent>,
}

/// A handle to the task that keeps the connection to one hub. Dropping it aborts the task; queued
/// messages are lost.
#[derive(Debug)]
pub(super) struct HubHandle {
    outgoing: Option<mpsc::Sender<ClientMessage>>,
    task: JoinHandle<()>,
}

impl HubHandle {
    /// Starts a task that finds or embeds the hub and connects to it.
    pub(super) fn start(hub: HubRef, options: HubTaskOptions) -> Self {
        let (outgoing, messages) = mpsc::channel(QUEUE_CAPACITY);
        let owner_keys = BTreeMap::new();
        let task = HubTask { hub, options, owner_keys, endpoint: None, is_down: false };
        let span = tracing::warn_span!("hub", id = task.options.id.0);
        let task = tokio::spawn(task.run_supervised(messages).instrument(span));
        Self { outgoing: Some(outgoing), task }
    }

    /// Queues a message; never waits. Messages sent while the connection is down are lost: the core
    /// sends what matters again when the connection is up.
    pub(super) fn send(&self, message: ClientMessage) {
        if let Some(outgoing) = &self.outgoing
            && outgoing.try_send(message).is_err()
        {
            tracing::error!("the queue to the hub is full, a message is lost");
        }
    }

    /// Waits until the queued messages are sent, then closes the connection.
    pub(super) async fn close(mut self) {
        self.outgoing = None;
        if timeout(CLOSE_TIMEOUT, &mut self.task).await.is_err() {
            tracing::warn!("the connection to the hub did not close in time");
        }
    }
}

impl Drop for HubHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state of the task for one hub.
struct HubTask {
    hub: HubRef,
    options: HubTaskOptions,
    /// The owner keys of our own sessions, by the hub that gave each and the session.
    owner_keys: BTreeMap<(HubEndpoint, SessionId), (Secret, StoredOwnerKey)>,
    /// The URL at which the hub was reached last, and whose hub it was there.
    endpoint: Option<HubEndpoint>,
    /// Whether the connection is lost, or could not be made.
    is_down: bool,
}

/// Why the task stopped keeping a connection to a hub.
enum StopReason {
    /// The engine closed it.
    Closed,
    /// Another user's hub listens on the port of ours: ours must be found on another port.
    Displaced,
    /// The hub in this process, or the client's task, has panicked.
    Panicked(&'static str),
}

/// The URL of a hub, and the hub itself if this process embeds it.
struct LocatedHub {
    url: HubUrl,
    embedded: Option<Hub>,
    /// Whether the hub was proven to be this user's. Then no other hub is accepted at this URL.
    is_this_users: bool,
}

impl LocatedHub {
    /// Returns when the hub that this process embeds has failed. Never returns without one.
    async fn hub_failed(&self) {
        match &self.embedded {
            Some(hub) => hub.failed().await,
            None => pending().await,
        }
    }

    /// Returns the number of guests of our own hub once it differs from `reported`, and stores it
    /// there. Never returns for a hub that this process does not embed.
    async fn next_guest_count(&self, reported: &mut usize) -> usize {
        let Some(own) = &self.embedded else { return pending().await };
        let mut guests = own.guests();
        let count = guests.wait_for(|count| count != reported).await.map(|count| *count);
        // A hub that has ended reports no guests any more.
        let Ok(count) = count else { return pending().await };
        *reported = count;
        count
    }
}

impl HubTask {
    /// Runs until the engine closes it. After a panic, of the task itself too, everything is
    /// started again.
    async fn run_supervised(mut self, mut messages: mpsc::Receiver<ClientMessage>) {
        loop {
            let run = catch_async("connection to the hub", self.run(&mut messages)).await;
            let reason = match run {
                Ok(StopReason::Closed) => return,
                Ok(StopReason::Displaced) => continue,
                Ok(StopReason::Panicked(name)) => {
                    format!("the {name} stopped unexpectedly; it is started again")
                }
                Err(panicked) => format!("{panicked}; it is started again"),
            };
            self.is_down = true;
            self.report(HubEvent::Down { reason }).await;
            tokio::select! {
                () = sleep(RESTART_DELAY) => {}
                () = until_closed(&mut messages) => return,
            }
        }
    }

    async fn run(&mut self, messages: &mut mpsc::Receiver<ClientMessage>) -> StopReason {
        match self.find_until_closed(messages).await {
            Some(found) => self.keep_connected(found, messages).await,
            None => StopReason::Closed,
        }
    }

    /// Keeps the connection to the hub until the engine closes it or another user's hub has taken
    /// the port.
    async fn keep_connected(
        &mut self,
        mut found: LocatedHub,
        messages: &mut mpsc::Receiver<ClientMessage>,
    ) -> StopReason {
        #[cfg(test)]
        assert_ne!(*self.options.name.borrow(), "panic", "planted");
        let (sender, mut events) = mpsc::channel(QUEUE_CAPACITY);
        let options = ClientOptions {
            hub: found.url.clone(),
            name: self.options.name.borrow_and_update().clone(),
            instance: self.options.instance.clone(),
            identity: Some(self.options.secrets.identity().clone()),
            only_own: found.is_this_users,
        };
        let client = Client::start(options, TokenLeases::new(self.options.secrets.clone()), sender);
        let mut retry = interval(RETRY_INTERVAL);
        let mut guests = 0;
        let reason = loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(message) => { client.send_to(self.endpoint.clone(), self.with_owner_key(message)); }
                    None => break StopReason::Closed,
                },
                event = events.recv() => match event {
                    Some(ClientEvent::Up { endpoint, link_base, participant, name, local, .. }) => {
                        self.is_down = false;
                        self.endpoint = Some(endpoint.clone());
                        local.into_iter().for_each(|ip| self.options.paths.record_local(ip));
                        // Messages from the time without a connection are void: the core sends
                        // everything again.
                        while messages.try_recv().is_ok() {}
                        let instance = self.options.instance.clone();
                        self.report(HubEvent::Up { url: link_base, endpoint, participant, instance, name }).await;
                    }
                    Some(ClientEvent::Down { reason }) => {
                        self.is_down = true;
                        self.report(HubEvent::Down { reason }).await;
                    }
                    Some(ClientEvent::LinkBaseChanged { link_base }) => {
                        self.report(HubEvent::AddressChanged { url: link_base }).await;
                    }
                    Some(ClientEvent::Message(message)) => {
                        self.keep_owner_key(&message);
                        if let Some(news) = HubNews::of(message) {
                            self.report(HubEvent::News(news)).await;
                        }
                    }
                    None => break StopReason::Panicked("connection to the hub"),
                },
                () = found.hub_failed() => break StopReason::Panicked("hub in this program"),
                Ok(()) = self.options.name.changed() => {
                    client.set_name(self.options.name.borrow_and_update().clone());
                }
                count = found.next_guest_count(&mut guests) => self.report(HubEvent::Guests { count }).await,
                _ = retry.tick(), if self.is_down => {
                    if self.is_displaced(&mut found).await {
                        break StopReason::Displaced;
                    }
                }
            }
        };
        match reason {
            StopReason::Closed => client.close().await,
            // The resume tokens are kept: our own hub may come back at this URL.
            StopReason::Displaced | StopReason::Panicked(_) => drop(client),
        }
        if let Some(hub) = found.embedded {
            hub.close().await;
        }
        reason
    }

    /// Finds or embeds the hub, and retries until it succeeds; `None` if the engine closed the task
    /// meanwhile.
    async fn find_until_closed(
        &self,
        messages: &mut mpsc::Receiver<ClientMessage>,
    ) -> Option<LocatedHub> {
        loop {
            match self.locate_hub().await {
                Ok(found) => return Some(found),
                Err(reason) => self.report(HubEvent::Down { reason }).await,
            }
            tokio::select! {
                () = sleep(RETRY_INTERVAL) => {}
                () = until_closed(messages) => return None,
            }
        }
    }

    async fn locate_hub(&self) -> Result<LocatedHub, String> {
        let choice = match &self.hub {
            HubRef::At(url) => &HubChoice::At(url.clone()),
            HubRef::Default => &self.options.choice,
        };
        match choice {
            HubChoice::At(url) => {
                Ok(LocatedHub { url: url.clone(), embedded: None, is_this_users: false })
            }
            HubChoice::Find { listen } => {
                find_local_hub(*listen, DEFAULT_PORT, &self.options).await
            }
            HubChoice::Embed(listen) => {
                embed_hub(*listen, &self.options).await.map_err(|error| error.to_string())
            }
        }
    }

    /// Checks a hub of this user that another program ran and that does not answer any more. If its
    /// port is free, this process embeds a hub there, so that returning clients find one; the first
    /// process gets the port. Returns `true` if another user's hub has the port.
    async fn is_displaced(&self, found: &mut LocatedHub) -> bool {
        let (HubRef::Default, HubChoice::Find { listen }) = (&self.hub, &self.options.choice)
        else {
            return false;
        };
        let port = Url::parse(found.url.as_str()).ok().and_then(|url| url.port());
        let (None, Some(port)) = (&found.embedded, port) else { return false };
        match probe_hub_of(&found.url, self.options.secrets.identity()).await {
            signalling::ProbeResult::Hub => false,
            signalling::ProbeResult::OtherUsersHub => true,
            signalling::ProbeResult::NoHub | signalling::ProbeResult::NoAnswer => {
                match embed_hub(ListenAt { ip: *listen, port }, &self.options).await {
                    Ok(own) => found.embedded = own.embedded,
                    Err(error) => tracing::debug!(%error, "another program has the hub's port"),
                }
                false
            }
        }
    }

    /// Adds the owner key to a message that opens a session, and deletes the key of a session that
    /// is left or closed.
    fn with_owner_key(&mut self, message: ClientMessage) -> ClientMessage {
        match message {
            ClientMessage::Open { session, kind, limit, owner_key: _ } => {
                let owner_key = self.owner_key_for(&session);
                ClientMessage::Open { session, kind, limit, owner_key }
            }
            ClientMessage::Leave { session } => {
                self.forget_owner_key(&session);
                ClientMessage::Leave { session }
            }
            ClientMessage::Close { session } => {
                self.forget_owner_key(&session);
                ClientMessage::Close { session }
            }
            other @ (ClientMessage::Hello { .. }
            | ClientMessage::Join { .. }
            | ClientMessage::Eject { .. }
            | ClientMessage::Allow { .. }
            | ClientMessage::Lock { .. }
            | ClientMessage::Rename { .. }
            | ClientMessage::Signal { .. }
            | ClientMessage::Ping) => other,
        }
    }

    /// Stores the owner key of a message, or forgets one that is not valid any more. The core does
    /// not see it.
    fn keep_owner_key(&mut self, message: &HubMessage) {
        if let HubMessage::Opened { session, owner_key: key, .. }
        | HubMessage::Owner { session, owner_key: Some(key), .. } = message
        {
            self.store_owner_key(session, key.clone());
        } else if let HubMessage::Owner { session, owner_key: None, .. }
        | HubMessage::Closed { session, .. } = message
        {
            self.forget_owner_key(session);
        }
    }

    /// Returns the owner key of a session at the hub as it is reached now: given by the hub in this
    /// run, stored by an earlier run, or generated together with the session id.
    fn owner_key_for(&self, session: &SessionId) -> Option<Secret> {
        let endpoint = self.endpoint.clone()?;
        let stored = self.options.secrets.owner_key(&endpoint, session);
        let generated = || session_ids::owner_key_of(session, &endpoint);
        let own =
            self.owner_keys.get(&(endpoint.clone(), session.clone())).map(|(key, _)| key.clone());
        own.or(stored).or_else(generated)
    }

    fn store_owner_key(&mut self, session: &SessionId, key: Secret) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        let id = (endpoint, session.clone());
        // The old entry is unlocked first: its lock would conflict with the new one.
        self.owner_keys.remove(&id);
        let stored = self.options.secrets.store_owner_key(&id.0, session, &key);
        self.owner_keys.insert(id, (key, stored));
    }

    /// Deletes the owner key of a session that we no longer own. The key of a bound id stays on
    /// disk: only that key can open the id again, under the link that was given to guests.
    fn forget_owner_key(&mut self, session: &SessionId) {
        let Some(endpoint) = self.endpoint.clone() else { return };
        if let Some((_, stored)) = self.owner_keys.remove(&(endpoint, session.clone()))
            && !session.is_bound()
        {
            stored.forget();
        }
    }

    /// Sends an event to the engine. A full queue makes the hub's socket wait, never the window. If
    /// the engine has ended, the event is dropped.
    async fn report(&self, event: HubEvent) {
        let (link, hub) = (self.options.id, self.hub.clone());
        let _ = self.options.events.send(HubTaskEvent { task: link, hub, event }).await;
    }
}

/// Returns when the engine has closed the task; messages before that are dropped.
async fn until_closed(messages: &mut mpsc::Receiver<ClientMessage>) {
    while messages.recv().await.is_some() {}
}

/// Finds this user's hub on this machine, or embeds one on the first free port.
///
/// If a port belongs to a program that is not a hub, or to another user's hub, the next port is
/// probed. So all programs of this user find the same hub.
async fn find_local_hub(
    listen: Option<IpAddr>,
    first: u16,
    options: &HubTaskOptions,
) -> Result<LocatedHub, String> {
    for port in first..=first + MAX_OTHER_PORTS {
        for _ in 0..PROBES_PER_PORT {
            match probe_port(port, options).await {
                PortProbe::Hub(url) => {
                    return Ok(LocatedHub { url, embedded: None, is_this_users: true });
                }
                PortProbe::OtherUsersHub => break,
                PortProbe::NoAnswer => continue,
                PortProbe::NoHub => {}
            }
            match embed_hub(ListenAt { ip: listen, port }, options).await {
                Ok(found) => return Ok(found),
                // Another program has the port: a second probe shows whether it is this user's hub.
                Err(HubError::Taken { .. }) => match probe_port(port, options).await {
                    PortProbe::NoHub | PortProbe::OtherUsersHub => break,
                    PortProbe::Hub(_) | PortProbe::NoAnswer => {}
                },
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    Err(format!(
        "the ports {first} to {} are all in use by other programs; choose another with --listen, or \
         a hub elsewhere with --hub",
        first + MAX_OTHER_PORTS
    ))
}

/// The result of probing a port of this machine.
enum PortProbe {
    /// A hub of this user.
    Hub(HubUrl),
    /// A hub that is not proven to be this user's, also one of an earlier version.
    OtherUsersHub,
    /// Nothing listens, or not a hub.
    NoHub,
    /// A program listens and does not answer.
    NoAnswer,
}

/// Probes a port of this machine over IPv4 and IPv6: a hub may listen on IPv6 only.
async fn probe_port(port: u16, options: &HubTaskOptions) -> PortProbe {
    let mut probe = PortProbe::NoHub;
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let url = local_url(SocketAddr::new(ip, port));
        match probe_hub_of(&url, options.secrets.identity()).await {
            signalling::ProbeResult::Hub => return PortProbe::Hub(url),
            signalling::ProbeResult::OtherUsersHub => probe = PortProbe::OtherUsersHub,
            signalling::ProbeResult::NoAnswer if matches!(probe, PortProbe::NoHub) => {
                probe = PortProbe::NoAnswer;
            }
            signalling::ProbeResult::NoAnswer | signalling::ProbeResult::NoHub => {}
        }
    }
    probe
}

/// Starts a hub in this process.
async fn embed_hub(listen: ListenAt, options: &HubTaskOptions) -> Result<LocatedHub, HubError> {
    let (host, paths) = (Some(options.instance.clone()), options.paths.clone());
    let identity = options.secrets.identity().clone();
    let OwnHubOptions { public_url: public, opens_for, trusted_proxies, certificate } =
        options.own_hub.clone();
    let options = HubOptions {
        public,
        host,
        paths,
        identity,
        opens_for,
        trusted_proxies,
        certificate,
        ..HubOptions::at(listen)
    };
    let hub = Hub::start(options).await?;
    Ok(LocatedHub { url: local_url(hub.address()), embedded: Some(hub), is_this_users: true })
}

/// Returns the URL by which this machine reaches a hub that listens on that address.
fn local_url(listening: SocketAddr) -> HubUrl {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    let address = SocketAddr::new(ip, listening.port());
    format!("http://{address}").parse().expect("a socket address makes a URL")
}

#[cfg(test)]
mod tests;
