//! The hub over real sockets: its protocol, its limits, and its HTTP responses.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod about;
mod access;
mod clients;
mod floods;
mod guest_page;
mod identity;
mod own_tls;
mod requests;
#[cfg(target_os = "linux")]
mod tls;
mod web;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::rig::in_process_hub::{MESH, join, open, session, signal, start_hub, with_timeout};
use futures_util::{SinkExt, StreamExt};
use quintet::{
    model::{
        ClientMessage, ErrorCode, HubMessage, Instance, ParticipantId, Payload, Presence, Role,
        Secret, SessionId, SessionKind,
    },
    signalling::Hub,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async, connect_async,
    tungstenite::{Bytes, Message, protocol::frame::coding::CloseCode},
};

const BROADCAST: SessionKind = SessionKind::FIVE[1];

#[tokio::test]
async fn a_session_is_opened_joined_and_signalled_in() {
    with_timeout(async {
        let hub = start_hub().await;
        let (mut opener, mut guest) = (RawClient::hello(&hub).await, RawClient::hello(&hub).await);
        opener.send(&open("town-hall", MESH)).await;
        let HubMessage::Opened { session: id, limit: 12, participants, .. } = opener.recv().await
        else {
            panic!("not opened");
        };
        assert_eq!((id, participants), (session("town-hall"), vec![]));
        guest.send(&join("town-hall", false)).await;
        let HubMessage::Joined { role: Role::Guest, participants, kind, .. } = guest.recv().await
        else {
            panic!("not joined");
        };
        assert_eq!((kind, participants.len()), (MESH, 1));
        assert_eq!(participants[0].participant, opener.participant);
        assert!(matches!(opener.recv().await, HubMessage::ParticipantJoined { .. }));
        let payload = Payload::Offer { generation: 1, sdp: "v=0\r\nm=audio".into() };
        guest.send(&signal("town-hall", &opener.participant, payload.clone())).await;
        let received = opener.recv().await;
        let (session, from) = (session("town-hall"), guest.participant.clone());
        let payload = payload.into();
        assert_eq!(received, HubMessage::Signal { session, from, payload });
    })
    .await;
}

#[tokio::test]
async fn a_duplicate_id_and_a_full_session_are_typed_errors() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut clients = [
            RawClient::hello(&hub).await,
            RawClient::hello(&hub).await,
            RawClient::hello(&hub).await,
        ];
        let limit = Some(2);
        let kind = MESH;
        let full = ClientMessage::Open { session: session("a"), kind, limit, owner_key: None };
        clients[0].send(&full).await;
        clients[0].recv().await;
        clients[1].send(&open("a", MESH)).await;
        assert_eq!(clients[1].recv_error().await, (ErrorCode::IdTaken, Some(session("a"))));
        clients[1].send(&join("a", false)).await;
        clients[1].recv().await;
        clients[2].send(&join("a", true)).await;
        assert_eq!(clients[2].recv_error().await, (ErrorCode::SessionFull, Some(session("a"))));
        clients[2].send(&join("b", false)).await;
        assert_eq!(clients[2].recv_error().await, (ErrorCode::NoSuchSession, Some(session("b"))));
    })
    .await;
}

#[tokio::test]
async fn a_signal_of_a_non_member_is_refused_and_not_relayed() {
    with_timeout(async {
        let hub = start_hub().await;
        let (mut opener, mut viewer) = (RawClient::hello(&hub).await, RawClient::hello(&hub).await);
        let (mut other, mut outsider) =
            (RawClient::hello(&hub).await, RawClient::hello(&hub).await);
        opener.send(&open("a", BROADCAST)).await;
        opener.recv().await;
        for guest in [&mut viewer, &mut other] {
            guest.send(&join("a", false)).await;
            guest.recv().await;
            opener.recv().await;
        }
        let offer = Payload::Offer { generation: 1, sdp: "m=audio".into() };
        for sender in [&mut outsider, &mut other] {
            sender.send(&signal("a", &viewer.participant, offer.clone())).await;
            assert_eq!(sender.recv_error().await.0, ErrorCode::NotAllowed);
        }
        viewer.send(&ClientMessage::Ping).await;
        assert_eq!(viewer.recv().await, HubMessage::Pong, "nothing came before it");
    })
    .await;
}

#[tokio::test]
async fn garbage_is_answered_ten_times_and_then_the_connection_is_closed() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut client = RawClient::hello(&hub).await;
        for garbage in ["", "{", "ping", "[1,2", "{}", "3", "{\"type\":\"join\"}", "\u{0}", "null"]
        {
            client.send_text(garbage).await;
            assert_eq!(client.recv_error().await, (ErrorCode::BadMessage, None), "{garbage:?}");
        }
        client.send(&ClientMessage::Ping).await;
        assert_eq!(client.recv().await, HubMessage::Pong, "the connection is still open");
        client.send_text("tenth").await;
        assert_eq!(client.recv_error().await.0, ErrorCode::BadMessage);
        assert_eq!(client.recv_close().await, Some(CloseCode::Policy));
    })
    .await;
}

