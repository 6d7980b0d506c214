//! Properties of single characters, for links and names: invisible, blank, mark, dash.

use icu_properties::{
    CodePointMapData, CodePointSetData,
    props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup},
};

/// Whether a character is invisible and has no width: zero-width spaces and joiners, byte order
/// marks, soft hyphens, direction and variation marks, tags, and control characters other than
/// white space (Unicode's `Default_Ignorable_Code_Point`, `Cc` and `Cf`).
pub(super) fn is_invisible(c: char) -> bool {
    if c.is_ascii() {
        return c.is_control() && !c.is_whitespace();
    }
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    let is_control = GeneralCategoryGroup::Control.union(GeneralCategoryGroup::Format);
    is_control.contains(category) && !c.is_whitespace() && !is_shown_format(c)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        // The object replacement character marks the position of a removed image.
        || c == '\u{fffc}'
}

/// Whether a character is drawn as empty space although it is not white space by its properties.
pub(super) const fn is_blank(c: char) -> bool {
    matches!(
        c,
        // Braille pattern blank, musical null notehead, Khitan filler, Egyptian blanks.
        '\u{2800}' | '\u{1d159}' | '\u{16fe4}' | '\u{13441}' | '\u{13442}'
    )
}

/// Whether a character is drawn on the preceding one: accents, vowel signs, enclosing marks.
pub(super) fn is_mark(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    GeneralCategoryGroup::Mark.contains(category)
}

/// Whether a character is `-` or one of the dashes that word processors replace it with.
pub(super) const fn is_dash(c: char) -> bool {
    matches!(
        c,
        '-' | '\u{2010}'
            ..='\u{2015}' | '\u{2043}' | '\u{2212}' | '\u{fe58}' | '\u{fe63}' | '\u{ff0d}'
    )
}

/// The most characters that are shown of a sentence from another program.
const MAX_SENTENCE: usize = 300;

/// A sentence from another program, such as a hub's error, made safe to show: a single line,
/// without invisible characters and characters that change the direction of text, and at most 300
/// characters long.
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

/// Whether a character changes the direction of the text after it, even beyond its word or line
/// (UAX #9, section 2): embeddings, overrides and isolates.
pub const fn changes_text_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A pasted text without invisible characters, and with full-width letters and signs (`ｈｔｔｐ：／／`) as
/// ASCII.
pub(super) fn normalize_pasted(text: &str) -> String {
    let narrow = |c: char| match c {
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0).unwrap_or(c),
        other => other,
    };
    text.chars().filter(|c| !is_invisible(*c)).map(narrow).collect()
}

/// The text with every dash replaced by `-`.
pub(super) fn with_plain_dashes(text: &str) -> String {
    text.chars().map(|c| if is_dash(c) { '-' } else { c }).collect()
}

/// Whether a format character is visible: the signs that Arabic, Syriac and Kaithi put before or
/// around numbers.
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
    fn a_sentence_from_another_program_is_one_line_without_direction_characters() {
        for (received, shown) in [
            ("no such session", "no such session"),
            (" a\r\nb\tc\u{1b}[31m d\u{7} ", "a b c[31m d"),
            ("\u{202e}kcatta\u{2066}\u{200f}", "kcatta"),
            ("a\u{2028}b\u{85}c", "a b c"),
            ("\u{200b}\u{feff}", ""),
            ("Größe: 3 ✓", "Größe: 3 ✓"),
        ] {
            assert_eq!(clean_sentence(received), shown, "{received:?}");
        }
        assert_eq!(clean_sentence(&"ä".repeat(5000)).chars().count(), MAX_SENTENCE + 1);
    }
}
