//! Audio from a WAV file of any rate and number of channels, looped.

mod layout;
mod sample_encoding;

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use layout::{Layout, LayoutError};

use super::{
    source::{FrameClock, Next, Source, SourceError},
    tone::{BLOCK_RATE, MAX_BLOCK_LATENESS},
};
use crate::{
    audio::{SampleQueue, StereoResampler},
    files::{FileError, open_source},
    media::{AudioBlock, BLOCK_SAMPLES, StereoBlock, now},
};

/// The accepted sample rates in hertz: from below telephone quality to above studio quality.
const RATES: std::ops::RangeInclusive<u32> = 100..=768_000;

/// An audio file as an endless source of 10 ms blocks.
pub(super) struct WavFile {
    samples: LoopedSamples,
    resampler: StereoResampler,
    /// Samples of the file that are not resampled yet.
    input: Vec<f32>,
    side: Vec<f32>,
    /// Resampled samples that are not in a block yet.
    ready: SampleQueue,
    clock: FrameClock,
}

/// Why a file cannot be used as a source of audio.
#[derive(Debug, thiserror::Error)]
pub(super) enum WavError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{path:?} is not a WAV sound: {why}; make one with: ffmpeg -i IN -ar 48000 OUT.wav")]
    Format { path: PathBuf, why: String },
}

impl WavFile {
    /// Opens the file and reads its header. May block forever.
    pub(super) fn open(path: &Path) -> Result<Self, WavError> {
        let track = LoopedSamples::open(path)?;
        let resampler = StereoResampler::new(track.layout.rate);
        let clock = FrameClock::new(now(), BLOCK_RATE, 1, MAX_BLOCK_LATENESS);
        let (input, side, ready) = (vec![], vec![], SampleQueue::default());
        Ok(Self { samples: track, resampler, input, side, ready, clock })
    }

    /// The samples of the next block. May block forever.
    pub(super) fn next_block(&mut self) -> Result<StereoBlock, WavError> {
        // About 10 ms at a time, whatever the file's rate.
        let count = self.samples.layout.rate.div_ceil(100);
        while self.ready.len() < BLOCK_SAMPLES {
            self.input.clear();
            self.side.clear();
            for _ in 0..count {
                let [mid, side] = self.samples.next()?;
                self.input.push(mid);
                self.side.push(side);
            }
            let is_stereo = self.samples.layout.channels == 2;
            let side = is_stereo.then_some(self.side.as_slice());
            let (mid, side) = self.resampler.push(&self.input, side);
            self.ready.extend(mid, side);
        }
        Ok(self.ready.take_block())
    }
}

impl Source<AudioBlock> for WavFile {
    fn next(&mut self) -> Result<Next<AudioBlock>, SourceError> {
        let Some(time) = self.clock.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(AudioBlock::new(time, self.next_block()?)))
    }
}

/// The samples of a file, looped endlessly: of two channels as mid and side, of others their mean.
///
/// If the loop point has an audible step, the end and the beginning are faded over 5 ms, so that
/// it does not click.
struct LoopedSamples {
    path: PathBuf,
    file: BufReader<File>,
    layout: Layout,
    /// The bytes of one frame (a sample per channel).
    raw_frame: Vec<u8>,
    /// Index of the next frame.
    position: u64,
    /// The number of frames; fewer than in the header if the file was truncated meanwhile.
    frames: u64,
    /// Whether the end continues into the beginning without an audible step.
    is_seamless: bool,
    is_first_pass: bool,
}

/// The largest step between two samples that counts as inaudible; full scale is ±1.
const INAUDIBLE_STEP: f32 = 0.01;

impl LoopedSamples {
    fn open(path: &Path) -> Result<Self, WavError> {
        let mut file = BufReader::with_capacity(1 << 16, open_source(path)?);
        let layout = Layout::read(&mut file).map_err(|error| match error {
            LayoutError::Io(source) => FileError::Read { path: path.to_owned(), source }.into(),
            LayoutError::Format(why) => WavError::Format { path: path.to_owned(), why },
        })?;
        if !RATES.contains(&layout.rate) {
            let (low, high) = (RATES.start(), RATES.end());
            let why = format!("{} Hz is out of range, {low} to {high}", layout.rate);
            return Err(WavError::Format { path: path.to_owned(), why });
        }
        let mut track = Self {
            path: path.to_owned(),
            file,
            layout,
            raw_frame: vec![0; layout.frame_bytes],
            position: 0,
            frames: layout.frames,
            is_seamless: true,
            is_first_pass: true,
        };
        track.is_seamless = track.loops_seamlessly()?;
        track.seek_to(0)?;
        Ok(track)
    }

