//! One connection per peer; the only module that names the `webrtc` crates.
