//! What must hold: at each step, at certain times after a fault, and in the end.

use std::collections::BTreeMap;

use quintet::{
    conference::{HubEvent, HubNews, Input, MemberNews, SessionNews},
    model::{
        EndReason, ErrorCode, Failure, FailureCode, HubMessage, LeaveReason, ParticipantId,
        ParticipantState, PeerEvent, PeerId, PeerState, PerDevice, Role, SessionId, SessionState,
        SessionStatus,
    },
    wording,
};

use super::{
    connection::{Connection, SignalingState},
    script::{Script, Spec},
    world::{MS, SECOND, Verdict, World},
};

/// A check that is scheduled for a certain time.
pub(crate) enum Check {
    /// A participant left: the witnesses no longer show it.
    Left { participant: ParticipantId, session: SessionId, start: u64, witnesses: Vec<usize> },
    /// A participant has been silent since `start`.
    Silence {
        participant: ParticipantId,
        expected: SilenceStage,
        start: u64,
        witnesses: Vec<(usize, SessionId)>,
    },
    /// A session ended because its opener left or was lost.
    Ended { session: SessionId, reason: EndReason, start: u64, witnesses: Vec<usize> },
    /// The opener of the session was lost, and the witness waits for it.
    Awaited { session: SessionId, start: u64, witness: usize },
    /// Leaving was undone: the session is there again.
    DepartureUndone { program: usize, session: SessionId, start: u64 },
    /// A connection survived a change of network by finding new paths.
    SurvivedNetworkChange { program: usize, start: u64, peers: Vec<(PeerId, usize)> },
    /// A broken connection was replaced once and is live.
    Reconnected { pair: (usize, usize), start: u64, was: Vec<usize> },
}

/// How far a silence must have been noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SilenceStage {
    Reconnecting,
    Gone,
    SeatKept,
    Removed,
}

/// After how much silence a connection reports `Disconnected`.
const SILENT_AFTER: u64 = 3 * SECOND;
/// After how much silence a connection reports `Failed`.
const FAILED_AFTER: u64 = 28 * SECOND;

/// A program that was undisturbed for this long has recovered from the last fault.
const RECOVERY: u64 = 40 * SECOND;

/// The next state of a connection on which packets have flowed, or not, for `quiet`.
pub(crate) fn next_state(one: &Connection, quiet: u64) -> Option<PeerState> {
    match one.state {
        PeerState::Connecting | PeerState::Disconnected if one.flows && quiet > 150 * MS => {
            Some(PeerState::Connected)
        }
        PeerState::Connected if !one.flows && quiet >= SILENT_AFTER => {
            Some(PeerState::Disconnected)
        }
        PeerState::Disconnected if !one.flows && quiet >= FAILED_AFTER => Some(PeerState::Failed),
        PeerState::Connecting
        | PeerState::Connected
        | PeerState::Disconnected
        | PeerState::Failed => None,
    }
}

/// Whether this input may close running media. Trouble with the hub never may.
pub(crate) fn may_close(cause: Option<&Input>) -> bool {
    match cause {
        Some(Input::Command(_) | Input::Peer(_, PeerEvent::Failed { .. })) => true,
        Some(Input::Hub(_, HubEvent::News(HubNews::Session(_, news)))) => match news {
            SessionNews::Closed { .. } => true,
            SessionNews::Member(MemberNews::Left { reason, .. }) => *reason != LeaveReason::Lost,
            // Its seat was taken while the hub was away: it is not in the session any more.
            SessionNews::Refused { code, .. } => {
                matches!(code, ErrorCode::IdTaken | ErrorCode::SessionFull)
            }
            SessionNews::Member(
                MemberNews::Joined(_)
                | MemberNews::Presence { .. }
                | MemberNews::Renamed { .. }
                | MemberNews::Signal { .. },
            )
            | SessionNews::Entered { .. }
            | SessionNews::Waiting
            | SessionNews::Owner { .. }
            | SessionNews::Access { .. } => false,
        },
        Some(Input::Hub(
            _,
            HubEvent::News(HubNews::Renamed | HubNews::Refused { .. })
            | HubEvent::Up { .. }
            | HubEvent::AddressChanged { .. }
            | HubEvent::Down { .. }
            | HubEvent::Guests { .. },
        ))
        | Some(
            Input::Peer(..)
            | Input::Device(..)
            | Input::MicrophoneActivity(_)
            | Input::EncoderLate(_)
            | Input::UploadFull(_)
            | Input::SourcesAvailable(_)
            | Input::Preview(_)
            | Input::ActiveSpeaker(..)
            | Input::SoundCheck(_)
            | Input::Shown(..),
        )
        | None => false,
    }
}

