//! Session kinds: the media of a session, its topology, and what follows from both.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of session: a row of the table `media × topology`.
///
/// Its text form is one of the five names (`av-conference`, …) or `MEDIA/DIRECTION`, such as
/// `audio+video/one-to-one`; parsing accepts both.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SessionKind {
    /// The media that are sent.
    pub media: MediaSet,
    /// Which participants are paired, and in which direction media flows.
    #[serde(rename = "direction")]
    pub topology: Topology,
}

impl SessionKind {
    /// The five kinds that "Open Five Unique Sessions" opens, in the order of the 2013 page.
    pub const FIVE: [Self; 5] = [
        Self { media: MediaSet::AUDIO_VIDEO, topology: Topology::ManyToMany },
        Self { media: MediaSet::AUDIO_VIDEO, topology: Topology::OneWay },
        Self { media: MediaSet::AUDIO, topology: Topology::ManyToMany },
        Self { media: MediaSet::AUDIO, topology: Topology::OneWay },
        Self { media: MediaSet::VIDEO, topology: Topology::OneWay },
    ];

    /// The names of [`Self::FIVE`], in the same order.
    pub const FIVE_NAMES: [&'static str; 5] =
        ["av-conference", "av-broadcast", "audio-conference", "audio-broadcast", "video-broadcast"];

    /// The most participants, including the opener, unless the opener asks for fewer.
    ///
    /// A mesh of 12 means 11 uplinks and 11 decoders in each program: the most that a laptop can
    /// handle.
    pub const fn default_limit(self) -> u16 {
        match self.topology {
            Topology::OneToOne => 2,
            Topology::ManyToMany => 12,
            Topology::OneToMany => 25,
            Topology::OneWay => 256,
        }
    }

    /// Whether the session continues when its opener leaves: the hub then names a successor as
    /// owner.
    pub const fn outlives_opener(self) -> bool {
        matches!(self.topology, Topology::ManyToMany)
    }

    /// Whether participants of these roles are paired, so that a peer connection joins them.
    pub const fn pairs(self, one: Role, other: Role) -> bool {
        match self.topology {
            Topology::ManyToMany => true,
            Topology::OneWay | Topology::OneToOne | Topology::OneToMany => {
                matches!((one, other), (Role::Opener, Role::Guest) | (Role::Guest, Role::Opener))
            }
        }
    }

    /// Whether the session has a chat in which a participant of role `mine` may write. Chat follows
    /// the same topology as audio and video.
    pub const fn may_chat(self, mine: Role) -> bool {
        self.media.has(Media::Data) && self.direction(mine).sends()
    }

    /// The SDP direction of this session's audio and video, seen from a participant of role `mine`.
    pub const fn direction(self, mine: Role) -> Direction {
        match (self.topology, mine) {
            (Topology::OneWay, Role::Opener) => Direction::SendOnly,
            (Topology::OneWay, Role::Guest) => Direction::RecvOnly,
            (Topology::OneToOne | Topology::OneToMany | Topology::ManyToMany, _) => {
                Direction::SendRecv
            }
        }
    }
}

impl fmt::Display for SessionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::FIVE.iter().position(|kind| kind == self) {
            Some(index) => f.pad(Self::FIVE_NAMES[index]),
            None => f.pad(&format!("{}/{}", self.media, self.topology)),
        }
    }
}

impl FromStr for SessionKind {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        if let Some(index) = Self::FIVE_NAMES.iter().position(|name| *name == text) {
            return Ok(Self::FIVE[index]);
        }
        let Some((media, topology)) = text.split_once('/') else {
            return Err(KindError::Unknown(text.to_owned()));
        };
        Ok(Self { media: media.parse()?, topology: topology.parse()? })
    }
}

/// Why a text is not a kind of session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KindError {
    /// The text is neither one of the five names nor `MEDIA/DIRECTION`.
    #[error(
        "{0:?} is not a kind of session: it is av-conference, av-broadcast, audio-conference, \
         audio-broadcast, video-broadcast, or MEDIA/DIRECTION such as audio+video/one-to-one"
    )]
    Unknown(String),
    /// A part before the slash is not a medium.
    #[error("{0:?} is not a medium: media are audio, video and data, joined by '+'")]
    Media(String),
    /// The part after the slash is not a topology.
    #[error("{0:?} is not a direction: it is one-way, one-to-one, one-to-many or many-to-many")]
    Topology(String),
}

/// One medium.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Media {
    /// Audio.
    Audio,
    /// Video.
    Video,
    /// A data channel.
    Data,
}

impl Media {
    /// All media, in the order in which they are listed.
    pub const ALL: [Self; 3] = [Self::Audio, Self::Video, Self::Data];

    /// The name on the wire and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Data => "data",
        }
    }
}

/// A non-empty set of media; a list of names on the wire, `audio+video` as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Vec<Media>", into = "Vec<Media>")]
pub struct MediaSet(u8);

impl MediaSet {
    /// Audio alone.
    pub const AUDIO: Self = Self(1);
    /// Video alone.
    pub const VIDEO: Self = Self(2);
    /// A data channel alone.
    pub const DATA: Self = Self(4);
    /// Audio and video.
    pub const AUDIO_VIDEO: Self = Self(3);

