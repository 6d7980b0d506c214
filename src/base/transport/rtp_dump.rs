//! A dump of all RTP and RTCP packets of a program, decrypted, as a file for Wireshark.
//!
//! Each connection has made-up addresses of its own, which contain the number of its peer: this end
//! is 10.0.0.1, the other end 10.1.x.y. Each direction has its own UDP port. A session announcement
//! (SAP, RFC 2974) at the start of each connection says what the ports carry, so that Wireshark
//! decodes the packets without being told.

use std::{
    collections::VecDeque,
    io::{self, Write},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use rtc::{
    interceptor::{Interceptor, Packet, Slot, StreamInfo, TaggedPacket},
    rtcp,
    sansio::Protocol,
    shared::{error::Error, marshal::Marshal},
};
use tokio::sync::oneshot;

use super::pcap::{self, Endpoint};
use crate::{
    model::PeerId,
    process::{BackgroundFile, FileFormat},
};

/// The position of the interceptor: closest to the network, so that it sees every packet that
/// leaves.
pub(super) const DUMP_SLOT: Slot = Slot::Custom(500);

/// The queue has room for half a second of a hundred viewers of 1280x720, about 10 MB.
const FORMAT: FileFormat = FileFormat { name: "RTP dump", queue: 8192, gap: |_| vec![] };

/// The address of this end.
const LOCAL_ADDRESS: [u8; 4] = [10, 0, 0, 1];

/// The ports of this end are these and the following ones, those of the other ends 20,000 higher.
const FIRST_PORT: u16 = 20_000;

/// How many ports each end has. More connections reuse them; their addresses differ.
const PORTS: u64 = 20_000;

/// Where session announcements go (RFC 2974, section 3).
const ANNOUNCEMENT: Endpoint = Endpoint { address: [224, 2, 127, 254], port: 9875 };

/// A file with all RTP and RTCP packets of the connections that have a clone of this handle, in the
/// order in which they were received or handed to SRTP. A file is complete up to a moment ago.
///
/// A thread of its own writes it, for which nobody waits. If the disk is too slow, packets are left
/// out, which the thread logs. The thread ends with the last clone.
#[derive(Clone, Debug)]
pub struct RtpDump(BackgroundFile);

impl RtpDump {
    /// Starts a dump. `open` runs on the thread that writes, and may block; its outcome is sent to
    /// the returned channel. Packets meanwhile are kept, up to 8192.
    ///
    /// The file contains all media: `open` should create it so that only the user can read it.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub fn start<W: Write, E: Send + 'static>(
        open: impl FnOnce() -> Result<W, E> + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<Result<(), E>>)> {
        let started = BackgroundFile::start(FORMAT, pcap::FILE_HEADER.to_vec(), open)?;
        Ok((Self(started.file), started.opened))
    }

    /// The interceptor for the connection to a peer.
    pub(super) fn interceptor(&self, peer: PeerId) -> DumpInterceptor {
        let PeerId(number) = peer;
        let port = FIRST_PORT + (number % PORTS) as u16;
        let [.., high, low] = number.to_be_bytes();
        let interceptor = DumpInterceptor {
            dump: self.clone(),
            local: Endpoint { address: LOCAL_ADDRESS, port },
            remote: Endpoint { address: [10, 1, high, low], port: port + PORTS as u16 },
            reads: VecDeque::new(),
            writes: VecDeque::new(),
        };
        for receiver in [interceptor.local, interceptor.remote] {
            self.record(interceptor.local, ANNOUNCEMENT, &announcement(peer, receiver));
        }
        interceptor
    }

    /// Queues a datagram; never waits.
    fn record(&self, from: Endpoint, to: Endpoint, payload: &[u8]) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.write(pcap::record(time, from, to, payload));
    }
}

/// A session announcement that says what the datagrams to that endpoint are. The payload types are
/// those that this program offers.
fn announcement(peer: PeerId, receiver: Endpoint) -> Vec<u8> {
    let Endpoint { address: [a, b, c, d], port } = receiver;
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 10.0.0.1\r\ns={peer}\r\nc=IN IP4 {a}.{b}.{c}.{d}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-mux\r\n\
         m=video {port} RTP/AVP 102 103 104 105 106 107\r\na=rtpmap:102 H264/90000\r\n\
         a=rtpmap:103 H264/90000\r\na=rtpmap:104 H264/90000\r\na=rtpmap:105 rtx/90000\r\n\
         a=rtpmap:106 rtx/90000\r\na=rtpmap:107 rtx/90000\r\na=rtcp-mux\r\n"
    );
    // Version 1, no authentication, and the address and the port as the message's identity.
    let [port_high, port_low] = port.to_be_bytes();
    let mut message = vec![0x20, 0, port_high, port_low, a, b, c, d];
    message.extend(b"application/sdp\0");
    message.extend(sdp.as_bytes());
    message
}

/// Copies the packets of one connection to the dump, and changes nothing.
pub(super) struct DumpInterceptor {
    dump: RtpDump,
    local: Endpoint,
    remote: Endpoint,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl DumpInterceptor {
    fn record(&self, from: Endpoint, to: Endpoint, packet: &Packet) {
        let bytes = match packet {
            Packet::Rtp(packet) => packet.marshal(),
            Packet::Rtcp(packets) => rtcp::packet::marshal(packets),
            other => return tracing::debug!(?other, "packet of an unknown kind not dumped"),
        };
        match bytes {
            Ok(bytes) if bytes.is_empty() => {}
            Ok(bytes) => self.dump.record(from, to, &bytes),
            Err(error) => tracing::debug!(%error, "packet not dumped"),
        }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for DumpInterceptor {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.record(self.remote, self.local, &message.message.packet);
        self.reads.push_back(message);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.record(self.local, self.remote, &message.message.packet);
        self.writes.push_back(message);
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }

    fn handle_timeout(&mut self, _now: Instant) -> Result<(), Error> {
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        None
    }

    fn close(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

impl Interceptor for DumpInterceptor {
    fn bind_local_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_local_stream(&mut self, _info: &StreamInfo) {}
    fn bind_remote_stream(&mut self, _info: &StreamInfo) {}
    fn unbind_remote_stream(&mut self, _info: &StreamInfo) {}
}
