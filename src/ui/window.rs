//! Opens the window, with a runtime beside it for everything that waits.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use eframe::{
    egui::{Context, IconData, Vec2, ViewportBuilder, ViewportCommand, vec2},
    icon_data,
};

use super::{
    app::{App, Backstage, Running},
    clipboard::{Clipboard, Platform},
    display::{self, Display},
    goodbye::Goodbye,
    resume::{self, Keeper, LeftBehind},
    settings::{Settings, SettingsError, WindowSize},
    settings_file::SettingsFile,
    typing::Typing,
};
use crate::{
    engine::Engine,
    model::JoinTarget,
    process::{
        Output, Signals, exit_now,
        instance::{self, Door, InstanceError, Start},
    },
};

/// Down to this size everything has its place, in points.
const ROOMY: Vec2 = vec2(800.0, 600.0);

/// The window cannot be made smaller, in points.
const LEAST: Vec2 = vec2(640.0, 480.0);

/// What systems put above and below windows, in points: a title bar, and a bar of programs.
const BARS: f32 = 88.0;

/// How long a window may take to close when the program is asked to end. One that hangs is left to
/// itself: everybody is told goodbye all the same.
const CLOSING: Duration = Duration::from_secs(4);

/// How long what still runs at the end may take, such as a disk that does not answer.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// What the window is to begin with.
#[derive(Clone, Debug, Default)]
pub struct Beginning {
    /// The sessions to join.
    pub targets: Vec<JoinTarget>,
    /// Whether this is a person beside the one whose window is open already.
    pub is_separate: bool,
}

/// Opens the window and returns when it was closed and every session was left properly; or hands
/// what it was given to the window that is open on this display already.
///
/// Must be called on the program's main thread, outside any runtime, before there is a second
/// thread: the program may have to start anew with another environment.
///
/// # Errors
/// If there is no screen to open a window on, the window that is open hangs, or the system gives no
/// threads.
pub fn run(beginning: Beginning) -> anyhow::Result<()> {
    let display = display::find()?;
    let door = match knock(&display, &beginning)? {
        Knock::Taken => {
            Output::stdout().line("the window that is open has it");
            return Ok(());
        }
        Knock::Nobody(door) => door,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("quintet").build()?;
    let signals = Signals::listen()?;
    let begun = Begun {
        goodbye: Goodbye::begin(runtime.handle()),
        runtime: runtime.handle().clone(),
        ending: Arc::default(),
        context: Arc::default(),
    };
    runtime.spawn(begun.clone().end_when_asked(signals));
    let shown = show(&begun, beginning.targets, door);
    begun.goodbye.say();
    runtime.shutdown_timeout(SHUTDOWN);
    let Err(why) = shown else { return Ok(()) };
    if begun.context.get().is_some() {
        anyhow::bail!(
            "the window failed ({why}); its sessions were left and its settings are kept"
        );
    }
    if let Some(changes) = &display.otherwise {
        Output::stderr().line(&format!(
            "quintet: cannot open a window on {} ({why}); trying X11",
            display.name
        ));
        Output::stderr().finish();
        tracing::error!(error = %display::start_anew(changes), "the program cannot start itself anew");
    }
    anyhow::bail!(
        "cannot open a window ({why}); {}on Debian and Ubuntu `bash .ci/setup` installs what it \
         needs, and `quintet --help` lists what works without a window",
        way_out(&display, &why)
    )
}

/// What else can be tried on that display.
fn way_out(display: &Display, why: &str) -> &'static str {
    if cfg!(target_os = "linux") && display.name.is_empty() {
        "start it from a desktop's terminal, or over `ssh -X`; "
    } else if why.contains("GL") || why.contains("configuration") {
        "try `LIBGL_ALWAYS_SOFTWARE=1 quintet`, which draws without the graphics card; "
    } else {
        ""
    }
}

/// What a start found at the door of the window that may be open already.
enum Knock {
    /// There is none, or this is to be another.
    Nobody(Option<Door>),
    /// It has taken everything.
    Taken,
}

