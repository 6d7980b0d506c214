//! Leaving with undo: media stops at once, and the hubs are notified some seconds later.

use std::{sync::Arc, time::Duration};

use super::Conference;
use crate::model::{
    Departure, DepartureStatus, MediaTime, SessionFailure, SessionId, SessionStatus,
};

/// How long a departure can be undone: long enough to read a line and reach for the mouse.
const UNDO_WINDOW: Duration = Duration::from_secs(8);

/// A pending departure. The hubs are not notified until it is final, so every seat, link and owner
/// key is kept.
#[derive(Debug)]
pub(super) struct PendingDeparture {
    sessions: Vec<SessionId>,
    /// Whether the sessions are closed for all participants.
    closes_for_all: bool,
    until: MediaTime,
}

impl PendingDeparture {
    /// The departure for the snapshot, with the state of its sessions.
    pub(super) fn status(&self, sessions: Vec<Arc<SessionStatus>>) -> DepartureStatus {
        DepartureStatus { sessions, closes: self.closes_for_all, until: self.until }
    }

    /// When it becomes final.
    pub(super) const fn until(&self) -> MediaTime {
        self.until
    }
}

impl Conference {
    /// Starts leaving or closing sessions so that it can be undone; an earlier departure becomes
    /// final.
    ///
    /// A session that we have not joined yet, or that has ended, has nothing to lose. It is left at
    /// once, unless all sessions are left together.
    pub(super) fn depart(&mut self, departure: Departure) {
        self.finish_departure();
        let (wanted, closes_for_all) = match departure {
            Departure::Leave(id) => (vec![id], false),
            Departure::Close(id) => (vec![id], true),
            Departure::LeaveAll => {
                let ids = self.sessions.iter().map(|one| one.id.clone());
                (ids.collect(), false)
            }
        };
        let is_all = wanted.len() > 1;
        let mut sessions = vec![];
        for id in wanted {
            match self.session_and_context(&id).0 {
                None => self.effects.announce_failure(SessionFailure::NotInSession.of(&id)),
                Some(one) if closes_for_all && !one.is_own() && !one.is_ended() => {
                    self.effects.announce_failure(SessionFailure::NotOwner.of(&id));
                }
                Some(one) if one.is_joined() || (is_all && !one.is_ended()) => {
                    one.is_departing = true;
                    sessions.push(id);
                }
                Some(_) => self.leave(&id),
            }
        }
        let until = self.now + UNDO_WINDOW;
        self.departure =
            (!sessions.is_empty()).then_some(PendingDeparture { sessions, closes_for_all, until });
    }

    /// Cancels the pending departure, if there is one.
    pub(super) fn undo(&mut self) {
        self.departure = None;
        for session in self.sessions_and_context().0 {
            session.is_departing = false;
        }
    }

    /// Makes the pending departure final, if there is one.
    pub(super) fn finish_departure(&mut self) {
        let Some(PendingDeparture { sessions, closes_for_all, .. }) = self.departure.take() else {
            return;
        };
        for id in sessions {
            // Another participant may own it by now.
            let is_own = self.sessions.iter().any(|one| one.id == id && one.is_own());
            if closes_for_all && is_own { self.close(&id) } else { self.leave(&id) }
        }
    }

