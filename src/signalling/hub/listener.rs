//! The port: who may connect, and what becomes of a connection.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn, upgrade::OnUpgrade};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    task::{Id, JoinSet},
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    address::{LinkBase, source},
    admission::Names,
    desk::{Clock, Word},
    http,
    identity::{Challenge, HubIdentity},
    limits::Links,
    link,
    listen::Listeners,
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

/// Connections beyond the limits that are told so at a time; others are closed without a word.
const MAX_REFUSALS: usize = 64;

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
    /// The way to the rooms.
    pub(super) inputs: mpsc::Sender<(LinkId, Word)>,
}

/// Accepts connections until it is dropped; then all of them are closed.
pub(super) async fn accept(mut listeners: Listeners, site: Arc<Site>) {
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
            }
        };
        let from = source(address.ip());
        let Some(welcome) = crowd.welcome(from) else { continue };
        let visit = Visit { link: LinkId(number), from, is_refused: welcome == Welcome::Refused };
        let task = connections.spawn(serve(stream, visit, site.clone()));
        crowd.came(task.id(), from, welcome);
    }
}

/// One connection, before it is known what it wants.
#[derive(Clone, Copy, Debug)]
struct Visit {
    link: LinkId,
    from: IpAddr,
    is_refused: bool,
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
    let (upgrades, mut upgraded) = mpsc::channel::<(OnUpgrade, Asked)>(1);
    let service = service_fn(|request| {
        let asks: &hyper::Request<_> = &request;
        let proof = reached
            .filter(|_| !visit.is_refused)
            .and_then(|at| Some((site.identity.answer(asks.headers(), at)?, at)));
        let (mut response, upgrade) = match visit.is_refused {
            true => (http::too_many(), None),
            false => http::respond(request, &site.link_base.newest(), &site.names),
        };
        let asked = proof.map(|((fields, challenge), at)| {
            response.headers_mut().extend(fields);
            (challenge, at)
        });
        if let Some(upgrade) = upgrade {
            // There is one request on a connection, so there is room.
            let _ = upgrades.try_send((upgrade, asked));
        }
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    match timeout(REQUEST_PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return debug!(link = visit.link.0, %error, "request failed"),
        Err(_) => return debug!(link = visit.link.0, "request took too long"),
    }
    let Ok((upgrade, asked)) = upgraded.try_recv() else { return };
    match upgrade.await {
        Ok(upgraded) => {
            let visitor = (visit.link, visit.from, asked);
            link::run(TokioIo::new(upgraded), visitor, &site).await;
        }
        Err(error) => debug!(link = visit.link.0, %error, "upgrade failed"),
    }
}

async fn rest(error: &io::Error) {
    warn!(%error, "cannot take a connection");
    sleep(ACCEPT_PAUSE).await;
}

/// Who is connected.
#[derive(Debug)]
struct Crowd {
    limits: Links,
    visits: BTreeMap<Id, (IpAddr, Welcome)>,
    links: BTreeMap<IpAddr, usize>,
    refusals: usize,
}

/// Whether a connection is within the limits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Welcome {
    Served,
    Refused,
}

impl Crowd {
    fn new(limits: Links) -> Self {
        Self { limits, visits: BTreeMap::new(), links: BTreeMap::new(), refusals: 0 }
    }

    /// What a connection from there may expect; `None` if not even a refusal.
    fn welcome(&self, from: IpAddr) -> Option<Welcome> {
        let (all, here) = (self.visits.len(), self.links.get(&from).copied().unwrap_or(0));
        let is_crowded = here >= self.limits.per_source && !from.is_loopback();
        if all - self.refusals < self.limits.all && !is_crowded {
            return Some(Welcome::Served);
        }
        (self.refusals < MAX_REFUSALS).then_some(Welcome::Refused)
    }

    fn came(&mut self, id: Id, from: IpAddr, welcome: Welcome) {
        self.visits.insert(id, (from, welcome));
        match welcome {
            Welcome::Served => *self.links.entry(from).or_default() += 1,
            Welcome::Refused => self.refusals += 1,
        }
    }

    fn left(&mut self, id: Id) {
        let Some((from, welcome)) = self.visits.remove(&id) else { return };
        match welcome {
            Welcome::Refused => self.refusals -= 1,
            Welcome::Served => {
                let Some(links) = self.links.get_mut(&from) else { return };
                *links -= 1;
                if *links == 0 {
                    self.links.remove(&from);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn visit(crowd: &mut Crowd, from: &str) -> (Option<Welcome>, Id) {
        let from = from.parse().unwrap();
        let id = tokio::spawn(async {}).id();
        let welcome = crowd.welcome(from);
        if let Some(welcome) = welcome {
            crowd.came(id, from, welcome);
        }
        (welcome, id)
    }

    #[tokio::test]
    async fn one_address_has_64_links_this_machine_has_4096_and_there_are_no_more() {
        let mut crowd = Crowd::new(Links::default());
        let mut first = None;
        for _ in 0..64 {
            let (welcome, id) = visit(&mut crowd, "192.168.1.5").await;
            assert_eq!(welcome, Some(Welcome::Served));
            first.get_or_insert(id);
        }
        let (refused, refused_id) = visit(&mut crowd, "192.168.1.5").await;
        assert_eq!(refused, Some(Welcome::Refused));
        crowd.left(first.unwrap());
        assert_eq!(visit(&mut crowd, "192.168.1.5").await.0, Some(Welcome::Served));
        for _ in 64..4096 {
            assert_eq!(visit(&mut crowd, "127.0.0.1").await.0, Some(Welcome::Served));
        }
        assert_eq!(visit(&mut crowd, "127.0.0.1").await.0, Some(Welcome::Refused));
        crowd.left(refused_id);
        for _ in 1..64 {
            assert_eq!(visit(&mut crowd, "192.168.1.9").await.0, Some(Welcome::Refused));
        }
        assert_eq!(visit(&mut crowd, "192.168.1.9").await.0, None, "not even a refusal");
    }

    #[tokio::test]
    async fn nothing_is_remembered_of_those_who_left() {
        let mut crowd = Crowd::new(Links { all: 1, per_source: 1 });
        for _ in 0..10 {
            let (served, one) = visit(&mut crowd, "192.168.1.5").await;
            let (refused, other) = visit(&mut crowd, "192.168.1.6").await;
            assert_eq!((served, refused), (Some(Welcome::Served), Some(Welcome::Refused)));
            crowd.left(one);
            crowd.left(other);
        }
        assert!(crowd.visits.is_empty() && crowd.links.is_empty() && crowd.refusals == 0);
    }
}
