//! Quintet: one camera and one microphone, captured once, encoded once, live in many sessions.
//!
//! `ARCHITECTURE.md` describes the modules. Imports point down: `cli` → `engine` → the adapters
//! → `media` → `model`; `tests/integration/architecture.rs` checks this.
//!
//! Without the features `window` and `media` it is a hub alone (`quintet serve`).

#[cfg(feature = "media")]
pub use quintet_base::{
    audio, bandwidth, capture, devices, encode, files, media, playback, transport,
};
pub use quintet_base::{model, network, process, signalling, supervision};

#[cfg(feature = "media")]
pub mod bench;
pub mod cli;
pub mod conference;
#[cfg(feature = "media")]
pub mod engine;
#[cfg(feature = "window")]
pub mod ui;
pub mod wording;

/// Runs the saved inputs of the fuzz targets as a regression test.
#[cfg(all(test, feature = "window"))]
#[test]
fn no_saved_input_of_a_fuzz_target_panics() {
    quintet_base::saved_inputs::run(&[
        ("hub-words", crate::conference::fuzz::hub_words),
        ("settings", crate::ui::fuzz::settings),
        ("words", crate::cli::fuzz::words),
    ]);
}
