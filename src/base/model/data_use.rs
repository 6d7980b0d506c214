//! How much data a session may use.

use serde::{Deserialize, Serialize};

use super::{Enabled, Layer, Media, ShownSize, Source};

/// How much data a session may use, as its user chose: of what is received and of what is sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataUse {
    /// As much as the path carries and is of use.
    #[default]
    Full,
    /// Video in the smallest layer only.
    Saving,
    /// No video.
    AudioOnly,
}

impl DataUse {
    /// All of them, the most first.
    pub const ALL: [Self; 3] = [Self::Full, Self::Saving, Self::AudioOnly];

    /// The size up to which received video is asked for: of a source of 1280x720 the smallest layer.
    pub fn limit(self, size: Option<ShownSize>) -> Option<ShownSize> {
        match self {
            Self::Full => size,
            Self::Saving => Some(size.unwrap_or(ShownSize::MAX).min(SAVING_SIZE)),
            Self::AudioOnly => Some(ShownSize::HIDDEN),
        }
    }

    /// The highest layer of our own video that is sent.
    pub const fn layer(self) -> Layer {
        match self {
            Self::Full => Layer::Full,
            Self::Saving | Self::AudioOnly => Layer::Quarter,
        }
    }

    /// The switches with those sources off that it does not send.
    pub fn apply(self, enabled: Enabled) -> Enabled {
        let mut enabled = enabled;
        for source in Source::ALL {
            enabled.sources[source] &= self.has_video() || source.media() != Media::Video;
        }
        enabled
    }

    /// Whether video is sent and received.
    pub const fn has_video(self) -> bool {
        match self {
            Self::Full | Self::Saving => true,
            Self::AudioOnly => false,
        }
    }
}

/// The size that is asked for while data is saved. Senders send the smallest layer that is enough.
const SAVING_SIZE: ShownSize = ShownSize { width: 320, height: 180 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PerSource, Size};

    #[test]
    fn the_smallest_layer_or_none_is_asked_for_and_sent() {
        let large = Some(ShownSize { width: 1920, height: 1080 });
        let layer =
            |chosen: DataUse, size| chosen.limit(size).map(|size| size.layer(Size::new(1280, 720)));
        assert_eq!(layer(DataUse::Full, None), None, "full size");
        for size in [None, large] {
            assert_eq!(layer(DataUse::Saving, size), Some(Some(Layer::Quarter)));
            assert_eq!(layer(DataUse::AudioOnly, size), Some(None));
        }
        let hidden = Some(ShownSize::HIDDEN);
        assert_eq!(layer(DataUse::Saving, hidden), Some(None), "what is hidden stays so");
        let sent = DataUse::ALL.map(|chosen| chosen.apply(Enabled::default()).sources);
        assert_eq!(sent[0], sent[1]);
        assert_eq!(sent[2], PerSource { camera: false, ..sent[0] });
    }
}
