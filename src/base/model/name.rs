//! Names of participants: a visible name, or "Guest" and a number.

use std::collections::{BTreeMap, BTreeSet};

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointSetData, props::Emoji};
use unicode_security::skeleton;

use super::{
    MAX_NAME_CHARS,
    text::{is_blank, is_invisible, is_mark},
};

/// The most combining marks on one letter in scripts with joined forms: Burmese needs six. More
/// marks would cover the lines above and below.
const MAX_MARKS: usize = 6;

/// The most combining marks on one letter of any other script, after composition (NFC).
const MAX_MARKS_SIMPLE: usize = 2;

/// The most cleaning passes. Removing a character may let its neighbours compose into one.
const ROUNDS: usize = 4;

/// The prefix of the name of a participant without a visible name, before its number.
const GUEST: &str = "Guest ";

/// The name as it is displayed; empty if the name has no visible character. Hubs and clients both
/// apply it, because neither can trust the other's program.
///
/// It removes invisible and control characters, keeps joiners and variation selectors where an
/// emoji or a script needs them, turns white space into single spaces, composes characters (NFC,
/// UAX #15), and keeps at most two combining marks on a letter, or six in scripts that need them.
/// At most [`MAX_NAME_CHARS`] characters remain. Cleaning twice changes nothing.
pub fn clean_name(name: &str) -> String {
    // Bounds the work; longer than any name that is kept.
    let mut clean: String = name.chars().take(16 * MAX_NAME_CHARS).collect();
    for _ in 0..ROUNDS {
        let next = cleaned(&ComposingNormalizerBorrowed::new_nfc().normalize(&clean));
        if next == clean {
            break;
        }
        clean = next;
    }
    clean
}

fn cleaned(name: &str) -> String {
    let mut clean = NameCleaner::default();
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if clean.chars == MAX_NAME_CHARS {
            break;
        }
        clean.push(c, chars.peek().copied());
    }
    clean.finish()
}

/// For each name, whether it may be mistaken for another name of the list: the two look alike in
/// some font, whatever their characters and case (UTS #39, section 4).
pub fn confusable(names: &[&str]) -> Vec<bool> {
    // Some letters look alike as capitals and others as small letters: both forms are compared.
    let skeletons = |name: &&str| -> [String; 2] {
        [skeleton(name).collect(), skeleton(&name.to_lowercase()).collect()]
    };
    let skeletons: Vec<_> = names.iter().map(skeletons).collect();
    let mut owners = BTreeMap::<&str, BTreeSet<usize>>::new();
    for (index, both) in skeletons.iter().enumerate() {
        for skeleton in both {
            owners.entry(skeleton).or_default().insert(index);
        }
    }
    let is_shared =
        |skeleton: &String| owners.get(skeleton.as_str()).is_some_and(|all| all.len() > 1);
    skeletons.iter().map(|both| both.iter().any(is_shared)).collect()
}

/// The name of a participant without a visible name.
pub fn guest_name(number: u64) -> String {
    format!("{GUEST}{number}")
}

/// The number in a name from [`guest_name`]; `None` for any other name.
pub fn guest_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(GUEST)?;
    let number = digits.parse().ok()?;
    (digits == u64::to_string(&number)).then_some(number)
}

/// Builds a clean name, character by character.
#[derive(Default)]
struct NameCleaner {
    text: String,
    chars: usize,
    /// The last character of `text`.
    last: Option<char>,
    /// The number of marks on the last letter.
    marks: usize,
    /// The most marks allowed on the last letter.
    max_marks: usize,
}

