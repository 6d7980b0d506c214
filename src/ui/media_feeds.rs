//! The newest frame and the audio level of everything that is shown.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use eframe::egui::Context;

use super::yuv_painter::YuvPainter;
use crate::{
    engine::{FrameTap, Handle, LevelTap, TrackRef},
    media::VideoFrame,
    model::ShownSize,
};

/// The level that counts as silence, in dBFS. Nothing is drawn below it.
const SILENCE_DBFS: f32 = -60.0;

/// The level from which a participant counts as speaking, in dBFS: above the noise of a room.
const SPEECH_DBFS: f32 = -42.0;

/// How long a participant counts as speaking after the last loud moment, in seconds. Pauses between
/// words do not make the ring blink.
const SPEECH_HOLD_SECONDS: f64 = 0.8;

/// Seconds without a frame after which a video counts as frozen.
pub(crate) const FROZEN_AFTER_SECONDS: f64 = 2.0;

/// The media that the window needs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct VisibleMedia {
    /// The tracks whose video is visible.
    pub(crate) video: BTreeSet<TrackRef>,
    /// The tracks whose level is shown.
    pub(crate) levels: BTreeSet<TrackRef>,
    /// Whether the microphone must be open for its level, even if it is sent to no session.
    pub(crate) microphone: bool,
}

/// The feeds of all sources that are shown.
#[derive(Default)]
pub(crate) struct MediaFeeds {
    feeds: BTreeMap<TrackRef, Feed>,
    /// Keeps the microphone open while its level is shown.
    microphone: Option<LevelTap>,
    painter: YuvPainter,
    /// The largest size at which each video was drawn since the last refresh.
    drawn: RefCell<BTreeMap<TrackRef, ShownSize>>,
}

/// The newest frame and level of a source.
#[derive(Default)]
struct Feed {
    tap: Option<FrameTap>,
    frame: Option<VideoFrame>,
    /// Number of the newest frame.
    frame_number: u64,
    /// When the newest frame arrived, in seconds of egui's clock.
    arrived: f64,
    /// Audio level in dBFS.
    level: Option<f32>,
    /// When the level was last that of speech, in seconds of egui's clock.
    last_speech: Option<f64>,
}

impl MediaFeeds {
    /// Subscribes to exactly these media, and takes new frames and levels.
    pub(crate) fn refresh(&mut self, ctx: &Context, handle: &Handle, media: &VisibleMedia) {
        let now = ctx.input(|input| input.time);
        let VisibleMedia { video, levels, microphone } = media;
        let drawn = std::mem::take(self.drawn.get_mut());
        self.microphone = match self.microphone.take() {
            tap @ Some(_) if *microphone => tap,
            None if *microphone => Some(handle.microphone_level()),
            Some(_) | None => None,
        };
        self.feeds.retain(|source, feed| {
            if !video.contains(source) {
                (feed.tap, feed.frame) = (None, None);
                self.painter.release(*source);
            }
            video.contains(source) || levels.contains(source)
        });
        for source in video.union(levels) {
            let feed = self.feeds.entry(*source).or_default();
            if video.contains(source) && feed.tap.is_none() {
                let ctx = ctx.clone();
                feed.tap = handle.tap_frames(*source, Arc::new(move || ctx.request_repaint()));
            }
            if let (Some(tap), Some(size)) = (&feed.tap, drawn.get(source)) {
                tap.set_size(*size);
            }
            if let Some(frame) = feed.tap.as_ref().and_then(FrameTap::take) {
                feed.frame = Some(frame);
                feed.frame_number += 1;
                feed.arrived = now;
            }
            feed.update_level(levels.contains(source).then(|| handle.level(*source)), now);
        }
    }

    /// Drops all feeds, because the window is hidden.
    pub(crate) fn clear(&mut self) {
        self.microphone = None;
        for source in std::mem::take(&mut self.feeds).into_keys() {
            self.painter.release(source);
        }
    }

    /// Sets the frame of a track without an engine, as if it had arrived at that time.
    #[cfg(test)]
    pub(crate) fn set_frame(&mut self, track: TrackRef, frame: VideoFrame, arrived: f64) {
        let feed = self.feeds.entry(track).or_default();
        feed.frame = Some(frame);
        feed.frame_number += 1;
        feed.arrived = arrived;
    }

    /// Sets the level of a track without an engine, at that time.
    #[cfg(test)]
    pub(crate) fn set_level(&mut self, track: TrackRef, level: f32, now: f64) {
        self.feeds.entry(track).or_default().update_level(Some(level), now);
    }

    /// The newest frame, its number, and when it arrived, in seconds of egui's clock.
    pub(crate) fn latest_frame(&self, track: TrackRef) -> Option<(&VideoFrame, u64, f64)> {
        let feed = self.feeds.get(&track)?;
        feed.frame.as_ref().map(|frame| (frame, feed.frame_number, feed.arrived))
    }

    /// Notes that a video is drawn at this size, in pixels of the screen: no larger one is needed.
    pub(crate) fn note_drawn(&self, track: TrackRef, (width, height): (f32, f32)) {
        let mut drawn = self.drawn.borrow_mut();
        let size = drawn.entry(track).or_default();
        size.width = size.width.max(width.ceil() as u16);
        size.height = size.height.max(height.ceil() as u16);
    }

    /// Whether a video has arrived and has then stopped. `now` is in seconds of egui's clock.
    pub(crate) fn is_frozen(&self, track: TrackRef, now: f64) -> bool {
        self.latest_frame(track).is_some_and(|(_, _, arrived)| now - arrived > FROZEN_AFTER_SECONDS)
    }

    /// The loudness, from 0 (silence) to 1 (full scale), on a logarithmic scale.
    pub(crate) fn loudness(&self, track: TrackRef) -> f32 {
        let level = self.feeds.get(&track).and_then(|feed| feed.level).unwrap_or(SILENCE_DBFS);
        ((level - SILENCE_DBFS) / -SILENCE_DBFS).clamp(0.0, 1.0)
    }

    /// Whether the track carries speech at that time, in seconds of egui's clock.
    pub(crate) fn is_speaking(&self, track: TrackRef, now: f64) -> bool {
        let loud = self.feeds.get(&track).and_then(|feed| feed.last_speech);
        loud.is_some_and(|loud| now - loud < SPEECH_HOLD_SECONDS)
    }

    /// The painter that draws frames.
    pub(crate) const fn painter(&self) -> &YuvPainter {
        &self.painter
    }
}

impl Feed {
    fn update_level(&mut self, level: Option<f32>, now: f64) {
        self.level = level;
        match level {
            Some(level) if level > SPEECH_DBFS => self.last_speech = Some(now),
            Some(_) => {}
            None => self.last_speech = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_between_words_still_counts_as_speaking_and_a_quiet_room_does_not() {
        let (mut feeds, source) = (MediaFeeds::default(), TrackRef::MICROPHONE);
        feeds.set_level(source, SPEECH_DBFS - 1.0, 1.0);
        assert!(!feeds.is_speaking(source, 1.0));
        feeds.set_level(source, SPEECH_DBFS + 1.0, 2.0);
        feeds.set_level(source, SILENCE_DBFS, 2.0 + SPEECH_HOLD_SECONDS / 2.0);
        assert!(feeds.is_speaking(source, 2.0 + SPEECH_HOLD_SECONDS / 2.0));
        assert!(!feeds.is_speaking(source, 2.1 + SPEECH_HOLD_SECONDS));
    }
}
