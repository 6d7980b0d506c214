//! The window's main loop: reads the snapshot, draws the panels, and performs the actions that they
//! return.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use eframe::egui::{self, Context, Theme, Ui, ViewportCommand};

use visibility::visible_media;

use super::{
    action::{Action, NewSession},
    browser::Browser,
    chat::Chats,
    colours::SessionColours,
    device_choice::DeviceChoice,
    devices::{self, DeviceLists},
    dialogs::{Dialog, OpenForm, Outcome, SettingsForm},
    labels,
    media_feeds::MediaFeeds,
    notices::Notices,
    saved_sessions::{ResumableSessions, SessionSaver},
    sessions::SessionsPanel,
    settings::{Settings, ThemeChoice},
    shortcuts::{Shortcut, ShortcutReader},
    statistics::{StatisticsPanel, StatisticsReader, TileFigures},
    streams::StreamPanels,
    theme,
    view_state::until_next_second,
};
use crate::{
    engine::fresh_session_id,
    media,
    model::{
        Command, Departure, DeviceKind, Event, JoinTarget, MediaTime, MuteSwitch, OpenRequest,
        QualityMonitor, Role, SessionId, SessionKind, SessionState, SessionStatus, Snapshot,
    },
    supervision::Panicked,
};

pub(crate) use services::{RunningEngine, Services};

/// How often audio levels are read while a stream can be heard. Levels change more slowly than
/// video.
const LEVEL_INTERVAL: Duration = Duration::from_millis(80);

/// How long to wait before sending again when the engine's command queue is full.
const QUEUE_RETRY_DELAY: Duration = Duration::from_millis(50);

/// The window: the widgets, their state, and the engine's handle.
pub(crate) struct App {
    engine: Option<RunningEngine>,
    /// Why the engine has stopped, if it panicked.
    engine_failure: Option<Panicked>,
    services: Option<Services>,
    snapshot: Arc<Snapshot>,
    /// When the snapshot was read, on the engine's clock.
    now: MediaTime,
    settings: Settings,
    /// Commands that the engine has not accepted yet. While there are any, the controls are
    /// disabled.
    unsent: VecDeque<Command>,
    sessions: SessionsPanel,
    stream_panels: StreamPanels,
    chats: Chats,
    colours: SessionColours,
    browser: Browser,
    feeds: MediaFeeds,
    devices: DeviceLists,
    notices: Notices,
    /// The sessions of an earlier window, offered to be resumed.
    resumable: Option<ResumableSessions>,
    session_saver: Option<SessionSaver>,
    shortcuts: ShortcutReader,
    statistics: StatisticsPanel,
    statistics_reader: StatisticsReader,
    tile_figures: TileFigures,
    call_quality: QualityMonitor,
    dialog: Option<Dialog>,
    /// The widget that had the focus when the dialog opened. It gets the focus back.
    focus_before_dialog: Option<egui::Id>,
    /// The user may have resized panels since their sizes were last saved.
    panels_resized: bool,
    /// The push-to-talk key unmuted the microphone. Releasing the key mutes it again.
    push_to_talk_active: bool,
    /// The user has confirmed quitting, or the program was asked to exit.
    quitting: bool,
    /// The current window title.
    title: &'static str,
}

impl App {
    /// Creates the window with these settings. It has no engine until [`Self::start`].
    pub(crate) fn new(ctx: &Context, settings: Settings, services: Option<Services>) -> Self {
        theme::install(ctx);
        ctx.set_theme(egui_theme(settings.theme));
        let runtime = services.as_ref().map(|backstage| backstage.runtime.clone());
        Self {
            engine: None,
            engine_failure: None,
            services,
            snapshot: Arc::default(),
            now: MediaTime::default(),
            settings,
            unsent: VecDeque::new(),
            sessions: SessionsPanel::default(),
            stream_panels: StreamPanels::default(),
            chats: Chats::default(),
            colours: SessionColours::default(),
            browser: Browser::new(runtime.clone()),
            feeds: MediaFeeds::default(),
            devices: DeviceLists::new(runtime),
            notices: Notices::default(),
            resumable: None,
            session_saver: None,
            shortcuts: ShortcutReader::default(),
            statistics: StatisticsPanel::default(),
            statistics_reader: StatisticsReader::default(),
            tile_figures: TileFigures::default(),
            call_quality: QualityMonitor::default(),
            dialog: None,
            focus_before_dialog: None,
            panels_resized: false,
            push_to_talk_active: false,
            quitting: false,
            title: labels::title(&Snapshot::default()),
        }
    }

