//! The faults of a run, and the users who request again what they want.

use quintet::{
    conference::Input,
    model::{
        Command, Departure, EndReason, ErrorCode, FailureCode, JoinTarget, OpenRequest,
        ParticipantState, PeerEvent, PeerState, SessionId, SessionState, SessionStatus, Topology,
    },
};

use super::{
    checks::{Check, Stage},
    script::{Fault, Want},
    world::{Happening, MS, SECOND, Verdict, World},
};

/// How long a user waits before requesting again what failed.
const PATIENCE: u64 = 2 * SECOND;

impl World {
    /// Applies a fault.
    pub(crate) fn strike(&mut self, fault: Fault) -> Verdict {
        self.narrate(|| format!("{fault:?}"));
        match fault {
            Fault::Ask { program, session } => self.ask(program, session),
            Fault::Leave { program, session } => self.leave(program, session),
            Fault::Turn { program, session, gate: switch, open: enabled } => {
                let session = session.map(|index| self.plan.sessions[index].id.clone());
                self.turn(program, Command::SetGate { session, gate: switch, open: enabled })
            }
            Fault::Say { program, session } => self.speak(program, session),
            Fault::Depart { program, session, undone_after } => {
                self.depart(program, session, undone_after)
            }
            Fault::Undo { program, session } => self.undo(program, session),
            Fault::Rename { program } => self.rename(program),
            Fault::Cut { program } => self.cut(program),
            Fault::Stall { program, span } => self.stall(program, span),
            Fault::KillHub { span } => {
                self.at(self.now + span, Happening::Fault(Fault::StartHub));
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
            Fault::Break { pair } => self.break_off(pair),
        }
    }

    /// Checks what each window shows. Users request again the sessions that they want and are not
    /// in.
    pub(crate) fn look_at_windows(&mut self) -> Verdict {
        for program in 0..self.programs.len() {
            if self.programs[program].core.is_none() {
                continue;
            }
            self.look_at(program)?;
            let wants: Vec<_> = self.programs[program].wants.keys().cloned().collect();
            for session in wants {
                self.insist(program, &session)?;
            }
        }
        Ok(())
    }

    fn insist(&mut self, program: usize, session: &SessionId) -> Verdict {
        let one = &self.programs[program];
        let statuses = one.snapshot().sessions;
        let status = statuses.into_iter().find(|status| status.session == *session);
        let Some(want) = one.wants.get(session).copied() else { return Ok(()) };
        if status.as_ref().is_some_and(is_on) || self.now < want.asked + PATIENCE {
            return Ok(());
        }
        let Some(spec) = self.plan.spec(session) else { return Ok(()) };
        if spec.closed {
            self.programs[program].wants.remove(session);
            return Ok(());
        }
        let taken = status.is_some_and(|status| {
            matches!(status.state, SessionState::Failed(failure)
                if failure.code == FailureCode::Hub(ErrorCode::IdTaken))
        });
        let is_taken_over = taken && spec.kind.topology == Topology::ManyToMany;
        let (id, kind, as_opener) = (spec.id.clone(), spec.kind, want.open && !is_taken_over);
        self.programs[program].wants.insert(id.clone(), Want { open: as_opener, asked: self.now });
        let command = if as_opener {
            Command::Open(OpenRequest { session: id, kind, limit: None })
        } else {
            Command::Join { target: JoinTarget { session: id, hub: None }, wait: true }
        };
        self.feed(program, Input::Command(command))
    }

    fn ask(&mut self, program: usize, session: usize) -> Verdict {
        let spec = &self.plan.sessions[session];
        let as_opener = spec.opener == program && !self.programs[program].was_in.contains(&spec.id);
        let id = spec.id.clone();
        if self.programs[program].wants.contains_key(&id) || spec.closed {
            return Ok(());
        }
        self.programs[program].was_in.insert(id.clone());
        // A user that opened a session and left it comes back as a guest of its successor.
        self.programs[program].wants.insert(id.clone(), Want { open: as_opener, asked: 0 });
        if self.programs[program].core.is_some() { self.insist(program, &id) } else { Ok(()) }
    }

    /// A user leaves a joined session, and may undo it.
    fn depart(&mut self, program: usize, session: usize, undone_after: Option<u64>) -> Verdict {
        let id = self.plan.sessions[session].id.clone();
        let is_in = self.has(program, &id);
        let one = &mut self.programs[program];
        let Some(want) = one.wants.get(&id).copied().filter(|_| is_in) else { return Ok(()) };
        one.wants.remove(&id);
        one.parted.insert(id.clone(), want);
        one.left = self.now;
        if let Some(span) = undone_after {
            let undo = Happening::Fault(Fault::Undo { program, session });
            self.at(self.now + span, undo);
        }
        self.feed(program, Input::Command(Command::Depart(Departure::Leave(id))))
    }

    /// A user undoes leaving, unless it is too late. The session must be there as before.
    fn undo(&mut self, program: usize, session: usize) -> Verdict {
        let id = self.plan.sessions[session].id.clone();
        let departure = self.programs[program].snapshot().departure;
        let is_there = |one: &SessionStatus| one.session == id;
        if !departure.is_some_and(|departure| departure.sessions.iter().any(is_there)) {
            return Ok(());
        }
        let Some(want) = self.programs[program].parted.remove(&id) else { return Ok(()) };
        self.report.undone += 1;
        self.programs[program].wants.insert(id.clone(), want);
        let start = self.now;
        let check = Check::Undone { program, session: id, start };
        self.at(start + SECOND / 10, Happening::Check(check));
        self.feed(program, Input::Command(Command::Undo))
    }

    /// A user changes the name, if the program runs.
    fn rename(&mut self, program: usize) -> Verdict {
        if self.programs[program].core.is_none() {
            return Ok(());
        }
        self.report.renames += 1;
        let name = format!("{}'", self.programs[program].name);
        self.feed(program, Input::Command(Command::Rename { name }))
    }

    /// A user sets a mute switch that is shown.
    fn turn(&mut self, program: usize, command: Command) -> Verdict {
        let sessions = self.programs[program].snapshot().sessions;
        let is_there = |id: &SessionId| sessions.iter().any(|one| one.session == *id);
        if self.programs[program].core.is_none() || !command.session().is_none_or(is_there) {
            return Ok(());
        }
        self.report.turns += 1;
        self.feed(program, Input::Command(command))
    }

    fn leave(&mut self, program: usize, session: usize) -> Verdict {
        let spec = &mut self.plan.sessions[session];
        let id = spec.id.clone();
        if self.programs[program].wants.remove(&id).is_none() {
            return Ok(());
        }
        self.programs[program].left = self.now;
        let ends = spec.opener == program && !spec.kind.outlives_opener();
        spec.closed |= ends;
        if self.programs[program].core.is_none() {
            return Ok(());
        }
        if ends && self.is_calm(program) {
            let start = self.now;
            let is_in = |one: &usize| self.is_calm(*one) && self.has(*one, &id);
            let others = (0..self.programs.len()).filter(|one| *one != program);
            let witnesses = others.filter(is_in).collect();
            let reason = EndReason::OpenerLeft;
            let check = Check::Ended { session: id.clone(), reason, start, witnesses };
            self.at(start + SECOND, Happening::Check(check));
        }
        let is_known =
            self.programs[program].snapshot().sessions.iter().any(|one| one.session == id);
        if !is_known {
            return Ok(());
        }
        self.feed(program, Input::Command(Command::Leave { session: id }))
    }

    /// Schedules the check that a leaver is gone for all others within a second.
    pub(crate) fn note_leaving(&mut self, program: usize, session: &SessionId) {
        if !self.is_calm(program) {
            return;
        }
        let (participant, session) = (self.programs[program].participant(), session.clone());
        let in_it = |one: &usize| self.is_calm(*one) && self.has(*one, &session);
        let witnesses = (0..self.programs.len()).filter(in_it).collect();
        let start = self.now;
        let check = Check::Left { who: participant, session, start, witnesses };
        self.at(start + SECOND, Happening::Check(check));
    }

    fn stall(&mut self, program: usize, span: u64) -> Verdict {
        let until = self.now + span;
        self.disturb(program, until);
        let stalled = &mut self.programs[program].client.stalled;
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
            self.plan_silence(program, Some(span));
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
            self.plan_silence(program, span);
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
            self.at(self.now + span, Happening::Fault(Fault::Start { program, fresh }));
        }
        Ok(())
    }

