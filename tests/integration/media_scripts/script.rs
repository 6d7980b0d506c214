//! The steps of a script, and how they are run.

use std::time::Duration;

use quintet::transport::Impairment;

use super::{
    call::{Call, Measured},
    sender::{Media, Sound},
};

/// One step of a script. Only [`Step::Run`] takes time.
pub(crate) enum Step {
    /// The network from now on, in both directions.
    Conditions(Impairment),
    /// What is sent from now on.
    Media(Media),
    /// What the audio is from now on; a voice at first.
    Sound(Sound),
    /// The layers of a camera are sent from now on, as the program chooses them.
    Layers,
    /// Plays on a speaker with that latency from now on, in sync with the video.
    Speaker(Duration),
    /// Mutes or unmutes the microphone.
    Mute(bool),
    /// Time passes.
    Run(Duration),
    /// Figures are of the time from now on.
    Measure,
    /// What holds for the time since the latest [`Step::Measure`], and whether it does.
    Check(&'static str, fn(&Measured) -> bool),
    /// A figure of the time since the latest [`Step::Measure`].
    Figure(Figure),
}

/// A figure that is to become better. The script fails if it is worse than `today`.
pub(crate) struct Figure {
    what: &'static str,
    of: fn(&Measured) -> f64,
    /// What it reaches now. Whoever makes it better moves this bound towards the goal.
    today: Bound,
    /// What it is to reach.
    goal: Bound,
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// A step that checks a figure.
pub(crate) const fn figure(
    what: &'static str,
    of: fn(&Measured) -> f64,
    today: Bound,
    goal: Bound,
) -> Step {
    Step::Figure(Figure { what, of, today, goal })
}

/// A step in which this many seconds pass.
pub(crate) const fn seconds(seconds: u64) -> Step {
    Step::Run(Duration::from_secs(seconds))
}

/// Runs a script on a call that has just been connected.
///
/// # Panics
/// If a check does not hold, or a figure is worse than today.
pub(crate) fn run(name: &str, steps: &[Step]) {
    Call::run(async |call| {
        for step in steps {
            match step {
                Step::Conditions(impairment) => call.set_conditions(*impairment),
                Step::Media(media) => call.set_media(*media),
                Step::Sound(sound) => call.set_sound(*sound),
                Step::Layers => call.send_layers(),
                Step::Speaker(latency) => call.set_speaker(*latency),
                Step::Mute(is_muted) => call.set_muted(*is_muted),
                Step::Run(duration) => tokio::time::sleep(*duration).await,
                Step::Measure => call.start_measuring(),
                Step::Check(what, holds) => {
                    let measured = call.measured();
                    assert!(holds(&measured), "{name}: not so: {what}: {measured:#?}");
                }
                Step::Figure(figure) => figure.check(name, &call.measured()),
            }
        }
        println!("{name}: {:?}", call.measured());
    });
}

impl Figure {
    fn check(&self, name: &str, measured: &Measured) {
        let Self { what, of, today, goal } = self;
        let value = of(measured);
        let is_reached = if goal.holds(value) { ": reached" } else { "" };
        println!("{name}: {what}: {value:.3}, today {today:?}, goal {goal:?}{is_reached}");
        assert!(today.holds(value), "{name}: {what} is {value:.3}, not {today:?}: {measured:#?}");
    }
}
