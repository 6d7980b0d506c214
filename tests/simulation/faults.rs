//! The faults of a run, and the users who request again what they want.

use quintet::{
    conference::Input,
    model::{
        Command, Departure, Enabled, EndReason, ErrorCode, FailureCode, JoinTarget, MuteSwitch,
        OpenRequest, ParticipantState, PeerEvent, PeerState, SessionId, SessionState,
        SessionStatus, Topology,
    },
};

use super::{
    checks::{Check, SilenceStage},
    script::{Fault, Wanted},
    world::{MS, SECOND, ScheduledEvent, Verdict, World},
};

/// How long a user waits before requesting again what failed.
const RETRY_AFTER: u64 = 2 * SECOND;

impl World {
    /// Applies a fault.
    pub(crate) fn apply(&mut self, fault: Fault) -> Verdict {
        self.trace(|| format!("{fault:?}"));
        match fault {
            Fault::Enter { program, session } => self.enter(program, session),
            Fault::Leave { program, session } => self.leave(program, session),
            Fault::SetSwitch { program, session, switch, enabled } => {
                let session = session.map(|index| self.plan.sessions[index].id.clone());
                self.set_switch(program, Command::SetEnabled { session, switch, enabled })
            }
            Fault::SendText { program, session } => self.send_text(program, session),
            Fault::Depart { program, session, undone_after } => {
                self.depart(program, session, undone_after)
            }
            Fault::Undo { program, session } => self.undo(program, session),
            Fault::Rename { program } => self.rename(program),
            Fault::Cut { program } => self.cut(program),
            Fault::Stall { program, span } => self.stall(program, span),
            Fault::KillHub { span } => {
                self.schedule(self.now + span, ScheduledEvent::Fault(Fault::StartHub));
                self.kill_hub()
            }
            Fault::StartHub => {
                self.hub_disturbed = self.now;
                if self.rooms.is_none() {
                    self.start_hub();
                }
                Ok(())
            }
            Fault::Kill { program, span, fresh } => self.kill(program, span, fresh),
            Fault::Start { program, fresh } => self.start(program, fresh),
            Fault::Block { pair, span } => self.block(pair, span),
            Fault::Isolate { program, span } => self.isolate(program, span),
            Fault::ChangeNetwork { program } => self.change_network(program),
            Fault::Break { pair } => self.fail_connections(pair),
        }
    }

    /// Checks what each window shows. Users request again the sessions that they want and are not
    /// in.
    pub(crate) fn check_windows(&mut self) -> Verdict {
        for program in 0..self.programs.len() {
            if self.programs[program].core.is_none() {
                continue;
            }
            self.check_window(program)?;
            let wants: Vec<_> = self.programs[program].wants.keys().cloned().collect();
            for session in wants {
                self.retry_wanted(program, &session)?;
            }
        }
        Ok(())
    }

    fn retry_wanted(&mut self, program: usize, session: &SessionId) -> Verdict {
        let one = &self.programs[program];
        let snapshot = one.snapshot();
        let status = snapshot.sessions.iter().find(|status| status.session == *session);
        let Some(want) = one.wants.get(session).copied() else { return Ok(()) };
        if status.is_some_and(|one| is_active(one)) || self.now < want.asked_at + RETRY_AFTER {
            return Ok(());
        }
        let Some(spec) = self.plan.spec(session) else { return Ok(()) };
        if spec.closed {
            self.programs[program].wants.remove(session);
            return Ok(());
        }
        let taken = status.is_some_and(|status| {
            matches!(&status.state, SessionState::Failed(failure)
                if failure.code() == FailureCode::Hub(ErrorCode::IdTaken))
        });
        let is_taken_over = taken && spec.kind.topology == Topology::ManyToMany;
        let (id, kind, as_opener) = (spec.id.clone(), spec.kind, want.as_opener && !is_taken_over);
        self.programs[program].wants.insert(id.clone(), Wanted { as_opener, asked_at: self.now });
        let command = if as_opener {
            Command::Open(OpenRequest { session: id, kind, limit: None })
        } else {
            Command::Join { target: JoinTarget { session: id, hub: None }, wait: true }
        };
        self.handle_input(program, Input::Command(command))
    }

