//! The window's main loop: reads the snapshot, draws the panels, and performs the actions that they
//! return.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use eframe::egui::{self, Context, Theme, Ui, ViewportCommand};

use looks::wanted;

use super::{
    browser::Browser,
    chat::Chats,
    chosen::Chosen,
    colours::Colours,
    devices::{DeviceKind, DeviceLists},
    dialogs::{Dialog, OpenForm, Outcome, SettingsForm},
    keys::{KeyDeed, Keys},
    notices::{Notices, people::Change},
    pictures::Pictures,
    resume::{Keeper, LeftBehind},
    scene::until_next_second,
    sessions::SessionsPanel,
    settings::{Settings, ThemeChoice},
    streams::Streams,
    theme,
    want::{Opening, Want},
    words,
};
use crate::{
    engine::fresh_session_id,
    media,
    model::{
        Command, Departure, Event, Gate, JoinTarget, MediaTime, OpenRequest, Role, SessionId,
        SessionKind, SessionState, SessionStatus, Snapshot,
    },
};

pub(crate) use backstage::{Backstage, Running};

/// How often audio levels are read while a stream can be heard. Levels change more slowly than
/// video.
const LEVELS: Duration = Duration::from_millis(80);

/// How long to wait before sending again when the engine's command queue is full.
const BREATH: Duration = Duration::from_millis(50);

/// The window: the widgets, their state, and the engine's handle.
pub(crate) struct App {
    engine: Option<Running>,
    backstage: Option<Backstage>,
    snapshot: Arc<Snapshot>,
    /// When the snapshot was read, on the engine's clock.
    now: MediaTime,
    settings: Settings,
    /// Commands that the engine has not accepted yet. While there are any, the controls are
    /// disabled.
    unsent: VecDeque<Command>,
    sessions: SessionsPanel,
    streams: Streams,
    chats: Chats,
    colours: Colours,
    browser: Browser,
    pictures: Pictures,
    devices: DeviceLists,
    notices: Notices,
    /// The sessions of an earlier window, offered to be resumed.
    left_behind: Option<LeftBehind>,
    keeper: Option<Keeper>,
    keys: Keys,
    dialog: Option<Dialog>,
    /// The widget that had the focus when the dialog opened. It gets the focus back.
    behind: Option<egui::Id>,
    /// The user may have resized panels since their sizes were last saved.
    moved: bool,
    /// The push-to-talk key unmuted the microphone. Releasing the key mutes it again.
    talking: bool,
    /// The user has confirmed quitting, or the program was asked to exit.
    quitting: bool,
    /// The current window title.
    title: &'static str,
}

impl App {
    /// Creates the window with these settings. It has no engine until [`Self::start`].
    pub(crate) fn new(ctx: &Context, settings: Settings, backstage: Option<Backstage>) -> Self {
        theme::install(ctx);
        ctx.set_theme(egui_theme(settings.theme));
        let runtime = backstage.as_ref().map(|backstage| backstage.runtime.clone());
        Self {
            engine: None,
            backstage,
            snapshot: Arc::default(),
            now: MediaTime::default(),
            settings,
            unsent: VecDeque::new(),
            sessions: SessionsPanel::default(),
            streams: Streams::default(),
            chats: Chats::default(),
            colours: Colours::default(),
            browser: Browser::new(runtime.clone()),
            pictures: Pictures::default(),
            devices: DeviceLists::new(runtime),
            notices: Notices::default(),
            left_behind: None,
            keeper: None,
            keys: Keys::default(),
            dialog: None,
            behind: None,
            moved: false,
            talking: false,
            quitting: false,
            title: words::title(&Snapshot::default()),
        }
    }

    /// Starts the engine. A running engine is dropped first.
    pub(crate) fn start(&mut self, ctx: &Context) {
        self.pictures.clear();
        self.engine = None;
        let Some(backstage) = &self.backstage else { return };
        backstage.goodbye.keep_engine(None);
        let mut errors = vec![];
        self.engine = (backstage.start)(&self.settings, &mut errors);
        backstage.goodbye.keep_engine(self.engine.as_ref().map(|engine| engine.handle.closer()));
        for error in errors {
            self.notices.error(error);
        }
        if let Some(engine) = &self.engine {
            let ctx = ctx.clone();
            engine.handle.subscribe(Arc::new(move || ctx.request_repaint()));
        }
    }

    /// Shows an error until the user dismisses it.
    pub(crate) fn tell(&mut self, error: String) {
        self.notices.error(error);
    }

