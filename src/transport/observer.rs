//! What the library calls back with, put into a queue: callbacks run on the connection's driver
//! and must neither wait nor lock there.

use std::sync::Arc;

use tokio::sync::{Notify, mpsc, watch};
use webrtc::{
    media_stream::track_remote::TrackRemote,
    peer_connection::{
        PeerConnectionEventHandler, RTCIceGatheringState, RTCPeerConnectionIceEvent,
        RTCPeerConnectionState,
    },
};

use crate::model::PeerState;

/// Happenings that wait for the connection's task at most: some candidates for each address,
/// a few states and tracks. More wait only if the task has been stuck for long.
const HAPPENINGS: usize = 64;

/// What the library tells of a connection.
pub(super) enum Happening {
    /// A local candidate line.
    Candidate(String),
    /// There will be no more local candidates.
    Gathered,
    /// ICE and DTLS together changed their state.
    State(PeerState),
    /// The first packet of a remote track arrived.
    Track(Arc<dyn TrackRemote>),
}

/// Queues happenings.
pub(super) struct Observer {
    queue: mpsc::Sender<Happening>,
    overflow: Arc<Notify>,
    up: watch::Sender<bool>,
}

impl Observer {
    /// An observer and its queue. `overflow` is notified when the queue is full: what is lost then
    /// cannot be told again, so the connection is over.
    pub(super) fn new(overflow: Arc<Notify>) -> (Arc<Self>, mpsc::Receiver<Happening>) {
        let (queue, happenings) = mpsc::channel(HAPPENINGS);
        (Arc::new(Self { queue, overflow, up: watch::Sender::new(false) }), happenings)
    }

    /// Whether the connection is up: true from when it is so for the first time.
    pub(super) fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    fn tell(&self, happening: Happening) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(happening) {
            self.overflow.notify_one();
        }
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Observer {
    async fn on_ice_candidate(&self, event: RTCPeerConnectionIceEvent) {
        match event.candidate.to_json() {
            Ok(candidate) => self.tell(Happening::Candidate(candidate.candidate)),
            Err(error) => tracing::debug!(%error, "a local candidate cannot be written"),
        }
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.tell(Happening::Gathered);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        match state {
            RTCPeerConnectionState::Connecting => {
                self.tell(Happening::State(PeerState::Connecting));
            }
            RTCPeerConnectionState::Connected => {
                self.up.send_replace(true);
                self.tell(Happening::State(PeerState::Connected));
            }
            RTCPeerConnectionState::Disconnected => {
                self.tell(Happening::State(PeerState::Disconnected));
            }
            RTCPeerConnectionState::Failed => self.tell(Happening::State(PeerState::Failed)),
            RTCPeerConnectionState::Unspecified
            | RTCPeerConnectionState::New
            | RTCPeerConnectionState::Closed
            | _ => {}
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        self.tell(Happening::Track(track));
    }
}
