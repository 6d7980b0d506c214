//! Links, ids, kinds, devices and everything else that is typed, made up by a fuzzer
//! (`tests/fuzz`).

use super::args::Args;

/// Reads a command line, a word a line.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = Args::read(std::iter::once("quintet").chain(text.lines()));
}
