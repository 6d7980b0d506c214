//! Measures the descriptors, threads and memory of a process.

use std::fs;

/// The resources that a process holds (Linux only).
#[derive(Clone, Copy, Debug)]
pub(crate) struct ResourceUsage {
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
    pub(crate) resident_kib: usize,
    /// The highest resident memory so far.
    pub(crate) peak_kib: usize,
}

impl ResourceUsage {
    /// The resources of this process.
    pub(crate) fn of_this_process() -> Self {
        Self::of_process(std::process::id())
    }

    /// The names of the threads of the process with this id, as far as the system keeps them.
    pub(crate) fn thread_names(process: u32) -> Vec<String> {
        let threads = fs::read_dir(format!("/proc/{process}/task")).expect("Linux has this folder");
        let name = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("comm")).ok();
        let names = threads.filter_map(|thread| name(thread.ok()?));
        names.map(|name| name.trim().to_owned()).collect()
    }

    /// The resources of the process with this id.
    pub(crate) fn of_process(process: u32) -> Self {
        let path = |name: &str| format!("/proc/{process}/{name}");
        let status = fs::read_to_string(path("status")).expect("Linux has this file");
        let kib = |name| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let number = value.and_then(|value| value.split_whitespace().next()).map(str::parse);
            number.and_then(Result::ok).expect("a number")
        };
        let count = |name| fs::read_dir(path(name)).expect("Linux has this folder").count();
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            resident_kib: kib("VmRSS:"),
            peak_kib: kib("VmHWM:"),
        }
    }
}
