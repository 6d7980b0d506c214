//! Writes audio to a WAV file that is valid whenever the program ends.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use crate::{
    files::{FileError, Recording},
    media::{AUDIO_RATE, BLOCK_SAMPLES},
};

/// A WAV file that is being written: 48 kHz, mono, 16 bits. Every call may block forever.
pub(super) struct WavFile {
    path: PathBuf,
    writer: hound::WavWriter<RecordingStream>,
    blocks: u32,
}

/// Why audio is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WavError {
    /// The file cannot be opened for writing.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file cannot be created or appended to.
    #[error("cannot write sound to {path:?}: {source}; choose another file")]
    Create {
        /// The file.
        path: PathBuf,
        /// The error of the system or of the WAV format.
        source: hound::Error,
    },
    /// Writing to the file failed.
    #[error("writing sound to {path:?} failed: {source}; make room and it goes on")]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the system or of the WAV format.
        source: hound::Error,
    },
    /// The file is at its maximum size: a WAV header has 32 bits for it.
    #[error("{path:?} is full: a WAV file holds 12 hours; choose another file")]
    Full {
        /// The file.
        path: PathBuf,
    },
}

/// The sample format of every file.
const SPEC: hound::WavSpec = hound::WavSpec {
    channels: 1,
    sample_rate: AUDIO_RATE,
    bits_per_sample: 16,
    sample_format: hound::SampleFormat::Int,
};

impl WavFile {
    /// The header is updated and the samples are flushed after this many blocks: a second.
    const BLOCKS_PER_FLUSH: u32 = 100;

    /// The most samples in a file, with room for its header.
    const MAX_SAMPLES: u32 = (u32::MAX - 4096) / 2;

    /// The size of the header in bytes.
    const HEADER: u64 = 44;

    /// Opens the file. With `append` the audio is appended. Without it the content is replaced, but
    /// only after all checks have passed and a new header is written.
    pub(super) fn open(path: &Path, append: bool) -> Result<Self, WavError> {
        let recording = Recording::open(path)?;
        recording.restrict_to_owner();
        let opened = match append && recording.file().metadata().is_ok_and(|it| it.len() > 0) {
            true => RecordingStream::new(recording).and_then(hound::WavWriter::new_append),
            false => Self::replace(recording),
        };
        let to_error = |source| WavError::Create { path: path.to_owned(), source };
        Ok(Self { path: path.to_owned(), writer: opened.map_err(to_error)?, blocks: 0 })
    }

    fn replace(recording: Recording) -> hound::Result<hound::WavWriter<RecordingStream>> {
        let file = recording.file().try_clone()?;
        let mut writer = hound::WavWriter::new(RecordingStream::new(recording)?, SPEC)?;
        writer.flush()?;
        file.set_len(Self::HEADER)?;
        Ok(writer)
    }

    /// Appends a block.
    pub(super) fn write(&mut self, block: &[f32; BLOCK_SAMPLES]) -> Result<(), WavError> {
        if self.writer.len() > Self::MAX_SAMPLES - BLOCK_SAMPLES as u32 {
            return Err(WavError::Full { path: self.path.clone() });
        }
        let mut samples = self.writer.get_i16_writer(BLOCK_SAMPLES as u32);
        for sample in block {
            samples.write_sample((sample.clamp(-1.0, 1.0) * f32::from(i16::MAX)).round() as i16);
        }
        let written = samples.flush();
        self.blocks += 1;
        let flushed = match self.blocks % Self::BLOCKS_PER_FLUSH {
            0 => self.writer.flush(),
            _ => Ok(()),
        };
        written.and(flushed).map_err(|source| WavError::Write { path: self.path.clone(), source })
    }
}

/// The file that `hound` writes to. `hound` also reads it, for the header of a file that it appends
/// to.
struct RecordingStream {
    file: BufWriter<File>,
    /// Holds the lock that keeps other processes from using the file.
    _recording: Recording,
}

impl RecordingStream {
    fn new(recording: Recording) -> hound::Result<Self> {
        Ok(Self { file: BufWriter::new(recording.file().try_clone()?), _recording: recording })
    }
}

