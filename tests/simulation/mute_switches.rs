//! Checks of the mute switches: nothing is sent that is muted, and others see it as muted.

use quintet::model::{Direction, Gates, PeerId, PeerState, SessionId, SessionStatus};

use super::world::{Verdict, World};

impl World {
    /// A connection sends other media from now on.
    pub(crate) fn check_sending(
        &mut self,
        index: usize,
        peer: PeerId,
        sent: (bool, bool),
    ) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} sends on {peer}, which is not open"));
        };
        let expected = self.allowed(index, at);
        let one = &mut self.connections[at];
        if one.state == PeerState::Connecting || sent != expected {
            return Err(format!("P{index} sends {sent:?} on {peer}, not {expected:?}"));
        }
        if std::mem::replace(&mut one.fed, sent) == sent {
            return Err(format!("P{index} sets {sent:?} on {peer} again"));
        }
        Ok(())
    }

    /// The audio of a connection is played differently from now on.
    pub(crate) fn check_hearing(
        &mut self,
        index: usize,
        peer: PeerId,
        playback: (bool, bool),
    ) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} plays {peer}, which is not open"));
        };
        let listens = self.gates(index, &self.connections[at].session).listening;
        let before = std::mem::replace(&mut self.connections[at].sound, playback);
        if before == playback || playback.0 != listens {
            return Err(format!("P{index} plays {peer}: {playback:?} after {before:?}"));
        }
        Ok(())
    }

    /// A program signals what it sends on a connection.
    pub(crate) fn check_said_of_us(
        &self,
        index: usize,
        at: usize,
        signalled: (bool, bool),
    ) -> Verdict {
        let (expected, one) = (self.allowed(index, at), &self.connections[at]);
        if one.state == PeerState::Connecting || signalled != expected {
            return Err(format!("P{index} signals on {} that it sends {signalled:?}", one.peer));
        }
        Ok(())
    }

    /// Checks that each connection of a program sends and plays exactly what the switches enable.
    pub(crate) fn check_fed(&self, index: usize) -> Verdict {
        for at in self.programs[index].peers.values() {
            let one = &self.connections[*at];
            let starts = one.state == PeerState::Connecting;
            let expected = if starts { (false, false) } else { self.allowed(index, *at) };
            if one.fed != expected {
                return Err(format!("P{index} sends on {}: {:?}", one.peer, one.fed));
            }
            let receives = one.media.audio.is_some_and(Direction::receives);
            if receives && one.sound.0 != self.gates(index, &one.session).listening {
                return Err(format!("P{index} plays {}: {:?}", one.peer, one.sound));
            }
        }
        Ok(())
    }

    /// The media that a member of a session sends, as other members must see it.
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

    /// The media that the switches enable on a connection.
    fn allowed(&self, index: usize, at: usize) -> (bool, bool) {
        let one = &self.connections[at];
        let_pass(self.gates(index, &one.session), (one.media.audio, one.media.video))
    }

    /// The media that is enabled in a session.
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
    let sends = |direction: Option<Direction>| direction.is_some_and(Direction::sends);
    (gates.microphone && sends(audio), gates.camera && sends(video))
}
