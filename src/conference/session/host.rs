//! What the owner of a session may do about its participants.

use super::{Session, Standing};
use crate::{
    conference::{context::Desk, membership::Membership, refusal},
    model::{ClientMessage, ParticipantId},
};

impl Session {
    /// Ejects a participant, if we own the session and its hub is up. With `address`, the hub also
    /// blocks all clients at the same address.
    pub(in crate::conference) fn eject(
        &self,
        id: &ParticipantId,
        address: bool,
        cx: &mut Desk<'_>,
    ) {
        let is_member = |one: &Membership| one.roster.members().iter().any(|one| one.id == *id);
        let Some(membership) = self.as_host(cx) else { return };
        if !is_member(membership) {
            return cx.out.fail(refusal::no_such_participant(&self.id));
        }
        let (session, participant) = (self.id.clone(), id.clone());
        let eject = ClientMessage::Eject { session, participant, address };
        cx.out.send(&membership.terms.hub, eject);
    }

    /// Lets an ejected participant join again.
    pub(in crate::conference) fn allow(&self, id: &ParticipantId, cx: &mut Desk<'_>) {
        let Some(membership) = self.as_host(cx) else { return };
        if !membership.access.keeps_out(id) {
            return cx.out.fail(refusal::not_kept_out(&self.id));
        }
        let (session, participant) = (self.id.clone(), id.clone());
        cx.out.send(&membership.terms.hub, ClientMessage::Allow { session, participant });
    }

    /// Locks or unlocks the session.
    pub(in crate::conference) fn lock(&self, locked: bool, cx: &mut Desk<'_>) {
        let Some(membership) = self.as_host(cx) else { return };
        let session = self.id.clone();
        cx.out.send(&membership.terms.hub, ClientMessage::Lock { session, locked });
    }

    /// The membership, if we own the session and its hub is up; otherwise announces why not.
    fn as_host(&self, cx: &mut Desk<'_>) -> Option<&Membership> {
        let membership = match &self.standing {
            Standing::In(membership) if self.is_own() => membership,
            Standing::In(_) => {
                cx.out.fail(refusal::not_host(&self.id));
                return None;
            }
            Standing::Asking(_) | Standing::Over(..) | Standing::Failed(..) => {
                cx.out.fail(refusal::no_such_participant(&self.id));
                return None;
            }
        };
        if !membership.is_firm() {
            let hub = refusal::hub_name(&membership.terms.hub, Some(&membership.url));
            cx.out.fail(refusal::hub_away(&self.id, &hub));
            return None;
        }
        Some(membership)
    }
}
