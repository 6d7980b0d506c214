//! What people are called: a name that can be seen, or "Guest" and a number.

use std::collections::{BTreeMap, BTreeSet};

use icu_normalizer::ComposingNormalizerBorrowed;
use icu_properties::{CodePointSetData, props::Emoji};
use unicode_security::skeleton;

use super::{
    MAX_NAME_CHARS,
    text::{is_blank, is_invisible, is_mark},
};

/// The most combining marks on a letter of scripts with joined forms: Burmese needs six. Towers of
/// them cover the lines above and below.
const MAX_MARKS: usize = 6;

/// The most on any other letter, once what can be is one letter with its mark.
const MAX_MARKS_ELSEWHERE: usize = 2;

/// How often a name is cleaned until nothing changes: what goes may let two characters become one.
const ROUNDS: usize = 4;

/// What those without a name are called, before their number.
const GUEST: &str = "Guest ";

/// A name as people see it, the same at a hub and at each client, since either may be a stranger's
/// program; empty if nothing in it can be seen.
///
/// Invisible and control characters go, joiners and variation marks stay where an emoji or a
/// script needs them, white space becomes single spaces, what has several spellings gets one (NFC,
/// UAX #15), and letters keep at most two combining marks, or six in scripts that need them. At
/// most [`MAX_NAME_CHARS`] characters are left. Cleaning twice changes nothing.
pub fn clean_name(name: &str) -> String {
    // Longer than any name, and no text of any length.
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
    let mut clean = Clean::default();
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if clean.chars == MAX_NAME_CHARS {
            break;
        }
        clean.push(c, chars.peek().copied());
    }
    clean.finish()
}

/// Which of these names people may take for another of them: they look alike in some font,
/// whatever they are made of and in whatever case (UTS #39, section 4).
pub fn confusable(names: &[&str]) -> Vec<bool> {
    // Of capitals and small letters some look alike and others do not: both are compared.
    let looks = |name: &&str| -> [String; 2] {
        [skeleton(name).collect(), skeleton(&name.to_lowercase()).collect()]
    };
    let looks: Vec<_> = names.iter().map(looks).collect();
    let mut owners = BTreeMap::<&str, BTreeSet<usize>>::new();
    for (index, look) in looks.iter().enumerate() {
        for look in look {
            owners.entry(look).or_default().insert(index);
        }
    }
    let is_shared = |look: &String| owners.get(look.as_str()).is_some_and(|all| all.len() > 1);
    looks.iter().map(|look| look.iter().any(is_shared)).collect()
}

/// What somebody without a visible name is called.
pub fn guest_name(number: u64) -> String {
    format!("{GUEST}{number}")
}

/// The number in a name that [`guest_name`] made; `None` for any other name.
pub fn guest_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(GUEST)?;
    let number = digits.parse().ok()?;
    (digits == u64::to_string(&number)).then_some(number)
}

/// A name while it is cleaned.
#[derive(Default)]
struct Clean {
    text: String,
    chars: usize,
    /// The last character of `text`.
    last: Option<char>,
    /// How many marks stand on the last letter, and how many may.
    marks: usize,
    most_marks: usize,
}

impl Clean {
    fn push(&mut self, c: char, next: Option<char>) {
        if c.is_whitespace() && !c.is_control() || is_blank(c) {
            if self.last.is_some_and(|last| last != ' ') {
                self.keep(' ');
            }
        } else if is_invisible(c) || c.is_control() {
            if self.last.is_some_and(|last| belongs(c, last, next)) {
                self.keep(c);
            }
        } else if !is_mark(c) {
            self.marks = 0;
            self.most_marks = if c < FIRST_JOINED { MAX_MARKS_ELSEWHERE } else { MAX_MARKS };
            self.keep(c);
        } else if self.last.is_some_and(|last| last != ' ') && self.marks < self.most_marks {
            self.marks += 1;
            self.keep(c);
        }
    }

    fn keep(&mut self, c: char) {
        self.text.push(c);
        self.chars += 1;
        self.last = Some(c);
    }

    /// The name, without a space or a joiner to nothing at its end.
    fn finish(mut self) -> String {
        while let Some(last) = self.text.pop() {
            let before = self.text.chars().next_back();
            let joins_nothing =
                is_joiner(last) && !before.is_some_and(|before| belongs(last, before, None));
            if last != ' ' && !joins_nothing {
                self.text.push(last);
                break;
            }
        }
        self.text
    }
}

/// Whether an invisible character does something between the visible ones around it.
fn belongs(c: char, last: char, next: Option<char>) -> bool {
    match c {
        // Between letters of scripts with joined forms, after a virama, between emoji.
        c if is_joiner(c) => {
            let is_virama = is_mark(last) && !is_variation(last);
            can_join(last) && (is_virama || next.is_some_and(can_join))
        }
        // Text or emoji form.
        '\u{fe0e}' | '\u{fe0f}' => is_emoji(last),
        c if is_variation(c) => last >= FIRST_JOINED && !is_mark(last) && !is_invisible(last),
        // Mongolian vowel separator and variants.
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

/// Includes digits, `#` and `*`, which keycaps are made of.
fn is_emoji(c: char) -> bool {
    CodePointSetData::new::<Emoji>().contains(c)
}

/// Hebrew: the scripts before it (Latin, Greek, Cyrillic) have no joined forms.
const FIRST_JOINED: char = '\u{590}';

fn can_join(c: char) -> bool {
    c >= FIRST_JOINED && (c.is_alphabetic() || is_mark(c) || is_emoji(c))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_that_nobody_sees_is_empty() {
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
    fn joiners_and_variants_stay_where_they_are_needed() {
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
            // Japanese, with a variant of a letter.
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
    fn what_disturbs_a_name_goes_and_the_rest_stays() {
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
    fn names_that_look_alike_are_confusable_and_others_are_not() {
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
    fn a_guests_number_is_in_the_name_that_a_hub_gives_only() {
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
