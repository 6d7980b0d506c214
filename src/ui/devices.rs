//! The lists of devices. They are queried off the window's thread, at the start and when a menu
//! opens.

use std::sync::Arc;

use eframe::egui::Context;

use super::{
    chosen::{Chosen, kind_of},
    settings::Settings,
};
use crate::{
    engine,
    media::{Device, Slot},
    model::{Snapshot, SourceState},
};

/// A kind of device that the user can choose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeviceKind {
    /// The audio source.
    Microphone,
    /// The video source.
    Camera,
    /// The audio output.
    Speaker,
}

impl DeviceKind {
    /// All kinds, in the order of the call bar.
    pub(crate) const ALL: [Self; 3] = [Self::Microphone, Self::Camera, Self::Speaker];

    /// Its name in a sentence.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Microphone => "microphone",
            Self::Camera => "camera",
            Self::Speaker => "speaker",
        }
    }

    /// The choices that exist on every machine: label and spec.
    pub(crate) const fn choices(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Microphone => {
                &[("System default", "default"), ("Test tone", "tone:440"), ("None", "none")]
            }
            Self::Camera => &[
                ("System default", "default"),
                ("Test picture", "pattern:1280x720@30"),
                ("None", "none"),
            ],
            Self::Speaker => &[("System default", "default"), ("None", "none")],
        }
    }

    /// The current choice in the settings.
    pub(crate) const fn chosen(self, settings: &Settings) -> &Chosen {
        match self {
            Self::Microphone => &settings.microphone,
            Self::Camera => &settings.camera,
            Self::Speaker => &settings.speaker,
        }
    }

    /// Its state in the snapshot.
    pub(crate) const fn state(self, snapshot: &Snapshot) -> &SourceState {
        match self {
            Self::Microphone => &snapshot.microphone,
            Self::Camera => &snapshot.camera,
            Self::Speaker => &snapshot.speaker,
        }
    }

    /// The chosen device as it is named in a sentence: "Logitech C920", "the camera".
    pub(crate) fn called(self, settings: &Settings) -> String {
        match self.chosen(settings) {
            Chosen::Device { name, .. } => name.clone(),
            chosen @ Chosen::Spec(spec) => match kind_of(spec) {
                "default" => format!("the {}", self.name()),
                "pattern" => "the test picture".to_owned(),
                "tone" => "the test tone".to_owned(),
                _ => chosen.name().to_owned(),
            },
        }
    }

    fn ask(self) -> Vec<Device> {
        match self {
            Self::Microphone => engine::microphones(),
            Self::Camera => engine::cameras(),
            Self::Speaker => engine::speakers(),
        }
    }
}

/// Seconds after which a kind of device that was missing is queried again.
const AGAIN: f64 = 5.0;

/// The lists of devices.
pub(crate) struct DeviceLists {
    /// The runtime for queries, which may take two seconds. `None` in tests without devices.
    runtime: Option<tokio::runtime::Handle>,
    lists: [List; 3],
    /// The kind whose menu is drawn.
    pub(crate) open: Option<DeviceKind>,
}

#[derive(Default)]
struct List {
    asked: bool,
    answer: Arc<Slot<Vec<Device>>>,
    devices: Option<Vec<Device>>,
    /// The newest query found no device.
    is_missing: bool,
    /// When the list was last queried, in seconds of egui's clock.
    asked_at: Option<f64>,
}

impl DeviceLists {
    /// Creates lists that are empty until they are queried.
    pub(crate) fn new(runtime: Option<tokio::runtime::Handle>) -> Self {
        Self { runtime, lists: Default::default(), open: None }
    }

    /// The devices of a kind, or `None` while the query runs.
    pub(crate) fn known(&mut self, kind: DeviceKind, ctx: &Context) -> Option<&[Device]> {
        if !self.lists[kind as usize].asked {
            self.ask(kind, ctx);
        }
        let list = &mut self.lists[kind as usize];
        list.take();
        list.devices.as_deref()
    }

    /// Whether the system is known to have no device of that kind. The first call queries the
    /// system, and later calls query again after [`RETRY_SECONDS`] seconds while none was found.
    /// Opens no device.
    pub(crate) fn is_missing(&mut self, kind: DeviceKind, ctx: &Context) -> bool {
        let now = ctx.input(|input| input.time);
        let list = &mut self.lists[kind as usize];
        list.take();
        let is_due = list.asked_at.is_none_or(|at| list.is_missing && now > at + AGAIN);
        if !list.asked && is_due && self.runtime.is_some() {
            self.ask(kind, ctx);
        }
        self.lists[kind as usize].is_missing
    }

    fn ask(&mut self, kind: DeviceKind, ctx: &Context) {
        let list = &mut self.lists[kind as usize];
        list.asked = true;
        list.asked_at = Some(ctx.input(|input| input.time));
        let Some(runtime) = &self.runtime else { return list.devices = Some(vec![]) };
        let (answer, ctx) = (Arc::clone(&list.answer), ctx.clone());
        runtime.spawn_blocking(move || {
            answer.put(kind.ask());
            ctx.request_repaint();
        });
    }

    /// Makes the next opening of the menu query again.
    pub(crate) fn forget(&mut self, kind: DeviceKind) {
        let list = &mut self.lists[kind as usize];
        if list.devices.take().is_some() {
            list.asked = false;
        }
    }

    /// Sets the result of a query.
    #[cfg(test)]
    pub(crate) fn answer(&mut self, kind: DeviceKind, devices: &[Device]) {
        self.lists[kind as usize].answer.put(devices.to_vec());
    }
}

impl List {
    fn take(&mut self) {
        if let Some(devices) = self.answer.take() {
            self.is_missing = devices.is_empty();
            self.devices = Some(devices);
        }
    }
}
