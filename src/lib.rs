//! Quintet: one camera and one microphone, captured once, encoded once, live in many sessions.
//!
//! `ARCHITECTURE.md` describes the modules. Imports point down: `cli` → `engine` → the adapters
//! → `media` → `model`; `tests/integration/architecture.rs` checks this.
//!
//! Without the features `window` and `media` it is a hub alone (`quintet serve`).

#[cfg(feature = "media")]
pub mod audio;
#[cfg(feature = "media")]
pub mod bandwidth;
#[cfg(feature = "media")]
pub mod bench;
#[cfg(feature = "media")]
pub mod capture;
pub mod cli;
pub mod conference;
#[cfg(feature = "media")]
pub mod devices;
#[cfg(feature = "media")]
pub mod encode;
#[cfg(feature = "media")]
pub mod engine;
#[cfg(feature = "media")]
pub mod files;
#[cfg(feature = "media")]
pub mod media;
pub mod model;
pub mod network;
#[cfg(feature = "media")]
pub mod playback;
pub mod process;
pub mod signalling;
pub mod supervision;
#[cfg(feature = "media")]
pub mod transport;
#[cfg(feature = "window")]
pub mod ui;
pub mod wording;

/// Runs the saved inputs of the fuzz targets as a regression test.
#[cfg(all(test, feature = "window"))]
mod fuzz_cases {
    use std::{fs, path::Path};

    /// A fuzz target: it takes the fuzzer's bytes.
    type Target = fn(&[u8]);

    /// The targets of `tests/fuzz`, each with the name of its folder of cases.
    const TARGETS: [(&str, Target); 18] = [
        ("audio", crate::playback::fuzz::audio),
        ("chat", crate::model::fuzz::chat),
        ("client", crate::signalling::fuzz::client),
        ("description", crate::transport::fuzz::description),
        ("hub-words", crate::conference::fuzz::hub_words),
        ("pixels", crate::capture::fuzz::pixels),
        ("remote", crate::transport::fuzz::remote),
        ("request", crate::signalling::fuzz::request),
        ("rooms", crate::signalling::fuzz::rooms),
        ("red", crate::transport::fuzz::red),
        ("rtcp", crate::transport::fuzz::rtcp),
        ("rtx", crate::transport::fuzz::rtx),
        ("sctp", crate::transport::fuzz::sctp),
        ("settings", crate::ui::fuzz::settings),
        ("video", crate::playback::fuzz::video),
        ("wav", crate::capture::fuzz::wav),
        ("words", crate::cli::fuzz::words),
        ("y4m", crate::capture::fuzz::y4m),
    ];

    #[test]
    fn no_saved_case_panics() {
        for (target, run) in TARGETS {
            let folder = Path::new("tests/fuzz/cases").join(target);
            let cases: Vec<_> = fs::read_dir(&folder).expect("a folder of cases").collect();
            assert!(!cases.is_empty(), "{target} has no case");
            for case in cases {
                let path = case.expect("a case").path();
                eprintln!("{}", path.display());
                run(&fs::read(path).expect("a readable case"));
            }
        }
    }
}
