//! One hub: found or embedded, connected to, and trusted with the secrets it gave.

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
    HubChoice,
    keys::{KeptKey, Keys},
    run::HubWord,
};
use crate::{
    conference::{HubEvent, HubRef},
    model::{ClientMessage, HubMessage, HubUrl, Instance, Secret, SessionId},
    network::KnownPaths,
    signalling::{
        self, Client, ClientEvent, ClientOptions, DEFAULT_PORT, Hub, HubError, HubOptions,
        ListenAt, find_hub,
    },
};

/// Messages to a hub that may wait for its link's task; the core speaks in bursts of a few per
/// session and participant.
const OUTGOING: usize = 512;

/// How long a farewell may take before the process goes on without it.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long to wait before a hub that could not be found or embedded is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// How often a silent program on a port is asked whether it is a hub, before another port is
/// tried: a hub on a busy machine is not to be passed by.
const ASKED: u32 = 6;

/// How many ports are looked at for a hub of this machine.
const PORTS: u16 = 20;

/// One link of this process; a hub that is let go and connected to again gets another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LinkNumber(pub(super) u64);

/// What every hub link is given.
#[derive(Clone, Debug)]
pub(super) struct HubLinkOptions {
    /// Which link this is.
    pub(super) number: LinkNumber,
    /// Which hub [`HubRef::Default`] is.
    pub(super) choice: HubChoice,
    /// What a hub of our own calls itself, if not by its address.
    pub(super) public_url: Option<HubUrl>,
    /// The person's name, as it is now.
    pub(super) name: watch::Receiver<String>,
    /// This run of the program.
    pub(super) instance: Instance,
    /// The secrets on disk.
    pub(super) keys: Keys,
    /// Where it is noted which way the hub is reached.
    pub(super) paths: KnownPaths,
    /// Where events go.
    pub(super) words: mpsc::Sender<HubWord>,
}

/// The connection to one hub, kept up by a task. Dropping it ends the task without farewell.
#[derive(Debug)]
pub(super) struct HubLink {
    outgoing: Option<mpsc::Sender<ClientMessage>>,
    task: JoinHandle<()>,
}

impl HubLink {
    /// Begins to find, embed and connect to the hub.
    pub(super) fn start(hub: HubRef, options: HubLinkOptions) -> Self {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let task = tokio::spawn(async move {
            Ends { hub, options, own: BTreeMap::new(), is_down: false }.run(messages).await;
        });
        Self { outgoing: Some(outgoing), task }
    }

    /// Hands a message over; never waits. What is said while the link is down is lost: the core
    /// says what matters again when it is up.
    pub(super) fn send(&self, message: ClientMessage) {
        if let Some(outgoing) = &self.outgoing
            && outgoing.try_send(message).is_err()
        {
            tracing::error!("the queue to the hub is full, a message is lost");
        }
    }

    /// Lets what was said reach the hub, then closes the connection.
    pub(super) async fn close(mut self) {
        self.outgoing = None;
        if timeout(FAREWELL, &mut self.task).await.is_err() {
            tracing::warn!("the hub did not take our farewell in time");
        }
    }
}

impl Drop for HubLink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the task of a link works with.
struct Ends {
    hub: HubRef,
    options: HubLinkOptions,
    /// The keys to our own sessions there.
    own: BTreeMap<SessionId, (Secret, KeptKey)>,
    /// Whether the hub was lost, or not reached when it was tried.
    is_down: bool,
}

/// The addresses of one hub.
struct Places {
    /// Where this program reaches it, which stays: what is kept on disk is kept under it.
    reached_at: HubUrl,
    /// What its links start with now.
    link_base: HubUrl,
}

/// Where a hub is, and the hub itself if it is our own.
struct Found {
    url: HubUrl,
    own: Option<Hub>,
}

impl Found {
    /// How many guests our own hub has, when that changes; for ever if it is another's.
    async fn guests(&self, told: &mut usize) -> usize {
        let Some(own) = &self.own else { return pending().await };
        let mut guests = own.guests();
        let count = guests.wait_for(|count| count != told).await.map(|count| *count);
        // A hub that has ended has none to tell of.
        let Ok(count) = count else { return pending().await };
        *told = count;
        count
    }
}

