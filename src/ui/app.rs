//! The window's one loop: reads the snapshot, draws the panels, sends what they want.

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

/// How often levels are read while something may be heard: they move, but not like pictures.
const LEVELS: Duration = Duration::from_millis(80);

/// How long a full queue is left alone.
const BREATH: Duration = Duration::from_millis(50);

/// The window: widgets and their state, and the engine's handle.
pub(crate) struct App {
    engine: Option<Running>,
    backstage: Option<Backstage>,
    snapshot: Arc<Snapshot>,
    /// The time of the snapshot, on the engine's clock.
    now: MediaTime,
    settings: Settings,
    /// What the engine did not take yet; while there is something, controls are grey.
    unsent: VecDeque<Command>,
    sessions: SessionsPanel,
    streams: Streams,
    chats: Chats,
    colours: Colours,
    browser: Browser,
    pictures: Pictures,
    devices: DeviceLists,
    notices: Notices,
    /// Sessions of a window that ended without leaving them.
    left_behind: Option<LeftBehind>,
    keeper: Option<Keeper>,
    keys: Keys,
    dialog: Option<Dialog>,
    /// What had the focus when the dialog came, and gets it back.
    behind: Option<egui::Id>,
    /// Edges of panels may have been moved since their sizes were kept.
    moved: bool,
    /// The microphone was opened by Space, and closes with it.
    talking: bool,
    /// The person wants to quit, whoever is present.
    quitting: bool,
    /// The title that the window has.
    title: &'static str,
}

impl App {
    /// The window of these settings, without an engine until [`Self::start`].
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

    /// Starts the engine, or starts it anew; what was running is dropped.
    pub(crate) fn start(&mut self, ctx: &Context) {
        self.pictures.clear();
        self.engine = None;
        let Some(backstage) = &self.backstage else { return };
        backstage.goodbye.keep_engine(None);
        let mut errors = vec![];
        self.engine = (backstage.start)(&self.settings, &mut errors);
        backstage.goodbye.keep_engine(self.engine.as_ref().map(|one| one.handle.closer()));
        for error in errors {
            self.notices.error(error);
        }
        if let Some(engine) = &self.engine {
            let ctx = ctx.clone();
            engine.handle.subscribe(Arc::new(move || ctx.request_repaint()));
        }
    }

    /// Tells an error until it is read.
    pub(crate) fn tell(&mut self, error: String) {
        self.notices.error(error);
    }

    /// Tells that nothing was pasted.
    pub(crate) fn nothing_pasted(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        let text = "Nothing was pasted. The program you copied from does not answer.";
        self.notices.toast(text.to_owned(), None, now);
        ctx.request_repaint();
    }

