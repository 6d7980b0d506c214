//! What each peer gets of an uplink.

use crate::model::{Bitrate, Layer};

/// What a peer behind the shared uplink may get. All rates are rates on the wire.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct GovernedPeer {
    /// Whose turn it is.
    pub class: PriorityClass,
    /// Who comes first within that class.
    pub precedence: Precedence,
    /// The rate of its audio.
    pub audio: Bitrate,
    /// The rates of the video layers, the smallest first, up to the highest one that it wants.
    pub layers: [Option<LayerCost>; 3],
    /// The rate of a shared screen.
    pub screen: Option<Bitrate>,
    /// The most that it could use.
    pub desired: Bitrate,
}

/// What a layer costs on the wire.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerCost {
    /// At least: with less bits, or fewer frames.
    pub least: Bitrate,
    /// With its usual rate, and all of its frames.
    pub usual: Bitrate,
}

/// Whose turn it is when the uplink is divided, the first class first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum PriorityClass {
    /// One-to-one and many-to-many sessions.
    Conference,
    /// One-to-many sessions.
    Star,
    /// One-way sessions.
    OneWay,
}

/// Who comes first within a class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Precedence {
    /// The peers of a session that a person has raised within the highest class.
    Raised,
    /// The peers of a session in which this machine's user speaks.
    Speaking,
    /// All others.
    #[default]
    Usual,
}

/// What a peer gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// The target of its estimator.
    pub target: Bitrate,
    /// The most that a probe of this peer may look for: its target, and a quarter of all that the
    /// uplink carries.
    pub probe_limit: Bitrate,
    /// The layer that was reckoned with, and whether at its whole frame rate; `None` if there is no
    /// room for video.
    pub video: Option<(Layer, bool)>,
}

impl Share {
    /// Whether both are the same, but for the bit per second of [`Self::after`].
    pub(super) const fn is_like(&self, other: &Self) -> bool {
        self.target.as_bps().abs_diff(other.target.as_bps()) <= 1
    }

    /// The share, given after another one. An estimator starts from each new share and ignores one
    /// that it has; so one that is given again differs by a bit per second.
    pub(super) fn after(self, before: Option<Self>) -> Self {
        let is_same = before.is_some_and(|before| before.target == self.target);
        let target = Bitrate::from_bps(self.target.as_bps() + u64::from(is_same));
        Self { target, ..self }
    }
}

/// The order within a class, and then who came first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank {
    pub(super) precedence: Precedence,
    pub(super) arrival: u64,
}

/// A peer keeps this part of its target free for what encoders overshoot.
const USED_SHARE: f64 = 0.95;

/// A probe looks for so much more than what all peers get together. What it proves is added at once.
pub(super) const PROBED_SHARE: f64 = 0.25;

impl PriorityClass {
    const ALL: [Self; 3] = [Self::Conference, Self::Star, Self::OneWay];

    /// The class above, for a session that a person has lifted.
    pub const fn lifted(self) -> Self {
        match self {
            Self::Conference | Self::Star => Self::Conference,
            Self::OneWay => Self::Star,
        }
    }
}

/// Divides an uplink among peers, and returns their shares in the same order.
///
/// First comes everybody's audio. Then each level is filled for all peers of a class before the
/// next: the smallest layer of all classes, then the middle layer and the screens, then the
/// captured size. In a level all get half of the frame rate before anyone gets the whole. The rest
/// makes pictures better, in the highest class first.
///
/// A proportional division by weights would give a hundred viewers more than any conference.
pub(super) fn divide(peers: &[(GovernedPeer, Rank)], sum_bps: f64) -> Vec<Share> {
    let mut division = Division::new(peers, USED_SHARE * sum_bps);
    for layer in Layer::ALL {
        for class in PriorityClass::ALL {
            division.fill(class, layer);
            if (class, layer) == (PriorityClass::Conference, Layer::Half) {
                division.fill_screens();
            }
        }
    }
    division.spread_rest();
    division.shares(PROBED_SHARE * sum_bps)
}

