//! What comes of a click on a link that somebody wrote in a chat.
//!
//! The writer chose where it leads, and whoever is there sees and hears the person at once. So only
//! a hub that is in use anyway is joined without a question, and what may be an ordinary web page
//! is taken for a session only if a hub answers there.

use eframe::egui::Context;
use url::Url;

use super::App;
use crate::{
    model::{Command, Gate, HubOwner, HubStatus, HubUrl, JoinTarget, parse_target},
    ui::{browser::Followed, dialogs::Dialog},
};

impl App {
    /// Follows a link: joins, asks whether to join, asks at the address what is there, or has a
    /// browser open it.
    pub(super) fn follow(&mut self, ctx: &Context, link: String) {
        let Ok((Some(hub), session)) = parse_target(&link) else {
            return self.browser.open(link, ctx);
        };
        let target = JoinTarget { session, hub: Some(hub.clone()) };
        if self.is_in_use(&hub) {
            self.join(target, true);
        } else if is_usual_for_pages(&hub) {
            self.browser.ask(Followed { link, target, is_hub: false }, hub, ctx);
        } else {
            self.ask_to_join(ctx, target);
        }
    }

    /// What was at the address of a link that may be a web page's.
    pub(super) fn followed(&mut self, ctx: &Context, followed: Followed) {
        match followed.is_hub {
            true => self.ask_to_join(ctx, followed.target),
            false => self.browser.open(followed.link, ctx),
        }
    }

    /// Joins a session to which a link in a chat led, as the person said.
    pub(super) fn join_linked(&mut self, target: JoinTarget, muted: bool) {
        let session = target.session.clone();
        if self.join(target, true) && muted {
            for gate in [Gate::Microphone, Gate::Camera] {
                let session = Some(session.clone());
                self.unsent.push_back(Command::SetGate { session, gate, open: false });
            }
        }
    }

    fn ask_to_join(&mut self, ctx: &Context, target: JoinTarget) {
        self.show(ctx, Dialog::JoinLinked(target));
        ctx.request_repaint();
    }

    /// Whether a hub is in use that surely is the one at that address, whatever others say.
    fn is_in_use(&self, hub: &HubUrl) -> bool {
        let is_at = |status: &HubStatus| match &status.place {
            Some(place) => {
                place.url == *hub
                    || place.owner == HubOwner::ThisUser && status.url.as_ref() == Some(hub)
            }
            // The person asked for that address.
            None => status.url.as_ref() == Some(hub),
        };
        self.snapshot.hubs.iter().any(is_at)
    }
}

/// Whether web pages are usually found at that port.
fn is_usual_for_pages(hub: &HubUrl) -> bool {
    let port = Url::parse(hub.as_str()).ok().and_then(|url| url.port_or_known_default());
    matches!(port, Some(80 | 443))
}
