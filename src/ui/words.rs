//! What the window calls things.

use std::collections::BTreeSet;

use crate::model::{
    EndReason, ErrorCode, FailureCode, Media, MediaSet, MediaTime, ParticipantState,
    ParticipantStatus, Role, SessionId, SessionKind, SessionState, SessionStatus, Snapshot,
    Topology,
};

/// The window's title: it is seen where the window itself is not.
pub(crate) fn title(snapshot: &Snapshot) -> &'static str {
    let is_on_air = snapshot.sessions.iter().any(|session| session.heard || session.seen);
    if is_on_air { "Quintet · on air" } else { "Quintet" }
}

/// A kind of session in words: "A/V conference", "Audio one-to-one".
pub(crate) fn kind(kind: SessionKind) -> String {
    format!("{} {}", media(kind.media), topology(kind.topology))
}

/// A session in a sentence: its kind and enough of its id to tell it from another of the kind.
pub(crate) fn session(of: Option<SessionKind>, id: &SessionId) -> String {
    let id = elide_middle(id.as_str(), 24);
    of.map_or_else(|| format!("session {id}"), |of| format!("{} {id}", kind(of)))
}

/// A set of media in words.
pub(crate) fn media(set: MediaSet) -> String {
    let base = match (set.has(Media::Audio), set.has(Media::Video)) {
        (true, true) => "A/V",
        (true, false) => "Audio",
        (false, true) => "Video",
        (false, false) => return "Chat".to_owned(),
    };
    if set.has(Media::Data) { format!("{base} + chat") } else { base.to_owned() }
}

/// A direction in words.
pub(crate) const fn topology(topology: Topology) -> &'static str {
    match topology {
        Topology::OneWay => "broadcast",
        Topology::OneToOne => "one-to-one",
        Topology::OneToMany => "one-to-many",
        Topology::ManyToMany => "conference",
    }
}

/// What a direction means, for the one who chooses it.
pub(crate) const fn topology_meaning(topology: Topology) -> &'static str {
    match topology {
        Topology::OneWay => "You send; viewers send nothing and do not see each other.",
        Topology::OneToOne => "You and one guest.",
        Topology::OneToMany => "Guests talk with you, not with each other.",
        Topology::ManyToMany => "Everybody with everybody.",
    }
}

/// A session's state at that time in words.
pub(crate) fn state(session: &SessionStatus, now: MediaTime) -> String {
    match &session.state {
        SessionState::Connecting => match session.role {
            Role::Opener => "opening…".to_owned(),
            Role::Guest => "connecting…".to_owned(),
        },
        SessionState::Waiting => "waiting for the opener".to_owned(),
        SessionState::Live => match session.role {
            Role::Opener => "live".to_owned(),
            Role::Guest => "joined".to_owned(),
        },
        SessionState::Reconnecting { since } => {
            format!("hub lost, reconnecting ({})", span(*since, now))
        }
        SessionState::Ended { reason } => end(*reason).to_owned(),
        SessionState::Failed(failure) => refusal(failure.code).to_owned(),
    }
}

/// Where a session is awaited that is not open, and what else to do.
pub(crate) fn awaited(session: &SessionStatus) -> String {
    match &session.link {
        Some(link) => format!("Not open at {}. Check the link, or wait.", link.hub),
        None => "No hub in reach has it. If it lives elsewhere, paste its link.".to_owned(),
    }
}

/// Why a session is over.
pub(crate) const fn end(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Left => "you left",
        EndReason::OpenerLeft => "ended: the opener left",
        EndReason::OpenerLost => "ended: the opener was lost",
        EndReason::Closed => "ended by the opener",
        EndReason::Ejected => "the opener sent you out",
        EndReason::Replaced => "taken over by another program of yours",
        EndReason::Failed => "could not be joined",
    }
}

/// Why a session did not come about, in a word or two; the failure's message says it all.
const fn refusal(code: FailureCode) -> &'static str {
    match code {
        FailureCode::Hub(ErrorCode::NoSuchSession) => "no such session",
        FailureCode::Hub(ErrorCode::IdTaken) => "id taken",
        FailureCode::Hub(ErrorCode::SessionFull) => "full",
        FailureCode::Hub(ErrorCode::NotAllowed) => "not allowed",
        FailureCode::Hub(ErrorCode::BadMessage | ErrorCode::Unsupported) => "not understood",
        FailureCode::Hub(ErrorCode::TooMany) => "hub busy",
        FailureCode::HubUnreachable => "hub unreachable",
        FailureCode::AlreadyHere => "already here",
        FailureCode::Device(_) | FailureCode::Connection | FailureCode::Chat => "failed",
    }
}

