//! Hides rejected media sections from webrtc-rs, which does not support them.
//!
//! In a session description, a media section that one end does not support has port 0, and keeps
//! its position for the life of the connection (RFC 3264, section 6; RFC 9429, section 5.3.1).
//! webrtc-rs takes such a section for an active one: it compares its ICE credentials with those of
//! the others, which a browser does not make the same. So webrtc-rs gets descriptions without
//! rejected sections, and they are put back into the descriptions that it makes.
//!
//! The fault: `rtc` 0.21.1 refuses a description whose rejected section has an `a=ice-ufrag` of its
//! own ("multiple conflicting ice-ufrag values"); it should skip sections with port 0. No issue is
//! known. Answers reject sections without a known codec since webrtc-rs/rtc#66. Canary: yes.

use super::sdp::{Description, DtlsSetup, MediaSection};

/// The remote description as webrtc-rs gets it, with accepted sections only.
pub(super) fn without_rejected(sdp: &str, description: &Description) -> String {
    let (session, sections) = split_sections(sdp);
    let is_accepted = |mid: &str| {
        description.sections.iter().any(|section| section.mid == mid && section.is_accepted)
    };
    let mut text: String = session
        .split_inclusive('\n')
        .map(|line| match line.trim_end().strip_prefix("a=group:BUNDLE") {
            Some(mids) => {
                let mids = mids.split_whitespace().filter(|mid| is_accepted(mid));
                format!("a=group:BUNDLE {}\r\n", mids.collect::<Vec<_>>().join(" "))
            }
            None => line.to_owned(),
        })
        .collect();
    let mut moved = String::new();
    for (section, known) in sections.iter().zip(&description.sections) {
        if known.is_accepted {
            text.push_str(section);
            let moved = std::mem::take(&mut moved);
            text.extend(moved.split_inclusive('\n').filter(|line| !has_attribute(section, line)));
        } else if !known.is_rejected && moved.is_empty() {
            let is_transport =
                |line: &&str| TRANSPORT_ATTRIBUTES.iter().any(|name| line.starts_with(name));
            moved = section.split_inclusive('\n').filter(is_transport).collect();
        }
    }
    text
}

/// The attributes of the shared transport. The first section may carry them for all (RFC 8843,
/// section 7.1.3). Candidates are last.
const TRANSPORT_ATTRIBUTES: [&str; 6] =
    ["a=ice-ufrag:", "a=ice-pwd:", "a=fingerprint:", "a=setup:", "a=candidate:", "a=end-of-"];

/// Whether the section has an attribute of that name; candidates do not count, because only they
/// may occur more than once.
fn has_attribute(section: &str, line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default();
    name != "a=candidate"
        && section.lines().any(|known| known.split(':').next() == Some(name.trim_end()))
}

/// The description of webrtc-rs as the remote peer gets it: with all negotiated sections of
/// `order`, each at its position, and with port 0 where a section is not accepted. With an empty
/// `order`, nothing is negotiated yet, and the description is unchanged.
pub(super) fn with_rejected(sdp: &str, order: &[MediaSection]) -> String {
    let (session, sections) = split_sections(sdp);
    if order.is_empty() {
        return sdp.to_owned();
    }
    let mut text = session.to_owned();
    for section in order {
        let own = sections.iter().find(|own| section.is_accepted && mid(own) == section.mid);
        match own {
            Some(own) => text.push_str(own),
            None => text.push_str(&rejected_section(section)),
        }
    }
    text
}

/// An answer that rejects every section.
pub(super) fn reject_all(offer: &Description) -> String {
    let session = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n".to_owned();
    offer.sections.iter().map(rejected_section).fold(session, |text, section| text + &section)
}

/// The description with that `setup` attribute in every section.
pub(super) fn with_setup(sdp: &str, setup: DtlsSetup) -> String {
    let value = match setup {
        DtlsSetup::Active => "active",
        DtlsSetup::Passive => "passive",
        DtlsSetup::ActPass => "actpass",
    };
    let replaced = |line: &str| {
        if line.starts_with("a=setup:") { format!("a=setup:{value}\r\n") } else { line.to_owned() }
    };
    sdp.split_inclusive('\n').map(replaced).collect()
}

