//! Sound from a WAV file, of any rate and number of channels, looped.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use hound::{SampleFormat, WavReader};

use super::{
    source::{Next, Pace, Source, SourceError},
    tone::{BLOCK_RATE, BLOCK_SLACK},
};
use crate::{
    audio::Resampler,
    media::{AudioBlock, BLOCK_SAMPLES, now},
};

/// The rates that are played, in hertz: telephone to studio, with room on both sides.
const RATES: std::ops::RangeInclusive<u32> = 1000..=768_000;

/// How many frames are read at once.
const PIECE: usize = 1024;

/// A file of sound, from its beginning, again and again, as blocks of 10 ms.
pub(super) struct WavFile {
    track: Track,
    resampler: Resampler,
    /// Mono samples of the file that were not resampled yet.
    piece: Vec<f32>,
    /// Samples that are ready.
    ready: VecDeque<f32>,
    made: Vec<f32>,
    pace: Pace,
}

/// Why a file is no source of sound.
#[derive(Debug, thiserror::Error)]
pub(super) enum WavError {
    #[error("the file {path:?} cannot be read: {source}; check its name and your right to read it")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path:?} is a folder or a device, not a file; give a WAV file")]
    NoFile { path: PathBuf },
    #[error("{path:?} is not a WAV sound: {why}; make one with: ffmpeg -i IN -ar 48000 OUT.wav")]
    Format { path: PathBuf, why: String },
}

impl WavFile {
    /// Opens the file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, WavError> {
        let track = Track::open(path)?;
        let resampler = Resampler::new(track.rate);
        let pace = Pace::new(now(), BLOCK_RATE, 1, BLOCK_SLACK);
        let (piece, ready, made) = (vec![], VecDeque::new(), vec![]);
        Ok(Self { track, resampler, piece, ready, made, pace })
    }

    pub(super) fn samples(&mut self) -> Result<[f32; BLOCK_SAMPLES], WavError> {
        while self.ready.len() < BLOCK_SAMPLES {
            self.piece.clear();
            for _ in 0..PIECE {
                let sample = self.track.next()?;
                self.piece.push(sample);
            }
            self.made.clear();
            self.resampler.push(&self.piece, &mut self.made);
            self.ready.extend(&self.made);
        }
        Ok(std::array::from_fn(|_| self.ready.pop_front().unwrap_or_default()))
    }
}

impl Source<AudioBlock> for WavFile {
    fn next(&mut self) -> Result<Next<AudioBlock>, SourceError> {
        let Some(time) = self.pace.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(AudioBlock { time, samples: self.samples()? }))
    }
}

/// The file's samples, mixed to mono, without end.
///
/// Where the end does not lead into the beginning, both are faded over 5 ms: a breath, no click.
struct Track {
    path: PathBuf,
    reader: WavReader<BufReader<File>>,
    rate: u32,
    channels: usize,
    /// What an integer sample is multiplied with.
    scale: f32,
    format: SampleFormat,
    /// Samples read ahead: the end is known before it is played.
    ahead: VecDeque<f32>,
    /// The first two samples of the file.
    head: Vec<f32>,
    /// Samples since the beginning was last played.
    played: usize,
    /// Whether the file is shorter than its header says.
    is_cut: bool,
    /// Whether the file was read to its end, so that `ahead` is its last samples.
    is_ending: bool,
    /// Whether the end is faded out.
    is_fading: bool,
    /// Whether the beginning is faded in: not the first time.
    is_faded: bool,
}

impl Track {
    fn open(path: &Path) -> Result<Self, WavError> {
        let reader = read(path)?;
        let spec = reader.spec();
        let format = |why| WavError::Format { path: path.to_owned(), why };
        if !RATES.contains(&spec.sample_rate) {
            let (low, high) = (RATES.start(), RATES.end());
            let why = format!("{} Hz is out of range, {low} to {high}", spec.sample_rate);
            return Err(format(why));
        }
        if spec.channels == 0 || reader.duration() == 0 {
            return Err(format("it holds no sound".to_owned()));
        }
        let scale = (1_u64 << (spec.bits_per_sample.clamp(1, 32) - 1)) as f32;
        let mut track = Self {
            path: path.to_owned(),
            reader,
            rate: spec.sample_rate,
            channels: usize::from(spec.channels),
            scale: scale.recip(),
            format: spec.sample_format,
            ahead: VecDeque::new(),
            head: vec![],
            played: 0,
            is_cut: false,
            is_ending: false,
            is_fading: false,
            is_faded: false,
        };
        track.fill()?;
        track.head = track.ahead.iter().take(2).copied().collect();
        if track.head.is_empty() {
            return Err(track.format("it holds no sound"));
        }
        Ok(track)
    }

