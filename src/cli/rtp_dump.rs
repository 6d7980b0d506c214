//! The file of `--rtp-dump`.

use std::path::PathBuf;

use tokio::time::timeout;

use super::headless::PREFLIGHT_WAIT;
use crate::{engine::RtpDump, files::PrivateRecording};

/// Starts a dump of all media to a file. Waits half a second at most for the file.
///
/// # Errors
/// If the file cannot be written, or there is no thread left.
pub(super) async fn start(path: PathBuf) -> anyhow::Result<RtpDump> {
    let (dump, opened) = RtpDump::start(move || PrivateRecording::open(&path))?;
    // A drive that does not answer yet gets the packets of the first moments when it does.
    if let Ok(Ok(opened)) = timeout(PREFLIGHT_WAIT, opened).await {
        opened?;
    }
    Ok(dump)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_dump_replaces_the_file_and_only_the_user_can_read_it() {
        let folder = std::env::temp_dir().join(format!("quintet-dump-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("call.pcap");
        fs::write(&path, [0; 1000]).unwrap();
        let dump = start(path.clone()).await.unwrap();
        while fs::metadata(&path).unwrap().len() != 24 {
            std::thread::yield_now();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let second = start(path.clone()).await.unwrap_err().to_string();
        assert!(second.contains("call.pcap"), "it is written already: {second}");
        drop(dump);
        fs::remove_dir_all(&folder).unwrap();
        let missing = start(path).await.unwrap_err().to_string();
        assert!(missing.contains("call.pcap") && missing.contains("cannot write"), "{missing}");
    }
}
