//! The qualities in which audio is encoded.

use std::time::Duration;

use serde::Serialize;

use super::Bitrate;

/// The same audio at one of several qualities, each encoded once for all peers that get it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AudioLayer {
    /// A voice over a narrow path: half as many packets, since each has 64 bytes of headers.
    Low,
    /// A voice, with in-band FEC.
    #[default]
    Standard,
    /// All that can be heard, without in-band FEC: Opus makes none at this rate.
    FullBand,
    /// The same at a rate at which music sounds like the original, instead of [`Self::FullBand`].
    Music,
    /// Music of two channels, instead of [`Self::Music`].
    StereoMusic,
}

/// The bytes of a packet on the wire beside its payload: IPv4, UDP, RTP with extensions, and the
/// authentication tag of AES-GCM.
const HEADER_BYTES: u64 = 64;

impl AudioLayer {
    /// All layers, the lowest first.
    pub const ALL: [Self; 5] =
        [Self::Low, Self::Standard, Self::FullBand, Self::Music, Self::StereoMusic];

    /// The rate of its payloads: RFC 7587, section 3.1.1 recommends 28 to 40 kbit/s for full-band
    /// speech, 48 to 64 for full-band music, and 64 to 128 for that of two channels.
    pub const fn bitrate(self) -> Bitrate {
        match self {
            Self::Low => Bitrate::from_kbps(24),
            Self::Standard => Bitrate::from_kbps(40),
            Self::FullBand => Bitrate::from_kbps(64),
            Self::Music => Bitrate::from_kbps(96),
            Self::StereoMusic => Bitrate::from_kbps(128),
        }
    }

    /// The length of a packet in samples of 48 kHz.
    pub const fn packet_samples(self) -> u64 {
        match self {
            Self::Low => 1920,
            Self::Standard | Self::FullBand | Self::Music | Self::StereoMusic => 960,
        }
    }

    /// The length of a packet: 20 ms, which every receiver expects (RFC 7874, section 3), or 40.
    pub const fn packet_time(self) -> Duration {
        Duration::from_micros(self.packet_samples() * 1000 / 48)
    }

    /// The rate on the wire of packets without copies.
    pub const fn wire_rate(self) -> Bitrate {
        let headers = HEADER_BYTES * 8 * 48_000 / self.packet_samples();
        Bitrate::from_bps(self.bitrate().as_bps() + headers)
    }

    /// Whether its packets may have in-band FEC.
    pub const fn has_fec(self) -> bool {
        match self {
            Self::Low | Self::Standard => true,
            Self::FullBand | Self::Music | Self::StereoMusic => false,
        }
    }

    /// Whether it has two channels.
    pub const fn is_stereo(self) -> bool {
        match self {
            Self::Low | Self::Standard | Self::FullBand | Self::Music => false,
            Self::StereoMusic => true,
        }
    }

    /// Whether nothing is sent of it while nothing is said (discontinuous transmission, RFC 6716,
    /// section 2.1.9): as in-band FEC that is for voices.
    pub const fn has_dtx(self) -> bool {
        self.has_fec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_on_the_wire_has_the_headers_of_each_packet() {
        let rates = AudioLayer::ALL.map(|layer| layer.wire_rate().as_bps() / 100);
        assert_eq!(rates, [368, 656, 896, 1216, 1536]);
    }
}