/// Whether a connection is, as far as it knows, one between these two programs.
fn was_between(one: &Connection, pair: (usize, usize)) -> bool {
    one.remote_program == Some(if one.program == pair.0 { pair.1 } else { pair.0 })
        && (one.program == pair.0 || one.program == pair.1)
}

impl World {
    /// Checks that the faults of the run explain a failure that the user is shown.
    pub(crate) fn check_failure(&self, index: usize, failure: &Failure) -> Verdict {
        let explained = match failure.code() {
            FailureCode::HubUnreachable | FailureCode::Connection(_) => {
                self.plan.script != Script::Calm
            }
            FailureCode::Hub(ErrorCode::SessionFull) => true,
            FailureCode::Hub(ErrorCode::IdTaken | ErrorCode::NotAllowed) => {
                matches!(self.plan.script, Script::Hub | Script::People | Script::Everything)
            }
            FailureCode::Hub(_)
            | FailureCode::AlreadyHere
            | FailureCode::Device(_)
            | FailureCode::Chat
            | FailureCode::Command
            | FailureCode::Rename => false,
        };
        // In these runs each failure is about a session, and the user must be able to tell which.
        let sentence = wording::failure(failure);
        let names_session = failure
            .session
            .as_ref()
            .is_some_and(|session| sentence.contains(&format!("\"{session}\"")));
        if explained && names_session {
            Ok(())
        } else {
            Err(format!("P{index} fails: {failure:?}"))
        }
    }

    pub(crate) fn count_hub_message(&mut self, message: &HubMessage) {
        let is_owner = matches!(message, HubMessage::Owner { .. });
        let is_closed = matches!(message, HubMessage::Closed { .. });
        self.report.successions += usize::from(is_owner);
        self.report.ended_by_opener += usize::from(is_closed);
    }

    /// Whether a program is undisturbed, and has been for a while.
    pub(crate) fn is_calm(&self, program: usize) -> bool {
        let one = &self.programs[program];
        let hub = self.hub_disturbed == 0 || self.hub_disturbed + RECOVERY <= self.now;
        one.core.is_some()
            && (one.disturbed_until == 0 || one.disturbed_until + RECOVERY <= self.now)
            && hub
    }

    /// Whether a program was undisturbed since `start`.
    fn stayed_calm(&self, program: usize, start: u64) -> bool {
        let one = &self.programs[program];
        one.core.is_some() && one.disturbed_until < start && self.hub_disturbed < start
    }

    /// Whether a program was undisturbed after the fault at `start`, and its user left no session.
    fn stayed_undisturbed(&self, program: usize, start: u64) -> bool {
        let one = &self.programs[program];
        one.core.is_some() && one.disturbed_until <= start && one.left_at < start
    }

    /// The state of a participant as a program shows it.
    pub(crate) fn shown_state(
        &self,
        program: usize,
        session: &SessionId,
        participant: &ParticipantId,
    ) -> Option<(ParticipantState, Option<PeerId>)> {
        let snapshot = self.programs[program].snapshot();
        let status = snapshot.sessions.iter().find(|one| one.session == *session)?;
        let found = status.participants.iter().find(|one| one.participant == *participant)?;
        Some((found.state, found.peer))
    }

