//! The WebSocket connections between programs and the hub, and the client that keeps one open.

use std::collections::VecDeque;

use quintet::{
    conference::{HubEvent, HubRef, Input},
    model::{ClientMessage, HubMessage, HubOwner, HubPlace, HubUrl, ParticipantId},
    signalling::{LinkId, RoomsInput},
};

use super::world::{Happening, MS, SECOND, Verdict, World};

/// One WebSocket connection: reliable and in order, until it breaks.
pub(crate) struct Socket {
    pub(crate) program: usize,
    pub(crate) life: u32,
    pub(crate) hub_life: u32,
    pub(crate) client_open: bool,
    pub(crate) hub_open: bool,
    up: VecDeque<Word>,
    down: VecDeque<Word>,
    /// When the last message of each direction arrives.
    last: [u64; 2],
}

/// A message on a connection to the hub.
pub(crate) enum Word {
    Hello,
    Client(ClientMessage),
    Hub(HubMessage),
    Closed,
}

/// The signalling client of a program.
#[derive(Default)]
pub(crate) struct Client {
    /// Whether the core wants the hub.
    pub(crate) wanted: bool,
    pub(crate) socket: Option<usize>,
    /// Whether the core was notified that the hub is up.
    pub(crate) up: bool,
    pub(crate) heard: u64,
    pub(crate) attempts: u32,
    /// Until when nothing gets through to the hub or back.
    pub(crate) stalled: u64,
}

/// How often a client sends a ping.
const HEARTBEAT: u64 = 1500 * MS;

/// After how much silence a client gives up the hub.
const DEAD_AFTER: u64 = 4 * SECOND;

impl World {
    /// A program's client tries to connect to the hub.
    pub(crate) fn connect(&mut self, program: usize, life: u32) -> Verdict {
        let one = &self.programs[program];
        if one.life != life || !one.client.wanted || one.client.socket.is_some() {
            return Ok(());
        }
        if self.rooms.is_none() || self.now < one.client.stalled {
            return self.lose_hub(program, "nobody answers");
        }
        let socket = self.sockets.len();
        self.sockets.push(Socket {
            program,
            life,
            hub_life: self.hub_life,
            client_open: true,
            hub_open: true,
            up: VecDeque::new(),
            down: VecDeque::new(),
            last: [0; 2],
        });
        let now = self.now;
        let client = &mut self.programs[program].client;
        (client.socket, client.heard) = (Some(socket), now);
        self.send_up(socket, Word::Hello);
        self.at(now + HEARTBEAT, Happening::Ping { program, life });
        Ok(())
    }

    /// A client sends a ping, and checks whether the hub is silent.
    pub(crate) fn ping(&mut self, program: usize, life: u32) -> Verdict {
        let one = &self.programs[program];
        let Some(socket) = one.client.socket.filter(|_| one.life == life) else { return Ok(()) };
        if self.now - one.client.heard > DEAD_AFTER {
            self.close_socket(socket);
            return self.lose_hub(program, "the hub is silent");
        }
        self.send_up(socket, Word::Client(ClientMessage::Ping));
        self.at(self.now + HEARTBEAT, Happening::Ping { program, life });
        Ok(())
    }

    /// The client notifies its core that the hub is lost, and retries later.
    pub(crate) fn lose_hub(&mut self, program: usize, reason: &str) -> Verdict {
        let (now, life) = (self.now, self.programs[program].life);
        self.disturb(program, now);
        let client = &mut self.programs[program].client;
        (client.socket, client.up) = (None, false);
        client.attempts = (client.attempts + 1).min(4);
        let pause = (250 * MS) << client.attempts;
        let jitter = self.chance.ms(0, 200);
        self.at(now + pause + jitter, Happening::Connect { program, life });
        let event = HubEvent::Down { reason: reason.to_owned() };
        self.feed(program, Input::Hub(HubRef::Default, event))
    }

    /// A program closes its end of a connection; the hub is notified.
    pub(crate) fn close_socket(&mut self, socket: usize) {
        self.sockets[socket].client_open = false;
        self.send_up(socket, Word::Closed);
    }

    /// A connection breaks: both ends notice, and messages in transit are lost.
    pub(crate) fn cut(&mut self, program: usize) -> Verdict {
        let Some(socket) = self.programs[program].client.socket else { return Ok(()) };
        let broken = &mut self.sockets[socket];
        broken.up.clear();
        broken.down.clear();
        self.close_socket(socket);
        self.lose_hub(program, "the connection broke")
    }

