//! One peer connection to one participant: its negotiation, its state, and the media that it sends.

use std::time::Duration;

use super::{
    context::Scope,
    negotiation::{Move, Negotiation, Want},
    outbox::{Effect, Outbox},
    reach::Reach,
};
use crate::model::{
    Agreement, ConnectionFault, Direction, Gates, Layer, MediaTime, ParticipantId, Payload,
    PeerCommand, PeerEvent, PeerId, PeerMedia, PeerState,
};

/// An open peer connection.
#[derive(Debug)]
pub(super) struct Peer {
    id: PeerId,
    generation: u32,
    polite: bool,
    media: PeerMedia,
    /// The media that the two ends negotiated.
    agreed: Agreement,
    /// The media that it sends: audio, video.
    fed: (bool, bool),
    /// Whether its audio is audible, and whether any is expected.
    sound: (bool, bool),
    /// Whether video is expected.
    pictures: bool,
    flow: Flow,
    negotiation: Negotiation,
    restarted: bool,
    reach: Reach,
}

/// Whether media flows on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// None has arrived yet.
    Starting { since: MediaTime },
    /// Packets arrive.
    Flowing { since: MediaTime },
    /// No packet has arrived for some seconds; the connection may recover.
    Silent { since: MediaTime },
}

/// A connection is lost and cannot recover.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Dead {
    /// The kind of failure.
    pub(super) fault: ConnectionFault,
    /// The same as a sentence for the user, with the way out.
    pub(super) reason: String,
}

/// How long a connection may take until packets flow.
pub(super) const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// How long a connection may be silent while its remote peer is at the hub, before it is replaced.
pub(super) const SILENCE_PATIENCE: Duration = Duration::from_secs(10);

/// How long no packet has arrived when a connection reports `Disconnected`.
pub(super) const SILENCE_KNOWN_AFTER: Duration = Duration::from_secs(3);

/// How long an offer on a running connection may stay unanswered before it is made again.
///
/// That takes so long only if a signal was lost on the way through the hub; media goes on
/// meanwhile.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection is silent before ICE is restarted, by the impolite and by the polite end:
/// staggered, so that their offers seldom collide.
const RESTART_AFTER: [Duration; 2] = [Duration::from_millis(5000), Duration::from_millis(7500)];

