//! The program: parses the command line, sets up logs and the runtime, and runs the task.

// A window brings no console with it; what is piped from the headless tasks still arrives.
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

use std::{io::IsTerminal as _, process::ExitCode};

use quintet::{
    cli::{self, Args},
    engine::NOISY_LOGS,
    process::{Output, may_be_logged},
    ui::{self, Beginning},
};
use tracing_subscriber::{
    EnvFilter, filter::filter_fn, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

fn main() -> ExitCode {
    share_memory();
    let args = Args::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    set_up_logs();
    let result = match args.task {
        None => {
            let beginning = Beginning { targets: args.links, is_separate: args.new_window };
            ui::run(beginning).map(|()| ExitCode::SUCCESS)
        }
        Some(task) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("quintet")
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(cli::run(task)))
            .map(ExitCode::from),
    };
    let code = result.unwrap_or_else(|error| {
        Output::stderr().line(&format!("quintet: {error:#}"));
        ExitCode::FAILURE
    });
    Output::stdout().finish();
    Output::stderr().finish();
    code
}

/// Has all threads take memory from one heap. Glibc gives each thread one, up to eight for each
/// core, and what is given back to one is of no use to another: of 2900 people who came and went,
/// two heaps kept 16 MiB and one keeps 3. Threads rarely wait for it: small pieces they keep at
/// hand.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's allocator is set up by a call into it")]
fn share_memory() {
    // SAFETY: it changes a number of the allocator's, before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn share_memory() {}

/// Logs go to standard error. `RUST_LOG` chooses; without it only what costs a person something,
/// since all else is told as an event. The libraries that log packets speak only if named.
fn set_up_logs() {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| "error".to_owned());
    let noisy = NOISY_LOGS.join(",");
    let quiet = format!("{noisy},pulseaudio=off,rustls_platform_verifier=off");
    let filter = EnvFilter::new(format!("{quiet},{wanted}"));
    let colours = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_ansi(colours).with_writer(|| Output::stderr().clone());
    // A library that writes whole messages at `trace` does not do so for any wish.
    let logs = tracing_subscriber::registry().with(lines).with(filter);
    logs.with(filter_fn(may_be_logged)).init();
}
