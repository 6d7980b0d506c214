//! Leaving that can be undone: at once for the person, some seconds later for everybody else.

use std::time::Duration;

use super::{Conference, Session, refusal};
use crate::model::{Departure, DepartureStatus, MediaTime, SessionId};

/// How long leaving can be undone: long enough to read a line and reach for the mouse.
const GRACE: Duration = Duration::from_secs(8);

/// Sessions that are being left. Until then the hubs know of nothing, so every seat, link and
/// owner key is kept.
#[derive(Debug)]
pub(super) struct Departing {
    sessions: Vec<SessionId>,
    /// They are to be closed for everybody.
    closes: bool,
    until: MediaTime,
}

impl Departing {
    /// When it cannot be undone any more.
    pub(super) const fn until(&self) -> MediaTime {
        self.until
    }
}

impl Conference {
    /// Leaves or closes sessions, so that it can be undone; an earlier departure is final.
    ///
    /// A session that we are not in yet, or any more, has nothing to lose: it is left at once,
    /// unless it is one of all.
    pub(super) fn depart(&mut self, departure: Departure) {
        self.finish_departure();
        let (wanted, closes) = match departure {
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
            match self.sessions.iter_mut().find(|one| one.id == id) {
                None => self.out.fail(refusal::not_here(&id)),
                Some(one) if closes && !one.is_own() && !one.is_over() => {
                    self.out.fail(refusal::not_owner(&id));
                }
                Some(one) if one.is_in() || (is_all && !one.is_over()) => {
                    one.is_departing = true;
                    sessions.push(id);
                }
                Some(_) => self.leave(&id),
            }
        }
        let until = self.now + GRACE;
        self.departure = (!sessions.is_empty()).then_some(Departing { sessions, closes, until });
    }

    /// Takes the departure back, if there is one.
    pub(super) fn undo(&mut self) {
        self.departure = None;
        for session in &mut self.sessions {
            session.is_departing = false;
        }
    }

    /// Makes the departure final, if there is one.
    pub(super) fn finish_departure(&mut self) {
        let Some(Departing { sessions, closes, .. }) = self.departure.take() else { return };
        for id in sessions {
            // Somebody else may own it by now.
            let is_own = self.sessions.iter().any(|one| one.id == id && one.is_own());
            if closes && is_own { self.close(&id) } else { self.leave(&id) }
        }
    }

    /// Makes a departure final whose time is over.
    pub(super) fn settle_departure(&mut self) {
        if self.departure.as_ref().is_some_and(|departing| departing.until <= self.now) {
            self.finish_departure();
        }
    }

    /// What is being left, for the one who may undo it.
    pub(super) fn departure_status(&self, runs: (bool, bool)) -> Option<DepartureStatus> {
        let Departing { closes, until, .. } = self.departure.as_ref()?;
        let departing = self.sessions.iter().filter(|one| one.is_departing);
        let status = |one: &Session| one.status(&self.hubs, runs);
        let sessions = departing.map(status).collect();
        Some(DepartureStatus { sessions, closes: *closes, until: *until })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Effect, HubRef, Input, stage::*};
    use crate::model::{
        ClientMessage, CloseReason, Command, Departure, EndReason, Event, Gate, HubMessage,
        LeaveReason, OpenRequest, ParticipantState, PeerState, SessionId, SessionState,
    };

