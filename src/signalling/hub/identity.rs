//! The identity of this user's hubs: a secret on disk that they prove to have and never show.
//!
//! Any program of a machine can listen on its loopback addresses, so what answers there is not for
//! that reason this user's. All hubs of one user share a secret that only this user can read, and
//! programs of the same user read it as well. A client asks with a challenge in the request that
//! opens its connection, and the answer carries an HMAC of it (RFC 2104) in the field
//! [`PROOF`]. The HMAC covers the address and port at which the hub was reached, so another user's
//! program cannot have its proof made by the real hub: that one listens elsewhere. It comes on the
//! connection that is then used, so nobody can take the port in between.
//!
//! The other way round a client proves in `hello` that it is this user's, by the challenge that
//! the hub gave it with its own proof.

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

/// The field of a request, and of the answer to it, that asks the other end for a proof: 32
/// hexadecimal digits.
pub(in crate::signalling) const CHALLENGE: HeaderName =
    HeaderName::from_static("quintet-challenge");

/// The field of an answer that proves whose hub it is: 64 hexadecimal digits.
pub(in crate::signalling) const PROOF: HeaderName = HeaderName::from_static("quintet-proof");

/// The name of the secret's file in the state folder.
const FILE: &str = "hub-identity";

/// The secret's length, in bytes: that of the digest (RFC 2104, section 3).
const SECRET: usize = 32;

/// What a hub signs to prove that it is this user's.
const OF_HUB: &str = "hub";

/// What a client signs to prove that it is this user's.
const OF_CLIENT: &str = "client";

/// The secret that all hubs of one user share. Its clones are one; its `Debug` shows nothing.
#[derive(Clone)]
pub struct HubIdentity(Arc<hmac::Key>);

/// A signature by a [`HubIdentity`], 32 bytes.
pub type Signature = [u8; 32];

impl HubIdentity {
    /// The identity of this user's hubs, from the state folder; it is made there if there is none.
    ///
    /// Where it cannot be kept there, it is one of this process alone, and a line in the log says
    /// why: no other program then takes its hub for this user's. Blocks for as long as the system
    /// takes for a file.
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

    /// The identity that is kept in a folder; it is made there if there is none, or if others than
    /// the user could read it. The folder is made if it is missing.
    ///
    /// # Errors
    /// What the system says.
    pub fn in_folder(folder: &Path) -> io::Result<Self> {
        create_private_folder(folder)?;
        let path = folder.join(FILE);
        if let Some(known) = read(&path)? {
            return Ok(known);
        }
        // Written beside and linked: of two programs that start at once, the first one's holds.
        let beside = folder.join(format!("{FILE}.{}", hex(&random::<8>())));
        create_private(&beside)?.write_all(hex(&random::<SECRET>()).as_bytes())?;
        if fs::hard_link(&beside, &path).is_err() && read(&path)?.is_none() {
            // What is there is no secret, or the file system has no links.
            fs::rename(&beside, &path)?;
        }
        let _ = fs::remove_file(&beside);
        read(&path)?.ok_or_else(|| io::Error::other("the file is not what was written"))
    }

    /// An identity of its own, which nobody else has.
    pub fn fresh() -> Self {
        Self::of(&random())
    }

