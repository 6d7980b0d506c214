//! Measures what a viewer sees and hears over bad networks.
//!
//! One process sends 1280x720@30 and a tone, another one watches. Both impair what they send in the
//! same way, in their own sockets, so a share of 5 % is lost in each direction.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    BenchError,
    args::NetworkOptions,
    network_report::{CaseReport, NetworkReport, RunFigures},
    sender::{Sender, SenderOptions},
    viewer_process::{ReceivedSoFar, ViewerMessage, ViewerProcess},
};
use crate::model::{Bitrate, RtcStats};

/// What the encoder aims at.
const VIDEO_BITRATE: Bitrate = Bitrate::from_kbps(1500);

/// Concealment is counted from here on, and once more from the start. A connection needs some time
/// to learn what its network is like.
const CONCEALMENT_FROM: Duration = Duration::from_secs(5);

/// A network and what the product promises on it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Case {
    /// The impairment in each direction, as for `--impair`; also its name.
    pub(super) impairment: &'static str,
    /// The lowest good number of frames per second, from the first frame on.
    pub(super) min_fps: f64,
    /// The highest good share of concealed audio, in percent, from the sixth second on.
    pub(super) max_concealed: f64,
    /// The lowest good rate on the wire, in kbit/s; 0 where any rate is good.
    pub(super) min_sent_kbps: f64,
    /// The longest good freeze; `None` where any is good.
    pub(super) max_freeze_ms: Option<u64>,
}

const fn case(impairment: &'static str, min_fps: f64, max_concealed: f64) -> Case {
    Case { impairment, min_fps, max_concealed, min_sent_kbps: 0.0, max_freeze_ms: None }
}

/// The networks, from good to bad.
pub(super) const CASES: [Case; 12] = [
    case("delay=0ms", 30.0, 0.1),
    case("loss=0.01,delay=50ms", 30.0, 0.1),
    case("loss=0.05,delay=50ms", 29.0, 0.2),
    case("loss=0.1,delay=50ms", 28.0, 0.3),
    Case { max_freeze_ms: Some(1000), ..case("loss=0.2,delay=50ms", 24.0, 0.5) },
    case("loss=0.3,delay=50ms", 10.0, 2.0),
    case("loss=0.05,delay=150ms", 25.0, 0.3),
    case("delay=10ms,jitter=30ms", 29.0, 0.3),
    Case { min_sent_kbps: 800.0, ..case("rate=1Mbit,queue=300ms", 29.0, 0.5) },
    case("rate=500kbit,queue=300ms", 24.0, 1.0),
    case("rate=250kbit,queue=300ms", 12.0, 1.0),
    case("rate=150kbit,queue=300ms,delay=100ms", 7.0, 2.0),
];

/// The loss ladder: independent losses and bursts, each with three delays.
pub(super) fn loss_ladder() -> Vec<String> {
    let mut networks = vec![];
    for loss in ["0", "0.01", "0.05", "0.1", "0.2", "0.3"] {
        for burst in ["1", "3"] {
            for delay in ["0ms", "50ms", "150ms"] {
                networks.push(format!("loss={loss},burst={burst},delay={delay}"));
            }
        }
    }
    networks
}

/// Measures the cases of the options, one after the other.
///
/// # Errors
/// Fails if the session does not open or the viewer's process ends. A viewer without video is a
/// result.
pub(super) async fn measure(options: &NetworkOptions) -> Result<NetworkReport, BenchError> {
    let mut cases = vec![];
    let networks = options.cases();
    let count = networks.len();
    for (index, (network, goal)) in networks.into_iter().enumerate() {
        eprintln!("{} of {count}: {network}", index + 1);
        let mut runs = vec![];
        for run in 1..=options.runs {
            runs.push(measure_run(&format!("{network},seed={run}"), options).await?);
        }
        cases.push(CaseReport { network, goal, runs });
    }
    Ok(NetworkReport { format: options.size, seconds: options.time().as_secs(), cases })
}

