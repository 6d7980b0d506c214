//! The options of `quintet bench`.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::{
    engine::{SourceSpec, SpecError},
    model::{Bitrate, JoinTarget, Size, parse_target},
};

/// Viewers at most: fifty in each of five sessions, within the 1024 descriptors that a process
/// may usually have.
const MAX_PEERS: u64 = 250;

/// The longest measurement: an hour.
const MAX_SECONDS: u64 = 3600;

/// The rates that pictures are encoded at, from a stamp to a film.
const RATES: std::ops::RangeInclusive<u64> = 50_000..=20_000_000;

/// What to measure.
#[derive(Subcommand, Debug)]
pub enum BenchTask {
    /// What sending one picture to many costs: processor, memory, pictures a second, first picture.
    Fanout(FanoutOptions),
    /// From capture to shown picture, by the clock of this machine.
    Latency(LatencyOptions),
    /// The other process of both; spoken to by lines.
    #[command(hide = true)]
    View(ViewOptions),
}

/// What `bench fanout` measures.
#[derive(Args, Debug)]
pub struct FanoutOptions {
    /// How many viewers, spread over five sessions.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=MAX_PEERS))]
    pub(super) peers: u64,
    /// How long to measure, in seconds, once all viewers see something.
    #[arg(long, value_name = "S", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// The picture's size and rate.
    #[arg(long, value_name = "SIZE", default_value = "1280x720@30", value_parser = parse_picture)]
    pub(super) size: PictureSize,
    /// The rate to encode at, such as 1.5Mbit; without it, the usual one of the size.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(super) bitrate: Option<Bitrate>,
    /// Send a voice as well.
    #[arg(long)]
    pub(super) sound: bool,
    /// Switch the camera off afterwards, and measure what connections cost that carry nothing.
    #[arg(long)]
    pub(super) idle: bool,
    /// One JSON object instead of lines for people.
    #[arg(long)]
    pub(super) json: bool,
}

/// What `bench latency` measures.
#[derive(Args, Debug)]
pub struct LatencyOptions {
    /// How long to measure, in seconds.
    #[arg(long, value_name = "S", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// The picture's size and rate.
    #[arg(long, value_name = "SIZE", default_value = "1280x720@30", value_parser = parse_picture)]
    pub(super) size: PictureSize,
    /// One JSON object instead of lines for people.
    #[arg(long)]
    pub(super) json: bool,
}

/// What the viewers do.
#[derive(Args, Debug)]
pub struct ViewOptions {
    /// The sessions, by link; viewers join them by turns.
    #[arg(required = true, value_name = "LINK", value_parser = parse_session)]
    pub(super) sessions: Vec<JoinTarget>,
    /// How many.
    #[arg(long)]
    pub(super) peers: usize,
    /// Decode every picture, not only the first one.
    #[arg(long)]
    pub(super) decode: bool,
}

/// A picture's size, and how many there are in a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PictureSize {
    pub(super) size: Size,
    pub(super) fps: u32,
}

impl PictureSize {
    /// The source of such pictures.
    pub(super) const fn source(self) -> SourceSpec {
        SourceSpec::Busy { size: self.size, fps: self.fps }
    }
}

impl FanoutOptions {
    /// How long to measure.
    pub(super) const fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl LatencyOptions {
    /// How long to measure.
    pub(super) const fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn parse_picture(text: &str) -> anyhow::Result<PictureSize> {
    match SourceSpec::for_camera(&format!("busy:{text}")) {
        Ok(SourceSpec::Busy { size, fps }) => Ok(PictureSize { size, fps }),
        Ok(_) | Err(SpecError::Painted { .. }) => {
            bail!("{text:?} is no picture's size; write 1280x720, @15 or 1280x720@30")
        }
        Err(other) => Err(other.into()),
    }
}

fn parse_rate(text: &str) -> anyhow::Result<Bitrate> {
    let rate: Bitrate = text.parse()?;
    if !RATES.contains(&rate.as_bps()) {
        bail!("{text:?} is out of range; use 50kbit to 20Mbit");
    }
    Ok(rate)
}

fn parse_session(text: &str) -> anyhow::Result<JoinTarget> {
    let (hub, session) = parse_target(text)?;
    Ok(JoinTarget { session, hub })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_and_a_wrong_one_says_what_is_right() {
        let small = PictureSize { size: Size::new(640, 360), fps: 15 };
        assert_eq!(parse_picture("640x360@15").unwrap(), small);
        let sentence = |text: &str| parse_picture(text).unwrap_err().to_string();
        for wrong in ["", "x", "640", "640x", "640x360@", "640x360@fast"] {
            assert!(sentence(wrong).contains("is no picture's size; write 1280x720"), "{wrong}");
        }
        assert!(sentence("641x360").contains("odd side"), "{}", sentence("641x360"));
        assert!(sentence("640x360@61").contains("out of range"), "{}", sentence("640x360@61"));
    }

    #[test]
    fn a_rate_is_read_and_a_wrong_one_says_what_is_right() {
        assert_eq!(parse_rate("1.5Mbit").unwrap(), Bitrate::from_kbps(1500));
        let sentence = |text: &str| parse_rate(text).unwrap_err().to_string();
        assert!(sentence("1.5").contains("ends in bit, kbit or Mbit"));
        assert!(sentence("10kbit").contains("out of range; use 50kbit to 20Mbit"));
        assert!(sentence("1000Mbit").contains("out of range"));
    }
}