/// Hands what this start was given to the window that is open, if one is.
fn knock(display: &Display, beginning: &Beginning) -> anyhow::Result<Knock> {
    if beginning.is_separate {
        return Ok(Knock::Nobody(None));
    }
    let links = beginning.targets.iter().map(|target| match &target.hub {
        Some(hub) => hub.link(&target.session).to_string(),
        None => target.session.to_string(),
    });
    match instance::start(&display.name, links.collect()) {
        Ok(Start::First(door)) => Ok(Knock::Nobody(Some(door))),
        Ok(Start::HandedOver) => Ok(Knock::Taken),
        Err(error @ InstanceError::Silent { .. }) => Err(error.into()),
        Err(error @ InstanceError::System(_)) => {
            tracing::warn!(%error, "each start opens a window of its own");
            Ok(Knock::Nobody(None))
        }
    }
}

/// What is there before the window.
#[derive(Clone)]
struct Begun {
    goodbye: Goodbye,
    runtime: tokio::runtime::Handle,
    /// The program was asked to end.
    ending: Arc<AtomicBool>,
    /// The window's, once it is open.
    context: Arc<OnceLock<Context>>,
}

impl Begun {
    /// Closes the window when the program is asked to end, or ends without it if it hangs.
    async fn end_when_asked(self, mut signals: Signals) {
        signals.asked().await;
        self.ending.store(true, Ordering::Release);
        if let Some(context) = self.context.get() {
            context.request_repaint();
        }
        tokio::time::sleep(CLOSING).await;
        tracing::warn!("the window does not close");
        // Not on a thread of the runtime, which says goodbye.
        tokio::task::spawn_blocking(move || {
            self.goodbye.say();
            Output::stderr().finish();
            exit_now(0);
        });
    }
}

/// Shows the window until it is closed; else why it could not be opened, or has failed.
fn show(begun: &Begun, targets: Vec<JoinTarget>, door: Option<Door>) -> Result<(), String> {
    let loaded = Loaded::new();
    let (size, is_kept) = (loaded.settings.window, loaded.is_readable());
    let viewport = ViewportBuilder::default()
        .with_title("Quintet")
        .with_app_id("quintet")
        .with_icon(icon())
        .with_inner_size(wanted(size))
        .with_maximized(size.maximized)
        .with_min_inner_size(LEAST);
    let options = eframe::NativeOptions {
        viewport,
        renderer: eframe::Renderer::Glow,
        // They would ask the clipboard's owner and wait.
        clipboard_shortcuts: false,
        ..Default::default()
    };
    let within = begun.clone();
    let created = Box::new(move |context: &eframe::CreationContext<'_>| {
        let ctx = &context.egui_ctx;
        let mut app = open(ctx, &within, loaded, door);
        app.join_all(ctx, targets);
        let goodbye = within.goodbye.clone();
        goodbye.guard_exit();
        // From now on the window is there; a signal that came before is found by its first look.
        let _ = within.context.set(ctx.clone());
        let clipboard = Clipboard::new(Arc::new(Platform::default()));
        let typing = Typing::default();
        let window = Window { app, clipboard, typing, goodbye, is_fitted: false, size, is_kept };
        Ok(Box::new(window) as Box<dyn eframe::App>)
    });
    hush_until_open(Arc::clone(&begun.context));
    let shown = catch_unwind(AssertUnwindSafe(|| eframe::run_native("quintet", options, created)));
    match shown {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(reason_of(&error.to_string())),
        Err(panic) => Err(message_of(&*panic)),
    }
}

/// Why a library failed, without where in it that was noticed.
fn reason_of(error: &str) -> String {
    let reason = error.rsplit(": ").next().unwrap_or(error);
    // The event loop ends with a number when a Wayland compositor has gone.
    if reason.parse::<i32>().is_ok() {
        return "its display is gone".to_owned();
    }
    reason.to_owned()
}

/// Keeps a panic on this thread from printing anything before the window is open: libraries panic
/// at displays that lack something, and the person is told in a sentence. Whoever wants to see where
/// sets `RUST_BACKTRACE`.
fn hush_until_open(context: Arc<OnceLock<Context>>) {
    let here = std::thread::current().id();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_start = std::thread::current().id() == here && context.get().is_none();
        if !is_start || std::env::var_os("RUST_BACKTRACE").is_some() {
            print(panic);
        }
    }));
}

