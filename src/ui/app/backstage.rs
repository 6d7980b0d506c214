//! What works behind the window, and what comes to it from outside: links of a second start, and
//! the end.

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

/// An engine that runs, and what it tells.
pub(crate) struct Running {
    /// The way to it.
    pub(crate) handle: Handle,
    /// What happened, one thing after another.
    pub(crate) events: mpsc::Receiver<Event>,
}

/// Starts an engine with these settings, or adds to the list why not.
pub(crate) type Starter = Box<dyn Fn(&Settings, &mut Vec<String>) -> Option<Running>>;

/// What works behind the window, where waiting is allowed.
pub(crate) struct Backstage {
    /// Where blocking work runs.
    pub(crate) runtime: tokio::runtime::Handle,
    /// The settings' file, if the system has a place for one.
    pub(crate) file: Option<Arc<SettingsFile>>,
    /// Starts engines.
    pub(crate) start: Starter,
    /// What went wrong while settings were written.
    pub(crate) failed: Arc<Slot<String>>,
    /// What is done at the end.
    pub(crate) goodbye: Goodbye,
    /// The program was asked to end.
    pub(crate) ending: Arc<AtomicBool>,
    /// Where a second start hands its links over.
    pub(crate) door: Option<OpenDoor>,
}

impl App {
    /// Does what is asked from outside the window: closes it, or joins what a second start was given
    /// and shows itself.
    pub(super) fn look_outside(&mut self, ctx: &Context) {
        let Some(backstage) = &self.backstage else { return };
        if backstage.ending.load(Ordering::Acquire) && !self.quitting {
            // Nobody is asked: whoever ends programs does not look at windows.
            self.quitting = true;
            ctx.send_viewport_cmd(ViewportCommand::Close);
        }
        if self.quitting {
            return;
        }
        while let Some(caller) = self.backstage.as_ref().and_then(|one| one.door.as_ref()?.caller())
        {
            let links = caller.taken();
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
            // Where windows may not come to the front by themselves, the person is shown where.
            let hint = UserAttentionType::Informational;
            ctx.send_viewport_cmd(ViewportCommand::RequestUserAttention(hint));
        }
    }

    /// Joins what the program was started with.
    pub(crate) fn join_all(&mut self, ctx: &Context, targets: Vec<JoinTarget>) {
        for target in targets {
            self.join(target, true);
        }
        ctx.request_repaint();
    }

    /// Has the settings written, off this thread.
    pub(super) fn save(&self) {
        let Some(backstage) = &self.backstage else { return };
        let Some(file) = backstage.file.clone() else {
            return backstage.failed.put(SettingsError::NoPlace.to_string());
        };
        file.want(self.settings.clone());
        let failed = Arc::clone(&backstage.failed);
        backstage.runtime.spawn_blocking(move || {
            if let Err(error) = file.save() {
                failed.put(error.to_string());
            }
        });
    }

    /// Has the window's size written at the end, for the next run.
    pub(crate) fn note_size(&mut self, size: WindowSize) {
        if self.settings.window == size {
            return;
        }
        self.settings.window = size;
        let file = self.backstage.as_ref().and_then(|backstage| backstage.file.as_ref());
        if let Some(file) = file {
            file.want(self.settings.clone());
        }
    }

    /// Lets go of what belongs to the window's graphics, before it closes.
    pub(crate) fn let_go(&mut self) {
        self.pictures.clear();
        // A later start finds nobody here, and waits until this one has ended.
        if let Some(backstage) = &mut self.backstage {
            backstage.door = None;
        }
    }
}
