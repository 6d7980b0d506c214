//! The responses of the HTTP port: upgrades to WebSockets, and pages for people.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderName, HeaderValue},
    upgrade::OnUpgrade,
};
use serde::Serialize;
use tokio::time::timeout;

use super::{
    guest_page, handshake,
    host_and_origin::{self, HostNames, RequestRefusal},
    rooms_link::{RoomsClosed, RoomsLink},
    routes::{self, Route},
};
use crate::{
    model::{MAX_MESSAGE_BYTES, PROTOCOL, SessionId},
    signalling::rooms::SessionAbout,
};

/// A response of the hub.
pub(super) type HttpResponse = Response<Full<Bytes>>;

/// The content security policy of a page: its own style, nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// The longest body of a request, in bytes: the same as that of a message on the WebSocket.
const MAX_BODY_BYTES: usize = MAX_MESSAGE_BYTES;

/// The time limit for the body of a request, from the end of its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a request.
#[derive(Debug)]
pub(super) enum Reply {
    /// A response.
    Response(HttpResponse),
    /// The response to a WebSocket handshake, and the upgrade that follows it.
    WebSocket(HttpResponse, OnUpgrade),
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// It comes from a web page that must not send it, or was sent to another host.
    Request(RequestRefusal),
    /// Its head has a line that other programs on the path may read differently.
    BareLineFeed,
    /// Its body is longer than [`MAX_BODY_BYTES`].
    BodyTooLong,
    /// Its body did not come within [`BODY_TIMEOUT`].
    BodyTooSlow,
    /// Its body is not what its head announces.
    BrokenBody,
    /// Nothing is at its path.
    NotFound,
    /// The endpoint has only these methods, and `HEAD` with `GET`.
    NoSuchMethod(&'static [Method]),
    /// The endpoint is a WebSocket.
    UpgradeRequired,
    /// A WebSocket handshake has no body: a proxy on the path might take it for another request.
    HandshakeBody,
    /// The hub has too many connections.
    TooManyConnections,
    /// Its address asks too often about sessions.
    TooManyQuestions,
    /// The hub is being closed.
    HubCloses,
}

impl From<RequestRefusal> for Refusal {
    fn from(refusal: RequestRefusal) -> Self {
        Self::Request(refusal)
    }
}

impl From<RoomsClosed> for Refusal {
    fn from(RoomsClosed: RoomsClosed) -> Self {
        Self::HubCloses
    }
}

impl Refusal {
    /// The response, which closes the connection.
    pub(super) fn into_response(self) -> HttpResponse {
        let (status, text) = self.status_and_text();
        let mut response = plain_text(status, text);
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        match self {
            Self::NoSuchMethod(methods) => {
                let allow = HeaderValue::try_from(routes::allow(methods));
                headers.insert(header::ALLOW, allow.expect("methods are a header's value"));
            }
            Self::UpgradeRequired => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("close, Upgrade"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::TooManyConnections => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            }
            Self::TooManyQuestions => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            Self::Request(_)
            | Self::BareLineFeed
            | Self::BodyTooLong
            | Self::BodyTooSlow
            | Self::BrokenBody
            | Self::NotFound
            | Self::HandshakeBody
            | Self::HubCloses => {}
        }
        response
    }

    const fn status_and_text(self) -> (StatusCode, &'static str) {
        match self {
            Self::Request(refusal) => refusal.response(),
            Self::BareLineFeed => (
                StatusCode::BAD_REQUEST,
                "a line of a request's head ends in a carriage return and a line feed",
            ),
            Self::BodyTooLong => (StatusCode::PAYLOAD_TOO_LARGE, "this request is too long"),
            Self::BodyTooSlow => (StatusCode::REQUEST_TIMEOUT, "this request came too slowly"),
            Self::BrokenBody => (StatusCode::BAD_REQUEST, "this request is not complete"),
            Self::NotFound => {
                (StatusCode::NOT_FOUND, "there is nothing here; this is a Quintet hub")
            }
            Self::NoSuchMethod(_) => {
                (StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here; see the field Allow")
            }
            Self::UpgradeRequired => (
                StatusCode::UPGRADE_REQUIRED,
                "this is where Quintet's WebSocket connections begin (RFC 6455, version 13)",
            ),
            Self::HandshakeBody => {
                (StatusCode::BAD_REQUEST, "a request that opens a connection has no body")
            }
            Self::TooManyConnections => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this hub has too many connections, or too many from your address; try again later",
            ),
            Self::TooManyQuestions => (
                StatusCode::TOO_MANY_REQUESTS,
                "your address asks too often about sessions; try again later",
            ),
            Self::HubCloses => (StatusCode::SERVICE_UNAVAILABLE, "this hub is being closed"),
        }
    }
}

/// Responds to a request: checks who sent it, finds its endpoint, reads its body.
pub(super) async fn respond(request: Request<Incoming>, link: &RoomsLink<'_>) -> Reply {
    let reply = handle(request, link).await;
    reply.unwrap_or_else(|refusal| Reply::Response(refusal.into_response()))
}

async fn handle(request: Request<Incoming>, link: &RoomsLink<'_>) -> Result<Reply, Refusal> {
    let cx = link.cx;
    check_sender(&request, &cx.names)?;
    if request.body().size_hint().lower() > MAX_BODY_BYTES as u64 {
        return Err(Refusal::BodyTooLong);
    }
    let key = handshake::accept_key(&request);
    let route = Route::of(request.uri().path(), key.is_some())?;
    route.check_method(request.method())?;
    let page = match route {
        Route::Signal => {
            let (response, upgrade) = handshake::accept(request, key.as_deref())?;
            return Ok(Reply::WebSocket(response, upgrade));
        }
        Route::Root => root(),
        Route::SessionPage(session) => guest_page::page(
            &session,
            (&cx.link_base.current(), &cx.names),
            (request.uri().path(), request.headers()),
        ),
        Route::GuestFile(file) => file.response(),
        Route::About(session) => about(session, link).await?,
        Route::BrokenLink => broken_link_page(),
    };
    // No endpoint uses one yet.
    let _body = read_body(request.into_body()).await?;
    Ok(Reply::Response(page))
}

/// Checks the host of every request, and the origin of those that do more than read a page.
fn check_sender<B>(request: &Request<B>, names: &HostNames) -> Result<(), RequestRefusal> {
    host_and_origin::check_host(request.uri(), request.headers(), names)?;
    if !request.method().is_safe() || request.headers().contains_key(header::UPGRADE) {
        host_and_origin::check_origin(request.headers(), names)?;
    }
    Ok(())
}

/// The whole body of a request.
///
/// # Errors
/// [`Refusal::BodyTooLong`], [`Refusal::BodyTooSlow`] or [`Refusal::BrokenBody`].
async fn read_body<B>(body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let body = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    match body.map_err(|_| Refusal::BodyTooSlow)? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::BodyTooLong),
        Err(_) => Err(Refusal::BrokenBody),
    }
}

