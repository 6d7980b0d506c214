//! Virtual time: programs with their cores, the hub's rooms, and the connections between them.

use std::collections::BTreeMap;

use quintet::{
    model::{DescriptionKind, MediaTime, PeerEvent},
    signalling::{Rooms, RoomsInput},
};

use super::{
    chat::Chats,
    checks::Check,
    connection::Connection,
    mutant::Mutant,
    program::Program,
    rng::SeededRng,
    script::{Fault, Plan, Script},
    sockets::{Socket, SocketMessage},
};

/// An error says what went wrong.
pub(crate) type Verdict = Result<(), String>;

pub(crate) const MS: u64 = 1000;
pub(crate) const SECOND: u64 = 1000 * MS;

/// How often the state of peer connections is updated.
const TICK: u64 = 100 * MS;

/// After how many ticks the windows are checked.
const WINDOW_CHECK_EVERY: u64 = 5;

/// The state of one run.
pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) rng: SeededRng,
    pub(crate) plan: Plan,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) programs: Vec<Program>,
    pub(crate) rooms: Option<Rooms>,
    /// The number of times that the hub was started.
    pub(crate) hub_life: u32,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) connections: Vec<Connection>,
    /// Until when packets between two programs are lost.
    pub(crate) blocked: BTreeMap<(usize, usize), u64>,
    /// When the hub was last disturbed.
    pub(crate) hub_disturbed: u64,
    pub(crate) chats: Chats,
    pub(crate) report: Report,
    /// Whether each step is printed, as it is when a single seed runs.
    is_verbose: bool,
    queue: BTreeMap<(u64, u64), ScheduledEvent>,
    count: u64,
}

/// An event that is scheduled for a certain time.
pub(crate) enum ScheduledEvent {
    Tick,
    /// The first message in the queue of a connection to the hub arrives: at the hub (`up`), or at
    /// the program.
    Arrive {
        socket: usize,
        up: bool,
    },
    /// A program's client tries to connect.
    Connect {
        program: usize,
        life: u32,
    },
    Ping {
        program: usize,
        life: u32,
    },
    /// A peer connection carries out its next command.
    RunCommand {
        connection: usize,
    },
    /// A peer connection sends an event to its core.
    PeerEvent {
        connection: usize,
        event: PeerEvent,
    },
    Fault(Fault),
    Check(Check),
}

/// Counts of what happened, so that a run that proves nothing is noticed.
#[derive(Default, Debug)]
pub(crate) struct Report {
    pub(crate) pairs: usize,
    pub(crate) rollbacks: usize,
    pub(crate) restarts: usize,
    pub(crate) peers_closed: usize,
    pub(crate) successions: usize,
    pub(crate) resumed: usize,
    pub(crate) ended_by_opener: usize,
    pub(crate) checks: usize,
    pub(crate) switches: usize,
    pub(crate) texts_received: usize,
    pub(crate) renames: usize,
    pub(crate) awaited: usize,
    pub(crate) undone: usize,
}

impl World {
    /// Runs a seed to its end.
    pub(crate) fn run(seed: u64, script: Script, mutant: Option<Mutant>) -> Result<Report, String> {
        let mut rng = SeededRng::new(seed ^ (script as u64) << 56);
        let plan = Plan::random(script, &mut rng);
        let mut world = Self::new(rng, plan, mutant);
        world.run_to_end()?;
        world.check_end()?;
        Ok(world.report)
    }

    fn new(mut rng: SeededRng, plan: Plan, mutant: Option<Mutant>) -> Self {
        let programs = (0..plan.programs).map(|index| Program::new(index, &mut rng)).collect();
        let mut world = Self {
            now: 20 * SECOND,
            rng,
            plan,
            mutant,
            programs,
            rooms: None,
            hub_life: 0,
            sockets: vec![],
            connections: vec![],
            blocked: BTreeMap::new(),
            hub_disturbed: 0,
            chats: Chats::default(),
            report: Report::default(),
            is_verbose: std::env::var_os("QUINTET_SEED").is_some(),
            queue: BTreeMap::new(),
            count: 0,
        };
        world.start_hub();
        world.schedule(world.now, ScheduledEvent::Tick);
        for (at, fault) in std::mem::take(&mut world.plan.faults) {
            world.schedule(world.now + at, ScheduledEvent::Fault(fault));
        }
        world
    }