    fn enter(&mut self, program: usize, session: usize) -> Verdict {
        let spec = &self.plan.sessions[session];
        let as_opener = spec.opener == program && !self.programs[program].was_in.contains(&spec.id);
        let id = spec.id.clone();
        if self.programs[program].wants.contains_key(&id) || spec.closed {
            return Ok(());
        }
        self.programs[program].was_in.insert(id.clone());
        // A user that opened a session and left it comes back as a guest of its successor.
        self.programs[program].wants.insert(id.clone(), Wanted { as_opener, asked_at: 0 });
        if self.programs[program].core.is_some() { self.retry_wanted(program, &id) } else { Ok(()) }
    }

    /// A user leaves a joined session, and may undo it.
    fn depart(&mut self, program: usize, session: usize, undone_after: Option<u64>) -> Verdict {
        let id = self.plan.sessions[session].id.clone();
        let is_in = self.is_live_in(program, &id);
        let one = &mut self.programs[program];
        let Some(want) = one.wants.get(&id).copied().filter(|_| is_in) else { return Ok(()) };
        one.wants.remove(&id);
        one.departing.insert(id.clone(), want);
        one.left_at = self.now;
        if let Some(span) = undone_after {
            let undo = ScheduledEvent::Fault(Fault::Undo { program, session });
            self.schedule(self.now + span, undo);
        }
        self.handle_input(program, Input::Command(Command::Depart(Departure::Leave(id))))
    }

    /// A user undoes leaving, unless it is too late. The session must be there as before.
    fn undo(&mut self, program: usize, session: usize) -> Verdict {
        let id = self.plan.sessions[session].id.clone();
        let snapshot = self.programs[program].snapshot();
        let departure = &snapshot.departure;
        let is_there = |one: &SessionStatus| one.session == id;
        if !departure
            .as_ref()
            .is_some_and(|departure| departure.sessions.iter().any(|one| is_there(one)))
        {
            return Ok(());
        }
        let Some(want) = self.programs[program].departing.remove(&id) else { return Ok(()) };
        self.report.undone += 1;
        self.programs[program].wants.insert(id.clone(), want);
        let start = self.now;
        let check = Check::DepartureUndone { program, session: id, start };
        self.schedule(start + SECOND / 10, ScheduledEvent::Check(check));
        self.handle_input(program, Input::Command(Command::Undo))
    }

    /// A user changes the name, if the program runs.
    fn rename(&mut self, program: usize) -> Verdict {
        if self.programs[program].core.is_none() {
            return Ok(());
        }
        self.report.renames += 1;
        let name = format!("{}'", self.programs[program].name);
        self.handle_input(program, Input::Command(Command::Rename { name }))
    }

    /// A user sets a mute switch that is shown. The window shows it at once, and no other.
    fn set_switch(&mut self, program: usize, command: Command) -> Verdict {
        let snapshot = self.programs[program].snapshot();
        let is_there = |id: &SessionId| snapshot.sessions.iter().any(|one| one.session == *id);
        if self.programs[program].core.is_none() || !command.session().is_none_or(is_there) {
            return Ok(());
        }
        self.report.switches += 1;
        let expected = self.shown_switches(program, &command).map(|(shown, switch, enabled)| {
            let mut expected = shown;
            expected.set(switch, enabled);
            expected
        });
        self.handle_input(program, Input::Command(command.clone()))?;
        let shown = self.shown_switches(program, &command).map(|(shown, ..)| shown);
        if shown != expected {
            return Err(format!("P{program} shows {shown:?} after {command:?}"));
        }
        Ok(())
    }

    /// The switches that a window shows where this command sets one, the switch, and its new
    /// state.
    fn shown_switches(
        &self,
        program: usize,
        command: &Command,
    ) -> Option<(Enabled, MuteSwitch, bool)> {
        let Command::SetEnabled { session, switch, enabled } = command else { return None };
        let snapshot = self.programs[program].snapshot();
        let shown = match session {
            None => snapshot.enabled,
            Some(id) => snapshot.sessions.iter().find(|one| one.session == *id)?.enabled,
        };
        Some((shown, *switch, *enabled))
    }

