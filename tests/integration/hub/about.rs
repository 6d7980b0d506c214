//! What a hub tells of a session to those who have not joined it.

use quintet::{
    model::{ClientMessage, HubMessage},
    signalling::Hub,
};

use super::{http_exchange, opener_and_guest};
use crate::rig::in_process_hub::{start_hub, with_timeout};

/// The status and the body of the answer.
async fn about(hub: &Hub, id: &str) -> (u16, String) {
    let request =
        format!("GET /s/{id}/about HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = http_exchange(hub.address(), &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let is_json = head.contains("content-type: application/json");
    assert!(is_json || !head.starts_with("HTTP/1.1 200"), "{head}");
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn a_page_learns_the_kind_before_it_joins_and_nobody_notices() {
    with_timeout(async {
        let hub = start_hub().await;
        let closed =
            r#"{"open":false,"kind":null,"limit":0,"present":0,"full":false,"https":false}"#;
        assert_eq!(about(&hub, "town-hall").await, (200, closed.to_owned()));
        let (mut opener, _guest) = opener_and_guest(&hub, "town-hall").await;
        let kind = r#"{"media":["audio","video"],"direction":"many-to-many"}"#;
        let open = format!(
            r#"{{"open":true,"kind":{kind},"limit":12,"present":2,"full":false,"https":false}}"#
        );
        assert_eq!(about(&hub, "town-hall").await, (200, open));
        assert_eq!(about(&hub, "other").await, (200, closed.to_owned()));
        // The next message to the opener is the answer to this one.
        opener.send(&ClientMessage::Ping).await;
        assert!(matches!(opener.recv().await, HubMessage::Pong));
    })
    .await;
}
