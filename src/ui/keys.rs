//! Keys that work whatever has the focus, except while somebody types.

use eframe::egui::{Context, Event, Key};

use super::bindings::{Bindable, Bindings};

/// What a key asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum KeyDeed {
    /// The microphone, for all sessions.
    Mute,
    /// The camera, for all sessions.
    Camera,
    /// The speaker.
    Deafen,
    /// The key for talking went down, or up again.
    Talk(bool),
    /// Ctrl+V: a link that was pasted outside any box.
    Paste(String),
    /// The whole screen.
    FullScreen,
    /// Escape: back to the window.
    Escape,
    /// 1 to 9: the lane at that place, from 0.
    Lane(usize),
    /// The keys.
    Help,
}

/// The keys that are held.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// The key for talking is down.
    talking: bool,
}

impl Keys {
    /// What was asked for since the last call. Keys that ask are taken out of the input, so
    /// that Space does not press the button that has the focus as well. Escape asks only where
    /// there is a full screen to leave: else it closes menus and dialogs.
    pub(crate) fn take(
        &mut self,
        ctx: &Context,
        bindings: &Bindings,
        full_screen: bool,
    ) -> Vec<KeyDeed> {
        let typing = ctx.text_edit_focused();
        let mut deeds = vec![];
        ctx.input_mut(|input| {
            let focused = input.focused;
            if !typing {
                input.events.retain(|event| match asked(event, bindings) {
                    Some(Asked::Deed(KeyDeed::Escape)) if !full_screen => true,
                    Some(Asked::Deed(deed)) => {
                        deeds.push(deed);
                        false
                    }
                    Some(Asked::Talk { pressed, repeat }) => {
                        if !repeat && pressed != self.talking {
                            self.talking = pressed;
                            deeds.push(KeyDeed::Talk(pressed));
                        }
                        false
                    }
                    None => true,
                });
            }
            // A window without the focus hears no key go up.
            if self.talking && (typing || !focused) {
                self.talking = false;
                deeds.push(KeyDeed::Talk(false));
            }
        });
        deeds
    }
}

/// What one event asks for.
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
    let lane = LANES.iter().position(|digit| digit == key).map(KeyDeed::Lane);
    let escape = (*key == Key::Escape).then_some(KeyDeed::Escape);
    let help = (*key == Key::F1).then_some(KeyDeed::Help);
    bound.and_then(deed_of).or(lane).or(escape).or(help).map(Asked::Deed)
}

/// What a key writes: of a question mark some systems tell that, others the key that it is on.
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

/// The keys of lanes.
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

/// The keys and what they do, for the help.
pub(crate) fn help(bindings: &Bindings) -> Vec<(&'static str, &'static str)> {
    let own = Bindable::ALL.into_iter().map(|deed| (bindings.shown(deed), deed.meaning()));
    // Space presses what has the focus, as everywhere, unless it asks for something itself.
    let through = match bindings.deed(Key::Space) {
        Some(Bindable::Talk) => "Move through the controls and press one. Space only talks.",
        Some(_) => "Move through the controls and press one. Space does not.",
        None => "Move through the controls and press one, as Space does.",
    };
    own.chain(FIXED).chain([("Tab, Enter", through)]).collect()
}

const FIXED: [(&str, &str); 4] = [
    ("Esc", "Close what is in front"),
    ("Ctrl+V", "Join the session whose link you copied"),
    ("PgUp, PgDn", "Scroll the chat"),
    ("1 … 9", "Show that session and its people"),
];
