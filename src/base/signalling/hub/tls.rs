//! TLS of a hub: its certificate, and what becomes of requests without TLS.

use std::{
    fs,
    io::{self, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use chrono::{Datelike as _, TimeDelta, Utc};
use rcgen::{CertificateParams, DnType, KeyPair, SanType};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    net::TcpStream,
    task::spawn_blocking,
    time::{interval, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};

use crate::process::{create_new_private, create_private_folder, state_folder};

/// The time limit for the first byte of a connection, and for the TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the files of a certificate are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);

/// The first byte of every TLS connection: a record of the handshake (RFC 8446, section 5.1). No HTTP
/// request begins with it.
const HANDSHAKE_RECORD: u8 = 0x16;

/// The only protocol inside (RFC 7301). WebSockets over HTTP/2 are not spoken.
const HTTP_1_1: &[u8] = b"http/1.1";

/// The file with a self-signed certificate and its key, in the user's state folder.
const SELF_SIGNED_FILE: &str = "hub-certificate.pem";

/// How long a self-signed certificate is valid, and after which age it is replaced.
const SELF_SIGNED_DAYS: i64 = 365;
const REPLACE_AFTER: Duration = Duration::from_secs(335 * 24 * 3600);

/// Where the certificate of a hub comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HubCertificate {
    /// From files in the PEM format. Changes are noticed within a minute. Requests without TLS from other
    /// machines are redirected.
    Files {
        /// The certificate, and after it those that lead to a known authority.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// The hub signs it itself. Browsers warn of it once, so requests without TLS are served as well.
    SelfSigned,
}

/// TLS on the hub's port. Clones share the certificate.
#[derive(Clone, Debug)]
pub(super) struct HubTls {
    certificate: Arc<CurrentCertificate>,
    config: Arc<ServerConfig>,
    plain: PlainHttp,
}

/// What becomes of a request without TLS from another machine. Programs on this machine are always
/// served: nobody is between them and the hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PlainHttp {
    /// It is served: browsers warn of a certificate that nobody has signed, and those who only watch
    /// need none.
    Served,
    /// It is redirected to the same address with `https`.
    Redirected,
}

/// Why a hub has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} {path:?}: {reason}; give a file in the PEM format")]
    Unreadable {
        /// `certificate` or `key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system or the parser says.
        reason: String,
    },
    /// The two do not belong together, or are of a kind that is not supported.
    #[error("the certificate {certificate:?} cannot be used with the key {key:?}: {reason}")]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No certificate can be made.
    #[error("cannot make a certificate: {0}; give one with --tls-cert and --tls-key")]
    SelfSigned(String),
}

/// The files of a certificate.
#[derive(Clone, Debug)]
struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
}

/// The certificate that new connections get.
#[derive(Debug)]
struct CurrentCertificate {
    files: CertificateFiles,
    newest: RwLock<Arc<CertifiedKey>>,
}

