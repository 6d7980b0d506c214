//! Hubs with TLS of their own, and the real program as their client.

use std::{fs, net::IpAddr};

use quintet::{
    network::{self, KnownPaths},
    signalling::{Hub, HubCertificate, HubOptions},
};
use rcgen::SanType;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::tls::{Authority, open_session};
use crate::rig::{TempFolder, in_process_hub::with_timeout, process::Program};

/// An address of this machine at which other machines reach it.
fn far_address() -> Option<IpAddr> {
    let addresses = network::candidates(&KnownPaths::default());
    let far = addresses.into_iter().find(|ip| ip.is_ipv4() && !ip.is_loopback());
    far.or_else(|| {
        eprintln!("SKIPPED: this machine has no address but loopback");
        None
    })
}

/// The response to a request for a session's page, without TLS.
async fn plain_response(address: IpAddr, port: u16, host: &str) -> String {
    let mut stream = TcpStream::connect((address, port)).await.unwrap();
    let request = format!("GET /calls/s/room?x HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = vec![];
    stream.read_to_end(&mut response).await.unwrap();
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn a_hub_with_a_certificate_serves_https_and_redirects_other_machines_to_it() {
    let Some(far) = far_address() else { return };
    let (folder, authority) = (TempFolder::new(), Authority::new("the company"));
    let names = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names.push(SanType::IpAddress(far));
    };
    let files = ["certificate.pem", "key.pem"].map(|name| folder.file(name));
    for (file, text) in files.iter().zip(authority.issue(names)) {
        fs::write(file, text).unwrap();
    }
    let [certificate, key] = files;
    let options = HubOptions {
        public: Some("https://localhost".parse().unwrap()),
        certificate: Some(HubCertificate::Files { certificate, key }),
        ..HubOptions::at("0.0.0.0:0".parse::<std::net::SocketAddr>().unwrap().into())
    };
    let hub = Hub::start(options).await.unwrap();
    let port = hub.address().port();
    assert_eq!(hub.certificate_fingerprint().unwrap().len(), 95);
    assert_eq!(hub.link_base().as_str(), "https://localhost:443");
    // With TLS; without it on this machine; and redirected from another address.
    for base in ["https://localhost", "http://127.0.0.1", &format!("http://{far}")] {
        let opened = open_session(format!("{base}:{port}"), &authority.pem).await;
        assert!(opened.is_ok(), "{base}: {opened:?}");
    }
    let host = format!("{far}:{port}");
    let redirect = with_timeout(plain_response(far, port, &host)).await;
    assert!(redirect.starts_with("HTTP/1.1 308 "), "{redirect}");
    assert!(
        redirect.contains(&format!("location: https://{host}/calls/s/room?x\r\n")),
        "{redirect}"
    );
    let foreign = with_timeout(plain_response(far, port, "evil.example")).await;
    assert!(foreign.starts_with("HTTP/1.1 421 "), "{foreign}");
    // Who refuses the certificate is told so.
    let refused = open_session(format!("https://localhost:{port}"), "").await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test]
async fn a_hub_that_signs_its_certificate_serves_http_as_well_and_says_its_fingerprint() {
    let mut serve = Program::start(&["serve", "--listen", "0.0.0.0:0", "--tls-self-signed"]);
    let fingerprint = serve.event("certificate")["sha256"].as_str().unwrap().to_owned();
    assert_eq!(fingerprint.split(':').count(), 32, "{fingerprint}");
    let url = serve.event("listening")["hub"].as_str().unwrap().to_owned();
    assert!(url.starts_with("http://"), "{url}");
    let port = url.rsplit_once(':').unwrap().1.to_owned();
    let trusted = fs::read_to_string(serve.state_folder().join("hub-certificate.pem")).unwrap();
    for base in [url, format!("https://localhost:{port}")] {
        let opened = open_session(base, &trusted).await;
        assert!(opened.is_ok(), "{opened:?}");
    }
    if let Some(far) = far_address() {
        let port = port.parse().unwrap();
        let page = with_timeout(plain_response(far, port, &format!("{far}:{port}"))).await;
        assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    }
}

#[test]
fn a_certificate_that_cannot_be_used_is_named_with_the_way_out() {
    let files = ["--tls-cert", "/nowhere/c.pem", "--tls-key", "/nowhere/k.pem"];
    let args = ["serve", "--listen", "127.0.0.1:0", "--public-url", "https://hub.example"];
    let mut serve = Program::start(&[&args[..], &files].concat());
    let message = serve.event("error")["message"].as_str().unwrap().to_owned();
    assert!(message.contains("c.pem") && message.contains("PEM format"), "{message}");
    assert_eq!(serve.wait_for_exit().code, Some(3));
}
