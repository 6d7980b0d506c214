//! The settings file: read key by key, and written so that nothing in it is lost.
//!
//! The file belongs to the user: comments, the order of keys, keys of a newer version, and values
//! that this version cannot use all stay. Only settings that changed in this window are written,
//! into the current content of the file, so that two windows do not undo each other's changes.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use toml::{Table, Value};
use toml_edit::{DocumentMut, Item};

use super::{
    bindings::Bindings,
    settings::{Backup, Settings, SettingsError},
};

/// How long to wait for another program's lock. Then the file is written without the lock: another
/// window that hangs must not keep this one from closing. Tests write many times in a row, on slow disks too.
const LOCK_TIMEOUT: Duration = Duration::from_secs(if cfg!(test) { 60 } else { 2 });

/// Maximum number of symbolic links in a row, as on Linux.
const MAX_SYMLINKS: usize = 40;

/// The settings file, and what this window knows of its content.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    path: PathBuf,
    state: Mutex<State>,
    /// Locked while the file is written, so that changes are written in order.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// What this window last read from the file or wrote into it.
    saved: Settings,
    /// The settings to write next.
    pending: Option<Settings>,
}

impl SettingsFile {
    /// Reads the settings file. Returns the default settings if there is none, and the settings
    /// that cannot be used. Blocks.
    pub(crate) fn open(path: PathBuf) -> (Self, Settings, Vec<SettingsError>) {
        let (settings, errors) = match read(&path) {
            Ok(read) => read,
            Err(error) => (Settings::default(), vec![error]),
        };
        let state = State { saved: settings.clone(), pending: None };
        (Self { path, state: Mutex::new(state), writing: Mutex::new(()) }, settings, errors)
    }

    /// Sets what the next [`Self::save`] writes, on whatever thread that is called. Does not wait
    /// for the disk.
    pub(crate) fn set_pending(&self, settings: Settings) {
        // `save` takes the pending settings before it touches the disk, so this lock is never held
        // for long.
        self.state().pending = Some(settings);
    }

    /// Writes the pending settings, if there are any. Blocks.
    ///
    /// # Errors
    /// If the file cannot be written. It is unchanged then, and the next call writes the change
    /// too.
    pub(crate) fn save(&self) -> Result<(), SettingsError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (saved, pending) = {
            let mut state = self.state();
            let Some(pending) = state.pending.take() else { return Ok(()) };
            (state.saved.clone(), pending)
        };
        write(&self.path, &saved, &pending)
            .map_err(|error| SettingsError::Write { path: self.path.clone(), error })?;
        self.state().saved = pending;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the settings in a file, and the keys that cannot be used.
fn read(path: &Path) -> Result<(Settings, Vec<SettingsError>), SettingsError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(SettingsError::Read { path: path.to_owned(), error }),
    };
    let path = || path.to_owned();
    match parse(&text) {
        Ok((settings, invalid)) => {
            let errors = invalid.into_iter().map(|(key, error)| {
                tracing::debug!(key, error, "invalid setting ignored");
                SettingsError::Value { path: path(), key, error }
            });
            Ok((settings, errors.collect()))
        }
        Err(error) => {
            let (error, kept) = (located_message(&text, &error), back_up(&path()));
            Err(SettingsError::Malformed { path: path(), error, kept })
        }
    }
}

/// Keys with invalid values, each with the reason.
type InvalidValues = Vec<(String, String)>;

/// Parses settings. A key that cannot be used gets its default value, and is returned with the
/// reason. Unknown keys are ignored.
pub(super) fn parse(text: &str) -> Result<(Settings, InvalidValues), toml::de::Error> {
    let file: Table = toml::from_str(text)?;
    let mut table = as_table(&Settings::default());
    let mut invalid = vec![];
    // The keys are checked together: the file may swap two.
    if let Some(Value::Table(keys)) = file.get("keys") {
        let (bindings, refused) = Bindings::from_table(keys);
        invalid.extend(refused.into_iter().map(|(key, error)| (format!("keys.{key}"), error)));
        table.insert("keys".to_owned(), Value::Table(bindings.to_table()));
    }
    for (key, default) in as_table(&Settings::default()) {
        match (file.get(&key), default) {
            (None, _) => {}
            (Some(Value::Table(_)), Value::Table(_)) if key == "keys" => {}
            (Some(Value::Table(given)), Value::Table(default)) => {
                for inner in default.keys() {
                    let Some(value) = given.get(inner) else { continue };
                    let path = [key.as_str(), inner.as_str()];
                    invalid.extend(try_value(&mut table, &path, value.clone()));
                }
            }
            (Some(value), _) => invalid.extend(try_value(&mut table, &[&key], value.clone())),
        }
    }
    Ok((table.try_into()?, invalid))
}

