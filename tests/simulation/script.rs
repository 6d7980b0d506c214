//! What happens in a run: who opens and joins what, and which faults strike when.

use quintet::model::{
    Direction, Gate, Media, MediaSet, PeerMedia, SessionId, SessionKind, Topology,
};

use super::{
    chance::Chance,
    program::Program,
    world::{MS, SECOND},
};

/// What kind of trouble a run has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Script {
    /// None: people come and go.
    Calm,
    /// Packets between programs are lost, networks change, connections break.
    Media,
    /// Links to the hub break and stall; the hub is killed and started again.
    Hub,
    /// Openers leave, programs are killed and started again, computers lose their network.
    People,
    /// All of it.
    Everything,
}

/// One run.
pub(crate) struct Plan {
    pub(crate) script: Script,
    pub(crate) programs: usize,
    /// Of a word between a program and the hub, in milliseconds.
    pub(crate) delay: (u64, u64),
    pub(crate) sessions: Vec<Spec>,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) length: u64,
    /// Steps of a thousand that a connection refuses for no reason.
    pub(crate) mishaps: usize,
}

/// A session that is opened.
pub(crate) struct Spec {
    pub(crate) id: SessionId,
    pub(crate) kind: SessionKind,
    pub(crate) opener: usize,
    /// Whether its opener has left a session that does not outlive it.
    pub(crate) closed: bool,
}

/// What a person wants of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Want {
    pub(crate) open: bool,
    pub(crate) asked: u64,
}

/// Something that strikes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// A person opens or joins a session.
    Ask {
        program: usize,
        session: usize,
    },
    /// A person leaves a session.
    Leave {
        program: usize,
        session: usize,
    },
    /// A person turns a switch, of all sessions or of one.
    Turn {
        program: usize,
        session: Option<usize>,
        gate: Gate,
        open: bool,
    },
    /// A person says something in a session.
    Say {
        program: usize,
        session: usize,
    },
    /// A person leaves a session so that it can be undone, and may do so some time later.
    Depart {
        program: usize,
        session: usize,
        undone_after: Option<u64>,
    },
    Undo {
        program: usize,
        session: usize,
    },
    /// A person takes another name.
    Rename {
        program: usize,
    },
    /// A program's link to the hub breaks.
    Cut {
        program: usize,
    },
    /// Nothing gets through between a program and the hub for a while.
    Stall {
        program: usize,
        span: u64,
    },
    /// The hub's process ends, and is started again after a while.
    KillHub {
        span: u64,
    },
    StartHub,
    /// A program ends without a word, and is started again after a while, or never.
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
    /// A computer is in another network: its connections need new paths.
    ChangeNetwork {
        program: usize,
    },
    /// Both ends of the connections between two programs give up at once.
    Break {
        pair: (usize, usize),
    },
}

/// After the last fault everything has this long to become right again: a seat is kept for a
/// minute, and a back-off and a connection come after.
const QUIET: u64 = 140 * SECOND;

impl Plan {
    pub(crate) fn draw(script: Script, chance: &mut Chance) -> Self {
        let programs = 2 + chance.below(4);
        let slow = chance.percent(20);
        let delay = if slow { (20, 200) } else { (1, 1 + chance.below(60) as u64 + 1) };
        let mut plan = Self {
            script,
            programs,
            delay,
            sessions: vec![],
            faults: vec![],
            length: 0,
            mishaps: 0,
        };
        for index in 0..1 + chance.below(2) {
            plan.draw_session(index, chance);
        }
        let mut at = 20 * SECOND;
        for _ in 0..1 + chance.below(6) {
            plan.draw_fault(at, chance);
            let pause = if chance.percent(60) { 80_000 } else { 12_000 };
            at += chance.ms(0, pause);
        }
        for _ in 0..chance.below(12) {
            plan.draw_turn(at, chance);
        }
        for _ in 0..chance.below(30) {
            let session = chance.below(plan.sessions.len());
            let say = Fault::Say { program: chance.below(programs), session };
            plan.faults.push((chance.ms(0, at / MS), say));
        }
        for _ in 0..chance.below(4) {
            let rename = Fault::Rename { program: chance.below(programs) };
            plan.faults.push((chance.ms(0, at / MS), rename));
        }
        let last = plan.faults.iter().map(|(at, fault)| at + fault.span()).max().unwrap_or(0);
        plan.length = last + QUIET;
        plan.mishaps = if script == Script::Everything && chance.percent(30) { 10 } else { 0 };
        plan
    }

    pub(crate) fn spec(&self, id: &SessionId) -> Option<&Spec> {
        self.sessions.iter().find(|spec| spec.id == *id)
    }

