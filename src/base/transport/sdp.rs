//! Parses and checks session descriptions before webrtc-rs gets them (RFC 8866, RFC 9429).
//!
//! webrtc-rs changes its state while it parses a description, so errors have to be found before. It
//! does not support rejected sections either: `rejected_sections.rs` hides them from it.

use std::collections::BTreeSet;

use crate::model::{Direction, MAX_SDP_BYTES, Media, Source};

/// Media sections that a description may have; connections of this program have three.
const MAX_SECTIONS: usize = 64;

/// The longest `mid` that is accepted, in bytes.
const MAX_MID_BYTES: usize = 32;

/// The parsed parts of a session description.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Description {
    /// The media sections in their order.
    pub(super) sections: Vec<MediaSection>,
    /// The fingerprints of the certificate, which does not change while the remote program runs.
    /// `None` if no section is accepted, because then there is no transport either.
    pub(super) fingerprints: Option<Fingerprints>,
    /// The sender's DTLS role, if the description states it.
    pub(super) setup: Option<DtlsSetup>,
    /// Whether the sender is an ICE lite agent, which only answers checks (RFC 8445, section 2.5).
    pub(super) is_ice_lite: bool,
}

/// One media section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct MediaSection {
    /// What it carries.
    pub(super) kind: SectionKind,
    /// Its identification tag (RFC 8843); empty if a rejected section has none.
    pub(super) mid: String,
    /// Its direction from the sender's point of view; a rejected section is inactive.
    pub(super) direction: Direction,
    /// Whether the sender rejects it.
    pub(super) is_rejected: bool,
    /// Whether both ends support it: the sender does not reject it, and it has a format that this
    /// program supports.
    pub(super) is_accepted: bool,
    /// Its first line, beginning with `m=`.
    pub(super) m_line: String,
}

/// What a media section carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SectionKind {
    /// Audio.
    Audio,
    /// Video.
    Video,
    /// Data channels.
    Application,
}

/// Which end begins the DTLS handshake: the `setup` attribute (RFC 8842, section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DtlsSetup {
    /// The sender of the description.
    Active,
    /// The receiver of the description.
    Passive,
    /// The answerer decides.
    ActPass,
}

/// The fingerprints that the remote certificate may have, by one supported hash (RFC 8122, section
/// 5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fingerprints {
    /// The hash.
    pub(super) hash: FingerprintHash,
    /// One or more sorted values, one of which is the certificate's, in lower case with colons.
    pub(super) values: BTreeSet<String>,
}

/// A hash of certificates, the preferred one first: every browser supports it (RFC 8827, section
/// 6.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum FingerprintHash {
    Sha256,
    Sha512,
    Sha384,
}

/// Why a description is rejected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum SdpError {
    #[error("a description of {0} bytes is too long; at most {MAX_SDP_BYTES} are accepted")]
    TooLong(usize),
    #[error("this is not a session description: it does not begin with `v=0`")]
    NotSdp,
    #[error("the description has {0} media sections; between 1 and {MAX_SECTIONS} are accepted")]
    SectionCount(usize),
    #[error("the media section `m={0}` is of an unknown kind")]
    UnknownKind(String),
    #[error("media section {0} has no `a=mid`, or one that is too long or not unique")]
    Mid(usize),
    #[error("media section {0} has no direction")]
    Direction(usize),
    #[error("the description has no `a=ice-ufrag` and `a=ice-pwd` of legal length")]
    IceCredentials,
    #[error("the description has no `a=fingerprint` of sha-256, sha-384 or sha-512 with a value")]
    Fingerprint,
    #[error("the answer's media sections do not match the offer's")]
    SectionMismatch,
}

