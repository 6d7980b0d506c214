//! The authentication cookie of PulseAudio, without which a server refuses clients.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Bytes in a cookie (`PA_NATIVE_COOKIE_LENGTH` of PulseAudio's native protocol).
const COOKIE_BYTES: usize = 256;

/// Creates the user's cookie if there is none. PulseAudio's own library does the same at its first
/// use, which may not have happened yet on a fresh account. Returns whether a cookie was created.
pub(super) fn create_if_missing() -> bool {
    let Some(home) = env::home_dir().filter(|home| !home.as_os_str().is_empty()) else {
        return false;
    };
    let default = home.join(".config/pulse/cookie");
    let from_env = env::var_os("PULSE_COOKIE").map(PathBuf::from);
    let paths = [from_env, Some(default.clone()), Some(home.join(".pulse-cookie"))];
    if paths.into_iter().flatten().any(|path| path.exists()) {
        return false;
    }
    let created = create(&default);
    if let Err(error) = &created {
        tracing::debug!(%error, "PulseAudio cookie not created");
    }
    created.is_ok()
}

fn create(path: &Path) -> io::Result<()> {
    let mut cookie = [0; COOKIE_BYTES];
    getrandom::fill(&mut cookie).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&cookie)
}
