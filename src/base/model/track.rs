//! The tracks that a participant sends on one peer connection, as it signals them in `media`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Instance, PerSource, Source,
    lenient_list::{self, LenientList},
};

/// The most tracks that are read from one signal; more are ignored.
pub const MAX_TRACKS: usize = 16;

/// The longest id of a track, in bytes.
pub const MAX_TRACK_ID_BYTES: usize = 32;

/// The longest id of a mix, in bytes.
pub const MAX_MIX_BYTES: usize = 64;

/// The id of a track within its peer connection: the `mid` of its media section (RFC 8843). It
/// stays the same as long as the connection lives (RFC 9429, section 5.2.2).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrackId(String);

/// The id of what a track carries. Tracks of one program with the same mix carry the same media,
/// and it may change while the connection lives.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MixId(String);

/// A track that a participant sends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Track {
    /// Its id.
    pub id: TrackId,
    /// What it is; `None` for a source that this version does not know.
    #[serde(with = "source_name")]
    pub source: Option<Source>,
    /// Whether media is sent now.
    pub on: bool,
    /// What it carries now.
    pub mix: MixId,
}

/// The tracks of one signal, at most [`MAX_TRACKS`], each id once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct TrackList(Vec<Track>);

impl TrackId {
    /// The id, unless it is empty, too long, or has other characters than visible ones of ASCII.
    pub fn new(mid: &str) -> Option<Self> {
        let is_valid = (1..=MAX_TRACK_ID_BYTES).contains(&mid.len())
            && mid.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(mid.to_owned()))
    }
}

impl MixId {
    /// The id, unless it is empty, too long, or has other characters than letters, digits and
    /// `-_.:+`, those of the ids in `a=msid`.
    pub fn new(text: &str) -> Option<Self> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+".contains(&byte);
        let is_valid = (1..=MAX_MIX_BYTES).contains(&text.len()) && text.bytes().all(is_legal);
        is_valid.then(|| Self(text.to_owned()))
    }

    /// The mix that carries one source of a run of a program, and nothing else.
    pub fn of_source(source: Source, instance: &Instance) -> Self {
        Self(format!("{}-{}", source.name(), instance.as_str()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TrackList {
    /// The track with this id, if it is of this source.
    pub fn find(&self, id: &TrackId, source: Source) -> Option<&Track> {
        self.0.iter().find(|track| track.id == *id && track.source == Some(source))
    }

    /// The sources of which a track is on.
    pub fn sources_on(&self) -> PerSource<bool> {
        let is_on = |source| self.0.iter().any(|track| track.on && track.source == Some(source));
        PerSource::from_fn(is_on)
    }

    /// The tracks in the order in which they were signalled.
    pub fn iter(&self) -> impl Iterator<Item = &Track> {
        self.0.iter()
    }

    /// The number of tracks.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no track.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Track> for TrackList {
    /// The first [`MAX_TRACKS`] tracks; of several with the same id, the first.
    fn from_iter<I: IntoIterator<Item = Track>>(tracks: I) -> Self {
        let mut list = Self::default();
        tracks.into_iter().for_each(|track| list.add(track));
        list
    }
}

impl LenientList for TrackList {
    type Entry = Track;

    fn add(&mut self, track: Track) {
        if !self.is_full() && self.0.iter().all(|known| known.id != track.id) {
            self.0.push(track);
        }
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MAX_TRACKS
    }
}

impl<'de> Deserialize<'de> for TrackList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lenient_list::deserialize(deserializer)
    }
}

/// The name of a source on the wire. One that this version does not know is read as `None`.
mod source_name {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Source};

    pub(super) fn serialize<S: Serializer>(
        source: &Option<Source>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        source.map_or("unknown", Source::name).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Source>, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Source::ALL.into_iter().find(|source| source.name() == name))
    }
}

impl TryFrom<String> for TrackId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or("the id of a track has 1 to 32 visible characters")
    }
}

impl TryFrom<String> for MixId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or("a mix has 1 to 64 letters, digits or -_.:+")
    }
}

impl From<TrackId> for String {
    fn from(id: TrackId) -> Self {
        id.0
    }
}

impl From<MixId> for String {
    fn from(mix: MixId) -> Self {
        mix.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> TrackList {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_track_is_written_as_it_was_read() {
        let text = r#"[{"id":"0","source":"microphone","on":true,"mix":"microphone-1"}]"#;
        let list = read(text);
        assert_eq!(serde_json::to_string(&list).unwrap(), text);
        let id = TrackId::new("0").unwrap();
        assert_eq!(list.find(&id, Source::Microphone).unwrap().mix.as_str(), "microphone-1");
        assert_eq!(list.find(&id, Source::Camera), None);
    }

    #[test]
    fn a_source_is_on_if_one_of_its_tracks_is() {
        let list = read(
            r#"[{"id":"0","source":"microphone","on":false,"mix":"a"},
                {"id":"1","source":"microphone","on":true,"mix":"b"},
                {"id":"2","source":"camera","on":false,"mix":"c"},
                {"id":"3","source":"hologram","on":true,"mix":"d","depth":3}]"#,
        );
        assert_eq!(list.sources_on(), PerSource { camera: false, microphone: true });
        assert_eq!(list.iter().last().unwrap().source, None, "kept, but as an unknown source");
    }

    #[test]
    fn invalid_and_repeated_entries_are_ignored() {
        let entry = |id: &str, mix: &str| {
            format!(r#"{{"id":"{id}","source":"camera","on":true,"mix":"{mix}"}}"#)
        };
        let (long_id, long_mix) = ("x".repeat(33), "x".repeat(65));
        for invalid in [
            entry("", "m"),
            entry(&long_id, "m"),
            entry("a b", "m"),
            entry("1", ""),
            entry("1", &long_mix),
            entry("1", "a/b"),
            r#"{"id":"1","source":"camera","on":1,"mix":"m"}"#.to_owned(),
            r#"{"id":"1","source":"camera","mix":"m"}"#.to_owned(),
            r#"{"id":"1","source":null,"on":true,"mix":"m"}"#.to_owned(),
            "null".to_owned(),
            "[[]]".to_owned(),
        ] {
            let list = read(&format!("[{invalid},{}]", entry("2", "m")));
            assert_eq!(list.iter().count(), 1, "{invalid}");
            assert_eq!(list.iter().next().unwrap().id, TrackId::new("2").unwrap(), "{invalid}");
        }
        assert_eq!(read(&format!("[{0},{0}]", entry("1", "m"))).len(), 1);
        assert!(serde_json::from_str::<TrackList>("{}").is_err());
    }

    #[test]
    fn a_long_list_is_cut() {
        let entries: Vec<_> = (0..1000)
            .map(|id| format!(r#"{{"id":"{id}","source":"camera","on":true,"mix":"m"}}"#))
            .collect();
        let list = read(&format!("[{}]", entries.join(",")));
        assert_eq!(list.len(), MAX_TRACKS);
        assert_eq!(list.iter().cloned().collect::<TrackList>(), list);
    }
}
