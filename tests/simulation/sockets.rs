//! The WebSocket connections between programs and the hub, and the client that keeps one open.

use std::collections::VecDeque;

use quintet::{
    conference::{HubEvent, HubNews, HubRef, Input},
    model::{ClientMessage, HubEndpoint, HubMessage, HubOwner, HubUrl, ParticipantId},
    signalling::{ConnectionId, RoomsInput},
};

use super::world::{MS, SECOND, ScheduledEvent, Verdict, World};

/// One WebSocket connection: reliable and in order, until it breaks.
pub(crate) struct Socket {
    pub(crate) program: usize,
    pub(crate) life: u32,
    pub(crate) hub_life: u32,
    pub(crate) client_is_open: bool,
    pub(crate) hub_is_open: bool,
    up: VecDeque<SocketMessage>,
    down: VecDeque<SocketMessage>,
    /// When the last message of each direction arrives.
    last_arrival: [u64; 2],
}

/// A message on a connection to the hub.
pub(crate) enum SocketMessage {
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
    pub(crate) is_up: bool,
    pub(crate) last_received: u64,
    pub(crate) attempts: u32,
    /// Until when nothing gets through to the hub or back.
    pub(crate) stalled_until: u64,
}

/// How often a client sends a ping.
const HEARTBEAT: u64 = 1500 * MS;

/// After how much silence a client gives up the hub.
const HUB_TIMEOUT: u64 = 4 * SECOND;

impl World {
    /// A program's client tries to connect to the hub.
    pub(crate) fn connect(&mut self, program: usize, life: u32) -> Verdict {
        let one = &self.programs[program];
        if one.life != life || !one.client.wanted || one.client.socket.is_some() {
            return Ok(());
        }
        if self.rooms.is_none() || self.now < one.client.stalled_until {
            return self.lose_hub(program, "nobody answers");
        }
        let socket = self.sockets.len();
        self.sockets.push(Socket {
            program,
            life,
            hub_life: self.hub_life,
            client_is_open: true,
            hub_is_open: true,
            up: VecDeque::new(),
            down: VecDeque::new(),
            last_arrival: [0; 2],
        });
        let now = self.now;
        let client = &mut self.programs[program].client;
        (client.socket, client.last_received) = (Some(socket), now);
        self.send_up(socket, SocketMessage::Hello);
        self.schedule(now + HEARTBEAT, ScheduledEvent::Ping { program, life });
        Ok(())
    }

    /// A client sends a ping, and checks whether the hub is silent.
    pub(crate) fn ping(&mut self, program: usize, life: u32) -> Verdict {
        let one = &self.programs[program];
        let Some(socket) = one.client.socket.filter(|_| one.life == life) else { return Ok(()) };
        if self.now - one.client.last_received > HUB_TIMEOUT {
            self.close_socket(socket);
            return self.lose_hub(program, "the hub is silent");
        }
        self.send_up(socket, SocketMessage::Client(ClientMessage::Ping));
        self.schedule(self.now + HEARTBEAT, ScheduledEvent::Ping { program, life });
        Ok(())
    }

    /// The client notifies its core that the hub is lost, and retries later.
    pub(crate) fn lose_hub(&mut self, program: usize, reason: &str) -> Verdict {
        let (now, life) = (self.now, self.programs[program].life);
        self.disturb(program, now);
        let client = &mut self.programs[program].client;
        (client.socket, client.is_up) = (None, false);
        client.attempts = (client.attempts + 1).min(4);
        let pause = (250 * MS) << client.attempts;
        let jitter = self.rng.ms(0, 200);
        self.schedule(now + pause + jitter, ScheduledEvent::Connect { program, life });
        let event = HubEvent::Down { reason: reason.to_owned() };
        self.handle_input(program, Input::Hub(HubRef::Default, event))
    }

