//! Connects to a hub by its address: TCP, TLS, redirects and the WebSocket handshake.

use std::{io, net::SocketAddr};

use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_with_config,
    tungstenite::{
        self,
        client::IntoClientRequest as _,
        handshake::client::Response,
        http::{
            HeaderValue, StatusCode,
            header::{HOST, LOCATION},
        },
        protocol::WebSocketConfig,
    },
};
use tracing::debug;
use url::Url;

use super::{error_text, tls};
use crate::{
    model::{HubEndpoint, HubOwner, HubUrl, MAX_HUB_MESSAGE_BYTES},
    signalling::{
        HubIdentity, ProbeResult,
        dial::{DialError, dial},
        hub::{CHALLENGE, Challenge},
        probe_hub,
    },
};

/// The WebSocket to a hub.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// An open WebSocket, and the hub at its end.
#[derive(Debug)]
pub(super) struct OpenedHub {
    pub(super) socket: Socket,
    pub(super) endpoint: HubEndpoint,
    /// Proves to a hub of this user that the client is this user's as well.
    pub(super) proof: Option<String>,
}

/// The most redirects: one from `http` to `https`, one to another name, and some more.
const MAX_REDIRECTS: u32 = 5;

/// Why one attempt failed.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// TCP failed.
    Dial(DialError),
    /// TLS failed.
    Tls(io::Error),
    /// The WebSocket handshake failed.
    Handshake(tungstenite::Error),
}

/// Opens a WebSocket to a hub. Its place has another address if the hub redirected the client, or
/// if it turned out to use TLS. A hub on this machine is asked to prove the identity.
///
/// An `https` address never leads to a connection without TLS.
///
/// # Errors
/// A sentence for a person.
pub(super) async fn open_hub(
    hub: &HubUrl,
    identity: Option<&HubIdentity>,
) -> Result<OpenedHub, String> {
    let mut at = hub.clone();
    for _ in 0..=MAX_REDIRECTS {
        let mut outcome = attempt(&at, HostHeader::AsGiven, identity).await;
        if outcome.as_ref().is_err_and(|error| is_misdirected(&at, error)) {
            outcome = attempt(&at, HostHeader::IpAddress, identity).await;
        }
        let error = match outcome {
            Ok((socket, owner, proof)) => {
                return Ok(OpenedHub { socket, endpoint: HubEndpoint { url: at, owner }, proof });
            }
            Err(error) => error,
        };
        debug!(?error, "hub not reached");
        at = next_url(&at, &error).await?;
    }
    Err(error_text::redirect_loop(hub))
}

/// The address for the next attempt after an error.
async fn next_url(at: &HubUrl, error: &ConnectError) -> Result<HubUrl, String> {
    if let ConnectError::Handshake(tungstenite::Error::Http(response)) = error
        && let Some(location) = redirect_location(response)
    {
        return resolve_redirect(at, &location)
            .map_err(|refused| error_text::refused_redirect(at, &refused));
    }
    if let ConnectError::Handshake(error) = error
        && may_want_tls(at, error)
    {
        let secure = with_scheme(at, "https");
        if speaks_tls(&secure).await {
            return Ok(secure);
        }
    }
    if let ConnectError::Tls(error) = error
        && !is_certificate_error(error)
    {
        let plain = with_scheme(at, "http");
        if probe_hub(&plain).await == ProbeResult::Hub {
            return Err(error_text::not_encrypted(at, &plain));
        }
    }
    Err(error_text::failed(at, error))
}

/// The `Host` of the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum HostHeader {
    /// The host of the hub's address.
    AsGiven,
    /// The IP address that the name resolved to.
    IpAddress,
}

