//! The data channels of a peer connection, and a table with one value for each of them.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

/// A data channel of a peer connection, by its purpose.
///
/// A new channel (for files) is a variant here, its rows below and a field of [`PerChannel`]. The
/// compiler then lists every place that has to decide about it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataChannelKind {
    /// Chat messages.
    Chat,
}

impl DataChannelKind {
    /// All channels, in the order of their variants.
    pub const ALL: [Self; 1] = [Self::Chat];

    /// The label on the wire.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Chat => "quintet",
        }
    }

    /// The stream id (RFC 8831), which is fixed in advance: both ends create the channel, whichever
    /// offers.
    pub const fn stream(self) -> u16 {
        match self {
            Self::Chat => 0,
        }
    }
}

/// One value for each [`DataChannelKind`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize)]
pub struct PerChannel<T> {
    /// The value of the chat.
    pub chat: T,
}

impl<T> PerChannel<T> {
    /// The channels and their values, in the order of [`DataChannelKind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (DataChannelKind, &T)> {
        DataChannelKind::ALL.into_iter().map(|channel| (channel, &self[channel]))
    }
}

impl PerChannel<bool> {
    /// A table in which every value is `true`.
    pub const ALL: Self = Self { chat: true };

    /// A table in which every value is `false`.
    pub const NONE: Self = Self { chat: false };

    /// Whether any value is `true`.
    pub fn any(self) -> bool {
        self.iter().any(|(_, value)| *value)
    }
}

impl<T> Index<DataChannelKind> for PerChannel<T> {
    type Output = T;

    fn index(&self, channel: DataChannelKind) -> &T {
        match channel {
            DataChannelKind::Chat => &self.chat,
        }
    }
}

impl<T> IndexMut<DataChannelKind> for PerChannel<T> {
    fn index_mut(&mut self, channel: DataChannelKind) -> &mut T {
        match channel {
            DataChannelKind::Chat => &mut self.chat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_channel_has_its_own_label_and_stream() {
        let streams: std::collections::BTreeSet<_> =
            DataChannelKind::ALL.into_iter().map(DataChannelKind::stream).collect();
        assert_eq!(streams.len(), DataChannelKind::ALL.len());
        let labels: std::collections::BTreeSet<_> =
            DataChannelKind::ALL.into_iter().map(DataChannelKind::label).collect();
        assert_eq!(labels.len(), DataChannelKind::ALL.len());
        assert!(PerChannel::ALL.any() && !PerChannel::NONE.any());
    }
}