impl Description {
    /// Parses a description, and checks everything that webrtc-rs requires in it.
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
        let session = &lines[..starts[0]];
        let mut sections: Vec<MediaSection> = vec![];
        // The lines that may hold transport attributes. Those of rejected sections do not count.
        let mut transport = session.to_vec();
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).copied().unwrap_or(lines.len());
            let section = MediaSection::read(index, &lines[*start..end])?;
            let has_same_mid = |earlier: &MediaSection| earlier.mid == section.mid;
            if !section.mid.is_empty() && sections.iter().any(has_same_mid) {
                return Err(SdpError::Mid(index));
            }
            if !section.is_rejected {
                transport.extend(&lines[*start..end]);
            }
            sections.push(section);
        }
        let is_any_accepted = sections.iter().any(|section| section.is_accepted);
        let fingerprints = is_any_accepted.then(|| read_transport(&transport)).transpose()?;
        let setup = attribute(&transport, "setup").and_then(DtlsSetup::read);
        let is_ice_lite = session.contains(&"a=ice-lite");
        Ok(Self { sections, fingerprints, setup, is_ice_lite })
    }

    /// Checks that this is an answer to that offer, with the same sections in the same order (RFC
    /// 3264, section 6).
    ///
    /// # Errors
    /// [`SdpError::SectionMismatch`].
    pub(super) fn check_answers(&self, offer: &Self) -> Result<(), SdpError> {
        let matches = self.sections.len() == offer.sections.len()
            && self.sections.iter().zip(&offer.sections).all(|(answered, offered)| {
                let has_same_mid = answered.mid == offered.mid || answered.mid.is_empty();
                answered.kind == offered.kind && has_same_mid
            });
        if matches { Ok(()) } else { Err(SdpError::SectionMismatch) }
    }

    /// The description with its accepted sections only.
    pub(super) fn accepted(&self) -> Self {
        let sections = self.sections.iter().filter(|section| section.is_accepted).cloned();
        Self { sections: sections.collect(), ..self.clone() }
    }

    /// Marks the sections that the answer rejects as not accepted.
    pub(super) fn apply_rejections(&mut self, answer: &Self) {
        for (section, answered) in self.sections.iter_mut().zip(&answer.sections) {
            section.is_accepted &= answered.is_accepted;
        }
    }

    /// The first accepted section of that kind.
    pub(super) fn accepted_section(&self, kind: SectionKind) -> Option<&MediaSection> {
        self.accepted_sections(kind).next()
    }

    /// The accepted section that carries a source: of those of its medium, the one at its position.
    pub(super) fn section_of(&self, source: Source) -> Option<&MediaSection> {
        self.accepted_sections(SectionKind::of(source.media())).nth(source.section_index())
    }

    fn accepted_sections(&self, kind: SectionKind) -> impl Iterator<Item = &MediaSection> {
        self.sections.iter().filter(move |section| section.kind == kind && section.is_accepted)
    }

    /// The index of the first accepted section: candidates are for this one (RFC 8843, section 7).
    pub(super) fn first_accepted(&self) -> Option<usize> {
        self.sections.iter().position(|section| section.is_accepted)
    }
}

impl MediaSection {
    fn read(index: usize, lines: &[&str]) -> Result<Self, SdpError> {
        let head = lines[0];
        let mut fields = head["m=".len()..].split_whitespace();
        let kind = match fields.next().unwrap_or_default() {
            "audio" => SectionKind::Audio,
            "video" => SectionKind::Video,
            "application" => SectionKind::Application,
            other => return Err(SdpError::UnknownKind(other.chars().take(32).collect())),
        };
        // In an offer, port 0 may also mean that the section has no transport of its own (RFC 8843,
        // section 6).
        let is_rejected = fields.next() == Some("0") && !lines.contains(&"a=bundle-only");
        let mid = attribute(lines, "mid").unwrap_or_default();
        if (mid.is_empty() && !is_rejected) || mid.len() > MAX_MID_BYTES {
            return Err(SdpError::Mid(index));
        }
        let direction = match lines.iter().find_map(|line| direction(line)) {
            _ if is_rejected => Direction::Inactive,
            Some(direction) => direction,
            None if kind == SectionKind::Application => Direction::SendRecv,
            None => return Err(SdpError::Direction(index)),
        };
        let is_taken = !is_rejected && kind.has_format(lines);
        let (mid, head) = (mid.to_owned(), head.to_owned());
        Ok(Self { kind, mid, direction, is_rejected, is_accepted: is_taken, m_line: head })
    }
}

