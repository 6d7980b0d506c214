//! The options of `quintet bench`.

use std::{str::FromStr, time::Duration};

use anyhow::bail;
use clap::{Args, Subcommand};

use super::network::{self, Case};
use crate::{
    engine::{Impairment, SourceSpec, SpecError},
    model::{Bitrate, JoinTarget, Size, parse_target},
};

/// The most viewers: fifty in each of five sessions, within the usual limit of 1024 descriptors per
/// process.
const MAX_PEERS: u64 = 250;

/// The longest measurement: an hour.
const MAX_SECONDS: u64 = 3600;

/// The bitrates that the video encoder accepts here.
const BITRATES: std::ops::RangeInclusive<u64> = 50_000..=20_000_000;

/// The measurement to run.
#[derive(Subcommand, Debug)]
pub enum BenchTask {
    /// Measure the cost of sending video to many viewers: CPU, memory, frames per second, time to
    /// the first frame.
    Fanout(FanoutOptions),
    /// Measure the time from capture to display, by the clock of this machine.
    Latency(LatencyOptions),
    /// Measure what a viewer sees and hears over bad networks: frames per second, freezes,
    /// concealed audio. Takes two and a half minutes.
    Network(NetworkOptions),
    /// Run the viewers, in the second process of these measurements; prints JSON lines.
    #[command(hide = true)]
    View(ViewOptions),
    /// Run the viewer of `bench network`; prints JSON lines.
    #[command(hide = true)]
    Receive(ReceiveOptions),
}

/// The options of `bench fanout`.
#[derive(Args, Debug)]
pub struct FanoutOptions {
    /// The number of viewers, spread over five sessions.
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=MAX_PEERS))]
    pub(super) peers: u64,
    /// How long to measure, in seconds, once all viewers receive video.
    #[arg(long, value_name = "S", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// The frame size and frame rate.
    #[arg(long, value_name = "SIZE", default_value = "1280x720@30", value_parser = parse_picture)]
    pub(super) size: VideoFormat,
    /// The target bitrate of the encoder, such as 1.5Mbit; without it, the usual one of the size.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(super) bitrate: Option<Bitrate>,
    /// Also send audio.
    #[arg(long)]
    pub(super) sound: bool,
    /// Then switch the camera off, and measure the cost of connections without media.
    #[arg(long)]
    pub(super) idle: bool,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

/// The options of `bench latency`.
#[derive(Args, Debug)]
pub struct LatencyOptions {
    /// How long to measure, in seconds.
    #[arg(long, value_name = "S", default_value_t = 20,
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// The frame size and frame rate.
    #[arg(long, value_name = "SIZE", default_value = "1280x720@30", value_parser = parse_picture)]
    pub(super) size: VideoFormat,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

/// The options of `bench network`.
#[derive(Args, Debug)]
pub struct NetworkOptions {
    /// Measure this network instead of the usual ones, with the same impairment in each direction,
    /// as for `open --impair`; may be repeated.
    #[arg(long, value_name = "IMPAIRMENT", value_parser = parse_network)]
    network: Vec<String>,
    /// Measure 36 networks with losses of 0 to 30 %, single and in bursts, with three delays.
    #[arg(long, conflicts_with = "network")]
    loss_ladder: bool,
    /// The length of each call, in seconds.
    #[arg(long, value_name = "S", default_value_t = 12,
        value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// How many calls are made over each network. The report has their medians.
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(super) runs: u64,
    /// The frame size and frame rate.
    #[arg(long, value_name = "SIZE", default_value = "1280x720@30", value_parser = parse_picture)]
    pub(super) size: VideoFormat,
    /// Print one JSON object instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

/// The options of the viewer's process of `bench network`.
#[derive(Args, Debug)]
pub struct ReceiveOptions {
    /// The link of the session.
    #[arg(required = true, value_name = "LINK", value_parser = parse_session)]
    pub(super) session: JoinTarget,
    /// What happens to the packets that the viewer sends.
    #[arg(long)]
    pub(super) impair: Impairment,
}

/// The options of the viewers' process.
#[derive(Args, Debug)]
pub struct ViewOptions {
    /// The links of the sessions; the viewers are distributed over them in turn.
    #[arg(required = true, value_name = "LINK", value_parser = parse_session)]
    pub(super) sessions: Vec<JoinTarget>,
    /// The number of viewers.
    #[arg(long)]
    pub(super) peers: usize,
    /// Decode every frame, not only the first one.
    #[arg(long)]
    pub(super) decode: bool,
}

/// A frame size and a frame rate in frames per second.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct VideoFormat {
    pub(super) size: Size,
    pub(super) fps: u32,
}

impl VideoFormat {
    /// Returns a test source of this format.
    pub(super) const fn source(self) -> SourceSpec {
        SourceSpec::NoisePattern { size: self.size, fps: self.fps }
    }
}

impl FanoutOptions {
    /// Returns how long to measure.
    pub(super) const fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

impl NetworkOptions {
    /// Returns the length of a call.
    pub(super) const fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Returns the networks, and what is promised for each.
    pub(super) fn cases(&self) -> Vec<(String, Option<Case>)> {
        if !self.network.is_empty() {
            return self.network.iter().map(|one| (one.clone(), None)).collect();
        }
        if self.loss_ladder {
            return network::loss_ladder().into_iter().map(|network| (network, None)).collect();
        }
        network::CASES.map(|case| (case.impairment.to_owned(), Some(case))).into()
    }
}

impl LatencyOptions {
    /// Returns how long to measure.
    pub(super) const fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn parse_picture(text: &str) -> anyhow::Result<VideoFormat> {
    match SourceSpec::for_camera(&format!("busy:{text}")) {
        Ok(SourceSpec::NoisePattern { size, fps }) => Ok(VideoFormat { size, fps }),
        Ok(_) | Err(SpecError::PatternFormat { .. }) => {
            bail!("{text:?} is not a frame size; write 1280x720, @15 or 1280x720@30")
        }
        Err(other) => Err(other.into()),
    }
}

fn parse_network(text: &str) -> Result<String, <Impairment as FromStr>::Err> {
    text.parse::<Impairment>().map(|_| text.to_owned())
}

fn parse_rate(text: &str) -> anyhow::Result<Bitrate> {
    let rate: Bitrate = text.parse()?;
    if !BITRATES.contains(&rate.as_bps()) {
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
    fn a_size_is_parsed_and_the_error_for_a_wrong_one_shows_a_right_one() {
        let small = VideoFormat { size: Size::new(640, 360), fps: 15 };
        assert_eq!(parse_picture("640x360@15").unwrap(), small);
        let sentence = |text: &str| parse_picture(text).unwrap_err().to_string();
        for wrong in ["", "x", "640", "640x", "640x360@", "640x360@fast"] {
            assert!(sentence(wrong).contains("is not a frame size; write 1280x720"), "{wrong}");
        }
        assert!(sentence("641x360").contains("odd side"), "{}", sentence("641x360"));
        assert!(sentence("640x360@61").contains("out of range"), "{}", sentence("640x360@61"));
    }

    #[test]
    fn a_bitrate_is_parsed_and_the_error_for_a_wrong_one_shows_a_right_one() {
        assert_eq!(parse_rate("1.5Mbit").unwrap(), Bitrate::from_kbps(1500));
        let sentence = |text: &str| parse_rate(text).unwrap_err().to_string();
        assert!(sentence("1.5").contains("ends in bit, kbit or Mbit"));
        assert!(sentence("10kbit").contains("out of range; use 50kbit to 20Mbit"));
        assert!(sentence("1000Mbit").contains("out of range"));
    }
}
