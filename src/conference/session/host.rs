//! What the owner of a session may do about its participants.

use super::{Session, SessionPhase};
use crate::{
    conference::{context::CoreContext, membership::Membership},
    model::{ClientMessage, HubFailure, ParticipantId, SessionFailure},
};

impl Session {
    /// Ejects a participant, if we own the session and its hub is up. With `address`, the hub also
    /// blocks all clients at the same address.
    pub(in crate::conference) fn eject(
        &self,
        id: &ParticipantId,
        address: bool,
        cx: &mut CoreContext<'_>,
    ) {
        let Some(membership) = self.as_host(cx) else { return };
        if !membership.roster.contains(id) {
            return cx.effects.announce_failure(SessionFailure::NoSuchParticipant.of(&self.id));
        }
        let (session, participant) = (self.id.clone(), id.clone());
        let eject = ClientMessage::Eject { session, participant, address };
        cx.effects.send(&membership.info.hub, eject);
    }

    /// Lets an ejected participant join again.
    pub(in crate::conference) fn allow(&self, id: &ParticipantId, cx: &mut CoreContext<'_>) {
        let Some(membership) = self.as_host(cx) else { return };
        if !membership.access.is_removed(id) {
            return cx.effects.announce_failure(SessionFailure::NotRemoved.of(&self.id));
        }
        let (session, participant) = (self.id.clone(), id.clone());
        cx.effects.send(&membership.info.hub, ClientMessage::Allow { session, participant });
    }

    /// Locks or unlocks the session.
    pub(in crate::conference) fn lock(&self, locked: bool, cx: &mut CoreContext<'_>) {
        let Some(membership) = self.as_host(cx) else { return };
        let session = self.id.clone();
        cx.effects.send(&membership.info.hub, ClientMessage::Lock { session, locked });
    }

    /// The membership, if we own the session and its hub is up; otherwise announces why not.
    fn as_host(&self, cx: &mut CoreContext<'_>) -> Option<&Membership> {
        let membership = match &self.phase {
            SessionPhase::Joined(membership) if self.is_own() => membership,
            SessionPhase::Joined(_) => {
                cx.effects.announce_failure(SessionFailure::NotHost.of(&self.id));
                return None;
            }
            SessionPhase::Joining(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => {
                cx.effects.announce_failure(SessionFailure::NoSuchParticipant.of(&self.id));
                return None;
            }
        };
        if !membership.is_attached() {
            let hub = membership.shown_url();
            cx.effects.announce_failure(HubFailure::NotConnected.of(&self.id, hub));
            return None;
        }
        Some(membership)
    }
}
