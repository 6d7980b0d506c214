//! How the mute switches look and read. The call bar, the session cards and the lists of
//! participants share this table.

use super::{bindings::Bindable, icons::Icon};
use crate::model::{DeviceKind, MuteSwitch};

/// The icon and the words of a mute switch.
pub(crate) struct SwitchStyle {
    /// Its icon, which is struck through while it is off.
    pub(crate) icon: Icon,
    /// What it switches.
    pub(crate) name: &'static str,
    /// The action whose key switches it in all sessions.
    pub(crate) key: Bindable,
    /// What a click does while it is on.
    turn_off: &'static str,
    /// What a click does while it is off.
    turn_on: &'static str,
}

impl SwitchStyle {
    /// The style of a switch.
    pub(crate) const fn of(switch: MuteSwitch) -> Self {
        match switch {
            MuteSwitch::MICROPHONE => Self {
                icon: Icon::Microphone,
                name: "Microphone",
                key: Bindable::Mute,
                turn_off: "Mute",
                turn_on: "Unmute",
            },
            MuteSwitch::CAMERA => Self {
                icon: Icon::Camera,
                name: "Camera",
                key: Bindable::Camera,
                turn_off: "Turn camera off",
                turn_on: "Turn camera on",
            },
            MuteSwitch::Listening => Self {
                icon: Icon::Speaker,
                name: "Sound",
                key: Bindable::Deafen,
                turn_off: "Turn sound off",
                turn_on: "Turn sound on",
            },
        }
    }

    /// What a click does.
    pub(crate) const fn action(&self, is_on: bool) -> &'static str {
        if is_on { self.turn_off } else { self.turn_on }
    }
}

/// The switch of a kind of device.
pub(crate) const fn switch_of(device: DeviceKind) -> MuteSwitch {
    match device {
        DeviceKind::Source(source) => MuteSwitch::Source(source),
        DeviceKind::Speaker => MuteSwitch::Listening,
    }
}
