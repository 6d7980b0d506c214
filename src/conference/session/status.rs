//! The state of a session, as it is shown.

use std::sync::Arc;

use super::{EndedSession, Session, SessionPhase};
use crate::{
    conference::{hubs::Hubs, media_use::MediaUse, participant::Participant},
    model::{ParticipantList, PerSource, SessionState, SessionStatus},
};

impl Session {
    /// Keeps the state for snapshots, if the session was touched or something around it changed.
    /// `runs` tells which sources run.
    pub(in crate::conference) fn keep_status(
        &mut self,
        hubs: &Hubs,
        runs: PerSource<bool>,
        is_stale: bool,
    ) {
        if !std::mem::take(&mut self.is_touched) && !is_stale {
            return;
        }
        let (participants, delivers) = (self.participants(), self.media_use().delivers);
        let status = self.status(hubs, participants, delivers.and(runs));
        let is_same = self.shown.as_ref().is_some_and(|shown| {
            shown.participants.is_same(&status.participants) && **shown == status
        });
        if !is_same {
            self.shown = Some(Arc::new(status));
        }
    }

    /// The state that was kept last.
    pub(in crate::conference) fn shown(&self) -> Option<Arc<SessionStatus>> {
        self.shown.clone()
    }

    /// The state, from the state of each participant.
    pub(in crate::conference) fn rebuilt_status(
        &self,
        hubs: &Hubs,
        runs: PerSource<bool>,
    ) -> Arc<SessionStatus> {
        let (mut participants, mut delivers) = (ParticipantList::default(), PerSource::NONE);
        if let SessionPhase::Joined(membership) = &self.phase {
            let members = || membership.roster.members();
            participants = members().map(Participant::status).collect();
            delivers = members().fold(delivers, |all, one| all.or(one.media_use().delivers));
        }
        Arc::new(self.status(hubs, participants, delivers.and(runs)))
    }

    /// Settles all participants the next time.
    #[cfg(test)]
    pub(in crate::conference) fn touch_participants(&mut self) {
        if let SessionPhase::Joined(membership) = &mut self.phase {
            membership.roster.touch_all();
        }
    }

    /// What the peer connections of the session use.
    pub(in crate::conference) fn media_use(&self) -> MediaUse {
        match &self.phase {
            SessionPhase::Joined(membership) => membership.roster.media_use(),
            SessionPhase::Joining(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => {
                MediaUse::default()
            }
        }
    }

    fn participants(&self) -> ParticipantList {
        match &self.phase {
            SessionPhase::Joined(membership) => membership.roster.statuses().clone(),
            SessionPhase::Joining(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => {
                ParticipantList::default()
            }
        }
    }

    fn status(
        &self,
        hubs: &Hubs,
        participants: ParticipantList,
        sending: PerSource<bool>,
    ) -> SessionStatus {
        let EndedSession { kind, role, limit, link, hub } = self.last_known(hubs);
        let (locked, removed) = match &self.phase {
            SessionPhase::Joined(membership) => {
                (membership.access.is_locked(), membership.access.removed())
            }
            SessionPhase::Joining(_) | SessionPhase::Ended(..) | SessionPhase::Failed(..) => {
                (false, vec![])
            }
        };
        SessionStatus {
            session: self.id.clone(),
            kind,
            role,
            link,
            hub,
            limit,
            state: self.state(),
            enabled: self.enabled,
            data_use: self.data_use,
            active_speaker: self.speaker().cloned(),
            is_raised: self.is_raised,
            sending,
            participants,
            locked,
            removed,
        }
    }

    fn state(&self) -> SessionState {
        match &self.phase {
            SessionPhase::Joining(lookup) if lookup.waits() => SessionState::Waiting,
            SessionPhase::Joining(lookup) => match lookup.unreachable_because() {
                Some(reason) => SessionState::Unreachable { reason: reason.to_owned() },
                None => SessionState::Connecting,
            },
            SessionPhase::Joined(membership) => match membership.lost_since() {
                None => SessionState::Live,
                Some(since) if membership.awaits_opener() => SessionState::HostLost { since },
                Some(since) => SessionState::Reconnecting { since },
            },
            SessionPhase::Ended(_, reason) => SessionState::Ended { reason: *reason },
            SessionPhase::Failed(_, failure) => SessionState::Failed(failure.clone()),
        }
    }
}
