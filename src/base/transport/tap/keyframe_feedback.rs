//! Keyframe requests of the remote peer: PLI and FIR.

use rtc::rtcp::{
    self,
    payload_feedbacks::{
        full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication,
    },
};

use super::LocalStream;
use crate::media::KeyframeRequest;

/// Passes on the keyframe requests for the videos that this end sends.
pub(super) struct KeyframeFeedback {
    /// The SSRC of each video, and what a request for it signals.
    videos: Vec<(u32, KeyframeRequest)>,
}

impl KeyframeFeedback {
    pub(super) fn new(local: &[LocalStream]) -> Self {
        let videos = local.iter().filter(|stream| stream.is_video);
        Self { videos: videos.map(|stream| (stream.ssrc, stream.keyframes.clone())).collect() }
    }

    /// Signals a keyframe request if the packet is a PLI (RFC 4585, section 6.3.1) or a FIR (RFC
    /// 5104, section 4.3.1) for a video.
    pub(super) fn handle(&self, packet: &dyn rtcp::Packet) {
        let any = packet.as_any();
        if let Some(loss) = any.downcast_ref::<PictureLossIndication>() {
            self.request(loss.media_ssrc);
        } else if let Some(request) = any.downcast_ref::<FullIntraRequest>() {
            request.fir.iter().for_each(|entry| self.request(entry.ssrc));
        }
    }

    /// Signals that a video needs a keyframe.
    pub(super) fn request(&self, ssrc: u32) {
        let video = self.videos.iter().find(|(known, _)| *known == ssrc);
        if let Some((_, keyframes)) = video {
            keyframes.request();
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::payload_feedbacks::full_intra_request::FirEntry;

    use super::*;
    use crate::model::Media;

    const VIDEO: u32 = 7;
    const SECOND_VIDEO: u32 = 9;
    const AUDIO: u32 = 3;

    /// Whether the packet requests a keyframe of the first video, and of no other stream.
    fn is_requested(packet: &dyn rtcp::Packet) -> bool {
        let local = [(VIDEO, Media::Video), (SECOND_VIDEO, Media::Video), (AUDIO, Media::Audio)];
        let local = local.map(|(ssrc, media)| LocalStream::new(ssrc, media));
        KeyframeFeedback::new(&local).handle(packet);
        let requested = |stream: &LocalStream| {
            futures_util::FutureExt::now_or_never(stream.keyframes.requested()).is_some()
        };
        assert!(!requested(&local[2]), "audio has no keyframes");
        local.each_ref().map(requested)[..2] == [true, false]
    }

    fn fir(ssrcs: &[u32]) -> FullIntraRequest {
        let entry = |&ssrc| FirEntry { ssrc, sequence_number: 1 };
        FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: ssrcs.iter().map(entry).collect() }
    }

    #[test]
    fn only_feedback_about_the_local_video_requests_a_keyframe() {
        let loss = |media_ssrc| PictureLossIndication { sender_ssrc: 1, media_ssrc };
        assert!(is_requested(&loss(VIDEO)));
        assert!(!is_requested(&loss(VIDEO + 1)));
        assert!(!is_requested(&loss(SECOND_VIDEO)) && !is_requested(&loss(AUDIO)));
        assert!(is_requested(&fir(&[VIDEO + 1, VIDEO])));
        assert!(!is_requested(&fir(&[VIDEO + 1])));
        assert!(!is_requested(&rtcp::sender_report::SenderReport::default()));
    }
}
