//! Accepts connections, answers HTTP requests, and upgrades to WebSockets.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{
    HeaderMap, Request, body::Incoming, server::conn::http1, service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    task::{self, Id, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    address::{LinkBase, source},
    admission::Names,
    crowd::{Crowd, Welcome},
    desk::{Clock, Word},
    head::Watched,
    http,
    identity::{Challenge, HubIdentity},
    limits::Links,
    link::{self, Visitor},
    listen::Listeners,
    proxy::{self, Subnet},
};
use crate::{network::KnownPaths, signalling::rooms::LinkId};

/// The time limit for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// The time limit for a whole request, until it is answered or upgraded.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// The longest head of a request, in bytes: browsers and proxies send some hundreds.
const MAX_HEAD: usize = 8 * 1024;

/// The most header fields of a request.
const MAX_HEADERS: usize = 64;

/// The pause after a failed accept: the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The context of all connections of a hub.
#[derive(Debug)]
pub(super) struct Site {
    /// The base URL of session links.
    pub(super) link_base: Arc<LinkBase>,
    /// The host names of the hub.
    pub(super) names: Names,
    /// Where the hub notes the addresses at which it was reached.
    pub(super) paths: KnownPaths,
    /// Proves whose hub it is.
    pub(super) identity: HubIdentity,
    /// The limits for connections.
    pub(super) limits: Links,
    /// The hub's clock.
    pub(super) clock: Clock,
    /// Bytes that wait in all outboxes together.
    pub(super) held: Arc<AtomicUsize>,
    /// The trusted proxies, which report the addresses of their clients.
    pub(super) proxies: Vec<Subnet>,
    /// To the rooms' task.
    pub(super) inputs: mpsc::Sender<(LinkId, Word)>,
    /// To the accept loop, which owns the connection limiter.
    pub(super) claims: mpsc::Sender<Claim>,
}

/// What becomes known about a connection after it was counted.
#[derive(Debug)]
pub(super) enum Claim {
    /// A trusted proxy reports the client; the channel takes the new decision.
    IsFor(Id, IpAddr, oneshot::Sender<Welcome>),
    /// The client has a seat and returns.
    IsBack(Id),
}

/// The most updates that wait for the accept loop; further connections wait to send theirs.
pub(super) const CLAIMS: usize = 64;

/// Accepts connections until it is dropped; then all of them are closed.
pub(super) async fn accept(
    mut listeners: Listeners,
    cx: Arc<Site>,
    mut updates: mpsc::Receiver<Claim>,
) {
    let mut limiter = Crowd::new(cx.limits);
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, address) = loop {
            tokio::select! {
                accepted = listeners.accept() => match accepted {
                    Ok(accepted) => break accepted,
                    Err(error) => rest(&error).await,
                },
                Some(ended) = connections.join_next_with_id() => {
                    limiter.left(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                Some(update) = updates.recv() => match update {
                    Claim::IsFor(id, client, answer) => {
                        // The connection may have ended meanwhile.
                        let _ = answer.send(limiter.is_for(id, client));
                    }
                    Claim::IsBack(id) => limiter.is_back(id),
                },
            }
        };
        let is_proxy = proxy::is_trusted(&cx.proxies, address.ip());
        let source_ip = source(address.ip());
        let counted = (!is_proxy).then_some(source_ip);
        let Some(admit) = limiter.welcome(counted) else { continue };
        let incoming = Visit { link: LinkId(number), from: source_ip, is_proxy, welcome: admit };
        let task = connections.spawn(serve(stream, incoming, cx.clone()));
        limiter.came(task.id(), counted, admit);
    }
}

/// An accepted connection before its request.
#[derive(Clone, Copy, Debug)]
struct Visit {
    link: LinkId,
    /// The address that limits count for.
    from: IpAddr,
    /// Whether a trusted proxy made it and has not reported the client yet.
    is_proxy: bool,
    welcome: Welcome,
}

/// The hub's challenge to a client that asked for a proof, and the address at which the client
/// reached the hub.
pub(super) type Asked = Option<(Challenge, SocketAddr)>;

