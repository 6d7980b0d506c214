//! What is read in a session description before the library gets it (RFC 8866, RFC 9429).
//!
//! The library takes a description apart while it already changes its state; what is wrong is
//! better found before.

use crate::model::{Direction, MAX_SDP_BYTES};

/// Media sections that a description may have; a connection of ours has three.
const MAX_SECTIONS: usize = 64;

/// The longest `mid` that is taken, in bytes.
const MAX_MID_BYTES: usize = 32;

/// A description's media sections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Description {
    /// In their order.
    pub(super) sections: Vec<Section>,
    /// The certificate's fingerprint, in lower case (RFC 8122): it stays as long as the program.
    pub(super) fingerprint: String,
}

/// One media section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Section {
    /// What it carries.
    pub(super) kind: SectionKind,
    /// Its identification tag (RFC 8843).
    pub(super) mid: String,
    /// From its writer's point of view; a rejected section is inactive.
    pub(super) direction: Direction,
}

/// What a media section carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SectionKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
    /// Data channels.
    Application,
}

/// Why a description is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum SdpError {
    #[error("a description of {0} bytes is too long; at most {MAX_SDP_BYTES} are taken")]
    TooLong(usize),
    #[error("this is no session description: it does not begin with `v=0`")]
    NotSdp,
    #[error("the description has {0} media sections; between 1 and {MAX_SECTIONS} are taken")]
    SectionCount(usize),
    #[error("the media section `m={0}` is of no kind that is known here")]
    UnknownKind(String),
    #[error("media section {0} has no `a=mid`, or one that is too long or taken")]
    Mid(usize),
    #[error("media section {0} has no direction")]
    Direction(usize),
    #[error("the description has no `a=ice-ufrag` and `a=ice-pwd` of legal length")]
    IceCredentials,
    #[error("the description has no `a=fingerprint` with an algorithm and a value")]
    Fingerprint,
    #[error("the answer's media sections are not those of the offer")]
    NotTheOffer,
}

impl Description {
    /// Reads the sections and checks what the library needs to find.
    ///
    /// # Errors
    /// [`SdpError`] says what is wrong; no text makes it panic.
    pub(super) fn read(sdp: &str) -> Result<Self, SdpError> {
        if sdp.len() > MAX_SDP_BYTES {
            return Err(SdpError::TooLong(sdp.len()));
        }
        let lines: Vec<&str> = sdp.lines().map(str::trim_end).collect();
        if lines.first() != Some(&"v=0") {
            return Err(SdpError::NotSdp);
        }
        let starts: Vec<usize> =
            (0..lines.len()).filter(|line| lines[*line].starts_with("m=")).collect();
        if !(1..=MAX_SECTIONS).contains(&starts.len()) {
            return Err(SdpError::SectionCount(starts.len()));
        }
        let fingerprint = check_transport(&lines)?;
        let mut sections: Vec<Section> = vec![];
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(lines.len());
            let section = Section::read(index, &lines[*start..end])?;
            if sections.iter().any(|earlier| earlier.mid == section.mid) {
                return Err(SdpError::Mid(index));
            }
            sections.push(section);
        }
        Ok(Self { sections, fingerprint })
    }

    /// Whether this answers that offer: the same sections in the same order (RFC 3264, 6).
    ///
    /// # Errors
    /// [`SdpError::NotTheOffer`].
    pub(super) fn answers(&self, offer: &Self) -> Result<(), SdpError> {
        let same = self.sections.len() == offer.sections.len()
            && self.sections.iter().zip(&offer.sections).all(|(answered, offered)| {
                (answered.kind, &answered.mid) == (offered.kind, &offered.mid)
            });
        if same { Ok(()) } else { Err(SdpError::NotTheOffer) }
    }

    /// The first section of that kind.
    pub(super) fn section(&self, kind: SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }
}

impl Section {
    fn read(index: usize, lines: &[&str]) -> Result<Self, SdpError> {
        let mut words = lines[0]["m=".len()..].split_whitespace();
        let kind = match words.next().unwrap_or_default() {
            "audio" => SectionKind::Audio,
            "video" => SectionKind::Video,
            "application" => SectionKind::Application,
            other => return Err(SdpError::UnknownKind(other.chars().take(32).collect())),
        };
        let rejected = words.next() == Some("0");
        let mid = attribute(lines, "mid").unwrap_or_default();
        if mid.is_empty() || mid.len() > MAX_MID_BYTES {
            return Err(SdpError::Mid(index));
        }
        let direction = match lines.iter().find_map(|line| direction(line)) {
            _ if rejected => Direction::Inactive,
            Some(direction) => direction,
            None if kind == SectionKind::Application => Direction::SendRecv,
            None => return Err(SdpError::Direction(index)),
        };
        Ok(Self { kind, mid: mid.to_owned(), direction })
    }
}

