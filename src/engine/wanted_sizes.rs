//! At which size each received video is wanted, as it is told to the senders.

use std::{collections::BTreeMap, time::Duration};

use crate::model::{MediaTime, PeerId, PerSource, ShownSize};

/// How long a video is shown smaller, or not at all, before its sender is told. People scroll, and
/// come back to a window.
const DELAY: Duration = Duration::from_secs(2);

/// What the senders were told, and what they will be told.
#[derive(Debug, Default)]
pub(super) struct WantedSizes {
    peers: BTreeMap<PeerId, Wanted>,
}

/// `None` is full size.
type Sizes = PerSource<Option<ShownSize>>;

#[derive(Debug, Default)]
struct Wanted {
    told: Sizes,
    /// What is wanted now, and since when, if it differs.
    next: Option<(Sizes, MediaTime)>,
}

impl WantedSizes {
    /// Removes a peer connection.
    pub(super) fn remove(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Notes what is wanted on each connection. Returns what is to be told now.
    pub(super) fn update(
        &mut self,
        sizes: impl Iterator<Item = (PeerId, Sizes)>,
        now: MediaTime,
    ) -> Vec<(PeerId, Sizes)> {
        let changes = sizes.filter_map(|(peer, sizes)| {
            let sizes = sizes.map(|size| size.map(ShownSize::rounded_up));
            Some((peer, self.peers.entry(peer).or_default().update(sizes, now)?))
        });
        changes.collect()
    }

    /// When [`Self::update`] has something to tell, if nothing changes until then.
    pub(super) fn next_deadline(&self) -> Option<MediaTime> {
        self.peers.values().filter_map(|one| Some(one.next.as_ref()?.1 + DELAY)).min()
    }
}

impl Wanted {
    fn update(&mut self, sizes: Sizes, now: MediaTime) -> Option<Sizes> {
        if sizes == self.told {
            self.next = None;
            return None;
        }
        let since = self.next.as_ref().map_or(now, |(_, since)| *since);
        let grows = sizes.iter().any(|(source, size)| pixels(*size) > pixels(self.told[source]));
        if grows || now.since(since) >= DELAY {
            self.next = None;
            self.told = sizes;
            return Some(self.told);
        }
        self.next = Some((sizes, since));
        None
    }
}

/// The pixels of a size; full size has the most.
fn pixels(size: Option<ShownSize>) -> u32 {
    size.map_or(u32::MAX, |size| u32::from(size.width) * u32::from(size.height))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: ShownSize = ShownSize { width: 160, height: 90 };

    fn camera(size: ShownSize) -> Sizes {
        PerSource { camera: Some(size), microphone: None }
    }

    fn at(ms: u64) -> MediaTime {
        MediaTime::from_micros(ms * 1000)
    }

    #[test]
    fn a_larger_size_is_told_at_once_and_a_smaller_one_after_two_seconds() {
        let (mut wanted, peer) = (WantedSizes::default(), PeerId(1));
        let mut tell = |size, ms| {
            let told = wanted.update([(peer, camera(size))].into_iter(), at(ms));
            (told.first().map(|(_, sizes)| sizes.camera), wanted.next_deadline())
        };
        assert_eq!(tell(SMALL, 0), (None, Some(at(2000))), "at first it is full size");
        assert_eq!(tell(ShownSize { width: 99, ..SMALL }, 1000), (None, Some(at(2000))));
        assert_eq!(tell(SMALL, 2000), (Some(Some(SMALL)), None));
        assert_eq!(tell(ShownSize::HIDDEN, 3000), (None, Some(at(5000))));
        assert_eq!(tell(SMALL, 4000), (None, None), "it came back");
        assert_eq!(tell(ShownSize::HIDDEN, 5000), (None, Some(at(7000))));
        assert_eq!(tell(ShownSize::HIDDEN, 7000), (Some(Some(ShownSize::HIDDEN)), None));
        let large = ShownSize { width: 640, height: 360 };
        assert_eq!(tell(large, 7100), (Some(Some(large)), None));
    }

    #[test]
    fn a_connection_that_is_closed_is_forgotten() {
        let mut wanted = WantedSizes::default();
        wanted.update([(PeerId(1), camera(SMALL))].into_iter(), at(0));
        wanted.remove(PeerId(1));
        assert_eq!(wanted.next_deadline(), None);
    }
}
