//! The data channel: what is written on it, and what is read from it, a few messages a second.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use webrtc::data_channel::{DataChannel, DataChannelEvent, RTCDataChannelMessage};

use super::{pace::Pace, unread::Unread};
use crate::model::{ChatMessage, MAX_CHAT_BYTES, PeerEvent, PeerId};

/// Messages that wait to be written at most. Sixteen texts are under way at a time, so more wait
/// only if the other end takes nothing off the channel.
const UNWRITTEN: usize = 64;

/// Bytes that the library may hold for an end that takes nothing, before writing waits.
pub(super) const UNSENT_BYTES: usize = 64 * 1024;

/// Messages that are read at once: the texts that may be under way, and what answers ours.
const BURST: u32 = 64;

/// The time that one message takes of those that are read, on average. What comes faster waits
/// in the other end's window, which SCTP then closes: nothing is lost, and nobody is flooded.
const PACE: Duration = Duration::from_millis(25);

/// The end of the channel that is written to.
pub(super) type Unwritten = mpsc::Sender<ChatMessage>;

/// A queue for what is to be written.
pub(super) fn unwritten() -> (Unwritten, mpsc::Receiver<ChatMessage>) {
    mpsc::channel(UNWRITTEN)
}

/// Writes what is to be written, one after another, until the channel is closed.
pub(super) async fn write(
    peer: PeerId,
    channel: Arc<dyn DataChannel>,
    mut messages: mpsc::Receiver<ChatMessage>,
) {
    while let Some(message) = messages.recv().await {
        if let Err(error) = channel.send_text(&message.write()).await {
            // Said again on the next connection, as nobody says that it was received.
            tracing::debug!(%peer, %error, "a message was not written");
        }
    }
}

/// Tells what is read, as fast as [`PACE`] allows, until the channel is closed. What is no message
/// is dropped.
pub(super) async fn read(
    peer: PeerId,
    (channel, unread): (Arc<dyn DataChannel>, Arc<Unread>),
    events: mpsc::Sender<(PeerId, PeerEvent)>,
) {
    let mut pace = Pace::new(PACE, BURST, Instant::now());
    while let Some(event) = channel.poll().await {
        let told = if let DataChannelEvent::OnMessage(message) = event {
            sleep_until(pace.take(1, Instant::now())).await;
            unread.read(message.data.len());
            understood(peer, &message).map(PeerEvent::Read)
        } else {
            tracing::debug!(%peer, ?event, "data channel");
            matches!(event, DataChannelEvent::OnOpen).then_some(PeerEvent::Writable)
        };
        if let Some(told) = told
            && events.send((peer, told)).await.is_err()
        {
            return;
        }
    }
}

/// The message, if it is one: text, not too long, of this version.
fn understood(peer: PeerId, message: &RTCDataChannelMessage) -> Option<ChatMessage> {
    let text = std::str::from_utf8(&message.data).ok();
    let read = text.filter(|_| message.is_string).and_then(ChatMessage::read);
    if read.is_none() {
        let (bytes, most) = (message.data.len(), MAX_CHAT_BYTES);
        tracing::debug!(%peer, bytes, most, "what came on the data channel is no message");
    }
    read.filter(|message| *message != ChatMessage::Unknown)
}
