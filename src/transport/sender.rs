//! Feeds one medium of one connection: pulls frames, writes RTP headers, and nothing is copied.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rtc::rtp;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use webrtc::media_stream::track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP};

use super::{packets, tap::SendClock};
use crate::media::{EncodedAudio, EncodedVideo, KeyframeRequest, RestartPoint, Slot, Subscription};

/// Keyframes asked for at most on behalf of one peer; the encoder paces those of all peers.
pub(super) const KEYFRAME_PACE: Duration = Duration::from_millis(250);

/// What a sender is fed with: the newest subscription that was put here.
#[derive(Debug)]
pub(super) struct Feed<T> {
    newest: Slot<Option<Subscription<T>>>,
    changed: Notify,
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self { newest: Slot::default(), changed: Notify::new() }
    }
}

impl<T> Feed<T> {
    /// Replaces what the sender is fed with; `None` starves it. Never waits.
    pub(super) fn put(&self, subscription: Option<Subscription<T>>) {
        self.newest.put(subscription);
        self.changed.notify_one();
    }

    /// The next subscription, waited for. Cancel safe.
    async fn next(&self) -> Option<Subscription<T>> {
        loop {
            if let Some(newest) = self.newest.take() {
                return newest;
            }
            self.changed.notified().await;
        }
    }
}

/// Something encoded that goes out as RTP.
pub(super) trait Payloads: RestartPoint + Send + Sync + 'static {
    /// The RTP timestamp, noted in the stream's clock.
    fn timestamp(&self, clock: &SendClock) -> u32;
    /// The payloads, in order.
    fn payloads(&self) -> &[Bytes];
    /// Whether the last packet bears the marker bit.
    const MARKER: bool;
}

impl Payloads for EncodedVideo {
    fn timestamp(&self, clock: &SendClock) -> u32 {
        clock.note(self.time, clock.ticks(self.time))
    }

    fn payloads(&self) -> &[Bytes] {
        self.payloads(packets::payloads)
    }

    /// The end of the picture (RFC 6184, section 5.1).
    const MARKER: bool = true;
}

impl Payloads for EncodedAudio {
    fn timestamp(&self, clock: &SendClock) -> u32 {
        clock.note(self.time, self.sample)
    }

    fn payloads(&self) -> &[Bytes] {
        std::slice::from_ref(&self.data)
    }

    /// It would mark the begin of a talkspurt (RFC 7587, section 4.1); silence is sent here.
    const MARKER: bool = false;
}

/// One medium's way out of a connection.
pub(super) struct Sender {
    /// The connection's own track.
    pub(super) track: Arc<TrackLocalStaticRTP>,
    /// The stream's SSRC, the same for the connection's life.
    pub(super) ssrc: u32,
    /// The next packet's sequence number: continuous for the connection's life, whatever is fed,
    /// or the receiver's replay protection takes new packets for old ones.
    pub(super) sequence: u16,
    /// The stream's clock.
    pub(super) clock: Arc<SendClock>,
    /// The negotiated payload type while packets may flow, else `None`.
    pub(super) open: watch::Receiver<Option<u8>>,
    /// Asked when the other end wants a keyframe.
    pub(super) keyframes: KeyframeRequest,
}

/// The connection is gone, and the library's queue with it.
struct Closed;

impl Sender {
    /// Sends what it is fed with until the connection ends. A stalled connection stalls this task
    /// alone: its subscription overflows and goes on at a keyframe.
    pub(super) async fn run<T: Payloads>(mut self, feed: Arc<Feed<T>>) {
        let mut subscription: Option<Subscription<T>> = None;
        // Whether frames are skipped until one that a decoder can start at.
        let mut starting = true;
        let mut wanted = false;
        let mut next_request = Instant::now();
        loop {
            tokio::select! {
                // What the sender is starved of is not sent any more, even if it waits already.
                biased;
                newest = feed.next() => subscription = newest,
                changed = self.open.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    starting = true;
                    wanted = self.open.borrow().is_some();
                }
                () = self.keyframes.requested(), if !wanted => wanted = true,
                () = sleep_until(next_request), if wanted && subscription.is_some() => {
                    wanted = false;
                    next_request = Instant::now() + KEYFRAME_PACE;
                    if let Some(subscription) = &subscription {
                        subscription.request_keyframe();
                    }
                }
                frame = next_frame(&mut subscription) => {
                    let Some(payload_type) = *self.open.borrow() else { continue };
                    starting = starting && !frame.is_restart_point();
                    if !starting && self.send(&*frame, payload_type).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn send<T: Payloads>(&mut self, frame: &T, payload_type: u8) -> Result<(), Closed> {
        let timestamp = frame.timestamp(&self.clock);
        let payloads = frame.payloads();
        for (index, payload) in payloads.iter().enumerate() {
            let header = rtp::Header {
                version: 2,
                marker: T::MARKER && index + 1 == payloads.len(),
                payload_type,
                sequence_number: self.sequence,
                timestamp,
                ssrc: self.ssrc,
                ..rtp::Header::default()
            };
            self.sequence = self.sequence.wrapping_add(1);
            let packet = rtp::Packet { header, payload: payload.clone() };
            self.track.write_rtp(packet).await.map_err(|_| Closed)?;
        }
        Ok(())
    }
}

/// The next frame; never, without a subscription.
async fn next_frame<T: RestartPoint>(subscription: &mut Option<Subscription<T>>) -> Arc<T> {
    match subscription {
        Some(subscription) => subscription.recv().await,
        None => std::future::pending().await,
    }
}