    fn run_to_end(&mut self) -> Verdict {
        let end = self.now + self.plan.length;
        loop {
            let queued = self.queue.keys().next().map(|(at, _)| *at);
            let cores = self.programs.iter().filter_map(Program::deadline).min();
            let rooms = self.rooms.as_ref().and_then(Rooms::poll_timeout);
            let rooms = rooms.map(|(at, _)| at.as_micros());
            let Some(next) = [queued, cores, rooms].into_iter().flatten().min() else {
                return Ok(());
            };
            if next > end {
                self.now = end;
                return Ok(());
            }
            self.now = self.now.max(next);
            if rooms.is_some_and(|at| at <= self.now) {
                self.rooms_timeout();
            }
            for program in 0..self.programs.len() {
                if self.programs[program].deadline().is_some_and(|at| at <= self.now) {
                    self.core_timeout(program)?;
                }
            }
            while let Some(entry) = self.queue.first_entry() {
                if entry.key().0 > self.now {
                    break;
                }
                let happening = entry.remove();
                self.run_event(happening)?;
            }
        }
    }

    /// Prints one step.
    pub(crate) fn trace(&self, line: impl FnOnce() -> String) {
        if self.is_verbose {
            println!("{:>8.3} {}", self.now as f64 / SECOND as f64, line());
        }
    }

    /// Schedules an event.
    pub(crate) fn schedule(&mut self, at: u64, happening: ScheduledEvent) {
        self.count += 1;
        self.queue.insert((at, self.count), happening);
    }

    fn run_event(&mut self, happening: ScheduledEvent) -> Verdict {
        match happening {
            ScheduledEvent::Tick => {
                self.schedule(self.now + TICK, ScheduledEvent::Tick);
                self.update_connections()?;
                let looks = (self.now / TICK).is_multiple_of(WINDOW_CHECK_EVERY);
                if looks { self.check_windows() } else { Ok(()) }
            }
            ScheduledEvent::Arrive { socket, up } => self.arrive(socket, up),
            ScheduledEvent::Connect { program, life } => self.connect(program, life),
            ScheduledEvent::Ping { program, life } => self.ping(program, life),
            ScheduledEvent::RunCommand { connection } => self.run_command(connection),
            ScheduledEvent::PeerEvent { connection, event } => self.peer_event(connection, event),
            ScheduledEvent::Fault(fault) => self.apply(fault),
            ScheduledEvent::Check(check) => {
                self.report.checks += 1;
                self.run_check(check)
            }
        }
    }

    /// Starts the hub without sessions.
    pub(crate) fn start_hub(&mut self) {
        self.hub_life += 1;
        let mut secrets = SeededRng::new(self.rng.bits());
        let secret = move || quintet::model::Secret::from_random(secrets.bytes());
        self.rooms = Some(Rooms::new(secret));
    }

    /// Passes an input to the hub, and delivers its messages.
    pub(crate) fn handle_at_hub(&mut self, input: RoomsInput) {
        if let Some(rooms) = &mut self.rooms {
            rooms.handle(input, MediaTime::from_micros(self.now));
            self.drain_rooms();
        }
    }

    fn rooms_timeout(&mut self) {
        if let Some(rooms) = &mut self.rooms {
            rooms.handle_timeout(MediaTime::from_micros(self.now));
            self.drain_rooms();
        }
    }

    fn drain_rooms(&mut self) {
        while let Some(output) = self.rooms.as_mut().and_then(Rooms::poll_output) {
            match output {
                quintet::signalling::RoomsOutput::Send { connections, message } => {
                    for connection in connections {
                        self.send_down(connection.0 as usize, SocketMessage::Hub(message.clone()));
                    }
                }
                quintet::signalling::RoomsOutput::Disconnect { connection, .. } => {
                    self.send_down(connection.0 as usize, SocketMessage::Closed);
                    self.sockets[connection.0 as usize].hub_is_open = false;
                }
            }
        }
    }