    fn of(secret: &[u8; SECRET]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The signature of some fields for a purpose: an HMAC-SHA256 of all of them, each with its
    /// length. What was signed for one purpose says nothing for another.
    pub fn sign(&self, purpose: &str, fields: &[&[u8]]) -> Signature {
        let tag = hmac::sign(&self.0, &framed(purpose, fields));
        let mut signature = [0; 32];
        signature.copy_from_slice(tag.as_ref());
        signature
    }

    /// Whether this identity has signed these fields for that purpose. Takes as long for a wrong
    /// signature as for a right one.
    pub fn verify(&self, purpose: &str, fields: &[&[u8]], signature: &[u8]) -> bool {
        hmac::verify(&self.0, &framed(purpose, fields), signature).is_ok()
    }

    /// The fields that answer a request that came in at that address of the hub: the proof, and a
    /// challenge for the client, which is returned as well. `None` for a request that does not ask.
    pub(super) fn answer(
        &self,
        request: &HeaderMap,
        at: SocketAddr,
    ) -> Option<([(HeaderName, HeaderValue); 2], Challenge)> {
        let challenge = Challenge::read(request)?;
        let proof = HeaderValue::try_from(self.proof(OF_HUB, &challenge, at));
        let proof = proof.expect("hexadecimal digits are a header's value");
        let own = Challenge::fresh();
        Some(([(PROOF, proof), (CHALLENGE, own.value())], own))
    }

    /// Whether an answer proves that the hub at that address is this user's.
    pub(in crate::signalling) fn is_proven(
        &self,
        answer: &HeaderMap,
        challenge: &Challenge,
        at: SocketAddr,
    ) -> bool {
        let proof = answer.get(PROOF).and_then(|proof| proof.to_str().ok());
        proof.is_some_and(|proof| self.holds(OF_HUB, challenge, at, proof))
    }

    /// What proves to the hub at that address that the client is this user's.
    pub(in crate::signalling) fn client_proof(
        &self,
        challenge: &Challenge,
        at: SocketAddr,
    ) -> String {
        self.proof(OF_CLIENT, challenge, at)
    }

    /// Whether that proves to the hub at that address that the client is this user's.
    pub(super) fn is_client(&self, challenge: &Challenge, at: SocketAddr, proof: &str) -> bool {
        self.holds(OF_CLIENT, challenge, at, proof)
    }

    fn proof(&self, purpose: &str, challenge: &Challenge, at: SocketAddr) -> String {
        hex(&self.sign(purpose, &[challenge.0.as_bytes(), written(at).as_bytes()]))
    }

    fn holds(&self, purpose: &str, challenge: &Challenge, at: SocketAddr, proof: &str) -> bool {
        let at = written(at);
        let fields = [challenge.0.as_bytes(), at.as_bytes()];
        bytes_of(proof).is_some_and(|proof: Signature| self.verify(purpose, &fields, &proof))
    }
}

impl fmt::Debug for HubIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HubIdentity(…)")
    }
}

/// A random text that the other end is to sign; used once. It is no secret.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::signalling) struct Challenge(String);

impl Challenge {
    /// 128 bits of the system's randomness.
    pub(in crate::signalling) fn fresh() -> Self {
        Self(hex(&random::<16>()))
    }

    /// The challenge that a request or an answer carries.
    pub(in crate::signalling) fn read(fields: &HeaderMap) -> Option<Self> {
        let text = fields.get(CHALLENGE)?.to_str().ok()?;
        bytes_of::<16>(text).map(|_| Self(text.to_owned()))
    }

    /// The value of the field [`CHALLENGE`].
    pub(in crate::signalling) fn value(&self) -> HeaderValue {
        HeaderValue::try_from(&self.0).expect("hexadecimal digits are a header's value")
    }
}

/// The identity in a file; `None` if there is no file, or none that is fit to be a secret.
fn read(path: &Path) -> io::Result<Option<HubIdentity>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if is_open_to_others(&file)? {
        tracing::warn!("others could read the hubs' identity; a new one is made");
        return Ok(None);
    }
    let mut text = String::new();
    let is_text = file.take(2 * SECRET as u64 + 1).read_to_string(&mut text).is_ok();
    Ok(bytes_of(&text).filter(|_| is_text).map(|secret| HubIdentity::of(&secret)))
}

fn framed(purpose: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut framed = vec![];
    for field in [purpose.as_bytes()].iter().chain(fields) {
        framed.extend((field.len() as u64).to_be_bytes());
        framed.extend(*field);
    }
    framed
}

