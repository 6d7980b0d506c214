//! The program: parses the command line, sets up logs and the runtime, and runs the task.

use std::{io::IsTerminal as _, process::ExitCode};

use clap::Parser as _;
use quintet::{
    cli::{self, Args},
    engine::NOISY_LOGS,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = Args::parse();
    set_up_logs();
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("quintet")
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli::run(args)));
    match result {
        Ok(reason) => reason.into(),
        Err(error) => {
            eprintln!("quintet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs go to standard error; `RUST_LOG` chooses, warnings of ours by default.
fn set_up_logs() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,{}", NOISY_LOGS.join(","))));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    lines.with_writer(std::io::stderr).init();
}
