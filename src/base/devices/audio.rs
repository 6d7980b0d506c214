//! Lists and finds microphones and speakers (cpal).

use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::{Mutex, PoisonError};

use cpal::traits::{DeviceTrait, HostTrait};

use super::device::{ChoiceError, Device, DeviceRef, choose};
#[cfg(target_os = "linux")]
use super::{pulse_cookie, pulse_stream::PulseStream};

/// Returns the audio host to use: PulseAudio (or PipeWire, which speaks its protocol) if its server
/// answers within two seconds, else the platform's own.
///
/// Call it for each opening, because audio servers start and stop. The connection to a server is
/// shared while it lives. May block for those two seconds, and longer if a server hangs: call it on
/// the thread that opens and uses the device. It also keeps ALSA from printing to the terminal on
/// that thread.
pub fn audio_host() -> Arc<cpal::Host> {
    silence_alsa_messages();
    shared_host()
}

#[cfg(target_os = "linux")]
fn shared_host() -> Arc<cpal::Host> {
    // A PulseAudio client may leak its thread and its connection when its last handle is dropped,
    // so all callers share one. An ALSA host is not kept, so that the next call tries PulseAudio
    // again.
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
        && pulse_cookie::create_if_missing()
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

/// A stream that plays or records until it is dropped.
#[expect(missing_debug_implementations, reason = "cpal's streams have none")]
pub enum AudioStream {
    /// A stream of cpal.
    System(cpal::Stream),
    /// A stream of a PulseAudio server.
    #[cfg(target_os = "linux")]
    Pulse(PulseStream),
}

/// The direction of an audio device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AudioDirection {
    /// Microphones.
    Input,
    /// Speakers.
    Output,
}

impl AudioDirection {
    const fn noun(self) -> &'static str {
        match self {
            Self::Input => "microphone",
            Self::Output => "speaker",
        }
    }
}

/// Why no audio device was found.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AudioDeviceError {
    /// No device is connected.
    #[error("there is no {noun}; connect one")]
    None {
        /// `microphone` or `speaker`.
        noun: &'static str,
    },
    /// Without a microphone, audio servers offer a monitor of what a speaker plays, which would
    /// send every participant an echo.
    #[error(
        "there is no microphone, only {name:?}, which hears what the speaker plays; to send that, \
         choose it by name"
    )]
    OnlyMonitor {
        /// The monitor's name.
        name: String,
    },
    /// No device has this name, or several have.
    #[error(transparent)]
    Choice(#[from] ChoiceError),
}

/// Lists the devices of one direction that a user can choose, the default device first. Empty if
/// the audio system does not answer. Blocks on that system: not for the window's thread.
///
/// Monitors of speakers and ALSA's converters are not listed, but can be opened by name or id.
pub fn list_audio_devices(direction: AudioDirection) -> Vec<Device> {
    let host = audio_host();
    let devices = describe_devices(&host, direction).into_iter().map(|(_, device)| device);
    let mut devices: Vec<_> =
        devices.filter(|device| device.is_default || is_selectable(&device.id)).collect();
    devices.sort_by_key(|device| !device.is_default);
    devices
}

/// Finds the wanted device, or the default one if none is wanted.
///
/// # Errors
/// [`AudioDeviceError`] names the devices that exist.
pub fn find_audio_device(
    host: &cpal::Host,
    direction: AudioDirection,
    wanted: Option<&DeviceRef>,
) -> Result<cpal::Device, AudioDeviceError> {
    let Some(wanted) = wanted else { return default_device(host, direction) };
    // Selectable devices first: a part of a name means a microphone, not a speaker's monitor.
    let (selectable, other): (Vec<_>, Vec<_>) = describe_devices(host, direction)
        .into_iter()
        .partition(|(_, device)| is_selectable(&device.id));
    let mut first_error = None;
    for mut devices in [selectable, other] {
        let listed: Vec<_> = devices.iter().map(|(_, device)| device.clone()).collect();
        match choose(&listed, wanted, direction.noun()) {
            Ok(index) => return Ok(devices.swap_remove(index).0),
            Err(error @ ChoiceError::Several { .. }) => return Err(error.into()),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.expect("both lists were searched").into())
}

/// The device to use when the user names none.
fn default_device(
    host: &cpal::Host,
    direction: AudioDirection,
) -> Result<cpal::Device, AudioDeviceError> {
    let missing = AudioDeviceError::None { noun: direction.noun() };
    match direction {
        AudioDirection::Output => host.default_output_device().ok_or(missing),
        AudioDirection::Input => {
            let device = host.default_input_device().ok_or(missing)?;
            if !id_of(&device).is_some_and(|id| is_monitor(&id)) {
                return Ok(device);
            }
            let name = device.to_string();
            let mut others = host.devices().into_iter().flatten();
            let is_microphone = |device: &cpal::Device| {
                device.supports_input() && id_of(device).is_some_and(|id| is_selectable(&id))
            };
            others.find(is_microphone).ok_or(AudioDeviceError::OnlyMonitor { name })
        }
    }
}

/// All devices of one direction, each with its description.
fn describe_devices(host: &cpal::Host, direction: AudioDirection) -> Vec<(cpal::Device, Device)> {
    let default = default_device(host, direction).ok().and_then(|device| id_of(&device));
    let has_direction = |device: &cpal::Device| match direction {
        AudioDirection::Input => device.supports_input(),
        AudioDirection::Output => device.supports_output(),
    };
    let devices = host.devices().into_iter().flatten().filter(has_direction);
    devices
        .filter_map(|device| {
            let id = id_of(&device)?;
            let name = device.description().ok()?.name().to_owned();
            let is_default = default.as_ref() == Some(&id);
            Some((device, Device { id, name, is_default }))
        })
        .collect()
}

/// Whether a PulseAudio or PipeWire source is a monitor of what a speaker plays: those servers end
/// the names of monitors like this.
fn is_monitor(id: &str) -> bool {
    id.ends_with(".monitor")
}

/// Whether a device is offered to the user, by its id in the audio system.
fn is_selectable(id: &str) -> bool {
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
        // Connects to an audio server that did not answer. One that answers is used directly.
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

/// Redirects what ALSA prints on this thread to a buffer that is never read: errors that matter are
/// also returned as values. The previous buffer is freed, so it cannot grow without bound.
fn silence_alsa_messages() {
    #[cfg(target_os = "linux")]
    if let Err(error) = alsa::Output::local_error_handler() {
        tracing::debug!(%error, "ALSA output not redirected");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_and_converters_are_not_selectable() {
        for id in
            ["default", "pipewire", "plughw:CARD=0,DEV=0", "sysdefault:CARD=PCH", "alsa_input.x"]
        {
            assert!(is_selectable(id), "{id}");
        }
        for id in ["spk.monitor", "hw:CARD=0,DEV=0", "surround51:CARD=0", "null", "pulse"] {
            assert!(!is_selectable(id), "{id}");
        }
    }
}
