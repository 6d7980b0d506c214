//! The cryptography of webrtc-rs, with a check of decrypted SCTP packets and of certificates.
//!
//! No other hook lies between DTLS and SCTP in webrtc-rs, but the cipher that opens a record can be
//! replaced. So can the hash that compares a certificate with a fingerprint. webrtc-rs supports one
//! fingerprint of sha-256, while a description may have several and of other hashes (RFC 8122).
//!
//! The fault: `rtc` 0.21.1 (`peer_connection/sdp`, `extract_fingerprint`) reads only the first
//! fingerprint of each section, and refuses a description in which these differ. It should accept a
//! certificate with any fingerprint of the strongest hash (RFC 8122, section 5). No issue is known.
//! Canary: `a_description_with_several_fingerprints_of_a_certificate_is_refused`.

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use rtc::crypto::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher,
    CryptoAlgorithm, CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac,
    PublicKey, RTCCrypto, RTCCryptoProvider, RTCRandom, SignatureScheme, SigningKey, StreamCipher,
    StreamCipherAlgorithm, default_provider,
};

use sha2::{Digest as _, Sha256, Sha384, Sha512};

use super::{
    sctp_filter,
    sdp::{FingerprintHash, Fingerprints},
};

/// The hash that webrtc-rs gets for a certificate that has one of several fingerprints. No
/// certificate can be made that really has this hash.
const PLACEHOLDER_HASH: [u8; 32] = [0; 32];

/// The cryptography of one connection.
pub(super) struct CheckedCrypto {
    inner: Arc<dyn RTCCryptoProvider>,
    /// The fingerprints that the remote certificate may have, if webrtc-rs cannot compare it
    /// itself.
    accepted: Mutex<Option<Fingerprints>>,
}

impl CheckedCrypto {
    /// Wraps the default cryptography of webrtc-rs.
    ///
    /// # Errors
    /// If webrtc-rs was built without any.
    pub(super) fn new() -> Result<Arc<Self>, CryptoError> {
        Ok(Arc::new(Self { inner: default_provider()?, accepted: Mutex::default() }))
    }

    /// Records the fingerprints that the remote certificate may have. Returns the sha-256
    /// fingerprint with which webrtc-rs is to compare it.
    pub(super) fn set_fingerprints(&self, fingerprints: &Fingerprints) -> String {
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        match (fingerprints.hash, fingerprints.values.first()) {
            (FingerprintHash::Sha256, Some(only)) if fingerprints.values.len() == 1 => {
                *accepted = None;
                only.clone()
            }
            _ => {
                *accepted = Some(fingerprints.clone());
                format_fingerprint(&PLACEHOLDER_HASH)
            }
        }
    }

    fn inner(&self) -> &dyn RTCCrypto {
        self.inner.crypto()
    }
}

impl RTCCryptoProvider for CheckedCrypto {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self
    }

    fn random(&self) -> &dyn RTCRandom {
        self.inner.random()
    }
}

impl RTCCrypto for CheckedCrypto {
    fn supports(&self, algorithm: CryptoAlgorithm) -> bool {
        self.inner().supports(algorithm)
    }

    fn hash(&self, algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if accepted.as_ref().is_some_and(|accepted| accepted.matches(data)) {
            return Ok(PLACEHOLDER_HASH.to_vec());
        }
        self.inner().hash(algorithm, data)
    }

    fn block_encrypt(
        &self,
        algorithm: BlockCipherAlgorithm,
        key: &[u8],
        block: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.inner().block_encrypt(algorithm, key, block)
    }

