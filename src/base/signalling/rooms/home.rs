//! The home of the sessions: which participant is in which session, and which messages the others
//! get. It knows no connection. The edge tells it who asks for what, and who is silent or gone; its
//! messages are addressed to participants.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::model::{
    ErrorCode, HubMessage, Instance, MediaTime, ParticipantId, SessionId, SignalPayload,
};

use super::{
    RoomsTimer, SourceAddress, open_join::OpenRequest, owner_keys::OwnerKeys, session::Session,
    signal_budget::SignalBudgets,
};

/// All sessions of a home, and who is in them or waits for them.
pub(super) struct Home {
    pub(super) keys: Box<dyn OwnerKeys + Send>,
    pub(super) sessions: BTreeMap<SessionId, Session>,
    /// The participants that wait for a session that is not open, in the order of their requests.
    pub(super) waiting: BTreeMap<SessionId, Vec<Arc<Sender>>>,
    /// The participants with a seat or a wait.
    pub(super) members: BTreeMap<ParticipantId, Membership>,
    /// When to give up seats that were not reclaimed. Each reserved seat has one.
    pub(super) timers: BTreeSet<(MediaTime, SessionId, ParticipantId)>,
    outputs: VecDeque<HomeOutput>,
    /// What each sender may still signal to each receiver.
    pub(super) budgets: SignalBudgets,
    /// The sessions that the hub's own user has opened.
    pub(super) own_sessions: BTreeSet<SessionId>,
    pub(super) have_seats_changed: bool,
    /// Whether only the hub's own user may open sessions.
    pub(super) only_own_user_opens: bool,
    /// The time of the input that is being handled.
    pub(super) now: MediaTime,
}

/// Who sent a request. The edge vouches for it.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    /// The participant.
    pub(super) participant: ParticipantId,
    /// The name, cleaned; never empty in a request.
    pub(super) name: String,
    /// The run of the program.
    pub(super) instance: Instance,
    /// The address, if it is another machine's.
    pub(super) source: Option<SourceAddress>,
    /// Whether it is a program of the hub's own user.
    pub(super) is_own: bool,
}

/// Where a participant has seats, or waits.
#[derive(Default)]
pub(super) struct Membership {
    /// The sessions in which the participant has a seat.
    pub(super) seats: BTreeSet<SessionId>,
    /// The sessions that the participant waits for.
    pub(super) waiting_for: BTreeSet<SessionId>,
    /// Since when the connection of the participant is silent, if it is.
    pub(super) silent_since: Option<MediaTime>,
}

/// What the edge tells the home.
#[derive(Debug)]
pub(super) enum HomeInput {
    /// A participant asks for something.
    Request {
        /// The participant.
        sender: Arc<Sender>,
        /// What it asks for.
        request: Request,
    },
    /// A participant has another name.
    Renamed {
        /// The participant, with the new name.
        sender: Arc<Sender>,
    },
    /// The connection of a participant is silent.
    Silent {
        /// The participant.
        participant: ParticipantId,
        /// When it sent something last.
        since: MediaTime,
    },
    /// The connection of a participant is silent no more.
    Active {
        /// The participant.
        participant: ParticipantId,
    },
    /// A participant has no connection any more.
    Gone {
        /// The participant.
        participant: ParticipantId,
        /// The time since which it counts as silent.
        since: MediaTime,
    },
    /// A signal did not fit into the outbox of its receiver.
    SignalLost {
        /// The sender of the signal.
        from: ParticipantId,
        /// The session of the signal.
        session: SessionId,
    },
}

/// A request about a session.
#[derive(Debug)]
pub(super) enum Request {
    /// Open a session, or take it back.
    Open {
        /// The session.
        session: SessionId,
        /// How to open it.
        request: OpenRequest,
    },
    /// Join a session.
    Join {
        /// The session.
        session: SessionId,
        /// Whether to wait for it if it is not open.
        wait: bool,
    },
    /// Leave a session.
    Leave {
        /// The session.
        session: SessionId,
    },
    /// Close a session.
    Close {
        /// The session.
        session: SessionId,
    },
    /// Eject a member.
    Eject {
        /// The session.
        session: SessionId,
        /// The member.
        participant: ParticipantId,
        /// Whether everybody at its address is excluded.
        by_address: bool,
    },
    /// Let an ejected participant come again.
    Allow {
        /// The session.
        session: SessionId,
        /// The participant.
        participant: ParticipantId,
    },
    /// Lock or unlock a session.
    Lock {
        /// The session.
        session: SessionId,
        /// Whether it is to be locked.
        is_locked: bool,
    },
    /// Relay a signal.
    Signal {
        /// The session.
        session: SessionId,
        /// The receiver.
        to: ParticipantId,
        /// The payload.
        payload: SignalPayload,
    },
}

