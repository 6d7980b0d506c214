//! The handle by which the window and the command line use a running engine.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    capture::SourceSpec,
    media::{FrameTap, LevelTap, Notifier, TrackRef, TrackSinks, Wake},
    model::{Command, Snapshot, Stats},
    playback::SpeakerSpec,
    supervision::Panicked,
};

/// A handle to a running engine. Dropping it stops the engine without leaving the sessions;
/// [`Handle::close`] leaves every session first.
#[derive(Debug)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) track_sinks: TrackSinks,
    pub(super) notifier: Notifier,
    /// Why the engine has stopped, if it panicked.
    pub(super) panicked: watch::Receiver<Option<Panicked>>,
}

/// A request from a handle to its engine.
#[derive(Debug)]
pub(super) enum Request {
    /// Do this, and go on.
    Call(Call),
    /// Leave every session, return the statistics and end.
    Close(oneshot::Sender<Stats>),
}

/// A request after which the engine goes on.
#[derive(Debug)]
pub(super) enum Call {
    /// Carry out a command of the user.
    Command(Command),
    /// Send the video of another source.
    Camera(SourceSpec),
    /// Send the audio of another source.
    Microphone(SourceSpec),
    /// Play received audio on another speaker.
    Speaker(SpeakerSpec),
    /// Return the statistics.
    Stats(oneshot::Sender<Stats>),
    /// Panic.
    #[cfg(test)]
    Panic,
}

impl Handle {
    /// Queues a command; waits only while 64 requests are queued.
    pub async fn send(&self, command: Command) {
        if self.requests.send(Request::Call(Call::Command(command))).await.is_err() {
            tracing::error!("the engine has ended, a command is lost");
        }
    }

    /// Queues a command; never waits.
    ///
    /// # Errors
    /// Returns the command if 64 requests are queued or the engine has ended.
    pub fn try_send(&self, command: Command) -> Result<(), Command> {
        self.try_call(Call::Command(command.clone())).map_err(|RequestRejected| command)
    }

    /// Sends the video of another source from now on; never waits. Peer connections, the encoder
    /// and taps stay, and the snapshot shows the state of the device. If no video is needed now,
    /// the source is opened later.
    ///
    /// # Errors
    /// Returns the source if 64 requests are queued or the engine has ended.
    pub fn set_camera(&self, camera: SourceSpec) -> Result<(), SourceSpec> {
        self.try_call(Call::Camera(camera.clone())).map_err(|RequestRejected| camera)
    }

    /// Sends the audio of another source from now on, as [`Self::set_camera`] does for video.
    ///
    /// # Errors
    /// Returns the source if 64 requests are queued or the engine has ended.
    pub fn set_microphone(&self, microphone: SourceSpec) -> Result<(), SourceSpec> {
        self.try_call(Call::Microphone(microphone.clone())).map_err(|RequestRejected| microphone)
    }

    /// Plays received audio on another speaker from now on; never waits, and interrupts no audio
    /// stream.
    ///
    /// # Errors
    /// Returns the speaker if 64 requests are queued or the engine has ended.
    pub fn set_speaker(&self, speaker: SpeakerSpec) -> Result<(), SpeakerSpec> {
        self.try_call(Call::Speaker(speaker.clone())).map_err(|RequestRejected| speaker)
    }

    /// Returns the newest snapshot of the whole state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Calls `wake` after each change of the snapshot and after events, as long as the engine
    /// runs. It is called on a thread of the runtime and must not block.
    pub fn subscribe(&self, wake: Wake) {
        self.notifier.subscribe(wake);
    }

    /// Returns a tap that gives the newest frame of a video until it is dropped. `wake` is called
    /// at each frame, on the thread that made the frame: it must not block. `None` if the peer
    /// connection does not exist, or not any more.
    ///
    /// A tap on our own video keeps the camera open, even while the camera is switched off in every
    /// session. So the window drops the tap when the user switches the camera off, and five
    /// seconds later the camera is closed. A tap on a remote video makes the engine decode it, see
    /// [`Decode`](super::Decode).
    pub fn tap_frames(&self, of: TrackRef, wake: Wake) -> Option<FrameTap> {
        self.track_sinks.tap_frames(of, wake)
    }

    /// Returns the audio level of the last 100 ms in dB relative to full scale (a full-scale sine
    /// has -3); -120 for silence and for an unknown peer connection. Our own level is that of the
    /// microphone while it is open, muted or not; a remote level is that of the received audio,
    /// played or not.
    ///
    /// The lookup takes a short lock that no real-time thread takes.
    pub fn level(&self, of: TrackRef) -> f32 {
        self.track_sinks.level(of)
    }

    /// Keeps the microphone open while the returned tap is held, so that its level can be shown
    /// before any audio is sent. Reading the level is one atomic load.
    pub fn microphone_level(&self) -> LevelTap {
        self.track_sinks.register(TrackRef::MICROPHONE);
        self.track_sinks.tap_level(TrackRef::MICROPHONE).expect("the local level is never removed")
    }

    /// Returns the statistics so far, without participants that left; `None` if the engine has
    /// ended.
    pub fn stats(&self) -> impl Future<Output = Option<Stats>> + Send + use<> {
        let requests = self.requests.clone();
        async move {
            let (reply, stats) = oneshot::channel();
            requests.send(Request::Call(Call::Stats(reply))).await.ok()?;
            stats.await.ok()
        }
    }

    /// Requests the statistics as [`Self::stats`] does, and never waits: they are sent to the
    /// returned channel. `None` if 64 requests are queued or the engine has ended.
    pub fn request_stats(&self) -> Option<oneshot::Receiver<Stats>> {
        let (reply, stats) = oneshot::channel();
        self.try_call(Call::Stats(reply)).ok()?;
        Some(stats)
    }

    /// Leaves every session properly, ends the engine, and returns its last statistics.
    pub async fn close(self) -> Stats {
        self.closer().close().await
    }

    /// Returns a second owner of the engine, to close it when the owner of the handle no longer
    /// can. While the closer is held, the engine runs on without the handle.
    pub fn closer(&self) -> Closer {
        Closer { requests: self.requests.clone() }
    }

    /// Why the engine has stopped, if it panicked. Its sessions, devices and connections are closed
    /// then. Subscribers of [`Self::subscribe`] are woken.
    pub fn failure(&self) -> Option<Panicked> {
        self.panicked.borrow().clone()
    }

    /// Waits until the engine has ended, and returns why, if it panicked.
    pub async fn ended(&self) -> Option<Panicked> {
        let mut panicked = self.panicked.clone();
        panicked.wait_for(Option::is_some).await.ok().and_then(|panicked| panicked.clone())
    }

    fn try_call(&self, call: Call) -> Result<(), RequestRejected> {
        self.requests.try_send(Request::Call(call)).map_err(|_| RequestRejected)
    }
}

/// Closes an engine without its handle, see [`Handle::closer`].
#[derive(Debug)]
pub struct Closer {
    requests: mpsc::Sender<Request>,
}

impl Closer {
    /// Leaves every session properly, ends the engine, and returns its last statistics.
    pub async fn close(self) -> Stats {
        let (reply, stats) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_err() {
            return Stats::default();
        }
        stats.await.unwrap_or_default()
    }
}

/// The request queue is full, or the engine has ended.
struct RequestRejected;
