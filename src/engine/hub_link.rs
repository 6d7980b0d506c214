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

use url::Url;

use super::{
    HubChoice, OwnHubOptions,
    keys::{KeptKey, Keys, Leases},
    run::HubWord,
    session_ids,
};
use crate::{
    conference::{HubEvent, HubRef},
    model::{ClientMessage, HubMessage, HubPlace, HubUrl, Instance, Secret, SessionId},
    network::KnownPaths,
    signalling::{
        self, Client, ClientEvent, ClientOptions, DEFAULT_PORT, Hub, HubError, HubOptions,
        ListenAt, find_hub_of,
    },
};

/// Messages to a hub that may wait for its task, and events from its client. The core sends bursts
/// of a few messages per session and participant.
const OUTGOING: usize = 512;

/// How long the last messages to a hub may take before the connection is dropped.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long to wait before a hub that could not be found or embedded is tried again, and how often
/// a lost hub is checked.
const RETRY: Duration = Duration::from_secs(2);

/// How often a program that does not answer on a port is probed before the next port is tried: a
/// hub on a busy machine must not be skipped.
const ASKED: u32 = 6;

/// How many ports after the first one are probed for a hub on this machine.
const PORTS: u16 = 20;

/// The number of a hub task in this process. A hub that is disconnected and connected again gets a
/// new task with a new number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkNumber(pub(super) u64);

/// The parameters of a hub task.
#[derive(Clone, Debug)]
pub(super) struct HubLinkOptions {
    /// The number of this task.
    pub(super) number: LinkNumber,
    /// The hub that [`HubRef::Default`] stands for.
    pub(super) choice: HubChoice,
    /// The options of an embedded hub.
    pub(super) own_hub: OwnHubOptions,
    /// The user's current name.
    pub(super) name: watch::Receiver<String>,
    /// The id of this run of the program at this hub.
    pub(super) instance: Instance,
    /// The secrets on disk.
    pub(super) keys: Keys,
    /// Where the local addresses that reach the hub are noted.
    pub(super) paths: KnownPaths,
    /// Where the task sends its events.
    pub(super) words: mpsc::Sender<HubWord>,
}

/// A handle to the task that keeps the connection to one hub. Dropping it aborts the task; queued
/// messages are lost.
#[derive(Debug)]
pub(super) struct HubLink {
    outgoing: Option<mpsc::Sender<ClientMessage>>,
    task: JoinHandle<()>,
}

impl HubLink {
    /// Starts a task that finds or embeds the hub and connects to it.
    pub(super) fn start(hub: HubRef, options: HubLinkOptions) -> Self {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let task = tokio::spawn(async move {
            let own = BTreeMap::new();
            Ends { hub, options, own, place: None, is_down: false }.run(messages).await;
        });
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
        if timeout(FAREWELL, &mut self.task).await.is_err() {
            tracing::warn!("the connection to the hub did not close in time");
        }
    }
}

impl Drop for HubLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The state of the task for one hub.
struct Ends {
    hub: HubRef,
    options: HubLinkOptions,
    /// The owner keys of our own sessions, by the hub that gave each and the session.
    own: BTreeMap<(HubPlace, SessionId), (Secret, KeptKey)>,
    /// The URL at which the hub was reached last, and whose hub it was there.
    place: Option<HubPlace>,
    /// Whether the connection is lost, or could not be made.
    is_down: bool,
}

/// Why the task stopped keeping a connection to a hub.
enum Over {
    /// The engine closed it.
    Unwanted,
    /// Another user's hub listens on the port of ours: ours must be found on another port.
    Displaced,
}

/// The URL of a hub, and the hub itself if this process embeds it.
struct Found {
    url: HubUrl,
    own: Option<Hub>,
    /// Whether the hub was proven to be this user's. Then no other hub is accepted at this URL.
    is_own_users: bool,
}

impl Found {
    /// Returns the number of guests of our own hub once it differs from `reported`, and stores it
    /// there. Never returns for a hub that this process does not embed.
    async fn guests(&self, reported: &mut usize) -> usize {
        let Some(own) = &self.own else { return pending().await };
        let mut guests = own.guests();
        let count = guests.wait_for(|count| count != reported).await.map(|count| *count);
        // A hub that has ended reports no guests any more.
        let Ok(count) = count else { return pending().await };
        *reported = count;
        count
    }
}

impl Ends {
    async fn run(mut self, mut messages: mpsc::Receiver<ClientMessage>) {
        loop {
            let Some(found) = self.find_until_closed(&mut messages).await else { return };
            match self.stay(found, &mut messages).await {
                Over::Unwanted => return,
                Over::Displaced => {}
            }
        }
    }

