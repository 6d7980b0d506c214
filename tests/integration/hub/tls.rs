//! The real program with hubs behind TLS: which certificates it accepts, which errors it shows, and
//! which redirects it follows.

use std::{fs, net::SocketAddr, sync::Arc};

use quintet::signalling::Hub;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{AbortHandle, spawn_blocking},
};
use tokio_rustls::TlsAcceptor;

use crate::rig::{
    TempFolder,
    in_process_hub::{start_hub, with_timeout},
    process::Program,
};

/// A certificate authority that no system knows.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// The configuration of a server: a certificate for `localhost` with that change, and its key.
    fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let params = for_localhost(change);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        server_config(&certificate, &key)
    }

    /// A certificate for `localhost` with that change, and its key, in the PEM format.
    pub(super) fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> [String; 2] {
        let key = KeyPair::generate().unwrap();
        let certificate = for_localhost(change).signed_by(&key, &self.issuer).unwrap();
        [certificate.pem(), key.serialize_pem()]
    }
}

fn for_localhost(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a hub");
    change(&mut params);
    params
}

fn server_config(certificate: &rcgen::Certificate, key: &KeyPair) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    config.with_single_cert(vec![certificate.der().clone()], key).unwrap().into()
}

/// A listening port whose server stops on drop.
struct Port(SocketAddr, AbortHandle);

impl Drop for Port {
    fn drop(&mut self) {
        self.1.abort();
    }
}

/// Listens, and runs `serve` for each connection.
async fn serve_on_port<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> Port
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Port(address, task.abort_handle())
}

/// A TLS proxy in front of a hub.
async fn tls_proxy(hub: &Hub, config: Arc<ServerConfig>) -> Port {
    let (acceptor, to) = (TlsAcceptor::from(config), hub.address());
    serve_on_port(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            // A client that refuses the certificate disconnects.
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let mut hub = TcpStream::connect(to).await.unwrap();
            let _ = copy_bidirectional(&mut stream, &mut hub).await;
        }
    })
    .await
}