    pub(crate) fn run_check(&mut self, check: Check) -> Verdict {
        match check {
            Check::Left { participant, session, start, witnesses } => {
                let back = self
                    .program_of(&participant)
                    .is_some_and(|one| self.programs[one].wants.contains_key(&session));
                for witness in witnesses {
                    let sees = self.shown_state(witness, &session, &participant).is_some();
                    if sees && !back && self.stayed_calm(witness, start) {
                        return Err(format!(
                            "P{witness} shows {participant} 1 s after it left {session}"
                        ));
                    }
                }
                Ok(())
            }
            Check::Silence { participant, expected, start, witnesses } => {
                let mut seen = witnesses.into_iter();
                seen.try_for_each(|(one, session)| {
                    self.check_silent((&participant, expected, start), one, &session)
                })
            }
            Check::Ended { session, reason, start, witnesses } => {
                for witness in witnesses {
                    let ended = self.programs[witness].ended.get(&session);
                    // The opener may have left just before it was killed.
                    let right = ended.is_some_and(|(why, at)| {
                        *at >= start && [reason, EndReason::OpenerLeft].contains(why)
                    });
                    let left = ended.is_some_and(|(why, _)| *why == EndReason::Left);
                    if !right && !left && self.stayed_calm(witness, start) {
                        return Err(format!("for P{witness} {session} ended by {ended:?}"));
                    }
                }
                Ok(())
            }
            Check::Awaited { session, start, witness } => {
                let one = &self.programs[witness];
                let snapshot = one.snapshot();
                let status = snapshot.sessions.iter().find(|status| status.session == session);
                let state = status.map(|status| status.state.clone());
                let is_shown = matches!(state, Some(SessionState::HostLost { .. }));
                if one.wants.contains_key(&session) && self.stayed_calm(witness, start) && !is_shown
                {
                    return Err(format!("P{witness} does not wait for {session}: {state:?}"));
                }
                self.report.awaited += usize::from(is_shown);
                Ok(())
            }
            Check::DepartureUndone { program, session, start } => {
                let one = &self.programs[program];
                let is_wanted = one.wants.contains_key(&session) && one.left_at <= start;
                let snapshot = one.snapshot();
                let is_there = snapshot.sessions.iter().any(|status| status.session == session);
                if is_wanted && one.core.is_some() && !is_there {
                    return Err(format!("P{program} has lost {session} by leaving and undoing it"));
                }
                Ok(())
            }
            Check::SurvivedNetworkChange { program, start, peers } => {
                self.check_survived(program, start, &peers)
            }
            Check::Reconnected { pair, start, was } => self.check_reconnected(pair, start, was),
        }
    }

    fn check_silent(
        &self,
        (participant, expected, start): (&ParticipantId, SilenceStage, u64),
        witness: usize,
        session: &SessionId,
    ) -> Verdict {
        let wants = self.programs[witness].wants.contains_key(session);
        if !self.stayed_calm(witness, start) || !wants {
            return Ok(());
        }
        let state = self.shown_state(witness, session, participant).map(|(state, _)| state);
        let right = match (expected, state) {
            (SilenceStage::SeatKept, state) => state == Some(ParticipantState::Gone),
            (_, None) | (SilenceStage::Gone, Some(ParticipantState::Gone)) => true,
            (SilenceStage::Reconnecting, Some(state)) => {
                matches!(state, ParticipantState::Reconnecting | ParticipantState::Gone)
            }
            (SilenceStage::Gone | SilenceStage::Removed, Some(_)) => false,
        };
        let after = (self.now - start) / MS;
        if right {
            return Ok(());
        }
        Err(format!("P{witness} shows {participant} as {state:?} {after} ms after its last packet"))
    }

    fn check_survived(&self, program: usize, start: u64, peers: &[(PeerId, usize)]) -> Verdict {
        for (peer, at) in peers {
            let other =
                self.connections[*at].remote.map(|uid| self.connections[uid as usize].program);
            let calm = other.is_some_and(|other| self.stayed_undisturbed(other, start));
            let mine = self.stayed_undisturbed(program, start) && self.hub_disturbed < start;
            let session = &self.connections[*at].session;
            let wants = [Some(program), other]
                .into_iter()
                .flatten()
                .all(|one| self.is_live_in(one, session));
            if calm && mine && wants && !self.connections[*at].flows {
                return Err(format!("P{program} did not find new paths for {peer}"));
            }
        }
        Ok(())
    }

