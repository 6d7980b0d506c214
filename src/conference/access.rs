//! The lock and the ejected participants of a session that we own, as its hub reports them.

use std::time::Duration;

use super::{context::CoreContext, membership::Membership};
use crate::model::{
    ClientMessage, Event, MediaTime, ParticipantId, RemovedMember, RemovedParticipant, Role,
};

/// The lock and the ejected participants of a session that we own. Nothing is known of other
/// sessions.
#[derive(Default, Debug)]
pub(super) struct Access {
    is_locked: bool,
    removed: Vec<Removed>,
}

/// An ejected participant that cannot join again yet.
#[derive(Debug)]
struct Removed {
    participant: RemovedParticipant,
    until: MediaTime,
}

impl Access {
    /// Whether no new participant can join.
    pub(super) const fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// The ejected participants.
    pub(super) fn removed(&self) -> Vec<RemovedParticipant> {
        self.removed.iter().map(|one| one.participant.clone()).collect()
    }

    /// Whether that participant is ejected.
    pub(super) fn is_removed(&self, id: &ParticipantId) -> bool {
        self.removed.iter().any(|one| one.participant.participant == *id)
    }

    /// When the next ejected participant may join again.
    pub(super) fn next_expiry(&self) -> Option<MediaTime> {
        self.removed.iter().map(|one| one.until).min()
    }
}

impl Membership {
    /// Takes over the lock and the ejected participants that the hub reports.
    pub(super) fn set_access(
        &mut self,
        (is_locked, removed): (bool, Vec<RemovedMember>),
        cx: &mut CoreContext<'_>,
    ) {
        if self.info.role != Role::Opener {
            return;
        }
        let removed = removed.into_iter().map(|one| {
            let RemovedMember { participant, name, rest_ms } = one;
            let until = cx.now + Duration::from_millis(rest_ms.min(MAX_REMAINING_MS));
            Removed { participant: RemovedParticipant { participant, name }, until }
        });
        self.access = Access { is_locked, removed: removed.take(MAX_REMOVED).collect() };
        self.announce_access(cx);
    }

    /// Drops ejected participants that may join again by now.
    pub(super) fn expire_removed(&mut self, cx: &mut CoreContext<'_>) {
        if self.access.next_expiry().is_some_and(|at| at <= cx.now) {
            self.access.removed.retain(|one| one.until > cx.now);
            self.announce_access(cx);
        }
    }

    /// Restores the lock when the hub has us in the session again: a restarted hub has lost it.
    pub(super) fn restore_lock(&mut self, cx: &mut CoreContext<'_>) {
        if self.info.role != Role::Opener {
            self.access = Access::default();
        } else if self.access.is_locked {
            let (session, locked) = (self.info.session.clone(), true);
            cx.effects.send(&self.info.hub, ClientMessage::Lock { session, locked });
        }
    }

    fn announce_access(&self, cx: &mut CoreContext<'_>) {
        let (session, locked) = (self.info.session.clone(), self.access.is_locked);
        cx.effects.announce(Event::Access { session, locked, removed: self.access.removed() });
    }
}

/// The most ejected participants that are accepted from a hub. Our hubs keep 64.
const MAX_REMOVED: usize = 256;

/// The longest ban that is accepted from a hub: one day.
const MAX_REMAINING_MS: u64 = 24 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::*;
    use super::*;
    use crate::{
        conference::{HubRef, Input},
        model::{Command, ErrorCode, FailureCause, FailureCode, HubFailure, HubMessage},
    };

    fn access(locked: bool, removed: &[(&str, u64)]) -> HubMessage {
        let one = |(letter, rest_ms): &(&str, u64)| RemovedMember {
            participant: id(letter),
            name: letter.to_uppercase(),
            rest_ms: *rest_ms,
        };
        HubMessage::Access {
            session: session(),
            locked,
            removed: removed.iter().map(one).collect(),
        }
    }

    fn names(fixture: &Fixture) -> Vec<String> {
        fixture.status().removed.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn the_owner_locks_and_allows_and_the_hub_reports_the_result() {
        let mut fixture = Fixture::opened(MESH);
        let lock = |locked| Command::Lock { session: session(), locked };
        fixture.handle(Input::Command(lock(true)));
        let expected = ClientMessage::Lock { session: session(), locked: true };
        assert_eq!(fixture.sent(), [(&HubRef::Default, &expected)]);
        assert!(!fixture.status().locked, "the hub has not confirmed it yet");
        fixture.receive(access(true, &[("b", 600_000)]));
        assert!(fixture.status().locked);
        assert_eq!(names(&fixture), ["B"]);
        let allow = |letter| Command::Allow { session: session(), participant: id(letter) };
        fixture.handle(Input::Command(allow("b")));
        let expected = ClientMessage::Allow { session: session(), participant: id("b") };
        assert_eq!(fixture.sent(), [(&HubRef::Default, &expected)]);
        fixture.handle(Input::Command(allow("c")));
        assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::NotAllowed));
        fixture.receive(access(true, &[]));
        assert_eq!(names(&fixture), Vec::<String>::new());
    }

    #[test]
    fn an_ejected_participant_may_join_again_after_the_time_that_the_hub_gave() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(access(false, &[("b", 5_000), ("c", 600_000)]));
        fixture.advance_ms(4_999);
        assert_eq!(names(&fixture), ["B", "C"]);
        fixture.advance_ms(1);
        assert_eq!(names(&fixture), ["C"]);
        fixture.receive(access(false, &[("d", u64::MAX)]));
        assert_eq!(names(&fixture), ["D"], "a malicious hub may send any time");
    }

    #[test]
    fn a_lock_outlives_a_restarted_hub() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(access(true, &[])).hub_down(&HubRef::Default).hub_up(&HubRef::Default);
        fixture.receive(opened(MESH, vec![]));
        let expected = ClientMessage::Lock { session: session(), locked: true };
        assert_eq!(fixture.sent(), [(&HubRef::Default, &expected)]);
    }

    #[test]
    fn a_guest_cannot_lock_and_an_older_hub_is_named_in_the_failure() {
        let lock = || Input::Command(Command::Lock { session: session(), locked: true });
        let mut fixture = Fixture::joined(MESH, vec![member("a")]);
        fixture.handle(lock());
        assert_eq!(fixture.failures()[0].code(), FailureCode::Hub(ErrorCode::NotAllowed));
        let mut fixture = Fixture::opened(MESH);
        fixture.handle(lock()).receive(hub_error(ErrorCode::Unsupported));
        let failure = fixture.failures()[0];
        assert_eq!(failure.code(), FailureCode::Hub(ErrorCode::Unsupported));
        let cause = &failure.cause;
        assert!(
            matches!(cause, FailureCause::Hub { failure: HubFailure::LockUnsupported, .. }),
            "{cause:?}"
        );
    }
}
