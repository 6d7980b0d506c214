//! The services behind the window, and requests from outside: links of a second start, and the
//! request to exit.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use eframe::egui::{Context, UserAttentionType, ViewportCommand};
use tokio::sync::mpsc;

use super::App;
use crate::{
    engine::Handle,
    media::Slot,
    model::{Event, JoinTarget, parse_target},
    process::single_instance::HandoverReceiver,
    ui::{
        settings::{Settings, SettingsError, WindowSize},
        settings_file::SettingsFile,
        shutdown::Shutdown,
    },
};

/// A running engine and its events.
pub(crate) struct RunningEngine {
    /// The engine's handle.
    pub(crate) handle: Handle,
    /// The engine's events, in order.
    pub(crate) events: mpsc::Receiver<Event>,
}

/// Starts an engine with these settings. If that fails, it adds the reason to the list and returns
/// `None`.
pub(crate) type EngineStarter = Box<dyn Fn(&Settings, &mut Vec<String>) -> Option<RunningEngine>>;

/// The services that may block, and that therefore run outside the window's thread.
pub(crate) struct Services {
    /// The runtime for blocking work.
    pub(crate) runtime: tokio::runtime::Handle,
    /// The settings file, if the system has a folder for it.
    pub(crate) file: Option<Arc<SettingsFile>>,
    /// Starts an engine.
    pub(crate) start_engine: EngineStarter,
    /// The newest error of writing the settings.
    pub(crate) settings_error: Arc<Slot<String>>,
    /// Leaves the sessions and writes the settings when the program exits.
    pub(crate) shutdown: Shutdown,
    /// Set when the program was asked to exit.
    pub(crate) exit_requested: Arc<AtomicBool>,
    /// Receives the links of a second start of the program.
    pub(crate) instance_server: Option<HandoverReceiver>,
    /// Where the newest report was saved, or why it was not.
    pub(crate) saved_report: Arc<Slot<Result<PathBuf, String>>>,
}

impl App {
    /// Handles requests from outside the window: closes the window when the program was asked to
    /// exit, or joins the links of a second start and brings the window to the front.
    pub(super) fn handle_external_requests(&mut self, ctx: &Context) {
        let Some(services) = &self.services else { return };
        if services.exit_requested.load(Ordering::Acquire) && !self.quitting {
            // No question: a signal or a logout comes without a user at the window.
            self.quitting = true;
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
        if self.quitting {
            return;
        }
        while let Some(second_start) = self
            .services
            .as_ref()
            .and_then(|services| services.instance_server.as_ref()?.try_recv())
        {
            let links = second_start.accept();
            let targets = links.iter().filter_map(|link| match parse_target(link) {
                Ok((hub, session)) => Some(JoinTarget { session, hub }),
                Err(error) => {
                    self.notices.show_error(error.to_string());
                    None
                }
            });
            let targets = targets.collect();
            self.join_targets(ctx, targets);
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            ctx.send_viewport_cmd(ViewportCommand::Focus);
            // Some desktops do not let a window raise itself. The hint points the user to it.
            let hint = UserAttentionType::Informational;
            ctx.send_viewport_cmd(ViewportCommand::RequestUserAttention(hint));
        }
    }

    /// Joins the sessions that the program was started with.
    pub(crate) fn join_targets(&mut self, ctx: &Context, targets: Vec<JoinTarget>) {
        for target in targets {
            self.join(target, true);
        }
        ctx.request_repaint();
    }

    /// Writes the settings on another thread.
    pub(super) fn save_settings(&self) {
        let Some(services) = &self.services else { return };
        let Some(file) = services.file.clone() else {
            return services.settings_error.put(SettingsError::NoFolder.to_string());
        };
        file.set_pending(self.settings.clone());
        let failed = Arc::clone(&services.settings_error);
        services.runtime.spawn_blocking(move || {
            if let Err(error) = file.save() {
                failed.put(error.to_string());
            }
        });
    }

    /// Keeps the window's size. The shutdown writes it for the next run.
    pub(crate) fn set_window_size(&mut self, size: WindowSize) {
        if self.settings.window == size {
            return;
        }
        self.settings.window = size;
        let file = self.services.as_ref().and_then(|services| services.file.as_ref());
        if let Some(file) = file {
            file.set_pending(self.settings.clone());
        }
    }

    /// Releases the textures and stops receiving second starts, before the window closes.
    pub(crate) fn release_resources(&mut self) {
        self.feeds.clear();
        // A later start finds no open window, and waits until this process has ended.
        if let Some(services) = &mut self.services {
            services.instance_server = None;
        }
    }
}