    /// The media that a connection of a session must have.
    pub(crate) fn media(&self, id: &SessionId, index: usize, _: &Program) -> Option<PeerMedia> {
        let spec = self.spec(id)?;
        let way = match (spec.kind.topology, index == spec.opener) {
            (Topology::OneWay, true) => Direction::SendOnly,
            (Topology::OneWay, false) => Direction::RecvOnly,
            (Topology::OneToOne | Topology::OneToMany | Topology::ManyToMany, _) => {
                Direction::SendRecv
            }
        };
        let has = |media| spec.kind.media.has(media).then_some(way);
        let data = spec.kind.media.has(Media::Data);
        Some(PeerMedia { audio: has(Media::Audio), video: has(Media::Video), data })
    }

    fn draw_session(&mut self, index: usize, chance: &mut Chance) {
        let id = SessionId::parse(&format!("s{index}")).expect("a plain id");
        let all = MediaSet::AUDIO_VIDEO.with(Media::Data);
        let media = [MediaSet::AUDIO, MediaSet::VIDEO, MediaSet::DATA, all];
        let favourite = Topology::ManyToMany;
        let topology = if chance.percent(50) { favourite } else { Topology::ALL[chance.below(4)] };
        let kind = SessionKind { media: media[chance.below(4)], topology };
        let opener = chance.below(self.programs);
        let mut room = usize::from(kind.default_limit()) - 1;
        for program in 0..self.programs {
            if program != opener && (room == 0 || chance.percent(15)) {
                continue;
            }
            room -= usize::from(program != opener);
            // Some come late: newcomers to what is running, or to what an heir has.
            let late = program != opener && chance.percent(20);
            let at = if late { chance.ms(20_000, 60_000) } else { chance.ms(0, 4000) };
            self.faults.push((at, Fault::Ask { program, session: index }));
        }
        self.sessions.push(Spec { id, kind, opener, closed: false });
    }

    /// A switch is turned: rather closed, and in half of the cases soon opened again or closed anew.
    fn draw_turn(&mut self, end: u64, chance: &mut Chance) {
        let program = chance.below(self.programs);
        let session = chance.percent(60).then(|| chance.below(self.sessions.len()));
        let gate = [Gate::Microphone, Gate::Camera, Gate::Listening][chance.below(3)];
        let at = chance.ms(0, end / MS);
        let again = chance.percent(50).then(|| at + chance.ms(0, 8000));
        for (at, likely) in [(Some(at), 40), (again, 60)] {
            let open = chance.percent(likely);
            let turn = Fault::Turn { program, session, gate, open };
            self.faults.extend(at.map(|at| (at, turn)));
        }
    }

    fn draw_fault(&mut self, at: u64, chance: &mut Chance) {
        let program = chance.below(self.programs);
        let other = (program + 1 + chance.below(self.programs - 1)) % self.programs;
        let pair = (program.min(other), program.max(other));
        let session = chance.below(self.sessions.len());
        let script = match self.script {
            Script::Everything => [Script::Media, Script::Hub, Script::People][chance.below(3)],
            one @ (Script::Calm | Script::Media | Script::Hub | Script::People) => one,
        };
        let fault = match (script, chance.below(4)) {
            (Script::Media, 0) => Fault::Block { pair, span: chance.ms(500, 25_000) },
            (Script::Media, 1) => Fault::ChangeNetwork { program },
            (Script::Media, _) => Fault::Break { pair },
            (Script::Hub, 0) => Fault::Cut { program },
            (Script::Hub, 1) => Fault::Stall { program, span: chance.ms(500, 15_000) },
            (Script::Hub, _) => Fault::KillHub { span: chance.ms(300, 20_000) },
            (Script::People, 0) => Fault::Isolate { program, span: chance.ms(2000, 80_000) },
            (Script::People, 1 | 2) => {
                let span = chance.percent(70).then(|| chance.ms(200, 75_000));
                Fault::Kill { program, span, fresh: chance.percent(25) }
            }
            (Script::Calm, _) if self.sessions[session].opener == program => return,
            (Script::Calm | Script::People | Script::Everything, _) => {
                let session_of = &self.sessions[session];
                let ends = session_of.opener == program && !session_of.kind.outlives_opener();
                if !ends && chance.percent(40) {
                    let undone_after = chance.percent(60).then(|| chance.ms(0, 9000));
                    self.faults.push((at, Fault::Depart { program, session, undone_after }));
                    return;
                }
                if chance.percent(40) {
                    let back = at + chance.ms(0, 20_000);
                    self.faults.push((back, Fault::Ask { program, session }));
                }
                Fault::Leave { program, session }
            }
        };
        self.faults.push((at, fault));
    }
}

impl Fault {
    /// How long it lasts.
    pub(crate) fn span(&self) -> u64 {
        match self {
            Self::Stall { span, .. }
            | Self::KillHub { span }
            | Self::Block { span, .. }
            | Self::Isolate { span, .. } => *span,
            Self::Kill { span, .. } => span.unwrap_or(0),
            Self::Ask { .. }
            | Self::Leave { .. }
            | Self::Turn { .. }
            | Self::Say { .. }
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
