//! One WebSocket connection of the hub, from `hello` to its end.

use std::{net::IpAddr, pin::pin, time::Duration};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use tracing::debug;

use super::{
    http_connection::SentChallenge,
    limits::MESSAGE_RATE,
    listener::{ConnectionUpdate, HubCx},
    outbox::{CloseCause, MAX_BYTES, Outbox, OutboxReceiver, WeakOutbox, outbox},
    parse::{self, MessageRejection},
    rooms_actor::fresh_secret,
    rooms_link::{RoomsClosed, RoomsLink},
};
use crate::{
    model::{ClientMessage, MAX_MESSAGE_BYTES, MAX_SDP_BYTES, ParticipantId, Secret, TokenBucket},
    signalling::rooms::{ConnectionId, RoomsInput, SourceAddress},
};

/// The time limit for `hello`.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The same for a client that is only accepted if it has a seat: such places are few.
const RETURNING_HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// The number of unreadable messages after which a connection is closed; those before it are
/// answered, so that a client can learn of a mistake.
const MAX_BAD_MESSAGES: u32 = 10;

/// The time limit for sending one message.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a closing connection is kept so that its last messages arrive.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes are read and discarded meanwhile: closing a socket with unread bytes resets it,
/// and the last messages are lost.
const CLOSE_DRAIN_BYTES: usize = 4 * 1024 * 1024;

/// The buffer sizes of a connection, in bytes: most messages are small, and there may be thousands
/// of connections.
const BUFFER: usize = 4 * 1024;

/// The most bytes that wait inside a socket's writer: a few of the largest messages.
const WRITE_BUFFER: usize = 8 * MAX_SDP_BYTES;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What is known of a connection before `hello`.
#[derive(Debug)]
pub(super) struct ConnectionInfo {
    /// The id of the connection.
    pub(super) id: ConnectionId,
    /// The address that limits count for.
    pub(super) source: IpAddr,
    /// The challenge by which the client may prove that it is of the hub's own user.
    pub(super) challenge: SentChallenge,
    /// Whether only a client with a seat is accepted.
    pub(super) must_return: bool,
}

/// How a connection ended.
#[derive(Debug)]
enum Termination {
    /// The client closed it, or the network failed.
    PeerClosed,
    /// The rooms have dropped its outbox.
    ClosedByRooms,
    /// The client broke the protocol, and was sent an error.
    ProtocolViolation(CloseCode),
    /// The client does not read what it is sent.
    NotReading,
}

/// Runs a connection to its end.
pub(super) async fn run(io: TokioIo<Upgraded>, info: ConnectionInfo, cx: &HubCx) {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (mut sink, stream) = socket.split();
    let (outbox, mut receiver) = outbox(&cx.queued_bytes);
    let ConnectionInfo { id, source, challenge, must_return } = info;
    let (link, bucket) =
        (RoomsLink { id, source, cx }, TokenBucket::new(MESSAGE_RATE, cx.clock.now()));
    let mut reader = Reader { link, challenge, must_return, stream, bucket };
    let end = tokio::select! {
        end = reader.run(outbox) => end,
        end = write(&mut sink, &mut receiver) => end,
    };
    reader.link.close().await;
    debug!(connection = id.0, ?end, "connection ended");
    if let Ok(socket) = sink.reunite(reader.stream)
        && timeout(CLOSE_TIMEOUT, close(socket, receiver, end)).await.is_err()
    {
        debug!(connection = id.0, "connection closed without a close handshake");
    }
}

/// Reads the messages of the client.
struct Reader<'a> {
    link: RoomsLink<'a>,
    challenge: SentChallenge,
    must_return: bool,
    stream: SplitStream<Socket>,
    bucket: TokenBucket,
}

/// Why no text can be read: `None` if the client is gone, else its violation of the protocol.
type ReadEnd = Option<Violation>;

/// A violation of the protocol that ends the connection.
struct Violation {
    code: CloseCode,
    rejection: MessageRejection,
}

