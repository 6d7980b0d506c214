//! Receives one remote track: moves its packets from webrtc-rs into a bounded queue at once.

use std::sync::Arc;

use rtc::{
    peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_OPUS},
    rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication,
    rtp,
    rtp_transceiver::RTCRtpReceiverId,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use webrtc::{
    media_stream::track_remote::{TrackRemote, TrackRemoteEvent},
    rtp_transceiver::RtpTransceiver,
};

use super::{audio_level, red, track_sender::KEYFRAME_REQUEST_INTERVAL};
use crate::{
    media::{
        self, Codec, IncomingTrack, KeyframeRequest, RoundTripTime, RtpPacket, SenderReports,
        TrackFailure,
    },
    model::{Media, PeerId, Source, TrackId},
};

/// Packets that may wait for the jitter buffer: about a second of 720p video, or ten of audio.
const PACKET_QUEUE: usize = 512;

/// The peer connection of a received track.
pub(super) struct ReceiverContext {
    pub(super) peer: PeerId,
    /// The transceivers of our media sections.
    pub(super) transceivers: Arc<[(Source, Arc<dyn RtpTransceiver>)]>,
    pub(super) reports: SenderReports,
    pub(super) round_trip: RoundTripTime,
    /// Reported if a consumer of the track panics.
    pub(super) failure: TrackFailure,
}

/// A remote track that is being received.
pub(super) struct TrackReceiver {
    track: Arc<dyn TrackRemote>,
    codec: Codec,
    id: RTCRtpReceiverId,
    ssrc: u32,
    /// The payload type of redundant audio, if it is negotiated.
    red_payload_type: Option<u8>,
    /// The id of the header extension with the level, if it is negotiated.
    level_id: Option<u8>,
    packets: mpsc::Sender<RtpPacket>,
    keyframes: KeyframeRequest,
    dropped: u64,
}

/// Receives a track until its connection ends. The track is announced on `tracks` once; until then
/// its packets are queued.
pub(super) async fn run(
    track: Arc<dyn TrackRemote>,
    context: ReceiverContext,
    tracks: mpsc::Sender<IncomingTrack>,
) {
    // webrtc-rs reports this event first for every track, before its first packet.
    let Some(TrackRemoteEvent::OnOpen(opened)) = track.poll().await else { return };
    let peer = context.peer;
    let Some(codec) = codec(&*track, opened.ssrc).await else {
        return tracing::debug!(%peer, "track of an unknown codec ignored");
    };
    let (source, id) = context.section(opened.receiver_id, codec.media()).await;
    let (red_payload_type, level_id) =
        context.audio_parameters(opened.receiver_id).await.unwrap_or_default();
    let (packets, incoming) = mpsc::channel(PACKET_QUEUE);
    let keyframes = KeyframeRequest::default();
    let announcement = IncomingTrack {
        peer,
        id,
        source,
        codec,
        ssrc: opened.ssrc,
        stream_id: track.stream_id().await,
        source_id: track.track_id().await,
        packets: incoming,
        keyframe_request: keyframes.clone(),
        sender_reports: context.reports,
        round_trip: context.round_trip,
        failure: context.failure,
    };
    let (id, ssrc) = (opened.receiver_id, opened.ssrc);
    let receiver = TrackReceiver {
        track,
        codec,
        id,
        ssrc,
        red_payload_type,
        level_id,
        packets,
        keyframes,
        dropped: 0,
    };
    let dropped = receiver.receive(announcement, tracks).await;
    tracing::debug!(%peer, ?codec, dropped, "track ended");
}

impl ReceiverContext {
    /// The media section of a receiver: the source that it carries, and its `mid`. A section that
    /// is not ours counts as that of the first source of its medium, without an id.
    async fn section(&self, receiver: RTCRtpReceiverId, media: Media) -> (Source, Option<TrackId>) {
        let of_media = |source: &Source| source.media() == media;
        let ours = self.transceivers.iter().find(|(_, one)| receiver == one.id().into());
        if let Some((source, transceiver)) = ours.filter(|(source, _)| of_media(source)) {
            let mid = transceiver.mid().await.ok().flatten();
            return (*source, mid.as_deref().and_then(TrackId::new));
        }
        (Source::ALL.into_iter().find(of_media).unwrap_or(Source::Camera), None)
    }
}

