//! Pictures from a Y4M file (YUV4MPEG2, as ffmpeg and mjpegtools write it), looped.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    MAX_FPS, MAX_PATTERN, MIN_PATTERN,
    source::{Next, Pace, Source, SourceError},
};
use crate::{
    media::{FramePool, VideoFrame, now},
    model::{MediaTime, Size},
};

/// How late a picture may be read; later ones are shown when they would have been, so a slow
/// disk makes the film longer but never faster.
const SLACK: Duration = Duration::from_millis(100);

/// The longest header line. Real ones have some 60 bytes.
const MAX_LINE: u64 = 1024;

/// A file of pictures, from its first frame, again and again.
pub(super) struct Y4mFile {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
    /// Where the first frame begins.
    start: u64,
    /// Whole frames read since the file was opened.
    frames: u64,
    pace: Pace,
    pool: FramePool,
    /// One picture as it is in the file.
    raw: Vec<u8>,
}

/// Why a file is no source of pictures.
#[derive(Debug, thiserror::Error)]
pub(super) enum Y4mError {
    #[error("the file {path:?} cannot be read: {source}; check its name and your right to read it")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path:?} is a folder or a device, not a file; give a Y4M file")]
    NoFile { path: PathBuf },
    #[error(
        "the film {path:?} cannot be read as Y4M: {why}; make one with: ffmpeg -i IN -pix_fmt \
         yuv420p -s 1280x720 OUT.y4m"
    )]
    Format { path: PathBuf, why: String },
}

impl Y4mFile {
    /// Opens the file and reads its header.
    pub(super) fn open(path: &Path) -> Result<Self, Y4mError> {
        let io = |source| Y4mError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        if !file.metadata().map_err(io)?.is_file() {
            return Err(Y4mError::NoFile { path: path.to_owned() });
        }
        let mut file = BufReader::with_capacity(1 << 18, file);
        let format = |why| Y4mError::Format { path: path.to_owned(), why };
        let line = read_line(&mut file).map_err(io)?;
        let line = line.ok_or_else(|| format("it has no header".to_owned()))?;
        let header = Header::parse(&line).map_err(format)?;
        let start = file.stream_position().map_err(io)?;
        let pace = Pace::new(now(), header.frames, header.seconds, SLACK);
        let (raw, pool) = (vec![0; header.frame_bytes()], FramePool::default());
        Ok(Self { path: path.to_owned(), file, header, start, frames: 0, pace, pool, raw })
    }

    /// The next picture; the first one after the last.
    pub(super) fn read(&mut self, time: MediaTime) -> Result<VideoFrame, Y4mError> {
        if !self.read_raw()? {
            if self.frames == 0 {
                return Err(self.format("it holds no whole picture"));
            }
            self.file.seek(SeekFrom::Start(self.start)).map_err(|error| self.io(error))?;
            if !self.read_raw()? {
                return Err(self.format("its pictures are gone"));
            }
        }
        self.frames += 1;
        let (header, raw) = (&self.header, &self.raw);
        Ok(self.pool.frame(header.even(), time, |data| header.unpack(raw, data)))
    }

    /// Reads a picture as it is in the file; false at the end, where a part of one is left out.
    fn read_raw(&mut self) -> Result<bool, Y4mError> {
        let line = read_line(&mut self.file).map_err(|error| self.io(error))?;
        match line {
            None => Ok(false),
            Some(line) if line == b"FRAME" || line.starts_with(b"FRAME ") => {
                match self.file.read_exact(&mut self.raw) {
                    Ok(()) => Ok(true),
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
                    Err(error) => Err(self.io(error)),
                }
            }
            Some(_) => Err(self.format("a picture does not begin with FRAME")),
        }
    }

    fn io(&self, source: io::Error) -> Y4mError {
        Y4mError::Io { path: self.path.clone(), source }
    }

    fn format(&self, why: &str) -> Y4mError {
        Y4mError::Format { path: self.path.clone(), why: why.to_owned() }
    }
}

impl Source<VideoFrame> for Y4mFile {
    fn next(&mut self) -> Result<Next<VideoFrame>, SourceError> {
        let Some(time) = self.pace.wait() else { return Ok(Next::NotYet) };
        Ok(Next::Ready(self.read(time)?))
    }
}

/// A line without its end; `None` at the end of the file or if it is longer than [`MAX_LINE`].
fn read_line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = vec![];
    file.take(MAX_LINE).read_until(b'\n', &mut line)?;
    Ok((line.pop() == Some(b'\n')).then_some(line))
}

/// What a film's first line says.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Header {
    width: usize,
    height: usize,
    /// Pictures in `seconds` seconds.
    frames: u64,
    seconds: u64,
    /// Whether 0 is black and 255 white, instead of 16 and 235.
    is_full_range: bool,
}