/// An address, as both ends write it.
fn written(at: SocketAddr) -> String {
    SocketAddr::new(at.ip().to_canonical(), at.port()).to_string()
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
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

    /// A folder of its own, removed at the end.
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

    /// The fields of a hub's answer to a client that asks.
    fn answer(hub: &HubIdentity, challenge: &Challenge, reached: &str) -> (HeaderMap, Challenge) {
        let request = HeaderMap::from_iter([(CHALLENGE, challenge.value())]);
        let (fields, own) = hub.answer(&request, at(reached)).unwrap();
        (HeaderMap::from_iter(fields), own)
    }

    #[test]
    fn programs_of_one_user_share_an_identity_that_others_cannot_read() {
        let scratch = Scratch::new("shared");
        let ours = HubIdentity::in_folder(&scratch.0).unwrap();
        let also = HubIdentity::in_folder(&scratch.0).unwrap();
        let signature = ours.sign("a", &[b"x"]);
        assert!(also.verify("a", &[b"x"], &signature));
        assert!(!HubIdentity::fresh().verify("a", &[b"x"], &signature));
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 1, "nothing is left beside it");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&scratch.0.join(FILE)), mode(&scratch.0)), (0o600, 0o700));
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
    fn what_is_no_secret_or_none_any_more_is_replaced() {
        let scratch = Scratch::new("bad");
        create_private_folder(&scratch.0).unwrap();
        for text in ["", "short", &"x".repeat(64), &"ab".repeat(33)] {
            create_private(&scratch.0.join(FILE)).unwrap().write_all(text.as_bytes()).unwrap();
            let made = HubIdentity::in_folder(&scratch.0).unwrap();
            let read = HubIdentity::in_folder(&scratch.0).unwrap();
            assert_eq!(made.sign("a", &[]), read.sign("a", &[]), "{text:?}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let before = HubIdentity::in_folder(&scratch.0).unwrap();
            let readable = fs::Permissions::from_mode(0o644);
            fs::set_permissions(scratch.0.join(FILE), readable).unwrap();
            let after = HubIdentity::in_folder(&scratch.0).unwrap();
            assert_ne!(before.sign("a", &[]), after.sign("a", &[]), "others may have read it");
        }
    }

    #[test]
    fn a_signature_holds_for_its_purpose_and_for_its_fields_as_they_were_divided() {
        let identity = HubIdentity::fresh();
        let signature = identity.sign("a", &[b"bc", b"d"]);
        assert!(identity.verify("a", &[b"bc", b"d"], &signature));
        assert!(!identity.verify("a", &[b"b", b"cd"], &signature));
        assert!(!identity.verify("a", &[b"bcd"], &signature));
        assert!(!identity.verify("b", &[b"bc", b"d"], &signature));
        assert!(!identity.verify("a", &[b"bc", b"d"], &signature[..31]));
    }

    #[test]
    fn a_hub_proves_itself_where_it_was_reached_and_nowhere_else() {
        let (ours, theirs) = (HubIdentity::fresh(), HubIdentity::fresh());
        let (challenge, reached) = (Challenge::fresh(), "127.0.0.1:7340");
        let (proven, _) = answer(&ours, &challenge, reached);
        assert!(ours.is_proven(&proven, &challenge, at(reached)));
        assert!(
            ours.is_proven(&proven, &challenge, at("[::ffff:127.0.0.1]:7340")),
            "the same place"
        );
        assert!(!ours.is_proven(&proven, &Challenge::fresh(), at(reached)), "an old proof");
        for elsewhere in ["127.0.0.1:7341", "127.0.0.2:7340", "[::1]:7340"] {
            assert!(!ours.is_proven(&proven, &challenge, at(elsewhere)), "relayed to {elsewhere}");
        }
        let (foreign, _) = answer(&theirs, &challenge, reached);
        assert!(!ours.is_proven(&foreign, &challenge, at(reached)));
        assert!(!ours.is_proven(&HeaderMap::new(), &challenge, at(reached)), "an older hub");
        assert!(ours.answer(&HeaderMap::new(), at(reached)).is_none(), "nobody asked");
        let bad = HeaderMap::from_iter([(CHALLENGE, HeaderValue::from_static("xyz"))]);
        assert!(ours.answer(&bad, at(reached)).is_none());
    }

    #[test]
    fn a_client_proves_itself_by_the_hubs_challenge_and_not_by_the_hubs_own_proof() {
        let identity = HubIdentity::fresh();
        let (challenge, reached) = (Challenge::fresh(), "127.0.0.1:7340");
        let (fields, own) = answer(&identity, &challenge, reached);
        assert_eq!(Challenge::read(&fields), Some(own.clone()));
        let proof = identity.client_proof(&own, at(reached));
        assert!(identity.is_client(&own, at(reached), &proof));
        assert!(!identity.is_client(&own, at("127.0.0.1:7341"), &proof));
        assert!(!HubIdentity::fresh().is_client(&own, at(reached), &proof));
        // A hub's proof of the same challenge is none of a client.
        let (echoed, _) = answer(&identity, &own, reached);
        assert!(!identity.is_client(&own, at(reached), echoed[PROOF].to_str().unwrap()));
        assert!(!identity.is_client(&own, at(reached), ""));
    }
}
