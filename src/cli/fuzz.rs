//! Fuzz target for the command line (`tests/fuzz`): links, ids, kinds, devices and other option
//! values.

use super::args::Args;

/// Parses a command line that has one argument per line.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = Args::read(std::iter::once("quintet").chain(text.lines()));
}
