//! The process of the viewers: engines that join, receive video and report their statistics.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use cpu_time::ProcessTime;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, interval, sleep, timeout},
};

use super::{
    BenchError,
    args::{ReceiveOptions, ViewOptions},
    report::pss,
    sender::SenderError,
    viewer_process::{ReceivedSoFar, ViewerMessage, ViewerStats},
};
use crate::{
    engine::{Decode, Engine, EngineOptions, FrameTap, Handle, HubChoice, TrackRef},
    model::{Command, Event, HubUrl, JoinTarget, PeerId, Source, Stats},
    wording,
};

/// How many viewers join one after the other, when no keyframe was forced shortly before.
const ALONE_COUNT: usize = 5;

/// The pause after each of them: keyframes are forced half a second apart at least.
const ALONE_INTERVAL: Duration = Duration::from_millis(700);

/// The pause between the others: ten per second, the limit of a hub for one remote address.
const CROWDED_INTERVAL: Duration = Duration::from_millis(100);

/// How long a first frame may take.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(30);

/// How often the viewer of `bench network` reports.
const RECEIVED_INTERVAL: Duration = Duration::from_millis(250);

/// How often the statistics are reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Joins with all viewers, then reports statistics until standard output is closed.
pub(super) async fn run(options: &ViewOptions) -> Result<(), BenchError> {
    let (sender, mut first_frames) = mpsc::channel(options.peers.max(1));
    let mut viewers = vec![];
    for (index, session) in options.sessions.iter().cycle().take(options.peers).enumerate() {
        viewers.push(join(session.clone(), options.decode, sender.clone()).await?);
        if index < ALONE_COUNT {
            let ms = first_frame(&mut first_frames, index, options.peers).await?;
            send_message(&ViewerMessage::FirstFrame { ms, alone: true })?;
            sleep(ALONE_INTERVAL).await;
        } else {
            sleep(CROWDED_INTERVAL).await;
        }
    }
    for index in ALONE_COUNT..options.peers {
        let ms = first_frame(&mut first_frames, index, options.peers).await?;
        send_message(&ViewerMessage::FirstFrame { ms, alone: false })?;
    }
    let mut seconds = interval(REPORT_INTERVAL);
    loop {
        seconds.tick().await;
        match send_message(&ViewerMessage::Figures(viewer_stats(&viewers).await)) {
            // The measuring process has finished.
            Err(BenchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(());
            }
            result => result?,
        }
    }
}

/// Joins one session over a bad network, decodes everything, and reports what arrives until
/// standard output is closed.
pub(super) async fn receive(options: &ReceiveOptions) -> Result<(), BenchError> {
    let engine_options = EngineOptions {
        decode: Decode::Always,
        impairment: Some(options.impair),
        ..engine_options(options.session.hub.clone())
    };
    let (handle, mut events) = Engine::start(engine_options).map_err(SenderError::from)?;
    let begin = Instant::now();
    handle.send(Command::Join { target: options.session.clone(), wait: true }).await;
    let mut received = ReceivedSoFar::default();
    let mut reports = interval(RECEIVED_INTERVAL);
    loop {
        tokio::select! {
            event = events.recv() => match event {
                Some(Event::FirstFrame { .. }) => {
                    received.first_frame_ms.get_or_insert(begin.elapsed().as_millis() as u64);
                }
                Some(Event::Failed(failure)) => eprintln!("quintet: {}", wording::failure(&failure)),
                Some(_) => {}
                None => return Ok(()),
            },
            _ = reports.tick() => {
                let stats = handle.stats().await.unwrap_or_default();
                received.update(&stats);
                received.ms = begin.elapsed().as_millis() as u64;
                match send_message(&ViewerMessage::Received(received)) {
                    Err(BenchError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                        return Ok(());
                    }
                    result => result?,
                }
            }
        }
    }
}

/// Starts a viewer that joins; `first_frames` gets the milliseconds to its first frame. It decodes
/// further frames only if `decode` is set.
async fn join(
    target: JoinTarget,
    decode: bool,
    first_frames: mpsc::Sender<u64>,
) -> Result<Arc<Handle>, BenchError> {
    let options = engine_options(target.hub.clone());
    let (handle, events) = Engine::start(options).map_err(SenderError::from)?;
    let handle = Arc::new(handle);
    handle.send(Command::Join { target, wait: false }).await;
    let viewer = Viewer { handle: Arc::clone(&handle), tap: None, decode, first_frames };
    tokio::spawn(viewer.run(events));
    Ok(handle)
}

