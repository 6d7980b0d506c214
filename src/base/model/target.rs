//! Finds the session link or session id in a typed or pasted text.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use url::Url;

use super::{
    HubUrl, IdError, LinkError, SessionId, SessionLink,
    link::with_scheme_and_port,
    text::{is_dash, normalize_pasted, with_plain_dashes},
};

/// The session that a typed or pasted text names: a link, or a bare id to be looked up at the known
/// hubs.
///
/// The first session link anywhere in the text is taken, else the first generated id, else the
/// whole text if it is an id. Links arrive in sentences, brackets, quotes, Markdown and mail, in
/// capitals, with invisible characters and typographic dashes, percent-encoded, broken over several
/// lines, and inside the links of services that check or count clicks. All of that is removed.
///
/// # Errors
/// [`LinkError`] says what is wrong. A text that cannot be an id is always refused, so that no
/// program waits for a session that can never be opened.
pub fn parse_target(text: &str) -> Result<(Option<HubUrl>, SessionId), LinkError> {
    let text = normalize_pasted(text);
    let words: Vec<_> = text.split(is_delimiter).filter(|word| is_word(word)).collect();
    let is_alone = words.len() == 1;
    let mut refused = None;
    for index in 0..words.len() {
        match link_from(&words[index..], is_alone) {
            Ok(link) => return Ok((Some(link.hub), link.session)),
            Err(error) => refused = refused.or(error),
        }
    }
    let generated = (0..words.len()).find_map(|index| generated_from(&words[index..]));
    match (generated, refused, words.as_slice()) {
        (Some(id), ..) => Ok((None, id)),
        (None, Some(error), _) => Err(error),
        (None, None, [word]) => Ok((None, bare_id(word)?)),
        (None, None, _) => Err(LinkError::NoTarget),
    }
}

/// Parses an id that an opener chose for a session.
///
/// # Errors
/// [`IdError`] if it is not an id, or if [`parse_target`] would read another id from it or from its
/// link: a full stop at the end, for example, counts as the end of a sentence.
pub fn parse_own_id(text: &str) -> Result<SessionId, IdError> {
    let id = SessionId::parse(text.trim())?;
    for pasted in [id.to_string(), format!("http://hub.example/s/{id}")] {
        let read = parse_target(&pasted).map(|(_, read)| read.to_string()).unwrap_or_default();
        if read != id.as_str() {
            return Err(IdError::Misread { id: id.into(), read });
        }
    }
    Ok(id)
}

/// The most words that are joined in search of one link: mail programs break lines at 76
/// characters.
const MAX_WORDS: usize = 4;

/// The most layers of percent-encoding: a link inside the link of a service that checks clicks,
/// twice.
const MAX_LAYERS: usize = 4;

/// Whether a character can be part of neither an address nor an id, but may surround them: white
/// space, quotation marks, angle and round brackets of all scripts.
fn is_delimiter(c: char) -> bool {
    let ascii =
        matches!(c, '<' | '>' | '(' | ')' | '{' | '}' | '"' | '\'' | '`' | '|' | '\\' | '^');
    let quotes = matches!(c, '«' | '»' | '\u{2018}'..='\u{201f}' | '\u{2039}' | '\u{203a}' | '\u{300c}'..='\u{300f}');
    let brackets = matches!(c, '\u{3008}'..='\u{300b}' | '\u{3010}'..='\u{301f}');
    c.is_whitespace()
        || ascii
        || quotes
        || brackets
        || matches!(c, '\u{2026}' | '\u{3001}' | '\u{3002}')
}

/// Whether a word is more than punctuation, such as the marks before a quoted line or a list item.
fn is_word(word: &str) -> bool {
    word.contains(char::is_alphanumeric)
}

