//! Tests of clicks on URLs in chat messages.

use super::*;
use crate::{
    model::{ChatText, HubEndpoint, HubOwner, HubUrl, MediaSet, Topology},
    ui::browser::ProbedUrl,
};

const LINK: &str = "http://evil.example:7340/s/town-hall";

fn url(text: &str) -> HubUrl {
    text.parse().unwrap()
}

fn target() -> JoinTarget {
    JoinTarget { session: session_id("town-hall"), hub: Some(url("http://evil.example:7340")) }
}

/// A window whose open chat shows that message, and whose snapshot has these hubs.
fn window_with_message(text: &str, hubs: Vec<HubStatus>) -> Harness<'static, Option<App>> {
    let kind = SessionKind { media: MediaSet::DATA, topology: Topology::ManyToMany };
    let snapshot =
        Snapshot { hubs, ..snapshot_of(vec![session_status("a", kind, Role::Opener, 1)]) };
    let mut window = window(LARGE, snapshot);
    click(&mut window, "Chat in Group chat");
    let (session, participant) = (session_id("a"), ParticipantId::from_digest([0; 10]));
    let (name, text) = ("Ada".to_owned(), ChatText::new(text).unwrap());
    app(&mut window)
        .chats
        .on_event(&Event::MessageReceived { session, participant, name, text }, "14:05");
    window.run();
    window
}

fn hub_status(at: &str, owner: HubOwner, claimed: &str) -> HubStatus {
    let (url, place) = (Some(url(claimed)), Some(HubEndpoint { url: url(at), owner }));
    HubStatus { url, state: HubState::Connected, guests: 0, endpoint: place }
}

fn mute_command(gate: MuteSwitch) -> Command {
    Command::SetEnabled { session: Some(session_id("town-hall")), switch: gate, enabled: false }
}

#[test]
fn a_session_url_in_a_chat_is_joined_after_a_question_and_enter_joins_muted() {
    let mut window = window_with_message(LINK, vec![]);
    assert_eq!(click(&mut window, LINK), [], "the click alone joins nothing");
    window.get_by_label("Join at evil.example?");
    window.get_by_label_contains("Your camera and microphone will be sent.");
    assert!(window.get_by_label("Join muted").accesskit_node().is_focused());
    window.key_press(Key::Enter);
    let join = Command::Join { target: target(), wait: true };
    assert_eq!(
        sent_commands(&mut window),
        [join.clone(), mute_command(MuteSwitch::MICROPHONE), mute_command(MuteSwitch::CAMERA)],
        "both sources are muted before the session is joined"
    );
    assert!(window.query_by_label("Join at evil.example?").is_none());

    click(&mut window, LINK);
    assert_eq!(click(&mut window, "Join with camera and mic"), [join]);
    click(&mut window, LINK);
    assert_eq!(click(&mut window, "Cancel"), []);
    assert!(window.query_by_label("Join at evil.example?").is_none());
}

#[test]
fn only_a_proven_hub_in_use_is_joined_without_a_question() {
    let join = [Command::Join { target: target(), wait: true }];
    let (local, remote) = ("http://127.0.0.1:7340", "http://evil.example:7340");
    for (status, is_in_use) in [
        (hub_status(remote, HubOwner::Elsewhere, remote), true),
        (hub_status(local, HubOwner::ThisUser, remote), true),
        // This hub only claims to be the one at that address.
        (hub_status(local, HubOwner::Unproven, remote), false),
        (hub_status("http://other.example:7340", HubOwner::Elsewhere, remote), false),
        (hub_status(remote, HubOwner::Elsewhere, "http://other.example:7340"), true),
    ] {
        let mut window = window_with_message(LINK, vec![status.clone()]);
        let sent = click(&mut window, LINK);
        let asks = window.query_by_label("Join at evil.example?").is_some();
        assert_eq!((sent == join, asks), (is_in_use, !is_in_use), "{status:?}");
    }
}

#[test]
fn a_web_page_opens_in_the_browser_and_a_hub_at_its_address_asks() {
    for link in ["https://www.reddit.com/r/x/s/AbC", "http://pages.example/s/town-hall"] {
        let mut window = window_with_message(link, vec![]);
        assert_eq!(click(&mut window, link), []);
        // The test has no runtime to probe the address with, so no hub is found.
        let ctx = window.ctx.clone();
        let probed = app(&mut window).browser.take_probed().expect("the address was probed");
        assert_eq!((probed.url.as_str(), probed.is_hub), (link, false));
        app(&mut window).on_url_probed(&ctx, probed.clone());
        assert_eq!(app(&mut window).browser.take_failed().as_deref(), Some(link));
        app(&mut window).on_url_probed(&ctx, ProbedUrl { is_hub: true, ..probed });
        window.run();
        window.get_by_label("Join muted");
    }
}
