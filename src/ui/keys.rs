//! Keys that work whatever has the focus, except while somebody types.

use eframe::egui::{Context, Event, Key};

/// What a key asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum KeyDeed {
    /// M: the microphone, for all sessions.
    Mute,
    /// V: the camera, for all sessions.
    Camera,
    /// D: the speaker.
    Deafen,
    /// Space went down, or up again.
    Talk(bool),
    /// Ctrl+V: a link that was pasted outside any box.
    Paste(String),
    /// F: the whole screen.
    FullScreen,
    /// Escape: back to the window.
    Escape,
    /// 1 to 9: the lane at that place, from 0.
    Lane(usize),
    /// ?: the keys.
    Help,
}

/// The keys that are held.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Space is down, for talking.
    talking: bool,
}

impl Keys {
    /// What was asked for since the last call. The keys that ask are taken out of the input, so
    /// that Space does not press the button that has the focus as well. Escape asks only where
    /// there is a full screen to leave: else it closes menus and dialogs.
    pub(crate) fn take(&mut self, ctx: &Context, full_screen: bool) -> Vec<KeyDeed> {
        let typing = ctx.text_edit_focused();
        let mut deeds = vec![];
        ctx.input_mut(|input| {
            let focused = input.focused;
            if !typing {
                input.events.retain(|event| match asked(event) {
                    Some(Asked::Deed(KeyDeed::Escape)) if !full_screen => true,
                    Some(Asked::Deed(deed)) => {
                        deeds.push(deed);
                        false
                    }
                    Some(Asked::Space { pressed, repeat }) => {
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
    Space { pressed: bool, repeat: bool },
}

fn asked(event: &Event) -> Option<Asked> {
    if let Event::Paste(text) = event {
        return Some(Asked::Deed(KeyDeed::Paste(text.clone())));
    }
    let Event::Key { key, pressed, repeat, modifiers, .. } = event else { return None };
    if modifiers.ctrl || modifiers.alt || modifiers.command {
        return None;
    }
    if *key == Key::Space {
        return Some(Asked::Space { pressed: *pressed, repeat: *repeat });
    }
    if !pressed || *repeat {
        return None;
    }
    let is_question = *key == Key::Slash && modifiers.shift;
    let deed = DEEDS.into_iter().find(|(one, _)| one == key).map(|(_, deed)| deed);
    let lane = LANES.iter().position(|digit| digit == key).map(KeyDeed::Lane);
    deed.or(lane).or(is_question.then_some(KeyDeed::Help)).map(Asked::Deed)
}

const DEEDS: [(Key, KeyDeed); 7] = [
    (Key::M, KeyDeed::Mute),
    (Key::V, KeyDeed::Camera),
    (Key::D, KeyDeed::Deafen),
    (Key::F, KeyDeed::FullScreen),
    (Key::Escape, KeyDeed::Escape),
    (Key::Questionmark, KeyDeed::Help),
    (Key::F1, KeyDeed::Help),
];

const LANES: [Key; 9] = [
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
pub(crate) const HELP: [(&str, &str); 9] = [
    ("M", "microphone on or off, for all sessions"),
    ("V", "camera on or off, for all sessions"),
    ("D", "deafen: hear nobody, or everybody again"),
    ("Space", "talk while it is held, when the microphone is off"),
    ("Ctrl+V", "join the session whose link is on the clipboard"),
    ("F", "remote streams on the whole screen; Esc goes back"),
    ("1 … 9", "show that session and its people"),
    ("Tab, Enter", "go through all controls, press one"),
    ("?", "this list"),
];
