//! Cameras, microphones and speakers, and how a user's choice is matched to one of them.

/// A device that the user can choose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// The system's id of the device, which no other device has. It stays the same after a restart
    /// where the system has persistent ids.
    pub id: String,
    /// The name that is shown to the user. Two devices may have the same name.
    pub name: String,
    /// Whether it is used when the user names no device.
    pub is_default: bool,
}

/// The user's choice of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRef {
    /// The id, if the device was chosen from a list; `None` if a name or an id was typed.
    pub id: Option<String>,
    /// The name at the time of the choice, or the typed text: a name, a part of one, or an id.
    pub name: String,
}

/// Why a choice matches no device, or more than one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChoiceError {
    /// No device has this name.
    #[error("there is no {noun} {name:?}; {}", known(.names))]
    Unknown {
        /// `camera`, `microphone` or `speaker`.
        noun: &'static str,
        /// The name that was looked for.
        name: String,
        /// The names of the existing devices.
        names: Vec<String>,
    },
    /// Several devices have this name.
    #[error("{} {noun}s are called {name:?}; give the id of one: {}", .ids.len(), quoted(.ids))]
    Several {
        /// `camera`, `microphone` or `speaker`.
        noun: &'static str,
        /// The name that was looked for.
        name: String,
        /// The ids of those devices.
        ids: Vec<String>,
    },
}

/// The suffix of the default device's name in lists.
pub const DEFAULT_SUFFIX: &str = " (default)";

impl DeviceRef {
    /// A choice from typed text: a name, a part of one in any case, or an id.
    pub fn typed(text: &str) -> Self {
        Self { id: None, name: text.to_owned() }
    }
}

impl From<&Device> for DeviceRef {
    fn from(device: &Device) -> Self {
        Self { id: Some(device.id.clone()), name: device.name.clone() }
    }
}

/// Returns the index of the device that the user chose. `noun` names the kind of device in errors.
///
/// The id is matched first, then the whole name, then, for typed text, a part of the name in any
/// case. A device that was chosen from a list is also found by its name if its id is gone and no
/// other device has that name, because systems renumber some devices. The suffix of the default
/// device selects it among several of the same name.
///
/// # Errors
/// [`ChoiceError`] if there is no such device, or if several have that name: sending the wrong
/// camera or microphone is worse than sending none.
pub fn choose(
    devices: &[Device],
    wanted: &DeviceRef,
    noun: &'static str,
) -> Result<usize, ChoiceError> {
    let name = wanted.name.as_str();
    let indices = |fits: &dyn Fn(&Device) -> bool| -> Vec<usize> {
        (0..devices.len()).filter(|index| fits(&devices[*index])).collect()
    };
    let id = wanted.id.as_deref().unwrap_or(name);
    // Lists show the suffix after the name, and earlier settings stored both as one text.
    let without_suffix = name.strip_suffix(DEFAULT_SUFFIX).unwrap_or(name);
    let lower = without_suffix.to_lowercase();
    let mut found = indices(&|device| device.id == id);
    for name in [name, without_suffix] {
        if found.is_empty() {
            found = indices(&|device| device.name == name);
        }
    }
    if found.is_empty() && wanted.id.is_none() {
        found = indices(&|device| device.name.to_lowercase().contains(&lower));
    }
    if found.len() > 1 && without_suffix != name {
        let is_default = |index: &usize| devices[*index].is_default;
        found = found.iter().copied().find(is_default).map_or(found, |index| vec![index]);
    }
    match found.as_slice() {
        [only] => Ok(*only),
        [] => {
            let name = without_suffix.to_owned();
            let mut names: Vec<_> = devices.iter().map(|device| device.name.clone()).collect();
            names.dedup();
            Err(ChoiceError::Unknown { noun, name, names })
        }
        several => {
            let ids = several.iter().map(|index| devices[*index].id.clone()).collect();
            Err(ChoiceError::Several { noun, name: without_suffix.to_owned(), ids })
        }
    }
}

fn known(names: &[String]) -> String {
    match names {
        [] => "none is connected; connect one".to_owned(),
        names => format!("there are {}; connect it, or pick one of them", quoted(names)),
    }
}

fn quoted(texts: &[String]) -> String {
    let quoted: Vec<_> = texts.iter().map(|text| format!("{text:?}")).collect();
    quoted.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> Vec<Device> {
        let device = |name: &str, id: &str| Device {
            name: name.to_owned(),
            id: id.to_owned(),
            is_default: false,
        };
        vec![
            device("Headset Mono", "usb-1"),
            device("Headset", "usb-2"),
            device("Webcam", "usb-3"),
            device("Webcam", "usb-4"),
            device("Built-in Audio", "pci"),
        ]
    }

    fn chosen(id: Option<&str>, name: &str) -> Result<usize, String> {
        let wanted = DeviceRef { id: id.map(str::to_owned), name: name.to_owned() };
        choose(&devices(), &wanted, "microphone").map_err(|error| error.to_string())
    }

    #[test]
    fn a_typed_device_is_found_by_id_then_name_then_part_of_a_name() {
        assert_eq!(chosen(None, "Headset"), Ok(1));
        assert_eq!(chosen(None, "usb-1"), Ok(0));
        assert_eq!(chosen(None, "built-IN"), Ok(4));
        assert_eq!(chosen(None, "Headset (default)"), Ok(1), "with the suffix of the list");
        let unknown = chosen(None, "Radio").unwrap_err();
        assert!(
            unknown.starts_with("there is no microphone \"Radio\"; there are \"Headset Mono\"")
        );
        let none = choose(&[], &DeviceRef::typed("X"), "speaker").unwrap_err().to_string();
        assert_eq!(none, "there is no speaker \"X\"; none is connected; connect one");
    }

    #[test]
    fn a_name_of_two_devices_is_refused_with_their_ids() {
        let several =
            "2 microphones are called \"Webcam\"; give the id of one: \"usb-3\", \"usb-4\"";
        assert_eq!(chosen(None, "Webcam"), Err(several.to_owned()));
        assert!(chosen(None, "headset m").is_ok() && chosen(None, "head").is_err());
    }

    #[test]
    fn the_default_suffix_selects_the_default_device_among_several_of_its_name() {
        let mut devices = devices();
        devices[3].is_default = true;
        let with_suffix = DeviceRef::typed("Webcam (default)");
        assert_eq!(choose(&devices, &with_suffix, "camera"), Ok(3));
    }

    #[test]
    fn a_chosen_device_is_found_by_its_id_or_as_the_only_one_of_its_name() {
        assert_eq!(chosen(Some("usb-4"), "Webcam"), Ok(3), "the second of two");
        assert_eq!(chosen(Some("usb-9"), "Headset"), Ok(1), "its id has changed");
        assert!(chosen(Some("usb-9"), "Webcam").is_err(), "two devices have this name");
        assert!(chosen(Some("usb-9"), "Built-in").is_err(), "a part of a name does not match");
    }
}
