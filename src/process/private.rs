//! Files and folders that only this user can read: secrets, and what a crash leaves.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// Where this user's programs keep secrets and what they need after a crash: the platform's state
/// folder, or the local data folder where there is none. `None` for a user without a home.
pub fn state_folder() -> Option<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "quintet")?;
    let state = folders.state_dir().unwrap_or_else(|| folders.data_local_dir());
    Some(state.to_path_buf())
}

/// Makes an empty file that only the user can read, in place of one that is there.
///
/// # Errors
/// What the system says.
#[cfg(unix)]
pub fn create_private(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // The mode above is that of a new file only. A device or a pipe has its own.
    if file.metadata()?.is_file() {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Makes an empty file in place of one that is there.
///
/// # Errors
/// What the system says.
#[cfg(not(unix))]
pub fn create_private(path: &Path) -> io::Result<File> {
    // The user's own state folder is closed to other users by its access list.
    OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)
}

/// Makes a folder, and those above it, that only the user can read.
///
/// # Errors
/// What the system says.
#[cfg(unix)]
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a folder and those above it.
///
/// # Errors
/// What the system says.
#[cfg(not(unix))]
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Whether others than the user may read or change a file. Always `false` where access lists say
/// so: the user's state folder is closed by them.
pub fn is_open_to_others(file: &File) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        Ok(file.metadata()?.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    {
        file.metadata().map(|_| false)
    }
}