/// Puts a value into a table of settings if the result is valid. Otherwise returns the key and the
/// reason.
fn try_value(table: &mut Table, path: &[&str], value: Value) -> Option<(String, String)> {
    let mut changed = table.clone();
    let inserted = match path {
        [section, key] => {
            let section = changed.get_mut(*section).and_then(Value::as_table_mut)?;
            section.insert((*key).to_owned(), value)
        }
        _ => changed.insert((*path.first()?).to_owned(), value),
    };
    debug_assert!(inserted.is_some(), "only known keys are tried");
    match changed.clone().try_into::<Settings>() {
        Ok(_) => {
            *table = changed;
            None
        }
        Err(error) => Some((path.join("."), error.message().to_owned())),
    }
}

fn as_table(settings: &Settings) -> Table {
    Table::try_from(settings).expect("settings serialize to a table")
}

/// The values of the settings by key, or by section and key.
fn values(settings: &Settings) -> BTreeMap<(String, Option<String>), Value> {
    // A device is a table too, but counts as one value.
    let is_section = |key: &str| matches!(key, "window" | "panels" | "keys");
    let mut all = BTreeMap::new();
    for (key, value) in as_table(settings) {
        if let (true, Value::Table(section)) = (is_section(&key), &value) {
            let inner = section.clone().into_iter();
            all.extend(inner.map(|(name, value)| ((key.clone(), Some(name)), value)));
        } else {
            all.insert((key, None), value);
        }
    }
    all
}

/// Puts the differences between two settings into the text of the file. An empty text gets all
/// settings.
pub(super) fn merge(text: &str, before: &Settings, after: &Settings) -> Result<String, io::Error> {
    let mut file: DocumentMut = text.parse().map_err(io::Error::other)?;
    let before = if text.trim().is_empty() { BTreeMap::new() } else { values(before) };
    for ((key, inner), value) in values(after) {
        if before.get(&(key.clone(), inner.clone())) == Some(&value) {
            continue;
        }
        let value: toml_edit::Value = value.to_string().parse().map_err(io::Error::other)?;
        match inner {
            None => set(file.as_item_mut(), &key, value),
            Some(inner) => {
                let section = file.entry(&key).or_insert_with(toml_edit::table);
                if !section.is_table_like() {
                    *section = toml_edit::table();
                }
                set(section, &inner, value);
            }
        }
    }
    Ok(file.to_string())
}

/// Changes the value of a key. The comment behind it stays.
fn set(table: &mut Item, key: &str, mut value: toml_edit::Value) {
    let Some(table) = table.as_table_like_mut() else { return };
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *value.decor_mut() = old.decor().clone();
            *old = value;
        }
        None => {
            table.insert(key, Item::Value(value));
        }
    }
}

/// Writes the differences between two settings into the file that the path leads to through
/// symbolic links. The file keeps its mode. The content is written into a new file first, so that a
/// crash leaves either the old or the new file.
fn write(path: &Path, before: &Settings, after: &Settings) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let _lock = lock(path);
    let target = resolve_symlinks(path)?;
    let text = match fs::read_to_string(&target) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let merged = match merge(&text, before, after) {
        Ok(merged) => merged,
        // The file is not valid TOML. A copy of it is kept.
        Err(_) if matches!(back_up(path), Backup::CopiedTo(_)) => merge("", before, after)?,
        Err(error) => return Err(error),
    };
    if merged == text { Ok(()) } else { replace(&target, &merged) }
}

/// Replaces the content of a file atomically.
fn replace(target: &Path, text: &str) -> io::Result<()> {
    let permissions = match fs::metadata(target) {
        Ok(metadata) if metadata.permissions().readonly() => {
            let why = "the file is read-only; make it writable to keep changes";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        Ok(metadata) => Some(metadata.permissions()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder)?;
    }
    let new_path = target.with_extension(format!("toml.{}", std::process::id()));
    let write = || {
        let mut file = File::create(&new_path)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new_path, target)
    };
    write().inspect_err(|_| drop(fs::remove_file(&new_path)))
}

/// The target of a path with symbolic links. It need not exist.
fn resolve_symlinks(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_SYMLINKS {
        let Ok(to) = fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    Err(io::Error::other("too many symbolic links in a row"))
}

/// Locks the file against other windows until the lock is dropped. `None` if they do not release it
/// in time, or if the file system has no locks. The lock file stays, because removing it would be a
/// race.
fn lock(path: &Path) -> Option<File> {
    let lock_path = path.with_extension("toml.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(lock_path).ok()?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                tracing::warn!(%error, "writing the settings without a lock");
                return None;
            }
        }
    }
}

