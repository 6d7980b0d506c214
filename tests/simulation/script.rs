//! The plan of a run: which programs open and join which sessions, and which faults occur when.

use quintet::model::{
    Direction, Media, MediaSet, MuteSwitch, PeerMedia, PerChannel, PerSource, SessionId,
    SessionKind, Topology,
};

use super::{
    program::Program,
    rng::SeededRng,
    world::{MS, SECOND},
};

/// The kinds of faults in a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Script {
    /// None: users join and leave.
    Calm,
    /// Packets between programs are lost, networks change, connections break.
    Media,
    /// Connections to the hub break and stall; the hub is killed and restarted.
    Hub,
    /// Openers leave, programs are killed and restarted, computers lose their network.
    People,
    /// All of these.
    Everything,
}

/// The plan of one run.
pub(crate) struct Plan {
    pub(crate) script: Script,
    pub(crate) programs: usize,
    /// The shortest and the longest delay of a message between a program and the hub, in
    /// milliseconds.
    pub(crate) delay: (u64, u64),
    pub(crate) sessions: Vec<Spec>,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) length: u64,
    /// How many commands of a thousand a connection refuses at random.
    pub(crate) refusals_per_mille: usize,
}

/// A session of a run.
pub(crate) struct Spec {
    pub(crate) id: SessionId,
    pub(crate) kind: SessionKind,
    pub(crate) opener: usize,
    /// Whether its opener has left it and it does not outlive its opener.
    pub(crate) closed: bool,
}

/// What a user wants of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    pub(crate) as_opener: bool,
    pub(crate) asked_at: u64,
}

/// A fault, or an action of a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A user opens or joins a session.
    Enter {
        program: usize,
        session: usize,
    },
    /// A user leaves a session.
    Leave {
        program: usize,
        session: usize,
    },
    /// A user sets a mute switch, of all sessions or of one.
    SetSwitch {
        program: usize,
        session: Option<usize>,
        switch: MuteSwitch,
        enabled: bool,
    },
    /// A user sends a text in a session.
    SendText {
        program: usize,
        session: usize,
    },
    /// A user leaves a session with undo, and may undo it some time later.
    Depart {
        program: usize,
        session: usize,
        undone_after: Option<u64>,
    },
    Undo {
        program: usize,
        session: usize,
    },
    /// A user changes the name.
    Rename {
        program: usize,
    },
    /// A program's connection to the hub breaks.
    Cut {
        program: usize,
    },
    /// Nothing gets through between a program and the hub for a while.
    Stall {
        program: usize,
        span: u64,
    },
    /// The hub's process ends and is restarted after a while.
    KillHub {
        span: u64,
    },
    StartHub,
    /// A program ends without notice, and is restarted after a while, or never.
    Kill {
        program: usize,
        span: Option<u64>,
        fresh: bool,
    },
    Start {
        program: usize,
        fresh: bool,
    },
    /// Packets between two programs are lost for a while.
    Block {
        pair: (usize, usize),
        span: u64,
    },
    /// A computer has no network for a while.
    Isolate {
        program: usize,
        span: u64,
    },
    /// A computer moves to another network: its connections need new paths.
    ChangeNetwork {
        program: usize,
    },
    /// Both ends of the connections between two programs fail at once.
    Break {
        pair: (usize, usize),
    },
}

/// The time after the last fault in which everything must recover: a seat is kept for a minute, and
/// a back-off and a new connection follow.
const RECOVERY_TIME: u64 = 140 * SECOND;

impl Plan {
    pub(crate) fn random(script: Script, rng: &mut SeededRng) -> Self {
        let programs = 2 + rng.below(4);
        let slow = rng.percent(20);
        let delay = if slow { (20, 200) } else { (1, 1 + rng.below(60) as u64 + 1) };
        let mut plan = Self {
            script,
            programs,
            delay,
            sessions: vec![],
            faults: vec![],
            length: 0,
            refusals_per_mille: 0,
        };
        for index in 0..1 + rng.below(2) {
            plan.add_random_session(index, rng);
        }
        let mut at = 20 * SECOND;
        for _ in 0..1 + rng.below(6) {
            plan.add_random_fault(at, rng);
            let pause = if rng.percent(60) { 80_000 } else { 12_000 };
            at += rng.ms(0, pause);
        }
        for _ in 0..rng.below(12) {
            plan.add_random_switch(at, rng);
        }
        for _ in 0..rng.below(30) {
            let session = rng.below(plan.sessions.len());
            let say = Fault::SendText { program: rng.below(programs), session };
            plan.faults.push((rng.ms(0, at / MS), say));
        }
        for _ in 0..rng.below(4) {
            let rename = Fault::Rename { program: rng.below(programs) };
            plan.faults.push((rng.ms(0, at / MS), rename));
        }
        let last = plan.faults.iter().map(|(at, fault)| at + fault.span()).max().unwrap_or(0);
        plan.length = last + RECOVERY_TIME;
        plan.refusals_per_mille =
            if script == Script::Everything && rng.percent(30) { 10 } else { 0 };
        plan
    }

    pub(crate) fn spec(&self, id: &SessionId) -> Option<&Spec> {
        self.sessions.iter().find(|spec| spec.id == *id)
    }

