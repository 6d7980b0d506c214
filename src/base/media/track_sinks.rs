//! The path of video frames and audio levels from the engine to a window.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use super::{Meter, SILENCE_DBFS, Tee, TeeGuard, VideoFrame, Wake};
use crate::model::{PeerId, ShownSize, Source};

/// Names one track: a source of video, whose frames can be tapped, or one of audio, whose level can.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TrackRef {
    /// A source of this program, muted or not.
    Local(Source),
    /// A source of a remote peer, received on a peer connection.
    Peer(PeerId, Source),
}

impl TrackRef {
    /// The camera of this program.
    pub const CAMERA: Self = Self::Local(Source::Camera);
    /// The microphone of this program.
    pub const MICROPHONE: Self = Self::Local(Source::Microphone);

    /// The track of another source, from the same program on the same connection.
    #[must_use]
    pub const fn beside(self, source: Source) -> Self {
        match self {
            Self::Local(_) => Self::Local(source),
            Self::Peer(peer, _) => Self::Peer(peer, source),
        }
    }
}

/// The frames and levels of all tracks of a process, with the number of taps on each. Clones share
/// one registry.
///
/// The lock is held only to look up an entry. No real-time thread takes it, and frames and levels
/// do not pass through it.
#[derive(Clone, Default)]
pub struct TrackSinks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    sinks: Mutex<BTreeMap<TrackRef, TrackSink>>,
    taps_changed: Notify,
}

#[derive(Clone, Default)]
struct TrackSink {
    frames: Tee<VideoFrame>,
    meter: Meter,
    frame_taps: Arc<AtomicUsize>,
    level_taps: Arc<AtomicUsize>,
    /// The sizes at which the taps show the frames.
    sizes: Arc<Mutex<Vec<Weak<TapSize>>>>,
}

/// The width in the upper 16 of 32 bits, the height in the lower; [`TapSize::UNKNOWN`] until it is
/// told.
#[derive(Debug)]
struct TapSize(AtomicU32);

impl TapSize {
    const UNKNOWN: u32 = u32::MAX;
}

impl TrackSinks {
    /// Returns where to put the frames and the level. Creates the entry if there is none.
    pub fn register(&self, of: TrackRef) -> (Tee<VideoFrame>, Meter) {
        let TrackSink { frames, meter, .. } = self.lock().entry(of).or_default().clone();
        (frames, meter)
    }

    /// Removes an entry. Taps that still exist receive nothing more.
    pub fn remove(&self, of: TrackRef) {
        self.lock().remove(&of);
    }

    /// Taps the frames of an entry: the tap returns the newest frame, and `wake` is called for each
    /// one. `None` if there is no such entry.
    pub fn tap_frames(&self, of: TrackRef, wake: Wake) -> Option<FrameTap> {
        let sink = self.lock().get(&of)?.clone();
        let size = Arc::new(TapSize(AtomicU32::new(TapSize::UNKNOWN)));
        let mut sizes = sink.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        sizes.retain(|other| other.strong_count() > 0);
        sizes.push(Arc::downgrade(&size));
        drop(sizes);
        let frames = sink.frames.attach_waking(wake);
        Some(FrameTap { frames, size, guard: self.count_tap(sink.frame_taps) })
    }

    /// Taps the level of an entry. It is measured while the tap exists. `None` if there is no such
    /// entry.
    pub fn tap_level(&self, of: TrackRef) -> Option<LevelTap> {
        let sink = self.lock().get(&of)?.clone();
        Some(LevelTap { meter: sink.meter, _guard: self.count_tap(sink.level_taps) })
    }

    /// The level of the last tenth of a second, in dB relative to full scale. -120 for silence, for
    /// a level that is not measured and for an unknown entry.
    pub fn level(&self, of: TrackRef) -> f32 {
        self.lock().get(&of).map_or(SILENCE_DBFS, |sink| sink.meter.dbfs())
    }

    /// Whether any tap on the frames of this entry exists.
    pub fn has_frame_taps(&self, of: TrackRef) -> bool {
        self.lock().get(&of).is_some_and(|sink| sink.frame_taps.load(Ordering::Acquire) > 0)
    }

    /// At which size the frames of this entry are shown; `None` if a tap has not told it.
    pub fn shown_size(&self, of: TrackRef) -> Option<ShownSize> {
        let Some(sink) = self.lock().get(&of).cloned() else { return Some(ShownSize::HIDDEN) };
        let sizes = sink.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut largest = ShownSize::HIDDEN;
        for size in sizes.iter().filter_map(Weak::upgrade) {
            let size = match size.0.load(Ordering::Acquire) {
                TapSize::UNKNOWN => return None,
                size => ShownSize { width: (size >> 16) as u16, height: size as u16 },
            };
            let (width, height) = (largest.width.max(size.width), largest.height.max(size.height));
            largest = ShownSize { width, height };
        }
        Some(largest)
    }

    /// Whether any tap on the level of this entry exists.
    pub fn has_level_taps(&self, of: TrackRef) -> bool {
        self.lock().get(&of).is_some_and(|sink| sink.level_taps.load(Ordering::Acquire) > 0)
    }

    /// Whether any tap on this entry exists, on its frames or on its level.
    pub fn has_taps(&self, of: TrackRef) -> bool {
        self.has_frame_taps(of) || self.has_level_taps(of)
    }

    /// Waits until a tap was added or dropped since the last call. Cancel safe. For one waiter.
    pub async fn taps_changed(&self) {
        self.shared.taps_changed.notified().await;
    }