impl Reader<'_> {
    async fn run(&mut self, outbox: Outbox) -> Termination {
        let limit = if self.must_return { RETURNING_HELLO_TIMEOUT } else { HELLO_TIMEOUT };
        let hello = match timeout(limit, self.read_hello()).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(end)) => return reject(&outbox, end),
            Err(_) => {
                let seconds = limit.as_secs();
                let text = format!("hello did not come within {seconds} seconds");
                return reject(
                    &outbox,
                    Some(Violation::policy(MessageRejection::bad_message(&text))),
                );
            }
        };
        if self.must_return && !self.check_returning(&hello).await {
            return reject(
                &outbox,
                Some(Violation::policy(MessageRejection::too_many_connections())),
            );
        }
        // Only the rooms keep the outbox: when they drop it, the connection ends.
        let outbox_ref = outbox.downgrade();
        if self.link.hello(outbox, hello).await.is_err() {
            return Termination::PeerClosed;
        }
        self.read_messages(&outbox_ref).await
    }

    /// Reads the first message, which must be `hello`.
    async fn read_hello(&mut self) -> Result<RoomsInput, ReadEnd> {
        let text = self.next_text().await?;
        match parse::parse(&text).map_err(|rejection| Some(Violation::policy(rejection)))? {
            ClientMessage::Hello { name, instance, token, proof, .. } => {
                let is_own =
                    self.challenge.as_ref().zip(proof).is_some_and(|((challenge, at), proof)| {
                        self.link.cx.identity.verify_client_proof(challenge, *at, &proof)
                    });
                let token = token.unwrap_or_else(fresh_secret);
                let (id, participant) = (self.link.id, participant_of(&token));
                if self.link.source.is_loopback() {
                    self.link.cx.link_base.refresh().await;
                }
                // The rooms' task adds the current one.
                let link_base = String::new();
                let source = source_address(self.link.source);
                Ok(RoomsInput::Hello {
                    connection: id,
                    participant,
                    token,
                    name,
                    instance,
                    link_base,
                    source,
                    is_own,
                })
            }
            ClientMessage::Open { .. }
            | ClientMessage::Join { .. }
            | ClientMessage::Leave { .. }
            | ClientMessage::Close { .. }
            | ClientMessage::Eject { .. }
            | ClientMessage::Allow { .. }
            | ClientMessage::Lock { .. }
            | ClientMessage::Rename { .. }
            | ClientMessage::Signal { .. }
            | ClientMessage::Ping => {
                let rejection = MessageRejection::bad_message(
                    "the first message of a connection must be hello",
                );
                Err(Some(Violation::policy(rejection)))
            }
        }
    }

    /// Whether the participant has a seat. If so, the connection counts like any other from now on.
    async fn check_returning(&self, hello: &RoomsInput) -> bool {
        let RoomsInput::Hello { participant, .. } = hello else { return false };
        let is_returning = self.link.has_any_seat(participant).await;
        if is_returning {
            // The accept loop ends with the hub.
            let _ = self.link.cx.updates.send(ConnectionUpdate::Returned(task::id())).await;
        }
        is_returning
    }

    /// Reads all further messages.
    async fn read_messages(&mut self, outbox_ref: &WeakOutbox) -> Termination {
        let mut bad_messages = 0;
        loop {
            let text = match self.next_text().await {
                Ok(text) => text,
                Err(end) => {
                    return outbox_ref
                        .upgrade()
                        .map_or(Termination::ClosedByRooms, |outbox| reject(&outbox, end));
                }
            };
            let forwarded = match parse::parse(&text) {
                Ok(message) => self.link.send(message).await,
                Err(rejection) => self.link.keep_alive().await.map(|()| Some(rejection)),
            };
            let rejection = match forwarded {
                Ok(None) => continue,
                Ok(Some(rejection)) => rejection,
                Err(RoomsClosed) => return Termination::PeerClosed,
            };
            let Some(outbox) = outbox_ref.upgrade() else { return Termination::ClosedByRooms };
            bad_messages += u32::from(rejection.is_bad_message());
            if bad_messages >= MAX_BAD_MESSAGES {
                return reject(&outbox, Some(Violation::policy(rejection)));
            }
            if !outbox.try_send(rejection.into_message().into(), MAX_BYTES) {
                return Termination::NotReading;
            }
        }
    }

    /// The next text. A client that sends too fast is read more slowly: no message is lost, and its
    /// own queue grows, not the hub's.
    async fn next_text(&mut self) -> Result<Utf8Bytes, ReadEnd> {
        loop {
            let wait = self.bucket.take_within(Duration::MAX, self.link.cx.clock.now());
            pause(wait.unwrap_or_default()).await;
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_))) => {
                    let rejection = MessageRejection::bad_message(
                        "messages are JSON in text frames, not binary ones",
                    );
                    return Err(Some(Violation { code: CloseCode::Unsupported, rejection }));
                }
                Some(Ok(Message::Close(_))) | None => return Err(None),
                Some(Err(error)) => return Err(Violation::from_socket_error(&error)),
            }
        }
    }
}

