//! One connection to one participant: what it negotiates, how its media is, what it is fed with.

use std::time::Duration;

use super::{
    negotiation::{Move, Negotiation, Want},
    outbox::{Effect, Outbox},
    reach::Reach,
    roster::Scope,
};
use crate::model::{
    Agreement, ConnectionFault, Direction, Gates, Layer, MediaTime, ParticipantId, Payload,
    PeerCommand, PeerEvent, PeerId, PeerMedia, PeerState,
};

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Peer {
    id: PeerId,
    generation: u32,
    polite: bool,
    media: PeerMedia,
    /// What the two ends agreed on.
    agreed: Agreement,
    /// What it is fed with: sound, picture.
    fed: (bool, bool),
    /// Whether its sound may be heard, and whether any is expected.
    sound: (bool, bool),
    /// Whether pictures are expected.
    pictures: bool,
    flow: Flow,
    negotiation: Negotiation,
    restarted: bool,
    reach: Reach,
}

/// How a connection's media is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// It never flowed.
    Starting { since: MediaTime },
    /// Packets come.
    Flowing { since: MediaTime },
    /// No packet came for some seconds; it may come back.
    Silent { since: MediaTime },
}

/// A connection is dead and cannot be mended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Dead {
    /// Why.
    pub(super) fault: ConnectionFault,
    /// The same for a person, with the way out.
    pub(super) reason: String,
}

/// How long a connection may take until packets flow.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// How long a connection may be silent while its other end is at the hub, before it is replaced.
pub(super) const SILENCE_PATIENCE: Duration = Duration::from_secs(10);

/// How old a silence is when a connection tells of it.
pub(super) const SILENCE_KNOWN_AFTER: Duration = Duration::from_secs(3);

/// How long an offer on a running connection may stay unanswered before it is made again.
///
/// Only words that a lost link swallowed take so long; the media runs on meanwhile.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection is silent before new paths are sought, by the end that does not give way
/// and by the one that does: staggered, so that their offers seldom cross.
const RESTART_AFTER: [Duration; 2] = [Duration::from_millis(5000), Duration::from_millis(7500)];

impl Peer {
    /// Opens a connection of a generation to a participant.
    pub(super) fn open(generation: u32, to: &ParticipantId, scope: &mut Scope<'_>) -> Self {
        let id = scope.out.name_peer();
        let media = scope.terms.media();
        let polite = scope.terms.me > *to;
        let session = scope.terms.session.clone();
        let hub = scope.terms.hub.clone();
        scope.out.push(Effect::OpenPeer { peer: id, session, hub, media });
        let flow = Flow::Starting { since: scope.now };
        let negotiation = Negotiation::new(polite, generation);
        Self {
            id,
            generation,
            polite,
            media,
            agreed: Agreement::default(),
            fed: (false, false),
            sound: (true, true),
            pictures: true,
            flow,
            negotiation,
            restarted: false,
            reach: Reach::default(),
        }
    }

    pub(super) const fn id(&self) -> PeerId {
        self.id
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) const fn flow(&self) -> Flow {
        self.flow
    }

    /// Whether media has never come through it.
    pub(super) const fn is_starting(&self) -> bool {
        matches!(self.flow, Flow::Starting { .. })
    }

    /// Whether both descriptions are there, so that packets could flow.
    pub(super) const fn has_agreed(&self) -> bool {
        self.negotiation.has_agreed()
    }

    /// What it is fed with: sound, picture.
    pub(super) const fn fed(&self) -> (bool, bool) {
        self.fed
    }

    /// What goes to the other end as long as the gates stand so: sound, picture.
    pub(super) fn sends(&self, gates: Gates) -> (bool, bool) {
        let sends = |direction: Option<Direction>| direction.is_some_and(Direction::sends);
        let audio = sends(self.media.audio) && self.agreed.sends_audio;
        let video = sends(self.media.video) && self.agreed.sends_video;
        (gates.microphone && audio, gates.camera && video)
    }

    /// Takes what the two ends agreed on; false if nothing is left to connect for.
    pub(super) fn agree(&mut self, agreed: Agreement) -> bool {
        self.agreed = agreed;
        !agreed.is_empty(self.media)
    }

