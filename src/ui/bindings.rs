//! Key bindings that the user may change.

use std::collections::BTreeMap;

use eframe::egui::Key;
use serde::{Deserialize, Serialize};

use crate::model::MuteSwitch;

/// An action that a key can be bound to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Bindable {
    /// Mutes or unmutes the microphone in all sessions.
    Mute,
    /// Turns the camera on or off in all sessions.
    Camera,
    /// Turns the sound on or off.
    Deafen,
    /// Push-to-talk: unmutes the microphone while the key is held.
    Talk,
    /// Enters or leaves full screen.
    FullScreen,
    /// Shows the keyboard shortcuts.
    Help,
}

/// The current key bindings. Each action has one key, and no two actions share a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub(crate) struct Bindings([Key; Bindable::ALL.len()]);

/// Why a key cannot be bound.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BindingError {
    /// The key is bound to another action.
    #[error("{} is already used: {}; press another key", shown(*key), holder.meaning())]
    Taken {
        /// The key.
        key: Key,
        /// The action that it is bound to.
        holder: Bindable,
    },
    /// The key has a fixed meaning.
    #[error("{} {meaning}; press another key", shown(*key))]
    Fixed {
        /// The key.
        key: Key,
        /// Its fixed meaning.
        meaning: &'static str,
    },
    /// A settings file names an unknown key.
    #[error("there is no key {name:?}; keys have names such as \"M\", \"Space\" or \"F5\"")]
    UnknownKey {
        /// The name in the file.
        name: String,
    },
    /// A settings file names an unknown action.
    #[error("{name:?} is not the name of a shortcut; the choices are {}", names())]
    UnknownAction {
        /// The name in the file.
        name: String,
    },
}

impl Bindable {
    /// All actions, in the order of the help.
    pub(crate) const ALL: [Self; 6] =
        [Self::Mute, Self::Camera, Self::Deafen, Self::Talk, Self::FullScreen, Self::Help];

    /// Its key in the settings file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mute => "mute",
            Self::Camera => "camera",
            Self::Deafen => "deafen",
            Self::Talk => "talk",
            Self::FullScreen => "full-screen",
            Self::Help => "help",
        }
    }

    /// A description of the action, for the help.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Mute => "Microphone on or off, everywhere",
            Self::Camera => "Camera on or off, everywhere",
            Self::Deafen => "Sound on or off, everywhere",
            Self::Talk => "Hold to talk while muted",
            Self::FullScreen => "Full screen, and Esc goes back",
            Self::Help => "Keyboard shortcuts",
        }
    }

    /// The switch that the action switches in all sessions, if it does.
    pub(crate) const fn switch(self) -> Option<MuteSwitch> {
        match self {
            Self::Mute => Some(MuteSwitch::MICROPHONE),
            Self::Camera => Some(MuteSwitch::CAMERA),
            Self::Deafen => Some(MuteSwitch::Listening),
            Self::Talk | Self::FullScreen | Self::Help => None,
        }
    }

    const fn default_key(self) -> Key {
        match self {
            Self::Mute => Key::M,
            Self::Camera => Key::V,
            Self::Deafen => Key::D,
            Self::Talk => Key::Space,
            Self::FullScreen => Key::F,
            Self::Help => Key::Questionmark,
        }
    }
}

impl Default for Bindings {
    fn default() -> Self {
        Self(Bindable::ALL.map(Bindable::default_key))
    }
}

impl Bindings {
    /// The key of an action.
    pub(crate) const fn key(&self, action: Bindable) -> Key {
        self.0[action as usize]
    }