/// A participant's state at that time in words.
pub(crate) fn participant(person: &ParticipantStatus, now: MediaTime) -> String {
    match person.state {
        ParticipantState::Connecting if person.peer.is_none() && person.left_out.is_some() => {
            "cannot take part".to_owned()
        }
        ParticipantState::Connecting => "connecting".to_owned(),
        ParticipantState::Live => match person.left_out {
            Some(media) => format!("live, without {media}"),
            None => "live".to_owned(),
        },
        ParticipantState::Reconnecting => format!("reconnecting ({})", span(person.since, now)),
        ParticipantState::Gone => "gone, seat kept".to_owned(),
        ParticipantState::Left => "left".to_owned(),
    }
}

/// How long something lasts: "4 s", "3 min".
fn span(since: MediaTime, now: MediaTime) -> String {
    match now.since(since).as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

/// Whether the session can still do something.
pub(crate) const fn is_over(state: &SessionState) -> bool {
    matches!(state, SessionState::Ended { .. } | SessionState::Failed(_))
}

/// How many of the session's participants are there now, ourselves not counted.
pub(crate) fn present(session: &SessionStatus) -> usize {
    here(session).count()
}

/// How many people are in all of the sessions, each counted once, ourselves not counted.
pub(crate) fn people(snapshot: &Snapshot) -> usize {
    let all = snapshot.sessions.iter().flat_map(here);
    all.map(|person| &person.participant).collect::<BTreeSet<_>>().len()
}

fn here(session: &SessionStatus) -> impl Iterator<Item = &ParticipantStatus> {
    let is_here = |state| matches!(state, ParticipantState::Live | ParticipantState::Reconnecting);
    session.participants.iter().filter(move |participant| is_here(participant.state))
}

/// What an error says, with a capital and a full stop; an address at its start stays as it is.
pub(crate) fn sentence(text: &str) -> String {
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let is_word = text.split(' ').next().is_some_and(|word| word.chars().all(char::is_alphabetic));
    let first = if is_word { first.to_uppercase() } else { first.to_owned() };
    let stop = if text.ends_with('.') { "" } else { "." };
    format!("{first}{rest}{stop}")
}

/// The first letters of a name's first two words, for a tile without a picture.
pub(crate) fn initials(name: &str) -> String {
    let letters = name.split_whitespace().filter_map(|word| word.chars().next()).take(2);
    let initials: String = letters.flat_map(char::to_uppercase).collect();
    if initials.is_empty() { "?".to_owned() } else { initials }
}

/// The first words of a text that may have many lines, at most `most` characters.
pub(crate) fn first_words(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    let start: String = line.chars().take(most.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}

/// The text with its middle replaced by an ellipsis so that it has at most `most` characters.
pub(crate) fn elide_middle(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(1).max(2);
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_five_kinds_have_the_names_of_the_page() {
        assert_eq!(
            SessionKind::FIVE.map(kind),
            [
                "A/V conference",
                "A/V broadcast",
                "Audio conference",
                "Audio broadcast",
                "Video broadcast"
            ]
        );
        let chat = SessionKind { media: MediaSet::DATA, topology: Topology::OneToOne };
        assert_eq!(kind(chat), "Chat one-to-one");
    }

    #[test]
    fn an_id_is_elided_in_its_middle_and_never_longer_than_asked() {
        assert_eq!(elide_middle("7h3k-q2m9-x4tz-p8wd", 19), "7h3k-q2m9-x4tz-p8wd");
        assert_eq!(elide_middle("7h3k-q2m9-x4tz-p8wd", 11), "7h3k-…-p8wd");
        assert_eq!(elide_middle("ÄÖÜäöüß", 5), "ÄÖ…üß");
        assert!((3..30).all(|most| elide_middle(&"x".repeat(64), most).chars().count() <= most));
    }

    #[test]
    fn the_first_words_of_a_text_are_one_short_line() {
        assert_eq!(first_words(" hello\n\nAda ", 20), "hello Ada");
        assert_eq!(first_words("one two three", 9), "one two…");
        assert_eq!(first_words(&"ä".repeat(50), 40).chars().count(), 40);
    }

    #[test]
    fn an_error_becomes_a_sentence_and_an_address_stays_one() {
        assert_eq!(sentence("there is no camera; connect one"), "There is no camera; connect one.");
        assert_eq!(sentence("\"x\" is not a link."), "\"x\" is not a link.");
        assert_eq!(sentence("http://hub:7340 says: no"), "http://hub:7340 says: no.");
        assert_eq!(sentence("über"), "Über.");
    }

    #[test]
    fn initials_are_those_of_the_first_two_words() {
        assert_eq!(initials("Ada King Lovelace"), "AK");
        assert_eq!(initials("guest 3"), "G3");
        assert_eq!(initials("  "), "?");
    }
}
