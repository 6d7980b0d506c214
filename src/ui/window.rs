//! Opens the window, with a runtime for everything that blocks or waits.

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
    app::{App, RunningEngine, Services},
    clipboard::{Clipboard, SystemClipboard},
    display::{self, Display},
    input_splitter::InputSplitter,
    saved_sessions::{self, ResumableSessions, SessionSaver},
    settings::{Settings, SettingsError, WindowSize},
    settings_file::SettingsFile,
    shutdown::Shutdown,
};
use crate::{
    engine::{CoreTrace, Engine, EngineOptions, TraceEnd, TraceOptions},
    model::{JoinTarget, VoiceChoice},
    process::{
        LogFile, Output, Signals, exit_now,
        single_instance::{self, InstanceError, InstanceListener, Start},
        state_folder,
    },
    supervision::panic_message,
};

/// The size down to which no control is cramped, in points.
const PREFERRED_MIN_SIZE: Vec2 = vec2(800.0, 600.0);

/// Minimum size of the window, in points.
const MIN_SIZE: Vec2 = vec2(640.0, 480.0);

/// Height of what the system draws above and below windows, in points: a title bar and a task bar.
const SYSTEM_BARS_HEIGHT: f32 = 88.0;

/// How long the window may take to close when the program is asked to exit. A window that hangs is
/// abandoned; its sessions are left all the same.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(4);

/// How long tasks may keep running at the end, for example because a disk does not answer.
const RUNTIME_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// How to open the window.
#[derive(Clone, Debug, Default)]
pub struct WindowOptions {
    /// The sessions to join.
    pub targets: Vec<JoinTarget>,
    /// Whether to open a separate window even if one is open already.
    pub new_window: bool,
    /// What is traced, if anything.
    pub trace: Option<TraceOptions>,
    /// What is done to the sound of the microphone, where that differs from the settings.
    pub voice: VoiceChoice,
}

/// Opens the window, and returns after it was closed and every session was left. If a window is
/// open on this display already, hands the sessions over to it instead.
///
/// Must be called on the program's main thread, outside any runtime, before there is a second
/// thread: the program may have to restart with another environment.
///
/// # Errors
/// If there is no display to open a window on, if the open window hangs, or if the system starts no
/// threads.
pub fn run(options: WindowOptions) -> anyhow::Result<()> {
    let display = display::find()?;
    let instance = match hand_over(&display, &options)? {
        InstanceCheck::HandedOver => {
            Output::stdout().write_line("the window that is open has it");
            if options.trace.is_some() {
                Output::stdout().write_line("it is not traced; `--new-window` opens one that is");
            }
            return Ok(());
        }
        InstanceCheck::OpenWindow(instance) => instance,
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("quintet").build()?;
    let (trace, trace_end) = runtime.block_on(start_trace(options.trace))?;
    let signals = Signals::listen()?;
    let startup = Startup {
        shutdown: Shutdown::spawn(runtime.handle()),
        runtime: runtime.handle().clone(),
        exit_requested: Arc::default(),
        context: Arc::default(),
        trace,
        voice: options.voice,
    };
    let waiting = Startup { trace: None, ..startup.clone() };
    runtime.spawn(waiting.close_on_signal(signals));
    let result = run_window(&startup, options.targets, instance);
    startup.shutdown.run();
    drop(startup.trace);
    if let Some(end) = trace_end {
        runtime.block_on(end.wait());
    }
    runtime.shutdown_timeout(RUNTIME_SHUTDOWN_TIMEOUT);
    let Err(reason) = result else { return Ok(()) };
    if startup.context.get().is_some() {
        anyhow::bail!(
            "the window failed ({reason}); its sessions were left and its settings are kept"
        );
    }
    if let Some(changes) = &display.fallback {
        Output::stderr().write_line(&format!(
            "quintet: cannot open a window on {} ({reason}); trying X11",
            display.name
        ));
        Output::stderr().finish();
        let error = display::restart_with(changes);
        tracing::error!(%error, "the program cannot restart itself");
    }
    anyhow::bail!(
        "cannot open a window ({reason}); {}on Debian and Ubuntu `bash .ci/setup` installs what it \
         needs, and `quintet --help` lists what works without a window",
        hint(&display, &reason)
    )
}

/// What the user can try on that display.
fn hint(display: &Display, reason: &str) -> &'static str {
    if cfg!(target_os = "linux") && display.name.is_empty() {
        "start it from a desktop's terminal, or over `ssh -X`; "
    } else if reason.contains("GL") || reason.contains("configuration") {
        "try `LIBGL_ALWAYS_SOFTWARE=1 quintet`, which draws without the graphics card; "
    } else {
        ""
    }
}

