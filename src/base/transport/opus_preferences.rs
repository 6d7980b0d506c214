//! What the other end wants of the Opus packets that it receives.

use std::sync::atomic::{AtomicBool, Ordering};

/// The parameters of a remote description that say what its Opus decoder prefers (RFC 7587, section 6.1).
/// Written by the negotiation; any thread may read it.
#[derive(Debug, Default)]
pub(super) struct OpusPreferences {
    uses_dtx: AtomicBool,
}

impl OpusPreferences {
    /// Takes the parameters of a remote description. Only Opus has parameters of these names.
    pub(super) fn read(&self, sdp: &str) {
        let lines = sdp.lines().filter_map(|line| line.strip_prefix("a=fmtp:")?.split_once(' '));
        let mut parameters = lines.flat_map(|(_, list)| list.split(';'));
        self.uses_dtx.store(parameters.any(|one| one.trim() == "usedtx=1"), Ordering::Relaxed);
    }

    /// Whether it wants no packets while nothing is said (DTX).
    pub(super) fn uses_dtx(&self) -> bool {
        self.uses_dtx.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_left_out_only_if_the_other_end_prefers_it() {
        let preferences = OpusPreferences::default();
        for (parameters, expected) in [
            ("minptime=10;useinbandfec=1;usedtx=1", true),
            ("minptime=10; usedtx=1; useinbandfec=1", true),
            ("minptime=10;usedtx=0", false),
            ("usedtx=1", true),
            ("minptime=10;useinbandfec=1", false),
        ] {
            let sdp = format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=fmtp:111 {parameters}\r\n");
            preferences.read(&sdp);
            assert_eq!(preferences.uses_dtx(), expected, "{parameters}");
        }
    }
}
