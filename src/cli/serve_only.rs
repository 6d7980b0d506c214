//! The command line of a program that is built without the feature `media`: a hub alone.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use super::{
    exit_reason::ExitReason,
    serve::{self, ServeOptions},
};
use crate::process::Output;

/// A hub for Quintet programs. This program is built without audio, video and a window.
#[derive(Parser, Debug)]
#[command(version, about)]
pub struct Args {
    /// The task; there is none if the window is asked for.
    #[command(subcommand)]
    pub task: Option<Task>,
}

/// The task of a command line.
#[derive(Subcommand, Debug)]
pub enum Task {
    /// Run a hub alone, until Ctrl-C.
    Serve(ServeOptions),
    /// A command of other builds, or a mistyped one.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl Args {
    /// Parses a command line; the first argument is the program's name.
    ///
    /// # Errors
    /// Returns what is wrong with it, or the help that it asks for: [`clap::Error::exit`] prints
    /// both.
    pub fn read<I>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item: Into<OsString> + Clone>,
    {
        Self::try_parse_from(arguments)
    }
}

/// Carries out a task. Returns when it is done, when the time is up, or on Ctrl-C, SIGTERM or
/// SIGHUP. Its output may not be written yet: see [`Output::finish`].
///
/// # Errors
/// Fails for errors that cannot be reported as events.
pub async fn run(task: Task) -> anyhow::Result<ExitReason> {
    match task {
        Task::Serve(options) => serve::run(&options).await,
        Task::Other(words) => {
            let command = words.first().map(|word| word.to_string_lossy()).unwrap_or_default();
            Output::stderr().write_line(&format!(
                "quintet: {command:?} needs the feature `media`, and this program is built without \
                 it: it can only `serve`; `cargo build --release` builds all of it"
            ));
            Ok(ExitReason::Usage)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_that_is_not_built_in_is_a_wrong_command_line() {
        for line in ["quintet open --five", "quintet join http://one/s/a", "quintet devices"] {
            let task = Args::read(line.split_whitespace()).unwrap().task.unwrap();
            assert!(matches!(task, Task::Other(_)), "{line}");
            assert_eq!(run(task).await.unwrap(), ExitReason::Usage, "{line}");
        }
        assert!(Args::read(["quintet", "serve", "--fr", "1s"]).is_err());
    }
}
