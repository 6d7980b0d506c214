//! The state that the panels draw, and the time at which it is drawn.

use std::time::Duration;

use super::{colours::SessionColours, settings::Settings, statistics::TileFigures};
use crate::model::{
    MediaTime, ParticipantState, PerDevice, QualityMonitor, SessionState, Snapshot,
};

/// The state that the panels draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ViewState<'a> {
    /// The engine's snapshot.
    pub(crate) snapshot: &'a Snapshot,
    /// The sessions' colours.
    pub(crate) colours: &'a SessionColours,
    /// How good the media of each participant are.
    pub(crate) call_quality: &'a QualityMonitor,
    /// The figures on the tiles.
    pub(crate) tile_figures: &'a TileFigures,
    /// The user's settings.
    pub(crate) settings: &'a Settings,
    /// The time, on the engine's clock. Durations are shown relative to it.
    pub(crate) now: MediaTime,
    /// Whether the system has no device of a kind.
    pub(crate) missing_devices: PerDevice<bool>,
    /// The offer to resume the sessions of an earlier window.
    pub(crate) resume_offer: Option<&'a str>,
    /// The engine's command queue is full, so the controls are disabled.
    pub(crate) is_busy: bool,
}

/// How long the texts with seconds stay correct. `None` if there are none.
pub(crate) fn until_next_second(snapshot: &Snapshot, now: MediaTime) -> Option<Duration> {
    let durations = snapshot.sessions.iter().flat_map(|session| {
        let hub = match session.state {
            SessionState::Reconnecting { since } | SessionState::HostLost { since } => Some(since),
            SessionState::Connecting
            | SessionState::Unreachable { .. }
            | SessionState::Waiting
            | SessionState::Live
            | SessionState::Ended { .. }
            | SessionState::Failed(_) => None,
        };
        let participants = session.participants.iter();
        let reconnecting = participants.filter(|one| one.state == ParticipantState::Reconnecting);
        hub.into_iter().chain(reconnecting.map(|one| one.since))
    });
    let durations =
        durations.map(|since| SECOND - Duration::from_nanos(nanos_into_second(since, now)));
    // The undo button shows the remaining seconds.
    let undo = snapshot.departure.iter().map(|departure| {
        let nanos = u64::from(departure.until.since(now).subsec_nanos());
        if nanos == 0 { SECOND } else { Duration::from_nanos(nanos) }
    });
    durations.chain(undo).min()
}

const SECOND: Duration = Duration::from_secs(1);

fn nanos_into_second(since: MediaTime, now: MediaTime) -> u64 {
    u64::from(now.since(since).subsec_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::fixtures::{session_status, snapshot_of},
        model::{DepartureStatus, Role, SessionKind},
    };

    #[test]
    fn the_window_repaints_for_the_next_second_and_not_without_a_running_duration() {
        let mut one = session_status("s", SessionKind::FIVE[0], Role::Guest, 2);
        let at = |ms: u64| MediaTime::from_micros(ms * 1000);
        assert_eq!(until_next_second(&snapshot_of(vec![one.clone()]), at(0)), None);
        one.participants[1].state = ParticipantState::Reconnecting;
        one.participants[1].since = at(500);
        let wait = until_next_second(&snapshot_of(vec![one.clone()]), at(3_700));
        assert_eq!(wait, Some(Duration::from_millis(800)));
        one.state = SessionState::Reconnecting { since: at(900) };
        let wait = until_next_second(&snapshot_of(vec![one.clone()]), at(3_700));
        assert_eq!(wait, Some(Duration::from_millis(200)));
        let departure =
            DepartureStatus { sessions: vec![one.into()], closes: false, until: at(8_100) };
        let departed = Snapshot { departure: Some(departure), ..Snapshot::default() };
        assert_eq!(until_next_second(&departed, at(3_700)), Some(Duration::from_millis(400)));
    }
}
