//! Keyframe requests of the remote peer: PLI and FIR.

use rtc::rtcp::{
    self,
    payload_feedbacks::{
        full_intra_request::FullIntraRequest, picture_loss_indication::PictureLossIndication,
    },
};

use crate::media::KeyframeRequest;

/// Passes on the keyframe requests for the video that this end sends.
pub(super) struct KeyframeFeedback {
    /// The SSRC of the video.
    video: u32,
    keyframes: KeyframeRequest,
}

impl KeyframeFeedback {
    pub(super) const fn new(video: u32, keyframes: KeyframeRequest) -> Self {
        Self { video, keyframes }
    }

    /// Signals a keyframe request if the packet is a PLI (RFC 4585, section 6.3.1) or a FIR (RFC
    /// 5104, section 4.3.1) for the video.
    pub(super) fn handle(&self, packet: &dyn rtcp::Packet) {
        let any = packet.as_any();
        let is_requested = if let Some(loss) = any.downcast_ref::<PictureLossIndication>() {
            loss.media_ssrc == self.video
        } else if let Some(request) = any.downcast_ref::<FullIntraRequest>() {
            request.fir.iter().any(|entry| entry.ssrc == self.video)
        } else {
            false
        };
        if is_requested {
            self.keyframes.request();
        }
    }
}

#[cfg(test)]
mod tests {
    use rtc::rtcp::payload_feedbacks::full_intra_request::FirEntry;

    use super::*;

    const VIDEO: u32 = 7;

    fn is_requested(packet: &dyn rtcp::Packet) -> bool {
        let keyframes = KeyframeRequest::default();
        KeyframeFeedback::new(VIDEO, keyframes.clone()).handle(packet);
        futures_util::FutureExt::now_or_never(keyframes.requested()).is_some()
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
        assert!(is_requested(&fir(&[VIDEO + 1, VIDEO])));
        assert!(!is_requested(&fir(&[VIDEO + 1])));
        assert!(!is_requested(&rtcp::sender_report::SenderReport::default()));
    }
}
