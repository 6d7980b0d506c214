//! The layer of one peer over time.

use std::time::Duration;

use super::ViewerState;
use crate::model::{Bitrate, Layer, MediaTime};

/// What a layer needs on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerPoint {
    pub(super) layer: Layer,
    /// The peers that take it now.
    pub(super) takers: usize,
    /// If one peer alone takes it: its rate then follows that peer.
    pub(super) alone: Bitrate,
    /// At least, if several take it.
    pub(super) floor: Bitrate,
    /// With the peers that could take it now.
    pub(super) shared: Bitrate,
}

impl LayerPoint {
    /// What every second frame of it needs, for a peer that takes it beside others; `None` if it has
    /// no second temporal layer.
    fn base(&self) -> Option<f64> {
        match self.layer {
            // Seven frames a second are no bargain.
            Layer::Quarter => None,
            Layer::Half | Layer::Full => Some(self.shared.as_bps() as f64 * BASE_SHARE),
        }
    }
}

/// A peer, and what it gets.
#[derive(Debug)]
pub(super) struct Viewer {
    state: ViewerState,
    /// Whether its rate is a share of an uplink.
    pub(super) is_governed: bool,
    layer: Option<Layer>,
    /// Whether the next choice is like the first one.
    is_fresh: bool,
    begun: MediaTime,
    /// The share, but rising slowly: a share far above it was proved by a probe.
    slow_share: (Bitrate, MediaTime),
    /// Since when each layer has fitted, with room.
    fits_since: [Option<MediaTime>; 3],
    /// Since when each layer has been carried, if only just.
    carried_since: [Option<MediaTime>; 3],
    /// Since when the share has been too small for the smallest layer, which it has.
    short_since: Option<MediaTime>,
    /// Whether it gets every second frame only, and since when all of them have fitted again.
    is_base_only: bool,
    all_fit_since: Option<MediaTime>,
    went_up: Option<MediaTime>,
    went_down: Option<MediaTime>,
    /// How long after going down it does not go up.
    hold: Duration,
}

/// The room that a share must have before a peer gets a higher layer.
const UP_MARGIN: f64 = 1.2;

/// How long it must have it.
const UP_AFTER: Duration = Duration::from_secs(4);

/// How long a share must just carry a higher layer before it is tried.
const TRY_AFTER: Duration = Duration::from_secs(10);

/// How much of what it needs a share must have to stay: the target of a layer follows no smaller
/// fall either.
const STAY_MARGIN: f64 = 0.95;

/// The part of a layer's rate on the wire that its base layer needs: 0.62 of the payload and most of
/// the packets, as measured with OpenH264, and what it may exceed that by.
pub(super) const BASE_SHARE: f64 = 0.7;

/// How long a share must carry all frames before they are sent again. It costs no keyframe.
const ALL_FRAMES_AFTER: Duration = Duration::from_secs(2);

/// How long a peer stays down, and at most if it keeps going up and down.
const HOLD: Duration = Duration::from_secs(8);
const MAX_HOLD: Duration = Duration::from_secs(32);

/// The part of what a layer needs with which a peer stays there during a loss test.
const TEST_MARGIN: f64 = 0.7;

/// How long the share is too small for the smallest layer before there is no video: the first if it
/// is less than a third of what is needed. The estimate of a narrow path is too low for seconds
/// after each fall, since what a path carries is not seen while less is sent.
const END_AFTER: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];

/// How long there is no video then.
const END_HOLD: Duration = Duration::from_secs(3);

/// How long a peer stays down that has a share of an uplink.
const GOVERNED_HOLD: Duration = Duration::from_secs(2);

/// Down again this soon after going up: it flaps.
const FLAP: Duration = Duration::from_secs(10);

/// How long the first probes take. Meanwhile the share is a guess, and the first picture is one of
/// the middle layer.
const START: Duration = Duration::from_secs(1);

/// The factor above the slow share that only a probe reaches, and by which the slow share rises in a
/// second: an estimate without probes rises by 8 % in a second.
const PROVED: f64 = 1.3;
const SLOW_RISE: f64 = 1.1;

impl Viewer {
    pub(super) fn new(now: MediaTime) -> Self {
        Self {
            state: ViewerState { limit: None, share: None, proved: None, is_testing: false },
            is_governed: false,
            layer: None,
            is_fresh: true,
            begun: now,
            slow_share: (Bitrate::default(), now),
            fits_since: [None; 3],
            carried_since: [None; 3],
            short_since: None,
            is_base_only: false,
            all_fit_since: None,
            went_up: None,
            went_down: None,
            hold: HOLD,
        }
    }

