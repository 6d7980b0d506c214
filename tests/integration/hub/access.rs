//! Access to a hub and its sessions: behind a proxy, beyond the limits of an address, under an id
//! that is bound to a key, and after an ejection.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::SinkExt as _;
use quintet::{
    model::{ClientMessage, ErrorCode, HubMessage, Role, Secret, SessionId, SessionKind},
    signalling::{Hub, HubIdentity, HubOptions, OpensFor},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

use super::RawClient;
use crate::rig::in_process_hub::{MESH, join, open, session, start_hub, with_timeout};

/// A hub that trusts a proxy at a loopback address; the clients of these tests come from there.
async fn proxied_hub() -> Hub {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
    Hub::start(HubOptions { trusted_proxies, ..HubOptions::at(listen) }).await.unwrap()
}

/// A connection that the proxy makes for a client at that address; the HTTP status if it is
/// refused.
async fn connect_as(hub: &Hub, client: &str) -> Result<RawClient, u16> {
    let mut request = format!("ws://{}/signal", hub.address()).into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", client.parse().unwrap());
    match connect_async(request).await {
        Ok((socket, _)) => Ok(RawClient::new(socket)),
        Err(tungstenite::Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// The same, with `hello`.
async fn hello_as(hub: &Hub, client: &str) -> RawClient {
    let mut client = connect_as(hub, client).await.unwrap();
    client.exchange_hello(None, 5).await;
    client
}

#[tokio::test]
async fn behind_a_proxy_each_address_has_64_connections_and_more_for_returning_clients() {
    with_timeout(async {
        let hub = proxied_hub().await;
        let mut opener = hello_as(&hub, "203.0.113.9").await;
        opener.send(&open("a", MESH)).await;
        opener.recv().await;
        let mut guest = hello_as(&hub, "198.51.100.1, 203.0.113.9").await;
        guest.send(&join("a", false)).await;
        guest.recv().await;
        let mut clients = vec![];
        for _ in 0..62 {
            clients.push(hello_as(&hub, "203.0.113.9").await);
        }
        // A client without a seat is refused after `hello` while only the places for returning
        // clients are left, and before that when these are taken.
        let mut outsider = connect_as(&hub, "203.0.113.9").await.unwrap();
        outsider.send(&hello(None)).await;
        assert_eq!(outsider.recv_error().await.0, ErrorCode::TooMany);
        // A client with a seat returns, though 64 are connected; the older connection of the same
        // participant is closed.
        let token = guest.token.clone();
        let mut returned = connect_as(&hub, "203.0.113.9").await.unwrap();
        returned.send(&hello(Some(token))).await;
        assert!(matches!(returned.recv().await, HubMessage::Welcome { .. }));
        returned.send(&join("a", false)).await;
        assert!(matches!(returned.recv().await, HubMessage::Joined { role: Role::Guest, .. }));
        // Other addresses behind the same proxy have their own 64.
        hello_as(&hub, "203.0.113.8").await;
        let mut silent = vec![];
        let refused = loop {
            match connect_as(&hub, "203.0.113.9").await {
                Ok(client) => silent.push(client),
                Err(status) => break status,
            }
            assert!(silent.len() <= 20, "clients without a seat take the reserve");
        };
        assert_eq!(refused, 503);
    })
    .await;
}

#[tokio::test]
async fn the_fields_of_an_untrusted_proxy_are_ignored() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut clients = vec![];
        // These count for the hub's own machine, whatever they send, and may be many.
        for _ in 0..100 {
            clients.push(hello_as(&hub, "203.0.113.9").await);
        }
    })
    .await;
}

#[tokio::test]
async fn forty_clients_that_join_without_end_do_not_block_others_of_their_address() {
    with_timeout(async {
        let hub = proxied_hub().await;
        let mut opener = hello_as(&hub, "192.0.2.1").await;
        opener.send(&open("a", SessionKind::FIVE[1])).await;
        opener.recv().await;
        let (mut floods, answered) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..40 {
            let mut client = hello_as(&hub, "203.0.113.9").await;
            let answered = answered.clone();
            floods.spawn(async move {
                let text = serde_json::to_string(&join("nowhere", false)).unwrap();
                while client.socket.send(Message::text(text.clone())).await.is_ok() {
                    client.recv().await;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // By then the burst is spent, and each of their joins is delayed.
        with_timeout(async {
            while answered.load(Ordering::Relaxed) < 60 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        let mut others = vec![];
        for _ in 0..8 {
            others.push(hello_as(&hub, "203.0.113.9").await);
        }
        let joins = others.iter_mut().map(|client| async {
            client.send(&join("a", false)).await;
            client.recv().await
        });
        for answer in futures_util::future::join_all(joins).await {
            assert!(matches!(answer, HubMessage::Joined { .. }), "{answer:?}");
        }
        assert_eq!(floods.len(), 40, "the flooding clients are delayed, not closed");
    })
    .await;
}

#[tokio::test]
async fn a_bound_id_is_reopened_at_a_restarted_hub_by_its_owner_and_successors_only() {
    with_timeout(async {
        let identity = HubIdentity::fresh();
        let start = async |opens_for| {
            let (identity, listen) = (identity.clone(), SocketAddr::from(([127, 0, 0, 1], 0)));
            let options = HubOptions { identity, opens_for, ..HubOptions::at(listen.into()) };
            Hub::start(options).await.unwrap()
        };
        let key = Secret::from_random([7; 16]);
        let id = SessionId::of_key(&key);
        let hub = start(OpensFor::Everyone).await;
        let (mut owner, mut successor) =
            (RawClient::hello(&hub).await, RawClient::hello_with(&hub, None, 6).await);
        owner.send(&open_with(&id, Some(&key))).await;
        let HubMessage::Opened { owner_key, .. } = owner.recv().await else { panic!("opened") };
        assert_eq!(owner_key, key);
        successor.send(&join(id.as_str(), false)).await;
        successor.recv().await;
        owner.send(&ClientMessage::Leave { session: id.clone() }).await;
        let successor_key = loop {
            if let HubMessage::Owner { owner_key: Some(key), .. } = successor.recv().await {
                break key;
            }
        };
        drop(hub);

        let hub = start(OpensFor::Mine).await;
        let mut outsider = RawClient::hello(&hub).await;
        outsider.send(&open_with(&id, None)).await;
        assert_eq!(outsider.recv_error().await.0, ErrorCode::NotAllowed, "a hub for its own user");
        drop(hub);
        let hub = start(OpensFor::Everyone).await;
        let mut outsider = RawClient::hello(&hub).await;
        for wrong in [None, Some(Secret::from_random([8; 16]))] {
            outsider.send(&open_with(&id, wrong.as_ref())).await;
            assert_eq!(outsider.recv_error().await, (ErrorCode::IdTaken, Some(id.clone())));
        }
        // The first owner is back before the successor, which becomes the owner all the same.
        let (mut owner, mut successor) =
            (RawClient::hello(&hub).await, RawClient::hello_with(&hub, None, 6).await);
        owner.send(&open_with(&id, Some(&key))).await;
        assert!(matches!(owner.recv().await, HubMessage::Opened { .. }));
        successor.send(&open_with(&id, Some(&successor_key))).await;
        assert!(matches!(successor.recv().await, HubMessage::Opened { .. }));
        assert!(matches!(owner.recv().await, HubMessage::Closed { .. }));
        // A key that another hub has signed is not valid.
        let other = crate::rig::in_process_hub::start_hub().await;
        let mut successor = RawClient::hello(&other).await;
        successor.send(&open_with(&id, Some(&successor_key))).await;
        assert_eq!(successor.recv_error().await.0, ErrorCode::IdTaken);
    })
    .await;
}

#[tokio::test]
async fn an_ejected_participant_is_excluded_by_instance_and_if_asked_by_address() {
    with_timeout(async {
        let hub = proxied_hub().await;
        let mut opener = hello_as(&hub, "192.0.2.1").await;
        opener.send(&open("a", MESH)).await;
        opener.recv().await;
        let mut guest = connect_as(&hub, "203.0.113.9").await.unwrap();
        guest.exchange_hello(None, 77).await;
        guest.send(&join("a", false)).await;
        guest.recv().await;
        let (session, participant) = (session("a"), guest.participant.clone());
        opener.send(&ClientMessage::Eject { session, participant, address: true }).await;
        assert!(matches!(guest.recv().await, HubMessage::Closed { .. }));
        for (client, run, is_let_in) in
            [("203.0.113.9", 77, false), ("203.0.113.8", 77, false), ("203.0.113.9", 78, false)]
                .into_iter()
                .chain([("203.0.113.8", 78, true)])
        {
            let mut again = connect_as(&hub, client).await.unwrap();
            again.exchange_hello(None, run).await;
            again.send(&join("a", false)).await;
            let answer = again.recv().await;
            let is_in = matches!(answer, HubMessage::Joined { .. });
            assert_eq!(is_in, is_let_in, "{client} {run} {answer:?}");
        }
    })
    .await;
}

fn hello(token: Option<Secret>) -> ClientMessage {
    let (name, instance) = (String::new(), quintet::model::Instance::from_random(5));
    ClientMessage::Hello { protocol: 1, name, instance, token, proof: None }
}

fn open_with(id: &SessionId, key: Option<&Secret>) -> ClientMessage {
    let (session, kind, owner_key) = (id.clone(), MESH, key.cloned());
    ClientMessage::Open { session, kind, limit: None, owner_key }
}
