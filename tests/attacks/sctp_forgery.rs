//! A crypto provider that alters data before it is encrypted. It sends SCTP packets that no SCTP
//! implementation would send.

use std::sync::Arc;

use rtc::crypto::{
    ActiveKeyExchange, AeadAlgorithm, AeadCipher, BlockCipherAlgorithm, CbcAlgorithm, CbcCipher,
    CryptoAlgorithm, CryptoError, HashAlgorithm, HmacAlgorithm, KeyExchangeAlgorithm, Mac,
    PublicKey, RTCCrypto, RTCCryptoProvider, RTCRandom, SignatureScheme, SigningKey, StreamCipher,
    StreamCipherAlgorithm, default_provider,
};

/// The smallest packet that is altered, in bytes. Messages are longer, the packets that set up the
/// association are shorter.
const MIN_FORGED_BYTES: usize = 400;

/// The default crypto provider of rtc, except that it alters SCTP packets.
pub(crate) struct ForgingCrypto(Arc<dyn RTCCryptoProvider>, Forgery);

/// A function that alters an SCTP packet.
pub(crate) type Forgery = fn(&mut [u8]);

impl ForgingCrypto {
    pub(crate) fn new(forgery: Forgery) -> Arc<Self> {
        Arc::new(Self(default_provider().expect("rtc has a default provider"), forgery))
    }
}

impl RTCCryptoProvider for ForgingCrypto {
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

/// Methods that forward to the default provider.
macro_rules! forwarded {
    ($($name:ident($($argument:ident: $of:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $of),*) -> $result {
            self.0.crypto().$name($($argument),*)
        })*
    };
}

impl RTCCrypto for ForgingCrypto {
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
        verify_signature(scheme: SignatureScheme, key: PublicKey<'_>, data: &[u8], signature: &[u8])
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
        // The additional data of DTLS application data (RFC 5246, section 6.2.3.3), which is SCTP
        // here.
        if matches!(aad, [_, _, _, _, _, _, _, _, 23, _, _, _, _]) && data.len() >= MIN_FORGED_BYTES
        {
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

/// Makes the packet an ABORT chunk whose only error cause claims to end after the chunk (RFC 9260,
/// sections 3.1, 3.3.7 and 3.3.10).
pub(crate) fn abort_with_false_length(packet: &mut [u8]) {
    let chunk = packet.len() as u16 - 12;
    packet[12..14].copy_from_slice(&[6, 0]);
    packet[14..16].copy_from_slice(&chunk.to_be_bytes());
    packet[16..18].copy_from_slice(&[0, 12]);
    packet[18..20].copy_from_slice(&(chunk + 1).to_be_bytes());
}

/// Makes the packet a series of FORWARD TSN chunks (RFC 3758, section 3.2) that step through the
/// whole sequence number space, a quarter at a time, again and again.
pub(crate) fn forward_tsn_chunks(packet: &mut [u8]) {
    let chunks = packet[12..].chunks_exact_mut(8);
    for (chunk, quarter) in chunks.zip([0, 0x40, 0x80, 0xc0].into_iter().cycle()) {
        chunk.copy_from_slice(&[192, 0, 0, 8, quarter, 0, 0, 0]);
    }
    // The remaining four bytes, if any, become a COOKIE ACK chunk, which has no value.
    let remainder = packet[12..].chunks_exact_mut(8).into_remainder();
    if let [kind, flags, high, low, ..] = remainder {
        [*kind, *flags, *high, *low] = [11, 0, 0, 4];
    }
}

/// The checksum of SCTP (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}
