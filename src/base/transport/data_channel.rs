//! The data channel of the chat: a task that writes messages, and a task that reads them at a
//! limited rate.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};

use super::inbound_data_limit::InboundDataLimit;
use crate::model::{
    ChatMessage, DataChannelKind, MAX_CHAT_BYTES, PeerEvent, PeerId, TokenBucket, TokenRate,
};

/// Messages that may wait to be written. At most sixteen texts are unacknowledged at once, so more
/// wait only if the remote peer reads nothing from the channel.
const OUTBOUND_QUEUE: usize = 64;

/// Bytes that webrtc-rs may buffer for a peer that reads nothing, before writing waits.
pub(super) const SEND_BUFFER_LIMIT: usize = 64 * 1024;

/// Messages that may be read without a pause: the texts that may be unacknowledged, and the
/// acknowledgements of ours.
const READ_BURST: u32 = 64;

/// The average time per message that is read. Faster messages stay in SCTP's receive window, which
/// then closes for the remote peer. So no message is lost, and the program is not flooded.
const READ_INTERVAL: Duration = Duration::from_millis(25);

/// The queue of messages that are to be sent on the data channel.
pub(super) type OutboundMessages = mpsc::Sender<ChatMessage>;

/// Creates the queue of outbound messages.
pub(super) fn outbound_queue() -> (OutboundMessages, mpsc::Receiver<ChatMessage>) {
    mpsc::channel(OUTBOUND_QUEUE)
}

/// Sends the queued messages one after another until the queue is closed.
pub(super) async fn write(
    peer: PeerId,
    channel: Arc<dyn DataChannel>,
    mut messages: mpsc::Receiver<ChatMessage>,
) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = channel.send_text(&message.to_json()).await {
            // It is sent again on the next connection, because it is not acknowledged.
            tracing::debug!(%peer, %error, "message not sent");
        }
    }
}

/// Reports the messages that are read, as fast as [`READ_INTERVAL`] allows, until the channel is
/// closed. Data that are no valid message are dropped.
pub(super) async fn read(
    peer: PeerId,
    (channel, inbound_data): (Arc<dyn DataChannel>, Arc<InboundDataLimit>),
    events: mpsc::Sender<(PeerId, PeerEvent)>,
) {
    let mut bucket = TokenBucket::new(TokenRate::every(READ_INTERVAL, READ_BURST), Instant::now());
    while let Some(event) = channel.poll().await {
        let event = if let DataChannelEvent::OnMessage(message) = event {
            sleep_until(bucket.take(1, Instant::now())).await;
            inbound_data.on_message_read(message.data.len());
            parse(peer, &message).map(PeerEvent::ChannelMessage)
        } else {
            tracing::debug!(%peer, ?event, "data channel");
            matches!(event, DataChannelEvent::OnOpen)
                .then_some(PeerEvent::ChannelOpen(DataChannelKind::Chat))
        };
        if let Some(event) = event
            && events.send((peer, event)).await.is_err()
        {
            return;
        }
    }
}

/// The message, if it is valid: text, of at most [`MAX_CHAT_BYTES`], of a kind that this version
/// knows.
fn parse(peer: PeerId, message: &RTCDataChannelMessage) -> Option<ChatMessage> {
    let text = std::str::from_utf8(&message.data).ok();
    let parsed = text.filter(|_| message.is_string).and_then(ChatMessage::from_json);
    if parsed.is_none() {
        let (bytes, max_bytes) = (message.data.len(), MAX_CHAT_BYTES);
        tracing::debug!(%peer, bytes, max_bytes, "invalid message on the data channel dropped");
    }
    parsed.filter(|message| *message != ChatMessage::Unknown)
}
