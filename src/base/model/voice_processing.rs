//! What is done to the sound of a microphone before it is encoded.

use serde::{Deserialize, Serialize};

/// Which processing the sound of the microphone passes. The names are those of W3C Media Capture
/// and Streams.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VoiceProcessing {
    /// Removes what our speaker plays from what our microphone hears.
    pub echo_cancellation: Processing,
    /// Removes steady noise, such as that of a fan.
    pub noise_suppression: Processing,
    /// Makes quiet speech louder, and keeps loud speech from distorting.
    pub auto_gain_control: Processing,
    /// What the sound is.
    #[serde(default)]
    pub content: AudioContent,
}

/// What the sound of a source is (the hints of W3C MediaStreamTrack Content Hints).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AudioContent {
    /// Somebody who speaks.
    #[default]
    Speech,
    /// Anything that is to sound like the original.
    Music,
}

/// Which sources one kind of processing applies to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Processing {
    /// To none.
    Off,
    /// To real microphones. Files and tones are sent as they are.
    #[default]
    Microphones,
    /// To every source of audio, also to files and tones.
    Always,
}

impl VoiceProcessing {
    /// No processing.
    pub const OFF: Self = Self {
        echo_cancellation: Processing::Off,
        noise_suppression: Processing::Off,
        auto_gain_control: Processing::Off,
        content: AudioContent::Speech,
    };

    /// Whether a kind of processing applies to a source: of music, no microphone is processed unless
    /// that is asked for.
    pub const fn applies(self, kind: Processing, is_microphone: bool) -> bool {
        kind.applies_to(is_microphone && matches!(self.content, AudioContent::Speech))
    }
}

/// What is heard at the microphone, before any mute.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MicrophoneActivity {
    /// Whether it has given nothing but digital silence for some seconds.
    pub is_silent: bool,
    /// Whether somebody speaks.
    pub is_speaking: bool,
}

/// A choice for this run of each kind of processing, where there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct VoiceChoice {
    /// Echo cancellation.
    pub echo: Option<Processing>,
    /// Noise suppression.
    pub noise: Option<Processing>,
    /// Automatic gain control.
    pub gain: Option<Processing>,
    /// What the sound is.
    pub content: Option<AudioContent>,
}

impl VoiceChoice {
    /// What is chosen, and `otherwise` where nothing is.
    pub fn or(self, otherwise: VoiceProcessing) -> VoiceProcessing {
        VoiceProcessing {
            echo_cancellation: self.echo.unwrap_or(otherwise.echo_cancellation),
            noise_suppression: self.noise.unwrap_or(otherwise.noise_suppression),
            auto_gain_control: self.gain.unwrap_or(otherwise.auto_gain_control),
            content: self.content.unwrap_or(otherwise.content),
        }
    }
}

impl Processing {
    /// Whether it applies to a source: `is_microphone` says whether that is a real microphone.
    pub const fn applies_to(self, is_microphone: bool) -> bool {
        match self {
            Self::Off => false,
            Self::Microphones => is_microphone,
            Self::Always => true,
        }
    }

    /// On for real microphones, or off: the meaning of a switch in the window.
    pub const fn of_switch(is_on: bool) -> Self {
        if is_on { Self::Microphones } else { Self::Off }
    }

    /// Whether a switch in the window shows it as on.
    pub const fn is_on(self) -> bool {
        !matches!(self, Self::Off)
    }
}
