//! The priority of a session, which the user may raise.

use crate::{
    conference::{Effect, Input, SessionPriority, tests::fixture::*},
    model::{ActiveSpeaker, Command, SessionFailure, SessionId},
};

/// Whether the user has raised the session, and whether it is spoken in.
fn priority(fixture: &Fixture) -> (bool, bool) {
    let priority = fixture.core.priority_of_session(&session()).expect("it was joined");
    let SessionPriority { kind, is_raised, is_spoken_in } = priority;
    assert_eq!(kind, MESH);
    (is_raised, is_spoken_in)
}

fn set(session: SessionId, raised: bool) -> Input {
    Input::Command(Command::SetPriority { session, raised })
}

#[test]
fn the_user_raises_a_session_that_was_requested() {
    let mut fixture = Fixture::opened(MESH);
    assert_eq!(priority(&fixture), (false, false));
    fixture.handle(set(session(), true));
    assert_eq!(fixture.effects, [Effect::SetPriority { session: session() }]);
    assert!(fixture.status().is_raised);
    assert_eq!(priority(&fixture), (true, false));
    fixture.handle(set(session(), false));
    assert!(!fixture.status().is_raised);
}

#[test]
fn a_session_that_is_not_there_cannot_be_raised() {
    let mut fixture = Fixture::opened(MESH);
    let another = SessionId::parse("another").unwrap();
    fixture.handle(set(another.clone(), true));
    assert_eq!(fixture.failures(), [&SessionFailure::NotInSession.of(&another)]);
}

#[test]
fn the_session_in_which_the_user_spoke_last_comes_first_until_the_user_speaks_in_another() {
    let mut fixture = Fixture::opened(MESH);
    let speaks = |speaker| Input::ActiveSpeaker(session(), speaker);
    let is_told =
        |fixture: &Fixture| fixture.effects.contains(&Effect::SetPriority { session: session() });
    fixture.handle(speaks(Some(ActiveSpeaker::Own)));
    assert!(is_told(&fixture) && priority(&fixture).1);
    fixture.handle(speaks(None));
    assert!(!is_told(&fixture) && priority(&fixture).1, "a pause changes nothing");
    fixture.handle(speaks(Some(ActiveSpeaker::Own)));
    assert!(!is_told(&fixture));
}
