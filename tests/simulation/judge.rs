//! What must hold: at each step, at certain times after a fault, and in the end.

use std::collections::BTreeMap;

use quintet::{
    conference::{HubEvent, Input},
    model::{
        EndReason, ErrorCode, Failure, FailureCode, HubMessage, LeaveReason, ParticipantId,
        ParticipantState, PeerEvent, PeerId, PeerState, Role, SessionId, SessionState,
        SessionStatus,
    },
};

use super::{
    connection::{Connection, Standing},
    script::{Script, Spec},
    world::{MS, SECOND, Verdict, World},
};

/// Something to be looked at when its time has come.
pub(crate) enum Check {
    /// Somebody has left: the witnesses do not see it any more.
    Left { who: ParticipantId, session: SessionId, start: u64, witnesses: Vec<usize> },
    /// Somebody is silent since `start`.
    Silent { who: ParticipantId, stage: Stage, start: u64, witnesses: Vec<(usize, SessionId)> },
    /// A session was ended by its opener's leaving or loss.
    Ended { session: SessionId, reason: EndReason, start: u64, witnesses: Vec<usize> },
    /// The session's opener was lost, and the witness waits for it.
    Awaited { session: SessionId, start: u64, witness: usize },
    /// Leaving was undone: the session is there again.
    Undone { program: usize, session: SessionId, start: u64 },
    /// A connection has survived a change of network, by finding new paths.
    Survived { program: usize, start: u64, peers: Vec<(PeerId, usize)> },
    /// A broken connection was replaced once and is live.
    Mended { pair: (usize, usize), start: u64, was: Vec<usize> },
}

/// How far a silence must be noticed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    Reconnecting,
    Gone,
    SeatKept,
    Out,
}

/// When a connection tells that it is silent, and that it gives up.
const SILENT_AFTER: u64 = 3 * SECOND;
const FAILED_AFTER: u64 = 28 * SECOND;

/// A program that had no trouble for this long has got over the last.
const RECOVERY: u64 = 40 * SECOND;

/// The next state of a connection whose packets have flowed or not for that long.
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

/// Whether running media may be closed because of that: never because of a hub's trouble.
pub(crate) fn may_close(cause: Option<&Input>) -> bool {
    match cause {
        Some(Input::Command(_) | Input::Peer(_, PeerEvent::Refused { .. })) => true,
        Some(Input::Hub(_, HubEvent::Message(message))) => match message {
            HubMessage::Closed { .. } => true,
            HubMessage::ParticipantLeft { reason, .. } => *reason != LeaveReason::Lost,
            // Its place was taken while the hub was away: it is not in the session any more.
            HubMessage::Error { code, .. } => {
                matches!(code, ErrorCode::IdTaken | ErrorCode::SessionFull)
            }
            HubMessage::Welcome { .. }
            | HubMessage::Renamed { .. }
            | HubMessage::ParticipantRenamed { .. }
            | HubMessage::Access { .. }
            | HubMessage::Opened { .. }
            | HubMessage::Joined { .. }
            | HubMessage::Waiting { .. }
            | HubMessage::ParticipantJoined { .. }
            | HubMessage::ParticipantPresence { .. }
            | HubMessage::Owner { .. }
            | HubMessage::Signal { .. }
            | HubMessage::LinkBase { .. }
            | HubMessage::Pong => false,
        },
        Some(Input::Hub(
            _,
            HubEvent::Up { .. }
            | HubEvent::Moved { .. }
            | HubEvent::Down { .. }
            | HubEvent::Guests { .. },
        ))
        | Some(
            Input::Peer(..) | Input::Source(..) | Input::Equipped { .. } | Input::Preview { .. },
        )
        | None => false,
    }
}

/// Whether a connection is, as far as it ever got to know, one between two programs.
fn was_between(one: &Connection, pair: (usize, usize)) -> bool {
    one.towards == Some(if one.node == pair.0 { pair.1 } else { pair.0 })
        && (one.node == pair.0 || one.node == pair.1)
}

