//! Signals that ask the program to end: Ctrl-C, SIGTERM, and SIGHUP when a terminal is closed.

use std::{future::pending, io, thread, time::Duration};

use tokio::sync::watch;

/// How long an orderly end may take once it was asked for. It usually takes a tenth of a second and
/// is bounded at each step; this is for a step that hangs against all expectation.
const LONGEST_END: Duration = Duration::from_secs(20);

/// The signals that ask for an orderly end. Ctrl-\ (SIGQUIT) is left alone: it ends a program that
/// listens to nothing else.
#[cfg(unix)]
const ENDING: [i32; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Whoever presses Ctrl-C again after this wants the end at once. A terminal and a shell may both
/// pass one Ctrl-C on, and that makes two within a few milliseconds.
#[cfg(unix)]
const AGAIN: Duration = Duration::from_millis(300);

/// Tells whether the program was asked to end. Clones tell the same.
#[derive(Clone, Debug)]
pub struct Signals(watch::Receiver<bool>);

impl Signals {
    /// From now on signals are heard instead of ending the process, on a thread of their own.
    ///
    /// A signal that was ignored when the program was started stays ignored: `nohup` does that with
    /// SIGHUP, and a shell with SIGINT for what it runs in the background. A second Ctrl-C ends the
    /// process at once, and so does an orderly end that takes 20 s.
    ///
    /// # Errors
    /// If the system gives no thread, or no handler can be set.
    pub fn listen() -> io::Result<Self> {
        let (sender, receiver) = watch::channel(false);
        listen(sender)?;
        Ok(Self(receiver))
    }

    /// Returns once the program was asked to end; never before.
    pub async fn asked(&mut self) {
        if self.0.wait_for(|asked| *asked).await.is_err() {
            pending::<()>().await;
        }
    }
}

#[cfg(unix)]
fn listen(asked: watch::Sender<bool>) -> io::Result<()> {
    use std::time::Instant;

    let heard = ENDING.into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    let listen = move || {
        let mut first = None;
        for signal in signals.forever() {
            let since = first.get_or_insert_with(Instant::now).elapsed();
            if ends_at_once(signal, since) {
                exit_now(128 + signal);
            }
            if !asked.send_replace(true) {
                end_at_last(128 + signal);
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(listen).map(drop)
}

/// Whether a signal that comes so long after the first one is a second Ctrl-C. Only Ctrl-C counts:
/// who closes a terminal or logs out sends SIGTERM and SIGHUP together, and means one end.
#[cfg(unix)]
fn ends_at_once(signal: i32, since_first: Duration) -> bool {
    signal == libc::SIGINT && since_first >= AGAIN
}

/// Whether a signal is ignored, as whoever started the program wanted.
#[cfg(unix)]
#[expect(unsafe_code, reason = "only the C library tells how a signal is handled")]
fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zero is a valid `sigaction`; with a null pointer as the second argument nothing is
    // changed, and the third points to a value that lives long enough.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0
            && now.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(windows)]
fn listen(asked: watch::Sender<bool>) -> io::Result<()> {
    use tokio::signal::windows;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listen = async move {
        let (Ok(mut key), Ok(mut pause), Ok(mut close), Ok(mut shutdown)) = (
            windows::ctrl_c(),
            windows::ctrl_break(),
            windows::ctrl_close(),
            windows::ctrl_shutdown(),
        ) else {
            return tracing::warn!("Ctrl-C cannot be heard");
        };
        loop {
            tokio::select! {
                _ = key.recv() => {}
                _ = pause.recv() => {}
                _ = close.recv() => {}
                _ = shutdown.recv() => {}
            }
            if asked.send_replace(true) {
                exit_now(130);
            }
            end_at_last(130);
        }
    };
    let listen = move || runtime.block_on(listen);
    thread::Builder::new().name("signals".into()).spawn(listen).map(drop)
}

/// Ends the process with that code if it has not ended long after it was asked to.
fn end_at_last(code: i32) {
    let end = move || {
        thread::sleep(LONGEST_END);
        exit_now(code);
    };
    // Without a thread left there is a second Ctrl-C.
    let _ = thread::Builder::new().name("last end".into()).spawn(end);
}

/// Ends the process with that code and nothing else: no library is asked to clear up, so nothing can
/// hang.
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
    fn only_a_second_ctrl_c_ends_at_once_and_not_one_that_was_passed_on_twice() {
        let later = Duration::from_secs(1);
        assert!(ends_at_once(libc::SIGINT, later));
        assert!(!ends_at_once(libc::SIGINT, Duration::from_millis(5)));
        assert!(!ends_at_once(libc::SIGHUP, later) && !ends_at_once(libc::SIGTERM, later));
    }

    #[test]
    fn the_runtime_ignores_sigpipe_and_that_is_seen() {
        assert!(is_ignored(libc::SIGPIPE));
        assert!(!is_ignored(libc::SIGUSR2));
    }
}
