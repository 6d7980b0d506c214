//! An open peer connection, and what it sends.

use tracing::Span;

use super::{
    audio_layers::AudioListener, local_media::LocalMedia, remote_media::ParticipantKey,
    uplink::UplinkMember, video_layers::VideoViewer,
};
use crate::{
    conference::HubRef,
    model::{Bitrate, Layer, Media, PeerId, PerSource, SessionId, ShownSize, Source},
    transport::{Connection, SourceMedia},
};

/// A peer connection, and what it sends now: a source that continues is not restarted.
pub(super) struct ActivePeer {
    pub(super) connection: Connection,
    /// Its part in the uplink of this machine.
    pub(super) uplink: UplinkMember,
    pub(super) session: SessionId,
    /// The hub at which the remote participant is known.
    pub(super) hub: HubRef,
    /// The participant that it leads to.
    pub(super) participant: Option<ParticipantKey>,
    /// The highest layer that is sent of each source.
    pub(super) layers: PerSource<Option<Layer>>,
    /// At which size the remote peer shows the video of each source; `None` for full size.
    pub(super) shown_there: PerSource<Option<ShownSize>>,
    /// The span of its log records.
    pub(super) span: Span,
}

impl ActivePeer {
    /// Starts and stops sending sources; those that continue are not interrupted.
    pub(super) fn set_sending(
        &mut self,
        local_media: &mut LocalMedia,
        (peer, layers): (PeerId, PerSource<Option<Layer>>),
    ) {
        let had_audio = self.sends(Media::Audio);
        let before = std::mem::replace(&mut self.layers, layers);
        let is_audio_new = had_audio != self.sends(Media::Audio);
        let is_new = |source: &Source| {
            // What audio needs is not there for video.
            before[*source] != layers[*source] || (is_audio_new && source.media() == Media::Video)
        };
        for source in Source::ALL.into_iter().filter(is_new) {
            match (source.media(), layers[source]) {
                (Media::Video, _) => self.update_video(local_media, (peer, source)),
                (Media::Audio, Some(_)) => {
                    let packets = local_media.subscribe_audio(peer, self.listener());
                    self.connection.send(source, Some(SourceMedia::Audio(packets)));
                }
                (Media::Audio | Media::Data, _) => {
                    local_media.end_audio(peer);
                    self.connection.send(source, None);
                }
            }
        }
        local_media.set_has_video(peer, self.sends(Media::Video));
    }

    /// Tells the layers of a video what this connection may get of it.
    pub(super) fn update_video(
        &self,
        local_media: &mut LocalMedia,
        (peer, source): (PeerId, Source),
    ) {
        let viewer = self.layers[source].and_then(|limit| self.viewer(source, limit));
        local_media.set_video_viewer(source, peer, viewer);
    }

    /// Whether a source of that medium is sent.
    fn sends(&self, media: Media) -> bool {
        self.layers.iter().any(|(source, layer)| source.media() == media && layer.is_some())
    }

    /// What the layers of audio need of this connection.
    fn listener(&self) -> AudioListener {
        AudioListener {
            estimates: self.connection.estimates(),
            set_least_rate: Box::new(self.connection.least_audio_rate()),
            has_video: self.sends(Media::Video),
            accepts_dtx: Box::new(self.connection.accepts_dtx()),
            takes_stereo: Box::new(self.connection.takes_stereo()),
        }
    }

    /// What the layers of a video need of this connection.
    fn viewer(&self, source: Source, limit: Layer) -> Option<VideoViewer> {
        let audio_rate: Box<dyn Fn() -> Bitrate + Send> = Box::new(self.connection.audio_rate());
        Some(VideoViewer {
            slot: self.connection.video_slot(source)?,
            limit,
            shown: self.shown_there[source],
            estimates: Some(self.connection.estimates()),
            set_desired: Some(Box::new(self.connection.desired_rate())),
            audio_rate: self.sends(Media::Audio).then_some(audio_rate),
            tell_uplink: Some(Box::new(self.uplink.needs())),
        })
    }
}
