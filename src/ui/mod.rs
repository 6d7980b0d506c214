//! The window: it draws the engine's snapshot and sends commands. It owns only the state of its
//! widgets.

mod action;
mod app;
mod bidi;
mod bindings;
mod browser;
mod call_bar;
mod chat;
mod clipboard;
mod colours;
mod device_choice;
mod devices;
mod dialogs;
mod display;
mod focus;
#[cfg(any(fuzzing, test))]
pub mod fuzz;
mod icons;
mod input_splitter;
mod labels;
pub mod landmarks;
mod media_feeds;
mod notices;
mod participants;
mod radio_item;
mod remote_tiles;
mod report;
mod saved_sessions;
mod session_card;
mod session_menu;
mod sessions;
mod settings;
mod settings_file;
mod shortcuts;
mod shutdown;
mod splitter;
mod statistics;
mod streams;
mod switches;
mod theme;
mod tile;
mod tile_layout;
mod view_state;
mod window;
mod yuv_painter;

pub use window::{WindowOptions, run};
pub use yuv_painter::TextureUpload;
