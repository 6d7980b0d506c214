//! Jitter buffers, which put packets in sending order: pure arithmetic on sequence numbers and times.

mod audio;
mod sequence;
mod video;

pub(super) use audio::{AudioJitter, Pull};
pub(super) use sequence::Unwrapper;
pub(super) use video::{Step, VideoJitter};
