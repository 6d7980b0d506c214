//! What a participant wants of the video that it receives, as it signals it in `media`.

use serde::{Deserialize, Deserializer, Serialize};

use super::{
    Layer, MAX_TRACKS, Size, TrackId,
    lenient_list::{self, LenientList},
};

/// The size at which a video is shown at most, in pixels of the screen. Zero if it is not shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct ShownSize {
    /// The width.
    pub width: u16,
    /// The height.
    pub height: u16,
}

/// What is wanted of one track.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WantedTrack {
    /// The id of the track, which the other participant sends.
    pub id: TrackId,
    /// The size at which it is shown.
    #[serde(flatten)]
    pub size: ShownSize,
}

/// The tracks that a participant shows, at most [`MAX_TRACKS`], each id once. It shows no others.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct WantedTracks(Vec<WantedTrack>);

/// By how much a layer may be smaller than the size at which it is shown. A viewer does not see it,
/// and the next layer has four times as many pixels.
const MAX_ENLARGEMENT: f64 = 1.25;

impl ShownSize {
    /// Of a video that is wanted as large as it is.
    pub const MAX: Self = Self { width: u16::MAX, height: u16::MAX };

    /// Of a video that is not shown.
    pub const HIDDEN: Self = Self { width: 0, height: 0 };

    /// Whether the video is shown.
    pub const fn is_shown(self) -> bool {
        self.width > 0 && self.height > 0
    }

    /// The smallest layer of a source of that size that is enough; `None` if the video is not shown.
    /// The video is shown whole: the side that is shorter for it decides.
    pub fn layer(self, source: Size) -> Option<Layer> {
        let scale = |shown: u16, side: u32| f64::from(shown) / f64::from(side) / MAX_ENLARGEMENT;
        let scale = scale(self.width, source.width).min(scale(self.height, source.height));
        let is_enough =
            |layer: &Layer| f64::from(layer.size(source).width) >= f64::from(source.width) * scale;
        self.is_shown().then(|| Layer::ALL.into_iter().find(is_enough).unwrap_or(Layer::Full))
    }

    /// The least of some sizes that covers this one, so that a window that is resized by hand does
    /// not ask for each of its sizes.
    #[must_use]
    pub fn rounded_up(self) -> Self {
        const STEPS: [u32; 9] = [1, 2, 3, 4, 6, 8, 12, 16, 24];
        let covers =
            |step: &u32| 160 * step >= u32::from(self.width) && 90 * step >= u32::from(self.height);
        let step = STEPS.into_iter().find(covers).unwrap_or(48) as u16;
        if self.is_shown() { Self { width: 160 * step, height: 90 * step } } else { Self::HIDDEN }
    }

    /// The smaller one of both, by the pixels.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        let pixels = |size: Self| u32::from(size.width) * u32::from(size.height);
        if pixels(other) < pixels(self) { other } else { self }
    }
}

impl WantedTracks {
    /// The size at which a track is shown.
    pub fn size_of(&self, id: &TrackId) -> ShownSize {
        let track = self.0.iter().find(|track| track.id == *id);
        track.map_or(ShownSize::HIDDEN, |track| track.size)
    }

    /// The number of tracks.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no track is shown.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<WantedTrack> for WantedTracks {
    /// The first [`MAX_TRACKS`] tracks; of several with the same id, the first.
    fn from_iter<I: IntoIterator<Item = WantedTrack>>(tracks: I) -> Self {
        let mut list = Self::default();
        tracks.into_iter().for_each(|track| list.add(track));
        list
    }
}

impl LenientList for WantedTracks {
    type Entry = WantedTrack;

    fn add(&mut self, entry: WantedTrack) {
        if !self.is_full() && self.0.iter().all(|known| known.id != entry.id) {
            self.0.push(entry);
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_TRACKS
    }
}

impl<'de> Deserialize<'de> for WantedTracks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lenient_list::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: Size = Size::new(1280, 720);

    const fn shown(width: u16, height: u16) -> ShownSize {
        ShownSize { width, height }
    }

    #[test]
    fn the_smallest_layer_is_sent_that_is_enough() {
        let layer = |width, height| shown(width, height).layer(CAMERA);
        assert_eq!(layer(1920, 1080), Some(Layer::Full));
        assert_eq!(layer(810, 460), Some(Layer::Full));
        assert_eq!(layer(640, 360), Some(Layer::Half));
        assert_eq!(layer(790, 440), Some(Layer::Half), "a quarter larger than it is");
        assert_eq!(layer(2000, 360), Some(Layer::Half), "it is shown whole");
        assert_eq!(layer(320, 180), Some(Layer::Quarter));
        assert_eq!(layer(1, 1), Some(Layer::Quarter));
        assert_eq!((layer(0, 180), layer(0, 0)), (None, None));
        assert_eq!(shown(640, 360).layer(Size::new(320, 180)), Some(Layer::Full));
    }

    #[test]
    fn sizes_are_rounded_up_to_a_few() {
        assert_eq!(shown(1, 1).rounded_up(), shown(160, 90));
        assert_eq!(shown(640, 361).rounded_up(), shown(960, 540));
        assert_eq!(shown(9999, 9).rounded_up(), shown(7680, 4320));
        assert_eq!(shown(0, 9).rounded_up(), ShownSize::HIDDEN);
        assert_eq!(shown(640, 360).min(shown(320, 180)), shown(320, 180));
        assert_eq!(ShownSize::HIDDEN.min(shown(320, 180)), ShownSize::HIDDEN);
    }

    #[test]
    fn a_list_is_written_as_it_was_read_and_other_entries_are_ignored() {
        let text = r#"[{"id":"1","width":640,"height":360}]"#;
        let list: WantedTracks = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&list).unwrap(), text);
        let [one, two] = ["1", "2"].map(|id| TrackId::new(id).unwrap());
        assert_eq!((list.size_of(&one), list.size_of(&two)), (shown(640, 360), ShownSize::HIDDEN));
        let other = r#"[7,null,{"id":"2"},{"id":"1","width":-1,"height":9},{"id":"1","width":70000,
            "height":9},{"id":"2","width":1,"height":2},{"id":"2","width":3,"height":4}]"#;
        let list: WantedTracks = serde_json::from_str(other).unwrap();
        assert_eq!((list.len(), list.size_of(&two)), (1, shown(1, 2)));
        let long: Vec<_> =
            (0..1000).map(|id| format!(r#"{{"id":"{id}","width":1,"height":1}}"#)).collect();
        let list: WantedTracks = serde_json::from_str(&format!("[{}]", long.join(","))).unwrap();
        assert_eq!(list.len(), MAX_TRACKS);
        assert!(serde_json::from_str::<WantedTracks>("{}").is_err());
    }
}