impl NameCleaner {
    fn push(&mut self, c: char, next: Option<char>) {
        if c.is_whitespace() && !c.is_control() || is_blank(c) {
            if self.last.is_some_and(|last| last != ' ') {
                self.keep(' ');
            }
        } else if is_invisible(c) || c.is_control() {
            if self.last.is_some_and(|last| is_meaningful(c, last, next)) {
                self.keep(c);
            }
        } else if !is_mark(c) {
            self.marks = 0;
            self.max_marks = if c < FIRST_JOINED_SCRIPT { MAX_MARKS_SIMPLE } else { MAX_MARKS };
            self.keep(c);
        } else if self.last.is_some_and(|last| last != ' ') && self.marks < self.max_marks {
            self.marks += 1;
            self.keep(c);
        }
    }

    fn keep(&mut self, c: char) {
        self.text.push(c);
        self.chars += 1;
        self.last = Some(c);
    }

    /// The name without a trailing space and without a trailing joiner that joins nothing.
    fn finish(mut self) -> String {
        while let Some(last) = self.text.pop() {
            let before = self.text.chars().next_back();
            let joins_nothing =
                is_joiner(last) && !before.is_some_and(|before| is_meaningful(last, before, None));
            if last != ' ' && !joins_nothing {
                self.text.push(last);
                break;
            }
        }
        self.text
    }
}

/// Whether an invisible character has an effect between the visible characters around it.
fn is_meaningful(c: char, last: char, next: Option<char>) -> bool {
    match c {
        // Between letters of scripts with joined forms, after a virama, between emoji.
        c if is_joiner(c) => {
            let is_virama = is_mark(last) && !is_variation(last);
            can_join(last) && (is_virama || next.is_some_and(can_join))
        }
        // Selectors of the text or emoji form.
        '\u{fe0e}' | '\u{fe0f}' => is_emoji(last),
        c if is_variation(c) => {
            last >= FIRST_JOINED_SCRIPT && !is_mark(last) && !is_invisible(last)
        }
        // Mongolian vowel separator and variation selectors.
        '\u{180b}'..='\u{180f}' => matches!(last, '\u{1820}'..='\u{18aa}'),
        // The flags of England, Scotland and Wales.
        '\u{e0020}'..='\u{e007f}' => matches!(last, '\u{1f3f4}' | '\u{e0020}'..='\u{e007e}'),
        _ => false,
    }
}

const fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