/// One call over one network.
async fn measure_run(network: &str, options: &NetworkOptions) -> Result<RunFigures, BenchError> {
    let sender = Sender::open(SenderOptions {
        camera: options.size.source(),
        bitrate: Some(VIDEO_BITRATE),
        sends_audio: true,
        sessions: 1,
        impairment: Some(network.parse().expect("the options were checked")),
    })
    .await?;
    let mut viewer = ViewerProcess::start_receiver(&sender.links, network)?;
    let begin = Instant::now();
    let mut received = vec![];
    let mut sent_at_half = None;
    while begin.elapsed() < options.time() {
        if let ViewerMessage::Received(now) = viewer.next_message().await? {
            received.push(now);
        }
        if sent_at_half.is_none() && begin.elapsed() >= options.time() / 2 {
            sent_at_half = Some((sent_bytes(&sender).await, Instant::now()));
        }
    }
    let sent = sent_bytes(&sender).await;
    let sent_kbps = sent_at_half.map(|(before, since)| {
        (sent.saturating_sub(before)) as f64 * 8.0 / 1000.0 / since.elapsed().as_secs_f64()
    });
    drop(viewer);
    // The next call begins when this one is over.
    sleep(Duration::from_millis(200)).await;
    Ok(RunFigures { sent_kbps: sent_kbps.unwrap_or_default(), ..figures(&received) })
}

/// The bytes that the sender's connection has sent, RTP and all else.
async fn sent_bytes(sender: &Sender) -> u64 {
    let stats = sender.handle.stats().await.unwrap_or_default();
    let participants = stats.sessions.iter().flat_map(|one| &one.participants);
    let pairs = participants.flat_map(|one| &one.rtc).filter_map(|one| match one {
        RtcStats::CandidatePair(pair) => Some(pair.bytes_sent),
        RtcStats::MediaSource(_)
        | RtcStats::Transport(_)
        | RtcStats::LocalCandidate(_)
        | RtcStats::RemoteCandidate(_)
        | RtcStats::Codec(_)
        | RtcStats::OutboundRtp(_)
        | RtcStats::RemoteInboundRtp(_)
        | RtcStats::InboundRtp(_)
        | RtcStats::RemoteOutboundRtp(_) => None,
    });
    pairs.sum()
}

/// The figures of a call, of what the viewer had received at several times.
fn figures(received: &[ReceivedSoFar]) -> RunFigures {
    let Some(last) = received.last() else { return RunFigures::default() };
    let first_ms = received.iter().find_map(|one| one.first_frame_ms);
    let share = |from: &ReceivedSoFar| {
        let elapsed = last.ms.saturating_sub(from.ms);
        let concealed = last.concealed_ms.saturating_sub(from.concealed_ms);
        if elapsed == 0 { 0.0 } else { 100.0 * concealed as f64 / elapsed as f64 }
    };
    let settled = received.iter().find(|one| one.ms >= CONCEALMENT_FROM.as_millis() as u64);
    let start = ReceivedSoFar::default();
    let shown_ms = first_ms.map(|first| last.ms.saturating_sub(first)).filter(|ms| *ms > 0);
    RunFigures {
        first_frame_ms: first_ms,
        fps: shown_ms.map_or(0.0, |ms| last.decoded as f64 * 1000.0 / ms as f64),
        frozen_ms: last.frozen_ms,
        longest_freeze_ms: last.longest_freeze_ms,
        concealed: share(settled.unwrap_or(&start)),
        concealed_from_start: share(&start),
        sent_kbps: 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Impairment;

    fn at(ms: u64, decoded: u64, concealed_ms: u64) -> ReceivedSoFar {
        let first_frame_ms = (decoded > 0).then_some(1000);
        ReceivedSoFar { ms, first_frame_ms, decoded, concealed_ms, ..ReceivedSoFar::default() }
    }

    #[test]
    fn frames_count_from_the_first_and_concealment_from_the_sixth_second() {
        let call = [at(500, 0, 100), at(5200, 126, 200), at(11_000, 300, 258)];
        let figures = figures(&call);
        assert_eq!((figures.first_frame_ms, figures.fps), (Some(1000), 30.0));
        assert_eq!((figures.concealed, figures.concealed_from_start), (1.0, 258.0 / 110.0));
        let nothing = super::figures(&call[..1]);
        assert_eq!((nothing.first_frame_ms, nothing.fps), (None, 0.0));
        assert_eq!(nothing.concealed, 20.0, "a call that is too short counts from its start");
        assert_eq!(super::figures(&[]), RunFigures::default());
    }

    #[test]
    fn every_case_and_every_rung_of_the_ladder_is_a_network() {
        let ladder = loss_ladder();
        assert_eq!(ladder.len(), 36);
        for text in CASES.iter().map(|case| case.impairment).chain(ladder.iter().map(|one| &**one))
        {
            assert!(text.parse::<Impairment>().is_ok(), "{text}");
        }
    }
}
