//! The lookup of a requested session: the hubs that were asked, and their answers.

use std::{collections::BTreeMap, time::Duration};

use super::{
    context::Desk,
    hubs::{Hubs, Line},
    refusal,
    words::HubRef,
};
use crate::model::{
    ClientMessage, ErrorCode, Event, Failure, HubPlace, MediaTime, SessionId, SessionKind,
    SessionLink,
};

/// What the user requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    /// Open the session.
    Open(OpenTerms),
    /// Join the session, and wait for it if `wait` is set.
    Join { wait: bool },
}

/// How a session is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpenTerms {
    pub(super) kind: SessionKind,
    pub(super) limit: Option<u16>,
    /// Whether to join the session if another participant owns it: it was ours in an earlier run,
    /// and a successor took it over.
    pub(super) or_joins: bool,
}

/// The lookup of one session at one or several hubs.
#[derive(Debug)]
pub(super) struct Search {
    session: SessionId,
    wish: Wish,
    at: BTreeMap<HubRef, Answer>,
    /// Whether the user was told at which hubs the session is awaited.
    is_told: bool,
    /// Whether the user was told that a hub is busy.
    told_busy: bool,
}

/// How long after a busy hub refused a request it is asked again. The hub itself queued the request
/// for 3 s before.
pub(super) const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// What a hub has answered.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    /// It was not asked, because it is not up.
    Unasked,
    /// It was asked and has not answered.
    Asked,
    /// The session is not open there yet.
    Waiting,
    /// It was busy, and is asked again at that time.
    Busy { again_at: MediaTime },
    /// It refused.
    Refused { code: ErrorCode, said: String },
    /// It cannot be reached.
    Unreachable { reason: String },
}

impl Search {
    /// Asks each of the hubs, now or when it is up.
    pub(super) fn begin(
        session: SessionId,
        request: Wish,
        hubs: Vec<HubRef>,
        cx: &mut Desk<'_>,
    ) -> Self {
        let mut lookup =
            Self { session, wish: request, at: BTreeMap::new(), is_told: false, told_busy: false };
        for hub in hubs {
            cx.hubs.need(&hub, cx.out);
            lookup.at.insert(hub.clone(), Answer::Unasked);
            match cx.hubs.line(&hub).cloned() {
                Some(Line::Up { .. }) => lookup.up(&hub, cx),
                Some(Line::Down { reason }) => lookup.down(&hub, &reason, cx),
                Some(Line::Connecting) | None => {}
            }
        }
        lookup
    }

    pub(super) const fn wish(&self) -> Wish {
        self.wish
    }

    /// The hubs that may still have the session.
    pub(super) fn hubs(&self) -> impl Iterator<Item = &HubRef> {
        let may = |state: &Answer| !matches!(state, Answer::Refused { .. });
        self.at.iter().filter(move |(_, state)| may(state)).map(|(hub, _)| hub)
    }

    /// The session's link, if only one hub can have it and that hub's address is known.
    pub(super) fn link(&self, hubs: &Hubs) -> Option<SessionLink> {
        let mut at = self.hubs();
        let only = at.next().filter(|_| at.next().is_none())?;
        hubs.url(only).map(|url| url.link(&self.session))
    }

