//! Microphones and speakers, found the same way at both ends.

use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

use cpal::traits::{DeviceTrait, HostTrait};

#[cfg(target_os = "linux")]
use super::pulse_cookie;

/// The sound system to use now: PulseAudio (or PipeWire, which speaks its protocol) if its server
/// answers within two seconds, else the platform's own.
///
/// Asked anew for each opening, because sound servers come and go; a connection to a server is
/// shared as long as it lives. May block for those two seconds, and longer if a server hangs: call
/// it on the thread that opens and uses the device, where it also keeps ALSA's own complaints from
/// being written to the terminal.
pub fn sound_host() -> Arc<cpal::Host> {
    quiet_alsa();
    shared_host()
}

#[cfg(target_os = "linux")]
fn shared_host() -> Arc<cpal::Host> {
    // A PulseAudio client whose last handle is dropped may leave its thread and its connection
    // behind, so there is one for all. ALSA has none, and PulseAudio is to be asked again.
    static SERVER: Mutex<Option<Arc<cpal::Host>>> = Mutex::new(None);
    let known = SERVER.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(host) = known
        && host.devices().is_ok()
    {
        return host;
    }
    let mut host = Arc::new(cpal::default_host());
    if host.id() != cpal::HostId::PulseAudio
        && cpal::available_hosts().contains(&cpal::HostId::PulseAudio)
        && pulse_cookie::make_if_missing()
    {
        host = Arc::new(cpal::default_host());
    }
    if host.id() == cpal::HostId::PulseAudio {
        *SERVER.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&host));
    }
    host
}

#[cfg(not(target_os = "linux"))]
fn shared_host() -> Arc<cpal::Host> {
    Arc::new(cpal::default_host())
}

/// Which end of the sound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SoundEnd {
    /// Microphones.
    Input,
    /// Speakers.
    Output,
}

impl SoundEnd {
    const fn noun(self) -> &'static str {
        match self {
            Self::Input => "microphone",
            Self::Output => "speaker",
        }
    }
}

/// A device that can be chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
struct SoundDevice {
    /// What a person calls it.
    name: String,
    /// What the sound system calls it; tells two of the same name apart.
    id: String,
    /// Whether it is the one that is used when none is named.
    is_default: bool,
}

/// Why there is no such device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SoundError {
    /// None is connected.
    #[error("there is no {noun}")]
    None {
        /// `microphone` or `speaker`.
        noun: &'static str,
    },
    /// Without a microphone, sound servers offer what the speaker plays: an echo for everybody.
    #[error("there is no microphone, only {name:?}, which hears what the speaker plays")]
    OnlyMonitor {
        /// The device that would echo.
        name: String,
    },
    /// Nothing has that name.
    #[error("there is no {noun} {name:?}; {}", known(.names))]
    Unknown {
        /// `microphone` or `speaker`.
        noun: &'static str,
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        names: Vec<String>,
    },
}

/// What marks the default device in a list of names; taken off again where a name is given.
pub const DEFAULT_MARK: &str = " (default)";

/// Names of the devices at that end, the default one first and marked; none if the sound system
/// does not answer. Asks that system, so not for the window's thread.
pub fn sound_names(end: SoundEnd) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    for device in sound_devices(end) {
        // Two of one name are told apart by what the sound system calls them.
        let name = if names.contains(&device.name) { device.id } else { device.name };
        names.push(if device.is_default { name + DEFAULT_MARK } else { name });
    }
    names
}

/// The devices at that end, the default one first.
///
/// What only hears what a speaker plays, and ALSA's converters, can be opened by name but are
/// not offered.
fn sound_devices(end: SoundEnd) -> Vec<SoundDevice> {
    let host = sound_host();
    let mut devices: Vec<_> = described(&host, end)
        .into_iter()
        .map(|(_, device)| device)
        .filter(|device| device.is_default || is_offered(&device.id))
        .collect();
    devices.sort_by_key(|device| !device.is_default);
    devices
}

/// The device of that name, or the default one without a name.
///
/// A name is what [`sound_names`] lists: its name or id, else part of one name in any case.
///
/// # Errors
/// [`SoundError`] says what there is instead.
pub fn find_sound_device(
    host: &cpal::Host,
    end: SoundEnd,
    name: Option<&str>,
) -> Result<cpal::Device, SoundError> {
    let noun = end.noun();
    let Some(name) = name else {
        return default_device(host, end);
    };
    let name = name.strip_suffix(DEFAULT_MARK).unwrap_or(name);
    let mut devices = described(host, end);
    let listed: Vec<_> = devices.iter().map(|(_, device)| device.clone()).collect();
    match choose(&listed, name) {
        Some(index) => Ok(devices.swap_remove(index).0),
        None => Err(SoundError::Unknown {
            noun,
            name: name.to_owned(),
            names: listed
                .into_iter()
                .filter(|device| is_offered(&device.id))
                .map(|device| device.name)
                .collect(),
        }),
    }
}

