//! Slots, in which raw frames travel: a newer value replaces an unread older one.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Holds at most one value. A newer value replaces an unread older one and counts it as
/// overwritten.
#[derive(Debug)]
pub struct Slot<T> {
    value: Mutex<Option<T>>,
    arrived: Condvar,
    overwritten: AtomicU64,
}

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self { value: Mutex::new(None), arrived: Condvar::new(), overwritten: AtomicU64::new(0) }
    }
}

impl<T> Slot<T> {
    /// Stores the value; never waits.
    pub fn put(&self, value: T) {
        let old = lock(&self.value).replace(value);
        if old.is_some() {
            self.overwritten.fetch_add(1, Ordering::Relaxed);
        }
        self.arrived.notify_one();
    }

    /// Takes the value, if there is one.
    pub fn take(&self) -> Option<T> {
        lock(&self.value).take()
    }

    /// Takes the value, waiting at most `timeout` for one.
    pub fn wait(&self, timeout: Duration) -> Option<T> {
        let value = lock(&self.value);
        let waited = self.arrived.wait_timeout_while(value, timeout, |value| value.is_none());
        waited.unwrap_or_else(|poison| poison.into_inner()).0.take()
    }

    /// How many values were replaced before they were read.
    pub fn overwritten(&self) -> u64 {
        self.overwritten.load(Ordering::Relaxed)
    }
}

/// A callback for "there is something to fetch". It runs on the thread that produced the value and
/// must not block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Copies each value to every attached slot, for example an encoder's and a tile's.
#[derive(Debug)]
pub struct Tee<T> {
    slots: Arc<Mutex<Vec<Attached<T>>>>,
}

struct Attached<T> {
    slot: Arc<Slot<T>>,
    wake: Option<Wake>,
}

impl<T> fmt::Debug for Attached<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("wakes", &self.wake.is_some()).finish()
    }
}

impl<T> Default for Tee<T> {
    fn default() -> Self {
        Self { slots: Arc::default() }
    }
}

impl<T> Clone for Tee<T> {
    fn clone(&self) -> Self {
        Self { slots: Arc::clone(&self.slots) }
    }
}

impl<T: Clone> Tee<T> {
    /// Attaches a new slot, which is detached when the guard is dropped.
    pub fn attach(&self) -> TeeGuard<T> {
        self.attach_slot(None)
    }

    /// Like [`Self::attach`], and calls `wake` after each value.
    pub fn attach_waking(&self, wake: Wake) -> TeeGuard<T> {
        self.attach_slot(Some(wake))
    }

    /// Puts the value into every attached slot, then calls the wake callbacks; never waits.
    pub fn put(&self, value: &T) {
        let mut wakes = vec![];
        for attached in lock(&self.slots).iter() {
            attached.slot.put(value.clone());
            wakes.extend(attached.wake.clone());
        }
        // Without the lock, because a callback may attach or detach a slot.
        for wake in wakes {
            wake();
        }
    }

    fn attach_slot(&self, wake: Option<Wake>) -> TeeGuard<T> {
        let slot = Arc::new(Slot::default());
        lock(&self.slots).push(Attached { slot: Arc::clone(&slot), wake });
        TeeGuard { slot, slots: Arc::clone(&self.slots) }
    }
}

/// A slot attached to a [`Tee`]. Dropping the guard detaches it.
#[derive(Debug)]
pub struct TeeGuard<T> {
    /// The attached slot.
    pub slot: Arc<Slot<T>>,
    slots: Arc<Mutex<Vec<Attached<T>>>>,
}

impl<T> Drop for TeeGuard<T> {
    fn drop(&mut self) {
        lock(&self.slots).retain(|other| !Arc::ptr_eq(&other.slot, &self.slot));
    }
}

/// Locks a mutex, poisoned or not: the value behind it is valid between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_value_replaces_an_unread_one_and_is_counted() {
        let slot = Slot::default();
        slot.put(1);
        slot.put(2);
        assert_eq!((slot.take(), slot.take(), slot.overwritten()), (Some(2), None, 1));
        assert_eq!(slot.wait(Duration::from_millis(1)), None);
    }

    #[test]
    fn every_attached_slot_gets_each_value_and_a_detached_one_gets_none() {
        let tee = Tee::default();
        let (kept, dropped) = (tee.attach(), tee.attach());
        tee.put(&7);
        let slot = Arc::clone(&dropped.slot);
        drop(dropped);
        tee.put(&8);
        assert_eq!((kept.slot.take(), slot.take()), (Some(8), Some(7)));
    }

    #[test]
    fn a_wake_callback_runs_for_each_value_and_may_detach_its_slot() {
        let tee = Tee::default();
        let (woken, held) = (Arc::new(AtomicU64::new(0)), Arc::new(Slot::default()));
        let (count, dropped) = (Arc::clone(&woken), Arc::clone(&held));
        let guard = tee.attach_waking(Arc::new(move || {
            if count.fetch_add(1, Ordering::Relaxed) == 1 {
                drop::<Option<TeeGuard<i32>>>(dropped.take());
            }
        }));
        held.put(guard);
        for value in 0..4 {
            tee.put(&value);
        }
        assert_eq!(woken.load(Ordering::Relaxed), 2, "the second call detached the slot");
    }
}
