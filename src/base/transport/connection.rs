//! The owner's handle of a connection, its configuration and its outputs.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::Instrument as _;

use super::{
    CheckBudget, Impairment, RtpDump, VirtualNetwork,
    congestion::BandwidthControl,
    rate_control::RateControl,
    stats::ConnectionStats,
    task::{self, TaskIo},
};
use crate::{
    bandwidth::Estimate,
    media::{EncodedAudio, EncodedVideo, IncomingTrack, Subscription, SubscriptionSlot},
    model::{
        Bitrate, Media, PeerCommand, PeerEvent, PeerId, PeerMedia, PeerState, PerSource, RtcStats,
        Source,
    },
    network::KnownPaths,
    supervision::catch_async,
};

/// Commands that may wait: a burst of the 100 candidates that a peer may send, and of the 80
/// messages that may be written at once.
const COMMAND_QUEUE: usize = 256;

/// The configuration of a connection.
#[derive(Clone, Debug)]
pub struct ConnectionConfig {
    /// Its id, which its events and tracks carry.
    pub peer: PeerId,
    /// Its media sections and their directions.
    pub media: PeerMedia,
    /// The stream id of the tracks that are sent (`a=msid`): 1 to 64 letters, digits or `-_.:+`.
    pub stream: String,
    /// The track id of each source that is sent (`a=msid`), of the same characters. They differ.
    pub mixes: PerSource<String>,
    /// A bad network to simulate for the packets that are sent, if any.
    pub impairment: Option<Impairment>,
    /// Where the connection's packets are dumped, if anywhere.
    pub rtp_dump: Option<RtpDump>,
    /// A network in memory instead of the system's, for tests in virtual time. Its only local
    /// address is a loopback address.
    pub network: Option<VirtualNetwork>,
    /// The known paths to remote peers, which decide which local addresses are bound first.
    pub paths: KnownPaths,
    /// The limit on connectivity checks to addresses that have not answered.
    pub checks: CheckBudget,
}

/// The queues into which connections put their events and remote tracks.
#[derive(Clone, Debug)]
pub struct EventSinks {
    /// Outcomes of commands, candidates, states and messages. While it is full, the connection
    /// waits.
    pub events: mpsc::Sender<(PeerId, PeerEvent)>,
    /// Remote tracks, each once, when its first packet arrives. While it is full, the track's
    /// packets are kept (512; after that the newest are dropped).
    pub tracks: mpsc::Sender<IncomingTrack>,
}

/// The encoded media of a source.
#[derive(Debug)]
pub enum SourceMedia {
    /// Video frames.
    Video(Subscription<EncodedVideo>),
    /// Audio packets.
    Audio(Subscription<EncodedAudio>),
}

/// Hands the media of a source to the task that sends it.
#[derive(Clone, Debug)]
pub(super) enum SourceSlot {
    Video(Arc<SubscriptionSlot<EncodedVideo>>),
    Audio(Arc<SubscriptionSlot<EncodedAudio>>),
}

impl SourceSlot {
    fn new(source: Source) -> Self {
        if source.media() == Media::Audio {
            Self::Audio(Arc::default())
        } else {
            Self::Video(Arc::default())
        }
    }
}

/// A WebRTC connection to one peer. Dropping it closes it, whatever it is doing: its tasks, sockets
/// and memory are freed soon after.
///
/// The calls never wait. Everything that they cause happens on the connection's tokio task, one
/// command after another; a peer that is slow or gone delays no other peer.
#[derive(Debug)]
pub struct Connection {
    peer: PeerId,
    commands: mpsc::Sender<PeerCommand>,
    overflow: Arc<Notify>,
    sources: PerSource<SourceSlot>,
    impairment: watch::Sender<Impairment>,
    stats: Arc<ConnectionStats>,
    bandwidth: Arc<BandwidthControl>,
    /// Dropping it ends the task.
    _alive: oneshot::Sender<()>,
    /// Held for as long as the owner has the connection.
    _check_budget: CheckBudget,
}

