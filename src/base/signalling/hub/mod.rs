//! The hub: one HTTP port. Requests to `/signal` become WebSocket connections to the rooms.

mod about_limiter;
mod connection;
mod connection_limiter;
mod guest_page;
mod handshake;
mod host_and_origin;
mod http;
mod http_connection;
mod identity;
mod join_queue;
mod limits;
mod link_base;
mod listen_sockets;
mod listener;
mod outbox;
mod owner_keys;
mod parse;
mod probe;
mod proxy;
mod request_head;
mod rooms_actor;
mod rooms_link;
mod routes;
mod shared_message;
mod tls;

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, mpsc, watch},
    task::{JoinHandle, spawn_blocking},
    time::timeout,
};
use tracing::{debug, info};

use crate::{
    model::{HUB_PORT, HubUrl, Instance},
    network::{self, KnownPaths},
    signalling::rooms::Rooms,
    supervision::catch_async,
};

use host_and_origin::HostNames;
use limits::ConnectionLimits;
use link_base::LinkBase;
use tls::HubTls;

#[cfg(test)]
pub(in crate::signalling) use http::AboutReply;
pub(in crate::signalling) use identity::{CHALLENGE, Challenge};
pub use identity::{HubIdentity, Signature};
pub use listen_sockets::ListenAt;
pub(in crate::signalling) use probe::request_version;
pub use probe::{ProbeResult, probe_hub, probe_hub_of};
pub use proxy::{Subnet, SubnetError};
pub use tls::{HubCertificate, TlsError};

/// The message in a client's text, as the rooms get it.
#[cfg(any(fuzzing, test))]
pub(super) fn parse_message(text: &str) -> Option<crate::model::ClientMessage> {
    parse::parse(text).ok()
}

/// The hub's response to these bytes on a connection of their own.
#[cfg(any(fuzzing, test))]
pub(super) fn http_response(request: &[u8]) -> Vec<u8> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime without sockets");
    }
    RUNTIME.with(|runtime| runtime.block_on(http_connection::respond_to_bytes(request)))
}

/// The default port of a hub; programs look for a hub there.
pub const DEFAULT_PORT: u16 = HUB_PORT;

/// The time limit for closing all connections of a hub: that of one connection, with a margin.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Where a hub listens, and how it presents itself.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The addresses and the port.
    pub listen: ListenAt,
    /// Whether to try up to 20 following ports if that one is taken.
    pub next_free_port: bool,
    /// The base URL of session links, if the hub is reached by an address that it cannot know
    /// (behind a proxy, under a name). Requests to its host name are served as well.
    pub public: Option<HubUrl>,
    /// The run of the program that runs the hub; it is not counted as a guest. `None` for a hub
    /// that counts no guests.
    pub host: Option<Instance>,
    /// Where the hub notes the addresses of this machine at which it was reached.
    pub paths: KnownPaths,
    /// Proves to programs of this user that the hub is this user's, and signs owner keys.
    pub identity: HubIdentity,
    /// The trusted proxies in front of the hub, which report the addresses of their clients.
    pub trusted_proxies: Vec<Subnet>,
    /// Who may open sessions. Everybody may join open ones.
    pub opens_for: OpensFor,
    /// The certificate for TLS on the same port; `None` for plain HTTP alone.
    pub certificate: Option<HubCertificate>,
}

/// Who may open sessions at a hub.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum OpensFor {
    /// Every client.
    #[default]
    Everyone,
    /// Programs of the hub's own user.
    Mine,
}

impl HubOptions {
    /// A hub without a host that listens there, calls itself by its address, and has a new
    /// identity.
    pub fn at(listen: ListenAt) -> Self {
        Self {
            listen,
            next_free_port: false,
            public: None,
            host: None,
            paths: KnownPaths::default(),
            identity: HubIdentity::fresh(),
            trusted_proxies: vec![],
            opens_for: OpensFor::default(),
            certificate: None,
        }
    }
}

/// A running hub. Dropping it closes its port and all its connections.
///
/// It runs in tasks of the tokio runtime that it was started in. `PROTOCOL.md` ("Limits") bounds
/// what a client costs that reads too slowly, sends too much or does not speak the protocol; the
/// hub closes its connection, and other clients are not affected.
#[derive(Debug)]
pub struct Hub {
    address: SocketAddr,
    link_base: Arc<LinkBase>,
    /// Tells the rooms' task to close all connections.
    closing: Arc<Notify>,
    guests: watch::Receiver<usize>,
    /// Notified when one of the tasks has ended.
    ended: Arc<Notify>,
    rooms_task: JoinHandle<()>,
    listener_task: JoinHandle<()>,
    /// Keeps [`LinkBase`] up to date.
    address_task: JoinHandle<()>,
    fingerprint: Option<String>,
    /// Loads a changed certificate.
    certificate_task: Option<JoinHandle<()>>,
}

