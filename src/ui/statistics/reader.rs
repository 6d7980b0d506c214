//! Reads the statistics of the engine once a second.

use std::time::Duration;

use eframe::egui::Context;
use tokio::sync::oneshot;

use crate::{
    engine::Handle,
    model::{MediaTime, RtcRates, Stats},
};

/// How often the statistics are read.
const INTERVAL: Duration = Duration::from_secs(1);

/// How soon to look again for a reply of the engine.
const REPLY_INTERVAL: Duration = Duration::from_millis(20);

/// Reads statistics while somebody needs them.
#[derive(Default)]
pub(crate) struct StatisticsReader {
    /// When the engine was asked last.
    asked_at: Option<MediaTime>,
    reply: Option<oneshot::Receiver<Stats>>,
    rates: RtcRates,
}

impl StatisticsReader {
    /// Returns new statistics, with their rates since the last ones. Asks the engine once a second,
    /// and never waits for it.
    pub(crate) fn poll(&mut self, ctx: &Context, handle: &Handle, now: MediaTime) -> Option<Stats> {
        if let Some(reply) = &mut self.reply {
            match reply.try_recv() {
                Ok(stats) => {
                    self.reply = None;
                    return Some(self.with_rates(stats, now));
                }
                Err(oneshot::error::TryRecvError::Empty) => {
                    ctx.request_repaint_after(REPLY_INTERVAL);
                    return None;
                }
                Err(oneshot::error::TryRecvError::Closed) => self.reply = None,
            }
        }
        let wait =
            self.asked_at.map_or(Duration::ZERO, |at| INTERVAL.saturating_sub(now.since(at)));
        if wait.is_zero() {
            self.asked_at = Some(now);
            self.reply = handle.request_stats();
        }
        ctx.request_repaint_after(if wait.is_zero() { REPLY_INTERVAL } else { wait });
        None
    }

    /// The statistics with the rates since the last ones.
    pub(crate) fn with_rates(&mut self, mut stats: Stats, now: MediaTime) -> Stats {
        self.rates.update(&mut stats, now);
        stats
    }
}
