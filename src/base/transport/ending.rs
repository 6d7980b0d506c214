//! How a stream of audio ends when it is muted: with silence.

use tokio::time::{Instant, sleep_until};

use super::track_sender::RtpMedia;
use crate::media::AUDIO_PACKET_TIME;

/// The silence that ends a stream of audio when it is muted. A receiver that only sees packets stop
/// takes them for lost and makes up what is missing: after silence that is silence.
///
/// Its packets are sent when the stream's next ones would be: sent at once, they would be the
/// fastest ones, and all later ones would seem late.
pub(super) struct Ending<T> {
    /// The packet that follows the one sent last.
    silence: Option<T>,
    /// Packets that are still to be sent.
    left: u32,
    due: Instant,
}

/// Packets of silence at a mute: one of them may be lost, and two.
const SILENT_PACKETS: u32 = 3;

impl<T: RtpMedia> Ending<T> {
    /// Of a stream that has not begun.
    pub(super) fn new() -> Self {
        Self { silence: None, left: 0, due: Instant::now() }
    }

    /// This frame was sent now.
    pub(super) fn on_sent(&mut self, frame: &T) {
        self.silence = frame.silence_after();
        self.due = Instant::now() + AUDIO_PACKET_TIME;
    }

    /// The stream begins, or ends.
    pub(super) const fn on_source(&mut self, is_sent: bool) {
        self.left = if is_sent { 0 } else { SILENT_PACKETS };
    }

    /// Waits until a packet of silence is due; for ever while the stream has not ended, and after
    /// the last packet. Cancel safe.
    pub(super) async fn next(&mut self) -> T {
        if self.left > 0 && self.silence.is_some() {
            sleep_until(self.due).await;
            self.left -= 1;
            if let Some(silence) = self.silence.take() {
                return silence;
            }
        }
        std::future::pending().await
    }
}
