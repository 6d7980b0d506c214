//! One hub: found or embedded, connected to, and trusted with the secrets it gave.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    HubChoice,
    keys::{Keys, TokenLease},
    run::Deed,
};
use crate::{
    conference::{HubEvent, HubRef},
    model::{ClientMessage, HubMessage, HubUrl, Instance, Secret, SessionId},
    signalling::{
        Client, ClientEvent, ClientOptions, DEFAULT_PORT, Hub, HubOptions, is_quintet_hub,
    },
};

/// Messages to a hub that may wait for its link's task; the core speaks in bursts of a few per
/// session and participant.
const OUTGOING: usize = 512;

/// How long a farewell may take before the process goes on without it.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long to wait before a hub that could not be found or embedded is tried again.
const RETRY: Duration = Duration::from_secs(2);

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
    /// The person's name.
    pub(super) name: String,
    /// This run of the program.
    pub(super) instance: Instance,
    /// The secrets on disk.
    pub(super) keys: Keys,
    /// Where events go.
    pub(super) deeds: mpsc::Sender<Deed>,
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
        let task = tokio::spawn(async move { Ends { hub, options }.run(messages).await });
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
}

/// Where a hub is, and the hub itself if it is our own.
struct Found {
    url: HubUrl,
    own: Option<Hub>,
}

impl Ends {
    async fn run(self, mut messages: mpsc::Receiver<ClientMessage>) {
        let Some(mut found) = self.find_until_closed(&mut messages).await else { return };
        let mut lease = self.options.keys.lease_token(&found.url, fresh_secret());
        let (sender, mut events) = mpsc::channel(OUTGOING);
        let options = ClientOptions {
            hub: found.url.clone(),
            name: self.options.name.clone(),
            instance: self.options.instance.clone(),
            token: Some(lease.token.clone()),
        };
        let client = Client::start(options, sender);
        let mut base = found.url.clone();
        loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(message) => { client.send(self.with_key(message, &base)); }
                    None => break,
                },
                event = events.recv() => match event {
                    Some(event) => self.note(event, &mut base, &mut lease, &mut found).await,
                    None => break,
                },
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
            HubChoice::Find { listen } => {
                let usual = local_url(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DEFAULT_PORT));
                if is_quintet_hub(&usual).await {
                    return Ok(Found { url: usual, own: None });
                }
                embed(SocketAddr::new(*listen, DEFAULT_PORT), true).await
            }
            HubChoice::Embed(address) => embed(*address, false).await,
        }
    }

    /// Notes what the secrets are good for, and passes the rest on to the core.
    async fn note(
        &self,
        event: ClientEvent,
        base: &mut HubUrl,
        lease: &mut TokenLease,
        found: &mut Found,
    ) {
        match event {
            ClientEvent::Up { link_base, participant, name, token } => {
                lease.replace(token);
                base.clone_from(&link_base);
                self.tell(HubEvent::Up { url: link_base, participant, name }).await;
            }
            ClientEvent::Down { reason } => {
                self.tell(HubEvent::Down { reason }).await;
                self.step_in(found).await;
            }
            ClientEvent::Message(message) => {
                self.keep_key(&message, base);
                self.tell(HubEvent::Message(message)).await;
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
        if found.own.is_none() && !is_quintet_hub(&found.url).await {
            match embed(SocketAddr::new(*listen, DEFAULT_PORT), false).await {
                Ok(own) => found.own = own.own,
                Err(reason) => tracing::debug!(reason, "another program took the hub's port"),
            }
        }
    }

    /// The message, with the key that proves that the session is ours.
    fn with_key(&self, message: ClientMessage, base: &HubUrl) -> ClientMessage {
        match message {
            ClientMessage::Open { session, kind, limit, owner_key: _ } => {
                let owner_key = self.options.keys.owner_key(base, &session);
                ClientMessage::Open { session, kind, limit, owner_key }
            }
            ClientMessage::Leave { session } => {
                self.options.keys.forget_owner_key(base, &session);
                ClientMessage::Leave { session }
            }
            ClientMessage::Close { session } => {
                self.options.keys.forget_owner_key(base, &session);
                ClientMessage::Close { session }
            }
            other @ (ClientMessage::Hello { .. }
            | ClientMessage::Join { .. }
            | ClientMessage::Eject { .. }
            | ClientMessage::Signal { .. }
            | ClientMessage::Ping) => other,
        }
    }

    fn keep_key(&self, message: &HubMessage, base: &HubUrl) {
        let keep = |session: &SessionId, key: &Secret| {
            self.options.keys.keep_owner_key(base, session, key);
        };
        match message {
            HubMessage::Opened { session, owner_key, .. }
            | HubMessage::Owner { session, owner_key: Some(owner_key), .. } => {
                keep(session, owner_key);
            }
            HubMessage::Closed { session, .. } => {
                self.options.keys.forget_owner_key(base, session);
            }
            HubMessage::Owner { .. }
            | HubMessage::Welcome { .. }
            | HubMessage::Joined { .. }
            | HubMessage::Waiting { .. }
            | HubMessage::ParticipantJoined { .. }
            | HubMessage::ParticipantLeft { .. }
            | HubMessage::ParticipantPresence { .. }
            | HubMessage::Signal { .. }
            | HubMessage::Error { .. }
            | HubMessage::Pong => {}
        }
    }

    /// A full queue makes the hub's socket wait, never the window; an ended engine needs no word.
    async fn tell(&self, event: HubEvent) {
        let (link, hub) = (self.options.number, self.hub.clone());
        let _ = self.options.deeds.send(Deed::Hub { link, hub, event }).await;
    }
}

/// Returns when the engine has let go of the link; messages before that are void.
async fn closed(messages: &mut mpsc::Receiver<ClientMessage>) {
    while messages.recv().await.is_some() {}
}

async fn embed(listen: SocketAddr, next_free_port: bool) -> Result<Found, String> {
    let options = HubOptions { listen, next_free_port, public: None };
    let hub = Hub::start(options).await.map_err(|error| error.to_string())?;
    Ok(Found { url: local_url(hub.address()), own: Some(hub) })
}

/// The address by which this machine reaches a hub that listens there.
fn local_url(listening: SocketAddr) -> HubUrl {
    let ip = match listening.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
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