    /// Keeps the connection to the hub until the engine closes it or another user's hub has taken
    /// the port.
    async fn stay(
        &mut self,
        mut found: Found,
        messages: &mut mpsc::Receiver<ClientMessage>,
    ) -> Over {
        let (sender, mut events) = mpsc::channel(OUTGOING);
        let options = ClientOptions {
            hub: found.url.clone(),
            name: self.options.name.borrow_and_update().clone(),
            instance: self.options.instance.clone(),
            identity: Some(self.options.keys.identity().clone()),
            only_own: found.is_own_users,
        };
        let client = Client::start(options, Leases::of(self.options.keys.clone()), sender);
        let mut retry = interval(RETRY);
        let mut guests = 0;
        let reason = loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(message) => { client.send_to(self.place.clone(), self.with_key(message)); }
                    None => break Over::Unwanted,
                },
                event = events.recv() => match event {
                    Some(ClientEvent::Up { place, link_base, participant, name, local, .. }) => {
                        self.is_down = false;
                        self.place = Some(place.clone());
                        local.into_iter().for_each(|ip| self.options.paths.note_own(ip));
                        // Messages from the time without a connection are void: the core sends
                        // everything again.
                        while messages.try_recv().is_ok() {}
                        self.tell(HubEvent::Up { url: link_base, place, participant, name }).await;
                    }
                    Some(ClientEvent::Down { reason }) => {
                        self.is_down = true;
                        self.tell(HubEvent::Down { reason }).await;
                    }
                    Some(ClientEvent::Moved { link_base }) => {
                        self.tell(HubEvent::Moved { url: link_base }).await;
                    }
                    Some(ClientEvent::Message(message)) => {
                        let message = self.without_key(message);
                        self.tell(HubEvent::Message(message)).await;
                    }
                    None => break Over::Unwanted,
                },
                Ok(()) = self.options.name.changed() => {
                    client.set_name(self.options.name.borrow_and_update().clone());
                }
                count = found.guests(&mut guests) => self.tell(HubEvent::Guests { count }).await,
                _ = retry.tick(), if self.is_down => {
                    if self.is_displaced(&mut found).await {
                        break Over::Displaced;
                    }
                }
            }
        };
        match reason {
            Over::Unwanted => client.close().await,
            // The resume tokens are kept: our own hub may come back at this URL.
            Over::Displaced => drop(client),
        }
        if let Some(hub) = found.own {
            hub.close().await;
        }
        reason
    }

    /// Finds or embeds the hub, and retries until it succeeds; `None` if the engine closed the task
    /// meanwhile.
    async fn find_until_closed(
        &self,
        messages: &mut mpsc::Receiver<ClientMessage>,
    ) -> Option<Found> {
        loop {
            match self.find().await {
                Ok(found) => return Some(found),
                Err(reason) => self.tell(HubEvent::Down { reason }).await,
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = closed(messages) => return None,
            }
        }
    }

    async fn find(&self) -> Result<Found, String> {
        let choice = match &self.hub {
            HubRef::At(url) => &HubChoice::At(url.clone()),
            HubRef::Default => &self.options.choice,
        };
        match choice {
            HubChoice::At(url) => Ok(Found { url: url.clone(), own: None, is_own_users: false }),
            HubChoice::Find { listen } => find_here(*listen, DEFAULT_PORT, &self.options).await,
            HubChoice::Embed(listen) => {
                embed(*listen, &self.options).await.map_err(|error| error.to_string())
            }
        }
    }

    /// Checks a hub of this user that another program ran and that does not answer any more. If its
    /// port is free, this process embeds a hub there, so that returning clients find one; the first
    /// process gets the port. Returns `true` if another user's hub has the port.
    async fn is_displaced(&self, found: &mut Found) -> bool {
        let (HubRef::Default, HubChoice::Find { listen }) = (&self.hub, &self.options.choice)
        else {
            return false;
        };
        let port = Url::parse(found.url.as_str()).ok().and_then(|url| url.port());
        let (None, Some(port)) = (&found.own, port) else { return false };
        match find_hub_of(&found.url, self.options.keys.identity()).await {
            signalling::Found::Hub => false,
            signalling::Found::OtherUsersHub => true,
            signalling::Found::NoHub | signalling::Found::Silence => {
                match embed(ListenAt { ip: *listen, port }, &self.options).await {
                    Ok(own) => found.own = own.own,
                    Err(error) => tracing::debug!(%error, "another program has the hub's port"),
                }
                false
            }
        }
    }

    /// Adds the owner key to a message that opens a session, and deletes the key of a session that
    /// is left or closed.
    fn with_key(&mut self, message: ClientMessage) -> ClientMessage {
        match message {
            ClientMessage::Open { session, kind, limit, owner_key: _ } => {
                let owner_key = self.own_key(&session);
                ClientMessage::Open { session, kind, limit, owner_key }
            }
            ClientMessage::Leave { session } => {
                self.forget(&session);
                ClientMessage::Leave { session }
            }
            ClientMessage::Close { session } => {
                self.forget(&session);
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

    /// Stores the owner key of a message and returns the message for the core, without the key.
    fn without_key(&mut self, message: HubMessage) -> HubMessage {
        match message {
            HubMessage::Opened { session, kind, limit, owner_key, participants } => {
                self.keep(&session, owner_key);
                let owner_key = Secret::from_random([0; 16]);
                HubMessage::Opened { session, kind, limit, owner_key, participants }
            }
            HubMessage::Owner { session, participant, owner_key } => {
                match owner_key {
                    Some(key) => self.keep(&session, key),
                    None => self.forget(&session),
                }
                HubMessage::Owner { session, participant, owner_key: None }
            }
            HubMessage::Closed { session, reason } => {
                self.forget(&session);
                HubMessage::Closed { session, reason }
            }
            other @ (HubMessage::Welcome { .. }
            | HubMessage::Joined { .. }
            | HubMessage::Waiting { .. }
            | HubMessage::ParticipantJoined { .. }
            | HubMessage::ParticipantLeft { .. }
            | HubMessage::ParticipantPresence { .. }
            | HubMessage::ParticipantRenamed { .. }
            | HubMessage::Access { .. }
            | HubMessage::Renamed { .. }
            | HubMessage::Signal { .. }
            | HubMessage::Error { .. }
            | HubMessage::LinkBase { .. }
            | HubMessage::Pong) => other,
        }
    }

    /// Returns the owner key of a session at the hub as it is reached now: given by the hub in this
    /// run, stored by an earlier run, or generated together with the session id.
    fn own_key(&self, session: &SessionId) -> Option<Secret> {
        let endpoint = self.place.clone()?;
        let stored = self.options.keys.owner_key(&endpoint, session);
        let generated = || session_ids::key_of(session, &endpoint);
        let own = self.own.get(&(endpoint.clone(), session.clone())).map(|(key, _)| key.clone());
        own.or(stored).or_else(generated)
    }

    fn keep(&mut self, session: &SessionId, key: Secret) {
        let Some(endpoint) = self.place.clone() else { return };
        let id = (endpoint, session.clone());
        // The old entry is unlocked first: its lock would conflict with the new one.
        self.own.remove(&id);
        let stored = self.options.keys.keep_owner_key(&id.0, session, &key);
        self.own.insert(id, (key, stored));
    }

    /// Deletes the owner key of a session that we no longer own. The key of a bound id stays on
    /// disk: only that key can open the id again, under the link that was given to guests.
    fn forget(&mut self, session: &SessionId) {
        let Some(endpoint) = self.place.clone() else { return };
        if let Some((_, stored)) = self.own.remove(&(endpoint, session.clone()))
            && !session.is_bound()
        {
            stored.forget();
        }
    }

    /// Sends an event to the engine. A full queue makes the hub's socket wait, never the window. If
    /// the engine has ended, the event is dropped.
    async fn tell(&self, event: HubEvent) {
        let (link, hub) = (self.options.number, self.hub.clone());
        let _ = self.options.words.send(HubWord { link, hub, event }).await;
    }
}

/// Returns when the engine has closed the task; messages before that are dropped.
async fn closed(messages: &mut mpsc::Receiver<ClientMessage>) {
    while messages.recv().await.is_some() {}
}

/// Finds this user's hub on this machine, or embeds one on the first free port.
///
/// If a port belongs to a program that is not a hub, or to another user's hub, the next port is
/// probed. So all programs of this user find the same hub.
async fn find_here(
    listen: Option<IpAddr>,
    first: u16,
    options: &HubLinkOptions,
) -> Result<Found, String> {
    for port in first..=first + PORTS {
        for _ in 0..ASKED {
            match look_here(port, options).await {
                Looked::Hub(url) => return Ok(Found { url, own: None, is_own_users: true }),
                Looked::OtherUsersHub => break,
                Looked::Silence => continue,
                Looked::NoHub => {}
            }
            match embed(ListenAt { ip: listen, port }, options).await {
                Ok(found) => return Ok(found),
                // Another program has the port: a second probe shows whether it is this user's hub.
                Err(HubError::Taken { .. }) => match look_here(port, options).await {
                    Looked::NoHub | Looked::OtherUsersHub => break,
                    Looked::Hub(_) | Looked::Silence => {}
                },
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    Err(format!(
        "the ports {first} to {} are all in use by other programs; choose another with --listen, or \
         a hub elsewhere with --hub",
        first + PORTS
    ))
}

/// The result of probing a port of this machine.
enum Looked {
    /// A hub of this user.
    Hub(HubUrl),
    /// A hub that is not proven to be this user's, also one of an earlier version.
    OtherUsersHub,
    /// Nothing listens, or not a hub.
    NoHub,
    /// A program listens and does not answer.
    Silence,
}

/// Probes a port of this machine over IPv4 and IPv6: a hub may listen on IPv6 only.
async fn look_here(port: u16, options: &HubLinkOptions) -> Looked {
    let mut probe = Looked::NoHub;
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let url = local_url(SocketAddr::new(ip, port));
        match find_hub_of(&url, options.keys.identity()).await {
            signalling::Found::Hub => return Looked::Hub(url),
            signalling::Found::OtherUsersHub => probe = Looked::OtherUsersHub,
            signalling::Found::Silence if matches!(probe, Looked::NoHub) => {
                probe = Looked::Silence;
            }
            signalling::Found::Silence | signalling::Found::NoHub => {}
        }
    }
    probe
}

/// Starts a hub in this process.
async fn embed(listen: ListenAt, options: &HubLinkOptions) -> Result<Found, HubError> {
    let (host, paths) = (Some(options.instance.clone()), options.paths.clone());
    let identity = options.keys.identity().clone();
    let OwnHubOptions { public_url: public, opens_for, trusted_proxies } = options.own_hub.clone();
    let options = HubOptions {
        public,
        host,
        paths,
        identity,
        opens_for,
        trusted_proxies,
        ..HubOptions::at(listen)
    };
    let hub = Hub::start(options).await?;
    Ok(Found { url: local_url(hub.address()), own: Some(hub), is_own_users: true })
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
mod tests {
    use super::*;
    use crate::signalling::HubIdentity;

    fn options() -> HubLinkOptions {
        HubLinkOptions {
            number: LinkNumber(1),
            choice: HubChoice::Find { listen: Some(Ipv4Addr::LOCALHOST.into()) },
            own_hub: OwnHubOptions::default(),
            name: watch::channel(String::new()).1,
            instance: Instance::from_random(1),
            keys: Keys::none(),
            paths: KnownPaths::default(),
            words: mpsc::channel(1).0,
        }
    }

    /// Starts a hub with that identity on a port that leaves room for [`MAX_OTHER_PORTS`] more.
    async fn hub(identity: HubIdentity) -> (Hub, u16) {
        loop {
            let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
            let options = HubOptions { identity: identity.clone(), ..HubOptions::at(listen) };
            let hub = Hub::start(options).await.unwrap();
            let port = hub.address().port();
            if port < u16::MAX - PORTS {
                return (hub, port);
            }
        }
    }

    #[tokio::test]
    async fn another_users_hub_is_skipped_and_this_users_hub_is_found() {
        let options = options();
        let listen = Some(Ipv4Addr::LOCALHOST.into());
        let (_other, port) = hub(HubIdentity::fresh()).await;
        let found = find_here(listen, port, &options).await.unwrap();
        let own = found.own.as_ref().expect("a hub of our own");
        assert!(own.address().port() > port, "{}", found.url);
        let (_ours, port) = hub(options.keys.identity().clone()).await;
        let found = find_here(listen, port, &options).await.unwrap();
        assert!(found.own.is_none() && found.is_own_users);
        assert_eq!(found.url, local_url(SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }

    #[tokio::test]
    async fn a_lost_hub_is_displaced_by_another_users_hub_or_replaced_by_ours() {
        let options = options();
        let (ours, port) = hub(options.keys.identity().clone()).await;
        let url = local_url(ours.address());
        let mut found = Found { url, own: None, is_own_users: true };
        let (hub, own) = (HubRef::Default, BTreeMap::new());
        let task = Ends { hub, options, own, place: None, is_down: true };
        assert!(!task.is_displaced(&mut found).await && found.own.is_none(), "our hub answers");
        drop(ours);
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
        let other = loop {
            match Hub::start(HubOptions::at(listen)).await {
                Ok(hub) => break hub,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(task.is_displaced(&mut found).await && found.own.is_none());
        drop(other);
        while found.own.is_none() {
            assert!(!task.is_displaced(&mut found).await, "the port is free, so we embed a hub");
        }
        assert_eq!(found.own.unwrap().address().port(), port);
    }
}
