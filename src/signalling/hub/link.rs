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
    sync::oneshot,
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
    desk::{Word, fresh_secret},
    limits::WORDS,
    listener::{Asked, Claim, Site},
    outbox::{Echo, Farewell, Inbox, OUTGOING_BYTES, Outbox, outbox},
    wire::{self, Unreadable},
};
use crate::{
    model::{ClientMessage, MAX_MESSAGE_BYTES, MAX_SDP_BYTES, ParticipantId, Secret, SessionId},
    signalling::{
        bucket::Bucket,
        rooms::{LinkId, RoomsInput, SourceAddress},
    },
};

/// The time limit for `hello`.
const HELLO_PATIENCE: Duration = Duration::from_secs(5);

/// The same for a client that is only accepted if it has a seat: such places are few.
const RETURN_PATIENCE: Duration = Duration::from_secs(2);

/// The number of unreadable messages after which a connection is closed; those before it are
/// answered, so that a client can learn of a mistake.
const MAX_MISTAKES: u32 = 10;

/// The time limit for sending one message.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a closing connection is kept so that its last messages arrive.
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// How many bytes are read and discarded meanwhile: closing a socket with unread bytes resets it,
/// and the last messages are lost.
const CLOSE_READS: usize = 4 * 1024 * 1024;

/// The buffer sizes of a connection, in bytes: most messages are small, and there may be thousands
/// of connections.
const BUFFER: usize = 4 * 1024;

/// The most bytes that wait inside a socket's writer: a few of the largest messages.
const WRITE_BUFFER: usize = 8 * MAX_SDP_BYTES;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What is known of a connection before `hello`.
#[derive(Debug)]
pub(super) struct Visitor {
    /// The id of the connection.
    pub(super) link: LinkId,
    /// The address that limits count for.
    pub(super) source: IpAddr,
    /// The challenge by which the client may prove that it is of the hub's own user.
    pub(super) asked: Asked,
    /// Whether only a client with a seat is accepted.
    pub(super) must_return: bool,
}

/// How a connection ended.
#[derive(Debug)]
enum End {
    /// The client closed it, or the network failed.
    Gone,
    /// The rooms have dropped its outbox.
    Dismissed,
    /// The client broke the protocol, and was sent an error.
    Expelled(CloseCode),
    /// The client does not read what it is sent.
    Stuck,
}

/// Runs a connection to its end.
pub(super) async fn run(io: TokioIo<Upgraded>, info: Visitor, cx: &Site) {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let (mut sink, stream) = socket.split();
    let (outbox, mut receiver) = outbox(&cx.held);
    let (id, bucket) = (info.link, Bucket::new(WORDS, cx.clock.now()));
    let mut reader = Reader { visitor: info, site: cx, stream, bucket };
    let end = tokio::select! {
        end = reader.read(outbox) => end,
        end = write(&mut sink, &mut receiver) => end,
    };
    // The rooms ignore it if they have closed the connection already, or never knew it.
    let _ = cx.inputs.send((id, Word::Gone)).await;
    debug!(connection = id.0, ?end, "connection ended");
    if let Ok(socket) = sink.reunite(reader.stream)
        && timeout(CLOSE_PATIENCE, close(socket, receiver, end)).await.is_err()
    {
        debug!(connection = id.0, "connection closed without a close handshake");
    }
}

/// Reads the messages of the client.
struct Reader<'a> {
    visitor: Visitor,
    site: &'a Site,
    stream: SplitStream<Socket>,
    bucket: Bucket,
}

/// Why no text can be read: `None` if the client is gone, else its violation of the protocol.
type NoText = Option<Expulsion>;

/// A violation of the protocol that ends the connection.
struct Expulsion {
    code: CloseCode,
    why: Unreadable,
}

