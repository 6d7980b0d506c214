//! The log records that are never written, whatever `RUST_LOG` says.

use tracing::{Level, Metadata};

/// Returns whether a log record may be written. `trace` is allowed for our own code and for
/// webrtc-rs and rtc only. Other libraries log whole messages at `trace`, with the secrets in them:
/// `tungstenite` logs each frame, `zbus` the text for screen readers.
///
/// Applied in addition to the filter of `RUST_LOG`, which cannot override it.
pub fn may_be_logged(record: &Metadata<'_>) -> bool {
    is_allowed(record.target(), *record.level())
}

/// The targets whose `trace` records may be written: our own, and those of webrtc-rs and rtc, which
/// handle no messages of a hub.
const TRACE_TARGETS: [&str; 3] = ["quintet", "rtc", "webrtc"];

fn is_allowed(target: &str, level: Level) -> bool {
    level <= Level::DEBUG || TRACE_TARGETS.iter().any(|traced| target.starts_with(traced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_log_whole_messages_are_limited_to_debug() {
        for target in ["tungstenite::protocol", "tokio_tungstenite", "zbus::connection", "log"] {
            assert!(!is_allowed(target, Level::TRACE), "{target}");
            assert!(is_allowed(target, Level::DEBUG), "{target}");
        }
        for target in ["quintet_base::playback::voice", "rtc_ice", "webrtc"] {
            assert!(is_allowed(target, Level::TRACE), "{target}");
        }
    }
}
