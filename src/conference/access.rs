//! Who may take a new seat in an own session, as its hub says.

use std::time::Duration;

use super::{ask::Desk, membership::Membership};
use crate::model::{
    ClientMessage, Event, MediaTime, ParticipantId, RemovedMember, RemovedPerson, Role,
};

/// Who may take a new seat in an own session. Of others' sessions nothing is known.
#[derive(Default, Debug)]
pub(super) struct Access {
    is_locked: bool,
    removed: Vec<Removed>,
}

/// Somebody who was sent out and is kept out.
#[derive(Debug)]
struct Removed {
    person: RemovedPerson,
    until: MediaTime,
}

impl Access {
    /// Whether nobody new is let in.
    pub(super) const fn is_locked(&self) -> bool {
        self.is_locked
    }

    /// Who is kept out.
    pub(super) fn removed(&self) -> Vec<RemovedPerson> {
        self.removed.iter().map(|one| one.person.clone()).collect()
    }

    /// Whether that person is kept out.
    pub(super) fn keeps_out(&self, who: &ParticipantId) -> bool {
        self.removed.iter().any(|one| one.person.participant == *who)
    }

    /// When somebody may come again.
    pub(super) fn due(&self) -> Option<MediaTime> {
        self.removed.iter().map(|one| one.until).min()
    }
}

impl Membership {
    /// The hub says how it is now.
    pub(super) fn set_access(
        &mut self,
        (is_locked, removed): (bool, Vec<RemovedMember>),
        desk: &mut Desk<'_>,
    ) {
        if self.terms.role != Role::Opener {
            return;
        }
        let removed = removed.into_iter().map(|one| {
            let RemovedMember { participant, name, rest_ms } = one;
            let until = desk.now + Duration::from_millis(rest_ms.min(LONGEST_MS));
            Removed { person: RemovedPerson { participant, name }, until }
        });
        self.access = Access { is_locked, removed: removed.take(MOST).collect() };
        self.announce_access(desk);
    }

    /// Forgets those who may come again by now.
    pub(super) fn settle_access(&mut self, desk: &mut Desk<'_>) {
        if self.access.due().is_some_and(|at| at <= desk.now) {
            self.access.removed.retain(|one| one.until > desk.now);
            self.announce_access(desk);
        }
    }

    /// The hub has us in the session again: one that was restarted has forgotten a lock.
    pub(super) fn lock_again(&mut self, desk: &mut Desk<'_>) {
        if self.terms.role != Role::Opener {
            self.access = Access::default();
        } else if self.access.is_locked {
            let (session, locked) = (self.terms.session.clone(), true);
            desk.out.send(&self.terms.hub, ClientMessage::Lock { session, locked });
        }
    }

    fn announce_access(&self, desk: &mut Desk<'_>) {
        let (session, locked) = (self.terms.session.clone(), self.access.is_locked);
        desk.out.announce(Event::Access { session, locked, removed: self.access.removed() });
    }
}

/// The most that are believed to be kept out: a hub keeps 64.
const MOST: usize = 256;

/// The longest that is believed: a day.
const LONGEST_MS: u64 = 24 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use super::super::stage::*;
    use super::*;
    use crate::{
        conference::{HubRef, Input},
        model::{Command, ErrorCode, FailureCode, HubMessage},
    };

    fn access(locked: bool, removed: &[(&str, u64)]) -> HubMessage {
        let one = |(who, rest_ms): &(&str, u64)| RemovedMember {
            participant: id(who),
            name: who.to_uppercase(),
            rest_ms: *rest_ms,
        };
        HubMessage::Access {
            session: session(),
            locked,
            removed: removed.iter().map(one).collect(),
        }
    }

    fn names(stage: &Stage) -> Vec<String> {
        stage.status().removed.into_iter().map(|one| one.name).collect()
    }

    #[test]
    fn the_host_locks_unlocks_and_lets_again_in_and_is_told_how_it_is() {
        let mut stage = Stage::opened(MESH);
        let lock = |locked| Command::Lock { session: session(), locked };
        stage.give(Input::Command(lock(true)));
        let said = ClientMessage::Lock { session: session(), locked: true };
        assert_eq!(stage.sent(), [(&HubRef::Default, &said)]);
        assert!(!stage.status().locked, "the hub has not said so yet");
        stage.hear(access(true, &[("b", 600_000)]));
        assert!(stage.status().locked);
        assert_eq!(names(&stage), ["B"]);
        let allow = |who| Command::Allow { session: session(), participant: id(who) };
        stage.give(Input::Command(allow("b")));
        let said = ClientMessage::Allow { session: session(), participant: id("b") };
        assert_eq!(stage.sent(), [(&HubRef::Default, &said)]);
        stage.give(Input::Command(allow("c")));
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::NotAllowed));
        stage.hear(access(true, &[]));
        assert_eq!(names(&stage), Vec::<String>::new());
    }

    #[test]
    fn who_was_kept_out_may_come_again_after_the_time_that_the_hub_gave() {
        let mut stage = Stage::opened(MESH);
        stage.hear(access(false, &[("b", 5_000), ("c", 600_000)]));
        stage.pass_ms(4_999);
        assert_eq!(names(&stage), ["B", "C"]);
        stage.pass_ms(1);
        assert_eq!(names(&stage), ["C"]);
        stage.hear(access(false, &[("d", u64::MAX)]));
        assert_eq!(names(&stage), ["D"], "a hub may mean harm");
    }

    #[test]
    fn a_lock_outlives_a_restarted_hub() {
        let mut stage = Stage::opened(MESH);
        stage.hear(access(true, &[])).down(&HubRef::Default).up(&HubRef::Default);
        stage.hear(opened(MESH, vec![]));
        let said = ClientMessage::Lock { session: session(), locked: true };
        assert_eq!(stage.sent(), [(&HubRef::Default, &said)]);
    }

    #[test]
    fn a_guest_locks_nothing_and_a_hub_of_an_earlier_version_is_named() {
        let lock = || Input::Command(Command::Lock { session: session(), locked: true });
        let mut stage = Stage::joined(MESH, vec![member("a")]);
        stage.give(lock());
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::NotAllowed));
        let mut stage = Stage::opened(MESH);
        stage.give(lock()).hear(refusal(ErrorCode::Unsupported));
        let failure = stage.failures()[0];
        assert_eq!(failure.code, FailureCode::Hub(ErrorCode::Unsupported));
        assert!(failure.message.contains("older version"), "{}", failure.message);
    }
}
