//! What the other end wants of the Opus packets that it receives.

use std::sync::atomic::{AtomicBool, Ordering};

/// The parameters of a remote description that say what its Opus decoder prefers (RFC 7587, section 6.1).
/// Written by the negotiation; any thread may read it.
#[derive(Debug, Default)]
pub(super) struct OpusPreferences {
    uses_dtx: AtomicBool,
    takes_stereo: AtomicBool,
}

impl OpusPreferences {
    /// Takes the parameters of a remote description. Only Opus has parameters of these names.
    pub(super) fn read(&self, sdp: &str) {
        let lines = sdp.lines().filter_map(|line| line.strip_prefix("a=fmtp:")?.split_once(' '));
        let parameters: Vec<_> =
            lines.flat_map(|(_, list)| list.split(';')).map(str::trim).collect();
        let value = |name: &str| parameters.iter().find_map(|one| one.strip_prefix(name));
        self.uses_dtx.store(value("usedtx=") == Some("1"), Ordering::Relaxed);
        let sends_stereo = value("sprop-stereo=") == Some("1");
        let takes_stereo = value("stereo=").map_or(sends_stereo, |value| value == "1");
        self.takes_stereo.store(takes_stereo, Ordering::Relaxed);
    }

    /// Whether it wants no packets while nothing is said (DTX).
    pub(super) fn uses_dtx(&self) -> bool {
        self.uses_dtx.load(Ordering::Relaxed)
    }

    /// Whether it makes two channels of packets with two: it prefers them (`stereo`), or it does not say so
    /// and may send such packets itself (`sprop-stereo`), as this program does. Every receiver decodes
    /// both kinds of packets.
    pub(super) fn takes_stereo(&self) -> bool {
        self.takes_stereo.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: &str) -> OpusPreferences {
        let preferences = OpusPreferences::default();
        let sdp = format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=fmtp:111 {parameters}\r\n");
        preferences.read(&sdp);
        preferences
    }

    #[test]
    fn silence_is_left_out_only_if_the_other_end_prefers_it() {
        for (parameters, expected) in [
            ("minptime=10;useinbandfec=1;usedtx=1", true),
            ("minptime=10; usedtx=1; useinbandfec=1", true),
            ("minptime=10;usedtx=0", false),
            ("usedtx=1", true),
            ("minptime=10;useinbandfec=1", false),
        ] {
            assert_eq!(read(parameters).uses_dtx(), expected, "{parameters}");
        }
    }

    #[test]
    fn two_channels_are_sent_only_to_who_makes_two_of_them() {
        for (parameters, expected) in [
            // Chromium, unless a page asks for more.
            ("minptime=10;useinbandfec=1", false),
            ("minptime=10;stereo=1;useinbandfec=1", true),
            ("stereo=0;sprop-stereo=1", false),
            // This program, and its earlier versions.
            ("minptime=10;useinbandfec=1;sprop-stereo=1;usedtx=1", true),
            ("minptime=10;useinbandfec=1;stereo=0;usedtx=1", false),
        ] {
            assert_eq!(read(parameters).takes_stereo(), expected, "{parameters}");
        }
    }
}