impl Reader<'_> {
    async fn read(&mut self, outbox: Outbox) -> End {
        let limit = if self.visitor.must_return { RETURN_PATIENCE } else { HELLO_PATIENCE };
        let hello = match timeout(limit, self.hello()).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(end)) => return expel(&outbox, end),
            Err(_) => {
                let seconds = limit.as_secs();
                let text = format!("hello did not come within {seconds} seconds");
                return expel(&outbox, Some(Expulsion::policy(Unreadable::bad(&text))));
            }
        };
        if self.visitor.must_return && !self.is_back(&hello).await {
            return expel(&outbox, Some(Expulsion::policy(Unreadable::too_crowded())));
        }
        // Only the rooms keep the outbox: when they drop it, the connection ends.
        let outbox_ref = outbox.echo();
        if self.tell(Word::Arrived { source: self.visitor.source, outbox, hello }).await.is_err() {
            return End::Gone;
        }
        self.listen(&outbox_ref).await
    }

    /// Reads the first message, which must be `hello`.
    async fn hello(&mut self) -> Result<RoomsInput, NoText> {
        let text = self.text().await?;
        match wire::read(&text).map_err(|rejection| Some(Expulsion::policy(rejection)))? {
            ClientMessage::Hello { name, instance, token, proof, .. } => {
                let is_own = self.visitor.asked.as_ref().zip(proof).is_some_and(
                    |((challenge, at), proof)| self.site.identity.is_client(challenge, *at, &proof),
                );
                let token = token.unwrap_or_else(fresh_secret);
                let (id, participant) = (self.visitor.link, participant(&token));
                if self.visitor.source.is_loopback() {
                    self.site.link_base.look().await;
                }
                // The rooms' task adds the current one.
                let link_base = String::new();
                let source = rooms_source(self.visitor.source);
                Ok(RoomsInput::Hello {
                    link: id,
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
                let rejection = Unreadable::bad("the first message of a connection must be hello");
                Err(Some(Expulsion::policy(rejection)))
            }
        }
    }

    /// Whether the participant has a seat. If so, the connection counts like any other from now on.
    async fn is_back(&self, hello: &RoomsInput) -> bool {
        let RoomsInput::Hello { participant, .. } = hello else { return false };
        let (answer, has_seat) = oneshot::channel();
        let sent = self.tell(Word::Returning(participant.clone(), answer)).await;
        let is_returning = sent.is_ok() && has_seat.await == Ok(true);
        if is_returning {
            // The accept loop ends with the hub.
            let _ = self.site.claims.send(Claim::IsBack(task::id())).await;
        }
        is_returning
    }

    /// Reads all further messages.
    async fn listen(&mut self, outbox_ref: &Echo) -> End {
        let mut bad_messages = 0;
        loop {
            let text = match self.text().await {
                Ok(text) => text,
                Err(end) => {
                    return outbox_ref
                        .outbox()
                        .map_or(End::Dismissed, |outbox| expel(&outbox, end));
                }
            };
            let rejection = match self.pass_on(wire::read(&text)).await {
                Ok(None) => continue,
                Ok(Some(rejection)) => rejection,
                Err(_) => return End::Gone,
            };
            let Some(outbox) = outbox_ref.outbox() else { return End::Dismissed };
            bad_messages += u32::from(rejection.is_mistake());
            if bad_messages >= MAX_MISTAKES {
                return expel(&outbox, Some(Expulsion::policy(rejection)));
            }
            if !outbox.put(&rejection.answer(), OUTGOING_BYTES) {
                return End::Stuck;
            }
        }
    }

    /// Forwards a message to the rooms; returns the rejection if it is not for them.
    async fn pass_on(
        &self,
        parsed: Result<ClientMessage, Unreadable>,
    ) -> Result<Option<Unreadable>, HubGone> {
        let message = match parsed {
            Ok(message) => message,
            Err(rejection) => return self.tell(Word::Mumbled).await.map(|()| Some(rejection)),
        };
        if matches!(message, ClientMessage::Open { .. }) {
            // The answer has a link: it must carry the current address of the hub.
            self.site.link_base.look().await;
        }
        if let Some(session) = entered(&message) {
            let (answer, permit) = oneshot::channel();
            self.tell(Word::Entering(session.clone(), answer)).await?;
            if !permit.await.map_err(|_| HubGone)? {
                return Ok(Some(Unreadable::too_soon(session.clone())));
            }
        }
        self.tell(Word::Said(message)).await.map(|()| None)
    }

    /// The next text. A client that sends too fast is read more slowly: no message is lost, and its
    /// own queue grows, not the hub's.
    async fn text(&mut self) -> Result<Utf8Bytes, NoText> {
        loop {
            let wait = self.bucket.take(Duration::MAX, self.site.clock.now());
            pause(wait.unwrap_or_default()).await;
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(_))) => {
                    let rejection =
                        Unreadable::bad("messages are JSON in text frames, not binary ones");
                    return Err(Some(Expulsion { code: CloseCode::Unsupported, why: rejection }));
                }
                Some(Ok(Message::Close(_))) | None => return Err(None),
                Some(Err(error)) => return Err(Expulsion::of(&error)),
            }
        }
    }

    async fn tell(&self, event: Word) -> Result<(), HubGone> {
        self.site.inputs.send((self.visitor.link, event)).await.map_err(|_| HubGone)
    }
}