impl Connection {
    /// Opens the connection. Nothing is sent before a local and a remote description are set.
    ///
    /// If it cannot be built (no socket, an invalid name), the reason is logged and
    /// [`PeerState::Failed`](crate::model::PeerState::Failed) is its first event.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn open(mut config: ConnectionConfig, sinks: EventSinks) -> Self {
        // The task may outlive this handle for a moment, and must not hold the budget meanwhile.
        let budget = std::mem::take(&mut config.checks);
        let check_limiter = budget.limiter();
        let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
        let (alive, dropped) = oneshot::channel();
        let impairment = watch::Sender::new(config.impairment.unwrap_or_default());
        let connection = Self {
            peer: config.peer,
            commands,
            overflow: Arc::default(),
            sources: PerSource::from_fn(SourceSlot::new),
            impairment,
            stats: Arc::default(),
            bandwidth: BandwidthControl::new(config.peer),
            _alive: alive,
            _check_budget: budget,
        };
        let io = TaskIo {
            commands: queue,
            dropped,
            overflow: Arc::clone(&connection.overflow),
            sources: connection.sources.clone(),
            impairment: config.impairment.map(|_| connection.impairment.subscribe()),
            stats: Arc::clone(&connection.stats),
            bandwidth: Arc::clone(&connection.bandwidth),
            check_limiter,
        };
        // Not aborted on drop: the task closes the connection of the library first.
        tokio::spawn(run_supervised(config, sinks, io).in_current_span());
        connection
    }

    /// Queues a command behind all earlier ones; its outcome is an event. Never waits: up to 256
    /// commands may be queued, one more is a bug of the caller and makes the connection fail.
    pub fn command(&self, command: PeerCommand) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.commands.try_send(command) {
            tracing::error!(peer = %self.peer, "command queue full");
            self.overflow.notify_one();
        }
    }

    /// Sets what the section of a source sends from now on; `None` stops it. Sequence numbers
    /// continue. Media of another kind than the source's is a bug of the caller, and stops it too.
    ///
    /// Frames are sent while the connection is connected and the negotiated direction sends.
    /// Sending starts at a keyframe, which is requested whenever one is needed. A subscription that
    /// is marked [as successor](Subscription::as_successor) takes over at its first keyframe, and
    /// the one before is sent until then: so a layer changes without a gap.
    pub fn send(&self, source: Source, media: Option<SourceMedia>) {
        match (&self.sources[source], media) {
            (SourceSlot::Video(slot), Some(SourceMedia::Video(frames))) => slot.set(Some(frames)),
            (SourceSlot::Audio(slot), Some(SourceMedia::Audio(packets))) => slot.set(Some(packets)),
            (SourceSlot::Video(slot), other) => {
                debug_assert!(other.is_none(), "audio of a source of video");
                slot.set(None);
            }
            (SourceSlot::Audio(slot), other) => {
                debug_assert!(other.is_none(), "video of a source of audio");
                slot.set(None);
            }
        }
    }

    /// Sets the video of the camera, see [`Self::send`].
    pub fn send_video(&self, frames: Option<Subscription<EncodedVideo>>) {
        self.send(Source::Camera, frames.map(SourceMedia::Video));
    }

    /// Where the video of a source is handed over, for a task that changes it without this handle;
    /// `None` for a source of audio. See [`Self::send`].
    pub fn video_slot(&self, source: Source) -> Option<Arc<SubscriptionSlot<EncodedVideo>>> {
        match &self.sources[source] {
            SourceSlot::Video(slot) => Some(Arc::clone(slot)),
            SourceSlot::Audio(_) => None,
        }
    }

    /// Sets the audio of the microphone, see [`Self::send`].
    pub fn send_audio(&self, packets: Option<Subscription<EncodedAudio>>) {
        self.send(Source::Microphone, packets.map(SourceMedia::Audio));
    }

    /// Changes the simulated network. Does nothing if the connection was configured without an
    /// impairment, because its sockets are then not impaired ones.
    pub fn impair(&self, impairment: Impairment) {
        self.impairment.send_replace(impairment);
    }

    /// The statistics of now: the transport, the selected candidate pair, and the streams of both
    /// directions. Their members about frames and samples are absent, because playback has them.
    /// Takes short locks that the connection's driver takes too.
    pub fn stats(&self) -> Vec<RtcStats> {
        let mut report = self.stats.report();
        let available = self.bandwidth.latest().target.as_bps();
        for object in &mut report {
            if let RtcStats::CandidatePair(pair) = object {
                pair.available_outgoing_bitrate = available;
            }
        }
        report
    }

    /// What the bandwidth estimator of the connection says, about ten times a second while
    /// something is sent. Rates are rates on the wire. The channel closes some time after the
    /// connection.
    pub fn estimates(&self) -> watch::Receiver<Estimate> {
        self.bandwidth.estimates()
    }

    /// Sets the rate on the wire that this connection could use at most now; zero if there is
    /// nothing to send. The estimate does not grow far beyond it, and no more is probed for.
    pub fn set_desired_rate(&self, rate: Bitrate) {
        self.bandwidth.set_desired(rate);
    }

    /// Returns a function that tells the rate on the wire that audio needs while it is sent, with the
    /// copies of earlier packets in it.
    pub fn audio_rate(&self) -> impl Fn() -> Bitrate + Send + use<> {
        let bandwidth = Arc::clone(&self.bandwidth);
        move || bandwidth.audio_rate()
    }

    /// Returns a function that tells whether the other end prefers to get no audio packets while nothing
    /// is said (`usedtx`, RFC 7587, section 6.1); not before its description is known.
    pub fn accepts_dtx(&self) -> impl Fn() -> bool + Send + use<> {
        let stats = Arc::clone(&self.stats);
        move || stats.opus().uses_dtx()
    }

    /// Returns a function that tells whether the other end makes two channels of audio that has two (RFC
    /// 7587, section 6.1); not before its description is known.
    pub fn takes_stereo(&self) -> impl Fn() -> bool + Send + use<> {
        let stats = Arc::clone(&self.stats);
        move || stats.opus().takes_stereo()
    }

    /// Returns a function that sets the least rate on the wire that audio needs while it is sent, so
    /// that a voice has its room after a pause; at first that of [`AudioLayer::Standard`].
    ///
    /// [`AudioLayer::Standard`]: crate::model::AudioLayer::Standard
    pub fn least_audio_rate(&self) -> impl Fn(Bitrate) + Send + use<> {
        let bandwidth = Arc::clone(&self.bandwidth);
        move |rate| bandwidth.set_least_audio_rate(rate)
    }

    /// Returns a function that does what [`Self::set_desired_rate`] does, for a task without this
    /// handle.
    pub fn desired_rate(&self) -> impl Fn(Bitrate) + Send + use<> {
        let bandwidth = Arc::clone(&self.bandwidth);
        move |rate| bandwidth.set_desired(rate)
    }

    /// What limits the rate of this connection, for a task without this handle.
    pub fn rate_control(&self) -> RateControl {
        RateControl(Arc::clone(&self.bandwidth))
    }
}