impl Header {
    fn parse(line: &[u8]) -> Result<Self, String> {
        let line = String::from_utf8_lossy(line);
        let mut words = line.split(' ').filter(|word| !word.is_empty());
        if words.next() != Some("YUV4MPEG2") {
            return Err("it does not begin with YUV4MPEG2".to_owned());
        }
        let (mut width, mut height, mut rate) = (None, None, None);
        let mut is_full_range = false;
        for word in words {
            let mut letters = word.chars();
            let (tag, value) = (letters.next(), letters.as_str());
            match tag {
                Some('W') => width = Some(side(value)?),
                Some('H') => height = Some(side(value)?),
                Some('F') => rate = Some(ratio(value)?),
                Some('C') => check_colours(value)?,
                Some('X') => is_full_range |= value == "COLORRANGE=FULL",
                // Interlacing, aspect of a pixel, and what later versions may add.
                Some(_) | None => {}
            }
        }
        let (Some(width), Some(height)) = (width, height) else {
            return Err("its header gives no width and height".to_owned());
        };
        let (frames, seconds) = rate.ok_or("its header gives no frame rate")?;
        check_size(width, height)?;
        Ok(Self { width, height, frames, seconds, is_full_range })
    }

    fn chroma(&self) -> (usize, usize) {
        (self.width.div_ceil(2), self.height.div_ceil(2))
    }

    fn frame_bytes(&self) -> usize {
        let (width, height) = self.chroma();
        self.width * self.height + 2 * width * height
    }

    /// The size that is kept: an odd last row or column is cut off.
    fn even(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }

    /// Copies a picture of the file into an I420 buffer.
    fn unpack(&self, raw: &[u8], data: &mut [u8]) {
        let size = self.even();
        let (width, height) = (size.width as usize, size.height as usize);
        let (wide, high) = self.chroma();
        let (luma, chroma) = data.split_at_mut(width * height);
        let (blue, red) = chroma.split_at_mut(width * height / 4);
        let (raw_luma, raw_chroma) = raw.split_at(self.width * self.height);
        let (raw_blue, raw_red) = raw_chroma.split_at(wide * high);
        copy_rows(luma, width, raw_luma, self.width);
        copy_rows(blue, width / 2, raw_blue, wide);
        copy_rows(red, width / 2, raw_red, wide);
        if self.is_full_range {
            luma.iter_mut().for_each(|pixel| *pixel = (16 + u32::from(*pixel) * 219 / 255) as u8);
            for pixel in blue.iter_mut().chain(red) {
                *pixel = (16 + u32::from(*pixel) * 224 / 255) as u8;
            }
        }
    }
}

fn copy_rows(to: &mut [u8], width: usize, from: &[u8], stride: usize) {
    for (row, raw) in to.chunks_exact_mut(width).zip(from.chunks_exact(stride)) {
        row.copy_from_slice(&raw[..width]);
    }
}

fn side(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is no width or height"))
}

/// Refused before a buffer is made of it.
fn check_size(width: usize, height: usize) -> Result<(), String> {
    let (min, max) = (MIN_PATTERN.width as usize, MAX_PATTERN.width as usize);
    let pixels = (MAX_PATTERN.width * MAX_PATTERN.height) as usize;
    let fits = |side: usize| (min..=max).contains(&side);
    if fits(width) && fits(height) && width * height <= pixels {
        Ok(())
    } else {
        Err(format!("{width}x{height} is out of range, {MIN_PATTERN} to {MAX_PATTERN}"))
    }
}

fn ratio(text: &str) -> Result<(u64, u64), String> {
    let wrong = || format!("{text:?} is no frame rate");
    let (frames, seconds) = text.split_once(':').ok_or_else(wrong)?;
    let (frames, seconds): (u32, u32) =
        (frames.parse().map_err(|_| wrong())?, seconds.parse().map_err(|_| wrong())?);
    let (frames, seconds) = (u64::from(frames), u64::from(seconds));
    if frames < seconds || seconds == 0 || frames > u64::from(MAX_FPS) * seconds {
        return Err(format!("{text} pictures a second are out of range, 1 to {MAX_FPS}"));
    }
    Ok((frames, seconds))
}

