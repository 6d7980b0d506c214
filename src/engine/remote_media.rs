//! Received media: one receiver for each remote track, and the speaker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{Decode, EngineOptions, event_loop::EngineEvent, local_media::report_device_state};
use crate::{
    conference::HubRef,
    media::{Codec, IncomingTrack, VideoRef, VideoSinks},
    model::{
        AudioStats, DeviceKind, Media, ParticipantId, PeerId, PerSource, SessionId, VideoStats,
    },
    playback::{
        AudioTrack, ClosingSpeaker, DecodePool, Speaker, SpeakerSpec, VideoPlayer, VideoTrack,
        Voice,
    },
};

/// The receivers of all remote tracks, and the speaker that plays their audio.
pub(super) struct RemoteMedia {
    speaker_spec: SpeakerSpec,
    speaker: Option<Speaker>,
    /// The speaker that was closed last, while none is needed.
    closing: Option<ClosingSpeaker>,
    pool: Arc<DecodePool>,
    decode: Decode,
    video_sinks: VideoSinks,
    peers: BTreeMap<PeerId, PeerTracks>,
    /// The audio routing of peer connections, also of those without an audio track yet.
    audio_routing: BTreeMap<PeerId, AudioRouting>,
    /// Peer connections from which no video is expected, with or without a video track.
    without_video: BTreeSet<PeerId>,
    events: mpsc::Sender<EngineEvent>,
}

/// The session and the participant whose media a peer connection carries.
pub(super) type ParticipantKey = (SessionId, ParticipantId);

/// The remote tracks of one peer connection.
struct PeerTracks {
    source: ParticipantKey,
    /// The hub that vouches for the participant.
    hub: HubRef,
    video: Option<RemoteVideo>,
    audio: Option<RemoteAudio>,
}

/// How the audio of a peer connection is routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AudioRouting {
    /// Whether it may be played.
    pub(super) is_audible: bool,
    /// Whether the remote peer is expected to send audio.
    pub(super) expects_audio: bool,
}

/// Identifies an audio stream that may arrive over several peer connections: the hub, the
/// participant at that hub, and the mix. A participant id is valid only at the hub that gave it:
/// another hub could give the same id to another participant, whose audio would be played instead.
type AudioStreamKey = (HubRef, ParticipantId, String);

/// A remote video track, and its first subscriber.
struct RemoteVideo {
    track: VideoTrack,
    player: VideoPlayer,
}

/// A remote audio track, and its first subscriber.
struct RemoteAudio {
    track: AudioTrack,
    voice: Voice,
}

impl RemoteMedia {
    /// Returns a state without tracks and with the speaker closed.
    pub(super) fn new(
        options: &EngineOptions,
        video_sinks: VideoSinks,
        events: mpsc::Sender<EngineEvent>,
    ) -> Self {
        Self {
            speaker_spec: options.speaker.clone(),
            speaker: None,
            closing: None,
            pool: Arc::new(DecodePool::new()),
            decode: options.decode,
            video_sinks,
            peers: BTreeMap::new(),
            audio_routing: BTreeMap::new(),
            without_video: BTreeSet::new(),
            events,
        }
    }

    /// Opens the speaker if it is needed, else closes it.
    pub(super) fn set_speaker_demand(&mut self, needed: bool) {
        match (needed, self.speaker.take()) {
            (true, None) => self.speaker = Some(self.open_speaker()),
            (false, Some(open)) => {
                for received in self.peers.values_mut() {
                    received.audio = None;
                }
                self.closing = Some(open.close());
                report_device_state(
                    &self.events,
                    DeviceKind::Speaker,
                    crate::model::DeviceState::Idle,
                );
            }
            (true, open @ Some(_)) => self.speaker = open,
            (false, None) => {}
        }
    }

    /// Plays on another speaker from now on.
    pub(super) fn set_speaker(&mut self, speaker: SpeakerSpec) {
        if let Some(open) = &self.speaker {
            open.switch_to(&speaker);
        }
        self.speaker_spec = speaker;
    }

    /// Registers a peer connection, so that taps on its media can be opened before a track comes.
    pub(super) fn register_peer(&self, peer: PeerId) {
        self.video_sinks.register(VideoRef::Peer(peer));
    }

    /// Sets the audio routing of a peer connection.
    pub(super) fn set_audio_routing(&mut self, peer: PeerId, routing: AudioRouting) {
        self.audio_routing.insert(peer, routing);
        self.play_each_stream_once();
    }

