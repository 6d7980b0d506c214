//! Accepts connections within the limits for their number.

use std::{
    io,
    net::IpAddr,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::{Id, JoinSet},
    time::sleep,
};
use tracing::warn;

use super::{
    connection_limiter::{Admit, ConnectionLimiter},
    host_and_origin::HostNames,
    http_connection::{IncomingConnection, serve},
    identity::HubIdentity,
    limits::ConnectionLimits,
    link_base::{LinkBase, source_prefix},
    listen_sockets::Listeners,
    proxy::{self, Subnet},
    rooms_actor::{Clock, ConnectionEvent},
    tls::HubTls,
};
use crate::{network::KnownPaths, signalling::rooms::ConnectionId};

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
    /// TLS on the same port.
    pub(super) tls: Option<HubTls>,
    /// To the rooms' task.
    pub(super) events: mpsc::Sender<(ConnectionId, ConnectionEvent)>,
    /// To the accept loop, which owns the connection limiter.
    pub(super) updates: mpsc::Sender<ConnectionUpdate>,
}

#[cfg(any(fuzzing, test))]
impl HubCx {
    /// The context of a hub without rooms, which has that base URL and runs on that machine.
    pub(super) fn detached(link_base: &str, machine: &str) -> Self {
        Self {
            link_base: Arc::new(LinkBase::fixed(link_base.parse().expect("an address"))),
            names: HostNames { public: None, machine: Some(machine.to_owned()) },
            paths: KnownPaths::default(),
            identity: HubIdentity::fresh(),
            limits: ConnectionLimits::default(),
            clock: Clock::started_now(),
            queued_bytes: Arc::default(),
            proxies: vec![],
            tls: None,
            events: mpsc::channel(1).0,
            updates: mpsc::channel(1).0,
        }
    }
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
        let incoming = IncomingConnection {
            id: ConnectionId(number),
            source: source_ip,
            is_proxy,
            admit,
            must_use_tls: false,
        };
        let task = connections.spawn(serve(stream, incoming, cx.clone()));
        limiter.add(task.id(), counted, admit);
    }
}

async fn pause_after(error: &io::Error) {
    warn!(%error, "accept failed");
    sleep(ACCEPT_PAUSE).await;
}
