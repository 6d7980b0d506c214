//! Who speaks in a session.

use std::collections::BTreeMap;

/// Finds the active speaker among several people, from the level of each in steps of 100 ms.
///
/// A simpler form of the three time scales of Volfin and Cohen ("Dominant speaker identification for
/// multipoint videoconferencing", 2013), as conference bridges use it. A step counts as loud if it is
/// well above the person's own noise. Who is loud for six of ten steps speaks; a cough is shorter.
/// While the active speaker speaks, others replace it only if they have spoken for longer than it in
/// the last three seconds, or are much louder. In a pause it stays the active speaker for a while.
///
/// The voice flags of packets are not used: browsers set them always.
#[derive(Clone, Debug)]
pub struct ActiveSpeakerDetector<K> {
    talkers: BTreeMap<K, Talker>,
    active: Option<K>,
    /// Steps since the active speaker spoke.
    quiet_steps: u32,
}

/// One person.
#[derive(Clone, Debug)]
struct Talker {
    noise_dbfs: f32,
    /// The last known level, and the steps since then.
    level_dbfs: f32,
    missing: u32,
    /// Which of the last 32 steps were loud, the newest in the lowest bit.
    loud: u32,
    is_speaking: bool,
    /// The level of the loud steps: a mean over about a second.
    voice_dbfs: f32,
    /// For how many steps in a row it was much louder than the active speaker.
    dominant: u32,
}

/// How far above the noise a loud step is, in dB.
const ABOVE_NOISE_DB: f32 = 10.0;

/// Below this level nothing is loud, in dB relative to full scale.
const LOWEST_LOUD_DBFS: f32 = -50.0;

/// The noise of somebody who has just come, and the least noise, in dB relative to full scale.
const FIRST_NOISE_DBFS: f32 = -60.0;
const LEAST_NOISE_DBFS: f32 = -80.0;

/// By how much the noise rises with each step, in dB: 3 dB a second. It falls at once.
const NOISE_RISE_DB: f32 = 0.3;

/// Steps without a packet after which there is silence. Packets may be late.
const MISSING_STEPS: u32 = 3;

/// The steps of the short window.
const SHORT: u32 = 10;

/// Loud steps of the short window with which speech begins.
const BEGIN: u32 = 6;

/// Loud steps of the short window with which it has ended.
const END: u32 = 1;

/// The steps of the long window: three seconds.
const LONG: u32 = 30;

/// How many more loud steps of the long window than the active speaker somebody has who replaces it.
const LONGER: u32 = 12;

/// How much louder than the active speaker somebody is who replaces it, in dB, and for how many
/// steps: two seconds.
const LOUDER_DB: f32 = 10.0;
const LOUDER_STEPS: u32 = 20;

/// For how many steps of silence the active speaker stays: five seconds.
const HOLD_STEPS: u32 = 50;

impl<K> Default for ActiveSpeakerDetector<K> {
    fn default() -> Self {
        Self { talkers: BTreeMap::new(), active: None, quiet_steps: 0 }
    }
}

impl<K: Ord + Clone> ActiveSpeakerDetector<K> {
    /// Takes the levels of the last 100 ms, in dB relative to full scale, of all who may speak:
    /// `None` if nothing arrived of somebody. Who is left out, because of a mute or because it has
    /// left, does not speak any more. Returns the active speaker.
    pub fn update(&mut self, levels: impl IntoIterator<Item = (K, Option<f32>)>) -> Option<&K> {
        let mut before = std::mem::take(&mut self.talkers);
        for (key, level) in levels {
            let mut talker = before.remove(&key).unwrap_or_default();
            talker.update(level);
            self.talkers.insert(key, talker);
        }
        self.active = self.next_active();
        self.active.as_ref()
    }

