//! The commands on standard input (`--commands`), for session owners without a window.

use crate::model::{Command, ParticipantId, Role, SessionId, SessionStatus, Snapshot};

/// The syntax of the commands, for error messages.
const USAGE: &str = "commands are: eject PERSON [in SESSION] [--address], allow PERSON [in SESSION], \
                     lock [SESSION], unlock [SESSION]; PERSON is a name or a participant's id";

/// Parses a line into a command about our own sessions in the snapshot `now`.
///
/// # Errors
/// Returns a sentence for the user that says what is wrong with the line.
pub(super) fn parse_command(line: &str, now: &Snapshot) -> Result<Command, String> {
    let (verb, argument) = line.trim().split_once(char::is_whitespace).unwrap_or((line.trim(), ""));
    let argument = argument.trim();
    match verb {
        "eject" => {
            let (person_text, address) = match argument.strip_suffix("--address") {
                Some(person_text) => (person_text.trim_end(), true),
                None => (argument, false),
            };
            let (session, participant) = find_participant(person_text, now, |session| {
                let participants = session.participants.iter();
                participants.map(|one| (one.participant.clone(), one.name.clone())).collect()
            })?;
            Ok(Command::Eject { session, participant, address })
        }
        "allow" => {
            let (session, participant) = find_participant(argument, now, |session| {
                let ejected = session.removed.iter();
                ejected.map(|one| (one.participant.clone(), one.name.clone())).collect()
            })?;
            Ok(Command::Allow { session, participant })
        }
        "lock" | "unlock" => {
            let id = if argument.is_empty() { None } else { Some(argument) };
            let sessions = own_sessions(now, id).map(|one| one.session.clone()).collect();
            let session = exactly_one(sessions, argument)?;
            Ok(Command::Lock { session, locked: verb == "lock" })
        }
        _ => Err(format!("{verb:?} is not a command; {USAGE}")),
    }
}

/// Returns our own sessions; if `id` is given, only the one with that id.
fn own_sessions<'a>(
    now: &'a Snapshot,
    id: Option<&'a str>,
) -> impl Iterator<Item = &'a SessionStatus> + 'a {
    let matches = move |one: &&SessionStatus| {
        one.role == Role::Opener && id.is_none_or(|id| one.session.as_str() == id)
    };
    now.sessions.iter().map(|one| &**one).filter(matches)
}

/// Returns the participant that `PERSON` or `PERSON in SESSION` names, with its session.
/// `candidates` returns the ids and names to choose from in a session.
fn find_participant(
    text: &str,
    now: &Snapshot,
    candidates: impl Fn(&SessionStatus) -> Vec<(ParticipantId, String)>,
) -> Result<(SessionId, ParticipantId), String> {
    if text.is_empty() {
        return Err(format!("PERSON is missing; {USAGE}"));
    }
    let find = |person: &str, session_id| {
        let mut found = vec![];
        for session in own_sessions(now, session_id) {
            let matches =
                |(id, name): &(ParticipantId, String)| id.as_str() == person || name == person;
            let matching = candidates(session).into_iter().filter(matches);
            found.extend(matching.map(|(id, _)| (session.session.clone(), id)));
        }
        found
    };
    let in_all = find(text, None);
    let in_one = text.rsplit_once(" in ").map(|(person, id)| find(person, Some(id)));
    exactly_one(if in_all.is_empty() { in_one.unwrap_or_default() } else { in_all }, text)
}

/// Returns the only match, or an error if there is none or more than one.
fn exactly_one<T>(mut found: Vec<T>, text: &str) -> Result<T, String> {
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => Err(format!("{text:?} is not in a session of ours; {USAGE}")),
        (Some(_), false) => Err(format!(
            "{text:?} matches several; name the session, or the person by the id that `--json` \
             shows; {USAGE}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RemovedParticipant, SessionKind, fixtures};

    fn id(number: u8) -> ParticipantId {
        ParticipantId::from_digest([number; 10])
    }

    fn session(name: &str, role: Role, participants: &[(u8, &str)]) -> SessionStatus {
        let mut session =
            fixtures::session_status(name, SessionKind::FIVE[0], role, participants.len());
        for (one, (number, name)) in session.participants.iter_mut().zip(participants) {
            (one.participant, one.name) = (id(*number), (*name).to_owned());
        }
        session.removed = vec![RemovedParticipant { participant: id(9), name: "Eve".into() }];
        session
    }

    fn parsed(line: &str) -> Result<Command, String> {
        let sessions = vec![
            session("a", Role::Opener, &[(1, "Ann"), (2, "Bob in b")]),
            session("b", Role::Opener, &[(1, "Ann"), (3, "Cleo Lee")]),
            session("theirs", Role::Guest, &[(4, "Dan")]),
        ];
        parse_command(line, &fixtures::snapshot_of(sessions))
    }

    fn eject(session: &str, participant: u8, address: bool) -> Result<Command, String> {
        let session = SessionId::parse(session).unwrap();
        Ok(Command::Eject { session, participant: id(participant), address })
    }

    #[test]
    fn a_participant_is_found_by_name_or_id_and_by_session_if_several_match() {
        assert_eq!(parsed("eject Cleo Lee"), eject("b", 3, false));
        assert_eq!(parsed(" eject  Cleo Lee --address "), eject("b", 3, true));
        assert_eq!(parsed("eject Ann in b --address"), eject("b", 1, true));
        assert_eq!(parsed("eject Bob in b"), eject("a", 2, false), "a name may contain ' in '");
        assert_eq!(parsed(&format!("eject {}", id(3))), eject("b", 3, false));
        assert!(parsed("eject Ann").unwrap_err().contains("several"));
        for wrong in ["eject", "eject Zoe", "eject Ann in c", "eject Dan", "eject Dan in theirs"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_ejected_participant_is_allowed_again_and_sessions_are_locked() {
        let (session, participant) = (SessionId::parse("b").unwrap(), id(9));
        let allow = Command::Allow { session: session.clone(), participant };
        assert_eq!(parsed("allow Eve in b"), Ok(allow));
        assert!(parsed("allow Ann in b").is_err(), "she was not ejected");
        let lock = |locked| Ok(Command::Lock { session: session.clone(), locked });
        assert_eq!((parsed("lock b"), parsed("unlock b")), (lock(true), lock(false)));
        assert!(parsed("lock").unwrap_err().contains("several"));
        assert!(parsed("lock theirs").is_err() && parsed("dance").unwrap_err().contains("eject"));
    }
}
