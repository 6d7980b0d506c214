//! The user's choice of camera, microphone or speaker, as the settings store it.

use serde::{Deserialize, Serialize};

use crate::{
    devices::{DEFAULT_SUFFIX, Device, DeviceRef, choose},
    engine::{SourceSpec, SpeakerSpec, SpeakerSpecError, SpecError},
};

/// A choice of camera, microphone or speaker.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a text such as \"default\", or { id = …, name = … }")]
pub(crate) enum DeviceChoice {
    /// A device of the system.
    Device {
        /// The system's id of the device.
        id: String,
        /// The device's name, shown while it is not connected.
        name: String,
    },
    /// As on the command line: `default`, `none`, `tone:440`, a file, or a device's name.
    Spec(String),
}

impl DeviceChoice {
    /// The system's default device.
    pub(crate) fn default_device() -> Self {
        "default".into()
    }

    /// The kind of a spec, without its details: every test pattern is `pattern`. For a device, its
    /// name.
    pub(crate) fn kind(&self) -> &str {
        match self {
            Self::Device { name, .. } => name,
            Self::Spec(spec) => spec_kind(spec),
        }
    }

    /// Whether it is this spec of the command line: `default` or `none`.
    pub(crate) fn is_spec(&self, word: &str) -> bool {
        matches!(self, Self::Spec(spec) if spec == word)
    }

    /// The device's name, without the default mark that older settings stored in it.
    pub(crate) fn name(&self) -> &str {
        let (Self::Device { name, .. } | Self::Spec(name)) = self;
        name.strip_suffix(DEFAULT_SUFFIX).unwrap_or(name)
    }

    /// The index of the chosen device in a list of devices.
    pub(crate) fn index_in(&self, devices: &[Device]) -> Option<usize> {
        let wanted = match self {
            Self::Device { id, name } => DeviceRef { id: Some(id.clone()), name: name.clone() },
            Self::Spec(spec) if is_keyword(spec_kind(spec)) => return None,
            Self::Spec(name) => DeviceRef::typed(name),
        };
        choose(devices, &wanted, "device").ok()
    }

    /// The camera to open.
    pub(crate) fn camera(&self) -> Result<SourceSpec, SpecError> {
        self.source(SourceSpec::for_camera)
    }

    /// The microphone to open.
    pub(crate) fn microphone(&self) -> Result<SourceSpec, SpecError> {
        self.source(SourceSpec::for_microphone)
    }

    /// The speaker to open.
    pub(crate) fn speaker(&self) -> Result<SpeakerSpec, SpeakerSpecError> {
        match self {
            Self::Device { id, name } => {
                Ok(SpeakerSpec::Device(DeviceRef { id: Some(id.clone()), name: name.clone() }))
            }
            Self::Spec(spec) => spec.parse(),
        }
    }

    fn source(
        &self,
        parse: impl FnOnce(&str) -> Result<SourceSpec, SpecError>,
    ) -> Result<SourceSpec, SpecError> {
        match self {
            Self::Device { id, name } => {
                Ok(SourceSpec::Device(DeviceRef { id: Some(id.clone()), name: name.clone() }))
            }
            Self::Spec(spec) => parse(spec),
        }
    }
}

impl From<&str> for DeviceChoice {
    fn from(spec: &str) -> Self {
        Self::Spec(spec.to_owned())
    }
}

impl From<&Device> for DeviceChoice {
    fn from(device: &Device) -> Self {
        Self::Device { id: device.id.clone(), name: device.name.clone() }
    }
}

/// The labels of devices in a list. Devices with the same name are numbered, and the default one is
/// marked.
pub(crate) fn device_labels(devices: &[Device]) -> Vec<String> {
    let label = |(index, device): (usize, &Device)| {
        let same = |other: &&Device| other.name == device.name;
        let number = devices[..=index].iter().filter(same).count();
        let is_only = devices.iter().filter(same).count() == 1;
        let number = if is_only { String::new() } else { format!(" ({number})") };
        let mark = if device.is_default { DEFAULT_SUFFIX } else { "" };
        format!("{}{number}{mark}", device.name)
    };
    devices.iter().enumerate().map(label).collect()
}

/// The kind of a spec: the part before the colon.
pub(crate) fn spec_kind(spec: &str) -> &str {
    spec.split_once(':').map_or(spec, |(kind, _)| kind)
}

fn is_keyword(kind: &str) -> bool {
    matches!(kind, "default" | "none" | "pattern" | "busy" | "tone" | "file")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, id: &str, is_default: bool) -> Device {
        Device { id: id.to_owned(), name: name.to_owned(), is_default }
    }

    #[test]
    fn devices_with_the_same_name_are_numbered_and_the_default_mark_is_not_part_of_the_name() {
        let devices = [
            device("Headset", "a", true),
            device("Webcam", "b", false),
            device("Headset", "c", false),
        ];
        assert_eq!(device_labels(&devices), ["Headset (1) (default)", "Webcam", "Headset (2)"]);
        let second = DeviceChoice::from(&devices[2]);
        assert_eq!(second.index_in(&devices), Some(2));
        assert_eq!(second.index_in(&devices[1..]), Some(1), "at any position");
        assert_eq!(second.index_in(&devices[1..2]), None, "not connected");
        let second = DeviceChoice::Device { id: "c".to_owned(), name: "Headset".to_owned() };
        assert_eq!(DeviceChoice::from(&devices[2]), second);
    }

    #[test]
    fn names_in_older_settings_still_find_their_device() {
        let devices = [device("Headset", "a", false), device("Webcam", "b", true)];
        for (text, index) in [
            ("Headset (default)", Some(0)),
            ("Webcam", Some(1)),
            ("b", Some(1)),
            ("default", None),
            ("tone:440", None),
        ] {
            assert_eq!(DeviceChoice::from(text).index_in(&devices), index, "{text}");
        }
        assert_eq!(DeviceChoice::from("Headset (default)").name(), "Headset");
    }
}