    /// A program closes its end of a connection; the hub is notified.
    pub(crate) fn close_socket(&mut self, socket: usize) {
        self.sockets[socket].client_is_open = false;
        self.send_up(socket, SocketMessage::Closed);
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

    pub(crate) fn send_up(&mut self, socket: usize, message: SocketMessage) {
        self.sockets[socket].up.push_back(message);
        self.schedule_arrival(socket, true);
    }

    pub(crate) fn send_down(&mut self, socket: usize, message: SocketMessage) {
        if self.sockets[socket].hub_is_open {
            self.sockets[socket].down.push_back(message);
            self.schedule_arrival(socket, false);
        }
    }

    fn schedule_arrival(&mut self, socket: usize, up: bool) {
        let (least, most) = self.plan.delay;
        let delay = self.rng.ms(least, most);
        let last = &mut self.sockets[socket].last_arrival[usize::from(up)];
        *last = (self.now + delay).max(*last);
        let at = *last;
        self.schedule(at, ScheduledEvent::Arrive { socket, up });
    }

    /// The first message in the queue of a connection arrives, unless the path is blocked for a
    /// while.
    pub(crate) fn arrive(&mut self, socket: usize, up: bool) -> Verdict {
        let program = self.sockets[socket].program;
        let stalled = self.programs[program].client.stalled_until;
        if self.now < stalled {
            let delay = self.rng.ms(1, 20);
            self.schedule(stalled + delay, ScheduledEvent::Arrive { socket, up });
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

    fn arrive_up(&mut self, socket: usize, message: SocketMessage) {
        let one = &self.sockets[socket];
        if one.hub_life != self.hub_life || !one.hub_is_open {
            return;
        }
        let (connection, program) = (ConnectionId(socket as u64), &self.programs[one.program]);
        match message {
            SocketMessage::Hello => {
                let participant = program.participant();
                let token = program.token.clone();
                let (name, instance) = (program.name.clone(), program.instance.clone());
                let link_base = "http://10.0.0.1:7340".to_owned();
                let hello = RoomsInput::Hello {
                    connection,
                    participant,
                    token,
                    name,
                    instance,
                    link_base,
                    source: None,
                    is_own: false,
                };
                self.handle_at_hub(hello);
            }
            SocketMessage::Client(message) => {
                self.handle_at_hub(RoomsInput::Message { connection, message })
            }
            SocketMessage::Closed => {
                self.sockets[socket].hub_is_open = false;
                self.handle_at_hub(RoomsInput::Closed { connection });
            }
            SocketMessage::Hub(_) => {}
        }
    }

    fn arrive_down(&mut self, socket: usize, message: SocketMessage) -> Verdict {
        let (program, life) = (self.sockets[socket].program, self.sockets[socket].life);
        let now = self.now;
        let is_current = self.programs[program].client.socket == Some(socket);
        if !self.sockets[socket].client_is_open
            || !is_current
            || self.programs[program].life != life
        {
            return Ok(());
        }
        let client = &mut self.programs[program].client;
        client.last_received = now;
        match message {
            SocketMessage::Hub(HubMessage::Welcome { participant, name, link_base, .. }) => {
                (client.is_up, client.attempts) = (true, 0);
                self.report.resumed += 1;
                let url: HubUrl = link_base.parse().map_err(|_| "the hub has no valid address")?;
                let place = HubEndpoint { url: url.clone(), owner: HubOwner::ThisUser };
                let instance = self.programs[program].instance.clone();
                let event = HubEvent::Up { url, endpoint: place, participant, instance, name };
                self.handle_input(program, Input::Hub(HubRef::Default, event))
            }
            SocketMessage::Hub(HubMessage::LinkBase { .. } | HubMessage::Pong) => Ok(()),
            SocketMessage::Hub(message) => {
                self.programs[program].keep_key(&message);
                self.count_hub_message(&message);
                let Some(news) = HubNews::of(message) else { return Ok(()) };
                self.handle_input(program, Input::Hub(HubRef::Default, HubEvent::News(news)))
            }
            SocketMessage::Closed => {
                self.close_socket(socket);
                self.lose_hub(program, "the hub closed the connection")
            }
            SocketMessage::Hello | SocketMessage::Client(_) => Ok(()),
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
