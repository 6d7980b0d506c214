//! Video from a Y4M file (YUV4MPEG2, as ffmpeg and mjpegtools write it), looped.

mod colour_format;
mod header;
mod scale;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use header::{FrameRate, Header};
use scale::Scaler;

use super::source::{FrameClock, Next, Source, SourceError};
use crate::{
    files::{FileError, open_source},
    media::{FramePool, VideoFrame, now},
    model::MediaTime,
};

/// How late a frame may be read.
///
/// After a longer delay the next frame of the file is delivered at the current time: a slow disk
/// makes the video longer, never faster.
const MAX_LATENESS: Duration = Duration::from_millis(100);

/// The longest accepted line, in bytes. Real headers have about 60.
const MAX_LINE_BYTES: u64 = 1024;

/// The frame rate of a file whose header gives none.
const DEFAULT_RATE: FrameRate = FrameRate { frames: 30, seconds: 1 };

/// A video file as an endless source of frames.
pub(super) struct Y4mFile {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
    /// Offset of the first frame in the file.
    start: u64,
    /// Complete frames read since the file was opened.
    frames_read: u64,
    timeline: Timeline,
    pool: FramePool,
    /// The bytes of one frame in the file's format.
    raw_frame: Vec<u8>,
    converter: FrameConverter,
}

/// Maps the file's frame rate to the output frame rate.
struct Timeline {
    file_rate: FrameRate,
    output_rate: FrameRate,
    clock: FrameClock,
    /// Output frames so far.
    frames_shown: u64,
    /// Frames of the file that were read or skipped.
    frames_consumed: u64,
    /// The last frame read.
    last_frame: Option<VideoFrame>,
}

/// Converts frames of the file to I420 with square pixels; holds the buffers for it.
struct FrameConverter {
    /// The frame in 8 bits per sample.
    samples: Vec<u8>,
    /// The I420 frame before scaling.
    unscaled: Vec<u8>,
    /// Present if the pixels are not square or the frame is too large.
    scaler: Option<Scaler>,
}

/// Why a file cannot be used as a source of video.
#[derive(Debug, thiserror::Error)]
pub(super) enum Y4mError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(
        "the film {path:?} cannot be read as Y4M: {why}; make one with: ffmpeg -i IN -r 30 -s \
         1280x720 -pix_fmt yuv420p OUT.y4m"
    )]
    Format { path: PathBuf, why: String },
}

