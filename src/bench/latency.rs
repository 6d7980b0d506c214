//! From capture to shown picture, through everything between.

use tokio::time::sleep;

use super::{
    BenchError,
    args::LatencyOptions,
    audience::{Audience, Word},
    figures::LatencyFigures,
    stage::{Show, Stage},
};

/// Shows a picture to one viewer in another process, who reads from its strip when it was
/// captured.
///
/// # Errors
/// If the session does not open, the viewer sees nothing, or the picture is too small for a strip.
pub(super) async fn measure(options: &LatencyOptions) -> Result<LatencyFigures, BenchError> {
    let picture = options.size.source();
    let stage = Stage::open(Show { picture, rate: None, sound: false, sessions: 1 }).await?;
    let mut audience = Audience::seat(&stage.links, 1, true)?;
    let first_frame_ms = loop {
        if let Word::FirstFrame { ms, .. } = audience.word().await? {
            break ms;
        }
    };
    sleep(options.time()).await;
    let figures = audience.figures().await?;
    let (p50, p95) = figures.latency_ms.ok_or(BenchError::NoStrip)?;
    let pictures = figures.decoded;
    Ok(LatencyFigures { picture: options.size, pictures, p50, p95, first_frame_ms })
}