    /// This set plus one medium.
    #[must_use]
    pub const fn with(self, media: Media) -> Self {
        Self(self.0 | Self::bit(media))
    }

    /// Whether a medium is in the set.
    pub const fn has(self, media: Media) -> bool {
        self.0 & Self::bit(media) != 0
    }

    const fn bit(media: Media) -> u8 {
        match media {
            Media::Audio => 1,
            Media::Video => 2,
            Media::Data => 4,
        }
    }
}

impl From<Media> for MediaSet {
    fn from(media: Media) -> Self {
        Self(Self::bit(media))
    }
}

impl TryFrom<Vec<Media>> for MediaSet {
    type Error = &'static str;

    fn try_from(list: Vec<Media>) -> Result<Self, &'static str> {
        let set = list.into_iter().fold(Self(0), Self::with);
        if set.0 == 0 { Err("a session has at least one medium") } else { Ok(set) }
    }
}

impl From<MediaSet> for Vec<Media> {
    fn from(set: MediaSet) -> Self {
        Media::ALL.into_iter().filter(|media| set.has(*media)).collect()
    }
}

impl fmt::Display for MediaSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Vec::from(*self).into_iter().map(Media::name).collect();
        f.write_str(&names.join("+"))
    }
}

impl FromStr for MediaSet {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        let mut set = Self(0);
        for name in text.split('+') {
            let Some(media) = Media::ALL.into_iter().find(|media| media.name() == name) else {
                return Err(KindError::Media(name.to_owned()));
            };
            set = set.with(media);
        }
        Ok(set)
    }
}

/// Which participants of a session are paired, and in which direction media flows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// The opener sends to all guests. Guests capture and send nothing and are not paired with each
    /// other.
    OneWay,
    /// The opener and one guest send to each other.
    OneToOne,
    /// A two-way star: each guest is paired with the opener, guests are not paired with each other.
    OneToMany,
    /// A mesh: every participant is paired with every other.
    ManyToMany,
}

impl Topology {
    /// All topologies.
    pub const ALL: [Self; 4] = [Self::OneWay, Self::OneToOne, Self::OneToMany, Self::ManyToMany];

    /// The name on the wire and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneWay => "one-way",
            Self::OneToOne => "one-to-one",
            Self::OneToMany => "one-to-many",
            Self::ManyToMany => "many-to-many",
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Topology {
    type Err = KindError;

    fn from_str(text: &str) -> Result<Self, KindError> {
        Self::ALL
            .into_iter()
            .find(|topology| topology.name() == text)
            .ok_or_else(|| KindError::Topology(text.to_owned()))
    }
}

/// The role of a participant in a session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Opened the session, or took it over from the opener.
    Opener,
    /// Joined the session.
    Guest,
}

/// The direction of a media section, as in SDP (RFC 8829, section 4.2.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Both directions.
    SendRecv,
    /// From us to the remote peer.
    SendOnly,
    /// From the remote peer to us.
    RecvOnly,
    /// Neither direction.
    Inactive,
}

impl Direction {
    /// Whether we send.
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether we receive.
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_text_form() {
        for media in 1..8 {
            for topology in Topology::ALL {
                let kind = SessionKind { media: MediaSet(media), topology };
                assert_eq!(kind.to_string().parse(), Ok(kind), "{kind}");
                let json = serde_json::to_string(&kind).unwrap();
                assert_eq!(serde_json::from_str::<SessionKind>(&json).unwrap(), kind, "{json}");
            }
        }
    }

    #[test]
    fn the_error_of_an_invalid_kind_names_the_invalid_part() {
        assert_eq!("av".parse::<SessionKind>(), Err(KindError::Unknown("av".into())));
        assert_eq!(
            "audio+smell/one-way".parse::<SessionKind>(),
            Err(KindError::Media("smell".into()))
        );
        assert_eq!("audio/both".parse::<SessionKind>(), Err(KindError::Topology("both".into())));
        assert!(serde_json::from_str::<MediaSet>("[]").is_err());
    }

    #[test]
    fn viewers_are_paired_with_the_opener_only_and_send_nothing() {
        let broadcast = SessionKind::FIVE[1];
        assert!(broadcast.pairs(Role::Guest, Role::Opener));
        assert!(!broadcast.pairs(Role::Guest, Role::Guest));
        assert!(!broadcast.direction(Role::Guest).sends());
        assert!(!broadcast.direction(Role::Opener).receives());
        assert!(SessionKind::FIVE[0].pairs(Role::Guest, Role::Guest));
    }

    #[test]
    fn participants_that_send_may_write_if_there_is_a_chat() {
        let chat = |topology| SessionKind { media: MediaSet::DATA, topology };
        assert!(!chat(Topology::OneWay).may_chat(Role::Guest));
        assert!(chat(Topology::OneWay).may_chat(Role::Opener));
        assert!(chat(Topology::OneToMany).may_chat(Role::Guest));
        assert!(!SessionKind::FIVE[0].may_chat(Role::Opener), "without data there is no chat");
    }
}
