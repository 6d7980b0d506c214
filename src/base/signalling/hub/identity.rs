//! The identity of this user's hubs: a secret on disk that they prove to have without showing it.
//!
//! Any program of a machine can listen on its loopback addresses, so a hub there may be another
//! user's. All hubs of one user share a secret that only this user can read, and programs of the
//! same user read it as well. A client sends a challenge in the request that opens its connection,
//! and the response carries an HMAC of it (RFC 2104) in the field [`PROOF`]. The HMAC covers the
//! address and port at which the hub was reached, so another user's program cannot have the real
//! hub make its proof: that one listens elsewhere. The proof comes on the connection that is then
//! used, so no other program can take the port in between.
//!
//! In the other direction, a client proves in `hello` that it is this user's: it signs the
//! challenge that the hub sent with its own proof.

use std::{
    fmt, fs,
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    sync::Arc,
};

use hyper::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};
use ring::hmac;

use crate::process::{create_private, create_private_folder, is_open_to_others, state_folder};

/// The header field that challenges the other end to prove its identity: 32 hexadecimal digits.
pub(in crate::signalling) const CHALLENGE: HeaderName =
    HeaderName::from_static("quintet-challenge");

/// The header field of a response that proves the hub's identity: 64 hexadecimal digits.
pub(in crate::signalling) const PROOF: HeaderName = HeaderName::from_static("quintet-proof");

/// The name of the secret's file in the state folder.
const FILE_NAME: &str = "hub-identity";

/// The secret's length, in bytes: that of the digest (RFC 2104, section 3).
const SECRET_BYTES: usize = 32;

/// The purpose of a hub's proof.
const HUB_PURPOSE: &str = "hub";

/// The purpose of a client's proof.
const CLIENT_PURPOSE: &str = "client";

/// The secret that all hubs of one user share. Clones share it; its `Debug` does not show it.
#[derive(Clone)]
pub struct HubIdentity(Arc<hmac::Key>);

/// A signature by a [`HubIdentity`], 32 bytes.
pub type Signature = [u8; 32];

impl HubIdentity {
    /// The identity of this user's hubs, from the state folder; it is created if there is none.
    ///
    /// If it cannot be kept there, it is one for this process only, and the log says why: no other
    /// program then recognises its hub as this user's. Blocks for the time of a file access.
    pub fn of_this_user() -> Self {
        let kept = match state_folder() {
            Some(folder) => Self::in_folder(&folder),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the user has no home")),
        };
        kept.unwrap_or_else(|error| {
            tracing::warn!(%error, "the hubs' identity cannot be kept; each program has its own hub");
            Self::fresh()
        })
    }

    /// The identity in a folder; it is created if there is none, or if other users could read it.
    /// The folder is created if it is missing.
    ///
    /// # Errors
    /// The system's error.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        create_private_folder(folder)?;
        let path = folder.join(FILE_NAME);
        if let Some(known) = read(&path)? {
            return Ok(known);
        }
        // Written to another file and linked: of two programs that start at once, the first one
        // wins.
        let beside = folder.join(format!("{FILE_NAME}.{}", to_hex(&random::<8>())));
        create_private(&beside)?.write_all(to_hex(&random::<SECRET_BYTES>()).as_bytes())?;
        if fs::hard_link(&beside, &path).is_err() && read(&path)?.is_none() {
            // The file there is not a secret, or the file system has no hard links.
            fs::rename(&beside, &path)?;
        }
        let _ = fs::remove_file(&beside);
        read(&path)?.ok_or_else(|| io::Error::other("the file is not what was written"))
    }

    /// A new identity.
    pub fn fresh() -> Self {
        Self::from_secret(&random())
    }

    fn from_secret(secret: &[u8; SECRET_BYTES]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The signature of some fields for a purpose: an HMAC-SHA256 of all of them, each with its
    /// length. A signature for one purpose is not valid for another.
    pub fn sign(&self, purpose: &str, fields: &[&[u8]]) -> Signature {
        let tag = hmac::sign(&self.0, &frame_fields(purpose, fields));
        let mut signature = [0; 32];
        signature.copy_from_slice(tag.as_ref());
        signature
    }

    /// Whether this identity has signed these fields for that purpose. Takes constant time.
    pub fn verify(&self, purpose: &str, fields: &[&[u8]], signature: &[u8]) -> bool {
        hmac::verify(&self.0, &frame_fields(purpose, fields), signature).is_ok()
    }

    /// The response fields for a request that reached the hub at that address: the proof, and a
    /// challenge for the client, which is returned as well. `None` for a request without a
    /// challenge.
    pub(super) fn answer_challenge(
        &self,
        request: &HeaderMap,
        at: SocketAddr,
    ) -> Option<([(HeaderName, HeaderValue); 2], Challenge)> {
        let challenge = Challenge::read(request)?;
        let proof = HeaderValue::try_from(self.make_proof(HUB_PURPOSE, &challenge, at));
        let proof = proof.expect("hexadecimal digits are a header's value");
        let own = Challenge::fresh();
        Some(([(PROOF, proof), (CHALLENGE, own.value())], own))
    }

    /// Whether a response proves that the hub at that address is this user's.
    pub(in crate::signalling) fn verify_hub_proof(
        &self,
        answer: &HeaderMap,
        challenge: &Challenge,
        at: SocketAddr,
    ) -> bool {
        let proof = answer.get(PROOF).and_then(|proof| proof.to_str().ok());
        proof.is_some_and(|proof| self.verify_proof(HUB_PURPOSE, challenge, at, proof))
    }

    /// The proof for the hub at that address that the client is this user's.
    pub(in crate::signalling) fn client_proof(
        &self,
        challenge: &Challenge,
        at: SocketAddr,
    ) -> String {
        self.make_proof(CLIENT_PURPOSE, challenge, at)
    }

    /// Whether a proof shows that the client of the hub at that address is this user's.
    pub(super) fn verify_client_proof(
        &self,
        challenge: &Challenge,
        at: SocketAddr,
        proof: &str,
    ) -> bool {
        self.verify_proof(CLIENT_PURPOSE, challenge, at, proof)
    }

    fn make_proof(&self, purpose: &str, challenge: &Challenge, at: SocketAddr) -> String {
        to_hex(&self.sign(purpose, &[challenge.0.as_bytes(), canonical_address(at).as_bytes()]))
    }

    fn verify_proof(
        &self,
        purpose: &str,
        challenge: &Challenge,
        at: SocketAddr,
        proof: &str,
    ) -> bool {
        let at = canonical_address(at);
        let fields = [challenge.0.as_bytes(), at.as_bytes()];
        from_hex(proof).is_some_and(|proof: Signature| self.verify(purpose, &fields, &proof))
    }
}

