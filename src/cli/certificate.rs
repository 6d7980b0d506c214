//! Options for the TLS of a hub.

use std::path::PathBuf;

use crate::signalling::HubCertificate;

/// The certificate of a hub.
#[derive(clap::Args, Clone, Debug)]
#[group(id = "tls", multiple = true)]
pub(super) struct CertificateArgs {
    /// The certificate of the hub for https, with those of its authorities after it, as a file in the PEM
    /// format. A renewed file is used within a minute. Requires --public-url with a name that it is for.
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "public_url")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate, as a file in the PEM format.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let the hub sign a certificate itself: browsers on other computers can then send camera and
    /// microphone, after a warning. Those who only watch need no https.
    #[arg(long, conflicts_with = "tls_cert")]
    tls_self_signed: bool,
}

impl CertificateArgs {
    /// The chosen certificate; `None` for a hub without TLS.
    pub(super) fn choice(&self) -> Option<HubCertificate> {
        let Self { tls_cert, tls_key, tls_self_signed } = self.clone();
        match tls_cert.zip(tls_key) {
            Some((certificate, key)) => Some(HubCertificate::Files { certificate, key }),
            None => tls_self_signed.then_some(HubCertificate::SelfSigned),
        }
    }
}