#[tokio::test]
async fn a_message_of_a_later_version_is_unsupported_and_the_connection_stays_open() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut client = RawClient::hello(&hub).await;
        for _ in 0..20 {
            client.send_text(r#"{"type":"hand-raised","session":"a"}"#).await;
            assert_eq!(client.recv_error().await, (ErrorCode::Unsupported, Some(session("a"))));
        }
    })
    .await;
}

#[tokio::test]
async fn excessive_nesting_is_a_bad_message() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut client = RawClient::hello(&hub).await;
        client.send_text(&"[".repeat(60_000)).await;
        assert_eq!(client.recv_error().await.0, ErrorCode::BadMessage);
        client.send_text(&format!("{{\"type\":\"ping\",\"x\":{}", "{\"x\":".repeat(10_000))).await;
        assert_eq!(client.recv_error().await.0, ErrorCode::BadMessage);
    })
    .await;
}

#[tokio::test]
async fn binary_and_oversize_messages_get_an_error_and_close_the_connection() {
    with_timeout(async {
        let hub = start_hub().await;
        let text = Message::text("x".repeat(1024 * 1024));
        let binary = Message::Binary(Bytes::from_static(b"\x00\x01"));
        for (message, code) in [(text, CloseCode::Size), (binary, CloseCode::Unsupported)] {
            let mut client = RawClient::hello(&hub).await;
            client.socket.send(message).await.unwrap();
            assert_eq!(client.recv_error().await.0, ErrorCode::BadMessage);
            assert_eq!(client.recv_close().await, Some(code));
        }
        let mut other = RawClient::hello(&hub).await;
        other.send(&ClientMessage::Ping).await;
        assert_eq!(other.recv().await, HubMessage::Pong, "other clients are not affected");
    })
    .await;
}

#[tokio::test]
async fn a_client_that_still_sends_an_oversize_message_gets_the_error() {
    with_timeout(async {
        let hub = start_hub().await;
        // The message does not fit into this buffer: sending completes only if the hub reads it.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(16 * 1024).unwrap();
        let stream = socket.connect(hub.address()).await.unwrap();
        let mut client = RawClient::hello_over(stream, hub.address()).await;
        client.send_text(&"x".repeat(1024 * 1024)).await;
        assert_eq!(client.recv_error().await.0, ErrorCode::BadMessage);
        assert_eq!(client.recv_close().await, Some(CloseCode::Size));
    })
    .await;
}

#[tokio::test]
async fn a_message_at_the_limit_is_taken() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut client = RawClient::hello(&hub).await;
        let (start, end) = (r#"{"type":"ping","x":""#, r#""}"#);
        let filler = "x".repeat(64 * 1024 - start.len() - end.len());
        client.send_text(&format!("{start}{filler}{end}")).await;
        assert_eq!(client.recv().await, HubMessage::Pong);
        client.send_text(&format!("{start}{filler}x{end}")).await;
        assert_eq!(client.recv_error().await.0, ErrorCode::BadMessage);
    })
    .await;
}