impl fmt::Debug for HubIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubIdentity(…)")
    }
}

/// A random text for the other end to sign, used once. It is not secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::signalling) struct Challenge(String);

impl Challenge {
    /// A new challenge of 128 random bits.
    pub(in crate::signalling) fn fresh() -> Self {
        Self(to_hex(&random::<16>()))
    }

    /// The challenge in the fields of a request or response.
    pub(in crate::signalling) fn read(fields: &HeaderMap) -> Option<Self> {
        let text = fields.get(CHALLENGE)?.to_str().ok()?;
        from_hex::<16>(text).map(|_| Self(text.to_owned()))
    }

    /// The value of the field [`CHALLENGE`].
    pub(in crate::signalling) fn value(&self) -> HeaderValue {
        HeaderValue::try_from(&self.0).expect("hexadecimal digits are a header's value")
    }
}

/// The identity in a file; `None` if there is no file, or if its content is not a secret.
fn read(path: &Path) -> io::Result<Option<HubIdentity>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if is_open_to_others(&file)? {
        tracing::warn!("other users could read the hubs' identity; a new one is made");
        return Ok(None);
    }
    let mut text = String::new();
    let is_text = file.take(2 * SECRET_BYTES as u64 + 1).read_to_string(&mut text).is_ok();
    Ok(from_hex(&text).filter(|_| is_text).map(|secret| HubIdentity::from_secret(&secret)))
}

fn frame_fields(purpose: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut framed = vec![];
    for field in [purpose.as_bytes()].iter().chain(fields) {
        framed.extend((field.len() as u64).to_be_bytes());
        framed.extend(*field);
    }
    framed
}

