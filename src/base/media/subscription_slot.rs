//! Hands subscriptions to the task that consumes them.

use tokio::sync::Notify;

use super::{Slot, Subscription};

/// The newest subscription that a consumer was given. The consumer replaces its former one with it.
#[derive(Debug)]
pub struct SubscriptionSlot<T> {
    newest: Slot<Option<Subscription<T>>>,
    changed: Notify,
}

impl<T> Default for SubscriptionSlot<T> {
    fn default() -> Self {
        Self { newest: Slot::default(), changed: Notify::new() }
    }
}

impl<T> SubscriptionSlot<T> {
    /// Replaces the subscription; `None` ends it. Never waits.
    pub fn set(&self, subscription: Option<Subscription<T>>) {
        self.newest.put(subscription);
        self.changed.notify_one();
    }

    /// Waits until the subscription is replaced. Cancel safe. For one waiter.
    pub async fn next(&self) -> Option<Subscription<T>> {
        loop {
            if let Some(newest) = self.newest.take() {
                return newest;
            }
            self.changed.notified().await;
        }
    }
}
