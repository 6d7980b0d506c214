//! What the window and the command line hold of a running engine.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    capture::SourceSpec,
    media::{Bell, Gallery, LevelTap, Picture, PictureTap, Wake},
    model::{Command, Snapshot, Stats},
    playback::SpeakerSpec,
};

/// A running engine, seen from outside. Dropping it stops the engine without farewell;
/// [`Handle::close`] leaves every session first.
#[derive(Debug)]
pub struct Handle {
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(super) gallery: Gallery,
    pub(super) news: Bell,
}

/// What a handle asks of its engine.
#[derive(Debug)]
pub(super) enum Request {
    /// Do what a person wants.
    Command(Command),
    /// Send another picture.
    Camera(SourceSpec),
    /// Send another sound.
    Microphone(SourceSpec),
    /// Play elsewhere.
    Speaker(SpeakerSpec),
    /// Tell the figures.
    Stats(oneshot::Sender<Stats>),
    /// Leave every session, tell the figures and end.
    Close(oneshot::Sender<Stats>),
}

impl Handle {
    /// Hands a command over; waits only while 64 others are waiting.
    pub async fn send(&self, command: Command) {
        if self.requests.send(Request::Command(command)).await.is_err() {
            tracing::error!("the engine has ended, a command is lost");
        }
    }

    /// Hands a command over; never waits.
    ///
    /// # Errors
    /// The command itself, if 64 requests are waiting or the engine has ended.
    pub fn try_send(&self, command: Command) -> Result<(), Command> {
        self.request(Request::Command(command.clone())).map_err(|Busy| command)
    }

    /// Sends another picture from now on; never waits. Connections, the encoder and taps stay, and
    /// the snapshot shows how the device opens. If no picture is wanted now, it is opened later.
    ///
    /// # Errors
    /// The source itself, if 64 requests are waiting or the engine has ended.
    pub fn set_camera(&self, camera: SourceSpec) -> Result<(), SourceSpec> {
        self.request(Request::Camera(camera.clone())).map_err(|Busy| camera)
    }

    /// Sends another sound from now on, as [`Self::set_camera`] does.
    ///
    /// # Errors
    /// The source itself, if 64 requests are waiting or the engine has ended.
    pub fn set_microphone(&self, microphone: SourceSpec) -> Result<(), SourceSpec> {
        self.request(Request::Microphone(microphone.clone())).map_err(|Busy| microphone)
    }

    /// Plays what is received elsewhere from now on; never waits, and no voice is interrupted.
    ///
    /// # Errors
    /// The speaker itself, if 64 requests are waiting or the engine has ended.
    pub fn set_speaker(&self, speaker: SpeakerSpec) -> Result<(), SpeakerSpec> {
        self.request(Request::Speaker(speaker.clone())).map_err(|Busy| speaker)
    }

    /// How everything is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Has `wake` called after each change of the snapshot and after events.
    /// It is called on a thread of the runtime, for the engine's whole life: it must not block.
    pub fn subscribe(&self, wake: Wake) {
        self.news.on_ring(wake);
    }

    /// The newest frame of a picture at any time, until the tap is dropped; `wake` is called at
    /// each frame, on the thread that made it: it must not block. `None` if there is no such
    /// connection (any more).
    ///
    /// A tap on our own picture keeps the camera open, whatever the gates and whoever else wants
    /// it: a window that shows it drops the tap when the person switches the camera off, and five
    /// seconds later the camera is closed. A tap on another has it decoded, see
    /// [`Decode`](super::Decode).
    pub fn picture(&self, of: Picture, wake: Wake) -> Option<PictureTap> {
        self.gallery.picture(of, wake)
    }

    /// How loud something was in the last 100 ms, in dB against full scale (a full-scale sine has
    /// -3); -120 for silence and where there is nothing. Ours is what the microphone hears,
    /// whatever its gates, while it is open; others' is what arrives, whether it is heard or not.
    ///
    /// Looks the name up under a short lock that no real-time thread takes.
    pub fn level(&self, of: Picture) -> f32 {
        self.gallery.level(of)
    }

    /// Has the microphone opened while the tap is held, to show its level before anybody hears
    /// it. Reading it is one atomic load.
    pub fn microphone_level(&self) -> LevelTap {
        self.gallery.exhibit(Picture::Local);
        self.gallery.sound(Picture::Local).expect("our own is never taken out")
    }

    /// The figures so far, without those of participants who left; `None` if the engine has ended.
    pub async fn stats(&self) -> Option<Stats> {
        let (reply, stats) = oneshot::channel();
        self.requests.send(Request::Stats(reply)).await.ok()?;
        stats.await.ok()
    }

    /// Leaves every session properly, ends the engine, and returns its last figures.
    pub async fn close(self) -> Stats {
        self.closer().close().await
    }

    /// What closes the engine once whoever holds the handle cannot any more. While it is held, the
    /// engine goes on without the handle.
    pub fn closer(&self) -> Closer {
        Closer { requests: self.requests.clone() }
    }

    fn request(&self, request: Request) -> Result<(), Busy> {
        self.requests.try_send(request).map_err(|_| Busy)
    }
}

/// Closes an engine without its handle, see [`Handle::closer`].
#[derive(Debug)]
pub struct Closer {
    requests: mpsc::Sender<Request>,
}

impl Closer {
    /// Leaves every session properly, ends the engine, and returns its last figures.
    pub async fn close(self) -> Stats {
        let (reply, stats) = oneshot::channel();
        if self.requests.send(Request::Close(reply)).await.is_err() {
            return Stats::default();
        }
        stats.await.unwrap_or_default()
    }
}

/// The queue is full, or nobody reads it any more.
struct Busy;