    /// Makes the pending departure final if its time has passed.
    pub(super) fn settle_departure(&mut self) {
        if self.departure.as_ref().is_some_and(|departing| departing.until <= self.now) {
            self.finish_departure();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Effect, HubRef, Input, tests::fixture::*};
    use crate::model::{
        ClientMessage, CloseReason, Command, Departure, EndReason, Event, HubMessage, LeaveReason,
        MuteSwitch, OpenRequest, ParticipantState, PeerState, PerSource, SessionId, SessionState,
    };

    /// The opener of a mesh that is connected to `a`.
    fn connected_mesh() -> Fixture {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        fixture
    }

    fn depart(departure: Departure) -> Input {
        Input::Command(Command::Depart(departure))
    }

    fn depart_one() -> Input {
        depart(Departure::Leave(session()))
    }

    fn leave_message() -> ClientMessage {
        ClientMessage::Leave { session: session() }
    }

    #[test]
    fn leaving_stops_media_at_once_and_notifies_the_hub_eight_seconds_later() {
        let mut fixture = connected_mesh();
        fixture.handle(depart_one());
        assert_eq!(fixture.signals(), [media(NEITHER)], "the others see that nothing is sent");
        let silent = |effect: &Effect| matches!(effect, Effect::SetSending { layers, .. } if *layers == PerSource::default());
        let deaf = |effect: &Effect| matches!(effect, Effect::SetPlayback { playback, .. } if !playback.is_audible);
        assert!(
            fixture.effects.iter().any(silent) && fixture.effects.iter().any(deaf),
            "{:?}",
            fixture.effects
        );
        let snapshot = fixture.core.snapshot();
        let departure = snapshot.departure.as_ref().expect("the departure is shown");
        assert_eq!((snapshot.sessions.len(), departure.sessions.len()), (0, 1));
        assert_eq!(departure.until.since(fixture.now).as_secs(), 8);
        fixture.advance_ms(7999);
        assert_eq!(fixture.sent(), []);
        fixture.advance_ms(1);
        assert_eq!(fixture.sent(), [(&HubRef::Default, &leave_message())]);
        let (session, reason) = (session(), EndReason::Left);
        assert!(fixture.events().contains(&&Event::Ended { session, reason }));
        assert_eq!((fixture.closed_peers(), &fixture.core.snapshot().departure), (vec![1], &None));
    }

    #[test]
    fn an_undone_departure_restores_everything_and_keeps_the_connections() {
        let mut fixture = connected_mesh();
        fixture.set_switch(Some(session()), MuteSwitch::CAMERA, false);
        let before = fixture.status();
        fixture.handle(depart_one()).advance_ms(7000);
        fixture.handle(Input::Command(Command::Undo));
        assert_eq!(fixture.signals(), [media(MICROPHONE)], "with its own switches");
        assert_eq!(fixture.status(), before);
        fixture.advance_ms(60_000);
        assert_eq!((fixture.sent(), fixture.closed_peers()), (vec![], vec![]));
    }

    #[test]
    fn a_second_departure_or_a_new_request_makes_a_departure_final() {
        let mut fixture = connected_mesh();
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other.clone(), kind: MESH, limit: None };
        fixture.handle(Input::Command(Command::Open(request)));
        fixture.handle(depart_one()).handle(depart(Departure::Leave(other)));
        assert_eq!(
            fixture.sent(),
            [
                (&HubRef::Default, &leave_message()),
                (
                    &HubRef::Default,
                    &ClientMessage::Leave { session: SessionId::parse("other").unwrap() }
                )
            ],
            "a session that is not open yet is left at once"
        );
        for input in [
            Input::Command(Command::Confirm),
            Input::Command(Command::LeaveAll),
            depart(Departure::LeaveAll),
        ] {
            let mut fixture = connected_mesh();
            fixture.handle(depart_one()).handle(input);
            assert_eq!(fixture.sent(), [(&HubRef::Default, &leave_message())]);
        }
        let mut fixture = connected_mesh();
        fixture.handle(depart_one()).join(None, true);
        let join = ClientMessage::Join { session: session(), wait: true };
        let sent: Vec<_> = fixture.sent().into_iter().map(|(_, message)| message.clone()).collect();
        assert_eq!(sent, [leave_message(), join]);
    }

    #[test]
    fn closing_and_leaving_all_can_be_undone_too() {
        let mut fixture = connected_mesh();
        fixture.handle(depart(Departure::Close(session())));
        assert!(fixture.core.snapshot().departure.as_ref().is_some_and(|one| one.closes));
        fixture.handle(Input::Command(Command::Undo)).advance_ms(20_000);
        assert_eq!(fixture.sent(), []);
        fixture.handle(depart(Departure::Close(session()))).advance_ms(8000);
        let close = ClientMessage::Close { session: session() };
        assert_eq!(fixture.sent(), [(&HubRef::Default, &close)]);
        let mut guest = Fixture::joined(MESH, vec![member("a")]);
        guest.handle(depart(Departure::Close(session())));
        assert_eq!(guest.failures().len(), 1, "only the owner closes");
        let mut fixture = connected_mesh();
        fixture.handle(depart(Departure::LeaveAll)).advance_ms(7999);
        assert_eq!(fixture.sent(), []);
        assert_eq!(fixture.advance_ms(1).sent(), [(&HubRef::Default, &leave_message())]);
    }

    #[test]
    fn events_during_a_departure_are_kept_when_it_is_undone() {
        let mut fixture = connected_mesh();
        fixture.handle(depart_one()).hub_down(&HubRef::Default).hub_up(&HubRef::Default);
        fixture.receive(opened(MESH, vec![member("a"), member("b")]));
        fixture
            .receive(participant_left("a", LeaveReason::Left))
            .handle(Input::Command(Command::Undo));
        assert_eq!(fixture.state_of("a"), None);
        assert_eq!(fixture.state_of("b"), Some(ParticipantState::Connecting));
        fixture.handle(depart_one());
        fixture.receive(HubMessage::Closed { session: session(), reason: CloseReason::Ejected });
        fixture.handle(Input::Command(Command::Undo));
        let reason = EndReason::Ejected;
        assert_eq!(fixture.status().state, SessionState::Ended { reason });
    }
}
