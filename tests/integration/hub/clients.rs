//! The client against hubs and other servers, over real sockets.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use quintet::{
    model::{
        ClientMessage, HubEndpoint, HubMessage, HubOwner, HubUrl, Instance, ParticipantId, Payload,
        Secret,
    },
    signalling::{
        Client, ClientEvent, ClientOptions, Hub, HubIdentity, HubOptions, ProbeResult,
        TokenStore as _, TokensInMemory, probe_hub,
    },
};
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async, accept_hdr_async,
    tungstenite::{Message, handshake::server::Request},
};

use crate::rig::in_process_hub::{
    MESH, join, open, session, signal, start_hub, start_hub_at, with_timeout,
};

#[tokio::test]
async fn clients_reconnect_to_a_restarted_hub_as_the_same_participants() {
    with_timeout(async {
        let first = start_hub().await;
        let address = first.address();
        let mut opener = TestClient::start(&first.link_base(), None);
        let mut guest = TestClient::start(&first.link_base(), None);
        let (owner, _) = opener.wait_up().await;
        let (joiner, _) = guest.wait_up().await;
        assert!(opener.inner.send(open("a", MESH)));
        opener.next_message().await;
        assert!(guest.inner.send(join("a", false)));
        guest.next_message().await;
        drop(first);
        assert!(opener.wait_down().await.contains("lost"));
        assert!(guest.wait_down().await.contains("lost"));
        let _second = start_hub_at(address).await;
        assert_eq!(opener.wait_up().await.0, owner);
        assert_eq!(guest.wait_up().await.0, joiner);
        assert!(guest.inner.send(join("a", true)));
        assert_eq!(guest.next_message().await, HubMessage::Waiting { session: session("a") });
        assert!(opener.inner.send(open("a", MESH)));
        assert!(matches!(opener.next_message().await, HubMessage::Opened { .. }));
        assert!(matches!(guest.next_message().await, HubMessage::Joined { .. }));
    })
    .await;
}

#[tokio::test]
async fn a_client_without_a_hub_reports_it_once_and_connects_when_there_is_one() {
    with_timeout(async {
        let address = start_hub().await.address();
        let url: HubUrl = format!("http://{address}").parse().unwrap();
        let mut client = TestClient::start(&url, None);
        let reason = client.wait_down().await;
        assert!(
            reason.contains(&address.to_string()) && reason.contains("start a hub"),
            "{reason}"
        );
        let _hub = start_hub_at(address).await;
        client.wait_up().await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_reported_once_for_any_number_of_attempts() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let mut client = TestClient::start(&url, None);
        for _ in 0..3 {
            drop(listener.accept().await.unwrap());
        }
        let socket = welcome_as_hub(&listener).await;
        assert!(client.wait_down().await.contains("is no Quintet hub"));
        client.wait_up().await;
        drop(socket);
        client.wait_down().await;
    })
    .await;
}

#[tokio::test]
async fn a_client_keeps_its_token_over_runs_and_its_own_hub_chooses_the_link_base() {
    with_timeout(async {
        let public: HubUrl = "https://hub.example/quintet".parse().unwrap();
        let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let options = HubOptions { public: Some(public.clone()), ..HubOptions::at(listen) };
        let identity = options.identity.clone();
        let hub = Hub::start(options).await.unwrap();
        let url: HubUrl = format!("http://{}", hub.address()).parse().unwrap();
        let mut client = TestClient::start_with(&url, Some(identity), TokensInMemory::default());
        let Some(ClientEvent::Up { link_base, participant, name, token, .. }) =
            client.events.recv().await
        else {
            panic!("not up");
        };
        assert_eq!((link_base, name.as_str()), (public, "Guest 1"));
        client.inner.close().await;
        let mut again = TestClient::start(&url, Some(token.clone()));
        assert_eq!(again.wait_up().await, (participant, token));
    })
    .await;
}

