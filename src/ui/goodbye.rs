//! What is done at the end, whichever way the end comes: every session is left, and the settings are
//! written.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime, sync::Notify, time::timeout};

use super::{resume::Ending, settings_file::SettingsFile};
use crate::{engine::Closer, media::Slot};

/// How long others are told goodbye, at most, and how long a disk may take.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long whoever asked for the end waits for it: a little longer, so that the end is seen.
const PATIENCE: Duration = Duration::from_millis(2500);

/// Says goodbye once. Clones are the same one.
///
/// It does not need the window: that may hang, may have failed, or its display may be gone. Then a
/// library ends the process in the middle of a call, and the C library asks here on its way out.
#[derive(Clone, Default)]
pub(crate) struct Goodbye(Arc<Inner>);

#[derive(Default)]
struct Inner {
    asked: Notify,
    is_asked: AtomicBool,
    said: Slot<()>,
    engine: Slot<Closer>,
    file: Slot<Arc<SettingsFile>>,
    sessions: Slot<Ending>,
}

impl Goodbye {
    /// Waits for the end on that runtime, from now on.
    pub(crate) fn begin(runtime: &runtime::Handle) -> Self {
        let goodbye = Self::default();
        let inner = Arc::clone(&goodbye.0);
        runtime.spawn(async move {
            inner.asked.notified().await;
            inner.say().await;
            inner.said.put(());
        });
        goodbye
    }

    /// Has goodbye said when something in this process calls `exit`: the X library does when its
    /// display is gone, and so does a desktop that logs a person out. What is registered last comes
    /// first, so this is called once graphics are there, which may hang at the end. Of several
    /// goodbyes in a process the first one counts.
    pub(crate) fn guard_exit(&self) {
        at_exit(self.clone());
    }

    /// Whose sessions are left at the end; an earlier engine goes on only as long as its handle.
    pub(crate) fn keep_engine(&self, engine: Option<Closer>) {
        drop(self.0.engine.take());
        if let Some(engine) = engine {
            self.0.engine.put(engine);
        }
    }

    /// What is written at the end, if something in it is still to be written.
    pub(crate) fn keep_file(&self, file: Arc<SettingsFile>) {
        self.0.file.put(file);
    }

    /// What writes the window's sessions down, to be told that it ends in order.
    pub(crate) fn keep_sessions(&self, sessions: Ending) {
        self.0.sessions.put(sessions);
    }

    /// Leaves every session and writes the settings; returns when it is done, at the latest after
    /// 2.5 s. May be called from any thread that does not belong to the runtime, also while the
    /// process exits, and again.
    pub(crate) fn say(&self) {
        if !self.0.is_asked.swap(true, Ordering::AcqRel) {
            self.0.asked.notify_one();
        }
        if self.0.said.wait(PATIENCE).is_some() {
            // For whoever asks again.
            self.0.said.put(());
        }
    }
}

impl Inner {
    async fn say(&self) {
        let file = self.file.take();
        let save = tokio::task::spawn_blocking(move || file.map_or(Ok(()), |file| file.save()));
        if let Some(engine) = self.engine.take()
            && timeout(FAREWELL, engine.close()).await.is_err()
        {
            tracing::warn!("the engine did not leave its sessions in time");
        }
        if let Some(sessions) = self.sessions.take()
            && timeout(FAREWELL, sessions.finish()).await.is_err()
        {
            tracing::warn!("the sessions were not written down in time");
        }
        // There is no window any more to say it in.
        match timeout(FAREWELL, save).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "the settings are not saved"),
            Ok(Err(error)) => tracing::error!(%error, "the settings are not saved"),
            Err(_) => tracing::error!("the settings could not be saved in time"),
        }
    }
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "only the C library tells that the process exits")]
fn at_exit(goodbye: Goodbye) {
    use std::sync::OnceLock;

    static GOODBYE: OnceLock<Goodbye> = OnceLock::new();

    extern "C" fn say() {
        if let Some(goodbye) = GOODBYE.get() {
            goodbye.say();
        }
    }

    if GOODBYE.set(goodbye).is_ok() {
        // SAFETY: the function takes nothing, does not unwind (it locks, notifies and waits) and is
        // there for the whole life of the process.
        unsafe { libc::atexit(say) };
    }
}

#[cfg(not(unix))]
fn at_exit(_: Goodbye) {}

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
    fn what_was_not_written_yet_is_written_once_however_often_the_end_is_asked_for() {
        let runtime = runtime();
        let goodbye = Goodbye::begin(runtime.handle());
        let place = std::env::temp_dir().join(format!("quintet-goodbye-{}", std::process::id()));
        let file = Arc::new(SettingsFile::open(place.clone()).0);
        for name in ["earlier", "Ada"] {
            file.want(Settings { name: name.to_owned(), ..Settings::default() });
        }
        goodbye.keep_file(file);
        goodbye.say();
        assert_eq!(SettingsFile::open(place.clone()).1.name, "Ada");
        std::fs::remove_file(&place).unwrap();
        goodbye.say();
        assert!(!place.exists());
    }

    #[test]
    fn the_engine_ends_though_somebody_else_holds_its_handle() {
        let runtime = runtime();
        let goodbye = Goodbye::begin(runtime.handle());
        let (settings, _) = Settings::default().engine();
        let options = EngineOptions { keeps_secrets: false, ..settings };
        let (handle, mut events) = {
            let _inside = runtime.enter();
            Engine::start(options).unwrap()
        };
        goodbye.keep_engine(Some(handle.closer()));
        goodbye.say();
        runtime.block_on(async { while events.recv().await.is_some() {} });
        drop(handle);
    }
}
