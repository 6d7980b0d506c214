//! Which key asks for what, as a person may change it.

use std::collections::BTreeMap;

use eframe::egui::Key;
use serde::{Deserialize, Serialize};

/// What a key of one's own choice can ask for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Bindable {
    /// The microphone, for all sessions.
    Mute,
    /// The camera, for all sessions.
    Camera,
    /// The speaker.
    Deafen,
    /// The microphone, while the key is held.
    Talk,
    /// The whole screen.
    FullScreen,
    /// The list of keys.
    Help,
}

/// The keys that are held to now: each deed has one, and no two share one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub(crate) struct Bindings([Key; Bindable::ALL.len()]);

/// Why a key cannot be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum BindingError {
    /// It has another meaning.
    #[error("{} is already used: {}; press another key", shown(*key), holder.meaning())]
    Taken {
        /// Which key.
        key: Key,
        /// What it asks for.
        holder: Bindable,
    },
    /// It has a meaning that cannot be changed.
    #[error("{} {meaning}; press another key", shown(*key))]
    Fixed {
        /// Which key.
        key: Key,
        /// What it does.
        meaning: &'static str,
    },
    /// A settings file names no key that there is.
    #[error("there is no key {name:?}; keys have names such as \"M\", \"Space\" or \"F5\"")]
    NoKey {
        /// What stands there.
        name: String,
    },
    /// A settings file names something that no key asks for.
    #[error("{name:?} is nothing that a key can do; the choices are {}", names())]
    NoDeed {
        /// What stands there.
        name: String,
    },
}

impl Bindable {
    /// All, in the order of the help.
    pub(crate) const ALL: [Self; 6] =
        [Self::Mute, Self::Camera, Self::Deafen, Self::Talk, Self::FullScreen, Self::Help];

    /// What it is called in the settings file.
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

    /// What the key does, in words.
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

    const fn usual(self) -> Key {
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
        Self(Bindable::ALL.map(Bindable::usual))
    }
}

impl Bindings {
    /// The key that asks for it.
    pub(crate) const fn key(&self, deed: Bindable) -> Key {
        self.0[deed as usize]
    }

    /// The same as people read it: "M", "Space", "?".
    pub(crate) fn shown(&self, deed: Bindable) -> &'static str {
        shown(self.key(deed))
    }

    /// What a key asks for.
    pub(crate) fn deed(&self, key: Key) -> Option<Bindable> {
        Bindable::ALL.into_iter().find(|deed| self.key(*deed) == key)
    }

    /// Gives the deed another key.
    pub(crate) fn bind(&mut self, deed: Bindable, key: Key) -> Result<(), BindingError> {
        self.may_have(deed, key)?;
        self.0[deed as usize] = key;
        Ok(())
    }

    /// The keys that a settings file gives, and those that cannot be used, each with the reason:
    /// what asked for them keeps its usual key. Names of a newer version are left alone.
    pub(crate) fn read(table: &toml::Table) -> (Self, Vec<(String, String)>) {
        let (mut bindings, mut given, mut wrong) = (Self::default(), vec![], vec![]);
        for deed in Bindable::ALL {
            let Some(value) = table.get(deed.name()) else { continue };
            let name = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            match Key::from_name(&name) {
                Some(key) => {
                    bindings.0[deed as usize] = key;
                    given.push(deed);
                }
                None => {
                    wrong.push((deed.name().to_owned(), BindingError::NoKey { name }.to_string()))
                }
            }
        }
        // Looked at when all are given: the file may swap two.
        let clash =
            |bindings: &Self, deed: &Bindable| bindings.may_have(*deed, bindings.key(*deed)).err();
        while let Some((index, error)) = given
            .iter()
            .enumerate()
            .find_map(|(index, deed)| Some((index, clash(&bindings, deed)?)))
        {
            let deed: Bindable = given.remove(index);
            bindings.0[deed as usize] = deed.usual();
            wrong.push((deed.name().to_owned(), error.to_string()));
        }
        (bindings, wrong)
    }

    /// The keys as a settings file has them.
    pub(crate) fn to_table(self) -> toml::Table {
        let text = |(name, key)| (name, toml::Value::String(key));
        BTreeMap::from(self).into_iter().map(text).collect()
    }

    fn may_have(&self, deed: Bindable, key: Key) -> Result<(), BindingError> {
        if let Some(meaning) = fixed(key) {
            return Err(BindingError::Fixed { key, meaning });
        }
        let mut others = Bindable::ALL.into_iter().filter(|other| *other != deed);
        match others.find(|other| self.key(*other) == key) {
            Some(holder) => Err(BindingError::Taken { key, holder }),
            None => Ok(()),
        }
    }
}

