//! The program: parses the command line, sets up logs and the runtime, and runs the task.

// A window brings no console with it; what is piped from the headless tasks still arrives.
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

use std::process::ExitCode;

use clap::Parser as _;
use quintet::{
    cli::{self, Args},
    engine::NOISY_LOGS,
    ui,
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = Args::parse();
    set_up_logs();
    let Some(task) = args.task else { return window() };
    let result = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("quintet")
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli::run(task)));
    match result {
        Ok(reason) => reason.into(),
        Err(error) => failure(&error),
    }
}

/// Opens the window; returns when it was closed.
fn window() -> ExitCode {
    match ui::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn failure(error: &anyhow::Error) -> ExitCode {
    eprintln!("quintet: {error:#}");
    ExitCode::FAILURE
}

/// Logs go to standard error; `RUST_LOG` chooses, warnings of ours by default.
fn set_up_logs() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,{}", NOISY_LOGS.join(","))));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
