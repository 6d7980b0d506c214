//! Which devices there are. Each question goes to the system and may take two seconds: never ask
//! on a window's thread, nor on one of the runtime's that others need.

use crate::{capture, playback};

/// The names of the cameras, the one that `default` tries first at the head. Blocks.
pub fn cameras() -> Vec<String> {
    capture::cameras()
}

/// The names of the microphones, the default one first and marked `(default)`. Blocks.
pub fn microphones() -> Vec<String> {
    capture::microphones()
}

/// The names of the speakers, the default one first and marked `(default)`. Blocks.
pub fn speakers() -> Vec<String> {
    playback::speakers()
}
