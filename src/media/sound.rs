//! Microphones and speakers, found the same way at both ends.

use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

use cpal::traits::{DeviceTrait, HostTrait};

use super::device::{ChoiceError, Device, DeviceRef, choose};
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

/// Why there is no such device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SoundError {
    /// None is connected.
    #[error("there is no {noun}; connect one")]
    None {
        /// `microphone` or `speaker`.
        noun: &'static str,
    },
    /// Without a microphone, sound servers offer what a speaker plays: an echo for everybody.
    #[error(
        "there is no microphone, only {name:?}, which hears what the speaker plays; to send that, \
         choose it by name"
    )]
    OnlyMonitor {
        /// The device that would echo.
        name: String,
    },
    /// No device is called like that, or several are.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
}

/// The devices at that end that can be chosen, the default one first; none if the sound system does
/// not answer. Asks that system, so not for the window's thread.
///
/// What only hears what a speaker plays, and ALSA's converters, can be opened by name or id but are
/// not offered.
pub fn sound_devices(end: SoundEnd) -> Vec<Device> {
    let host = sound_host();
    let devices = described(&host, end).into_iter().map(|(_, device)| device);
    let mut devices: Vec<_> =
        devices.filter(|device| device.is_default || is_offered(&device.id)).collect();
    devices.sort_by_key(|device| !device.is_default);
    devices
}

/// The device that is meant, or the default one.
///
/// # Errors
/// [`SoundError`] says what there is instead.
pub fn find_sound_device(
    host: &cpal::Host,
    end: SoundEnd,
    wanted: Option<&DeviceRef>,
) -> Result<cpal::Device, SoundError> {
    let Some(wanted) = wanted else { return default_device(host, end) };
    // What is offered comes first: a part of a name means a microphone, not a speaker's monitor.
    let (offered, other): (Vec<_>, Vec<_>) =
        described(host, end).into_iter().partition(|(_, device)| is_offered(&device.id));
    let mut refused = None;
    for mut devices in [offered, other] {
        let listed: Vec<_> = devices.iter().map(|(_, device)| device.clone()).collect();
        match choose(&listed, wanted, end.noun()) {
            Ok(place) => return Ok(devices.swap_remove(place).0),
            Err(error @ ChoiceError::Several { .. }) => return Err(error.into()),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.expect("both lists were looked through").into())
}

/// The device that is used where none is named.
fn default_device(host: &cpal::Host, end: SoundEnd) -> Result<cpal::Device, SoundError> {
    let missing = SoundError::None { noun: end.noun() };
    match end {
        SoundEnd::Output => host.default_output_device().ok_or(missing),
        SoundEnd::Input => {
            let device = host.default_input_device().ok_or(missing)?;
            if !id_of(&device).is_some_and(|id| is_monitor(&id)) {
                return Ok(device);
            }
            let name = device.to_string();
            let mut others = host.devices().into_iter().flatten();
            let is_microphone = |device: &cpal::Device| {
                device.supports_input() && id_of(device).is_some_and(|id| is_offered(&id))
            };
            others.find(is_microphone).ok_or(SoundError::OnlyMonitor { name })
        }
    }
}

/// Every device at that end, with its description.
fn described(host: &cpal::Host, end: SoundEnd) -> Vec<(cpal::Device, Device)> {
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
            Some((device, Device { id, name, is_default }))
        })
        .collect()
}

/// Whether a PulseAudio or PipeWire source hears what a speaker plays: those servers name them so.
fn is_monitor(id: &str) -> bool {
    id.ends_with(".monitor")
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
    !is_monitor(id) && !CONVERTERS.contains(&plugin)
}

fn id_of(device: &cpal::Device) -> Option<String> {
    device.id().ok().map(|id| id.id().to_owned())
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
