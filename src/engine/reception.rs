//! What is received and played here: each remote track has one receiver.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{Decode, EngineOptions, run::Deed, studio::report};
use crate::{
    conference::HubRef,
    media::{Gallery, IncomingTrack, Picture},
    model::{AudioStats, Media, ParticipantId, PeerId, SessionId, SourceKind, VideoStats},
    playback::{ClosingSpeaker, DecodePool, Speaker, SpeakerSpec, VideoReceiver, Voice},
};

/// What is received and played here.
pub(super) struct Reception {
    speaker_spec: SpeakerSpec,
    speaker: Option<Speaker>,
    /// The speaker that was closed last, while nobody needs one.
    closing: Option<ClosingSpeaker>,
    pool: Arc<DecodePool>,
    decode: Decode,
    gallery: Gallery,
    peers: BTreeMap<PeerId, Received>,
    /// What was said of connections, whether their sound has come yet or not.
    hearing: BTreeMap<PeerId, Hearing>,
    /// Connections of which no pictures are expected, whether any have come or not.
    dark: BTreeSet<PeerId>,
    deeds: mpsc::Sender<Deed>,
}

/// Whose media a connection brings.
pub(super) type Source = (SessionId, ParticipantId);

/// The tracks of one connection.
struct Received {
    source: Source,
    /// The hub that vouches for the participant.
    hub: HubRef,
    video: Option<VideoReceiver>,
    sound: Option<Sound>,
}

/// How the sound of a connection is to be treated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hearing {
    /// Whether it may be heard.
    pub(super) heard: bool,
    /// Whether sound is to be expected of it.
    pub(super) speaks: bool,
}

/// A voice that may arrive by several connections: whose at which hub, and which mix of it. An id
/// says something only at the hub that gave it: another one could give it to a stranger, who would be
/// heard in the place of the person.
type VoiceKey = (HubRef, ParticipantId, String);

struct Sound {
    voice: Voice,
    mix: String,
}

impl Reception {
    /// A reception in which nothing plays yet.
    pub(super) fn new(
        options: &EngineOptions,
        gallery: Gallery,
        deeds: mpsc::Sender<Deed>,
    ) -> Self {
        Self {
            speaker_spec: options.speaker.clone(),
            speaker: None,
            closing: None,
            pool: Arc::new(DecodePool::new()),
            decode: options.decode,
            gallery,
            peers: BTreeMap::new(),
            hearing: BTreeMap::new(),
            dark: BTreeSet::new(),
            deeds,
        }
    }

    /// Opens the speaker, or closes it when nobody is to be heard.
    pub(super) fn demand(&mut self, speaker: bool) {
        match (speaker, self.speaker.take()) {
            (true, None) => self.speaker = Some(self.open_speaker()),
            (false, Some(open)) => {
                for received in self.peers.values_mut() {
                    received.sound = None;
                }
                self.closing = Some(open.close());
                report(&self.deeds, SourceKind::Speaker, crate::model::SourceState::Idle);
            }
            (true, open @ Some(_)) => self.speaker = open,
            (false, None) => {}
        }
    }

    /// Plays elsewhere from now on.
    pub(super) fn move_to(&mut self, speaker: SpeakerSpec) {
        if let Some(open) = &self.speaker {
            open.move_to(&speaker);
        }
        self.speaker_spec = speaker;
    }

    /// A connection may bring something from now on.
    pub(super) fn expect(&self, peer: PeerId) {
        self.gallery.exhibit(Picture::Peer(peer));
    }

    /// Treats the sound of a connection like that from now on.
    pub(super) fn hear(&mut self, peer: PeerId, hearing: Hearing) {
        self.hearing.insert(peer, hearing);
        self.play_each_once();
    }

    /// Expects pictures of a connection from now on, or none: a camera that is off is no freeze.
    pub(super) fn expect_pictures(&mut self, peer: PeerId, expected: bool) {
        if expected {
            self.dark.remove(&peer);
        } else {
            self.dark.insert(peer);
        }
        if let Some(video) = self.peers.get(&peer).and_then(|received| received.video.as_ref()) {
            video.expect(expected);
        }
    }

