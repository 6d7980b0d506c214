//! The effects of the core, in order.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::input::HubRef;
use crate::model::{
    ClientMessage, Event, Failure, Layer, MixId, ParticipantId, PeerCommand, PeerId, PeerMedia,
    PerDevice, PerSource, SessionId, ShownSize, SoundCheck, Source, TrackList, VoiceProcessing,
};

/// An action for the engine. The core does not wait for it: an outcome comes back as an
/// [`Input`](super::Input).
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Connect to a hub, and stay connected until [`Effect::DisconnectHub`].
    ConnectHub(HubRef),
    /// Close the connection to a hub; ignore everything that it still sends.
    DisconnectHub(HubRef),
    /// Send a message to a hub that is up. The message is never `Hello` or `Ping`, which the
    /// connection sends by itself. It contains no secret, because the core never sees one: the
    /// engine adds the owner key to an `Open`.
    Send {
        /// The hub.
        hub: HubRef,
        /// The message.
        message: ClientMessage,
    },
    /// Use this name in every `hello` from now on. Hubs that are up get a message as well.
    SetName(String),
    /// Open a peer connection. It sends nothing until [`Effect::SetSending`].
    OpenPeer {
        /// The id of the new connection.
        peer: PeerId,
        /// The session.
        session: SessionId,
        /// The session's hub.
        hub: HubRef,
        /// The media, seen from here.
        media: PeerMedia,
        /// What the track of each source carries at first.
        mixes: PerSource<MixId>,
    },
    /// Close a peer connection at once; events that it still sends are ignored.
    ClosePeer(PeerId),
    /// Send a command to a peer connection.
    Peer {
        /// The connection.
        peer: PeerId,
        /// The command.
        command: PeerCommand,
    },
    /// Set the media that a peer connection sends: once it is connected, what its direction allows
    /// and no switch mutes. Sent only when it changes. For a source that is not sent no packet goes
    /// out; audio ends with three packets of silence.
    SetSending {
        /// The connection.
        peer: PeerId,
        /// The highest layer of each source that it may send: less if its path carries less. `None`
        /// for a source that it does not send. Audio has one layer, [`Layer::Full`].
        layers: PerSource<Option<Layer>>,
    },
    /// Set how the audio of a peer connection is played. Sent only when it changes. By default it
    /// is audible and expected.
    SetPlayback {
        /// The connection.
        peer: PeerId,
        /// How its audio is played.
        playback: Playback,
    },
    /// Pass on the list of tracks that the remote peer signals: what each track of the connection
    /// carries. A track that is not among them carries what its `a=msid` names. Sent only when they
    /// change. By default there is none.
    SetRemoteTracks {
        /// The connection.
        peer: PeerId,
        /// The tracks.
        tracks: TrackList,
    },
    /// Set whether the video of a source is expected on a peer connection: the remote peer signals
    /// that it is on. Sent only when it changes. By default it is expected.
    ExpectVideo {
        /// The connection.
        peer: PeerId,
        /// The source of the remote peer.
        source: Source,
        /// Whether video is expected.
        expected: bool,
    },
    /// Set at which size the remote peer shows the video of a source of ours, so that no larger one
    /// is sent, and none that is not shown. Sent only when it changes. By default it is sent in full
    /// size.
    LimitVideo {
        /// The connection.
        peer: PeerId,
        /// Our source.
        source: Source,
        /// The size; `None` for full size.
        size: Option<ShownSize>,
    },
    /// The priority of a session has changed: the user has raised it, or no longer.
    SetPriority {
        /// The session.
        session: SessionId,
    },
    /// Set the devices that are needed. Sent when they change. By default none is.
    Demand(PerDevice<bool>),
    /// Process the sound of the microphone like this from now on.
    SetVoiceProcessing(VoiceProcessing),
    /// Start a check of the user's own sound. What it does comes back as
    /// [`Input::SoundCheck`](super::Input::SoundCheck), at the latest after twelve seconds its end.
    StartSoundCheck(SoundCheck),
    /// Announce an event to the user; none is ever skipped.
    Announce(Event),
}

/// How the audio of a peer connection is played.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Playback {
    /// Whether it may be played: both listening switches are enabled.
    pub is_audible: bool,
    /// Whether audio is expected: the remote peer has not signalled that its microphone is off, and
    /// packets arrive. If several connections carry the same participant's audio, one with expected
    /// audio is played.
    pub is_expected: bool,
}

/// The participant that a peer connection leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PeerOwner {
    pub(super) session: SessionId,
    pub(super) participant: ParticipantId,
    /// The session's hub.
    pub(super) hub: HubRef,
    pub(super) generation: u32,
}

/// The effects that the engine has not fetched yet, and the table of the open connections.
#[derive(Debug, Default)]
pub(super) struct EffectQueue {
    effects: VecDeque<Effect>,
    last_peer: u64,
    owners: BTreeMap<PeerId, PeerOwner>,
}

impl EffectQueue {
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

    pub(super) fn announce_failure(&mut self, failure: Failure) {
        self.announce(Event::Failed(failure));
    }

    /// Opens a connection. Returns its id, which no connection of this process has had.
    pub(super) fn open_peer(
        &mut self,
        owner: PeerOwner,
        media: PeerMedia,
        mixes: PerSource<MixId>,
    ) -> PeerId {
        self.last_peer += 1;
        let peer = PeerId(self.last_peer);
        let (session, hub) = (owner.session.clone(), owner.hub.clone());
        self.owners.insert(peer, owner);
        self.push(Effect::OpenPeer { peer, session, hub, media, mixes });
        peer
    }

    /// Closes a connection.
    pub(super) fn close_peer(&mut self, peer: PeerId) {
        self.owners.remove(&peer);
        self.push(Effect::ClosePeer(peer));
    }

    /// The participant that an open connection leads to.
    pub(super) fn owner_of(&self, peer: PeerId) -> Option<&PeerOwner> {
        self.owners.get(&peer)
    }
}
