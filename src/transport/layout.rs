//! Keeps rejected media sections from the library, which knows none.
//!
//! In a session description, a section that one end cannot do has port 0, and keeps its place for
//! as long as the connection lasts (RFC 3264, section 6; RFC 9429, section 5.3.1). The library
//! takes such a section for one that is in use: it compares its ICE credentials with the others',
//! which a browser does not make the same, and answers a section without a known codec with an
//! error. So it gets descriptions without them, and they are put back into those that it makes.

use super::sdp::{Description, Section, Setup};

/// The other end's description as the library gets it: only the sections that are taken.
pub(super) fn for_library(sdp: &str, description: &Description) -> String {
    let (session, sections) = parts(sdp);
    let is_taken = |mid: &str| {
        description.sections.iter().any(|section| section.mid == mid && section.is_taken)
    };
    let mut text: String = session
        .split_inclusive('\n')
        .map(|line| match line.trim_end().strip_prefix("a=group:BUNDLE") {
            Some(mids) => {
                let mids = mids.split_whitespace().filter(|mid| is_taken(mid));
                format!("a=group:BUNDLE {}\r\n", mids.collect::<Vec<_>>().join(" "))
            }
            None => line.to_owned(),
        })
        .collect();
    let mut moved = String::new();
    for (section, known) in sections.iter().zip(&description.sections) {
        if known.is_taken {
            text.push_str(section);
            let moved = std::mem::take(&mut moved);
            text.extend(moved.split_inclusive('\n').filter(|line| !has_attribute(section, line)));
        } else if !known.is_rejected && moved.is_empty() {
            let is_transport = |line: &&str| TRANSPORT.iter().any(|name| line.starts_with(name));
            moved = section.split_inclusive('\n').filter(is_transport).collect();
        }
    }
    text
}

/// What a section says of the transport that all share: the first one may say it for all (RFC
/// 8843, section 7.1.3), candidates last.
const TRANSPORT: [&str; 6] =
    ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=candidate:", "a=end-of-"];

/// Whether the section has an attribute of that name, as only candidates may be there twice.
fn has_attribute(section: &str, line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    name != "a=candidate"
        && section.lines().any(|known| known.split(':').next() == Some(name.trim_end()))
}

/// The library's description as the other end gets it: with the sections that were agreed on, each
/// at its place, and those rejected that are not taken. With an empty `order`, nothing was agreed on
/// yet, and the description is as it is.
pub(super) fn for_other_end(sdp: &str, order: &[Section]) -> String {
    let (session, sections) = parts(sdp);
    if order.is_empty() {
        return sdp.to_owned();
    }
    let mut text = session.to_owned();
    for section in order {
        let own = sections.iter().find(|own| section.is_taken && mid(own) == section.mid);
        match own {
            Some(own) => text.push_str(own),
            None => text.push_str(&rejected(section)),
        }
    }
    text
}

/// An answer that rejects every section.
pub(super) fn nothing(offer: &Description) -> String {
    let session = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".to_owned();
    offer.sections.iter().map(rejected).fold(session, |text, section| text + &section)
}

/// The description with another part in the DTLS handshake.
pub(super) fn with_setup(sdp: &str, setup: Setup) -> String {
    let value = match setup {
        Setup::Active => "active",
        Setup::Passive => "passive",
        Setup::ActPass => "actpass",
    };
    let replaced = |line: &str| {
        if line.starts_with("a=setup:") { format!("a=setup:{value}\r\n") } else { line.to_owned() }
    };
    sdp.split_inclusive('\n').map(replaced).collect()
}

/// The section with port 0, and nothing else but what tells which it is.
fn rejected(section: &Section) -> String {
    let mut words = section.head.split_whitespace();
    let (kind, _port) = (words.next().unwrap_or_default(), words.next());
    let rest: Vec<&str> = words.collect();
    let mid =
        if section.mid.is_empty() { String::new() } else { format!("a=mid:{}\r\n", section.mid) };
    format!("{kind} 0 {}\r\nc=IN IP4 0.0.0.0\r\n{mid}a=inactive\r\n", rest.join(" "))
}

