//! Signals that ask the program to end: Ctrl-C, SIGTERM, and SIGHUP when a terminal is closed.

use std::{future::pending, io, thread, time::Duration};

use tokio::sync::watch;

/// How long an orderly shutdown may take. It usually takes a tenth of a second, and each step has
/// its own timeout; this one is for a step that hangs unexpectedly.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);

/// The signals that request an orderly shutdown. Ctrl-\ (SIGQUIT) keeps its default action: it ends
/// a program that reacts to nothing else.
#[cfg(unix)]
const SHUTDOWN_SIGNALS: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// A further Ctrl-C later than this after the first signal ends the process at once. An earlier one
/// may be the same Ctrl-C: a terminal and a shell may both forward it, within a few milliseconds.
#[cfg(unix)]
const SECOND_PRESS_AFTER: Duration = Duration::from_millis(300);

/// Reports whether a signal has asked the program to end. Clones report the same.
#[derive(Clone, Debug)]
pub struct Signals(watch::Receiver<bool>);

impl Signals {
    /// Starts to handle signals on its own thread, instead of letting them end the process.
    ///
    /// A signal that was ignored when the program was started stays ignored: `nohup` ignores
    /// SIGHUP, and a shell ignores SIGINT for programs in the background. A second Ctrl-C ends the
    /// process at once. So does an orderly shutdown that takes 20 s.
    ///
    /// # Errors
    /// Fails if the system gives no thread, or if no handler can be set.
    pub fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(false);
        listen(sender)?;
        Ok(Self(receiver))
    }

    /// Returns once a signal has asked the program to end.
    pub async fn shutdown_requested(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            pending::<()>().await;
        }
    }
}

#[cfg(unix)]
fn listen(requested: watch::Sender<bool>) -> io::Result<()> {
    use std::time::Instant;

    let handled = SHUTDOWN_SIGNALS.into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = signal_hook::iterator::Signals::new(handled)?;
    let listen = move || {
        let mut first = None;
        for signal in signals.forever() {
            let since = first.get_or_insert_with(Instant::now).elapsed();
            if exits_at_once(signal, since) {
                exit_now(128 + signal);
            }
            if !requested.send_replace(true) {
                exit_after_timeout(128 + signal);
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(listen).map(drop)
}

/// Returns whether a signal at that time after the first one is a second Ctrl-C. Only SIGINT
/// counts: closing a terminal or logging out sends SIGTERM and SIGHUP together, as one request.
#[cfg(unix)]
fn exits_at_once(signal: i32, since_first: Duration) -> bool {
    signal == libc::SIGINT && since_first >= SECOND_PRESS_AFTER
}

/// Returns whether a signal is ignored, as set by the process that started the program.
#[cfg(unix)]
#[expect(unsafe_code, reason = "only the C library reports how a signal is handled")]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zero is a valid `sigaction`; with a null pointer as the second argument nothing
    // is changed, and the third points to a value that lives long enough.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(windows)]
fn listen(requested: watch::Sender<bool>) -> io::Result<()> {
    use tokio::signal::windows;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listen = async move {
        let (Ok(mut key), Ok(mut pause), Ok(mut close), Ok(mut shutdown)) = (
            windows::ctrl_c(),
            windows::ctrl_break(),
            windows::ctrl_close(),
            windows::ctrl_shutdown(),
        ) else {
            return tracing::warn!("Ctrl-C cannot be handled");
        };
        loop {
            tokio::select! {
                _ = key.recv() => {}
                _ = pause.recv() => {}
                _ = close.recv() => {}
                _ = shutdown.recv() => {}
            }
            if requested.send_replace(true) {
                exit_now(130);
            }
            exit_after_timeout(130);
        }
    };
    let listen = move || runtime.block_on(listen);
    thread::Builder::new().name("signals".into()).spawn(listen).map(drop)
}

/// Ends the process with that exit code if the orderly shutdown takes too long.
fn exit_after_timeout(code: i32) {
    let end = move || {
        thread::sleep(SHUTDOWN_TIMEOUT);
        exit_now(code);
    };
    // If the system gives no thread, the user can still press Ctrl-C again.
    let _ = thread::Builder::new().name("exit timeout".into()).spawn(end);
}

/// Ends the process with that exit code at once. No exit handlers run, so nothing can hang.
pub fn exit_now(code: i32) -> ! {
    #[cfg(unix)]
    signal_hook::low_level::exit(code);
    #[cfg(not(unix))]
    std::process::exit(code);
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_second_ctrl_c_ends_at_once_and_not_one_that_was_forwarded_twice() {
        let later = Duration::from_secs(1);
        assert!(exits_at_once(libc::SIGINT, later));
        assert!(!exits_at_once(libc::SIGINT, Duration::from_millis(5)));
        assert!(!exits_at_once(libc::SIGHUP, later) && !exits_at_once(libc::SIGTERM, later));
    }

    #[test]
    fn a_signal_that_the_runtime_ignores_is_detected() {
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR2));
    }
}