    /// Decodes what is to be seen; whether the own picture and the own level are looked at.
    pub(super) fn look(&self) -> (bool, bool) {
        for (peer, received) in &self.peers {
            if let Some(video) = &received.video {
                video.set_decoding(self.is_decoded(*peer));
            }
        }
        (self.gallery.is_seen(Picture::Local), self.gallery.is_measured(Picture::Local))
    }

    /// Receives a track from now on.
    pub(super) fn begin(&mut self, track: IncomingTrack, source: Source, hub: HubRef) {
        let (peer, media) = (track.peer, track.media);
        let (tile, meter) = self.gallery.exhibit(Picture::Peer(peer));
        let on_first = self.on_first(peer, media);
        let unheard = Received { source, hub, video: None, sound: None };
        self.peers.entry(peer).or_insert(unheard);
        match media {
            Media::Video => {
                let video = VideoReceiver::start(track, &self.pool, tile, on_first);
                video.set_decoding(self.is_decoded(peer));
                video.expect(!self.dark.contains(&peer));
                if let Some(received) = self.peers.get_mut(&peer) {
                    received.video = Some(video);
                }
            }
            Media::Audio => {
                self.demand(true);
                let mix = track.mix.clone();
                if let Some(speaker) = &self.speaker
                    && let Some(received) = self.peers.get_mut(&peer)
                {
                    let voice = speaker.play(track, meter, on_first);
                    received.sound = Some(Sound { voice, mix });
                }
                self.play_each_once();
            }
            Media::Data => {}
        }
    }

    /// Ends a connection's tracks and returns their last figures.
    pub(super) fn end(&mut self, peer: PeerId) -> Option<(Source, Figures)> {
        self.gallery.remove(Picture::Peer(peer));
        self.hearing.remove(&peer);
        self.dark.remove(&peer);
        let received = self.peers.remove(&peer)?;
        let figures = received.figures();
        let source = received.source.clone();
        drop(received);
        self.play_each_once();
        Some((source, figures))
    }

    /// The figures of every connection now.
    pub(super) fn figures(&self) -> impl Iterator<Item = (&Source, Figures)> {
        self.peers.values().map(|received| (&received.source, received.figures()))
    }

    /// A person whose voice arrives by several sessions of one hub is heard once.
    fn play_each_once(&mut self) {
        let sounds = || {
            let peers = self.peers.iter();
            peers.filter_map(|(peer, received)| Some((*peer, received, received.sound.as_ref()?)))
        };
        let chosen = chosen(sounds().map(|(peer, received, sound)| {
            let voice = (received.hub.clone(), received.source.1.clone(), sound.mix.clone());
            (peer, voice, self.hearing.get(&peer).copied().unwrap_or(Hearing::UNTOLD))
        }));
        for (peer, _, sound) in sounds() {
            sound.voice.set_heard(chosen.contains(&peer));
        }
    }

    fn is_decoded(&self, peer: PeerId) -> bool {
        match self.decode {
            Decode::Always => true,
            Decode::WhenSeen => self.gallery.is_seen(Picture::Peer(peer)),
        }
    }

    fn open_speaker(&mut self) -> Speaker {
        let deeds = self.deeds.clone();
        let notify = move |state| report(&deeds, SourceKind::Speaker, state);
        Speaker::open(&self.speaker_spec, self.closing.take(), Arc::new(notify))
    }

    fn on_first(&self, peer: PeerId, media: Media) -> Box<dyn FnOnce() + Send> {
        let deeds = self.deeds.clone();
        Box::new(move || {
            let _ = deeds.try_send(Deed::First { peer, media });
        })
    }
}

impl Drop for Reception {
    /// The program may end now: what was heard is to be in its file.
    fn drop(&mut self) {
        if let Some(closing) = self.closing.take() {
            closing.wait();
        }
    }
}

impl Hearing {
    /// As long as nothing was said.
    const UNTOLD: Self = Self { heard: true, speaks: true };
}