    /// Samples that a fade takes: 5 ms.
    fn fade(&self) -> usize {
        self.rate as usize / 200
    }

    /// The next sample; the first one after the last.
    fn next(&mut self) -> Result<f32, WavError> {
        self.fill()?;
        let left = self.ahead.len();
        let Some(mut sample) = self.ahead.pop_front() else {
            return Err(self.format("its sound is gone"));
        };
        let fade = self.fade().max(1);
        if self.is_faded {
            sample *= (self.played as f32 / fade as f32).min(1.0);
        }
        if self.is_fading {
            sample *= (left as f32 / fade as f32).min(1.0);
        }
        self.played += 1;
        if self.is_ending && self.ahead.is_empty() {
            self.rewind()?;
        }
        Ok(sample)
    }

    /// Goes back to the beginning.
    fn rewind(&mut self) -> Result<(), WavError> {
        self.is_faded = self.is_fading;
        self.is_fading = false;
        if self.is_cut {
            // `hound` seeks from where it believes to be, and it counted what was not there.
            let reader = read(&self.path)?;
            if reader.spec() != self.reader.spec() {
                return Err(self.format("it is another sound by now"));
            }
            self.reader = reader;
        } else {
            let io = |source| WavError::Io { path: self.path.clone(), source };
            self.reader.seek(0).map_err(io)?;
        }
        (self.is_ending, self.played) = (false, 0);
        Ok(())
    }

    /// Whether the end leads into the beginning: the step between them is like those beside it.
    fn is_seamless(&self) -> bool {
        let mut end = self.ahead.iter().rev();
        let (last, before) = (end.next(), end.next());
        let (first, second) = (self.head.first(), self.head.get(1));
        let (Some(last), Some(before), Some(first), Some(second)) = (last, before, first, second)
        else {
            return true;
        };
        let beside = (last - before).abs().max((second - first).abs());
        (first - last).abs() <= 2.0 * beside + SEAM
    }

    /// Reads ahead as far as a fade reaches.
    fn fill(&mut self) -> Result<(), WavError> {
        while !self.is_ending && self.ahead.len() <= self.fade() {
            match self.read_frame()? {
                Some(sample) => self.ahead.push_back(sample),
                None => {
                    self.is_ending = true;
                    self.is_fading = !self.is_seamless();
                }
            }
        }
        Ok(())
    }

    /// The mean of all channels of the next frame; `None` at the end, where a part of a frame
    /// is left out.
    fn read_frame(&mut self) -> Result<Option<f32>, WavError> {
        let mut sum = 0.0;
        for _ in 0..self.channels {
            let sample = match self.format {
                SampleFormat::Int => self
                    .reader
                    .samples::<i32>()
                    .next()
                    .map(|sample| sample.map(|sample| sample as f32 * self.scale)),
                SampleFormat::Float => self.reader.samples::<f32>().next(),
            };
            match sample {
                None => return Ok(None),
                Some(Ok(sample)) => sum += if sample.is_finite() { sample } else { 0.0 },
                Some(Err(hound::Error::IoError(error))) if is_end(&error) => {
                    self.is_cut = true;
                    return Ok(None);
                }
                Some(Err(error)) => return Err(wav_error(&self.path, error)),
            }
        }
        Ok(Some((sum / self.channels as f32).clamp(-1.0, 1.0)))
    }

    fn format(&self, why: &str) -> WavError {
        WavError::Format { path: self.path.clone(), why: why.to_owned() }
    }
}