    /// The endpoint of the only hub that can have the session, if there is only one.
    pub(super) fn hub<'a>(&self, hubs: &'a Hubs) -> Option<&'a HubPlace> {
        let mut at = self.hubs();
        let only = at.next().filter(|_| at.next().is_none())?;
        hubs.place(only)
    }

    /// Whether this hub is asked.
    pub(super) fn is_at(&self, hub: &HubRef) -> bool {
        self.at.contains_key(hub)
    }

    /// Whether at least one hub waits for the session to open.
    pub(super) fn waits(&self) -> bool {
        self.at.values().any(|state| *state == Answer::Waiting)
    }

    /// Why no hub that may have the session can be asked; `None` while one was asked or is being
    /// connected.
    pub(super) fn unreachable_because(&self) -> Option<&str> {
        let mut reason = None;
        for state in self.at.values() {
            match state {
                Answer::Unreachable { reason: why } => reason = reason.or(Some(why.as_str())),
                Answer::Refused { .. } => {}
                Answer::Unasked | Answer::Asked | Answer::Waiting | Answer::Busy { .. } => {
                    return None;
                }
            }
        }
        reason
    }

    /// A hub is up, for the first time or again.
    pub(super) fn up(&mut self, hub: &HubRef, cx: &mut Desk<'_>) {
        if self.has_twin(hub, cx.hubs) {
            if self.at.remove(hub).is_some_and(|state| state != Answer::Unasked) {
                self.part(hub, cx);
            }
            return;
        }
        let Some(state) = self.at.get_mut(hub) else { return };
        if matches!(state, Answer::Refused { .. }) {
            return;
        }
        *state = Answer::Asked;
        let session = self.session.clone();
        cx.out.send(hub, self.wish.message(session));
    }

    /// Whether the same hub was already asked under another reference: a link may point to the
    /// default hub. Asking twice would give us two seats.
    fn has_twin(&self, hub: &HubRef, hubs: &Hubs) -> bool {
        let was_asked = |state: &Answer| match state {
            Answer::Unasked | Answer::Unreachable { .. } => false,
            Answer::Asked | Answer::Waiting | Answer::Busy { .. } | Answer::Refused { .. } => true,
        };
        let mut others = self.at.iter().filter(|(other, _)| *other != hub);
        others.any(|(other, state)| was_asked(state) && hubs.are_one(other, hub))
    }

    /// Asks busy hubs again whose time has come.
    pub(super) fn advance(&mut self, cx: &mut Desk<'_>) {
        for (hub, state) in &mut self.at {
            if matches!(state, Answer::Busy { again_at: retry_at } if *retry_at <= cx.now) {
                *state = Answer::Asked;
                cx.out.send(hub, self.wish.message(self.session.clone()));
            }
        }
    }

    /// The next deadline.
    pub(super) fn due(&self) -> Option<MediaTime> {
        let retry = |state: &Answer| match state {
            Answer::Busy { again_at: retry_at } => Some(*retry_at),
            Answer::Unasked
            | Answer::Asked
            | Answer::Waiting
            | Answer::Refused { .. }
            | Answer::Unreachable { .. } => None,
        };
        self.at.values().filter_map(retry).min()
    }

    /// A hub cannot be reached, or was lost.
    pub(super) fn down(&mut self, hub: &HubRef, reason: &str, cx: &mut Desk<'_>) {
        let Some(state) = self.at.get_mut(hub) else { return };
        if matches!(state, Answer::Refused { .. }) {
            return;
        }
        let unreachable = Answer::Unreachable { reason: reason.to_owned() };
        let before = std::mem::replace(state, unreachable);
        if self.wish.waits() {
            if !matches!(before, Answer::Unreachable { .. }) {
                cx.out.fail(self.unreachable(reason));
            }
            self.tell_waiting(cx);
        } else if before == Answer::Asked {
            // The hub may have carried out the request, and its answer was lost.
            self.part(hub, cx);
        }
    }

    /// A hub waits for the session to open.
    pub(super) fn waiting(&mut self, hub: &HubRef, cx: &mut Desk<'_>) {
        if let Some(state @ Answer::Asked) = self.at.get_mut(hub) {
            *state = Answer::Waiting;
            self.tell_waiting(cx);
        }
    }

    /// A hub refused. A busy hub is asked again if the request waits.
    pub(super) fn refused(
        &mut self,
        hub: &HubRef,
        (code, message): (ErrorCode, String),
        cx: &mut Desk<'_>,
    ) {
        let Some(state @ (Answer::Asked | Answer::Waiting)) = self.at.get_mut(hub) else { return };
        let join_if_taken = matches!(self.wish, Wish::Open(OpenTerms { or_joins: true, .. }));
        if code == ErrorCode::IdTaken && join_if_taken {
            self.wish = Wish::Join { wait: true };
            *state = Answer::Asked;
            let message = self.wish.message(self.session.clone());
            return cx.out.send(hub, message);
        }
        if code != ErrorCode::TooMany || !self.wish.waits() {
            *state = Answer::Refused { code, said: message };
            return;
        }
        *state = Answer::Busy { again_at: cx.now + ASKED_AGAIN };
        if !std::mem::replace(&mut self.told_busy, true) {
            cx.out.fail(refusal::busy(&self.session, &name(hub, cx.hubs), &message));
        }
        self.tell_waiting(cx);
    }

    /// The failure, if the lookup cannot succeed any more.
    ///
    /// A session that is full has been found, so the other hubs are not asked or awaited any
    /// longer.
    pub(super) fn verdict(&self, hubs: &Hubs) -> Option<Failure> {
        let is_full =
            |state: &Answer| matches!(state, Answer::Refused { code: ErrorCode::SessionFull, .. });
        let is_over = |state: &Answer| match state {
            Answer::Refused { .. } => true,
            Answer::Unreachable { .. } => !self.wish.waits(),
            Answer::Unasked | Answer::Asked | Answer::Waiting | Answer::Busy { .. } => false,
        };
        if !self.at.values().any(is_full) && !self.at.values().all(is_over) {
            return None;
        }
        let (hub, state) = self.at.iter().max_by_key(|(_, state)| state.weight())?;
        match state {
            Answer::Refused { code, said: message } => {
                Some(refusal::refused(*code, &self.session, &name(hub, hubs), message))
            }
            Answer::Unreachable { reason } => Some(self.unreachable(reason)),
            Answer::Unasked | Answer::Asked | Answer::Waiting | Answer::Busy { .. } => None,
        }
    }

    /// Ends the lookup at all hubs except the one where it succeeded.
    pub(super) fn end(&self, found_at: Option<&HubRef>, cx: &mut Desk<'_>) {
        for (hub, state) in &self.at {
            let is_open = matches!(state, Answer::Asked | Answer::Waiting);
            if is_open && found_at != Some(hub) {
                self.part(hub, cx);
            }
        }
    }

    fn part(&self, hub: &HubRef, cx: &mut Desk<'_>) {
        let leave = ClientMessage::Leave { session: self.session.clone() };
        cx.hubs.part(hub, (&self.session, leave), cx.out);
    }

    /// Announces once at which hubs the session is awaited, when every hub has answered.
    fn tell_waiting(&mut self, cx: &mut Desk<'_>) {
        let is_open = |state: &Answer| matches!(state, Answer::Unasked | Answer::Asked);
        if self.is_told || !self.waits() || self.at.values().any(is_open) {
            return;
        }
        self.is_told = true;
        let hubs = self.hubs().filter_map(|hub| cx.hubs.url(hub)).collect();
        cx.out.announce(Event::Waiting { session: self.session.clone(), hubs });
    }

    fn unreachable(&self, reason: &str) -> Failure {
        refusal::unreachable(&self.session, reason, self.wish.waits())
    }
}

impl Wish {
    /// The message that requests it from a hub.
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
    /// How well an answer explains why the lookup failed; the highest is reported.
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
mod tests;