/// What the home tells the edge.
#[derive(Debug)]
pub(super) enum HomeOutput {
    /// Send a message to participants, as far as they are connected.
    Send {
        /// The participants, in order.
        to: Vec<ParticipantId>,
        /// The message.
        message: HubMessage,
    },
    /// A signal of a participant was refused, which a correct client does not cause.
    SignalRefused {
        /// The participant.
        from: ParticipantId,
    },
    /// A participant has taken its first seat, or given up its last one.
    SeatsChanged {
        /// The participant.
        participant: ParticipantId,
        /// Whether it has a seat now.
        has_any: bool,
    },
}

impl Home {
    /// A home without sessions.
    pub(super) fn new(keys: impl OwnerKeys + Send + 'static) -> Self {
        Self {
            keys: Box::new(keys),
            sessions: BTreeMap::new(),
            waiting: BTreeMap::new(),
            members: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            budgets: SignalBudgets::default(),
            own_sessions: BTreeSet::new(),
            have_seats_changed: false,
            only_own_user_opens: false,
            now: MediaTime::default(),
        }
    }

    /// Handles one input.
    pub(super) fn handle(&mut self, input: HomeInput, now: MediaTime) {
        self.now = now;
        match input {
            HomeInput::Request { sender, request } => self.handle_request(&sender, request),
            HomeInput::Renamed { sender } => self.on_renamed(&sender),
            HomeInput::Silent { participant, since } => {
                self.set_silent_since(&participant, Some(since));
            }
            HomeInput::Active { participant } => self.set_silent_since(&participant, None),
            HomeInput::Gone { participant, since } => self.on_gone(&participant, since),
            HomeInput::SignalLost { from, session } => self.refuse_excess_signal(&from, &session),
        }
    }

    /// When [`Self::handle_timeout`] is to be called next.
    pub(super) fn poll_timeout(&self) -> Option<(MediaTime, RoomsTimer<'_>)> {
        let (at, session, participant) = self.timers.first()?;
        Some((*at, RoomsTimer::SeatExpiry { session, participant }))
    }

    /// Handles the first timer: gives up a reserved seat.
    pub(super) fn handle_timeout(&mut self, now: MediaTime) {
        self.now = now;
        if let Some((_, session, participant)) = self.timers.pop_first() {
            self.expire_seat(&session, &participant);
        }
    }

    /// The next output, in order.
    pub(super) fn poll_output(&mut self) -> Option<HomeOutput> {
        self.outputs.pop_front()
    }

    /// The number of connected participants with a seat in a session that the hub's own user has
    /// opened, without those of `host`.
    pub(super) fn guests(&self, host: &Instance) -> usize {
        let rooms = self.own_sessions.iter().filter_map(|session| self.sessions.get(session));
        let connected = rooms.flat_map(|room| &room.seats).filter(|seat| seat.is_connected());
        let others = connected.filter(|seat| seat.instance != *host);
        others.map(|seat| &seat.participant).collect::<BTreeSet<_>>().len()
    }

    fn handle_request(&mut self, sender: &Arc<Sender>, request: Request) {
        let participant = &sender.participant;
        match request {
            Request::Open { session, request } => self.handle_open(sender, session, request),
            Request::Join { session, wait } => self.handle_join(sender, session, wait),
            Request::Leave { session } => self.handle_leave(participant, &session),
            Request::Close { session } => self.handle_close(participant, &session),
            Request::Eject { session, participant: ejected, by_address } => {
                self.handle_eject(participant, &session, (&ejected, by_address));
            }
            Request::Allow { session, participant: ejected } => {
                self.handle_allow(participant, &session, &ejected);
            }
            Request::Lock { session, is_locked } => {
                self.handle_lock(participant, &session, is_locked);
            }
            Request::Signal { session, to, payload } => {
                self.relay_signal(sender, session, &to, payload);
            }
        }
    }
}

/// Sending.
impl Home {
    pub(super) fn push(&mut self, output: HomeOutput) {
        self.outputs.push_back(output);
    }

    /// Sends a message to a participant, if connected.
    pub(super) fn notify(&mut self, participant: &ParticipantId, message: HubMessage) {
        self.push(HomeOutput::Send { to: vec![participant.clone()], message });
    }

    /// Sends a message to all participants that are paired with `about` in a session and hold their
    /// seats.
    ///
    /// A participant that is connected again but has not asked for its seat yet gets nothing: the
    /// roster that it receives with the seat has the current state.
    pub(super) fn notify_paired(
        &mut self,
        session: &SessionId,
        about: &ParticipantId,
        message: HubMessage,
    ) {
        let Some(room) = self.sessions.get(session) else { return };
        let Some(seat) = room.seat(about) else { return };
        let connected = room.paired_with(seat).filter(|other| other.is_connected());
        let to = connected.map(|other| other.participant.clone()).collect();
        self.push(HomeOutput::Send { to, message });
    }

    pub(super) fn send_error(
        &mut self,
        participant: &ParticipantId,
        code: ErrorCode,
        session: Option<&SessionId>,
        text: &str,
    ) {
        let (message, session) = (text.to_owned(), session.cloned());
        self.notify(participant, HubMessage::Error { code, message, session });
    }
}