    pub(super) fn set(&mut self, state: ViewerState, now: MediaTime) {
        let share = state.share.unwrap_or_default();
        if self.state.share.is_none() || self.state.limit.is_none() {
            self.slow_share = (share, now);
            self.begun = now;
        }
        if state.limit.is_none() {
            self.went_down = None;
        }
        self.state = state;
    }

    /// The layers are others: what is known of the old ones says nothing.
    pub(super) fn choose_afresh(&mut self) {
        self.is_fresh = true;
        (self.fits_since, self.carried_since) = ([None; 3], [None; 3]);
    }

    pub(super) fn layer(&self) -> Option<Layer> {
        self.layer
    }

    /// Whether it gets the base layer of its layer only: every second frame.
    pub(super) fn is_base_only(&self) -> bool {
        self.is_base_only
    }

    pub(super) fn limit(&self) -> Option<Layer> {
        self.state.limit
    }

    pub(super) fn share(&self) -> Option<Bitrate> {
        self.state.share
    }

    /// The part of its share that is proved.
    pub(super) fn proved(&self) -> Option<Bitrate> {
        self.state.proved
    }

    /// Chooses its layer. Returns whether it is another one.
    pub(super) fn choose(
        &mut self,
        points: &[LayerPoint; 3],
        ceiling: Layer,
        now: MediaTime,
    ) -> bool {
        let before = self.layer;
        let limit = self.state.limit.map(|limit| limit.min(ceiling));
        self.layer = match self.state.share {
            None => limit,
            Some(share) => self.fitting(share, points, now).min(limit),
        };
        if self.layer != before {
            (self.is_base_only, self.all_fit_since) = (false, None);
        }
        self.choose_frames(points, now);
        let hits_limit = before > limit;
        if self.layer < before && !hits_limit {
            let flaps = self.went_up.is_some_and(|up| now.since(up) < FLAP);
            let least = if self.layer.is_none() { END_HOLD } else { HOLD };
            self.hold = if flaps { (2 * self.hold).min(MAX_HOLD) } else { least };
            self.went_down = Some(now);
        } else if self.layer > before && (before.is_some() || self.went_down.is_some()) {
            self.went_up = Some(now);
        }
        self.layer != before
    }

    /// The best layer that the share carries, with what hysteresis demands.
    fn fitting(
        &mut self,
        share: Bitrate,
        points: &[LayerPoint; 3],
        now: MediaTime,
    ) -> Option<Layer> {
        let is_proved = self.follow_share(share, now);
        // What a peer does not use of its share is lost for all.
        let hold = match self.layer {
            _ if self.is_governed => GOVERNED_HOLD,
            // Without any video, waiting longer gains nothing.
            None => self.hold.min(HOLD),
            Some(_) => self.hold,
        };
        let is_held = self.went_down.is_some_and(|down| now.since(down) < hold);
        let is_first = std::mem::take(&mut self.is_fresh) || (self.layer.is_none() && !is_held);
        let mut best = None;
        for point in points {
            let fits_with_room = self.note_fit(point, share, now);
            let fits = if self.layer >= Some(point.layer) {
                self.may_stay(point, share, now)
            } else if is_first {
                share.as_bps() as f64 >= self.needed_at_first(point, now)
            } else {
                let has_waited = fits_with_room.is_some_and(|at| now.since(at) >= UP_AFTER);
                let is_worth_trying = self.note_carried(point, share, now);
                let has_room = fits_with_room.is_some() && (has_waited || is_proved);
                !is_held && (has_room || is_worth_trying)
            };
            if fits {
                best = Some(point.layer);
            }
        }
        best
    }

    /// Chooses whether it gets all frames of its layer. They come back after a while.
    fn choose_frames(&mut self, points: &[LayerPoint; 3], now: MediaTime) {
        let point = points.iter().find(|point| Some(point.layer) == self.layer);
        let all_fit = match (point, self.state.share) {
            (Some(point), Some(share)) if self.has_others(point) => {
                share.as_bps() as f64 >= self.needed_to_stay(point, now) * STAY_MARGIN
            }
            _ => true,
        };
        self.all_fit_since = all_fit.then(|| self.all_fit_since.unwrap_or(now));
        let is_lasting = self.all_fit_since.is_some_and(|at| now.since(at) >= ALL_FRAMES_AFTER);
        let is_alone = point.is_none_or(|point| !self.has_others(point));
        self.is_base_only = !all_fit || (self.is_base_only && !is_lasting && !is_alone);
    }

