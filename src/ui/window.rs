//! Opens the window, with a runtime beside it for everything that waits.

use std::{sync::Arc, time::Duration};

use eframe::egui::{ViewportBuilder, vec2};

use super::{
    app::{App, Backstage, Running},
    settings::{Settings, SettingsError},
};
use crate::engine::Engine;

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
    let viewport = ViewportBuilder::default()
        .with_title("Quintet")
        .with_app_id("quintet")
        .with_inner_size(vec2(1280.0, 800.0))
        .with_min_inner_size(vec2(640.0, 480.0));
    let options =
        eframe::NativeOptions { viewport, renderer: eframe::Renderer::Glow, ..Default::default() };
    let handle = runtime.handle().clone();
    let created = Box::new(move |context: &eframe::CreationContext<'_>| {
        let window = Window { app: open(&context.egui_ctx, handle.clone()), runtime: handle };
        Ok(Box::new(window) as Box<dyn eframe::App>)
    });
    eframe::run_native("quintet", options, created).map_err(|error| {
        // What comes before says where in the library it was noticed.
        let error = error.to_string();
        let why = error.rsplit(": ").next().unwrap_or(&error);
        anyhow::anyhow!(
            "no window can be opened ({why}); on Debian and Ubuntu `bash .ci/setup` installs what \
             one needs, and `quintet --help` tells what works without one"
        )
    })
}

/// The app, and the runtime on which it says goodbye.
struct Window {
    app: App,
    runtime: tokio::runtime::Handle,
}

impl eframe::App for Window {
    fn logic(&mut self, ctx: &eframe::egui::Context, frame: &mut eframe::Frame) {
        self.app.logic(ctx, frame);
    }

    fn ui(&mut self, ui: &mut eframe::egui::Ui, frame: &mut eframe::Frame) {
        self.app.ui(ui, frame);
    }

    fn clear_color(&self, visuals: &eframe::egui::Visuals) -> [f32; 4] {
        self.app.clear_color(visuals)
    }

    fn on_exit(&mut self, _: Option<&eframe::glow::Context>) {
        if let Some(handle) = self.app.take_handle() {
            self.runtime.block_on(async {
                if tokio::time::timeout(FAREWELL, handle.close()).await.is_err() {
                    tracing::warn!("the engine did not leave its sessions in time");
                }
            });
        }
    }
}

fn open(ctx: &eframe::egui::Context, runtime: tokio::runtime::Handle) -> App {
    let place = Settings::place();
    let loaded = match &place {
        Some(place) => Settings::load(place),
        None => Err(SettingsError::NoPlace),
    };
    let (settings, error) = match loaded {
        Ok(settings) => (settings, None),
        Err(error) => (Settings::default(), Some(error)),
    };
    let starter = runtime.clone();
    let start = Box::new(move |settings: &Settings, errors: &mut Vec<String>| {
        let (options, unusable) = settings.engine();
        errors.extend(unusable.iter().map(ToString::to_string));
        let _inside = starter.enter();
        match Engine::start(options) {
            Ok((handle, events)) => Some(Running { handle, events }),
            Err(error) => {
                errors.push(format!(
                    "the program cannot work, as the system has no randomness ({error}); \
                     restart the machine"
                ));
                None
            }
        }
    });
    let backstage = Backstage { runtime, place, start, failed: Arc::default() };
    let mut app = App::new(ctx, settings, Some(backstage));
    if let Some(error) = error {
        app.tell(error.to_string());
    }
    app.start(ctx);
    app
}
