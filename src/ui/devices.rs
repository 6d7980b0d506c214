//! The lists of devices. They are queried off the window's thread, at the start and when a menu
//! opens.

use std::sync::Arc;

use eframe::egui::Context;

use super::{
    device_choice::{DeviceChoice, spec_kind},
    settings::Settings,
};
use crate::{
    devices::Device,
    engine,
    media::Slot,
    model::{DeviceKind, PerDevice, Source},
};

/// The kinds of devices, in the order of the call bar.
pub(crate) fn device_kinds() -> impl Iterator<Item = DeviceKind> {
    Source::SECTIONS.into_iter().map(DeviceKind::Source).chain([DeviceKind::Speaker])
}

/// The choices of a kind of device that exist on every machine: label and spec.
pub(crate) const fn choices(kind: DeviceKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        DeviceKind::MICROPHONE => {
            &[("System default", "default"), ("Test tone", "tone:440"), ("None", "none")]
        }
        DeviceKind::CAMERA => &[
            ("System default", "default"),
            ("Test picture", "pattern:1280x720@30"),
            ("None", "none"),
        ],
        DeviceKind::Speaker => &[("System default", "default"), ("None", "none")],
    }
}

/// The chosen device as it is named in a sentence: "Logitech C920", "the camera".
pub(crate) fn display_name(kind: DeviceKind, settings: &Settings) -> String {
    match settings.device(kind) {
        DeviceChoice::Device { name, .. } => name.clone(),
        chosen @ DeviceChoice::Spec(spec) => match spec_kind(spec) {
            "default" => format!("the {}", kind.name()),
            "pattern" => "the test picture".to_owned(),
            "tone" => "the test tone".to_owned(),
            _ => chosen.name().to_owned(),
        },
    }
}

/// Lets the engine use the chosen device from now on. Returns whether it took the request; it does
/// not while its queue is full.
///
/// # Errors
/// A sentence that says why the choice is not valid.
pub(crate) fn apply(
    handle: &engine::Handle,
    kind: DeviceKind,
    chosen: &DeviceChoice,
) -> Result<bool, String> {
    let sent = match kind {
        DeviceKind::CAMERA => {
            handle.set_camera(chosen.camera().map_err(|error| error.to_string())?).is_ok()
        }
        DeviceKind::MICROPHONE => {
            handle.set_microphone(chosen.microphone().map_err(|error| error.to_string())?).is_ok()
        }
        DeviceKind::Speaker => {
            handle.set_speaker(chosen.speaker().map_err(|error| error.to_string())?).is_ok()
        }
    };
    Ok(sent)
}

fn list_devices(kind: DeviceKind) -> Vec<Device> {
    match kind {
        DeviceKind::MICROPHONE => engine::microphones(),
        DeviceKind::CAMERA => engine::cameras(),
        DeviceKind::Speaker => engine::speakers(),
    }
}

/// Seconds after which a kind of device that was missing is queried again.
const RETRY_SECONDS: f64 = 5.0;

/// The lists of devices.
pub(crate) struct DeviceLists {
    /// The runtime for queries, which may take two seconds. `None` in tests without devices.
    runtime: Option<tokio::runtime::Handle>,
    lists: PerDevice<DeviceList>,
    /// The kind whose menu is drawn.
    pub(crate) open_menu: Option<DeviceKind>,
}

#[derive(Default)]
struct DeviceList {
    is_queried: bool,
    answer: Arc<Slot<Vec<Device>>>,
    devices: Option<Vec<Device>>,
    /// The newest query found no device.
    is_missing: bool,
    /// When the list was last queried, in seconds of egui's clock.
    queried_at: Option<f64>,
}

impl DeviceLists {
    /// Creates lists that are empty until they are queried.
    pub(crate) fn new(runtime: Option<tokio::runtime::Handle>) -> Self {
        Self { runtime, lists: PerDevice::default(), open_menu: None }
    }

    /// The devices of a kind, or `None` while the query runs.
    pub(crate) fn get(&mut self, kind: DeviceKind, ctx: &Context) -> Option<&[Device]> {
        if !self.lists[kind].is_queried {
            self.query(kind, ctx);
        }
        let list = &mut self.lists[kind];
        list.take_answer();
        list.devices.as_deref()
    }

    /// Whether the system is known to have no device of that kind. The first call queries the
    /// system, and later calls query again after [`RETRY_SECONDS`] seconds while none was found.
    /// Opens no device.
    pub(crate) fn is_missing(&mut self, kind: DeviceKind, ctx: &Context) -> bool {
        let now = ctx.input(|input| input.time);
        let list = &mut self.lists[kind];
        list.take_answer();
        let is_due = list.queried_at.is_none_or(|at| list.is_missing && now > at + RETRY_SECONDS);
        if !list.is_queried && is_due && self.runtime.is_some() {
            self.query(kind, ctx);
        }
        self.lists[kind].is_missing
    }

    fn query(&mut self, kind: DeviceKind, ctx: &Context) {
        let list = &mut self.lists[kind];
        list.is_queried = true;
        list.queried_at = Some(ctx.input(|input| input.time));
        let Some(runtime) = &self.runtime else { return list.devices = Some(vec![]) };
        let (answer, ctx) = (Arc::clone(&list.answer), ctx.clone());
        runtime.spawn_blocking(move || {
            answer.put(list_devices(kind));
            ctx.request_repaint();
        });
    }

    /// Makes the next opening of the menu query again.
    pub(crate) fn invalidate(&mut self, kind: DeviceKind) {
        let list = &mut self.lists[kind];
        if list.devices.take().is_some() {
            list.is_queried = false;
        }
    }

    /// Sets the result of a query.
    #[cfg(test)]
    pub(crate) fn set_answer(&mut self, kind: DeviceKind, devices: &[Device]) {
        self.lists[kind].answer.put(devices.to_vec());
    }
}

impl DeviceList {
    fn take_answer(&mut self) {
        if let Some(devices) = self.answer.take() {
            self.is_missing = devices.is_empty();
            self.devices = Some(devices);
        }
    }
}
