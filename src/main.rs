//! The program: parses the command line, sets up logs and the runtime, and runs the task.

// The window opens no console; piped output of the headless tasks still arrives.
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

use std::process::ExitCode;

#[cfg(feature = "media")]
use quintet::engine::NOISY_LOGS;
use quintet::{
    cli::{self, Args, Logs},
    process::Output,
};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

fn main() -> ExitCode {
    use_one_heap();
    let args = Args::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    set_up_logs(if args.task.is_none() { LogTo::TerminalAndFile } else { LogTo::Terminal });
    let result = match args.task {
        None => open_window(args),
        Some(task) => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .thread_name("quintet")
            .build()
            .map_err(anyhow::Error::from)
            .and_then(|runtime| runtime.block_on(cli::run(task)))
            .map(ExitCode::from),
    };
    let code = result.unwrap_or_else(|error| {
        Output::stderr().write_line(&format!("quintet: {error:#}"));
        ExitCode::FAILURE
    });
    Output::stdout().finish();
    Output::stderr().finish();
    code
}

/// Libraries that log packets; a hub alone has none.
#[cfg(not(feature = "media"))]
const NOISY_LOGS: [&str; 0] = [];

#[cfg(feature = "window")]
fn open_window(args: Args) -> anyhow::Result<ExitCode> {
    use quintet::ui::{self, WindowOptions};
    let (targets, new_window) = (args.links, args.new_window);
    let (trace, voice) = (args.trace.options(), args.voice.choice());
    let beginning = WindowOptions { targets, new_window, trace, voice };
    ui::run(beginning).map(|()| ExitCode::SUCCESS)
}

/// Says that this program has no window.
#[cfg(not(feature = "window"))]
fn open_window(_: Args) -> anyhow::Result<ExitCode> {
    Output::stderr().write_line(
        "quintet: a window needs the feature `window`, and this program is built without it; \
         `quintet --help` lists what it can do, and `cargo build --release` builds all of it",
    );
    Ok(cli::ExitReason::Usage.into())
}

/// Makes all threads allocate from one heap. By default glibc creates up to eight heaps for each
/// core, and memory that is freed to one heap cannot be used by another: after 2900 participants
/// have come and gone, two heaps keep 16 MiB and one keeps 3. Threads rarely wait for the heap, as
/// each has a cache of small blocks.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the C library's allocator is configured by a call to it")]
fn use_one_heap() {
    // SAFETY: it sets a parameter of the allocator, before there is a second thread.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn use_one_heap() {}

/// Where logs are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LogTo {
    /// Standard error.
    Terminal,
    /// Standard error, and the log file of the window once that is open.
    TerminalAndFile,
}

/// Writes logs to standard error. `RUST_LOG` filters them; without it, only errors are logged, as
/// everything else is reported as events. Libraries that log packets are off unless `RUST_LOG`
/// names them. The log file does not depend on `RUST_LOG`.
fn set_up_logs(to: LogTo) {
    let directives = std::env::var(EnvFilter::DEFAULT_ENV).unwrap_or_else(|_| "error".to_owned());
    let has_file = to == LogTo::TerminalAndFile;
    Logs { directives: &directives, noisy: &NOISY_LOGS, has_file }.subscriber().init();
}
