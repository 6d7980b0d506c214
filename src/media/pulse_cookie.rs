//! The cookie without which a PulseAudio server does not talk to a client that brings none.

use std::{
    env,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Bytes in a cookie (`PA_NATIVE_COOKIE_LENGTH` of PulseAudio's native protocol).
const COOKIE_BYTES: usize = 256;

/// Makes this user's cookie if there is none, as PulseAudio's own library does at its first use;
/// on a fresh account nobody may have used it yet. Returns whether one was made.
pub(super) fn make_if_missing() -> bool {
    let Some(home) = env::home_dir().filter(|home| !home.as_os_str().is_empty()) else {
        return false;
    };
    let usual = home.join(".config/pulse/cookie");
    let named = env::var_os("PULSE_COOKIE").map(PathBuf::from);
    let places = [named, Some(usual.clone()), Some(home.join(".pulse-cookie"))];
    if places.into_iter().flatten().any(|place| place.exists()) {
        return false;
    }
    let made = make(&usual);
    if let Err(error) = &made {
        tracing::debug!(%error, "no cookie for the sound server can be made");
    }
    made.is_ok()
}

fn make(path: &Path) -> io::Result<()> {
    let mut cookie = [0; COOKIE_BYTES];
    getrandom::fill(&mut cookie).map_err(io::Error::other)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(&cookie)
}
