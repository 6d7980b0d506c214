//! A session that was asked for and is not ours yet: at which hubs, and what they said.

use std::{collections::BTreeMap, time::Duration};

use super::{
    hubs::{Hubs, Line},
    outbox::Outbox,
    refusal,
    words::HubRef,
};
use crate::model::{
    ClientMessage, ErrorCode, Event, Failure, HubPlace, MediaTime, SessionId, SessionKind,
    SessionLink,
};

/// What everything that happens to a session may touch.
pub(super) struct Desk<'a> {
    pub(super) now: MediaTime,
    pub(super) hubs: &'a mut Hubs,
    pub(super) out: &'a mut Outbox,
}

/// What a person asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// To open it.
    Open(OpenTerms),
    /// To join it, waiting for it if need be.
    Join { wait: bool },
}

/// How a session is to be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpenTerms {
    pub(super) kind: SessionKind,
    pub(super) limit: Option<u16>,
    /// Somebody else's is joined: it was ours in an earlier run, and has an heir.
    pub(super) or_joins: bool,
}

/// The search for a session at one or several hubs.
#[derive(Debug)]
pub(super) struct Search {
    session: SessionId,
    wish: Wish,
    at: BTreeMap<HubRef, Answer>,
    /// Whether people were told where the session is awaited.
    is_told: bool,
    /// Whether people were told that a hub has too much to do.
    told_busy: bool,
}

/// How long after a hub had too much to do it is asked again: it said so after 3 s of trying.
pub(super) const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// What a hub has answered.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    /// It was not asked, because it is not up.
    Unasked,
    /// Nothing yet.
    Asked,
    /// The session is not open there yet.
    Waiting,
    /// It had too much to do, and is asked again.
    Busy { again_at: MediaTime },
    /// No, and why.
    Refused { code: ErrorCode, said: String },
    /// It cannot be reached; why.
    Unreachable { reason: String },
}

impl Search {
    /// Asks at each of the hubs, now or when it is up.
    pub(super) fn begin(
        session: SessionId,
        wish: Wish,
        hubs: Vec<HubRef>,
        desk: &mut Desk<'_>,
    ) -> Self {
        let mut search =
            Self { session, wish, at: BTreeMap::new(), is_told: false, told_busy: false };
        for hub in hubs {
            desk.hubs.need(&hub, desk.out);
            search.at.insert(hub.clone(), Answer::Unasked);
            match desk.hubs.line(&hub).cloned() {
                Some(Line::Up { .. }) => search.up(&hub, desk),
                Some(Line::Down { reason }) => search.down(&hub, &reason, desk),
                Some(Line::Connecting) | None => {}
            }
        }
        search
    }

    pub(super) const fn wish(&self) -> Wish {
        self.wish
    }

    /// The hubs that may still have it.
    pub(super) fn hubs(&self) -> impl Iterator<Item = &HubRef> {
        let may = |answer: &Answer| !matches!(answer, Answer::Refused { .. });
        self.at.iter().filter(move |(_, answer)| may(answer)).map(|(hub, _)| hub)
    }

    /// The session's link, if only one hub can have it and its address is known.
    pub(super) fn link(&self, hubs: &Hubs) -> Option<SessionLink> {
        let mut at = self.hubs();
        let only = at.next().filter(|_| at.next().is_none())?;
        hubs.url(only).map(|url| url.link(&self.session))
    }

