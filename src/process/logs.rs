//! What may be in a log, whatever was wished for.

use tracing::{Level, Metadata};

/// Whether a line may be logged: `trace` is for our own code, and for the libraries that are named in
/// a filter to be heard at all. Other libraries write whole messages there, with the secrets in them:
/// `tungstenite` each frame, `zbus` what screen readers are told.
///
/// To be a filter beside that of `RUST_LOG`, so that no wish goes beyond it.
pub fn may_be_logged(line: &Metadata<'_>) -> bool {
    is_discreet(line.target(), *line.level())
}

/// Targets of `trace` that are heard: ours, and the media library's, which sees no message of a hub.
const TRACED: [&str; 3] = ["quintet", "rtc", "webrtc"];

fn is_discreet(target: &str, level: Level) -> bool {
    level <= Level::DEBUG || TRACED.iter().any(|traced| target.starts_with(traced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_library_writes_whole_messages() {
        for target in ["tungstenite::protocol", "tokio_tungstenite", "zbus::connection", "log"] {
            assert!(!is_discreet(target, Level::TRACE), "{target}");
            assert!(is_discreet(target, Level::DEBUG), "{target}");
        }
        for target in ["quintet::playback::voice", "rtc_ice", "webrtc"] {
            assert!(is_discreet(target, Level::TRACE), "{target}");
        }
    }
}
