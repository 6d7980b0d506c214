//! Sound and picture of one participant together: how late each is, and which waits for the other.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{playout_clock::PlayoutTime, remote_clock::RemoteClock};
use crate::{
    media::{AUDIO_RATE, SenderReport, SenderReports},
    model::MediaTime,
};

/// What the player of a sound tells the player of the video of the same participant, and what that
/// one asks of it. Clones are the same. Any thread may use it.
#[derive(Clone, Debug, Default)]
pub struct SoundClock(Arc<Mutex<SoundState>>);

#[derive(Debug, Default)]
struct SoundState {
    /// The microseconds from capture, on the sender's wall clock, until the sound is heard, on
    /// ours, and when that was known last.
    delay: Option<(i64, MediaTime)>,
    /// The least delay of the jitter buffer that the video asks for.
    min_delay: Duration,
}

impl SoundClock {
    /// Without sound for so long, a participant is silent: their video waits for none.
    const SILENCE: Duration = Duration::from_millis(500);

    fn lock(&self) -> MutexGuard<'_, SoundState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn delay(&self, now: MediaTime) -> Option<i64> {
        let (micros, at) = self.lock().delay?;
        (now.since(at) < Self::SILENCE).then_some(micros)
    }
}

/// The side of the sound: notes when each block is heard.
#[derive(Debug)]
pub struct HeardSound {
    ssrc: u32,
    reports: SenderReports,
    clock: RemoteClock,
    /// Smoothed: blocks are mixed a few milliseconds early or late.
    delay: Option<f64>,
    shared: SoundClock,
}

impl HeardSound {
    /// The weight of a new block: two thirds of a second count.
    const WEIGHT: f64 = 1.0 / 64.0;

    /// A larger jump, in microseconds, is followed at once: the jitter buffer or the device has
    /// skipped.
    const MAX_JUMP: f64 = 50_000.0;

    /// For the stream of that SSRC, whose sender reports are among these.
    pub fn new(ssrc: u32, reports: SenderReports) -> Self {
        let (clock, shared) = (RemoteClock::new(AUDIO_RATE), SoundClock::default());
        Self { ssrc, reports, clock, delay: None, shared }
    }

    /// What the player of the video needs.
    pub fn clock(&self) -> SoundClock {
        self.shared.clone()
    }

    /// The least delay of the jitter buffer that the video asks for.
    pub fn min_delay(&self) -> Duration {
        self.shared.lock().min_delay
    }

    /// Notes that the sample with this RTP timestamp is heard at `heard_at`, ring and device
    /// included.
    pub fn on_block(&mut self, timestamp: u32, heard_at: MediaTime) {
        if let Some(report) = self.reports.latest(self.ssrc) {
            self.clock.record(report);
        }
        let Some(captured) = self.clock.capture_micros(timestamp) else { return };
        let delay = (heard_at.as_micros() as i64 - captured) as f64;
        let smooth = match self.delay {
            Some(before) if (delay - before).abs() < Self::MAX_JUMP => {
                before + (delay - before) * Self::WEIGHT
            }
            Some(_) | None => delay,
        };
        self.delay = Some(smooth);
        self.shared.lock().delay = Some((smooth as i64, heard_at));
    }
}

/// The side of the video: tells when the sound of a frame is heard, and asks sound to wait for
/// video that is much later.
///
/// Video waits for sound, and sound for video only if it must: a delay of sound disturbs a
/// conversation more. So sound is up to [`Self::MAX_LEAD`] early before it is held, which leaves it
/// within the 40 ms of EBU R37, and is let go again when the video is early.
#[derive(Debug)]
pub(super) struct LipSync {
    clock: RemoteClock,
    sound: Option<SoundClock>,
    /// When sound was asked to wait last.
    asked_at: Option<MediaTime>,
}

impl LipSync {
    /// How early sound may be, in microseconds, before it is held.
    const MAX_LEAD: i64 = 35_000;

    /// How early it then is: what is asked for is half of the way there.
    const USUAL_LEAD: i64 = 15_000;

    /// How much may be asked for at once, in microseconds, and how often.
    const STEP: i64 = 80_000;
    const INTERVAL: Duration = Duration::from_secs(1);

    /// The most that sound is held.
    const MAX_HELD: i64 = 120_000;

    /// For a stream of video.
    pub(super) fn new() -> Self {
        Self { clock: RemoteClock::new(90_000), sound: None, asked_at: None }
    }

    /// Takes the newest sender report of the video.
    pub(super) fn on_report(&mut self, report: Option<SenderReport>) {
        if let Some(report) = report {
            self.clock.record(report);
        }
    }

