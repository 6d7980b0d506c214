//! Measures the program with two of its own processes: one sends, the other receives.
//!
//! Both run the same engine as the window: source, encoder, fan-out, peer connections, hub. This
//! module starts them, reads their statistics and prints the results.

mod args;
mod fanout;
mod latency;
mod network;
mod network_report;
mod report;
mod sender;
mod viewer_process;
mod viewers;

pub use args::BenchTask;

use std::io;

use report::Report;
use sender::SenderError;

/// Why a measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The sender could not be started.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// The viewers' process could not be started or read.
    #[error("the process of the viewers {what}: {source}")]
    Viewers {
        /// What failed, such as `cannot be started`.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The viewers' process ended early.
    #[error("the process of the viewers ended early; its own messages are above")]
    ViewersEnded,
    /// A viewer received no video.
    #[error("viewer {viewer} of {viewers} received no frame within {seconds} s")]
    NoFrame {
        /// The number of the viewer, from 1.
        viewer: usize,
        /// The number of viewers.
        viewers: usize,
        /// The timeout.
        seconds: u64,
    },
    /// No frame had a readable timecode.
    #[error("no frame had a readable timecode, so the latency is unknown; choose a larger size")]
    NoTimecode,
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Output(io::Error),
}

/// Runs a measurement and prints its result; takes a minute or less with the default options.
///
/// # Errors
/// Fails if there is no result. A bad result is not an error.
pub async fn run(task: &BenchTask) -> Result<(), BenchError> {
    match task {
        BenchTask::Fanout(options) => {
            let report = fanout::measure(options).await?;
            print(&report, options.json)
        }
        BenchTask::Latency(options) => {
            let report = latency::measure(options).await?;
            print(&report, options.json)
        }
        BenchTask::Network(options) => {
            let report = network::measure(options).await?;
            print(&report, options.json)
        }
        BenchTask::View(options) => viewers::run(options).await,
        BenchTask::Receive(options) => viewers::receive(options).await,
    }
}

/// Prints one JSON object, or text.
fn print(report: &impl Report, json: bool) -> Result<(), BenchError> {
    use io::Write as _;
    let text = if json { report.as_json().to_string() } else { report.as_text() };
    writeln!(io::stdout(), "{text}").map_err(BenchError::Output)
}
