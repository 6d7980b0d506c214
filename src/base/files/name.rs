//! Parsing of file names as the user writes them.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

/// Returns the path in `file:PATH`, also if it is not valid Unicode; `None` if the text does not
/// begin with `file:` in upper or lower case.
pub fn parse_file_spec(text: &OsStr) -> Option<PathBuf> {
    without_prefix(text, "file:").map(|path| expand_home(Path::new(&path)))
}

/// Replaces a `~` at the beginning of a path by the user's home folder. A shell does this only at
/// the beginning of a word, so not in `file:~/film.y4m`.
pub fn expand_home(path: &Path) -> PathBuf {
    expand(path, std::env::home_dir())
}

fn expand(path: &Path, home: Option<PathBuf>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(relative), Some(home)) if relative.as_os_str().is_empty() => home,
        (Ok(relative), Some(home)) => home.join(relative),
        (Ok(_) | Err(_), _) => path.to_owned(),
    }
}

#[cfg(unix)]
fn without_prefix(text: &OsStr, prefix: &str) -> Option<OsString> {
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    let (head, path) = text.as_bytes().split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix.as_bytes()).then(|| OsString::from_vec(path.to_vec()))
}

#[cfg(windows)]
fn without_prefix(text: &OsStr, prefix: &str) -> Option<OsString> {
    use std::os::windows::ffi::{OsStrExt as _, OsStringExt as _};
    let wide: Vec<_> = text.encode_wide().collect();
    let (head, path) = wide.split_at_checked(prefix.len())?;
    let head = String::from_utf16(head).ok()?;
    head.eq_ignore_ascii_case(prefix).then(|| OsString::from_wide(path))
}

#[cfg(not(any(unix, windows)))]
fn without_prefix(text: &OsStr, prefix: &str) -> Option<OsString> {
    let (head, path) = text.to_str()?.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then(|| OsString::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_is_the_home_folder_only_at_the_beginning() {
        let expanded = |path: &str| expand(Path::new(path), Some("/home/ada".into()));
        assert_eq!(expanded("~/films/a.y4m"), Path::new("/home/ada/films/a.y4m"));
        assert_eq!(expanded("~"), Path::new("/home/ada"));
        for same in ["/tmp/~/a", "a~", "~bob/a", "./~/a", "~a"] {
            assert_eq!(expanded(same), Path::new(same));
        }
        assert_eq!(expand(Path::new("~/a"), None), Path::new("~/a"), "without a home folder");
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_unicode_keeps_its_bytes() {
        use std::os::unix::ffi::OsStrExt as _;
        let text = OsStr::from_bytes(b"FILE:/tmp/caf\xe9.wav");
        assert_eq!(parse_file_spec(text).unwrap().as_os_str().as_bytes(), b"/tmp/caf\xe9.wav");
        assert_eq!(parse_file_spec(OsStr::from_bytes(b"caf\xe9.wav")), None);
        assert_eq!(parse_file_spec(OsStr::new("fil")), None);
    }
}