/// Redirects a request to the same address with `https`. The method stays (RFC 9110, section 15.4.9).
///
/// # Errors
/// If it was sent to another host.
pub(super) fn redirect_to_tls<B>(
    request: &Request<B>,
    names: &HostNames,
) -> Result<HttpResponse, Refusal> {
    host_and_origin::check_host(request.uri(), request.headers(), names)?;
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let location = HeaderValue::try_from(format!("https://{}{path}", host.unwrap_or_default()));
    let mut response = plain_text(StatusCode::PERMANENT_REDIRECT, "this hub requires https");
    let location = location.map_err(|_| RequestRefusal::BadHost)?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Whether the head of a request says that a body follows, which may be empty.
pub(super) fn has_body_fields(headers: &HeaderMap) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING]
        .iter()
        .any(|field| headers.contains_key(field))
}

/// Tells the client that the connection is closed after this response.
pub(super) fn close_after(response: &mut HttpResponse) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().entry(header::CONNECTION).or_insert(close);
}

fn root() -> HttpResponse {
    let text = format!(r#"{{"quintet":{{"protocol":{PROTOCOL}}}}}"#);
    response("application/json", text.into())
}

/// What anybody may learn of a session, and of its hub.
#[derive(PartialEq, Eq, Debug, Serialize)]
#[cfg_attr(test, derive(serde::Deserialize))]
pub(in crate::signalling) struct AboutReply {
    #[serde(flatten)]
    about: SessionAbout,
    /// Whether the hub is reached by `https` at the same address, where browsers allow cameras.
    https: bool,
}

/// What anybody may learn of a session. The answer for one that is not open has the same form.
async fn about(session: SessionId, link: &RoomsLink<'_>) -> Result<HttpResponse, Refusal> {
    let about = link.about(session).await?.map_err(|_| Refusal::TooManyQuestions)?;
    let about = AboutReply { about, https: link.cx.tls.is_some() };
    let text = serde_json::to_string(&about).expect("it is serializable");
    Ok(response("application/json", text.into()))
}

fn broken_link_page() -> HttpResponse {
    html(
        StatusCode::NOT_FOUND,
        "<h1>Not a link of a session</h1>\n\
         <p>The link of a Quintet session ends in <code>/s/</code> and the id of the session: up \
         to 64 letters, digits, <code>-</code>, <code>_</code> and <code>.</code></p>\n\
         <p>Ask for the link again; perhaps it was cut or changed on its way.</p>",
    )
}

fn html(status: StatusCode, body: &str) -> HttpResponse {
    let text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Quintet</title>\n\
         <style>body {{ font-family: sans-serif; max-width: 40em; margin: 3em auto; \
         padding: 0 1em }} pre {{ overflow-x: auto; padding: 1em; border: 1px solid }}</style>\n\
         {body}\n</html>\n"
    );
    let mut response = response("text/html; charset=utf-8", text.into());
    *response.status_mut() = status;
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn plain_text(status: StatusCode, text: &str) -> HttpResponse {
    let mut response = response("text/plain; charset=utf-8", format!("{text}\n").into());
    *response.status_mut() = status;
    response
}

/// A response of this type, which no program keeps and no search engine lists.
pub(super) fn response(media_type: &'static str, text: Bytes) -> HttpResponse {
    let mut response = Response::new(Full::new(text));
    for (name, value) in [
        (header::CONTENT_TYPE, media_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // The path is an invitation: it is not sent to other sites.
        (header::REFERRER_POLICY, "no-referrer"),
        // Search engines must not list it; they have to be allowed in to read this (so no
        // robots.txt).
        (HeaderName::from_static("x-robots-tag"), "noindex, nofollow"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The text with the special characters of HTML escaped.
pub(super) fn escape_html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_of_html_are_escaped() {
        assert_eq!(
            escape_html("<a b=\"c\" d='e'>&"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;"
        );
    }
}
