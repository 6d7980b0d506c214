//! The deadlines of the core, and their names.

use std::fmt;

use crate::model::{MediaTime, ParticipantId, SessionId};

/// A time at which the core wants to be called, and the timer that runs out then. Deadlines are
/// ordered by time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Deadline<'a> {
    /// When the timer runs out, on the engine's clock.
    pub at: MediaTime,
    /// The timer.
    pub timer: Timer<'a>,
}

/// A timer of the core. It borrows its ids, so that asking for a deadline costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Timer<'a> {
    /// What it waits for.
    pub name: TimerName,
    /// The session that it belongs to, if it belongs to one.
    pub session: Option<&'a SessionId>,
    /// The participant that it belongs to, if it belongs to one.
    pub participant: Option<&'a ParticipantId>,
}

/// What a timer of the core waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum TimerName {
    /// A pending departure becomes final.
    Departure,
    /// A source that is not used any more is closed.
    SourceLinger,
    /// A hub that is not used any more is disconnected.
    HubLinger,
    /// A busy hub is asked for a session again.
    LookupRetry,
    /// A session that lost its opener is opened again from here.
    Reopen,
    /// A busy hub is asked for our seat again.
    SeatRetry,
    /// What we send is signalled again, because the hub may have dropped earlier signals.
    MediaResend,
    /// An ejected participant may join again.
    EjectionEnd,
    /// A peer connection to a participant is opened.
    Connect,
    /// A new peer connection has not connected, and is given up.
    ConnectTimeout,
    /// The remote peer has not answered an offer, which is made again.
    AnswerTimeout,
    /// No packets arrive: new network paths are looked for.
    IceRestart,
    /// No packets have arrived for so long that the peer connection is given up.
    SilenceTimeout,
    /// The user is told that there is no connection to a participant.
    FailureReport,
    /// The state of a participant changes.
    ParticipantState,
    /// A participant that is gone is removed, while the hub cannot be reached.
    SeatExpiry,
}

impl TimerName {
    /// The name as it is logged and traced, `ice-restart`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Departure => "departure",
            Self::SourceLinger => "source-linger",
            Self::HubLinger => "hub-linger",
            Self::LookupRetry => "lookup-retry",
            Self::Reopen => "reopen",
            Self::SeatRetry => "seat-retry",
            Self::MediaResend => "media-resend",
            Self::EjectionEnd => "ejection-end",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect-timeout",
            Self::AnswerTimeout => "answer-timeout",
            Self::IceRestart => "ice-restart",
            Self::SilenceTimeout => "silence-timeout",
            Self::FailureReport => "failure-report",
            Self::ParticipantState => "participant-state",
            Self::SeatExpiry => "seat-expiry",
        }
    }

    /// The deadline of a timer of that name, of no session yet.
    pub(super) const fn at<'a>(self, at: MediaTime) -> Deadline<'a> {
        Deadline { at, timer: Timer { name: self, session: None, participant: None } }
    }
}

impl<'a> Deadline<'a> {
    /// The same deadline, of a timer of that session.
    pub(super) const fn of_session(self, session: &'a SessionId) -> Self {
        Self { timer: Timer { session: Some(session), ..self.timer }, ..self }
    }

    /// The same deadline, of a timer of that participant.
    pub(super) const fn of_participant(self, participant: &'a ParticipantId) -> Self {
        Self { timer: Timer { participant: Some(participant), ..self.timer }, ..self }
    }
}

impl fmt::Display for Timer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.name())?;
        if let Some(session) = self.session {
            write!(f, " of session {session}")?;
        }
        match self.participant {
            Some(participant) => write!(f, " for participant {participant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::*;
    use crate::model::PeerState;

    /// Calls the core at its next deadline. Returns what the timer was.
    fn run_out(fixture: &mut Fixture) -> Option<String> {
        let next = fixture.core.poll_timeout()?;
        let (at, timer) = (next.at, next.timer.to_string());
        fixture.advance(at.since(fixture.now));
        Some(timer)
    }

    #[test]
    fn each_deadline_names_its_timer_and_what_it_belongs_to() {
        let mut fixture = Fixture::opened(MESH);
        assert_eq!(fixture.core.poll_timeout(), None);
        fixture.receive(participant_joined(member("a")));
        fixture.receive(signal("a", offer(1)));
        fixture.peer_state(1, PeerState::Connected);
        fixture.peer_state(1, PeerState::Disconnected);
        let names: Vec<_> = std::iter::from_fn(|| run_out(&mut fixture)).take(5).collect();
        assert_eq!(
            names,
            [
                "participant-state of session s for participant a",
                "ice-restart of session s for participant a",
                "silence-timeout of session s for participant a",
                "connect of session s for participant a",
                "source-linger",
            ]
        );
    }
}
