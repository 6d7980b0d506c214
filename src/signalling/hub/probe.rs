//! Probes whether a Quintet hub answers at an address.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    HeaderMap, Request,
    client::conn::http1,
    header::{self, HeaderName, HeaderValue},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};
use url::Url;

use super::identity::{CHALLENGE, Challenge, HubIdentity};
use crate::{
    model::{HubUrl, PROTOCOL},
    signalling::dial::dial,
};

/// The time limit for a hub on this machine: the program waits for it at its start.
const NEAR_PATIENCE: Duration = Duration::from_millis(500);

/// The time limit for a hub on another machine.
const FAR_PATIENCE: Duration = Duration::from_secs(3);

/// The longest response that is read, in bytes; a hub's has 28.
const MAX_ANSWER: usize = 1024;

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// A hub that speaks this program's version of the protocol, and has the identity if one was
    /// given.
    Hub,
    /// Such a hub, but it does not prove that it is this user's.
    OtherUsersHub,
    /// Another server, or none.
    NoHub,
    /// No response within the time limit: a hub on a busy machine is possible.
    Silence,
}

/// Probes for a hub of any user.
///
/// Takes at most half a second on a loopback address, 3 s elsewhere. Connects without TLS, so the
/// result is [`ProbeResult::NoHub`] for an `https` address: a hub on one's own machine has no TLS.
pub async fn find_hub(url: &HubUrl) -> Found {
    look(url, None).await
}

/// The same, but only a hub that proves to have that identity is a [`ProbeResult::Hub`].
pub async fn find_hub_of(url: &HubUrl, identity: &HubIdentity) -> Found {
    look(url, Some(identity)).await
}

async fn look(url: &HubUrl, identity: Option<&HubIdentity>) -> Found {
    let limit = if url.is_loopback() { NEAR_PATIENCE } else { FAR_PATIENCE };
    match timeout(limit, ask(url, identity)).await {
        Ok(Some(Answer { version, is_proven })) if version == u64::from(PROTOCOL) => {
            if is_proven {
                Found::Hub
            } else {
                Found::OtherUsersHub
            }
        }
        Ok(_) => Found::NoHub,
        Err(_) => Found::Silence,
    }
}

/// The response of a hub.
struct Answer {
    /// The version of the protocol that it speaks.
    version: u64,
    /// Whether it has proven the identity that was asked for.
    is_proven: bool,
}

/// Asks for the version and the identity of a hub; `None` if there is no hub.
async fn ask(url: &HubUrl, identity: Option<&HubIdentity>) -> Option<Answer> {
    let parsed = Url::parse(url.as_str()).ok().filter(|url| url.scheme() == "http")?;
    let (host, port) = (parsed.host_str()?, parsed.port_or_known_default()?);
    let stream = dial(host, port).await.ok()?;
    let at = stream.peer_addr().ok()?;
    let challenge = Challenge::fresh();
    let field = identity.map(|_| (CHALLENGE, challenge.value()));
    let (version, fields) = exchange(stream, url, &format!("{host}:{port}"), field).await?;
    let is_proven = identity.is_none_or(|identity| identity.is_proven(&fields, &challenge, at));
    Some(Answer { version, is_proven })
}

/// Requests a hub's base address over a stream to it: returns the version of the protocol, and the
/// header fields of the response. `None` if it is not a hub.
pub(in crate::signalling) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    hub: &HubUrl,
    host: &str,
    field: Option<(HeaderName, HeaderValue)>,
) -> Option<(u64, HeaderMap)> {
    let url = Url::parse(hub.as_str()).ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let mut request =
        Request::get(format!("{}/", url.path().trim_end_matches('/'))).header(header::HOST, host);
    if let Some((name, value)) = field {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).ok()?;
    let exchange = async {
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let bytes = Limited::new(body, MAX_ANSWER).collect().await.ok()?.to_bytes();
        let answer: Value = serde_json::from_slice(&bytes).ok()?;
        let version = answer.get("quintet")?.get("protocol")?.as_u64()?;
        // The connection is not needed any more, so its further errors do not matter.
        Some((version, head.headers))
    };
    tokio::select! {
        answer = exchange => answer,
        // Without a connection the request fails by itself.
        () = async { let _ = connection.await; std::future::pending().await } => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;
    use crate::signalling::{Hub, HubOptions};

    #[tokio::test]
    async fn a_hub_is_recognised_and_nothing_else_is() {
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let options = HubOptions::at(listen);
        let identity = options.identity.clone();
        let hub = Hub::start(options).await.unwrap();
        assert_eq!(find_hub(&hub.link_base()).await, Found::Hub);
        assert_eq!(find_hub_of(&hub.link_base(), &identity).await, Found::Hub);
        let other = HubIdentity::fresh();
        assert_eq!(find_hub_of(&hub.link_base(), &other).await, Found::OtherUsersHub);
        let prefixed: HubUrl = format!("{}/quintet", hub.link_base()).parse().unwrap();
        assert_eq!(find_hub(&prefixed).await, Found::Hub);
        let tls: HubUrl = format!("https://{}", hub.address()).parse().unwrap();
        assert_ne!(find_hub(&tls).await, Found::Hub);
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HubUrl = format!("http://{}", free.local_addr().unwrap()).parse().unwrap();
        drop(free);
        assert_eq!(find_hub(&url).await, Found::NoHub, "nobody there");
    }

    #[tokio::test]
    async fn another_server_and_another_version_are_no_hub() {
        for body in ["{\"quintet\":{\"protocol\":2}}", "{}", "<html>", &" ".repeat(2000)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url: HubUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
            let serve = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                stream.write_all((head + body).as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                stream
            };
            let (found, _stream) = tokio::join!(find_hub(&url), serve);
            assert_ne!(found, Found::Hub, "{body}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_no_hub() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HubUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        assert_ne!(find_hub(&url).await, Found::Hub);
    }
}
