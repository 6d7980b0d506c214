//! Unit tests that drive the whole core, and the fixture of all unit tests.

pub(super) mod fixture;
mod mute_switches;
mod priority;
