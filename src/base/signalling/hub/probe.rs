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
const LOCAL_TIMEOUT: Duration = Duration::from_millis(500);

/// The time limit for a hub on another machine.
const REMOTE_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest response that is read, in bytes; a hub's has 28.
const MAX_RESPONSE_BYTES: usize = 1024;

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProbeResult {
    /// A hub that speaks this program's version of the protocol, and has the identity if one was
    /// given.
    Hub,
    /// Such a hub, but it does not prove that it is this user's.
    OtherUsersHub,
    /// Another server, or none.
    NoHub,
    /// No response within the time limit: a hub on a busy machine is possible.
    NoAnswer,
}

/// Probes for a hub of any user.
///
/// Takes at most half a second on a loopback address, 3 s elsewhere. Connects without TLS, so the
/// result is [`ProbeResult::NoHub`] for an `https` address: a hub on one's own machine has no TLS.
pub async fn probe_hub(url: &HubUrl) -> ProbeResult {
    probe(url, None).await
}

/// The same, but only a hub that proves to have that identity is a [`ProbeResult::Hub`].
pub async fn probe_hub_of(url: &HubUrl, identity: &HubIdentity) -> ProbeResult {
    probe(url, Some(identity)).await
}

async fn probe(url: &HubUrl, identity: Option<&HubIdentity>) -> ProbeResult {
    let limit = if url.is_loopback() { LOCAL_TIMEOUT } else { REMOTE_TIMEOUT };
    match timeout(limit, request_identity(url, identity)).await {
        Ok(Some(ProbeResponse { version, is_proven })) if version == u64::from(PROTOCOL) => {
            if is_proven {
                ProbeResult::Hub
            } else {
                ProbeResult::OtherUsersHub
            }
        }
        Ok(_) => ProbeResult::NoHub,
        Err(_) => ProbeResult::NoAnswer,
    }
}

/// The response of a hub.
struct ProbeResponse {
    /// The version of the protocol that it speaks.
    version: u64,
    /// Whether it has proven the identity that was asked for.
    is_proven: bool,
}

/// Asks for the version and the identity of a hub; `None` if there is no hub.
async fn request_identity(url: &HubUrl, identity: Option<&HubIdentity>) -> Option<ProbeResponse> {
    let parsed = Url::parse(url.as_str()).ok().filter(|url| url.scheme() == "http")?;
    let (host, port) = (parsed.host_str()?, parsed.port_or_known_default()?);
    let stream = dial(host, port).await.ok()?;
    let at = stream.peer_addr().ok()?;
    let challenge = Challenge::fresh();
    let field = identity.map(|_| (CHALLENGE, challenge.value()));
    let (version, fields) = request_version(stream, url, &format!("{host}:{port}"), field).await?;
    let is_proven =
        identity.is_none_or(|identity| identity.verify_hub_proof(&fields, &challenge, at));
    Some(ProbeResponse { version, is_proven })
}

/// Requests a hub's base address over a stream to it: returns the version of the protocol, and the
/// header fields of the response. `None` if it is not a hub.
pub(in crate::signalling) async fn request_version(
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
        let bytes = Limited::new(body, MAX_RESPONSE_BYTES).collect().await.ok()?.to_bytes();
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
        assert_eq!(probe_hub(&hub.link_base()).await, ProbeResult::Hub);
        assert_eq!(probe_hub_of(&hub.link_base(), &identity).await, ProbeResult::Hub);
        let other = HubIdentity::fresh();
        assert_eq!(probe_hub_of(&hub.link_base(), &other).await, ProbeResult::OtherUsersHub);
        let prefixed: HubUrl = format!("{}/quintet", hub.link_base()).parse().unwrap();
        assert_eq!(probe_hub(&prefixed).await, ProbeResult::Hub);
        let tls: HubUrl = format!("https://{}", hub.address()).parse().unwrap();
        assert_ne!(probe_hub(&tls).await, ProbeResult::Hub);
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HubUrl = format!("http://{}", free.local_addr().unwrap()).parse().unwrap();
        drop(free);
        assert_eq!(probe_hub(&url).await, ProbeResult::NoHub, "nobody there");
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
            let (found, _stream) = tokio::join!(probe_hub(&url), serve);
            assert_ne!(found, ProbeResult::Hub, "{body}");
        }
    }

    #[tokio::test]
    async fn a_silent_server_is_no_hub() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HubUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        assert_ne!(probe_hub(&url).await, ProbeResult::Hub);
    }
}
