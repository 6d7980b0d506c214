//! Queues the events of webrtc-rs: its callbacks run on the connection's driver and must neither
//! wait nor lock there.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use webrtc::{
    media_stream::track_remote::TrackRemote,
    peer_connection::{
        PeerConnectionEventHandler, RTCIceConnectionState, RTCIceGatheringState,
        RTCPeerConnectionIceEvent, RTCPeerConnectionState,
    },
};

use super::stats::ConnectionStats;
use crate::model::{IceTransportState, PeerState};

/// Events that may wait for the connection's task: some candidates for each address, a few states
/// and tracks. More wait only if the task has been stuck for long.
const EVENT_QUEUE: usize = 64;

/// An event of webrtc-rs about a connection.
pub(super) enum LibraryEvent {
    /// A local candidate line.
    Candidate(String),
    /// There are no more local candidates.
    GatheringComplete,
    /// The connection state, which combines ICE and DTLS, changed.
    State(PeerState),
    /// The first packet of a remote track arrived.
    Track(Arc<dyn TrackRemote>),
}

/// Queues the events of webrtc-rs for the connection's task.
pub(super) struct EventForwarder {
    queue: mpsc::Sender<LibraryEvent>,
    overflow: Arc<Notify>,
    connected: watch::Sender<bool>,
    stats: Arc<ConnectionStats>,
}

impl EventForwarder {
    /// A forwarder and its queue. `overflow` is notified when the queue is full: webrtc-rs does not
    /// repeat a lost event, so the connection must end. The states are recorded in `stats`.
    pub(super) fn new(
        overflow: Arc<Notify>,
        stats: Arc<ConnectionStats>,
    ) -> (Arc<Self>, mpsc::Receiver<LibraryEvent>) {
        let (queue, events) = mpsc::channel(EVENT_QUEUE);
        (Arc::new(Self { queue, overflow, connected: watch::Sender::new(false), stats }), events)
    }

    /// Whether the connection has been connected: true from the first time on.
    pub(super) fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    fn forward(&self, event: LibraryEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(event) {
            self.overflow.notify_one();
        }
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for EventForwarder {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(candidate) => self.forward(LibraryEvent::Candidate(candidate.candidate)),
            Err(error) => tracing::debug!(%error, "invalid local candidate dropped"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.forward(LibraryEvent::GatheringComplete);
        }
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        let state = match state {
            RTCIceConnectionState::New => IceTransportState::New,
            RTCIceConnectionState::Checking => IceTransportState::Checking,
            RTCIceConnectionState::Connected => IceTransportState::Connected,
            RTCIceConnectionState::Completed => IceTransportState::Completed,
            RTCIceConnectionState::Disconnected => IceTransportState::Disconnected,
            RTCIceConnectionState::Failed => IceTransportState::Failed,
            RTCIceConnectionState::Closed => IceTransportState::Closed,
            RTCIceConnectionState::Unspecified | _ => return,
        };
        self.stats.on_ice_state(state);
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        match state {
            RTCPeerConnectionState::Connecting => {
                self.forward(LibraryEvent::State(PeerState::Connecting));
            }
            RTCPeerConnectionState::Connected => {
                self.connected.send_replace(true);
                self.stats.on_connected();
                self.forward(LibraryEvent::State(PeerState::Connected));
            }
            RTCPeerConnectionState::Disconnected => {
                self.forward(LibraryEvent::State(PeerState::Disconnected));
            }
            RTCPeerConnectionState::Failed => self.forward(LibraryEvent::State(PeerState::Failed)),
            RTCPeerConnectionState::Unspecified
            | RTCPeerConnectionState::New
            | RTCPeerConnectionState::Closed
            | _ => {}
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.forward(LibraryEvent::Track(track));
    }
}