    /// Feeds it with what the gates let pass, and has its sound heard if they do; the other end says
    /// that it sends `theirs`: sound, picture.
    pub(super) fn pass(&mut self, gates: Gates, theirs: (bool, bool), out: &mut Outbox) {
        let has_sound = theirs.0 && self.agreed.receives_audio;
        let has_picture = theirs.1 && self.agreed.receives_video;
        let fed = if self.is_starting() { (false, false) } else { self.sends(gates) };
        if fed != self.fed {
            self.fed = fed;
            let (audio, video) = (fed.0, fed.1.then_some(Layer::Full));
            out.push(Effect::SetSending { peer: self.id, audio, video });
        }
        let (heard, speaks) =
            (gates.listening, has_sound && !matches!(self.flow, Flow::Silent { .. }));
        if self.sounds() && (heard, speaks) != self.sound {
            self.sound = (heard, speaks);
            out.push(Effect::SetHeard { peer: self.id, heard, speaks });
        }
        let receives = self.media.video.is_some_and(Direction::receives);
        if receives && has_picture != self.pictures {
            self.pictures = has_picture;
            out.push(Effect::ExpectPictures { peer: self.id, expected: has_picture });
        }
    }

    /// Whether sound may come from it.
    pub(super) fn sounds(&self) -> bool {
        self.media.audio.is_some_and(Direction::receives)
    }

    /// Offers, as soon as that is legal.
    pub(super) fn offer(&mut self, to: &ParticipantId, scope: &mut Scope<'_>) -> Result<(), Dead> {
        self.negotiation.want(Want::Agree);
        self.carry_out(to, scope)
    }

    /// Takes a word of the other end about this connection.
    pub(super) fn hear(
        &mut self,
        payload: Payload,
        from: &ParticipantId,
        scope: &mut Scope<'_>,
    ) -> Result<(), Dead> {
        match &payload {
            Payload::Offer { sdp, .. } | Payload::Answer { sdp, .. } => self.reach.note_theirs(sdp),
            Payload::Candidate { candidate, .. } => self.reach.note_theirs(candidate),
            Payload::Media { .. } | Payload::Unknown => {}
        }
        self.negotiation.hear(payload);
        self.carry_out(from, scope)
    }

    /// Takes what the connection tells.
    pub(super) fn tell(
        &mut self,
        event: PeerEvent,
        of: &ParticipantId,
        scope: &mut Scope<'_>,
    ) -> Result<(), Dead> {
        match &event {
            PeerEvent::State(state) => return self.change(*state, scope),
            PeerEvent::Description { sdp, .. } => self.reach.note_ours(sdp),
            PeerEvent::Candidate(candidate) => self.reach.note_ours(&candidate.line),
            PeerEvent::Done { .. }
            | PeerEvent::Refused { .. }
            | PeerEvent::Agreed(_)
            | PeerEvent::Writable
            | PeerEvent::Read(_) => {}
        }
        self.negotiation.outcome(event, scope.now);
        self.carry_out(of, scope)
    }

    /// Does what is due; dead if its time is up.
    pub(super) fn advance(
        &mut self,
        with: &ParticipantId,
        scope: &mut Scope<'_>,
    ) -> Result<(), Dead> {
        let Some(due) = self.due() else { return Ok(()) };
        if scope.now < due {
            return Ok(());
        }
        match self.flow {
            Flow::Starting { .. } => return Err(self.unconnected()),
            Flow::Silent { since } if scope.now >= since + SILENCE_PATIENCE => {
                return Err(Dead::broken_off("it fell silent"));
            }
            Flow::Silent { .. } => {
                self.restarted = true;
                self.negotiation.want(Want::Restart);
            }
            Flow::Flowing { .. } => self.negotiation.repeat_offer(),
        }
        self.carry_out(with, scope)
    }

    /// When something is due, as long as the other end can be reached through the hub.
    pub(super) fn due(&self) -> Option<MediaTime> {
        match self.flow {
            Flow::Starting { since } => Some(since + CONNECT_PATIENCE),
            Flow::Flowing { since } => {
                let offered = self.negotiation.unanswered_since()?;
                Some(offered.max(since) + ANSWER_PATIENCE)
            }
            Flow::Silent { since } if self.restarted => Some(since + SILENCE_PATIENCE),
            Flow::Silent { since } => Some(since + RESTART_AFTER[usize::from(self.polite)]),
        }
    }

    /// Closes the connection.
    pub(super) fn close(self, scope: &mut Scope<'_>) {
        scope.out.push(Effect::ClosePeer(self.id));
    }

