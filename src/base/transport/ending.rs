//! How a stream of audio ends when it is muted: with silence.

use tokio::time::{Instant, sleep_until};

use super::track_sender::RtpMedia;

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
        self.due = Instant::now() + frame.length();
    }

    /// The stream begins, or ends.
    pub(super) const fn on_source(&mut self, is_sent: bool) {
        self.left = if is_sent { 0 } else { SILENT_PACKETS };
    }

    /// Leaves out packets of silence whose time has passed: nothing was sent for a while (DTX), and a
    /// packet with an old timestamp would seem late.
    fn skip_silence(&mut self, now: Instant) {
        while let Some(silence) = &self.silence
            && !silence.length().is_zero()
            && self.due + silence.length() <= now
        {
            self.due += silence.length();
            self.silence = silence.silence_after();
        }
    }

    /// Waits until a packet of silence is due; for ever while the stream has not ended, and after
    /// the last packet. Cancel safe.
    pub(super) async fn next(&mut self) -> T {
        if self.left > 0 && self.silence.is_some() {
            sleep_until(self.due).await;
            self.skip_silence(Instant::now());
            self.left -= 1;
            if let Some(silence) = self.silence.take() {
                return silence;
            }
        }
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::sleep;

    use super::*;
    use crate::{
        media::EncodedAudio,
        model::{AudioLayer, MediaTime},
    };

    #[tokio::test(start_paused = true)]
    async fn the_silence_has_the_timestamp_of_the_moment_at_which_it_is_sent() {
        for (layer, pause_ms, sample) in [
            (AudioLayer::Standard, 0, 10_560),
            (AudioLayer::Low, 0, 11_520),
            // Nothing was sent for a while, because nothing was said.
            (AudioLayer::Standard, 105, 14_400),
        ] {
            let sent = EncodedAudio::new(MediaTime::default(), 9600, Bytes::new()).of_layer(layer);
            let mut ending = Ending::new();
            ending.on_sent(&sent);
            sleep(Duration::from_millis(pause_ms)).await;
            ending.on_source(false);
            let silence = ending.next().await;
            assert_eq!(silence.sample, sample, "{layer:?}, {pause_ms} ms");
        }
    }
}
