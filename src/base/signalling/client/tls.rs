//! TLS to a hub: it trusts the system's certificates first, and the built-in ones besides.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use rustls_platform_verifier::Verifier;
use tokio::{net::TcpStream, task::spawn_blocking};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tracing::debug;

/// Makes a TLS connection over a TCP one, to a host given as in a URL.
///
/// The system's certificates are read anew each time, so that a newly installed one counts.
///
/// # Errors
/// A [`rustls::Error`] in which [`tls_error`] finds the cause, or the error of the network.
pub(super) async fn connect_tls(stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
    let name = host.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    // The certificates are in files, or the system asks other programs for them.
    let config = spawn_blocking(config).await.map_err(io::Error::other)?;
    let config = config.map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The error of TLS itself in a failed connection.
pub(super) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

fn config() -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let trust = SystemAndBuiltInVerifier::new(&provider)?;
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions()?.dangerous();
    Ok(config.with_custom_certificate_verifier(Arc::new(trust)).with_no_client_auth())
}

/// A certificate that is signed with its own key.
#[derive(Debug, thiserror::Error)]
#[error("the certificate signs itself")]
pub(super) struct SelfSigned;

/// Trusts the system's authorities, and the built-in ones.
#[derive(Debug)]
struct SystemAndBuiltInVerifier {
    /// `None` if the system has no certificates.
    system: Option<Arc<dyn ServerCertVerifier>>,
    built_in: Arc<dyn ServerCertVerifier>,
}

impl SystemAndBuiltInVerifier {
    fn new(provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let system = Verifier::new(provider.clone())
            .inspect_err(|error| debug!(%error, "the system has no certificates"))
            .ok();
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let built_in =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .map_err(|error| Error::General(error.to_string()))?;
        let system = system.map(|system| Arc::new(system) as Arc<dyn ServerCertVerifier>);
        Ok(Self { system, built_in })
    }
}

impl ServerCertVerifier for SystemAndBuiltInVerifier {
    /// The built-in authorities are asked only about issuers that the system does not know: a fault
    /// that the system has found, such as a revoked certificate, is final.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ask = |verifier: &Arc<dyn ServerCertVerifier>| {
            verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        };
        let unknown = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let verdict = match self.system.as_ref().map(ask) {
            Some(verdict) if verdict.as_ref().err() != Some(&unknown) => verdict,
            _ => ask(&self.built_in),
        };
        verdict.map_err(|error| {
            let is_unexplained = error == unknown || is_ca_as_end_entity(&error);
            if is_unexplained && is_self_signed(end_entity) {
                let why = CertificateError::Other(OtherError(Arc::new(SelfSigned)));
                return Error::InvalidCertificate(why);
            }
            error
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.built_in.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.built_in.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.built_in.supported_verify_schemes()
    }
}

/// Whether a server presented the certificate of an authority as its own, as self-signed ones often
/// are.
pub(super) fn is_ca_as_end_entity(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(error))) = error else {
        return false;
    };
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

fn is_self_signed(certificate: &CertificateDer<'_>) -> bool {
    webpki::EndEntityCert::try_from(certificate).is_ok_and(|one| one.issuer() == one.subject())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    /// The verdict on a certificate for `hub.example`.
    fn verify(
        trust: &SystemAndBuiltInVerifier,
        certificate: &CertificateDer<'_>,
    ) -> Result<(), Error> {
        let name = ServerName::try_from("hub.example").unwrap();
        trust.verify_server_cert(certificate, &[], &name, &[], UnixTime::now()).map(drop)
    }

    /// A verifier with a fixed verdict.
    #[derive(Debug)]
    struct Fixed(Result<(), CertificateError>, Arc<dyn ServerCertVerifier>);

    impl ServerCertVerifier for Fixed {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            let verdict = self.0.clone().map_err(Error::InvalidCertificate);
            verdict.map(|()| ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.1.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.1.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.1.supported_verify_schemes()
        }
    }

    fn verifier(
        system: Result<(), CertificateError>,
        built_in: Result<(), CertificateError>,
    ) -> SystemAndBuiltInVerifier {
        let real =
            SystemAndBuiltInVerifier::new(&Arc::new(ring::default_provider())).unwrap().built_in;
        let system = Arc::new(Fixed(system, real.clone()));
        SystemAndBuiltInVerifier { system: Some(system), built_in: Arc::new(Fixed(built_in, real)) }
    }

    fn self_signed(is_ca: IsCa) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn either_trust_is_enough_and_a_refusal_of_the_system_is_final() {
        use CertificateError::{Expired, Revoked, UnknownIssuer};
        let key = KeyPair::generate().unwrap();
        let issuer = rcgen::Issuer::new(CertificateParams::default(), &key);
        let params = CertificateParams::new(vec!["hub.example".to_owned()]).unwrap();
        let mut named = params;
        named.distinguished_name.push(rcgen::DnType::CommonName, "a hub");
        let certificate = named.signed_by(&key, &issuer).unwrap().der().clone();
        let refused = |error| Err(Error::InvalidCertificate(error));
        for (system, built_in, verdict) in [
            (Ok(()), Err(UnknownIssuer), Ok(())),
            (Err(UnknownIssuer), Ok(()), Ok(())),
            (Err(Revoked), Ok(()), refused(Revoked)),
            (Err(UnknownIssuer), Err(Expired), refused(Expired)),
            (Err(UnknownIssuer), Err(UnknownIssuer), refused(UnknownIssuer)),
        ] {
            assert_eq!(verify(&verifier(system, built_in), &certificate), verdict);
        }
    }

    #[test]
    fn a_self_signed_certificate_is_distinguished_from_one_of_an_unknown_authority() {
        let provider = Arc::new(ring::default_provider());
        let trust = SystemAndBuiltInVerifier {
            system: None,
            ..SystemAndBuiltInVerifier::new(&provider).unwrap()
        };
        for is_ca in [IsCa::NoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
            let error = verify(&trust, &self_signed(is_ca)).unwrap_err();
            let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else {
                panic!("{error:?}");
            };
            assert!(why.downcast_ref::<SelfSigned>().is_some(), "{why}");
        }
    }
}
