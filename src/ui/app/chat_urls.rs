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
    model::{Command, HubOwner, HubStatus, HubUrl, JoinTarget, MuteSwitch, Source, parse_target},
    ui::{browser::ProbedUrl, dialogs::Dialog},
};

impl App {
    /// Opens a URL: joins its session, asks the user whether to join, probes the address for a hub,
    /// or opens a browser.
    pub(super) fn open_url(&mut self, ctx: &Context, url: String) {
        let Ok((Some(hub), session)) = parse_target(&url) else {
            return self.browser.open(url, ctx);
        };
        let target = JoinTarget { session, hub: Some(hub.clone()) };
        if self.is_in_use(&hub) {
            self.join(target, true);
        } else if is_web_port(&hub) {
            self.browser.probe(ProbedUrl { url, target, is_hub: false }, hub, ctx);
        } else {
            self.confirm_join(ctx, target);
        }
    }

    /// Handles the result of [`Browser::probe`](crate::ui::browser::Browser::probe).
    pub(super) fn on_url_probed(&mut self, ctx: &Context, probed: ProbedUrl) {
        match probed.is_hub {
            true => self.confirm_join(ctx, probed.target),
            false => self.browser.open(probed.url, ctx),
        }
    }

    /// Joins a session from a chat message after the user confirmed it.
    pub(super) fn join_from_chat(&mut self, target: JoinTarget, muted: bool) {
        let session = target.session.clone();
        if self.join(target, true) && muted {
            for source in Source::SECTIONS {
                let (session, switch) = (Some(session.clone()), MuteSwitch::Source(source));
                self.unsent.push_back(Command::SetEnabled { session, switch, enabled: false });
            }
        }
    }

    fn confirm_join(&mut self, ctx: &Context, target: JoinTarget) {
        self.show_dialog(ctx, Dialog::JoinFromChat(target));
        ctx.request_repaint();
    }

    /// Whether the hub in use at that address is proven to be that hub. The address that a hub
    /// claims for itself counts only for the user's own hub.
    fn is_in_use(&self, hub: &HubUrl) -> bool {
        let is_at = |status: &HubStatus| match &status.endpoint {
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
fn is_web_port(hub: &HubUrl) -> bool {
    let port = Url::parse(hub.as_str()).ok().and_then(|url| url.port_or_known_default());
    matches!(port, Some(80 | 443))
}
