//! The settings' file: read key by key, and written so that nothing in it is lost.
//!
//! The file belongs to the person: comments, the order of keys, keys of a newer version and values
//! that this version cannot use stay as they are. Only what changed in this window is written, into
//! what the file holds at that moment, so that two windows do not undo each other's changes.

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
    settings::{Kept, Settings, SettingsError},
};

/// How long another program may hold the file; then it is written all the same: another window
/// that hangs must not keep this one from closing.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most symbolic links in a row, as Linux has it.
const MAX_LINKS: usize = 40;

/// The settings' file, and what of it this window knows.
#[derive(Debug)]
pub(crate) struct SettingsFile {
    path: PathBuf,
    state: Mutex<State>,
    /// Held while the file is written: what is wanted first is written first.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct State {
    /// What this window read from the file or wrote into it.
    kept: Settings,
    /// What is to be written next.
    wanted: Option<Settings>,
}

impl SettingsFile {
    /// Reads the settings in that file, the usual ones if there is none, and what of it cannot be
    /// used. Blocks.
    pub(crate) fn open(path: PathBuf) -> (Self, Settings, Vec<SettingsError>) {
        let (settings, errors) = match read(&path) {
            Ok(read) => read,
            Err(error) => (Settings::default(), vec![error]),
        };
        let state = State { kept: settings.clone(), wanted: None };
        (Self { path, state: Mutex::new(state), writing: Mutex::new(()) }, settings, errors)
    }

    /// Says what is to be written by the next [`Self::save`], on whatever thread. Does not wait
    /// for the disk.
    pub(crate) fn want(&self, settings: Settings) {
        // Writers take what is wanted before they touch the disk, and hold nothing meanwhile.
        self.state().wanted = Some(settings);
    }

    /// Writes what was wanted last; nothing if that is done. Blocks.
    ///
    /// # Errors
    /// If the file cannot be written. It is as it was then, and the change is written with the next
    /// one.
    pub(crate) fn save(&self) -> Result<(), SettingsError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, wanted) = {
            let mut state = self.state();
            let Some(wanted) = state.wanted.take() else { return Ok(()) };
            (state.kept.clone(), wanted)
        };
        write(&self.path, &kept, &wanted)
            .map_err(|error| SettingsError::Write { path: self.path.clone(), error })?;
        self.state().kept = wanted;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The settings in a file, and the keys that cannot be used.
fn read(path: &Path) -> Result<(Settings, Vec<SettingsError>), SettingsError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Default::default()),
        Err(error) => return Err(SettingsError::Read { path: path.to_owned(), error }),
    };
    let path = || path.to_owned();
    match parse(&text) {
        Ok((settings, wrong)) => {
            let errors = wrong.into_iter().map(|(key, error)| {
                tracing::debug!(key, error, "a setting is not used");
                SettingsError::Value { path: path(), key, error }
            });
            Ok((settings, errors.collect()))
        }
        Err(error) => {
            let (error, kept) = (in_line(&text, &error), copy(&path()));
            Err(SettingsError::Malformed { path: path(), error, kept })
        }
    }
}

/// Keys and what is wrong with their values.
type Wrong = Vec<(String, String)>;

/// The settings in a text: each key that can be used, and for the others the usual value and why.
/// Keys that are not known are left alone.
pub(super) fn parse(text: &str) -> Result<(Settings, Wrong), toml::de::Error> {
    let file: Table = toml::from_str(text)?;
    let mut known = as_table(&Settings::default());
    let mut wrong = vec![];
    // Looked at together: the file may swap two keys.
    if let Some(Value::Table(keys)) = file.get("keys") {
        let (bindings, refused) = Bindings::read(keys);
        wrong.extend(refused.into_iter().map(|(key, error)| (format!("keys.{key}"), error)));
        known.insert("keys".to_owned(), Value::Table(bindings.to_table()));
    }
    for (key, usual) in as_table(&Settings::default()) {
        match (file.get(&key), usual) {
            (None, _) => {}
            (Some(Value::Table(_)), Value::Table(_)) if key == "keys" => {}
            (Some(Value::Table(given)), Value::Table(usual)) => {
                for inner in usual.keys() {
                    let Some(value) = given.get(inner) else { continue };
                    let path = [key.as_str(), inner.as_str()];
                    wrong.extend(try_value(&mut known, &path, value.clone()));
                }
            }
            (Some(value), _) => wrong.extend(try_value(&mut known, &[&key], value.clone())),
        }
    }
    Ok((known.try_into()?, wrong))
}

