//! Measures the cost of sending video to many viewers.

use std::time::Duration;

use cpu_time::ProcessTime;
use tokio::time::{Instant, sleep};

use super::{
    BenchError,
    args::FanoutOptions,
    report::{FanoutReport, FirstFrameTimes, Memory, pss},
    sender::{Sender, SenderOptions},
    viewer_process::{ViewerMessage, ViewerProcess, ViewerStats},
};
use crate::model::{Command, MuteSwitch};

/// The number of sessions over which viewers are spread, as with `open --five`.
const SESSIONS: usize = 5;

/// How long to measure the sessions without viewers.
const EMPTY_TIME: Duration = Duration::from_secs(3);

/// How long to wait after the last viewer has joined, until the keyframes that were forced for the
/// last viewers are sent.
const SETTLE_TIME: Duration = Duration::from_secs(2);

/// How long to wait after the camera is switched off: the device closes after five seconds.
const CAMERA_OFF_TIME: Duration = Duration::from_secs(6);

/// Opens the sessions, starts the viewers, and measures.
///
/// # Errors
/// Fails if a session does not open or a viewer receives no video.
pub(super) async fn measure(options: &FanoutOptions) -> Result<FanoutReport, BenchError> {
    let peers = options.peers as usize;
    let sender_options = SenderOptions {
        camera: options.size.source(),
        bitrate: options.bitrate,
        sends_audio: options.sound,
        sessions: SESSIONS,
        impairment: None,
    };
    let sender = Sender::open(sender_options).await?;
    let cores_without_viewers = cores_over(EMPTY_TIME).await;
    let mut viewers = ViewerProcess::start(&sender.links, peers, false)?;
    let mut first_frames = FirstFrameTimes::default();
    let mut pss_with_first = None;
    for index in 0..peers {
        if let ViewerMessage::FirstFrame { ms, alone } = viewers.next_message().await? {
            first_frames.add(ms, alone);
        }
        if index == 0 {
            pss_with_first = pss();
        }
    }
    sleep(SETTLE_TIME).await;
    let before = Sample::take(&mut viewers).await?;
    // The viewers report every second: the next report after this sleep ends the measurement.
    sleep(options.time().saturating_sub(Duration::from_millis(500))).await;
    let after = Sample::take(&mut viewers).await?;
    let memory = Memory { total: pss(), with_first: pss_with_first, peers };
    let cores_camera_off = match options.idle {
        true => Some(cores_while_off(&sender, options.time()).await),
        false => None,
    };
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    Ok(FanoutReport {
        peers,
        sessions: SESSIONS,
        format: options.size,
        bitrate: options.bitrate,
        seconds,
        cores: (after.cpu - before.cpu).as_secs_f64() / seconds,
        cores_without_viewers,
        cores_camera_off,
        frames: received(&before.viewers, &after.viewers),
        memory,
        first_frames,
        viewers_cores: (after.viewers.cpu_seconds - before.viewers.cpu_seconds) / seconds,
        viewers_pss: after.viewers.pss,
    })
}

/// A measurement of both processes at one time.
struct Sample {
    at: Instant,
    cpu: Duration,
    viewers: ViewerStats,
}

impl Sample {
    async fn take(process: &mut ViewerProcess) -> Result<Self, BenchError> {
        let viewers = process.next_stats().await?;
        Ok(Self { at: Instant::now(), cpu: ProcessTime::now().as_duration(), viewers })
    }
}

/// Returns how many frames each viewer received between two measurements.
fn received(before: &ViewerStats, after: &ViewerStats) -> Vec<u64> {
    let pairs = after.received.iter().zip(&before.received);
    pairs.map(|(after, before)| after.saturating_sub(*before)).collect()
}

/// Returns the CPU use of this process over the given time, in cores.
async fn cores_over(time: Duration) -> f64 {
    let (cpu_start, start) = (ProcessTime::now(), Instant::now());
    sleep(time).await;
    cpu_start.elapsed().as_secs_f64() / start.elapsed().as_secs_f64()
}

/// Switches the camera off and returns the CPU use of the connections without media, in cores.
async fn cores_while_off(sender: &Sender, time: Duration) -> f64 {
    let off = Command::SetEnabled { session: None, switch: MuteSwitch::CAMERA, enabled: false };
    sender.handle.send(off).await;
    sleep(CAMERA_OFF_TIME).await;
    cores_over(time).await
}
