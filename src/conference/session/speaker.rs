//! Who speaks in a session.

use super::{Session, SessionPhase};
use crate::{
    conference::effects::EffectQueue,
    model::{ActiveSpeaker, Event},
};

impl Session {
    /// Sets who speaks, and announces a change.
    pub(in crate::conference) fn set_active_speaker(
        &mut self,
        speaker: Option<ActiveSpeaker>,
        effects: &mut EffectQueue,
    ) {
        let speaker = speaker.filter(|speaker| self.has(speaker));
        if speaker == self.active_speaker {
            return;
        }
        let name = speaker.as_ref().and_then(|speaker| self.name_of(speaker)).map(str::to_owned);
        self.active_speaker.clone_from(&speaker);
        effects.announce(Event::ActiveSpeaker { session: self.id.clone(), speaker, name });
    }

    /// Who speaks. Somebody who has just left does not.
    pub(super) fn speaker(&self) -> Option<&ActiveSpeaker> {
        self.active_speaker.as_ref().filter(|speaker| self.has(speaker))
    }

    /// Whether the user of this program speaks in it.
    pub(in crate::conference) fn is_spoken_in(&self) -> bool {
        self.speaker() == Some(&ActiveSpeaker::Own)
    }

    fn has(&self, speaker: &ActiveSpeaker) -> bool {
        let SessionPhase::Joined(membership) = &self.phase else { return false };
        speaker.participant().is_none_or(|participant| membership.roster.contains(participant))
    }

    fn name_of(&self, speaker: &ActiveSpeaker) -> Option<&str> {
        let SessionPhase::Joined(membership) = &self.phase else { return None };
        let participant = speaker.participant()?;
        membership.roster.members().find(|one| one.id == *participant).map(|one| one.name())
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        conference::{Input, tests::fixture::*},
        model::{ActiveSpeaker, Event, LeaveReason, PeerState},
    };

    fn speaks(letter: &str) -> Input {
        Input::ActiveSpeaker(session(), Some(ActiveSpeaker::Participant(id(letter))))
    }

    fn announced(fixture: &Fixture) -> Vec<(Option<ActiveSpeaker>, Option<String>)> {
        let of = |event: &&Event| {
            let Event::ActiveSpeaker { speaker, name, .. } = event else { return None };
            Some((speaker.clone(), name.clone()))
        };
        fixture.events().iter().filter_map(of).collect()
    }

    #[test]
    fn a_speaker_is_announced_and_shown_until_another_one_speaks_or_it_leaves() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        fixture.handle(speaks("a"));
        let a = Some(ActiveSpeaker::Participant(id("a")));
        let name = fixture.status().participants.get(0).map(|one| one.name.clone());
        assert_eq!(announced(&fixture), [(a.clone(), name)]);
        assert_eq!(fixture.status().active_speaker, a);
        fixture.handle(speaks("a"));
        assert_eq!(announced(&fixture), [], "known already");
        fixture.receive(participant_left("a", LeaveReason::Left));
        assert_eq!(fixture.status().active_speaker, None, "it is not here");
        fixture.handle(Input::ActiveSpeaker(session(), None));
        assert_eq!(announced(&fixture), [(None, None)]);
        fixture.handle(speaks("stranger"));
        assert_eq!(announced(&fixture), [], "nobody of that name is here");
        fixture.handle(Input::ActiveSpeaker(session(), Some(ActiveSpeaker::Own)));
        assert_eq!(announced(&fixture), [(Some(ActiveSpeaker::Own), None)]);
    }
}