    /// Shows that a paste failed because the clipboard's owner did not answer.
    pub(crate) fn nothing_pasted(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        let text = "Nothing was pasted. The program you copied from does not answer.";
        self.notices.toast(text.to_owned(), None, now);
        ctx.request_repaint();
    }

    /// Reads the engine's news. Runs also while the window is hidden.
    pub(crate) fn read(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        self.now = media::now();
        let is_hidden = ctx.input(|input| input.viewport().visible() == Some(false));
        if let Some(engine) = &self.engine {
            self.snapshot = engine.handle.snapshot();
        }
        if let Some(keeper) = &self.keeper {
            keeper.keep(&self.snapshot);
        }
        while let Some(event) =
            self.engine.as_mut().and_then(|engine| engine.events.try_recv().ok())
        {
            self.happened(&event, now);
        }
        if let Some(engine) = &self.engine {
            if is_hidden {
                self.pictures.clear();
                self.ask_before_quitting(ctx);
            } else {
                let visible = wanted(&self.snapshot, &self.streams.looked_at, self.devices.open);
                self.pictures.refresh(ctx, &engine.handle, &visible);
                if !visible.heard.is_empty() {
                    ctx.request_repaint_after(LEVELS);
                }
                if let Some(wait) = until_next_second(&self.snapshot, self.now) {
                    ctx.request_repaint_after(wait);
                }
            }
        }
        let failed = self.backstage.as_ref().and_then(|backstage| backstage.failed.take());
        if let Some(error) = failed {
            self.notices.error(error);
        }
        if let Some(url) = self.browser.failed() {
            ctx.copy_text(url);
            self.notices.toast(
                "No browser opened. The link is copied instead.".to_owned(),
                None,
                now,
            );
        }
        if let Some(probed) = self.browser.answered() {
            self.followed(ctx, probed);
        }
        self.look_outside(ctx);
        self.entitle(ctx);
        self.flush(ctx);
    }

    /// Sets the window title from the snapshot.
    fn entitle(&mut self, ctx: &Context) {
        let title = words::title(&self.snapshot);
        if title != self.title {
            self.title = title;
            ctx.send_viewport_cmd(ViewportCommand::Title(title.to_owned()));
        }
    }

    /// Shows an event as a notice and in the chat. A message gets no notice if its chat is open.
    fn happened(&mut self, event: &Event, now: f64) {
        let is_seen =
            matches!(event, Event::Message { session, .. } if self.chats.is_open(session));
        if !is_seen {
            self.notices.note(event, &self.snapshot, now);
        }
        self.chats.note(event, &time_of_day());
    }

    /// Draws the panels and the dialog, and performs the actions of the user.
    pub(crate) fn draw(&mut self, ui: &mut Ui) {
        let ctx = ui.ctx().clone();
        ctx.accesskit_node_builder(egui::accesskit_root_id(), |window| {
            window.set_label(self.title)
        });
        self.ask_before_quitting(&ctx);
        let full_screen = self.streams.full_screen && self.dialog.is_none();
        if !self.dialog.as_ref().is_some_and(Dialog::awaits_key) {
            let needs_answer = self.dialog.as_ref().is_some_and(Dialog::asks);
            for shortcut in self.keys.take(&ctx, &self.settings.keys, full_screen) {
                // A dialog that waits for an answer takes all shortcuts except push-to-talk.
                if !needs_answer || matches!(shortcut, KeyDeed::Talk(_)) {
                    self.key(&ctx, shortcut);
                }
            }
        }
        let visible_before = self.streams.looked_at.clone();
        self.streams.begin();
        let actions = self.panels(ui);
        if self.streams.looked_at != visible_before {
            // The next frame adds and removes frame taps.
            ctx.request_repaint();
        }
        for action in actions.into_iter().flatten() {
            self.act(&ctx, action);
        }
        self.tell_who_stopped(&ctx);
        self.draw_dialog(&ctx);
        self.flush(&ctx);
    }

    /// Shows a notice for each participant whose video has just stopped.
    fn tell_who_stopped(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        let snapshot = Arc::clone(&self.snapshot);
        for tile in self.streams.newly_stopped((&snapshot, now), &self.pictures) {
            let session = &snapshot.sessions[tile.lane].session;
            let participant = (tile.participant, tile.name);
            self.notices.people(Change::Stopped, participant, (&snapshot, session), now);
            ctx.request_repaint();
        }
    }

    /// Opens a dialog in front of everything. [`Self::restore_focus`] returns the focus when it
    /// closes.
    fn show(&mut self, ctx: &Context, dialog: Dialog) {
        if self.dialog.is_none() {
            self.behind = ctx.memory(egui::Memory::focused);
        }
        self.dialog = Some(dialog);
    }