    /// Starts the engine. A running engine is dropped first.
    pub(crate) fn start(&mut self, ctx: &Context) {
        self.feeds.clear();
        self.engine = None;
        let Some(backstage) = &self.services else { return };
        backstage.shutdown.set_engine(None);
        let mut errors = vec![];
        self.engine = (backstage.start_engine)(&self.settings, &mut errors);
        backstage.shutdown.set_engine(self.engine.as_ref().map(|engine| engine.handle.closer()));
        for error in errors {
            self.notices.show_error(error);
        }
        if let Some(engine) = &self.engine {
            let ctx = ctx.clone();
            engine.handle.subscribe(Arc::new(move || ctx.request_repaint()));
        }
    }

    /// Shows an error until the user dismisses it.
    pub(crate) fn show_error(&mut self, error: String) {
        self.notices.show_error(error);
    }

    /// Shows that a paste failed because the clipboard's owner did not answer.
    pub(crate) fn on_paste_timeout(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        let text = "Nothing was pasted. The program you copied from does not answer.";
        self.notices.toast(text.to_owned(), None, now);
        ctx.request_repaint();
    }

    /// Reads the engine's news. Runs also while the window is hidden.
    pub(crate) fn refresh(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        self.now = media::now();
        let is_hidden = ctx.input(|input| input.viewport().visible() == Some(false));
        self.check_engine();
        if let Some(engine) = &self.engine {
            self.snapshot = engine.handle.snapshot();
        }
        if let Some(keeper) = &self.session_saver {
            keeper.update(&self.snapshot);
        }
        while let Some(event) =
            self.engine.as_mut().and_then(|engine| engine.events.try_recv().ok())
        {
            self.on_event(&event, now);
        }
        if let Some(engine) = &self.engine {
            if is_hidden {
                self.feeds.clear();
                self.confirm_before_quitting(ctx);
            } else {
                let visible = visible_media(
                    &self.snapshot,
                    &self.stream_panels.visible,
                    self.devices.open_menu,
                );
                self.feeds.refresh(ctx, &engine.handle, &visible);
                if !visible.levels.is_empty() {
                    ctx.request_repaint_after(LEVEL_INTERVAL);
                }
                if let Some(wait) = until_next_second(&self.snapshot, self.now) {
                    ctx.request_repaint_after(wait);
                }
            }
        }
        let failed = self.services.as_ref().and_then(|backstage| backstage.settings_error.take());
        if let Some(error) = failed {
            self.notices.show_error(error);
        }
        if let Some(url) = self.browser.take_failed() {
            ctx.copy_text(url);
            self.notices.toast(
                "No browser opened. The link is copied instead.".to_owned(),
                None,
                now,
            );
        }
        if let Some(probed) = self.browser.take_probed() {
            self.on_url_probed(ctx, probed);
        }
        self.show_saved_report(ctx);
        self.refresh_statistics(ctx);
        self.handle_external_requests(ctx);
        self.set_title(ctx);
        self.flush_commands(ctx);
    }

    /// Sets the window title from the snapshot.
    fn set_title(&mut self, ctx: &Context) {
        let title = labels::title(&self.snapshot);
        if title != self.title {
            self.title = title;
            ctx.send_viewport_cmd(ViewportCommand::Title(title.to_owned()));
        }
    }

    /// Shows an event as a notice and in the chat. A message gets no notice if its chat is open.
    fn on_event(&mut self, event: &Event, now: f64) {
        let is_seen =
            matches!(event, Event::MessageReceived { session, .. } if self.chats.is_open(session));
        if !is_seen {
            self.notices.on_event(event, &self.snapshot, now);
        }
        self.chats.on_event(event, &time_of_day());
    }