impl HubTls {
    /// TLS with that certificate. If the hub signs it, it is for these names and addresses. Blocks for the
    /// time of the file accesses.
    ///
    /// # Errors
    /// [`TlsError`] names the file and what is wrong with it.
    pub(super) fn open(
        certificate: HubCertificate,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Self, TlsError> {
        match certificate {
            HubCertificate::Files { certificate, key } => Self::from_files(certificate, key),
            HubCertificate::SelfSigned => {
                let no_home = || TlsError::SelfSigned("the user has no home".to_owned());
                Self::self_signed(&state_folder().ok_or_else(no_home)?, names, addresses)
            }
        }
    }

    fn from_files(certificate: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        Self::new(CertificateFiles { certificate, key }, PlainHttp::Redirected)
    }

    /// A certificate for `localhost`, these names and these addresses. It is kept in the folder for most
    /// of a year.
    fn self_signed(
        folder: &Path,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<Self, TlsError> {
        let path = folder.join(SELF_SIGNED_FILE);
        let is_young = |path: &Path| {
            let age = fs::metadata(path).and_then(|found| found.modified()).ok();
            age.and_then(|at| at.elapsed().ok()).is_some_and(|age| age < REPLACE_AFTER)
        };
        let files = CertificateFiles { certificate: path.clone(), key: path.clone() };
        if is_young(&path)
            && let Ok(kept) = Self::new(files.clone(), PlainHttp::Served)
        {
            return Ok(kept);
        }
        let text =
            sign_itself(names, addresses).map_err(|e| TlsError::SelfSigned(e.to_string()))?;
        replace(folder, &path, &text).map_err(|error| TlsError::SelfSigned(error.to_string()))?;
        Self::new(files, PlainHttp::Served)
    }

    fn new(files: CertificateFiles, plain: PlainHttp) -> Result<Self, TlsError> {
        let newest = RwLock::new(Arc::new(files.load()?));
        let certificate = Arc::new(CurrentCertificate { files, newest });
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the usual versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        Ok(Self { certificate, config: config.into(), plain })
    }

    /// What becomes of a request without TLS from another machine.
    pub(super) const fn plain(&self) -> PlainHttp {
        self.plain
    }

    /// The SHA-256 digest of the certificate, in hexadecimal digits with colons, as browsers show it.
    pub(super) fn fingerprint(&self) -> String {
        let newest = self.certificate.newest();
        let digest = newest.cert.first().map(Sha256::digest).unwrap_or_default();
        digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
    }

    /// The TLS connection in a TCP connection that begins with a TLS handshake; the TCP connection
    /// itself if it begins otherwise.
    ///
    /// # Errors
    /// If the handshake fails, or takes more than five seconds.
    pub(super) async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let mut first = [0];
        let handshake = async {
            if stream.peek(&mut first).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if first != [HANDSHAKE_RECORD] {
                return Ok(Accepted::Plain(stream));
            }
            let acceptor = TlsAcceptor::from(Arc::clone(&self.config));
            acceptor.accept(stream).await.map(|stream| Accepted::Tls(Box::new(stream)))
        };
        timeout(HANDSHAKE_TIMEOUT, handshake).await?
    }

    /// Looks at the files again and again, and loads them when they have changed; never returns.
    pub(super) async fn keep_reloading(self) {
        let mut ticks = interval(RELOAD_INTERVAL);
        let mut loaded = self.certificate.files.clone().modified_in_background().await;
        loop {
            ticks.tick().await;
            let now = self.certificate.files.clone().modified_in_background().await;
            if now != loaded {
                loaded = now;
                self.reload().await;
            }
        }
    }

    /// Loads the files. If they cannot be used, the old certificate stays.
    async fn reload(&self) {
        let files = self.certificate.files.clone();
        match spawn_blocking(move || files.load()).await {
            Ok(Ok(newest)) => {
                self.certificate.set(newest);
                info!("the hub's certificate was loaded again");
            }
            Ok(Err(error)) => warn!(%error, "the hub keeps its old certificate"),
            Err(error) => warn!(%error, "cannot load the hub's certificate"),
        }
    }
}

/// A connection after its first byte.
pub(super) enum Accepted {
    /// Without TLS.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl CertificateFiles {
    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let Self { certificate, key } = self;
        let unreadable = |what, path: &PathBuf, reason: String| {
            let path = path.clone();
            TlsError::Unreadable { what, path, reason }
        };
        let chain = CertificateDer::pem_file_iter(certificate)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| unreadable("certificate", certificate, error.to_string()))?;
        if chain.is_empty() {
            let reason = "there is no certificate in it".to_owned();
            return Err(unreadable("certificate", certificate, reason));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| unreadable("key", key, error.to_string()))?;
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| {
            let (certificate, key) = (certificate.clone(), key.clone());
            TlsError::Mismatch { certificate, key, reason: error.to_string() }
        })
    }

    /// When the two were changed last; checked on a blocking thread.
    async fn modified_in_background(self) -> [Option<SystemTime>; 2] {
        let modified = |path: PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
        let checked = spawn_blocking(move || [self.certificate, self.key].map(modified)).await;
        checked.unwrap_or_default()
    }
}

impl CurrentCertificate {
    fn newest(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.newest.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, newest: CertifiedKey) {
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(newest);
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.newest())
    }
}

/// A certificate with its key, in the PEM format.
fn sign_itself(names: &[String], addresses: &[IpAddr]) -> Result<String, rcgen::Error> {
    // A certificate names hosts in ASCII (RFC 5280, section 4.2.1.6). What this machine is called is no fault.
    let names = names.iter().filter(|name| name.is_ascii()).cloned();
    let names: Vec<_> = ["localhost".to_owned()].into_iter().chain(names).collect();
    let mut certificate = CertificateParams::new(names)?;
    certificate.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
    certificate.distinguished_name.push(DnType::CommonName, "Quintet hub");
    let in_days = |days| {
        let day = Utc::now() + TimeDelta::days(days);
        let number = |value: u32| u8::try_from(value).unwrap_or(1);
        rcgen::date_time_ymd(day.year(), number(day.month()), number(day.day()))
    };
    certificate.not_before = in_days(-1);
    certificate.not_after = in_days(SELF_SIGNED_DAYS);
    let key = KeyPair::generate()?;
    Ok(certificate.self_signed(&key)?.pem() + &key.serialize_pem())
}