/// The text of an address, the same on both ends.
fn canonical_address(at: SocketAddr) -> String {
    SocketAddr::new(at.ip().to_canonical(), at.port()).to_string()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A temporary folder, removed on drop.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("quintet-identity-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&folder);
            Self(folder)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// The fields of a hub's response to a client that sends a challenge.
    fn answer(hub: &HubIdentity, challenge: &Challenge, reached: &str) -> (HeaderMap, Challenge) {
        let request = HeaderMap::from_iter([(CHALLENGE, challenge.value())]);
        let (fields, own) = hub.answer_challenge(&request, at(reached)).unwrap();
        (HeaderMap::from_iter(fields), own)
    }

    #[test]
    fn programs_of_one_user_share_an_identity_that_other_users_cannot_read() {
        let scratch = Scratch::new("shared");
        let ours = HubIdentity::in_folder(&scratch.0).unwrap();
        let also = HubIdentity::in_folder(&scratch.0).unwrap();
        let signature = ours.sign("a", &[b"x"]);
        assert!(also.verify("a", &[b"x"], &signature));
        assert!(!HubIdentity::fresh().verify("a", &[b"x"], &signature));
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "no temporary file is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&scratch.0.join(FILE_NAME)), mode(&scratch.0)), (0o600, 0o700));
        }
        assert_eq!(format!("{ours:?}"), "HubIdentity(…)");
    }

    #[test]
    fn programs_that_start_at_once_agree_on_one_identity() {
        let scratch = Scratch::new("race");
        let signatures: Vec<_> = std::thread::scope(|scope| {
            let sign = || HubIdentity::in_folder(&scratch.0).unwrap().sign("a", &[]);
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(sign)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(signatures.windows(2).all(|pair| pair[0] == pair[1]), "{signatures:?}");
    }

    #[test]
    fn a_file_that_is_no_secret_is_replaced() {
        let scratch = Scratch::new("bad");
        create_private_folder(&scratch.0).unwrap();
        for text in ["", "short", &"x".repeat(64), &"ab".repeat(33)] {
            create_private(&scratch.0.join(FILE_NAME)).unwrap().write_all(text.as_bytes()).unwrap();
            let made = HubIdentity::in_folder(&scratch.0).unwrap();
            let read = HubIdentity::in_folder(&scratch.0).unwrap();
            assert_eq!(made.sign("a", &[]), read.sign("a", &[]), "{text:?}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let before = HubIdentity::in_folder(&scratch.0).unwrap();
            let readable = fs::Permissions::from_mode(0o644);
            fs::set_permissions(scratch.0.join(FILE_NAME), readable).unwrap();
            let after = HubIdentity::in_folder(&scratch.0).unwrap();
            assert_ne!(before.sign("a", &[]), after.sign("a", &[]), "other users may have read it");
        }
    }

    #[test]
    fn a_signature_is_valid_for_its_purpose_and_its_exact_fields() {
        let identity = HubIdentity::fresh();
        let signature = identity.sign("a", &[b"bc", b"d"]);
        assert!(identity.verify("a", &[b"bc", b"d"], &signature));
        assert!(!identity.verify("a", &[b"b", b"cd"], &signature));
        assert!(!identity.verify("a", &[b"bcd"], &signature));
        assert!(!identity.verify("b", &[b"bc", b"d"], &signature));
        assert!(!identity.verify("a", &[b"bc", b"d"], &signature[..31]));
    }

    #[test]
    fn a_hubs_proof_is_valid_only_for_the_address_at_which_it_was_reached() {
        let (ours, other) = (HubIdentity::fresh(), HubIdentity::fresh());
        let (challenge, reached) = (Challenge::fresh(), "127.0.0.1:7340");
        let (proven, _) = answer(&ours, &challenge, reached);
        assert!(ours.verify_hub_proof(&proven, &challenge, at(reached)));
        assert!(
            ours.verify_hub_proof(&proven, &challenge, at("[::ffff:127.0.0.1]:7340")),
            "the same address"
        );
        assert!(!ours.verify_hub_proof(&proven, &Challenge::fresh(), at(reached)), "an old proof");
        for elsewhere in ["127.0.0.1:7341", "127.0.0.2:7340", "[::1]:7340"] {
            assert!(
                !ours.verify_hub_proof(&proven, &challenge, at(elsewhere)),
                "relayed to {elsewhere}"
            );
        }
        let (foreign, _) = answer(&other, &challenge, reached);
        assert!(!ours.verify_hub_proof(&foreign, &challenge, at(reached)));
        assert!(!ours.verify_hub_proof(&HeaderMap::new(), &challenge, at(reached)), "an older hub");
        assert!(
            ours.answer_challenge(&HeaderMap::new(), at(reached)).is_none(),
            "a request without a challenge"
        );
        let bad = HeaderMap::from_iter([(CHALLENGE, HeaderValue::from_static("xyz"))]);
        assert!(ours.answer_challenge(&bad, at(reached)).is_none());
    }

    #[test]
    fn a_client_proves_itself_with_the_hubs_challenge_and_not_with_the_hubs_proof() {
        let identity = HubIdentity::fresh();
        let (challenge, reached) = (Challenge::fresh(), "127.0.0.1:7340");
        let (fields, own) = answer(&identity, &challenge, reached);
        assert_eq!(Challenge::read(&fields), Some(own.clone()));
        let proof = identity.client_proof(&own, at(reached));
        assert!(identity.verify_client_proof(&own, at(reached), &proof));
        assert!(!identity.verify_client_proof(&own, at("127.0.0.1:7341"), &proof));
        assert!(!HubIdentity::fresh().verify_client_proof(&own, at(reached), &proof));
        // A hub's proof of the same challenge is not valid for a client.
        let (echoed, _) = answer(&identity, &own, reached);
        assert!(!identity.verify_client_proof(&own, at(reached), echoed[PROOF].to_str().unwrap()));
        assert!(!identity.verify_client_proof(&own, at(reached), ""));
    }
}
