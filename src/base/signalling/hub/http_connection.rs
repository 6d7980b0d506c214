//! One accepted connection: its HTTP requests, one after the other, and the WebSocket that the last
//! one may begin.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use hyper::{
    HeaderMap, Request, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task,
    time::{Instant, sleep_until},
};
use tracing::debug;

use super::{
    connection::{self, ConnectionInfo},
    connection_limiter::Admit,
    http::{self, HttpResponse, Refusal, Reply},
    identity::Challenge,
    link_base::source_prefix,
    listener::{ConnectionUpdate, HubCx},
    proxy,
    request_head::{HeadFindings, HeadInspector},
    rooms_link::RoomsLink,
    tls::{Accepted, PlainHttp},
};
use crate::signalling::rooms::ConnectionId;

/// The time limit for the head of a request, from the end of the response before it: a connection
/// may be idle for so long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// The time limit for a whole request, until it is answered or upgraded.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection stays open for further requests, and how many it has. A page and its files
/// come within seconds; afterwards the connection would take the place of a WebSocket.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MAX_REQUESTS: u32 = 100;

/// The longest head of a request, in bytes: browsers and proxies send some hundreds.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// The most header fields of a request.
const MAX_HEADERS: usize = 64;

/// The hub's challenge to a client that asked for a proof, and the address at which the client
/// reached the hub.
pub(super) type SentChallenge = Option<(Challenge, SocketAddr)>;

/// An accepted connection before its first request.
#[derive(Clone, Copy, Debug)]
pub(super) struct IncomingConnection {
    /// The id of the connection.
    pub(super) id: ConnectionId,
    /// The address that limits count for.
    pub(super) source: IpAddr,
    /// Whether a trusted proxy made it. It then counts for the client of its only request.
    pub(super) is_proxy: bool,
    /// Whether it is within the limits.
    pub(super) admit: Admit,
    /// Whether its requests are redirected to `https`.
    pub(super) must_use_tls: bool,
}

/// A connection while it speaks HTTP.
struct HttpConnection {
    cx: Arc<HubCx>,
    incoming: IncomingConnection,
    /// The address at which the client reached the hub.
    reached: Option<SocketAddr>,
    heads: Arc<HeadFindings>,
    since: Instant,
    /// The number of requests so far.
    requests: AtomicU32,
    /// When the current request must have been answered.
    deadline: watch::Sender<Instant>,
    /// Takes the WebSocket that a request has begun.
    upgrades: mpsc::Sender<(OnUpgrade, ConnectionInfo)>,
}

/// Answers the requests of a connection, with or without TLS, and runs the WebSocket if one of them is
/// an upgrade.
pub(super) async fn serve(stream: TcpStream, incoming: IncomingConnection, cx: Arc<HubCx>) {
    // Signals are small and wait for each other: they are sent without delay.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let reached = stream.local_addr().ok();
    if let Some(reached) = reached {
        cx.paths.record_local(reached.ip());
    }
    let Some(tls) = &cx.tls else { return serve_http(stream, (incoming, reached), cx).await };
    match tls.accept(stream).await {
        Ok(Accepted::Tls(stream)) => serve_http(*stream, (incoming, reached), cx).await,
        Ok(Accepted::Plain(stream)) => {
            let is_near = incoming.source.is_loopback();
            let must_use_tls = tls.plain() == PlainHttp::Redirected && !is_near;
            let incoming = IncomingConnection { must_use_tls, ..incoming };
            serve_http(stream, (incoming, reached), cx).await;
        }
        Err(error) => debug!(connection = incoming.id.0, %error, "no TLS"),
    }
}

/// Does the same on a stream that carries HTTP.
async fn serve_http<S>(
    stream: S,
    (incoming, reached): (IncomingConnection, Option<SocketAddr>),
    cx: Arc<HubCx>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (stream, heads) = HeadInspector::new(stream);
    let (upgrades, mut upgraded) = mpsc::channel(1);
    let since = Instant::now();
    let http = HttpConnection {
        cx: cx.clone(),
        incoming,
        reached,
        heads,
        since,
        requests: AtomicU32::new(0),
        deadline: watch::Sender::new(since + REQUEST_TIMEOUT),
        upgrades,
    };
    if let Err(error) = http.run(stream).await {
        return debug!(connection = incoming.id.0, %error, "request failed");
    }
    let Ok((upgrade, info)) = upgraded.try_recv() else { return };
    match upgrade.await {
        Ok(upgraded) => connection::run(TokioIo::new(upgraded), info, &cx).await,
        Err(error) => debug!(connection = incoming.id.0, %error, "upgrade failed"),
    }
}