/// Runs the connection's task. If it panics, the connection has failed.
async fn run_supervised(config: ConnectionConfig, sinks: EventSinks, io: TaskIo) {
    let (peer, events) = (config.peer, sinks.events.clone());
    if catch_async("peer connection", task::run(config, sinks, io)).await.is_err() {
        // The owner may have gone.
        let _ = events.send((peer, PeerEvent::State(PeerState::Failed))).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Candidate, Direction, OperationId, PerChannel};

    /// Opens a connection, makes it panic there, and returns its next event and how it answers a
    /// later command.
    async fn events_after_panic(place: &str) -> [PeerEvent; 2] {
        let (events, mut received) = mpsc::channel(16);
        let (tracks, _tracks) = mpsc::channel(1);
        let sections = PerSource { camera: Some(Direction::SendRecv), microphone: None };
        let config = ConnectionConfig {
            peer: PeerId(1),
            media: PeerMedia { sections, channels: PerChannel::NONE },
            stream: "stream".to_owned(),
            mixes: PerSource::from_fn(|source| source.name().to_owned()),
            impairment: None,
            rtp_dump: None,
            network: None,
            paths: KnownPaths::default(),
            checks: CheckBudget::default(),
        };
        let connection = Connection::open(config, EventSinks { events, tracks });
        let line = place.to_owned();
        connection.command(PeerCommand::AddCandidate(Candidate { line, mid: None, index: None }));
        let failed = received.recv().await.expect("the connection is held").1;
        let operation = OperationId(1);
        connection.command(PeerCommand::Rollback { operation });
        [failed, received.recv().await.expect("the connection is held").1]
    }

    #[tokio::test]
    async fn a_panic_in_the_task_or_in_a_media_task_makes_the_connection_fail() {
        for place in ["panic", "panic in a media task"] {
            let reason = "the connection has failed".to_owned();
            let refused = PeerEvent::Failed { operation: OperationId(1), reason };
            let expected = [PeerEvent::State(PeerState::Failed), refused];
            assert_eq!(events_after_panic(place).await, expected, "{place}");
        }
    }
}
