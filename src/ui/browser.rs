//! What a chat links to, off the window's thread: the browser of this machine is asked to open it,
//! or its address is asked whether a hub is there.

use std::{io, sync::Arc};

use eframe::egui::Context;

use crate::{
    engine::is_hub,
    media::Slot,
    model::{HubUrl, JoinTarget},
};

/// The way to the browser.
pub(crate) struct Browser {
    /// Where the questions are asked, for they may take as long as a program takes to start; `None`
    /// in tests without a browser.
    runtime: Option<tokio::runtime::Handle>,
    open: fn(&str) -> io::Result<()>,
    failed: Arc<Slot<String>>,
    answered: Arc<Slot<Followed>>,
}

/// A link that may lead to a session or to a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Followed {
    /// The link as it was written.
    pub(crate) link: String,
    /// The session that it may lead to.
    pub(crate) target: JoinTarget,
    /// Whether a hub answers there.
    pub(crate) is_hub: bool,
}

impl Browser {
    /// The one that the system names.
    pub(crate) fn new(runtime: Option<tokio::runtime::Handle>) -> Self {
        let (failed, answered) = (Arc::default(), Arc::default());
        Self { runtime, open: webbrowser::open, failed, answered }
    }

    /// Has a link opened.
    pub(crate) fn open(&self, link: String, ctx: &Context) {
        let Some(runtime) = &self.runtime else { return self.failed.put(link) };
        let (open, failed, ctx) = (self.open, Arc::clone(&self.failed), ctx.clone());
        runtime.spawn_blocking(move || {
            if let Err(error) = open(&link) {
                tracing::warn!(%error, "no browser could be opened");
                failed.put(link);
                ctx.request_repaint();
            }
        });
    }

    /// Asks whether a hub is at the address; the answer comes by [`Self::answered`], after some
    /// seconds at most.
    pub(crate) fn ask(&self, followed: Followed, hub: HubUrl, ctx: &Context) {
        let Some(runtime) = &self.runtime else { return self.answered.put(followed) };
        let (answered, ctx) = (Arc::clone(&self.answered), ctx.clone());
        runtime.spawn(async move {
            let is_hub = is_hub(&hub).await;
            answered.put(Followed { is_hub, ..followed });
            ctx.request_repaint();
        });
    }

    /// The newest answer, once.
    pub(crate) fn answered(&self) -> Option<Followed> {
        self.answered.take()
    }

    /// The newest link that could not be opened, once.
    pub(crate) fn failed(&self) -> Option<String> {
        self.failed.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_no_browser_opens_is_given_back_once_and_the_asker_never_waits() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = Some(runtime.handle().clone());
        let fails = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
        let none = Browser { open: fails, ..Browser::new(handle.clone()) };
        none.open("https://a.example".to_owned(), &Context::default());
        let one = Browser { open: |_| Ok(()), ..Browser::new(handle) };
        one.open("https://a.example".to_owned(), &Context::default());
        // Dropping a runtime waits for what blocks.
        drop(runtime);
        assert_eq!(none.failed().as_deref(), Some("https://a.example"));
        assert_eq!((none.failed(), one.failed()), (None, None));
    }

    #[test]
    fn an_address_is_asked_without_waiting_for_it_and_answers_once() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // A server that takes connections and says nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hub: HubUrl = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let target = JoinTarget {
            session: crate::model::SessionId::parse("AbC").unwrap(),
            hub: Some(hub.clone()),
        };
        let followed = Followed { link: format!("{hub}/s/AbC"), target, is_hub: true };
        let browser = Browser::new(Some(runtime.handle().clone()));
        browser.ask(followed.clone(), hub, &Context::default());
        let answer = browser.answered.wait(std::time::Duration::from_secs(60));
        assert_eq!(answer, Some(Followed { is_hub: false, ..followed }));
        assert_eq!(browser.answered(), None);
    }
}