/// What a panic said, in one line.
fn message_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a library failed").lines().collect::<Vec<_>>().join(" ")
}

/// What stands for the program in the system's lists of windows.
fn icon() -> IconData {
    let png = include_bytes!("../../assets/icon.png");
    icon_data::from_png_bytes(png).expect("the icon is a picture")
}

/// The app, and what it does at the end.
struct Window {
    app: App,
    clipboard: Clipboard,
    typing: Typing,
    goodbye: Goodbye,
    /// The window has got a size that its screen has room for.
    is_fitted: bool,
    /// How large it is.
    size: WindowSize,
    /// That is kept: no settings that could not be read are replaced by it.
    is_kept: bool,
}

impl Window {
    /// Makes the window smaller once if its screen is small: only an open window knows that.
    fn fit(&mut self, ctx: &Context) {
        if self.is_fitted {
            return;
        }
        let Some(monitor) = ctx.input(|input| input.viewport().monitor_size) else { return };
        self.is_fitted = true;
        let size = wanted(self.size);
        if !self.size.maximized && fitting(size, monitor) != size {
            ctx.send_viewport_cmd(ViewportCommand::InnerSize(fitting(size, monitor)));
        }
    }

    /// Notes how large the window is, for the next run.
    fn measure(&mut self, ctx: &Context) {
        ctx.input(|input| {
            let viewport = input.viewport();
            if viewport.fullscreen == Some(true) || viewport.minimized == Some(true) {
                return;
            }
            self.size.maximized = viewport.maximized == Some(true);
            if let (false, Some(inside)) = (self.size.maximized, viewport.inner_rect) {
                self.size.width = inside.width().round() as u16;
                self.size.height = inside.height().round() as u16;
            }
        });
        if self.is_kept {
            self.app.note_size(self.size);
        }
    }
}

/// The size that the window had when it was closed, in points.
fn wanted(size: WindowSize) -> Vec2 {
    vec2(f32::from(size.width), f32::from(size.height)).max(LEAST)
}

/// The part of that size that a screen of that size has room for, all in points.
fn fitting(size: Vec2, monitor: Vec2) -> Vec2 {
    size.min(monitor - vec2(0.0, BARS)).max(ROOMY.min(monitor).min(size))
}

impl eframe::App for Window {
    fn logic(&mut self, ctx: &Context, frame: &mut eframe::Frame) {
        self.fit(ctx);
        self.measure(ctx);
        self.app.logic(ctx, frame);
        self.clipboard.take_copies(ctx);
    }

    fn ui(&mut self, ui: &mut eframe::egui::Ui, frame: &mut eframe::Frame) {
        self.app.ui(ui, frame);
        self.clipboard.take_copies(ui.ctx());
    }

    fn raw_input_hook(&mut self, ctx: &Context, input: &mut eframe::egui::RawInput) {
        if self.clipboard.feed(ctx, input) {
            self.app.nothing_pasted(ctx);
        }
        self.typing.feed(ctx, input);
    }

    fn clear_color(&self, visuals: &eframe::egui::Visuals) -> [f32; 4] {
        self.app.clear_color(visuals)
    }

    fn on_exit(&mut self, _: Option<&eframe::glow::Context>) {
        self.app.let_go();
        self.goodbye.say();
        self.clipboard.close();
    }
}

/// The settings as they were read at the start.
struct Loaded {
    file: Option<Arc<SettingsFile>>,
    settings: Settings,
    errors: Vec<SettingsError>,
}

impl Loaded {
    fn new() -> Self {
        let Some(place) = Settings::place() else {
            let errors = vec![SettingsError::NoPlace];
            return Self { file: None, settings: Settings::default(), errors };
        };
        let (file, settings, errors) = SettingsFile::open(place);
        Self { file: Some(Arc::new(file)), settings, errors }
    }

    /// Whether there is a file whose keys can be read.
    fn is_readable(&self) -> bool {
        self.errors.iter().all(|error| matches!(error, SettingsError::Value { .. }))
    }
}

