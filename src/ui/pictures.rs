//! The newest frame and the audio level of everything that is shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use eframe::egui::Context;

use super::yuv::YuvPainter;
use crate::{
    engine::{Handle, LevelTap, Picture, PictureTap},
    media::VideoFrame,
};

/// The level that counts as silence, in dBFS. Nothing is drawn below it.
const QUIET_DBFS: f32 = -60.0;

/// The level from which a participant counts as speaking, in dBFS: above the noise of a room.
const SPEECH_DBFS: f32 = -42.0;

/// How long a participant counts as speaking after the last loud moment, in seconds. Pauses between
/// words do not make the ring blink.
const BREATH: f64 = 0.8;

/// Seconds without a frame after which a video counts as frozen.
pub(crate) const STILL: f64 = 2.0;

/// The media that the window needs.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// The sources whose video is visible.
    pub(crate) seen: BTreeSet<Picture>,
    /// The sources whose level is shown.
    pub(crate) heard: BTreeSet<Picture>,
    /// Whether the microphone must be open for its level, even if it is sent to no session.
    pub(crate) microphone: bool,
}

/// The feeds of all sources that are shown.
#[derive(Default)]
pub(crate) struct Pictures {
    feeds: BTreeMap<Picture, Feed>,
    /// Keeps the microphone open while its level is shown.
    microphone: Option<LevelTap>,
    painter: YuvPainter,
}

/// The newest frame and level of a source.
#[derive(Default)]
struct Feed {
    tap: Option<PictureTap>,
    frame: Option<VideoFrame>,
    /// Number of the newest frame.
    number: u64,
    /// When the newest frame arrived, in seconds of egui's clock.
    arrived: f64,
    /// Audio level in dBFS.
    level: Option<f32>,
    /// When the level was last that of speech, in seconds of egui's clock.
    loud: Option<f64>,
}

impl Pictures {
    /// Subscribes to exactly these media, and takes new frames and levels.
    pub(crate) fn refresh(&mut self, ctx: &Context, handle: &Handle, media: &Wanted) {
        let now = ctx.input(|input| input.time);
        let Wanted { seen: video, heard: levels, microphone } = media;
        self.microphone = match self.microphone.take() {
            tap @ Some(_) if *microphone => tap,
            None if *microphone => Some(handle.microphone_level()),
            Some(_) | None => None,
        };
        self.feeds.retain(|source, feed| {
            if !video.contains(source) {
                (feed.tap, feed.frame) = (None, None);
                self.painter.forget(*source);
            }
            video.contains(source) || levels.contains(source)
        });
        for source in video.union(levels) {
            let feed = self.feeds.entry(*source).or_default();
            if video.contains(source) && feed.tap.is_none() {
                let ctx = ctx.clone();
                feed.tap = handle.picture(*source, Arc::new(move || ctx.request_repaint()));
            }
            if let Some(frame) = feed.tap.as_ref().and_then(PictureTap::take) {
                feed.frame = Some(frame);
                feed.number += 1;
                feed.arrived = now;
            }
            feed.hear(levels.contains(source).then(|| handle.level(*source)), now);
        }
    }

    /// Drops all feeds, because the window is hidden.
    pub(crate) fn clear(&mut self) {
        self.microphone = None;
        for source in std::mem::take(&mut self.feeds).into_keys() {
            self.painter.forget(source);
        }
    }

    /// Sets the frame of a source without an engine, as if it had arrived at that time.
    #[cfg(test)]
    pub(crate) fn show(&mut self, source: Picture, frame: VideoFrame, arrived: f64) {
        let feed = self.feeds.entry(source).or_default();
        feed.frame = Some(frame);
        feed.number += 1;
        feed.arrived = arrived;
    }

    /// Sets the level of a source without an engine, at that time.
    #[cfg(test)]
    pub(crate) fn sound(&mut self, source: Picture, level: f32, now: f64) {
        self.feeds.entry(source).or_default().hear(Some(level), now);
    }

    /// The newest frame, its number, and when it arrived, in seconds of egui's clock.
    pub(crate) fn newest(&self, source: Picture) -> Option<(&VideoFrame, u64, f64)> {
        let feed = self.feeds.get(&source)?;
        feed.frame.as_ref().map(|frame| (frame, feed.number, feed.arrived))
    }

    /// Whether a video has arrived and has then stopped. `now` is in seconds of egui's clock.
    pub(crate) fn is_still(&self, source: Picture, now: f64) -> bool {
        self.newest(source).is_some_and(|(_, _, arrived)| now - arrived > STILL)
    }

    /// The loudness, from 0 (silence) to 1 (full scale), on a logarithmic scale.
    pub(crate) fn loudness(&self, source: Picture) -> f32 {
        let level = self.feeds.get(&source).and_then(|feed| feed.level).unwrap_or(QUIET_DBFS);
        ((level - QUIET_DBFS) / -QUIET_DBFS).clamp(0.0, 1.0)
    }

    /// Whether the source is speaking at that time, in seconds of egui's clock.
    pub(crate) fn speaks(&self, source: Picture, now: f64) -> bool {
        let loud = self.feeds.get(&source).and_then(|feed| feed.loud);
        loud.is_some_and(|loud| now - loud < BREATH)
    }

    /// The painter that draws frames.
    pub(crate) const fn painter(&self) -> &YuvPainter {
        &self.painter
    }
}

impl Feed {
    fn hear(&mut self, level: Option<f32>, now: f64) {
        self.level = level;
        match level {
            Some(level) if level > SPEECH_DBFS => self.loud = Some(now),
            Some(_) => {}
            None => self.loud = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_between_words_still_counts_as_speaking_and_a_quiet_room_does_not() {
        let (mut feeds, source) = (Pictures::default(), Picture::Local);
        feeds.sound(source, SPEECH_DBFS - 1.0, 1.0);
        assert!(!feeds.speaks(source, 1.0));
        feeds.sound(source, SPEECH_DBFS + 1.0, 2.0);
        feeds.sound(source, QUIET_DBFS, 2.0 + BREATH / 2.0);
        assert!(feeds.speaks(source, 2.0 + BREATH / 2.0));
        assert!(!feeds.speaks(source, 2.1 + BREATH));
    }
}