const fn is_variation(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Whether a character has the Emoji property, as do digits, `#` and `*`, which keycaps consist of.
fn is_emoji(c: char) -> bool {
    CodePointSetData::new::<Emoji>().contains(c)
}

/// The first letter of Hebrew. The scripts before it (Latin, Greek, Cyrillic) have no joined forms.
const FIRST_JOINED_SCRIPT: char = '\u{590}';

fn can_join(c: char) -> bool {
    c >= FIRST_JOINED_SCRIPT && (c.is_alphabetic() || is_mark(c) || is_emoji(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_without_visible_characters_is_empty() {
        for name in [
            "",
            " \u{a0}\u{3000}\u{2003}",
            "\u{200b}",
            "\u{200d}\u{200c}\u{2060}\u{feff}",
            "\u{2800}\u{2800}",
            "\u{3164}",
            "\u{ffa0}",
            "\u{115f}\u{1160}",
            "\u{ad}\u{34f}",
            "\u{180b}\u{180e}\u{17b4}",
            "\u{202e}\u{2066}\u{200f}\u{61c}",
            "\u{fe0f}\u{fe00}\u{e0100}",
            "\u{e0041}\u{e007f}",
            "\u{301}\u{20e3}",
            "\u{fff9}\u{fffc}",
            "\u{7}\n\t\u{85}",
            "\u{2028}",
            "\u{1d159}",
        ] {
            assert_eq!(clean_name(name), "", "{name:?}");
        }
    }

    #[test]
    fn joiners_and_variation_selectors_stay_where_they_have_an_effect() {
        for name in [
            "👩\u{200d}💻",
            "👨\u{200d}👩\u{200d}👧 Miller",
            "❤\u{fe0f}\u{200d}🔥",
            "1\u{fe0f}\u{20e3}",
            "🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
            // Persian, with the non-joiner inside a word.
            "علی\u{200c}رضا",
            // Sinhala and Marathi, with a joiner after a virama.
            "ශ්\u{200d}රී",
            "र्\u{200d}य",
            // Malayalam, with a joiner at the end.
            "ന്\u{200d}",
            // Japanese, with a variation selector.
            "葛\u{e0100}城",
            "ᠮᠣᠩᠭᠣᠯ\u{180e}ᠠ",
            "Nguyễn",
            "မြွှုံ့",
            "שּׁ֖",
            "Dvořák 🦊 李小龙",
        ] {
            assert_eq!(clean_name(name), name, "{name:?}");
        }
    }

    #[test]
    fn invisible_characters_and_excess_marks_are_removed() {
        for (name, clean) in [
            (" A\u{7}n\nn \u{202e}", "Ann"),
            ("A\u{200b}n\u{200d}n\u{fe0f}", "Ann"),
            ("Ann\u{a0}\u{3000} Lee\u{2800}", "Ann Lee"),
            ("👩\u{200d}", "👩"),
            ("👩\u{200d}\u{200d}\u{200d} x", "👩 x"),
            ("\u{301}e\u{301}", "é"),
            ("Nguye\u{302}\u{303}n", "Nguyễn"),
            ("Ol\u{200b}ga", "Olga"),
            ("e\u{200b}\u{301}", "é"),
            ("x\u{328}\u{301}\u{302}\u{303}", "x\u{328}\u{301}"),
            ("Guest\u{a0}1", "Guest 1"),
            ("Ann\u{e0041}\u{61c}", "Ann"),
            ("é\u{200d}é", "éé"),
        ] {
            assert_eq!(clean_name(name), clean, "{name:?}");
        }
        let tower = format!("Z{}a", "\u{301}".repeat(60));
        assert_eq!(clean_name(&tower), "Ź\u{301}\u{301}a");
        assert_eq!(clean_name(&"ä".repeat(80)), "ä".repeat(MAX_NAME_CHARS));
        assert_eq!(clean_name(&"👩\u{200d}".repeat(80)).chars().count(), MAX_NAME_CHARS - 1);
    }

    #[test]
    fn names_that_look_alike_are_confusable() {
        for (one, other) in [
            ("Olga", "Olga"),
            // Cyrillic, a zero, a capital I, another case, fullwidth.
            ("Olga", "\u{41e}lga"),
            ("Olga", "0lga"),
            ("Olga", "OIga"),
            ("Olga", "OLGA"),
            ("Olga", "\u{ff2f}lga"),
            ("Guest 1", "Guest l"),
            ("paypal", "\u{440}\u{430}\u{443}\u{440}\u{430}l"),
        ] {
            assert_eq!(confusable(&[one, "Zoe", other]), [true, false, true], "{one} {other}");
        }
        for (one, other) in [("Olga", "Olaf"), ("Ann", "Anne"), ("Guest 1", "Guest 2"), ("é", "e")]
        {
            assert_eq!(confusable(&[one, other]), [false, false], "{one} {other}");
        }
    }

    #[test]
    fn only_a_generated_guest_name_has_a_guest_number() {
        assert_eq!(guest_name(7), "Guest 7");
        assert_eq!(guest_number("Guest 7"), Some(7));
        for other in ["Guest", "Guest 07", "Guest +7", "guest 7", "Guest 7a"] {
            assert_eq!(guest_number(other), None, "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn cleaning_twice_changes_nothing(
            name in "([a-z \u{301}\u{200c}\u{200d}\u{fe0f}\u{e0100}👩❤ک\u{94d}\u{2800}]|\\PC){0,70}",
        ) {
            let clean = clean_name(&name);
            prop_assert_eq!(clean_name(&clean), clean.clone());
            prop_assert!(clean.chars().count() <= MAX_NAME_CHARS);
            prop_assert!(clean.is_empty() || clean.chars().any(|c| !is_invisible(c) && !is_mark(c)));
        }
    }
}
