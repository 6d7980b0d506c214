//! A hub in this process, and words to say to one.

use std::{net::SocketAddr, time::Duration};

use quintet::{
    model::{ClientMessage, ParticipantId, Payload, SessionId, SessionKind},
    signalling::{Hub, HubError, HubOptions},
};
use tokio::time::timeout;

/// Everybody with everybody.
pub(crate) const MESH: SessionKind = SessionKind::FIVE[0];

/// No test waits longer than this for what must come.
pub(crate) async fn within<T>(test: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), test).await.expect("what must come came")
}

/// A hub on a free port.
pub(crate) async fn hub() -> Hub {
    hub_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
}

/// A hub on that port, once whoever had it has let go of it.
pub(crate) async fn hub_at(listen: SocketAddr) -> Hub {
    loop {
        match Hub::start(HubOptions::at(listen.into())).await {
            Ok(hub) => return hub,
            Err(HubError::Taken { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) fn session(id: &str) -> SessionId {
    SessionId::parse(id).unwrap()
}

pub(crate) fn open(id: &str, kind: SessionKind) -> ClientMessage {
    ClientMessage::Open { session: session(id), kind, limit: None, owner_key: None }
}

pub(crate) fn join(id: &str, wait: bool) -> ClientMessage {
    ClientMessage::Join { session: session(id), wait }
}

pub(crate) fn signal(id: &str, to: &ParticipantId, payload: Payload) -> ClientMessage {
    ClientMessage::Signal { session: session(id), to: to.clone(), payload: payload.into() }
}