/// The result of looking for a window that is open already.
enum InstanceCheck {
    /// There is none, or a separate window was requested.
    OpenWindow(Option<InstanceListener>),
    /// The open window has taken over the sessions.
    HandedOver,
}

/// Hands the sessions of this start over to the open window, if there is one.
fn hand_over(display: &Display, options: &WindowOptions) -> anyhow::Result<InstanceCheck> {
    if options.new_window {
        return Ok(InstanceCheck::OpenWindow(None));
    }
    let links = options.targets.iter().map(|target| match &target.hub {
        Some(hub) => hub.link(&target.session).to_string(),
        None => target.session.to_string(),
    });
    match single_instance::start(&display.name, links.collect()) {
        Ok(Start::First(door)) => Ok(InstanceCheck::OpenWindow(Some(door))),
        Ok(Start::HandedOver) => Ok(InstanceCheck::HandedOver),
        Err(error @ InstanceError::NotResponding { .. }) => Err(error.into()),
        Err(error @ InstanceError::System(_)) => {
            tracing::warn!(%error, "single instance unavailable; each start opens its own window");
            Ok(InstanceCheck::OpenWindow(None))
        }
    }
}

/// What exists before the window.
#[derive(Clone)]
struct Startup {
    shutdown: Shutdown,
    runtime: tokio::runtime::Handle,
    /// Set when the program was asked to exit.
    exit_requested: Arc<AtomicBool>,
    /// The window's egui context, once the window is open.
    context: Arc<OnceLock<Context>>,
    /// The trace of the engine, if there is one.
    trace: Option<CoreTrace>,
    /// What is done to the sound of the microphone, where that differs from the settings.
    voice: VoiceChoice,
}

/// Opens the log file of the window.
fn open_log() {
    let Some(folder) = state_folder() else { return };
    if let Err(error) = LogFile::open(&folder.join("log")) {
        tracing::warn!(%error, "there is no log file");
    }
    let system = (std::env::consts::OS, std::env::consts::ARCH);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?system, "window starts");
}

/// Starts the trace, if there is to be one.
async fn start_trace(
    wanted: Option<TraceOptions>,
) -> anyhow::Result<(Option<CoreTrace>, Option<TraceEnd>)> {
    let Some(wanted) = wanted else { return Ok((None, None)) };
    let (trace, end) = CoreTrace::start(wanted).await?;
    Ok((Some(trace), Some(end)))
}

impl Startup {
    /// Closes the window when the program is asked to exit. Exits without it if the window hangs.
    async fn close_on_signal(self, mut signals: Signals) {
        signals.shutdown_requested().await;
        self.exit_requested.store(true, Ordering::Release);
        if let Some(context) = self.context.get() {
            context.request_repaint();
        }
        tokio::time::sleep(CLOSE_TIMEOUT).await;
        tracing::warn!("the window does not close; exiting without it");
        // The shutdown runs on the runtime, so this must not block one of its threads.
        tokio::task::spawn_blocking(move || {
            self.shutdown.run();
            Output::stderr().finish();
            exit_now(0);
        });
    }
}

/// Shows the window until it is closed. The error says why the window could not be opened, or has
/// failed.
fn run_window(
    startup: &Startup,
    targets: Vec<JoinTarget>,
    instance: Option<InstanceListener>,
) -> Result<(), String> {
    let loaded = LoadedSettings::read();
    let (size, saves_size) = (loaded.settings.window, loaded.is_readable());
    let viewport = ViewportBuilder::default()
        .with_title("Quintet")
        .with_app_id("quintet")
        .with_icon(icon())
        .with_inner_size(initial_size(size))
        .with_maximized(size.maximized)
        .with_min_inner_size(MIN_SIZE);
    let options = eframe::NativeOptions {
        viewport,
        renderer: eframe::Renderer::Glow,
        // eframe's own shortcuts would block on the clipboard's owner.
        clipboard_shortcuts: false,
        ..Default::default()
    };
    let app_startup = startup.clone();
    let created = Box::new(move |context: &eframe::CreationContext<'_>| {
        let ctx = &context.egui_ctx;
        let mut app = create_app(ctx, &app_startup, loaded, instance);
        app.join_targets(ctx, targets);
        let shutdown = app_startup.shutdown.clone();
        shutdown.run_at_exit();
        // The window is open from now on. Its first frame handles a signal that came before.
        let _ = app_startup.context.set(ctx.clone());
        let clipboard = Clipboard::new(Arc::new(SystemClipboard::default()));
        let input_splitter = InputSplitter::default();
        let window = WindowApp {
            app,
            clipboard,
            input_splitter,
            shutdown,
            is_fitted: false,
            size,
            saves_size,
        };
        Ok(Box::new(window) as Box<dyn eframe::App>)
    });
    silence_panics_until_open(Arc::clone(&startup.context));
    // After that, so that the log has also those panics that are not printed.
    open_log();
    let result = catch_unwind(AssertUnwindSafe(|| eframe::run_native("quintet", options, created)));
    match result {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(error_reason(&error.to_string())),
        Err(panic) => Err(panic_message(&*panic)),
    }
}

