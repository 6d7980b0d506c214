//! The exit codes of the program.

use std::process::ExitCode;

/// The result of a run, and its exit code. If several apply, the greatest one counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExitReason {
    /// The task was carried out.
    Done = 0,
    /// The command line is wrong.
    Usage = 2,
    /// The hub cannot be reached.
    HubUnreachable = 3,
    /// A session was refused.
    Refused = 4,
    /// We were ejected from a session, or replaced in it.
    Ended = 5,
    /// A session was not open yet at the end.
    StillWaiting = 6,
    /// A device or file could not be used.
    Device = 7,
    /// A session was joined, and no participant in it was ever connected.
    NeverConnected = 8,
}

impl From<ExitReason> for ExitCode {
    fn from(reason: ExitReason) -> Self {
        Self::from(reason as u8)
    }
}
