//! The responses of the HTTP port: upgrades to WebSockets, and pages for people.

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{self, HeaderName, HeaderValue},
    upgrade::OnUpgrade,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::host_and_origin::{self, HostNames, RequestRefusal};
use crate::model::{HubUrl, PROTOCOL, SessionId};

/// A response of the hub.
type HttpResponse = Response<Full<Bytes>>;

/// The content security policy of a page: its own style, nothing else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";

/// Responds to a request; returns the upgrade of the connection if it becomes a WebSocket.
///
/// Only the end of the path counts, so that a proxy may add a prefix.
pub(super) fn respond(
    mut request: Request<Incoming>,
    link_base: &HubUrl,
    names: &HostNames,
) -> (HttpResponse, Option<OnUpgrade>) {
    if let Err(refusal) = host_and_origin::check_host(request.uri(), request.headers(), names) {
        return (refused(refusal), None);
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response =
            plain_text(StatusCode::METHOD_NOT_ALLOWED, "this hub answers GET and HEAD only");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return (response, None);
    }
    let key = accept_key(request.headers()).filter(|_| request.method() == Method::GET);
    let path = request.uri().path();
    // A session may be called `signal`: its page is not the WebSocket endpoint.
    if !path.ends_with("/signal") || (key.is_none() && path.ends_with("/s/signal")) {
        return (page(path, link_base), None);
    }
    let Some(key) = key else { return (upgrade_required(), None) };
    if let Err(refusal) = host_and_origin::check_origin(request.headers(), names) {
        return (refused(refusal), None);
    }
    let body_fields = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    if body_fields.iter().any(|field| request.headers().contains_key(field))
        || !request.body().is_end_stream()
    {
        // A proxy on the path might take the body for another request.
        let text = "a request that opens a connection has no body";
        return (plain_text(StatusCode::BAD_REQUEST, text), None);
    }
    let upgrade = hyper::upgrade::on(&mut request);
    (switching_protocols(&key), Some(upgrade))
}

fn refused(refusal: RequestRefusal) -> HttpResponse {
    let (status, text) = refusal.response();
    plain_text(status, text)
}

/// The response to a request that other programs on the path may read differently.
pub(super) fn bare_line_feed() -> HttpResponse {
    let text = "a line of a request's head ends in a carriage return and a line feed";
    plain_text(StatusCode::BAD_REQUEST, text)
}

