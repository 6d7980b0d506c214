//! Measures the time from capture to display, through encoder, network and decoder.

use tokio::time::sleep;

use super::{
    BenchError,
    args::LatencyOptions,
    report::LatencyReport,
    sender::{Sender, SenderOptions},
    viewer_process::{ViewerMessage, ViewerProcess},
};

/// Sends video to one viewer in another process, which reads the capture time from the timecode
/// that is painted into each frame.
///
/// # Errors
/// Fails if the session does not open, the viewer receives no video, or the frame is too small for
/// a timecode.
pub(super) async fn measure(options: &LatencyOptions) -> Result<LatencyReport, BenchError> {
    let camera = options.size.source();
    let sender = Sender::open(SenderOptions {
        camera,
        bitrate: None,
        sends_audio: false,
        sessions: 1,
        impairment: None,
    })
    .await?;
    let mut viewer = ViewerProcess::start(&sender.links, 1, true)?;
    let first_frame_ms = loop {
        if let ViewerMessage::FirstFrame { ms, .. } = viewer.next_message().await? {
            break ms;
        }
    };
    sleep(options.time()).await;
    let stats = viewer.next_stats().await?;
    let (p50, p95) = stats.latency_ms.ok_or(BenchError::NoTimecode)?;
    let frames = stats.decoded;
    Ok(LatencyReport { format: options.size, frames, p50, p95, first_frame_ms })
}
