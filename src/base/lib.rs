//! What the calls of Quintet are made of: media, devices, peer connections, signalling and the hub.
//! It knows no calls; those are in the crate `quintet`.
//!
//! Without the features `window` and `media` it is what a hub alone needs.

#[cfg(feature = "media")]
pub mod audio;
#[cfg(feature = "media")]
pub mod bandwidth;
#[cfg(feature = "media")]
pub mod capture;
#[cfg(feature = "media")]
pub mod devices;
#[cfg(feature = "media")]
pub mod encode;
#[cfg(feature = "media")]
pub mod files;
#[cfg(feature = "media")]
pub mod media;
pub mod model;
pub mod network;
#[cfg(feature = "media")]
pub mod playback;
pub mod process;
#[cfg(any(feature = "testing", test))]
pub mod saved_inputs;
pub mod signalling;
pub mod supervision;
#[cfg(feature = "media")]
pub mod transport;

/// Runs the saved inputs of the fuzz targets as a regression test.
#[cfg(all(test, feature = "media"))]
#[test]
fn no_saved_input_of_a_fuzz_target_panics() {
    saved_inputs::run(&[
        ("audio", crate::playback::fuzz::audio),
        ("chat", crate::model::fuzz::chat),
        ("client", crate::signalling::fuzz::client),
        ("description", crate::transport::fuzz::description),
        ("pixels", crate::capture::fuzz::pixels),
        ("remote", crate::transport::fuzz::remote),
        ("request", crate::signalling::fuzz::request),
        ("rooms", crate::signalling::fuzz::rooms),
        ("red", crate::transport::fuzz::red),
        ("rtcp", crate::transport::fuzz::rtcp),
        ("rtx", crate::transport::fuzz::rtx),
        ("sctp", crate::transport::fuzz::sctp),
        ("video", crate::playback::fuzz::video),
        ("wav", crate::capture::fuzz::wav),
        ("y4m", crate::capture::fuzz::y4m),
    ]);
}
