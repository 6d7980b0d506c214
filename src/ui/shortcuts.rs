//! Keyboard shortcuts. They work wherever the focus is, except in a text box.

use eframe::egui::{Context, Event, Key};

use super::bindings::{Bindable, Bindings};
use crate::model::MuteSwitch;

/// An action requested by a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Shortcut {
    /// Switches this switch in all sessions.
    Switch(MuteSwitch),
    /// The push-to-talk key was pressed (`true`) or released.
    Talk(bool),
    /// Ctrl+V: a link that was pasted outside any text box.
    Paste(String),
    /// Enters or leaves full screen.
    FullScreen,
    /// Escape: leaves full screen.
    Escape,
    /// 1 to 9: the session with that index, from 0.
    Session(usize),
    /// Ctrl+Shift+D: shows or hides the statistics of the connections.
    Statistics,
    /// Ctrl+Shift+F: shows or hides figures on the tiles.
    TileFigures,
    /// Shows the keyboard shortcuts.
    Help,
}

/// Reads shortcuts from the input.
#[derive(Debug, Default)]
pub(crate) struct ShortcutReader {
    /// Whether the push-to-talk key is held.
    is_talk_held: bool,
}

impl ShortcutReader {
    /// Takes the shortcuts since the last call out of the input, so that Space does not also press
    /// the focused button. Escape is a shortcut only in full screen. Otherwise it closes menus and
    /// dialogs.
    pub(crate) fn take(
        &mut self,
        ctx: &Context,
        bindings: &Bindings,
        full_screen: bool,
    ) -> Vec<Shortcut> {
        let is_typing = ctx.text_edit_focused();
        let mut shortcuts = vec![];
        ctx.input_mut(|input| {
            let focused = input.focused;
            if !is_typing {
                input.events.retain(|event| match key_input(event, bindings) {
                    Some(KeyInput::Shortcut(Shortcut::Escape)) if !full_screen => true,
                    Some(KeyInput::Shortcut(shortcut)) => {
                        shortcuts.push(shortcut);
                        false
                    }
                    Some(KeyInput::Talk { pressed, repeat }) => {
                        if !repeat && pressed != self.is_talk_held {
                            self.is_talk_held = pressed;
                            shortcuts.push(Shortcut::Talk(pressed));
                        }
                        false
                    }
                    None => true,
                });
            }
            // A window without the focus receives no key release.
            if self.is_talk_held && (is_typing || !focused) {
                self.is_talk_held = false;
                shortcuts.push(Shortcut::Talk(false));
            }
        });
        shortcuts
    }
}

/// The meaning of an input event.
enum KeyInput {
    Shortcut(Shortcut),
    Talk { pressed: bool, repeat: bool },
}

fn key_input(event: &Event, bindings: &Bindings) -> Option<KeyInput> {
    if let Event::Paste(text) = event {
        return Some(KeyInput::Shortcut(Shortcut::Paste(text.clone())));
    }
    let Event::Key { key, pressed, repeat, modifiers, .. } = event else { return None };
    if modifiers.command && modifiers.shift && !modifiers.alt && *pressed && !repeat {
        let diagnostics = [(Key::D, Shortcut::Statistics), (Key::F, Shortcut::TileFigures)];
        let found = diagnostics.into_iter().find(|(one, _)| one == key);
        return found.map(|(_, shortcut)| KeyInput::Shortcut(shortcut));
    }
    if modifiers.ctrl || modifiers.alt || modifiers.command {
        return None;
    }
    let bound = bindings.action_of(typed_key(*key, modifiers.shift));
    if bound == Some(Bindable::Talk) {
        return Some(KeyInput::Talk { pressed: *pressed, repeat: *repeat });
    }
    if !pressed || *repeat {
        return None;
    }
    let session = SESSION_KEYS.iter().position(|digit| digit == key).map(Shortcut::Session);
    let escape = (*key == Key::Escape).then_some(Shortcut::Escape);
    let help = (*key == Key::F1).then_some(Shortcut::Help);
    bound.and_then(shortcut_of).or(session).or(escape).or(help).map(KeyInput::Shortcut)
}

/// The key for the typed character. For a question mark, some systems report that key, others the
/// key that it is on.
pub(crate) fn typed_key(key: Key, shift: bool) -> Key {
    if shift && key == Key::Slash { Key::Questionmark } else { key }
}

fn shortcut_of(bound: Bindable) -> Option<Shortcut> {
    let others = [(Bindable::FullScreen, Shortcut::FullScreen), (Bindable::Help, Shortcut::Help)];
    let other = others.into_iter().find(|(action, _)| *action == bound);
    bound.switch().map(Shortcut::Switch).or(other.map(|(_, shortcut)| shortcut))
}

/// The keys that select a session.
pub(crate) const SESSION_KEYS: [Key; 9] = [
    Key::Num1,
    Key::Num2,
    Key::Num3,
    Key::Num4,
    Key::Num5,
    Key::Num6,
    Key::Num7,
    Key::Num8,
    Key::Num9,
];

/// The keys and their descriptions, for the help.
pub(crate) fn help(bindings: &Bindings) -> Vec<(&'static str, &'static str)> {
    let configurable =
        Bindable::ALL.into_iter().map(|action| (bindings.key_name(action), action.meaning()));
    // Space presses the focused control, as everywhere, unless it is bound to an action.
    let navigation = match bindings.action_of(Key::Space) {
        Some(Bindable::Talk) => "Move through the controls and press one. Space only talks.",
        Some(_) => "Move through the controls and press one. Space does not.",
        None => "Move through the controls and press one, as Space does.",
    };
    configurable.chain(FIXED_HELP).chain([("Tab, Enter", navigation)]).collect()
}

const FIXED_HELP: [(&str, &str); 6] = [
    ("Esc", "Close what is in front"),
    ("Ctrl+V", "Join the session whose link you copied"),
    ("PgUp, PgDn", "Scroll the chat"),
    ("1 … 9", "Show that session and its people"),
    ("Ctrl+Shift+D", "Statistics of the connections"),
    ("Ctrl+Shift+F", "The same on the tiles, in short"),
];
