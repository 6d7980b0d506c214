//! The report that a user saves when something went wrong: one text file for the person who
//! helps. It contains no key, password or chat text, and no id with which a session can be joined.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{
    model::{Snapshot, Stats, redact, redact_text},
    process::{LogFile, create_new_private},
};

use super::settings::Settings;

/// What goes into a report, apart from the log and the system.
pub(crate) struct Report {
    /// The state of the engine.
    pub(crate) snapshot: Snapshot,
    /// The statistics, if the engine runs.
    pub(crate) stats: Option<Stats>,
    /// The settings.
    pub(crate) settings: Settings,
}

/// How many names are tried: a folder with so many reports gets no further one.
const MAX_REPORTS: usize = 1000;

impl Report {
    /// Writes the report with the log to a new file in the user's folder for downloads, or in the
    /// home folder. Only the user can read it. Returns its path. Blocks.
    ///
    /// # Errors
    /// If there is no folder, or the file cannot be written.
    pub(crate) fn save(&self) -> io::Result<PathBuf> {
        let folders = directories::UserDirs::new();
        let folders = folders.ok_or_else(|| io::Error::other("this system has no home folder"))?;
        let downloads = folders.download_dir().filter(|folder| folder.is_dir());
        let folder = downloads.unwrap_or_else(|| folders.home_dir());
        save_in(folder, &self.text(&system(), &LogFile::read()))
    }

    /// The text of the report.
    fn text(&self, system: &str, log: &str) -> String {
        let mut snapshot = serde_json::to_value(&self.snapshot).unwrap_or_default();
        let mut stats = serde_json::to_value(&self.stats).unwrap_or_default();
        redact(&mut snapshot, false);
        redact(&mut stats, false);
        let settings = toml::to_string(&self.settings).unwrap_or_default();
        let mut text = format!(
            "Quintet {version}, a report without keys, passwords and chat texts.\n\
             It contains names and addresses: read it before you send it.\n\n\
             === System ===\n{system}\n\
             === State ===\n{snapshot:#}\n\n\
             === Statistics ===\n{stats:#}\n\n\
             === Settings ===\n{settings}\n\
             === Log ===\n{log}",
            version = env!("CARGO_PKG_VERSION"),
        );
        redact_text(&mut text);
        text
    }
}

/// Writes the text to the first name in the folder that is free.
fn save_in(folder: &Path, text: &str) -> io::Result<PathBuf> {
    for number in 1..=MAX_REPORTS {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = folder.join(format!("quintet-report{suffix}.txt"));
        match create_new_private(&path) {
            Ok(mut file) => {
                return file.write_all(text.as_bytes()).map(|()| path.clone()).inspect_err(|_| {
                    // Half a report helps nobody.
                    let _ = fs::remove_file(&path);
                });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("there are too many reports in the folder"))
}

/// The operating system, and what the window depends on.
fn system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let mut lines = format!(
        "{} {} {} {}, {cores} cores\n",
        std::env::consts::OS,
        std::env::consts::ARCH,
        name.unwrap_or_default().trim_matches('"'),
        kernel.trim(),
    );
    for name in ["XDG_SESSION_TYPE", "XDG_CURRENT_DESKTOP", "LIBGL_ALWAYS_SOFTWARE"] {
        if let Ok(value) = std::env::var(name) {
            lines += &format!("{name}={value}\n");
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{
        DataUse, Enabled, HubUrl, ParticipantList, PerSource, Role, Secret, SessionId,
        SessionState, SessionStatus,
    };

    fn session(id: &SessionId) -> SessionStatus {
        let hub: HubUrl = "http://10.0.0.1:7340".parse().unwrap();
        SessionStatus {
            session: id.clone(),
            kind: None,
            role: Role::Opener,
            link: Some(hub.link(id)),
            hub: None,
            limit: None,
            state: SessionState::Live,
            enabled: Enabled::default(),
            data_use: DataUse::Full,
            is_raised: false,
            sending: PerSource::NONE,
            participants: ParticipantList::default(),
            active_speaker: None,
            locked: false,
            removed: vec![],
        }
    }

    #[test]
    fn a_report_says_what_happened_without_planted_secrets() {
        let key = Secret::from_random([0xab; 16]);
        let (own, chosen) = (SessionId::of_key(&key), SessionId::parse("town-hall").unwrap());
        let sessions = [session(&own), session(&chosen)].map(Arc::new).to_vec();
        let snapshot = Snapshot { sessions, ..Snapshot::default() };
        let settings = Settings { name: "Olga".to_owned(), ..Settings::default() };
        let report = Report { snapshot, stats: Some(Stats::default()), settings };
        let log = format!(
            "WARN connection ended reason=\"a queue is full\"\n\
             DEBUG a=ice-pwd:hunter2hunter2hunter2\r\n\
             DEBUG owner_key={} token={}\n\
             DEBUG {own} at http://10.0.0.1:7340/s/{own}\n",
            key.expose(),
            key.expose(),
        );
        let text = report.text("a system", &log);
        for secret in ["hunter2", key.expose(), own.as_str()] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        let first_group = &own.as_str()[..5];
        for fact in ["a system", "town-hall", "Olga", "a queue is full", "captures", first_group] {
            assert!(text.contains(fact), "no {fact} in {text}");
        }
    }

    #[test]
    fn a_report_replaces_no_file_and_only_the_user_can_read_it() {
        let folder = std::env::temp_dir().join(format!("quintet-report-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let first = save_in(&folder, "one").unwrap();
        let second = save_in(&folder, "two").unwrap();
        assert_eq!(second, folder.join("quintet-report-2.txt"));
        assert_eq!(fs::read_to_string(&first).unwrap(), "one");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