/// The section with port 0, reduced to what identifies it.
fn rejected_section(section: &MediaSection) -> String {
    let mut fields = section.m_line.split_whitespace();
    let (kind, _port) = (fields.next().unwrap_or_default(), fields.next());
    let protocol_and_formats: Vec<&str> = fields.collect();
    let mid =
        if section.mid.is_empty() { String::new() } else { format!("a=mid:{}\r\n", section.mid) };
    format!(
        "{kind} 0 {}\r\nc=IN IP4 0.0.0.0\r\n{mid}a=inactive\r\n",
        protocol_and_formats.join(" ")
    )
}

/// Splits a description into its session part and its media sections.
fn split_sections(sdp: &str) -> (&str, Vec<&str>) {
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

    /// The answer of Chromium 156 without H.264 to our offer, shortened.
    const ANSWER: &str =
        include_str!("../../../tests/integration/transport/chromium-answer-without-video.sdp");

    fn m_lines(sdp: &str) -> Vec<&str> {
        sdp.lines().filter(|line| line.starts_with("m=")).collect()
    }

    #[test]
    fn webrtc_rs_does_not_get_rejected_sections() {
        let answer = Description::read(ANSWER).unwrap();
        let without = without_rejected(ANSWER, &answer);
        assert_eq!(m_lines(ANSWER).len(), 3);
        let kinds: Vec<&str> = m_lines(&without).iter().map(|line| &line[..7]).collect();
        assert_eq!(kinds, ["m=audio", "m=appli"]);
        let credentials = |sdp: &str| {
            let lines = sdp.lines().filter(|line| line.starts_with("a=ice-ufrag:"));
            lines.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!((credentials(ANSWER), credentials(&without)), (2, 1));
        assert_eq!(Description::read(&without), Ok(answer.accepted()));
    }

    #[test]
    fn sections_that_webrtc_rs_does_not_have_are_rejected_at_their_positions() {
        let mut order = Description::read(ANSWER).unwrap().sections;
        let without = without_rejected(ANSWER, &Description::read(ANSWER).unwrap());
        let with = with_rejected(&without, &order);
        let read = Description::read(&with).unwrap();
        assert_eq!(
            read.sections.iter().map(|section| section.is_accepted).collect::<Vec<_>>(),
            [true, false, true]
        );
        assert!(m_lines(&with)[1].starts_with("m=video 0 UDP/TLS/RTP/SAVPF "), "{with}");
        // Sections follow `order`; a section that was rejected once is not offered again.
        order.reverse();
        order[2].is_accepted = false;
        let reordered = with_rejected(ANSWER, &order);
        let kinds: Vec<&str> = m_lines(&reordered).iter().map(|line| &line[..9]).collect();
        assert_eq!(kinds, ["m=applica", "m=video 0", "m=audio 0"]);
        assert_eq!(with_rejected(ANSWER, &[]), ANSWER, "nothing is negotiated yet");
    }

    #[test]
    fn transport_attributes_that_only_a_removed_section_has_are_kept() {
        let without = |name: &str| {
            let (session, sections) = split_sections(ANSWER);
            let bare = sections[2].split_inclusive('\n').filter(|line| !line.starts_with(name));
            let video = sections[1].replace("m=video 0", "m=video 9");
            let video =
                video.replace("muqT", "yFZd") + "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
            format!("{session}{video}{}", bare.collect::<String>())
        };
        for name in ["a=ice-", "a=fingerprint", "a=setup", "a=none"] {
            let sdp = without(name);
            let description = Description::read(&sdp).unwrap();
            let remaining = without_rejected(&sdp, &description);
            assert_eq!(m_lines(&remaining).len(), 1);
            for line in ["a=ice-ufrag:yFZd", "a=ice-pwd:", "a=fingerprint:", "a=setup:active"] {
                assert_eq!(
                    remaining.matches(line).count(),
                    1,
                    "{line} without {name}: {remaining}"
                );
            }
            assert_eq!(remaining.matches("a=candidate:").count(), 1);
        }
    }

    #[test]
    fn an_answer_may_reject_all_sections() {
        let offer = Description::read(ANSWER).unwrap();
        let answer = Description::read(&reject_all(&offer)).unwrap();
        assert_eq!((answer.first_accepted(), answer.check_answers(&offer)), (None, Ok(())));
    }

    #[test]
    fn the_setup_attribute_is_written_into_every_section() {
        let passive = with_setup(ANSWER, DtlsSetup::Passive);
        let count = |sdp: &str, line: &str| sdp.lines().filter(|known| *known == line).count();
        assert_eq!(count(&passive, "a=setup:passive"), count(ANSWER, "a=setup:active"));
        assert_eq!(passive.lines().count(), ANSWER.lines().count());
    }
}