    /// The next sample. After the last one comes the first.
    fn next(&mut self) -> Result<[f32; 2], WavError> {
        loop {
            if self.position < self.frames
                && let Some(frame) = self.read_frame()?
            {
                let gain = self.gain();
                self.position += 1;
                return Ok(frame.map(|sample| sample * gain));
            }
            if self.position == 0 {
                let why = "its sound is gone".to_owned();
                return Err(WavError::Format { path: self.path.clone(), why });
            }
            self.frames = self.frames.min(self.position);
            self.is_first_pass = false;
            self.seek_to(0)?;
        }
    }

    /// The gain of the next frame: faded at both ends, but not at the beginning of the first pass.
    fn gain(&self) -> f32 {
        if self.is_seamless {
            return 1.0;
        }
        let fade = (self.layout.rate / 200).max(1) as f32;
        let fade_in = if self.is_first_pass { 1.0 } else { self.position as f32 / fade };
        fade_in.min((self.frames - self.position) as f32 / fade).min(1.0)
    }

    /// Whether the loop point is seamless: the step there is not much larger than the steps
    /// before and after it.
    fn loops_seamlessly(&mut self) -> Result<bool, WavError> {
        let last = self.frames - 1;
        let mut samples = [0.0; 4];
        for (sample, at) in samples.iter_mut().zip([last.saturating_sub(1), last, 0, last.min(1)]) {
            self.seek_to(at)?;
            [*sample, _] = self.read_frame()?.unwrap_or_default();
        }
        let [before, last, first, second] = samples;
        let adjacent = (last - before).abs().max((second - first).abs());
        Ok((first - last).abs() <= 2.0 * adjacent + INAUDIBLE_STEP)
    }

    fn seek_to(&mut self, frame: u64) -> Result<(), WavError> {
        let offset = self.layout.start + frame * self.layout.frame_bytes as u64;
        self.file.seek(SeekFrom::Start(offset)).map_err(|error| self.io_error(error))?;
        self.position = frame;
        Ok(())
    }

    /// The mean of all channels of the next frame, and of two channels half of their difference. `None` at
    /// the end of the file, where an incomplete frame is ignored.
    fn read_frame(&mut self) -> Result<Option<[f32; 2]>, WavError> {
        match self.file.read_exact(&mut self.raw_frame) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(self.io_error(error)),
        }
        let Layout { encoding, channels, .. } = self.layout;
        let samples =
            self.raw_frame.chunks_exact(encoding.bytes()).map(|bytes| encoding.decode(bytes));
        let (mut left, mut sum) = (0.0, 0.0);
        for (n, sample) in samples.enumerate() {
            left = if n == 0 { sample } else { left };
            sum += sample;
        }
        let mean = sum / channels as f32;
        Ok(Some([mean, if channels == 2 { left - mean } else { 0.0 }]))
    }

    fn io_error(&self, source: io::Error) -> WavError {
        FileError::Read { path: self.path.clone(), source }.into()
    }
}

#[cfg(test)]
mod tests {
    use std::{f64::consts::TAU, fs};

    use hound::{SampleFormat, WavSpec, WavWriter};

    use super::*;

    /// A temporary WAV file, removed when dropped.
    struct TempWav(PathBuf);

