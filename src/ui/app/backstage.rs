//! The services behind the window, and requests from outside: links of a second start, and the
//! request to exit.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use eframe::egui::{Context, UserAttentionType, ViewportCommand};
use tokio::sync::mpsc;

use super::App;
use crate::{
    engine::Handle,
    media::Slot,
    model::{Event, JoinTarget, parse_target},
    process::instance::OpenDoor,
    ui::{
        goodbye::Goodbye,
        settings::{Settings, SettingsError, WindowSize},
        settings_file::SettingsFile,
    },
};

/// A running engine and its events.
pub(crate) struct Running {
    /// The engine's handle.
    pub(crate) handle: Handle,
    /// The engine's events, in order.
    pub(crate) events: mpsc::Receiver<Event>,
}

/// Starts an engine with these settings. If that fails, it adds the reason to the list and returns
/// `None`.
pub(crate) type Starter = Box<dyn Fn(&Settings, &mut Vec<String>) -> Option<Running>>;

/// The services that may block, and that therefore run outside the window's thread.
pub(crate) struct Backstage {
    /// The runtime for blocking work.
    pub(crate) runtime: tokio::runtime::Handle,
    /// The settings file, if the system has a folder for it.
    pub(crate) file: Option<Arc<SettingsFile>>,
    /// Starts an engine.
    pub(crate) start: Starter,
    /// The newest error of writing the settings.
    pub(crate) failed: Arc<Slot<String>>,
    /// Leaves the sessions and writes the settings when the program exits.
    pub(crate) goodbye: Goodbye,
    /// Set when the program was asked to exit.
    pub(crate) ending: Arc<AtomicBool>,
    /// Receives the links of a second start of the program.
    pub(crate) door: Option<OpenDoor>,
}

impl App {
    /// Handles requests from outside the window: closes the window when the program was asked to
    /// exit, or joins the links of a second start and brings the window to the front.
    pub(super) fn look_outside(&mut self, ctx: &Context) {
        let Some(services) = &self.backstage else { return };
        if services.ending.load(Ordering::Acquire) && !self.quitting {
            // No question: a signal or a logout comes without a user at the window.
            self.quitting = true;
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
        if self.quitting {
            return;
        }
        while let Some(second_start) =
            self.backstage.as_ref().and_then(|services| services.door.as_ref()?.caller())
        {
            let links = second_start.taken();
            let targets = links.iter().filter_map(|link| match parse_target(link) {
                Ok((hub, session)) => Some(JoinTarget { session, hub }),
                Err(error) => {
                    self.notices.error(error.to_string());
                    None
                }
            });
            let targets = targets.collect();
            self.join_all(ctx, targets);
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            ctx.send_viewport_cmd(ViewportCommand::Focus);
            // Some desktops do not let a window raise itself. The hint points the user to it.
            let hint = UserAttentionType::Informational;
            ctx.send_viewport_cmd(ViewportCommand::RequestUserAttention(hint));
        }
    }

    /// Joins the sessions that the program was started with.
    pub(crate) fn join_all(&mut self, ctx: &Context, targets: Vec<JoinTarget>) {
        for target in targets {
            self.join(target, true);
        }
        ctx.request_repaint();
    }

    /// Writes the settings on another thread.
    pub(super) fn save(&self) {
        let Some(services) = &self.backstage else { return };
        let Some(file) = services.file.clone() else {
            return services.failed.put(SettingsError::NoPlace.to_string());
        };
        file.want(self.settings.clone());
        let failed = Arc::clone(&services.failed);
        services.runtime.spawn_blocking(move || {
            if let Err(error) = file.save() {
                failed.put(error.to_string());
            }
        });
    }

    /// Keeps the window's size. The shutdown writes it for the next run.
    pub(crate) fn note_size(&mut self, size: WindowSize) {
        if self.settings.window == size {
            return;
        }
        self.settings.window = size;
        let file = self.backstage.as_ref().and_then(|services| services.file.as_ref());
        if let Some(file) = file {
            file.want(self.settings.clone());
        }
    }

    /// Releases the textures and stops receiving second starts, before the window closes.
    pub(crate) fn let_go(&mut self) {
        self.pictures.clear();
        // A later start finds no open window, and waits until this process has ended.
        if let Some(services) = &mut self.backstage {
            services.door = None;
        }
    }
}
