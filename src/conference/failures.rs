//! The failures that the user sees: what failed, why, and the way out.

use super::input::HubRef;
use crate::model::{
    ConnectionFault, DeviceKind, ErrorCode, Failure, FailureCode, HubUrl, Media, MediaSet,
    SessionId, SessionKind,
};

/// A hub refused a request for a session.
pub(super) fn refused(code: ErrorCode, session: &SessionId, hub: &str, reason: &str) -> Failure {
    let message = match code {
        ErrorCode::NoSuchSession => format!(
            "session \"{session}\" is not open at {hub}; check the link, or wait until it opens"
        ),
        ErrorCode::IdTaken => format!(
            "the id \"{session}\" is somebody else's at {hub}; choose another id, or leave it out"
        ),
        ErrorCode::SessionFull => {
            format!(
                "session \"{session}\" at {hub} takes no more participants: {reason}; ask the host"
            )
        }
        ErrorCode::NotAllowed => {
            format!("{hub} does not allow that in session \"{session}\": {reason}; ask the host")
        }
        ErrorCode::BadMessage | ErrorCode::Unsupported => format!(
            "{hub} did not understand the request for session \"{session}\": {reason}; it may run \
             another version of Quintet, so update the older one"
        ),
        ErrorCode::TooMany => format!(
            "{hub} is too busy for session \"{session}\": {reason}; wait a moment, or leave another \
             session first"
        ),
    };
    Failure { code: FailureCode::Hub(code), message, session: Some(session.clone()) }
}

/// A hub is too busy to look up a session now.
pub(super) fn busy(session: &SessionId, hub: &str, reason: &str) -> Failure {
    let message = format!("{hub} is too busy for session \"{session}\": {reason}; trying again");
    let code = FailureCode::Hub(ErrorCode::TooMany);
    Failure { code, message, session: Some(session.clone()) }
}

/// A hub reported an error that is not about a session.
pub(super) fn hub_reported(code: ErrorCode, hub: &str, reason: &str) -> Failure {
    let message = format!("{hub} says: {reason}");
    Failure { code: FailureCode::Hub(code), message, session: None }
}

/// A hub of an earlier version cannot change a name while the connection is up.
pub(super) fn rename_unsupported(hub: &str) -> Failure {
    let message = format!(
        "{hub} runs an older version of Quintet: people there see your new name from your next \
         connection; leave your sessions there and join again to show it at once"
    );
    Failure { code: FailureCode::Rename, message, session: None }
}

/// A hub cannot be reached; `why` names it and the way out.
pub(super) fn unreachable(session: &SessionId, why: &str, waits: bool) -> Failure {
    let again = if waits { "; trying again" } else { "" };
    let message = format!("cannot join session \"{session}\": {why}{again}");
    Failure { code: FailureCode::HubUnreachable, message, session: Some(session.clone()) }
}

/// This process already has a session of that id.
pub(super) fn already_here(session: &SessionId) -> Failure {
    let message = format!(
        "you are in a session \"{session}\" already, perhaps at another hub; use it, leave it first, or \
         choose another id"
    );
    Failure { code: FailureCode::AlreadyHere, message, session: Some(session.clone()) }
}

/// This process has no session of that id.
pub(super) fn not_in_session(session: &SessionId) -> Failure {
    let message = format!("you are not in session \"{session}\"; check the id");
    let code = FailureCode::Hub(ErrorCode::NoSuchSession);
    Failure { code, message, session: Some(session.clone()) }
}

/// Only the owner can close a session for all participants.
pub(super) fn not_owner(session: &SessionId) -> Failure {
    let message =
        format!("only the host can end session \"{session}\" for everyone; leave it instead");
    let code = FailureCode::Hub(ErrorCode::NotAllowed);
    Failure { code, message, session: Some(session.clone()) }
}

/// Only the owner decides which participants may be in a session.
pub(super) fn not_host(session: &SessionId) -> Failure {
    let message = format!(
        "only the host can remove people from session \"{session}\", let them in again or lock it; \
         ask the host"
    );
    let code = FailureCode::Hub(ErrorCode::NotAllowed);
    Failure { code, message, session: Some(session.clone()) }
}

/// The participant to eject is not in the session.
pub(super) fn no_such_participant(session: &SessionId) -> Failure {
    let message = format!("this person is not in session \"{session}\" any more");
    let code = FailureCode::Hub(ErrorCode::NotAllowed);
    Failure { code, message, session: Some(session.clone()) }
}

/// The participant to allow is not ejected.
pub(super) fn not_removed(session: &SessionId) -> Failure {
    let message = format!("this person may join session \"{session}\" already");
    let code = FailureCode::Hub(ErrorCode::NotAllowed);
    Failure { code, message, session: Some(session.clone()) }
}

/// A hub of an earlier version can neither lock sessions nor block ejected participants.
pub(super) fn lock_unsupported(session: &SessionId, hub: &str) -> Failure {
    let message = format!(
        "{hub} runs an older version of Quintet, which cannot lock session \"{session}\" or keep \
         people out; close it and open one with another id to be among yourselves"
    );
    let code = FailureCode::Hub(ErrorCode::Unsupported);
    Failure { code, message, session: Some(session.clone()) }
}

/// The hub of a session cannot be asked for anything now.
pub(super) fn hub_not_connected(session: &SessionId, hub: &str) -> Failure {
    let message = format!(
        "{hub} does not answer, so who is in session \"{session}\" cannot be changed; try again when \
         it is back"
    );
    let code = FailureCode::HubUnreachable;
    Failure { code, message, session: Some(session.clone()) }
}