impl Peer {
    /// Opens a connection of that generation to a participant.
    pub(super) fn open(generation: u32, to: &ParticipantId, cx: &mut Scope<'_>) -> Self {
        let id = cx.out.name_peer();
        let media = cx.terms.media();
        let polite = cx.terms.me > *to;
        let session = cx.terms.session.clone();
        let hub = cx.terms.hub.clone();
        cx.out.push(Effect::OpenPeer { peer: id, session, hub, media });
        let media_state = Flow::Starting { since: cx.now };
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
            flow: media_state,
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

    /// Whether no media has ever arrived on it.
    pub(super) const fn is_starting(&self) -> bool {
        matches!(self.flow, Flow::Starting { .. })
    }

    /// Whether both descriptions are set, so that packets could flow.
    pub(super) const fn has_agreed(&self) -> bool {
        self.negotiation.has_agreed()
    }

    /// The media that it sends: audio, video.
    pub(super) const fn fed(&self) -> (bool, bool) {
        self.fed
    }

    /// The media that go to the remote peer with these mute switches: audio, video.
    pub(super) fn sends(&self, enabled: Gates) -> (bool, bool) {
        let sends = |direction: Option<Direction>| direction.is_some_and(Direction::sends);
        let audio = sends(self.media.audio) && self.agreed.sends_audio;
        let video = sends(self.media.video) && self.agreed.sends_video;
        (enabled.microphone && audio, enabled.camera && video)
    }

    /// Sets the negotiated media. Returns `false` if none is left.
    pub(super) fn agree(&mut self, negotiated: Agreement) -> bool {
        self.agreed = negotiated;
        !negotiated.is_empty(self.media)
    }

    /// Applies the mute switches to what it sends and to how its audio is played. `theirs` is what
    /// the remote peer signals that it sends: audio, video.
    pub(super) fn pass(&mut self, enabled: Gates, theirs: (bool, bool), effects: &mut Outbox) {
        let has_audio = theirs.0 && self.agreed.receives_audio;
        let has_video = theirs.1 && self.agreed.receives_video;
        let sending = if self.is_starting() { (false, false) } else { self.sends(enabled) };
        if sending != self.fed {
            self.fed = sending;
            let (audio, video) = (sending.0, sending.1.then_some(Layer::Full));
            effects.push(Effect::SetSending { peer: self.id, audio, video });
        }
        let (audible, expected) =
            (enabled.listening, has_audio && !matches!(self.flow, Flow::Silent { .. }));
        if self.sounds() && (audible, expected) != self.sound {
            self.sound = (audible, expected);
            effects.push(Effect::SetHeard { peer: self.id, heard: audible, speaks: expected });
        }
        let receives = self.media.video.is_some_and(Direction::receives);
        if receives && has_video != self.pictures {
            self.pictures = has_video;
            effects.push(Effect::ExpectPictures { peer: self.id, expected: has_video });
        }
    }

    /// Whether it may receive audio.
    pub(super) fn sounds(&self) -> bool {
        self.media.audio.is_some_and(Direction::receives)
    }

    /// Makes an offer, as soon as that is legal.
    pub(super) fn offer(&mut self, to: &ParticipantId, cx: &mut Scope<'_>) -> Result<(), Dead> {
        self.negotiation.want(Want::Agree);
        self.carry_out(to, cx)
    }

    /// Handles a signal of the remote peer about this connection.
    pub(super) fn hear(
        &mut self,
        payload: Payload,
        from: &ParticipantId,
        cx: &mut Scope<'_>,
    ) -> Result<(), Dead> {
        match &payload {
            Payload::Offer { sdp, .. } | Payload::Answer { sdp, .. } => self.reach.note_theirs(sdp),
            Payload::Candidate { candidate, .. } => self.reach.note_theirs(candidate),
            Payload::Media { .. } | Payload::Unknown => {}
        }
        self.negotiation.hear(payload);
        self.carry_out(from, cx)
    }

    /// Handles an event of the connection.
    pub(super) fn tell(
        &mut self,
        event: PeerEvent,
        of: &ParticipantId,
        cx: &mut Scope<'_>,
    ) -> Result<(), Dead> {
        match &event {
            PeerEvent::State(state) => return self.change(*state, cx),
            PeerEvent::Description { sdp, .. } => self.reach.note_ours(sdp),
            PeerEvent::Candidate(candidate) => self.reach.note_ours(&candidate.line),
            PeerEvent::Done { .. }
            | PeerEvent::Refused { .. }
            | PeerEvent::Agreed(_)
            | PeerEvent::Writable
            | PeerEvent::Read(_) => {}
        }
        self.negotiation.outcome(event, cx.now);
        self.carry_out(of, cx)
    }

    /// Handles the deadlines that have passed. Returns an error if the connection has timed out.
    pub(super) fn advance(&mut self, with: &ParticipantId, cx: &mut Scope<'_>) -> Result<(), Dead> {
        let Some(due) = self.due() else { return Ok(()) };
        if cx.now < due {
            return Ok(());
        }
        match self.flow {
            Flow::Starting { .. } => return Err(self.unconnected()),
            Flow::Silent { since } if cx.now >= since + SILENCE_PATIENCE => {
                return Err(Dead::broken_off("no packets arrive any more"));
            }
            Flow::Silent { .. } => {
                self.restarted = true;
                self.negotiation.want(Want::Restart);
            }
            Flow::Flowing { .. } => self.negotiation.repeat_offer(),
        }
        self.carry_out(with, cx)
    }

    /// The next deadline, as long as the remote peer can be reached through the hub.
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
    pub(super) fn close(self, cx: &mut Scope<'_>) {
        cx.out.push(Effect::ClosePeer(self.id));
    }

    /// Why no packets have ever arrived on it.
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

    fn change(&mut self, state: PeerState, cx: &mut Scope<'_>) -> Result<(), Dead> {
        match (state, self.flow) {
            (PeerState::Connected, Flow::Starting { .. }) => {
                self.flow = Flow::Flowing { since: cx.now };
            }
            (PeerState::Connected, Flow::Silent { .. }) => {
                self.flow = Flow::Flowing { since: cx.now };
                self.restarted = false;
            }
            (PeerState::Disconnected, Flow::Flowing { since }) => {
                let since_silence = cx.ago(SILENCE_KNOWN_AFTER).max(since);
                self.flow = Flow::Silent { since: since_silence };
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

    fn carry_out(&mut self, with: &ParticipantId, cx: &mut Scope<'_>) -> Result<(), Dead> {
        while let Some(next) = self.negotiation.poll() {
            match next {
                Move::Do(command) => self.command(command, cx),
                Move::Say(payload) => cx.signal(with, payload),
                Move::GiveUp(reason) => {
                    return Err(Dead { fault: ConnectionFault::NotAgreed, reason });
                }
            }
        }
        Ok(())
    }

    fn command(&self, command: PeerCommand, cx: &mut Scope<'_>) {
        cx.out.push(Effect::Peer { peer: self.id, command });
    }
}

impl Dead {
    fn broken_off(what: &str) -> Self {
        let reason = format!("{what}; check whether both computers still have a network");
        Self { fault: ConnectionFault::BrokenOff, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::*;
    use super::*;
    use crate::model::{LeaveReason, Step};

    #[test]
    fn a_connection_sends_from_when_it_is_connected() {
        let mut fixture = Stage::opened(MESH);
        fixture.hear(came(member("a")));
        let is_set_sending = |one: &&Effect| matches!(one, Effect::SetSending { .. });
        assert_eq!(fixture.done.iter().filter(is_set_sending).count(), 0);
        fixture.state(1, PeerState::Connecting).state(1, PeerState::Connected);
        let (peer, video) = (PeerId(1), Some(Layer::Full));
        assert!(fixture.done.contains(&Effect::SetSending { peer, audio: true, video }));
        fixture.state(1, PeerState::Connected);
        assert_eq!(fixture.done, []);
    }

    #[test]
    fn events_of_a_closed_connection_are_ignored() {
        let mut fixture = Stage::opened(MESH);
        fixture.hear(came(member("a"))).hear(left("a", LeaveReason::Left));
        let sdp = "late".to_owned();
        let kind = crate::model::DescriptionKind::Offer;
        fixture.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
        fixture.state(1, PeerState::Connected).tell(1, PeerEvent::Done { step: Step(1) });
        assert_eq!(fixture.done, []);
    }

    #[test]
    fn the_end_with_the_greater_id_is_polite() {
        for (other, gives_way) in [("a", true), ("z", false)] {
            let mut fixture = Stage::opened(MESH);
            fixture.hear(came(member(other)));
            let (kind, sdp) = (crate::model::DescriptionKind::Offer, "mine".to_owned());
            fixture.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
            fixture.hear(word(other, offer(1)));
            let rolls_back =
                fixture.commands().iter().any(|one| matches!(one, PeerCommand::Rollback { .. }));
            assert_eq!(rolls_back, gives_way, "we are m, the other is {other}");
        }
    }

    #[test]
    fn nothing_is_signalled_through_a_hub_that_is_down() {
        let mut fixture = Stage::opened(MESH);
        fixture.hear(came(member("a"))).down(&super::super::HubRef::Default);
        let (kind, sdp) = (crate::model::DescriptionKind::Offer, "mine".to_owned());
        fixture.tell(1, PeerEvent::Description { step: Step(1), kind, sdp });
        assert_eq!(fixture.sent(), []);
    }
}
