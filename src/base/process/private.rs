//! Files and folders that only this user can read: for secrets, and for state that survives a
//! crash.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

/// Returns the folder for secrets and for state that survives a crash: the platform's state folder,
/// or the local data folder on platforms without one. `None` for a user without a home folder.
pub fn state_folder() -> Option<PathBuf> {
    let folders = directories::ProjectDirs::from("", "", "quintet")?;
    let state = folders.state_dir().unwrap_or_else(|| folders.data_local_dir());
    Some(state.to_path_buf())
}

/// Creates an empty file that only the user can read, or empties an existing one.
///
/// # Errors
/// Returns the error of the system.
pub fn create_private(path: &Path) -> io::Result<File> {
    open_for_owner(path, OpenOptions::new().create(true).truncate(true))
}

/// Creates a file that only the user can read; the name must be free.
///
/// # Errors
/// Returns the error of the system.
pub fn create_new_private(path: &Path) -> io::Result<File> {
    open_for_owner(path, OpenOptions::new().create_new(true))
}

/// Opens a file that only the user can read from now on, without changing it; creates it if it is
/// missing.
///
/// # Errors
/// Returns the error of the system.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    open_for_owner(path, OpenOptions::new().create(true).truncate(false))
}

#[cfg(unix)]
fn open_for_owner(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
    let file = options.read(true).write(true).mode(0o600).open(path)?;
    // The mode above applies to a new file only. The mode of a device or a pipe is not changed.
    if file.metadata()?.is_file() {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// The access list of the user's state folder already keeps other users out.
#[cfg(not(unix))]
fn open_for_owner(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    options.read(true).write(true).open(path)
}

/// Creates a folder that only the user can read, with its parent folders.
///
/// # Errors
/// Returns the error of the system.
#[cfg(unix)]
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Creates a folder with its parent folders.
///
/// # Errors
/// Returns the error of the system.
#[cfg(not(unix))]
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Returns whether other users may read or change a file. Always `false` on systems with access
/// lists: those of the user's state folder keep other users out.
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
