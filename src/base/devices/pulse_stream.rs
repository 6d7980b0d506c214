//! Streams of a PulseAudio server, or of PipeWire, each on a connection and a thread of its own.
//!
//! cpal has such streams, too, but they cost more than all else in a call that has only audio: after
//! each callback it asks the server for its latency, which nobody needs here, and that takes four
//! more wake-ups; and the client library under it overwrites a megabyte with zeros before each read
//! (`pulseaudio` 0.3.2, `Reactor::recv`). So only the messages of that library are used, and the
//! thread of a stream sleeps until the server wants samples or has some.

use std::{
    ffi::{CStr, CString},
    fs,
    io::{self, BufRead, BufReader, Cursor, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use cpal::{Error, ErrorKind, HostId, traits::DeviceTrait};
use pulseaudio::protocol::{
    self, AuthParams, AuthReply, ChannelMap, Command, CommandReply, CreatePlaybackStreamReply,
    CreateRecordStreamReply, DESCRIPTOR_SIZE, Descriptor, DescriptorFlags, MAX_MEMBLOCKQ_LENGTH,
    MAX_VERSION, PlaybackStreamParams, Prop, Props, ProtocolError, PulseError, RecordStreamParams,
    SampleFormat, SampleSpec, SetClientNameReply, SetPlaybackStreamBufferAttrParams,
    stream::{BufferAttr, StreamFlags},
};

use super::server_queue::ServerQueue;

/// A stream that plays or records until it is dropped.
///
/// Dropping closes the connection and waits for the thread, which is at most in its callback.
#[derive(Debug)]
pub struct PulseStream {
    socket: UnixStream,
    is_dropped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The device of a stream, and what its samples are like.
#[derive(Clone, Debug)]
pub struct PulseDevice {
    /// The socket of the server.
    pub server: PathBuf,
    /// The name of the sink or source at the server.
    pub name: CString,
    /// Samples a second and channel.
    pub rate: u32,
    /// Channels: one or two.
    pub channels: u8,
    /// The wanted samples per channel and callback. The server keeps two callbacks of what is to be
    /// played, and more after it ran dry, and four times as many of what was recorded and is not taken.
    pub callback: u32,
}

/// Gets the error that ends a stream, once, on the stream's thread. Not called when it is dropped.
pub type OnEnd = Box<dyn FnOnce(Error) + Send>;

/// How long the server may take for each step of opening a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// How many callbacks of recorded sound the server keeps for a thread that does not run. More would be
/// delay after it stood still itself: it then has all at once that was recorded meanwhile.
const RECORDED_CALLBACKS: u32 = 4;

const SAMPLE_BYTES: usize = size_of::<f32>();

impl PulseStream {
    /// Plays what `fill` writes, interleaved. It is called on the stream's thread whenever the server
    /// wants samples, and should be quick.
    ///
    /// # Errors
    /// The device or the server is not there, or the server does not answer in time.
    pub fn play(
        device: &PulseDevice,
        fill: impl FnMut(&mut [f32]) + Send + 'static,
        on_end: OnEnd,
    ) -> Result<Self, Error> {
        let (connection, reply) = create_playback(device).map_err(to_error)?;
        let frame_bytes = usize::from(device.channels) * SAMPLE_BYTES;
        let player = Player {
            channel: reply.channel,
            frame_bytes,
            queue: ServerQueue::new(),
            device: device.clone(),
            wanted_bytes: reply.requested_bytes as usize,
            samples: vec![],
            message: vec![],
        };
        Self::start("speaker-stream", connection, on_end, move |mut connection| {
            player.run(&mut connection, fill)
        })
    }

    /// Passes what is recorded to `take`, interleaved, on the stream's thread. It should be quick.
    /// Waits until there is something, but not for ever.
    ///
    /// # Errors
    /// The device or the server is not there, or the server does not answer in time.
    pub fn record(
        device: &PulseDevice,
        mut take: impl FnMut(&[f32]) + Send + 'static,
        on_end: OnEnd,
    ) -> Result<Self, Error> {
        let connection = create_recording(device).map_err(to_error)?;
        let mut samples = vec![];
        Self::start("microphone-stream", connection, on_end, move |mut connection| {
            loop {
                let Message::Samples(bytes) = connection.next_message()? else { continue };
                samples.clear();
                samples.extend(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
                take(&samples);
            }
        })
    }

    fn start(
        name: &str,
        connection: Connection,
        on_end: OnEnd,
        run: impl FnOnce(Connection) -> Result<Never, ProtocolError> + Send + 'static,
    ) -> Result<Self, Error> {
        let socket =
            connection.socket.get_ref().try_clone().map_err(|error| to_error(error.into()))?;
        let is_dropped = Arc::new(AtomicBool::new(false));
        let was_dropped = Arc::clone(&is_dropped);
        let work = move || match run(connection) {
            Ok(never) => match never {},
            Err(_) if was_dropped.load(Ordering::Acquire) => {}
            Err(error) => on_end(to_error(error)),
        };
        let thread = Builder::new().name(name.to_owned()).spawn(work);
        let thread = Some(thread.map_err(|error| to_error(error.into()))?);
        Ok(Self { socket, is_dropped, thread })
    }
}

impl Drop for PulseStream {
    fn drop(&mut self) {
        self.is_dropped.store(true, Ordering::Release);
        // Ends a read and a write. It fails if the server has already closed the connection.
        self.socket.shutdown(Shutdown::Both).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// The value of a function that returns errors only.
enum Never {}

/// What a stream that plays owes to the server.
struct Player {
    channel: u32,
    frame_bytes: usize,
    queue: ServerQueue,
    device: PulseDevice,
    wanted_bytes: usize,
    samples: Vec<f32>,
    /// The message, header first, so that it is written with one system call.
    message: Vec<u8>,
}

impl Player {
    fn run(
        mut self,
        connection: &mut Connection,
        mut fill: impl FnMut(&mut [f32]),
    ) -> Result<Never, ProtocolError> {
        loop {
            let bytes = self.wanted_bytes / self.frame_bytes * self.frame_bytes;
            self.wanted_bytes -= bytes;
            if bytes > 0 {
                self.samples.resize(bytes / SAMPLE_BYTES, 0.0);
                fill(&mut self.samples);
                self.write(connection.socket.get_mut())?;
            }
            let has_changed = match connection.next_message()? {
                Message::Wanted(bytes) => {
                    self.wanted_bytes = (self.wanted_bytes + bytes).min(MAX_MEMBLOCKQ_LENGTH);
                    self.queue.on_request()
                }
                Message::RanDry => self.queue.on_underflow(),
                Message::Samples(_) => false,
            };
            if has_changed {
                self.set_queue(connection)?;
            }
        }
    }

    /// Tells the server how much to keep. Its answer is not waited for.
    fn set_queue(&self, connection: &mut Connection) -> Result<(), ProtocolError> {
        let command = Command::SetPlaybackStreamBufferAttr(SetPlaybackStreamBufferAttrParams {
            index: self.channel,
            buffer_attr: self.device.playback_buffer(self.queue),
            adjust_latency: true,
            early_requests: false,
        });
        let version = connection.version;
        protocol::write_command_message(connection.socket.get_mut(), 1, &command, version)
    }

    fn write(&mut self, socket: &mut UnixStream) -> Result<(), ProtocolError> {
        let length = self.samples.len() * SAMPLE_BYTES;
        let (flags, channel) = (DescriptorFlags::empty(), self.channel);
        let mut header = [0; DESCRIPTOR_SIZE];
        let head = Descriptor { length: length as u32, channel, offset: 0, flags };
        protocol::encode_descriptor(&mut header, &head);
        self.message.clear();
        self.message.extend(header);
        self.message.extend(self.samples.iter().flat_map(|sample| sample.to_le_bytes()));
        Ok(socket.write_all(&self.message)?)
    }
}

/// A connection to the server.
struct Connection {
    socket: BufReader<UnixStream>,
    version: u16,
    payload: Vec<u8>,
    /// Whether the end of the stream is better than the monitor of a speaker: an echo for all others.
    refuses_monitors: bool,
}

/// What the server says that matters to a stream.
enum Message<'a> {
    /// It wants this many bytes.
    Wanted(usize),
    /// It had nothing to play.
    RanDry,
    /// It has recorded these bytes.
    Samples(&'a [u8]),
}

impl Connection {
    fn open(server: &Path) -> Result<Self, ProtocolError> {
        let socket = UnixStream::connect(server)?;
        socket.set_read_timeout(Some(OPEN_TIMEOUT))?;
        socket.set_write_timeout(Some(OPEN_TIMEOUT))?;
        let socket = BufReader::new(socket);
        let mut connection =
            Self { socket, version: MAX_VERSION, payload: vec![], refuses_monitors: false };
        let cookie = pulseaudio::cookie_path_from_env().and_then(|path| fs::read(path).ok());
        let auth = AuthParams {
            version: MAX_VERSION,
            supports_shm: false,
            supports_memfd: false,
            cookie: cookie.unwrap_or_default(),
        };
        let reply: AuthReply = connection.request(&Command::Auth(auth))?;
        connection.version = MAX_VERSION.min(reply.version);
        let mut props = Props::new();
        props.set(Prop::ApplicationName, c"Quintet");
        let _: SetClientNameReply = connection.request(&Command::SetClientName(props))?;
        Ok(connection)
    }

    fn request<R: CommandReply>(&mut self, command: &Command) -> Result<R, ProtocolError> {
        protocol::write_command_message(self.socket.get_mut(), 0, command, self.version)?;
        Ok(protocol::read_reply_message(&mut self.socket, self.version)?.1)
    }

    /// A stream stands still as long as its server does: that is for others to notice.
    fn without_timeouts(self) -> Result<Self, ProtocolError> {
        self.socket.get_ref().set_read_timeout(None)?;
        self.socket.get_ref().set_write_timeout(None)?;
        Ok(self)
    }

    /// Waits for the next message that matters.
    fn next_message(&mut self) -> Result<Message<'_>, ProtocolError> {
        loop {
            let head = protocol::read_descriptor(&mut self.socket)?;
            let length = head.length as usize;
            if length > MAX_MEMBLOCKQ_LENGTH {
                return Err(ProtocolError::Invalid(format!("a message of {length} bytes")));
            }
            self.payload.resize(length, 0);
            self.socket.read_exact(&mut self.payload)?;
            if head.channel != u32::MAX {
                return Ok(Message::Samples(&self.payload));
            }
            match Command::read_tag_prefixed(&mut Cursor::new(&self.payload), self.version) {
                Ok((_, Command::Request(wanted))) => {
                    return Ok(Message::Wanted(wanted.length as usize));
                }
                Ok((_, Command::Underflow(_))) => return Ok(Message::RanDry),
                Ok((_, Command::PlaybackStreamKilled(_) | Command::RecordStreamKilled(_))) => {
                    return Err(ProtocolError::ServerError(PulseError::Killed));
                }
                // The server moves a recording whose source is gone to any that is left.
                Ok((_, Command::RecordStreamMoved(moved)))
                    if self.refuses_monitors && is_monitor(&moved.device_name) =>
                {
                    return Err(ProtocolError::ServerError(PulseError::NoEntity));
                }
                // The stream began, was moved, was late: nothing to do.
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "message of the sound server not read"),
            }
        }
    }
}

/// Whether a source is what a speaker plays.
fn is_monitor(source: &CStr) -> bool {
    source.to_bytes().ends_with(b".monitor")
}

fn create_playback(
    device: &PulseDevice,
) -> Result<(Connection, CreatePlaybackStreamReply), ProtocolError> {
    let mut connection = Connection::open(&device.server)?;
    let reply = connection.request(&Command::CreatePlaybackStream(PlaybackStreamParams {
        sample_spec: device.sample_spec(),
        channel_map: device.channel_map(),
        sink_name: Some(device.name.clone()),
        buffer_attr: device.playback_buffer(ServerQueue::new()),
        props: stream_props(),
        flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
        ..PlaybackStreamParams::default()
    }))?;
    Ok((connection.without_timeouts()?, reply))
}

fn create_recording(device: &PulseDevice) -> Result<Connection, ProtocolError> {
    let mut connection = Connection::open(&device.server)?;
    connection.refuses_monitors = !is_monitor(&device.name);
    let bytes = device.callback_bytes();
    let _: CreateRecordStreamReply =
        connection.request(&Command::CreateRecordStream(RecordStreamParams {
            sample_spec: device.sample_spec(),
            channel_map: device.channel_map(),
            source_name: Some(device.name.clone()),
            buffer_attr: BufferAttr {
                max_length: RECORDED_CALLBACKS * bytes,
                fragment_size: bytes,
                ..BufferAttr::default()
            },
            props: stream_props(),
            flags: StreamFlags { adjust_latency: true, ..StreamFlags::default() },
            ..RecordStreamParams::default()
        }))?;
    // A source that slept needs up to two seconds. One that sends nothing is for others to notice.
    match connection.socket.fill_buf() {
        Err(error)
            if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
        {
            Err(error.into())
        }
        Ok(_) | Err(_) => connection.without_timeouts(),
    }
}

impl PulseDevice {
    /// The same device, of 48 kHz; `None` if it belongs to no server on this machine. The server
    /// converts what a device plays or records otherwise.
    pub fn of(
        host: &cpal::Host,
        device: &cpal::Device,
        channels: u8,
        callback: u32,
    ) -> Option<Self> {
        if host.id() != HostId::PulseAudio {
            return None;
        }
        let server = pulseaudio::socket_path_from_env()?;
        let name = CString::new(device.id().ok()?.id()).ok()?;
        Some(Self { server, name, rate: 48_000, channels, callback })
    }

    fn sample_spec(&self) -> SampleSpec {
        SampleSpec {
            format: SampleFormat::Float32Le,
            channels: self.channels,
            sample_rate: self.rate,
        }
    }

    fn channel_map(&self) -> ChannelMap {
        if self.channels == 1 { ChannelMap::mono() } else { ChannelMap::stereo() }
    }

    fn playback_buffer(&self, queue: ServerQueue) -> BufferAttr {
        let length = queue.length(self.callback) * self.frame_bytes();
        BufferAttr {
            max_length: length,
            target_length: length,
            minimum_request_length: self.callback_bytes(),
            ..BufferAttr::default()
        }
    }

    fn callback_bytes(&self) -> u32 {
        self.callback * self.frame_bytes()
    }

    fn frame_bytes(&self) -> u32 {
        u32::from(self.channels) * SAMPLE_BYTES as u32
    }
}

/// What a mixer of the system shows beside the name of the program.
fn stream_props() -> Props {
    let mut props = Props::new();
    props.set(Prop::MediaName, c"Call");
    props
}

fn to_error(error: ProtocolError) -> Error {
    let ProtocolError::ServerError(refusal) = &error else {
        return Error::with_message(ErrorKind::HostUnavailable, error.to_string());
    };
    let kind = if *refusal == PulseError::NoEntity {
        ErrorKind::DeviceNotAvailable
    } else if matches!(refusal, PulseError::AccessDenied | PulseError::AuthKey) {
        ErrorKind::PermissionDenied
    } else {
        ErrorKind::StreamInvalidated
    };
    Error::with_message(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, sync::mpsc::channel};

    use pulseaudio::protocol::{RecordStreamMovedParams, Request, Underflow};

    use super::*;

    const CHANNEL: u32 = 3;

    /// A server that accepts one stream.
    struct FakeServer {
        listener: UnixListener,
        path: PathBuf,
    }

    impl FakeServer {
        fn new(name: &str) -> Self {
            let file = format!("quintet-pulse-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(file);
            fs::remove_file(&path).ok();
            Self { listener: UnixListener::bind(&path).unwrap(), path }
        }

        fn device(&self, channels: u8) -> PulseDevice {
            let (server, name) = (self.path.clone(), c"speaker".to_owned());
            PulseDevice { server, name, rate: 48_000, channels, callback: 480 }
        }

        /// Answers what is asked until the stream is there.
        fn accept(&self) -> BufReader<UnixStream> {
            let mut socket = BufReader::new(self.listener.accept().unwrap().0);
            socket.get_ref().set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            loop {
                let (seq, command) = protocol::read_command_message(&mut socket, 35).unwrap();
                let to = socket.get_mut();
                if let Command::Auth(_) = command {
                    let reply = AuthReply { version: 35, ..AuthReply::default() };
                    protocol::write_reply_message(to, seq, &reply, 35).unwrap();
                } else if let Command::SetClientName(_) = command {
                    let reply = SetClientNameReply { client_id: 1 };
                    protocol::write_reply_message(to, seq, &reply, 35).unwrap();
                } else if let Command::CreatePlaybackStream(wanted) = command {
                    assert_eq!(wanted.buffer_attr.target_length, 2 * 480 * 8);
                    let reply = CreatePlaybackStreamReply {
                        channel: CHANNEL,
                        requested_bytes: 2 * 480 * 8,
                        ..CreatePlaybackStreamReply::default()
                    };
                    protocol::write_reply_message(to, seq, &reply, 35).unwrap();
                    return socket;
                } else {
                    let Command::CreateRecordStream(wanted) = command else {
                        panic!("{command:?}")
                    };
                    assert_eq!(wanted.buffer_attr.fragment_size, 480 * 4);
                    let reply = CreateRecordStreamReply::default();
                    protocol::write_reply_message(to, seq, &reply, 35).unwrap();
                    return socket;
                }
            }
        }
    }

    impl Drop for FakeServer {
        fn drop(&mut self) {
            fs::remove_file(&self.path).ok();
        }
    }

    fn spawn<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        Builder::new().spawn(work).unwrap()
    }

    /// Reads a message of the stream. Anything else that it says is a wake-up too many.
    fn read_samples(socket: &mut BufReader<UnixStream>) -> Vec<f32> {
        let head = protocol::read_descriptor(socket).unwrap();
        assert_eq!(head.channel, CHANNEL, "samples, and no question");
        let mut bytes = vec![0; head.length as usize];
        socket.read_exact(&mut bytes).unwrap();
        bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn the_server_gets_what_it_wants_and_is_asked_for_nothing() {
        let server = FakeServer::new("play");
        let device = server.device(2);
        let accepted = spawn(move || (server.accept(), server));
        let mut next = 0.0;
        let fill = move |samples: &mut [f32]| {
            for frame in samples.chunks_exact_mut(2) {
                frame.fill(next);
                next += 1.0;
            }
        };
        let stream = PulseStream::play(&device, fill, Box::new(|_| ())).unwrap();
        let (mut socket, _server) = accepted.join().unwrap();
        let mut samples = read_samples(&mut socket);
        assert_eq!(samples.len(), 2 * 480 * 2);
        for bytes in [480 * 8, 480 * 8 + 3, 480 * 8 - 3, 8 * 480 * 8].repeat(25) {
            let request = Command::Request(Request { channel: CHANNEL, length: bytes });
            protocol::write_command_message(socket.get_mut(), u32::MAX, &request, 35).unwrap();
            samples.extend(read_samples(&mut socket));
        }
        assert_eq!(samples.len(), (2 + 25 * 11) * 480 * 2, "parts of frames are not forgotten");
        assert!(samples.chunks_exact(2).zip(0..).all(|(frame, n)| frame == [n as f32; 2]));
        drop(stream);
        assert_eq!(socket.read(&mut [0; 100]).unwrap(), 0, "nothing else was said");
    }

    #[test]
    fn a_server_that_ran_dry_twice_keeps_more() {
        let server = FakeServer::new("dry");
        let device = server.device(2);
        let accepted = spawn(move || (server.accept(), server));
        let _stream = PulseStream::play(&device, |_| (), Box::new(|_| ())).unwrap();
        let (mut socket, _server) = accepted.join().unwrap();
        read_samples(&mut socket);
        let dry = Command::Underflow(Underflow { channel: CHANNEL, offset: 0 });
        for _ in 0..2 {
            protocol::write_command_message(socket.get_mut(), u32::MAX, &dry, 35).unwrap();
        }
        let (_, command) = protocol::read_command_message(&mut socket, 35).unwrap();
        let Command::SetPlaybackStreamBufferAttr(set) = command else { panic!("{command:?}") };
        assert_eq!((set.index, set.adjust_latency), (CHANNEL, true));
        assert_eq!(set.buffer_attr.target_length, 5 * 240 * 8);
    }

    #[test]
    fn recorded_samples_are_passed_and_the_end_is_told_unless_the_stream_was_dropped() {
        let server = FakeServer::new("record");
        for (is_dropped, ends_by_move) in [(false, false), (false, true), (true, false)] {
            let (took, taken) = channel();
            let (ended, end) = channel();
            let take = move |samples: &[f32]| took.send(samples.to_vec()).unwrap();
            let on_end = Box::new(move |error| ended.send(error).unwrap());
            let device = server.device(1);
            let opened = spawn(move || PulseStream::record(&device, take, on_end).unwrap());
            let mut socket = server.accept();
            let samples: Vec<_> = (0..480).map(|n| n as f32).collect();
            let bytes: Vec<_> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
            protocol::write_memblock(socket.get_mut(), CHANNEL, &bytes, 0).unwrap();
            let stream = opened.join().unwrap();
            assert_eq!(taken.recv().unwrap(), samples);
            if is_dropped {
                drop(stream);
                assert!(end.recv().is_err(), "the thread has ended, and told nothing");
            } else {
                let mut tell = |command| {
                    protocol::write_command_message(socket.get_mut(), u32::MAX, &command, 35)
                };
                let moved = |name: &CStr| {
                    Command::RecordStreamMoved(RecordStreamMovedParams {
                        stream_index: CHANNEL,
                        device_index: 1,
                        device_name: name.to_owned(),
                        device_suspended: false,
                        buffer_attr: BufferAttr::default(),
                        configured_source_latency: 0,
                    })
                };
                tell(moved(c"headset")).unwrap();
                let killed = Command::RecordStreamKilled(CHANNEL);
                tell(if ends_by_move { moved(c"speaker.monitor") } else { killed }).unwrap();
                let kinds = [ErrorKind::StreamInvalidated, ErrorKind::DeviceNotAvailable];
                let gone = kinds[usize::from(ends_by_move)];
                assert_eq!(end.recv().unwrap().kind(), gone);
            }
        }
    }
}
