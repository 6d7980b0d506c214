//! What is received and played here: each remote track has one receiver.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::mpsc;

use super::{run::Deed, studio::report};
use crate::{
    conference::SourceKind,
    media::{IncomingTrack, Tee, VideoFrame},
    model::{AudioStats, Media, ParticipantId, PeerId, SessionId, VideoStats},
    playback::{DecodePool, Speaker, SpeakerSpec, VideoReceiver, Voice},
};

/// What is received and played here.
pub(super) struct Reception {
    speaker_spec: SpeakerSpec,
    speaker: Option<Speaker>,
    pool: Arc<DecodePool>,
    peers: BTreeMap<PeerId, Received>,
    deeds: mpsc::Sender<Deed>,
}

/// Whose media a connection brings.
pub(super) type Source = (SessionId, ParticipantId);

/// The tracks of one connection.
struct Received {
    source: Source,
    video: Option<VideoReceiver>,
    sound: Option<Sound>,
}

struct Sound {
    voice: Voice,
    mix: String,
}

impl Reception {
    /// A reception in which nothing plays yet.
    pub(super) fn new(speaker: SpeakerSpec, deeds: mpsc::Sender<Deed>) -> Self {
        Self {
            speaker_spec: speaker,
            speaker: None,
            pool: Arc::new(DecodePool::new()),
            peers: BTreeMap::new(),
            deeds,
        }
    }

    /// Opens the speaker, or closes it when nobody is to be heard.
    pub(super) fn demand(&mut self, speaker: bool) {
        match (speaker, &self.speaker) {
            (true, None) => self.speaker = Some(self.open_speaker()),
            (false, Some(_)) => {
                for received in self.peers.values_mut() {
                    received.sound = None;
                }
                self.speaker = None;
                report(&self.deeds, SourceKind::Speaker, crate::model::SourceState::Idle);
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Receives a track from now on.
    pub(super) fn begin(&mut self, track: IncomingTrack, source: Source) {
        let (peer, media) = (track.peer, track.media);
        let on_first = self.on_first(peer, media);
        let received = self.peers.entry(peer).or_insert_with(|| Received {
            source: source.clone(),
            video: None,
            sound: None,
        });
        match media {
            Media::Video => {
                let tile = Tee::<VideoFrame>::default();
                received.video = Some(VideoReceiver::start(track, &self.pool, tile, on_first));
            }
            Media::Audio => {
                self.demand(true);
                let mix = track.mix.clone();
                if let Some(speaker) = &self.speaker
                    && let Some(received) = self.peers.get_mut(&peer)
                {
                    let voice = speaker.play(track, on_first);
                    received.sound = Some(Sound { voice, mix });
                }
                self.play_each_once();
            }
            Media::Data => {}
        }
    }

    /// Ends a connection's tracks and returns their last figures.
    pub(super) fn end(&mut self, peer: PeerId) -> Option<(Source, Figures)> {
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

    /// A person whose voice arrives by several sessions is heard once.
    fn play_each_once(&mut self) {
        let mut heard = std::collections::BTreeSet::new();
        for received in self.peers.values() {
            if let Some(sound) = &received.sound {
                let first = heard.insert((received.source.1.clone(), sound.mix.clone()));
                sound.voice.set_heard(first);
            }
        }
    }

    fn open_speaker(&self) -> Speaker {
        let deeds = self.deeds.clone();
        let notify = move |state| report(&deeds, SourceKind::Speaker, state);
        Speaker::open(&self.speaker_spec, Arc::new(notify))
    }

    fn on_first(&self, peer: PeerId, media: Media) -> Box<dyn FnOnce() + Send> {
        let deeds = self.deeds.clone();
        Box::new(move || {
            let _ = deeds.try_send(Deed::First { peer, media });
        })
    }
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
