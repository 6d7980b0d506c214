//! The hub as a web server: its endpoints and methods, bodies, and connections with several
//! requests.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use quintet::{
    model::ClientMessage,
    signalling::{Hub, HubOptions},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::sleep,
};

use super::{RawClient, requests::upgrade_request};
use crate::rig::in_process_hub::{start_hub, with_timeout};

/// The time limit for the head of a request, and a margin. (A whole request may take ten seconds.)
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const MARGIN: Duration = Duration::from_secs(4);

/// The longest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// An HTTP connection to a hub.
struct WebClient {
    stream: TcpStream,
    /// Bytes after the last response.
    received: Vec<u8>,
}

/// A response.
#[derive(Debug)]
struct WebResponse {
    status: u16,
    head: String,
    body: String,
}

impl WebResponse {
    fn closes(&self) -> bool {
        self.head.contains("connection: close")
    }
}

impl WebClient {
    async fn connect(hub: &Hub) -> Self {
        let stream = TcpStream::connect(hub.address()).await.unwrap();
        Self { stream, received: vec![] }
    }

    async fn send(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).await.unwrap();
    }

    async fn get(&mut self, path: &str) -> WebResponse {
        self.send(&get(path)).await;
        self.recv().await
    }

    async fn recv(&mut self) -> WebResponse {
        let head = loop {
            if let Some(end) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break self.take(end + 4);
            }
            assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "no response");
        };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.received.len() < length {
            assert_ne!(self.stream.read_buf(&mut self.received).await.unwrap(), 0, "half a page");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        WebResponse { status, body: self.take(length), head }
    }

    fn take(&mut self, length: usize) -> String {
        let text = self.received.drain(..length).collect();
        String::from_utf8(text).unwrap()
    }

    /// Waits until the hub closes the connection.
    async fn recv_end(&mut self) {
        while self.stream.read_buf(&mut self.received).await.is_ok_and(|count| count > 0) {}
        assert_eq!(self.received, b"", "nothing came after the last response");
    }

    /// The status of a response after which the hub may reset the connection.
    async fn refused_status(&mut self, request: &str) -> u16 {
        self.send(request).await;
        let mut head = [0; 12];
        self.stream.read_exact(&mut head).await.unwrap();
        std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The response to one request on a connection of its own.
async fn exchange(hub: &Hub, request: &str) -> WebResponse {
    let mut client = WebClient::connect(hub).await;
    client.send(request).await;
    client.recv().await
}

#[tokio::test]
async fn a_connection_stays_open_for_further_pages_and_a_websocket() {
    with_timeout(async {
        let hub = start_hub().await;
        let mut client = WebClient::connect(&hub).await;
        for path in ["/s/town-hall", "/", "/s/signal"] {
            let page = client.get(path).await;
            assert!(page.status == 200 && !page.closes(), "{page:?}");
        }
        client.send(&format!("{}{}", get("/s/a"), get("/s/b"))).await;
        for command in ["/s/a<", "/s/b<"] {
            assert!(client.recv().await.body.contains(command), "in the order of the requests");
        }
        let mut socket = RawClient::hello_over(client.stream, hub.address()).await;
        socket.send(&ClientMessage::Ping).await;
        socket.recv().await;
    })
    .await;
}

#[tokio::test]
async fn a_connection_is_closed_after_a_refusal_a_body_and_a_hundred_requests() {
    with_timeout(async {
        let hub = start_hub().await;
        for request in [
            get("/x"),
            get("/s/"),
            get("/signal"),
            get("/s/a").replace("localhost", "evil.example"),
            get("/s/a").replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nab"),
            get("/s/a").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            "DELETE /s/a HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ] {
            let mut client = WebClient::connect(&hub).await;
            client.send(&format!("{request}{}", get("/s/next"))).await;
            let response = client.recv().await;
            assert!(response.closes() || response.status == 426, "{response:?}");
            client.recv_end().await;
        }
        let mut client = WebClient::connect(&hub).await;
        for _ in 1..100 {
            assert!(!client.get("/").await.closes());
        }
        assert!(client.get("/").await.closes());
        client.recv_end().await;
    })
    .await;
}

#[tokio::test]
async fn a_trusted_proxy_has_one_request_on_a_connection() {
    with_timeout(async {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        let hub = Hub::start(HubOptions { trusted_proxies, ..HubOptions::at(listen) }).await;
        let hub = hub.unwrap();
        for field in ["X-Forwarded-For: 203.0.113.9", "X: y"] {
            let request = get("/s/a").replace("\r\n\r\n", &format!("\r\n{field}\r\n\r\n"));
            let page = exchange(&hub, &request).await;
            assert!(page.status == 200 && page.closes(), "{page:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_request_that_is_slow_or_never_comes_times_out_like_the_first() {
    with_timeout(async {
        let hub = start_hub().await;
        let slow = async {
            let mut client = WebClient::connect(&hub).await;
            assert_eq!(client.get("/s/a").await.status, 200);
            let start = Instant::now();
            let mut written = client.stream.write_all(b"GET / HTTP/1.1\r\n").await;
            while written.is_ok() {
                sleep(Duration::from_millis(100)).await;
                written = client.stream.write_all(b"a: b\r\n").await;
            }
            start.elapsed()
        };
        let idle = async {
            let mut client = WebClient::connect(&hub).await;
            assert_eq!(client.get("/s/a").await.status, 200);
            let start = Instant::now();
            client.recv_end().await;
            start.elapsed()
        };
        let (slow, idle) = tokio::join!(slow, idle);
        for elapsed in [slow, idle] {
            let lower = HEAD_TIMEOUT.mul_f32(0.9);
            assert!((lower..HEAD_TIMEOUT + MARGIN).contains(&elapsed), "{slow:?} {idle:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_bare_line_feed_in_a_later_head_is_refused() {
    with_timeout(async {
        let hub = start_hub().await;
        let bad = "GET /s/b HTTP/1.1\r\nHost: localhost\n\r\n";
        let mut client = WebClient::connect(&hub).await;
        assert_eq!(client.get("/s/a").await.status, 200);
        client.send(bad).await;
        assert_eq!(client.recv().await.status, 400);
        client.recv_end().await;
        let mut client = WebClient::connect(&hub).await;
        client.send(&format!("{}{bad}{}", get("/s/a"), get("/s/c"))).await;
        let answers = [client.recv().await.status, client.recv().await.status];
        assert_eq!(answers, [200, 400]);
        client.recv_end().await;
    })
    .await;
}

#[tokio::test]
async fn other_methods_are_refused_with_those_that_the_endpoint_has() {
    with_timeout(async {
        let hub = start_hub().await;
        for path in ["/", "/signal", "/s/town-hall", "/s/signal", "/s/"] {
            for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
                let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                let answer = exchange(&hub, &request).await;
                assert_eq!(answer.status, 405, "{method} {path}");
                assert!(answer.head.contains("allow: GET, HEAD\r\n"), "{}", answer.head);
            }
        }
        let nowhere = exchange(&hub, "POST /x HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(nowhere.status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_whatever_the_method() {
    with_timeout(async {
        let hub = start_hub().await;
        let announced = |method: &str, path: &str, bytes: usize| {
            format!(
                "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n"
            )
        };
        for method in ["GET", "HEAD", "POST", "PATCH", "DELETE"] {
            for path in ["/", "/s/town-hall", "/x", "/signal"] {
                // The hub does not wait for it.
                let request = announced(method, path, MAX_BODY_BYTES + 1);
                let status = WebClient::connect(&hub).await.refused_status(&request).await;
                assert_eq!(status, 413, "{method} {path}");
            }
        }
        let chunked = |bytes: usize| {
            let field = "Transfer-Encoding: chunked";
            let body = "x".repeat(bytes);
            format!(
                "GET /s/a HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n{bytes:x}\r\n{body}\r\n\
                 0\r\n\r\n"
            )
        };
        let fits = announced("GET", "/s/a", MAX_BODY_BYTES) + &"x".repeat(MAX_BODY_BYTES);
        for (request, status) in
            [(fits, 200), (chunked(MAX_BODY_BYTES), 200), (chunked(MAX_BODY_BYTES + 1), 413)]
        {
            assert_eq!(exchange(&hub, &request).await.status, status);
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_never_ends_times_out() {
    with_timeout(async {
        let hub = start_hub().await;
        let request = get("/s/a").replace("\r\n\r\n", "\r\nContent-Length: 10\r\n\r\nhalf");
        let answer = exchange(&hub, &request).await;
        assert!(answer.status == 408 && answer.closes(), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_on_another_path_is_no_websocket() {
    with_timeout(async {
        let hub = start_hub().await;
        let own = hub.address().to_string();
        let upgrade = |path: &str, origin: &str| {
            upgrade_request(&own, origin).replace("/signal", path).replace("Origin: \r\n", "")
        };
        for (path, status) in [("/", 200), ("/s/town-hall", 200), ("/s/-", 404), ("/x", 404)] {
            for origin in ["", &format!("http://{own}")] {
                let answer = exchange(&hub, &upgrade(path, origin)).await;
                assert_eq!(answer.status, status, "{path}");
            }
            let foreign = exchange(&hub, &upgrade(path, "http://evil.example")).await;
            assert_eq!(foreign.status, 403, "{path}");
        }
        let posted = upgrade("/signal", "").replace("GET", "POST");
        assert_eq!(exchange(&hub, &posted).await.status, 405);
        let prefixed = exchange(&hub, &upgrade("/quintet/signal", "")).await;
        assert_eq!(prefixed.status, 101, "a proxy may add a prefix");
    })
    .await;
}

#[tokio::test]
async fn a_web_page_of_another_site_sends_nothing_but_reads() {
    with_timeout(async {
        let hub = start_hub().await;
        for method in ["POST", "PATCH", "DELETE"] {
            let request = |origin: &str| {
                format!("{method} /s/a HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\n\r\n")
            };
            assert_eq!(exchange(&hub, &request("http://evil.example")).await.status, 403);
            assert_eq!(exchange(&hub, &request("http://localhost")).await.status, 405);
        }
    })
    .await;
}