async fn attempt(
    hub: &HubUrl,
    named: HostHeader,
    identity: Option<&HubIdentity>,
) -> Result<(Socket, HubOwner, Option<String>), ConnectError> {
    let stream = connect_stream(hub).await?;
    let (local, peer) = socket_addresses(&stream);
    let mut request = hub.socket_url().into_client_request().map_err(ConnectError::Handshake)?;
    if named == HostHeader::IpAddress
        && let Some(peer) = peer
    {
        // Without the zone of an IPv6 address, which has no meaning for the hub.
        let host = SocketAddr::new(peer.ip(), peer.port()).to_string();
        let host = HeaderValue::try_from(host).expect("an address is a header's value");
        request.headers_mut().insert(HOST, host);
    }
    // On this machine, any program may listen on the port.
    let is_local = peer.is_some_and(|peer| {
        peer.ip().to_canonical().is_loopback() || local.is_some_and(|local| local.ip() == peer.ip())
    });
    let asks = identity.zip(peer).filter(|_| is_local);
    let challenge = Challenge::fresh();
    if asks.is_some() {
        request.headers_mut().insert(CHALLENGE, challenge.value());
    }
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_HUB_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_HUB_MESSAGE_BYTES));
    let opened = client_async_with_config(request, stream, Some(config)).await;
    let (socket, answer) = opened.map_err(ConnectError::Handshake)?;
    let proven =
        asks.filter(|(identity, at)| identity.verify_hub_proof(answer.headers(), &challenge, *at));
    let owner = match proven {
        Some(_) => HubOwner::ThisUser,
        None if peer.is_none_or(|peer| peer.ip().to_canonical().is_loopback()) => {
            HubOwner::Unproven
        }
        None => HubOwner::Elsewhere,
    };
    let proof = proven.and_then(|(identity, at)| {
        Some(identity.client_proof(&Challenge::read(answer.headers())?, at))
    });
    Ok((socket, owner, proof))
}

/// The local and the remote address, as far as the system knows them.
pub(super) fn socket_addresses(
    stream: &MaybeTlsStream<TcpStream>,
) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let stream = match stream {
        MaybeTlsStream::Plain(stream) => stream,
        MaybeTlsStream::Rustls(stream) => stream.get_ref().0,
        _ => return (None, None),
    };
    (stream.local_addr().ok(), stream.peer_addr().ok())
}

/// A stream to the hub, with TLS for an `https` address.
pub(super) async fn connect_stream(
    hub: &HubUrl,
) -> Result<MaybeTlsStream<TcpStream>, ConnectError> {
    let url = Url::parse(hub.as_str()).expect("a hub's address is a URL");
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default());
    let port = port.expect("a hub's address has a port");
    let stream = dial(host, port).await.map_err(ConnectError::Dial)?;
    if url.scheme() == "https" {
        let stream = tls::connect_tls(stream, host).await.map_err(ConnectError::Tls)?;
        return Ok(MaybeTlsStream::Rustls(stream));
    }
    Ok(MaybeTlsStream::Plain(stream))
}

/// Whether a server uses TLS, with a valid certificate or not.
async fn speaks_tls(hub: &HubUrl) -> bool {
    match connect_stream(hub).await {
        Ok(_) => true,
        Err(ConnectError::Tls(error)) => is_certificate_error(&error),
        Err(ConnectError::Dial(_) | ConnectError::Handshake(_)) => false,
    }
}

/// Whether a hub refused its host name. A hub without a known name refuses all names, since a web
/// page may have made one resolve to it; a program may then send the IP address instead (RFC 9110,
/// section 15.5.20). With TLS the name has to match the certificate.
fn is_misdirected(hub: &HubUrl, error: &ConnectError) -> bool {
    let is_misdirected = matches!(error, ConnectError::Handshake(tungstenite::Error::Http(answer))
        if answer.status() == StatusCode::MISDIRECTED_REQUEST);
    is_misdirected && hub.as_str().starts_with("http://")
}

/// The target of a redirect response.
fn redirect_location(response: &Response) -> Option<String> {
    let is_redirect = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(LOCATION).filter(|_| is_redirect)?;
    Some(String::from_utf8_lossy(location.as_bytes()).into_owned())
}

/// Why a redirect is not followed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum RefusedRedirect {
    /// From an encrypted connection to one that is not.
    Unencrypted(HubUrl),
    /// From another machine to this one.
    ToLoopback(HubUrl),
    /// To a URL that is not the WebSocket endpoint of a hub.
    NotAHub(String),
}

/// The hub's new address, if `location` is the WebSocket endpoint of a hub (RFC 9110, 10.2.2).
fn resolve_redirect(from: &HubUrl, location: &str) -> Result<HubUrl, RefusedRedirect> {
    let not_a_hub =
        || RefusedRedirect::NotAHub(location.chars().filter(|c| !c.is_control()).collect());
    let asked = Url::parse(&format!("{from}/signal")).map_err(|_| not_a_hub())?;
    let mut to = asked.join(location).map_err(|_| not_a_hub())?;
    let scheme = match to.scheme() {
        "https" | "wss" => "https",
        "http" | "ws" => "http",
        _ => return Err(not_a_hub()),
    };
    let base = to.path().trim_end_matches('/').strip_suffix("/signal").map(str::to_owned);
    to.set_path(&base.ok_or_else(not_a_hub)?);
    to.set_query(None);
    to.set_fragment(None);
    // Not earlier: the URL type drops the default port of the other scheme.
    let text = to.as_str().replacen(to.scheme(), scheme, 1);
    let to: HubUrl = text.parse().map_err(|_| not_a_hub())?;
    if asked.scheme() == "https" && scheme == "http" {
        return Err(RefusedRedirect::Unencrypted(to));
    }
    if to.is_loopback() && !from.is_loopback() {
        return Err(RefusedRedirect::ToLoopback(to));
    }
    Ok(to)
}

