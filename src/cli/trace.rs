//! The options of `--trace`, and the task `trace`.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Subcommand;

use crate::{
    engine::{Replayed, TraceOptions, replay},
    process::Output,
};

/// The options of a trace.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// Write every input, decision and timer to a file, one JSON object per line; `quintet trace
    /// replay FILE` checks it. It contains names, addresses and session ids, but no password, key
    /// or chat text. Only you can read it.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write the text of chat messages to the trace, too.
    #[arg(long, requires = "trace")]
    trace_chat: bool,
}

impl TraceArgs {
    /// Returns the options of the trace, if there is to be one.
    pub fn options(&self) -> Option<TraceOptions> {
        let path = self.trace.clone()?;
        Some(TraceOptions { path, with_chat: self.trace_chat })
    }
}

/// The task with a trace.
#[derive(Subcommand, Debug)]
pub enum TraceTask {
    /// Repeat the run of a trace: feed its inputs and timers to the decisions of this program, and
    /// report the first one that differs.
    Replay {
        /// The file that `--trace` wrote.
        file: PathBuf,
    },
}

/// Carries out the task. Blocks while it reads the file.
///
/// # Errors
/// If the trace cannot be read, or the replay differs.
pub(super) fn run(task: &TraceTask) -> anyhow::Result<()> {
    let TraceTask::Replay { file } = task;
    let name = file.display();
    let trace = fs::read_to_string(file).with_context(|| format!("cannot read {name}"))?;
    let Replayed { inputs, timers, effects, is_cut } =
        replay(&trace).with_context(|| name.to_string())?;
    let end = if is_cut { "; the last line is incomplete" } else { "" };
    Output::stdout().write_line(&format!(
        "no difference in {inputs} inputs, {timers} timers and {effects} effects{end}"
    ));
    Ok(())
}
