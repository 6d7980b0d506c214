//! Turns a panic in a thread or a task into a value that its owner handles.
//!
//! Whoever starts a thread or a task knows what its end means to the user, so the owner decides
//! what happens after a panic: it restarts the work, replaces the connection, or tells the user.
//! The panic itself is logged here, once.

use std::{any::Any, future::Future, panic, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;

#[cfg(not(any(panic = "unwind", fuzzing)))]
compile_error!("supervised threads and tasks need panics that unwind: set panic = \"unwind\"");

/// How long after a panic supervised work starts again. A fault that lasts then costs little. The
/// unit tests do not wait for it.
pub const RESTART_DELAY: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 2000 });

/// A thread or task that panicked. The text is the beginning of a sentence for the user; the
/// message of the panic is in [`Self::message`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the {name} stopped unexpectedly")]
pub struct Panicked {
    /// What panicked, such as `video encoder`.
    pub name: String,
    /// The message of the panic, in one line.
    pub message: String,
}

impl Panicked {
    /// Logs a panic and returns it as a value.
    fn log(name: &str, panic: &(dyn Any + Send)) -> Self {
        let message = panic_message(panic);
        tracing::error!(task = name, message, "stopped unexpectedly");
        Self { name: name.to_owned(), message }
    }
}

/// Runs `work` on this thread.
///
/// # Errors
/// If it panics. What it has borrowed may then be half changed: replace it.
pub fn catch<T>(name: &str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| Panicked::log(name, &*panic))
}

/// Runs a future. It is dropped before this returns.
///
/// # Errors
/// If it panics. What it has borrowed may then be half changed: replace it.
pub async fn catch_async<T>(name: &str, work: impl Future<Output = T>) -> Result<T, Panicked> {
    let result = AssertUnwindSafe(work).catch_unwind().await;
    result.map_err(|panic| Panicked::log(name, &*panic))
}

/// The message of a panic, in one line.
pub fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a library failed").lines().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_message_is_one_line() {
        let message = |work: fn()| catch("test", work).unwrap_err().message;
        assert_eq!(message(|| panic!("no\nscreen")), "no screen");
        let number = 7;
        assert_eq!(panic_message(&format!("screen {number}")), "screen 7");
        assert_eq!(panic_message(&number), "a library failed");
    }

    #[tokio::test]
    async fn a_future_that_panics_is_dropped_and_named() {
        let (alive, mut dropped) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            let _alive = alive;
            tokio::task::yield_now().await;
            panic!("index out of bounds");
        };
        let panicked = catch_async::<()>("audio mixer", work).await.unwrap_err();
        assert_eq!(panicked.to_string(), "the audio mixer stopped unexpectedly");
        assert_eq!(panicked.message, "index out of bounds");
        assert!(
            dropped
                .try_recv()
                .is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Closed)
        );
    }
}
