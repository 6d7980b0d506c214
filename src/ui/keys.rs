//! Keyboard shortcuts. They work wherever the focus is, except in a text box.

use eframe::egui::{Context, Event, Key};

use super::bindings::{Bindable, Bindings};

/// An action requested by a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum KeyDeed {
    /// Mutes or unmutes the microphone in all sessions.
    Mute,
    /// Turns the camera on or off in all sessions.
    Camera,
    /// Turns the sound on or off.
    Deafen,
    /// The push-to-talk key was pressed (`true`) or released.
    Talk(bool),
    /// Ctrl+V: a link that was pasted outside any text box.
    Paste(String),
    /// Enters or leaves full screen.
    FullScreen,
    /// Escape: leaves full screen.
    Escape,
    /// 1 to 9: the session with that index, from 0.
    Lane(usize),
    /// Shows the keyboard shortcuts.
    Help,
}

/// Reads shortcuts from the input.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Whether the push-to-talk key is held.
    talking: bool,
}

impl Keys {
    /// Takes the shortcuts since the last call out of the input, so that Space does not also press
    /// the focused button. Escape is a shortcut only in full screen. Otherwise it closes menus and
    /// dialogs.
    pub(crate) fn take(
        &mut self,
        ctx: &Context,
        bindings: &Bindings,
        full_screen: bool,
    ) -> Vec<KeyDeed> {
        let is_typing = ctx.text_edit_focused();
        let mut shortcuts = vec![];
        ctx.input_mut(|input| {
            let focused = input.focused;
            if !is_typing {
                input.events.retain(|event| match asked(event, bindings) {
                    Some(Asked::Deed(KeyDeed::Escape)) if !full_screen => true,
                    Some(Asked::Deed(shortcut)) => {
                        shortcuts.push(shortcut);
                        false
                    }
                    Some(Asked::Talk { pressed, repeat }) => {
                        if !repeat && pressed != self.talking {
                            self.talking = pressed;
                            shortcuts.push(KeyDeed::Talk(pressed));
                        }
                        false
                    }
                    None => true,
                });
            }
            // A window without the focus receives no key release.
            if self.talking && (is_typing || !focused) {
                self.talking = false;
                shortcuts.push(KeyDeed::Talk(false));
            }
        });
        shortcuts
    }
}

/// The meaning of an input event.
enum Asked {
    Deed(KeyDeed),
    Talk { pressed: bool, repeat: bool },
}

fn asked(event: &Event, bindings: &Bindings) -> Option<Asked> {
    if let Event::Paste(text) = event {
        return Some(Asked::Deed(KeyDeed::Paste(text.clone())));
    }
    let Event::Key { key, pressed, repeat, modifiers, .. } = event else { return None };
    if modifiers.ctrl || modifiers.alt || modifiers.command {
        return None;
    }
    let bound = bindings.deed(written(*key, modifiers.shift));
    if bound == Some(Bindable::Talk) {
        return Some(Asked::Talk { pressed: *pressed, repeat: *repeat });
    }
    if !pressed || *repeat {
        return None;
    }
    let session = LANES.iter().position(|digit| digit == key).map(KeyDeed::Lane);
    let escape = (*key == Key::Escape).then_some(KeyDeed::Escape);
    let help = (*key == Key::F1).then_some(KeyDeed::Help);
    bound.and_then(deed_of).or(session).or(escape).or(help).map(Asked::Deed)
}

/// The key for the typed character. For a question mark, some systems report that key, others the
/// key that it is on.
pub(crate) fn written(key: Key, shift: bool) -> Key {
    if shift && key == Key::Slash { Key::Questionmark } else { key }
}

const fn deed_of(bound: Bindable) -> Option<KeyDeed> {
    match bound {
        Bindable::Mute => Some(KeyDeed::Mute),
        Bindable::Camera => Some(KeyDeed::Camera),
        Bindable::Deafen => Some(KeyDeed::Deafen),
        Bindable::Talk => None,
        Bindable::FullScreen => Some(KeyDeed::FullScreen),
        Bindable::Help => Some(KeyDeed::Help),
    }
}

/// The keys that select a session.
pub(crate) const LANES: [Key; 9] = [
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
        Bindable::ALL.into_iter().map(|action| (bindings.shown(action), action.meaning()));
    // Space presses the focused control, as everywhere, unless it is bound to an action.
    let navigation = match bindings.deed(Key::Space) {
        Some(Bindable::Talk) => "Move through the controls and press one. Space only talks.",
        Some(_) => "Move through the controls and press one. Space does not.",
        None => "Move through the controls and press one, as Space does.",
    };
    configurable.chain(FIXED).chain([("Tab, Enter", navigation)]).collect()
}

const FIXED: [(&str, &str); 4] = [
    ("Esc", "Close what is in front"),
    ("Ctrl+V", "Join the session whose link you copied"),
    ("PgUp, PgDn", "Scroll the chat"),
    ("1 … 9", "Show that session and its people"),
];
