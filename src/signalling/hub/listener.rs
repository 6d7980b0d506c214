//! The port: who may connect, and what becomes of a connection.

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

/// How long a client may take for the head of its request.
const HEAD_PATIENCE: Duration = Duration::from_secs(5);

/// How long a request may take altogether, until it is answered or upgraded.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);

/// The longest head of a request, in bytes: browsers and proxies send some hundreds.
const MAX_HEAD: usize = 8 * 1024;

/// The most header fields of a request.
const MAX_HEADERS: usize = 64;

/// A pause after the system would not give a connection: it is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What all connections of a hub share.
#[derive(Debug)]
pub(super) struct Site {
    /// What links start with.
    pub(super) link_base: Arc<LinkBase>,
    /// The names by which it may be addressed.
    pub(super) names: Names,
    /// Where it is noted on which addresses the hub is reached.
    pub(super) paths: KnownPaths,
    /// What proves whose hub it is.
    pub(super) identity: HubIdentity,
    /// How many connections there may be.
    pub(super) limits: Links,
    /// The time.
    pub(super) clock: Clock,
    /// Bytes that wait for all links together.
    pub(super) held: Arc<AtomicUsize>,
    /// The proxies that tell whom a connection is for.
    pub(super) proxies: Vec<Subnet>,
    /// The way to the rooms.
    pub(super) inputs: mpsc::Sender<(LinkId, Word)>,
    /// The way to who counts the connections.
    pub(super) claims: mpsc::Sender<Claim>,
}

/// What turns out about a connection after it was counted.
#[derive(Debug)]
pub(super) enum Claim {
    /// A trusted proxy has said whom it is for; what that one may expect.
    IsFor(Id, IpAddr, oneshot::Sender<Welcome>),
    /// It is of somebody who has a seat and has come back.
    IsBack(Id),
}

/// Claims that wait to be counted; those who make more wait.
pub(super) const CLAIMS: usize = 64;

/// Accepts connections until it is dropped; then all of them are closed.
pub(super) async fn accept(
    mut listeners: Listeners,
    site: Arc<Site>,
    mut claims: mpsc::Receiver<Claim>,
) {
    let mut crowd = Crowd::new(site.limits);
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, address) = loop {
            tokio::select! {
                accepted = listeners.accept() => match accepted {
                    Ok(accepted) => break accepted,
                    Err(error) => rest(&error).await,
                },
                Some(ended) = connections.join_next_with_id() => {
                    crowd.left(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                Some(claim) = claims.recv() => match claim {
                    Claim::IsFor(id, client, answer) => {
                        // Who is gone meanwhile does not want to know.
                        let _ = answer.send(crowd.is_for(id, client));
                    }
                    Claim::IsBack(id) => crowd.is_back(id),
                },
            }
        };
        let is_proxy = proxy::is_trusted(&site.proxies, address.ip());
        let from = source(address.ip());
        let counted = (!is_proxy).then_some(from);
        let Some(welcome) = crowd.welcome(counted) else { continue };
        let visit = Visit { link: LinkId(number), from, is_proxy, welcome };
        let task = connections.spawn(serve(stream, visit, site.clone()));
        crowd.came(task.id(), counted, welcome);
    }
}

/// One connection, before it is known what it wants.
#[derive(Clone, Copy, Debug)]
struct Visit {
    link: LinkId,
    /// Whose limits concern it.
    from: IpAddr,
    /// A trusted proxy has made it, and has not said yet whom it is for.
    is_proxy: bool,
    welcome: Welcome,
}

/// What a client was asked when it asked whose hub this is, and where it reached the hub.
pub(super) type Asked = Option<(Challenge, SocketAddr)>;

