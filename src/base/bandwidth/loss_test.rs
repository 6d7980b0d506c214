//! Loss: is it the rate that loses packets, or the path whatever the rate?

use std::{collections::VecDeque, ops::Range, time::Duration};

use super::history::Outcome;
use crate::model::MediaTime;

/// Tells packets that are lost because the rate is too high from those that the path loses anyway,
/// by one test: it sends slower for a moment. If that halves the loss, the rate was too high, and
/// the lower one stays. If not, the rate returns at once.
///
/// libwebrtc's second loss controller weighs both by likelihood and gives up rate where the path
/// loses 10 to 30 % at random. The test keeps 1.5 Mbit/s at 10 % on an ample link where that
/// controller falls to 1.3, and 600 kbit/s at 20 % where it falls to 300.
#[derive(Debug, Default)]
pub(super) struct LossTest {
    bins: VecDeque<Bin>,
    /// The loss of the last second, and of the whole memory.
    recent: Share,
    standing: Share,
    test: Option<Test>,
    /// The rate that a test has proved to lose less; it grows again.
    limit: Option<f64>,
    /// The rate of the last test.
    found: f64,
    /// What that test found, until it is checked again.
    finding: Option<Finding>,
    /// The number of the newest packet that was lost.
    last_lost: Option<u64>,
    /// When a test ended last.
    found_at: Option<MediaTime>,
    updated_at: Option<MediaTime>,
    /// What applies now, if the loss is the limit.
    bps: Option<f64>,
}

/// Packets that left within a twentieth of a second.
#[derive(Clone, Copy, Debug, Default)]
struct Bin {
    start: u64,
    packets: u32,
    lost: u32,
    /// The runs of lost packets that began in it.
    bursts: u32,
}

#[derive(Clone, Copy, Debug)]
struct Test {
    started_at: MediaTime,
    /// The loss that is to be halved, and how many packets the path loses in a row.
    loss: f64,
    burst: f64,
    bps: f64,
}

/// A test that found less loss.
#[derive(Clone, Copy, Debug)]
struct Finding {
    /// The loss that was halved, and since when, in microseconds.
    loss: f64,
    since: u64,
    found_at: MediaTime,
}

/// The loss among some packets.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    loss: f64,
    packets: u32,
    /// The mean number of packets that were lost in a row.
    burst: f64,
}

/// What the test has to know at a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct LossConditions {
    /// The rate that the delay allows.
    pub(super) delay_bps: f64,
    /// The rate that arrives.
    pub(super) acknowledged: Option<f64>,
    pub(super) round_trip: Duration,
    pub(super) is_application_limited: bool,
}

const BIN_US: u64 = 50_000;

/// The memory, and the part of it that counts as now.
const MEMORY: Duration = Duration::from_secs(11);
const RECENT: Duration = Duration::from_secs(1);

/// Whatever the reason of loss, above 5 % the rate is this, divided by the excess: 667 kbit/s at
/// 20 %. (libwebrtc's upper bound.)
const CAP_BPS: f64 = 100e3;
const CAP_FROM: f64 = 0.05;

/// A rise of the loss that is tested: the larger one of this, and five standard deviations.
const RISE: f64 = 0.04;
const DEVIATIONS: f64 = 5.0;

/// Loss above this is tested again after each such time.
const STANDING_LOSS: f64 = 0.03;
const TEST_INTERVAL: Duration = Duration::from_secs(15);

/// Fewer lost packets do not tell how long bursts are, and less loss may all be that of a queue
/// that overflows now and then.
const LEAST_LOST: u32 = 10;
const LITTLE_LOSS: f64 = 0.02;

/// A test must show a change of more than so many standard deviations.
const CHANCE: f64 = 1.5;

/// How long after a test its finding is checked again. The rate has not grown back by then.
const RECHECK_AFTER: Duration = Duration::from_millis(1500);

/// The rate of a test, as a part of what arrives without the path's own loss.
const TEST_RATE: f64 = 0.85;

/// How long a test lasts, with how many packets.
const TEST_TIMES: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(2));
const TEST_PACKETS: u32 = 40;

/// What a rate that was found by a test gains each second.
const GROWTH: f64 = 1.08;

/// So far above the rate of its test, a limit is a seventh above the rate that lost packets. If
/// none are lost there, the path is another one, or they were lost by chance.
const DISPROVED: f64 = 1.35;