/// The cause at the end of an error's text, without its source location.
fn error_reason(error: &str) -> String {
    let reason = error.rsplit(": ").next().unwrap_or(error);
    // winit's event loop ends with an exit code when the Wayland compositor is gone.
    if reason.parse::<i32>().is_ok() {
        return "its display is gone".to_owned();
    }
    reason.to_owned()
}

/// Keeps panics on this thread from being printed before the window is open. winit and the graphics
/// libraries panic if a display lacks something, and the user gets one sentence instead.
/// `RUST_BACKTRACE` prints them anyway.
fn silence_panics_until_open(context: Arc<OnceLock<Context>>) {
    let here = std::thread::current().id();
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let is_starting = std::thread::current().id() == here && context.get().is_none();
        if !is_starting || std::env::var_os("RUST_BACKTRACE").is_some() {
            print(panic);
        }
    }));
}

/// The program's icon.
fn icon() -> IconData {
    let png = include_bytes!("../../assets/icon.png");
    icon_data::from_png_bytes(png).expect("the icon is a valid PNG")
}

/// The eframe application: the app, its input filters, and the shutdown.
struct WindowApp {
    app: App,
    clipboard: Clipboard,
    input_splitter: InputSplitter,
    shutdown: Shutdown,
    /// The window has been fitted to its screen.
    is_fitted: bool,
    /// The current size.
    size: WindowSize,
    /// Whether the size is saved. It is not if the settings file could not be read, so that the
    /// file is not replaced.
    saves_size: bool,
}

impl WindowApp {
    /// Shrinks the window once if its screen is small. The screen's size is known only after the
    /// window is open.
    fn fit_to_monitor(&mut self, ctx: &Context) {
        if self.is_fitted {
            return;
        }
        let Some(monitor) = ctx.input(|input| input.viewport().monitor_size) else { return };
        self.is_fitted = true;
        let size = initial_size(self.size);
        if !self.size.maximized && size_within(size, monitor) != size {
            ctx.send_viewport_cmd(ViewportCommand::InnerSize(size_within(size, monitor)));
        }
    }

    /// Records the size of the window, for the next run.
    fn record_size(&mut self, ctx: &Context) {
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
        if self.saves_size {
            self.app.set_window_size(self.size);
        }
    }
}

/// The size of the window when it was last closed, in points.
fn initial_size(size: WindowSize) -> Vec2 {
    vec2(f32::from(size.width), f32::from(size.height)).max(MIN_SIZE)
}

/// The size that fits on a screen of that size, all in points.
fn size_within(size: Vec2, monitor: Vec2) -> Vec2 {
    size.min(monitor - vec2(0.0, SYSTEM_BARS_HEIGHT)).max(PREFERRED_MIN_SIZE.min(monitor).min(size))
}

impl eframe::App for WindowApp {
    fn logic(&mut self, ctx: &Context, frame: &mut eframe::Frame) {
        self.fit_to_monitor(ctx);
        self.record_size(ctx);
        self.app.logic(ctx, frame);
        self.clipboard.take_copies(ctx);
    }

    fn ui(&mut self, ui: &mut eframe::egui::Ui, frame: &mut eframe::Frame) {
        self.app.ui(ui, frame);
        self.clipboard.take_copies(ui.ctx());
    }

    fn raw_input_hook(&mut self, ctx: &Context, input: &mut eframe::egui::RawInput) {
        if self.clipboard.process_input(ctx, input) {
            self.app.on_paste_timeout(ctx);
        }
        self.input_splitter.split(ctx, input);
    }

    fn clear_color(&self, visuals: &eframe::egui::Visuals) -> [f32; 4] {
        self.app.clear_color(visuals)
    }

    fn on_exit(&mut self, _: Option<&eframe::glow::Context>) {
        self.app.release_resources();
        self.shutdown.run();
        self.clipboard.close();
    }
}

