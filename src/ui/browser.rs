//! Opens URLs from the chat off the window's thread: in the browser of this machine, or after
//! probing the address for a hub.

use std::{io, sync::Arc};

use eframe::egui::Context;

use crate::{
    engine::is_hub,
    media::Slot,
    model::{HubUrl, JoinTarget},
};

/// Opens URLs in the browser and probes addresses for hubs.
pub(crate) struct Browser {
    /// The runtime that the calls run on: starting a program may take long. `None` in tests without
    /// a browser.
    runtime: Option<tokio::runtime::Handle>,
    open: fn(&str) -> io::Result<()>,
    failed_url: Arc<Slot<String>>,
    probed: Arc<Slot<ProbedUrl>>,
}

/// A URL that may lead to a session or to a web page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProbedUrl {
    /// The URL as it was written.
    pub(crate) url: String,
    /// The session that it may name.
    pub(crate) target: JoinTarget,
    /// Whether a hub answers at its address.
    pub(crate) is_hub: bool,
}

impl Browser {
    /// Uses the system's default browser.
    pub(crate) fn new(runtime: Option<tokio::runtime::Handle>) -> Self {
        let (failed_url, probed) = (Arc::default(), Arc::default());
        Self { runtime, open: webbrowser::open, failed_url, probed }
    }

    /// Opens a URL in the browser.
    pub(crate) fn open(&self, url: String, ctx: &Context) {
        let Some(runtime) = &self.runtime else { return self.failed_url.put(url) };
        let (open, failed, ctx) = (self.open, Arc::clone(&self.failed_url), ctx.clone());
        runtime.spawn_blocking(move || {
            if let Err(error) = open(&url) {
                tracing::warn!(%error, "no browser could be opened");
                failed.put(url);
                ctx.request_repaint();
            }
        });
    }

    /// Probes the address for a hub. [`Self::take_probed`] returns the result, within a few
    /// seconds.
    pub(crate) fn probe(&self, probe: ProbedUrl, hub: HubUrl, ctx: &Context) {
        let Some(runtime) = &self.runtime else { return self.probed.put(probe) };
        let (answered, ctx) = (Arc::clone(&self.probed), ctx.clone());
        runtime.spawn(async move {
            let is_hub = is_hub(&hub).await;
            answered.put(ProbedUrl { is_hub, ..probe });
            ctx.request_repaint();
        });
    }

    /// Takes the newest probe result.
    pub(crate) fn take_probed(&self) -> Option<ProbedUrl> {
        self.probed.take()
    }

    /// Takes the newest URL that could not be opened.
    pub(crate) fn take_failed(&self) -> Option<String> {
        self.failed_url.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_no_browser_opens_is_returned_once_and_open_never_blocks() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let handle = Some(runtime.handle().clone());
        let fails = |_: &str| Err(io::Error::from(io::ErrorKind::NotFound));
        let failing = Browser { open: fails, ..Browser::new(handle.clone()) };
        failing.open("https://a.example".to_owned(), &Context::default());
        let working = Browser { open: |_| Ok(()), ..Browser::new(handle) };
        working.open("https://a.example".to_owned(), &Context::default());
        // Dropping the runtime waits for the blocking tasks.
        drop(runtime);
        assert_eq!(failing.take_failed().as_deref(), Some("https://a.example"));
        assert_eq!((failing.take_failed(), working.take_failed()), (None, None));
    }

    #[test]
    fn probing_an_address_never_blocks_and_returns_one_result() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // A server that accepts connections and sends nothing.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let hub: HubUrl = format!("http://{}", silent.local_addr().unwrap()).parse().unwrap();
        let target = JoinTarget {
            session: crate::model::SessionId::parse("AbC").unwrap(),
            hub: Some(hub.clone()),
        };
        let probe = ProbedUrl { url: format!("{hub}/s/AbC"), target, is_hub: true };
        let browser = Browser::new(Some(runtime.handle().clone()));
        browser.probe(probe.clone(), hub, &Context::default());
        let result = browser.probed.wait(std::time::Duration::from_secs(60));
        assert_eq!(result, Some(ProbedUrl { is_hub: false, ..probe }));
        assert_eq!(browser.take_probed(), None);
    }
}
