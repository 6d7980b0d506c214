//! What the core wants done, in order.

use std::collections::VecDeque;

use super::words::HubRef;
use crate::model::{
    ClientMessage, Event, Failure, Layer, PeerCommand, PeerId, PeerMedia, SessionId,
};

/// What is to be done. Nobody waits for it: an outcome comes back as an [`Input`](super::Input).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Connect to a hub, and stay connected to it until told otherwise.
    ConnectHub(HubRef),
    /// Give the connection to a hub up; nothing of it is listened to any more.
    DisconnectHub(HubRef),
    /// Say something to a hub that is up. Never `Hello` or `Ping`, which the socket's end says by
    /// itself, and without secrets, which the core never sees: whoever carries this out adds the
    /// owner key to an `Open`.
    Send {
        /// To which.
        hub: HubRef,
        /// What.
        message: ClientMessage,
    },
    /// Say this name in every hello from now on. A hub that is up is told by a message as well.
    SetName(String),
    /// Make a connection; it is fed with nothing until [`Effect::SetSending`].
    OpenPeer {
        /// Which: a new one.
        peer: PeerId,
        /// For which session.
        session: SessionId,
        /// At which hub that is.
        hub: HubRef,
        /// With which media, seen from here.
        media: PeerMedia,
    },
    /// Close a connection at once; what it still tells is ignored.
    ClosePeer(PeerId),
    /// Tell a connection something.
    Peer {
        /// Which.
        peer: PeerId,
        /// What.
        command: PeerCommand,
    },
    /// What a connection is fed with from now on: once it is connected, what its direction sends
    /// and no gate holds back. Said only when it changes; of a medium that is not sent, no packet
    /// goes out, not even one of silence.
    SetSending {
        /// Which.
        peer: PeerId,
        /// Whether with sound.
        audio: bool,
        /// With which quality of the picture, if with any.
        video: Option<Layer>,
    },
    /// How a connection's sound is treated from now on; said only when it changes. Before the
    /// first time, it is heard, and expected to come.
    SetHeard {
        /// Which.
        peer: PeerId,
        /// Whether it may be heard: both listening gates are open.
        heard: bool,
        /// Whether sound is to be expected of it: its other end has not said otherwise, and it
        /// is not silent. Of several copies of one voice, one that speaks is to be played.
        speaks: bool,
    },
    /// Whether pictures are to be expected of a connection from now on: its other end says that its
    /// camera is on. Said only when it changes; before the first time, they are.
    ExpectPictures {
        /// Which.
        peer: PeerId,
        /// Whether.
        expected: bool,
    },
    /// What is wanted now; said when it changes. Before the first time nothing is.
    Demand {
        /// Pictures of here.
        camera: bool,
        /// Sound of here.
        microphone: bool,
        /// To play sound.
        speaker: bool,
    },
    /// Tell people; none is ever skipped.
    Announce(Event),
}

/// The effects that were not fetched yet, and the names of connections.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    effects: VecDeque<Effect>,
    peers: u64,
}

impl Outbox {
    /// The oldest effect that was not fetched yet.
    pub(super) fn pop(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(super) fn send(&mut self, hub: &HubRef, message: ClientMessage) {
        self.push(Effect::Send { hub: hub.clone(), message });
    }

    pub(super) fn announce(&mut self, event: Event) {
        self.push(Effect::Announce(event));
    }

    pub(super) fn fail(&mut self, failure: Failure) {
        self.announce(Event::Failed(failure));
    }

    /// A name that no connection of this process had.
    pub(super) fn name_peer(&mut self) -> PeerId {
        self.peers += 1;
        PeerId(self.peers)
    }
}
