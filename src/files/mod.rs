//! Files that people name.

mod name;

pub use name::{expand_home, path_in};
