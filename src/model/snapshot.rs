//! How everything is now: what the window draws. A function of the core's state.

use super::{
    EndReason, Failure, Gate, HubOwner, HubPlace, HubUrl, MediaSet, MediaTime, ParticipantId,
    PeerId, Role, SessionId, SessionKind, SessionLink,
};

/// How everything is now. The newest one wins; nobody needs an older one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// The hubs in use; the default one first.
    pub hubs: Vec<HubStatus>,
    /// The sessions, in the order in which they were asked for, without those that are being left.
    pub sessions: Vec<SessionStatus>,
    /// The sessions that are being left, while that can be undone.
    pub departure: Option<DepartureStatus>,
    /// The global switches.
    pub gates: Gates,
    /// The picture that is captured here.
    pub camera: SourceState,
    /// The sound that is captured here.
    pub microphone: SourceState,
    /// The sound that is played here.
    pub speaker: SourceState,
}

impl Snapshot {
    /// Whether a session is being left, which can be undone.
    pub fn is_departing(&self, session: &SessionId) -> bool {
        let mut departing = self.departure.iter().flat_map(|departure| &departure.sessions);
        departing.any(|one| one.session == *session)
    }
}

/// Sessions that are being left, which can be undone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DepartureStatus {
    /// The sessions, as they will be when it is undone.
    pub sessions: Vec<SessionStatus>,
    /// Whether they are closed for everybody.
    pub closes: bool,
    /// When it is final, on the engine's clock.
    pub until: MediaTime,
}

/// Switches of a person, all open at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gates {
    /// Our sound, to others.
    pub microphone: bool,
    /// Our picture, to others.
    pub camera: bool,
    /// Others' sound, to our speaker.
    pub listening: bool,
}

impl Gates {
    /// Nothing passes.
    pub const CLOSED: Self = Self { microphone: false, camera: false, listening: false };

    /// What is open in both: whatever passes two doors.
    pub const fn and(self, other: Self) -> Self {
        Self {
            microphone: self.microphone && other.microphone,
            camera: self.camera && other.camera,
            listening: self.listening && other.listening,
        }
    }

    /// Whether one is open.
    pub const fn is_open(self, gate: Gate) -> bool {
        match gate {
            Gate::Microphone => self.microphone,
            Gate::Camera => self.camera,
            Gate::Listening => self.listening,
        }
    }

    /// Opens or closes one.
    pub const fn set(&mut self, gate: Gate, open: bool) {
        match gate {
            Gate::Microphone => self.microphone = open,
            Gate::Camera => self.camera = open,
            Gate::Listening => self.listening = open,
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self { microphone: true, camera: true, listening: true }
    }
}

/// How a hub is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HubStatus {
    /// Its address; `None` for the default hub before it was found or embedded.
    pub url: Option<HubUrl>,
    /// How the connection to it is.
    pub state: HubState,
    /// How many other people meet there, if this program brought it; else 0.
    pub guests: usize,
    /// Where it was reached last and whose it is there; `None` before it was.
    pub place: Option<HubPlace>,
}

/// How the connection to a hub is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HubState {
    /// Being made.
    Connecting,
    /// Up.
    Connected,
    /// Lost or refused; it is tried again.
    Unreachable {
        /// Why, for a person.
        reason: String,
    },
}

/// How a session is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionStatus {
    /// Its id.
    pub session: SessionId,
    /// What it is; `None` before a joiner has learned it.
    pub kind: Option<SessionKind>,
    /// Our part in it.
    pub role: Role,
    /// Its link, once its hub is known.
    pub link: Option<SessionLink>,
    /// The hub that has it, if that is known and was reached.
    pub hub: Option<HubPlace>,
    /// How many may be in it, once known.
    pub limit: Option<u16>,
    /// How it is.
    pub state: SessionState,
    /// The session's own switches.
    pub gates: Gates,
    /// Whether somebody in it hears us now: connected, and both gates open.
    pub heard: bool,
    /// Whether somebody in it sees us now.
    pub seen: bool,
    /// The participants we are linked to, in the order in which they came.
    pub participants: Vec<ParticipantStatus>,
    /// Whether nobody new is let in; only known of own sessions.
    pub locked: bool,
    /// Who was sent out and is still kept out; only known of own sessions.
    pub removed: Vec<RemovedPerson>,
}

/// Somebody who was sent out of a session and cannot come again yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemovedPerson {
    /// Who.
    pub participant: ParticipantId,
    /// How the person was called.
    pub name: String,
}

impl SessionStatus {
    /// The address at which its hub is to be asked for it again: where it was reached, unless that is
    /// a hub of this user, which knows better. What another hub says of its own address is for people.
    pub fn hub_address(&self) -> Option<&HubUrl> {
        let reached = self.hub.as_ref().filter(|hub| hub.owner != HubOwner::ThisUser);
        reached.map(|hub| &hub.url).or_else(|| self.link.as_ref().map(|link| &link.hub))
    }
}

/// How a session is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// Asked for; the hub has not answered.
    Connecting,
    /// Asked for, but no hub that may have it can be reached; they are tried again.
    Unreachable {
        /// Why, for a person.
        reason: String,
    },
    /// Not open yet; joined by itself when it opens.
    Waiting,
    /// Open.
    Live,
    /// Open, but the hub cannot be reached: media goes on, nobody can come in.
    Reconnecting {
        /// When the hub was lost, on the engine's clock.
        since: MediaTime,
    },
    /// The opener lost the connection, and the session with it; joined again by itself when the
    /// opener is back.
    HostLost {
        /// When the hub told so, or was lost, on the engine's clock.
        since: MediaTime,
    },
    /// Over.
    Ended {
        /// Why.
        reason: EndReason,
    },
    /// Never came about.
    Failed(Failure),
}

/// How a participant is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParticipantStatus {
    /// Who.
    pub participant: ParticipantId,
    /// How the person is called.
    pub name: String,
    /// The part played in the session.
    pub role: Role,
    /// How it is.
    pub state: ParticipantState,
    /// Since when it is so, on the engine's clock.
    pub since: MediaTime,
    /// Whether the person's microphone is on, as the person's program says.
    pub microphone: bool,
    /// Whether the person's camera is on, as the person's program says.
    pub camera: bool,
    /// What goes neither way because the person's program and ours have no common format for it.
    pub left_out: Option<MediaSet>,
    /// The connection that carries the person's media now.
    pub peer: Option<PeerId>,
}

/// How a participant is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ParticipantState {
    /// Being connected.
    Connecting,
    /// Not connected within ten seconds; it is tried again.
    Unreachable,
    /// Media can flow.
    Live,
    /// Silent; may come back.
    Reconnecting,
    /// Silent for ten seconds: out of the live count, the seat is kept.
    Gone,
    /// Out of the session; appears in events only.
    Left,
}

impl ParticipantState {
    /// The state as it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Unreachable => "unreachable",
            Self::Live => "live",
            Self::Reconnecting => "reconnecting",
            Self::Gone => "gone",
            Self::Left => "left",
        }
    }
}

/// How a source or the speaker is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SourceState {
    /// Not in use: nobody wants it.
    #[default]
    Idle,
    /// Being opened.
    Opening,
    /// In use.
    Running,
    /// Cannot be used; the rest goes on.
    Failed {
        /// What, why and the way out, for a person.
        message: String,
    },
}

/// What is captured here, or played.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SourceKind {
    /// Pictures.
    Camera,
    /// Sound.
    Microphone,
    /// Where received sound is played.
    Speaker,
}