/// Waits, unless the wait is zero: a timer is up to a millisecond late.
async fn pause(wait: Duration) {
    if !wait.is_zero() {
        sleep(wait).await;
    }
}

/// The rooms' task has ended.
struct HubGone;

/// The session that a message asks to open or join.
fn entered(message: &ClientMessage) -> Option<&SessionId> {
    match message {
        ClientMessage::Open { session, .. } | ClientMessage::Join { session, .. } => Some(session),
        ClientMessage::Hello { .. }
        | ClientMessage::Leave { .. }
        | ClientMessage::Close { .. }
        | ClientMessage::Eject { .. }
        | ClientMessage::Allow { .. }
        | ClientMessage::Lock { .. }
        | ClientMessage::Rename { .. }
        | ClientMessage::Signal { .. }
        | ClientMessage::Ping => None,
    }
}

impl Expulsion {
    fn policy(rejection: Unreadable) -> Self {
        Self { code: CloseCode::Policy, why: rejection }
    }

    /// The violation, if the client caused the socket's error.
    fn of(error: &tungstenite::Error) -> NoText {
        if matches!(error, tungstenite::Error::Capacity(_)) {
            let text = format!("a message has at most {MAX_MESSAGE_BYTES} bytes");
            return Some(Self { code: CloseCode::Size, why: Unreadable::bad(&text) });
        }
        // After the other errors of tungstenite, no message can be sent any more.
        let is_text = matches!(error, tungstenite::Error::Utf8(_));
        let rejection = Unreadable::bad("text frames carry UTF-8");
        is_text.then_some(Self { code: CloseCode::Invalid, why: rejection })
    }
}

/// Sends a client the reason why its connection ends, if it is still there.
fn expel(outbox: &Outbox, end: NoText) -> End {
    let Some(Expulsion { code, why: rejection }) = end else { return End::Gone };
    // If it does not fit, the connection ends all the same.
    outbox.put(&rejection.answer(), OUTGOING_BYTES);
    End::Expelled(code)
}

/// An address as the rooms compare it; `None` for this machine's own programs.
fn rooms_source(source: IpAddr) -> Option<SourceAddress> {
    let ip = match source {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    (!source.is_loopback()).then(|| SourceAddress(ip.to_bits()))
}

/// The participant of a token: the first 80 bits of the SHA-256 of its text.
fn participant(token: &Secret) -> ParticipantId {
    let digest = Sha256::digest(token.expose());
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&digest[..10]);
    ParticipantId::from_digest(bytes)
}

/// Sends the queued messages, until the outbox is closed or the client does not read.
async fn write(sink: &mut SplitSink<Socket, Message>, receiver: &mut Inbox) -> End {
    let mut over = pin!(receiver.over());
    while let Some(text) = receiver.take().await {
        let sent = tokio::select! {
            sent = timeout(WRITE_PATIENCE, sink.send(Message::Text(text))) => sent,
            () = &mut over => return End::Stuck,
        };
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return End::Gone,
            Err(_) => return End::Stuck,
        }
    }
    End::Dismissed
}

/// Sends the remaining messages and the close frame, and waits until they have arrived.
async fn close(mut socket: Socket, mut receiver: Inbox, end: End) {
    let (code, reason) = match end {
        End::Gone => (CloseCode::Normal, ""),
        End::Dismissed => words_of(receiver.farewell()),
        End::Expelled(code) => (code, ""),
        End::Stuck => return,
    };
    while let Some(text) = receiver.take_now() {
        if socket.feed(Message::Text(text)).await.is_err() {
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
    while discarded < CLOSE_READS {
        match raw.read(&mut bytes).await {
            Ok(0) | Err(_) => return,
            Ok(count) => discarded += count,
        }
    }
}

/// The code and the reason of a close frame (RFC 6455, section 7.4.1).
const fn words_of(cause: Farewell) -> (CloseCode, &'static str) {
    match cause {
        Farewell::Done => (CloseCode::Normal, ""),
        Farewell::Silent => (CloseCode::Policy, "no message for 10 seconds"),
        Farewell::Misbehaving => (CloseCode::Policy, "too many refused signals"),
        Farewell::HubEnds => (CloseCode::Away, "the hub ends"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_is_the_digest_of_its_token() {
        let token = Secret::from_random([0xab; 16]);
        // sha256("abab…") begins with 80 bits that are known from elsewhere.
        assert_eq!(participant(&token).as_str(), "tbwzn7csqcrb5dkz");
        assert_ne!(participant(&token), participant(&Secret::from_random([0xac; 16])));
    }
}