/// A server that redirects all requests.
async fn redirecting_server(status: &'static str, to: String) -> Port {
    serve_on_port(move |mut stream| {
        let answer = format!(
            "HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        async move {
            let mut head = vec![];
            while !head.ends_with(b"\r\n\r\n")
                && stream.read_buf(&mut head).await.is_ok_and(|n| n > 0)
            {}
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await
}

/// Opens a session at a hub with the real program; returns its link, or the error message.
pub(super) async fn open_session(hub: String, trusted: &str) -> Result<String, String> {
    let home = TempFolder::new();
    let (file, folder) = (home.file("authorities.pem"), home.file("none"));
    fs::write(&file, trusted).unwrap();
    let event = spawn_blocking(move || {
        let (file, folder) = (file.to_str().unwrap(), folder.to_str().unwrap());
        // Both variables, or the system's own certificates would be trusted as well.
        let environment = [("SSL_CERT_FILE", file), ("SSL_CERT_DIR", folder)];
        let task = ["open", "--kind", "data/one-to-one", "--hub", &hub];
        let silent = ["--camera", "none", "--microphone", "none", "--speaker", "none"];
        let args = [&task[..], &silent[..]].concat();
        let mut program = Program::start_in(home, &args, &environment);
        program.wait("an outcome", |event| {
            matches!(event["event"].as_str(), Some("opened" | "hub-lost" | "error"))
        })
    });
    let event = event.await.unwrap();
    match event["link"].as_str() {
        Some(link) => Ok(link.to_owned()),
        None => Err(event["message"].as_str().unwrap().to_owned()),
    }
}

#[tokio::test]
async fn a_hub_whose_authority_the_system_trusts_is_trusted() {
    with_timeout(async {
        let (hub, authority) = (start_hub().await, Authority::new("one"));
        let proxy_port = tls_proxy(&hub, authority.server(|_| {})).await;
        let url = format!("https://localhost:{}", proxy_port.0.port());
        let link = open_session(url.clone(), &authority.pem).await;
        // A hub behind a proxy cannot prove its identity, so the given address is kept.
        let base = format!("{url}/s/");
        assert!(link.as_ref().is_ok_and(|link| link.starts_with(&base)), "{link:?}");
        let wrong = open_session(url, &Authority::new("another").pem).await.unwrap_err();
        assert!(wrong.contains("an authority that this computer does not know"), "{wrong}");
    })
    .await;
}

#[tokio::test]
async fn the_error_names_the_fault_of_a_certificate() {
    with_timeout(async {
        let (hub, authority) = (start_hub().await, Authority::new("one"));
        let self_signed = |change: fn(&mut CertificateParams)| {
            let key = KeyPair::generate().unwrap();
            server_config(&for_localhost(change).self_signed(&key).unwrap(), &key)
        };
        let other = |params: &mut CertificateParams| {
            *params = CertificateParams::new(vec!["other.example".to_owned()]).unwrap();
        };
        for (server, what) in [
            (
                authority.server(|it| it.not_after = date_time_ymd(2020, 3, 1)),
                "expired on 1 March 2020",
            ),
            (
                authority.server(|it| it.not_before = date_time_ymd(3000, 1, 1)),
                "is not valid before 1 January 3000",
            ),
            (authority.server(other), "is for another host: other.example"),
            (self_signed(|_| {}), "is signed by nobody but the hub itself"),
            (
                self_signed(|it| it.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)),
                "is signed by nobody but the hub itself",
            ),
        ] {
            let proxy_port = tls_proxy(&hub, server).await;
            let url = format!("https://localhost:{}", proxy_port.0.port());
            let message = open_session(url.clone(), &authority.pem).await.unwrap_err();
            assert!(message.contains(what) && message.contains(&url), "{what}: {message}");
            assert!(message.contains("cannot be trusted"), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn https_to_a_plain_hub_fails_with_the_http_address_in_the_error() {
    with_timeout(async {
        let hub = start_hub().await;
        let message = open_session(format!("https://{}", hub.address()), "").await.unwrap_err();
        let instead = format!("its address is http://{},", hub.address());
        assert!(message.contains("does not use https") && message.contains(&instead), "{message}");
    })
    .await;
}

#[tokio::test]
async fn http_to_a_hub_behind_tls_is_upgraded_to_https() {
    with_timeout(async {
        let (hub, authority) = (start_hub().await, Authority::new("one"));
        let proxy_port = tls_proxy(&hub, authority.server(|_| {})).await;
        let url = format!("http://localhost:{}", proxy_port.0.port());
        assert!(open_session(url.clone(), &authority.pem).await.is_ok());
        // Its certificate is verified as well.
        let message = open_session(url, "").await.unwrap_err();
        let secure = format!("https://localhost:{}", proxy_port.0.port());
        assert!(message.contains(&secure) && message.contains("does not know"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn redirects_to_https_are_followed_and_endless_or_foreign_ones_are_reported() {
    with_timeout(async {
        let (hub, authority) = (start_hub().await, Authority::new("one"));
        let proxy_port = tls_proxy(&hub, authority.server(|_| {})).await;
        let secure = format!("https://localhost:{}", proxy_port.0.port());
        for status in ["301 Moved Permanently", "307 Temporary Redirect", "308 Permanent Redirect"]
        {
            let old = redirecting_server(status, format!("{secure}/signal")).await;
            let link = open_session(format!("http://{}", old.0), &authority.pem).await;
            assert!(link.is_ok(), "{status}: {link:?}");
        }
        let around = redirecting_server("302 Found", "/signal".to_owned()).await;
        let message = open_session(format!("http://{}", around.0), "").await.unwrap_err();
        assert!(message.contains("without end"), "{message}");
        let login = redirecting_server("302 Found", "/login".to_owned()).await;
        let message = open_session(format!("http://{}", login.0), "").await.unwrap_err();
        assert!(message.contains("is no Quintet hub: it sends us to /login"), "{message}");
    })
    .await;
}
