//! Work that is done ten times a second.

use std::time::Duration;

use tokio::{
    sync::Notify,
    time::{MissedTickBehavior, interval},
};

/// The time between two ticks.
const INTERVAL: Duration = Duration::from_millis(100);

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
