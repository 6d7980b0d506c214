//! The settings that are kept between runs, in a TOML file in the platform's configuration folder.

use std::{io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{bindings::Bindings, device_choice::DeviceChoice};
use crate::{
    engine::{
        Decode, EngineOptions, HubChoice, SourceSpec, SpeakerSpec, SpeakerSpecError, SpecError,
    },
    model::{AudioContent, DeviceKind, HubUrl, LinkError, Processing, VoiceProcessing},
};

/// The settings as they are written into the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Settings {
    /// The user's name. If empty, the hub chooses one.
    pub(crate) name: String,
    /// The hub to use. If empty, one is found or started in this program.
    pub(crate) hub: String,
    /// The theme.
    pub(crate) theme: ThemeChoice,
    /// The camera.
    pub(crate) camera: DeviceChoice,
    /// Whether the preview of a camera is mirrored. Others see it unmirrored.
    pub(crate) mirror: bool,
    /// The microphone.
    pub(crate) microphone: DeviceChoice,
    /// Whether echo is removed from the sound of the microphone.
    pub(crate) echo: bool,
    /// Whether noise is removed from the sound of the microphone.
    pub(crate) noise: bool,
    /// Whether the loudness of the microphone is adapted.
    pub(crate) gain: bool,
    /// Whether the sound of the microphone is music.
    pub(crate) music: bool,
    /// The speaker.
    pub(crate) speaker: DeviceChoice,
    /// The size of the window.
    pub(crate) window: WindowSize,
    /// The sizes of the panels.
    pub(crate) panels: Panels,
    /// The keyboard shortcuts.
    pub(crate) keys: Bindings,
}

/// The size of the window when it was closed, in points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct WindowSize {
    /// Its width while it was not maximized.
    pub(crate) width: u16,
    /// Its height while it was not maximized.
    pub(crate) height: u16,
    /// Whether it was maximized.
    pub(crate) maximized: bool,
}

impl Default for WindowSize {
    fn default() -> Self {
        Self { width: 1280, height: 800, maximized: false }
    }
}

/// The widths or heights of the resizable panels, in points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Panels {
    /// The width of the sessions panel in a wide window.
    pub(crate) sessions: u16,
    /// The width of the sessions panel in a narrow window.
    pub(crate) sessions_narrow: u16,
    /// The width of the local streams beside the remote ones.
    pub(crate) local_beside: u16,
    /// The height of the local streams above the remote ones.
    pub(crate) local_above: u16,
    /// The width of the chat beside the streams.
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

/// The colour theme.
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
            camera: DeviceChoice::default_device(),
            mirror: true,
            microphone: DeviceChoice::default_device(),
            echo: true,
            noise: true,
            gain: true,
            music: false,
            speaker: DeviceChoice::default_device(),
            window: WindowSize::default(),
            panels: Panels::default(),
            keys: Bindings::default(),
        }
    }
}

/// Why settings cannot be read, saved or used. The message says what, why and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SettingsError {
    /// The system has no folder for settings.
    #[error("settings cannot be saved: this system has no folder for them; set HOME")]
    NoFolder,
    /// The file cannot be read.
    #[error("cannot read the settings in {path}: {error}; the default settings are used", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The file is not valid TOML.
    #[error(
        "cannot read the settings in {path}: {error}; the default settings are used; correct the \
         file and start again; {kept}",
        path = path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The parser's message, with the line.
        error: String,
        /// Whether the file was copied.
        kept: Backup,
    },
    /// A value is invalid. The other settings are used.
    #[error(
        "cannot use the setting {key} in {path}: {error}; the default is used instead; the file \
         keeps yours until you change it",
        path = path.display()
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, such as `window.width`.
        key: String,
        /// Why the value is invalid.
        error: String,
    },
    /// The file cannot be written.
    #[error("cannot save the settings in {path}: {error}; they are kept until you quit", path = path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The camera's setting is invalid.
    #[error("cannot use the camera in the settings: {0}")]
    Camera(SpecError),
    /// The microphone's setting is invalid.
    #[error("cannot use the microphone in the settings: {0}")]
    Microphone(SpecError),
    /// The speaker's setting is invalid.
    #[error("cannot use the speaker in the settings: {0}")]
    Speaker(SpeakerSpecError),
    /// The hub's setting is invalid.
    #[error("cannot use this hub: {0}")]
    Hub(LinkError),
}

impl Settings {
    /// The path of the settings file: `~/.config/quintet/settings.toml` on Linux.
    pub(crate) fn path() -> Option<PathBuf> {
        let folders = directories::ProjectDirs::from("", "", "quintet")?;
        Some(folders.config_dir().join("settings.toml"))
    }