/// The link that begins in the first word; `Err(None)` if nothing there looks like a link.
///
/// It continues in the following words only if that completes a generated id, which cannot happen
/// by chance.
fn link_from(words: &[&str], is_alone: bool) -> Result<SessionLink, Option<LinkError>> {
    let first = link_in(words[0], is_alone);
    let is_whole = |link: &SessionLink| link.session.is_generated();
    let begins = words[0].contains("://") || session_path(words[0]).is_some();
    let is_enough = first.as_ref().is_ok_and(is_whole);
    // An id of four groups may be the beginning of an id of five groups.
    let may_go_on = words[0].ends_with(|c: char| c == '=' || is_dash(c));
    if !begins || is_enough && !may_go_on {
        return first;
    }
    let is_better = |link: &SessionLink| link.session.is_bound() || !is_enough && is_whole(link);
    let over = joined(words).find_map(|text| link_in(&text, is_alone).ok().filter(is_better));
    over.map_or(first, Ok)
}

/// The first two words joined, then the first three, and so on. A `=` at the end of a line is
/// removed: it marks a broken line in mail (quoted-printable).
fn joined<'a>(words: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    (2..=MAX_WORDS.min(words.len()))
        .map(|count| words[..count].iter().map(|word| word.trim_end_matches('=')).collect())
}

/// The link in a text without spaces, in the text itself or in its percent-decoded form.
fn link_in(text: &str, is_alone: bool) -> Result<SessionLink, Option<LinkError>> {
    let mut text = Cow::Borrowed(text);
    let mut refused = None;
    for _ in 0..MAX_LAYERS {
        match plain_link_in(&text, is_alone) {
            Ok(link) => return Ok(link),
            Err(error) => refused = error.or(refused),
        }
        let decoded = decoded(&text);
        if *decoded == *text {
            break;
        }
        text = Cow::Owned(decoded);
    }
    Err(refused)
}