impl Hub {
    /// Opens the port and starts to serve.
    ///
    /// # Errors
    /// [`HubError`] names the address and the way out.
    pub async fn start(options: HubOptions) -> Result<Self, HubError> {
        Self::start_within(options, ConnectionLimits::default()).await
    }

    async fn start_within(options: HubOptions, limits: ConnectionLimits) -> Result<Self, HubError> {
        let listeners = listen_sockets::listen(options.listen, options.next_free_port)?;
        let address = *listeners.addresses.first().expect("a hub listens somewhere");
        let names = host_names(options.public.clone(), address);
        let tls = match options.certificate {
            Some(certificate) => Some(open_tls(certificate, &names, &options.paths).await?),
            None => None,
        };
        let link_base = Arc::new(match options.public {
            Some(public) => LinkBase::fixed(public),
            None => LinkBase::of_listener(&listeners.addresses),
        });
        info!(port = address.port(), "hub listening");
        let mut rooms = Rooms::new(owner_keys::SignedKeys::new(options.identity.clone()));
        if options.opens_for == OpensFor::Mine {
            rooms.restrict_opening_to_own_user();
        }
        let (count, guests) = watch::channel(0);
        let host = options.host.map(|host| (host, count));
        let (actor, events) = rooms_actor::RoomsActor::new(rooms, host, link_base.subscribe());
        let (base, clock, queued_bytes) = (link_base.clone(), actor.clock(), actor.queued_bytes());
        let (paths, identity) = (options.paths, options.identity);
        let (updates, queued_updates) = mpsc::channel(listener::UPDATE_QUEUE);
        let proxies = options.trusted_proxies;
        let fingerprint = tls.as_ref().map(HubTls::fingerprint);
        let certificate_task = tls.clone().map(|tls| tokio::spawn(tls.keep_reloading()));
        let cx = listener::HubCx {
            link_base: base,
            names,
            paths,
            identity,
            limits,
            clock,
            queued_bytes,
            proxies,
            tls,
            events,
            updates,
        };
        let closing = Arc::new(Notify::new());
        let ended = Arc::new(Notify::new());
        let rooms_task = spawn(&ended, "hub's rooms", actor.run(Arc::clone(&closing)));
        let accept = listener::accept(listeners, cx.into(), queued_updates);
        let listener_task = spawn(&ended, "hub's listener", accept);
        let address_task = spawn(&ended, "hub's address", link_base.clone().keep_refreshing());
        Ok(Self {
            address,
            link_base,
            closing,
            guests,
            ended,
            rooms_task,
            listener_task,
            address_task,
            fingerprint,
            certificate_task,
        })
    }

    /// Returns when the hub has failed: one of its tasks has panicked. Drop the hub then, and start
    /// another one.
    pub async fn failed(&self) {
        self.ended.notified().await;
    }

    /// Makes the hub fail when it is called, for a test.
    #[cfg(any(feature = "testing", test))]
    pub fn failure_trigger(&self) -> impl FnOnce() + Send + use<> {
        let rooms = self.rooms_task.abort_handle();
        move || rooms.abort()
    }

    /// The address it listens on; if it listens on all addresses of both families, that of IPv4.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The SHA-256 digest of the certificate that the hub began with, in hexadecimal digits with colons;
    /// `None` without TLS.
    pub fn certificate_fingerprint(&self) -> Option<&str> {
        self.fingerprint.as_deref()
    }

    /// The current base URL of session links.
    pub fn link_base(&self) -> HubUrl {
        self.link_base.current()
    }

    /// The base URL of session links, with its changes: the machine may get another address. It
    /// never changes for a hub with a given public URL.
    pub fn link_bases(&self) -> watch::Receiver<HubUrl> {
        self.link_base.subscribe()
    }

    /// The number of connected guests in sessions of the hub's own user, its host not counted.
    /// Never changes for a hub without a host.
    pub fn guests(&self) -> watch::Receiver<usize> {
        self.guests.clone()
    }

    /// Closes the port, lets every connection send what is queued, and closes them; takes at most a
    /// second and a half.
    pub async fn close(mut self) {
        self.listener_task.abort();
        self.closing.notify_one();
        if timeout(CLOSE_TIMEOUT, &mut self.rooms_task).await.is_err() {
            debug!("some connections did not close in time");
        }
    }
}

/// Starts a task of a hub. `ended` is notified when it ends, however it ends.
fn spawn(
    ended: &Arc<Notify>,
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let ended = NotifyOnDrop(Arc::clone(ended));
    tokio::spawn(async move {
        let _ended = ended;
        // The panic is logged. The hub's owner drops the hub.
        let _ = catch_async(name, task).await;
    })
}

/// Notifies when the task that holds it ends.
struct NotifyOnDrop(Arc<Notify>);

impl Drop for NotifyOnDrop {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.rooms_task.abort();
        self.listener_task.abort();
        self.address_task.abort();
        self.certificate_task.iter().for_each(JoinHandle::abort);
    }
}