/// The lines of the session, and those of each media section.
fn parts(sdp: &str) -> (&str, Vec<&str>) {
    let starts: Vec<usize> =
        sdp.match_indices("m=").map(|(at, _)| at).filter(|at| sdp[..*at].ends_with('\n')).collect();
    let session = &sdp[..starts.first().copied().unwrap_or(sdp.len())];
    let ends = starts.iter().skip(1).copied().chain([sdp.len()]);
    let sections = starts.iter().zip(ends).map(|(start, end)| &sdp[*start..end]);
    (session, sections.collect())
}

fn mid(section: &str) -> &str {
    let line = section.lines().find_map(|line| line.strip_prefix("a=mid:"));
    line.unwrap_or_default().trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Chromium 156 without H.264 answers to an offer of ours, shortened.
    const ANSWER: &str = include_str!("../../tests/transport/chromium-answer-without-video.sdp");

    fn m_lines(sdp: &str) -> Vec<&str> {
        sdp.lines().filter(|line| line.starts_with("m=")).collect()
    }

    #[test]
    fn the_library_does_not_see_what_is_rejected() {
        let answered = Description::read(ANSWER).unwrap();
        let seen = for_library(ANSWER, &answered);
        assert_eq!(m_lines(ANSWER).len(), 3);
        let kinds: Vec<&str> = m_lines(&seen).iter().map(|line| &line[..7]).collect();
        assert_eq!(kinds, ["m=audio", "m=appli"]);
        let credentials = |sdp: &str| {
            let lines = sdp.lines().filter(|line| line.starts_with("a=ice-ufrag:"));
            lines.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!((credentials(ANSWER), credentials(&seen)), (2, 1));
        assert_eq!(Description::read(&seen), Ok(answered.taken()));
    }

    #[test]
    fn what_the_library_has_not_is_rejected_at_its_place() {
        let mut order = Description::read(ANSWER).unwrap().sections;
        let seen = for_library(ANSWER, &Description::read(ANSWER).unwrap());
        let written = for_other_end(&seen, &order);
        let read = Description::read(&written).unwrap();
        assert_eq!(
            read.sections.iter().map(|section| section.is_taken).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert!(m_lines(&written)[1].starts_with("m=video 0 UDP/TLS/RTP/SAVPF "), "{written}");
        // What moves, moves back; what is new or was rejected once is not offered.
        order.reverse();
        order[2].is_taken = false;
        let moved = for_other_end(ANSWER, &order);
        let kinds: Vec<&str> = m_lines(&moved).iter().map(|line| &line[..9]).collect();
        assert_eq!(kinds, ["m=applica", "m=video 0", "m=audio 0"]);
        assert_eq!(for_other_end(ANSWER, &[]), ANSWER, "nothing was agreed on yet");
    }

    #[test]
    fn what_only_a_section_that_is_left_out_says_of_the_transport_is_kept() {
        let without = |name: &str| {
            let (session, sections) = parts(ANSWER);
            let bare = sections[2].split_inclusive('\n').filter(|line| !line.starts_with(name));
            let video = sections[1].replace("m=video 0", "m=video 9");
            let video =
                video.replace("muqT", "yFZd") + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
            format!("{session}{video}{}", bare.collect::<String>())
        };
        for name in ["a=ice-", "a=fingerprint", "a=setup", "a=none"] {
            let sdp = without(name);
            let description = Description::read(&sdp).unwrap();
            let seen = for_library(&sdp, &description);
            assert_eq!(m_lines(&seen).len(), 1);
            for line in ["a=ice-ufrag:yFZd", "a=ice-pwd:", "a=fingerprint:", "a=setup:active"] {
                assert_eq!(seen.matches(line).count(), 1, "{line} without {name}: {seen}");
            }
            assert_eq!(seen.matches("a=candidate:").count(), 1);
        }
    }

    #[test]
    fn an_answer_may_reject_everything() {
        let offered = Description::read(ANSWER).unwrap();
        let answer = Description::read(&nothing(&offered)).unwrap();
        assert_eq!((answer.first_taken(), answer.answers(&offered)), (None, Ok(())));
    }

    #[test]
    fn the_part_in_the_handshake_is_written_into_every_section() {
        let passive = with_setup(ANSWER, Setup::Passive);
        let count = |sdp: &str, line: &str| sdp.lines().filter(|known| *known == line).count();
        assert_eq!(count(&passive, "a=setup:passive"), count(ANSWER, "a=setup:active"));
        assert_eq!(passive.lines().count(), ANSWER.lines().count());
    }
}
