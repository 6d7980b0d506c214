//! The newest frame and the level of everything that is shown.

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

/// What is heard as silence, in dB against full scale: below it nothing is drawn.
const QUIET_DBFS: f32 = -60.0;

/// From what level on somebody speaks, in dB against full scale: above the noise of a room.
const SPEECH_DBFS: f32 = -42.0;

/// How long one still speaks after the last loud moment, in seconds: pauses between words do not
/// make a ring blink.
const BREATH: f64 = 0.8;

/// After how many seconds without a frame a picture has stopped.
pub(crate) const STILL: f64 = 2.0;

/// What is looked at.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// Whose picture.
    pub(crate) seen: BTreeSet<Picture>,
    /// Whose level.
    pub(crate) heard: BTreeSet<Picture>,
    /// Whether the microphone is to be open for its level, whoever hears it.
    pub(crate) microphone: bool,
}

/// Everything that is shown, by name.
#[derive(Default)]
pub(crate) struct Pictures {
    feeds: BTreeMap<Picture, Feed>,
    /// Keeps the microphone open while its level is looked at.
    microphone: Option<LevelTap>,
    painter: YuvPainter,
}

/// The newest frame of a picture.
#[derive(Default)]
struct Feed {
    tap: Option<PictureTap>,
    frame: Option<VideoFrame>,
    /// Counts the frames.
    number: u64,
    /// When the newest came, in seconds of the window's clock.
    arrived: f64,
    /// In dB against full scale.
    level: Option<f32>,
    /// When it was last as loud as speech, in seconds of the window's clock.
    loud: Option<f64>,
}

impl Pictures {
    /// Looks at these pictures and at no others, and takes what is new.
    pub(crate) fn refresh(&mut self, ctx: &Context, handle: &Handle, wanted: &Wanted) {
        let now = ctx.input(|input| input.time);
        let Wanted { seen, heard, microphone } = wanted;
        self.microphone = match self.microphone.take() {
            tap @ Some(_) if *microphone => tap,
            None if *microphone => Some(handle.microphone_level()),
            Some(_) | None => None,
        };
        self.feeds.retain(|of, feed| {
            if !seen.contains(of) {
                (feed.tap, feed.frame) = (None, None);
                self.painter.forget(*of);
            }
            seen.contains(of) || heard.contains(of)
        });
        for of in seen.union(heard) {
            let feed = self.feeds.entry(*of).or_default();
            if seen.contains(of) && feed.tap.is_none() {
                let ctx = ctx.clone();
                feed.tap = handle.picture(*of, Arc::new(move || ctx.request_repaint()));
            }
            if let Some(frame) = feed.tap.as_ref().and_then(PictureTap::take) {
                feed.frame = Some(frame);
                feed.number += 1;
                feed.arrived = now;
            }
            feed.hear(heard.contains(of).then(|| handle.level(*of)), now);
        }
    }

    /// Looks at nothing any more: nobody sees the window.
    pub(crate) fn clear(&mut self) {
        self.microphone = None;
        for of in std::mem::take(&mut self.feeds).into_keys() {
            self.painter.forget(of);
        }
    }

    /// Has a frame shown without an engine, as if it had come at that time.
    #[cfg(test)]
    pub(crate) fn show(&mut self, of: Picture, frame: VideoFrame, arrived: f64) {
        let feed = self.feeds.entry(of).or_default();
        feed.frame = Some(frame);
        feed.number += 1;
        feed.arrived = arrived;
    }

    /// Has somebody be that loud without an engine, at that time.
    #[cfg(test)]
    pub(crate) fn sound(&mut self, of: Picture, level: f32, now: f64) {
        self.feeds.entry(of).or_default().hear(Some(level), now);
    }

    /// The newest frame, its number and when it came, in seconds of the window's clock.
    pub(crate) fn newest(&self, of: Picture) -> Option<(&VideoFrame, u64, f64)> {
        let feed = self.feeds.get(&of)?;
        feed.frame.as_ref().map(|frame| (frame, feed.number, feed.arrived))
    }

    /// Whether a picture came and has stopped since, in seconds of the window's clock.
    pub(crate) fn is_still(&self, of: Picture, now: f64) -> bool {
        self.newest(of).is_some_and(|(_, _, arrived)| now - arrived > STILL)
    }

    /// How loud it is, from 0 (silence) to 1 (full scale), on a scale like the ear's.
    pub(crate) fn loudness(&self, of: Picture) -> f32 {
        let level = self.feeds.get(&of).and_then(|feed| feed.level).unwrap_or(QUIET_DBFS);
        ((level - QUIET_DBFS) / -QUIET_DBFS).clamp(0.0, 1.0)
    }

    /// Whether somebody speaks at that time, in seconds of the window's clock.
    pub(crate) fn speaks(&self, of: Picture, now: f64) -> bool {
        let loud = self.feeds.get(&of).and_then(|feed| feed.loud);
        loud.is_some_and(|loud| now - loud < BREATH)
    }

    /// What draws frames.
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
    fn who_pauses_between_words_still_speaks_and_a_quiet_room_does_not() {
        let (mut pictures, who) = (Pictures::default(), Picture::Local);
        pictures.sound(who, SPEECH_DBFS - 1.0, 1.0);
        assert!(!pictures.speaks(who, 1.0));
        pictures.sound(who, SPEECH_DBFS + 1.0, 2.0);
        pictures.sound(who, QUIET_DBFS, 2.0 + BREATH / 2.0);
        assert!(pictures.speaks(who, 2.0 + BREATH / 2.0));
        assert!(!pictures.speaks(who, 2.1 + BREATH));
    }
}