impl SectionKind {
    /// Whether the section has a format that this program supports: Opus (RFC 7587), H.264 of the
    /// baseline profiles in packetization mode 1 (RFC 6184, section 8.1), or a data channel (RFC
    /// 8841).
    fn has_format(self, lines: &[&str]) -> bool {
        let formats = || lines[0].split_whitespace().skip(3);
        let has = |format: &str, name: &str, wanted: &str| {
            attributes(lines, name).any(|value| {
                value.split_once(' ').is_some_and(|(payload_type, value)| {
                    payload_type == format && value.trim().eq_ignore_ascii_case(wanted)
                })
            })
        };
        match self {
            Self::Audio => formats().any(|format| has(format, "rtpmap", "opus/48000/2")),
            Self::Video => formats().any(|format| {
                let parameters = attributes(lines, "fmtp")
                    .filter_map(|value| value.split_once(' '))
                    .find_map(|(payload_type, value)| (payload_type == format).then_some(value));
                has(format, "rtpmap", "H264/90000")
                    && is_supported_h264(parameters.unwrap_or_default())
            }),
            Self::Application => formats().eq(["webrtc-datachannel"]),
        }
    }
}

/// Whether this program can send and receive H.264 with these parameters. The default profile is
/// baseline. The default packetization mode is 0, which cannot carry our frames (RFC 6184, section
/// 8.1).
fn is_supported_h264(parameters: &str) -> bool {
    let value = |name: &str| {
        parameters.split(';').find_map(|parameter| {
            let (key, value) = parameter.trim().split_once('=')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    value("packetization-mode") == Some("1")
        && value("profile-level-id").is_none_or(|profile| profile.starts_with("42"))
}

impl SectionKind {
    /// The kind of the sections that carry a medium.
    pub(super) const fn of(media: Media) -> Self {
        match media {
            Media::Audio => Self::Audio,
            Media::Video => Self::Video,
            Media::Data => Self::Application,
        }
    }
}

impl DtlsSetup {
    fn read(value: &str) -> Option<Self> {
        match value {
            "active" => Some(Self::Active),
            "passive" => Some(Self::Passive),
            "actpass" => Some(Self::ActPass),
            _ => None,
        }
    }
}

/// The description in the form that webrtc-rs reads: it skips carriage returns at the beginning of
/// a line, and white space around a value. Without this, a search for lines in the text would find
/// other lines than webrtc-rs does.
///
/// The fault: `rtc-sdp` 0.21.1 accepts `a= candidate:`, for which RFC 8866, section 5, has no rule;
/// it should refuse the line or ignore the attribute. No issue is known. Canary: yes.
pub(super) fn normalize(sdp: &str) -> String {
    let mut text = String::with_capacity(sdp.len());
    for line in sdp.split('\n') {
        let line = line.trim_start_matches('\r').trim_end();
        match line.split_once('=') {
            Some((kind, value)) => text.extend([kind, "=", value.trim_start(), "\r\n"]),
            None if line.is_empty() => {}
            None => text.extend([line, "\r\n"]),
        }
    }
    text
}

/// The candidate lines of a description, without `a=`.
pub(super) fn candidates(sdp: &str) -> impl Iterator<Item = &str> {
    let lines = sdp.lines().map(str::trim_end);
    lines.filter_map(|line| line.strip_prefix("a=").filter(|line| line.starts_with("candidate:")))
}

/// The SSRCs that a description announces (RFC 5576, section 4.1).
pub(super) fn ssrcs(sdp: &str) -> impl Iterator<Item = u32> {
    let values = sdp.lines().filter_map(|line| line.strip_prefix("a=ssrc:"));
    values.filter_map(|value| value.split_ascii_whitespace().next()?.parse().ok())
}

/// The username fragments of all ICE credentials (RFC 8839, section 5.4).
pub(super) fn ufrags(sdp: &str) -> Vec<String> {
    let lines: Vec<&str> = sdp.lines().map(str::trim_end).collect();
    attributes(&lines, "ice-ufrag").map(ToOwned::to_owned).collect()
}

/// The description without candidate lines. Those of a local ICE restart name closed sockets, and
/// remote ones are added one by one.
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

/// Checks the ICE credentials (RFC 8839, section 5.4), and reads the fingerprints (RFC 8122).
fn read_transport(lines: &[&str]) -> Result<Fingerprints, SdpError> {
    let ufrag = attribute(lines, "ice-ufrag").unwrap_or_default();
    let password = attribute(lines, "ice-pwd").unwrap_or_default();
    if !(4..=256).contains(&ufrag.len()) || !(22..=256).contains(&password.len()) {
        return Err(SdpError::IceCredentials);
    }
    Fingerprints::read(lines).ok_or(SdpError::Fingerprint)
}

impl Fingerprints {
    /// The fingerprints of the most preferred hash that is present.
    fn read(lines: &[&str]) -> Option<Self> {
        let read = |value: &str| {
            let (hash, value) = value.split_once(' ')?;
            let value = value.trim().to_ascii_lowercase();
            Some((FingerprintHash::read(hash)?, value)).filter(|(_, value)| !value.is_empty())
        };
        let known: Vec<_> = attributes(lines, "fingerprint").filter_map(read).collect();
        let hash = known.iter().map(|(hash, _)| *hash).min()?;
        let values = known.into_iter().filter(|known| known.0 == hash).map(|known| known.1);
        Some(Self { hash, values: values.collect() })
    }
}

impl FingerprintHash {
    fn read(name: &str) -> Option<Self> {
        let known =
            [("sha-256", Self::Sha256), ("sha-384", Self::Sha384), ("sha-512", Self::Sha512)];
        known.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|known| known.1)
    }
}

/// The description with that sha-256 fingerprint for all sections, and no other fingerprint.
pub(super) fn with_fingerprint(sdp: &str, value: &str) -> String {
    let mut text = String::with_capacity(sdp.len() + value.len());
    let mut is_written = false;
    for line in sdp.split_inclusive('\n').filter(|line| !line.starts_with("a=fingerprint:")) {
        if line.starts_with("m=") && !is_written {
            text.extend(["a=fingerprint:sha-256 ", value, "\r\n"]);
            is_written = true;
        }
        text.push_str(line);
    }
    text
}

fn attribute<'a>(lines: &[&'a str], name: &str) -> Option<&'a str> {
    attributes(lines, name).next()
}

