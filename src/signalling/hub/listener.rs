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
    connection::{self, ConnectionInfo},
    connection_limiter::{Admit, ConnectionLimiter},
    host_and_origin::HostNames,
    http,
    identity::{Challenge, HubIdentity},
    limits::ConnectionLimits,
    link_base::{LinkBase, source_prefix},
    listen_sockets::Listeners,
    proxy::{self, Subnet},
    request_head::HeadInspector,
    rooms_actor::{Clock, ConnectionEvent},
};
use crate::{network::KnownPaths, signalling::rooms::ConnectionId};

/// The time limit for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for a whole request, until it is answered or upgraded.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head of a request, in bytes: browsers and proxies send some hundreds.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The most header fields of a request.
const MAX_HEADERS: usize = 64;

/// The pause after a failed accept: the system is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The context of all connections of a hub.
#[derive(Debug)]
pub(super) struct HubCx {
    /// The base URL of session links.
    pub(super) link_base: Arc<LinkBase>,
    /// The host names of the hub.
    pub(super) names: HostNames,
    /// Where the hub notes the addresses at which it was reached.
    pub(super) paths: KnownPaths,
    /// Proves whose hub it is.
    pub(super) identity: HubIdentity,
    /// The limits for connections.
    pub(super) limits: ConnectionLimits,
    /// The hub's clock.
    pub(super) clock: Clock,
    /// Bytes that wait in all outboxes together.
    pub(super) queued_bytes: Arc<AtomicUsize>,
    /// The trusted proxies, which report the addresses of their clients.
    pub(super) proxies: Vec<Subnet>,
    /// To the rooms' task.
    pub(super) events: mpsc::Sender<(ConnectionId, ConnectionEvent)>,
    /// To the accept loop, which owns the connection limiter.
    pub(super) updates: mpsc::Sender<ConnectionUpdate>,
}

/// What becomes known about a connection after it was counted.
#[derive(Debug)]
pub(super) enum ConnectionUpdate {
    /// A trusted proxy reports the client; the channel takes the new decision.
    ForwardedFor(Id, IpAddr, oneshot::Sender<Admit>),
    /// The client has a seat and returns.
    Returned(Id),
}

/// The most updates that wait for the accept loop; further connections wait to send theirs.
pub(super) const UPDATE_QUEUE: usize = 64;

/// Accepts connections until it is dropped; then all of them are closed.
pub(super) async fn accept(
    mut listeners: Listeners,
    cx: Arc<HubCx>,
    mut updates: mpsc::Receiver<ConnectionUpdate>,
) {
    let mut limiter = ConnectionLimiter::new(cx.limits);
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, address) = loop {
            tokio::select! {
                accepted = listeners.accept() => match accepted {
                    Ok(accepted) => break accepted,
                    Err(error) => pause_after(&error).await,
                },
                Some(ended) = connections.join_next_with_id() => {
                    limiter.remove(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                Some(update) = updates.recv() => match update {
                    ConnectionUpdate::ForwardedFor(id, client, answer) => {
                        // The connection may have ended meanwhile.
                        let _ = answer.send(limiter.set_client(id, client));
                    }
                    ConnectionUpdate::Returned(id) => limiter.set_returned(id),
                },
            }
        };
        let is_proxy = proxy::is_trusted(&cx.proxies, address.ip());
        let source_ip = source_prefix(address.ip());
        let counted = (!is_proxy).then_some(source_ip);
        let Some(admit) = limiter.admit(counted) else { continue };
        let incoming =
            IncomingConnection { id: ConnectionId(number), source: source_ip, is_proxy, admit };
        let task = connections.spawn(serve(stream, incoming, cx.clone()));
        limiter.add(task.id(), counted, admit);
    }
}

/// An accepted connection before its request.
#[derive(Clone, Copy, Debug)]
struct IncomingConnection {
    id: ConnectionId,
    /// The address that limits count for.
    source: IpAddr,
    /// Whether a trusted proxy made it and has not reported the client yet.
    is_proxy: bool,
    admit: Admit,
}

/// The hub's challenge to a client that asked for a proof, and the address at which the client
/// reached the hub.
pub(super) type SentChallenge = Option<(Challenge, SocketAddr)>;