    /// A pair whose connections broke has new ones, made at the first attempt.
    fn check_reconnected(&mut self, pair: (usize, usize), start: u64, was: Vec<usize>) -> Verdict {
        let stayed =
            self.stayed_undisturbed(pair.0, start) && self.stayed_undisturbed(pair.1, start);
        if !stayed || self.hub_disturbed >= start {
            return Ok(());
        }
        for before in was {
            let session = self.connections[before].session.clone();
            let both = [pair.0, pair.1];
            if both.iter().any(|one| !self.is_live_in(*one, &session)) {
                continue;
            }
            for (mine, theirs) in [(pair.0, pair.1), (pair.1, pair.0)] {
                let other = self.programs[theirs].participant();
                let shown = self.shown_state(mine, &session, &other);
                if shown.is_none_or(|(state, _)| state != ParticipantState::Live) {
                    return Err(format!("P{mine} shows P{theirs} as {shown:?} after a break"));
                }
            }
            let tries = self.connections.iter().filter(|one| {
                let known = was_between(one, pair);
                one.session == session && one.opened_at > start && known
            });
            if tries.count() > 2 {
                return Err(format!("P{} and P{} needed several attempts", pair.0, pair.1));
            }
        }
        Ok(())
    }

    /// After the recovery time everything is as the users want it, and nothing else is left.
    pub(crate) fn check_end(&mut self) -> Verdict {
        for spec in &self.plan.sessions {
            self.report.pairs += self.check_session(spec)?;
        }
        for one in self.connections.iter().filter(|one| one.is_open) {
            if self.programs[one.program].core.is_none() {
                continue;
            }
            if one.signaling_state != SignalingState::Stable || !one.queue.is_empty() {
                return Err(format!(
                    "P{}: {} has commands or an unanswered offer",
                    one.program, one.peer
                ));
            }
            if !one.flows {
                return Err(format!("P{}: {} is left over", one.program, one.peer));
            }
        }
        self.check_chats()?;
        self.check_devices()
    }

    /// Counts the live pairs of a session. Each must be live at both ends.
    fn check_session(&self, spec: &Spec) -> Result<usize, String> {
        let mut live = BTreeMap::new();
        let mut members = vec![];
        for program in self.programs.iter().filter(|one| one.core.is_some()) {
            let snapshot = program.snapshot();
            let status = snapshot.sessions.iter().find(|one| one.session == spec.id);
            if program.wants.contains_key(&spec.id) {
                members.push(program.index);
            } else if status.is_some_and(|one| one.state == SessionState::Live) {
                return Err(format!("P{} is in {} unasked", program.index, spec.id));
            }
            if let Some(status) = status.filter(|one| one.state == SessionState::Live) {
                live.insert(program.index, SessionStatus::clone(status));
            }
        }
        let opener = self.programs[spec.opener].wants.get(&spec.id);
        let must = members.contains(&spec.opener) && opener.is_some_and(|want| want.as_opener);
        let room = members.len().min(usize::from(spec.kind.default_limit()));
        if (must || !live.is_empty()) && live.len() != room {
            return Err(format!("{} is live for {:?} of {members:?}", spec.id, live.keys()));
        }
        let openers = live.values().filter(|one| one.role == Role::Opener).count();
        if !live.is_empty() && openers != 1 {
            return Err(format!("{} has {openers} openers", spec.id));
        }
        let mut pairs = 0;
        for mine in live.keys() {
            pairs += self.check_view(spec, *mine, &live)?;
        }
        Ok(pairs)
    }