    /// Why packets have never come through it.
    pub(super) fn unconnected(&self) -> Dead {
        if !self.has_agreed() {
            let reason = "the other program does not answer: it may hang, or be another version; \
                 ask the person to start it again"
                .into();
            return Dead { fault: ConnectionFault::NotAgreed, reason };
        }
        let (fault, reason) = self.reach.verdict();
        Dead { fault, reason: reason.into() }
    }

    fn change(&mut self, state: PeerState, scope: &mut Scope<'_>) -> Result<(), Dead> {
        match (state, self.flow) {
            (PeerState::Connected, Flow::Starting { .. }) => {
                self.flow = Flow::Flowing { since: scope.now };
            }
            (PeerState::Connected, Flow::Silent { .. }) => {
                self.flow = Flow::Flowing { since: scope.now };
                self.restarted = false;
            }
            (PeerState::Disconnected, Flow::Flowing { since }) => {
                let silent = scope.ago(SILENCE_KNOWN_AFTER).max(since);
                self.flow = Flow::Silent { since: silent };
            }
            (PeerState::Failed, Flow::Starting { .. }) => return Err(self.unconnected()),
            (PeerState::Failed, Flow::Flowing { .. } | Flow::Silent { .. }) => {
                return Err(Dead::broken_off("the connection broke off"));
            }
            (PeerState::Connecting, _)
            | (PeerState::Connected, Flow::Flowing { .. })
            | (PeerState::Disconnected, Flow::Starting { .. } | Flow::Silent { .. }) => {}
        }
        Ok(())
    }

    fn carry_out(&mut self, with: &ParticipantId, scope: &mut Scope<'_>) -> Result<(), Dead> {
        while let Some(next) = self.negotiation.poll() {
            match next {
                Move::Do(command) => self.command(command, scope),
                Move::Say(payload) => scope.signal(with, payload),
                Move::GiveUp(reason) => {
                    return Err(Dead { fault: ConnectionFault::NotAgreed, reason });
                }
            }
        }
        Ok(())
    }

    fn command(&self, command: PeerCommand, scope: &mut Scope<'_>) {
        scope.out.push(Effect::Peer { peer: self.id, command });
    }
}

impl Dead {
    fn broken_off(what: &str) -> Self {
        let reason = format!("{what}; look whether both computers still have a network");
        Self { fault: ConnectionFault::BrokenOff, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::*;
    use super::*;
    use crate::model::{LeaveReason, Step};

    #[test]
    fn a_connection_is_fed_once_when_it_is_connected() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a")));
        let is_feed = |one: &&Effect| matches!(one, Effect::SetSending { .. });
        assert_eq!(stage.done.iter().filter(is_feed).count(), 0);
        stage.state(1, PeerState::Connecting).state(1, PeerState::Connected);
        let (peer, video) = (PeerId(1), Some(Layer::Full));
        assert!(stage.done.contains(&Effect::SetSending { peer, audio: true, video }));
        stage.state(1, PeerState::Connected);
        assert_eq!(stage.done, []);
    }

    #[test]
    fn what_a_closed_connection_still_tells_is_ignored() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).hear(left("a", LeaveReason::Left));
        let sdp = "late".to_owned();
        let kind = crate::model::DescriptionKind::Offer;
        stage.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
        stage.state(1, PeerState::Connected).tell(1, PeerEvent::Done { step: Step(1) });
        assert_eq!(stage.done, []);
    }

    #[test]
    fn the_end_with_the_greater_id_gives_way() {
        for (other, gives_way) in [("a", true), ("z", false)] {
            let mut stage = Stage::opened(MESH);
            stage.hear(came(member(other)));
            let (kind, sdp) = (crate::model::DescriptionKind::Offer, "mine".to_owned());
            stage.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
            stage.hear(word(other, offer(1)));
            let rolls_back =
                stage.commands().iter().any(|one| matches!(one, PeerCommand::Rollback { .. }));
            assert_eq!(rolls_back, gives_way, "we are m, the other is {other}");
        }
    }

    #[test]
    fn nothing_is_said_through_a_hub_that_is_down() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).down(&super::super::HubRef::Default);
        let (kind, sdp) = (crate::model::DescriptionKind::Offer, "mine".to_owned());
        stage.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
        assert_eq!(stage.sent(), []);
    }
}
