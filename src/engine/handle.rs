//! What the window and the command line hold of a running engine.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::model::{Command, Snapshot, Stats};

/// A running engine, seen from outside. Dropping it stops the engine without farewell;
/// [`Handle::close`] leaves every session first.
#[derive(Debug)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
}

/// What a handle asks of its engine.
#[derive(Debug)]
pub(super) enum Request {
    /// Do what a person wants.
    Command(Command),
    /// Tell the figures.
    Stats(oneshot::Sender<Stats>),
    /// Leave every session, tell the figures and end.
    Close(oneshot::Sender<Stats>),
}

impl Handle {
    /// Hands a command over; waits only while 64 others are waiting.
    pub async fn send(&self, command: Command) {
        if self.requests.send(Request::Command(command)).await.is_err() {
            tracing::error!("the engine has ended, a command is lost");
        }
    }

    /// How everything is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// The figures so far, without those of participants who left; `None` if the engine has ended.
    pub async fn stats(&self) -> Option<Stats> {
        let (reply, stats) = oneshot::channel();
        self.requests.send(Request::Stats(reply)).await.ok()?;
        stats.await.ok()
    }

    /// Leaves every session properly, ends the engine, and returns its last figures.
    pub async fn close(self) -> Stats {
        let (reply, stats) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_err() {
            return Stats::default();
        }
        stats.await.unwrap_or_default()
    }
}
