//! The lookup of a requested session: the hubs that were asked, and their answers.

use std::{collections::BTreeMap, time::Duration};

use super::{
    context::CoreContext,
    deadline::{Deadline, TimerName},
    hubs::{HubConnectionState, Hubs},
    input::HubRef,
};
use crate::model::{
    ClientMessage, ErrorCode, Event, Failure, FailureCause, HubEndpoint, HubFailure, MediaTime,
    SessionId, SessionKind, SessionLink,
};

/// What the user requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SessionRequest {
    /// Open the session.
    Open(OpenOptions),
    /// Join the session, and wait for it if `wait` is set.
    Join { wait: bool },
}

/// How a session is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct OpenOptions {
    pub(super) kind: SessionKind,
    pub(super) limit: Option<u16>,
    /// Whether to join the session if another participant owns it: it was ours in an earlier run,
    /// and a successor took it over.
    pub(super) join_if_taken: bool,
}

/// The lookup of one session at one or several hubs.
#[derive(Debug)]
pub(super) struct SessionLookup {
    session: SessionId,
    request: SessionRequest,
    states: BTreeMap<HubRef, LookupState>,
    /// Whether the user was told at which hubs the session is awaited.
    waiting_announced: bool,
    /// Whether the user was told that a hub is busy.
    busy_announced: bool,
}

/// How long after a busy hub refused a request it is asked again. The hub itself queued the request
/// for 3 s before.
pub(super) const BUSY_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What a hub has answered.
#[derive(Clone, PartialEq, Eq, Debug)]
enum LookupState {
    /// It was not asked, because it is not up.
    NotAsked,
    /// It was asked and has not answered.
    Pending,
    /// The session is not open there yet.
    Waiting,
    /// It was busy, and is asked again at that time.
    Busy { retry_at: MediaTime },
    /// It refused.
    Refused { code: ErrorCode, message: String },
    /// It cannot be reached.
    Unreachable { reason: String },
}

impl SessionLookup {
    /// Asks each of the hubs, now or when it is up.
    pub(super) fn begin(
        session: SessionId,
        request: SessionRequest,
        hubs: Vec<HubRef>,
        cx: &mut CoreContext<'_>,
    ) -> Self {
        let mut lookup = Self {
            session,
            request,
            states: BTreeMap::new(),
            waiting_announced: false,
            busy_announced: false,
        };
        for hub in hubs {
            cx.hubs.connect(&hub, cx.effects);
            lookup.states.insert(hub.clone(), LookupState::NotAsked);
            match cx.hubs.connection_state(&hub).cloned() {
                Some(HubConnectionState::Up { .. }) => lookup.on_hub_up(&hub, cx),
                Some(HubConnectionState::Down { reason }) => lookup.on_hub_down(&hub, &reason, cx),
                Some(HubConnectionState::Connecting) | None => {}
            }
        }
        lookup
    }

    pub(super) const fn request(&self) -> SessionRequest {
        self.request
    }

    /// The hubs that may still have the session.
    pub(super) fn hubs(&self) -> impl Iterator<Item = &HubRef> {
        let may = |state: &LookupState| !matches!(state, LookupState::Refused { .. });
        self.states.iter().filter(move |(_, state)| may(state)).map(|(hub, _)| hub)
    }

    /// The session's link, if only one hub can have it and that hub's address is known.
    pub(super) fn link(&self, hubs: &Hubs) -> Option<SessionLink> {
        let mut at = self.hubs();
        let only = at.next().filter(|_| at.next().is_none())?;
        hubs.url(only).map(|url| url.link(&self.session))
    }

