//! What is drawn: how everything is, and when that was.

use std::time::Duration;

use super::{colours::Colours, devices::DeviceKind, settings::Settings};
use crate::model::{MediaTime, ParticipantState, SessionState, Snapshot};

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    /// How everything is.
    pub(crate) snapshot: &'a Snapshot,
    /// The sessions' colours.
    pub(crate) colours: &'a Colours,
    /// What the person has chosen.
    pub(crate) settings: &'a Settings,
    /// The time, on the engine's clock: what lasts is said in seconds.
    pub(crate) now: MediaTime,
    /// Whether the system has no device of a kind, in the order of [`DeviceKind::ALL`].
    pub(crate) missing: [bool; DeviceKind::ALL.len()],
    /// What a window that crashed had, as it is offered.
    pub(crate) left_behind: Option<&'a str>,
    /// The engine's queue is full, so nothing can be asked for now.
    pub(crate) busy: bool,
}

/// How long the words stay true that tell seconds; `None` if none are told.
pub(crate) fn until_next_second(snapshot: &Snapshot, now: MediaTime) -> Option<Duration> {
    let lasting = snapshot.sessions.iter().flat_map(|session| {
        let hub = match session.state {
            SessionState::Reconnecting { since } | SessionState::HostLost { since } => Some(since),
            SessionState::Connecting
            | SessionState::Unreachable { .. }
            | SessionState::Waiting
            | SessionState::Live
            | SessionState::Ended { .. }
            | SessionState::Failed(_) => None,
        };
        let people = session.participants.iter();
        let silent = people.filter(|one| one.state == ParticipantState::Reconnecting);
        hub.into_iter().chain(silent.map(|one| one.since))
    });
    let lasting = lasting.map(|since| SECOND - Duration::from_nanos(nanos_into_second(since, now)));
    // What is left of the time to undo something is said too.
    let left = snapshot.departure.iter().map(|departure| {
        let nanos = u64::from(departure.until.since(now).subsec_nanos());
        if nanos == 0 { SECOND } else { Duration::from_nanos(nanos) }
    });
    lasting.chain(left).min()
}

const SECOND: Duration = Duration::from_secs(1);

fn nanos_into_second(since: MediaTime, now: MediaTime) -> u64 {
    u64::from(now.since(since).subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::staged::{session, with},
        model::{DepartureStatus, Role, SessionKind},
    };

    #[test]
    fn the_window_wakes_when_the_next_second_is_to_be_shown_and_never_without_one() {
        let mut one = session("s", SessionKind::FIVE[0], Role::Guest, 2);
        let at = |ms: u64| MediaTime::from_micros(ms * 1000);
        assert_eq!(until_next_second(&with(vec![one.clone()]), at(0)), None);
        one.participants[1].state = ParticipantState::Reconnecting;
        one.participants[1].since = at(500);
        let wait = until_next_second(&with(vec![one.clone()]), at(3_700));
        assert_eq!(wait, Some(Duration::from_millis(800)));
        one.state = SessionState::Reconnecting { since: at(900) };
        let wait = until_next_second(&with(vec![one.clone()]), at(3_700));
        assert_eq!(wait, Some(Duration::from_millis(200)));
        let departure = DepartureStatus { sessions: vec![one], closes: false, until: at(8_100) };
        let departed = Snapshot { departure: Some(departure), ..Snapshot::default() };
        assert_eq!(until_next_second(&departed, at(3_700)), Some(Duration::from_millis(400)));
    }
}