fn default_device(host: &cpal::Host, end: SoundEnd) -> Result<cpal::Device, SoundError> {
    let missing = SoundError::None { noun: end.noun() };
    match end {
        SoundEnd::Output => host.default_output_device().ok_or(missing),
        SoundEnd::Input => {
            let device = host.default_input_device().ok_or(missing)?;
            let speaker = host.default_output_device().and_then(|speaker| id_of(&speaker));
            match (id_of(&device), speaker) {
                (Some(id), Some(speaker)) if id == format!("{speaker}.monitor") => {
                    Err(SoundError::OnlyMonitor { name: device.to_string() })
                }
                _ => Ok(device),
            }
        }
    }
}

/// Every device at that end, with its description.
fn described(host: &cpal::Host, end: SoundEnd) -> Vec<(cpal::Device, SoundDevice)> {
    let default = default_device(host, end).ok().and_then(|device| id_of(&device));
    let fits = |device: &cpal::Device| match end {
        SoundEnd::Input => device.supports_input(),
        SoundEnd::Output => device.supports_output(),
    };
    let devices = host.devices().into_iter().flatten().filter(fits);
    devices
        .filter_map(|device| {
            let id = id_of(&device)?;
            let name = device.description().ok()?.name().to_owned();
            let is_default = default.as_ref() == Some(&id);
            Some((device, SoundDevice { name, id, is_default }))
        })
        .collect()
}

/// The place of the device that a person means.
fn choose(devices: &[SoundDevice], name: &str) -> Option<usize> {
    let wanted = name.to_lowercase();
    devices
        .iter()
        .position(|device| device.name == name || device.id == name)
        .or_else(|| devices.iter().position(|device| device.name.to_lowercase().contains(&wanted)))
}

/// Whether a device is one that a person may mean, by its id in the sound system.
fn is_offered(id: &str) -> bool {
    const CONVERTERS: &[&str] = &[
        "dmix",
        "dsnoop",
        "front",
        "hdmi",
        "hw",
        "iec958",
        "jack",
        "lavrate",
        "null",
        "oss",
        // It leads to a sound server that did not answer: one that does is asked itself.
        "pulse",
        "samplerate",
        "speex",
        "speexrate",
        "surround",
        "upmix",
        "usbstream",
        "vdownmix",
    ];
    let plugin = id.split(':').next().unwrap_or(id).trim_end_matches(|c: char| c.is_ascii_digit());
    !id.ends_with(".monitor") && !CONVERTERS.contains(&plugin)
}

fn id_of(device: &cpal::Device) -> Option<String> {
    device.id().ok().map(|id| id.id().to_owned())
}

fn known(names: &[String]) -> String {
    if names.is_empty() {
        return "none is connected".to_owned();
    }
    let quoted: Vec<_> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("there are {}", quoted.join(", "))
}

/// Sends what ALSA would print on this thread to a buffer that nobody reads: what matters comes
/// back as an error value too. The buffer before it is freed, so it cannot grow for ever.
fn quiet_alsa() {
    #[cfg(target_os = "linux")]
    if let Err(error) = alsa::Output::local_error_handler() {
        tracing::debug!(%error, "ALSA may print to the terminal");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str, id: &str) -> SoundDevice {
        SoundDevice { name: name.to_owned(), id: id.to_owned(), is_default: false }
    }

    #[test]
    fn a_device_is_chosen_by_exact_name_then_id_then_part_of_a_name() {
        let devices = [
            device("Headset Mono", "alsa_input.usb-1"),
            device("Headset", "alsa_input.usb-2"),
            device("Built-in Audio", "alsa_input.pci"),
        ];
        assert_eq!(choose(&devices, "Headset"), Some(1));
        assert_eq!(choose(&devices, "alsa_input.usb-1"), Some(0));
        assert_eq!(choose(&devices, "built-IN"), Some(2));
        assert_eq!(choose(&devices, "Webcam"), None);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            SoundError::Unknown { noun: "microphone", name: "Webcam".to_owned(), names }.to_string()
        };
        let listed = "there is no microphone \"Webcam\"; there are \"Headset\", \"Line\"";
        assert_eq!(error(&["Headset", "Line"]), listed);
        assert_eq!(error(&[]), "there is no microphone \"Webcam\"; none is connected");
    }

    #[test]
    fn monitors_and_converters_are_not_offered() {
        for id in
            ["default", "pipewire", "plughw:CARD=0,DEV=0", "sysdefault:CARD=PCH", "alsa_input.x"]
        {
            assert!(is_offered(id), "{id}");
        }
        for id in ["spk.monitor", "hw:CARD=0,DEV=0", "surround51:CARD=0", "null", "pulse"] {
            assert!(!is_offered(id), "{id}");
        }
    }
}