/// The description without candidate lines: those of an ICE restart name closed sockets.
pub(super) fn without_candidates(sdp: &str) -> String {
    sdp.split_inclusive('\n')
        .filter(|line| {
            !line.starts_with("a=candidate:") && !line.starts_with("a=end-of-candidates")
        })
        .collect()
}

fn direction(line: &str) -> Option<Direction> {
    match line {
        "a=sendrecv" => Some(Direction::SendRecv),
        "a=sendonly" => Some(Direction::SendOnly),
        "a=recvonly" => Some(Direction::RecvOnly),
        "a=inactive" => Some(Direction::Inactive),
        _ => None,
    }
}

/// ICE credentials (RFC 8839, section 5.4) and a fingerprint (RFC 8122), anywhere.
fn check_transport(lines: &[&str]) -> Result<String, SdpError> {
    let ufrag = attribute(lines, "ice-ufrag").unwrap_or_default();
    let password = attribute(lines, "ice-pwd").unwrap_or_default();
    if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&password.len()) {
        return Err(SdpError::IceCredentials);
    }
    let fingerprint = attribute(lines, "fingerprint").unwrap_or_default();
    match fingerprint.split_once(' ') {
        Some((algorithm, value)) if !algorithm.is_empty() && !value.trim().is_empty() => {
            Ok(fingerprint.to_ascii_lowercase())
        }
        Some(_) | None => Err(SdpError::Fingerprint),
    }
}

fn attribute<'a>(lines: &[&'a str], name: &str) -> Option<&'a str> {
    lines.iter().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
        a=fingerprint:sha-256 AA:BB\r\na=group:BUNDLE 0 1 2\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n\
        a=mid:0\r\na=sendonly\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
        m=video 0 UDP/TLS/RTP/SAVPF 102\r\na=mid:1\r\n\
        m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\na=sctp-port:5000\r\n";

    #[test]
    fn sections_are_read_in_order_with_mid_and_direction() {
        let sections: Vec<_> = Description::read(SDP)
            .unwrap()
            .sections
            .into_iter()
            .map(|section| (section.kind, section.mid, section.direction))
            .collect();
        assert_eq!(
            sections,
            [
                (SectionKind::Audio, "0".to_owned(), Direction::SendOnly),
                (SectionKind::Video, "1".to_owned(), Direction::Inactive),
                (SectionKind::Application, "2".to_owned(), Direction::SendRecv),
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let read = |from: &str, to: &str| Description::read(&SDP.replace(from, to)).unwrap_err();
        assert_eq!(read("v=0", "hello"), SdpError::NotSdp);
        assert_eq!(read("m=", "x="), SdpError::SectionCount(0));
        assert_eq!(read("m=video", "m=smell"), SdpError::UnknownKind("smell".into()));
        assert_eq!(read("a=mid:1", "a=mid:0"), SdpError::Mid(1));
        assert_eq!(read("a=mid:0\r\n", ""), SdpError::Mid(0));
        assert_eq!(read("a=sendonly", "a=sometimes"), SdpError::Direction(0));
        assert_eq!(read("abcd", "abc"), SdpError::IceCredentials);
        assert_eq!(read("sha-256 AA:BB", "sha-256"), SdpError::Fingerprint);
        assert!(matches!(read("s=-", &"x".repeat(MAX_SDP_BYTES)), SdpError::TooLong(_)));
        let many = format!("{SDP}{}", "m=video 9 x 1\r\n".repeat(MAX_SECTIONS));
        assert_eq!(Description::read(&many), Err(SdpError::SectionCount(MAX_SECTIONS + 3)));
    }

    #[test]
    fn an_answer_has_the_sections_of_its_offer() {
        let offer = Description::read(SDP).unwrap();
        let answer = Description::read(&SDP.replace("sendonly", "recvonly")).unwrap();
        assert_eq!(answer.answers(&offer), Ok(()));
        let other = Description::read(&SDP.replace("mid:2", "mid:3")).unwrap();
        assert_eq!(other.answers(&offer), Err(SdpError::NotTheOffer));
    }

    #[test]
    fn candidates_are_taken_out_and_nothing_else() {
        let stripped = without_candidates(SDP);
        assert_eq!(SDP.lines().count(), stripped.lines().count() + 1);
        assert_eq!(Description::read(&stripped), Description::read(SDP));
    }
}