    fn leave(&mut self, program: usize, session: usize) -> Verdict {
        let spec = &mut self.plan.sessions[session];
        let id = spec.id.clone();
        if self.programs[program].wants.remove(&id).is_none() {
            return Ok(());
        }
        self.programs[program].left_at = self.now;
        let ends = spec.opener == program && !spec.kind.outlives_opener();
        spec.closed |= ends;
        if self.programs[program].core.is_none() {
            return Ok(());
        }
        if ends && self.is_calm(program) {
            let start = self.now;
            let is_in = |one: &usize| self.is_calm(*one) && self.is_live_in(*one, &id);
            let others = (0..self.programs.len()).filter(|one| *one != program);
            let witnesses = others.filter(is_in).collect();
            let reason = EndReason::OpenerLeft;
            let check = Check::Ended { session: id.clone(), reason, start, witnesses };
            self.schedule(start + SECOND, ScheduledEvent::Check(check));
        }
        let is_known =
            self.programs[program].snapshot().sessions.iter().any(|one| one.session == id);
        if !is_known {
            return Ok(());
        }
        self.handle_input(program, Input::Command(Command::Leave { session: id }))
    }

    /// Schedules the check that a leaver is gone for all others within a second.
    pub(crate) fn expect_leave_noticed(&mut self, program: usize, session: &SessionId) {
        if !self.is_calm(program) {
            return;
        }
        let (participant, session) = (self.programs[program].participant(), session.clone());
        let in_it = |one: &usize| self.is_calm(*one) && self.is_live_in(*one, &session);
        let witnesses = (0..self.programs.len()).filter(in_it).collect();
        let start = self.now;
        let check = Check::Left { participant, session, start, witnesses };
        self.schedule(start + SECOND, ScheduledEvent::Check(check));
    }

    fn stall(&mut self, program: usize, span: u64) -> Verdict {
        let until = self.now + span;
        self.disturb(program, until);
        let stalled = &mut self.programs[program].client.stalled_until;
        *stalled = (*stalled).max(until);
        Ok(())
    }

    fn block(&mut self, pair: (usize, usize), span: u64) -> Verdict {
        let until = self.now + span;
        let blocked = self.blocked.entry(pair).or_default();
        *blocked = (*blocked).max(until);
        self.disturb(pair.0, until);
        self.disturb(pair.1, until);
        Ok(())
    }

    fn isolate(&mut self, program: usize, span: u64) -> Verdict {
        if self.is_calm(program) {
            self.expect_silence_noticed(program, Some(span));
        }
        self.stall(program, span)?;
        for other in (0..self.programs.len()).filter(|other| *other != program) {
            let pair = (program.min(other), program.max(other));
            let until = self.now + span;
            let blocked = self.blocked.entry(pair).or_default();
            *blocked = (*blocked).max(until);
        }
        Ok(())
    }

    fn kill(&mut self, program: usize, span: Option<u64>, fresh: bool) -> Verdict {
        if self.programs[program].core.is_none() {
            return Ok(());
        }
        if self.is_calm(program) {
            self.expect_silence_noticed(program, span);
        }
        self.disturb(program, self.now);
        if let Some(socket) = self.programs[program].client.socket {
            self.close_socket(socket);
        }
        for at in self.programs[program].peers.values() {
            self.connections[*at].is_open = false;
        }
        self.programs[program].kill();
        if let Some(span) = span {
            self.schedule(self.now + span, ScheduledEvent::Fault(Fault::Start { program, fresh }));
        }
        Ok(())
    }

    fn start(&mut self, program: usize, fresh: bool) -> Verdict {
        if self.programs[program].core.is_some() {
            return Ok(());
        }
        self.disturb(program, self.now);
        if fresh && self.rng.percent(50) {
            self.programs[program].keys.clear();
        }
        self.programs[program].start(fresh, &mut self.rng);
        Ok(())
    }