    /// Where the only hub that can have the session was reached.
    pub(super) fn hub<'a>(&self, hubs: &'a Hubs) -> Option<&'a HubPlace> {
        let mut at = self.hubs();
        let only = at.next().filter(|_| at.next().is_none())?;
        hubs.place(only)
    }

    pub(super) fn is_at(&self, hub: &HubRef) -> bool {
        self.at.contains_key(hub)
    }

    /// Whether some hub awaits the session's opening.
    pub(super) fn waits(&self) -> bool {
        self.at.values().any(|answer| *answer == Answer::Waiting)
    }

    /// Why no hub that may have it can be asked; none while one was asked or is being reached.
    pub(super) fn unreachable_because(&self) -> Option<&str> {
        let mut reason = None;
        for answer in self.at.values() {
            match answer {
                Answer::Unreachable { reason: why } => reason = reason.or(Some(why.as_str())),
                Answer::Refused { .. } => {}
                Answer::Unasked | Answer::Asked | Answer::Waiting | Answer::Busy { .. } => {
                    return None;
                }
            }
        }
        reason
    }

    /// A hub is up (again).
    pub(super) fn up(&mut self, hub: &HubRef, desk: &mut Desk<'_>) {
        if self.has_twin(hub, desk.hubs) {
            if self.at.remove(hub).is_some_and(|answer| answer != Answer::Unasked) {
                self.part(hub, desk);
            }
            return;
        }
        let Some(answer) = self.at.get_mut(hub) else { return };
        if matches!(answer, Answer::Refused { .. }) {
            return;
        }
        *answer = Answer::Asked;
        let session = self.session.clone();
        desk.out.send(hub, self.wish.message(session));
    }

    /// Whether the hub was asked under another name: a link may lead to the default hub. Asked
    /// twice, it would give us two seats.
    fn has_twin(&self, hub: &HubRef, hubs: &Hubs) -> bool {
        let was_asked = |answer: &Answer| match answer {
            Answer::Unasked | Answer::Unreachable { .. } => false,
            Answer::Asked | Answer::Waiting | Answer::Busy { .. } | Answer::Refused { .. } => true,
        };
        let mut others = self.at.iter().filter(|(other, _)| *other != hub);
        others.any(|(other, answer)| was_asked(answer) && hubs.are_one(other, hub))
    }

    /// Asks again where that is due.
    pub(super) fn advance(&mut self, desk: &mut Desk<'_>) {
        for (hub, answer) in &mut self.at {
            if matches!(answer, Answer::Busy { again_at } if *again_at <= desk.now) {
                *answer = Answer::Asked;
                desk.out.send(hub, self.wish.message(self.session.clone()));
            }
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<MediaTime> {
        let again = |answer: &Answer| match answer {
            Answer::Busy { again_at } => Some(*again_at),
            Answer::Unasked
            | Answer::Asked
            | Answer::Waiting
            | Answer::Refused { .. }
            | Answer::Unreachable { .. } => None,
        };
        self.at.values().filter_map(again).min()
    }

    /// A hub cannot be reached, or was lost.
    pub(super) fn down(&mut self, hub: &HubRef, reason: &str, desk: &mut Desk<'_>) {
        let Some(answer) = self.at.get_mut(hub) else { return };
        if matches!(answer, Answer::Refused { .. }) {
            return;
        }
        let unreachable = Answer::Unreachable { reason: reason.to_owned() };
        let before = std::mem::replace(answer, unreachable);
        if self.wish.waits() {
            if !matches!(before, Answer::Unreachable { .. }) {
                desk.out.fail(self.unreachable(reason));
            }
            self.tell_waiting(desk);
        } else if before == Answer::Asked {
            // The hub may have done it without our hearing of it.
            self.part(hub, desk);
        }
    }

    /// A hub awaits the session's opening.
    pub(super) fn waiting(&mut self, hub: &HubRef, desk: &mut Desk<'_>) {
        if let Some(answer @ Answer::Asked) = self.at.get_mut(hub) {
            *answer = Answer::Waiting;
            self.tell_waiting(desk);
        }
    }

    /// A hub says no. One that has too much to do is asked again for who waits.
    pub(super) fn refused(
        &mut self,
        hub: &HubRef,
        (code, said): (ErrorCode, String),
        desk: &mut Desk<'_>,
    ) {
        let Some(answer @ (Answer::Asked | Answer::Waiting)) = self.at.get_mut(hub) else { return };
        let or_joins = matches!(self.wish, Wish::Open(OpenTerms { or_joins: true, .. }));
        if code == ErrorCode::IdTaken && or_joins {
            self.wish = Wish::Join { wait: true };
            *answer = Answer::Asked;
            let message = self.wish.message(self.session.clone());
            return desk.out.send(hub, message);
        }
        if code != ErrorCode::TooMany || !self.wish.waits() {
            *answer = Answer::Refused { code, said };
            return;
        }
        *answer = Answer::Busy { again_at: desk.now + ASKED_AGAIN };
        if !std::mem::replace(&mut self.told_busy, true) {
            desk.out.fail(refusal::busy(&self.session, &name(hub, desk.hubs), &said));
        }
        self.tell_waiting(desk);
    }

    /// Why the search is in vain, if it is.
    ///
    /// A full session has been found, so nobody needs to look or wait elsewhere.
    pub(super) fn verdict(&self, hubs: &Hubs) -> Option<Failure> {
        let is_full = |answer: &Answer| {
            matches!(answer, Answer::Refused { code: ErrorCode::SessionFull, .. })
        };
        let is_over = |answer: &Answer| match answer {
            Answer::Refused { .. } => true,
            Answer::Unreachable { .. } => !self.wish.waits(),
            Answer::Unasked | Answer::Asked | Answer::Waiting | Answer::Busy { .. } => false,
        };
        if !self.at.values().any(is_full) && !self.at.values().all(is_over) {
            return None;
        }
        let (hub, answer) = self.at.iter().max_by_key(|(_, answer)| answer.weight())?;
        match answer {
            Answer::Refused { code, said } => {
                Some(refusal::refused(*code, &self.session, &name(hub, hubs), said))
            }
            Answer::Unreachable { reason } => Some(self.unreachable(reason)),
            Answer::Unasked | Answer::Asked | Answer::Waiting | Answer::Busy { .. } => None,
        }
    }

    /// Ends the search, at all hubs but the one where it succeeded.
    pub(super) fn end(&self, found_at: Option<&HubRef>, desk: &mut Desk<'_>) {
        for (hub, answer) in &self.at {
            let is_open = matches!(answer, Answer::Asked | Answer::Waiting);
            if is_open && found_at != Some(hub) {
                self.part(hub, desk);
            }
        }
    }

    fn part(&self, hub: &HubRef, desk: &mut Desk<'_>) {
        let goodbye = ClientMessage::Leave { session: self.session.clone() };
        desk.hubs.part(hub, (&self.session, goodbye), desk.out);
    }

    /// Tells people once where the session is awaited, when every hub has answered.
    fn tell_waiting(&mut self, desk: &mut Desk<'_>) {
        let is_open = |answer: &Answer| matches!(answer, Answer::Unasked | Answer::Asked);
        if self.is_told || !self.waits() || self.at.values().any(is_open) {
            return;
        }
        self.is_told = true;
        let hubs = self.hubs().filter_map(|hub| desk.hubs.url(hub)).collect();
        desk.out.announce(Event::Waiting { session: self.session.clone(), hubs });
    }

    fn unreachable(&self, reason: &str) -> Failure {
        refusal::unreachable(&self.session, reason, self.wish.waits())
    }
}

impl Wish {
    /// What a hub is asked.
    pub(super) const fn message(self, session: SessionId) -> ClientMessage {
        match self {
            Self::Open(OpenTerms { kind, limit, .. }) => {
                ClientMessage::Open { session, kind, limit, owner_key: None }
            }
            Self::Join { wait } => ClientMessage::Join { session, wait },
        }
    }

    const fn waits(self) -> bool {
        matches!(self, Self::Join { wait: true })
    }
}

impl Answer {
    /// How much an answer explains why a search was in vain.
    const fn weight(&self) -> u8 {
        match self {
            Self::Unasked | Self::Asked | Self::Waiting | Self::Busy { .. } => 0,
            Self::Unreachable { .. } => 1,
            Self::Refused { code: ErrorCode::NoSuchSession, .. } => 2,
            Self::Refused { code: ErrorCode::SessionFull, .. } => 4,
            Self::Refused { .. } => 3,
        }
    }
}

fn name(hub: &HubRef, hubs: &Hubs) -> String {
    refusal::hub_name(hub, hubs.url(hub).as_ref())
}

#[cfg(test)]
mod tests {
    use super::super::{Effect, Input, stage::*};
    use super::*;
    use crate::model::{
        CloseReason, Command, EndReason, FailureCode, HubMessage, JoinTarget, OpenRequest, Role,
        SessionState,
    };

    const HERE: HubRef = HubRef::Default;

    /// A stage with two hubs up, the second because of another session there.
    fn two_hubs() -> (Stage, HubRef) {
        let mut stage = Stage::new();
        let there = HubRef::At(url("there.example:80"));
        let target = JoinTarget {
            session: SessionId::parse("other").unwrap(),
            hub: Some(url("there.example:80")),
        };
        stage.give(Input::Command(Command::Join { target, wait: true }));
        stage.up(&there);
        (stage, there)
    }

    #[test]
    fn a_bare_id_is_sought_everywhere_and_the_first_hub_that_has_it_wins() {
        let (mut stage, there) = two_hubs();
        stage.join(None, true);
        assert!(stage.done.contains(&Effect::ConnectHub(HERE)));
        let ask = ClientMessage::Join { session: session(), wait: true };
        assert_eq!(stage.sent(), [(&there, &ask)]);
        stage.up(&HERE);
        assert_eq!(stage.sent(), [(&HERE, &ask)]);
        stage.hear_from(&there, joined(MESH, Role::Guest, vec![]));
        let goodbye = ClientMessage::Leave { session: session() };
        assert_eq!(stage.sent(), [(&HERE, &goodbye)]);
        assert_eq!(stage.status().link.unwrap().hub, url("there.example:80"));
        stage.hear(joined(MESH, Role::Guest, vec![member("a")]));
        assert_eq!(stage.status().participants, [], "the other hub's answer comes too late");
    }

    #[test]
    fn a_bare_id_is_sought_at_the_hub_of_a_link_beside_it_before_that_is_up() {
        let mut stage = Stage::new();
        let there = HubRef::At(url("there.example:80"));
        let session_there = SessionId::parse("other").unwrap();
        let target = JoinTarget { session: session_there, hub: Some(url("there.example:80")) };
        stage.give(Input::Command(Command::Join { target, wait: true })).join(None, true);
        stage.up(&there);
        let ask = ClientMessage::Join { session: session(), wait: true };
        assert!(stage.sent().contains(&(&there, &ask)), "{:?}", stage.sent());
        stage.up(&HERE);
        assert_eq!(stage.sent(), [(&HERE, &ask)]);
    }

    #[test]
    fn a_hub_that_is_known_under_two_names_is_asked_once() {
        let mut stage = Stage::new();
        let here = HubRef::At(url("10.0.0.1:7340"));
        let session_here = SessionId::parse("other").unwrap();
        let target = JoinTarget { session: session_here, hub: Some(url("10.0.0.1:7340")) };
        stage.give(Input::Command(Command::Join { target, wait: false })).join(None, false);
        stage.up(&here);
        let ask = ClientMessage::Join { session: session(), wait: false };
        assert!(stage.sent().contains(&(&here, &ask)), "{:?}", stage.sent());
        stage.up(&HERE);
        assert_eq!(stage.sent(), []);
        stage.hear_from(&here, refusal(ErrorCode::NoSuchSession));
        assert!(matches!(stage.status().state, SessionState::Failed(_)), "nobody else is awaited");
    }

    #[test]
    fn a_hub_that_refused_under_one_name_has_refused_under_the_other() {
        let (mut stage, here) = (Stage::new(), HubRef::At(url("10.0.0.1:7340")));
        let session_here = SessionId::parse("other").unwrap();
        let target = JoinTarget { session: session_here, hub: Some(url("10.0.0.1:7340")) };
        stage.give(Input::Command(Command::Join { target, wait: false })).join(None, false);
        stage.up(&here).hear_from(&here, refusal(ErrorCode::NoSuchSession));
        assert_eq!(stage.status().state, SessionState::Connecting);
        stage.up(&HERE);
        assert!(matches!(stage.status().state, SessionState::Failed(_)));
    }

    #[test]
    fn a_hub_that_has_too_much_to_do_is_asked_again_by_who_waits() {
        let mut stage = Stage::new();
        stage.join(None, true).up(&HERE).hear(refusal(ErrorCode::TooMany));
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::TooMany));
        assert!(stage.failures()[0].message.ends_with("trying again"));
        assert_eq!(stage.status().state, SessionState::Connecting);
        stage.pass_ms(4999);
        assert_eq!(stage.sent(), []);
        stage.pass_ms(1);
        assert_eq!(stage.sent().len(), 1);
        stage.hear(refusal(ErrorCode::TooMany));
        assert_eq!(stage.failures(), Vec::<&Failure>::new(), "told once");
        stage.down(&HERE).up(&HERE);
        assert_eq!(stage.sent().len(), 1);
        stage.pass_ms(60_000);
        assert_eq!(stage.sent(), [], "asked by the hub's return already");
        stage.hear(joined(MESH, Role::Guest, vec![]));
        assert_eq!(stage.status().state, SessionState::Live);
    }

    #[test]
    fn a_hub_that_has_too_much_to_do_fails_who_does_not_wait() {
        let mut stage = Stage::new();
        stage.join(None, false).up(&HERE).hear(refusal(ErrorCode::TooMany));
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::TooMany));
        assert!(matches!(stage.status().state, SessionState::Failed(_)));
        assert_eq!(stage.pass_ms(60_000).sent(), []);
    }

    #[test]
    fn waiting_names_the_hubs_once_when_all_have_answered() {
        let (mut stage, there) = two_hubs();
        stage.join(None, true).up(&HERE);
        let waiting = HubMessage::Waiting { session: session() };
        stage.hear_from(&there, waiting.clone());
        assert_eq!(stage.events(), Vec::<&Event>::new());
        assert_eq!(stage.status().state, SessionState::Waiting);
        stage.hear(waiting.clone());
        let hubs = vec![url("10.0.0.1:7340"), url("there.example:80")];
        assert_eq!(stage.events(), [&Event::Waiting { session: session(), hubs }]);
        stage.hear(waiting);
        assert_eq!(stage.events(), Vec::<&Event>::new());
    }

    #[test]
    fn a_search_without_waiting_fails_when_the_last_hub_has_said_no() {
        let (mut stage, there) = two_hubs();
        stage.join(None, false).up(&HERE);
        stage.hear_from(&there, refusal(ErrorCode::NoSuchSession));
        assert_eq!(stage.status().state, SessionState::Connecting);
        stage.hear(refusal(ErrorCode::NoSuchSession));
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::NoSuchSession));
        let reason = EndReason::Failed;
        assert_eq!(stage.events()[1], &Event::Ended { session: session(), reason });
        assert!(matches!(stage.status().state, SessionState::Failed(_)), "until it is dismissed");
        stage.leave();
        assert_eq!((stage.done.len(), stage.core.snapshot().sessions.len()), (0, 1));
    }

    #[test]
    fn a_full_session_was_found_and_is_awaited_nowhere() {
        let (mut stage, there) = two_hubs();
        stage.join(None, true).up(&HERE);
        stage.hear_from(&there, refusal(ErrorCode::SessionFull));
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::SessionFull));
        let goodbye = ClientMessage::Leave { session: session() };
        assert_eq!(stage.sent(), [(&HERE, &goodbye)]);
    }

    #[test]
    fn a_hub_that_cannot_be_reached_fails_who_does_not_wait() {
        for opens in [true, false] {
            let mut stage = Stage::new();
            if opens {
                stage.open(MESH)
            } else {
                stage.join(None, false)
            };
            stage.down(&HERE);
            assert_eq!(stage.failures()[0].code, FailureCode::HubUnreachable);
            assert!(stage.failures()[0].message.contains("nobody answers"));
            let again = if opens { stage.open(MESH) } else { stage.join(None, false) };
            assert_eq!(again.failures().len(), 1, "still down: told at once");
        }
    }

    #[test]
    fn who_waits_is_told_once_for_each_outage_and_asks_again() {
        let mut stage = Stage::new();
        stage.join(None, true).down(&HERE);
        assert_eq!(stage.failures().len(), 1);
        let reason = "nobody answers".to_owned();
        let unreachable = SessionState::Unreachable { reason };
        assert_eq!(stage.status().state, unreachable);
        stage.down(&HERE);
        assert_eq!(stage.done, []);
        stage.up(&HERE);
        assert_eq!(stage.sent().len(), 1);
        assert_eq!(stage.status().state, SessionState::Connecting, "it was asked");
        stage.hear(HubMessage::Waiting { session: session() }).down(&HERE);
        assert_eq!(stage.failures().len(), 1);
        assert_eq!(stage.status().state, unreachable);
    }

    #[test]
    fn what_was_asked_of_a_hub_that_is_lost_is_taken_back() {
        let mut stage = Stage::new();
        stage.open(MESH).up(&HERE).down(&HERE);
        assert_eq!(stage.failures()[0].code, FailureCode::HubUnreachable);
        stage.up(&HERE);
        assert_eq!(stage.sent(), [(&HERE, &ClientMessage::Leave { session: session() })]);
    }

    #[test]
    fn an_id_is_asked_for_once_and_again_when_it_is_over() {
        let mut stage = Stage::opened(MESH);
        stage.join(None, true);
        assert_eq!(stage.failures()[0].code, FailureCode::AlreadyHere);
        assert_eq!(stage.status().state, SessionState::Live);
        let reason = CloseReason::Closed;
        stage.hear(HubMessage::Closed { session: session(), reason }).join(None, true);
        assert_eq!(stage.failures(), Vec::<&Failure>::new());
        assert_eq!(stage.core.snapshot().sessions.len(), 1);
    }

    #[test]
    fn a_session_of_an_earlier_run_is_opened_again_or_joined_if_it_has_an_heir() {
        let reopened = |kind| {
            let mut stage = Stage::new();
            let request = OpenRequest { session: session(), kind, limit: Some(9) };
            stage.give(Input::Command(Command::Reopen(request))).up(&HERE);
            assert!(matches!(stage.sent()[0].1, ClientMessage::Open { limit: Some(9), .. }));
            stage.hear(refusal(ErrorCode::IdTaken));
            stage
        };
        let mut stage = reopened(MESH);
        let join = ClientMessage::Join { session: session(), wait: true };
        assert_eq!(stage.sent(), [(&HERE, &join)]);
        stage.hear(joined(MESH, Role::Guest, vec![member("a")]));
        assert_eq!((stage.status().state, stage.status().role), (SessionState::Live, Role::Guest));
        let stage = reopened(BROADCAST);
        assert_eq!(stage.failures()[0].code, FailureCode::Hub(ErrorCode::IdTaken));
    }

    #[test]
    fn a_link_to_a_hub_that_is_in_use_needs_no_second_connection() {
        let mut stage = Stage::opened(MESH);
        stage.leave().join(Some("10.0.0.1:7340"), true);
        let ask = ClientMessage::Join { session: session(), wait: true };
        assert_eq!(stage.done, [Effect::Send { hub: HERE, message: ask }]);
    }
}