impl Y4mFile {
    /// Opens the file and reads its header. May block forever.
    pub(super) fn open(path: &Path) -> Result<Self, Y4mError> {
        let io = |source| FileError::Read { path: path.to_owned(), source };
        let file = open_source(path)?;
        let length = file.metadata().map_err(io)?.len();
        let mut file = BufReader::with_capacity(1 << 18, file);
        let format = |why| Y4mError::Format { path: path.to_owned(), why };
        let line = read_line(&mut file).map_err(io)?;
        let line = line.ok_or_else(|| format("it has no header".to_owned()))?;
        let header = Header::parse(&line).map_err(format)?;
        let start = file.stream_position().map_err(io)?;
        // The file's length is checked before a buffer is allocated: a header alone costs no
        // memory.
        if length.saturating_sub(start) < header.frame_bytes() as u64 {
            return Err(format("it holds no whole picture".to_owned()));
        }
        if header.rate.is_none() {
            tracing::warn!(?path, "Y4M header without frame rate, playing at 30 fps");
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            start,
            frames_read: 0,
            timeline: Timeline::new(header.rate.unwrap_or(DEFAULT_RATE)),
            pool: FramePool::default(),
            raw_frame: vec![0; header.frame_bytes()],
            converter: FrameConverter::new(&header),
            header,
        })
    }

    /// Reads the next frame. After the last one comes the first.
    pub(super) fn read_frame(&mut self, time: MediaTime) -> Result<VideoFrame, Y4mError> {
        if !self.read_raw()? {
            self.rewind()?;
            if !self.read_raw()? {
                return Err(self.format_error("its pictures are gone"));
            }
        }
        self.frames_read += 1;
        let (header, raw, canvas) = (&self.header, &self.raw_frame, &mut self.converter);
        Ok(self.pool.frame(header.output_size(), time, |data| canvas.convert(header, raw, data)))
    }

    /// The frame that is due now: frames of a fast video are skipped, those of a slow one are
    /// repeated.
    fn frame_to_show(&mut self, time: MediaTime) -> Result<VideoFrame, Y4mError> {
        let wanted = self.timeline.next_index();
        while self.timeline.frames_consumed < wanted {
            self.skip_frame()?;
        }
        if self.timeline.frames_consumed == wanted {
            let frame = self.read_frame(time)?;
            self.timeline.frames_consumed += 1;
            self.timeline.last_frame = Some(frame);
        }
        let mut frame = self
            .timeline
            .last_frame
            .clone()
            .ok_or_else(|| self.format_error("it holds no whole picture"))?;
        frame.time = time;
        Ok(frame)
    }

    fn rewind(&mut self) -> Result<(), Y4mError> {
        if self.frames_read == 0 {
            return Err(self.format_error("it holds no whole picture"));
        }
        self.file.seek(SeekFrom::Start(self.start)).map_err(|error| self.io_error(error))?;
        Ok(())
    }

    /// Skips the next frame of the file.
    fn skip_frame(&mut self) -> Result<(), Y4mError> {
        if !self.read_frame_marker()? {
            self.rewind()?;
            if !self.read_frame_marker()? {
                return Err(self.format_error("its pictures are gone"));
            }
        }
        let bytes = self.raw_frame.len() as i64;
        self.file.seek_relative(bytes).map_err(|error| self.io_error(error))?;
        self.timeline.frames_consumed += 1;
        Ok(())
    }

    /// Reads a frame in the file's format into `raw_frame`. Returns false at the end of the file,
    /// where an incomplete frame is ignored.
    fn read_raw(&mut self) -> Result<bool, Y4mError> {
        if !self.read_frame_marker()? {
            return Ok(false);
        }
        match self.file.read_exact(&mut self.raw_frame) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(self.io_error(error)),
        }
    }

    /// Reads the `FRAME` line before a frame. Returns false at the end of the file.
    fn read_frame_marker(&mut self) -> Result<bool, Y4mError> {
        match read_line(&mut self.file).map_err(|error| self.io_error(error))? {
            None => Ok(false),
            Some(line) if line.split(|byte| *byte == b' ').next() == Some(b"FRAME") => Ok(true),
            Some(_) => Err(self.format_error("a picture does not begin with FRAME")),
        }
    }

    fn io_error(&self, source: io::Error) -> Y4mError {
        FileError::Read { path: self.path.clone(), source }.into()
    }

    fn format_error(&self, why: &str) -> Y4mError {
        Y4mError::Format { path: self.path.clone(), why: why.to_owned() }
    }
}

impl Source<VideoFrame> for Y4mFile {
    fn next(&mut self) -> Result<Next<VideoFrame>, SourceError> {
        let Some(time) = self.timeline.clock.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(self.frame_to_show(time)?))
    }
}

impl Timeline {
    fn new(file_rate: FrameRate) -> Self {
        let output = file_rate.output_rate();
        let clock = FrameClock::new(now(), output.frames, output.seconds, MAX_LATENESS);
        Self {
            file_rate,
            output_rate: output,
            clock,
            frames_shown: 0,
            frames_consumed: 0,
            last_frame: None,
        }
    }

    /// The index of the file's frame that is due next.
    fn next_index(&mut self) -> u64 {
        let position = self.file_rate.source_index(self.frames_shown, self.output_rate);
        self.frames_shown += 1;
        position
    }
}

impl FrameConverter {
    fn new(header: &Header) -> Self {
        let (from, to) = (header.even_size(), header.output_size());
        let scaler = (from != to).then(|| Scaler::new(from, to));
        let unscaled = if scaler.is_some() { vec![0; from.i420_bytes()] } else { vec![] };
        Self { samples: vec![], unscaled, scaler }
    }

    fn convert(&mut self, header: &Header, raw: &[u8], data: &mut [u8]) {
        match &self.scaler {
            None => header.unpack(raw, &mut self.samples, data),
            Some(scaler) => {
                header.unpack(raw, &mut self.samples, &mut self.unscaled);
                scaler.scale(&self.unscaled, data);
            }
        }
    }
}