impl LossTest {
    /// The rate that the loss allows, where that is less than the delay allows.
    pub(super) const fn bps(&self) -> Option<f64> {
        self.bps
    }

    /// Whether a test runs: its loss must not be changed by a probe.
    pub(super) const fn is_testing(&self) -> bool {
        self.test.is_some()
    }

    /// Whether a test has shown that a queue at the bottleneck overflows.
    pub(super) const fn is_confirmed(&self) -> bool {
        self.limit.is_some() && self.test.is_none()
    }

    /// The part of the packets of the last second that was lost.
    pub(super) const fn loss(&self) -> f64 {
        self.recent.loss
    }

    /// Follows a report.
    pub(super) fn update(&mut self, outcome: &Outcome, conditions: &LossConditions) {
        self.count(outcome);
        self.recent = self.share(RECENT, Duration::ZERO);
        self.standing = self.share(MEMORY, Duration::ZERO);
        let Some(last) = self.last() else { return };
        self.recheck(last);
        if let Some(test) = self.test {
            self.judge(test, last, conditions);
        } else {
            self.consider(last, conditions);
        }
        self.updated_at = Some(last);
        let delay = conditions.delay_bps;
        let tested = self.test.map(|test| test.bps).or(self.limit);
        let bps = tested.unwrap_or(f64::INFINITY).min(self.cap_bps());
        self.bps = (bps < delay).then_some(bps);
    }

    fn count(&mut self, outcome: &Outcome) {
        for packet in &outcome.received {
            let bin = self.bin(packet.sent.at);
            // A packet that was only late is no longer lost.
            let (packets, lost) = if packet.was_lost { (0, 1) } else { (1, 0) };
            bin.packets += packets;
            bin.lost = bin.lost.saturating_sub(lost);
        }
        for packet in &outcome.lost {
            let before = self.last_lost.replace(packet.number);
            let is_same_burst = before.is_some_and(|before| before + 1 == packet.number);
            let bin = self.bin(packet.at);
            bin.packets += 1;
            bin.lost += 1;
            bin.bursts += u32::from(!is_same_burst);
        }
        let most = (MEMORY.as_micros() as u64).div_ceil(BIN_US) as usize;
        let last = self.bins.back().map_or(0, |bin| bin.start);
        while self.bins.front().is_some_and(|bin| (last - bin.start) / BIN_US >= most as u64) {
            self.bins.pop_front();
        }
    }

    /// The bin of packets that left then.
    fn bin(&mut self, at: MediaTime) -> &mut Bin {
        let start = at.as_micros() / BIN_US * BIN_US;
        let index = self.bins.partition_point(|bin| bin.start < start);
        if self.bins.get(index).is_none_or(|bin| bin.start != start) {
            self.bins.insert(index, Bin { start, ..Bin::default() });
        }
        &mut self.bins[index]
    }

    /// When the newest packet left of which something is known.
    fn last(&self) -> Option<MediaTime> {
        self.bins.back().map(|bin| MediaTime::from_micros(bin.start))
    }

    /// The loss among packets that left from the first to the second time before the last one.
    fn share(&self, from: Duration, to: Duration) -> Share {
        let last = self.bins.back().map_or(0, |bin| bin.start + BIN_US);
        let after = last.saturating_sub(from.as_micros() as u64);
        let before = last.saturating_sub(to.as_micros() as u64);
        self.share_of(after..before)
    }

    /// The loss among packets that left within these microseconds.
    fn share_of(&self, times: Range<u64>) -> Share {
        let index = |time| self.bins.partition_point(|bin| bin.start < time);
        let bins = self.bins.range(index(times.start)..index(times.end));
        let sum = bins.fold(Bin::default(), |sum, bin| Bin {
            packets: sum.packets + bin.packets,
            lost: sum.lost + bin.lost,
            bursts: sum.bursts + bin.bursts,
            ..sum
        });
        let burst = f64::from(sum.lost) / f64::from(sum.bursts.max(1));
        let loss = f64::from(sum.lost) / f64::from(sum.packets.max(1));
        let is_known = sum.lost >= LEAST_LOST && loss >= LITTLE_LOSS;
        let burst = if is_known { burst.max(1.0) } else { 1.0 };
        Share { loss, packets: sum.packets, burst }
    }

    fn cap_bps(&self) -> f64 {
        let Share { loss, packets, .. } = self.standing;
        let is_known = loss > CAP_FROM && packets >= 100;
        if is_known { CAP_BPS / (loss - CAP_FROM) } else { f64::INFINITY }
    }