    fn new_hmac(&self, algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>, CryptoError> {
        self.inner().new_hmac(algorithm, key)
    }

    fn new_stream_cipher(
        &self,
        algorithm: StreamCipherAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn StreamCipher>, CryptoError> {
        self.inner().new_stream_cipher(algorithm, key)
    }

    fn new_aead(
        &self,
        algorithm: AeadAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn AeadCipher>, CryptoError> {
        Ok(Box::new(CheckedCipher(self.inner().new_aead(algorithm, key)?)))
    }

    fn new_cbc(
        &self,
        algorithm: CbcAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn CbcCipher>, CryptoError> {
        self.inner().new_cbc(algorithm, key)
    }

    fn start_key_exchange(
        &self,
        algorithm: KeyExchangeAlgorithm,
    ) -> Result<Box<dyn ActiveKeyExchange>, CryptoError> {
        self.inner().start_key_exchange(algorithm)
    }

    fn generate_signing_key(
        &self,
        scheme: SignatureScheme,
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.inner().generate_signing_key(scheme)
    }

    fn import_signing_key(
        &self,
        scheme: SignatureScheme,
        pkcs8_der: &[u8],
    ) -> Result<Arc<dyn SigningKey>, CryptoError> {
        self.inner().import_signing_key(scheme, pkcs8_der)
    }

    fn verify_signature(
        &self,
        scheme: SignatureScheme,
        public_key: PublicKey<'_>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        self.inner().verify_signature(scheme, public_key, message, signature)
    }
}

impl Fingerprints {
    /// Whether the certificate (DER) has one of them.
    fn matches(&self, certificate: &[u8]) -> bool {
        let hash = match self.hash {
            FingerprintHash::Sha256 => format_fingerprint(&Sha256::digest(certificate)),
            FingerprintHash::Sha384 => format_fingerprint(&Sha384::digest(certificate)),
            FingerprintHash::Sha512 => format_fingerprint(&Sha512::digest(certificate)),
        };
        self.values.contains(&hash)
    }
}

/// The bytes in fingerprint notation (RFC 8122, section 5), in lower case.
fn format_fingerprint(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 3);
    for byte in bytes {
        let colon = if text.is_empty() { "" } else { ":" };
        let _ = write!(text, "{colon}{byte:02x}");
    }
    text
}

/// A cipher that refuses to open SCTP packets that would make webrtc-rs panic or hang.
struct CheckedCipher(Box<dyn AeadCipher>);

impl AeadCipher for CheckedCipher {
    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn seal_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        plaintext_and_ciphertext: &mut [u8],
        tag_out: &mut [u8],
    ) -> Result<(), CryptoError> {
        self.0.seal_in_place(nonce, aad, plaintext_and_ciphertext, tag_out)
    }

    fn open_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        ciphertext_and_plaintext: &mut [u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        self.0.open_in_place(nonce, aad, ciphertext_and_plaintext, tag)?;
        if is_application_data(aad) && !sctp_filter::is_harmless(ciphertext_and_plaintext) {
            tracing::debug!("harmful SCTP packet dropped");
            return Err(CryptoError::AuthenticationFailed);
        }
        Ok(())
    }
}

/// Whether a record's additional data are those of application data, which is SCTP here (RFC 8261).
/// They hold epoch and sequence number, type, version and length (RFC 5246, section 6.2.3.3). The
/// additional data of SRTP are a multiple of four bytes long.
fn is_application_data(aad: &[u8]) -> bool {
    matches!(aad, [_, _, _, _, _, _, _, _, 23, _, _, _, _])
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &[u8] = b"a certificate";

    fn hash(crypto: &CheckedCrypto, data: &[u8]) -> String {
        format_fingerprint(&crypto.hash(HashAlgorithm::Sha256, data).unwrap())
    }

    fn accept(crypto: &CheckedCrypto, hash: FingerprintHash, values: &[&[u8]]) -> String {
        let values = values.iter().map(|value| format_fingerprint(value)).collect();
        crypto.set_fingerprints(&Fingerprints { hash, values })
    }

    #[test]
    fn one_fingerprint_of_sha_256_is_left_to_webrtc_rs() {
        let crypto = CheckedCrypto::new().unwrap();
        let own = Sha256::digest(CERTIFICATE);
        assert_eq!(accept(&crypto, FingerprintHash::Sha256, &[&own]), format_fingerprint(&own));
        assert_eq!(hash(&crypto, CERTIFICATE), format_fingerprint(&own));
    }

    #[test]
    fn a_certificate_that_has_any_of_the_fingerprints_is_accepted_and_no_other() {
        let (first, own) = (Sha256::digest(b"another"), Sha256::digest(CERTIFICATE));
        for (kind, values) in [
            (FingerprintHash::Sha256, [&first[..], &own]),
            (FingerprintHash::Sha384, [&first, &Sha384::digest(CERTIFICATE)]),
            (FingerprintHash::Sha512, [&Sha512::digest(CERTIFICATE), &first]),
        ] {
            let crypto = CheckedCrypto::new().unwrap();
            let expected = accept(&crypto, kind, &values);
            assert_eq!(hash(&crypto, CERTIFICATE), expected, "{kind:?}");
            let wrong = b"another peer's";
            assert_eq!(
                hash(&crypto, wrong),
                format_fingerprint(&Sha256::digest(wrong)),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn only_sctp_is_inspected() {
        let crypto = CheckedCrypto::new().unwrap();
        // An ABORT whose error cause claims to be longer than the chunk.
        let packet = [&[0; 12][..], &[6, 0, 0, 12, 0, 12, 255, 255, 0, 0, 0, 0]].concat();
        let opens = |aad: &[u8]| {
            let mut cipher = crypto.new_aead(AeadAlgorithm::Aes128Gcm, &[7; 16]).unwrap();
            let (mut data, mut tag) = (packet.clone(), vec![0; cipher.tag_len()]);
            cipher.seal_in_place(&[1; 12], aad, &mut data, &mut tag).unwrap();
            cipher.open_in_place(&[1; 12], aad, &mut data, &tag).is_ok()
        };
        let record = |kind| [0, 1, 0, 0, 0, 0, 0, 5, kind, 254, 253, 0, 24];
        assert!(!opens(&record(23)));
        assert!(opens(&record(22)) && opens(&[0x80; 12]));
    }
}