/// Puts a value into a table of settings if they can be read with it; else what is wrong.
fn try_value(known: &mut Table, path: &[&str], value: Value) -> Option<(String, String)> {
    let mut with = known.clone();
    let place = match path {
        [section, key] => {
            let section = with.get_mut(*section).and_then(Value::as_table_mut)?;
            section.insert((*key).to_owned(), value)
        }
        _ => with.insert((*path.first()?).to_owned(), value),
    };
    debug_assert!(place.is_some(), "only keys that settings have are tried");
    match with.clone().try_into::<Settings>() {
        Ok(_) => {
            *known = with;
            None
        }
        Err(error) => Some((path.join("."), error.message().to_owned())),
    }
}

fn as_table(settings: &Settings) -> Table {
    Table::try_from(settings).expect("settings are a table")
}

/// The values of settings by key, and those in a section by both.
fn values(settings: &Settings) -> BTreeMap<(String, Option<String>), Value> {
    // A device is a table too, but one value.
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

/// Puts what differs between two settings into a text of the file. An empty text gets everything.
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

/// Gives a key another value; the comment behind it stays.
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

/// Writes what differs between two settings into the file that a path leads to, through symbolic
/// links, with its mode, beside it first, so that a crash leaves the old file or the new one.
fn write(path: &Path, before: &Settings, after: &Settings) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let _lock = lock(path);
    let target = behind_links(path)?;
    let text = match fs::read_to_string(&target) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let merged = match merge(&text, before, after) {
        Ok(merged) => merged,
        // It was no TOML when the window started, or is none by now. A copy is kept.
        Err(_) if matches!(copy(path), Kept::Copy(_)) => merge("", before, after)?,
        Err(error) => return Err(error),
    };
    if merged == text { Ok(()) } else { replace(&target, &merged) }
}

/// Replaces a file's contents at once.
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
    let beside = target.with_extension(format!("toml.{}", std::process::id()));
    let write = || {
        let mut file = File::create(&beside)?;
        if let Some(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, target)
    };
    write().inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// The file that a path leads to, which need not be there yet.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let Ok(to) = fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(to);
    }
    Err(io::Error::other("too many symbolic links lead to one another"))
}

/// Keeps other windows from writing until it is dropped; `None` if they do not let go in time, or
/// no lock can be had there. The lock's file stays: to remove it would be a race.
fn lock(path: &Path) -> Option<File> {
    let beside = path.with_extension("toml.lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(beside).ok()?;
    let give_up = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(fs::TryLockError::WouldBlock) if Instant::now() < give_up => {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => {
                tracing::warn!(%error, "the settings are written without a lock");
                return None;
            }
        }
    }
}

/// Copies a file that cannot be understood beside itself.
fn copy(path: &Path) -> Kept {
    let copy = path.with_extension("toml.bak");
    match fs::copy(path, &copy) {
        Ok(_) => Kept::Copy(copy),
        Err(error) => Kept::Nowhere(error),
    }
}