    pub(crate) fn send_up(&mut self, socket: usize, message: Word) {
        self.sockets[socket].up.push_back(message);
        self.plan_arrival(socket, true);
    }

    pub(crate) fn send_down(&mut self, socket: usize, message: Word) {
        if self.sockets[socket].hub_open {
            self.sockets[socket].down.push_back(message);
            self.plan_arrival(socket, false);
        }
    }

    fn plan_arrival(&mut self, socket: usize, up: bool) {
        let (least, most) = self.plan.delay;
        let delay = self.chance.ms(least, most);
        let last = &mut self.sockets[socket].last[usize::from(up)];
        *last = (self.now + delay).max(*last);
        let at = *last;
        self.at(at, Happening::Arrive { socket, up });
    }

    /// The first message in the queue of a connection arrives, unless the path is blocked for a
    /// while.
    pub(crate) fn arrive(&mut self, socket: usize, up: bool) -> Verdict {
        let program = self.sockets[socket].program;
        let stalled = self.programs[program].client.stalled;
        if self.now < stalled {
            let delay = self.chance.ms(1, 20);
            self.at(stalled + delay, Happening::Arrive { socket, up });
            return Ok(());
        }
        let one = &mut self.sockets[socket];
        let message = if up { one.up.pop_front() } else { one.down.pop_front() };
        match message {
            Some(message) if up => self.arrive_up(socket, message),
            Some(message) => return self.arrive_down(socket, message),
            None => {}
        }
        Ok(())
    }

    fn arrive_up(&mut self, socket: usize, message: Word) {
        let one = &self.sockets[socket];
        if one.hub_life != self.hub_life || !one.hub_open {
            return;
        }
        let (connection, program) = (LinkId(socket as u64), &self.programs[one.program]);
        match message {
            Word::Hello => {
                let participant = program.participant();
                let token = program.token.clone();
                let (name, instance) = (program.name.clone(), program.instance.clone());
                let link_base = "http://10.0.0.1:7340".to_owned();
                let hello = RoomsInput::Hello {
                    link: connection,
                    participant,
                    token,
                    name,
                    instance,
                    link_base,
                    source: None,
                    is_own: false,
                };
                self.tell_hub(hello);
            }
            Word::Client(message) => {
                self.tell_hub(RoomsInput::Message { link: connection, message })
            }
            Word::Closed => {
                self.sockets[socket].hub_open = false;
                self.tell_hub(RoomsInput::Closed { link: connection });
            }
            Word::Hub(_) => {}
        }
    }

    fn arrive_down(&mut self, socket: usize, message: Word) -> Verdict {
        let (program, life) = (self.sockets[socket].program, self.sockets[socket].life);
        let now = self.now;
        let is_current = self.programs[program].client.socket == Some(socket);
        if !self.sockets[socket].client_open || !is_current || self.programs[program].life != life {
            return Ok(());
        }
        let client = &mut self.programs[program].client;
        client.heard = now;
        match message {
            Word::Hub(HubMessage::Welcome { participant, name, link_base, .. }) => {
                (client.up, client.attempts) = (true, 0);
                self.report.resumed += 1;
                let url: HubUrl = link_base.parse().map_err(|_| "the hub has no valid address")?;
                let place = HubPlace { url: url.clone(), owner: HubOwner::ThisUser };
                let event = HubEvent::Up { url, place, participant, name };
                self.feed(program, Input::Hub(HubRef::Default, event))
            }
            Word::Hub(HubMessage::LinkBase { .. } | HubMessage::Pong) => Ok(()),
            Word::Hub(message) => {
                self.programs[program].keep_key(&message);
                self.note_news(&message);
                self.feed(program, Input::Hub(HubRef::Default, HubEvent::Message(message)))
            }
            Word::Closed => {
                self.close_socket(socket);
                self.lose_hub(program, "the hub closed the connection")
            }
            Word::Hello | Word::Client(_) => Ok(()),
        }
    }

    /// The hub's process ends without notice; all connections break.
    pub(crate) fn kill_hub(&mut self) -> Verdict {
        self.rooms = None;
        self.hub_disturbed = self.now;
        for program in 0..self.programs.len() {
            self.cut(program)?;
        }
        Ok(())
    }

    /// The program of a participant, if it runs.
    pub(crate) fn program_of(&self, participant: &ParticipantId) -> Option<usize> {
        self.programs.iter().position(|one| one.participant() == *participant && one.core.is_some())
    }
}
