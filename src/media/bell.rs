//! Wakes those who want to know that there is news.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use super::Wake;

/// Wakes everybody who asked for it. Clones are the same bell.
#[derive(Clone, Default)]
pub struct Bell {
    wakes: Arc<Mutex<Vec<Wake>>>,
}

impl Bell {
    /// Has `wake` called at each ring from now on.
    pub fn on_ring(&self, wake: Wake) {
        self.wakes.lock().unwrap_or_else(PoisonError::into_inner).push(wake);
    }

    /// Calls everybody who asked for it, on this thread.
    pub fn ring(&self) {
        // Called unlocked: whoever is woken may ask for more.
        let wakes = self.wakes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for wake in wakes {
            wake();
        }
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_ring_wakes_everybody_who_asked() {
        let (bell, woken) = (Bell::default(), Arc::new(AtomicU32::new(0)));
        bell.ring();
        for _ in 0..2 {
            let woken = Arc::clone(&woken);
            bell.clone().on_ring(Arc::new(move || {
                woken.fetch_add(1, Ordering::Relaxed);
            }));
        }
        bell.ring();
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }
}
