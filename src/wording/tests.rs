use super::*;
use crate::model::SessionId;

fn session() -> SessionId {
    SessionId::parse("town-hall").unwrap()
}

fn hub() -> Option<HubUrl> {
    Some("http://h:1".parse().unwrap())
}

#[test]
fn every_sentence_about_a_hub_names_the_session_the_hub_and_the_way_out() {
    let codes = [
        ErrorCode::NoSuchSession,
        ErrorCode::IdTaken,
        ErrorCode::SessionFull,
        ErrorCode::NotAllowed,
        ErrorCode::BadMessage,
        ErrorCode::TooMany,
        ErrorCode::Unsupported,
    ];
    let reason = || "no".to_owned();
    let refused = codes.map(|code| HubFailure::Refused { code, reason: reason() });
    let others = [
        HubFailure::Busy { reason: reason() },
        HubFailure::LockUnsupported,
        HubFailure::NotConnected,
        HubFailure::IdTakenMeanwhile,
    ];
    for cause in refused.into_iter().chain(others) {
        let text = failure(&cause.clone().of(&session(), hub()));
        for part in ["\"town-hall\"", "the hub at http://h:1", "; "] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let text = failure(&cause.of(&session(), None));
        assert!(text.contains("the hub") && !text.contains("http"), "{text}");
    }
}

#[test]
fn what_a_hub_says_is_quoted_and_an_old_hub_is_told_apart() {
    let code = ErrorCode::TooMany;
    let reported = HubFailure::Reported { code, reason: "slow down".into() };
    let shown = |failure| {
        super::failure(&Failure { cause: FailureCause::Hub { hub: hub(), failure }, session: None })
    };
    assert_eq!(shown(reported), "the hub at http://h:1 says: slow down");
    assert!(
        shown(HubFailure::RenameUnsupported).contains("your new name from your next connection")
    );
}

#[test]
fn a_command_that_fits_no_session_names_it_and_mostly_the_way_out() {
    for (cause, part) in [
        (SessionFailure::AlreadyHere, "leave it first"),
        (SessionFailure::NotInSession, "check the id"),
        (SessionFailure::NotOwner, "leave it instead"),
        (SessionFailure::NotHost, "ask the host"),
        (SessionFailure::NoSuchParticipant, "any more"),
        (SessionFailure::NotRemoved, "already"),
    ] {
        let text = failure(&cause.of(&session()));
        assert!(text.contains("\"town-hall\"") && text.contains(part), "{text}");
    }
    for (cause, part) in [
        (ChatFailure::NotOpen, "was not sent"),
        (ChatFailure::NoChat(SessionKind::FIVE[1]), "+data/"),
        (ChatFailure::GuestsCannotWrite, "only the host"),
        (ChatFailure::NobodyToRead, "when somebody is there"),
    ] {
        let text = failure(&cause.of(&session()));
        assert!(text.contains("\"town-hall\"") && text.contains(part), "{text}");
    }
}

#[test]
fn a_missing_connection_names_the_participant_the_reason_and_the_way_out() {
    let not_agreed = ConnectionFailure::NotAgreed { reason: "no media; update it".into() };
    for (cause, part) in [
        (ConnectionFailure::NoAnswer, "ask the person to start it again"),
        (not_agreed, "no media; update it"),
        (ConnectionFailure::NoPairAnswered, "a firewall may block UDP"),
        (ConnectionFailure::NoLocalAddress, "this computer is in no network"),
        (ConnectionFailure::NoRemoteAddress, "a browser that hides its addresses"),
        (ConnectionFailure::NoCommonIpVersion, "IPv4 only"),
        (ConnectionFailure::Silent, "check whether both computers still have a network"),
        (ConnectionFailure::BrokenOff, "check whether both computers still have a network"),
    ] {
        let cause = FailureCause::NoConnection { name: "Ada".into(), failure: cause };
        let text = failure(&Failure { cause, session: Some(session()) });
        for part in ["no connection to Ada in session \"town-hall\": ", part, "; trying again"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}

#[test]
fn an_unreachable_hub_says_whether_it_is_tried_again() {
    let shown = |retries| {
        let cause = FailureCause::HubUnreachable { reason: "nobody answers".into(), retries };
        failure(&Failure { cause, session: Some(session()) })
    };
    assert_eq!(shown(false), "cannot join session \"town-hall\": nobody answers");
    assert_eq!(shown(true), "cannot join session \"town-hall\": nobody answers; trying again");
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
    let message = of_device(DeviceKind::CAMERA, "camera \"HD\" is in use; pick another");
    assert_eq!(message, "camera \"HD\" is in use; pick another");
    let message = of_device(DeviceKind::Speaker, "unplugged; pick another");
    assert_eq!(message, "speaker: unplugged; pick another");
}