/// An uplink that is being divided.
struct Division<'a> {
    peers: &'a [(GovernedPeer, Rank)],
    /// The indices of the peers, in the order of their ranks.
    order: Vec<usize>,
    left: f64,
    given: Vec<Given>,
}

/// What a peer has got so far, in bits per second.
#[derive(Clone, Copy, Default)]
struct Given {
    /// Audio, a screen, and what makes pictures better.
    other: f64,
    video: f64,
    point: Option<(Layer, bool)>,
}

impl<'a> Division<'a> {
    fn new(peers: &'a [(GovernedPeer, Rank)], bps: f64) -> Self {
        let mut order: Vec<_> = (0..peers.len()).collect();
        order.sort_by_key(|index| peers[*index].1);
        let audio = |peer: &GovernedPeer| peer.audio.as_bps() as f64;
        let given = peers.iter().map(|(peer, _)| Given { other: audio(peer), ..Given::default() });
        let sum: f64 = peers.iter().map(|(peer, _)| audio(peer)).sum();
        Self { peers, order, left: (bps - sum).max(0.0), given: given.collect() }
    }

    /// Gives a layer to as many peers of a class as it fits.
    fn fill(&mut self, class: PriorityClass, layer: Layer) {
        let has_all = self.fill_at(class, layer, false);
        if has_all {
            self.fill_at(class, layer, true);
        }
    }

    /// Gives a layer at half or the whole of its frame rate. Returns whether all that want it have
    /// it.
    fn fill_at(&mut self, class: PriorityClass, layer: Layer, is_full_rate: bool) -> bool {
        let below = Layer::ALL.into_iter().rfind(|one| *one < layer);
        let mut has_all = true;
        for index in self.order.clone() {
            let (peer, _) = &self.peers[index];
            let Some(cost) = peer.layers[layer as usize].filter(|_| peer.class == class) else {
                continue;
            };
            let given = &mut self.given[index];
            // Who has no room for the layer below has none for this one.
            let has_below = below.is_none_or(|below| {
                peer.layers[below as usize].is_none()
                    || given.point.is_some_and(|(layer, _)| layer >= below)
            });
            let rate = if is_full_rate { cost.usual } else { cost.least };
            let more = (rate.as_bps() as f64 - given.video).max(0.0);
            if has_below && more <= self.left {
                self.left -= more;
                given.video += more;
                given.point = Some((layer, is_full_rate));
            } else {
                has_all = false;
            }
        }
        has_all
    }

    fn fill_screens(&mut self) {
        for index in self.order.clone() {
            let screen = self.peers[index].0.screen.map_or(0.0, |screen| screen.as_bps() as f64);
            if screen <= self.left {
                self.left -= screen;
                self.given[index].other += screen;
            }
        }
    }

    /// Gives what is left to the peers of the highest class, in equal parts as far as they can use
    /// it, and then to those of the next.
    fn spread_rest(&mut self) {
        for class in PriorityClass::ALL {
            let mut hungry: Vec<_> = (0..self.peers.len())
                .filter(|index| self.peers[*index].0.class == class)
                .map(|index| (self.room(index), index))
                .collect();
            hungry.sort_by(|one, other| one.0.total_cmp(&other.0));
            let mut waiting = hungry.len();
            for (room, index) in hungry {
                let part = room.min(self.left / waiting as f64);
                self.given[index].other += part;
                self.left -= part;
                waiting -= 1;
            }
        }
    }

    /// How much more a peer can use.
    fn room(&self, index: usize) -> f64 {
        let Given { other, video, .. } = self.given[index];
        let desired = self.peers[index].0.desired.as_bps() as f64;
        (desired - other - video).max(0.0)
    }

    fn shares(&self, probed: f64) -> Vec<Share> {
        let share = |given: &Given| {
            let target = ((given.other + given.video) / USED_SHARE).ceil();
            Share {
                target: Bitrate::from_bps(target as u64),
                probe_limit: Bitrate::from_bps((target + probed) as u64),
                video: given.point,
            }
        };
        self.given.iter().map(share).collect()
    }
}