/// Reads a line without its end, `\n` or `\r\n`. `None` at the end of the file or if the line is
/// longer than [`MAX_LINE_BYTES`].
fn read_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = vec![];
    file.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    line.pop_if(|byte| *byte == b'\r');
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Size;

    /// A temporary Y4M file, removed when dropped.
    struct TempY4m(PathBuf);

    impl TempY4m {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let name = format!("quintet-y4m-{}-{name}.y4m", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for TempY4m {
        fn drop(&mut self) {
            fs::remove_file(&self.0).ok();
        }
    }

    fn y4m_bytes(header: &str, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = header.as_bytes().to_vec();
        for frame in frames {
            bytes.extend_from_slice(b"FRAME\n");
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    fn read(file: &mut Y4mFile) -> Result<VideoFrame, Y4mError> {
        file.read_frame(MediaTime::default())
    }

    #[test]
    fn a_file_is_looped_and_a_truncated_last_frame_is_ignored() {
        let frames: Vec<_> = [50, 60, 70].map(|grey| vec![grey; 16 * 16 * 3 / 2]).into();
        let mut bytes =
            y4m_bytes("YUV4MPEG2 W16 H16 F30000:1001 Ip A1:1 C420mpeg2 XYSCSS=420\n", &frames);
        bytes.truncate(bytes.len() - 7);
        let file = TempY4m::new("loop", &bytes);
        let mut source = Y4mFile::open(&file.0).unwrap();
        let lumas: Vec<_> = (0..5).map(|_| read(&mut source).unwrap().y()[0]).collect();
        assert_eq!(lumas, [50, 60, 50, 60, 50]);
        assert_eq!(source.header.rate, Some(FrameRate { frames: 30_000, seconds: 1001 }));
    }

    #[test]
    fn a_frame_of_odd_size_loses_only_its_last_row_and_column() {
        let luma: Vec<u8> = (0..17 * 17).map(|n| (n % 17) as u8 + 20).collect();
        let chroma: Vec<u8> =
            (0..2 * 81).map(|n| if n < 81 { 100 + n % 9 } else { n % 9 }).collect();
        let bytes = y4m_bytes("YUV4MPEG2 W17 H17 F1:1\n", &[[luma, chroma].concat()]);
        let file = TempY4m::new("odd", &bytes);
        let frame = read(&mut Y4mFile::open(&file.0).unwrap()).unwrap();
        assert_eq!(frame.size, Size::new(16, 16));
        assert!(frame.y().chunks(16).all(|row| row.iter().eq(&(20..36).collect::<Vec<u8>>())));
        assert!(frame.u().chunks(8).all(|row| row == [100, 101, 102, 103, 104, 105, 106, 107]));
        assert!(frame.v().chunks(8).all(|row| row == [0, 1, 2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn full_range_becomes_limited_range() {
        let frame = [vec![255; 256], vec![128; 64], vec![0; 64]].concat();
        let bytes = y4m_bytes("YUV4MPEG2 W16 H16 F1:1 XCOLORRANGE=FULL\n", &[frame]);
        let file = TempY4m::new("full", &bytes);
        let frame = read(&mut Y4mFile::open(&file.0).unwrap()).unwrap();
        assert_eq!((frame.y()[0], frame.u()[0], frame.v()[0]), (235, 128, 16));
    }

    #[test]
    fn a_bad_file_is_refused_with_its_name_and_its_fault() {
        let long = format!("YUV4MPEG2 {}\n", "X".repeat(5000));
        let framed = format!("YUV4MPEG2 W16 H16 F1:1\nFRAMED\n{}", "x".repeat(384));
        for (number, (bytes, fault)) in [
            ("", "it has no header"),
            ("RIFF\n", "does not begin with YUV4MPEG2"),
            (long.as_str(), "it has no header"),
            ("YUV4MPEG2 W16 F1:1\n", "no width and height"),
            ("YUV4MPEG2 W16 H16\n", "it holds no whole picture"),
            ("YUV4MPEG2 W-1 H16 F1:1\n", "\"-1\" is no width or height"),
            ("YUV4MPEG2 W8 H8 F1:1\n", "8x8 is out of range"),
            ("YUV4MPEG2 W99999999 H99999999 F1:1\n", "out of range, 16x16 to 3840x2160"),
            ("YUV4MPEG2 W3840 H3840 F1:1\n", "out of range"),
            ("YUV4MPEG2 W16 H16 F1:1 Crgb\n", "colours are Crgb, and only 4:2:0"),
            ("YUV4MPEG2 W16 H16 F1:1\n", "it holds no whole picture"),
            ("YUV4MPEG2 W16 H16 F1:1\nFRAME\nshort", "it holds no whole picture"),
            (framed.as_str(), "does not begin with FRAME"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = TempY4m::new(&format!("bad{number}"), bytes.as_bytes());
            let frame = Y4mFile::open(&file.0).and_then(|mut source| read(&mut source));
            let error = frame.map(|frame| frame.size).unwrap_err().to_string();
            assert!(error.contains(fault), "{bytes:.60}: {error}");
            assert!(error.contains(&format!("bad{number}.y4m")), "{error}");
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_refused_with_a_clear_error() {
        let missing = Y4mFile::open(Path::new("/nowhere/clip.y4m")).map(|_| ()).unwrap_err();
        assert!(missing.to_string().starts_with("the file \"/nowhere/clip.y4m\" cannot be read: "));
        let folder = Y4mFile::open(&std::env::temp_dir()).map(|_| ()).unwrap_err();
        assert!(folder.to_string().contains("is a folder, not a file"), "{folder}");
    }

    /// The luma of the first `count` output frames of a file whose frames have luma 1, 2, 3, ….
    fn output_lumas(name: &str, header: &str, frames: u8, count: usize) -> Vec<u8> {
        let frames: Vec<_> = (1..=frames).map(|grey| vec![grey; 384]).collect();
        let file = TempY4m::new(name, &y4m_bytes(header, &frames));
        let mut source = Y4mFile::open(&file.0).unwrap();
        (0..count).map(|_| source.frame_to_show(MediaTime::default()).unwrap().y()[0]).collect()
    }

    #[test]
    fn a_fast_video_skips_frames_a_slow_one_repeats_them_and_both_are_looped() {
        let lumas = |name: &str, rate: &str, count| {
            output_lumas(name, &format!("YUV4MPEG2 W16 H16 {rate}\n"), 5, count)
        };
        assert_eq!(lumas("usual", "F25:1", 7), [1, 2, 3, 4, 5, 1, 2]);
        assert_eq!(lumas("fast", "F120:1", 6), [1, 3, 5, 2, 4, 1]);
        assert_eq!(lumas("slow", "F2:1", 6), [1, 1, 1, 2, 2, 3]);
        assert_eq!(lumas("unknown", "F0:0", 7), [1, 2, 3, 4, 5, 1, 2]);
        assert_eq!(lumas("clock", "F90000:1", 3), [1, 2, 3]);
        assert_eq!(lumas("none", "", 3), [1, 2, 3]);
    }

    #[test]
    fn lines_may_end_as_on_windows_and_frames_may_have_parameters() {
        let frame = |line: &str, grey: u8| [line.as_bytes(), &[grey; 384]].concat();
        let bytes = [
            b"YUV4MPEG2 W16 H16 F25:1 Ip C420jpeg\r\n".to_vec(),
            frame("FRAME\r\n", 10),
            frame("FRAME Ip XFOO\n", 13),
            frame("FRAME\n", 30),
        ]
        .concat();
        let file = TempY4m::new("lines", &bytes);
        let mut source = Y4mFile::open(&file.0).unwrap();
        let lumas: Vec<_> = (0..4).map(|_| read(&mut source).unwrap().y()[0]).collect();
        assert_eq!(lumas, [10, 13, 30, 10]);
    }

    #[test]
    fn frames_are_scaled_to_square_pixels() {
        let bytes = y4m_bytes("YUV4MPEG2 W32 H16 F25:1 Ip A16:11 C420mpeg2\n", &[vec![60; 768]]);
        let file = TempY4m::new("wide", &bytes);
        let frame = read(&mut Y4mFile::open(&file.0).unwrap()).unwrap();
        assert_eq!(frame.size, Size::new(46, 16));
        assert!(frame.y().iter().chain(frame.u()).all(|sample| *sample == 60));
    }

    #[test]
    fn a_header_without_frames_allocates_no_large_buffer() {
        let file = TempY4m::new("bomb", b"YUV4MPEG2 W3840 H2160 F30:1 C444p16\nFRAME\n");
        let error = Y4mFile::open(&file.0).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("it holds no whole picture"), "{error}");
    }
}