    /// Draws the panels and the dialog, and performs the actions of the user.
    pub(crate) fn draw(&mut self, ui: &mut Ui) {
        let ctx = ui.ctx().clone();
        ctx.accesskit_node_builder(egui::accesskit_root_id(), |window| {
            window.set_label(self.title)
        });
        self.confirm_before_quitting(&ctx);
        let full_screen = self.stream_panels.full_screen && self.dialog.is_none();
        if !self.dialog.as_ref().is_some_and(Dialog::awaits_key) {
            let needs_answer = self.dialog.as_ref().is_some_and(Dialog::needs_answer);
            for shortcut in self.shortcuts.take(&ctx, &self.settings.keys, full_screen) {
                // A dialog that waits for an answer takes all shortcuts except push-to-talk.
                if !needs_answer || matches!(shortcut, Shortcut::Talk(_)) {
                    self.handle_shortcut(&ctx, shortcut);
                }
            }
        }
        let visible_before = self.stream_panels.visible.clone();
        self.stream_panels.begin_frame();
        let actions = self.draw_panels(ui);
        if self.stream_panels.visible != visible_before {
            // The next frame adds and removes frame taps.
            ctx.request_repaint();
        }
        for action in actions.into_iter().flatten() {
            self.handle_action(&ctx, action);
        }
        self.draw_statistics(&ctx);
        self.notify_frozen_video(&ctx);
        self.draw_dialog(&ctx);
        self.draw_engine_failure(&ctx);
        self.flush_commands(&ctx);
    }

    /// Opens a dialog in front of everything. [`Self::restore_focus`] returns the focus when it
    /// closes.
    fn show_dialog(&mut self, ctx: &Context, dialog: Dialog) {
        if self.dialog.is_none() {
            self.focus_before_dialog = ctx.memory(egui::Memory::focused);
        }
        self.dialog = Some(dialog);
    }

    /// Returns the focus to the widget that had it before the dialog. egui blocks focus behind a
    /// modal for one more frame, so this may take two frames.
    fn restore_focus(&mut self, ctx: &Context) {
        if self.focus_before_dialog.is_none() {
            return;
        }
        ctx.request_repaint();
        if ctx.memory(|memory| memory.top_modal_layer().is_none()) {
            let widget = self.focus_before_dialog.take();
            ctx.memory_mut(|memory| widget.map(|widget| memory.request_focus(widget)));
        }
    }

    fn draw_dialog(&mut self, ctx: &Context) {
        let Some(dialog) = &mut self.dialog else { return self.restore_focus(ctx) };
        let outcome = dialog.ui(ctx);
        if outcome != Outcome::StillOpen {
            self.dialog = None;
            ctx.request_repaint();
        }
        match outcome {
            Outcome::StillOpen | Outcome::Closed => {}
            Outcome::Action(action) => self.handle_action(ctx, action),
            Outcome::SaveSettings(settings) => self.apply_settings(ctx, settings),
            Outcome::Quit => {
                self.quitting = true;
                ctx.send_viewport_cmd(ViewportCommand::Close);
            }
        }
    }