/// Whether a server that got plain HTTP may expect TLS. Some respond with a 400, some respond in
/// TLS, which is not HTTP, and some just close.
fn may_want_tls(hub: &HubUrl, error: &tungstenite::Error) -> bool {
    let is_plain = hub.as_str().starts_with("http://");
    let is_answer = if let tungstenite::Error::Http(response) = error {
        response.status() != StatusCode::BAD_REQUEST
    } else {
        false
    };
    is_plain && !is_answer
}

pub(super) fn with_scheme(hub: &HubUrl, scheme: &str) -> HubUrl {
    let (_, remainder) = hub.as_str().split_once("://").unwrap_or(("", hub.as_str()));
    format!("{scheme}://{remainder}").parse().expect("only the scheme is another")
}

/// Whether the server uses TLS and its certificate is the problem.
fn is_certificate_error(error: &io::Error) -> bool {
    use rustls::Error::{InvalidCertificate, NoCertificatesPresented};
    tls::tls_error(error)
        .is_some_and(|fault| matches!(fault, InvalidCertificate(_) | NoCertificatesPresented))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(from: &str, location: &str) -> Result<String, RefusedRedirect> {
        resolve_redirect(&from.parse().unwrap(), location).map(|hub| hub.to_string())
    }

    #[test]
    fn redirects_to_https_and_to_other_hubs_are_followed() {
        for (from, location, to) in [
            ("http://a.example:80", "https://a.example/signal", "https://a.example:443"),
            ("http://a.example:80/x", "https://b.example/y/signal?z#w", "https://b.example:443/y"),
            ("http://a.example:7340", "//b.example/signal/", "http://b.example:80"),
            ("http://a.example:7340/x", "/y/signal", "http://a.example:7340/y"),
            ("https://a.example:443", "wss://b.example:8443/signal", "https://b.example:8443"),
            ("http://a.example:80", "ws://a.example:7340/signal", "http://a.example:7340"),
            ("http://127.0.0.1:80", "http://127.0.0.1:7340/signal", "http://127.0.0.1:7340"),
        ] {
            assert_eq!(followed(from, location).as_deref(), Ok(to), "{from} to {location}");
        }
    }

    #[test]
    fn redirects_to_http_to_loopback_and_to_other_pages_are_refused() {
        let from = "https://a.example:443";
        let to = |text: &str| -> HubUrl { text.parse().unwrap() };
        for (location, refused) in [
            ("http://a.example/signal", RefusedRedirect::Unencrypted(to("http://a.example:80"))),
            ("ws://b.example/signal", RefusedRedirect::Unencrypted(to("http://b.example:80"))),
            (
                "https://127.0.0.1:7340/signal",
                RefusedRedirect::ToLoopback(to("https://127.0.0.1:7340")),
            ),
            ("https://a.example/login", RefusedRedirect::NotAHub("https://a.example/login".into())),
            ("ftp://a.example/signal", RefusedRedirect::NotAHub("ftp://a.example/signal".into())),
            (
                "https://u:p@a.example/signal",
                RefusedRedirect::NotAHub("https://u:p@a.example/signal".into()),
            ),
            ("https://", RefusedRedirect::NotAHub("https://".into())),
        ] {
            assert_eq!(followed(from, location), Err(refused), "{location}");
        }
    }

    #[test]
    fn only_a_server_without_an_http_response_may_expect_tls() {
        let answer = |status| {
            let response = Response::new(None);
            let (mut head, body) = response.into_parts();
            head.status = status;
            tungstenite::Error::Http(Box::new(Response::from_parts(head, body)))
        };
        let (plain, secure): (HubUrl, HubUrl) =
            ("http://a.example".parse().unwrap(), "https://a.example".parse().unwrap());
        assert!(may_want_tls(&plain, &answer(StatusCode::BAD_REQUEST)));
        assert!(may_want_tls(&plain, &tungstenite::Error::ConnectionClosed));
        assert!(!may_want_tls(&secure, &tungstenite::Error::ConnectionClosed));
        for status in [StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE] {
            assert!(!may_want_tls(&plain, &answer(status)));
        }
    }
}
