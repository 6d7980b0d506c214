//! Cryptography that seals something else than it is given: whole packets of SCTP that no library
//! sends.

use std::sync::Arc;

use rtc::crypto::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher,
    CryptoAlgorithm, CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac,
    PublicKey, RTCCrypto, RTCCryptoProvider, RTCRandom, SignatureScheme, SigningKey, StreamCipher,
    StreamCipherAlgorithm, default_provider,
};

/// Bytes of a packet that is forged: messages, not what sets up the association.
const LONG: usize = 400;

/// The cryptography.
pub(crate) struct Forger(Arc<dyn RTCCryptoProvider>, Forgery);

/// What is made of a packet.
pub(crate) type Forgery = fn(&mut [u8]);

impl Forger {
    pub(crate) fn new(forgery: Forgery) -> Arc<Self> {
        Arc::new(Self(default_provider().expect("the library has one"), forgery))
    }
}

impl RTCCryptoProvider for Forger {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn crypto(&self) -> &dyn RTCCrypto {
        self
    }

    fn random(&self) -> &dyn RTCRandom {
        self.0.random()
    }
}

/// What the library's own does, by its arguments.
macro_rules! forwarded {
    ($($name:ident($($argument:ident: $of:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $of),*) -> $result {
            self.0.crypto().$name($($argument),*)
        })*
    };
}

impl RTCCrypto for Forger {
    forwarded! {
        supports(algorithm: CryptoAlgorithm) -> bool;
        hash(algorithm: HashAlgorithm, data: &[u8]) -> Result<Vec<u8>, CryptoError>;
        block_encrypt(algorithm: BlockCipherAlgorithm, key: &[u8], block: &mut [u8])
            -> Result<(), CryptoError>;
        new_hmac(algorithm: HmacAlgorithm, key: &[u8]) -> Result<Box<dyn Mac>, CryptoError>;
        new_stream_cipher(algorithm: StreamCipherAlgorithm, key: &[u8])
            -> Result<Box<dyn StreamCipher>, CryptoError>;
        new_cbc(algorithm: CbcAlgorithm, key: &[u8]) -> Result<Box<dyn CbcCipher>, CryptoError>;
        start_key_exchange(algorithm: KeyExchangeAlgorithm)
            -> Result<Box<dyn ActiveKeyExchange>, CryptoError>;
        generate_signing_key(scheme: SignatureScheme)
            -> Result<Arc<dyn SigningKey>, CryptoError>;
        import_signing_key(scheme: SignatureScheme, der: &[u8])
            -> Result<Arc<dyn SigningKey>, CryptoError>;
        verify_signature(scheme: SignatureScheme, key: PublicKey<'_>, said: &[u8], seal: &[u8])
            -> Result<(), CryptoError>;
    }

    fn new_aead(
        &self,
        algorithm: AeadAlgorithm,
        key: &[u8],
    ) -> Result<Box<dyn AeadCipher>, CryptoError> {
        Ok(Box::new(ForgingCipher(self.0.crypto().new_aead(algorithm, key)?, self.1)))
    }
}

struct ForgingCipher(Box<dyn AeadCipher>, Forgery);

impl AeadCipher for ForgingCipher {
    fn tag_len(&self) -> usize {
        self.0.tag_len()
    }

    fn seal_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        data: &mut [u8],
        tag: &mut [u8],
    ) -> Result<(), CryptoError> {
        // Application data of DTLS (RFC 5246, section 6.2.3.3), which are SCTP here.
        if matches!(aad, [_, _, _, _, _, _, _, _, 23, _, _, _, _]) && data.len() >= LONG {
            (self.1)(data);
            data[8..12].fill(0);
            let checksum = crc32c(data);
            data[8..12].copy_from_slice(&checksum.to_le_bytes());
        }
        self.0.seal_in_place(nonce, aad, data, tag)
    }

    fn open_in_place(
        &mut self,
        nonce: &[u8],
        aad: &[u8],
        data: &mut [u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        self.0.open_in_place(nonce, aad, data, tag)
    }
}

/// A packet whose only chunk is an ABORT, whose only cause says that it goes on behind the chunk (RFC
/// 9260, sections 3.1, 3.3.7 and 3.3.10).
pub(crate) fn false_length(packet: &mut [u8]) {
    let chunk = packet.len() as u16 - 12;
    packet[12..14].copy_from_slice(&[6, 0]);
    packet[14..16].copy_from_slice(&chunk.to_be_bytes());
    packet[16..18].copy_from_slice(&[0, 12]);
    packet[18..20].copy_from_slice(&(chunk + 1).to_be_bytes());
}

/// A packet of FORWARD TSN chunks (RFC 3758, section 3.2) that go round all numbers there are, in
/// four steps and again.
pub(crate) fn far_ahead(packet: &mut [u8]) {
    let chunks = packet[12..].chunks_exact_mut(8);
    for (chunk, quarter) in chunks.zip([0, 0x40, 0x80, 0xc0].into_iter().cycle()) {
        chunk.copy_from_slice(&[192, 0, 0, 8, quarter, 0, 0, 0]);
    }
    // The rest is a chunk of no value; each is a multiple of four bytes.
    let rest = packet[12..].chunks_exact_mut(8).into_remainder();
    if let [kind, flags, high, low, ..] = rest {
        [*kind, *flags, *high, *low] = [11, 0, 0, 4];
    }
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
