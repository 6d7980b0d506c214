//! Cameras, microphones and speakers, and which of them a person means.

/// A device that can be chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// What the system calls it: no two devices share it, and it is the same after a restart where
    /// the system has such a name.
    pub id: String,
    /// What a person calls it. Two devices may share it.
    pub name: String,
    /// Whether it is used where none is named.
    pub is_default: bool,
}

/// The device that a person means.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceRef {
    /// Its id, if it was chosen from a list; `None` if a name or an id was typed.
    pub id: Option<String>,
    /// Its name when it was chosen, or what was typed: a name, a part of one, or an id.
    pub name: String,
}

/// Why no device is meant, or more than one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChoiceError {
    /// Nothing is called like that.
    #[error("there is no {noun} {name:?}; {}", known(.names))]
    Unknown {
        /// `camera`, `microphone` or `speaker`.
        noun: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        names: Vec<String>,
    },
    /// Several devices are called like that.
    #[error("{} {noun}s are called {name:?}; give the id of one: {}", .ids.len(), quoted(.ids))]
    Several {
        /// `camera`, `microphone` or `speaker`.
        noun: &'static str,
        /// The name that was asked for.
        name: String,
        /// Their ids.
        ids: Vec<String>,
    },
}

/// What lists show behind the name of the default device.
pub const DEFAULT_MARK: &str = " (default)";

impl DeviceRef {
    /// What was typed: a name, a part of one in any case, or an id.
    pub fn typed(text: &str) -> Self {
        Self { id: None, name: text.to_owned() }
    }
}

impl From<&Device> for DeviceRef {
    fn from(device: &Device) -> Self {
        Self { id: Some(device.id.clone()), name: device.name.clone() }
    }
}

/// The place in the list of the device that a person means. `noun` is what they are, for the error.
///
/// An id counts first. A device that was chosen from a list and is not there under that id is the
/// only one of its name: systems number some devices anew. Then the whole name counts, then a part
/// of it in any case. The mark of the default device counts where several have the name.
///
/// # Errors
/// [`ChoiceError`] if there is no such device, or if several have that name: the wrong camera or
/// microphone on air is worse than none.
pub fn choose(
    devices: &[Device],
    wanted: &DeviceRef,
    noun: &'static str,
) -> Result<usize, ChoiceError> {
    let name = wanted.name.as_str();
    let places = |fits: &dyn Fn(&Device) -> bool| -> Vec<usize> {
        (0..devices.len()).filter(|place| fits(&devices[*place])).collect()
    };
    let id = wanted.id.as_deref().unwrap_or(name);
    // Lists show the mark behind the name, and earlier settings kept both as one.
    let unmarked = name.strip_suffix(DEFAULT_MARK).unwrap_or(name);
    let lower = unmarked.to_lowercase();
    let mut found = places(&|device| device.id == id);
    for name in [name, unmarked] {
        if found.is_empty() {
            found = places(&|device| device.name == name);
        }
    }
    if found.is_empty() && wanted.id.is_none() {
        found = places(&|device| device.name.to_lowercase().contains(&lower));
    }
    if found.len() > 1 && unmarked != name {
        // The mark says which one was meant.
        let is_default = |place: &usize| devices[*place].is_default;
        found = found.iter().copied().find(is_default).map_or(found, |place| vec![place]);
    }
    match found.as_slice() {
        [only] => Ok(*only),
        [] => {
            let name = unmarked.to_owned();
            let mut names: Vec<_> = devices.iter().map(|device| device.name.clone()).collect();
            names.dedup();
            Err(ChoiceError::Unknown { noun, name, names })
        }
        several => {
            let ids = several.iter().map(|place| devices[*place].id.clone()).collect();
            Err(ChoiceError::Several { noun, name: unmarked.to_owned(), ids })
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
        assert_eq!(chosen(None, "Headset (default)"), Ok(1), "as it is listed");
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
    fn the_mark_of_the_default_device_tells_it_from_others_of_its_name() {
        let mut devices = devices();
        devices[3].is_default = true;
        let marked = DeviceRef::typed("Webcam (default)");
        assert_eq!(choose(&devices, &marked, "camera"), Ok(3));
    }

    #[test]
    fn a_chosen_device_is_its_id_else_the_only_one_of_its_name() {
        assert_eq!(chosen(Some("usb-4"), "Webcam"), Ok(3), "the second of two");
        assert_eq!(chosen(Some("usb-9"), "Headset"), Ok(1), "it has another id now");
        assert!(chosen(Some("usb-9"), "Webcam").is_err(), "it may be either");
        assert!(chosen(Some("usb-9"), "Built-in").is_err(), "no part of a name");
    }
}