#[tokio::test]
async fn messages_sent_before_closing_arrive() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut opener = TestClient::start(&hub.link_base(), None);
        let (owner, _) = opener.wait_up().await;
        assert!(opener.inner.send(open("a", MESH)));
        opener.next_message().await;
        let mut guest = TestClient::start(&hub.link_base(), None);
        let (guest_id, _) = guest.wait_up().await;
        assert!(guest.inner.send(join("a", false)));
        guest.next_message().await;
        opener.next_message().await;
        for number in 0..100 {
            let (candidate, mid) = (format!("candidate:{number}"), None);
            let payload = Payload::Candidate { generation: 1, candidate, mid, line: None };
            assert!(guest.inner.send(signal("a", &owner, payload)));
        }
        assert!(guest.inner.send(ClientMessage::Leave { session: session("a") }));
        guest.inner.close().await;
        for _ in 0..100 {
            assert!(matches!(opener.next_message().await, HubMessage::Signal { .. }));
        }
        let left = opener.next_message().await;
        let HubMessage::ParticipantLeft { participant, .. } = left else { panic!("{left:?}") };
        assert_eq!(participant, guest_id);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_no_hub_is_reported_as_such() {
    with_timeout(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HubUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let mut client = TestClient::start(&url, None);
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let reason = client.wait_down().await;
        assert!(reason.contains("is no Quintet hub") && reason.contains("404"), "{reason}");
    })
    .await;
}

#[tokio::test]
async fn a_hub_that_refuses_its_host_name_is_asked_by_its_ip_address() {
    with_timeout(async {
        let (listener, _) = listener().await;
        let address = listener.local_addr().unwrap();
        let url = format!("http://localhost:{}", address.port()).parse().unwrap();
        let mut client = TestClient::start(&url, None);
        let refuse = "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n";
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(refuse.as_bytes()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let mut host = None;
        #[allow(clippy::result_large_err, reason = "the library's own type")]
        let note = |request: &Request, answer| {
            host = request.headers().get("host").cloned();
            Ok(answer)
        };
        let mut socket = accept_hdr_async(stream, note).await.unwrap();
        assert_eq!(host.unwrap().to_str().unwrap(), address.to_string());
        socket.next().await.unwrap().unwrap();
        drop((socket, listener));
        client.wait_down().await;
    })
    .await;
}

#[tokio::test]
async fn the_error_for_a_hub_that_refuses_name_and_address_has_the_way_out() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let mut client = TestClient::start(&url, None);
        let refuse = "HTTP/1.1 421 Misdirected Request\r\nContent-Length: 0\r\n\r\n";
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(refuse.as_bytes()).await.unwrap();
        }
        let reason = client.wait_down().await;
        assert!(reason.contains(&format!("--public-url {url}")), "{reason}");
    })
    .await;
}

#[tokio::test]
async fn the_error_for_https_to_a_plain_hub_has_the_http_address() {
    with_timeout(async {
        let hub = start_hub().await;
        let url: HubUrl = format!("https://{}", hub.address()).parse().unwrap();
        let reason = TestClient::start(&url, None).wait_down().await;
        let instead = format!("its address is http://{}", hub.address());
        assert!(reason.contains(url.as_str()) && reason.contains(&instead), "{reason}");
    })
    .await;
}

#[tokio::test]
async fn a_silent_hub_counts_as_dead_after_three_heartbeats() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let mut client = TestClient::start(&url, None);
        let mut socket = welcome_as_hub(&listener).await;
        client.wait_up().await;
        let start = Instant::now();
        let ping = socket.next().await.unwrap().unwrap();
        assert_eq!(ping.to_text().unwrap(), r#"{"type":"ping"}"#);
        let reason = client.wait_down().await;
        assert!(reason.contains("silent for 0.3 s"), "{reason}");
        assert!(start.elapsed() >= Duration::from_millis(250));
    })
    .await;
}

#[tokio::test]
async fn unknown_messages_are_ignored_and_others_are_forwarded() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let mut client = TestClient::start(&url, None);
        let mut socket = welcome_as_hub(&listener).await;
        client.wait_up().await;
        for text in [r#"{"type":"weather"}"#, "garbage", r#"{"type":"pong"}"#, r#"{"x":1}"#] {
            socket.send(Message::text(text)).await.unwrap();
        }
        socket.send(Message::text(r#"{"type":"waiting","session":"a"}"#)).await.unwrap();
        assert_eq!(client.next_message().await, HubMessage::Waiting { session: session("a") });
    })
    .await;
}