    /// Whether it may stay in a layer. The smallest one is not given up at once.
    fn may_stay(&mut self, point: &LayerPoint, share: Bitrate, now: MediaTime) -> bool {
        let margin = if self.state.is_testing { TEST_MARGIN } else { 1.0 };
        let is_enough = share.as_bps() as f64 >= self.least_to_stay(point, now) * margin;
        match point.layer {
            Layer::Half | Layer::Full => is_enough,
            Layer::Quarter => {
                let since = (!is_enough).then(|| self.short_since.unwrap_or(now));
                self.short_since = since;
                let has_third = share.as_bps() >= point.alone.as_bps() / 3;
                let patience = END_AFTER[usize::from(has_third)];
                since.is_none_or(|since| now.since(since) < patience)
            }
        }
    }

    /// The least share with which it stays in a layer: beside others, every second frame is enough.
    fn least_to_stay(&self, point: &LayerPoint, now: MediaTime) -> f64 {
        let all = self.needed_to_stay(point, now) * STAY_MARGIN;
        let base =
            point.base().filter(|_| self.layer == Some(point.layer) && self.has_others(point));
        base.map_or(all, |base| base.min(all))
    }

    /// Whether others take a layer, too, so that its rate does not follow this peer.
    fn has_others(&self, point: &LayerPoint) -> bool {
        point.takers > usize::from(self.layer == Some(point.layer))
    }

    /// Since when the share carries a layer with room to spare.
    fn note_fit(
        &mut self,
        point: &LayerPoint,
        share: Bitrate,
        now: MediaTime,
    ) -> Option<MediaTime> {
        // A share of the uplink is exact: it was given for a layer.
        let margin = if self.is_governed { STAY_MARGIN } else { UP_MARGIN };
        let has =
            |rate: Bitrate, margin: f64| share.as_bps() as f64 >= rate.as_bps() as f64 * margin;
        let fits =
            has(point.floor, margin) && (point.takers == 0 || has(point.shared, margin.min(1.0)));
        let since = &mut self.fits_since[point.layer as usize];
        *since = fits.then(|| since.unwrap_or(now));
        *since
    }

    /// Whether the share has carried a layer for long. An estimate does not grow far beyond what is
    /// sent, and without probes the smaller layer cannot prove more: then the larger one is tried.
    fn note_carried(&mut self, point: &LayerPoint, share: Bitrate, now: MediaTime) -> bool {
        let needed = match (point.takers, point.layer) {
            (0, Layer::Quarter | Layer::Half) => point.alone,
            (0, Layer::Full) => point.floor,
            _ => point.shared,
        };
        let carries = share.as_bps() as f64 >= needed.as_bps() as f64 * STAY_MARGIN;
        let since = &mut self.carried_since[point.layer as usize];
        *since = carries.then(|| since.unwrap_or(now));
        since.is_some_and(|at| now.since(at) >= TRY_AFTER)
    }

    fn needed_at_first(&self, point: &LayerPoint, now: MediaTime) -> f64 {
        let is_starting = now.since(self.begun) < START && point.layer < Layer::Full;
        let needed = match (point.takers, point.layer) {
            _ if is_starting => point.alone,
            (0, Layer::Quarter) => point.alone,
            (0, Layer::Half | Layer::Full) => point.floor,
            _ => point.shared,
        };
        needed.as_bps() as f64
    }

    /// What it needs to take a layer. If it is alone there, the layer follows it.
    fn needed_to_stay(&self, point: &LayerPoint, now: MediaTime) -> f64 {
        let others = point.takers - usize::from(self.layer == Some(point.layer)).min(point.takers);
        let is_starting = now.since(self.begun) < START && point.layer < Layer::Full;
        let needed = if others == 0 || is_starting { point.alone } else { point.shared };
        needed.as_bps() as f64
    }

    /// Returns whether the share is far above what it was lately.
    fn follow_share(&mut self, share: Bitrate, now: MediaTime) -> bool {
        let (slow, at) = self.slow_share;
        let seconds = now.since(at).as_secs_f64();
        let risen = Bitrate::from_bps((slow.as_bps() as f64 * SLOW_RISE.powf(seconds)) as u64);
        self.slow_share = (share.min(risen), now);
        share.as_bps() as f64 > slow.as_bps() as f64 * PROVED
    }
}
