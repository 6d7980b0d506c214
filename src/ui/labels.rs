//! The texts of the window: names of sessions, states and errors.

use std::collections::BTreeSet;

use super::bidi;
use crate::model::{
    CallQuality, DataUse, DepartureStatus, EndReason, ErrorCode, FailureCode, HUB_PORT,
    HubEndpoint, HubOwner, HubUrl, LinkError, Media, MediaTime, ParticipantState,
    ParticipantStatus, QualityCause, QualityProblem, Role, SessionId, SessionKind, SessionState,
    SessionStatus, Snapshot, Topology,
};

/// The window's title. It is visible where the window itself is not, such as in a task bar.
pub(crate) fn title(snapshot: &Snapshot) -> &'static str {
    let is_on_air = snapshot.sessions.iter().any(|session| session.sending.any());
    if is_on_air { "Quintet · On air" } else { "Quintet" }
}

/// The name of a kind of session: "Conference", "Audio broadcast", "Private line".
pub(crate) fn kind(kind: SessionKind) -> String {
    let name = topology(kind.topology);
    match (kind.media.has(Media::Audio), kind.media.has(Media::Video)) {
        (true, true) => name.to_owned(),
        (true, false) => format!("Audio {}", name.to_lowercase()),
        (false, true) => format!("Video {}", name.to_lowercase()),
        (false, false) => chat_name(kind.topology).to_owned(),
    }
}

/// The name of a session: its kind, followed by its id if another session has the same kind.
pub(crate) fn session_name(snapshot: &Snapshot, session: &SessionId) -> String {
    let found = snapshot.sessions.iter().find(|one| one.session == *session);
    let found_kind = found.and_then(|one| one.kind);
    let is_alone = snapshot.sessions.iter().filter(|one| one.kind == found_kind).count() == 1;
    let id = elide_middle(session.as_str(), 24);
    match found_kind {
        Some(found_kind) if is_alone => kind(found_kind),
        Some(found_kind) => format!("{} {id}", kind(found_kind)),
        None => format!("Session {id}"),
    }
}

/// The name within a sentence: "the conference", "session town-hall".
pub(crate) fn session_name_in_sentence(snapshot: &Snapshot, session: &SessionId) -> String {
    let name = session_name(snapshot, session);
    let (first, remainder) = name.split_at(name.chars().next().map_or(0, char::len_utf8));
    let name = format!("{}{remainder}", first.to_lowercase());
    let has_id = name.ends_with(&elide_middle(session.as_str(), 24));
    if has_id { name } else { format!("the {name}") }
}

/// The name of a chat-only session.
const fn chat_name(topology: Topology) -> &'static str {
    match topology {
        Topology::OneWay => "Chat broadcast",
        Topology::OneToOne => "Private chat",
        Topology::OneToMany => "Chat panel",
        Topology::ManyToMany => "Group chat",
    }
}

/// The name of a topology.
pub(crate) const fn topology(topology: Topology) -> &'static str {
    match topology {
        Topology::OneWay => "Broadcast",
        Topology::OneToOne => "Private line",
        Topology::OneToMany => "Panel",
        Topology::ManyToMany => "Conference",
    }
}

/// The description of a topology, for the dialog that opens a session.
pub(crate) const fn topology_hint(topology: Topology) -> &'static str {
    match topology {
        Topology::OneWay => "Only you send. Viewers do not see each other.",
        Topology::OneToOne => "You and one guest.",
        Topology::OneToMany => "Guests talk with you, not with each other.",
        Topology::ManyToMany => "Everyone sees and hears everyone.",
    }
}

/// The item of a session's menu that chooses how much data it uses, and what that means.
pub(crate) const fn data_use(data_use: DataUse) -> (&'static str, &'static str) {
    match data_use {
        DataUse::Full => ("Best picture", "Video as large as it is shown"),
        DataUse::Saving => ("Save data", "Small video only, of you and of the others"),
        DataUse::AudioOnly => ("Audio only", "No video, of you and of the others"),
    }
}