impl Read for RecordingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.flush()?;
        self.file.get_mut().read(buffer)
    }
}

impl Write for RecordingStream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.file.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for RecordingStream {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("quintet-wav-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn the_file_is_valid_after_every_second_without_being_closed() {
        let folder = Folder::new("kill");
        let path = folder.0.join("a.wav");
        let mut file = WavFile::open(&path, false).unwrap();
        assert_eq!(hound::WavReader::open(&path).unwrap().len(), 0);
        for _ in 0..250 {
            file.write(&[0.5; BLOCK_SAMPLES]).unwrap();
        }
        // As after a kill: nothing is written when the value is dropped.
        std::mem::forget(file);
        let mut read = hound::WavReader::open(&path).unwrap();
        assert_eq!((read.spec().sample_rate, read.spec().channels), (48_000, 1));
        assert_eq!(read.len(), 200 * BLOCK_SAMPLES as u32);
        assert!(read.samples::<i16>().all(|sample| sample.unwrap() == 16_384));
    }

    #[test]
    fn a_file_that_is_appended_to_keeps_its_content() {
        let folder = Folder::new("append");
        let path = folder.0.join("a.wav");
        WavFile::open(&path, false).unwrap().write(&[0.25; BLOCK_SAMPLES]).unwrap();
        WavFile::open(&path, true).unwrap().write(&[2.0; BLOCK_SAMPLES]).unwrap();
        let mut read = hound::WavReader::open(&path).unwrap();
        let samples: Vec<_> = read.samples::<i16>().map(Result::unwrap).collect();
        assert_eq!((samples.len(), samples[0], samples[959]), (960, 8192, i16::MAX));
    }

    #[test]
    fn an_earlier_recording_is_replaced_by_a_shorter_one() {
        let folder = Folder::new("replace");
        let path = folder.0.join("a.wav");
        for blocks in [300, 2] {
            let mut file = WavFile::open(&path, false).unwrap();
            (0..blocks).for_each(|_| file.write(&[0.5; BLOCK_SAMPLES]).unwrap());
            drop(file);
            let expected = WavFile::HEADER + blocks * 2 * BLOCK_SAMPLES as u64;
            assert_eq!(fs::metadata(&path).unwrap().len(), expected);
            let read = hound::WavReader::open(&path).unwrap();
            assert_eq!(u64::from(read.len()), blocks * BLOCK_SAMPLES as u64);
        }
    }

    #[test]
    fn the_content_is_kept_when_a_recording_cannot_start() {
        let folder = Folder::new("kept");
        let path = folder.0.join("a.wav");
        fs::write(&path, "an earlier recording").unwrap();
        let reader = File::open(&path).unwrap();
        reader.lock_shared().unwrap();
        for append in [false, true] {
            let error = WavFile::open(&path, append).map(drop).unwrap_err().to_string();
            assert!(error.contains("a.wav\" is in use by"), "{error}");
        }
        reader.unlock().unwrap();
        let error = WavFile::open(&path, true).map(drop).unwrap_err().to_string();
        assert!(error.contains("a.wav\": ") && error.contains("another file"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "an earlier recording");
    }

    #[test]
    fn the_error_of_a_file_that_cannot_be_written_names_it() {
        let error = WavFile::open(Path::new("/nowhere/a.wav"), false).map(drop).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("\"/nowhere/a.wav\"") && error.contains("No such file"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_reported_within_a_second_of_audio() {
        let folder = Folder::new("full");
        let recording = Recording::open(&folder.0.join("a.wav")).unwrap();
        let device = File::options().write(true).open("/dev/full").unwrap();
        let stream = RecordingStream { file: BufWriter::new(device), _recording: recording };
        let writer = hound::WavWriter::new(stream, SPEC).unwrap();
        let mut file = WavFile { path: "/dev/full".into(), writer, blocks: 0 };
        let failed = (0..100).find_map(|_| file.write(&[0.5; BLOCK_SAMPLES]).err());
        let error = failed.unwrap().to_string();
        assert!(error.contains("\"/dev/full\"") && error.contains("No space left"), "{error}");
    }
}