    /// The endpoint of the only hub that can have the session, if there is only one.
    pub(super) fn only_hub<'a>(&self, hubs: &'a Hubs) -> Option<&'a HubEndpoint> {
        let mut at = self.hubs();
        let only = at.next().filter(|_| at.next().is_none())?;
        hubs.endpoint(only)
    }

    /// Whether this hub is asked.
    pub(super) fn includes(&self, hub: &HubRef) -> bool {
        self.states.contains_key(hub)
    }

    /// Whether at least one hub waits for the session to open.
    pub(super) fn waits(&self) -> bool {
        self.states.values().any(|state| *state == LookupState::Waiting)
    }

    /// Why no hub that may have the session can be asked; `None` while one was asked or is being
    /// connected.
    pub(super) fn unreachable_because(&self) -> Option<&str> {
        let mut reason = None;
        for state in self.states.values() {
            match state {
                LookupState::Unreachable { reason: why } => reason = reason.or(Some(why.as_str())),
                LookupState::Refused { .. } => {}
                LookupState::NotAsked
                | LookupState::Pending
                | LookupState::Waiting
                | LookupState::Busy { .. } => {
                    return None;
                }
            }
        }
        reason
    }

    /// A hub is up, for the first time or again.
    pub(super) fn on_hub_up(&mut self, hub: &HubRef, cx: &mut CoreContext<'_>) {
        if self.is_duplicate(hub, cx.hubs) {
            if self.states.remove(hub).is_some_and(|state| state != LookupState::NotAsked) {
                self.send_leave(hub, cx);
            }
            return;
        }
        let Some(state) = self.states.get_mut(hub) else { return };
        if matches!(state, LookupState::Refused { .. }) {
            return;
        }
        *state = LookupState::Pending;
        let session = self.session.clone();
        cx.effects.send(hub, self.request.message(session));
    }

    /// Whether the same hub was already asked under another reference: a link may point to the
    /// default hub. Asking twice would give us two seats.
    fn is_duplicate(&self, hub: &HubRef, hubs: &Hubs) -> bool {
        let was_asked = |state: &LookupState| match state {
            LookupState::NotAsked | LookupState::Unreachable { .. } => false,
            LookupState::Pending
            | LookupState::Waiting
            | LookupState::Busy { .. }
            | LookupState::Refused { .. } => true,
        };
        let mut others = self.states.iter().filter(|(other, _)| *other != hub);
        others.any(|(other, state)| was_asked(state) && hubs.are_same(other, hub))
    }

    /// Asks busy hubs again whose time has come.
    pub(super) fn handle_timeout(&mut self, cx: &mut CoreContext<'_>) {
        for (hub, state) in &mut self.states {
            if matches!(state, LookupState::Busy { retry_at } if *retry_at <= cx.now) {
                *state = LookupState::Pending;
                cx.effects.send(hub, self.request.message(self.session.clone()));
            }
        }
    }

    /// The next deadline.
    pub(super) fn next_deadline(&self) -> Option<Deadline<'_>> {
        let retry = |state: &LookupState| match state {
            LookupState::Busy { retry_at } => Some(*retry_at),
            LookupState::NotAsked
            | LookupState::Pending
            | LookupState::Waiting
            | LookupState::Refused { .. }
            | LookupState::Unreachable { .. } => None,
        };
        self.states.values().filter_map(retry).min().map(|at| TimerName::LookupRetry.at(at))
    }

    /// A hub cannot be reached, or was lost.
    pub(super) fn on_hub_down(&mut self, hub: &HubRef, reason: &str, cx: &mut CoreContext<'_>) {
        let Some(state) = self.states.get_mut(hub) else { return };
        if matches!(state, LookupState::Refused { .. }) {
            return;
        }
        let unreachable = LookupState::Unreachable { reason: reason.to_owned() };
        let before = std::mem::replace(state, unreachable);
        if self.request.waits() {
            if !matches!(before, LookupState::Unreachable { .. }) {
                cx.effects.announce_failure(self.unreachable(reason));
            }
            self.announce_waiting(cx);
        } else if before == LookupState::Pending {
            // The hub may have carried out the request, and its answer was lost.
            self.send_leave(hub, cx);
        }
    }

    /// A hub waits for the session to open.
    pub(super) fn on_waiting(&mut self, hub: &HubRef, cx: &mut CoreContext<'_>) {
        if let Some(state @ LookupState::Pending) = self.states.get_mut(hub) {
            *state = LookupState::Waiting;
            self.announce_waiting(cx);
        }
    }

    /// A hub refused. A busy hub is asked again if the request waits.
    pub(super) fn on_refused(
        &mut self,
        hub: &HubRef,
        (code, message): (ErrorCode, String),
        cx: &mut CoreContext<'_>,
    ) {
        let Some(state @ (LookupState::Pending | LookupState::Waiting)) = self.states.get_mut(hub)
        else {
            return;
        };
        let join_if_taken =
            matches!(self.request, SessionRequest::Open(OpenOptions { join_if_taken: true, .. }));
        if code == ErrorCode::IdTaken && join_if_taken {
            self.request = SessionRequest::Join { wait: true };
            *state = LookupState::Pending;
            let message = self.request.message(self.session.clone());
            return cx.effects.send(hub, message);
        }
        if code != ErrorCode::TooMany || !self.request.waits() {
            *state = LookupState::Refused { code, message };
            return;
        }
        *state = LookupState::Busy { retry_at: cx.now + BUSY_RETRY_AFTER };
        if !std::mem::replace(&mut self.busy_announced, true) {
            let busy = HubFailure::Busy { reason: message };
            cx.effects.announce_failure(busy.of(&self.session, cx.hubs.shown_url(hub)));
        }
        self.announce_waiting(cx);
    }

    /// The failure, if the lookup cannot succeed any more.
    ///
    /// A session that is full has been found, so the other hubs are not asked or awaited any
    /// longer.
    pub(super) fn failure(&self, hubs: &Hubs) -> Option<Failure> {
        let is_full = |state: &LookupState| {
            matches!(state, LookupState::Refused { code: ErrorCode::SessionFull, .. })
        };
        let is_over = |state: &LookupState| match state {
            LookupState::Refused { .. } => true,
            LookupState::Unreachable { .. } => !self.request.waits(),
            LookupState::NotAsked
            | LookupState::Pending
            | LookupState::Waiting
            | LookupState::Busy { .. } => false,
        };
        if !self.states.values().any(is_full) && !self.states.values().all(is_over) {
            return None;
        }
        let (hub, state) = self.states.iter().max_by_key(|(_, state)| state.precedence())?;
        match state {
            LookupState::Refused { code, message } => {
                let refused = HubFailure::Refused { code: *code, reason: message.clone() };
                Some(refused.of(&self.session, hubs.shown_url(hub)))
            }
            LookupState::Unreachable { reason } => Some(self.unreachable(reason)),
            LookupState::NotAsked
            | LookupState::Pending
            | LookupState::Waiting
            | LookupState::Busy { .. } => None,
        }
    }

    /// Ends the lookup at all hubs except the one where it succeeded.
    pub(super) fn cancel(&self, found_at: Option<&HubRef>, cx: &mut CoreContext<'_>) {
        for (hub, state) in &self.states {
            let is_open = matches!(state, LookupState::Pending | LookupState::Waiting);
            if is_open && found_at != Some(hub) {
                self.send_leave(hub, cx);
            }
        }
    }

    fn send_leave(&self, hub: &HubRef, cx: &mut CoreContext<'_>) {
        let leave = ClientMessage::Leave { session: self.session.clone() };
        cx.hubs.send_leave(hub, (&self.session, leave), cx.effects);
    }

    /// Announces once at which hubs the session is awaited, when every hub has answered.
    fn announce_waiting(&mut self, cx: &mut CoreContext<'_>) {
        let is_open =
            |state: &LookupState| matches!(state, LookupState::NotAsked | LookupState::Pending);
        if self.waiting_announced || !self.waits() || self.states.values().any(is_open) {
            return;
        }
        self.waiting_announced = true;
        let hubs = self.hubs().filter_map(|hub| cx.hubs.url(hub)).collect();
        cx.effects.announce(Event::Waiting { session: self.session.clone(), hubs });
    }

    fn unreachable(&self, reason: &str) -> Failure {
        let (reason, retries) = (reason.to_owned(), self.request.waits());
        let cause = FailureCause::HubUnreachable { reason, retries };
        Failure { cause, session: Some(self.session.clone()) }
    }
}

impl SessionRequest {
    /// The message that requests it from a hub.
    pub(super) const fn message(self, session: SessionId) -> ClientMessage {
        match self {
            Self::Open(OpenOptions { kind, limit, .. }) => {
                ClientMessage::Open { session, kind, limit, owner_key: None }
            }
            Self::Join { wait } => ClientMessage::Join { session, wait },
        }
    }

    const fn waits(self) -> bool {
        matches!(self, Self::Join { wait: true })
    }
}

impl LookupState {
    /// How well an answer explains why the lookup failed; the highest is reported.
    const fn precedence(&self) -> u8 {
        match self {
            Self::NotAsked | Self::Pending | Self::Waiting | Self::Busy { .. } => 0,
            Self::Unreachable { .. } => 1,
            Self::Refused { code: ErrorCode::NoSuchSession, .. } => 2,
            Self::Refused { code: ErrorCode::SessionFull, .. } => 4,
            Self::Refused { .. } => 3,
        }
    }
}

#[cfg(test)]
mod tests;
