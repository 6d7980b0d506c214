//! Checks of microphone and speaker by the user's own ears.

use serde::{Deserialize, Serialize};

/// A check of the sound, which nobody else hears.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoundCheck {
    /// Three seconds of the microphone, as others would get them, and then the same from the speaker.
    HearYourself,
    /// A test sound from the speaker.
    TestSound,
}

/// What a running check does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoundCheckStage {
    /// It records the microphone.
    Recording,
    /// It plays what was recorded.
    PlayingBack,
    /// It plays the test sound.
    PlayingTestSound,
}

impl SoundCheck {
    /// What it does first.
    pub const fn first_stage(self) -> SoundCheckStage {
        match self {
            Self::HearYourself => SoundCheckStage::Recording,
            Self::TestSound => SoundCheckStage::PlayingTestSound,
        }
    }
}

impl SoundCheckStage {
    /// Whether the microphone is needed.
    pub const fn records(self) -> bool {
        matches!(self, Self::Recording)
    }

    /// Whether the microphone is withheld from everybody: what is said into it is for the check, and
    /// what is played is not to be heard a second time.
    pub const fn withholds_microphone(self) -> bool {
        matches!(self, Self::Recording | Self::PlayingBack)
    }
}
