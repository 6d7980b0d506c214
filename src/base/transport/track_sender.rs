//! Sends one medium of one connection: pulls encoded frames and writes RTP headers, without copying
//! payloads.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rtc::rtp;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use webrtc::media_stream::track_local::{TrackLocal, static_rtp::TrackLocalStaticRTP};

use super::{
    audio_level::LevelExtension, ending::Ending, frame_parts::FrameParts, h264_packetizer, red,
    redundancy::PeerRedundancy, tap::SendClock,
};
use crate::media::{
    AudioLevel, EncodedAudio, EncodedVideo, Keyframe, KeyframeRequest, Redundancy, Subscription,
    SubscriptionSlot,
};

/// The shortest time between two keyframe requests of one peer. The encoder also limits those of
/// all peers together.
pub(super) const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_millis(250);

/// An encoded frame or packet that is sent as RTP.
pub(super) trait RtpMedia: Keyframe + Send + Sync + 'static {
    /// The RTP timestamp, which is also recorded in the stream's clock.
    fn timestamp(&self, clock: &SendClock) -> u32;
    /// The payloads, in order.
    fn payloads(&self) -> &[Bytes];
    /// The only payload, with copies of earlier ones for the payload type of the bare ones; `None`
    /// if the medium, or that level, has no redundancy. The peer was sent what lies up to `sent`
    /// before.
    fn redundant_payload(
        &self,
        redundancy: (Redundancy, Duration),
        payload_type: u8,
    ) -> Option<Bytes>;
    /// How long it lasts; zero if that is not known.
    fn length(&self) -> Duration;
    /// The level of the audio, if it was measured.
    fn level(&self) -> Option<AudioLevel>;
    /// Whether the last packet has the marker bit.
    const MARKER: bool;
    /// Whether each frame needs another timestamp than the one before it.
    const HAS_OWN_TIMESTAMP: bool;
    /// What ends this medium when it is muted, and follows this frame; `None` if nothing does.
    fn silence_after(&self) -> Option<Self>
    where
        Self: Sized;
}

impl RtpMedia for EncodedVideo {
    fn timestamp(&self, clock: &SendClock) -> u32 {
        clock.record(self.time, clock.ticks(self.time))
    }

    fn payloads(&self) -> &[Bytes] {
        self.payloads(h264_packetizer::packetize_h264)
    }

    fn redundant_payload(&self, _: (Redundancy, Duration), _: u8) -> Option<Bytes> {
        None
    }

    fn length(&self) -> Duration {
        Duration::ZERO
    }

    fn level(&self) -> Option<AudioLevel> {
        None
    }

    /// It marks the end of the access unit (RFC 6184, section 5.1).
    const MARKER: bool = true;

    /// A receiver joins packets with the same timestamp to one access unit.
    const HAS_OWN_TIMESTAMP: bool = true;

    fn silence_after(&self) -> Option<Self> {
        None
    }
}

impl RtpMedia for EncodedAudio {
    fn timestamp(&self, clock: &SendClock) -> u32 {
        clock.record(self.time, self.sample)
    }

    fn payloads(&self) -> &[Bytes] {
        std::slice::from_ref(&self.data)
    }

    fn redundant_payload(
        &self,
        (redundancy, sent): (Redundancy, Duration),
        payload_type: u8,
    ) -> Option<Bytes> {
        self.packed(self.redundancy_within(redundancy, sent), payload_type, red::pack)
    }

    fn length(&self) -> Duration {
        self.layer.packet_time()
    }

    fn level(&self) -> Option<AudioLevel> {
        self.level
    }

    /// It would mark the begin of a talkspurt (RFC 7587, section 4.1), but this program sends
    /// silence too.
    const MARKER: bool = false;

    /// A new source restarts the count of samples.
    const HAS_OWN_TIMESTAMP: bool = false;

    fn silence_after(&self) -> Option<Self> {
        Some(Self::silence_after(self))
    }
}

/// Sends one track of a connection.
pub(super) struct TrackSender {
    /// The local track of webrtc-rs.
    pub(super) track: Arc<TrackLocalStaticRTP>,
    /// The SSRC, which is constant for the life of the connection.
    pub(super) ssrc: u32,
    /// The next packet's sequence number. It is continuous for the life of the connection, whatever
    /// the source: otherwise the receiver's replay protection takes new packets for old ones.
    pub(super) sequence: u16,
    /// The timestamp of the last frame that was sent.
    pub(super) last_timestamp: Option<u32>,
    /// The stream's clock.
    pub(super) clock: Arc<SendClock>,
    /// The negotiated payload type while packets may be sent, else `None`.
    pub(super) active_payload_type: watch::Receiver<Option<u8>>,
    /// Signalled when the remote peer requests a keyframe.
    pub(super) keyframes: KeyframeRequest,
    /// How much redundancy the packets have.
    pub(super) redundancy: Arc<PeerRedundancy>,
    /// Which header extension has the level.
    pub(super) level: Arc<LevelExtension>,
    /// The packets that wait for the last one of their frame.
    pub(super) parts: Arc<FrameParts>,
}

/// The connection is closed, and the queue of webrtc-rs with it.
struct Closed;

