//! Measures the time from capture to display, through encoder, network and decoder.

use tokio::time::sleep;

use super::{
    BenchError,
    args::LatencyOptions,
    audience::{Audience, Word},
    figures::LatencyFigures,
    stage::{Show, Stage},
};

/// Sends video to one viewer in another process, which reads the capture time from the timecode
/// that is painted into each frame.
///
/// # Errors
/// Fails if the session does not open, the viewer receives no video, or the frame is too small for
/// a timecode.
pub(super) async fn measure(options: &LatencyOptions) -> Result<LatencyFigures, BenchError> {
    let camera = options.size.source();
    let sender =
        Stage::open(Show { picture: camera, rate: None, sound: false, sessions: 1 }).await?;
    let mut viewer = Audience::seat(&sender.links, 1, true)?;
    let first_frame_ms = loop {
        if let Word::FirstFrame { ms, .. } = viewer.word().await? {
            break ms;
        }
    };
    sleep(options.time()).await;
    let stats = viewer.figures().await?;
    let (p50, p95) = stats.latency_ms.ok_or(BenchError::NoStrip)?;
    let frames = stats.decoded;
    Ok(LatencyFigures { picture: options.size, pictures: frames, p50, p95, first_frame_ms })
}