    /// Sets whether video is expected from a peer connection: a remote camera that is off is not
    /// counted as a freeze.
    pub(super) fn set_video_expected(&mut self, peer: PeerId, expected: bool) {
        if expected {
            self.without_video.remove(&peer);
        } else {
            self.without_video.insert(peer);
        }
        if let Some(video) = self.peers.get(&peer).and_then(|received| received.video.as_ref()) {
            video.track.set_video_expected(expected);
        }
    }

    /// Decodes exactly the video that has a tap, or all, see [`Decode`]. Returns of
    /// which sources of ours a tap is open: on the video, on the level.
    pub(super) fn update_visibility(&self) -> PerSource<bool> {
        for (peer, received) in &self.peers {
            if let Some(video) = &received.video {
                video.player.set_decoding(self.is_decoded(*peer));
            }
        }
        PerSource {
            camera: self.video_sinks.has_frame_taps(VideoRef::Local),
            microphone: self.video_sinks.has_level_taps(VideoRef::Local),
        }
    }

    /// Starts to receive a track.
    pub(super) fn add_track(&mut self, track: IncomingTrack, source: ParticipantKey, hub: HubRef) {
        let (peer, codec) = (track.peer, track.codec);
        let (frames, meter) = self.video_sinks.register(VideoRef::Peer(peer));
        let on_first = self.first_media_callback(peer, codec.media());
        let without_tracks = PeerTracks { source, hub, video: None, audio: None };
        self.peers.entry(peer).or_insert(without_tracks);
        match codec {
            Codec::H264 => {
                let mut track = VideoTrack::new(track);
                let player = VideoPlayer::new(&track, &self.pool, frames, on_first);
                player.set_decoding(self.is_decoded(peer));
                track.set_video_expected(!self.without_video.contains(&peer));
                track.start();
                if let Some(received) = self.peers.get_mut(&peer) {
                    received.video = Some(RemoteVideo { track, player });
                }
            }
            Codec::Opus => {
                self.set_speaker_demand(true);
                let mut track = AudioTrack::new(track);
                if let Some(speaker) = &self.speaker
                    && let Some(received) = self.peers.get_mut(&peer)
                {
                    let voice = speaker.play(&track, meter, on_first);
                    track.start();
                    received.audio = Some(RemoteAudio { track, voice });
                }
                self.play_each_stream_once();
            }
        }
    }

    /// Closes the tracks of a peer connection and returns their last statistics.
    pub(super) fn remove_peer(&mut self, peer: PeerId) -> Option<(ParticipantKey, PeerStats)> {
        self.video_sinks.remove(VideoRef::Peer(peer));
        self.audio_routing.remove(&peer);
        self.without_video.remove(&peer);
        let received = self.peers.remove(&peer)?;
        let stats = received.stats();
        let source = received.source.clone();
        drop(received);
        self.play_each_stream_once();
        Some((source, stats))
    }

    /// Returns the current statistics of every peer connection.
    pub(super) fn stats(&self) -> impl Iterator<Item = (&ParticipantKey, PeerStats)> {
        self.peers.values().map(|received| (&received.source, received.stats()))
    }

    /// Plays one copy of each audio stream that arrives over several sessions of one hub.
    fn play_each_stream_once(&mut self) {
        let tracks = || {
            let peers = self.peers.iter();
            peers.filter_map(|(peer, received)| Some((*peer, received, received.audio.as_ref()?)))
        };
        let audible = select_audible(tracks().map(|(peer, received, audio)| {
            let mix = audio.track.source_id().to_owned();
            let stream = (received.hub.clone(), received.source.1.clone(), mix);
            (peer, stream, self.audio_routing.get(&peer).copied().unwrap_or(AudioRouting::DEFAULT))
        }));
        for (peer, _, audio) in tracks() {
            audio.voice.set_audible(audible.contains(&peer));
        }
    }

    fn is_decoded(&self, peer: PeerId) -> bool {
        match self.decode {
            Decode::Always => true,
            Decode::WhenSeen => self.video_sinks.has_frame_taps(VideoRef::Peer(peer)),
        }
    }

    fn open_speaker(&mut self) -> Speaker {
        let events = self.events.clone();
        let notify = move |state| report_device_state(&events, DeviceKind::Speaker, state);
        Speaker::open(&self.speaker_spec, self.closing.take(), Arc::new(notify))
    }