    /// The key's name as shown in the window: "M", "Space", "?".
    pub(crate) fn key_name(&self, action: Bindable) -> &'static str {
        shown(self.key(action))
    }

    /// The action that a key is bound to.
    pub(crate) fn action_of(&self, key: Key) -> Option<Bindable> {
        Bindable::ALL.into_iter().find(|action| self.key(*action) == key)
    }

    /// Binds an action to another key.
    pub(crate) fn bind(&mut self, action: Bindable, key: Key) -> Result<(), BindingError> {
        self.check(action, key)?;
        self.0[action as usize] = key;
        Ok(())
    }

    /// Reads the bindings of a settings file. Also returns the entries that cannot be used, each
    /// with the reason; their actions keep the default keys. Unknown actions of a newer version are
    /// ignored.
    pub(crate) fn from_table(table: &toml::Table) -> (Self, Vec<(String, String)>) {
        let (mut bindings, mut given, mut invalid) = (Self::default(), vec![], vec![]);
        for action in Bindable::ALL {
            let Some(value) = table.get(action.name()) else { continue };
            let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match Key::from_name(&name) {
                Some(key) => {
                    bindings.0[action as usize] = key;
                    given.push(action);
                }
                None => invalid.push((
                    action.name().to_owned(),
                    BindingError::UnknownKey { name }.to_string(),
                )),
            }
        }
        // Checked after all entries are read: the file may swap two keys.
        let clash = |bindings: &Self, action: &Bindable| {
            bindings.check(*action, bindings.key(*action)).err()
        };
        while let Some((index, error)) = given
            .iter()
            .enumerate()
            .find_map(|(index, action)| Some((index, clash(&bindings, action)?)))
        {
            let action: Bindable = given.remove(index);
            bindings.0[action as usize] = action.default_key();
            invalid.push((action.name().to_owned(), error.to_string()));
        }
        (bindings, invalid)
    }

    /// The bindings as a table of a settings file.
    pub(crate) fn to_table(self) -> toml::Table {
        let text = |(name, key)| (name, toml::Value::String(key));
        BTreeMap::from(self).into_iter().map(text).collect()
    }

    fn check(&self, action: Bindable, key: Key) -> Result<(), BindingError> {
        if let Some(meaning) = fixed_meaning(key) {
            return Err(BindingError::Fixed { key, meaning });
        }
        let mut others = Bindable::ALL.into_iter().filter(|other| *other != action);
        match others.find(|other| self.key(*other) == key) {
            Some(holder) => Err(BindingError::Taken { key, holder }),
            None => Ok(()),
        }
    }
}

/// The fixed meaning of a key.
fn fixed_meaning(key: Key) -> Option<&'static str> {
    let found = FIXED_KEYS.into_iter().find(|(one, _)| *one == key).map(|(_, meaning)| meaning);
    found.or(super::shortcuts::SESSION_KEYS.contains(&key).then_some("shows that session"))
}

const FIXED_KEYS: [(Key, &str); 10] = [
    (Key::Escape, "closes what is in front"),
    (Key::Tab, "moves through the controls"),
    (Key::Enter, "presses the control that has the focus"),
    (Key::F1, "shows the keyboard shortcuts"),
    (Key::PageUp, "scrolls the chat"),
    (Key::PageDown, "scrolls the chat"),
    (Key::ArrowUp, "moves the focus"),
    (Key::ArrowDown, "moves the focus"),
    (Key::ArrowLeft, "moves the focus"),
    (Key::ArrowRight, "moves the focus"),
];

/// Modifier keys, which cannot be bound alone.
pub(crate) const MODIFIERS: [Key; 12] = [
    Key::ShiftLeft,
    Key::ShiftRight,
    Key::ControlLeft,
    Key::ControlRight,
    Key::AltLeft,
    Key::AltRight,
    Key::SuperLeft,
    Key::SuperRight,
    Key::CapsLock,
    Key::NumLock,
    Key::ScrollLock,
    Key::Fn,
];

fn shown(key: Key) -> &'static str {
    if key == Key::Space { "Space" } else { key.symbol_or_name() }
}

fn names() -> String {
    Bindable::ALL.map(Bindable::name).join(", ")
}

impl From<Bindings> for BTreeMap<String, String> {
    fn from(bindings: Bindings) -> Self {
        let named =
            |action: Bindable| (action.name().to_owned(), bindings.key(action).name().to_owned());
        Bindable::ALL.into_iter().map(named).collect()
    }
}