    impl TempWav {
        fn new(name: &str) -> Self {
            let name = format!("quintet-wav-{}-{name}.wav", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        /// Writes the same samples into every channel, full scale ±1.
        fn write(name: &str, spec: WavSpec, samples: impl Iterator<Item = f64>) -> Self {
            let path = Self::new(name);
            let mut file = WavWriter::create(&path.0, spec).unwrap();
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
            path
        }
    }

    impl Drop for TempWav {
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

    fn read_blocks(file: &TempWav, blocks: usize) -> Vec<f32> {
        let mut file = WavFile::open(&file.0).unwrap();
        (0..blocks).flat_map(|_| file.next_block().unwrap().mid).collect()
    }

    #[test]
    fn every_rate_and_encoding_gives_the_same_samples() {
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
            let file = TempWav::write(&name, spec, sine(440.0, rate, 0.5));
            // The file holds a whole number of periods, so its loop is seamless. The first
            // samples are skipped: the step from silence to the first one makes the resampler ring.
            let samples = read_blocks(&file, 100);
            let pairs = samples.iter().zip(&exact).skip(480);
            let worst = pairs.map(|(a, b)| (f64::from(*a) - b).abs());
            let worst = worst.fold(0.0, f64::max);
            assert!(worst < if bits == 8 { 0.01 } else { 0.001 }, "{name}: {worst}");
        }
    }

    #[test]
    fn a_file_of_two_channels_keeps_them_at_each_rate() {
        for rate in [44_100, 48_000] {
            let file = TempWav::new(&format!("stereo-{rate}"));
            let spec = spec(2, rate, 16, SampleFormat::Int);
            let mut writer = WavWriter::create(&file.0, spec).unwrap();
            for (left, right) in sine(440.0, rate, 0.5).zip(sine(880.0, rate, 0.5)) {
                writer.write_sample((left * 32_767.0) as i16).unwrap();
                writer.write_sample((right * 32_767.0) as i16).unwrap();
            }
            writer.finalize().unwrap();
            let mut read = WavFile::open(&file.0).unwrap();
            let blocks: Vec<_> = (0..40).map(|_| read.next_block().unwrap()).collect();
            let exact = sine(440.0, 48_000, 1.0).zip(sine(880.0, 48_000, 1.0));
            let frames =
                blocks.iter().flat_map(|block| block.mid.into_iter().zip(block.side.unwrap()));
            for ((mid, side), (left, right)) in frames.zip(exact).skip(480) {
                let apart =
                    (f64::from(mid + side) - left).abs().max((f64::from(mid - side) - right).abs());
                assert!(apart < 0.001, "{rate}: {apart}");
            }
        }
    }

    #[test]
    fn a_loop_point_with_a_step_is_faded_and_does_not_click() {
        let mono = spec(1, 48_000, 16, SampleFormat::Int);
        // The file ends at the peak of a wave.
        let file = TempWav::write("click", mono, sine(100.0, 48_000, 0.1025));
        let samples = read_blocks(&file, 60);
        let jump = samples.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(0.0, f32::max);
        assert!(jump < 0.02, "{jump}");
        let peak = |range: std::ops::Range<usize>| {
            samples[range].iter().fold(0.0_f32, |a, b| a.max(b.abs()))
        };
        assert!(peak(0..480) > 0.49, "the first pass is not faded in");
        assert!(peak(20_000..24_000) > 0.49, "between the ends nothing is faded");
    }

    #[test]
    fn a_file_of_one_sample_and_a_truncated_file_are_played() {
        let mono = spec(1, 48_000, 16, SampleFormat::Int);
        let short = TempWav::write("short", mono, [0.25].into_iter());
        assert!(read_blocks(&short, 3).iter().all(|sample| (0.0..=0.26).contains(sample)));
        let truncated = TempWav::write("cut", mono, sine(100.0, 48_000, 0.1));
        let bytes = fs::read(&truncated.0).unwrap();
        fs::write(&truncated.0, &bytes[..bytes.len() / 2 + 1]).unwrap();
        let samples = read_blocks(&truncated, 60);
        assert!(samples[9600..].iter().any(|sample| *sample > 0.4), "looped");
        let (second, last) = (&samples[2389..2 * 2389], &samples[10 * 2389..11 * 2389]);
        assert_eq!(second, last, "each pass after the first is the same");
    }

    #[test]
    fn a_bad_file_is_refused_with_its_name_and_its_fault() {
        let good =
            TempWav::write("good", spec(2, 48_000, 16, SampleFormat::Int), sine(9.0, 99, 1.0));
        let good = fs::read(&good.0).unwrap();
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            bad
        };
        for (number, (bytes, fault)) in [
            (vec![], "it is too short"),
            (b"YUV4MPEG2 W16 H16 F1:1\nFRAME\n".repeat(9), "does not begin with RIFF"),
            (good[..20].to_vec(), "it is too short"),
            (good[..44].to_vec(), "it holds no sound"),
            (with(8, b"AVI "), "a RIFF file of another kind"),
            (with(20, &[0x55, 0]), "0x0055 (MP3), and only PCM, float, A-law and µ-law are read"),
            (with(0, b"RIFX"), "big-endian WAV"),
            (with(22, &[0, 0]), "it holds no sound"),
            (with(24, &[1, 0, 0, 0, 4, 0, 0, 0]), "1 Hz is out of range, 100 to 768000"),
            (with(24, &[0xff; 8]), "out of range"),
            (with(34, &[200, 0]), "PCM in 25 bytes a sample"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = TempWav::new(&format!("bad{number}"));
            fs::write(&file.0, bytes).unwrap();
            let read = WavFile::open(&file.0).and_then(|mut file| file.next_block());
            let error = read.map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(fault), "{number}: {error}");
            assert!(error.contains(&format!("bad{number}.wav")), "{number}: {error}");
        }
    }

    #[test]
    fn a_header_with_a_far_too_large_size_costs_no_memory() {
        let file =
            TempWav::write("bomb", spec(1, 48_000, 16, SampleFormat::Int), sine(99.0, 999, 1.0));
        let mut bytes = fs::read(&file.0).unwrap();
        bytes[4..8].fill(0xff);
        bytes[40..44].copy_from_slice(&[0xfe, 0xff, 0xff, 0xff]);
        fs::write(&file.0, bytes).unwrap();
        assert_eq!(read_blocks(&file, 10).len(), 4800);
    }

    #[test]
    fn a_missing_file_and_a_folder_are_refused_with_a_clear_error() {
        let missing = WavFile::open(Path::new("/nowhere/voice.wav")).map(|_| ()).unwrap_err();
        assert!(missing.to_string().starts_with("the file \"/nowhere/voice.wav\" cannot be read"));
        let folder = WavFile::open(&std::env::temp_dir()).map(|_| ()).unwrap_err();
        assert!(folder.to_string().contains("is a folder, not a file"), "{folder}");
    }
}