    /// The opener of a mesh whose media with `a` runs.
    fn live() -> Stage {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).state(1, PeerState::Connected);
        stage
    }

    fn depart(departure: Departure) -> Input {
        Input::Command(Command::Depart(departure))
    }

    fn leave() -> Input {
        depart(Departure::Leave(session()))
    }

    fn goodbye() -> ClientMessage {
        ClientMessage::Leave { session: session() }
    }

    #[test]
    fn leaving_stops_sound_and_pictures_at_once_and_is_told_eight_seconds_later() {
        let mut stage = live();
        stage.give(leave());
        assert_eq!(stage.said(), [media(false, false)], "the others see no crash");
        let silent = |effect: &Effect| {
            matches!(effect, Effect::SetSending { audio: false, video: None, .. })
        };
        let deaf = |effect: &Effect| matches!(effect, Effect::SetHeard { heard: false, .. });
        assert!(stage.done.iter().any(silent) && stage.done.iter().any(deaf), "{:?}", stage.done);
        let snapshot = stage.core.snapshot();
        let departure = snapshot.departure.expect("it is shown");
        assert_eq!((snapshot.sessions.len(), departure.sessions.len()), (0, 1));
        assert_eq!(departure.until.since(stage.now).as_secs(), 8);
        stage.pass_ms(7999);
        assert_eq!(stage.sent(), []);
        stage.pass_ms(1);
        assert_eq!(stage.sent(), [(&HubRef::Default, &goodbye())]);
        let (session, reason) = (session(), EndReason::Left);
        assert!(stage.events().contains(&&Event::Ended { session, reason }));
        assert_eq!((stage.closed_peers(), stage.core.snapshot().departure), (vec![1], None));
    }

    #[test]
    fn undone_it_is_as_it_was_and_no_connection_was_touched() {
        let mut stage = live();
        stage.turn(Some(session()), Gate::Camera, false);
        let before = stage.status();
        stage.give(leave()).pass_ms(7000);
        stage.give(Input::Command(Command::Undo));
        assert_eq!(stage.said(), [media(true, false)], "as it was switched");
        assert_eq!(stage.status(), before);
        stage.pass_ms(60_000);
        assert_eq!((stage.sent(), stage.closed_peers()), (vec![], vec![]));
    }

    #[test]
    fn leaving_something_else_or_asking_for_it_again_makes_it_final() {
        let mut stage = live();
        let other = SessionId::parse("other").unwrap();
        let request = OpenRequest { session: other.clone(), kind: MESH, limit: None };
        stage.give(Input::Command(Command::Open(request)));
        stage.give(leave()).give(depart(Departure::Leave(other)));
        assert_eq!(
            stage.sent(),
            [
                (&HubRef::Default, &goodbye()),
                (
                    &HubRef::Default,
                    &ClientMessage::Leave { session: SessionId::parse("other").unwrap() }
                )
            ],
            "what was not open yet is left at once"
        );
        for input in [
            Input::Command(Command::Confirm),
            Input::Command(Command::LeaveAll),
            depart(Departure::LeaveAll),
        ] {
            let mut stage = live();
            stage.give(leave()).give(input);
            assert_eq!(stage.sent(), [(&HubRef::Default, &goodbye())]);
        }
        let mut stage = live();
        stage.give(leave()).join(None, true);
        let join = ClientMessage::Join { session: session(), wait: true };
        let sent: Vec<_> = stage.sent().into_iter().map(|(_, message)| message.clone()).collect();
        assert_eq!(sent, [goodbye(), join]);
    }

    #[test]
    fn closing_for_everybody_and_leaving_all_can_be_undone_too() {
        let mut stage = live();
        stage.give(depart(Departure::Close(session())));
        assert!(stage.core.snapshot().departure.is_some_and(|departure| departure.closes));
        stage.give(Input::Command(Command::Undo)).pass_ms(20_000);
        assert_eq!(stage.sent(), []);
        stage.give(depart(Departure::Close(session()))).pass_ms(8000);
        let close = ClientMessage::Close { session: session() };
        assert_eq!(stage.sent(), [(&HubRef::Default, &close)]);
        let mut guest = Stage::joined(MESH, vec![member("a")]);
        guest.give(depart(Departure::Close(session())));
        assert_eq!(guest.failures().len(), 1, "only the owner closes");
        let mut stage = live();
        stage.give(depart(Departure::LeaveAll)).pass_ms(7999);
        assert_eq!(stage.sent(), []);
        assert_eq!(stage.pass_ms(1).sent(), [(&HubRef::Default, &goodbye())]);
    }

    #[test]
    fn what_happens_meanwhile_is_there_when_it_is_undone() {
        let mut stage = live();
        stage.give(leave()).down(&HubRef::Default).up(&HubRef::Default);
        stage.hear(opened(MESH, vec![member("a"), member("b")]));
        stage.hear(left("a", LeaveReason::Left)).give(Input::Command(Command::Undo));
        assert_eq!(stage.shown("a"), None);
        assert_eq!(stage.shown("b"), Some(ParticipantState::Connecting));
        stage.give(leave());
        stage.hear(HubMessage::Closed { session: session(), reason: CloseReason::Ejected });
        stage.give(Input::Command(Command::Undo));
        let reason = EndReason::Ejected;
        assert_eq!(stage.status().state, SessionState::Ended { reason });
    }
}
