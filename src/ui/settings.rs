//! What is kept from one run to the next: a small TOML file in the platform's place.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{bindings::Bindings, chosen::Chosen};
use crate::{
    engine::{
        Decode, EngineOptions, HubChoice, SourceSpec, SpeakerSpec, SpeakerSpecError, SpecError,
    },
    model::{HubUrl, LinkError},
};

/// What is kept from one run to the next, as it is written into the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Settings {
    /// How the person wants to be called; empty leaves it to the hub.
    pub(crate) name: String,
    /// The hub to use; empty finds one or brings an own one.
    pub(crate) hub: String,
    /// The theme.
    pub(crate) theme: ThemeChoice,
    /// What is sent as picture.
    pub(crate) camera: Chosen,
    /// Whether a camera's own picture is shown as in a mirror; others see it as it is.
    pub(crate) mirror: bool,
    /// What is sent as sound.
    pub(crate) microphone: Chosen,
    /// Where it is played.
    pub(crate) speaker: Chosen,
    /// How large the window is.
    pub(crate) window: WindowSize,
    /// How wide panels are.
    pub(crate) panels: Panels,
    /// Which keys ask for what.
    pub(crate) keys: Bindings,
}

/// How large the window was when it was closed, in points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WindowSize {
    /// From left to right, while it does not fill the screen.
    pub(crate) width: u16,
    /// From top to bottom.
    pub(crate) height: u16,
    /// It filled the screen.
    pub(crate) maximized: bool,
}

impl Default for WindowSize {
    fn default() -> Self {
        Self { width: 1280, height: 800, maximized: false }
    }
}

/// How wide, or high, the panels are that can be drawn wider, in points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Panels {
    /// The sessions, in a wide window.
    pub(crate) sessions: u16,
    /// The sessions, in a narrow one.
    pub(crate) sessions_narrow: u16,
    /// The local streams, beside the remote ones: their width.
    pub(crate) local_beside: u16,
    /// The local streams, above the remote ones: their height.
    pub(crate) local_above: u16,
    /// The chat, beside the streams: its width.
    pub(crate) chat_beside: u16,
}

impl Default for Panels {
    fn default() -> Self {
        Self {
            sessions: 304,
            sessions_narrow: 288,
            local_beside: 272,
            local_above: 190,
            chat_beside: 304,
        }
    }
}

/// The looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ThemeChoice {
    /// Light on dark.
    #[default]
    Dark,
    /// Dark on light.
    Light,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            hub: String::new(),
            theme: ThemeChoice::Dark,
            camera: Chosen::default_device(),
            mirror: true,
            microphone: Chosen::default_device(),
            speaker: Chosen::default_device(),
            window: WindowSize::default(),
            panels: Panels::default(),
            keys: Bindings::default(),
        }
    }
}

/// Why settings cannot be read, kept or used. Says what, why and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The system has no place for them.
    #[error("settings cannot be saved: this system has no folder for them; set HOME")]
    NoPlace,
    /// The file cannot be read.
    #[error("cannot read the settings in {path}: {error}; the default settings are used", path = path.display())]
    Read {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is no TOML.
    #[error(
        "cannot read the settings in {path}: {error}; the default settings are used; correct the \
         file and start again; {kept}",
        path = path.display()
    )]
    Malformed {
        /// Where.
        path: PathBuf,
        /// What is wrong with it, and in which line.
        error: String,
        /// What becomes of the file.
        kept: Kept,
    },
    /// One value is none that this version knows; the others are used.
    #[error(
        "cannot use the setting {key} in {path}: {error}; the default is used instead; the file \
         keeps yours until you change it",
        path = path.display()
    )]
    Value {
        /// Where.
        path: PathBuf,
        /// Which, `window.width`.
        key: String,
        /// What is wrong with it.
        error: String,
    },
    /// The file cannot be written.
    #[error("cannot save the settings in {path}: {error}; they are kept until you quit", path = path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The camera's setting.
    #[error("cannot use the camera in the settings: {0}")]
    Camera(SpecError),
    /// The microphone's setting.
    #[error("cannot use the microphone in the settings: {0}")]
    Microphone(SpecError),
    /// The speaker's setting.
    #[error("cannot use the speaker in the settings: {0}")]
    Speaker(SpeakerSpecError),
    /// The hub's setting.
    #[error("cannot use this hub: {0}")]
    Hub(LinkError),
}

impl Settings {
    /// Where they are kept: `~/.config/quintet/settings.toml` on Linux.
    pub(crate) fn place() -> Option<PathBuf> {
        let folders = directories::ProjectDirs::from("", "", "quintet")?;
        Some(folders.config_dir().join("settings.toml"))
    }

    /// Whether the camera is one, so that its own picture can be shown as in a mirror.
    pub(crate) fn has_camera(&self) -> bool {
        matches!(self.camera.camera(), Ok(SourceSpec::Default | SourceSpec::Device(_)))
    }

    /// Whether the own picture is shown as in a mirror.
    pub(crate) fn mirrors(&self) -> bool {
        self.mirror && self.has_camera()
    }

    /// The hub that is meant.
    pub(crate) fn hub(&self) -> Result<HubChoice, SettingsError> {
        if self.hub.trim().is_empty() {
            return Ok(HubChoice::Find { listen: None });
        }
        let hub: HubUrl = self.hub.trim().parse().map_err(SettingsError::Hub)?;
        Ok(HubChoice::At(hub))
    }

    /// What an engine is started with, and what of the settings could not be used for it.
    pub(crate) fn engine(&self) -> (EngineOptions, Vec<SettingsError>) {
        let mut errors = vec![];
        let camera = self.camera.camera().map_err(SettingsError::Camera);
        let microphone = self.microphone.microphone().map_err(SettingsError::Microphone);
        let speaker = self.speaker.speaker().map_err(SettingsError::Speaker);
        let options = EngineOptions {
            hub: usable(self.hub(), HubChoice::Find { listen: None }, &mut errors),
            own_hub: Default::default(),
            name: self.name.trim().to_owned(),
            camera: usable(camera, SourceSpec::Default, &mut errors),
            rate: None,
            microphone: usable(microphone, SourceSpec::Default, &mut errors),
            speaker: usable(speaker, SpeakerSpec::Default, &mut errors),
            decode: Decode::WhenSeen,
            keeps_secrets: true,
            impairment: None,
        };
        (options, errors)
    }
}

/// What becomes of a settings file that cannot be understood.
#[derive(Debug)]
pub(crate) enum Kept {
    /// A copy lies there, whatever is written in its place.
    Copy(PathBuf),
    /// No copy could be made.
    Nowhere(io::Error),
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Copy(path) => write!(f, "a copy is in {}", path.display()),
            Self::Nowhere(error) => write!(
                f,
                "it could not be copied ({error}), and is replaced when you change a setting"
            ),
        }
    }
}

fn usable<T>(result: Result<T, SettingsError>, usual: T, errors: &mut Vec<SettingsError>) -> T {
    result.unwrap_or_else(|error| {
        errors.push(error);
        usual
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unusable_setting_is_told_and_the_usual_one_taken() {
        let settings = Settings {
            camera: "tone".into(),
            hub: "ftp://x".to_owned(),
            microphone: "tone:300".into(),
            ..Settings::default()
        };
        let (options, errors) = settings.engine();
        assert_eq!(options.camera, SourceSpec::Default);
        assert_eq!(options.microphone, SourceSpec::Tone { hz: 300.0 });
        assert_eq!(errors.len(), 2, "{errors:?}");
    }
}
