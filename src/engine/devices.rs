//! Lists of the devices of this machine. Each call asks the system and may take two seconds: never
//! call these on the window's thread, nor on a runtime thread that other tasks need.

use crate::{capture, devices::Device, playback};

/// Returns the cameras, first the one that `default` tries first. Blocks.
pub fn cameras() -> Vec<Device> {
    capture::cameras()
}

/// Returns the microphones, the default one first. Blocks.
pub fn microphones() -> Vec<Device> {
    capture::microphones()
}

/// Returns the speakers, the default one first. Blocks.
pub fn speakers() -> Vec<Device> {
    playback::speakers()
}
