use std::time::Instant;

use super::*;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("quintet-held-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn a_source_is_never_recorded_to_under_any_of_its_names() {
    let folder = Folder::new("links");
    let source = folder.file("voice.wav", "sound");
    let mut names = vec![source.clone(), folder.0.join(".").join("voice.wav")];
    let hard = folder.0.join("hard.wav");
    fs::hard_link(&source, &hard).unwrap();
    names.push(hard);
    #[cfg(unix)]
    {
        let soft = folder.0.join("soft.wav");
        std::os::unix::fs::symlink("voice.wav", &soft).unwrap();
        names.push(soft);
    }
    let claim = SourceClaim::new(&source, "microphone");
    for name in &names {
        for opened in [Recording::check(name), Recording::open(name).map(drop)] {
            let error = opened.unwrap_err().to_string();
            assert!(error.contains("is also the microphone's file"), "{error}");
        }
        assert_eq!(fs::read_to_string(&source).unwrap(), "sound");
    }
    let other = folder.0.join("other.wav");
    Recording::open(&other).unwrap();
    drop(claim);
    Recording::open(&source).map(drop).or_else(retry_until_closed(&source)).unwrap();
}

/// Opens the recording again until the claim's lock is released, which happens on a background
/// thread.
fn retry_until_closed(path: &Path) -> impl FnOnce(FileError) -> Result<(), FileError> {
    let path = path.to_owned();
    move |mut error| {
        let start = Instant::now();
        while matches!(error, FileError::InUse { .. }) && start.elapsed().as_secs() < 60 {
            std::thread::yield_now();
            match Recording::open(&path) {
                Ok(_) => return Ok(()),
                Err(again) => error = again,
            }
        }
        Err(error)
    }
}

#[test]
fn a_file_that_is_recorded_is_neither_sent_nor_recorded_again() {
    let folder = Folder::new("recorded");
    let path = folder.0.join("recording.wav");
    let recording = Recording::open(&path).unwrap();
    let error = open_source(&path).unwrap_err().to_string();
    assert!(error.contains("sound is being recorded to"), "{error}");
    assert!(matches!(Recording::open(&path), Err(FileError::InUse { .. })));
    drop(recording);
    let _source = open_source(&path).unwrap();
}

#[test]
fn a_lock_of_another_program_is_respected_by_sources_and_recordings() {
    // A lock belongs to an open file, so another handle acts like another program.
    let folder = Folder::new("locks");
    let path = folder.file("voice.wav", "sound");
    let other = File::open(&path).unwrap();
    other.lock_shared().unwrap();
    let error = Recording::open(&path).unwrap_err();
    assert!(matches!(error, FileError::InUse { .. }), "{error}");
    #[cfg(target_os = "linux")]
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    let _both_read = open_source(&path).unwrap();
    drop(_both_read);
    other.unlock().unwrap();
    other.lock().unwrap();
    assert!(matches!(open_source(&path), Err(FileError::InUse { .. })));
    assert_eq!(fs::read_to_string(&path).unwrap(), "sound");
}

#[test]
fn a_check_creates_nothing_and_its_error_names_a_folder_or_a_missing_folder() {
    let folder = Folder::new("look");
    let new = folder.0.join("new.wav");
    Recording::check(&new).unwrap();
    Recording::check(Path::new("new.wav")).unwrap();
    assert!(!new.exists() && !Path::new("new.wav").exists());
    for bad in [&folder.0, &folder.0.join("none/a.wav")] {
        let error = Recording::check(bad).unwrap_err().to_string();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_a_socket_and_a_device_are_refused_without_waiting() {
    let folder = Folder::new("pipe");
    let (pipe, socket) = (folder.0.join("pipe.wav"), folder.0.join("socket.wav"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let device = folder.0.join("device.wav");
    std::os::unix::fs::symlink("/dev/null", &device).unwrap();
    for (path, kind) in [
        (pipe, "a named pipe"),
        (socket, "a socket"),
        (device, "a device"),
        (folder.0.clone(), "a folder"),
    ] {
        let opened = path.clone();
        let results = with_timeout(Duration::from_secs(60), move || {
            [
                Recording::check(&opened),
                Recording::open(&opened).map(drop),
                open_source(&opened).map(drop),
            ]
        });
        for result in results.expect("no call waits") {
            let error = result.unwrap_err().to_string();
            assert!(error.contains(&format!("{path:?} is {kind}, not a file")), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_recording_can_be_read_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::new("private");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let fresh = folder.0.join("fresh.wav");
    let _recording = Recording::open(&fresh).unwrap();
    assert_eq!(mode(&fresh), 0o600);
    let earlier = folder.file("earlier.wav", "sound");
    fs::set_permissions(&earlier, fs::Permissions::from_mode(0o644)).unwrap();
    let recording = Recording::open(&earlier).unwrap();
    assert_eq!(mode(&earlier), 0o644, "opening changes no permissions");
    recording.restrict_to_owner();
    assert_eq!(mode(&earlier), 0o600);
}