/// What is poor about the media of a participant, and whose connection it is.
pub(crate) fn poor_quality(name: &str, quality: CallQuality) -> String {
    let name = bidi::isolated(name);
    let what = match quality.problem {
        QualityProblem::Audio => format!("The sound of {name} has gaps"),
        QualityProblem::Video => format!("The picture of {name} stops again and again"),
        QualityProblem::Delay => format!("{name} is heard and seen late"),
    };
    let whose = match quality.cause {
        QualityCause::Path => "the connection between you is poor".to_owned(),
        QualityCause::Theirs => format!("the connection of {name} is poor"),
        QualityCause::Own => "your connection is poor".to_owned(),
        QualityCause::Upload => "your upload is full".to_owned(),
        QualityCause::Computer => "this computer is busy".to_owned(),
    };
    format!("{what}: {whose}.")
}

/// The text for a device that is being opened.
pub(crate) fn starting(device: &str) -> String {
    format!("Starting {device}…")
}

/// Why a text is not a link that can be joined.
pub(crate) fn link_error(error: &LinkError) -> String {
    match error {
        LinkError::Id(_) | LinkError::Malformed(_) | LinkError::NoSession(_) => {
            format!("That is not a link or session id. {}", sentence(&error.to_string()))
        }
        LinkError::Scheme(_) | LinkError::NoHost | LinkError::Password | LinkError::NoTarget => {
            sentence(&error.to_string())
        }
    }
}

/// The text for a session's state at that time.
pub(crate) fn state(session: &SessionStatus, now: MediaTime) -> String {
    match &session.state {
        SessionState::Connecting => match session.role {
            Role::Opener => "Opening…".to_owned(),
            Role::Guest => "Connecting…".to_owned(),
        },
        SessionState::Unreachable { .. } => "No answer".to_owned(),
        SessionState::Waiting => "Waiting for the host".to_owned(),
        SessionState::Live => match session.role {
            Role::Opener => "Open".to_owned(),
            Role::Guest => "Joined".to_owned(),
        },
        SessionState::Reconnecting { since } => {
            format!("No answer from the hub. Trying again… ({})", duration(*since, now))
        }
        SessionState::HostLost { since } => {
            let span = duration(*since, now);
            format!("The host lost connection. Waiting for them to come back… ({span})")
        }
        SessionState::Ended { reason } => end_reason(*reason).to_owned(),
        SessionState::Failed(failure) => failure_label(failure.code()).to_owned(),
    }
}

/// The text for an unreachable hub: the reason, and that the program retries.
pub(crate) fn unreachable(reason: &str) -> String {
    format!("{} Trying again…", sentence(reason))
}

/// The text for a session that is not open yet: where it is awaited, and what else the user can do.
pub(crate) fn waiting_hint(session: &SessionStatus) -> String {
    match &session.link {
        Some(link) => format!("Not open yet at {}. You join when it opens.", link.hub),
        None => {
            "Not found here. You join when it opens. To join elsewhere, paste its link.".to_owned()
        }
    }
}

/// The host of a hub, with the port unless it is a default one.
pub(crate) fn hub_host(hub: &HubUrl) -> String {
    let (scheme, host) = hub.as_str().split_once("://").unwrap_or(("", hub.as_str()));
    let (own, usual) = (format!(":{HUB_PORT}"), if scheme == "https" { ":443" } else { ":80" });
    host.strip_suffix(&own).or_else(|| host.strip_suffix(usual)).unwrap_or(host).to_owned()
}

/// The text for the hub of a session.
pub(crate) fn hub(place: &HubEndpoint) -> String {
    let url = &place.url;
    match place.owner {
        HubOwner::ThisUser => format!("Your hub at {url}"),
        HubOwner::Unproven => format!("Not your own hub, but another one on this computer: {url}"),
        HubOwner::Elsewhere => format!("Hub at {url}"),
    }
}

/// The text for a departure that can be undone.
pub(crate) fn departure_label(departure: &DepartureStatus) -> String {
    let name = |session: &SessionStatus| match session.kind {
        Some(of) => format!("the {}", kind(of).to_lowercase()),
        None => "the session".to_owned(),
    };
    match (&departure.sessions[..], departure.closes) {
        ([one], true) => format!("Ended {} for everyone", name(one)),
        ([one], false) => format!("Left {}", name(one)),
        (all, _) => format!("Left {} sessions", all.len()),
    }
}