#[tokio::test]
async fn a_connection_without_a_valid_hello_is_closed() {
    with_timeout(async {
        let hub = start_hub().await;
        let instance = r#""instance":"0123456789abcdef""#;
        for (first, code) in [
            (r#"{"type":"ping"}"#.to_owned(), ErrorCode::BadMessage),
            ("garbage".to_owned(), ErrorCode::BadMessage),
            (r#"{"type":"hello","protocol":1}"#.to_owned(), ErrorCode::BadMessage),
            (r#"{"type":"hello","protocol":1,"instance":"<b>"}"#.to_owned(), ErrorCode::BadMessage),
            (format!(r#"{{"type":"hello","protocol":2,{instance}}}"#), ErrorCode::Unsupported),
        ] {
            let mut client = RawClient::connect(hub.address()).await;
            client.send_text(&first).await;
            assert_eq!(client.recv_error().await.0, code, "{first}");
            client.recv_close().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_without_hello_is_closed_after_five_seconds() {
    with_timeout(async {
        let hub = start_hub().await;
        let start = Instant::now();
        let mut client = RawClient::connect(hub.address()).await;
        assert_eq!(client.recv_error().await, (ErrorCode::BadMessage, None));
        assert_eq!(client.recv_close().await, Some(CloseCode::Policy));
        assert!(start.elapsed() >= Duration::from_secs(5));
    })
    .await;
}

#[tokio::test]
async fn a_request_head_that_never_ends_times_out() {
    with_timeout(async {
        let hub = start_hub().await;
        let head = "GET /signal HTTP/1.1\r\nHost: localhost\r\nX-Slow: ";
        let answer = http_exchange(hub.address(), head).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_request_head_that_is_too_long_is_refused() {
    with_timeout(async {
        let hub = start_hub().await;
        let head =
            format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        assert!(http_exchange(hub.address(), &head).await.starts_with("HTTP/1.1 431"), "too long");
        let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: x\r\n".repeat(100));
        assert!(http_exchange(hub.address(), &head).await.starts_with("HTTP/1.1 431"), "too many");
    })
    .await;
}

#[tokio::test]
async fn pages_describe_themselves_and_echo_no_input() {
    with_timeout(async {
        let hub = start_hub().await;
        let get = |path: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        };
        let root = http_exchange(hub.address(), &get("/")).await;
        assert!(
            root.starts_with("HTTP/1.1 200") && root.ends_with(r#"{"quintet":{"protocol":1}}"#)
        );
        let page = http_exchange(hub.address(), &get("/s/town-hall")).await;
        let command = format!("quintet join http://{}/s/town-hall<", hub.address());
        assert!(page.starts_with("HTTP/1.1 200") && page.contains(&command), "{page}");
        assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
        for path in ["/s/%3Cscript%3E", "/s/'-alert(1)", "/s/<script>", "/x"] {
            let page = http_exchange(hub.address(), &get(path)).await;
            assert!(page.starts_with("HTTP/1.1 404") || page.starts_with("HTTP/1.1 400"), "{page}");
            assert!(!page.contains("script") && !page.contains("alert"), "{page}");
        }
        let posted =
            http_exchange(hub.address(), "POST /signal HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(
            posted.starts_with("HTTP/1.1 405") && posted.contains("allow: GET, HEAD"),
            "{posted}"
        );
        let plain = http_exchange(hub.address(), &get("/signal")).await;
        assert!(plain.starts_with("HTTP/1.1 426"), "{plain}");
    })
    .await;
}

#[tokio::test]
async fn whether_a_session_is_open_does_not_show_in_its_page() {
    with_timeout(async {
        let hub = start_hub().await;
        let head = "GET /s/secret HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let body = |page: String| page.split_once("\r\n\r\n").unwrap().1.to_owned();
        let before = body(http_exchange(hub.address(), head).await);
        let mut opener = RawClient::hello(&hub).await;
        opener.send(&open("secret", MESH)).await;
        opener.recv().await;
        assert_eq!(body(http_exchange(hub.address(), head).await), before);
    })
    .await;
}

/// Two clients at a hub: the opener of a session and its guest, after both have been told so.
async fn opener_and_guest(hub: &Hub, id: &str) -> (RawClient, RawClient) {
    let (mut opener, mut guest) = (RawClient::hello(hub).await, RawClient::hello(hub).await);
    opener.send(&open(id, MESH)).await;
    opener.recv().await;
    guest.send(&join(id, false)).await;
    guest.recv().await;
    opener.recv().await;
    (opener, guest)
}

#[tokio::test]
async fn a_client_with_a_killed_socket_is_away_and_returns_with_its_token() {
    with_timeout(async {
        let hub = start_hub().await;
        let (mut opener, guest) = opener_and_guest(&hub, "a").await;
        let (id, token) = (guest.participant.clone(), guest.token.clone());
        drop(guest);
        let (session, participant) = (session("a"), id.clone());
        let presence = Presence::Away { silent_ms: 0 };
        let away = HubMessage::ParticipantPresence { session, participant, presence };
        assert_eq!(opener.recv().await, away);
        let mut returned = RawClient::hello_with(&hub, Some(token), 77).await;
        assert_eq!(returned.participant, id);
        returned.send(&join("a", false)).await;
        assert!(matches!(returned.recv().await, HubMessage::Joined { role: Role::Guest, .. }));
        let HubMessage::ParticipantJoined { participant, .. } = opener.recv().await else {
            panic!("the opener is notified of the return");
        };
        assert_eq!(participant.instance, Instance::from_random(77));
    })
    .await;
}

#[tokio::test]
async fn a_new_connection_replaces_a_half_open_one() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut first = RawClient::hello(&hub).await;
        let second = RawClient::hello_with(&hub, Some(first.token.clone()), 1).await;
        assert_eq!(second.participant, first.participant);
        assert_eq!(first.recv_error().await, (ErrorCode::NotAllowed, None));
        assert_eq!(first.recv_close().await, Some(CloseCode::Normal));
    })
    .await;
}

#[tokio::test]
async fn a_flood_of_joins_from_one_address_is_delayed_and_the_connections_stay_open() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut clients = [
            RawClient::hello(&hub).await,
            RawClient::hello(&hub).await,
            RawClient::hello(&hub).await,
        ];
        let start = Instant::now();
        for _ in 0..300 {
            for client in &mut clients {
                client.send(&join("a", false)).await;
            }
        }
        for client in &mut clients {
            for _ in 0..300 {
                let missing = (ErrorCode::NoSuchSession, Some(session("a")));
                assert_eq!(client.recv_error().await, missing);
            }
            client.send(&ClientMessage::Ping).await;
            assert_eq!(client.recv().await, HubMessage::Pong);
        }
        // 400 at once and 200 a second.
        assert!(start.elapsed() >= Duration::from_millis(2_490), "{:?}", start.elapsed());
    })
    .await;
}

#[tokio::test]
async fn messages_beyond_the_rate_are_read_later_and_none_is_lost() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut client = RawClient::hello(&hub).await;
        let count = 500;
        for number in 0..count {
            let text = format!(r#"{{"type":"hand-{number}-raised"}}"#);
            client.socket.feed(Message::text(text)).await.unwrap();
        }
        client.socket.flush().await.unwrap();
        for number in 0..count {
            let HubMessage::Error { code: ErrorCode::Unsupported, message, .. } =
                client.recv().await
            else {
                panic!("an error");
            };
            assert!(message.contains(&format!("hand-{number}-raised")), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_dropped_hub_closes_its_connections_and_its_port() {
    with_timeout(async {
        let hub = start_hub().await;
        let address = hub.address();
        let mut client = RawClient::hello(&hub).await;
        drop(hub);
        while client.socket.next().await.is_some_and(|message| message.is_ok()) {}
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The response of a server to a request, up to the end of the connection. A hub keeps it open
/// after a page, for five seconds, unless the request asks for its end.
async fn http_exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![];
    // A server that has refused a request may reset the connection before it has read all of it.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// A WebSocket to a hub without the client around it.
struct RawClient {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    participant: ParticipantId,
    token: Secret,
}

impl RawClient {
    fn new(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        let token = Secret::from_random([0; 16]);
        Self { socket, participant: ParticipantId::from_digest([0; 10]), token }
    }

    async fn connect(address: SocketAddr) -> Self {
        Self::new(connect_async(format!("ws://{address}/x/signal")).await.unwrap().0)
    }

    /// Connects to a hub at an address, and exchanges `hello` and `welcome`.
    async fn hello_at(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.exchange_hello(None, 5).await;
        client
    }

    /// Exchanges `hello` and `welcome` over a TCP connection to a hub.
    async fn hello_over(stream: TcpStream, address: SocketAddr) -> Self {
        let url = format!("ws://{address}/signal");
        let (socket, _) = client_async(url, MaybeTlsStream::Plain(stream)).await.unwrap();
        let mut client = Self::new(socket);
        client.exchange_hello(None, 5).await;
        client
    }

    async fn hello(hub: &Hub) -> Self {
        Self::hello_with(hub, None, 5).await
    }

    async fn hello_with(hub: &Hub, token: Option<Secret>, run: u64) -> Self {
        let mut client = Self::connect(hub.address()).await;
        client.exchange_hello(token, run).await;
        client
    }

    async fn exchange_hello(&mut self, token: Option<Secret>, run: u64) {
        let (name, instance) = (String::new(), Instance::from_random(run));
        let hello = ClientMessage::Hello { protocol: 1, name, instance, token, proof: None };
        self.send(&hello).await;
        let welcome = self.recv().await;
        let HubMessage::Welcome { participant, token, .. } = welcome else {
            panic!("{welcome:?}");
        };
        (self.participant, self.token) = (participant, token);
    }

    async fn send(&mut self, message: &ClientMessage) {
        self.send_text(&serde_json::to_string(message).unwrap()).await;
    }

    async fn send_text(&mut self, text: &str) {
        self.socket.send(Message::text(text)).await.unwrap();
    }

    async fn recv(&mut self) -> HubMessage {
        let message = self.socket.next().await.expect("the connection is open").unwrap();
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    async fn recv_error(&mut self) -> (ErrorCode, Option<SessionId>) {
        let answer = self.recv().await;
        let HubMessage::Error { code, session, message } = answer else { panic!("{answer:?}") };
        assert!(!message.is_empty());
        (code, session)
    }

    async fn recv_close(&mut self) -> Option<CloseCode> {
        let message = self.socket.next().await.expect("a close frame").unwrap();
        let Message::Close(frame) = message else { panic!("{message:?}") };
        assert!(self.socket.next().await.is_none_or(|message| message.is_err()));
        frame.map(|frame| frame.code)
    }
}