impl Ends {
    async fn run(mut self, mut messages: mpsc::Receiver<ClientMessage>) {
        let Some(mut found) = self.find_until_closed(&mut messages).await else { return };
        let mut lease = self.options.keys.lease_token(&found.url, fresh_secret());
        let (sender, mut events) = mpsc::channel(OUTGOING);
        let options = ClientOptions {
            hub: found.url.clone(),
            name: self.options.name.borrow_and_update().clone(),
            instance: self.options.instance.clone(),
            token: Some(lease.token.clone()),
        };
        let client = Client::start(options, sender);
        let mut places = Places { reached_at: found.url.clone(), link_base: found.url.clone() };
        let mut retry = interval(RETRY);
        let mut guests = 0;
        loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(message) => { client.send(self.with_key(message, &places)); }
                    None => break,
                },
                event = events.recv() => match event {
                    Some(ClientEvent::Up { link_base, participant, name, token, local }) => {
                        self.is_down = false;
                        lease.replace(token);
                        places.link_base.clone_from(&link_base);
                        local.into_iter().for_each(|ip| self.options.paths.note_own(ip));
                        // What was said into the outage is void: the core says it all again.
                        while messages.try_recv().is_ok() {}
                        self.tell(HubEvent::Up { url: link_base, participant, name }).await;
                    }
                    Some(ClientEvent::Down { reason }) => {
                        self.is_down = true;
                        self.tell(HubEvent::Down { reason }).await;
                    }
                    Some(ClientEvent::Moved { link_base }) => {
                        places.link_base.clone_from(&link_base);
                        self.tell(HubEvent::Moved { url: link_base }).await;
                    }
                    Some(ClientEvent::Message(message)) => {
                        let message = self.without_key(message, &places);
                        self.tell(HubEvent::Message(message)).await;
                    }
                    None => break,
                },
                Ok(()) = self.options.name.changed() => {
                    client.set_name(self.options.name.borrow_and_update().clone());
                }
                count = found.guests(&mut guests) => self.tell(HubEvent::Guests { count }).await,
                _ = retry.tick(), if self.is_down => self.step_in(&mut found).await,
            }
        }
        client.close().await;
        lease.forget();
        if let Some(hub) = found.own {
            hub.close().await;
        }
    }

    /// Finds or embeds the hub; `None` if the link was closed meanwhile.
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
            HubChoice::At(url) => Ok(Found { url: url.clone(), own: None }),
            HubChoice::Find { listen } => find_here(*listen, &self.options).await,
            HubChoice::Embed(listen) => {
                embed(*listen, &self.options).await.map_err(|error| error.to_string())
            }
        }
    }

    /// The hub on the usual port was another program's, and that program is gone: be the hub
    /// there, so that everybody who comes back finds one. Whoever is first wins the port.
    async fn step_in(&self, found: &mut Found) {
        let (HubRef::Default, HubChoice::Find { listen }) = (&self.hub, &self.options.choice)
        else {
            return;
        };
        let port = Url::parse(found.url.as_str()).ok().and_then(|url| url.port());
        if let (None, Some(port)) = (&found.own, port)
            && find_hub(&found.url).await != signalling::Found::Hub
        {
            match embed(ListenAt { ip: *listen, port }, &self.options).await {
                Ok(own) => found.own = own.own,
                Err(error) => tracing::debug!(%error, "another program has the hub's port"),
            }
        }
    }

    /// The message, with the key that proves that the session is ours.
    fn with_key(&mut self, message: ClientMessage, places: &Places) -> ClientMessage {
        match message {
            ClientMessage::Open { session, kind, limit, owner_key: _ } => {
                let own = self.own.get(&session).map(|(key, _)| key.clone());
                let kept = || self.options.keys.owner_key(&places.reached_at, &session);
                // An older version kept it under the link's address.
                let kept_before = || self.options.keys.owner_key(&places.link_base, &session);
                let owner_key = own.or_else(kept).or_else(kept_before);
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
            | ClientMessage::Rename { .. }
            | ClientMessage::Signal { .. }
            | ClientMessage::Ping) => other,
        }
    }

    /// The message as the core gets it: a key in it is kept here.
    fn without_key(&mut self, message: HubMessage, places: &Places) -> HubMessage {
        match message {
            HubMessage::Opened { session, kind, limit, owner_key, participants } => {
                self.keep(&session, owner_key, places);
                let owner_key = Secret::from_random([0; 16]);
                HubMessage::Opened { session, kind, limit, owner_key, participants }
            }
            HubMessage::Owner { session, participant, owner_key } => {
                match owner_key {
                    Some(key) => self.keep(&session, key, places),
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
            | HubMessage::Renamed { .. }
            | HubMessage::Signal { .. }
            | HubMessage::Error { .. }
            | HubMessage::LinkBase { .. }
            | HubMessage::Pong) => other,
        }
    }

    fn keep(&mut self, session: &SessionId, key: Secret, places: &Places) {
        // Unlocked first: our own lock would stand in the way of the new one.
        self.own.remove(session);
        let kept = self.options.keys.keep_owner_key(&places.reached_at, session, &key);
        self.own.insert(session.clone(), (key, kept));
    }

    fn forget(&mut self, session: &SessionId) {
        if let Some((_, kept)) = self.own.remove(session) {
            kept.forget();
        }
    }

    /// A full queue makes the hub's socket wait, never the window; an ended engine needs no word.
    async fn tell(&self, event: HubEvent) {
        let (link, hub) = (self.options.number, self.hub.clone());
        let _ = self.options.words.send(HubWord { link, hub, event }).await;
    }
}

