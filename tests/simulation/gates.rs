//! What must hold of switches: nothing passes a closed one, and others see it closed.

use quintet::model::{Direction, Gates, PeerId, PeerState, SessionId, SessionStatus};

use super::world::{Verdict, World};

impl World {
    /// A connection is fed with something else from now on.
    pub(crate) fn check_sending(
        &mut self,
        index: usize,
        peer: PeerId,
        sent: (bool, bool),
    ) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} feeds {peer}, which is not open"));
        };
        let expected = self.allowed(index, at);
        let one = &mut self.connections[at];
        if one.state == PeerState::Connecting || sent != expected {
            return Err(format!("P{index} feeds {peer} with {sent:?}, not {expected:?}"));
        }
        if std::mem::replace(&mut one.fed, sent) == sent {
            return Err(format!("P{index} feeds {peer} with {sent:?} again"));
        }
        Ok(())
    }

    /// A connection's sound is treated otherwise from now on.
    pub(crate) fn check_hearing(
        &mut self,
        index: usize,
        peer: PeerId,
        sound: (bool, bool),
    ) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} listens to {peer}, which is not open"));
        };
        let listens = self.gates(index, &self.connections[at].session).listening;
        let was = std::mem::replace(&mut self.connections[at].sound, sound);
        if was == sound || sound.0 != listens {
            return Err(format!("P{index} listens to {peer}: {sound:?} after {was:?}"));
        }
        Ok(())
    }

    /// A program tells what it sends on a connection.
    pub(crate) fn check_said_of_us(&self, index: usize, at: usize, said: (bool, bool)) -> Verdict {
        let (truth, one) = (self.allowed(index, at), &self.connections[at]);
        if one.state == PeerState::Connecting || said != truth {
            return Err(format!("P{index} says of {} that it sends {said:?}", one.peer));
        }
        Ok(())
    }

    /// Every connection of a program is fed with what the gates let pass, and heard likewise.
    pub(crate) fn check_fed(&self, index: usize) -> Verdict {
        for at in self.programs[index].peers.values() {
            let one = &self.connections[*at];
            let starts = one.state == PeerState::Connecting;
            let expected = if starts { (false, false) } else { self.allowed(index, *at) };
            if one.fed != expected {
                return Err(format!("P{index} feeds {} with {:?}", one.peer, one.fed));
            }
            let receives = one.media.audio.is_some_and(Direction::receives);
            if receives && one.sound.0 != self.gates(index, &one.session).listening {
                return Err(format!("P{index} listens to {}: {:?}", one.peer, one.sound));
            }
        }
        Ok(())
    }

    /// What a member of a session sends to others, as they are to see it.
    pub(crate) fn passes(
        &self,
        index: usize,
        id: &SessionId,
        status: &SessionStatus,
    ) -> (bool, bool) {
        let gates = self.programs[index].snapshot().gates.and(status.gates);
        let media = self.plan.media(id, index, &self.programs[index]);
        media.map_or((false, false), |media| let_pass(gates, (media.audio, media.video)))
    }

    /// What the gates let pass to a connection.
    fn allowed(&self, index: usize, at: usize) -> (bool, bool) {
        let one = &self.connections[at];
        let_pass(self.gates(index, &one.session), (one.media.audio, one.media.video))
    }

    /// What stands open in a session.
    fn gates(&self, index: usize, session: &SessionId) -> Gates {
        let snapshot = self.programs[index].snapshot();
        let mut departing = snapshot.departure.iter().flat_map(|departure| &departure.sessions);
        if departing.any(|one| one.session == *session) {
            return Gates::CLOSED;
        }
        let own = snapshot.sessions.iter().find(|one| one.session == *session);
        snapshot.gates.and(own.map(|one| one.gates).unwrap_or_default())
    }
}

fn let_pass(gates: Gates, (audio, video): (Option<Direction>, Option<Direction>)) -> (bool, bool) {
    let sends = |way: Option<Direction>| way.is_some_and(Direction::sends);
    (gates.microphone && sends(audio), gates.camera && sends(video))
}
