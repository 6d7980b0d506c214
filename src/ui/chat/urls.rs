//! Finds the URLs in a text.

use url::Url;

use crate::model::parse_target;

/// A part of a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Piece<'a> {
    /// Text without a URL.
    Text(&'a str),
    /// A URL with the scheme `http` or `https`, or a session link with the scheme `quintet`. No
    /// other scheme counts.
    Url(&'a str),
}

/// Splits a text into pieces with and without URLs. Joined together, the pieces are the text.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut remaining, mut from) = (vec![], text, 0);
    while let Some(start) = next_url(remaining, from) {
        let url = url_at(&remaining[start..]);
        if !is_url(url) {
            from = start + 1;
            continue;
        }
        if start > 0 {
            pieces.push(Piece::Text(&remaining[..start]));
        }
        pieces.push(Piece::Url(url));
        (remaining, from) = (&remaining[start + url.len()..], 0);
    }
    if !remaining.is_empty() {
        pieces.push(Piece::Text(remaining));
    }
    pieces
}

/// Where the next possible URL starts, not before `from`.
fn next_url(text: &str, from: usize) -> Option<usize> {
    let is_start = |(at, c): &(usize, char)| {
        let before = text[..*at].chars().next_back();
        let at_word = before.is_none_or(|before| !before.is_alphanumeric());
        let begins = |scheme: &str| {
            text.get(*at..*at + scheme.len()).is_some_and(|head| head.eq_ignore_ascii_case(scheme))
        };
        *at >= from
            && matches!(c, 'h' | 'H' | 'q' | 'Q')
            && at_word
            && ["http://", "https://", "quintet://"].into_iter().any(begins)
    };
    text.char_indices().find(is_start).map(|(at, _)| at)
}

/// The URL at the start of a text: up to a space or quotation mark, without the punctuation of the
/// sentence around it.
fn url_at(text: &str) -> &str {
    let quote = |c: char| {
        let typographic =
            matches!(c, '\u{2018}'..='\u{201f}' | '«' | '»' | '\u{2039}' | '\u{203a}');
        typographic || matches!(c, '"' | '`' | '\u{300c}'..='\u{300f}')
    };
    let ends = |c: char| c.is_whitespace() || quote(c) || matches!(c, '<' | '>' | '|' | '\\');
    let mut url = &text[..text.find(ends).unwrap_or(text.len())];
    while let Some(last) = url.chars().next_back() {
        let closes = match last {
            ')' => url.matches(')').count() > url.matches('(').count(),
            ']' => url.matches(']').count() > url.matches('[').count(),
            _ => matches!(
                last,
                '.' | ','
                    | ';'
                    | ':'
                    | '!'
                    | '?'
                    | '\''
                    | '}'
                    | '*'
                    | '_'
                    | '…'
                    | '。'
                    | '，'
                    | '、'
            ),
        };
        if !closes {
            break;
        }
        url = &url[..url.len() - last.len_utf8()];
    }
    url
}

fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| match url.scheme() {
        "http" | "https" => url.has_host(),
        "quintet" => parse_target(text).is_ok(),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn urls(text: &str) -> Vec<&str> {
        let found = pieces(text).into_iter().filter_map(|piece| match piece {
            Piece::Url(link) => Some(link),
            Piece::Text(_) => None,
        });
        found.collect()
    }

    #[test]
    fn a_url_ends_before_the_punctuation_of_its_sentence() {
        assert_eq!(
            pieces("see http://a.example/x?y=1#z, then"),
            [Piece::Text("see "), Piece::Url("http://a.example/x?y=1#z"), Piece::Text(", then")]
        );
        assert_eq!(urls("(https://a.example/b)"), ["https://a.example/b"]);
        assert_eq!(urls("https://a.example/b_(c)!"), ["https://a.example/b_(c)"]);
        assert_eq!(
            urls("HTTPS://A.example\nhttp://b.example."),
            ["HTTPS://A.example", "http://b.example"]
        );
        assert_eq!(
            urls("http://192.168.1.5:7340/s/7h3k-q2m9"),
            ["http://192.168.1.5:7340/s/7h3k-q2m9"]
        );
        assert_eq!(
            urls("„http://a.example/s/x“, or quintet://b/s/y…"),
            ["http://a.example/s/x", "quintet://b/s/y"]
        );
    }

    #[test]
    fn only_http_urls_with_a_host_are_recognized() {
        for text in [
            "javascript:alert(1)",
            "file:///etc/passwd",
            "http://",
            "https:// a.example",
            "xhttp://a.example",
            "mailto:a@b.example",
            "quintet://b.example/x",
            "a.example",
        ] {
            assert_eq!(urls(text), Vec::<&str>::new(), "{text}");
        }
        assert_eq!(urls("http://http://a.example"), ["http://http://a.example"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn the_pieces_of_any_text_join_to_the_text(text in "(http://|https://|[a-zä.() \n\"]){0,12}") {
            let whole: String = pieces(&text)
                .into_iter()
                .map(|piece| match piece {
                    Piece::Text(text) | Piece::Url(text) => text,
                })
                .collect();
            prop_assert_eq!(whole, text);
        }
    }
}
