//! A connection as its owner holds it.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    CheckBudget, Impairment,
    sender::Feed,
    tap::TrafficCounters,
    task::{self, Wires},
};
use crate::{
    media::{EncodedAudio, EncodedVideo, IncomingTrack, Subscription},
    model::{PeerCommand, PeerEvent, PeerId, PeerMedia},
    network::KnownPaths,
};

/// Commands that wait at most: a burst of the 100 candidates that a peer may send, and of the 80
/// messages that may be written at once.
const COMMANDS: usize = 256;

/// What a connection is to be.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Which it is; its events and tracks bear this id.
    pub peer: PeerId,
    /// Its sections and their directions.
    pub media: PeerMedia,
    /// The media stream id of what is sent (`a=msid`): 1 to 64 letters, digits or `-_.:+`.
    pub stream: String,
    /// The track id of the sound that is sent (`a=msid`), of the same characters.
    pub audio_mix: String,
    /// The track id of the pictures that are sent; another than that of the sound.
    pub video_mix: String,
    /// A bad network in the way of what is sent, if wanted.
    pub impairment: Option<Impairment>,
    /// The ways to others that are known: which local addresses are bound first.
    pub paths: KnownPaths,
    /// What bounds the connectivity checks that leave for addresses that have not answered.
    pub checks: CheckBudget,
}

/// Where connections send what comes out of them.
#[derive(Clone, Debug)]
pub struct Outlets {
    /// Outcomes, candidates and states. While it is full, the connection waits.
    pub events: mpsc::Sender<(PeerId, PeerEvent)>,
    /// Remote tracks, each once, when its first packet arrives. While it is full, the track's
    /// packets are kept (512, then the newest are dropped).
    pub tracks: mpsc::Sender<IncomingTrack>,
}

/// A WebRTC connection to one peer. Dropping it closes it: its tasks, sockets and memory are gone
/// soon after, whatever it was doing.
///
/// The calls never wait. Everything they cause happens on the connection's tokio task, one
/// command after another; a peer that is slow or gone holds up nobody else.
#[derive(Debug)]
pub struct Connection {
    peer: PeerId,
    commands: mpsc::Sender<PeerCommand>,
    overflow: Arc<Notify>,
    video: Arc<Feed<EncodedVideo>>,
    audio: Arc<Feed<EncodedAudio>>,
    impairment: watch::Sender<Impairment>,
    traffic: Arc<TrafficCounters>,
    /// Its drop tells the task.
    _alive: oneshot::Sender<()>,
    /// Held as long as somebody has the connection.
    _checks: CheckBudget,
}

impl Connection {
    /// Opens the connection. Nothing is sent before a description was made and one was taken.
    ///
    /// If it cannot be built (no socket, a wrong name), the reason is logged and
    /// [`PeerState::Failed`](crate::model::PeerState::Failed) is its first event.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(mut config: ConnectionConfig, outlets: Outlets) -> Self {
        // Its task may outlive it for a moment, and must not hold the budget meanwhile.
        let budget = std::mem::take(&mut config.checks);
        let checks = budget.checks();
        let (commands, queue) = mpsc::channel(COMMANDS);
        let (alive, dropped) = oneshot::channel();
        let impairment = watch::Sender::new(config.impairment.unwrap_or_default());
        let connection = Self {
            peer: config.peer,
            commands,
            overflow: Arc::default(),
            video: Arc::default(),
            audio: Arc::default(),
            impairment,
            traffic: Arc::default(),
            _alive: alive,
            _checks: budget,
        };
        let wires = Wires {
            commands: queue,
            dropped,
            overflow: Arc::clone(&connection.overflow),
            video: Arc::clone(&connection.video),
            audio: Arc::clone(&connection.audio),
            impairment: config.impairment.map(|_| connection.impairment.subscribe()),
            traffic: Arc::clone(&connection.traffic),
            checks,
        };
        tokio::spawn(task::run(config, outlets, wires));
        connection
    }

    /// Has a command carried out, after all earlier ones; its outcome is an event. Never waits:
    /// 256 may be waiting, one more is a bug of the caller and ends the connection as failed.
    pub fn command(&self, command: PeerCommand) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.commands.try_send(command) {
            tracing::error!(peer = %self.peer, "too many commands are waiting");
            self.overflow.notify_one();
        }
    }

    /// What its pictures are from now on; `None` stops them. Sequence numbers go on.
    ///
    /// They are sent while the connection is connected and the negotiated direction sends, from
    /// a keyframe on, which is asked for whenever one is needed.
    pub fn send_video(&self, frames: Option<Subscription<EncodedVideo>>) {
        self.video.put(frames);
    }

    /// What its sound is from now on; `None` stops it.
    pub fn send_audio(&self, packets: Option<Subscription<EncodedAudio>>) {
        self.audio.put(packets);
    }

    /// Makes the network in its way better or worse. Without an impairment to begin with, its
    /// sockets are bare and this does nothing.
    pub fn impair(&self, impairment: Impairment) {
        self.impairment.send_replace(impairment);
    }

    /// What it has sent so far.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            sent: self.traffic.sent.load(Ordering::Relaxed),
            repeated: self.traffic.repeated.load(Ordering::Relaxed),
        }
    }
}

/// RTP packets that a connection sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// New ones.
    pub sent: u64,
    /// Those sent again because the other end missed them (RFC 4585, section 6.2.1).
    pub repeated: u64,
}
