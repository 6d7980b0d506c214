//! What a program holds of the system.

use std::fs;

/// What a program holds (Linux only).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    pub(crate) resident_kib: usize,
    /// The most that was ever resident.
    pub(crate) peak_kib: usize,
}

impl Held {
    /// By this program.
    pub(crate) fn now() -> Self {
        Self::by(std::process::id())
    }

    /// By the program of that id.
    pub(crate) fn by(process: u32) -> Self {
        let of = |name: &str| format!("/proc/{process}/{name}");
        let status = fs::read_to_string(of("status")).expect("Linux has it");
        let kib = |name| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name));
            let number = rest.and_then(|rest| rest.split_whitespace().next()).map(str::parse);
            number.and_then(Result::ok).expect("a number")
        };
        let count = |name| fs::read_dir(of(name)).expect("Linux has it").count();
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            resident_kib: kib("VmRSS:"),
            peak_kib: kib("VmHWM:"),
        }
    }
}
