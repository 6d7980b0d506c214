//! Measures the program with the program: one process sends as people send, another receives.
//!
//! Both run the engine that the window runs: source, encoder, fan-out, connections, hub. What is
//! added here starts them, asks for their figures and prints them.

mod args;
mod audience;
mod fanout;
mod figures;
mod latency;
mod stage;
mod viewers;

pub use args::BenchTask;

use std::io;

use figures::Report;
use stage::StageError;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The sender could not be brought up.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The other process could not be started or spoken with.
    #[error("the process of the viewers {what}: {source}")]
    Viewers {
        /// What it could not.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The other process gave up.
    #[error("the process of the viewers ended early; its own words are above")]
    Gone,
    /// A viewer saw nothing.
    #[error("viewer {viewer} of {viewers} saw no picture within {seconds} s")]
    Blind {
        /// Which, from 1.
        viewer: usize,
        /// Of how many.
        viewers: usize,
        /// After how long.
        seconds: u64,
    },
    /// No picture bore a time.
    #[error("no picture bore a readable strip, so there is no latency to tell")]
    NoStrip,
    /// Standard output is gone.
    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
}

/// Measures what was asked for and prints it; a minute or less at the defaults.
///
/// # Errors
/// [`BenchError`] if there is nothing to print: a figure that disappoints is no error.
pub async fn run(task: &BenchTask) -> Result<(), BenchError> {
    match task {
        BenchTask::Fanout(options) => {
            let figures = fanout::measure(options).await?;
            print(&figures, options.json)
        }
        BenchTask::Latency(options) => {
            let figures = latency::measure(options).await?;
            print(&figures, options.json)
        }
        BenchTask::View(options) => viewers::run(options).await,
    }
}

/// Prints one JSON object, or lines for people.
fn print(figures: &impl Report, json: bool) -> Result<(), BenchError> {
    use io::Write as _;
    let text = if json { figures.as_json().to_string() } else { figures.in_words() };
    writeln!(io::stdout(), "{text}").map_err(BenchError::Output)
}