    fn start(&mut self, program: usize, fresh: bool) -> Verdict {
        if self.programs[program].core.is_some() {
            return Ok(());
        }
        self.disturb(program, self.now);
        if fresh && self.chance.percent(50) {
            self.programs[program].keys.clear();
        }
        self.programs[program].start(fresh, &mut self.chance);
        Ok(())
    }

    /// Schedules the checks that a silence is noticed in time by every program that shows the
    /// silent participant as live now.
    fn plan_silence(&mut self, program: usize, span: Option<u64>) {
        let (participant, start) = (self.programs[program].participant(), self.now);
        let mut witnesses = vec![];
        let mut orphans = vec![];
        for other in (0..self.programs.len()).filter(|one| *one != program && self.is_calm(*one)) {
            for spec in &self.plan.sessions {
                let wants = self.programs[program].wants.contains_key(&spec.id)
                    && self.has(other, &spec.id);
                let shown = self.shown(other, &spec.id, &participant).filter(|_| wants);
                if shown.is_some_and(|(state, _)| state == ParticipantState::Live) {
                    let lives_on = spec.opener != program || spec.kind.outlives_opener();
                    let list = if lives_on { &mut witnesses } else { &mut orphans };
                    list.push((other, spec.id.clone()));
                }
            }
        }
        let all: Vec<_> = witnesses.iter().chain(&orphans).cloned().collect();
        let stages = [
            (Stage::Reconnecting, 5 * SECOND, &all),
            (Stage::Gone, 10 * SECOND + 700 * MS, &all),
            (Stage::SeatKept, 57 * SECOND, &all),
            (Stage::Out, 62 * SECOND, &witnesses),
        ];
        for (expected, after, witnesses) in stages {
            if span.is_none_or(|span| span > after) {
                let (participant, witnesses) = (participant.clone(), witnesses.clone());
                let check = Check::Silent { who: participant, stage: expected, start, witnesses };
                self.at(start + after, Happening::Check(check));
            }
        }
        for (witness, session) in orphans {
            if span.is_none_or(|span| span > 62 * SECOND) {
                let check = Check::Awaited { session, start, witness };
                self.at(start + 62 * SECOND, Happening::Check(check));
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
                let other = one.remote.map(|uid| self.connections[uid as usize].node);
                one.state == PeerState::Connected && other.is_some_and(|one| self.is_calm(one))
            });
            flowing.map(|(peer, at)| (*peer, *at)).collect()
        } else {
            vec![]
        };
        self.disturb(program, start);
        let check = Check::Survived { program, start, peers };
        self.at(start + 9500 * MS, Happening::Check(check));
        Ok(())
    }

    /// Both ends of the connections of a pair fail at about the same time, so that both make an
    /// offer.
    fn break_off(&mut self, pair: (usize, usize)) -> Verdict {
        let calm = self.is_calm(pair.0) && self.is_calm(pair.1);
        let start = self.now;
        let mut was = vec![];
        for index in 0..self.connections.len() {
            let one = &self.connections[index];
            let other = one.remote.map(|uid| &self.connections[uid as usize]);
            let between = other.is_some_and(|other| {
                (one.node.min(other.node), one.node.max(other.node)) == pair && other.is_open
            });
            if between && one.is_open && one.state == PeerState::Connected {
                was.push(index);
            }
        }
        self.disturb(pair.0, start);
        self.disturb(pair.1, start);
        for index in &was {
            self.connections[*index].state = PeerState::Failed;
            let delay = self.chance.ms(0, 60);
            let event = PeerEvent::State(PeerState::Failed);
            self.at(start + delay, Happening::Tell { connection: *index, event });
        }
        if calm {
            let check = Check::Mended { pair, start, was };
            self.at(start + 6 * SECOND, Happening::Check(check));
        }
        Ok(())
    }

    /// Whether a program is in a session that its hub has.
    pub(crate) fn has(&self, program: usize, session: &SessionId) -> bool {
        let sessions = self.programs[program].snapshot().sessions;
        sessions.iter().any(|one| one.session == *session && one.state == SessionState::Live)
    }
}

fn is_on(status: &SessionStatus) -> bool {
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
