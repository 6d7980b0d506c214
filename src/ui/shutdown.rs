//! The shutdown, in whichever way the program ends: it leaves every session and writes the
//! settings.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime, sync::Notify, time::timeout};

use super::{saved_sessions::SaverShutdown, settings_file::SettingsFile};
use crate::{engine::Closer, media::Slot};

/// Maximum time for each step: leaving the sessions, saving them, and writing the settings.
const STEP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the caller waits for the shutdown: a little longer than one step, so that a step that
/// times out is still logged.
const WAIT_TIMEOUT: Duration = Duration::from_millis(2500);

/// Runs the shutdown once. Clones share it.
///
/// It does not need the window, which may hang, may have failed, or may have lost its display. In
/// the last case Xlib calls `exit` in the middle of a call, and the C library runs this on its way
/// out.
#[derive(Clone, Default)]
pub(crate) struct Shutdown(Arc<Inner>);

#[derive(Default)]
struct Inner {
    requested: Notify,
    is_requested: AtomicBool,
    finished: Slot<()>,
    engine: Slot<Closer>,
    file: Slot<Arc<SettingsFile>>,
    session_saver: Slot<SaverShutdown>,
}

impl Shutdown {
    /// Spawns the task that runs the shutdown once it is requested.
    pub(crate) fn spawn(runtime: &runtime::Handle) -> Self {
        let shutdown = Self::default();
        let inner = Arc::clone(&shutdown.0);
        runtime.spawn(async move {
            inner.requested.notified().await;
            inner.run().await;
            inner.finished.put(());
        });
        shutdown
    }

    /// Also runs the shutdown when anything in this process calls `exit`: Xlib does so when its
    /// display is gone, and so does a desktop that logs the user out. Exit handlers run in reverse
    /// order of their registration, so this is called after the graphics are initialized, whose
    /// handlers may hang. Only the first shutdown of a process is registered.
    pub(crate) fn run_at_exit(&self) {
        register_at_exit(self.clone());
    }

    /// Sets the engine whose sessions are left at the end. An earlier engine lives only as long as
    /// its handle.
    pub(crate) fn set_engine(&self, engine: Option<Closer>) {
        drop(self.0.engine.take());
        if let Some(engine) = engine {
            self.0.engine.put(engine);
        }
    }

    /// Sets the settings file to be written at the end, if it has changes.
    pub(crate) fn set_settings_file(&self, file: Arc<SettingsFile>) {
        self.0.file.put(file);
    }

    /// Sets the saver of the sessions, which saves them for the last time.
    pub(crate) fn set_session_saver(&self, sessions: SaverShutdown) {
        self.0.session_saver.put(sessions);
    }

    /// Leaves every session and writes the settings. Returns when done, after 2.5 s at most. May be
    /// called repeatedly, from any thread outside the runtime, and while the process exits.
    pub(crate) fn run(&self) {
        if !self.0.is_requested.swap(true, Ordering::AcqRel) {
            self.0.requested.notify_one();
        }
        if self.0.finished.wait(WAIT_TIMEOUT).is_some() {
            // For the next caller.
            self.0.finished.put(());
        }
    }
}

impl Inner {
    async fn run(&self) {
        let file = self.file.take();
        let save = tokio::task::spawn_blocking(move || file.map_or(Ok(()), |file| file.save()));
        if let Some(engine) = self.engine.take()
            && timeout(STEP_TIMEOUT, engine.close()).await.is_err()
        {
            tracing::warn!("the engine did not leave its sessions in time");
        }
        if let Some(sessions) = self.session_saver.take()
            && timeout(STEP_TIMEOUT, sessions.finish()).await.is_err()
        {
            tracing::warn!("the sessions were not saved in time");
        }
        // The window is gone, so errors are only logged.
        match timeout(STEP_TIMEOUT, save).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the settings were not saved"),
            Ok(Err(error)) => tracing::error!(%error, "the settings were not saved"),
            Err(_) => tracing::error!("the settings were not saved in time"),
        }
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "only the C library reports that the process exits")]
fn register_at_exit(shutdown: Shutdown) {
    use std::sync::OnceLock;

    static SHUTDOWN: OnceLock<Shutdown> = OnceLock::new();

    extern "C" fn run_shutdown() {
        if let Some(shutdown) = SHUTDOWN.get() {
            shutdown.run();
        }
    }

    if SHUTDOWN.set(shutdown).is_ok() {
        // SAFETY: the function takes nothing, does not unwind (it locks, notifies and waits) and is
        // there for the whole life of the process.
        unsafe { libc::atexit(run_shutdown) };
    }
}

#[cfg(not(unix))]
fn register_at_exit(_: Shutdown) {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Engine, EngineOptions},
        ui::settings::Settings,
    };

    fn runtime() -> runtime::Runtime {
        runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
    }

    #[test]
    fn pending_settings_are_written_once_even_if_the_shutdown_runs_twice() {
        let runtime = runtime();
        let shutdown = Shutdown::spawn(runtime.handle());
        let path = std::env::temp_dir().join(format!("quintet-goodbye-{}", std::process::id()));
        let file = Arc::new(SettingsFile::open(path.clone()).0);
        for name in ["earlier", "Ada"] {
            file.set_pending(Settings { name: name.to_owned(), ..Settings::default() });
        }
        shutdown.set_settings_file(file);
        shutdown.run();
        assert_eq!(SettingsFile::open(path.clone()).1.name, "Ada");
        std::fs::remove_file(&path).unwrap();
        shutdown.run();
        assert!(!path.exists());
    }

    #[test]
    fn the_engine_stops_even_if_its_handle_is_still_held() {
        let runtime = runtime();
        let shutdown = Shutdown::spawn(runtime.handle());
        let (settings, _) = Settings::default().engine_options();
        let options = EngineOptions { keeps_secrets: false, ..settings };
        let (handle, mut events) = {
            let _inside = runtime.enter();
            Engine::start(options).unwrap()
        };
        shutdown.set_engine(Some(handle.closer()));
        shutdown.run();
        runtime.block_on(async { while events.recv().await.is_some() {} });
        drop(handle);
    }
}
