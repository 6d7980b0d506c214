//! The browser of this machine, asked off the window's thread to open what a chat links to.

use std::{io, sync::Arc};

use eframe::egui::Context;

use crate::media::Slot;

/// The way to the browser.
pub(crate) struct Browser {
    /// Where the question is asked, for it may take as long as a program takes to start; `None`
    /// in tests without a browser.
    runtime: Option<tokio::runtime::Handle>,
    open: fn(&str) -> io::Result<()>,
    failed: Arc<Slot<String>>,
}

impl Browser {
    /// The one that the system names.
    pub(crate) fn new(runtime: Option<tokio::runtime::Handle>) -> Self {
        Self { runtime, open: webbrowser::open, failed: Arc::default() }
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
}