/// All of these are 8 bit 4:2:0 and differ by less than a pixel in where chroma sits.
fn check_colours(name: &str) -> Result<(), String> {
    match name {
        "420" | "420jpeg" | "420mpeg2" | "420paldv" => Ok(()),
        other => Err(format!(
            "its colours are C{other}, and only C420jpeg, C420mpeg2, C420paldv and C420 are read"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A file that is gone with its value.
    struct Film(PathBuf);

    impl Film {
        fn new(name: &str, bytes: &[u8]) -> Self {
            let name = format!("quintet-y4m-{}-{name}.y4m", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::write(&path, bytes).unwrap();
            Self(path)
        }
    }

    impl Drop for Film {
        fn drop(&mut self) {
            fs::remove_file(&self.0).ok();
        }
    }

    fn film(header: &str, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = header.as_bytes().to_vec();
        for frame in frames {
            bytes.extend_from_slice(b"FRAME\n");
            bytes.extend_from_slice(frame);
        }
        bytes
    }

    fn read(file: &mut Y4mFile) -> Result<VideoFrame, Y4mError> {
        file.read(MediaTime::default())
    }

    #[test]
    fn a_film_is_looped_and_a_truncated_last_frame_is_left_out() {
        let frames: Vec<_> = [50, 60, 70].map(|grey| vec![grey; 16 * 16 * 3 / 2]).into();
        let mut bytes =
            film("YUV4MPEG2 W16 H16 F30000:1001 Ip A1:1 C420mpeg2 XYSCSS=420\n", &frames);
        bytes.truncate(bytes.len() - 7);
        let file = Film::new("loop", &bytes);
        let mut source = Y4mFile::open(&file.0).unwrap();
        let seen: Vec<_> = (0..5).map(|_| read(&mut source).unwrap().y()[0]).collect();
        assert_eq!(seen, [50, 60, 50, 60, 50]);
        assert_eq!((source.header.frames, source.header.seconds), (30_000, 1001));
    }

    #[test]
    fn an_odd_size_loses_its_last_row_and_column_and_nothing_else() {
        let luma: Vec<u8> = (0..17 * 17).map(|n| (n % 17) as u8 + 20).collect();
        let chroma: Vec<u8> =
            (0..2 * 81).map(|n| if n < 81 { 100 + n % 9 } else { n % 9 }).collect();
        let bytes = film("YUV4MPEG2 W17 H17 F1:1\n", &[[luma, chroma].concat()]);
        let file = Film::new("odd", &bytes);
        let frame = read(&mut Y4mFile::open(&file.0).unwrap()).unwrap();
        assert_eq!(frame.size, Size::new(16, 16));
        assert!(frame.y().chunks(16).all(|row| row.iter().eq(&(20..36).collect::<Vec<u8>>())));
        assert!(frame.u().chunks(8).all(|row| row == [100, 101, 102, 103, 104, 105, 106, 107]));
        assert!(frame.v().chunks(8).all(|row| row == [0, 1, 2, 3, 4, 5, 6, 7]));
    }

    #[test]
    fn full_range_becomes_limited_range() {
        let frame = [vec![255; 256], vec![128; 64], vec![0; 64]].concat();
        let file = Film::new("full", &film("YUV4MPEG2 W16 H16 F1:1 XCOLORRANGE=FULL\n", &[frame]));
        let frame = read(&mut Y4mFile::open(&file.0).unwrap()).unwrap();
        assert_eq!((frame.y()[0], frame.u()[0], frame.v()[0]), (235, 128, 16));
    }

    #[test]
    fn a_bad_film_is_refused_by_name_with_its_fault() {
        let long = format!("YUV4MPEG2 {}\n", "X".repeat(5000));
        for (number, (bytes, fault)) in [
            ("", "it has no header"),
            ("RIFF\n", "does not begin with YUV4MPEG2"),
            (long.as_str(), "it has no header"),
            ("YUV4MPEG2 W16 F1:1\n", "no width and height"),
            ("YUV4MPEG2 W16 H16\n", "no frame rate"),
            ("YUV4MPEG2 W-1 H16 F1:1\n", "\"-1\" is no width or height"),
            ("YUV4MPEG2 W8 H8 F1:1\n", "8x8 is out of range"),
            ("YUV4MPEG2 W99999999 H99999999 F1:1\n", "out of range, 16x16 to 3840x2160"),
            ("YUV4MPEG2 W3840 H3840 F1:1\n", "out of range"),
            ("YUV4MPEG2 W16 H16 F0:0\n", "0:0 pictures a second are out of range"),
            ("YUV4MPEG2 W16 H16 F1000:1\n", "out of range, 1 to 60"),
            ("YUV4MPEG2 W16 H16 F30\n", "\"30\" is no frame rate"),
            ("YUV4MPEG2 W16 H16 F1:1 C422\n", "colours are C422, and only C420jpeg"),
            ("YUV4MPEG2 W16 H16 F1:1 C420p10\n", "colours are C420p10"),
            ("YUV4MPEG2 W16 H16 F1:1 Cmono\n", "colours are Cmono"),
            ("YUV4MPEG2 W16 H16 F1:1\n", "it holds no whole picture"),
            ("YUV4MPEG2 W16 H16 F1:1\nFRAME\nshort", "it holds no whole picture"),
            ("YUV4MPEG2 W16 H16 F1:1\nFRAMED\n", "does not begin with FRAME"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = Film::new(&format!("bad{number}"), bytes.as_bytes());
            let opened = Y4mFile::open(&file.0).and_then(|mut film| read(&mut film));
            let error = opened.map(|frame| frame.size).unwrap_err().to_string();
            assert!(error.contains(fault), "{bytes:.60}: {error}");
            assert!(error.contains(&format!("bad{number}.y4m")), "{error}");
        }
    }

    #[test]
    fn a_missing_file_and_a_folder_are_named() {
        let missing = Y4mFile::open(Path::new("/nowhere/clip.y4m")).map(|_| ()).unwrap_err();
        assert!(missing.to_string().starts_with("the file \"/nowhere/clip.y4m\" cannot be read: "));
        let folder = Y4mFile::open(&std::env::temp_dir()).map(|_| ()).unwrap_err();
        assert!(folder.to_string().contains("is a folder or a device"), "{folder}");
    }
}
