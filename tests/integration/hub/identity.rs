//! The identity of a hub, and what a client does not send to a hub that has not proven it.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use quintet::{
    model::{HubEndpoint, HubMessage, HubOwner, HubUrl, Instance, ParticipantId, Secret},
    signalling::{
        Client, ClientEvent, ClientOptions, Hub, HubIdentity, HubOptions, TokenStore as _,
        TokensInMemory,
    },
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use super::clients::{TestClient, listener};
use crate::rig::{TempFolder, in_process_hub::with_timeout, process::Program};

/// A hub, its URL, and its identity.
async fn hub_and_identity() -> (Hub, HubUrl, HubIdentity) {
    let identity = HubIdentity::fresh();
    let (hub, url) = hub_of(identity.clone()).await;
    (hub, url, identity)
}

async fn hub_of(identity: HubIdentity) -> (Hub, HubUrl) {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let hub = Hub::start(HubOptions { identity, ..HubOptions::at(listen) }).await.unwrap();
    let url = hub.link_base();
    (hub, url)
}

fn start(url: &HubUrl, identity: &HubIdentity) -> TestClient {
    TestClient::start_with(url, Some(identity.clone()), TokensInMemory::default())
}

/// The place and the link base of a client that has connected.
async fn wait_reached(client: &mut TestClient) -> (HubEndpoint, HubUrl) {
    match client.events.recv().await {
        Some(ClientEvent::Up { endpoint, link_base, .. }) => (endpoint, link_base),
        other => panic!("{other:?}"),
    }
}

/// Accepts a client on a listener that is not a hub of its user; returns its `hello` and the
/// socket.
async fn accept_hello(listener: &TcpListener) -> (Value, WebSocketStream<TcpStream>) {
    let mut socket = loop {
        let (stream, _) = listener.accept().await.unwrap();
        // After a failed attempt, the client tries TLS as well.
        if let Ok(socket) = accept_async(stream).await {
            break socket;
        }
    };
    let hello = socket.next().await.unwrap().unwrap();
    (serde_json::from_str(hello.to_text().unwrap()).unwrap(), socket)
}

async fn send_welcome(socket: &mut WebSocketStream<TcpStream>, link_base: &HubUrl) {
    let welcome = HubMessage::Welcome {
        protocol: 1,
        participant: ParticipantId::from_digest([1; 10]),
        name: "Guest 1".into(),
        token: Secret::from_random([1; 16]),
        heartbeat_ms: 1500,
        link_base: link_base.to_string(),
    };
    send(socket, &welcome).await;
}

async fn send(socket: &mut WebSocketStream<TcpStream>, message: &HubMessage) {
    socket.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
}

#[tokio::test]
async fn a_hub_proves_its_identity_to_programs_of_its_user_only() {
    with_timeout(async {
        let (_hub, url, identity) = hub_and_identity().await;
        let endpoint = |owner| HubEndpoint { url: url.clone(), owner };
        assert_eq!(wait_reached(&mut start(&url, &identity)).await.0, endpoint(HubOwner::ThisUser));
        let other = HubIdentity::fresh();
        assert_eq!(wait_reached(&mut start(&url, &other)).await.0, endpoint(HubOwner::Unproven));
        // With a host name the hub is asked twice: it answers to no name but `localhost`.
        let named: HubUrl = url.as_str().replace("127.0.0.1", "localhost").parse().unwrap();
        let by_name = wait_reached(&mut start(&named, &identity)).await.0;
        assert_eq!(by_name, HubEndpoint { url: named, owner: HubOwner::ThisUser });
    })
    .await;
}

#[tokio::test]
async fn a_proof_that_is_relayed_from_another_address_is_not_valid() {
    with_timeout(async {
        let (hub, _, identity) = hub_and_identity().await;
        let (relay, url) = listener().await;
        let address = hub.address();
        let relaying = tokio::spawn(async move {
            loop {
                let (mut client, _) = relay.accept().await.unwrap();
                let mut hub = TcpStream::connect(address).await.unwrap();
                tokio::spawn(async move { copy_bidirectional(&mut client, &mut hub).await });
            }
        });
        let mut client = start(&url, &identity);
        assert_eq!(wait_reached(&mut client).await.0.owner, HubOwner::Unproven);
        // A client that accepts only hubs of its user does not even send `hello`.
        let (sender, mut events) = mpsc::channel(8);
        let (hub, name, instance) = (url, String::new(), Instance::from_random(9));
        let identity = Some(identity);
        let options = ClientOptions { hub, name, instance, identity, only_own: true };
        let _client = Client::start(options, TokensInMemory::default(), sender);
        let Some(ClientEvent::Down { reason }) = events.recv().await else { panic!("not ours") };
        assert!(reason.contains("does not prove to be your hub"), "{reason}");
        relaying.abort();
    })
    .await;
}

