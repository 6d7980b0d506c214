//! What follows from an input: only the sessions and participants that it touched are settled and
//! shown anew.

use std::{collections::BTreeSet, sync::Arc};

use super::{Conference, CoreContext, Session};
use crate::model::{DeviceState, Enabled, PerSource, SessionStatus, Snapshot};

/// What the settled state of all sessions depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SettleContext {
    /// The switches of the whole program and the sources that exist.
    enabled: Enabled,
    /// The sources that have not failed.
    working: PerSource<bool>,
}

impl Conference {
    /// The current state, from the state of each session and participant. For checks: it equals
    /// [`Self::snapshot`].
    pub fn rebuild_snapshot(&self) -> Snapshot {
        let runs = self.running_sources();
        self.snapshot_of(|one| Some(one.rebuilt_status(&self.hubs, runs)))
    }

    /// Handles the deadlines that have passed, and updates everything that follows from the last
    /// input. Sessions that neither touched are not looked at.
    pub(super) fn settle(&mut self) {
        self.settle_departure();
        let mut sources = self.enabled.sources.and(self.available);
        sources.microphone &= !self.sound_checks.withholds_microphone();
        let enabled = Enabled { sources, ..self.enabled };
        let context = SettleContext { enabled, working: self.working };
        let is_new = self.settled_for.replace(context) != Some(context);
        let mut cx =
            CoreContext { now: self.now, hubs: &mut self.hubs, effects: &mut self.effects };
        for session in &mut self.sessions {
            if is_new || session.is_due(cx.now) {
                session.is_touched = true;
                session.handle_timeout(&mut cx);
                session.apply_enabled(context.enabled, context.working, &mut cx);
            }
        }
        let used: BTreeSet<_> = self.sessions.iter().flat_map(Session::hubs).collect();
        self.hubs.settle(&used, self.now, &mut self.effects);
        let uses = self.sessions.iter().map(Session::media_use);
        let hears = uses.clone().any(|one| one.may_send_audio);
        let is_heard = uses.clone().any(|one| one.sends.microphone);
        let is_muted = hears && !is_heard && !self.sound_checks.withholds_microphone();
        self.microphone.settle(is_muted, &mut self.effects);
        self.demand.set_sound_check(self.sound_checks.stage());
        self.demand.settle(uses, self.now, &mut self.effects);
        self.update_snapshot();
    }

    /// Updates the snapshot if anything of it has changed.
    fn update_snapshot(&mut self) {
        let runs = self.running_sources();
        let was_running = running(&self.snapshot.devices.sources);
        let is_stale = runs != was_running || self.hubs.statuses() != self.snapshot.hubs;
        for session in &mut self.sessions {
            session.keep_status(&self.hubs, runs, is_stale);
        }
        let next = self.snapshot_of(Session::shown);
        if !is_same_snapshot(&next, &self.snapshot) {
            self.snapshot = Arc::new(next);
        }
    }

    fn snapshot_of(&self, status: impl Fn(&Session) -> Option<Arc<SessionStatus>>) -> Snapshot {
        let shown = self.sessions.iter().filter(|one| !one.is_departing);
        let departing = self.sessions.iter().filter(|one| one.is_departing);
        Snapshot {
            hubs: self.hubs.statuses(),
            sessions: shown.filter_map(&status).collect(),
            departure: self
                .departure
                .as_ref()
                .map(|departure| departure.status(departing.filter_map(&status).collect())),
            enabled: self.enabled,
            devices: self.devices.clone(),
            voice_processing: self.microphone.processing,
            is_microphone_silent: self.microphone.is_silent(),
            is_encoder_late: self.limits.is_encoder_late(),
            is_upload_full: self.limits.is_upload_full(),
            sound_check: self.sound_checks.stage(),
        }
    }

    fn running_sources(&self) -> PerSource<bool> {
        running(&self.devices.sources)
    }

    /// Settles all sessions and participants, touched or not. Nothing may follow from it.
    #[cfg(test)]
    pub(in crate::conference) fn settle_everything(&mut self) {
        for session in self.sessions_and_context().0 {
            session.touch_participants();
        }
        self.settle();
    }

    /// When the next deadline is.
    #[cfg(test)]
    pub(in crate::conference) fn deadline(&self) -> Option<crate::model::MediaTime> {
        self.poll_timeout().map(|next| next.at)
    }
}

/// Which sources run.
fn running(sources: &PerSource<DeviceState>) -> PerSource<bool> {
    PerSource::from_fn(|source| sources[source] == DeviceState::Running)
}

/// Whether two snapshots are the same, without a look into their sessions: those that are equal are
/// shared.
fn is_same_snapshot(next: &Snapshot, last: &Snapshot) -> bool {
    fn leaving(one: &Snapshot) -> &[Arc<SessionStatus>] {
        one.departure.as_ref().map_or(&[], |one| &one.sessions)
    }
    let departing = |one: &Snapshot| one.departure.as_ref().map(|one| (one.closes, one.until));
    let are_shared = |a: &[Arc<SessionStatus>], b: &[Arc<SessionStatus>]| {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
    };
    are_shared(&next.sessions, &last.sessions)
        && are_shared(leaving(next), leaving(last))
        && departing(next) == departing(last)
        && (next.enabled, &next.devices, &next.hubs) == (last.enabled, &last.devices, &last.hubs)
        && next.voice_processing == last.voice_processing
        && next.is_microphone_silent == last.is_microphone_silent
        && next.is_encoder_late == last.is_encoder_late
        && next.is_upload_full == last.is_upload_full
        && next.sound_check == last.sound_check
}
