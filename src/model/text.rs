//! What single characters are, for links and names: invisible, blank, dashes.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup},
};

/// Whether a character shows nothing and takes no room: zero-width spaces and joiners, byte order
/// marks, soft hyphens, direction and variation marks, tags, and control characters that are no
/// white space (Unicode's `Default_Ignorable_Code_Point`, `Cc` and `Cf`).
pub(super) fn is_invisible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_control() && !c.is_whitespace();
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let is_control = GeneralCategoryGroup::Control.union(GeneralCategoryGroup::Format);
    is_control.contains(category) && !c.is_whitespace() && !is_shown_format(c)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        // The object replacement character stands where a picture was.
        || c == '\u{fffc}'
}

/// Whether a character is no white space by its properties but is drawn as an empty place.
pub(super) const fn is_blank(c: char) -> bool {
    matches!(
        c,
        // Braille pattern blank, musical null notehead, Khitan filler, Egyptian blanks.
        '\u{2800}' | '\u{1d159}' | '\u{16fe4}' | '\u{13441}' | '\u{13442}'
    )
}

/// Whether a character is drawn on the one before it: accents, vowel signs, enclosing marks.
pub(super) fn is_mark(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    GeneralCategoryGroup::Mark.contains(category)
}

/// Whether a character is one of the dashes that word processors put in the place of `-`.
pub(super) const fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{2010}'
            ..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
    )
}

/// The most characters of a sentence that another program wrote.
const MAX_SENTENCE: usize = 300;

/// A sentence that another program wrote, such as a hub's error, as a person may be shown it: in one
/// line, without what cannot be seen and what changes the direction of text, and of at most 300
/// characters.
pub fn clean_sentence(text: &str) -> String {
    let shown = text.chars().filter(|c| c.is_whitespace() || !is_invisible(*c));
    let shown: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut words = shown.split_whitespace();
    let mut clean = words.next().unwrap_or_default().to_owned();
    for word in words {
        clean.push(' ');
        clean.push_str(word);
    }
    if let Some((end, _)) = clean.char_indices().nth(MAX_SENTENCE) {
        clean.truncate(end);
        clean.push('…');
    }
    clean
}

/// Whether a character turns the direction of the text after it, also beyond the word or line that it
/// stands in (UAX #9, section 2): embeddings, overrides and isolates.
pub const fn turns_text(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A pasted text without what cannot be seen, its full-width letters and signs (`ｈｔｔｐ：／／`) as
/// ASCII.
pub(super) fn tidy(text: &str) -> String {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        other => other,
    };
    text.chars().filter(|c| !is_invisible(*c)).map(narrow).collect()
}

/// The text with `-` for every dash.
pub(super) fn with_plain_dashes(text: &str) -> String {
    text.chars().map(|c| if is_dash(c) { '-' } else { c }).collect()
}

/// Format characters that are drawn: the signs that Arabic, Syriac and Kaithi put before or around
/// numbers.
const fn is_shown_format(c: char) -> bool {
    matches!(
        c,
        '\u{600}'
            ..='\u{605}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'
                | '\u{891}'
                | '\u{8e2}'
                | '\u{110bd}'
                | '\u{110cd}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_of_another_program_stays_in_its_line_and_turns_nothing() {
        for (said, shown) in [
            ("no such session", "no such session"),
            (" a\r\nb\tc\u{1b}[31m d\u{7} ", "a b c[31m d"),
            ("\u{202e}kcatta\u{2066}\u{200f}", "kcatta"),
            ("a\u{2028}b\u{85}c", "a b c"),
            ("\u{200b}\u{feff}", ""),
            ("Größe: 3 ✓", "Größe: 3 ✓"),
        ] {
            assert_eq!(clean_sentence(said), shown, "{said:?}");
        }
        assert_eq!(clean_sentence(&"ä".repeat(5000)).chars().count(), MAX_SENTENCE + 1);
    }
}
