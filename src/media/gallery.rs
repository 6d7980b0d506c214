//! What can be looked at and how loud it is: the way from the engine to a window.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{Meter, SILENCE_DBFS, Tee, TeeGuard, VideoFrame, Wake};
use crate::model::PeerId;

/// Whose picture, or sound.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Picture {
    /// Our own, as the camera sees and the microphone hears, whatever the gates.
    Local,
    /// What a connection brings.
    Peer(PeerId),
}

/// All pictures and levels of a process, by name, with who looks at them. Clones are the same
/// gallery.
///
/// Its lock is held to look a name up; no real-time thread takes it, and frames and levels do
/// not pass through it.
#[derive(Clone, Default)]
pub struct Gallery {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    exhibits: Mutex<BTreeMap<Picture, Exhibit>>,
    changed: Notify,
}

#[derive(Clone, Default)]
struct Exhibit {
    frames: Tee<VideoFrame>,
    meter: Meter,
    viewers: Arc<AtomicUsize>,
    listeners: Arc<AtomicUsize>,
}

impl Gallery {
    /// Where the frames go, and where the level is shown; there from now on.
    pub fn exhibit(&self, of: Picture) -> (Tee<VideoFrame>, Meter) {
        let Exhibit { frames, meter, .. } = self.lock().entry(of).or_default().clone();
        (frames, meter)
    }

    /// Takes a picture out. Taps that are left get nothing any more.
    pub fn remove(&self, of: Picture) {
        self.lock().remove(&of);
    }

    /// The newest frame of a picture at any time, with a call of `wake` at each; `None` if there
    /// is no such picture.
    pub fn picture(&self, of: Picture, wake: Wake) -> Option<PictureTap> {
        let exhibit = self.lock().get(&of)?.clone();
        let frames = exhibit.frames.attach_waking(wake);
        Some(PictureTap { frames, _mark: self.mark(exhibit.viewers) })
    }

    /// A level, measured as long as it is held; `None` if there is no such sound.
    pub fn sound(&self, of: Picture) -> Option<LevelTap> {
        let exhibit = self.lock().get(&of)?.clone();
        Some(LevelTap { meter: exhibit.meter, _mark: self.mark(exhibit.listeners) })
    }

    /// How loud something was in the last tenth of a second, in dB against full scale; -120 for
    /// silence, for what is not measured and for what is not there.
    pub fn level(&self, of: Picture) -> f32 {
        self.lock().get(&of).map_or(SILENCE_DBFS, |exhibit| exhibit.meter.dbfs())
    }

    /// Whether somebody looks at a picture.
    pub fn is_seen(&self, of: Picture) -> bool {
        self.lock().get(&of).is_some_and(|one| one.viewers.load(Ordering::Acquire) > 0)
    }

    /// Whether somebody holds a level.
    pub fn is_measured(&self, of: Picture) -> bool {
        self.lock().get(&of).is_some_and(|one| one.listeners.load(Ordering::Acquire) > 0)
    }

    /// Waits until taps came or went since the last call. Cancel safe; for one waiter.
    pub async fn changed(&self) {
        self.shared.changed.notified().await;
    }

    fn mark(&self, count: Arc<AtomicUsize>) -> Mark {
        count.fetch_add(1, Ordering::AcqRel);
        self.shared.changed.notify_one();
        Mark { count, shared: Arc::clone(&self.shared) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Picture, Exhibit>> {
        self.shared.exhibits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Gallery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// Somebody looks at a picture; dropping it ends that.
#[derive(Debug)]
pub struct PictureTap {
    frames: TeeGuard<VideoFrame>,
    // After the frames: when the gallery looks again, nobody is attached.
    _mark: Mark,
}

impl PictureTap {
    /// The newest frame, if one came since the last call. Never waits.
    pub fn take(&self) -> Option<VideoFrame> {
        self.frames.slot.take()
    }
}

/// Somebody watches a level; dropping it ends that.
#[derive(Debug)]
pub struct LevelTap {
    meter: Meter,
    _mark: Mark,
}

impl LevelTap {
    /// The level of the last tenth of a second, in dB against full scale; -120 for silence.
    /// Reads one atomic number.
    pub fn dbfs(&self) -> f32 {
        self.meter.dbfs()
    }
}

/// Counts somebody in until dropped.
struct Mark {
    count: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.shared.changed.notify_one();
    }
}

impl fmt::Debug for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mark")
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::model::{MediaTime, Size};

    const PEER: Picture = Picture::Peer(PeerId(7));

    fn frame() -> VideoFrame {
        let size = Size::new(2, 2);
        VideoFrame::new(size, MediaTime::default(), Arc::new(vec![0; size.i420_bytes()]))
    }

    fn has_changed(gallery: &Gallery) -> bool {
        let mut changed = std::pin::pin!(gallery.changed());
        changed.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_tap_gets_the_newest_frame_and_is_counted_until_it_is_dropped() {
        let gallery = Gallery::default();
        assert!(gallery.picture(PEER, Arc::new(|| ())).is_none(), "not there yet");
        let (frames, _) = gallery.exhibit(PEER);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let tap = gallery.picture(PEER, Arc::new(wake)).unwrap();
        assert!(gallery.is_seen(PEER) && has_changed(&gallery) && !has_changed(&gallery));
        frames.put(&frame());
        frames.put(&frame());
        assert!(tap.take().is_some() && tap.take().is_none());
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        drop(tap);
        assert!(!gallery.is_seen(PEER) && has_changed(&gallery));
        frames.put(&frame());
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_level_can_be_read_with_and_without_a_tap() {
        let gallery = Gallery::default();
        assert_eq!(gallery.level(Picture::Local), SILENCE_DBFS);
        let (_, meter) = gallery.exhibit(Picture::Local);
        meter.set(-30.0);
        assert!(!gallery.is_measured(Picture::Local));
        let tap = gallery.sound(Picture::Local).unwrap();
        assert!(gallery.is_measured(Picture::Local) && !gallery.is_seen(Picture::Local));
        assert_eq!((tap.dbfs(), gallery.level(Picture::Local)), (-30.0, -30.0));
        gallery.remove(Picture::Local);
        assert_eq!(gallery.level(Picture::Local), SILENCE_DBFS);
    }
}