impl World {
    /// A failure that a person is told of must be one that the faults explain.
    pub(crate) fn failed(&self, index: usize, failure: &Failure) -> Verdict {
        let explained = match failure.code {
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
        let told = failure.message.len() > 30;
        if explained && told { Ok(()) } else { Err(format!("P{index} fails: {failure:?}")) }
    }

    pub(crate) fn note_news(&mut self, message: &HubMessage) {
        let is_owner = matches!(message, HubMessage::Owner { .. });
        let is_closed = matches!(message, HubMessage::Closed { .. });
        self.report.successions += usize::from(is_owner);
        self.report.ended_by_opener += usize::from(is_closed);
    }

    /// Whether nothing troubles a program, and nothing has for a while.
    pub(crate) fn is_calm(&self, program: usize) -> bool {
        let one = &self.programs[program];
        let hub = self.hub_disturbed == 0 || self.hub_disturbed + RECOVERY <= self.now;
        one.core.is_some() && (one.disturbed == 0 || one.disturbed + RECOVERY <= self.now) && hub
    }

    /// Whether nothing has troubled a program since.
    fn stayed_calm(&self, program: usize, start: u64) -> bool {
        let one = &self.programs[program];
        one.core.is_some() && one.disturbed < start && self.hub_disturbed < start
    }

    /// Whether a program had no trouble after that of `start`, and its person left nothing.
    fn stayed(&self, program: usize, start: u64) -> bool {
        let one = &self.programs[program];
        one.core.is_some() && one.disturbed <= start && one.left < start
    }

    /// How a participant of a session is, as a program shows it.
    pub(crate) fn shown(
        &self,
        program: usize,
        session: &SessionId,
        who: &ParticipantId,
    ) -> Option<(ParticipantState, Option<PeerId>)> {
        let snapshot = self.programs[program].snapshot();
        let status = snapshot.sessions.into_iter().find(|one| one.session == *session)?;
        let found = status.participants.into_iter().find(|one| one.participant == *who)?;
        Some((found.state, found.peer))
    }

    pub(crate) fn check(&mut self, check: Check) -> Verdict {
        match check {
            Check::Left { who, session, start, witnesses } => {
                let back = self
                    .program_of(&who)
                    .is_some_and(|one| self.programs[one].wants.contains_key(&session));
                for witness in witnesses {
                    let sees = self.shown(witness, &session, &who).is_some();
                    if sees && !back && self.stayed_calm(witness, start) {
                        return Err(format!("P{witness} sees {who} 1 s after it left {session}"));
                    }
                }
                Ok(())
            }
            Check::Silent { who, stage, start, witnesses } => {
                let mut seen = witnesses.into_iter();
                seen.try_for_each(|(one, session)| {
                    self.check_silent((&who, stage, start), one, &session)
                })
            }
            Check::Ended { session, reason, start, witnesses } => {
                for witness in witnesses {
                    let ended = self.programs[witness].ended.get(&session);
                    // One who is killed may have left just before.
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
                let statuses = one.snapshot().sessions;
                let status = statuses.into_iter().find(|status| status.session == session);
                let state = status.map(|status| status.state);
                let is_shown = matches!(state, Some(SessionState::HostLost { .. }));
                if one.wants.contains_key(&session) && self.stayed_calm(witness, start) && !is_shown
                {
                    return Err(format!("P{witness} does not wait for {session}: {state:?}"));
                }
                self.report.awaited += usize::from(is_shown);
                Ok(())
            }
            Check::Undone { program, session, start } => {
                let one = &self.programs[program];
                let is_wanted = one.wants.contains_key(&session) && one.left <= start;
                let statuses = one.snapshot().sessions;
                let is_there = statuses.iter().any(|status| status.session == session);
                if is_wanted && one.core.is_some() && !is_there {
                    return Err(format!("P{program} has lost {session} by leaving and undoing it"));
                }
                Ok(())
            }
            Check::Survived { program, start, peers } => {
                self.check_survived(program, start, &peers)
            }
            Check::Mended { pair, start, was } => self.check_mended(pair, start, was),
        }
    }

    fn check_silent(
        &self,
        (who, stage, start): (&ParticipantId, Stage, u64),
        witness: usize,
        session: &SessionId,
    ) -> Verdict {
        let wants = self.programs[witness].wants.contains_key(session);
        if !self.stayed_calm(witness, start) || !wants {
            return Ok(());
        }
        let state = self.shown(witness, session, who).map(|(state, _)| state);
        let right = match (stage, state) {
            (Stage::SeatKept, state) => state == Some(ParticipantState::Gone),
            (_, None) | (Stage::Gone, Some(ParticipantState::Gone)) => true,
            (Stage::Reconnecting, Some(state)) => {
                matches!(state, ParticipantState::Reconnecting | ParticipantState::Gone)
            }
            (Stage::Gone | Stage::Out, Some(_)) => false,
        };
        let after = (self.now - start) / MS;
        if right {
            return Ok(());
        }
        Err(format!("P{witness} sees {who} as {state:?} {after} ms after it fell silent"))
    }

    fn check_survived(&self, program: usize, start: u64, peers: &[(PeerId, usize)]) -> Verdict {
        for (peer, at) in peers {
            let other = self.connections[*at].remote.map(|uid| self.connections[uid as usize].node);
            let calm = other.is_some_and(|other| self.stayed(other, start));
            let mine = self.stayed(program, start) && self.hub_disturbed < start;
            let session = &self.connections[*at].session;
            let wants =
                [Some(program), other].into_iter().flatten().all(|one| self.has(one, session));
            if calm && mine && wants && !self.connections[*at].flows {
                return Err(format!("P{program} did not find new paths for {peer}"));
            }
        }
        Ok(())
    }

    /// A pair whose connections broke has new ones, which are the first that were made.
    fn check_mended(&mut self, pair: (usize, usize), start: u64, was: Vec<usize>) -> Verdict {
        let stayed = self.stayed(pair.0, start) && self.stayed(pair.1, start);
        if !stayed || self.hub_disturbed >= start {
            return Ok(());
        }
        for before in was {
            let session = self.connections[before].session.clone();
            let both = [pair.0, pair.1];
            if both.iter().any(|one| !self.has(*one, &session)) {
                continue;
            }
            for (mine, theirs) in [(pair.0, pair.1), (pair.1, pair.0)] {
                let other = self.programs[theirs].participant();
                let shown = self.shown(mine, &session, &other);
                if shown.is_none_or(|(state, _)| state != ParticipantState::Live) {
                    return Err(format!("P{mine} sees {shown:?} of P{theirs} after a break"));
                }
            }
            let tries = self.connections.iter().filter(|one| {
                let known = was_between(one, pair);
                one.session == session && one.opened > start && known
            });
            if tries.count() > 2 {
                return Err(format!("P{} and P{} needed several tries", pair.0, pair.1));
            }
        }
        Ok(())
    }

    /// After the quiet everything is as the people want it, and nothing else is left.
    pub(crate) fn judge_end(&mut self) -> Verdict {
        for spec in &self.plan.sessions {
            self.report.pairs += self.judge_session(spec)?;
        }
        for one in self.connections.iter().filter(|one| one.is_open) {
            if self.programs[one.node].core.is_none() {
                continue;
            }
            if one.standing != Standing::Stable || !one.queue.is_empty() {
                return Err(format!("P{}: {} has not come to rest", one.node, one.peer));
            }
            if !one.flows {
                return Err(format!("P{}: {} is left over", one.node, one.peer));
            }
        }
        self.judge_chats()?;
        self.judge_devices()
    }

    /// Counts the live pairs of a session, all of which must be live at both ends.
    fn judge_session(&self, spec: &Spec) -> Result<usize, String> {
        let mut live = BTreeMap::new();
        let mut members = vec![];
        for program in self.programs.iter().filter(|one| one.core.is_some()) {
            let sessions = program.snapshot().sessions;
            let status = sessions.into_iter().find(|one| one.session == spec.id);
            if program.wants.contains_key(&spec.id) {
                members.push(program.index);
            } else if status.as_ref().is_some_and(|one| one.state == SessionState::Live) {
                return Err(format!("P{} is in {} unasked", program.index, spec.id));
            }
            if let Some(status) = status.filter(|one| one.state == SessionState::Live) {
                live.insert(program.index, status);
            }
        }
        let opener = self.programs[spec.opener].wants.get(&spec.id);
        let must = members.contains(&spec.opener) && opener.is_some_and(|want| want.open);
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
            pairs += self.judge_view(spec, *mine, &live)?;
        }
        Ok(pairs)
    }

    /// Counts whom a member sees live: all whom the kind links to it, and nobody else.
    fn judge_view(
        &self,
        spec: &Spec,
        mine: usize,
        live: &BTreeMap<usize, SessionStatus>,
    ) -> Result<usize, String> {
        let status = &live[&mine];
        let is_linked = |other: usize, their: &SessionStatus| {
            other != mine && spec.kind.links(status.role, their.role)
        };
        let mut linked = 0;
        for (other, their) in live.iter().filter(|(other, their)| is_linked(**other, their)) {
            let id = self.programs[*other].participant();
            let seen = status.participants.iter().find(|one| one.participant == id);
            let right = seen
                .is_some_and(|one| one.state == ParticipantState::Live && one.role == their.role);
            let truth = self.passes(*other, &spec.id, their);
            let view = seen.map(|one| (one.microphone, one.camera));
            if view != Some(truth) {
                return Err(format!("{}: P{mine} believes {view:?} of P{other}", spec.id));
            }
            if !right {
                return Err(format!("{}: P{mine} sees P{other} as {seen:?}", spec.id));
            }
            let (called, name) = (seen.map(|one| &one.name), &self.programs[*other].name);
            if called != Some(name) {
                return Err(format!("{}: P{mine} calls {name} {called:?}", spec.id));
            }
            linked += 1;
        }
        if status.participants.len() != linked {
            return Err(format!("{}: P{mine} sees a ghost: {status:?}", spec.id));
        }
        Ok(linked)
    }

    /// A source is wanted while some connection is fed with it, and the hub while some session is
    /// there.
    fn judge_devices(&self) -> Verdict {
        for program in self.programs.iter().filter(|one| one.core.is_some()) {
            let (mut camera, mut microphone, mut speaker) = (false, false, false);
            for one in program.peers.values().map(|at| &self.connections[*at]) {
                microphone |= one.fed.0;
                camera |= one.fed.1;
                speaker |= one.media.audio.is_some_and(|way| way.receives());
            }
            if program.demand != (camera, microphone, speaker) {
                return Err(format!("P{} wants {:?}", program.index, program.demand));
            }
            if program.wants.is_empty() && program.client.wanted {
                return Err(format!("P{} keeps a hub that it does not need", program.index));
            }
        }
        Ok(())
    }

    /// Looks at a program's window: what it shows is what was announced, and true.
    pub(crate) fn look_at(&self, index: usize) -> Verdict {
        let program = &self.programs[index];
        let mut shown = BTreeMap::new();
        self.check_fed(index)?;
        let snapshot = program.snapshot();
        let departing = snapshot.departure.map(|departure| departure.sessions).unwrap_or_default();
        for status in departing {
            let shown_of = status.participants.into_iter();
            shown
                .extend(shown_of.map(|one| ((status.session.clone(), one.participant), one.state)));
        }
        for status in snapshot.sessions {
            let over = matches!(status.state, SessionState::Ended { .. } | SessionState::Failed(_));
            if !over && !program.wants.contains_key(&status.session) {
                return Err(format!("P{index} is in {} unasked", status.session));
            }
            for one in status.participants {
                let at = one.peer.and_then(|peer| program.peers.get(&peer));
                if let Some(connection) = at.map(|at| &self.connections[*at]) {
                    let quiet = (!connection.flows).then(|| self.now - connection.flow_changed);
                    let is_live = one.state == ParticipantState::Live;
                    let started = connection.state != PeerState::Connecting;
                    if is_live && started && quiet.is_some_and(|quiet| quiet > 5700 * MS) {
                        return Err(format!("P{index} shows a silent one as live: {one:?}"));
                    }
                    if !is_live && connection.state == PeerState::Connected {
                        return Err(format!("P{index} shows running media as {one:?}"));
                    }
                }
                shown.insert((status.session.clone(), one.participant), one.state);
            }
        }
        if shown == program.told {
            return Ok(());
        }
        Err(format!("P{index} announced {:?} and shows {shown:?}", program.told))
    }
}
