//! The handshake of a WebSocket (RFC 6455, section 4.2).

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{self, HeaderValue},
    upgrade::OnUpgrade,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{self, HttpResponse, Refusal};

/// The `Sec-WebSocket-Accept` of a handshake (section 4.2.1); `None` if the request is not one.
pub(super) fn accept_key<B>(request: &Request<B>) -> Option<String> {
    let headers = request.headers();
    let has =
        |name: header::HeaderName, wanted: &str| {
            headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|value| {
                value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted))
            })
        };
    let key = headers.get(header::SEC_WEBSOCKET_KEY)?;
    let is_valid = request.method() == Method::GET
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
        && has(header::SEC_WEBSOCKET_VERSION, "13")
        // 16 bytes in base 64.
        && key.len() == 24;
    is_valid.then(|| derive_accept_key(key.as_bytes()))
}

/// Accepts a handshake: the response, and the upgrade that completes when it is sent.
///
/// # Errors
/// [`Refusal::UpgradeRequired`] without a key, [`Refusal::HandshakeBody`] if the request has a
/// body.
pub(super) fn accept(
    mut request: Request<Incoming>,
    key: Option<&str>,
) -> Result<(HttpResponse, OnUpgrade), Refusal> {
    let key = key.ok_or(Refusal::UpgradeRequired)?;
    if http::has_body_fields(request.headers()) || !request.body().is_end_stream() {
        return Err(Refusal::HandshakeBody);
    }
    Ok((switching_protocols(key), hyper::upgrade::on(&mut request)))
}

fn switching_protocols(key: &str) -> HttpResponse {
    let mut response = Response::new(Full::<Bytes>::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let key = HeaderValue::from_str(key).expect("base 64 is a header's value");
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_accepted_as_the_standard_says() {
        let mut request = Request::new(());
        for (name, value) in [
            (header::CONNECTION, "keep-alive, Upgrade"),
            (header::UPGRADE, "WebSocket"),
            (header::SEC_WEBSOCKET_VERSION, "13"),
            (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            assert_eq!(accept_key(&request), None);
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        // The example of RFC 6455, section 1.3.
        assert_eq!(accept_key(&request).as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        *request.method_mut() = Method::POST;
        assert_eq!(accept_key(&request), None);
        *request.method_mut() = Method::GET;
        let old = HeaderValue::from_static("12");
        request.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, old);
        assert_eq!(accept_key(&request), None);
    }
}
