//! Calls registered callbacks when something has changed.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::Wake;

/// Calls every registered callback on each notification. Clones share the callbacks.
#[derive(Clone, Default)]
pub struct Notifier {
    wakes: Arc<Mutex<Vec<Wake>>>,
}

impl Notifier {
    /// Registers `wake`, which is called on each notification from now on.
    pub fn subscribe(&self, wake: Wake) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Calls every registered callback on this thread.
    pub fn notify(&self) {
        // Without the lock, because a callback may register another one.
        let wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for wake in wakes {
            wake();
        }
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Notifier")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_notification_calls_every_registered_callback() {
        let (notifier, woken) = (Notifier::default(), Arc::new(AtomicU32::new(0)));
        notifier.notify();
        for _ in 0..2 {
            let woken = Arc::clone(&woken);
            notifier.clone().subscribe(Arc::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }));
        }
        notifier.notify();
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }
}