/// Answers one request, and runs the WebSocket if the request is an upgrade.
async fn serve(stream: TcpStream, incoming: IncomingConnection, cx: Arc<HubCx>) {
    // Signals are small and wait for each other: they are sent without delay.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let reached = stream.local_addr().ok();
    if let Some(reached) = reached {
        cx.paths.record_local(reached.ip());
    }
    let (stream, has_bare_line_feed) = HeadInspector::new(stream);
    let (upgrades, mut upgraded) = mpsc::channel::<(OnUpgrade, ConnectionInfo)>(1);
    let service = service_fn(|request: Request<Incoming>| {
        let (cx, upgrades, has_bare_line_feed) = (&cx, &upgrades, &has_bare_line_feed);
        async move {
            if has_bare_line_feed.load(Ordering::Relaxed) {
                return Ok(http::bare_line_feed());
            }
            let incoming = incoming.resolve_proxy(request.headers(), cx).await;
            if incoming.admit == Admit::Refused {
                return Ok(http::too_many_connections());
            }
            let proof = reached
                .and_then(|at| Some((cx.identity.answer_challenge(request.headers(), at)?, at)));
            let (mut response, upgrade) =
                http::respond(request, &cx.link_base.current(), &cx.names);
            if incoming.admit == Admit::ReturningOnly && upgrade.is_none() {
                return Ok(http::too_many_connections());
            }
            let challenge = proof.map(|((fields, challenge), at)| {
                response.headers_mut().extend(fields);
                (challenge, at)
            });
            if let Some(upgrade) = upgrade {
                let must_return = incoming.admit == Admit::ReturningOnly;
                let (id, source) = (incoming.id, incoming.source);
                let info = ConnectionInfo { id, source, challenge, must_return };
                // A connection has one request, so there is room.
                let _ = upgrades.try_send((upgrade, info));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = http_server().serve_connection(TokioIo::new(stream), service).with_upgrades();
    match timeout(REQUEST_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return debug!(connection = incoming.id.0, %error, "request failed"),
        Err(_) => return debug!(connection = incoming.id.0, "request timed out"),
    }
    let Ok((upgrade, info)) = upgraded.try_recv() else { return };
    match upgrade.await {
        Ok(upgraded) => connection::run(TokioIo::new(upgraded), info, &cx).await,
        Err(error) => debug!(connection = incoming.id.0, %error, "upgrade failed"),
    }
}

/// The HTTP server with its limits.
fn http_server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    server
}

/// The response to arbitrary bytes.
#[cfg(any(fuzzing, test))]
pub(super) async fn respond_to_bytes(request: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

    let (client, server_end) = duplex(request.len().max(64 * 1024));
    let (stream, has_bare_line_feed) = HeadInspector::new(server_end);
    let base = "http://192.0.2.1:7340".parse().expect("an address");
    let names = HostNames { public: None, machine: Some("machine".to_owned()) };
    let service = service_fn(|request: Request<Incoming>| {
        let response = match has_bare_line_feed.load(Ordering::Relaxed) {
            true => http::bare_line_feed(),
            false => http::respond(request, &base, &names).0,
        };
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let connection = http_server().serve_connection(TokioIo::new(stream), service).with_upgrades();
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
    let (_, (), ()) = tokio::join!(timeout(REQUEST_TIMEOUT, connection), writing, reading);
    response
}

impl IncomingConnection {
    /// Counts the connection for the client that a trusted proxy reports.
    async fn resolve_proxy(self, headers: &HeaderMap, cx: &HubCx) -> Self {
        let client = proxy::forwarded_client(headers, &cx.proxies).filter(|_| self.is_proxy);
        let Some(client) = client.map(source_prefix) else { return self };
        let (answer, admit) = oneshot::channel();
        // The accept loop ends with the hub.
        let _ = cx.updates.send(ConnectionUpdate::ForwardedFor(task::id(), client, answer)).await;
        Self { source: client, admit: admit.await.unwrap_or(Admit::Refused), ..self }
    }
}

async fn pause_after(error: &io::Error) {
    warn!(%error, "accept failed");
    sleep(ACCEPT_PAUSE).await;
}
