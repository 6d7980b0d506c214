//! Which devices there are. Each question goes to the system and may take two seconds: never ask
//! on a window's thread, nor on one of the runtime's that others need.

use crate::{capture, media::Device, playback};

/// The cameras, the one that `default` tries first at the head. Blocks.
pub fn cameras() -> Vec<Device> {
    capture::cameras()
}

/// The microphones, the default one first. Blocks.
pub fn microphones() -> Vec<Device> {
    capture::microphones()
}

/// The speakers, the default one first. Blocks.
pub fn speakers() -> Vec<Device> {
    playback::speakers()
}