    fn next_active(&mut self) -> Option<K> {
        let kept = self.active.take().and_then(|key| self.talkers.get_key_value(&key));
        let Some((active, talker)) = kept.map(|(key, talker)| (key.clone(), talker.clone())) else {
            self.quiet_steps = 0;
            return self.best(|_| true);
        };
        self.quiet_steps = if talker.is_speaking { 0 } else { self.quiet_steps + 1 };
        for other in self.talkers.values_mut() {
            let is_louder = other.is_speaking && other.voice_dbfs > talker.voice_dbfs + LOUDER_DB;
            other.dominant = if is_louder { other.dominant + 1 } else { 0 };
        }
        let replaces = |other: &Talker| {
            !talker.is_speaking
                || other.loud_steps(LONG) > talker.loud_steps(LONG) + LONGER
                || other.dominant > LOUDER_STEPS
        };
        let next = self.best(replaces).filter(|next| *next != active);
        if next.is_some() {
            self.quiet_steps = 0;
            return next;
        }
        (self.quiet_steps <= HOLD_STEPS).then_some(active)
    }

    /// Who of those that speak has spoken most in the last seconds; the louder one of two.
    fn best(&self, may_be: impl Fn(&Talker) -> bool) -> Option<K> {
        let speaking = self.talkers.iter().filter(|(_, one)| one.is_speaking && may_be(one));
        let longest = speaking.max_by(|(_, a), (_, b)| {
            let longer = a.loud_steps(LONG).cmp(&b.loud_steps(LONG));
            longer.then(a.voice_dbfs.total_cmp(&b.voice_dbfs))
        });
        longest.map(|(key, _)| key.clone())
    }
}

impl Default for Talker {
    fn default() -> Self {
        Self {
            noise_dbfs: FIRST_NOISE_DBFS,
            level_dbfs: LEAST_NOISE_DBFS,
            missing: 0,
            loud: 0,
            is_speaking: false,
            voice_dbfs: LEAST_NOISE_DBFS,
            dominant: 0,
        }
    }
}

impl Talker {
    fn update(&mut self, level: Option<f32>) {
        self.missing = if level.is_some() { 0 } else { self.missing + 1 };
        if let Some(level) = level {
            self.level_dbfs = level.max(LEAST_NOISE_DBFS);
        } else if self.missing >= MISSING_STEPS {
            self.level_dbfs = LEAST_NOISE_DBFS;
        }
        self.noise_dbfs = self.level_dbfs.min(self.noise_dbfs + NOISE_RISE_DB);
        let is_loud = self.level_dbfs > (self.noise_dbfs + ABOVE_NOISE_DB).max(LOWEST_LOUD_DBFS);
        self.loud = self.loud << 1 | u32::from(is_loud);
        let loud_steps = self.loud_steps(SHORT);
        self.is_speaking = if self.is_speaking { loud_steps > END } else { loud_steps >= BEGIN };
        if is_loud {
            self.voice_dbfs += (self.level_dbfs - self.voice_dbfs) / 8.0;
        }
    }