/// Answers one request, and runs the WebSocket if the request is an upgrade.
async fn serve(stream: TcpStream, incoming: Visit, cx: Arc<Site>) {
    // Signals are small and wait for each other: they are sent without delay.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let reached = stream.local_addr().ok();
    if let Some(reached) = reached {
        cx.paths.note_own(reached.ip());
    }
    let (stream, has_bare_line_feed) = Watched::new(stream);
    let (upgrades, mut upgraded) = mpsc::channel::<(OnUpgrade, Visitor)>(1);
    let service = service_fn(|request: Request<Incoming>| {
        let (cx, upgrades, has_bare_line_feed) = (&cx, &upgrades, &has_bare_line_feed);
        async move {
            if has_bare_line_feed.load(Ordering::Relaxed) {
                return Ok(http::bare_feed());
            }
            let incoming = incoming.behind_proxy(request.headers(), cx).await;
            if incoming.welcome == Welcome::Refused {
                return Ok(http::too_many());
            }
            let proof =
                reached.and_then(|at| Some((cx.identity.answer(request.headers(), at)?, at)));
            let (mut response, upgrade) = http::respond(request, &cx.link_base.newest(), &cx.names);
            if incoming.welcome == Welcome::Reserved && upgrade.is_none() {
                return Ok(http::too_many());
            }
            let challenge = proof.map(|((fields, challenge), at)| {
                response.headers_mut().extend(fields);
                (challenge, at)
            });
            if let Some(upgrade) = upgrade {
                let must_return = incoming.welcome == Welcome::Reserved;
                let (id, source) = (incoming.link, incoming.from);
                let info = Visitor { link: id, source, asked: challenge, must_return };
                // A connection has one request, so there is room.
                let _ = upgrades.try_send((upgrade, info));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = server().serve_connection(TokioIo::new(stream), service).with_upgrades();
    match timeout(REQUEST_PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return debug!(connection = incoming.link.0, %error, "request failed"),
        Err(_) => return debug!(connection = incoming.link.0, "request timed out"),
    }
    let Ok((upgrade, info)) = upgraded.try_recv() else { return };
    match upgrade.await {
        Ok(upgraded) => link::run(TokioIo::new(upgraded), info, &cx).await,
        Err(error) => debug!(connection = incoming.link.0, %error, "upgrade failed"),
    }
}

/// The HTTP server with its limits.
fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    server
}

/// The response to arbitrary bytes.
#[cfg(any(fuzzing, test))]
pub(super) async fn answer(request: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

    let (client, server_end) = duplex(request.len().max(64 * 1024));
    let (stream, has_bare_line_feed) = Watched::new(server_end);
    let base = "http://192.0.2.1:7340".parse().expect("an address");
    let names = Names { public: None, machine: Some("machine".to_owned()) };
    let service = service_fn(|request: Request<Incoming>| {
        let response = match has_bare_line_feed.load(Ordering::Relaxed) {
            true => http::bare_feed(),
            false => http::respond(request, &base, &names).0,
        };
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let connection = server().serve_connection(TokioIo::new(stream), service).with_upgrades();
    let (mut responses, mut requests) = split(client);
    let writing = async {
        // A server that refuses the first part does not read the remainder.
        let _ = requests.write_all(request).await;
        let _ = requests.shutdown().await;
    };
    let mut response = vec![];
    let reading = async {
        let _ = responses.read_to_end(&mut response).await;
    };
    let (_, (), ()) = tokio::join!(timeout(REQUEST_PATIENCE, connection), writing, reading);
    response
}

impl Visit {
    /// Counts the connection for the client that a trusted proxy reports.
    async fn behind_proxy(self, headers: &HeaderMap, cx: &Site) -> Self {
        let client = proxy::client(headers, &cx.proxies).filter(|_| self.is_proxy);
        let Some(client) = client.map(source) else { return self };
        let (answer, admit) = oneshot::channel();
        // The accept loop ends with the hub.
        let _ = cx.claims.send(Claim::IsFor(task::id(), client, answer)).await;
        Self { from: client, welcome: admit.await.unwrap_or(Welcome::Refused), ..self }
    }
}

async fn rest(error: &io::Error) {
    warn!(%error, "accept failed");
    sleep(ACCEPT_PAUSE).await;
}
