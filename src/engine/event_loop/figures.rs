//! What the engine measures of running media: who speaks, and the statistics.

use cpu_time::ProcessTime;

use super::{
    super::{
        peer_stats::PeerStats, remote_media::ParticipantKey, session_stats::CollectedStats,
        tone_measurement::UnmeasuredStats,
    },
    Engine,
};
use crate::{
    conference::Input,
    media,
    model::{ActiveSpeaker, Stats},
};

impl Engine {
    /// Reports to the core who speaks, if it is time to look.
    pub(super) fn report_speakers(&mut self) {
        let now = media::now();
        if !self.speakers.is_due(now) {
            return;
        }
        let mut levels = self.remote_media.speech_levels();
        for session in &self.core.snapshot().sessions {
            if session.sending.microphone {
                let speakers = levels.entry(session.session.clone()).or_default();
                speakers.push((ActiveSpeaker::Own, Some(self.local_media.level_dbfs())));
            }
        }
        for (session, speaker) in self.speakers.update(levels, now) {
            self.core.handle(Input::ActiveSpeaker(session, speaker), now);
        }
    }

    /// The statistics of the whole run.
    pub(super) fn stats(&self, with_past: bool) -> UnmeasuredStats {
        let (captures, encoders) = self.local_media.counts();
        let CollectedStats { sessions, tones } =
            self.session_stats.collect(self.peer_stats(), with_past);
        let stats = Stats {
            captures,
            encoders,
            layer_changes: self.local_media.layer_changes(),
            upload_full: self.core.snapshot().is_upload_full,
            cpu_seconds: ProcessTime::try_now()
                .map_or(0.0, |time| time.as_duration().as_secs_f64()),
            rtc: self.local_media.rtc_stats(),
            sessions,
        };
        UnmeasuredStats { stats, tones }
    }

    /// Returns the statistics of every peer connection.
    fn peer_stats(&self) -> impl Iterator<Item = (ParticipantKey, PeerStats)> {
        self.peers.iter().filter_map(|(peer, active)| {
            let received = self.remote_media.stats(*peer);
            let (key, mut stats) = match received {
                Some((key, stats)) => (key.clone(), stats),
                None => (self.core.session_of_peer(*peer)?, PeerStats::default()),
            };
            stats.add_connection(active.connection.stats());
            self.remote_media.add_playout(*peer, &mut stats.rtc);
            self.local_media.add_layer(*peer, &mut stats.rtc);
            Some((key, stats))
        })
    }
}