/// The settings as they were read at the start, and their errors.
struct LoadedSettings {
    file: Option<Arc<SettingsFile>>,
    settings: Settings,
    errors: Vec<SettingsError>,
}

impl LoadedSettings {
    fn read() -> Self {
        let Some(path) = Settings::path() else {
            let errors = vec![SettingsError::NoFolder];
            return Self { file: None, settings: Settings::default(), errors };
        };
        let (file, settings, errors) = SettingsFile::open(path);
        Self { file: Some(Arc::new(file)), settings, errors }
    }

    /// Whether the settings file could be read, apart from single values.
    fn is_readable(&self) -> bool {
        self.errors.iter().all(|error| matches!(error, SettingsError::Value { .. }))
    }
}

/// Creates the app with the settings that were read.
fn create_app(
    ctx: &Context,
    startup: &Startup,
    loaded: LoadedSettings,
    instance: Option<InstanceListener>,
) -> App {
    let LoadedSettings { file, settings, errors } = loaded;
    if let Some(file) = &file {
        startup.shutdown.set_settings_file(Arc::clone(file));
    }
    let (runtime, trace) = (startup.runtime.clone(), startup.trace.clone());
    let voice = startup.voice;
    let start_engine = Box::new(move |settings: &Settings, errors: &mut Vec<String>| {
        let (options, unusable) = settings.engine_options();
        let voice_processing = voice.or(options.voice_processing);
        let options = EngineOptions { trace: trace.clone(), voice_processing, ..options };
        errors.extend(unusable.iter().map(ToString::to_string));
        let _inside = runtime.enter();
        match Engine::start(options) {
            Ok((handle, events)) => Some(RunningEngine { handle, events }),
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
    let server = instance.and_then(|first| match first.listen(move || waker.request_repaint()) {
        Ok(server) => Some(server),
        Err(error) => {
            tracing::warn!(%error, "single instance unavailable; each start opens its own window");
            None
        }
    });
    let services = Services {
        runtime: startup.runtime.clone(),
        file,
        start_engine,
        settings_error: Arc::default(),
        shutdown: startup.shutdown.clone(),
        exit_requested: Arc::clone(&startup.exit_requested),
        instance_server: server,
        saved_report: Arc::default(),
    };
    let mut app = App::new(ctx, settings, Some(services));
    for error in errors {
        app.show_error(error.to_string());
    }
    if let Some(folder) = saved_sessions::folder() {
        let resumable = ResumableSessions::find(&folder);
        let (saver, saver_shutdown) = SessionSaver::start(&startup.runtime, folder);
        startup.shutdown.set_session_saver(saver_shutdown);
        app.set_session_saver(saver, resumable);
    }
    app.start(ctx);
    app
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_reason_has_no_source_location() {
        let error = "winit EventLoopError: os error at /x/mod.rs:738: no DISPLAY is set";
        assert_eq!(error_reason(error), "no DISPLAY is set");
        assert_eq!(error_reason("winit EventLoopError: Exit Failure: 1"), "its display is gone");
    }

    #[test]
    fn a_window_that_cannot_be_opened_gets_a_hint() {
        let display = |name: &str| Display { name: name.to_owned(), fallback: None };
        let no_gl = hint(&display("x11 :0"), "failed to find a matching configuration");
        assert!(no_gl.contains("LIBGL_ALWAYS_SOFTWARE=1"), "{no_gl}");
        if cfg!(target_os = "linux") {
            assert!(hint(&display(""), "nothing is set").contains("ssh -X"));
        }
    }

    #[test]
    fn the_icon_is_a_square_of_256_pixels() {
        let icon = icon();
        assert_eq!((icon.width, icon.height), (256, 256));
    }

    #[test]
    fn the_window_leaves_space_for_system_bars_and_keeps_its_preferred_minimum_if_it_fits() {
        let default = initial_size(WindowSize::default());
        for (wanted, monitor, size) in [
            (default, (1920.0, 1080.0), (1280.0, 800.0)),
            (default, (1280.0, 800.0), (1280.0, 712.0)),
            (default, (1366.0, 768.0), (1280.0, 680.0)),
            (default, (1024.0, 640.0), (1024.0, 600.0)),
            (default, (640.0, 480.0), (640.0, 480.0)),
            (vec2(700.0, 500.0), (1920.0, 1080.0), (700.0, 500.0)),
            (vec2(2500.0, 1400.0), (1920.0, 1080.0), (1920.0, 992.0)),
        ] {
            assert_eq!(
                size_within(wanted, monitor.into()),
                Vec2::from(size),
                "{wanted} {monitor:?}"
            );
        }
    }
}
