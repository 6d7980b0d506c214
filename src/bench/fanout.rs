//! What sending one picture to many costs the sender.

use std::time::Duration;

use cpu_time::ProcessTime;
use tokio::time::{Instant, sleep};

use super::{
    BenchError,
    args::FanoutOptions,
    audience::{Audience, ViewerFigures, Word},
    figures::{Arrivals, FanoutFigures, Memory, pss},
    stage::{Show, Stage},
};
use crate::model::{Command, Gate};

/// Sessions that viewers are spread over, as many as "Open Five Unique Sessions" opens.
const SESSIONS: usize = 5;

/// How long to watch the sessions while nobody is in them.
const NOBODY: Duration = Duration::from_secs(3);

/// How long to wait after the last viewer came: the keyframes that were forced for the last ones
/// have passed.
const SETTLE: Duration = Duration::from_secs(2);

/// How long to wait after the camera was switched off: it lingers for five seconds.
const LINGER: Duration = Duration::from_secs(6);

/// Opens the sessions, lets the viewers in, and measures.
///
/// # Errors
/// If a session does not open or a viewer sees nothing.
pub(super) async fn measure(options: &FanoutOptions) -> Result<FanoutFigures, BenchError> {
    let peers = options.peers as usize;
    let show = Show {
        picture: options.size.source(),
        rate: options.bitrate,
        sound: options.sound,
        sessions: SESSIONS,
    };
    let stage = Stage::open(show).await?;
    let cores_nobody = cores_over(NOBODY).await;
    let mut audience = Audience::seat(&stage.links, peers, false)?;
    let mut arrivals = Arrivals::default();
    let mut pss_of_one = None;
    for index in 0..peers {
        if let Word::FirstFrame { ms, alone } = audience.word().await? {
            arrivals.note(ms, alone);
        }
        if index == 0 {
            pss_of_one = pss();
        }
    }
    sleep(SETTLE).await;
    let before = Reading::take(&mut audience).await?;
    // Viewers tell every second: the next word after this comes when the time is over.
    sleep(options.time().saturating_sub(Duration::from_millis(500))).await;
    let after = Reading::take(&mut audience).await?;
    let memory = Memory { total: pss(), of_one: pss_of_one, peers };
    let cores_idle = match options.idle {
        true => Some(cores_while_off(&stage, options.time()).await),
        false => None,
    };
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    Ok(FanoutFigures {
        peers,
        sessions: SESSIONS,
        picture: options.size,
        bitrate: options.bitrate,
        seconds,
        cores: (after.cpu - before.cpu).as_secs_f64() / seconds,
        cores_nobody,
        cores_idle,
        frames: received(&before.viewers, &after.viewers),
        memory,
        arrivals,
        viewers_cores: (after.viewers.cpu_seconds - before.viewers.cpu_seconds) / seconds,
        viewers_pss: after.viewers.pss,
    })
}

/// Both processes at one time.
struct Reading {
    at: Instant,
    cpu: Duration,
    viewers: ViewerFigures,
}

impl Reading {
    async fn take(audience: &mut Audience) -> Result<Self, BenchError> {
        let viewers = audience.figures().await?;
        Ok(Self { at: Instant::now(), cpu: ProcessTime::now().as_duration(), viewers })
    }
}

/// What each viewer received between two readings.
fn received(before: &ViewerFigures, after: &ViewerFigures) -> Vec<u64> {
    let pairs = after.received.iter().zip(&before.received);
    pairs.map(|(after, before)| after.saturating_sub(*before)).collect()
}

/// What this process costs from now on for that long, in cores.
async fn cores_over(time: Duration) -> f64 {
    let (start, begun) = (ProcessTime::now(), Instant::now());
    sleep(time).await;
    start.elapsed().as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// What the connections cost that carry nothing.
async fn cores_while_off(stage: &Stage, time: Duration) -> f64 {
    let off = Command::SetGate { session: None, gate: Gate::Camera, open: false };
    stage.handle.send(off).await;
    sleep(LINGER).await;
    cores_over(time).await
}