    /// Reads what is new, whether anybody sees the window or not.
    pub(crate) fn read(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        self.now = media::now();
        let away = ctx.input(|input| input.viewport().visible() == Some(false));
        if let Some(engine) = &self.engine {
            self.snapshot = engine.handle.snapshot();
        }
        if let Some(keeper) = &self.keeper {
            keeper.keep(&self.snapshot);
        }
        while let Some(event) = self.engine.as_mut().and_then(|one| one.events.try_recv().ok()) {
            self.happened(&event, now);
        }
        if let Some(engine) = &self.engine {
            if away {
                self.pictures.clear();
                self.ask_before_quitting(ctx);
            } else {
                let wanted = wanted(&self.snapshot, &self.streams.looked_at, self.devices.open);
                self.pictures.refresh(ctx, &engine.handle, &wanted);
                if !wanted.heard.is_empty() {
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
        if let Some(link) = self.browser.failed() {
            ctx.copy_text(link);
            self.notices.toast(
                "No browser opened. The link is copied instead.".to_owned(),
                None,
                now,
            );
        }
        if let Some(followed) = self.browser.answered() {
            self.followed(ctx, followed);
        }
        self.look_outside(ctx);
        self.entitle(ctx);
        self.flush(ctx);
    }

    /// Gives the window the title that is true now.
    fn entitle(&mut self, ctx: &Context) {
        let title = words::title(&self.snapshot);
        if title != self.title {
            self.title = title;
            ctx.send_viewport_cmd(ViewportCommand::Title(title.to_owned()));
        }
    }

    /// Tells what happened; what an open chat shows is not told beside it.
    fn happened(&mut self, event: &Event, now: f64) {
        let is_seen =
            matches!(event, Event::Message { session, .. } if self.chats.is_open(session));
        if !is_seen {
            self.notices.note(event, &self.snapshot, now);
        }
        self.chats.note(event, &time_of_day());
    }

    /// Draws everything and acts on what is wanted.
    pub(crate) fn draw(&mut self, ui: &mut Ui) {
        let ctx = ui.ctx().clone();
        ctx.accesskit_node_builder(egui::accesskit_root_id(), |window| {
            window.set_label(self.title)
        });
        self.ask_before_quitting(&ctx);
        let full_screen = self.streams.full_screen && self.dialog.is_none();
        if !self.dialog.as_ref().is_some_and(Dialog::awaits_key) {
            let asked = self.dialog.as_ref().is_some_and(Dialog::asks);
            for deed in self.keys.take(&ctx, &self.settings.keys, full_screen) {
                // Who writes a name or is asked something does not mute by it, but may talk.
                if !asked || matches!(deed, KeyDeed::Talk(_)) {
                    self.key(&ctx, deed);
                }
            }
        }
        let looked_at = self.streams.looked_at.clone();
        self.streams.begin();
        let wants = self.panels(ui);
        if self.streams.looked_at != looked_at {
            // Taps come and go before the next drawing.
            ctx.request_repaint();
        }
        for want in wants.into_iter().flatten() {
            self.act(&ctx, want);
        }
        self.tell_who_stopped(&ctx);
        self.draw_dialog(&ctx);
        self.flush(&ctx);
    }

    /// Tells whose picture has stopped.
    fn tell_who_stopped(&mut self, ctx: &Context) {
        let now = ctx.input(|input| input.time);
        let snapshot = Arc::clone(&self.snapshot);
        for face in self.streams.newly_stopped((&snapshot, now), &self.pictures) {
            let session = &snapshot.sessions[face.lane].session;
            let who = (face.participant, face.name);
            self.notices.people(Change::Stopped, who, (&snapshot, session), now);
            ctx.request_repaint();
        }
    }

    /// Puts a dialog in front of everything; the focus comes back from it.
    fn show(&mut self, ctx: &Context, dialog: Dialog) {
        if self.dialog.is_none() {
            self.behind = ctx.memory(egui::Memory::focused);
        }
        self.dialog = Some(dialog);
    }

    /// Gives the focus to what had it before the dialog came. The library keeps it from everything
    /// behind a dialog for one drawing more.
    fn give_focus_back(&mut self, ctx: &Context) {
        if self.behind.is_none() {
            return;
        }
        ctx.request_repaint();
        if ctx.memory(|memory| memory.top_modal_layer().is_none()) {
            let behind = self.behind.take();
            ctx.memory_mut(|memory| behind.map(|behind| memory.request_focus(behind)));
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
            Outcome::Want(want) => self.act(ctx, want),
            Outcome::Keep(settings) => self.keep(ctx, settings),
            Outcome::Quit => {
                self.quitting = true;
                ctx.send_viewport_cmd(ViewportCommand::Close);
            }
        }
    }

    fn act(&mut self, ctx: &Context, want: Want) {
        match want {
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
            Want::Copy(text, what) => {
                ctx.copy_text(text);
                let now = ctx.input(|input| input.time);
                self.notices.toast(format!("{what} copied"), None, now);
            }
            Want::Follow(link) => self.follow(ctx, link),
            Want::JoinLinked { target, muted } => self.join_linked(target, muted),
            Want::EditLink { session, link } => {
                self.unsent.push_back(Command::Leave { session });
                self.sessions.edit(link);
            }
            Want::Resume(wanted) => self.resume(wanted),
            Want::Rename(name) => {
                self.rename(name);
                self.save();
            }
            Want::ShowCode(link) => {
                let place = words::the_place(&self.snapshot, &link.session);
                self.show(ctx, Dialog::Code { link, place });
            }
            Want::ShowSettings => {
                let at_once = self.is_idle();
                let form = SettingsForm::new(self.settings.clone(), at_once);
                self.show(ctx, Dialog::Settings(form));
            }
            Want::ShowHelp => self.show(ctx, Dialog::Help(self.settings.keys)),
            Want::Pin(picture) => {
                let pinned = self.streams.pinned == Some(picture);
                self.streams.pinned = (!pinned).then_some(picture);
            }
            Want::FullScreen => self.full_screen(ctx, !self.streams.full_screen),
            Want::Mirror(mirror) => {
                self.settings.mirror = mirror;
                self.save();
            }
            Want::Use(device, spec) => self.use_device(device, spec),
            Want::AskEject { session, participant, name } => {
                let place = words::the_place(&self.snapshot, &session);
                let eject = Dialog::Eject { session, place, participant, name, address: false };
                self.show(ctx, eject);
            }
            Want::AskLeaveAll => match self.present() {
                0 => self.act(ctx, Command::Depart(Departure::LeaveAll).into()),
                present => self.show(ctx, Dialog::LeaveAll(present)),
            },
            Want::AskClose(session) => {
                let place = words::the_place(&self.snapshot, &session);
                self.show(ctx, Dialog::Close { session, place });
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

    /// Joins, or shows the lane of a session that is here. One that is sought at another hub was
    /// perhaps a mistyped link: it is sought here instead. Whether it is asked for now.
    fn join(&mut self, target: JoinTarget, wait: bool) -> bool {
        let mut sessions = self.snapshot.sessions.iter();
        let is_here =
            |one: &&SessionStatus| one.session == target.session && !words::is_over(&one.state);
        if let Some(here) = sessions.find(is_here) {
            self.sessions.show(&target.session);
            let is_sought = here.role == Role::Guest
                && matches!(
                    here.state,
                    SessionState::Connecting
                        | SessionState::Unreachable { .. }
                        | SessionState::Waiting
                );
            let hub = here.hub_address();
            if !is_sought || target.hub.is_none() || target.hub.as_ref() == hub {
                return false;
            }
            self.unsent.push_back(Command::Leave { session: target.session.clone() });
        }
        self.unsent.push_back(Command::Join { target, wait });
        true
    }

    /// Whether no session would be lost.
    fn is_idle(&self) -> bool {
        let mut sessions = self.snapshot.sessions.iter();
        sessions.all(|one| words::is_over(&one.state)) && self.snapshot.departure.is_none()
    }

    fn key(&mut self, ctx: &Context, deed: KeyDeed) {
        let gates = self.snapshot.gates;
        let mut set = |gate, open| {
            self.unsent.push_back(Command::SetGate { session: None, gate, open });
        };
        match deed {
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
                if let Some(want) = self.sessions.paste(&text) {
                    self.act(ctx, want);
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
        let place = match device {
            DeviceKind::Camera => &mut settings.camera,
            DeviceKind::Microphone => &mut settings.microphone,
            DeviceKind::Speaker => &mut settings.speaker,
        };
        place.clone_from(&chosen);
        self.settings = settings;
        self.save();
        let Some(engine) = &self.engine else { return };
        let handle = &engine.handle;
        let told = match device {
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
        match told {
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
        let anew = self.settings.hub != settings.hub;
        ctx.set_theme(egui_theme(settings.theme));
        self.rename(settings.name.clone());
        self.settings = settings;
        self.save();
        if anew && self.is_idle() {
            self.start(ctx);
        }
    }

    /// Sends what waits, as much as the engine takes.
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

    /// How many people are in our sessions.
    fn present(&self) -> usize {
        words::people(&self.snapshot)
    }

    /// How many people meet at hubs that end with this program.
    fn guests(&self) -> usize {
        self.snapshot.hubs.iter().map(|hub| hub.guests).sum()
    }

    fn ask_before_quitting(&mut self, ctx: &Context) {
        let (present, guests) = (self.present(), self.guests());
        let asked = ctx.input(|input| input.viewport().close_requested());
        if asked && present + guests > 0 && !self.quitting {
            ctx.send_viewport_cmd(ViewportCommand::CancelClose);
            // A window that nobody sees is closed from a task bar; it cannot ask there.
            ctx.send_viewport_cmd(ViewportCommand::Minimized(false));
            ctx.send_viewport_cmd(ViewportCommand::Focus);
            self.show(ctx, Dialog::Quit { present, guests });
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

/// The time of day here, `14:05`.
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