/// Returns when the engine has let go of the link; messages before that are void.
async fn closed(messages: &mut mpsc::Receiver<ClientMessage>) {
    while messages.recv().await.is_some() {}
}

/// The hub of this machine: one that answers, else our own on the first port that is free.
///
/// A port may belong to a program that is no hub; then the next one is looked at, so that all
/// programs here find the same hub all the same.
async fn find_here(listen: Option<IpAddr>, options: &HubLinkOptions) -> Result<Found, String> {
    for port in DEFAULT_PORT..=DEFAULT_PORT + PORTS {
        for _ in 0..ASKED {
            match look_here(port).await {
                Looked::Hub(url) => return Ok(Found { url, own: None }),
                Looked::Silence => continue,
                Looked::NoHub => {}
            }
            match embed(ListenAt { ip: listen, port }, options).await {
                Ok(found) => return Ok(found),
                // Somebody was faster, or something else is there: asked once more, it tells.
                Err(HubError::Taken { .. }) if matches!(look_here(port).await, Looked::NoHub) => {
                    break;
                }
                Err(HubError::Taken { .. }) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }
    Err(format!(
        "the ports {DEFAULT_PORT} to {} are all in use by other programs; choose another with \
         --listen, or a hub elsewhere with --hub",
        DEFAULT_PORT + PORTS
    ))
}

/// What is found on a port of this machine.
enum Looked {
    Hub(HubUrl),
    NoHub,
    Silence,
}

/// Asks who has a port of this machine, in both families: a hub may listen on IPv6 only.
async fn look_here(port: u16) -> Looked {
    let mut looked = Looked::NoHub;
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let url = local_url(SocketAddr::new(ip, port));
        match find_hub(&url).await {
            signalling::Found::Hub => return Looked::Hub(url),
            signalling::Found::Silence => looked = Looked::Silence,
            signalling::Found::NoHub => {}
        }
    }
    looked
}

async fn embed(listen: ListenAt, options: &HubLinkOptions) -> Result<Found, HubError> {
    let (host, paths) = (Some(options.instance.clone()), options.paths.clone());
    let public = options.public_url.clone();
    let options = HubOptions { listen, next_free_port: false, public, host, paths };
    let hub = Hub::start(options).await?;
    Ok(Found { url: local_url(hub.address()), own: Some(hub) })
}

/// The address by which this machine reaches a hub that listens there.
fn local_url(listening: SocketAddr) -> HubUrl {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    let address = SocketAddr::new(ip, listening.port());
    format!("http://{address}").parse().expect("a socket address makes a URL")
}

/// 128 bits of the system's randomness.
fn fresh_secret() -> Secret {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    Secret::from_random(bytes)
}
