//! The lists of devices, asked for off the window's thread when a menu opens.

use std::sync::Arc;

use eframe::egui::Context;

use super::settings::Settings;
use crate::{
    engine,
    media::{DEFAULT_MARK, Slot},
    model::{Snapshot, SourceState},
};

/// What can be chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DeviceKind {
    /// Sound that is sent.
    Microphone,
    /// Picture that is sent.
    Camera,
    /// Sound that is heard.
    Speaker,
}

impl DeviceKind {
    /// All, in the order of the bar.
    pub(crate) const ALL: [Self; 3] = [Self::Microphone, Self::Camera, Self::Speaker];

    /// What it is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Microphone => "microphone",
            Self::Camera => "camera",
            Self::Speaker => "speaker",
        }
    }

    /// What there is on every machine: words and specs.
    pub(crate) const fn choices(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Microphone => {
                &[("System default", "default"), ("Tone (440 Hz)", "tone:440"), ("None", "none")]
            }
            Self::Camera => &[
                ("System default", "default"),
                ("Moving pattern", "pattern:1280x720@30"),
                ("None", "none"),
            ],
            Self::Speaker => &[("System default", "default"), ("None", "none")],
        }
    }

    /// What is chosen for it.
    pub(crate) fn chosen(self, settings: &Settings) -> &str {
        match self {
            Self::Microphone => &settings.microphone,
            Self::Camera => &settings.camera,
            Self::Speaker => &settings.speaker,
        }
    }

    /// How it is.
    pub(crate) const fn state(self, snapshot: &Snapshot) -> &SourceState {
        match self {
            Self::Microphone => &snapshot.microphone,
            Self::Camera => &snapshot.camera,
            Self::Speaker => &snapshot.speaker,
        }
    }

    /// What is chosen, as it is called in a sentence: "Logitech C920", "the camera".
    pub(crate) fn called(self, settings: &Settings) -> String {
        let chosen = self.chosen(settings);
        let named = chosen.strip_suffix(DEFAULT_MARK).unwrap_or(chosen);
        match named.split_once(':').map_or(named, |(what, _)| what) {
            "default" => format!("the {}", self.name()),
            what @ ("pattern" | "tone") => format!("the {what}"),
            _ => named.to_owned(),
        }
    }

    fn ask(self) -> Vec<String> {
        match self {
            Self::Microphone => engine::microphones(),
            Self::Camera => engine::cameras(),
            Self::Speaker => engine::speakers(),
        }
    }
}

/// The lists of devices.
pub(crate) struct DeviceLists {
    /// Where questions are asked that may take two seconds; `None` in tests without devices.
    runtime: Option<tokio::runtime::Handle>,
    lists: [List; 3],
    /// The kind whose menu is drawn.
    pub(crate) open: Option<DeviceKind>,
}

#[derive(Default)]
struct List {
    asked: bool,
    answer: Arc<Slot<Vec<String>>>,
    names: Option<Vec<String>>,
}

impl DeviceLists {
    /// Lists that are empty until a menu opens.
    pub(crate) fn new(runtime: Option<tokio::runtime::Handle>) -> Self {
        Self { runtime, lists: Default::default(), open: None }
    }

    /// The names of the devices, or `None` while they are looked for.
    pub(crate) fn known(&mut self, kind: DeviceKind, ctx: &Context) -> Option<&[String]> {
        let list = &mut self.lists[kind as usize];
        if !list.asked {
            list.asked = true;
            match &self.runtime {
                Some(runtime) => {
                    let (answer, ctx) = (Arc::clone(&list.answer), ctx.clone());
                    runtime.spawn_blocking(move || {
                        answer.put(kind.ask());
                        ctx.request_repaint();
                    });
                }
                None => list.names = Some(vec![]),
            }
        }
        if let Some(names) = list.answer.take() {
            list.names = Some(names);
        }
        list.names.as_deref()
    }

    /// Asks again when the menu is opened the next time.
    pub(crate) fn forget(&mut self, kind: DeviceKind) {
        let list = &mut self.lists[kind as usize];
        if list.names.is_some() {
            *list = List::default();
        }
    }
}