    fn handle_action(&mut self, ctx: &Context, action: Action) {
        match action {
            Action::Command(Command::Join { target, wait }) => drop(self.join(target, wait)),
            Action::Command(command) => self.unsent.push_back(command),
            Action::OpenFive => {
                for kind in SessionKind::FIVE {
                    let NewSession { session, limit, .. } = NewSession::of_kind(kind);
                    self.open(session, kind, limit);
                }
            }
            Action::Open(NewSession { session, media, topology, limit }) => {
                self.open(session, SessionKind { media, topology }, limit);
            }
            Action::ShowNewSession => self.show_dialog(ctx, Dialog::Open(OpenForm::default())),
            Action::Copy(text, name) => {
                ctx.copy_text(text);
                let now = ctx.input(|input| input.time);
                self.notices.toast(format!("{name} copied"), None, now);
            }
            Action::OpenUrl(url) => self.open_url(ctx, url),
            Action::JoinFromChat { target, muted } => self.join_from_chat(target, muted),
            Action::EditLink { session, link } => {
                self.unsent.push_back(Command::Leave { session });
                self.sessions.edit_link(link);
            }
            Action::Resume(accepted) => self.resume_sessions(accepted),
            Action::Rename(name) => {
                self.set_name(name);
                self.save_settings();
            }
            Action::ShowQrCode(link) => {
                let session_name = labels::session_name_in_sentence(&self.snapshot, &link.session);
                self.show_dialog(ctx, Dialog::QrCode { link, session_name });
            }
            Action::ShowSettings => {
                let applies_now = self.is_idle();
                let form = SettingsForm::new(self.settings.clone(), applies_now);
                self.show_dialog(ctx, Dialog::Settings(form));
            }
            Action::SaveReport => self.save_report(ctx),
            Action::ShowHelp => self.show_dialog(ctx, Dialog::Help(self.settings.keys)),
            Action::Pin(source) => {
                let pinned = self.stream_panels.pinned == Some(source);
                self.stream_panels.pinned = (!pinned).then_some(source);
            }
            Action::ToggleFullScreen => self.set_full_screen(ctx, !self.stream_panels.full_screen),
            Action::SetMirror(mirror) => {
                self.settings.mirror = mirror;
                self.save_settings();
            }
            Action::SetVoiceProcessing(chosen) => self.set_voice_processing(chosen),
            Action::UseDevice(device, spec) => self.use_device(device, spec),
            Action::ConfirmEject { session, participant, name } => {
                let session_name = labels::session_name_in_sentence(&self.snapshot, &session);
                let eject = Dialog::Eject {
                    session,
                    session_name,
                    participant,
                    name,
                    block_address: false,
                };
                self.show_dialog(ctx, eject);
            }
            Action::ConfirmLeaveAll => match self.participant_count() {
                0 => self.handle_action(ctx, Command::Depart(Departure::LeaveAll).into()),
                present => self.show_dialog(ctx, Dialog::LeaveAll(present)),
            },
            Action::ConfirmClose(session) => {
                let session_name = labels::session_name_in_sentence(&self.snapshot, &session);
                self.show_dialog(ctx, Dialog::Close { session, session_name });
            }
            Action::ToggleStatistics => self.statistics.toggle(),
            Action::ToggleTileFigures => self.tile_figures.toggle(),
            Action::ToggleChat(session) => self.chats.toggle(session),
            Action::DismissError(index) => self.notices.dismiss_error(index),
        }
        ctx.request_repaint();
    }

    fn open(&mut self, session: Option<SessionId>, kind: SessionKind, limit: Option<u16>) {
        let session = session.unwrap_or_else(fresh_session_id);
        self.unsent.push_back(Command::Open(OpenRequest { session, kind, limit }));
    }

    /// Joins a session. If the session is listed already, its card is shown instead. A listed
    /// session that is still being sought at another hub is left first: its link was perhaps
    /// mistyped. Returns whether the join was requested.
    fn join(&mut self, target: JoinTarget, wait: bool) -> bool {
        let mut sessions = self.snapshot.sessions.iter();
        let is_active =
            |one: &SessionStatus| one.session == target.session && !labels::is_over(&one.state);
        if let Some(listed) = sessions.find(|one| is_active(one)) {
            self.sessions.show(&target.session);
            let is_being_sought = listed.role == Role::Guest
                && matches!(
                    listed.state,
                    SessionState::Connecting
                        | SessionState::Unreachable { .. }
                        | SessionState::Waiting
                );
            let hub = listed.hub_address();
            if !is_being_sought || target.hub.is_none() || target.hub.as_ref() == hub {
                return false;
            }
            self.unsent.push_back(Command::Leave { session: target.session.clone() });
        }
        self.unsent.push_back(Command::Join { target, wait });
        true
    }

    /// Whether no session is active, so that the engine can be restarted.
    fn is_idle(&self) -> bool {
        let mut sessions = self.snapshot.sessions.iter();
        sessions.all(|one| labels::is_over(&one.state)) && self.snapshot.departure.is_none()
    }

    fn handle_shortcut(&mut self, ctx: &Context, shortcut: Shortcut) {
        let gates = self.snapshot.enabled;
        let mut set = |gate, open| {
            self.unsent.push_back(Command::SetEnabled {
                session: None,
                switch: gate,
                enabled: open,
            });
        };
        match shortcut {
            Shortcut::Switch(switch) => set(switch, !gates.has(switch)),
            Shortcut::Talk(true) if !gates.sources.microphone => {
                set(MuteSwitch::MICROPHONE, true);
                self.push_to_talk_active = true;
            }
            Shortcut::Talk(false) if self.push_to_talk_active => {
                set(MuteSwitch::MICROPHONE, false);
                self.push_to_talk_active = false;
            }
            Shortcut::Talk(_) => {}
            Shortcut::Paste(text) => {
                self.show_sessions_panel(ctx);
                if let Some(action) = self.sessions.paste(&text) {
                    self.handle_action(ctx, action);
                }
            }
            Shortcut::FullScreen => self.set_full_screen(ctx, !self.stream_panels.full_screen),
            Shortcut::Escape => self.set_full_screen(ctx, false),
            Shortcut::Session(index) => {
                self.show_sessions_panel(ctx);
                self.sessions.show_nth(index, &self.snapshot);
            }
            Shortcut::Statistics => self.statistics.toggle(),
            Shortcut::TileFigures => self.tile_figures.toggle(),
            Shortcut::Help => self.show_dialog(ctx, Dialog::Help(self.settings.keys)),
        }
    }