    /// Sets the sound of the same participant; `None` if none of it is heard.
    pub(super) fn set_sound(&mut self, sound: Option<SoundClock>) {
        let same = match (&self.sound, &sound) {
            (Some(before), Some(after)) => Arc::ptr_eq(&before.0, &after.0),
            (before, after) => before.is_none() && after.is_none(),
        };
        if !same {
            self.release();
            (self.sound, self.asked_at) = (sound, None);
        }
    }

    /// When the sound is heard that was captured together with the frame of that timestamp; `None`
    /// without sound, and before the clocks are known.
    pub(super) fn heard_at(&self, timestamp: u32, now: MediaTime) -> Option<MediaTime> {
        let delay = self.sound.as_ref()?.delay(now)?;
        let micros = self.clock.capture_micros(timestamp)? + delay;
        // Clocks that differ by more are wrong, whatever the reports say.
        let far = (micros - now.as_micros() as i64).unsigned_abs();
        (far < Self::MAX_APART.as_micros() as u64).then(|| MediaTime::from_micros(micros as u64))
    }

    /// The most that sound and picture of the same moment are believed to be apart.
    const MAX_APART: Duration = Duration::from_secs(2);

    /// Holds the sound if it is heard long before the frame that was captured with it can be shown,
    /// or lets it go.
    pub(super) fn follow(&mut self, frame: PlayoutTime, heard: MediaTime, now: MediaTime) {
        let Some(sound) = &self.sound else { return };
        if now.since(*self.asked_at.get_or_insert(now)) < Self::INTERVAL {
            return;
        }
        self.asked_at = Some(now);
        let lead = frame.alone.as_micros() as i64 - heard.as_micros() as i64;
        let mut state = sound.lock();
        let held = state.min_delay.as_micros() as i64;
        let change = match lead {
            Self::MAX_LEAD.. => (lead - Self::USUAL_LEAD) / 2,
            ..0 => lead / 2,
            _ => 0,
        };
        let held = held + change.clamp(-Self::STEP, Self::STEP);
        state.min_delay = Duration::from_micros(held.clamp(0, Self::MAX_HELD) as u64);
    }

    fn release(&self) {
        if let Some(sound) = &self.sound {
            sound.lock().min_delay = Duration::ZERO;
        }
    }
}

impl Drop for LipSync {
    /// Without its video, sound waits for none.
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playback::playout_clock::{ArrivedFrame, PlayoutClock};

    /// Both tracks of one participant in virtual time. Times are in microseconds, on a clock on
    /// which the sender's wall clock is 5000 s.
    struct Participant {
        reports: SenderReports,
        heard: HeardSound,
        sync: LipSync,
        playout: PlayoutClock,
        /// By how much each track's reports are wrong, and by which factor its timestamps run fast.
        errors: [i64; 2],
        rates: [f64; 2],
        /// The delays from capture to ear, without what the video asks for, and to complete frame.
        delays: [u64; 2],
    }

    const AUDIO: usize = 0;
    const VIDEO: usize = 1;

    impl Participant {
        fn new(audio_ms: u64, video_ms: u64) -> Self {
            let reports = SenderReports::default();
            let heard = HeardSound::new(7, reports.clone());
            let mut sync = LipSync::new();
            sync.set_sound(Some(heard.clock()));
            Self {
                reports,
                heard,
                sync,
                playout: PlayoutClock::new(),
                errors: [0; 2],
                rates: [1.0; 2],
                delays: [audio_ms * 1000, video_ms * 1000],
            }
        }

        fn timestamp(&self, track: usize, micros: u64) -> u32 {
            let rate = [48_000.0, 90_000.0][track] * self.rates[track];
            (micros as f64 / 1e6 * rate) as u64 as u32
        }

        fn report(&self, track: usize, micros: u64) -> SenderReport {
            let wall = (5_000_000_000 + micros as i64 + self.errors[track]) as u64;
            let ntp = ((wall / 1_000_000) << 32) | (((wall % 1_000_000) << 32) / 1_000_000);
            SenderReport { ntp, rtp: self.timestamp(track, micros) }
        }

