//! What the user is told about the microphone: that it is silent, and that nobody hears it.

use super::effects::EffectQueue;
use crate::model::{Event, MicrophoneActivity, VoiceProcessing};

/// The microphone, apart from the state of its device.
#[derive(Debug, Default)]
pub(super) struct Microphone {
    /// What is done to its sound.
    pub(super) processing: VoiceProcessing,
    activity: MicrophoneActivity,
    /// Whether the user was told of the current mute.
    has_told_mute: bool,
}

impl Microphone {
    /// Sets what is heard at it.
    pub(super) fn set_activity(&mut self, activity: MicrophoneActivity, effects: &mut EffectQueue) {
        if activity.is_silent && !self.activity.is_silent {
            effects.announce(Event::MicrophoneSilent);
        }
        self.activity = activity;
    }

    /// Tells the user, once for each mute, that nobody hears what is said. `is_muted` tells whether
    /// somebody would hear the user if no switch muted the microphone.
    pub(super) fn settle(&mut self, is_muted: bool, effects: &mut EffectQueue) {
        let must_tell = is_muted && self.activity.is_speaking;
        if must_tell && !self.has_told_mute {
            effects.announce(Event::SpeakingWhileMuted);
        }
        self.has_told_mute = is_muted && (must_tell || self.has_told_mute);
    }

    /// Whether it gives digital silence.
    pub(super) const fn is_silent(&self) -> bool {
        self.activity.is_silent
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Input, tests::fixture::*};
    use crate::model::{
        Command, DeviceKind, DeviceState, Event, MicrophoneActivity, MuteSwitch, PeerState,
    };

    /// Lets the user speak or be quiet, and returns how often the user was told of a mute.
    fn speak(fixture: &mut Fixture, is_speaking: bool) -> usize {
        let activity = MicrophoneActivity { is_speaking, is_silent: false };
        fixture.handle(Input::MicrophoneActivity(activity));
        let told = fixture.events().into_iter();
        told.filter(|event| **event == Event::SpeakingWhileMuted).count()
    }

    fn mute(fixture: &mut Fixture, muted: bool) {
        let switch = MuteSwitch::MICROPHONE;
        let enabled = !muted;
        fixture.handle(Input::Command(Command::SetEnabled { session: None, switch, enabled }));
    }

    #[test]
    fn who_speaks_while_muted_is_told_once_for_each_mute_and_only_if_somebody_would_hear() {
        let mut fixture = Fixture::opened(MESH);
        mute(&mut fixture, true);
        assert_eq!(speak(&mut fixture, true), 0, "nobody is there");
        speak(&mut fixture, false);
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        assert_eq!(speak(&mut fixture, true), 1);
        for is_speaking in [false, true] {
            assert_eq!(speak(&mut fixture, is_speaking), 0, "told already");
        }
        mute(&mut fixture, false);
        assert_eq!(speak(&mut fixture, true), 0, "somebody hears it");
        speak(&mut fixture, false);
        mute(&mut fixture, true);
        assert_eq!(speak(&mut fixture, true), 1);
    }

    #[test]
    fn a_silent_microphone_is_told_and_shown_until_it_gives_sound_or_is_opened_again() {
        let mut fixture = Fixture::opened(MESH);
        let silence = |is_silent| {
            Input::MicrophoneActivity(MicrophoneActivity { is_silent, is_speaking: false })
        };
        fixture.handle(silence(true));
        assert_eq!(fixture.events(), [&Event::MicrophoneSilent]);
        assert!(fixture.core.snapshot().is_microphone_silent);
        fixture.handle(silence(false));
        assert!(!fixture.core.snapshot().is_microphone_silent);
        fixture.handle(silence(true));
        fixture.handle(Input::Device(DeviceKind::MICROPHONE, DeviceState::Opening));
        assert!(!fixture.core.snapshot().is_microphone_silent);
    }
}