/// What is wrong with a text, and in which of its lines, counted from one.
fn in_line(text: &str, error: &toml::de::Error) -> String {
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
            chosen::Chosen,
            settings::{Panels, ThemeChoice},
        },
        *,
    };

    /// A folder of its own, gone when it is dropped.
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

    /// Opens the settings in a file, changes them and writes them.
    fn change(path: &Path, change: impl FnOnce(&mut Settings)) -> Result<(), SettingsError> {
        let (file, mut settings, _) = SettingsFile::open(path.to_owned());
        change(&mut settings);
        file.want(settings);
        file.save()
    }

    fn errors(path: &Path) -> Vec<String> {
        SettingsFile::open(path.to_owned()).2.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_kept_is_read_again_and_nothing_there_means_the_usual() {
        let scratch = Scratch::new("kept");
        let path = scratch.0.join("deep").join("settings.toml");
        assert_eq!(read(&path).unwrap().0, Settings::default());
        let mut keys = Bindings::default();
        keys.bind(Bindable::Talk, Key::F7).unwrap();
        let settings = Settings {
            name: "Ada \"the first\"".to_owned(),
            theme: ThemeChoice::Light,
            camera: "pattern:320x180@15".into(),
            speaker: Chosen::Device { id: "usb-2".to_owned(), name: "Head \"set\"".to_owned() },
            panels: Panels { sessions: 333, ..Panels::default() },
            keys,
            ..Settings::default()
        };
        change(&path, |kept| *kept = settings.clone()).unwrap();
        let (again, wrong) = read(&path).unwrap();
        assert_eq!((again, wrong.len()), (settings, 0));
    }

    #[test]
    fn one_value_that_cannot_be_used_costs_that_one_only_and_is_named() {
        let scratch = Scratch::new("value");
        let text = "theme = \"system\" # as the desktop\nname = \"Ada\"\nlayout = \"grid\"\n\n\
                    [window]\nwidth = \"wide\"\nheight = 700\n\n\
                    [keys]\nmute = \"V\"\ncamera = \"M\"\ntalk = \"Ü\"\nwhisper = \"W\"\n\n\
                    [later]\nthing = [1, 2]\n";
        let path = scratch.file(text);
        let (file, mut settings, wrong) = SettingsFile::open(path.clone());
        assert_eq!((settings.name.as_str(), settings.window.height), ("Ada", 700));
        assert_eq!((settings.theme, settings.window.width), (ThemeChoice::Dark, 1280));
        assert_eq!(settings.keys.deed(Key::V), Some(Bindable::Mute), "two keys are swapped");
        let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        for (error, part) in wrong.iter().zip(["keys.talk", "theme", "window.width"]) {
            assert!(error.contains(part) && error.contains("settings.toml"), "{error}");
        }
        settings.name = "Eve".to_owned();
        file.want(settings.clone());
        file.save().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text.replace("Ada", "Eve"),
            "all else stays"
        );
        settings.theme = ThemeChoice::Light;
        file.want(settings);
        file.save().unwrap();
        let changed = text.replace("Ada", "Eve").replace("\"system\"", "\"light\"");
        assert_eq!(fs::read_to_string(&path).unwrap(), changed, "now the person chose another");
    }

    #[test]
    fn two_windows_that_change_different_settings_both_win() {
        let scratch = Scratch::new("two");
        let path = scratch.file("name = \"Ada\"\n");
        let (one, mut first, _) = SettingsFile::open(path.clone());
        let (other, mut second, _) = SettingsFile::open(path.clone());
        first.theme = ThemeChoice::Light;
        one.want(first.clone());
        one.save().unwrap();
        second.camera = "none".into();
        second.panels.sessions = 400;
        other.want(second);
        other.save().unwrap();
        first.panels.chat_beside = 350;
        one.want(first);
        one.save().unwrap();
        let (both, _) = read(&path).unwrap();
        assert_eq!((both.theme, both.camera), (ThemeChoice::Light, "none".into()));
        assert_eq!((both.panels.sessions, both.panels.chat_beside), (400, 350));
    }

    #[test]
    fn windows_that_write_at_the_same_time_lose_nothing_and_leave_whole_files() {
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
        let (all, wrong) = read(&path).unwrap();
        assert!(wrong.is_empty());
        assert_eq!((all.name.as_str(), all.hub.as_str()), ("Ada 10", "http://h10"));
        assert_eq!((all.window.width, all.panels.sessions), (1010, 310));
        let left: Vec<_> =
            fs::read_dir(&scratch.0).unwrap().map(|one| one.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "the settings and the lock: {left:?}");
    }

    #[test]
    fn a_file_that_is_no_toml_names_itself_and_is_copied_before_it_is_replaced() {
        let scratch = Scratch::new("broken");
        let broken = "theme = \"light\"\n\nname = = 3\n";
        let path = scratch.file(broken);
        let error = errors(&path).join("\n");
        for part in ["settings.toml", "line 3", "settings.toml.bak"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        change(&path, |settings| settings.name = "Ada".to_owned()).unwrap();
        let kept = fs::read_to_string(path.with_extension("toml.bak")).unwrap();
        assert_eq!(kept, broken, "what the person wrote is not lost");
        assert_eq!(read(&path).unwrap().0.name, "Ada");
        fs::write(&path, "[keys]\nmute = \"V\"\n").unwrap();
        let error = errors(&path).join("\n");
        assert!(error.contains("keys.mute") && error.contains("V is already used"), "{error}");
    }

    #[test]
    fn a_change_that_could_not_be_written_is_written_with_the_next_one() {
        let scratch = Scratch::new("again");
        let path = scratch.0.join("folder").join("settings.toml");
        let (file, mut settings, _) = SettingsFile::open(path.clone());
        fs::write(scratch.0.join("folder"), "a file in its way").unwrap();
        settings.name = "Ada".to_owned();
        file.want(settings.clone());
        let error = file.save().unwrap_err().to_string();
        assert!(
            error.contains("cannot save the settings") && error.contains("settings.toml"),
            "{error}"
        );
        fs::remove_file(scratch.0.join("folder")).unwrap();
        settings.mirror = false;
        file.want(settings.clone());
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
    fn a_symbolic_link_stays_one_and_its_file_keeps_its_mode() {
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
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "a link to no file yet");
        assert!(fs::read_to_string(&real).unwrap().contains("Zoe"));
        symlink("loop", config.join("loop")).unwrap();
        let error = change(&config.join("loop"), |settings| settings.mirror = false).unwrap_err();
        assert!(error.to_string().contains("cannot save the settings"), "{error}");
    }
}
