//! HTTP requests to a hub: which are served, and what the responses contain.

use futures_util::StreamExt as _;
use quintet::{
    model::{HubMessage, HubUrl},
    signalling::{Hub, HubOptions},
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::{http_exchange, opener_and_guest};
use crate::rig::in_process_hub::{start_hub, with_timeout};

/// The fields of a request after which the hub closes the connection.
const HOST_AND_CLOSE: &str = "Host: localhost\r\nConnection: close";

/// The request of a browser that opens a WebSocket.
pub(super) fn upgrade_request(host: &str, origin: &str) -> String {
    format!(
        "GET /signal HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

async fn status(hub: &Hub, request: &str) -> u16 {
    let answer = http_exchange(hub.address(), request).await;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn a_page_with_a_rebound_name_is_refused() {
    with_timeout(async {
        let hub = start_hub().await;
        let port = hub.address().port();
        let evil = format!("evil.example:{port}");
        let opening = upgrade_request(&evil, &format!("http://{evil}"));
        let answer = http_exchange(hub.address(), &opening).await;
        assert!(answer.starts_with("HTTP/1.1 421 "), "{answer}");
        assert!(answer.contains("--public-url") && !answer.contains("evil"), "{answer}");
        for path in ["/", "/s/secret", "/signal", "/elsewhere"] {
            for method in ["GET", "HEAD", "POST"] {
                let request = format!("{method} {path} HTTP/1.1\r\nHost: {evil}\r\n\r\n");
                assert_eq!(status(&hub, &request).await, 421, "{method} {path}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_hub_answers_to_the_public_name_that_it_was_given() {
    with_timeout(async {
        let public: HubUrl = "https://hub.example".parse().unwrap();
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let options = HubOptions { public: Some(public), ..HubOptions::at(listen) };
        let hub = Hub::start(options).await.unwrap();
        let page = "GET /s/a HTTP/1.1\r\nHost: hub.example\r\nConnection: close\r\n\r\n";
        assert_eq!(status(&hub, page).await, 200);
        // A proxy that replaces the host.
        let behind = upgrade_request(&hub.address().to_string(), "https://other.example");
        assert_eq!(status(&hub, &behind).await, 403);
        // An accepted connection stays open, so this only checks that it is accepted.
        let url = format!("ws://{}/signal", hub.address());
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("origin", "https://hub.example".parse().unwrap());
        tokio_tungstenite::connect_async(request).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_request_without_one_valid_host_and_one_origin_is_refused() {
    with_timeout(async {
        let hub = start_hub().await;
        let own = hub.address();
        for head in [
            "GET / HTTP/1.1\r\n".to_owned(),
            "GET / HTTP/1.0\r\n".to_owned(),
            format!("GET / HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\n"),
            "GET / HTTP/1.1\r\nHost: <b>evil</b>\r\n".to_owned(),
            format!("GET http://evil.example/ HTTP/1.1\r\nHost: {own}\r\n"),
        ] {
            assert_eq!(status(&hub, &format!("{head}\r\n")).await, 400, "{head}");
        }
        let absolute =
            format!("GET http://{own}/ HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n\r\n");
        assert_eq!(status(&hub, &absolute).await, 200);
        let origin = format!("http://{own}");
        let twice = upgrade_request(&own.to_string(), &format!("{origin}\r\nOrigin: {origin}"));
        assert_eq!(status(&hub, &twice).await, 403);
        for body in ["Content-Length: 5\r\n\r\nhello", "Content-Length: 0\r\n\r\n"] {
            let opening = upgrade_request(&own.to_string(), &origin);
            let with_body = opening.replace("\r\n\r\n", &format!("\r\n{body}"));
            assert_eq!(status(&hub, &with_body).await, 400, "{body:?}");
        }
        let chunked = "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        let opening = upgrade_request(&own.to_string(), &origin);
        let chunked = opening.replace("\r\n\r\n", &format!("\r\n{chunked}"));
        assert_eq!(status(&hub, &chunked).await, 400);
        for bare in [
            format!("GET / HTTP/1.1\nHost: {own}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {own}\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: {own}\r\nX: y\nHost: evil.example\r\n\r\n"),
            opening.replace("Connection: Upgrade\r\n", "Connection: Upgrade\n"),
        ] {
            assert_eq!(status(&hub, &bare).await, 400, "{bare:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn head_gets_the_response_of_get_without_the_body() {
    with_timeout(async {
        let hub = start_hub().await;
        for (path, status) in [("/s/town-hall", 200), ("/", 200), ("/x", 404), ("/signal", 426)] {
            let request =
                |method: &str| format!("{method} {path} HTTP/1.1\r\n{HOST_AND_CLOSE}\r\n\r\n");
            let get = http_exchange(hub.address(), &request("GET")).await;
            let head = http_exchange(hub.address(), &request("HEAD")).await;
            let (fields, page) = head.split_once("\r\n\r\n").unwrap();
            assert_eq!(page, "");
            assert!(fields.starts_with(&format!("HTTP/1.1 {status} ")), "{fields}");
            let names = |head: &str| -> Vec<String> {
                let lines = head.lines().filter(|line| !line.starts_with("date"));
                lines.map(str::to_owned).collect()
            };
            assert_eq!(names(fields), names(get.split_once("\r\n\r\n").unwrap().0));
        }
    })
    .await;
}

#[tokio::test]
async fn every_response_forbids_search_engines_to_list_it() {
    with_timeout(async {
        let hub = start_hub().await;
        for path in ["/", "/s/town-hall", "/s/", "/robots.txt", "/signal"] {
            let request = format!("GET {path} HTTP/1.1\r\n{HOST_AND_CLOSE}\r\n\r\n");
            let answer = http_exchange(hub.address(), &request).await;
            assert!(answer.contains("x-robots-tag: noindex"), "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_session_called_signal_has_a_page_too() {
    with_timeout(async {
        let hub = start_hub().await;
        let request = format!("GET /s/signal HTTP/1.1\r\n{HOST_AND_CLOSE}\r\n\r\n");
        let page = http_exchange(hub.address(), &request).await;
        assert!(page.contains("/s/signal<"), "{page}");
    })
    .await;
}

#[tokio::test]
async fn payloads_and_fields_that_the_hub_does_not_know_are_relayed() {
    with_timeout(async {
        let hub = start_hub().await;
        let (mut opener, mut guest) = opener_and_guest(&hub, "a").await;
        for payload in [
            r#"{"type":"hand-raised","since":0.1,"deep":{"list":[1,null]}}"#,
            r#"{"type":"candidate","generation":1,"candidate":"","usernameFragment":"a b"}"#,
            r#"{"type":"media","microphone":true,"camera":true,"screen":true}"#,
        ] {
            let to = &opener.participant;
            guest
                .send_text(&format!(
                    r#"{{"type":"signal","session":"a","to":"{to}","payload":{payload}}}"#
                ))
                .await;
            let received = opener.socket.next().await.unwrap().unwrap();
            let received = received.to_text().unwrap();
            assert!(received.contains(payload), "{received}");
            // An older client can parse the message.
            let message: HubMessage = serde_json::from_str(received).unwrap();
            assert!(matches!(message, HubMessage::Signal { .. }));
        }
    })
    .await;
}
