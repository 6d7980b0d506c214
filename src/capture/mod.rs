//! Turns a device, a file or a pattern into frames.