/// The connections whose sound is heard: of each voice the first copy that may be heard, and
/// sooner one that speaks. A person may be muted in one session and speak in another.
fn chosen(copies: impl Iterator<Item = (PeerId, VoiceKey, Hearing)>) -> BTreeSet<PeerId> {
    let mut best: BTreeMap<VoiceKey, (PeerId, bool)> = BTreeMap::new();
    for (peer, voice, Hearing { heard, speaks }) in copies {
        if !heard {
            continue;
        }
        let copy = best.entry(voice).or_insert((peer, speaks));
        if speaks && !copy.1 {
            *copy = (peer, speaks);
        }
    }
    best.into_values().map(|(peer, _)| peer).collect()
}

/// Figures of one connection's tracks.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// Of the picture, if one came.
    pub(super) video: Option<VideoStats>,
    /// Of the sound, if it came.
    pub(super) audio: Option<AudioStats>,
}

impl Figures {
    /// These figures after those of an earlier connection to the same participant: counts add
    /// up, the rest is as it was last.
    pub(super) fn after(self, earlier: &Self) -> Self {
        let video = match (self.video, &earlier.video) {
            (Some(now), Some(then)) => Some(VideoStats {
                received: then.received + now.received,
                decoded: then.decoded + now.decoded,
                frozen_ms: then.frozen_ms + now.frozen_ms,
                ..now
            }),
            (now, then) => now.or_else(|| then.clone()),
        };
        let audio = match (self.audio, &earlier.audio) {
            (Some(now), Some(then)) => Some(AudioStats {
                packets: then.packets + now.packets,
                lost: then.lost + now.lost,
                concealed_ms: then.concealed_ms + now.concealed_ms,
                ..now
            }),
            (now, then) => now.or_else(|| then.clone()),
        };
        Self { video, audio }
    }
}

impl Received {
    fn figures(&self) -> Figures {
        Figures {
            video: self.video.as_ref().map(VideoReceiver::stats),
            audio: self.sound.as_ref().map(|sound| sound.voice.stats()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The connections that are heard of copies: number, mix, may be heard, speaks.
    fn heard(copies: &[(u64, &str, bool, bool)]) -> Vec<u64> {
        let who: ParticipantId = serde_json::from_value("a".into()).unwrap();
        let copies = copies.iter().map(|(peer, mix, heard, speaks)| {
            let hearing = Hearing { heard: *heard, speaks: *speaks };
            (PeerId(*peer), (HubRef::Default, who.clone(), (*mix).to_owned()), hearing)
        });
        chosen(copies).into_iter().map(|peer| peer.0).collect()
    }

    #[test]
    fn a_voice_that_arrives_twice_is_heard_once_and_another_mix_besides() {
        let copies = [(1, "m", true, true), (2, "m", true, true), (3, "n", true, true)];
        assert_eq!(heard(&copies), [1, 3]);
    }

    #[test]
    fn a_stranger_to_whom_another_hub_gives_the_same_id_replaces_nobody() {
        let who: ParticipantId = serde_json::from_value("a".into()).unwrap();
        let elsewhere = HubRef::At("evil.example".parse().unwrap());
        let copy = |peer, hub: HubRef, speaks| {
            let hearing = Hearing { heard: true, speaks };
            (PeerId(peer), (hub, who.clone(), "m".to_owned()), hearing)
        };
        // The one who speaks would be heard instead of the one who says to be silent.
        let copies = [copy(1, HubRef::Default, false), copy(2, elsewhere, true)];
        assert_eq!(chosen(copies.into_iter()), [PeerId(1), PeerId(2)].into());
    }

    #[test]
    fn a_copy_that_is_listened_to_takes_over_from_one_that_is_not() {
        assert_eq!(heard(&[(1, "m", false, true), (2, "m", true, true)]), [2]);
        assert_eq!(heard(&[(1, "m", false, true), (2, "m", false, true)]), [0; 0]);
    }

    #[test]
    fn a_copy_that_speaks_is_heard_sooner_than_one_whose_sender_is_muted() {
        assert_eq!(heard(&[(1, "m", true, false), (2, "m", true, true)]), [2]);
        assert_eq!(heard(&[(1, "m", true, false), (2, "m", false, true)]), [1]);
        assert_eq!(heard(&[(1, "m", true, false), (2, "m", true, false)]), [1]);
    }
}