    fn first_media_callback(&self, peer: PeerId, media: Media) -> Box<dyn FnOnce() + Send> {
        let events = self.events.clone();
        Box::new(move || {
            let _ = events.try_send(EngineEvent::FirstMedia { peer, media });
        })
    }
}

impl Drop for RemoteMedia {
    /// Waits until the closed speaker has written its file: the program may end after this.
    fn drop(&mut self) {
        if let Some(closing) = self.closing.take() {
            closing.wait();
        }
    }
}

impl AudioRouting {
    /// The routing until the core sets one.
    const DEFAULT: Self = Self { is_audible: true, expects_audio: true };
}

/// Returns the peer connections whose audio is played: one copy of each audio stream among those
/// that may be played, if possible one whose sender is not muted. A participant may be muted in one
/// session and speak in another.
fn select_audible(
    copies: impl Iterator<Item = (PeerId, AudioStreamKey, AudioRouting)>,
) -> BTreeSet<PeerId> {
    let mut best: BTreeMap<AudioStreamKey, (PeerId, bool)> = BTreeMap::new();
    for (peer, stream, AudioRouting { is_audible, expects_audio }) in copies {
        if !is_audible {
            continue;
        }
        let copy = best.entry(stream).or_insert((peer, expects_audio));
        if expects_audio && !copy.1 {
            *copy = (peer, expects_audio);
        }
    }
    best.into_values().map(|(peer, _)| peer).collect()
}

/// The statistics of one peer connection's remote tracks.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerStats {
    /// Of the video track, if there is one.
    pub(super) video: Option<VideoStats>,
    /// Of the audio track, if there is one.
    pub(super) audio: Option<AudioStats>,
}

impl PeerStats {
    /// Adds the counts of an earlier peer connection to the same participant; the other values stay
    /// those of `self`, or are taken from `earlier` if `self` has none.
    pub(super) fn added_to(self, earlier: &Self) -> Self {
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

impl PeerTracks {
    fn stats(&self) -> PeerStats {
        PeerStats {
            video: self.video.as_ref().map(|video| video.track.stats()),
            audio: self.audio.as_ref().map(|audio| audio.voice.stats()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the peer connections that are played, of copies: id, mix, may be played, is sending.
    fn audible(copies: &[(u64, &str, bool, bool)]) -> Vec<u64> {
        let participant: ParticipantId = serde_json::from_value("a".into()).unwrap();
        let copies = copies.iter().map(|(peer, mix, is_audible, expects_audio)| {
            let routing = AudioRouting { is_audible: *is_audible, expects_audio: *expects_audio };
            (PeerId(*peer), (HubRef::Default, participant.clone(), (*mix).to_owned()), routing)
        });
        select_audible(copies).into_iter().map(|peer| peer.0).collect()
    }

    #[test]
    fn a_stream_that_arrives_twice_is_played_once_and_another_mix_too() {
        let copies = [(1, "m", true, true), (2, "m", true, true), (3, "n", true, true)];
        assert_eq!(audible(&copies), [1, 3]);
    }

    #[test]
    fn a_participant_with_the_same_id_at_another_hub_is_played_too() {
        let participant: ParticipantId = serde_json::from_value("a".into()).unwrap();
        let elsewhere = HubRef::At("evil.example".parse().unwrap());
        let copy = |peer, hub: HubRef, expects_audio| {
            let routing = AudioRouting { is_audible: true, expects_audio };
            (PeerId(peer), (hub, participant.clone(), "m".to_owned()), routing)
        };
        // With the same key, the one that is sending would replace the muted one.
        let copies = [copy(1, HubRef::Default, false), copy(2, elsewhere, true)];
        assert_eq!(select_audible(copies.into_iter()), [PeerId(1), PeerId(2)].into());
    }

    #[test]
    fn a_copy_that_may_be_played_is_chosen_over_one_that_may_not() {
        assert_eq!(audible(&[(1, "m", false, true), (2, "m", true, true)]), [2]);
        assert_eq!(audible(&[(1, "m", false, true), (2, "m", false, true)]), [0; 0]);
    }

    #[test]
    fn a_copy_that_is_sending_is_chosen_over_one_whose_sender_is_muted() {
        assert_eq!(audible(&[(1, "m", true, false), (2, "m", true, true)]), [2]);
        assert_eq!(audible(&[(1, "m", true, false), (2, "m", false, true)]), [1]);
        assert_eq!(audible(&[(1, "m", true, false), (2, "m", true, false)]), [1]);
    }
}
