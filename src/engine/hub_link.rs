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
    /// How a hub of our own is.
    pub(super) own_hub: OwnHubOptions,
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
            let own = BTreeMap::new();
            Ends { hub, options, own, place: None, is_down: false }.run(messages).await;
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
    /// The keys to our own sessions, each with the place that gave it.
    own: BTreeMap<(HubPlace, SessionId), (Secret, KeptKey)>,
    /// Where the hub was reached last, and whose it was there.
    place: Option<HubPlace>,
    /// Whether the hub was lost, or not reached when it was tried.
    is_down: bool,
}

/// Why a connection to a hub is not kept up any more.
enum Over {
    /// Nobody wants it.
    Unwanted,
    /// Another user's hub has the place of ours: another place is to be found.
    Displaced,
}

/// Where a hub is, and the hub itself if it is our own.
struct Found {
    url: HubUrl,
    own: Option<Hub>,
    /// Whether it was found to be this user's, and no other will do.
    is_own_users: bool,
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
        loop {
            let Some(found) = self.find_until_closed(&mut messages).await else { return };
            match self.stay(found, &mut messages).await {
                Over::Unwanted => return,
                Over::Displaced => {}
            }
        }
    }

    /// Keeps up the connection to a hub that was found.
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
        let over = loop {
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
                        // What was said into the outage is void: the core says it all again.
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
        match over {
            Over::Unwanted => client.close().await,
            // Its tokens stay: our own hub may come back there.
            Over::Displaced => drop(client),
        }
        if let Some(hub) = found.own {
            hub.close().await;
        }
        over
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
            HubChoice::At(url) => Ok(Found { url: url.clone(), own: None, is_own_users: false }),
            HubChoice::Find { listen } => find_here(*listen, DEFAULT_PORT, &self.options).await,
            HubChoice::Embed(listen) => {
                embed(*listen, &self.options).await.map_err(|error| error.to_string())
            }
        }
    }

    /// The hub was another program's of this user, and does not answer any more. If nobody has its
    /// place we are the hub there, so that everybody who comes back finds one: whoever is first wins
    /// the port. `true` if another user's hub has it.
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

    /// The message, with the key that proves that the session is ours.
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

    /// The message as the core gets it: a key in it is kept here.
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

    /// The key to an own session that the hub gave us where it is now, in this run or an earlier
    /// one.
    fn own_key(&self, session: &SessionId) -> Option<Secret> {
        let place = self.place.clone()?;
        let kept = self.options.keys.owner_key(&place, session);
        let made = || session_ids::key_of(session, &place);
        let own = self.own.get(&(place.clone(), session.clone())).map(|(key, _)| key.clone());
        own.or(kept).or_else(made)
    }

    fn keep(&mut self, session: &SessionId, key: Secret) {
        let Some(place) = self.place.clone() else { return };
        let whose = (place, session.clone());
        // Unlocked first: our own lock would stand in the way of the new one.
        self.own.remove(&whose);
        let kept = self.options.keys.keep_owner_key(&whose.0, session, &key);
        self.own.insert(whose, (key, kept));
    }

    /// Gives the key to a session up that we own no more. The key to a bound id stays on disk: it
    /// alone opens that id again, under the link that people have.
    fn forget(&mut self, session: &SessionId) {
        let Some(place) = self.place.clone() else { return };
        if let Some((_, kept)) = self.own.remove(&(place, session.clone()))
            && !session.is_bound()
        {
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

/// The hub of this user on this machine: one that answers, else our own on the first port that is free.
///
/// A port may belong to a program that is no hub, or to another user's hub; then the next one is
/// looked at, so that all programs of this user find the same hub all the same.
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
                // Somebody was faster, or something else is there: asked once more, it tells.
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

/// What is found on a port of this machine.
enum Looked {
    /// This user's.
    Hub(HubUrl),
    /// Not proven to be this user's: also one of an earlier version.
    OtherUsersHub,
    NoHub,
    Silence,
}

/// Asks who has a port of this machine, in both families: a hub may listen on IPv6 only.
async fn look_here(port: u16, options: &HubLinkOptions) -> Looked {
    let mut looked = Looked::NoHub;
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let url = local_url(SocketAddr::new(ip, port));
        match find_hub_of(&url, options.keys.identity()).await {
            signalling::Found::Hub => return Looked::Hub(url),
            signalling::Found::OtherUsersHub => looked = Looked::OtherUsersHub,
            signalling::Found::Silence if matches!(looked, Looked::NoHub) => {
                looked = Looked::Silence;
            }
            signalling::Found::Silence | signalling::Found::NoHub => {}
        }
    }
    looked
}

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

    /// A hub of that identity on a port after which others can follow.
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
    async fn another_users_hub_is_passed_over_and_one_of_this_user_is_found() {
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
    async fn another_hub_is_found_when_another_user_has_taken_the_place_of_ours() {
        let options = options();
        let (ours, port) = hub(options.keys.identity().clone()).await;
        let url = local_url(ours.address());
        let mut found = Found { url, own: None, is_own_users: true };
        let (hub, own) = (HubRef::Default, BTreeMap::new());
        let ends = Ends { hub, options, own, place: None, is_down: true };
        assert!(!ends.is_displaced(&mut found).await && found.own.is_none(), "it is there");
        drop(ours);
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into();
        let other = loop {
            match Hub::start(HubOptions::at(listen)).await {
                Ok(hub) => break hub,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(ends.is_displaced(&mut found).await && found.own.is_none());
        drop(other);
        while found.own.is_none() {
            assert!(!ends.is_displaced(&mut found).await, "nobody has it, so we are the hub there");
        }
        assert_eq!(found.own.unwrap().address().port(), port);
    }
}