/// Why a connection is closed before its last response.
#[derive(Debug, thiserror::Error)]
enum HttpError {
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    #[error("a request took too long")]
    TimedOut,
}

impl HttpConnection {
    /// Runs until the connection is closed or upgraded, or until a request takes too long.
    async fn run<S>(&self, stream: S) -> Result<(), HttpError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request| self.respond(request));
        let requests = http_server().serve_connection(TokioIo::new(stream), service);
        let mut requests = pin!(requests.with_upgrades());
        loop {
            let deadline = *self.deadline.borrow();
            tokio::select! {
                ended = &mut requests => return Ok(ended?),
                // Another request may have begun meanwhile.
                () = sleep_until(deadline) => if *self.deadline.borrow() == deadline {
                    return Err(HttpError::TimedOut);
                }
            }
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Result<HttpResponse, Infallible> {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        self.deadline.send_replace(Instant::now() + REQUEST_TIMEOUT);
        let may_stay = self.may_stay_open(number, request.headers());
        let mut response = match self.answer(number, request).await {
            Ok(response) => response,
            Err(refusal) => refusal.into_response(),
        };
        let is_upgrade = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let stays_open = is_upgrade || (may_stay && response.status().is_success());
        if !stays_open {
            http::close_after(&mut response);
        }
        Ok(response)
    }

    /// Whether another request may follow this one.
    ///
    /// A proxy would send those of other clients, and after a body the next head cannot be
    /// inspected.
    fn may_stay_open(&self, number: u32, headers: &HeaderMap) -> bool {
        !self.incoming.is_proxy
            && !http::has_body_fields(headers)
            && number + 1 < MAX_REQUESTS
            && self.since.elapsed() < KEEP_ALIVE
    }

    async fn answer(
        &self,
        number: u32,
        request: Request<Incoming>,
    ) -> Result<HttpResponse, Refusal> {
        if self.heads.is_bad(number) {
            return Err(Refusal::BareLineFeed);
        }
        if self.incoming.must_use_tls {
            return http::redirect_to_tls(&request, &self.cx.names);
        }
        let incoming = self.incoming.resolve_proxy(request.headers(), &self.cx).await;
        if incoming.admit == Admit::Refused {
            return Err(Refusal::TooManyConnections);
        }
        let proof = self
            .reached
            .and_then(|at| Some((self.cx.identity.answer_challenge(request.headers(), at)?, at)));
        let link = RoomsLink { id: incoming.id, source: incoming.source, cx: &self.cx };
        let (mut response, upgrade) = match http::respond(request, &link).await {
            Reply::Response(_) if incoming.admit == Admit::ReturningOnly => {
                return Err(Refusal::TooManyConnections);
            }
            Reply::Response(response) => (response, None),
            Reply::WebSocket(response, upgrade) => (response, Some(upgrade)),
        };
        let challenge = proof.map(|((fields, challenge), at)| {
            response.headers_mut().extend(fields);
            (challenge, at)
        });
        if let Some(upgrade) = upgrade {
            self.heads.stop();
            let must_return = incoming.admit == Admit::ReturningOnly;
            let (id, source) = (incoming.id, incoming.source);
            let info = ConnectionInfo { id, source, challenge, must_return };
            // A connection is upgraded once, so there is room.
            let _ = self.upgrades.try_send((upgrade, info));
        }
        Ok(response)
    }
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

/// The responses to arbitrary bytes.
#[cfg(any(fuzzing, test))]
pub(super) async fn respond_to_bytes(requests: &[u8]) -> Vec<u8> {
    use std::net::Ipv4Addr;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

    let (client, server_end) = duplex(requests.len().max(64 * 1024));
    let (stream, heads) = HeadInspector::new(server_end);
    let (source, since) = (Ipv4Addr::LOCALHOST.into(), Instant::now());
    let http = HttpConnection {
        cx: HubCx::detached("http://192.0.2.1:7340", "machine").into(),
        incoming: IncomingConnection {
            id: ConnectionId(0),
            source,
            is_proxy: false,
            admit: Admit::Allowed,
            must_use_tls: false,
        },
        reached: None,
        heads,
        since,
        requests: AtomicU32::new(0),
        deadline: watch::Sender::new(since + REQUEST_TIMEOUT),
        upgrades: mpsc::channel(1).0,
    };
    let (mut from_hub, mut to_hub) = split(client);
    let writing = async {
        // A server that refuses the first part does not read the remainder.
        let _ = to_hub.write_all(requests).await;
        let _ = to_hub.shutdown().await;
    };
    let mut responses = vec![];
    let reading = async {
        let _ = from_hub.read_to_end(&mut responses).await;
    };
    let (_, (), ()) = tokio::join!(http.run(stream), writing, reading);
    responses
}