fn engine_options(hub: Option<HubUrl>) -> EngineOptions {
    EngineOptions {
        hub: hub
            .map_or(HubChoice::Embed(SocketAddr::from(([127, 0, 0, 1], 0)).into()), HubChoice::At),
        decode: Decode::WhenTapped,
        ..EngineOptions::without_devices()
    }
}

/// One viewer, with a tap on the video of its session.
struct Viewer {
    handle: Arc<Handle>,
    tap: Option<(PeerId, FrameTap)>,
    decode: bool,
    first_frames: mpsc::Sender<u64>,
}

impl Viewer {
    async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        self.handle.subscribe(Arc::new(move || notify.notify_one()));
        let mut needs_tap = true;
        loop {
            tokio::select! {
                () = changed.notified(), if needs_tap => self.tap_video(),
                event = events.recv() => match event {
                    Some(Event::FirstFrame { ms, .. }) => {
                        // The queue has room for all viewers.
                        let _ = self.first_frames.try_send(ms);
                        needs_tap = self.decode;
                        self.tap = self.tap.take().filter(|_| self.decode);
                    }
                    Some(Event::Failed(failure)) => eprintln!("quintet: {}", wording::failure(&failure)),
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    /// Opens a tap on the video of the current peer connection.
    fn tap_video(&mut self) {
        let snapshot = self.handle.snapshot();
        let mut participants = snapshot.sessions.iter().flat_map(|one| one.participants.iter());
        let peer = participants.find_map(|participant| participant.peer);
        if let Some(peer) = peer
            && self.tap.as_ref().is_none_or(|(tapped, _)| *tapped != peer)
        {
            let tap = self.handle.tap_frames(TrackRef::Peer(peer, Source::Camera), Arc::new(|| {}));
            self.tap = tap.map(|tap| (peer, tap));
        }
    }
}

async fn first_frame(
    first_frames: &mut mpsc::Receiver<u64>,
    index: usize,
    viewers: usize,
) -> Result<u64, BenchError> {
    let ms = timeout(FIRST_FRAME_TIMEOUT, first_frames.recv()).await.ok().flatten();
    let (viewer, seconds) = (index + 1, FIRST_FRAME_TIMEOUT.as_secs());
    ms.ok_or(BenchError::NoFrame { viewer, viewers, seconds })
}

async fn viewer_stats(viewers: &[Arc<Handle>]) -> ViewerStats {
    let mut sum = ViewerStats {
        cpu_seconds: ProcessTime::now().as_duration().as_secs_f64(),
        pss: pss(),
        ..ViewerStats::default()
    };
    for (index, viewer) in viewers.iter().enumerate() {
        let stats = viewer.stats().await.unwrap_or_default();
        let participants = stats.sessions.iter().flat_map(|one| &one.participants);
        let video: Vec<_> = participants.filter_map(|one| one.video.as_ref()).collect();
        sum.received.push(video.iter().map(|video| video.received).sum());
        if index == 0 {
            sum.decoded = video.iter().map(|video| video.decoded).sum();
            let latency = video.iter().find_map(|video| video.latency_ms);
            sum.latency_ms = latency.map(|latency| (latency.p50, latency.p95));
        }
    }
    sum
}

impl ReceivedSoFar {
    /// Takes over what all participants sent so far.
    fn update(&mut self, stats: &Stats) {
        let participants = || stats.sessions.iter().flat_map(|one| &one.participants);
        let video = || participants().filter_map(|one| one.video.as_ref());
        self.decoded = video().map(|video| video.decoded).sum();
        self.frozen_ms = video().map(|video| video.frozen_ms).sum();
        self.longest_freeze_ms = video().map(|video| video.longest_freeze_ms).max().unwrap_or(0);
        let audio = participants().filter_map(|one| one.audio.as_ref());
        self.concealed_ms = audio.map(|audio| audio.concealed_ms).sum();
    }
}

fn send_message(message: &ViewerMessage) -> Result<(), BenchError> {
    let line = serde_json::to_string(message).map_err(io::Error::from);
    let written = line.and_then(|line| {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}").and_then(|()| out.flush())
    });
    written.map_err(BenchError::Output)
}
