//! What the decisions of the core depend on, and where their effects go, for one call.

use std::time::Duration;

use super::{effects::EffectQueue, hubs::Hubs, input::HubRef};
use crate::model::{
    ClientMessage, DataUse, Direction, Instance, Media, MediaTime, Member, MixId, ParticipantId,
    Payload, PeerMedia, PerChannel, PerSource, Role, SessionId, SessionKind, Source,
};

/// The core's state that a session may use while it handles an input.
pub(super) struct CoreContext<'a> {
    pub(super) now: MediaTime,
    pub(super) hubs: &'a mut Hubs,
    pub(super) effects: &'a mut EffectQueue,
}

/// What all participants of one session have in common.
#[derive(Debug)]
pub(super) struct SessionInfo {
    pub(super) session: SessionId,
    pub(super) kind: SessionKind,
    pub(super) limit: u16,
    /// Our role.
    pub(super) role: Role,
    /// Our participant id at the session's hub.
    pub(super) me: ParticipantId,
    /// This run of our program, as the session's hub knows it.
    pub(super) instance: Instance,
    pub(super) hub: HubRef,
    /// How much data the session may use.
    pub(super) data_use: DataUse,
}

/// What the decisions about a participant depend on, and where their effects go.
pub(super) struct ParticipantContext<'a> {
    pub(super) now: MediaTime,
    pub(super) info: &'a SessionInfo,
    /// Since when the session cannot be reached at its hub; `None` while it can.
    pub(super) hub_down_since: Option<MediaTime>,
    pub(super) effects: &'a mut EffectQueue,
}

/// The longest participant id that is accepted from a hub, in bytes. Ids of our hubs have 16.
const MAX_ID_BYTES: usize = 64;

impl SessionInfo {
    /// The media of a peer connection in this session, seen from here.
    pub(super) fn peer_media(&self) -> PeerMedia {
        let direction = |media: Media| -> Option<Direction> {
            self.kind.media.has(media).then(|| self.kind.direction(self.role))
        };
        PeerMedia {
            sections: PerSource::from_fn(|source| direction(source.media())),
            channels: PerChannel { chat: self.kind.media.has(Media::Data) },
        }
    }

    /// The mix that the track of a source carries: the source alone. All sessions of the hub get the
    /// same one.
    pub(super) fn mix(&self, source: Source) -> MixId {
        MixId::of_source(source, &self.instance)
    }

    /// Whether the topology pairs us with this member.
    pub(super) fn pairs_with(&self, member: &Member) -> bool {
        member.participant != self.me
            && member.participant.as_str().len() <= MAX_ID_BYTES
            && self.kind.pairs(self.role, member.role)
    }
}

impl ParticipantContext<'_> {
    /// The time `span` before now.
    pub(super) fn time_before(&self, span: Duration) -> MediaTime {
        let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        MediaTime::from_micros(self.now.as_micros().saturating_sub(span))
    }

    /// Sends a signal to a participant, if the hub can be reached.
    pub(super) fn send_signal(&mut self, to: &ParticipantId, payload: Payload) {
        if self.hub_down_since.is_none() {
            let (session, to) = (self.info.session.clone(), to.clone());
            let payload = payload.into();
            self.effects.send(&self.info.hub, ClientMessage::Signal { session, to, payload });
        }
    }
}