/// The text for why a session is over.
pub(crate) const fn end_reason(reason: EndReason) -> &'static str {
    match reason {
        EndReason::Left => "You left",
        EndReason::OpenerLeft => "The host left",
        EndReason::Closed => "Ended by the host",
        EndReason::Ejected => "The host removed you",
        EndReason::Replaced => "Opened in another window of yours",
        EndReason::Failed => "Could not join",
    }
}

/// The short text for why a session failed. The failure's message has the details.
const fn failure_label(code: FailureCode) -> &'static str {
    match code {
        FailureCode::Hub(ErrorCode::NoSuchSession) => "Not found",
        FailureCode::Hub(ErrorCode::IdTaken) => "Id taken",
        FailureCode::Hub(ErrorCode::SessionFull) => "Full",
        FailureCode::Hub(ErrorCode::NotAllowed) => "Not allowed",
        FailureCode::Hub(ErrorCode::BadMessage | ErrorCode::Unsupported) => "Not understood",
        FailureCode::Hub(ErrorCode::TooMany) => "Hub busy",
        FailureCode::HubUnreachable => "No answer",
        FailureCode::AlreadyHere => "Already here",
        FailureCode::Device(_)
        | FailureCode::Connection(_)
        | FailureCode::Chat
        | FailureCode::Command
        | FailureCode::Rename => "Failed",
    }
}

/// The text for a participant's state at that time. Empty if all is well.
pub(crate) fn participant_state(participant: &ParticipantStatus, now: MediaTime) -> String {
    match participant.state {
        ParticipantState::Connecting
            if participant.peer.is_none() && participant.left_out.is_some() =>
        {
            "Cannot take part".to_owned()
        }
        ParticipantState::Connecting => "Connecting…".to_owned(),
        ParticipantState::Unreachable => "No connection, trying again".to_owned(),
        ParticipantState::Live => {
            participant.left_out.map_or_else(String::new, |media| format!("Without {media}"))
        }
        ParticipantState::Reconnecting => {
            format!("Reconnecting ({})", duration(participant.since, now))
        }
        ParticipantState::Gone => "Disconnected, may return".to_owned(),
        ParticipantState::Left => "Left".to_owned(),
    }
}

/// A duration: "4 s", "3 min".
fn duration(since: MediaTime, now: MediaTime) -> String {
    match now.since(since).as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds => format!("{} min", seconds / 60),
    }
}

/// Whether the session has ended or failed.
pub(crate) const fn is_over(state: &SessionState) -> bool {
    matches!(state, SessionState::Ended { .. } | SessionState::Failed(_))
}

/// How many participants are present in a session, without this user.
pub(crate) fn present_count(session: &SessionStatus) -> usize {
    present_participants(session).count()
}

/// How many participants are present in all sessions, each counted once, without this user.
pub(crate) fn participant_count(snapshot: &Snapshot) -> usize {
    let participants = snapshot.sessions.iter().flat_map(|one| present_participants(one));
    participants.map(|participant| &participant.participant).collect::<BTreeSet<_>>().len()
}

fn present_participants(session: &SessionStatus) -> impl Iterator<Item = &ParticipantStatus> {
    let is_here = |state| matches!(state, ParticipantState::Live | ParticipantState::Reconnecting);
    session.participants.iter().filter(move |participant| is_here(participant.state))
}

/// An error's message as sentences: each part between semicolons becomes a sentence.
pub(crate) fn sentence(text: &str) -> String {
    split_at_semicolons(text).into_iter().map(one_sentence).collect::<Vec<_>>().join(" ")
}

