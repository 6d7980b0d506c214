//! The sentences that the window, the command line and the benchmarks have in common. The core
//! decides what failed and writes no text.
//!
//! A sentence says what failed and why, with the session and the hub that it is about and, if there
//! is one, the way out. It begins in lower case, so that it can follow a label.

use crate::model::{
    ChatFailure, ConnectionFailure, DeviceKind, ErrorCode, Failure, FailureCause, HubFailure,
    HubUrl, Media, MediaSet, SessionFailure, SessionId, SessionKind,
};

/// The microphone gives nothing but digital silence.
pub const MICROPHONE_SILENT: &str =
    "your microphone is silent; turn it on, or pick another microphone";

/// Somebody speaks, and every switch that matters mutes the microphone.
pub const SPEAKING_WHILE_MUTED: &str = "you are muted; nobody hears you";

/// Encoders were late, and a layer was given up.
pub const ENCODER_LATE: &str = "this computer is busy; your video is sent smaller for now";

/// The peers that share the upload get less video than they could show.
pub const UPLOAD_FULL: &str = "your upload is full; others see you smaller for now";

/// They get what they want again.
pub const UPLOAD_OK: &str = "your upload has room again";

/// The sentence for a failure.
pub fn failure(failure: &Failure) -> String {
    let session = failure.session.as_ref().map_or("", SessionId::as_str);
    match &failure.cause {
        FailureCause::Hub { hub, failure } => of_hub(&hub_name(hub.as_ref()), failure, session),
        FailureCause::HubUnreachable { reason, retries } => {
            let again = if *retries { "; trying again" } else { "" };
            format!("cannot join session \"{session}\": {reason}{again}")
        }
        FailureCause::Session(failure) => of_session(*failure, session),
        FailureCause::Chat(failure) => of_chat(*failure, session),
        FailureCause::NoConnection { name, failure } => {
            let why = of_connection(failure);
            format!("no connection to {name} in session \"{session}\": {why}; trying again")
        }
        FailureCause::Device { device, reason } => of_device(*device, reason),
        FailureCause::Other { message, .. } => message.clone(),
    }
}

/// The sentence for media that a participant's program and ours cannot exchange. `has_rest` tells
/// whether other media flow.
pub fn left_out(name: &str, session: &SessionId, media: MediaSet, has_rest: bool) -> String {
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

/// The name of a hub in a sentence.
fn hub_name(url: Option<&HubUrl>) -> String {
    url.map_or_else(|| "the hub".to_owned(), |url| format!("the hub at {url}"))
}

fn of_hub(hub: &str, failure: &HubFailure, session: &str) -> String {
    match failure {
        HubFailure::Refused { code, reason } => refused(*code, session, hub, reason),
        HubFailure::Busy { reason } => {
            format!("{hub} is too busy for session \"{session}\": {reason}; trying again")
        }
        HubFailure::Reported { reason, .. } => format!("{hub} says: {reason}"),
        HubFailure::RenameUnsupported => format!(
            "{hub} runs an older version of Quintet: people there see your new name from your next \
             connection; leave your sessions there and join again to show it at once"
        ),
        HubFailure::LockUnsupported => format!(
            "{hub} runs an older version of Quintet, which cannot lock session \"{session}\" or keep \
             people out; close it and open one with another id to be among yourselves"
        ),
        HubFailure::NotConnected => format!(
            "{hub} does not answer, so who is in session \"{session}\" cannot be changed; try again \
             when it is back"
        ),
        HubFailure::IdTakenMeanwhile => format!(
            "while {hub} was away, another session took the id \"{session}\"; open yours with \
             another id, or join that one"
        ),
    }
}

fn refused(code: ErrorCode, session: &str, hub: &str, reason: &str) -> String {
    match code {
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
    }
}

fn of_session(failure: SessionFailure, session: &str) -> String {
    match failure {
        SessionFailure::AlreadyHere => format!(
            "you are in a session \"{session}\" already, perhaps at another hub; use it, leave it \
             first, or choose another id"
        ),
        SessionFailure::NotInSession => {
            format!("you are not in session \"{session}\"; check the id")
        }
        SessionFailure::NotOwner => {
            format!("only the host can end session \"{session}\" for everyone; leave it instead")
        }
        SessionFailure::NotHost => format!(
            "only the host can remove people from session \"{session}\", let them in again or lock \
             it; ask the host"
        ),
        SessionFailure::NoSuchParticipant => {
            format!("this person is not in session \"{session}\" any more")
        }
        SessionFailure::NotRemoved => {
            format!("this person may join session \"{session}\" already")
        }
    }
}

fn of_chat(failure: ChatFailure, session: &str) -> String {
    match failure {
        ChatFailure::NotOpen => {
            format!("session \"{session}\" is not open; the message was not sent")
        }
        ChatFailure::NoChat(SessionKind { media, topology }) => format!(
            "session \"{session}\" has no chat; open one with chat, such as {media}+data/{topology}"
        ),
        ChatFailure::GuestsCannotWrite => {
            format!("only the host can write in session \"{session}\"; open a session of your own")
        }
        ChatFailure::NobodyToRead => {
            format!("nobody is in session \"{session}\" to read it; write when somebody is there")
        }
    }
}

fn of_connection(failure: &ConnectionFailure) -> &str {
    match failure {
        ConnectionFailure::NoAnswer => {
            "the other program does not answer: it may hang, or be another version; ask the person \
             to start it again"
        }
        ConnectionFailure::NotAgreed { reason } => reason,
        ConnectionFailure::NoLocalAddress => {
            "no usable address: this computer is in no network; connect it to one that both share"
        }
        ConnectionFailure::NoRemoteAddress => {
            "no usable address: the other computer names none, as one without a network or a browser \
             that hides its addresses does; connect it to a network that both share, or allow its \
             browser the camera or microphone"
        }
        ConnectionFailure::NoCommonIpVersion => {
            "no usable address: one computer has IPv4 only and the other IPv6 only; use a network \
             that gives both the same"
        }
        ConnectionFailure::NoPairAnswered => {
            "no candidate pair answered: a firewall may block UDP, or no network joins the two \
             computers; allow UDP between the two, or use a network that both share"
        }
        ConnectionFailure::Silent => {
            "no packets arrive any more; check whether both computers still have a network"
        }
        ConnectionFailure::BrokenOff => {
            "the connection broke off; check whether both computers still have a network"
        }
    }
}

fn of_device(device: DeviceKind, reason: &str) -> String {
    let name = device.name();
    // The reason usually names the device and the way out. If not, the kind is added.
    if reason.contains(name) { reason.to_owned() } else { format!("{name}: {reason}") }
}

#[cfg(test)]
mod tests;
