//! The sources that a program captures, the devices that it uses, and tables with one value for
//! each of them.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

use super::Media;

/// A source of media that this program captures and sends.
///
/// A new source (a screen, a file, a mix of the program) is a variant here and a field of
/// [`PerSource`]. The compiler then lists every place that has to decide about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The source of video.
    Camera,
    /// The source of audio.
    Microphone,
}

impl Source {
    /// All sources, in the order of their variants.
    pub const ALL: [Self; 2] = [Self::Camera, Self::Microphone];

    /// All sources, in the order of their media sections in an offer. A new one comes last, so that
    /// earlier versions find theirs.
    pub const SECTIONS: [Self; Self::ALL.len()] = [Self::Microphone, Self::Camera];

    /// The position of the media section among those of the same medium.
    pub fn section_index(self) -> usize {
        let earlier = Self::SECTIONS.into_iter().take_while(|source| *source != self);
        earlier.filter(|source| source.media() == self.media()).count()
    }

    /// The name in a sentence, on the command line and on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Camera => "camera",
            Self::Microphone => "microphone",
        }
    }

    /// Whether the source is on in a session that is opened or joined. One that could show more than
    /// the user means to show, such as a screen, must not be.
    pub const fn is_on_by_default(self) -> bool {
        match self {
            Self::Camera | Self::Microphone => true,
        }
    }

    /// The medium that the source sends.
    pub const fn media(self) -> Media {
        match self {
            Self::Camera => Media::Video,
            Self::Microphone => Media::Audio,
        }
    }
}

/// One value for each [`Source`]. The fields are named, so that no two sources can be confused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PerSource<T> {
    /// The value of the camera.
    pub camera: T,
    /// The value of the microphone.
    pub microphone: T,
}

impl<T> PerSource<T> {
    /// A table whose values are computed, in the order of [`Source::ALL`].
    pub fn from_fn(mut value: impl FnMut(Source) -> T) -> Self {
        let [camera, microphone] = Source::ALL.map(&mut value);
        Self { camera, microphone }
    }

    /// A table whose values are computed, unless one of them cannot be.
    ///
    /// # Errors
    /// The first error of `value`.
    pub fn try_from_fn<E>(mut value: impl FnMut(Source) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { camera: value(Source::Camera)?, microphone: value(Source::Microphone)? })
    }

    /// The value of a source.
    pub const fn get(&self, source: Source) -> &T {
        match source {
            Source::Camera => &self.camera,
            Source::Microphone => &self.microphone,
        }
    }

    /// The value of a source, to be changed.
    pub const fn get_mut(&mut self, source: Source) -> &mut T {
        match source {
            Source::Camera => &mut self.camera,
            Source::Microphone => &mut self.microphone,
        }
    }

    /// The sources and their values, in the order of [`Source::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Source, &T)> {
        Source::ALL.into_iter().map(|source| (source, self.get(source)))
    }

    /// The same table with every value replaced.
    #[must_use]
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> PerSource<U> {
        let Self { camera, microphone } = self;
        PerSource { camera: change(camera), microphone: change(microphone) }
    }
}

impl PerSource<bool> {
    /// A table in which every value is `true`.
    pub const ALL: Self = Self { camera: true, microphone: true };

    /// A table in which every value is `false`.
    pub const NONE: Self = Self { camera: false, microphone: false };

    /// The sources that are `true` in both tables.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            camera: self.camera && other.camera,
            microphone: self.microphone && other.microphone,
        }
    }

    /// The sources that are `true` in at least one of the tables.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self {
            camera: self.camera || other.camera,
            microphone: self.microphone || other.microphone,
        }
    }

    /// Whether any value is `true`.
    pub fn any(self) -> bool {
        self.iter().any(|(_, value)| *value)
    }
}

impl<T> Index<Source> for PerSource<T> {
    type Output = T;

    fn index(&self, source: Source) -> &T {
        self.get(source)
    }
}

impl<T> IndexMut<Source> for PerSource<T> {
    fn index_mut(&mut self, source: Source) -> &mut T {
        self.get_mut(source)
    }
}

/// A kind of local device: a source, or the speaker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// The device of a source.
    Source(Source),
    /// The output for received audio.
    Speaker,
}

impl DeviceKind {
    /// The source of video.
    pub const CAMERA: Self = Self::Source(Source::Camera);
    /// The source of audio.
    pub const MICROPHONE: Self = Self::Source(Source::Microphone);

    /// The name in a sentence and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source(source) => source.name(),
            Self::Speaker => "speaker",
        }
    }
}

/// One value for each [`DeviceKind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PerDevice<T> {
    /// The values of the sources.
    pub sources: PerSource<T>,
    /// The value of the speaker.
    pub speaker: T,
}

impl<T> PerDevice<T> {
    /// A table whose values are computed: first the sources, then the speaker.
    pub fn from_fn(mut value: impl FnMut(DeviceKind) -> T) -> Self {
        let sources = PerSource::from_fn(|source| value(DeviceKind::Source(source)));
        Self { sources, speaker: value(DeviceKind::Speaker) }
    }

    /// The devices and their values, first the sources.
    pub fn iter(&self) -> impl Iterator<Item = (DeviceKind, &T)> {
        let sources =
            self.sources.iter().map(|(source, value)| (DeviceKind::Source(source), value));
        sources.chain([(DeviceKind::Speaker, &self.speaker)])
    }
}

impl<T> Index<DeviceKind> for PerDevice<T> {
    type Output = T;

    fn index(&self, device: DeviceKind) -> &T {
        match device {
            DeviceKind::Source(source) => &self.sources[source],
            DeviceKind::Speaker => &self.speaker,
        }
    }
}

impl<T> IndexMut<DeviceKind> for PerDevice<T> {
    fn index_mut(&mut self, device: DeviceKind) -> &mut T {
        match device {
            DeviceKind::Source(source) => &mut self.sources[source],
            DeviceKind::Speaker => &mut self.speaker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_gives_each_source_its_own_value() {
        let names = PerSource::from_fn(Source::name);
        assert_eq!((names.camera, names.microphone), ("camera", "microphone"));
        for (source, name) in names.iter() {
            assert_eq!((*name, names[source]), (source.name(), source.name()));
        }
        let mut lengths = names.map(str::len);
        lengths[Source::Camera] += 1;
        assert_eq!(lengths, PerSource { camera: 7, microphone: 10 });
    }

    #[test]
    fn tables_of_truth_values_are_combined_source_by_source() {
        let camera = PerSource { camera: true, microphone: false };
        let microphone = PerSource { camera: false, microphone: true };
        assert_eq!(camera.and(microphone), PerSource::NONE);
        assert_eq!(camera.or(microphone), PerSource::ALL);
        assert_eq!(
            (camera.and(PerSource::ALL), microphone.or(PerSource::NONE)),
            (camera, microphone)
        );
        assert!(microphone.any() && camera.any() && !PerSource::NONE.any());
    }

    #[test]
    fn a_table_of_devices_has_the_sources_and_the_speaker() {
        let mut names = PerDevice::from_fn(DeviceKind::name);
        let listed: Vec<_> = names.iter().map(|(device, name)| (device.name(), *name)).collect();
        let expected = ["camera", "microphone", "speaker"].map(|name| (name, name));
        assert_eq!(listed, expected);
        names[DeviceKind::MICROPHONE] = "none";
        assert_eq!((names.sources.microphone, names[DeviceKind::Speaker]), ("none", "speaker"));
    }
}
