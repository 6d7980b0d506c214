//! What the decisions of the core depend on, and where their effects go, for one call.

use std::time::Duration;

use super::{hubs::Hubs, outbox::Outbox, words::HubRef};
use crate::model::{
    ClientMessage, Direction, Media, MediaTime, Member, ParticipantId, Payload, PeerMedia, Role,
    SessionId, SessionKind,
};

/// The core's state that a session may use while it handles an input.
pub(super) struct Desk<'a> {
    pub(super) now: MediaTime,
    pub(super) hubs: &'a mut Hubs,
    pub(super) out: &'a mut Outbox,
}

/// What all participants of one session have in common.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) session: SessionId,
    pub(super) kind: SessionKind,
    pub(super) limit: u16,
    /// Our role.
    pub(super) role: Role,
    /// Our participant id at the session's hub.
    pub(super) me: ParticipantId,
    pub(super) hub: HubRef,
}

/// What the decisions about a participant depend on, and where their effects go.
pub(super) struct Scope<'a> {
    pub(super) now: MediaTime,
    pub(super) terms: &'a Terms,
    /// Since when the session cannot be reached at its hub; `None` while it can.
    pub(super) down_since: Option<MediaTime>,
    pub(super) out: &'a mut Outbox,
}

/// The longest participant id that is accepted from a hub, in bytes. Ids of our hubs have 16.
const MAX_ID_BYTES: usize = 64;

impl Terms {
    /// The media of a peer connection in this session, seen from here.
    pub(super) fn media(&self) -> PeerMedia {
        let direction = |media: Media| -> Option<Direction> {
            self.kind.media.has(media).then(|| self.kind.direction(self.role))
        };
        PeerMedia {
            audio: direction(Media::Audio),
            video: direction(Media::Video),
            data: self.kind.media.has(Media::Data),
        }
    }

    /// Whether the topology pairs us with this member.
    pub(super) fn admits(&self, member: &Member) -> bool {
        member.participant != self.me
            && member.participant.as_str().len() <= MAX_ID_BYTES
            && self.kind.links(self.role, member.role)
    }
}

impl Scope<'_> {
    /// The time `span` before now.
    pub(super) fn ago(&self, span: Duration) -> MediaTime {
        let span = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        MediaTime::from_micros(self.now.as_micros().saturating_sub(span))
    }

    /// Sends a signal to a participant, if the hub can be reached.
    pub(super) fn signal(&mut self, to: &ParticipantId, payload: Payload) {
        if self.down_since.is_none() {
            let (session, to) = (self.terms.session.clone(), to.clone());
            let payload = payload.into();
            self.out.send(&self.terms.hub, ClientMessage::Signal { session, to, payload });
        }
    }
}