    /// Schedules the checks that a silence is noticed in time by every program that shows the
    /// silent participant as live now.
    fn expect_silence_noticed(&mut self, program: usize, span: Option<u64>) {
        let (participant, start) = (self.programs[program].participant(), self.now);
        let mut witnesses = vec![];
        let mut orphans = vec![];
        for other in (0..self.programs.len()).filter(|one| *one != program && self.is_calm(*one)) {
            for spec in &self.plan.sessions {
                let wants = self.programs[program].wants.contains_key(&spec.id)
                    && self.is_live_in(other, &spec.id);
                let shown = self.shown_state(other, &spec.id, &participant).filter(|_| wants);
                if shown.is_some_and(|(state, _)| state == ParticipantState::Live) {
                    let lives_on = spec.opener != program || spec.kind.outlives_opener();
                    let list = if lives_on { &mut witnesses } else { &mut orphans };
                    list.push((other, spec.id.clone()));
                }
            }
        }
        let all: Vec<_> = witnesses.iter().chain(&orphans).cloned().collect();
        let stages = [
            (SilenceStage::Reconnecting, 5 * SECOND, &all),
            (SilenceStage::Gone, 10 * SECOND + 700 * MS, &all),
            (SilenceStage::SeatKept, 57 * SECOND, &all),
            (SilenceStage::Removed, 62 * SECOND, &witnesses),
        ];
        for (expected, after, witnesses) in stages {
            if span.is_none_or(|span| span > after) {
                let (participant, witnesses) = (participant.clone(), witnesses.clone());
                let check = Check::Silence { participant, expected, start, witnesses };
                self.schedule(start + after, ScheduledEvent::Check(check));
            }
        }
        for (witness, session) in orphans {
            if span.is_none_or(|span| span > 62 * SECOND) {
                let check = Check::Awaited { session, start, witness };
                self.schedule(start + 62 * SECOND, ScheduledEvent::Check(check));
            }
        }
    }

    /// A computer changes its network: its connections must find new paths and must not be
    /// replaced.
    fn change_network(&mut self, program: usize) -> Verdict {
        self.programs[program].network += 1;
        let start = self.now;
        let peers: Vec<_> = if self.is_calm(program) {
            let flowing = self.programs[program].peers.iter().filter(|(_, at)| {
                let one = &self.connections[**at];
                let other = one.remote.map(|uid| self.connections[uid as usize].program);
                one.state == PeerState::Connected && other.is_some_and(|one| self.is_calm(one))
            });
            flowing.map(|(peer, at)| (*peer, *at)).collect()
        } else {
            vec![]
        };
        self.disturb(program, start);
        let check = Check::SurvivedNetworkChange { program, start, peers };
        self.schedule(start + 9500 * MS, ScheduledEvent::Check(check));
        Ok(())
    }

    /// Both ends of the connections of a pair fail at about the same time, so that both make an
    /// offer.
    fn fail_connections(&mut self, pair: (usize, usize)) -> Verdict {
        let calm = self.is_calm(pair.0) && self.is_calm(pair.1);
        let start = self.now;
        let mut was = vec![];
        for index in 0..self.connections.len() {
            let one = &self.connections[index];
            let other = one.remote.map(|uid| &self.connections[uid as usize]);
            let between = other.is_some_and(|other| {
                (one.program.min(other.program), one.program.max(other.program)) == pair
                    && other.is_open
            });
            if between && one.is_open && one.state == PeerState::Connected {
                was.push(index);
            }
        }
        self.disturb(pair.0, start);
        self.disturb(pair.1, start);
        for index in &was {
            self.connections[*index].state = PeerState::Failed;
            let delay = self.rng.ms(0, 60);
            let event = PeerEvent::State(PeerState::Failed);
            self.schedule(start + delay, ScheduledEvent::PeerEvent { connection: *index, event });
        }
        if calm {
            let check = Check::Reconnected { pair, start, was };
            self.schedule(start + 6 * SECOND, ScheduledEvent::Check(check));
        }
        Ok(())
    }

    /// Whether a program is in a session that its hub has.
    pub(crate) fn is_live_in(&self, program: usize, session: &SessionId) -> bool {
        let snapshot = self.programs[program].snapshot();
        snapshot
            .sessions
            .iter()
            .any(|one| one.session == *session && one.state == SessionState::Live)
    }
}

fn is_active(status: &SessionStatus) -> bool {
    match status.state {
        SessionState::Connecting
        | SessionState::Unreachable { .. }
        | SessionState::Waiting
        | SessionState::Live
        | SessionState::Reconnecting { .. }
        | SessionState::HostLost { .. } => true,
        SessionState::Ended { .. } | SessionState::Failed(_) => false,
    }
}