/// Copies a file that cannot be parsed to a file beside it.
fn back_up(path: &Path) -> Backup {
    let copy = path.with_extension("toml.bak");
    match fs::copy(path, &copy) {
        Ok(_) => Backup::CopiedTo(copy),
        Err(error) => Backup::Failed(error),
    }
}

/// The parser's message with the line number, counted from one.
fn located_message(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use eframe::egui::Key;

    use super::{
        super::{
            bindings::Bindable,
            device_choice::DeviceChoice,
            settings::{Panels, ThemeChoice},
        },
        *,
    };

    /// A temporary folder, removed on drop.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("quintet-settings-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::remove_dir_all(&folder).ok();
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn file(&self, text: &str) -> PathBuf {
            let path = self.0.join("settings.toml");
            fs::write(&path, text).unwrap();
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    /// Opens a settings file, changes the settings and saves them.
    fn change(path: &Path, change: impl FnOnce(&mut Settings)) -> Result<(), SettingsError> {
        let (file, mut settings, _) = SettingsFile::open(path.to_owned());
        change(&mut settings);
        file.set_pending(settings);
        file.save()
    }

    fn errors(path: &Path) -> Vec<String> {
        SettingsFile::open(path.to_owned()).2.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn saved_settings_are_read_again_and_a_missing_file_means_the_defaults() {
        let scratch = Scratch::new("kept");
        let path = scratch.0.join("deep").join("settings.toml");
        assert_eq!(read(&path).unwrap().0, Settings::default());
        let mut keys = Bindings::default();
        keys.bind(Bindable::Talk, Key::F7).unwrap();
        let settings = Settings {
            name: "Ada \"the first\"".to_owned(),
            theme: ThemeChoice::Light,
            camera: "pattern:320x180@15".into(),
            speaker: DeviceChoice::Device {
                id: "usb-2".to_owned(),
                name: "Head \"set\"".to_owned(),
            },
            panels: Panels { sessions: 333, ..Panels::default() },
            noise: false,
            music: true,
            keys,
            ..Settings::default()
        };
        change(&path, |kept| *kept = settings.clone()).unwrap();
        let (again, invalid) = read(&path).unwrap();
        assert_eq!((again, invalid.len()), (settings, 0));
    }

    #[test]
    fn an_invalid_value_is_named_and_does_not_affect_the_others() {
        let scratch = Scratch::new("value");
        let text = "theme = \"system\" # as the desktop\nname = \"Ada\"\nlayout = \"grid\"\n\n\
                    [window]\nwidth = \"wide\"\nheight = 700\n\n\
                    [keys]\nmute = \"V\"\ncamera = \"M\"\ntalk = \"Ü\"\nwhisper = \"W\"\n\n\
                    [later]\nthing = [1, 2]\n";
        let path = scratch.file(text);
        let (file, mut settings, invalid) = SettingsFile::open(path.clone());
        assert_eq!((settings.name.as_str(), settings.window.height), ("Ada", 700));
        assert_eq!((settings.theme, settings.window.width), (ThemeChoice::Dark, 1280));
        assert_eq!(
            settings.keys.action_of(Key::V),
            Some(Bindable::Mute),
            "the file swaps two keys"
        );
        let invalid: Vec<_> = invalid.iter().map(ToString::to_string).collect();
        assert_eq!(invalid.len(), 3, "{invalid:?}");
        for (error, part) in invalid.iter().zip(["keys.talk", "theme", "window.width"]) {
            assert!(error.contains(part) && error.contains("settings.toml"), "{error}");
        }
        settings.name = "Eve".to_owned();
        file.set_pending(settings.clone());
        file.save().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text.replace("Ada", "Eve"),
            "everything else stays"
        );
        settings.theme = ThemeChoice::Light;
        file.set_pending(settings);
        file.save().unwrap();
        let changed = text.replace("Ada", "Eve").replace("\"system\"", "\"light\"");
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            changed,
            "the user has chosen another theme"
        );
    }

    #[test]
    fn two_windows_that_change_different_settings_keep_both_changes() {
        let scratch = Scratch::new("two");
        let path = scratch.file("name = \"Ada\"\n");
        let (one, mut first, _) = SettingsFile::open(path.clone());
        let (other, mut second, _) = SettingsFile::open(path.clone());
        first.theme = ThemeChoice::Light;
        one.set_pending(first.clone());
        one.save().unwrap();
        second.camera = "none".into();
        second.panels.sessions = 400;
        other.set_pending(second);
        other.save().unwrap();
        first.panels.chat_beside = 350;
        one.set_pending(first);
        one.save().unwrap();
        let (both, _) = read(&path).unwrap();
        assert_eq!((both.theme, both.camera), (ThemeChoice::Light, "none".into()));
        assert_eq!((both.panels.sessions, both.panels.chat_beside), (400, 350));
    }

    #[test]
    fn windows_that_write_at_the_same_time_lose_nothing() {
        let scratch = Scratch::new("race");
        let path = scratch.file("");
        change(&path, |_| {}).unwrap();
        std::thread::scope(|scope| {
            for window in 0..4_u16 {
                let path = &path;
                scope.spawn(move || {
                    for round in 1..=10 {
                        change(path, |settings| match window {
                            0 => settings.name = format!("Ada {round}"),
                            1 => settings.hub = format!("http://h{round}"),
                            2 => settings.window.width = 1000 + round,
                            _ => settings.panels.sessions = 300 + round,
                        })
                        .unwrap();
                    }
                });
            }
        });
        let (all, invalid) = read(&path).unwrap();
        assert!(invalid.is_empty());
        assert_eq!((all.name.as_str(), all.hub.as_str()), ("Ada 10", "http://h10"));
        assert_eq!((all.window.width, all.panels.sessions), (1010, 310));
        let left: Vec<_> =
            fs::read_dir(&scratch.0).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the settings and the lock: {left:?}");
    }

    #[test]
    fn an_invalid_file_is_named_in_the_error_and_copied_before_it_is_replaced() {
        let scratch = Scratch::new("broken");
        let broken = "theme = \"light\"\n\nname = = 3\n";
        let path = scratch.file(broken);
        let error = errors(&path).join("\n");
        for part in ["settings.toml", "line 3", "settings.toml.bak"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        change(&path, |settings| settings.name = "Ada".to_owned()).unwrap();
        let kept = fs::read_to_string(path.with_extension("toml.bak")).unwrap();
        assert_eq!(kept, broken, "the user's text is not lost");
        assert_eq!(read(&path).unwrap().0.name, "Ada");
        fs::write(&path, "[keys]\nmute = \"V\"\n").unwrap();
        let error = errors(&path).join("\n");
        assert!(error.contains("keys.mute") && error.contains("V is already used"), "{error}");
    }

    #[test]
    fn a_change_that_failed_to_write_is_written_with_the_next_one() {
        let scratch = Scratch::new("again");
        let path = scratch.0.join("folder").join("settings.toml");
        let (file, mut settings, _) = SettingsFile::open(path.clone());
        fs::write(scratch.0.join("folder"), "a file in its way").unwrap();
        settings.name = "Ada".to_owned();
        file.set_pending(settings.clone());
        let error = file.save().unwrap_err().to_string();
        assert!(
            error.contains("cannot save the settings") && error.contains("settings.toml"),
            "{error}"
        );
        fs::remove_file(scratch.0.join("folder")).unwrap();
        settings.mirror = false;
        file.set_pending(settings.clone());
        file.save().unwrap();
        assert_eq!(read(&path).unwrap().0, settings);
    }

    #[test]
    fn a_read_only_file_is_not_replaced() {
        let scratch = Scratch::new("read-only");
        let path = scratch.file("name = \"Ada\"\n");
        let mut permissions = fs::metadata(&path).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&path, permissions).unwrap();
        let error = change(&path, |settings| settings.name.clear()).unwrap_err().to_string();
        assert!(error.contains("read-only"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "name = \"Ada\"\n");
    }

    #[cfg(unix)]
    #[test]
    fn writing_through_a_symbolic_link_keeps_the_link_and_the_mode() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};

        let scratch = Scratch::new("symlink");
        let (dotfiles, config) = (scratch.0.join("dotfiles"), scratch.0.join("config"));
        fs::create_dir_all(&dotfiles).unwrap();
        fs::create_dir_all(&config).unwrap();
        let (real, link) = (dotfiles.join("quintet.toml"), config.join("settings.toml"));
        fs::write(&real, "name = \"Ada\"\n").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("../dotfiles/quintet.toml", config.join("hop")).unwrap();
        symlink("hop", &link).unwrap();
        change(&link, |settings| settings.name = "Eve".to_owned()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "name = \"Eve\"\n");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        fs::remove_file(&real).unwrap();
        change(&link, |settings| settings.name = "Zoe".to_owned()).unwrap();
        assert!(
            fs::symlink_metadata(&link).unwrap().is_symlink(),
            "the link stays while its target is missing"
        );
        assert!(fs::read_to_string(&real).unwrap().contains("Zoe"));
        symlink("loop", config.join("loop")).unwrap();
        let error = change(&config.join("loop"), |settings| settings.mirror = false).unwrap_err();
        assert!(error.to_string().contains("cannot save the settings"), "{error}");
    }
}
