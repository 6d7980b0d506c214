//! The priority of a session, which the user may raise.

use crate::{
    conference::{Effect, Input, tests::fixture::*},
    model::{Command, SessionFailure, SessionId},
};

fn set(session: SessionId, raised: bool) -> Input {
    Input::Command(Command::SetPriority { session, raised })
}

#[test]
fn the_user_raises_a_session_that_was_requested() {
    let mut fixture = Fixture::opened(MESH);
    assert_eq!(fixture.core.priority_of_session(&session()), Some((MESH, false)));
    fixture.handle(set(session(), true));
    assert_eq!(fixture.effects, [Effect::SetPriority { session: session() }]);
    assert!(fixture.status().is_raised);
    assert_eq!(fixture.core.priority_of_session(&session()), Some((MESH, true)));
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