/// The parts between semicolons. Semicolons within quotation marks do not count.
fn split_at_semicolons(text: &str) -> Vec<&str> {
    let (mut parts, mut from, mut is_quoted) = (vec![], 0, false);
    for (at, c) in text.char_indices() {
        is_quoted ^= c == '"';
        if !is_quoted && text[at..].starts_with("; ") {
            parts.push(&text[from..at]);
            from = at + 2;
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Adds a capital letter and a full stop. An address at the start stays unchanged.
fn one_sentence(text: &str) -> String {
    let (first, remainder) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let is_word = text.split(' ').next().is_some_and(|word| word.chars().all(char::is_alphabetic));
    let first = if is_word { first.to_uppercase() } else { first.to_owned() };
    let stop = if text.ends_with(['.', '?', '…']) { "" } else { "." };
    format!("{first}{remainder}{stop}")
}

/// The first letters of a name's first two words, for a tile without video.
pub(crate) fn initials(name: &str) -> String {
    let letters = name.split_whitespace().filter_map(|word| word.chars().next()).take(2);
    let initials: String = letters.flat_map(char::to_uppercase).collect();
    if initials.is_empty() { "?".to_owned() } else { initials }
}

/// The first words of a text with any number of lines, in at most `max` characters.
pub(crate) fn first_words(text: &str, max: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= max {
        return line;
    }
    let start: String = line.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}

/// The text with its middle replaced by an ellipsis if it is longer than `max` characters.
pub(crate) fn elide_middle(text: &str, max: usize) -> String {
    let count = text.chars().count();
    if count <= max {
        return text.to_owned();
    }
    let kept = max.saturating_sub(1).max(2);
    let (head, tail) = (kept.div_ceil(2), kept / 2);
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(count - tail).collect();
    format!("{start}…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MediaSet;
    use crate::model::fixtures::{session_id, session_status, snapshot_of};

    #[test]
    fn session_kinds_have_familiar_names() {
        let names =
            ["Conference", "Broadcast", "Audio conference", "Audio broadcast", "Video broadcast"];
        assert_eq!(SessionKind::FIVE.map(kind), names);
        let chat = SessionKind { media: MediaSet::DATA, topology: Topology::OneToOne };
        assert_eq!(kind(chat), "Private chat");
    }

    #[test]
    fn a_session_is_named_by_its_kind_and_by_its_id_if_two_share_a_kind() {
        let one = |name: &str, kind| session_status(name, kind, Role::Opener, 0);
        let [conference, broadcast, ..] = SessionKind::FIVE;
        let alone = snapshot_of(vec![one("a", conference), one("b", broadcast)]);
        assert_eq!(session_name(&alone, &session_id("a")), "Conference");
        assert_eq!(session_name_in_sentence(&alone, &session_id("b")), "the broadcast");
        let two = snapshot_of(vec![one("a", conference), one("b", conference)]);
        assert_eq!(session_name(&two, &session_id("a")), "Conference a");
        assert_eq!(session_name_in_sentence(&two, &session_id("b")), "conference b");
        assert_eq!(session_name_in_sentence(&two, &session_id("gone")), "session gone");
    }

    #[test]
    fn a_text_that_is_no_link_gets_an_error_without_jargon() {
        let error_text = |text: &str| link_error(&crate::model::parse_target(text).unwrap_err());
        assert_eq!(error_text("to day"), "That is not a link or session id. Ids have no spaces.");
        assert!(error_text("http://x/nowhere").starts_with("That is not a link or session id. "));
    }

    #[test]
    fn an_id_is_elided_in_its_middle_and_never_longer_than_the_maximum() {
        assert_eq!(elide_middle("7h3k-q2m9-x4tz-p8wd", 19), "7h3k-q2m9-x4tz-p8wd");
        assert_eq!(elide_middle("7h3k-q2m9-x4tz-p8wd", 11), "7h3k-…-p8wd");
        assert_eq!(elide_middle("ÄÖÜäöüß", 5), "ÄÖ…üß");
        assert!((3..30).all(|max| elide_middle(&"x".repeat(64), max).chars().count() <= max));
    }

    #[test]
    fn the_first_words_of_a_text_are_one_short_line() {
        assert_eq!(first_words(" hello\n\nAda ", 20), "hello Ada");
        assert_eq!(first_words("one two three", 9), "one two…");
        assert_eq!(first_words(&"ä".repeat(50), 40).chars().count(), 40);
    }

    #[test]
    fn an_error_becomes_a_sentence_and_an_address_stays_one() {
        assert_eq!(sentence("there is no camera; connect one"), "There is no camera. Connect one.");
        assert_eq!(sentence("no \"a; b\" here; go on"), "No \"a; b\" here. Go on.");
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
