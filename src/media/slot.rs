//! The newest value wins: how raw frames travel.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A place for one value. A newer one replaces an unread older one, which is counted.
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
    /// Puts the value in; never waits.
    pub fn put(&self, value: T) {
        let old = lock(&self.value).replace(value);
        if old.is_some() {
            self.overwritten.fetch_add(1, Ordering::Relaxed);
        }
        self.arrived.notify_one();
    }

    /// Takes the value out, if one is there.
    pub fn take(&self) -> Option<T> {
        lock(&self.value).take()
    }

    /// Takes the value out, waiting at most `patience` for one.
    pub fn wait(&self, patience: Duration) -> Option<T> {
        let value = lock(&self.value);
        let waited = self.arrived.wait_timeout_while(value, patience, |value| value.is_none());
        waited.unwrap_or_else(|poison| poison.into_inner()).0.take()
    }

    /// How many values nobody read.
    pub fn overwritten(&self) -> u64 {
        self.overwritten.load(Ordering::Relaxed)
    }
}

/// Called when something is there to be fetched; from whichever thread brought it, so it must not
/// block.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Hands each value to every slot that is attached: an encoder's, a tile's.
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
    /// Attaches a new slot until the guard is dropped.
    pub fn attach(&self) -> TeeGuard<T> {
        self.attach_slot(None)
    }

    /// Attaches a new slot whose owner is woken by each value, until the guard is dropped.
    pub fn attach_waking(&self, wake: Wake) -> TeeGuard<T> {
        self.attach_slot(Some(wake))
    }

    /// Puts the value into every attached slot, then wakes those who asked for it; never waits.
    pub fn put(&self, value: &T) {
        let mut wakes = vec![];
        for one in lock(&self.slots).iter() {
            one.slot.put(value.clone());
            wakes.extend(one.wake.clone());
        }
        // Unlocked: whoever is woken may attach or detach.
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

/// A slot attached to a [`Tee`]; detached when dropped.
#[derive(Debug)]
pub struct TeeGuard<T> {
    /// The slot.
    pub slot: Arc<Slot<T>>,
    slots: Arc<Mutex<Vec<Attached<T>>>>,
}

impl<T> Drop for TeeGuard<T> {
    fn drop(&mut self) {
        lock(&self.slots).retain(|one| !Arc::ptr_eq(&one.slot, &self.slot));
    }
}

/// A poisoned lock guards one value that is whole between any two statements.
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
    fn every_attached_slot_gets_each_value_and_a_detached_one_nothing() {
        let tee = Tee::default();
        let (one, other) = (tee.attach(), tee.attach());
        tee.put(&7);
        let slot = Arc::clone(&other.slot);
        drop(other);
        tee.put(&8);
        assert_eq!((one.slot.take(), slot.take()), (Some(8), Some(7)));
    }

    #[test]
    fn who_asked_is_woken_by_each_value_and_may_detach_meanwhile() {
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
        assert_eq!(woken.load(Ordering::Relaxed), 2, "detached by the second");
    }
}
