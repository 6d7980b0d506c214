//! Opens the window, with a runtime beside it for everything that waits.

use std::{sync::Arc, time::Duration};

use eframe::{
    egui::{Context, IconData, Vec2, ViewportBuilder, ViewportCommand, vec2},
    icon_data,
};

use super::{
    app::{App, Backstage, Running},
    settings::{Settings, SettingsError, WindowSize},
    settings_file::SettingsFile,
};
use crate::engine::Engine;

/// Down to this size everything has its place, in points.
const ROOMY: Vec2 = vec2(800.0, 600.0);

/// The window cannot be made smaller, in points.
const LEAST: Vec2 = vec2(640.0, 480.0);

/// What systems put above and below windows, in points: a title bar, and a bar of programs.
const BARS: f32 = 88.0;

/// How long others are told goodbye when the window closes, at most.
const FAREWELL: Duration = Duration::from_secs(2);

/// Opens the window and returns when it was closed and every session was left properly.
///
/// Must be called on the program's main thread, outside any runtime.
///
/// # Errors
/// If there is no screen to open a window on, or the system gives no threads.
pub fn run() -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("quintet").build()?;
    let loaded = Loaded::new();
    let (size, is_kept) = (loaded.settings.window, loaded.is_readable());
    let viewport = ViewportBuilder::default()
        .with_title("Quintet")
        .with_app_id("quintet")
        .with_icon(icon())
        .with_inner_size(wanted(size))
        .with_maximized(size.maximized)
        .with_min_inner_size(LEAST);
    let options =
        eframe::NativeOptions { viewport, renderer: eframe::Renderer::Glow, ..Default::default() };
    let handle = runtime.handle().clone();
    let created = Box::new(move |context: &eframe::CreationContext<'_>| {
        let app = open(&context.egui_ctx, handle.clone(), loaded);
        let window = Window { app, runtime: handle, is_fitted: false, size, is_kept };
        Ok(Box::new(window) as Box<dyn eframe::App>)
    });
    eframe::run_native("quintet", options, created).map_err(|error| {
        // What comes before says where in the library it was noticed.
        let error = error.to_string();
        let why = error.rsplit(": ").next().unwrap_or(&error);
        anyhow::anyhow!(
            "cannot open a window ({why}); on Debian and Ubuntu `bash .ci/setup` installs what it \
             needs, and `quintet --help` lists what works without a window"
        )
    })
}

/// What stands for the program in the system's lists of windows.
fn icon() -> IconData {
    let png = include_bytes!("../../assets/icon.png");
    icon_data::from_png_bytes(png).expect("the icon is a picture")
}

/// The app, and the runtime on which it says goodbye.
struct Window {
    app: App,
    runtime: tokio::runtime::Handle,
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
    }

    fn ui(&mut self, ui: &mut eframe::egui::Ui, frame: &mut eframe::Frame) {
        self.app.ui(ui, frame);
    }

    fn clear_color(&self, visuals: &eframe::egui::Visuals) -> [f32; 4] {
        self.app.clear_color(visuals)
    }

    fn on_exit(&mut self, _: Option<&eframe::glow::Context>) {
        if self.is_kept {
            self.app.keep_size(self.size);
        }
        if let Some(handle) = self.app.take_handle() {
            self.runtime.block_on(async {
                if tokio::time::timeout(FAREWELL, handle.close()).await.is_err() {
                    tracing::warn!("the engine did not leave its sessions in time");
                }
            });
        }
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
fn open(ctx: &Context, runtime: tokio::runtime::Handle, loaded: Loaded) -> App {
    let Loaded { file, settings, errors } = loaded;
    let starter = runtime.clone();
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
    let backstage = Backstage { runtime, file, start, failed: Arc::default() };
    let mut app = App::new(ctx, settings, Some(backstage));
    for error in errors {
        app.tell(error.to_string());
    }
    app.start(ctx);
    app
}

#[cfg(test)]
mod tests {
    use super::*;

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