fn plain_link_in(text: &str, is_alone: bool) -> Result<SessionLink, Option<LinkError>> {
    let starts = schemes(text);
    let head = &text[..starts.first().copied().unwrap_or(text.len())];
    let mut refused = None;
    if session_path(head).is_some() {
        match bare_link(head, is_alone) {
            Ok(link) => return Ok(link),
            Err(error) => refused = error,
        }
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    for (start, end) in starts.iter().copied().zip(ends) {
        let mut link = &text[start..end];
        if text[..start].ends_with('_') {
            // `_` in front is emphasis in Markdown; elsewhere punctuation belongs to the id.
            link = link.trim_end_matches(|c: char| c.is_ascii_punctuation() && c != '/');
        }
        match link_at(link) {
            Ok(link) => return Ok(link),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused)
}

/// The positions at which addresses with a scheme begin.
fn schemes(text: &str) -> Vec<usize> {
    const KNOWN: [&str; 3] = ["https", "http", "quintet"];
    let start = |(end, _): (usize, &str)| {
        let before = &text[..end];
        let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let name = &before[before.trim_end_matches(of_scheme).len()..];
        let lower = name.to_ascii_lowercase();
        // Text directly in front of a known scheme is not part of the scheme.
        let known = KNOWN.into_iter().find(|known| lower.ends_with(known));
        let length = known.map_or(name.len(), str::len);
        (length > 0).then_some(end - length)
    };
    text.match_indices("://").filter_map(start).collect()
}

/// The link at the start of a text that begins with a scheme.
fn link_at(text: &str) -> Result<SessionLink, LinkError> {
    let malformed = || LinkError::Malformed(text.to_owned());
    let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
    let scheme = scheme.to_ascii_lowercase();
    if !matches!(scheme.as_str(), "http" | "https" | "quintet") {
        return Err(LinkError::Scheme(scheme));
    }
    let path = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let Some(at) = session_path(path) else {
        return Err(if path.is_empty() {
            malformed()
        } else {
            LinkError::NoSession(text.to_owned())
        });
    };
    // Our links have a small `s`. A capital `S` means that the whole link is in capitals.
    let is_all_caps = path[at..].starts_with("/S/");
    let path =
        if is_all_caps { Cow::Owned(path.to_ascii_lowercase()) } else { Cow::Borrowed(path) };
    let host = with_plain_dashes(&path[..at]);
    let address = if scheme == "quintet" {
        with_scheme_and_port(&host)
    } else {
        format!("{scheme}://{host}")
    };
    let url = Url::parse(&address).map_err(|_| malformed())?;
    Ok(SessionLink { hub: HubUrl::from_url(&url)?, session: leading_id(&path[at + 3..])? })
}

/// The link in a text without a scheme, `HOST:PORT/s/ID`. Within a sentence the host must look like
/// one: "this/s/that" is not a link.
fn bare_link(text: &str, is_alone: bool) -> Result<SessionLink, Option<LinkError>> {
    let at = session_path(text).ok_or(None)?;
    // Letters of scripts without spaces between words belong to the preceding sentence.
    let of_host = |c: char| {
        c.is_alphanumeric() && c < FIRST_SPACELESS
            || is_dash(c)
            || matches!(c, '.' | ':' | '[' | ']' | '/' | '@' | '_')
    };
    let host = &text[text[..at].trim_end_matches(of_host).len()..at];
    let host = host.trim_start_matches(|c: char| !c.is_alphanumeric() && c != '[');
    let name = host.to_ascii_lowercase();
    let is_host = name.contains(['.', ':']) || name.starts_with("localhost");
    if !is_alone && !is_host {
        return Err(None);
    }
    let id = &text[at..];
    link_at(&format!("quintet://{host}{id}")).map_err(Some)
}

/// The position of the last `/s/` in a text.
fn session_path(text: &str) -> Option<usize> {
    text.rfind("/s/").max(text.rfind("/S/"))
}

/// The id at the start of a text, if the text after it can belong to the surrounding sentence.
fn leading_id(text: &str) -> Result<SessionId, IdError> {
    let is_end = |c: char| !(SessionId::may_contain(c) || is_dash(c));
    let (run, tail) = text.split_at(text.find(is_end).unwrap_or(text.len()));
    if let Some(id) = leading_generated(run) {
        return Ok(id);
    }
    if let Some(c) = continuation(tail) {
        return Err(IdError::BadCharacter(c));
    }
    let run = run.trim_end_matches(|c: char| c == '.' || is_dash(c) && c != '-');
    if let (true, Some(c)) = (run.is_empty(), tail.chars().next()) {
        return Err(IdError::BadCharacter(c));
    }
    SessionId::parse(&with_plain_dashes(run))
}

/// The first character of `tail` if it continues the id before it but is not allowed in an id: in
/// "straße" it is the "ß", in "town-hall, come" there is none.
fn continuation(tail: &str) -> Option<char> {
    let mut chars = tail.chars();
    let first = chars.next()?;
    let joins = first.is_whitespace() || matches!(first, '/' | '@' | '$' | '+' | '=' | '%' | '~');
    let goes_on = (first.is_alphanumeric() && first < FIRST_SPACELESS)
        || (joins && chars.next().is_some_and(char::is_alphanumeric));
    goes_on.then_some(first)
}

/// The first character of the scripts that are mostly written without spaces between words, from
/// Thai to Chinese and Korean. Such a letter after a link begins the next word.
const FIRST_SPACELESS: char = '\u{e00}';

/// The generated id at the start of a text, also in capitals or with other dashes. `None` if the
/// text after it makes it a longer id.
fn leading_generated(text: &str) -> Option<SessionId> {
    SessionId::GENERATED_CHARS.into_iter().find_map(|chars| leading_generated_of(text, chars))
}

fn leading_generated_of(text: &str, chars: usize) -> Option<SessionId> {
    let end = text.char_indices().nth(chars).map_or(text.len(), |(at, _)| at);
    let (id, tail) = text.split_at(end);
    let id = SessionId::generated(&with_plain_dashes(id).to_ascii_lowercase())?;
    let mut tail = tail.chars();
    let is_longer = match tail.next() {
        // Only `-` continues the id; a typographic dash belongs to the sentence.
        Some('-') => tail.next().is_some_and(|c| c.is_ascii_alphanumeric()),
        Some(c) => c.is_alphanumeric() && c < FIRST_SPACELESS,
        None => false,
    };
    (!is_longer).then_some(id)
}

/// The generated id in the first word, or one that begins there and continues in the next words.
fn generated_from(words: &[&str]) -> Option<SessionId> {
    if words[0].contains("://") {
        // The meaning of an id in an address without `/s/` is unknown.
        return None;
    }
    let first = decoded(words[0]);
    let mut before = ' ';
    for (at, c) in first.char_indices() {
        let joins =
            (SessionId::may_contain(before) || is_dash(before)) && before != '.' && before != '_';
        if !joins && let Some(id) = leading_generated(&first[at..]) {
            return Some(id);
        }
        before = c;
    }
    let is_whole = |text: String| leading_generated(text.trim_start_matches(is_wrapping));
    joined(words).find_map(is_whole)
}

/// The id in a text of a single word.
fn bare_id(word: &str) -> Result<SessionId, IdError> {
    let word = decoded(word);
    let id = word.trim_start_matches(is_wrapping);
    let is_emphasis = word.starts_with('_');
    let id = id.trim_end_matches(|c: char| {
        is_wrapping(c) && (c != '_' || is_emphasis) || is_dash(c) && c != '-'
    });
    SessionId::parse(&with_plain_dashes(id))
}

/// Whether a character is punctuation that may surround a bare id.
fn is_wrapping(c: char) -> bool {
    matches!(c, '[' | ']' | '*' | '_' | '~' | '#' | '.' | ',' | ';' | ':' | '!' | '?' | '¿' | '¡')
}

/// The text without one layer of percent-encoding and without invisible characters.
fn decoded(text: &str) -> String {
    normalize_pasted(&percent_decode_str(text).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Secret;

    const ID: &str = "7h3k-q2m9-x4tz-p8wd";

    /// The hub and the id that a text means, or the error's text.
    fn read(text: &str) -> String {
        match parse_target(text) {
            Ok((Some(hub), id)) => format!("{hub} {id}"),
            Ok((None, id)) => id.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn a_link_is_found_in_every_form_of_pasted_text() {
        for text in [
            "http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd.",
            "http://127.0.0.1:7340/s/7H3K-Q2M9-X4TZ-P8WD",
            "HTTP://127.0.0.1:7340/S/7H3K-Q2M9-X4TZ-P8WD",
            "http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd\u{200b}",
            "http://127.0.0.1:7340/s/7h3k-q2m9\u{2013}x4tz\u{2013}p8wd",
            "http://127.0.0.1:7340/s/7h3k\u{2014}q2m9\u{2212}x4tz\u{ff0d}p8wd",
            "http://127.0.0.1:7340/s/7h3k-q2m9%2Dx4tz-p8wd",
            "http://127.0.0.1:7340/s/7h3k%E2%80%93q2m9%2dx4tz-p8wd",
            "\u{feff}http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd",
            "(http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd)",
            "\u{201c}http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd\u{201d}",
            "„http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd“",
            "«\u{a0}http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd\u{a0}»",
            "Ann invites you: http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd",
            "http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd,",
            "Come to 127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd! At nine.",
            "[the meeting](http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd) begins",
            "**http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd**",
            "__http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd__,",
            "<http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd|the meeting>",
            "<a href=\"http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd\">here</a>",
            "http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd—we start at nine",
            "会议：http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd，谢谢",
            "http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd에서 만나요",
            "ｈｔｔｐ：／／127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd",
            "> http://127.0.0.1:7340/s/7h3k-q2m9-\r\n> x4tz-p8wd\r\n> Ann",
            "http://127.0.0.1:7340/s=\n/7h3k-q2m9-x4tz-p=\n8wd",
            "quintet://127.0.0.1/s/7h3k-q2m9-x4tz-p8wd",
            "http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd/?from=mail#top",
            "https://www.google.com/url?q=http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd&sa=D",
            "https://eur01.safelinks.protection.outlook.com/?url=http%3A%2F%2F127.0.0.1%3A7340%2Fs\
             %2F7h3k-q2m9-x4tz-p8wd&data=05%7C01%7Cann%40example.com",
            "https://urldefense.com/v3/__http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd__;!!Ab!c$",
            "See https://hub.example/help, then http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd",
        ] {
            assert_eq!(read(text), format!("http://127.0.0.1:7340 {ID}"), "{text}");
        }
    }

    #[test]
    fn a_bare_id_is_found_in_every_form_of_pasted_text() {
        for text in [
            "7h3k-q2m9-x4tz-p8wd",
            " 7H3K-Q2M9-X4TZ-P8WD\n",
            "7H3k-q2m9-x4tz-p8wd",
            "7h3k–q2m9–x4tz–p8wd.",
            "(7h3k-q2m9-x4tz-p8wd)",
            "7h3k%2Dq2m9-x4tz-p8wd",
            "My id is 7h3k-q2m9-x4tz-p8wd, come!",
            "id:7h3k-q2m9-x4tz-p8wd",
            "The id is 7h3k-q2m9-\nx4tz-p8wd",
            "_7h3k-q2m9-x4tz-p8wd_",
            "my id: \u{200e}7h3k-q2m9-x4tz-p8wd\u{200f}",
        ] {
            assert_eq!(read(text), ID, "{text}");
        }
        for (text, id) in [
            ("town-hall.", "town-hall"),
            ("\"Town-Hall\"", "Town-Hall"),
            ("[town_hall_]", "town_hall_"),
            ("*town-hall*", "town-hall"),
            ("town–hall", "town-hall"),
            ("7h3k-q2m9-x4tz-p8wd-2", "7h3k-q2m9-x4tz-p8wd-2"),
            ("TEAM-OLLI-ROOM-FOUR", "TEAM-OLLI-ROOM-FOUR"),
        ] {
            assert_eq!(read(text), id, "{text}");
        }
    }

    #[test]
    fn an_id_of_five_groups_is_read_in_full_wherever_its_line_is_broken() {
        let id = SessionId::of_key(&Secret::from_random([7; 16])).to_string();
        assert_eq!(read(&id), id);
        let link = format!("http://127.0.0.1:7340/s/{id}");
        let whole = format!("http://127.0.0.1:7340 {id}");
        for at in 8..link.len() {
            let (one, other) = link.split_at(at);
            assert_eq!(read(&format!("Come:\n{one}=\n{other} now")), whole, "{at}");
        }
        for after in ["", " now", ", come", "."] {
            assert_eq!(read(&format!("Come to {link}{after}")), whole);
        }
        let broken = format!("Come to http://127.0.0.1:7340/s/{}-\n{}", &id[..19], &id[20..]);
        assert_eq!(read(&broken), whole);
        let older = "http://127.0.0.1:7340 7h3k-q2m9-x4tz-p8wd";
        for after in ["-\nSee you", "- see", "=\n", " then"] {
            let text = format!("http://127.0.0.1:7340/s/7h3k-q2m9-x4tz-p8wd{after}");
            assert_eq!(read(&text), older, "{after:?}");
        }
    }

    #[test]
    fn a_chosen_id_ends_where_the_sentence_continues() {
        for (text, link) in [
            ("http://h:1/s/Town-Hall", "http://h:1 Town-Hall"),
            ("Http://h:1/s/Town-Hall.", "http://h:1 Town-Hall"),
            ("HTTP://H:1/S/TOWN-HALL", "http://h:1 town-hall"),
            ("_http://h:1/s/town_hall_", "http://h:1 town_hall"),
            ("http://h:1/s/town_hall_", "http://h:1 town_hall_"),
            ("http://a:1/s/x,http://b:1/s/y", "http://a:1 x"),
            ("http://a:1/s/x/ http://b:1/s/y", "http://a:1 x"),
            ("http://h:1/s/town-hall\nThanks, Ann", "http://h:1 town-hall"),
            ("http://h:1/s/town-hall– see you", "http://h:1 town-hall"),
            ("http://[::1]:1/s/a]", "http://[::1]:1 a"),
            ("and/s/or, or a.b/s/c", "http://a.b:7340 c"),
            ("see hub.example/s/town-hall.", "http://hub.example:7340 town-hall"),
            ("localhost/s/x", "http://localhost:7340 x"),
            ("链接hub.example/s/x", "http://hub.example:7340 x"),
            ("https://my–hub.example/a/s/x", "https://my-hub.example:443/a x"),
        ] {
            assert_eq!(read(text), link, "{text}");
        }
    }

    #[test]
    fn a_text_that_cannot_be_an_id_is_rejected_with_a_sentence() {
        let no_target = "error: that is not a link or session id. Ids have no spaces";
        for text in ["", "???", "see you at nine", "town hall", "7h3k q2m9", "and/s/or what"] {
            assert_eq!(read(text), no_target, "{text}");
        }
        for (text, wrong) in [
            ("straße", "'ß'"),
            ("a/b", "'/'"),
            ("ann@example.com", "'@'"),
            ("-x", "not '-'"),
            ("http://h/s/straße", "'ß'"),
            ("http://h/s/a%20b", "' '"),
            ("http://h/s/%20", "' '"),
            ("http://h/s/a%2Fb", "'/'"),
            ("http://h/s/a/b", "'/'"),
            ("http://h/s/", "is needed"),
            ("see http://h/about", "ends in /s/ID"),
            ("http://h/?id=7h3k-q2m9-x4tz-p8wd", "ends in /s/ID"),
            ("ftp://h/s/a", "not ftp://"),
            ("http://u:p@h/s/a", "no user name"),
            ("http://", "is not an address"),
        ] {
            let read = read(text);
            assert!(read.starts_with("error: ") && read.contains(wrong), "{text}: {read}");
        }
    }

    #[test]
    fn a_chosen_id_that_would_be_misread_when_pasted_is_rejected() {
        for text in ["town-hall", "Town_Hall_2.b", "a-", "x", "7h3k-q2m9-x4tz-p8wd", "1.2.3.4"] {
            assert_eq!(parse_own_id(text).map(String::from), Ok(text.to_owned()));
        }
        for (text, read) in [("town-hall.", "town-hall"), ("7H3K-Q2M9-X4TZ-P8WD", ID)] {
            let error = parse_own_id(text).unwrap_err();
            assert_eq!(error, IdError::Misread { id: text.to_owned(), read: read.to_owned() });
        }
        assert_eq!(parse_own_id("a b"), Err(IdError::BadCharacter(' ')));
    }

    /// The text before and after a link.
    const AROUND: &[(&str, &str)] = &[
        ("", ""),
        ("Ann invites you: ", ""),
        ("", "."),
        ("", ", come!"),
        ("(", ")."),
        ("[", "]"),
        ("<", ">"),
        ("“", "”"),
        ("„", "“"),
        ("«\u{202f}", "\u{202f}»"),
        ("「", "」"),
        ("'", "'"),
        ("`", "`"),
        ("**", "**"),
        ("[Meeting](", ")"),
        ("\u{feff}", "\u{200b}"),
        ("\u{2066}", "\u{2069}"),
        ("> ", "\r\n> Ann"),
        ("https://www.google.com/url?q=", "&sa=D"),
        ("https://safelinks.example/?url=", ""),
        ("请点击", "，谢谢。"),
        ("…", "…"),
    ];

    /// The forms in which a dash arrives.
    const DASHES: &[&str] = &[
        "-", "\u{2010}", "\u{2011}", "\u{2013}", "\u{2014}", "\u{2212}", "\u{ff0d}", "%2D",
        "-\u{ad}",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn any_link_in_any_wrapping_means_the_same_session(
            random in any::<[u8; 10]>(),
            own in proptest::option::of("[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}[a-zA-Z0-9]"),
            hub in prop::sample::select(vec!["http://127.0.0.1:7340", "https://hub.example:443/a", "http://[::1]:9"]),
            (before, after) in prop::sample::select(AROUND),
            dash in prop::sample::select(DASHES),
            is_upper in any::<bool>(),
        ) {
            let id = match &own {
                Some(own) => parse_own_id(own),
                None if random[0] % 2 == 0 => Ok(SessionId::from_random(random)),
                None => Ok(SessionId::of_key(&Secret::from_random([random[0]; 16]))),
            };
            prop_assume!(id.is_ok());
            let id = id.unwrap();
            let link = hub.parse::<HubUrl>().unwrap().link(&id);
            let mut text = id.to_string().replace('-', dash);
            if is_upper && id.is_generated() {
                text = text.to_uppercase();
            }
            let pasted = format!("{before}{}/s/{text}{after}", link.hub);
            prop_assert_eq!(parse_target(&pasted), Ok((Some(link.hub), link.session)), "{}", pasted);
        }

        #[test]
        fn parsing_never_panics(
            text in "(http://|://|/s/|/S/|%[0-9a-f]{2}|-|–|[ -~]|\\PC){0,24}",
        ) {
            if let Ok((_, id)) = parse_target(&text) {
                prop_assert!(SessionId::parse(id.as_str()).is_ok());
            }
        }
    }
}