    fn count_tap(&self, count: Arc<AtomicUsize>) -> TapGuard {
        count.fetch_add(1, Ordering::AcqRel);
        self.shared.taps_changed.notify_one();
        TapGuard { count, shared: Arc::clone(&self.shared) }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TrackRef, TrackSink>> {
        self.shared.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for TrackSinks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// A tap on the frames of one entry. Dropping it ends the tap.
#[derive(Debug)]
pub struct FrameTap {
    frames: TeeGuard<VideoFrame>,
    size: Arc<TapSize>,
    // Dropped after the others, so that the slot is detached before the count changes.
    guard: TapGuard,
}

impl FrameTap {
    /// The newest frame, if one arrived since the last call. Never waits.
    pub fn take(&self) -> Option<VideoFrame> {
        self.frames.slot.take()
    }

    /// Tells at which size the frames are shown, in pixels of the screen: no larger video is sent.
    /// Until the first call, it is sent in full size.
    pub fn set_size(&self, size: ShownSize) {
        let both = u32::from(size.width) << 16 | u32::from(size.height);
        if self.size.0.swap(both, Ordering::AcqRel) != both {
            self.guard.shared.taps_changed.notify_one();
        }
    }
}

/// A tap on the level of one entry. Dropping it ends the tap.
#[derive(Debug)]
pub struct LevelTap {
    meter: Meter,
    _guard: TapGuard,
}

impl LevelTap {
    /// The level of the last tenth of a second, in dB relative to full scale; -120 for silence.
    /// One atomic load.
    pub fn dbfs(&self) -> f32 {
        self.meter.dbfs()
    }
}

/// Counts one tap until it is dropped.
struct TapGuard {
    count: Arc<AtomicUsize>,
    shared: Arc<Shared>,
}

impl Drop for TapGuard {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        self.shared.taps_changed.notify_one();
    }
}

impl fmt::Debug for TapGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TapGuard")
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::model::{MediaTime, Size};

    const PEER: TrackRef = TrackRef::Peer(PeerId(7), Source::Camera);
    const MICROPHONE: TrackRef = TrackRef::MICROPHONE;

    fn frame() -> VideoFrame {
        let size = Size::new(2, 2);
        VideoFrame::new(size, MediaTime::default(), Arc::new(vec![0; size.i420_bytes()]))
    }

    fn has_changed(sinks: &TrackSinks) -> bool {
        let mut changed = std::pin::pin!(sinks.taps_changed());
        changed.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn a_tap_gets_the_newest_frame_and_is_counted_until_it_is_dropped() {
        let sinks = TrackSinks::default();
        assert!(sinks.tap_frames(PEER, Arc::new(|| ())).is_none(), "the entry does not exist yet");
        let (frames, _) = sinks.register(PEER);
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake = move || {
            count.fetch_add(1, Ordering::Relaxed);
        };
        let tap = sinks.tap_frames(PEER, Arc::new(wake)).unwrap();
        assert!(sinks.has_frame_taps(PEER) && has_changed(&sinks) && !has_changed(&sinks));
        frames.put(&frame());
        frames.put(&frame());
        assert!(tap.take().is_some() && tap.take().is_none());
        assert_eq!(woken.load(Ordering::Relaxed), 2);
        drop(tap);
        assert!(!sinks.has_frame_taps(PEER) && has_changed(&sinks));
        frames.put(&frame());
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_largest_size_counts_at_which_frames_are_shown() {
        let sinks = TrackSinks::default();
        let shown = |width, height| Some(ShownSize { width, height });
        assert_eq!(sinks.shown_size(PEER), Some(ShownSize::HIDDEN));
        sinks.register(PEER);
        assert_eq!(sinks.shown_size(PEER), Some(ShownSize::HIDDEN));
        let [one, other] = [(); 2].map(|()| sinks.tap_frames(PEER, Arc::new(|| ())).unwrap());
        one.set_size(ShownSize { width: 640, height: 360 });
        assert_eq!(sinks.shown_size(PEER), None, "one has not told its size");
        assert!(has_changed(&sinks));
        other.set_size(ShownSize { width: 320, height: 400 });
        assert!(has_changed(&sinks));
        other.set_size(ShownSize { width: 320, height: 400 });
        assert!(!has_changed(&sinks));
        assert_eq!(sinks.shown_size(PEER), shown(640, 400));
        drop(one);
        assert_eq!(sinks.shown_size(PEER), shown(320, 400));
    }

    #[test]
    fn the_videos_of_one_peer_are_tapped_apart() {
        let sinks = TrackSinks::default();
        let [camera, other] = [Source::Camera, Source::Microphone].map(|one| PEER.beside(one));
        assert_eq!(camera, PEER);
        let frames = [camera, other].map(|track| sinks.register(track).0);
        let taps = [camera, other].map(|track| sinks.tap_frames(track, Arc::new(|| ())).unwrap());
        frames[1].put(&frame());
        assert!(taps[0].take().is_none() && taps[1].take().is_some());
        drop(taps);
    }

    #[test]
    fn a_level_can_be_read_with_and_without_a_tap() {
        let sinks = TrackSinks::default();
        assert_eq!(sinks.level(MICROPHONE), SILENCE_DBFS);
        sinks.register(TrackRef::CAMERA);
        let (_, meter) = sinks.register(MICROPHONE);
        meter.set(-30.0);
        assert!(!sinks.has_level_taps(MICROPHONE));
        let tap = sinks.tap_level(MICROPHONE).unwrap();
        assert!(sinks.has_level_taps(MICROPHONE) && !sinks.has_frame_taps(MICROPHONE));
        assert!(!sinks.has_taps(TrackRef::CAMERA), "the camera is another track");
        assert_eq!((tap.dbfs(), sinks.level(MICROPHONE)), (-30.0, -30.0));
        sinks.remove(MICROPHONE);
        assert_eq!(sinks.level(MICROPHONE), SILENCE_DBFS);
    }
}