    /// How many of the newest steps were loud.
    const fn loud_steps(&self, steps: u32) -> u32 {
        (self.loud << (u32::BITS - steps)).count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise of a room, and speech, in dB relative to full scale.
    const ROOM: Option<f32> = Some(-65.0);
    const SPEECH: Option<f32> = Some(-28.0);

    /// Who is active at each step in which that changes.
    fn changes(
        steps: u32,
        levels: impl Fn(u32) -> Vec<(char, Option<f32>)>,
    ) -> Vec<(u32, Option<char>)> {
        let (mut speaker, mut last, mut changes) = (ActiveSpeakerDetector::default(), None, vec![]);
        for step in 0..steps {
            let active = speaker.update(levels(step)).copied();
            if active != last {
                changes.push((step, active));
            }
            last = active;
        }
        changes
    }

    /// Speech with a pause of 200 ms after each 800 ms.
    fn speech(step: u32) -> Option<f32> {
        if step % 10 < 8 { SPEECH } else { ROOM }
    }

    #[test]
    fn two_who_take_turns_are_found_within_a_second_and_nobody_flaps() {
        let turns = |step: u32| {
            let (a, b) = if (step / 100).is_multiple_of(2) {
                (speech(step), ROOM)
            } else {
                (ROOM, speech(step))
            };
            vec![('a', a), ('b', b)]
        };
        let changes = changes(600, turns);
        let who: Vec<_> = changes.iter().map(|(_, who)| who.unwrap()).collect();
        assert_eq!(who, ['a', 'b', 'a', 'b', 'a', 'b']);
        let delays: Vec<_> = changes.iter().map(|(at, _)| at % 100).collect();
        assert!(delays.iter().all(|delay| *delay < 10), "{delays:?}");
    }

    #[test]
    fn while_two_speak_at_once_the_first_stays() {
        let both = |step: u32| {
            let b = if step > 50 { speech(step + 3) } else { ROOM };
            vec![('a', speech(step)), ('b', b)]
        };
        let changes = changes(600, both);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert_eq!(changes[0].1, Some('a'));
    }

    #[test]
    fn who_speaks_much_louder_for_two_seconds_replaces_a_mutter() {
        let loud = |step: u32| speech(step).map(|level| level + 15.0);
        let levels =
            |step: u32| vec![('a', speech(step)), ('b', if step > 50 { loud(step) } else { ROOM })];
        let changes = changes(200, levels);
        assert_eq!(changes.iter().map(|one| one.1).collect::<Vec<_>>(), [Some('a'), Some('b')]);
        assert!((70..95).contains(&changes[1].0), "{changes:?}");
    }

    #[test]
    fn a_cough_or_a_yes_does_not_change_the_speaker_neither_while_one_speaks_nor_in_a_pause() {
        // 'b' coughs for 400 ms each three seconds; 'a' pauses for three seconds of ten.
        let levels = |step: u32| {
            let a = if step % 100 < 70 { speech(step) } else { ROOM };
            let b = if step % 30 < 4 { Some(-15.0) } else { ROOM };
            vec![('a', a), ('b', b)]
        };
        let changes = changes(600, levels);
        assert_eq!(changes.iter().map(|one| one.1).collect::<Vec<_>>(), [Some('a')]);
        assert_eq!(self::changes(300, |step| levels(step)[1..].to_vec()), [], "nobody speaks");
    }

    #[test]
    fn in_silence_the_speaker_stays_for_five_seconds_and_then_nobody_is_active() {
        let levels = |step: u32| vec![('a', if step < 50 { speech(step) } else { ROOM })];
        let changes = changes(300, levels);
        assert_eq!(changes.iter().map(|one| one.1).collect::<Vec<_>>(), [Some('a'), None]);
        assert!((95..115).contains(&changes[1].0), "{changes:?}");
    }

    #[test]
    fn who_is_muted_or_leaves_is_not_active_any_more_and_the_other_follows_at_once() {
        let levels = |step: u32| {
            let mut levels = vec![('a', speech(step)), ('b', speech(step + 5))];
            if step >= 100 {
                levels.remove(0);
            }
            if step >= 150 {
                levels.clear();
            }
            levels
        };
        assert_eq!(changes(200, levels)[1..], [(100, Some('b')), (150, None)]);
    }

    #[test]
    fn packets_that_are_late_or_stop_are_no_speech_and_steady_noise_neither() {
        let late =
            |step: u32| vec![('a', if step.is_multiple_of(3) { speech(step) } else { None })];
        assert_eq!(changes(100, late).len(), 1);
        let stop = |step: u32| vec![('a', if step < 20 { SPEECH } else { None })];
        assert_eq!(changes(200, stop).last().unwrap().1, None);
        // A fan that begins is taken for a voice until it is known.
        let fan = |step: u32| vec![('a', if step < 20 { ROOM } else { Some(-40.0) }), ('b', ROOM)];
        let changes = changes(1000, fan);
        assert!(
            changes.len() <= 2 && changes.last().is_none_or(|one| one.1.is_none()),
            "{changes:?}"
        );
    }
}