    /// Ends a test once enough packets of the lower rate are known.
    fn judge(&mut self, test: Test, last: MediaTime, conditions: &LossConditions) {
        let effect = (test.started_at + conditions.round_trip / 2).as_micros();
        let share = self.share_of(effect + 1..u64::MAX);
        let (least, most) = TEST_TIMES;
        let least = least.max(conditions.round_trip + Duration::from_millis(600));
        let elapsed = last.since(test.started_at);
        if elapsed > least && share.packets >= TEST_PACKETS || elapsed > most.max(least) {
            let chance = CHANCE * deviation(test.loss, share.packets, test.burst);
            let is_less = share.loss < 0.5 * test.loss && share.loss + chance < test.loss;
            self.limit = is_less.then_some(test.bps);
            self.finding =
                is_less.then_some(Finding { loss: test.loss, since: effect + 1, found_at: last });
            self.found = test.bps;
            self.test = None;
            self.found_at = Some(last);
        }
    }

    /// Checks a finding again. Of 120 packets, of which the path loses 5 % whatever the rate, a
    /// test finds half as many lost once in sixteen times, and the limit then grew for ten seconds.
    fn recheck(&mut self, last: MediaTime) {
        let is_due = |finding: &Finding| last.since(finding.found_at) >= RECHECK_AFTER;
        if let Some(finding) = self.finding.take_if(|finding| is_due(finding)) {
            let share = self.share_of(finding.since..u64::MAX);
            if share.loss >= 0.5 * finding.loss {
                self.limit = None;
            }
        }
    }

    /// Starts a test if the loss has risen or stays, and else lets the limit grow.
    fn consider(&mut self, last: MediaTime, conditions: &LossConditions) {
        self.found_at.get_or_insert(last);
        // What is sent too slowly to matter cannot be tested by sending slower.
        let acknowledged = conditions.acknowledged.filter(|_| !conditions.is_application_limited);
        self.test = acknowledged.and_then(|bps| self.planned(bps, last, conditions.round_trip));
        if self.test.is_none() {
            self.grow(last, conditions.delay_bps);
        }
    }

    fn planned(&self, acknowledged: f64, last: MediaTime, round_trip: Duration) -> Option<Test> {
        let (recent, standing) = (self.recent, self.standing);
        if recent.packets < 20 || standing.loss == 0.0 {
            return None;
        }
        let before = self.share(MEMORY, RECENT);
        let known_loss = if before.packets >= 50 { before.loss } else { 0.0 };
        let chance = DEVIATIONS * deviation(known_loss, recent.packets, before.burst);
        let has_risen = recent.loss > known_loss + RISE.max(chance)
            && self.is_past(round_trip + Duration::from_secs(1), last);
        let stays = standing.loss > STANDING_LOSS
            && standing.packets > 200
            && self.is_past(TEST_INTERVAL, last);
        (has_risen || stays).then(|| Test {
            started_at: last,
            loss: standing.loss.max(self.share(2 * RECENT, Duration::ZERO).loss),
            burst: before.burst,
            bps: TEST_RATE * acknowledged / (1.0 - known_loss.min(0.5)),
        })
    }

    /// Whether a time has passed since the last test.
    fn is_past(&self, time: Duration, last: MediaTime) -> bool {
        self.found_at.is_none_or(|at| last.since(at) > time)
    }

    fn grow(&mut self, last: MediaTime, delay_bps: f64) {
        let elapsed = self.updated_at.map_or(0.0, |at| last.since(at).as_secs_f64().min(1.0));
        if self.is_past(Duration::from_millis(500), last) {
            self.limit = self.limit.map(|limit| limit * GROWTH.powf(elapsed));
        }
        let is_disproved =
            |limit: f64| limit > DISPROVED * self.found && self.recent.loss < LITTLE_LOSS;
        self.limit = self.limit.filter(|limit| *limit <= 1.5 * delay_bps && !is_disproved(*limit));
    }
}

/// The standard deviation of the loss among so many packets. Losses in bursts scatter more: by the
/// factor of a Markov chain whose correlation is 1 - 1/burst.
fn deviation(loss: f64, packets: u32, burst: f64) -> f64 {
    let loss = loss.max(0.01);
    (loss * (1.0 - loss) * (2.0 * burst - 1.0) / f64::from(packets.max(1))).sqrt()
}
