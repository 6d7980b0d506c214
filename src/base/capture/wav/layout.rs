//! Finds the audio data in a WAV, RF64, BW64 or Wave64 file, and its encoding.
//!
//! Sizes in headers are only hints: programs that write to a pipe, or that crash, leave 0 or the
//! largest number there. (`symphonia` 0.6 trusts the sizes, and reads neither RF64 nor Wave64;
//! hence this parser.)

use std::io::{self, Read, Seek, SeekFrom};

use super::sample_encoding::SampleEncoding;

/// Where the audio data is in a file, and its encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    /// Frames per second.
    pub(super) rate: u32,
    /// Samples in a frame; at least one.
    pub(super) channels: usize,
    /// The encoding of a sample.
    pub(super) encoding: SampleEncoding,
    /// Bytes in a frame.
    pub(super) frame_bytes: usize,
    /// Offset of the first frame in the file.
    pub(super) start: u64,
    /// The number of complete frames.
    pub(super) frames: u64,
}

/// Why a file has no audio that can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayoutError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("{0}")]
    Format(String),
}

/// The largest number of chunks before the audio data; real files have about ten.
const MAX_CHUNKS: usize = 4096;

/// The last 12 bytes of each chunk's GUID in a Wave64 file, except the first chunk's.
const WAVE64_GUID_TAIL: [u8; 12] = *b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a";

/// The GUID at the beginning of a Wave64 file.
const WAVE64_RIFF_GUID: [u8; 16] = *b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00";

impl Layout {
    /// Reads the headers of a file.
    pub(super) fn read(file: &mut (impl Read + Seek)) -> Result<Self, LayoutError> {
        let length = file.seek(SeekFrom::End(0))?;
        let mut reader = HeaderReader { file, length, format: None, data_size_64: None };
        match &reader.bytes_at::<4>(0)? {
            b"RIFF" | b"RF64" | b"BW64" => reader.read_riff(),
            b"riff" => reader.read_wave64(),
            b"RIFX" => Err(format_error("it is a big-endian WAV (RIFX)")),
            _ => Err(format_error("it does not begin with RIFF, RF64, BW64 or Wave64's mark")),
        }
    }
}

fn format_error(why: &str) -> LayoutError {
    LayoutError::Format(why.to_owned())
}

/// Reads the headers of a file.
struct HeaderReader<'a, F> {
    file: &'a mut F,
    length: u64,
    format: Option<Format>,
    /// The size of the audio data in the `ds64` chunk of RF64, for data beyond 32 bits.
    data_size_64: Option<u64>,
}

/// The contents of the chunk `fmt `.
#[derive(Clone, Copy)]
struct Format {
    rate: u32,
    channels: usize,
    encoding: SampleEncoding,
    frame_bytes: usize,
}