/// Answers one request, and goes on as a link if it asked for that.
async fn serve(stream: TcpStream, visit: Visit, site: Arc<Site>) {
    // Signals are small and wait for each other: they are sent at once.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "no TCP_NODELAY");
    }
    let reached = stream.local_addr().ok();
    if let Some(reached) = reached {
        site.paths.note_own(reached.ip());
    }
    let (stream, has_bare_feed) = Watched::new(stream);
    let (upgrades, mut upgraded) = mpsc::channel::<(OnUpgrade, Visitor)>(1);
    let service = service_fn(|request: Request<Incoming>| {
        let (site, upgrades, has_bare_feed) = (&site, &upgrades, &has_bare_feed);
        async move {
            if has_bare_feed.load(Ordering::Relaxed) {
                return Ok(http::bare_feed());
            }
            let visit = visit.behind_proxy(request.headers(), site).await;
            if visit.welcome == Welcome::Refused {
                return Ok(http::too_many());
            }
            let proof =
                reached.and_then(|at| Some((site.identity.answer(request.headers(), at)?, at)));
            let (mut response, upgrade) =
                http::respond(request, &site.link_base.newest(), &site.names);
            if visit.welcome == Welcome::Reserved && upgrade.is_none() {
                return Ok(http::too_many());
            }
            let asked = proof.map(|((fields, challenge), at)| {
                response.headers_mut().extend(fields);
                (challenge, at)
            });
            if let Some(upgrade) = upgrade {
                let must_return = visit.welcome == Welcome::Reserved;
                let (link, source) = (visit.link, visit.from);
                let visitor = Visitor { link, source, asked, must_return };
                // There is one request on a connection, so there is room.
                let _ = upgrades.try_send((upgrade, visitor));
            }
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let connection = server().serve_connection(TokioIo::new(stream), service).with_upgrades();
    match timeout(REQUEST_PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return debug!(link = visit.link.0, %error, "request failed"),
        Err(_) => return debug!(link = visit.link.0, "request took too long"),
    }
    let Ok((upgrade, visitor)) = upgraded.try_recv() else { return };
    match upgrade.await {
        Ok(upgraded) => link::run(TokioIo::new(upgraded), visitor, &site).await,
        Err(error) => debug!(link = visit.link.0, %error, "upgrade failed"),
    }
}

/// How requests are read.
fn server() -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS);
    server
}

/// What is answered to these bytes, whatever they are.
#[cfg(any(fuzzing, test))]
pub(super) async fn answer(request: &[u8]) -> Vec<u8> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex, split};

    let (near, far) = duplex(request.len().max(64 * 1024));
    let (stream, has_bare_feed) = Watched::new(far);
    let base = "http://192.0.2.1:7340".parse().expect("an address");
    let names = Names { public: None, machine: Some("machine".to_owned()) };
    let service = service_fn(|request: Request<Incoming>| {
        let answer = match has_bare_feed.load(Ordering::Relaxed) {
            true => http::bare_feed(),
            false => http::respond(request, &base, &names).0,
        };
        std::future::ready(Ok::<_, std::convert::Infallible>(answer))
    });
    let connection = server().serve_connection(TokioIo::new(stream), service).with_upgrades();
    let (mut answers, mut asks) = split(near);
    let asking = async {
        // A server that has refused the first part does not read the rest.
        let _ = asks.write_all(request).await;
        let _ = asks.shutdown().await;
    };
    let mut answer = vec![];
    let reading = async {
        let _ = answers.read_to_end(&mut answer).await;
    };
    let (_, (), ()) = tokio::join!(timeout(REQUEST_PATIENCE, connection), asking, reading);
    answer
}

impl Visit {
    /// The same, counted as that of the client whom a trusted proxy names.
    async fn behind_proxy(self, headers: &HeaderMap, site: &Site) -> Self {
        let client = proxy::client(headers, &site.proxies).filter(|_| self.is_proxy);
        let Some(from) = client.map(source) else { return self };
        let (answer, told) = oneshot::channel();
        // Who counts ends with the hub.
        let _ = site.claims.send(Claim::IsFor(task::id(), from, answer)).await;
        Self { from, welcome: told.await.unwrap_or(Welcome::Refused), ..self }
    }
}

async fn rest(error: &io::Error) {
    warn!(%error, "cannot take a connection");
    sleep(ACCEPT_PAUSE).await;
}