    fn set_full_screen(&mut self, ctx: &Context, full: bool) {
        if self.stream_panels.full_screen != full {
            self.stream_panels.full_screen = full;
            ctx.send_viewport_cmd(ViewportCommand::Fullscreen(full));
        }
    }

    fn use_device(&mut self, device: DeviceKind, chosen: DeviceChoice) {
        let mut settings = self.settings.clone();
        settings.device_mut(device).clone_from(&chosen);
        self.settings = settings;
        self.save_settings();
        let Some(engine) = &self.engine else { return };
        match devices::apply(&engine.handle, device, &chosen) {
            Ok(true) => {}
            Ok(false) => {
                let name = device.name();
                self.notices.show_error(format!(
                    "The {name} was not changed, because Quintet is busy. Choose it again."
                ));
            }
            Err(error) => self.notices.show_error(error),
        }
    }

    fn apply_settings(&mut self, ctx: &Context, settings: Settings) {
        let is_new_hub = self.settings.hub != settings.hub;
        ctx.set_theme(egui_theme(settings.theme));
        self.set_name(settings.name.clone());
        self.settings = settings;
        self.save_settings();
        if is_new_hub && self.is_idle() {
            self.start(ctx);
        }
    }

    /// Sends the waiting commands until the engine's queue is full.
    fn flush_commands(&mut self, ctx: &Context) {
        let Some(engine) = &self.engine else { return };
        if self.engine_failure.is_some() {
            return;
        }
        while let Some(command) = self.unsent.pop_front() {
            if let Err(command) = engine.handle.try_send(command) {
                self.unsent.push_front(command);
                ctx.request_repaint_after(QUEUE_RETRY_DELAY);
                return;
            }
        }
    }

    /// How many participants are in our sessions. Each is counted once.
    fn participant_count(&self) -> usize {
        labels::participant_count(&self.snapshot)
    }

    /// How many guests are connected to the hubs that run in this program.
    fn guest_count(&self) -> usize {
        self.snapshot.hubs.iter().map(|hub| hub.guests).sum()
    }

    fn confirm_before_quitting(&mut self, ctx: &Context) {
        let (participants, guests) = (self.participant_count(), self.guest_count());
        let is_closing = ctx.input(|input| input.viewport().close_requested());
        let has_ended = self.engine_failure.is_some();
        if is_closing && participants + guests > 0 && !self.quitting && !has_ended {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            // A minimized window can be closed from the task bar. The question must be visible.
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            ctx.send_viewport_cmd(ViewportCommand::Focus);
            self.show_dialog(ctx, Dialog::Quit { present: participants, guests });
        }
    }
}

impl NewSession {
    fn of_kind(kind: SessionKind) -> Self {
        Self { session: None, media: kind.media, topology: kind.topology, limit: None }
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &Context, _: &mut eframe::Frame) {
        self.refresh(ctx);
    }

    fn ui(&mut self, ui: &mut Ui, _: &mut eframe::Frame) {
        self.draw(ui);
    }

    fn clear_color(&self, visuals: &egui::Visuals) -> [f32; 4] {
        visuals.extreme_bg_color.to_normalized_gamma_f32()
    }
}

/// The local time of day, `14:05`.
fn time_of_day() -> String {
    chrono::Local::now().format("%H:%M").to_string()
}

const fn egui_theme(theme: ThemeChoice) -> Theme {
    match theme {
        ThemeChoice::Dark => Theme::Dark,
        ThemeChoice::Light => Theme::Light,
    }
}

mod chat_urls;
mod engine_failure;
mod layout;
mod persistence;
mod report;
mod services;
mod statistics;
#[cfg(test)]
mod tests;
mod visibility;