#[tokio::test]
async fn the_error_of_a_hub_that_refuses_is_quoted() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let mut client = TestClient::start(&url, None);
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        socket.next().await.unwrap().unwrap();
        let text = r#"{"type":"error","code":"unsupported","message":"\u202espeak\nversion 7"}"#;
        socket.send(Message::text(text)).await.unwrap();
        let reason = client.wait_down().await;
        assert!(reason.contains("refused") && reason.contains(": speak version 7"), "{reason}");
    })
    .await;
}

#[tokio::test]
async fn closing_ends_at_once_while_there_is_no_connection() {
    with_timeout(async {
        let (_listener, url) = listener().await;
        let client = TestClient::start(&url, None);
        client.inner.close().await;
        let mut events = client.events;
        assert_eq!(events.recv().await, None, "the task has ended");
    })
    .await;
}

#[tokio::test]
async fn a_dropped_client_ends_its_connection() {
    with_timeout(async {
        let (listener, url) = listener().await;
        let mut client = TestClient::start(&url, None);
        let mut socket = welcome_as_hub(&listener).await;
        client.wait_up().await;
        drop(client.inner);
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
        assert_eq!(client.events.recv().await, None);
    })
    .await;
}

#[tokio::test]
async fn a_client_reaches_a_hub_on_ipv6() {
    with_timeout(async {
        let listen = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)).into();
        let options = HubOptions::at(listen);
        // A machine without IPv6 cannot run this test.
        let Ok(hub) = Hub::start(options).await else { return };
        assert_eq!(probe_hub(&hub.link_base()).await, ProbeResult::Hub);
        TestClient::start(&hub.link_base(), None).wait_up().await;
    })
    .await;
}

pub(crate) async fn listener() -> (TcpListener, HubUrl) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    (listener, url)
}

/// Accepts a client, and sends `welcome` with a heartbeat of 100 ms.
async fn welcome_as_hub(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    let mut socket = loop {
        let (stream, _) = listener.accept().await.unwrap();
        // After a failed attempt, the client tries TLS as well.
        if let Ok(socket) = accept_async(stream).await {
            break socket;
        }
    };
    let hello = socket.next().await.unwrap().unwrap();
    assert!(hello.to_text().unwrap().starts_with(r#"{"type":"hello","protocol":1"#));
    let welcome = HubMessage::Welcome {
        protocol: 1,
        participant: ParticipantId::from_digest([1; 10]),
        name: "Guest 1".into(),
        token: Secret::from_random([1; 16]),
        heartbeat_ms: 100,
        link_base: "http://192.168.1.5:7340".into(),
    };
    socket.send(Message::text(serde_json::to_string(&welcome).unwrap())).await.unwrap();
    socket
}

/// A client and its events.
pub(crate) struct TestClient {
    inner: Client,
    pub(crate) events: mpsc::Receiver<ClientEvent>,
}

impl TestClient {
    pub(crate) fn start(hub: &HubUrl, token: Option<Secret>) -> Self {
        let mut tokens = TokensInMemory::default();
        let endpoint = HubEndpoint { url: hub.clone(), owner: HubOwner::Unproven };
        token.into_iter().for_each(|token| tokens.keep(&endpoint, &token));
        Self::start_with(hub, None, tokens)
    }

    /// A client that recognises a hub of that identity as its user's.
    pub(crate) fn start_with(
        hub: &HubUrl,
        identity: Option<HubIdentity>,
        tokens: TokensInMemory,
    ) -> Self {
        let (sender, events) = mpsc::channel(64);
        let (hub, name, instance) = (hub.clone(), String::new(), Instance::from_random(9));
        let options = ClientOptions { hub, name, instance, identity, only_own: false };
        let inner = Client::start(options, tokens, sender);
        Self { inner, events }
    }

    pub(crate) async fn wait_up(&mut self) -> (ParticipantId, Secret) {
        match self.events.recv().await {
            Some(ClientEvent::Up { participant, token, .. }) => (participant, token),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn wait_down(&mut self) -> String {
        loop {
            match self.events.recv().await {
                Some(ClientEvent::Down { reason }) => return reason,
                Some(ClientEvent::Message(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn next_message(&mut self) -> HubMessage {
        match self.events.recv().await {
            Some(ClientEvent::Message(message)) => message,
            other => panic!("{other:?}"),
        }
    }
}