impl TrackSender {
    /// Sends the frames of the source until the connection ends. A stalled connection stalls only
    /// this task: its subscription overflows and continues at a keyframe.
    pub(super) async fn run<T: RtpMedia>(mut self, source: Arc<SubscriptionSlot<T>>) {
        let mut frames = Feed::new();
        // Whether frames are skipped until one at which a decoder can start.
        let mut awaits_keyframe = true;
        let mut keyframe_wanted = false;
        let mut next_request = Instant::now();
        loop {
            tokio::select! {
                // A replaced subscription comes first, so that frames of the old one that already
                // wait are not sent.
                biased;
                latest = source.next() => frames.replace(latest),
                changed = self.active_payload_type.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    awaits_keyframe = true;
                    keyframe_wanted = self.active_payload_type.borrow().is_some();
                }
                () = self.keyframes.requested(), if !keyframe_wanted => keyframe_wanted = true,
                () = sleep_until(next_request), if keyframe_wanted && frames.current.is_some() => {
                    keyframe_wanted = false;
                    next_request = Instant::now() + KEYFRAME_REQUEST_INTERVAL;
                    frames.request_keyframe();
                }
                frame = frames.next() => {
                    let Some(payload_type) = *self.active_payload_type.borrow() else { continue };
                    awaits_keyframe = awaits_keyframe && !frame.is_keyframe();
                    if awaits_keyframe {
                        continue;
                    }
                    if self.send(&*frame, frames.sent, payload_type).await.is_err() {
                        return;
                    }
                    frames.on_sent(&frame, self.redundancy.loss_percent());
                }
            }
        }
    }

    /// Sends a frame, of a source of which so much was sent since it began.
    async fn send<T: RtpMedia>(
        &mut self,
        frame: &T,
        sent: Duration,
        payload_type: u8,
    ) -> Result<(), Closed> {
        let timestamp = self.timestamp(frame);
        let red = self.redundancy.current().and_then(|(level, red_type)| {
            // Copies of packets that this peer was not sent may be of what was muted.
            Some((frame.redundant_payload((level, sent), payload_type)?, red_type))
        });
        let (payloads, payload_type) = match &red {
            Some((payload, red_type)) => (std::slice::from_ref(payload), *red_type),
            None => (frame.payloads(), payload_type),
        };
        for (index, payload) in payloads.iter().enumerate() {
            let is_last = index + 1 == payloads.len();
            let mut header = rtp::Header {
                version: 2,
                marker: T::MARKER && is_last,
                payload_type,
                sequence_number: self.sequence,
                timestamp,
                ssrc: self.ssrc,
                ..rtp::Header::default()
            };
            if let Some(level) = frame.level() {
                self.level.write(&mut header, level);
            }
            self.sequence = self.sequence.wrapping_add(1);
            let packet = rtp::Packet { header, payload: payload.clone() };
            let written = if is_last { Err(packet) } else { self.parts.push(packet) };
            if let Err(packet) = written {
                self.track.write_rtp(packet).await.map_err(|_| Closed)?;
            }
        }
        Ok(())
    }

    /// The RTP timestamp of a frame. Two layers encode the same picture at different moments: after
    /// a change of layer a frame may be as old as the last one of the layer before, or older. It
    /// then gets the next free timestamp.
    fn timestamp<T: RtpMedia>(&mut self, frame: &T) -> u32 {
        let mut timestamp = frame.timestamp(&self.clock);
        if T::HAS_OWN_TIMESTAMP
            && let Some(last) = self.last_timestamp
            && timestamp.wrapping_sub(last.wrapping_add(1)) > u32::MAX / 2
        {
            timestamp = last.wrapping_add(1);
        }
        self.last_timestamp = Some(timestamp);
        timestamp
    }
}

/// The frames of a sender.
struct Feed<T> {
    current: Option<Subscription<T>>,
    /// Takes over from the current one with its first frame, a keyframe.
    successor: Option<Subscription<T>>,
    /// What follows the last frame when there is no subscription any more.
    ending: Ending<T>,
    /// How much was sent since the medium began.
    sent: Duration,
}

impl<T: RtpMedia> Feed<T> {
    fn new() -> Self {
        Self { current: None, successor: None, ending: Ending::new(), sent: Duration::ZERO }
    }

    fn replace(&mut self, latest: Option<Subscription<T>>) {
        self.ending.on_source(latest.is_some());
        // A mute and its end may both have happened since the last frame was sent.
        if !latest.as_ref().is_some_and(Subscription::is_successor) {
            self.sent = Duration::ZERO;
        }
        match latest {
            Some(next) if next.is_successor() && self.current.is_some() => {
                self.successor = Some(next);
            }
            latest => (self.current, self.successor) = (latest, None),
        }
    }

    /// A frame was sent to a peer that reports these losses.
    fn on_sent(&mut self, frame: &T, loss_percent: u8) {
        self.ending.on_sent(frame);
        self.sent += frame.length();
        if let Some(subscription) = &self.current {
            subscription.report_loss(loss_percent);
        }
    }

    fn request_keyframe(&self) {
        if let Some(subscription) = self.successor.as_ref().or(self.current.as_ref()) {
            subscription.request_keyframe();
        }
    }

    /// The next frame; pending for ever without a subscription. Cancel safe.
    async fn next(&mut self) -> Arc<T> {
        tokio::select! {
            biased;
            frame = next_frame(&mut self.successor) => {
                self.current = self.successor.take();
                frame
            }
            frame = next_frame(&mut self.current) => frame,
            silence = self.ending.next() => Arc::new(silence),
        }
    }
}

/// The next frame; pending for ever without a subscription, also after its end.
async fn next_frame<T: Keyframe>(subscription: &mut Option<Subscription<T>>) -> Arc<T> {
    if let Some(active) = subscription {
        if let Some(frame) = active.recv().await {
            return frame;
        }
        *subscription = None;
    }
    std::future::pending().await
}
