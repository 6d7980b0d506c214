//! Sound to a WAV file that is whole whenever the program ends.

use std::{
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
};

use crate::media::{AUDIO_RATE, BLOCK_SAMPLES};

/// A WAV file that is being written: 48 kHz, mono, 16 bits.
pub(super) struct WavFile {
    path: PathBuf,
    writer: hound::WavWriter<BufWriter<File>>,
    blocks: u32,
}

/// Why sound is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WavError {
    /// The file cannot be opened for writing.
    #[error("cannot write sound to {path:?}: {source}; choose another file")]
    Create {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: hound::Error,
    },
    /// The file can no longer be written to.
    #[error("writing sound to {path:?} failed: {source}; make room and it goes on")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: hound::Error,
    },
    /// A WAV file counts its bytes in 32 bits.
    #[error("{path:?} is full: a WAV file holds 12 hours; choose another file")]
    Full {
        /// Which file.
        path: PathBuf,
    },
}

impl WavFile {
    /// The header is made true and the sound handed to the system after so many blocks: a second.
    const BLOCKS_A_FLUSH: u32 = 100;

    /// Samples in a file at most, with room for its header.
    const MAX_SAMPLES: u32 = (u32::MAX - 4096) / 2;

    /// Looks whether the file can be written, and leaves it as it is.
    pub(super) fn look_for(path: &Path) -> Result<(), WavError> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        let found = match path.exists() {
            true => File::options().append(true).open(path).map(drop),
            false => fs::metadata(folder).map(drop),
        };
        found.map_err(|source| WavError::Create { path: path.to_owned(), source: source.into() })
    }

    /// Creates the file, or empties the one that is there.
    pub(super) fn create(path: &Path) -> Result<Self, WavError> {
        let spec = hound::WavSpec {
            channels: 1,
            sample_rate: AUDIO_RATE,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let fails = |source| WavError::Create { path: path.to_owned(), source };
        let mut writer = hound::WavWriter::create(path, spec).map_err(fails)?;
        writer.flush().map_err(fails)?;
        Ok(Self { path: path.to_owned(), writer, blocks: 0 })
    }

    /// Opens a file again that was written before; the sound is added.
    pub(super) fn append(path: &Path) -> Result<Self, WavError> {
        let fails = |source| WavError::Create { path: path.to_owned(), source };
        let writer = hound::WavWriter::append(path).map_err(fails)?;
        Ok(Self { path: path.to_owned(), writer, blocks: 0 })
    }

    /// Adds a block.
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
        let flushed = match self.blocks % Self::BLOCKS_A_FLUSH {
            0 => self.writer.flush(),
            _ => Ok(()),
        };
        written.and(flushed).map_err(|source| WavError::Write { path: self.path.clone(), source })
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
    fn the_file_is_valid_at_every_second_without_being_closed() {
        let folder = Folder::new("kill");
        let path = folder.0.join("a.wav");
        let mut file = WavFile::create(&path).unwrap();
        assert_eq!(hound::WavReader::open(&path).unwrap().len(), 0);
        for _ in 0..250 {
            file.write(&[0.5; BLOCK_SAMPLES]).unwrap();
        }
        // What a kill leaves behind: nothing is written when the handle goes.
        std::mem::forget(file);
        let mut read = hound::WavReader::open(&path).unwrap();
        assert_eq!((read.spec().sample_rate, read.spec().channels), (48_000, 1));
        assert_eq!(read.len(), 200 * BLOCK_SAMPLES as u32);
        assert!(read.samples::<i16>().all(|sample| sample.unwrap() == 16_384));
    }

    #[test]
    fn looking_for_a_file_names_what_cannot_be_written_and_changes_nothing() {
        let folder = Folder::new("look");
        let (there, new) = (folder.0.join("there.wav"), folder.0.join("new.wav"));
        fs::write(&there, "kept").unwrap();
        WavFile::look_for(&there).unwrap();
        WavFile::look_for(&new).unwrap();
        WavFile::look_for(Path::new("new.wav")).unwrap();
        assert_eq!(fs::read(&there).unwrap(), b"kept");
        assert!(!new.exists());
        for bad in [&folder.0, &folder.0.join("none/a.wav")] {
            let error = WavFile::look_for(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_appended_to_keeps_what_it_had() {
        let folder = Folder::new("append");
        let path = folder.0.join("a.wav");
        WavFile::create(&path).unwrap().write(&[0.25; BLOCK_SAMPLES]).unwrap();
        WavFile::append(&path).unwrap().write(&[2.0; BLOCK_SAMPLES]).unwrap();
        let mut read = hound::WavReader::open(&path).unwrap();
        let samples: Vec<_> = read.samples::<i16>().map(Result::unwrap).collect();
        assert_eq!((samples.len(), samples[0], samples[959]), (960, 8192, i16::MAX));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named() {
        let error = WavFile::create(Path::new("/nowhere/a.wav")).map(drop).unwrap_err().to_string();
        assert!(error.contains("\"/nowhere/a.wav\"") && error.contains("No such file"), "{error}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_told_within_a_second_of_sound() {
        let mut file = WavFile {
            path: "/dev/full".into(),
            writer: hound::WavWriter::create(
                "/dev/full",
                hound::WavSpec {
                    channels: 1,
                    sample_rate: 48_000,
                    bits_per_sample: 16,
                    sample_format: hound::SampleFormat::Int,
                },
            )
            .unwrap(),
            blocks: 0,
        };
        let failed = (0..100).find_map(|_| file.write(&[0.5; BLOCK_SAMPLES]).err());
        let error = failed.unwrap().to_string();
        assert!(error.contains("\"/dev/full\"") && error.contains("No space left"), "{error}");
    }
}
