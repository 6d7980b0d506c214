//! What the lines of standard input command (`--commands`): for hosts without a window.

use crate::model::{Command, ParticipantId, Role, SessionId, SessionStatus, Snapshot};

/// How commands are written, for whoever wrote something else.
const USAGE: &str = "commands are: eject PERSON [in SESSION] [--address], allow PERSON [in SESSION], \
                     lock [SESSION], unlock [SESSION]; PERSON is a name or a participant's id";

/// The command in a line, about our own sessions as they are now.
///
/// # Errors
/// What is wrong with it, for a person.
pub(super) fn command(line: &str, now: &Snapshot) -> Result<Command, String> {
    let (verb, rest) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let rest = rest.trim();
    match verb {
        "eject" => {
            let (rest, address) = match rest.strip_suffix("--address") {
                Some(rest) => (rest.trim_end(), true),
                None => (rest, false),
            };
            let (session, participant) = person(rest, now, |session| {
                let people = session.participants.iter();
                people.map(|one| (one.participant.clone(), one.name.clone())).collect()
            })?;
            Ok(Command::Eject { session, participant, address })
        }
        "allow" => {
            let (session, participant) = person(rest, now, |session| {
                let people = session.removed.iter();
                people.map(|one| (one.participant.clone(), one.name.clone())).collect()
            })?;
            Ok(Command::Allow { session, participant })
        }
        "lock" | "unlock" => {
            let named = if rest.is_empty() { None } else { Some(rest) };
            let session = the_one(own(now, named).map(|one| one.session.clone()).collect(), rest)?;
            Ok(Command::Lock { session, locked: verb == "lock" })
        }
        _ => Err(format!("{verb:?} is no command; {USAGE}")),
    }
}

/// Our own sessions, or the one of that id.
fn own<'a>(
    now: &'a Snapshot,
    named: Option<&'a str>,
) -> impl Iterator<Item = &'a SessionStatus> + 'a {
    let is_meant = move |one: &&SessionStatus| {
        one.role == Role::Opener && named.is_none_or(|named| one.session.as_str() == named)
    };
    now.sessions.iter().filter(is_meant)
}

/// The person who is meant by `PERSON` or `PERSON in SESSION`, among those of each session.
fn person(
    text: &str,
    now: &Snapshot,
    people: impl Fn(&SessionStatus) -> Vec<(ParticipantId, String)>,
) -> Result<(SessionId, ParticipantId), String> {
    if text.is_empty() {
        return Err(format!("who is meant? {USAGE}"));
    }
    let found = |whom: &str, named| {
        let mut found = vec![];
        for session in own(now, named) {
            let is_meant =
                |(id, name): &(ParticipantId, String)| id.as_str() == whom || name == whom;
            let meant = people(session).into_iter().filter(is_meant);
            found.extend(meant.map(|(id, _)| (session.session.clone(), id)));
        }
        found
    };
    let everywhere = found(text, None);
    let narrowed = text.rsplit_once(" in ").map(|(whom, named)| found(whom, Some(named)));
    the_one(if everywhere.is_empty() { narrowed.unwrap_or_default() } else { everywhere }, text)
}

/// The only one that is meant.
fn the_one<T>(mut found: Vec<T>, text: &str) -> Result<T, String> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(format!("{text:?} is not in a session of ours; {USAGE}")),
        (Some(_), false) => Err(format!(
            "{text:?} may mean several; name the session, or the person by the id that \
             `--json` shows; {USAGE}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RemovedPerson, SessionKind, staged};

    fn id(number: u8) -> ParticipantId {
        ParticipantId::from_digest([number; 10])
    }

    fn session(name: &str, role: Role, people: &[(u8, &str)]) -> SessionStatus {
        let mut session = staged::session(name, SessionKind::FIVE[0], role, people.len());
        for (person, (number, name)) in session.participants.iter_mut().zip(people) {
            (person.participant, person.name) = (id(*number), (*name).to_owned());
        }
        session.removed = vec![RemovedPerson { participant: id(9), name: "Eve".into() }];
        session
    }

    fn said(line: &str) -> Result<Command, String> {
        let sessions = vec![
            session("a", Role::Opener, &[(1, "Ann"), (2, "Bob in b")]),
            session("b", Role::Opener, &[(1, "Ann"), (3, "Cleo Lee")]),
            session("theirs", Role::Guest, &[(4, "Dan")]),
        ];
        command(line, &Snapshot { sessions, ..Snapshot::default() })
    }

    fn eject(session: &str, who: u8, address: bool) -> Result<Command, String> {
        let session = SessionId::parse(session).unwrap();
        Ok(Command::Eject { session, participant: id(who), address })
    }

    #[test]
    fn a_person_is_meant_by_name_or_id_and_by_session_where_there_are_several() {
        assert_eq!(said("eject Cleo Lee"), eject("b", 3, false));
        assert_eq!(said(" eject  Cleo Lee --address "), eject("b", 3, true));
        assert_eq!(said("eject Ann in b --address"), eject("b", 1, true));
        assert_eq!(said("eject Bob in b"), eject("a", 2, false), "a name may look so");
        assert_eq!(said(&format!("eject {}", id(3))), eject("b", 3, false));
        assert!(said("eject Ann").unwrap_err().contains("several"));
        for nobody in ["eject", "eject Zoe", "eject Ann in c", "eject Dan", "eject Dan in theirs"] {
            assert!(said(nobody).is_err(), "{nobody}");
        }
    }

    #[test]
    fn who_was_sent_out_is_let_in_again_and_sessions_are_locked() {
        let (session, participant) = (SessionId::parse("b").unwrap(), id(9));
        let allow = Command::Allow { session: session.clone(), participant };
        assert_eq!(said("allow Eve in b"), Ok(allow));
        assert!(said("allow Ann in b").is_err(), "she is not kept out");
        let lock = |locked| Ok(Command::Lock { session: session.clone(), locked });
        assert_eq!((said("lock b"), said("unlock b")), (lock(true), lock(false)));
        assert!(said("lock").unwrap_err().contains("several"));
        assert!(said("lock theirs").is_err() && said("dance").unwrap_err().contains("eject"));
    }
}
