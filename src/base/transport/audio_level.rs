//! The header extension with the level of the audio in a packet (RFC 6464).

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use rtc::{rtp, rtp_transceiver::rtp_sender::RTCRtpHeaderExtensionParameters};

use crate::media::AudioLevel;

/// The URI of the extension (RFC 6464, section 4). Without the attribute `vad`, the voice flag is in
/// use.
pub(super) const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";

/// All values of the extension. Packets point into it.
static VALUES: [u8; 256] = {
    let mut values = [0; 256];
    let mut value = 0;
    while value < values.len() {
        values[value] = value as u8;
        value += 1;
    }
    values
};

/// What is negotiated about the levels of one stream that this end sends. Shared by the negotiation
/// and the sender.
#[derive(Debug, Default)]
pub(super) struct LevelExtension {
    /// The id; 0 if it is not negotiated.
    id: AtomicU8,
}

impl LevelExtension {
    /// Sets the negotiated id.
    pub(super) fn set_id(&self, id: Option<u8>) {
        self.id.store(id.unwrap_or(0), Ordering::Relaxed);
    }

    /// Writes a level into a header, if the extension is negotiated.
    pub(super) fn write(&self, header: &mut rtp::Header, level: AudioLevel) {
        let id = self.id.load(Ordering::Relaxed);
        if id != 0 {
            let at = usize::from(level.to_byte());
            // An id that the header cannot have is not set.
            let _ = header.set_extension(id, Bytes::from_static(&VALUES[at..=at]));
        }
    }
}

/// The id of the extension among those that are negotiated.
pub(super) fn extension_id(extensions: &[RTCRtpHeaderExtensionParameters]) -> Option<u8> {
    let found = extensions.iter().find(|one| one.uri == AUDIO_LEVEL_URI)?;
    u8::try_from(found.id).ok().filter(|id| (1..15).contains(id))
}

/// The level in a header that has the extension with that id.
pub(super) fn read(header: &rtp::Header, id: u8) -> Option<AudioLevel> {
    let found = header.extensions.iter().find(|one| one.id == id)?;
    found.payload.first().copied().map(AudioLevel::from_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_written_only_where_it_is_negotiated_and_read_again() {
        let level = AudioLevel::new(-42.0, true);
        let written = |id| {
            let (extension, mut header) = (LevelExtension::default(), rtp::Header::default());
            extension.set_id(id);
            extension.write(&mut header, level);
            header
        };
        assert_eq!(written(None), rtp::Header::default());
        assert_eq!(read(&written(None), 0), None);
        let header = written(Some(3));
        assert_eq!(header.extensions[0].payload[..], [0x80 | 42]);
        assert_eq!((read(&header, 3), read(&header, 4)), (Some(level), None));
    }

    #[test]
    fn an_extension_without_a_byte_is_no_level() {
        let mut header = rtp::Header::default();
        header.set_extension(3, Bytes::new()).unwrap();
        assert_eq!(read(&header, 3), None);
    }
}