/// A chat message cannot be sent in a session that we have not joined.
pub(super) fn not_open(session: &SessionId) -> Failure {
    chat_failure(session, format!("session \"{session}\" is not open; the message was not sent"))
}

/// The session has no data channel.
pub(super) fn no_chat(session: &SessionId, kind: SessionKind) -> Failure {
    let SessionKind { media, topology } = kind;
    let text = format!(
        "session \"{session}\" has no chat; open one with chat, such as {media}+data/{topology}"
    );
    chat_failure(session, text)
}

/// A viewer cannot write in a broadcast.
pub(super) fn guests_cannot_write(session: &SessionId) -> Failure {
    let text =
        format!("only the host can write in session \"{session}\"; open a session of your own");
    chat_failure(session, text)
}

/// The session has no other participant that could read a message.
pub(super) fn nobody_to_read(session: &SessionId) -> Failure {
    let text =
        format!("nobody is in session \"{session}\" to read it; write when somebody is there");
    chat_failure(session, text)
}

fn chat_failure(session: &SessionId, message: String) -> Failure {
    Failure { code: FailureCode::Chat, message, session: Some(session.clone()) }
}

/// Another session took the id while the hub was away.
pub(super) fn id_taken_meanwhile(session: &SessionId, hub: &str) -> Failure {
    let message = format!(
        "while {hub} was away, another session took the id \"{session}\"; open yours with another id, \
         or join that one"
    );
    let code = FailureCode::Hub(ErrorCode::IdTaken);
    Failure { code, message, session: Some(session.clone()) }
}

/// A participant could not be connected for long, or several times in a row; `why` names the way
/// out.
pub(super) fn no_connection(
    name: &str,
    session: &SessionId,
    (fault, why): (ConnectionFault, &str),
) -> Failure {
    let message = format!("no connection to {name} in session \"{session}\": {why}; trying again");
    Failure { code: FailureCode::Connection(fault), message, session: Some(session.clone()) }
}

/// The sentence for media that a participant's program and ours cannot exchange. `has_rest` tells
/// whether other media flow.
pub(super) fn left_out(name: &str, session: &SessionId, media: MediaSet, has_rest: bool) -> String {
    let cannot = |media: &Media| match media {
        Media::Audio => "play Opus",
        Media::Video => "show H.264",
        Media::Data => "open the chat",
    };
    let missing = |media: &Media| match media {
        Media::Audio => "sound",
        Media::Video => "picture",
        Media::Data => "chat",
    };
    let media = Vec::from(media);
    let cannot = media.iter().map(cannot).collect::<Vec<_>>().join(" or ");
    if !has_rest {
        return format!(
            "{name}'s program cannot {cannot}, and session \"{session}\" has nothing else; {name} \
             needs another program or browser"
        );
    }
    let missing = media.iter().map(missing).collect::<Vec<_>>().join(" and no ");
    format!(
        "{name}'s program cannot {cannot}, so there is no {missing} between you in session \
         \"{session}\"; the rest works"
    )
}

/// A source or the speaker cannot be used.
pub(super) fn device(kind: DeviceKind, why: &str) -> Failure {
    let what = kind.name();
    // The reason usually names the device and the way out. If not, the kind is added.
    let message = if why.contains(what) { why.to_owned() } else { format!("{what}: {why}") };
    Failure { code: FailureCode::Device(kind), message, session: None }
}

/// The name of a hub in a sentence.
pub(super) fn hub_name(hub: &HubRef, url: Option<&HubUrl>) -> String {
    match (hub, url) {
        (HubRef::Default, None) => "the hub".to_owned(),
        (HubRef::Default, Some(url)) => format!("the hub at {url}"),
        (HubRef::At(url), _) => format!("the hub at {url}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_the_session_the_hub_and_the_way_out() {
        let session = SessionId::parse("town-hall").unwrap();
        let codes = [
            ErrorCode::NoSuchSession,
            ErrorCode::IdTaken,
            ErrorCode::SessionFull,
            ErrorCode::NotAllowed,
            ErrorCode::BadMessage,
            ErrorCode::TooMany,
            ErrorCode::Unsupported,
        ];
        for code in codes {
            let failure = refused(code, &session, "the hub at http://h:1", "no");
            assert_eq!(failure.code, FailureCode::Hub(code));
            assert_eq!(failure.session, Some(session.clone()));
            for part in ["\"town-hall\"", "http://h:1", "; "] {
                assert!(failure.message.contains(part), "{part} in {}", failure.message);
            }
        }
    }

    #[test]
    fn left_out_media_are_named_with_the_consequence() {
        let session = SessionId::parse("town-hall").unwrap();
        let message = left_out("Ada", &session, MediaSet::VIDEO, true);
        let expected = "Ada's program cannot show H.264, so there is no picture between you in session \
                        \"town-hall\"; the rest works";
        assert_eq!(message, expected);
        let message = left_out("Ada", &session, MediaSet::AUDIO_VIDEO, true);
        assert!(
            message.contains("cannot play Opus or show H.264, so there is no sound and no picture")
        );
        let message = left_out("Ada", &session, MediaSet::VIDEO, false);
        assert!(
            message.ends_with("has nothing else; Ada needs another program or browser"),
            "{message}"
        );
        assert!(!message.contains("UDP"), "the network is not blamed");
    }

    #[test]
    fn the_kind_of_a_device_is_named_once() {
        let message = device(DeviceKind::CAMERA, "camera \"HD\" is in use; pick another").message;
        assert_eq!(message, "camera \"HD\" is in use; pick another");
        let message = device(DeviceKind::Speaker, "unplugged; pick another").message;
        assert_eq!(message, "speaker: unplugged; pick another");
    }
}