    /// The media that a connection of a session must have.
    pub(crate) fn media(&self, id: &SessionId, index: usize, _: &Program) -> Option<PeerMedia> {
        let spec = self.spec(id)?;
        let direction = match (spec.kind.topology, index == spec.opener) {
            (Topology::OneWay, true) => Direction::SendOnly,
            (Topology::OneWay, false) => Direction::RecvOnly,
            (Topology::OneToOne | Topology::OneToMany | Topology::ManyToMany, _) => {
                Direction::SendRecv
            }
        };
        let has = |media| spec.kind.media.has(media).then_some(direction);
        let data = spec.kind.media.has(Media::Data);
        Some(PeerMedia {
            sections: PerSource { camera: has(Media::Video), microphone: has(Media::Audio) },
            channels: PerChannel { chat: data },
        })
    }

    fn add_random_session(&mut self, index: usize, rng: &mut SeededRng) {
        let id = SessionId::parse(&format!("s{index}")).expect("a valid id");
        let all = MediaSet::AUDIO_VIDEO.with(Media::Data);
        let media = [MediaSet::AUDIO, MediaSet::VIDEO, MediaSet::DATA, all];
        let mesh = Topology::ManyToMany;
        let topology = if rng.percent(50) { mesh } else { Topology::ALL[rng.below(4)] };
        let kind = SessionKind { media: media[rng.below(4)], topology };
        let opener = rng.below(self.programs);
        let mut room = usize::from(kind.default_limit()) - 1;
        for program in 0..self.programs {
            if program != opener && (room == 0 || rng.percent(15)) {
                continue;
            }
            room -= usize::from(program != opener);
            // Some join late, when the session runs or a successor owns it.
            let late = program != opener && rng.percent(20);
            let at = if late { rng.ms(20_000, 60_000) } else { rng.ms(0, 4000) };
            self.faults.push((at, Fault::Enter { program, session: index }));
        }
        self.sessions.push(Spec { id, kind, opener, closed: false });
    }

    /// Sets a switch, more often to muted, and in half of the cases soon sets it again.
    fn add_random_switch(&mut self, end: u64, rng: &mut SeededRng) {
        let program = rng.below(self.programs);
        let session = rng.percent(60).then(|| rng.below(self.sessions.len()));
        let switch =
            [MuteSwitch::MICROPHONE, MuteSwitch::CAMERA, MuteSwitch::Listening][rng.below(3)];
        let at = rng.ms(0, end / MS);
        let again = rng.percent(50).then(|| at + rng.ms(0, 8000));
        for (at, percent) in [(Some(at), 40), (again, 60)] {
            let enabled = rng.percent(percent);
            let turn = Fault::SetSwitch { program, session, switch, enabled };
            self.faults.extend(at.map(|at| (at, turn)));
        }
    }

    fn add_random_fault(&mut self, at: u64, rng: &mut SeededRng) {
        let program = rng.below(self.programs);
        let other = (program + 1 + rng.below(self.programs - 1)) % self.programs;
        let pair = (program.min(other), program.max(other));
        let session = rng.below(self.sessions.len());
        let script = match self.script {
            Script::Everything => [Script::Media, Script::Hub, Script::People][rng.below(3)],
            one @ (Script::Calm | Script::Media | Script::Hub | Script::People) => one,
        };
        let fault = match (script, rng.below(4)) {
            (Script::Media, 0) => Fault::Block { pair, span: rng.ms(500, 25_000) },
            (Script::Media, 1) => Fault::ChangeNetwork { program },
            (Script::Media, _) => Fault::Break { pair },
            (Script::Hub, 0) => Fault::Cut { program },
            (Script::Hub, 1) => Fault::Stall { program, span: rng.ms(500, 15_000) },
            (Script::Hub, _) => Fault::KillHub { span: rng.ms(300, 20_000) },
            (Script::People, 0) => Fault::Isolate { program, span: rng.ms(2000, 80_000) },
            (Script::People, 1 | 2) => {
                let span = rng.percent(70).then(|| rng.ms(200, 75_000));
                Fault::Kill { program, span, fresh: rng.percent(25) }
            }
            (Script::Calm, _) if self.sessions[session].opener == program => return,
            (Script::Calm | Script::People | Script::Everything, _) => {
                let session_of = &self.sessions[session];
                let ends = session_of.opener == program && !session_of.kind.outlives_opener();
                if !ends && rng.percent(40) {
                    let undone_after = rng.percent(60).then(|| rng.ms(0, 9000));
                    self.faults.push((at, Fault::Depart { program, session, undone_after }));
                    return;
                }
                if rng.percent(40) {
                    let back = at + rng.ms(0, 20_000);
                    self.faults.push((back, Fault::Enter { program, session }));
                }
                Fault::Leave { program, session }
            }
        };
        self.faults.push((at, fault));
    }
}

impl Fault {
    /// The duration of the fault.
    pub(crate) fn span(&self) -> u64 {
        match self {
            Self::Stall { span, .. }
            | Self::KillHub { span }
            | Self::Block { span, .. }
            | Self::Isolate { span, .. } => *span,
            Self::Kill { span, .. } => span.unwrap_or(0),
            Self::Enter { .. }
            | Self::Leave { .. }
            | Self::SetSwitch { .. }
            | Self::SendText { .. }
            | Self::Depart { .. }
            | Self::Undo { .. }
            | Self::Rename { .. }
            | Self::Cut { .. }
            | Self::StartHub
            | Self::Start { .. }
            | Self::ChangeNetwork { .. }
            | Self::Break { .. } => MS,
        }
    }
}
