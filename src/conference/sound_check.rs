//! Checks of the user's own sound.

use super::effects::{Effect, EffectQueue};
use crate::model::{SoundCheck, SoundCheckStage};

/// The check that runs, if one does.
#[derive(Debug, Default)]
pub(super) struct SoundChecks {
    stage: Option<SoundCheckStage>,
}

impl SoundChecks {
    /// Starts a check, unless one runs.
    pub(super) fn start(&mut self, check: SoundCheck, effects: &mut EffectQueue) {
        if self.stage.is_none() {
            self.stage = Some(check.first_stage());
            effects.push(Effect::StartSoundCheck(check));
        }
    }

    /// The engine tells what the check does now; `None` at its end.
    pub(super) fn set_stage(&mut self, stage: Option<SoundCheckStage>) {
        self.stage = self.stage.and(stage);
    }

    /// What the check does.
    pub(super) const fn stage(&self) -> Option<SoundCheckStage> {
        self.stage
    }

    /// Whether the microphone is sent to nobody.
    pub(super) fn withholds_microphone(&self) -> bool {
        self.stage.is_some_and(SoundCheckStage::withholds_microphone)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::*;
    use super::*;
    use crate::{
        conference::Input,
        model::{Command, Event, MicrophoneActivity, PeerState},
    };

    fn start(check: SoundCheck) -> Input {
        Input::Command(Command::StartSoundCheck(check))
    }

    fn stage(stage: Option<SoundCheckStage>) -> Input {
        Input::SoundCheck(stage)
    }

    /// What the devices are needed for, if that changed: microphone and speaker.
    fn demand(fixture: &Fixture) -> Option<(bool, bool)> {
        fixture.effects.iter().rev().find_map(|effect| {
            let Effect::Demand(needed) = effect else { return None };
            Some((needed.sources.microphone, needed.speaker))
        })
    }

    /// Whether the microphone is sent, if that changed.
    fn is_sent(fixture: &Fixture) -> Option<bool> {
        fixture.effects.iter().rev().find_map(|effect| {
            let Effect::SetSending { layers, .. } = effect else { return None };
            Some(layers.microphone.is_some())
        })
    }

    #[test]
    fn without_a_session_a_check_opens_the_devices_that_it_needs_and_closes_them() {
        let mut fixture = Fixture::new();
        fixture.handle(start(SoundCheck::HearYourself));
        assert!(fixture.effects.contains(&Effect::StartSoundCheck(SoundCheck::HearYourself)));
        assert_eq!(demand(&fixture), Some((true, true)));
        let shown = |fixture: &Fixture| fixture.core.snapshot().sound_check;
        assert_eq!(shown(&fixture), Some(SoundCheckStage::Recording));
        fixture.handle(start(SoundCheck::TestSound));
        assert_eq!(fixture.effects, [], "one check at a time");
        fixture.handle(stage(Some(SoundCheckStage::PlayingBack)));
        assert_eq!(shown(&fixture), Some(SoundCheckStage::PlayingBack));
        fixture.handle(stage(None));
        assert_eq!((shown(&fixture), demand(&fixture)), (None, Some((true, false))));
        fixture.handle(stage(Some(SoundCheckStage::PlayingBack)));
        assert_eq!(shown(&fixture), None, "it has ended");
        fixture.handle(start(SoundCheck::TestSound));
        assert_eq!(demand(&fixture), Some((true, true)), "the microphone lingers");
    }

    #[test]
    fn who_hears_themselves_is_heard_by_nobody_and_is_not_told_to_be_muted() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        assert_eq!(is_sent(&fixture), Some(true));
        fixture.handle(start(SoundCheck::TestSound));
        assert_eq!(is_sent(&fixture), None, "the microphone has no part in it");
        fixture.handle(stage(None)).handle(start(SoundCheck::HearYourself));
        assert_eq!(is_sent(&fixture), Some(false));
        let speaks = MicrophoneActivity { is_speaking: true, is_silent: false };
        fixture.handle(Input::MicrophoneActivity(speaks));
        assert!(!fixture.events().contains(&&Event::SpeakingWhileMuted));
        fixture.handle(stage(Some(SoundCheckStage::PlayingBack)));
        assert_eq!(is_sent(&fixture), None, "still not");
        fixture.handle(stage(None));
        assert_eq!(is_sent(&fixture), Some(true));
        assert!(fixture.core.snapshot().enabled.sources.microphone, "no switch has moved");
    }
}
