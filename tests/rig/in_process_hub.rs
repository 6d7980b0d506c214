//! A hub in this process, and constructors for the messages that clients send to it.

use std::{net::SocketAddr, time::Duration};

use quintet::{
    model::{ClientMessage, ParticipantId, Payload, SessionId, SessionKind},
    signalling::{Hub, HubError, HubOptions},
};
use tokio::time::timeout;

/// The session kind in which all participants are connected to each other.
pub(crate) const MESH: SessionKind = SessionKind::FIVE[0];

/// Runs a test, and fails it after a minute.
pub(crate) async fn with_timeout<T>(test: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(60), test).await.expect("the test ends within a minute")
}

/// Starts a hub on a free port of 127.0.0.1.
pub(crate) async fn start_hub() -> Hub {
    start_hub_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
}

/// Starts a hub at this address. Waits until the address is free.
pub(crate) async fn start_hub_at(listen: SocketAddr) -> Hub {
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
