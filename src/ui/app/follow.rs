//! What a click on a URL in a chat message does.
//!
//! The author of the message chose the address, and the participants of that session would see and
//! hear the user at once. So a session is joined without a question only at a hub that is in use
//! already. A URL that may be an ordinary web page counts as a session link only if a hub answers
//! at its address.

use eframe::egui::Context;
use url::Url;

use super::App;
use crate::{
    model::{Command, Gate, HubOwner, HubStatus, HubUrl, JoinTarget, parse_target},
    ui::{browser::Followed, dialogs::Dialog},
};

impl App {
    /// Opens a URL: joins its session, asks the user whether to join, probes the address for a hub,
    /// or opens a browser.
    pub(super) fn follow(&mut self, ctx: &Context, url: String) {
        let Ok((Some(hub), session)) = parse_target(&url) else {
            return self.browser.open(url, ctx);
        };
        let target = JoinTarget { session, hub: Some(hub.clone()) };
        if self.is_in_use(&hub) {
            self.join(target, true);
        } else if is_usual_for_pages(&hub) {
            self.browser.ask(Followed { link: url, target, is_hub: false }, hub, ctx);
        } else {
            self.ask_to_join(ctx, target);
        }
    }

    /// Handles the result of [`Browser::probe`](crate::ui::browser::Browser::probe).
    pub(super) fn followed(&mut self, ctx: &Context, probed: Followed) {
        match probed.is_hub {
            true => self.ask_to_join(ctx, probed.target),
            false => self.browser.open(probed.link, ctx),
        }
    }

    /// Joins a session from a chat message after the user confirmed it.
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

    /// Whether the hub in use at that address is proven to be that hub. The address that a hub
    /// claims for itself counts only for the user's own hub.
    fn is_in_use(&self, hub: &HubUrl) -> bool {
        let is_at = |status: &HubStatus| match &status.place {
            Some(place) => {
                place.url == *hub
                    || place.owner == HubOwner::ThisUser && status.url.as_ref() == Some(hub)
            }
            // The user entered that address.
            None => status.url.as_ref() == Some(hub),
        };
        self.snapshot.hubs.iter().any(is_at)
    }
}

/// Whether web pages are usually served at that port.
fn is_usual_for_pages(hub: &HubUrl) -> bool {
    let port = Url::parse(hub.as_str()).ok().and_then(|url| url.port_or_known_default());
    matches!(port, Some(80 | 443))
}
