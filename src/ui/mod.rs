//! The window: it draws the engine's snapshot and sends commands. It owns only the state of its
//! widgets.

mod app;
mod bidi;
mod bindings;
mod browser;
mod call_bar;
mod chat;
mod chosen;
mod clipboard;
mod colours;
mod devices;
mod dialogs;
mod display;
mod edges;
mod faces;
mod focus;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod goodbye;
mod icons;
mod keys;
mod lane;
mod notices;
mod people;
mod pictures;
mod resume;
mod scene;
mod sessions;
mod settings;
mod settings_file;
mod streams;
mod theme;
mod tile;
mod typing;
mod want;
mod window;
mod words;
mod yuv;

pub use window::{Beginning, run};
pub use yuv::Upload;
