//! The logs of the program.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt as _,
};

use crate::process::{LogFile, Output, may_be_logged};

/// What the program logs, and where.
#[derive(Clone, Copy, Debug)]
pub struct Logs<'a> {
    /// What standard error gets, as `RUST_LOG` says it.
    pub directives: &'a str,
    /// Directives for libraries that log packets. `directives` may name these libraries again.
    pub noisy: &'a [&'a str],
    /// Whether the log file of the window gets logs, too, once it is open. It does not depend on
    /// `directives`.
    pub has_file: bool,
}

impl Logs<'_> {
    /// What writes the logs.
    ///
    /// It tells the most detailed level that anything is written of. Without that, `tracing` and `log` would ask the
    /// filters for each record of a packet that a library offers.
    pub fn subscriber(self) -> impl Subscriber + Send + Sync {
        let noisy = self.noisy.join(",");
        let quiet = format!("{noisy},pulseaudio=off,rustls_platform_verifier=off");
        let filter = EnvFilter::new(format!("{quiet},{}", self.directives));
        let file_filter =
            self.has_file.then(|| EnvFilter::new(format!("warn,quintet=info,{quiet}")));
        let filters = [Some(&filter), file_filter.as_ref()];
        let levels = filters
            .into_iter()
            .flatten()
            .map(|one| one.max_level_hint().unwrap_or(LevelFilter::TRACE));
        let most = levels.max().unwrap_or(LevelFilter::OFF);
        let colours = std::io::stderr().is_terminal();
        let lines = fmt::layer().with_ansi(colours).with_writer(|| Output::stderr().clone());
        let file = file_filter.map(|filter| {
            fmt::layer().with_ansi(false).with_writer(LogFile::default).with_filter(filter)
        });
        let logs = tracing_subscriber::registry().with(lines.with_filter(filter)).with(file);
        // Libraries that log whole messages at `trace` are limited, whatever the directives say.
        logs.with(filter_fn(may_be_logged).with_max_level_hint(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_nobody_writes_are_off_for_the_whole_program() {
        let level = |directives, has_file| {
            Logs { directives, noisy: &["webrtc=off", "rtc=off"], has_file }
                .subscriber()
                .max_level_hint()
        };
        assert_eq!(level("error", false), Some(LevelFilter::ERROR));
        assert_eq!(level("error", true), Some(LevelFilter::INFO));
        assert_eq!(level("quintet=debug", false), Some(LevelFilter::DEBUG));
        assert_eq!(level("quintet=debug", true), Some(LevelFilter::DEBUG));
        assert_eq!(level("error,rtc_ice=trace", false), Some(LevelFilter::TRACE));
    }
}