impl TryFrom<BTreeMap<String, String>> for Bindings {
    type Error = BindingError;

    fn try_from(named: BTreeMap<String, String>) -> Result<Self, BindingError> {
        let mut bindings = Self::default();
        let mut given = vec![];
        for (name, key) in named {
            let action = Bindable::ALL.into_iter().find(|action| action.name() == name);
            let action = action.ok_or(BindingError::UnknownAction { name })?;
            let key = Key::from_name(&key).ok_or(BindingError::UnknownKey { name: key })?;
            bindings.0[action as usize] = key;
            given.push((action, key));
        }
        // Checked after all entries are read: the file may swap two keys.
        for (action, key) in given {
            bindings.check(action, key)?;
        }
        Ok(bindings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Bindings, String> {
        let owned = |(name, key): &(&str, &str)| ((*name).to_owned(), (*key).to_owned());
        let named: BTreeMap<_, _> = pairs.iter().map(owned).collect();
        Bindings::try_from(named).map_err(|error| error.to_string())
    }

    #[test]
    fn written_bindings_are_read_again_even_if_two_keys_are_swapped() {
        let swapped = read(&[("mute", "V"), ("camera", "M"), ("talk", "F5")]).unwrap();
        assert_eq!(swapped.action_of(Key::V), Some(Bindable::Mute));
        assert_eq!(
            (swapped.key_name(Bindable::Talk), swapped.key_name(Bindable::Help)),
            ("F5", "?")
        );
        assert_eq!(Bindings::try_from(BTreeMap::from(swapped)), Ok(swapped));
        assert_eq!(read(&[]), Ok(Bindings::default()));
    }

    #[test]
    fn binding_a_used_key_names_its_action_and_changes_nothing() {
        let mut bindings = Bindings::default();
        let refused = bindings.bind(Bindable::Mute, Key::V).unwrap_err().to_string();
        assert_eq!(refused, "V is already used: Camera on or off, everywhere; press another key");
        let refused = bindings.bind(Bindable::Mute, Key::Tab).unwrap_err().to_string();
        assert_eq!(refused, "Tab moves through the controls; press another key");
        assert!(bindings.bind(Bindable::Mute, Key::Num3).is_err());
        assert_eq!(bindings, Bindings::default());
        assert_eq!(bindings.bind(Bindable::Mute, Key::M), Ok(()), "its own key");
        assert_eq!(bindings.bind(Bindable::Mute, Key::F9), Ok(()));
        assert_eq!(
            (bindings.action_of(Key::M), bindings.action_of(Key::F9)),
            (None, Some(Bindable::Mute))
        );
    }

    #[test]
    fn an_invalid_key_does_not_affect_the_others() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let (keys, invalid) =
            Bindings::from_table(&table("mute = 'V'\ncamera = 'M'\ntalk = 3\njump = 'J'"));
        assert_eq!(
            (keys.action_of(Key::V), keys.action_of(Key::M)),
            (Some(Bindable::Mute), Some(Bindable::Camera))
        );
        assert_eq!((keys.key(Bindable::Talk), invalid.len()), (Key::Space, 1));
        assert_eq!(Bindings::from_table(&keys.to_table()), (keys, vec![]));
        let (keys, invalid) = Bindings::from_table(&table("mute = 'V'\nhelp = 'F9'"));
        assert_eq!((keys.key(Bindable::Mute), keys.key(Bindable::Help)), (Key::M, Key::F9));
        assert!(invalid[0].1.contains("V is already used"), "{invalid:?}");
    }

    #[test]
    fn a_file_with_a_duplicate_or_unknown_key_is_refused_with_a_reason() {
        assert!(read(&[("mute", "V")]).unwrap_err().contains("V is already used"));
        assert!(read(&[("mute", "Ü")]).unwrap_err().contains("no key \"Ü\""));
        assert!(read(&[("jump", "J")]).unwrap_err().contains("mute, camera, deafen"));
        assert!(read(&[("mute", "Tab")]).unwrap_err().contains("moves through"));
    }
}