/// What a key does that cannot be changed.
fn fixed(key: Key) -> Option<&'static str> {
    let found = FIXED.into_iter().find(|(one, _)| *one == key).map(|(_, meaning)| meaning);
    found.or(super::keys::LANES.contains(&key).then_some("shows that session"))
}

const FIXED: [(Key, &str); 10] = [
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

/// Keys that change what others write, and ask for nothing alone.
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
        let named = |deed: Bindable| (deed.name().to_owned(), bindings.key(deed).name().to_owned());
        Bindable::ALL.into_iter().map(named).collect()
    }
}

impl TryFrom<BTreeMap<String, String>> for Bindings {
    type Error = BindingError;

    fn try_from(named: BTreeMap<String, String>) -> Result<Self, BindingError> {
        let mut bindings = Self::default();
        let mut given = vec![];
        for (name, key) in named {
            let deed = Bindable::ALL.into_iter().find(|deed| deed.name() == name);
            let deed = deed.ok_or(BindingError::NoDeed { name })?;
            let key = Key::from_name(&key).ok_or(BindingError::NoKey { name: key })?;
            bindings.0[deed as usize] = key;
            given.push((deed, key));
        }
        // Looked at when all are given: the file may swap two.
        for (deed, key) in given {
            bindings.may_have(deed, key)?;
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
    fn what_is_written_is_read_again_also_when_two_keys_are_swapped() {
        let swapped = read(&[("mute", "V"), ("camera", "M"), ("talk", "F5")]).unwrap();
        assert_eq!(swapped.deed(Key::V), Some(Bindable::Mute));
        assert_eq!((swapped.shown(Bindable::Talk), swapped.shown(Bindable::Help)), ("F5", "?"));
        assert_eq!(Bindings::try_from(BTreeMap::from(swapped)), Ok(swapped));
        assert_eq!(read(&[]), Ok(Bindings::default()));
    }

    #[test]
    fn a_key_that_is_taken_says_by_what_and_changes_nothing() {
        let mut bindings = Bindings::default();
        let refused = bindings.bind(Bindable::Mute, Key::V).unwrap_err().to_string();
        assert_eq!(refused, "V is already used: Camera on or off, everywhere; press another key");
        let refused = bindings.bind(Bindable::Mute, Key::Tab).unwrap_err().to_string();
        assert_eq!(refused, "Tab moves through the controls; press another key");
        assert!(bindings.bind(Bindable::Mute, Key::Num3).is_err());
        assert_eq!(bindings, Bindings::default());
        assert_eq!(bindings.bind(Bindable::Mute, Key::M), Ok(()), "its own");
        assert_eq!(bindings.bind(Bindable::Mute, Key::F9), Ok(()));
        assert_eq!((bindings.deed(Key::M), bindings.deed(Key::F9)), (None, Some(Bindable::Mute)));
    }

    #[test]
    fn a_key_that_cannot_be_used_costs_the_others_nothing() {
        let table = |text: &str| text.parse::<toml::Table>().unwrap();
        let (keys, wrong) =
            Bindings::read(&table("mute = 'V'\ncamera = 'M'\ntalk = 3\njump = 'J'"));
        assert_eq!(
            (keys.deed(Key::V), keys.deed(Key::M)),
            (Some(Bindable::Mute), Some(Bindable::Camera))
        );
        assert_eq!((keys.key(Bindable::Talk), wrong.len()), (Key::Space, 1));
        assert_eq!(Bindings::read(&keys.to_table()), (keys, vec![]));
        let (keys, wrong) = Bindings::read(&table("mute = 'V'\nhelp = 'F9'"));
        assert_eq!((keys.key(Bindable::Mute), keys.key(Bindable::Help)), (Key::M, Key::F9));
        assert!(wrong[0].1.contains("V is already used"), "{wrong:?}");
    }

    #[test]
    fn a_file_that_gives_a_key_twice_or_to_nothing_is_refused_in_words() {
        assert!(read(&[("mute", "V")]).unwrap_err().contains("V is already used"));
        assert!(read(&[("mute", "Ü")]).unwrap_err().contains("no key \"Ü\""));
        assert!(read(&[("jump", "J")]).unwrap_err().contains("mute, camera, deafen"));
        assert!(read(&[("mute", "Tab")]).unwrap_err().contains("moves through"));
    }
}