    /// Returns the focus to the widget that had it before the dialog. egui blocks focus behind a
    /// modal for one more frame, so this may take two frames.
    fn give_focus_back(&mut self, ctx: &Context) {
        if self.behind.is_none() {
            return;
        }
        ctx.request_repaint();
        if ctx.memory(|memory| memory.top_modal_layer().is_none()) {
            let widget = self.behind.take();
            ctx.memory_mut(|memory| widget.map(|widget| memory.request_focus(widget)));
        }
    }

    fn draw_dialog(&mut self, ctx: &Context) {
        let Some(dialog) = &mut self.dialog else { return self.give_focus_back(ctx) };
        let outcome = dialog.ui(ctx);
        if outcome != Outcome::Open {
            self.dialog = None;
            ctx.request_repaint();
        }
        match outcome {
            Outcome::Open | Outcome::Closed => {}
            Outcome::Want(action) => self.act(ctx, action),
            Outcome::Keep(settings) => self.keep(ctx, settings),
            Outcome::Quit => {
                self.quitting = true;
                ctx.send_viewport_cmd(ViewportCommand::Close);
            }
        }
    }

    fn act(&mut self, ctx: &Context, action: Want) {
        match action {
            Want::Command(Command::Join { target, wait }) => drop(self.join(target, wait)),
            Want::Command(command) => self.unsent.push_back(command),
            Want::OpenFive => {
                for kind in SessionKind::FIVE {
                    let Opening { session, limit, .. } = Opening::fresh(kind);
                    self.open(session, kind, limit);
                }
            }
            Want::Open(Opening { session, media, topology, limit }) => {
                self.open(session, SessionKind { media, topology }, limit);
            }
            Want::ShowOpen => self.show(ctx, Dialog::Open(OpenForm::default())),
            Want::Copy(text, name) => {
                ctx.copy_text(text);
                let now = ctx.input(|input| input.time);
                self.notices.toast(format!("{name} copied"), None, now);
            }
            Want::Follow(url) => self.follow(ctx, url),
            Want::JoinLinked { target, muted } => self.join_linked(target, muted),
            Want::EditLink { session, link } => {
                self.unsent.push_back(Command::Leave { session });
                self.sessions.edit(link);
            }
            Want::Resume(accepted) => self.resume(accepted),
            Want::Rename(name) => {
                self.rename(name);
                self.save();
            }
            Want::ShowCode(link) => {
                let session_name = words::the_place(&self.snapshot, &link.session);
                self.show(ctx, Dialog::Code { link, place: session_name });
            }
            Want::ShowSettings => {
                let applies_now = self.is_idle();
                let form = SettingsForm::new(self.settings.clone(), applies_now);
                self.show(ctx, Dialog::Settings(form));
            }
            Want::ShowHelp => self.show(ctx, Dialog::Help(self.settings.keys)),
            Want::Pin(source) => {
                let pinned = self.streams.pinned == Some(source);
                self.streams.pinned = (!pinned).then_some(source);
            }
            Want::FullScreen => self.full_screen(ctx, !self.streams.full_screen),
            Want::Mirror(mirror) => {
                self.settings.mirror = mirror;
                self.save();
            }
            Want::Use(device, spec) => self.use_device(device, spec),
            Want::AskEject { session, participant, name } => {
                let session_name = words::the_place(&self.snapshot, &session);
                let eject = Dialog::Eject {
                    session,
                    place: session_name,
                    participant,
                    name,
                    address: false,
                };
                self.show(ctx, eject);
            }
            Want::AskLeaveAll => match self.present() {
                0 => self.act(ctx, Command::Depart(Departure::LeaveAll).into()),
                present => self.show(ctx, Dialog::LeaveAll(present)),
            },
            Want::AskClose(session) => {
                let session_name = words::the_place(&self.snapshot, &session);
                self.show(ctx, Dialog::Close { session, place: session_name });
            }
            Want::ShowChat(session) => self.chats.toggle(session),
            Want::Dismiss(index) => self.notices.dismiss(index),
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
            |one: &&SessionStatus| one.session == target.session && !words::is_over(&one.state);
        if let Some(listed) = sessions.find(is_active) {
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
        sessions.all(|one| words::is_over(&one.state)) && self.snapshot.departure.is_none()
    }

    fn key(&mut self, ctx: &Context, shortcut: KeyDeed) {
        let gates = self.snapshot.gates;
        let mut set = |gate, open| {
            self.unsent.push_back(Command::SetGate { session: None, gate, open });
        };
        match shortcut {
            KeyDeed::Mute => set(Gate::Microphone, !gates.microphone),
            KeyDeed::Camera => set(Gate::Camera, !gates.camera),
            KeyDeed::Deafen => set(Gate::Listening, !gates.listening),
            KeyDeed::Talk(true) if !gates.microphone => {
                set(Gate::Microphone, true);
                self.talking = true;
            }
            KeyDeed::Talk(false) if self.talking => {
                set(Gate::Microphone, false);
                self.talking = false;
            }
            KeyDeed::Talk(_) => {}
            KeyDeed::Paste(text) => {
                self.uncover_sessions(ctx);
                if let Some(action) = self.sessions.paste(&text) {
                    self.act(ctx, action);
                }
            }
            KeyDeed::FullScreen => self.full_screen(ctx, !self.streams.full_screen),
            KeyDeed::Escape => self.full_screen(ctx, false),
            KeyDeed::Lane(index) => {
                self.uncover_sessions(ctx);
                self.sessions.show_lane(index, &self.snapshot);
            }
            KeyDeed::Help => self.show(ctx, Dialog::Help(self.settings.keys)),
        }
    }

    fn full_screen(&mut self, ctx: &Context, full: bool) {
        if self.streams.full_screen != full {
            self.streams.full_screen = full;
            ctx.send_viewport_cmd(ViewportCommand::Fullscreen(full));
        }
    }

    fn use_device(&mut self, device: DeviceKind, chosen: Chosen) {
        let mut settings = self.settings.clone();
        let choice = match device {
            DeviceKind::Camera => &mut settings.camera,
            DeviceKind::Microphone => &mut settings.microphone,
            DeviceKind::Speaker => &mut settings.speaker,
        };
        choice.clone_from(&chosen);
        self.settings = settings;
        self.save();
        let Some(engine) = &self.engine else { return };
        let handle = &engine.handle;
        let result = match device {
            DeviceKind::Camera => chosen
                .camera()
                .map_err(|error| error.to_string())
                .map(|spec| handle.set_camera(spec).is_ok()),
            DeviceKind::Microphone => chosen
                .microphone()
                .map_err(|error| error.to_string())
                .map(|spec| handle.set_microphone(spec).is_ok()),
            DeviceKind::Speaker => chosen
                .speaker()
                .map_err(|error| error.to_string())
                .map(|spec| handle.set_speaker(spec).is_ok()),
        };
        match result {
            Ok(true) => {}
            Ok(false) => {
                let name = device.name();
                self.notices.error(format!(
                    "The {name} was not changed, because Quintet is busy. Choose it again."
                ));
            }
            Err(error) => self.notices.error(error),
        }
    }

    fn keep(&mut self, ctx: &Context, settings: Settings) {
        let is_new_hub = self.settings.hub != settings.hub;
        ctx.set_theme(egui_theme(settings.theme));
        self.rename(settings.name.clone());
        self.settings = settings;
        self.save();
        if is_new_hub && self.is_idle() {
            self.start(ctx);
        }
    }

    /// Sends the waiting commands until the engine's queue is full.
    fn flush(&mut self, ctx: &Context) {
        let Some(engine) = &self.engine else { return };
        while let Some(command) = self.unsent.pop_front() {
            if let Err(command) = engine.handle.try_send(command) {
                self.unsent.push_front(command);
                ctx.request_repaint_after(BREATH);
                return;
            }
        }
    }

    /// How many participants are in our sessions. Each is counted once.
    fn present(&self) -> usize {
        words::people(&self.snapshot)
    }

    /// How many guests are connected to the hubs that run in this program.
    fn guests(&self) -> usize {
        self.snapshot.hubs.iter().map(|hub| hub.guests).sum()
    }

    fn ask_before_quitting(&mut self, ctx: &Context) {
        let (participants, guests) = (self.present(), self.guests());
        let is_closing = ctx.input(|input| input.viewport().close_requested());
        if is_closing && participants + guests > 0 && !self.quitting {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            // A minimized window can be closed from the task bar. The question must be visible.
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            ctx.send_viewport_cmd(ViewportCommand::Focus);
            self.show(ctx, Dialog::Quit { present: participants, guests });
        }
    }
}

impl Opening {
    fn fresh(kind: SessionKind) -> Self {
        Self { session: None, media: kind.media, topology: kind.topology, limit: None }
    }
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &Context, _: &mut eframe::Frame) {
        self.read(ctx);
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

mod backstage;
mod follow;
mod layout;
mod looks;
mod memory;
#[cfg(test)]
mod tests;
