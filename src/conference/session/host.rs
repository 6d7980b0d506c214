//! What the host of a session may do about those who are in it.

use super::{Session, Standing};
use crate::{
    conference::{ask::Desk, membership::Membership, refusal},
    model::{ClientMessage, ParticipantId},
};

impl Session {
    /// Sends somebody out, if it is ours to do and the hub can be told; with everybody at the same
    /// address if `address`.
    pub(in crate::conference) fn eject(
        &self,
        who: &ParticipantId,
        address: bool,
        desk: &mut Desk<'_>,
    ) {
        let is_member = |one: &Membership| one.roster.members().iter().any(|one| one.id == *who);
        let Some(membership) = self.as_host(desk) else { return };
        if !is_member(membership) {
            return desk.out.fail(refusal::no_such_participant(&self.id));
        }
        let (session, participant) = (self.id.clone(), who.clone());
        let eject = ClientMessage::Eject { session, participant, address };
        desk.out.send(&membership.terms.hub, eject);
    }

    /// Lets somebody who was sent out come again.
    pub(in crate::conference) fn allow(&self, who: &ParticipantId, desk: &mut Desk<'_>) {
        let Some(membership) = self.as_host(desk) else { return };
        if !membership.access.keeps_out(who) {
            return desk.out.fail(refusal::not_kept_out(&self.id));
        }
        let (session, participant) = (self.id.clone(), who.clone());
        desk.out.send(&membership.terms.hub, ClientMessage::Allow { session, participant });
    }

    /// Lets nobody new in, or everybody again.
    pub(in crate::conference) fn lock(&self, locked: bool, desk: &mut Desk<'_>) {
        let Some(membership) = self.as_host(desk) else { return };
        let session = self.id.clone();
        desk.out.send(&membership.terms.hub, ClientMessage::Lock { session, locked });
    }

    /// The session, if it is ours and its hub can be told something; tells why not.
    fn as_host(&self, desk: &mut Desk<'_>) -> Option<&Membership> {
        let membership = match &self.standing {
            Standing::In(membership) if self.is_own() => membership,
            Standing::In(_) => {
                desk.out.fail(refusal::not_host(&self.id));
                return None;
            }
            Standing::Asking(_) | Standing::Over(..) | Standing::Failed(..) => {
                desk.out.fail(refusal::no_such_participant(&self.id));
                return None;
            }
        };
        if !membership.is_firm() {
            let hub = refusal::hub_name(&membership.terms.hub, Some(&membership.url));
            desk.out.fail(refusal::hub_away(&self.id, &hub));
            return None;
        }
        Some(membership)
    }
}