        /// Lets so many frames of 30 a second pass from `from` seconds on. Returns by how many
        /// milliseconds the sound of each was heard before the frame was shown: the reports do not
        /// count, only what was captured when.
        fn run(&mut self, from: u64, seconds: u64) -> Vec<f64> {
            let mut leads = vec![];
            for frame in from * 30..(from + seconds) * 30 {
                let captured = 1_000_000 + frame * 100_000 / 3;
                if frame % 30 == 0 {
                    self.reports.record(7, self.report(AUDIO, captured));
                    self.sync.on_report(Some(self.report(VIDEO, captured + 300_000)));
                }
                let delay = self.delays[AUDIO].max(
                    self.delays[AUDIO].min(60_000) + self.heard.min_delay().as_micros() as u64,
                );
                for block in 0..3 {
                    let at = captured + block * 10_000;
                    let heard = MediaTime::from_micros(at + delay + at * 7919 % 4000);
                    self.heard.on_block(self.timestamp(AUDIO, at), heard);
                }
                let arrival = MediaTime::from_micros(captured + self.delays[VIDEO]);
                let stamp = self.timestamp(VIDEO, captured);
                let heard = self.sync.heard_at(stamp, arrival);
                let arrived = ArrivedFrame { timestamp: stamp, arrival, is_keyframe: frame == 0 };
                let due = self.playout.due(arrived, heard);
                if let Some(heard) = heard {
                    self.sync.follow(due, heard, arrival);
                }
                let really_heard = (captured + delay + 2000) as f64;
                leads.push((due.at.as_micros() as f64 - really_heard) / 1000.0);
            }
            leads
        }
    }

    /// Whether 95 of 100 values are within EBU R37: sound at most 40 ms early and 60 ms late.
    fn is_in_sync(leads: &[f64]) -> bool {
        let outside = leads.iter().filter(|lead| !(-60.0..=40.0).contains(*lead)).count();
        outside * 20 <= leads.len()
    }

    #[test]
    fn video_waits_until_its_sound_is_at_most_45_ms_late() {
        let mut one = Participant::new(150, 20);
        one.run(0, 5);
        let leads = one.run(5, 10);
        assert!(leads.iter().all(|lead| (-50.0..=-40.0).contains(lead)), "{leads:?}");
        let mut early = Participant::new(60, 20);
        early.run(0, 5);
        let leads = early.run(5, 10);
        assert!(leads.iter().all(|lead| (-43.0..=-37.0).contains(lead)), "no wait: {leads:?}");
        assert_eq!(early.heard.min_delay(), Duration::ZERO);
    }

    #[test]
    fn sound_is_held_for_video_that_is_much_later_and_let_go_when_it_is_not() {
        let mut one = Participant::new(60, 180);
        one.run(0, 15);
        let leads = one.run(15, 10);
        assert!(
            is_in_sync(&leads) && one.heard.min_delay() > Duration::from_millis(60),
            "{leads:?}"
        );
        assert!(one.heard.min_delay() <= Duration::from_millis(120));
        one.delays[VIDEO] = 20_000;
        one.run(25, 25);
        assert!(one.heard.min_delay() < Duration::from_millis(5), "{:?}", one.heard.min_delay());
        one.delays[VIDEO] = 180_000;
        one.run(50, 10);
        let Participant { sync, heard, .. } = one;
        assert!(heard.min_delay() > Duration::ZERO);
        drop(sync);
        assert_eq!(heard.min_delay(), Duration::ZERO, "without video");
    }

    #[test]
    fn clocks_that_differ_by_100_ppm_stay_together_for_ten_minutes() {
        for rates in [[1.0001, 1.0], [0.9999, 1.0001]] {
            let mut one = Participant::new(150, 20);
            one.rates = rates;
            one.run(0, 5);
            let leads = one.run(5, 595);
            assert!(leads.iter().all(|lead| (-52.0..=-38.0).contains(lead)), "{rates:?}");
        }
    }

    #[test]
    fn wrong_reports_hold_no_frame_for_longer_than_the_limit() {
        for error in [300_000, -300_000, 1_900_000, 5_000_000, -700_000_000] {
            let mut one = Participant::new(150, 20);
            one.errors[AUDIO] = -error;
            let leads = one.run(0, 20);
            let latest = leads.iter().fold(0.0_f64, |most, lead| most.max(*lead + 152.0 - 20.0));
            let most = PlayoutClock::MAX_DELAY.as_millis() as f64;
            assert!(latest <= most + 1.0, "{error}: {latest}");
            assert!(one.heard.min_delay() <= Duration::from_millis(120));
        }
    }

    #[test]
    fn without_reports_or_sound_no_frame_waits() {
        let mut one = Participant::new(150, 20);
        one.reports = SenderReports::default();
        let leads = one.run(0, 5);
        assert!(leads.iter().all(|lead| (-133.0..=-131.0).contains(lead)), "{leads:?}");
        let mut silent = Participant::new(150, 20);
        silent.run(0, 5);
        silent.sync.set_sound(None);
        silent.run(5, 5);
        let leads = silent.run(10, 5);
        assert!(leads.iter().all(|lead| (-133.0..=-131.0).contains(lead)), "{leads:?}");
    }
}