/// Replaces a private file at once: another program sees the old or the new one.
fn replace(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    create_private_folder(folder)?;
    let beside = path.with_extension(format!("pem.{}", std::process::id()));
    let written = create_new_private(&beside).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, path)
    });
    written.inspect_err(|_| drop(fs::remove_file(&beside)))
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::{SystemTime, UNIX_EPOCH},
    };

    use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsConnector;

    use super::*;

    /// A folder of one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("quintet-tls-{}-{number}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            create_private_folder(&self.0).unwrap();
            let path = self.0.join(name);
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// A handshake of a client that trusts `trusted` alone, and asks for that name.
    async fn handshake(server: &HubTls, trusted: &Path, name: &str) -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_file_iter(trusted).unwrap() {
            roots.add(certificate.unwrap()).unwrap();
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let client = connector.connect(name, stream);
        let (accepted, _) = listener.accept().await.unwrap();
        let (server, client) = tokio::join!(server.accept(accepted), client);
        client?;
        assert!(matches!(server?, Accepted::Tls(_)));
        Ok(())
    }

    #[tokio::test]
    async fn a_self_signed_certificate_is_for_the_hubs_names_and_addresses_and_is_kept() {
        let folder = Folder::new();
        let make = || {
            let addresses = ["127.0.0.1".parse().unwrap()];
            HubTls::self_signed(&folder.0, &["olga.local".to_owned()], &addresses).unwrap()
        };
        let first = make();
        let path = folder.0.join(SELF_SIGNED_FILE);
        for name in ["localhost", "olga.local", "127.0.0.1"] {
            handshake(&first, &path, name).await.unwrap();
        }
        assert!(handshake(&first, &path, "other.local").await.is_err());
        assert_eq!(first.plain(), PlainHttp::Served);
        assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
        assert_eq!(make().fingerprint(), first.fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let old = fs::File::options().write(true).open(&path).unwrap();
        old.set_modified(UNIX_EPOCH).unwrap();
        assert_ne!(make().fingerprint(), first.fingerprint(), "it is replaced in time");
        fs::write(&path, "broken").unwrap();
        assert_ne!(make().fingerprint(), first.fingerprint());
    }

    #[tokio::test]
    async fn a_certificate_from_files_is_loaded_again_and_a_broken_one_is_not_used() {
        let folder = Folder::new();
        let path =
            folder.write("both.pem", &sign_itself(&["one.example".to_owned()], &[]).unwrap());
        let hub = HubTls::from_files(path.clone(), path.clone()).unwrap();
        handshake(&hub, &path, "one.example").await.unwrap();
        let first = hub.fingerprint();
        folder.write("both.pem", "broken");
        hub.reload().await;
        assert_eq!(hub.fingerprint(), first);
        folder.write("both.pem", &sign_itself(&["two.example".to_owned()], &[]).unwrap());
        hub.reload().await;
        handshake(&hub, &path, "two.example").await.unwrap();
        assert!(handshake(&hub, &path, "one.example").await.is_err());
    }

    #[tokio::test]
    async fn changed_files_are_noticed_by_their_time() {
        let folder = Folder::new();
        let path = folder.write("both.pem", "one");
        let files = CertificateFiles { certificate: path.clone(), key: path.clone() };
        let before = files.clone().modified_in_background().await;
        assert_eq!(files.clone().modified_in_background().await, before);
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(9)).unwrap();
        assert_ne!(files.modified_in_background().await, before);
    }

    #[test]
    fn an_error_names_the_file_and_what_is_wrong() {
        let folder = Folder::new();
        let both = sign_itself(&[], &[]).unwrap();
        let good = folder.write("good.pem", &both);
        let other = folder.write("other.pem", &sign_itself(&[], &[]).unwrap());
        let text = folder.write("text.pem", "hello");
        let missing = folder.0.join("missing.pem");
        let error = |certificate: &PathBuf, key: &PathBuf| {
            HubTls::from_files(certificate.clone(), key.clone()).unwrap_err().to_string()
        };
        let missing = error(&missing, &good);
        assert!(missing.contains("certificate") && missing.contains("missing.pem"), "{missing}");
        assert!(error(&text, &good).contains("there is no certificate in it"));
        let key = error(&good, &text);
        assert!(key.contains("key") && key.contains("text.pem"), "{key}");
        let mismatch = error(&good, &other);
        assert!(mismatch.contains("good.pem") && mismatch.contains("other.pem"), "{mismatch}");
    }

    #[tokio::test]
    async fn a_connection_that_is_not_tls_is_left_as_it_is() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let folder = Folder::new();
        let hub = HubTls::self_signed(&folder.0, &[], &[]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let Accepted::Plain(mut stream) =
            hub.accept(listener.accept().await.unwrap().0).await.unwrap()
        else {
            panic!("it is no TLS");
        };
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"GET /");
    }
}
