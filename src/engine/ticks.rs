//! Work that is done ten times a second.

use std::time::Duration;

use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

/// The time between two ticks.
const INTERVAL: Duration = Duration::from_millis(100);

/// A task that is started once and ends when this is dropped.
#[derive(Debug, Default)]
pub(super) struct OwnedTask(Option<AbortHandle>);

impl OwnedTask {
    /// Spawns the task, unless that was done before.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub(super) fn start_once<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        task: impl FnOnce() -> F,
    ) {
        self.0.get_or_insert_with(|| tokio::spawn(task()).abort_handle());
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

/// Calls `tick` ten times a second on the calling task. While `is_idle`, it sleeps until `wake` is
/// notified. It never returns.
pub(super) async fn tick_unless_idle(
    wake: &Notify,
    is_idle: impl Fn() -> bool,
    mut tick: impl FnMut(),
) {
    let mut clock = interval(INTERVAL);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if is_idle() {
            wake.notified().await;
        }
        clock.tick().await;
        tick();
    }
}