#[tokio::test]
async fn a_loopback_hub_cannot_announce_the_link_base_of_another_hub() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let good: HubUrl = "http://192.0.2.1:7340".parse().unwrap();
        let mut client = start(&url, &HubIdentity::fresh());
        let (_, mut socket) = accept_hello(&listener).await;
        send_welcome(&mut socket, &good).await;
        let endpoint = HubEndpoint { url: url.clone(), owner: HubOwner::Unproven };
        assert_eq!(wait_reached(&mut client).await, (endpoint, url));
        send(&mut socket, &HubMessage::LinkBase { link_base: good.to_string() }).await;
        send(&mut socket, &HubMessage::Renamed { name: "x".into() }).await;
        let next = client.events.recv().await;
        assert!(matches!(next, Some(ClientEvent::Message(HubMessage::Renamed { .. }))), "{next:?}");
    })
    .await;
}

#[tokio::test]
async fn the_target_of_a_redirect_does_not_get_the_token_of_the_first_hub() {
    with_timeout(async {
        let (first, url) = listener().await;
        let (second, other) = listener().await;
        let token = Secret::from_random([7; 16]);
        let mut tokens = TokensInMemory::default();
        tokens.keep(&HubEndpoint { url: url.clone(), owner: HubOwner::Unproven }, &token);
        let mut client = TestClient::start_with(&url, None, tokens);
        let (mut stream, _) = first.accept().await.unwrap();
        let answer = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: {other}/signal\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (hello, mut socket) = accept_hello(&second).await;
        assert_eq!(hello.get("token"), None, "{hello}");
        send_welcome(&mut socket, &other).await;
        assert_eq!(wait_reached(&mut client).await.0.url, other);
        // The token of the second hub is sent to that one only, and so is the token of the first.
        drop((socket, stream));
        client.wait_down().await;
        let (mut stream, _) = first.accept().await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (hello, _socket) = accept_hello(&second).await;
        assert_eq!(hello["token"], "01".repeat(16));
        drop((stream, _socket));
        let (hello, _socket) = accept_hello(&first).await;
        assert_eq!(hello["token"], "07".repeat(16));
    })
    .await;
}

#[tokio::test]
async fn a_client_proves_itself_only_to_a_hub_that_has_proven_itself() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let _client = start(&url, &HubIdentity::fresh());
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        let length = stream.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..length]).to_lowercase();
        assert!(head.contains("quintet-challenge: "), "the client sends a challenge: {head}");
        drop(stream);
        let (hello, _socket) = accept_hello(&listener).await;
        assert_eq!(hello.get("proof"), None, "{hello}");
    })
    .await;
}

/// The attack of a program that listens on a loopback address of the same machine: it announces the
/// URL of another hub to get the owner key of a session there.
#[test]
fn a_loopback_hub_that_announces_another_url_does_not_get_its_owner_keys() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let task = ["open", "--kind", "audio/one-way", "--id", "town-hall", "--microphone", "none"];
    let program = |home, hub: &HubUrl| {
        let args = [&task[..], &["--hub", hub.as_str(), "--speaker", "none"]].concat();
        Program::start_in(home, &args, &[])
    };
    let home = TempFolder::new();
    // The good hub is this user's, so that the program stores the key.
    let identity = HubIdentity::in_folder(&home.file("state").join("quintet")).unwrap();
    let (good, evil) = runtime.block_on(async { (hub_of(identity).await, listener().await) });
    let mut opener = program(home, &good.1);
    opener.event("opened");
    let home = opener.kill();
    assert_eq!(std::fs::read_dir(home.file("state/quintet/owner")).unwrap().count(), 1);
    let _opener = program(home, &evil.1);
    let open = runtime.block_on(with_timeout(async {
        let (_, mut socket) = accept_hello(&evil.0).await;
        send_welcome(&mut socket, &good.1).await;
        loop {
            let message = socket.next().await.unwrap().unwrap();
            let message: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
            if message["type"] == "open" {
                return message;
            }
        }
    }));
    assert_eq!(open.get("owner_key"), None, "{open}");
}

#[test]
fn a_generated_id_is_reopened_by_its_program_after_an_orderly_end_and_by_no_other() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let home = TempFolder::new();
    let identity = HubIdentity::in_folder(&home.file("state").join("quintet")).unwrap();
    let (_hub, url) = runtime.block_on(hub_of(identity));
    let open = |home, id: &[&str]| {
        let task = ["open", "--kind", "audio/one-way", "--microphone", "none", "--speaker", "none"];
        Program::start_in(home, &[&task[..], &["--hub", url.as_str()], id].concat(), &[])
    };
    let mut opener = open(home, &[]);
    let id = opener.event("opened")["session"].as_str().unwrap().to_owned();
    opener.signal("TERM");
    opener.event("summary");
    let home = opener.kill();
    let refused = open(TempFolder::new(), &["--id", &id]).wait_for_exit();
    assert_eq!(refused.events_named("error")[0]["code"], "id-taken", "{:?}", refused.events);
    let mut opener = open(home, &["--id", &id]);
    assert_eq!(opener.event("opened")["session"], id.as_str());
}