    /// Updates each connection's state from whether packets get through.
    fn update_connections(&mut self) -> Verdict {
        for index in 0..self.connections.len() {
            if !self.connections[index].is_open {
                continue;
            }
            let flows = self.flows(index);
            let one = &mut self.connections[index];
            if one.flows != flows {
                (one.flows, one.flow_changed_at) = (flows, self.now);
            }
            let quiet = self.now - one.flow_changed_at;
            if let Some(state) = super::checks::next_state(one, quiet) {
                one.state = state;
                self.peer_event(index, PeerEvent::State(state))?;
            }
            self.update_channel(index)?;
        }
        Ok(())
    }

    /// Whether packets get through between a connection and its other end.
    pub(crate) fn flows(&self, index: usize) -> bool {
        let one = &self.connections[index];
        let Some(other) = one.remote.map(|uid| &self.connections[uid as usize]) else {
            return false;
        };
        let networks = (self.programs[one.program].network, self.programs[other.program].network);
        let pair = (one.program.min(other.program), one.program.max(other.program));
        let blocked = self.blocked.get(&pair).is_some_and(|until| self.now < *until);
        !blocked && one.is_negotiated_with(other, networks)
    }

    fn run_command(&mut self, index: usize) -> Verdict {
        let mishap =
            self.plan.refusals_per_mille > 0 && self.rng.below(1000) < self.plan.refusals_per_mille;
        let network = self.programs[self.connections[index].program].network;
        let one = &mut self.connections[index];
        if !one.is_open {
            return Ok(());
        }
        let outcome = one.run_next_command(network, mishap)?;
        let (uid, more, node) = (one.uid, !one.queue.is_empty(), one.program);
        if more {
            self.schedule_command(index);
        }
        if mishap {
            let until = self.now + 40 * SECOND;
            self.disturb_with_peers(node, until);
        }
        if outcome.gathers {
            for (delay, event) in super::connection::gathered(uid, &mut self.rng) {
                self.schedule(
                    self.now + delay,
                    ScheduledEvent::PeerEvent { connection: index, event },
                );
            }
        }
        let Some(event) = outcome.event else { return Ok(()) };
        let is_answered = matches!(
            event,
            PeerEvent::Applied { .. }
                | PeerEvent::LocalDescription { kind: DescriptionKind::Answer, .. }
        );
        self.peer_event(index, event)?;
        match self.connections[index].agreement().filter(|_| is_answered) {
            Some(agreement) => self.peer_event(index, agreement),
            None => Ok(()),
        }
    }

    /// Schedules the next command of a connection.
    pub(crate) fn schedule_command(&mut self, index: usize) {
        let slow = self.rng.percent(5);
        let delay = if slow { self.rng.ms(20, 400) } else { self.rng.ms(1, 30) };
        self.schedule(self.now + delay, ScheduledEvent::RunCommand { connection: index });
    }

    /// Marks a program and all programs that it is connected to as disturbed until then.
    pub(crate) fn disturb_with_peers(&mut self, node: usize, until: u64) {
        for other in 0..self.programs.len() {
            let peers = self.connections.iter().any(|one| {
                let towards = one.remote.map(|uid| self.connections[uid as usize].program);
                one.program == node && towards == Some(other)
            });
            if other == node || peers {
                self.disturb(other, until);
            }
        }
    }

    pub(crate) fn disturb(&mut self, node: usize, until: u64) {
        let disturbed = &mut self.programs[node].disturbed_until;
        *disturbed = (*disturbed).max(until);
    }
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.pairs += other.pairs;
        self.rollbacks += other.rollbacks;
        self.restarts += other.restarts;
        self.peers_closed += other.peers_closed;
        self.successions += other.successions;
        self.resumed += other.resumed;
        self.ended_by_opener += other.ended_by_opener;
        self.checks += other.checks;
        self.switches += other.switches;
        self.texts_received += other.texts_received;
        self.renames += other.renames;
        self.awaited += other.awaited;
        self.undone += other.undone;
    }
}
