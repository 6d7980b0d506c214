//! The options of what is done to the sound of the microphone.

use crate::model::{AudioContent, Processing, VoiceChoice};

/// What is done to the sound of the microphone.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct VoiceArgs {
    /// Remove what the speaker plays from what the microphone hears. Without this option, it is on
    /// for microphones and off for files and tones, as are --noise and --gain.
    #[arg(long, value_name = "SWITCH")]
    echo: Option<Switch>,
    /// Remove steady noise from what the microphone hears.
    #[arg(long, value_name = "SWITCH")]
    noise: Option<Switch>,
    /// Make quiet speech louder.
    #[arg(long, value_name = "SWITCH")]
    gain: Option<Switch>,
    /// What the sound is. Music is sent as it is, at more than twice the rate where the connection
    /// carries it; microphones are not processed then, unless --echo, --noise or --gain asks for it.
    #[arg(long, value_name = "CONTENT")]
    audio: Option<Content>,
}

/// What the sound is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Content {
    Speech,
    Music,
}

/// The value of an option that is on or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

impl VoiceArgs {
    /// Returns the choices of the options that were given. `on` also applies to files and tones.
    pub fn choice(self) -> VoiceChoice {
        let processing = |switch| match switch {
            Switch::On => Processing::Always,
            Switch::Off => Processing::Off,
        };
        VoiceChoice {
            echo: self.echo.map(processing),
            noise: self.noise.map(processing),
            gain: self.gain.map(processing),
            content: self.audio.map(|content| match content {
                Content::Speech => AudioContent::Speech,
                Content::Music => AudioContent::Music,
            }),
        }
    }
}