/// The response while the hub has too many connections.
pub(super) fn too_many_connections() -> HttpResponse {
    let text = "this hub has too many connections, or too many from your address; try again later";
    let mut response = plain_text(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

/// The page at a path.
fn page(path: &str, link_base: &HubUrl) -> HttpResponse {
    // A session link may end in a slash, unless the id is empty then.
    let trimmed = path.strip_suffix('/').unwrap_or(path);
    if let Some((_, id)) = trimmed.rsplit_once("/s/").filter(|(_, id)| !id.contains('/')) {
        return match SessionId::parse(id) {
            Ok(session) => session_page(&session, link_base),
            Err(_) => no_session_page(),
        };
    }
    if trimmed.ends_with("/s") {
        return no_session_page();
    }
    if path.ends_with('/') {
        let text = format!(r#"{{"quintet":{{"protocol":{PROTOCOL}}}}}"#);
        return response(StatusCode::OK, "application/json", text);
    }
    plain_text(StatusCode::NOT_FOUND, "there is nothing here; this is a Quintet hub")
}

/// The same page for every id: it does not show whether the session is open.
fn session_page(session: &SessionId, link_base: &HubUrl) -> HttpResponse {
    let link = escape_html(&link_base.link(session).to_string());
    html(
        StatusCode::OK,
        &format!(
            "<h1>A Quintet session</h1>\n\
             <p>Open this link in Quintet, a program for your computer: paste it into the box \
             \u{201c}session-id or link\u{201d} of its window and press Join.</p>\n\
             <pre>{link}</pre>\n\
             <p>Or without a window, in a terminal:</p>\n\
             <pre>quintet join {link}</pre>\n\
             <p>If you do not have Quintet, ask whoever sent you the link for it.</p>\n\
             <p>Whoever has this link can join. The session may not be open yet, or not any more; \
             the program waits for it.</p>"
        ),
    )
}

fn no_session_page() -> HttpResponse {
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
    let mut response = response(status, "text/html; charset=utf-8", text);
    let policy = HeaderValue::from_static(PAGE_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn plain_text(status: StatusCode, text: &str) -> HttpResponse {
    response(status, "text/plain; charset=utf-8", format!("{text}\n"))
}

fn response(status: StatusCode, kind: &'static str, text: String) -> HttpResponse {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        // One request on each connection: an idle one would take the place of a WebSocket.
        (header::CONNECTION, "close"),
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

/// The `Sec-WebSocket-Accept` of a handshake (RFC 6455, section 4.2.1); `None` if the request is
/// not a valid handshake.
fn accept_key(headers: &HeaderMap) -> Option<String> {
    let has =
        |name: header::HeaderName, wanted: &str| {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
                value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted))
            })
        };
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let is_valid = has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13")
        // 16 bytes in base 64.
        && key.len() == 24;
    is_valid.then(|| derive_accept_key(key.as_bytes()))
}

fn switching_protocols(key: &str) -> HttpResponse {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let key = HeaderValue::from_str(key).expect("base 64 is a header's value");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    response
}

fn upgrade_required() -> HttpResponse {
    let text = "this is where Quintet's WebSocket connections begin (RFC 6455, version 13)";
    let mut response = plain_text(StatusCode::UPGRADE_REQUIRED, text);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close, Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// The text with the special characters of HTML escaped.
fn escape_html(text: &str) -> String {
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
    use http_body_util::BodyExt;

    use super::*;

    async fn text(response: HttpResponse) -> (u16, String) {
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn base() -> HubUrl {
        "http://192.168.1.5:7340/x'&y".parse().unwrap()
    }

    #[tokio::test]
    async fn a_sessions_page_shows_the_command_and_escapes_it() {
        let (status, page) = text(page("/s/town-hall", &base())).await;
        assert_eq!(status, 200);
        let command = "quintet join http://192.168.1.5:7340/x&#39;&amp;y/s/town-hall<";
        assert!(page.contains(command), "{page}");
        assert!(page.contains("paste it into the box"), "{page}");
    }

    #[tokio::test]
    async fn only_the_end_of_the_path_counts() {
        for path in ["/s/a", "/s/a/", "/quintet/s/a", "/x/y/s/a", "/s/s/s/s"] {
            assert_eq!(text(page(path, &base())).await.0, 200, "{path}");
        }
        for path in ["/s/", "/s", "/x/s/", "/s/-a", "/s/%3Cb%3E", "/s/a/b", "/favicon.ico"] {
            let (status, page) = text(page(path, &base())).await;
            assert_eq!(status, 404, "{path}");
            assert!(!page.contains("%3C") && !page.contains("-a"), "nothing is echoed: {page}");
        }
        for path in ["/", "/quintet/"] {
            let (status, page) = text(page(path, &base())).await;
            assert_eq!((status, page.as_str()), (200, r#"{"quintet":{"protocol":1}}"#));
        }
    }

    #[test]
    fn special_characters_of_html_are_escaped() {
        assert_eq!(
            escape_html("<a b=\"c\" d='e'>&"),
            "&lt;a b=&quot;c&quot; d=&#39;e&#39;&gt;&amp;"
        );
    }

    #[test]
    fn a_handshake_is_accepted_as_the_standard_says() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::UPGRADE, "WebSocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            assert_eq!(accept_key(&headers), None);
            headers.insert(name, HeaderValue::from_static(value));
        }
        // The example of RFC 6455, section 1.3.
        assert_eq!(accept_key(&headers).as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("12"));
        assert_eq!(accept_key(&headers), None);
    }
}