    /// Counts the participants that a member shows as live: exactly those that the topology pairs
    /// it with.
    fn check_view(
        &self,
        spec: &Spec,
        mine: usize,
        live: &BTreeMap<usize, SessionStatus>,
    ) -> Result<usize, String> {
        let status = &live[&mine];
        let is_paired = |other: usize, their: &SessionStatus| {
            other != mine && spec.kind.pairs(status.role, their.role)
        };
        let mut paired = 0;
        for (other, their) in live.iter().filter(|(other, their)| is_paired(**other, their)) {
            let id = self.programs[*other].participant();
            let seen = status.participants.iter().find(|one| one.participant == id);
            let right = seen
                .is_some_and(|one| one.state == ParticipantState::Live && one.role == their.role);
            let sent = self.sends(*other, &spec.id, their);
            let view = seen.map(|one| one.sends);
            if view != Some(sent) {
                return Err(format!("{}: P{mine} shows media {view:?} of P{other}", spec.id));
            }
            let peer = seen.and_then(|one| self.programs[mine].peers.get(&one.peer?));
            peer.map_or(Ok(()), |at| self.check_remote_tracks(*at))?;
            if !right {
                return Err(format!("{}: P{mine} shows P{other} as {seen:?}", spec.id));
            }
            let (shown_name, name) = (seen.map(|one| &one.name), &self.programs[*other].name);
            if shown_name != Some(name) {
                return Err(format!("{}: P{mine} shows {name} as {shown_name:?}", spec.id));
            }
            paired += 1;
        }
        if status.participants.len() != paired {
            return Err(format!("{}: P{mine} shows too many participants: {status:?}", spec.id));
        }
        Ok(paired)
    }

    /// A source is needed while a connection sends its media, and the hub while there is a session.
    fn check_devices(&self) -> Verdict {
        for program in self.programs.iter().filter(|one| one.core.is_some()) {
            let mut needed = PerDevice::<bool>::default();
            for one in program.peers.values().map(|at| &self.connections[*at]) {
                needed.sources = needed.sources.or(one.sending);
                needed.speaker |= one.media.receives().microphone;
            }
            if program.demand != needed {
                return Err(format!("P{} demands {:?}", program.index, program.demand));
            }
            if program.wants.is_empty() && program.client.wanted {
                return Err(format!("P{} keeps a hub that it does not need", program.index));
            }
        }
        Ok(())
    }

    /// Checks that a program shows what it announced, and that it is true.
    pub(crate) fn check_window(&self, index: usize) -> Verdict {
        let program = &self.programs[index];
        let mut shown = BTreeMap::new();
        self.check_media(index)?;
        let snapshot = program.snapshot();
        let departing = snapshot.departure.iter().flat_map(|departure| &departure.sessions);
        for status in departing {
            let shown_of = status.participants.clone().into_iter();
            shown
                .extend(shown_of.map(|one| ((status.session.clone(), one.participant), one.state)));
        }
        for status in &snapshot.sessions {
            let over = matches!(status.state, SessionState::Ended { .. } | SessionState::Failed(_));
            if !over && !program.wants.contains_key(&status.session) {
                return Err(format!("P{index} is in {} unasked", status.session));
            }
            for one in status.participants.iter() {
                let at = one.peer.and_then(|peer| program.peers.get(&peer));
                if let Some(connection) = at.map(|at| &self.connections[*at]) {
                    let quiet = (!connection.flows).then(|| self.now - connection.flow_changed_at);
                    let is_live = one.state == ParticipantState::Live;
                    let started = connection.state != PeerState::Connecting;
                    if is_live && started && quiet.is_some_and(|quiet| quiet > 5700 * MS) {
                        return Err(format!(
                            "P{index} shows a silent participant as live: {one:?}"
                        ));
                    }
                    if !is_live && connection.state == PeerState::Connected {
                        return Err(format!("P{index} shows running media as {one:?}"));
                    }
                }
                shown.insert((status.session.clone(), one.participant.clone()), one.state);
            }
        }
        if shown == program.announced {
            return Ok(());
        }
        Err(format!("P{index} announced {:?} and shows {shown:?}", program.announced))
    }
}