/// The app with the settings that were read.
fn open(ctx: &Context, begun: &Begun, loaded: Loaded, door: Option<Door>) -> App {
    let Loaded { file, settings, errors } = loaded;
    if let Some(file) = &file {
        begun.goodbye.keep_file(Arc::clone(file));
    }
    let starter = begun.runtime.clone();
    let start = Box::new(move |settings: &Settings, errors: &mut Vec<String>| {
        let (options, unusable) = settings.engine();
        errors.extend(unusable.iter().map(ToString::to_string));
        let _inside = starter.enter();
        match Engine::start(options) {
            Ok((handle, events)) => Some(Running { handle, events }),
            Err(error) => {
                errors.push(format!(
                    "Quintet cannot start, because the system gives no random numbers ({error}); \
                     restart the computer"
                ));
                None
            }
        }
    });
    let waker = ctx.clone();
    let door = door.and_then(|door| match door.open(move || waker.request_repaint()) {
        Ok(door) => Some(door),
        Err(error) => {
            tracing::warn!(%error, "each start opens a window of its own");
            None
        }
    });
    let backstage = Backstage {
        runtime: begun.runtime.clone(),
        file,
        start,
        failed: Arc::default(),
        goodbye: begun.goodbye.clone(),
        ending: Arc::clone(&begun.ending),
        door,
    };
    let mut app = App::new(ctx, settings, Some(backstage));
    for error in errors {
        app.tell(error.to_string());
    }
    if let Some(folder) = resume::folder() {
        let left_behind = LeftBehind::find(&folder);
        let (keeper, ending) = Keeper::start(&begun.runtime, folder);
        begun.goodbye.keep_sessions(ending);
        app.remember(keeper, left_behind);
    }
    app.start(ctx);
    app
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_library_panics_with_is_one_line() {
        let said = |work: fn()| {
            let panic = catch_unwind(work).unwrap_err();
            message_of(&*panic)
        };
        assert_eq!(said(|| panic!("no\nscreen")), "no screen");
        let number = 7;
        assert_eq!(message_of(&format!("screen {number}")), "screen 7");
        assert_eq!(message_of(&number), "a library failed");
    }

    #[test]
    fn why_a_library_failed_is_told_without_its_insides() {
        let error = "winit EventLoopError: os error at /x/mod.rs:738: no DISPLAY is set";
        assert_eq!(reason_of(error), "no DISPLAY is set");
        assert_eq!(reason_of("winit EventLoopError: Exit Failure: 1"), "its display is gone");
    }

    #[test]
    fn a_window_that_cannot_be_opened_has_a_way_out() {
        let display = |name: &str| Display { name: name.to_owned(), otherwise: None };
        let no_gl = way_out(&display("x11 :0"), "failed to find a matching configuration");
        assert!(no_gl.contains("LIBGL_ALWAYS_SOFTWARE=1"), "{no_gl}");
        if cfg!(target_os = "linux") {
            assert!(way_out(&display(""), "nothing is set").contains("ssh -X"));
        }
    }

    #[test]
    fn the_icon_is_a_square_that_is_large_enough_for_every_list() {
        let icon = icon();
        assert_eq!((icon.width, icon.height), (256, 256));
    }

    #[test]
    fn the_window_leaves_room_for_a_title_bar_and_stays_roomy_where_it_can() {
        let usual = wanted(WindowSize::default());
        for (wanted, monitor, size) in [
            (usual, (1920.0, 1080.0), (1280.0, 800.0)),
            (usual, (1280.0, 800.0), (1280.0, 712.0)),
            (usual, (1366.0, 768.0), (1280.0, 680.0)),
            (usual, (1024.0, 640.0), (1024.0, 600.0)),
            (usual, (640.0, 480.0), (640.0, 480.0)),
            (vec2(700.0, 500.0), (1920.0, 1080.0), (700.0, 500.0)),
            (vec2(2500.0, 1400.0), (1920.0, 1080.0), (1920.0, 992.0)),
        ] {
            assert_eq!(fitting(wanted, monitor.into()), Vec2::from(size), "{wanted} {monitor:?}");
        }
    }
}