/// Waits, unless the wait is zero: a timer is up to a millisecond late.
async fn pause(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

impl Violation {
    fn policy(rejection: MessageRejection) -> Self {
        Self { code: CloseCode::Policy, rejection }
    }

    /// The violation, if the client caused the socket's error.
    fn from_socket_error(error: &tungstenite::Error) -> ReadEnd {
        if matches!(error, tungstenite::Error::Capacity(_)) {
            let text = format!("a message has at most {MAX_MESSAGE_BYTES} bytes");
            return Some(Self {
                code: CloseCode::Size,
                rejection: MessageRejection::bad_message(&text),
            });
        }
        // After the other errors of tungstenite, no message can be sent any more.
        let is_text = matches!(error, tungstenite::Error::Utf8(_));
        let rejection = MessageRejection::bad_message("text frames carry UTF-8");
        is_text.then_some(Self { code: CloseCode::Invalid, rejection })
    }
}

/// Sends a client the reason why its connection ends, if it is still there.
fn reject(outbox: &Outbox, end: ReadEnd) -> Termination {
    let Some(Violation { code, rejection }) = end else { return Termination::PeerClosed };
    // If it does not fit, the connection ends all the same.
    outbox.try_send(rejection.into_message().into(), MAX_BYTES);
    Termination::ProtocolViolation(code)
}

/// An address as the rooms compare it; `None` for this machine's own programs.
fn source_address(source: IpAddr) -> Option<SourceAddress> {
    let ip = match source {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (!source.is_loopback()).then(|| SourceAddress(ip.to_bits()))
}

/// The participant of a token: the first 80 bits of the SHA-256 of its text.
fn participant_of(token: &Secret) -> ParticipantId {
    let digest = Sha256::digest(token.expose());
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&digest[..10]);
    ParticipantId::from_digest(bytes)
}

/// Sends the queued messages, until the outbox is closed or the client does not read.
async fn write(
    sink: &mut SplitSink<Socket, Message>,
    receiver: &mut OutboxReceiver,
) -> Termination {
    let mut over = pin!(receiver.stopped());
    while let Some(message) = receiver.recv().await {
        let sent = tokio::select! {
            sent = timeout(WRITE_TIMEOUT, sink.send(Message::Text(message.text()))) => sent,
            () = &mut over => return Termination::NotReading,
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Termination::PeerClosed,
            Err(_) => return Termination::NotReading,
        }
    }
    Termination::ClosedByRooms
}

/// Sends the remaining messages and the close frame, and waits until they have arrived.
async fn close(mut socket: Socket, mut receiver: OutboxReceiver, end: Termination) {
    let (code, reason) = match end {
        Termination::PeerClosed => (CloseCode::Normal, ""),
        Termination::ClosedByRooms => close_frame(receiver.close_cause()),
        Termination::ProtocolViolation(code) => (code, ""),
        Termination::NotReading => return,
    };
    while let Some(message) = receiver.try_recv() {
        if socket.feed(Message::Text(message.text())).await.is_err() {
            return;
        }
    }
    let frame = CloseFrame { code, reason: Utf8Bytes::from_static(reason) };
    // This fails if the client has closed already, and is not needed then.
    let _ = socket.close(Some(frame)).await;
    let raw = socket.get_mut();
    if raw.shutdown().await.is_err() {
        return;
    }
    let (mut bytes, mut discarded) = ([0; BUFFER], 0);
    while discarded < CLOSE_DRAIN_BYTES {
        match raw.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => discarded += count,
        }
    }
}

/// The code and the reason of a close frame (RFC 6455, section 7.4.1).
const fn close_frame(cause: CloseCause) -> (CloseCode, &'static str) {
    match cause {
        CloseCause::Normal => (CloseCode::Normal, ""),
        CloseCause::Silent => (CloseCode::Policy, "no message for 10 seconds"),
        CloseCause::Misbehaving => (CloseCode::Policy, "too many refused signals"),
        CloseCause::HubClosing => (CloseCode::Away, "the hub ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_is_the_digest_of_its_token() {
        let token = Secret::from_random([0xab; 16]);
        // sha256("abab…") begins with 80 bits that are known from elsewhere.
        assert_eq!(participant_of(&token).as_str(), "tbwzn7csqcrb5dkz");
        assert_ne!(participant_of(&token), participant_of(&Secret::from_random([0xac; 16])));
    }
}