/// Opens the file and reads its header.
fn read(path: &Path) -> Result<WavReader<BufReader<File>>, WavError> {
    let io = |source| WavError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(io)?;
    if !file.metadata().map_err(io)?.is_file() {
        return Err(WavError::NoFile { path: path.to_owned() });
    }
    WavReader::new(BufReader::new(file)).map_err(|error| wav_error(path, error))
}

/// A step that nobody hears.
const SEAM: f32 = 0.01;

/// Whether a read failed because the file is shorter than its header says. `hound` has no kind
/// for it, only a text.
fn is_end(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::UnexpectedEof || error.to_string().contains("enough bytes")
}

fn wav_error(path: &Path, error: hound::Error) -> WavError {
    let path = path.to_owned();
    match error {
        hound::Error::IoError(error) if is_end(&error) => {
            WavError::Format { path, why: "it is too short".to_owned() }
        }
        hound::Error::IoError(source) => WavError::Io { path, source },
        hound::Error::FormatError(why) => WavError::Format { path, why: why.to_owned() },
        error @ (hound::Error::TooWide
        | hound::Error::UnfinishedSample
        | hound::Error::Unsupported
        | hound::Error::InvalidSampleFormat) => WavError::Format { path, why: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::{f64::consts::TAU, fs};

    use hound::{WavSpec, WavWriter};

    use super::*;

    /// A file that is gone with its value.
    struct Sound(PathBuf);

    impl Sound {
        fn new(name: &str) -> Self {
            let name = format!("quintet-wav-{}-{name}.wav", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        /// The same sound in every channel, full scale ±1.
        fn write(name: &str, spec: WavSpec, samples: impl Iterator<Item = f64>) -> Self {
            let sound = Self::new(name);
            let mut file = WavWriter::create(&sound.0, spec).unwrap();
            let full = (1_i64 << (spec.bits_per_sample - 1)) as f64;
            for sample in samples {
                for _ in 0..spec.channels {
                    match spec.sample_format {
                        SampleFormat::Float => file.write_sample(sample as f32).unwrap(),
                        SampleFormat::Int => {
                            let level = (sample * full).clamp(-full, full - 1.0);
                            file.write_sample(level as i32).unwrap();
                        }
                    }
                }
            }
            file.finalize().unwrap();
            sound
        }
    }

    impl Drop for Sound {
        fn drop(&mut self) {
            fs::remove_file(&self.0).ok();
        }
    }

    fn spec(channels: u16, sample_rate: u32, bits: u16, sample_format: SampleFormat) -> WavSpec {
        WavSpec { channels, sample_rate, bits_per_sample: bits, sample_format }
    }

    fn sine(hz: f64, rate: u32, seconds: f64) -> impl Iterator<Item = f64> {
        let count = (seconds * f64::from(rate)).round() as usize;
        (0..count).map(move |n| 0.5 * (TAU * hz * n as f64 / f64::from(rate)).sin())
    }

    fn heard(sound: &Sound, blocks: usize) -> Vec<f32> {
        let mut file = WavFile::open(&sound.0).unwrap();
        (0..blocks).flat_map(|_| file.samples().unwrap()).collect()
    }

    #[test]
    fn every_kind_of_file_gives_the_same_sound() {
        let exact: Vec<_> = sine(440.0, 48_000, 1.0).collect();
        let (int, float) = (SampleFormat::Int, SampleFormat::Float);
        for (channels, rate, bits, format) in [
            (1, 48_000, 8, int),
            (2, 44_100, 16, int),
            (6, 96_000, 24, int),
            (1, 8000, 32, int),
            (2, 48_000, 32, float),
            (1, 22_050, 32, float),
        ] {
            let name = format!("kind-{channels}-{rate}-{bits}");
            let spec = spec(channels, rate, bits, format);
            let sound = Sound::write(&name, spec, sine(440.0, rate, 0.5));
            // A whole number of waves: the end leads into the beginning, again and again. The
            // silence before the very first sample is an edge, which filters round.
            let heard = heard(&sound, 100);
            let pairs = heard.iter().zip(&exact).skip(480);
            let worst = pairs.map(|(a, b)| (f64::from(*a) - b).abs());
            let worst = worst.fold(0.0, f64::max);
            assert!(worst < if bits == 8 { 0.01 } else { 0.001 }, "{name}: {worst}");
        }
    }

    #[test]
    fn an_end_that_does_not_lead_into_the_beginning_is_faded_and_does_not_click() {
        let one = spec(1, 48_000, 16, SampleFormat::Int);
        // It ends at the top of a wave.
        let sound = Sound::write("click", one, sine(100.0, 48_000, 0.1025));
        let heard = heard(&sound, 60);
        let jump = heard.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(jump < 0.02, "{jump}");
        let loud = |range: std::ops::Range<usize>| {
            heard[range].iter().fold(0.0_f32, |a, b| a.max(b.abs()))
        };
        assert!(loud(0..480) > 0.49, "the very first time nothing is faded in");
        assert!(loud(20_000..24_000) > 0.49, "between the ends it is as it was");
    }

    #[test]
    fn a_sound_of_one_sample_and_a_truncated_one_are_played() {
        let one = spec(1, 48_000, 16, SampleFormat::Int);
        let short = Sound::write("short", one, [0.25].into_iter());
        assert!(heard(&short, 3).iter().all(|sample| (0.0..=0.26).contains(sample)));
        let cut = Sound::write("cut", one, sine(100.0, 48_000, 0.1));
        let bytes = fs::read(&cut.0).unwrap();
        fs::write(&cut.0, &bytes[..bytes.len() / 2 + 1]).unwrap();
        let heard = heard(&cut, 60);
        assert!(heard[9600..].iter().any(|sample| *sample > 0.4), "looped");
        let (second, last) = (&heard[2389..2 * 2389], &heard[10 * 2389..11 * 2389]);
        assert_eq!(second, last, "no time round is like the other");
    }

    #[test]
    fn a_bad_file_is_refused_by_name_with_its_fault() {
        let good = Sound::write("good", spec(2, 48_000, 16, SampleFormat::Int), sine(9.0, 99, 1.0));
        let good = fs::read(&good.0).unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        for (number, (bytes, fault)) in [
            (vec![], "it is too short"),
            (b"YUV4MPEG2 W16 H16 F1:1\nFRAME\n".repeat(9), "no RIFF tag found"),
            (good[..20].to_vec(), "it is too short"),
            (good[..44].to_vec(), "it holds no sound"),
            (with(8, b"AVI "), "no WAVE tag found"),
            (with(20, &[0x55, 0]), "not supported"),
            (with(22, &[0, 0]), ""),
            (with(24, &[1, 0, 0, 0, 4, 0, 0, 0]), "1 Hz is out of range, 1000 to 768000"),
            (with(24, &[0xff; 8]), ""),
            (with(34, &[0, 0]), ""),
            (with(34, &[200, 0]), ""),
            (with(40, &[0; 4]), "it holds no sound"),
        ]
        .into_iter()
        .enumerate()
        {
            let sound = Sound::new(&format!("bad{number}"));
            fs::write(&sound.0, bytes).unwrap();
            let made = WavFile::open(&sound.0).and_then(|mut file| file.samples());
            let error = made.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(fault), "{number}: {error}");
            assert!(error.contains(&format!("bad{number}.wav")), "{number}: {error}");
        }
    }

    #[test]
    fn a_header_that_promises_more_than_there_is_costs_nothing() {
        let sound =
            Sound::write("bomb", spec(1, 48_000, 16, SampleFormat::Int), sine(99.0, 999, 1.0));
        let mut bytes = fs::read(&sound.0).unwrap();
        bytes[4..8].fill(0xff);
        bytes[40..44].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
        fs::write(&sound.0, bytes).unwrap();
        assert_eq!(heard(&sound, 10).len(), 4800);
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        let missing = WavFile::open(Path::new("/nowhere/voice.wav")).map(|_| ()).unwrap_err();
        assert!(missing.to_string().starts_with("the file \"/nowhere/voice.wav\" cannot be read"));
        let folder = WavFile::open(&std::env::temp_dir()).map(|_| ()).unwrap_err();
        assert!(folder.to_string().contains("is a folder or a device"), "{folder}");
    }
}