fn attributes<'a>(lines: &[&'a str], name: &str) -> impl Iterator<Item = &'a str> {
    lines
        .iter()
        .filter_map(move |line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n\
        a=fingerprint:sha-256 AA:BB\r\na=group:BUNDLE 0 1 2\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=rtpmap:111 opus/48000/2\r\n\
        a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=setup:active\r\na=mid:0\r\na=sendonly\r\na=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n\
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
    fn transport_attributes_of_a_rejected_section_do_not_count() {
        let rejected = "m=video 0 UDP/TLS/RTP/SAVPF 102\r\na=ice-ufrag:other\r\na=setup:passive\r\n\
            a=ice-pwd:9876543210987654321098\r\na=fingerprint:sha-256 CC:DD\r\na=mid:9\r\n";
        let first = SDP.replacen("m=audio", &format!("{rejected}m=audio"), 1);
        let description = Description::read(&first).unwrap();
        let fingerprints = description.fingerprints.as_ref().unwrap();
        assert_eq!(fingerprints.values, ["aa:bb".to_owned()].into());
        assert_eq!(
            (description.setup, description.first_accepted()),
            (Some(DtlsSetup::Active), Some(1))
        );
        // They do not make up for missing ones either.
        let bare = first.replace("a=ice-ufrag:abcd\r\n", "");
        assert_eq!(Description::read(&bare), Err(SdpError::IceCredentials));
    }

    #[test]
    fn a_description_without_accepted_sections_needs_no_transport() {
        let nothing = "v=0\r\nm=audio 0 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\na=inactive\r\n\
            m=video 0 UDP/TLS/RTP/SAVPF 96\r\n";
        let description = Description::read(nothing).unwrap();
        assert_eq!((description.first_accepted(), description.fingerprints), (None, None));
    }

    #[test]
    fn a_section_is_accepted_if_it_has_a_supported_format() {
        let is_accepted = |kind: SectionKind, from: &str, to: &str| {
            let sdp = SDP.replace("m=video 0", "m=video 9").replace(
                "a=mid:1\r\n",
                "a=mid:1\r\na=sendrecv\r\na=rtpmap:102 H264/90000\r\n\
                a=fmtp:102 profile-level-id=42e01f; Packetization-Mode=1\r\n",
            );
            assert!(sdp.contains(from), "{from}");
            Description::read(&sdp.replace(from, to)).unwrap().accepted_section(kind).is_some()
        };
        let (audio, video, data) =
            (SectionKind::Audio, SectionKind::Video, SectionKind::Application);
        for kind in [audio, video, data] {
            assert!(is_accepted(kind, "s=-", "s=-"));
        }
        assert!(is_accepted(audio, "opus", "OPUS"));
        assert!(!is_accepted(audio, "opus/48000/2", "PCMU/8000"));
        assert!(is_accepted(video, "H264", "h264"));
        assert!(is_accepted(video, "profile-level-id=42e01f; ", ""), "the default is baseline");
        for (from, to) in [
            ("H264", "VP8"),
            ("42e01f", "640c1f"),
            ("Packetization-Mode=1", "packetization-mode=0"),
            ("; Packetization-Mode=1", ""),
            ("a=fmtp:102", "a=fmtp:103"),
            ("m=video 9", "m=video 0"),
        ] {
            assert!(!is_accepted(video, from, to), "{to}");
        }
        assert!(!is_accepted(data, "webrtc-datachannel", "bfcp"));
    }

    #[test]
    fn a_section_without_a_transport_of_its_own_is_not_rejected() {
        let alone = SDP.replace(
            "m=video 0 UDP/TLS/RTP/SAVPF 102\r\n",
            "m=video 0 UDP/TLS/RTP/SAVPF 102\r\na=bundle-only\r\na=sendonly\r\n\
            a=rtpmap:102 H264/90000\r\na=fmtp:102 packetization-mode=1\r\n",
        );
        let section =
            Description::read(&alone).unwrap().accepted_section(SectionKind::Video).cloned();
        assert_eq!(section.map(|section| section.direction), Some(Direction::SendOnly));
    }

    #[test]
    fn an_error_names_what_is_wrong() {
        let error = |from: &str, to: &str| Description::read(&SDP.replace(from, to)).unwrap_err();
        assert_eq!(error("v=0", "hello"), SdpError::NotSdp);
        assert_eq!(error("m=", "x="), SdpError::SectionCount(0));
        assert_eq!(error("m=video", "m=smell"), SdpError::UnknownKind("smell".into()));
        assert_eq!(error("a=mid:1", "a=mid:0"), SdpError::Mid(1));
        assert_eq!(error("a=mid:0\r\n", ""), SdpError::Mid(0));
        assert_eq!(error("a=sendonly", "a=sometimes"), SdpError::Direction(0));
        assert_eq!(error("abcd", "abc"), SdpError::IceCredentials);
        assert_eq!(error("sha-256 AA:BB", "sha-256"), SdpError::Fingerprint);
        assert!(matches!(error("s=-", &"x".repeat(MAX_SDP_BYTES)), SdpError::TooLong(_)));
        let many = format!("{SDP}{}", "m=video 9 x 1\r\n".repeat(MAX_SECTIONS));
        assert_eq!(Description::read(&many), Err(SdpError::SectionCount(MAX_SECTIONS + 3)));
    }

    #[test]
    fn an_answer_has_the_sections_of_its_offer() {
        let offer = Description::read(SDP).unwrap();
        let answer = Description::read(&SDP.replace("sendonly", "recvonly")).unwrap();
        assert_eq!(answer.check_answers(&offer), Ok(()));
        let other = Description::read(&SDP.replace("mid:2", "mid:3")).unwrap();
        assert_eq!(other.check_answers(&offer), Err(SdpError::SectionMismatch));
    }

    #[test]
    fn candidates_are_removed_and_nothing_else() {
        let stripped = without_candidates(SDP);
        assert_eq!(SDP.lines().count(), stripped.lines().count() + 1);
        assert_eq!(Description::read(&stripped), Description::read(SDP));
    }

    #[test]
    fn of_several_fingerprints_those_of_the_preferred_hash_are_used() {
        let read = |lines: &[&str]| {
            let lines: String =
                lines.iter().map(|line| format!("a=fingerprint:{line}\r\n")).collect();
            let sdp = SDP.replace("a=fingerprint:sha-256 AA:BB\r\n", &lines);
            Description::read(&sdp).map(|description| description.fingerprints.unwrap())
        };
        let of = |hash, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            Ok(Fingerprints { hash, values })
        };
        let (first, other) = ("SHA-256 AA:BB", "sha-256 CC:DD");
        assert_eq!(read(&[first]), of(FingerprintHash::Sha256, &["aa:bb"]));
        let any = of(FingerprintHash::Sha256, &["aa:bb", "cc:dd"]);
        assert_eq!(read(&[other, "sha-1 EE", first, other]), any);
        assert_eq!(read(&["sha-512 EE:FF", first, other]), any);
        assert_eq!(read(&["Sha-384 EE:FF"]), of(FingerprintHash::Sha384, &["ee:ff"]));
        for none in [&["sha-1 AA:BB"][..], &["sha-256"], &["sha-256  "], &["md5 AA", "sha-1 BB"]] {
            assert_eq!(read(none), Err(SdpError::Fingerprint), "{none:?}");
        }
    }

    #[test]
    fn webrtc_rs_gets_one_fingerprint() {
        let twice = SDP.replace("a=setup", "a=fingerprint:sha-512 EE:FF\r\na=setup");
        let single = with_fingerprint(&twice, "11:22");
        assert_eq!(single.matches("a=fingerprint:").count(), 1);
        let fingerprints = Description::read(&single).unwrap().fingerprints.unwrap();
        assert_eq!(fingerprints.values, ["11:22".to_owned()].into());
    }

    #[test]
    fn lines_are_normalized_as_webrtc_rs_reads_them() {
        let hidden = SDP
            .replace("a=candidate:", "\r\ra= candidate:")
            .replace("a=ice-ufrag:abcd", "\ra=\u{a0}ice-ufrag:abcd \t");
        let text = normalize(&hidden);
        assert_eq!(text, SDP);
        assert_eq!(
            candidates(&text).collect::<Vec<_>>(),
            ["candidate:1 1 udp 1 192.0.2.1 9 typ host"]
        );
        assert_eq!(ufrags(&text), ["abcd"]);
        assert_eq!(candidates(&without_candidates(&text)).count(), 0);
        let bare = SDP.replace('\r', "");
        assert_eq!(normalize(&bare), SDP);
    }

    #[test]
    fn announced_ssrcs_are_read() {
        let sdp =
            "v=0\r\na=ssrc:7 cname:x\r\na=ssrc:4294967295 msid:a b\r\na=ssrc:x y\r\na=ssrc:\r\n";
        assert_eq!(ssrcs(sdp).collect::<Vec<_>>(), [7, u32::MAX]);
    }
}
