//! Jitter buffers, which restore the sending order. Pure arithmetic on sequence numbers and times.

mod audio;
mod repair_span;
mod sequence;
mod target;
mod video;

pub(super) use audio::{AudioJitterBuffer, Pull};
pub(super) use sequence::Unwrapper;
pub(super) use video::{JitterOutput, VideoJitterBuffer};