impl<F: Read + Seek> HeaderReader<'_, F> {
    /// Reads RIFF and its 64-bit variants (EBU Tech 3306, ITU-R BS.2088).
    fn read_riff(&mut self) -> Result<Layout, LayoutError> {
        if &self.bytes_at::<4>(8)? != b"WAVE" {
            return Err(format_error("it is a RIFF file of another kind, without WAVE"));
        }
        let mut at = 12;
        for _ in 0..MAX_CHUNKS {
            let Some((name, size)) = self.chunk_at(at)? else { break };
            let body = at + 8;
            match &name {
                b"ds64" if size >= 16 => {
                    self.data_size_64 = Some(u64::from_le_bytes(self.bytes_at(body + 8)?));
                }
                b"fmt " => self.format = Some(self.format_at(body, u64::from(size))?),
                b"data" => {
                    let end = self.end_of_audio(body, size)?;
                    return self.layout(body, end);
                }
                _ => {}
            }
            at = self.next_chunk_offset(body, size)?;
        }
        Err(format_error("it holds no sound"))
    }

    /// The offset of the next chunk.
    ///
    /// A chunk of odd size is followed by a pad byte, which some programs omit. The pad byte is 0,
    /// and a chunk's name does not begin with 0.
    fn next_chunk_offset(&mut self, body: u64, size: u32) -> Result<u64, LayoutError> {
        let end = body + u64::from(size);
        if size.is_multiple_of(2) || end >= self.length {
            return Ok(end);
        }
        let is_unpadded = self.bytes_at::<1>(end)? != [0] && self.is_chunk(end)?;
        Ok(if is_unpadded { end } else { end + 1 })
    }

    /// The offset of the end of the audio data: as given by its size, if the file ends there or
    /// another chunk follows; otherwise the end of the file.
    fn end_of_audio(&mut self, body: u64, size: u32) -> Result<u64, LayoutError> {
        let size = match self.data_size_64 {
            Some(long) if size == u32::MAX => long,
            Some(_) | None => u64::from(size),
        };
        let end = body.saturating_add(size);
        if end >= self.length || size == u64::from(u32::MAX) {
            return Ok(self.length);
        }
        let is_end = self.length - end < 8
            || self.is_chunk(end)?
            || self.is_chunk(end + 1)?
            || self.is_metadata_tag(end)?;
        Ok(if is_end { end } else { self.length })
    }

    /// Whether the bytes at the offset look like a chunk.
    fn is_chunk(&mut self, at: u64) -> Result<bool, LayoutError> {
        let Some((name, size)) = self.chunk_at(at)? else { return Ok(false) };
        let is_name = name.iter().all(|byte| (b' '..=b'~').contains(byte));
        Ok(is_name && at + 8 + u64::from(size) <= self.length + 1)
    }

    /// Whether an ID3 or APE tag begins at the offset, as music programs append to files of any
    /// format.
    fn is_metadata_tag(&mut self, at: u64) -> Result<bool, LayoutError> {
        let magic = self.bytes_at::<4>(at)?;
        Ok(magic.starts_with(b"TAG") || magic.starts_with(b"ID3") || &magic == b"APET")
    }

    /// A chunk's name and size; `None` at the end of the file.
    fn chunk_at(&mut self, at: u64) -> Result<Option<([u8; 4], u32)>, LayoutError> {
        if at.saturating_add(8) > self.length {
            return Ok(None);
        }
        let bytes: [u8; 8] = self.bytes_at(at)?;
        let [a, b, c, d, size @ ..] = bytes;
        Ok(Some(([a, b, c, d], u32::from_le_bytes(size))))
    }

    /// Reads Sony's Wave64: 64-bit sizes that include the header, GUIDs for names, chunks at
    /// multiples of 8.
    fn read_wave64(&mut self) -> Result<Layout, LayoutError> {
        let (riff, wave) = (self.bytes_at::<16>(0)?, self.bytes_at::<16>(24)?);
        if riff != WAVE64_RIFF_GUID || wave != guid(b"wave") {
            return Err(format_error("it is no Wave64 file, though it begins like one"));
        }
        let mut at = 40_u64;
        for _ in 0..MAX_CHUNKS {
            let Some((name, size)) = self.chunk64_at(at)? else { break };
            let (body, end) = (at + 24, at.saturating_add(size.max(24)));
            if name == guid(b"fmt ") {
                self.format = Some(self.format_at(body, size.saturating_sub(24))?);
            } else if name == guid(b"data") {
                let is_end = size > 24 && end < self.length && self.chunk_follows(end)?;
                return self.layout(body, if is_end { end } else { self.length });
            }
            at = end.checked_next_multiple_of(8).unwrap_or(u64::MAX);
        }
        Err(format_error("it holds no sound"))
    }

    fn chunk_follows(&mut self, end: u64) -> Result<bool, LayoutError> {
        let next = self.chunk64_at(end.next_multiple_of(8))?;
        Ok(next.is_none_or(|(name, _)| name[4..] == WAVE64_GUID_TAIL))
    }

    fn chunk64_at(&mut self, at: u64) -> Result<Option<([u8; 16], u64)>, LayoutError> {
        if at.saturating_add(24) > self.length {
            return Ok(None);
        }
        Ok(Some((self.bytes_at(at)?, u64::from_le_bytes(self.bytes_at(at + 16)?))))
    }

    fn format_at(&mut self, at: u64, size: u64) -> Result<Format, LayoutError> {
        // Up to the subformat's first two bytes; older programs omit the end.
        let mut bytes = [0; 26];
        let available = size.min(26).min(self.length.saturating_sub(at)) as usize;
        if available < 14 {
            return Err(format_error("it is too short"));
        }
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut bytes[..available])?;
        Format::parse(&bytes).map_err(LayoutError::Format)
    }

    fn layout(&self, start: u64, end: u64) -> Result<Layout, LayoutError> {
        let format =
            self.format.ok_or_else(|| format_error("its sound comes before its format"))?;
        let Format { rate, channels, encoding, frame_bytes } = format;
        let frames = end.saturating_sub(start) / frame_bytes as u64;
        if frames == 0 {
            return Err(format_error("it holds no sound"));
        }
        Ok(Layout { rate, channels, encoding, frame_bytes, start, frames })
    }

    fn bytes_at<const N: usize>(&mut self, at: u64) -> Result<[u8; N], LayoutError> {
        if at.saturating_add(N as u64) > self.length {
            return Err(format_error("it is too short"));
        }
        let mut bytes = [0; N];
        self.file.seek(SeekFrom::Start(at))?;
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn guid(name: &[u8; 4]) -> [u8; 16] {
    let mut guid = [0; 16];
    guid[..4].copy_from_slice(name);
    guid[4..].copy_from_slice(&WAVE64_GUID_TAIL);
    guid
}

/// The format tag of `WAVEFORMATEXTENSIBLE`: the real tag is in the subformat.
const EXTENSIBLE: u16 = 0xfffe;

impl Format {
    /// Parses `WAVEFORMATEX` or `WAVEFORMATEXTENSIBLE`; missing bytes are 0.
    fn parse(bytes: &[u8; 26]) -> Result<Self, String> {
        let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let long = |at: usize| u64::from(short(at)) | u64::from(short(at + 2)) << 16;
        let tag = if short(0) == EXTENSIBLE { short(24) } else { short(0) };
        let (channels, rate, bytes_per_second) = (u64::from(short(2)), long(4), long(8));
        let (block, bits) = (u64::from(short(12)), u64::from(short(14)));
        if channels == 0 {
            return Err("it holds no sound".to_owned());
        }
        // A sample may take more bytes than its bits need; the block size (bytes per frame) tells
        // how many. The block size is trusted if the bytes per second agree with it, or if the
        // number of bits is 0.
        let bytes_by_bits = bits.div_ceil(8);
        let is_block_plausible = block >= channels
            && block % channels == 0
            && (bytes_by_bits == 0
                || (block / channels >= bytes_by_bits && bytes_per_second == rate * block));
        let sample_bytes = if is_block_plausible { block / channels } else { bytes_by_bits };
        let encoding = SampleEncoding::new(tag, sample_bytes)?;
        let frame_bytes = (channels * sample_bytes) as usize;
        let (rate, channels) = (rate as u32, channels as usize);
        Ok(Self { rate, channels, encoding, frame_bytes })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A chunk, with a pad byte if its size is odd.
    fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
        let pad = vec![0; body.len() % 2];
        [name, &(body.len() as u32).to_le_bytes()[..], body, &pad].concat()
    }

    /// The body of a `fmt ` chunk at 8 kHz, with this many bytes and bits per sample.
    fn format(tag: u16, channels: u16, bytes: u16, bits: u16) -> Vec<u8> {
        let block = channels * bytes;
        let mut body = [tag.to_le_bytes(), channels.to_le_bytes()].concat();
        body.extend(8000_u32.to_le_bytes());
        body.extend((8000 * u32::from(block)).to_le_bytes());
        body.extend([block.to_le_bytes(), bits.to_le_bytes()].concat());
        body
    }

    fn riff(magic: &[u8; 4], chunks: &[Vec<u8>]) -> Vec<u8> {
        let body = chunks.concat();
        [magic, &(body.len() as u32 + 4).to_le_bytes()[..], b"WAVE", &body].concat()
    }

    fn read(file: &[u8]) -> Layout {
        Layout::read(&mut Cursor::new(file)).unwrap_or_else(|error| panic!("{error}: {file:x?}"))
    }

    fn read_error(file: &[u8]) -> String {
        Layout::read(&mut Cursor::new(file)).unwrap_err().to_string()
    }

    /// A header of 44 bytes followed by 100 bytes of 16-bit mono.
    fn plain() -> Vec<u8> {
        riff(b"RIFF", &[chunk(b"fmt ", &format(1, 1, 2, 16)), chunk(b"data", &[0xff; 100])])
    }

    #[test]
    fn wrong_sizes_are_ignored_and_the_audio_lasts_to_the_end_of_the_file() {
        let with = |riff: u32, data: u32| {
            let mut file = plain();
            file[4..8].copy_from_slice(&riff.to_le_bytes());
            file[40..44].copy_from_slice(&data.to_le_bytes());
            file
        };
        let correct = Layout {
            rate: 8000,
            channels: 1,
            encoding: SampleEncoding::Signed(2),
            frame_bytes: 2,
            start: 44,
            frames: 50,
        };
        for (riff, data) in [
            (136, 100),
            (u32::MAX, u32::MAX),
            (0, 0),
            (36, 0),
            (136, 0),
            (u32::MAX, 0),
            (0, u32::MAX - 36),
            (136, 102),
            // Written in the middle of the recording and never updated.
            (86, 50),
        ] {
            assert_eq!(read(&with(riff, data)), correct, "{riff} {data}");
        }
        let mut truncated = plain();
        truncated.truncate(101);
        assert_eq!(read(&truncated).frames, 28, "the last frame is incomplete");
        assert_eq!(read_error(&plain()[..44]), "it holds no sound");
        assert_eq!(read_error(&plain()[..45]), "it holds no sound");
    }

    #[test]
    fn chunks_and_tags_after_the_audio_are_not_played() {
        let title = chunk(b"LIST", b"INFOINAM\x04\0\0\0Talk");
        let mut tagged = plain();
        tagged.extend(b"TAG");
        tagged.extend([b' '; 125]);
        let format = chunk(b"fmt ", &format(1, 1, 2, 16));
        let audio = chunk(b"data", &[0xff; 100]);
        let odd = chunk(b"data", &[0xff; 101]);
        let mut unpadded = odd.clone();
        unpadded.pop();
        for file in [
            riff(b"RIFF", &[format.clone(), audio, title.clone()]),
            riff(b"RIFF", &[format.clone(), odd, title.clone()]),
            riff(b"RIFF", &[format.clone(), unpadded, title.clone()]),
            tagged,
        ] {
            assert_eq!(read(&file).frames, 50, "{file:x?}");
        }
        assert_eq!(
            read_error(&riff(b"RIFF", &[format, chunk(b"data", &[]), title])),
            "it holds no sound"
        );
    }

    #[test]
    fn chunks_of_odd_size_are_skipped_with_and_without_their_pad_byte() {
        let odd = chunk(b"LIST", b"INFOISFT\x05\0\0\0abcd\0");
        let (mut unpadded, mut nonzero_pad) = (odd.clone(), odd.clone());
        unpadded.pop();
        *nonzero_pad.last_mut().unwrap() = 0xff;
        let (format, audio) = (chunk(b"fmt ", &format(1, 1, 2, 16)), chunk(b"data", &[0xff; 100]));
        for list in [odd, unpadded, nonzero_pad] {
            for chunks in [
                [format.clone(), list.clone(), audio.clone()],
                [list.clone(), format.clone(), audio.clone()],
            ] {
                let file = riff(b"RIFF", &chunks);
                let layout = read(&file);
                let start = file.windows(4).position(|name| name == b"data").unwrap() as u64 + 8;
                assert_eq!((layout.start, layout.frames), (start, 50), "{file:x?}");
            }
        }
    }

    #[test]
    fn every_format_is_read_from_plain_and_extensible_chunks() {
        for (tag, bytes, bits, encoding) in [
            (1, 1, 8, SampleEncoding::Unsigned8),
            (1, 2, 12, SampleEncoding::Signed(2)),
            (1, 2, 16, SampleEncoding::Signed(2)),
            (1, 3, 24, SampleEncoding::Signed(3)),
            (1, 4, 24, SampleEncoding::Signed(4)),
            (1, 4, 32, SampleEncoding::Signed(4)),
            (1, 8, 64, SampleEncoding::Signed(8)),
            (3, 4, 32, SampleEncoding::Float32),
            (3, 8, 64, SampleEncoding::Float64),
            (6, 1, 8, SampleEncoding::ALaw),
            (7, 1, 8, SampleEncoding::MuLaw),
        ] {
            for channels in [1, 2, 6, 64] {
                let plain = format(tag, channels, bytes, bits);
                let mut extended = format(EXTENSIBLE, channels, bytes, 8 * bytes);
                extended.extend(22_u16.to_le_bytes());
                extended.extend(bits.to_le_bytes());
                extended.extend(0x3f_u32.to_le_bytes());
                extended.extend(tag.to_le_bytes());
                extended.extend(b"\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
                let longer = [&plain[..], &[0, 0]].concat();
                for body in [plain, longer, extended] {
                    let audio = vec![1; 10 * usize::from(channels * bytes)];
                    let layout =
                        read(&riff(b"RIFF", &[chunk(b"fmt ", &body), chunk(b"data", &audio)]));
                    let found = (layout.channels, layout.encoding, layout.frames);
                    assert_eq!(found, (usize::from(channels), encoding, 10), "{tag} {bits}");
                }
            }
        }
        // If only the block size disagrees, it is wrong and the number of bits is right.
        let mut wrong = format(1, 2, 2, 16);
        wrong[12..14].copy_from_slice(&2_u16.to_le_bytes());
        let audio = chunk(b"data", &[0; 40]);
        assert_eq!(read(&riff(b"RIFF", &[chunk(b"fmt ", &wrong), audio])).frames, 10);
    }

    #[test]
    fn files_beyond_four_gigabytes_are_read_by_their_64_bit_sizes() {
        let long = |data: u64| {
            let sizes = [200_u64, data, 0].map(u64::to_le_bytes).concat();
            let sizes = chunk(b"ds64", &[&sizes[..], &[0; 4]].concat());
            let mut audio = chunk(b"data", &[0xff; 100]);
            audio[4..8].fill(0xff);
            let format = chunk(b"fmt ", &format(1, 1, 2, 16));
            let mut file = riff(b"RF64", &[sizes, format, audio, chunk(b"junk", &[1; 4])]);
            file[4..8].fill(0xff);
            file
        };
        assert_eq!(read(&long(100)).frames, 50);
        let to_the_end = 50 + 12 / 2;
        for unknown in [0, u64::MAX, 1 << 40] {
            assert_eq!(read(&long(unknown)).frames, to_the_end, "{unknown}");
        }
        let mut broadcast = long(100);
        broadcast[..4].copy_from_slice(b"BW64");
        assert_eq!(read(&broadcast).frames, 50);
    }

    #[test]
    fn a_wave64_file_is_read_even_if_its_sizes_are_wrong() {
        let chunk64 = |name: &[u8; 4], body: &[u8], size: u64| {
            let pad = vec![0; body.len().next_multiple_of(8) - body.len()];
            [&guid(name)[..], &size.to_le_bytes(), body, &pad].concat()
        };
        let file = |size: u64| {
            [
                [&WAVE64_RIFF_GUID[..], &[0; 8], &guid(b"wave")].concat(),
                chunk64(b"fact", &[9; 5], 29),
                chunk64(b"fmt ", &format(1, 1, 2, 16), 40),
                chunk64(b"data", &[0xff; 100], size),
            ]
            .concat()
        };
        let start = 40 + 32 + 40 + 24;
        let layout = read(&file(124));
        assert_eq!((layout.start, layout.frames), (start, 50));
        let padded_end = 104 / 2;
        for unknown in [0, 24, u64::MAX, 1 << 40] {
            let layout = read(&file(unknown));
            assert_eq!((layout.start, layout.frames), (start, padded_end), "{unknown}");
        }
        let with_chunk_after = [file(124), chunk64(b"levl", &[1; 8], 32)].concat();
        assert_eq!(read(&with_chunk_after).frames, 50);
    }
}