/// Why a hub could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// Another program has the port.
    #[error(
        "port {} is in use on {}; choose another with --listen, or use the hub that runs there \
         with --hub", address.port(), address.ip()
    )]
    Taken {
        /// The requested address.
        address: SocketAddr,
    },
    /// Other programs have the port and all those after it that were tried.
    #[error(
        "the ports {} to {last} are all in use on {}; choose another with --listen",
        address.port(), address.ip()
    )]
    AllTaken {
        /// The requested address.
        address: SocketAddr,
        /// The last port that was tried.
        last: u16,
    },
    /// The system does not allow listening there.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// There is no certificate for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Opens the certificate of a hub, on a blocking thread.
async fn open_tls(
    certificate: HubCertificate,
    names: &HostNames,
    paths: &KnownPaths,
) -> Result<HubTls, TlsError> {
    let (names, addresses) = (names.of_machine(), network::candidates(paths));
    let opened = spawn_blocking(move || HubTls::open(certificate, &names, &addresses)).await;
    opened.map_err(|error| TlsError::SelfSigned(error.to_string()))?
}

/// The host names of a hub that listens there.
fn host_names(public: Option<HubUrl>, listening: SocketAddr) -> HostNames {
    let is_near = listening.ip().to_canonical().is_loopback();
    let machine = (!is_near).then(|| gethostname::gethostname().into_string().ok());
    HostNames { public, machine: machine.flatten() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signalling::{Client, ClientEvent, ClientOptions, TokensInMemory};

    fn options(listen: SocketAddr, next_free_port: bool) -> HubOptions {
        HubOptions { next_free_port, ..HubOptions::at(listen.into()) }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_or_the_next_free_one_is_used() {
        let first = Hub::start(options("127.0.0.1:0".parse().unwrap(), false)).await.unwrap();
        let taken = Hub::start(options(first.address(), false)).await.unwrap_err();
        assert!(matches!(taken, HubError::Taken { address } if address == first.address()));
        assert!(taken.to_string().contains("--listen"), "{taken}");
        let next = Hub::start(options(first.address(), true)).await.unwrap();
        let ports =
            first.address().port() + 1..=first.address().port() + listen_sockets::NEXT_PORTS;
        assert!(ports.contains(&next.address().port()), "{}", next.address());
    }

    #[tokio::test]
    async fn a_hub_fails_when_one_of_its_tasks_panics() {
        let (panics, ended) = (async { panic!("planted") }, Arc::new(Notify::new()));
        let task = spawn(&ended, "hub's rooms", panics);
        ended.notified().await;
        task.await.expect("the panic was caught");
        let hub = Hub::start(options("127.0.0.1:0".parse().unwrap(), false)).await.unwrap();
        hub.failure_trigger()();
        hub.failed().await;
    }

    #[tokio::test]
    async fn a_full_hub_refuses_a_client_and_accepts_it_when_there_is_room() {
        let listen = "127.0.0.1:0".parse().unwrap();
        let limits = ConnectionLimits { total: 2, per_source: 2, returning_per_source: 0 };
        let hub = Hub::start_within(options(listen, false), limits).await.unwrap();
        let (events, mut received) = mpsc::channel(16);
        let start = |run| {
            let (hub, instance) = (hub.link_base(), Instance::from_random(run));
            let (name, identity) = (String::new(), None);
            let options = ClientOptions { hub, name, instance, identity, only_own: false };
            Client::start(options, TokensInMemory::default(), events.clone())
        };
        let first = start(1);
        assert!(matches!(received.recv().await, Some(ClientEvent::Up { .. })));
        let _second = start(2);
        assert!(matches!(received.recv().await, Some(ClientEvent::Up { .. })));
        let _third = start(3);
        let Some(ClientEvent::Down { reason }) = received.recv().await else {
            panic!("the hub is full");
        };
        assert!(reason.contains("too many connections"), "{reason}");
        first.close().await;
        assert!(matches!(received.recv().await, Some(ClientEvent::Up { .. })));
    }

    #[tokio::test]
    async fn an_address_of_another_machine_is_named_in_the_error() {
        let error = Hub::start(options("192.0.2.1:0".parse().unwrap(), true)).await.unwrap_err();
        assert!(matches!(error, HubError::Listen { .. }));
        assert!(error.to_string().contains("192.0.2.1"), "{error}");
    }

    #[tokio::test]
    async fn session_links_use_the_given_public_url() {
        let public: HubUrl = "https://hub.example/quintet".parse().unwrap();
        let listen: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let given = HubOptions { public: Some(public.clone()), ..options(listen, false) };
        assert_eq!(Hub::start(given).await.unwrap().link_base(), public);
        let own = Hub::start(options(listen, false)).await.unwrap();
        assert_eq!(own.link_base().as_str(), format!("http://{}", own.address()));
    }
}