impl ReceiverContext {
    /// The payload type of redundant audio, and the id of the extension with the level, on the media
    /// section of a receiver.
    async fn audio_parameters(
        &self,
        receiver: RTCRtpReceiverId,
    ) -> Option<(Option<u8>, Option<u8>)> {
        let (_, transceiver) =
            self.transceivers.iter().find(|(_, one)| receiver == one.id().into())?;
        let receiver = transceiver.receiver().await.ok().flatten()?;
        let parameters = receiver.get_parameters().await.ok()?.rtp_parameters;
        let level_id = audio_level::extension_id(&parameters.header_extensions);
        Some((red::payload_type(&parameters.codecs), level_id))
    }
}

impl TrackReceiver {
    async fn receive(mut self, track: IncomingTrack, tracks: mpsc::Sender<IncomingTrack>) -> u64 {
        let mut announcement = Some(track);
        let mut keyframe_wanted = false;
        let mut next_request = Instant::now();
        loop {
            tokio::select! {
                event = self.track.poll() => match event {
                    Some(event) => self.handle_event(event),
                    None => return self.dropped,
                },
                permit = tracks.reserve(), if announcement.is_some() => {
                    // If the queue is closed, no consumer wants tracks, but webrtc-rs must still be
                    // drained.
                    if let (Some(track), Ok(permit)) = (announcement.take(), permit) {
                        permit.send(track);
                    }
                }
                () = self.keyframes.requested(), if !keyframe_wanted => {
                    keyframe_wanted = self.codec.media() == Media::Video;
                }
                () = sleep_until(next_request), if keyframe_wanted => {
                    keyframe_wanted = false;
                    next_request = Instant::now() + KEYFRAME_REQUEST_INTERVAL;
                    self.request_keyframe().await;
                }
            }
        }
    }

    /// Handles an event of the track. webrtc-rs queues events by the track id, which the remote
    /// peer chooses. So events of another track with the same id arrive here too; they have another
    /// receiver and another SSRC.
    fn handle_event(&mut self, event: TrackRemoteEvent) {
        if let TrackRemoteEvent::OnRtpPacket(packet) = event {
            if packet.header.ssrc == self.ssrc {
                self.forward(packet);
            }
        } else if let TrackRemoteEvent::OnOpen(opened) = event
            && opened.receiver_id == self.id
        {
            self.ssrc = opened.ssrc;
        }
    }

    fn forward(&mut self, packet: rtp::Packet) {
        // Padding is forwarded too, although it carries nothing: without its sequence numbers the
        // jitter buffer would wait for them.
        let (payload, copies) = if self.red_payload_type == Some(packet.header.payload_type) {
            // A malformed packet carries nothing, like padding.
            red::split(&packet.payload).unwrap_or_default()
        } else {
            (packet.payload, vec![])
        };
        let level = self.level_id.and_then(|id| audio_level::read(&packet.header, id));
        let packet = RtpPacket {
            sequence: packet.header.sequence_number,
            timestamp: packet.header.timestamp,
            marker: packet.header.marker,
            payload,
            copies,
            level,
            arrival: media::now(),
        };
        if self.packets.try_send(packet).is_err() {
            self.dropped += 1;
        }
    }

    async fn request_keyframe(&self) {
        let request = PictureLossIndication { sender_ssrc: 1, media_ssrc: self.ssrc };
        if let Err(error) = self.track.write_rtcp(vec![Box::new(request)]).await {
            tracing::debug!(%error, "keyframe request not sent");
        }
    }
}

/// The codec of the packets with this SSRC; `None` for one that `setup` does not register.
async fn codec(track: &dyn TrackRemote, ssrc: u32) -> Option<Codec> {
    let mime_type = track.codec(ssrc).await?.mime_type;
    // The first packet may be a redundant one. Its content is Opus: nothing else is negotiated.
    let codecs = [
        (MIME_TYPE_H264, Codec::H264),
        (MIME_TYPE_OPUS, Codec::Opus),
        (red::RED_MIME_TYPE, Codec::Opus),
    ];
    codecs
        .into_iter()
        .find(|(name, _)| mime_type.eq_ignore_ascii_case(name))
        .map(|(_, codec)| codec)
}
