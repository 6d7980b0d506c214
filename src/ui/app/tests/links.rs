//! Links that somebody wrote in a chat, and what a click on them does.

use super::*;
use crate::{
    model::{ChatText, HubOwner, HubPlace, HubUrl, MediaSet, Topology},
    ui::browser::Followed,
};

const LINK: &str = "http://evil.example:7340/s/town-hall";

fn url(text: &str) -> HubUrl {
    text.parse().unwrap()
}

fn target() -> JoinTarget {
    JoinTarget { session: id("town-hall"), hub: Some(url("http://evil.example:7340")) }
}

/// A window with that text in an open chat, and these hubs in use.
fn said(text: &str, hubs: Vec<HubStatus>) -> Harness<'static, Option<App>> {
    let kind = SessionKind { media: MediaSet::DATA, topology: Topology::ManyToMany };
    let snapshot = Snapshot { hubs, ..with(vec![session("a", kind, Role::Opener, 1)]) };
    let mut window = window(LARGE, snapshot);
    click(&mut window, "Chat in Group chat");
    let (session, participant) = (id("a"), ParticipantId::from_digest([0; 10]));
    let (name, text) = ("Ada".to_owned(), ChatText::new(text).unwrap());
    app(&mut window).chats.note(&Event::Message { session, participant, name, text }, "14:05");
    window.run();
    window
}

fn hub(at: &str, owner: HubOwner, said: &str) -> HubStatus {
    let (url, place) = (Some(url(said)), Some(HubPlace { url: url(at), owner }));
    HubStatus { url, state: HubState::Connected, guests: 0, place }
}

fn muted(gate: Gate) -> Command {
    Command::SetGate { session: Some(id("town-hall")), gate, open: false }
}

#[test]
fn a_session_that_a_chat_links_to_is_joined_only_after_a_question_and_muted_by_enter() {
    let mut window = said(LINK, vec![]);
    assert_eq!(click(&mut window, LINK), [], "nothing is joined by the click");
    window.get_by_label("Join at evil.example?");
    window.get_by_label_contains("Your camera and microphone will be sent.");
    assert!(window.get_by_label("Join muted").accesskit_node().is_focused());
    window.key_press(Key::Enter);
    let join = Command::Join { target: target(), wait: true };
    assert_eq!(
        sent(&mut window),
        [join.clone(), muted(Gate::Microphone), muted(Gate::Camera)],
        "the switches are closed before anybody is there"
    );
    assert!(window.query_by_label("Join at evil.example?").is_none());

    click(&mut window, LINK);
    assert_eq!(click(&mut window, "Join with camera and mic"), [join]);
    click(&mut window, LINK);
    assert_eq!(click(&mut window, "Cancel"), []);
    assert!(window.query_by_label("Join at evil.example?").is_none());
}

#[test]
fn only_a_hub_that_surely_is_in_use_is_joined_without_a_question() {
    let join = [Command::Join { target: target(), wait: true }];
    let (here, far) = ("http://127.0.0.1:7340", "http://evil.example:7340");
    for (status, is_in_use) in [
        (hub(far, HubOwner::Elsewhere, far), true),
        (hub(here, HubOwner::ThisUser, far), true),
        // They say that they are that hub.
        (hub(here, HubOwner::Unproven, far), false),
        (hub("http://other.example:7340", HubOwner::Elsewhere, far), false),
        (hub(far, HubOwner::Elsewhere, "http://other.example:7340"), true),
    ] {
        let mut window = said(LINK, vec![status.clone()]);
        let sent = click(&mut window, LINK);
        let asks = window.query_by_label("Join at evil.example?").is_some();
        assert_eq!((sent == join, asks), (is_in_use, !is_in_use), "{status:?}");
    }
}

#[test]
fn a_page_like_any_other_is_opened_in_the_browser_and_a_hub_there_asks() {
    for link in ["https://www.reddit.com/r/x/s/AbC", "http://pages.example/s/town-hall"] {
        let mut window = said(link, vec![]);
        assert_eq!(click(&mut window, link), []);
        // Nobody can be asked here, so no hub is found there.
        let ctx = window.ctx.clone();
        let followed = app(&mut window).browser.answered().expect("it was asked");
        assert_eq!((followed.link.as_str(), followed.is_hub), (link, false));
        app(&mut window).followed(&ctx, followed.clone());
        assert_eq!(app(&mut window).browser.failed().as_deref(), Some(link));
        app(&mut window).followed(&ctx, Followed { is_hub: true, ..followed });
        window.run();
        window.get_by_label("Join muted");
    }
}
