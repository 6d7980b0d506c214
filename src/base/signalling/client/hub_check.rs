//! Checks whether a URL is that of a hub, or an ordinary web page.

use std::time::Duration;

use tokio::time::timeout;
use url::Url;

use super::connect::{connect_stream, socket_addresses, with_scheme};
use crate::{model::HubUrl, signalling::hub::request_version};

/// The time limit for the answer, TLS included: the user has clicked on the URL.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Whether a hub of any version answers at that address, with or without TLS.
///
/// Takes four seconds at most. For `http`, `https` is tried as well: many servers redirect all
/// requests there.
pub async fn is_hub(hub: &HubUrl) -> bool {
    timeout(TIMEOUT, probe(hub)).await.unwrap_or(false)
}

async fn probe(hub: &HubUrl) -> bool {
    if responds(hub).await {
        return true;
    }
    match hub.as_str().strip_prefix("http://").map(|_| with_tls(hub)) {
        Some(secure) => responds(&secure).await,
        None => false,
    }
}

/// The address with TLS; the default port of HTTP becomes that of HTTPS.
fn with_tls(hub: &HubUrl) -> HubUrl {
    let mut url = Url::parse(with_scheme(hub, "https").as_str()).expect("an address is a URL");
    if url.port() == Some(80) {
        url.set_port(None).expect("an address has a port");
    }
    url.as_str().parse().expect("only the port is another")
}

async fn responds(hub: &HubUrl) -> bool {
    let url = Url::parse(hub.as_str()).expect("an address is a URL");
    let host = url.host_str().unwrap_or_default();
    let named = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let Ok(stream) = connect_stream(hub).await else { return false };
    let address = socket_addresses(&stream).1;
    if request_version(stream, hub, &named, None).await.is_some() {
        return true;
    }
    // A hub that does not know its host name answers to its IP address (RFC 9110, section 15.5.20).
    let (Some(address), "http", Ok(stream)) = (address, url.scheme(), connect_stream(hub).await)
    else {
        return false;
    };
    request_version(stream, hub, &address.to_string(), None).await.is_some()
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::signalling::{Hub, HubOptions};

    #[tokio::test]
    async fn a_hub_is_distinguished_from_a_web_page() {
        let listen = std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into();
        let hub = Hub::start(HubOptions::at(listen)).await.unwrap();
        assert!(is_hub(&hub.link_base()).await);
        let prefixed: HubUrl = format!("{}/quintet", hub.link_base()).parse().unwrap();
        assert!(is_hub(&prefixed).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: HubUrl = format!("http://{}/r/x", listener.local_addr().unwrap()).parse().unwrap();
        let pages = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let page = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>";
                let _ = stream.write_all(page).await;
            }
        };
        tokio::select! {
            is_hub = is_hub(&url) => assert!(!is_hub, "a page"),
            () = pages => {}
        }
        drop(hub);
    }

    #[test]
    fn an_http_address_is_tried_with_tls_at_the_port_of_https() {
        for (given, secure) in [
            ("http://a.example:80/x", "https://a.example:443/x"),
            ("http://a.example:7340", "https://a.example:7340"),
        ] {
            assert_eq!(with_tls(&given.parse().unwrap()).as_str(), secure);
        }
    }
}