    /// The choice of a kind of device.
    pub(crate) const fn device(&self, kind: DeviceKind) -> &DeviceChoice {
        match kind {
            DeviceKind::CAMERA => &self.camera,
            DeviceKind::MICROPHONE => &self.microphone,
            DeviceKind::Speaker => &self.speaker,
        }
    }

    /// The choice of a kind of device, to be changed.
    pub(crate) const fn device_mut(&mut self, kind: DeviceKind) -> &mut DeviceChoice {
        match kind {
            DeviceKind::CAMERA => &mut self.camera,
            DeviceKind::MICROPHONE => &mut self.microphone,
            DeviceKind::Speaker => &mut self.speaker,
        }
    }

    /// Whether the video source is a camera, whose preview can be mirrored.
    pub(crate) fn has_camera(&self) -> bool {
        matches!(self.camera.camera(), Ok(SourceSpec::Default | SourceSpec::Device(_)))
    }

    /// Whether the source of audio is a microphone, whose sound is processed.
    pub(crate) fn has_microphone(&self) -> bool {
        self.microphone.microphone().is_ok_and(|source| source.is_microphone())
    }

    /// Whether the preview of the local video is mirrored.
    pub(crate) fn mirrors_preview(&self) -> bool {
        self.mirror && self.has_camera()
    }

    /// What is done to the sound of the microphone.
    pub(crate) const fn voice_processing(&self) -> VoiceProcessing {
        VoiceProcessing {
            echo_cancellation: Processing::of_switch(self.echo),
            noise_suppression: Processing::of_switch(self.noise),
            auto_gain_control: Processing::of_switch(self.gain),
            content: if self.music { AudioContent::Music } else { AudioContent::Speech },
        }
    }

    /// The hub to use.
    pub(crate) fn hub_choice(&self) -> Result<HubChoice, SettingsError> {
        if self.hub.trim().is_empty() {
            return Ok(HubChoice::Find { listen: None });
        }
        let hub: HubUrl = self.hub.trim().parse().map_err(SettingsError::Hub)?;
        Ok(HubChoice::At(hub))
    }

    /// The options to start an engine with, and the settings that cannot be used for it.
    pub(crate) fn engine_options(&self) -> (EngineOptions, Vec<SettingsError>) {
        let mut errors = vec![];
        let camera = self.camera.camera().map_err(SettingsError::Camera);
        let microphone = self.microphone.microphone().map_err(SettingsError::Microphone);
        let speaker = self.speaker.speaker().map_err(SettingsError::Speaker);
        let options = EngineOptions {
            hub: or_default(self.hub_choice(), HubChoice::Find { listen: None }, &mut errors),
            own_hub: Default::default(),
            name: self.name.trim().to_owned(),
            camera: or_default(camera, SourceSpec::Default, &mut errors),
            video_bitrate: None,
            microphone: or_default(microphone, SourceSpec::Default, &mut errors),
            voice_processing: self.voice_processing(),
            speaker: or_default(speaker, SpeakerSpec::Default, &mut errors),
            decode: Decode::WhenSeen,
            measures_tones: false,
            keeps_secrets: true,
            impairment: None,
            rtp_dump: None,
            trace: None,
        };
        (options, errors)
    }
}

/// The copy of a settings file that cannot be parsed.
#[derive(Debug)]
pub(crate) enum Backup {
    /// The file was copied to this path before it is replaced.
    CopiedTo(PathBuf),
    /// The file could not be copied.
    Failed(io::Error),
}

impl std::fmt::Display for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CopiedTo(path) => write!(f, "a copy is in {}", path.display()),
            Self::Failed(error) => write!(
                f,
                "it could not be copied ({error}), and is replaced when you change a setting"
            ),
        }
    }
}

fn or_default<T>(
    result: Result<T, SettingsError>,
    default: T,
    errors: &mut Vec<SettingsError>,
) -> T {
    result.unwrap_or_else(|error| {
        errors.push(error);
        default
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_setting_is_reported_and_its_default_is_used() {
        let settings = Settings {
            camera: "tone".into(),
            hub: "ftp://x".to_owned(),
            microphone: "tone:300".into(),
            ..Settings::default()
        };
        let (options, errors) = settings.engine_options();
        assert_eq!(options.camera, SourceSpec::Default);
        assert_eq!(options.microphone, SourceSpec::Tone { hz: 300.0 });
        assert_eq!(errors.len(), 2, "{errors:?}");
    }
}
