//! Received media: one receiver for each remote track, and the speaker.

mod sound_link;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::mpsc;

use super::{
    Decode, EngineOptions, event_loop::EngineEvent, local_media::report_device_state,
    peer_stats::PeerStats, speakers::SessionLevels,
};
use crate::{
    conference::HubRef,
    media::{Codec, FarEnd, IncomingTrack, TrackRef, TrackSinks},
    model::{
        ActiveSpeaker, DeviceKind, InboundRtpStats, Media, ParticipantId, PeerId, PerSource,
        PlayoutStats, RtcStats, SessionId, ShownSize, Source, TrackId, TrackList,
    },
    playback::{
        AudioTrack, ClosingSpeaker, DecodePool, Speaker, SpeakerSpec, ToldLevel, ToneTap,
        VideoPlayer, VideoTrack, Voice,
    },
};

/// The receivers of all remote tracks, and the speaker that plays their audio.
pub(super) struct RemoteMedia {
    speaker_spec: SpeakerSpec,
    far_end: FarEnd,
    speaker: Option<Speaker>,
    /// The speaker that was closed last, while none is needed.
    closing: Option<ClosingSpeaker>,
    pool: Arc<DecodePool>,
    decode: Decode,
    track_sinks: TrackSinks,
    peers: BTreeMap<PeerId, PeerTracks>,
    /// The audio routing of peer connections, also of those without an audio track yet.
    audio_routing: BTreeMap<PeerId, AudioRouting>,
    /// What remote peers signal of their tracks, those that have arrived and others.
    signalled_tracks: BTreeMap<PeerId, TrackList>,
    measures_tones: bool,
    /// Remote sources from which no video is expected, with or without a video track.
    without_video: BTreeSet<(PeerId, Source)>,
    events: mpsc::Sender<EngineEvent>,
}

/// The session and the participant whose media a peer connection carries.
pub(super) type ParticipantKey = (SessionId, ParticipantId);

/// The remote tracks of one peer connection.
struct PeerTracks {
    participant: ParticipantKey,
    /// The hub that vouches for the participant.
    hub: HubRef,
    video: PerSource<Option<RemoteVideo>>,
    audio: PerSource<Option<RemoteAudio>>,
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

/// Identifies a remote track: its peer connection, and the source of the remote peer.
type TrackKey = (PeerId, Source);

/// A remote video track, and its first subscriber.
struct RemoteVideo {
    track: VideoTrack,
    player: VideoPlayer,
}

/// A remote audio track, and its first subscriber.
struct RemoteAudio {
    /// Its id on the peer connection, by which the remote peer signals what it carries.
    id: Option<TrackId>,
    track: AudioTrack,
    voice: Voice,
    /// Measures the tone, if that is wanted.
    tone: Option<ToneTap>,
}

impl RemoteMedia {
    /// Returns a state without tracks and with the speaker closed. What it plays, `far_end` gets as
    /// well.
    pub(super) fn new(
        options: &EngineOptions,
        (track_sinks, far_end): (TrackSinks, FarEnd),
        events: mpsc::Sender<EngineEvent>,
    ) -> Self {
        Self {
            speaker_spec: options.speaker.clone(),
            far_end,
            speaker: None,
            closing: None,
            pool: Arc::new(DecodePool::new()),
            decode: options.decode,
            track_sinks,
            peers: BTreeMap::new(),
            audio_routing: BTreeMap::new(),
            signalled_tracks: BTreeMap::new(),
            measures_tones: options.measures_tones,
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
                    received.audio = PerSource::default();
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

    /// Plays a sound of this program once; opens the speaker if it is closed. `on_end` is called at the
    /// end and must not block.
    pub(super) fn play_clip(&mut self, samples: Vec<f32>, on_end: Box<dyn FnOnce() + Send>) {
        self.set_speaker_demand(true);
        if let Some(speaker) = &self.speaker {
            speaker.play_clip(samples, on_end);
        }
    }

    /// Registers a peer connection, so that taps on its media can be opened before a track comes.
    pub(super) fn register_peer(&self, peer: PeerId) {
        for source in Source::ALL {
            self.track_sinks.register(TrackRef::Peer(peer, source));
        }
    }

    /// Sets the audio routing of a peer connection.
    pub(super) fn set_audio_routing(&mut self, peer: PeerId, routing: AudioRouting) {
        self.audio_routing.insert(peer, routing);
        for audio in self.peers.get(&peer).into_iter().flat_map(PeerTracks::audios) {
            audio.voice.set_muted(!routing.expects_audio);
        }
        self.play_each_stream_once();
    }

    /// Sets what a remote peer signals of its tracks. What is played follows.
    pub(super) fn set_signalled_tracks(&mut self, peer: PeerId, tracks: TrackList) {
        self.signalled_tracks.insert(peer, tracks);
        self.play_each_stream_once();
    }

    /// Sets whether video is expected from a source of a remote peer: a remote camera that is off
    /// is not counted as a freeze.
    pub(super) fn set_video_expected(&mut self, peer: PeerId, source: Source, expected: bool) {
        if expected {
            self.without_video.remove(&(peer, source));
        } else {
            self.without_video.insert((peer, source));
        }
        let received = self.peers.get(&peer);
        if let Some(video) = received.and_then(|received| received.video[source].as_ref()) {
            video.track.set_video_expected(expected);
        }
    }

    /// Decodes exactly the video that has a tap, or all, see [`Decode`]. Returns of
    /// which sources of ours a tap is open: on the video, on the level.
    pub(super) fn update_visibility(&self) -> PerSource<bool> {
        for (peer, received) in &self.peers {
            for (source, video) in received.video.iter() {
                if let Some(video) = video {
                    video.player.set_decoding(self.is_decoded(TrackRef::Peer(*peer, source)));
                }
            }
        }
        PerSource::from_fn(|source| self.track_sinks.has_taps(TrackRef::Local(source)))
    }

    /// At which size the videos of a remote peer are shown here; `None` for one that is wanted in
    /// full size.
    pub(super) fn shown_sizes(&self, peer: PeerId) -> PerSource<Option<ShownSize>> {
        PerSource::from_fn(|source| match self.decode {
            Decode::WhenSeen if source.media() == Media::Video => {
                self.track_sinks.shown_size(TrackRef::Peer(peer, source))
            }
            Decode::WhenSeen | Decode::WhenTapped | Decode::Always => None,
        })
    }

    /// Starts to receive a track.
    pub(super) fn add_track(
        &mut self,
        track: IncomingTrack,
        participant: ParticipantKey,
        hub: HubRef,
    ) {
        let (peer, source, codec) = (track.peer, track.source, track.codec);
        let track_ref = TrackRef::Peer(peer, source);
        let (frames, meter) = self.track_sinks.register(track_ref);
        let on_first = self.first_media_callback(peer, codec.media());
        self.peers.entry(peer).or_insert_with(|| PeerTracks::new(participant, hub));
        match codec {
            Codec::H264 => {
                let mut track = VideoTrack::new(track);
                let player = VideoPlayer::new(&track, &self.pool, frames, on_first);
                player.set_decoding(self.is_decoded(track_ref));
                track.set_video_expected(!self.without_video.contains(&(peer, source)));
                track.start();
                if let Some(received) = self.peers.get_mut(&peer) {
                    received.video[source] = Some(RemoteVideo { track, player });
                }
                self.link_sound(&self.audible_tracks());
            }
            Codec::Opus => {
                self.set_speaker_demand(true);
                let id = track.id.clone();
                let mut track = AudioTrack::new(track);
                if let Some(speaker) = &self.speaker
                    && let Some(received) = self.peers.get_mut(&peer)
                {
                    let voice = speaker.play(&track, meter, on_first);
                    let routing = self.audio_routing.get(&peer).unwrap_or(&AudioRouting::DEFAULT);
                    voice.set_muted(!routing.expects_audio);
                    let tone = self.measures_tones.then(|| voice.tap_tone());
                    track.start();
                    received.audio[source] = Some(RemoteAudio { id, track, voice, tone });
                }
                self.play_each_stream_once();
            }
        }
    }

    /// Closes the tracks of a peer connection and returns their last statistics.
    pub(super) fn remove_peer(&mut self, peer: PeerId) -> Option<(ParticipantKey, PeerStats)> {
        for source in Source::ALL {
            self.track_sinks.remove(TrackRef::Peer(peer, source));
            self.without_video.remove(&(peer, source));
        }
        self.audio_routing.remove(&peer);
        self.signalled_tracks.remove(&peer);
        let received = self.peers.remove(&peer)?;
        let stats = received.stats();
        let participant = received.participant.clone();
        drop(received);
        self.play_each_stream_once();
        if let Some(tone) = stats.tone.clone() {
            tokio::task::spawn_blocking(move || tone.stop());
        }
        Some((participant, stats))
    }

    /// Returns the current statistics of a peer connection's tracks; `None` if it has none.
    pub(super) fn stats(&self, peer: PeerId) -> Option<(&ParticipantKey, PeerStats)> {
        self.peers.get(&peer).map(|received| (&received.participant, received.stats()))
    }

    /// The level of each participant who may speak, since the last call: as its packets tell it, else as
    /// it is measured here.
    pub(super) fn speech_levels(&self) -> SessionLevels {
        let mut levels = SessionLevels::new();
        for ((peer, source), received, audio) in self.audio_tracks() {
            let (session, participant) = &received.participant;
            let speakers = levels.entry(session.clone()).or_default();
            let level = match audio.track.take_level() {
                ToldLevel::NoPackets => None,
                ToldLevel::Untold => Some(self.track_sinks.level(TrackRef::Peer(peer, source))),
                ToldLevel::Dbfs(level) => Some(level),
            };
            let routing = self.audio_routing.get(&peer).unwrap_or(&AudioRouting::DEFAULT);
            if routing.expects_audio {
                speakers.push((ActiveSpeaker::Participant(participant.clone()), level));
            }
        }
        levels
    }

    /// Adds what became of the received packets to the streams of a peer connection.
    pub(super) fn add_playout(&self, peer: PeerId, streams: &mut [RtcStats]) {
        let Some(received) = self.peers.get(&peer) else { return };
        for object in streams {
            if let RtcStats::InboundRtp(stream) = object {
                received.add_playout(stream);
            }
        }
    }

    /// Plays one copy of each audio stream that arrives over several sessions of one hub.
    fn play_each_stream_once(&self) {
        let audible = self.audible_tracks();
        for (key, _, audio) in self.audio_tracks() {
            audio.voice.set_audible(audible.contains(&key));
        }
        self.link_sound(&audible);
    }

    /// Returns the audio tracks that are played.
    fn audible_tracks(&self) -> BTreeSet<TrackKey> {
        select_audible(self.audio_tracks().map(|(key, received, audio)| {
            let mix = self.mix_of(key, audio).to_owned();
            let stream = (received.hub.clone(), received.participant.1.clone(), mix);
            let routing = self.audio_routing.get(&key.0).copied();
            (key, stream, routing.unwrap_or(AudioRouting::DEFAULT))
        }))
    }

    fn audio_tracks(&self) -> impl Iterator<Item = (TrackKey, &PeerTracks, &RemoteAudio)> {
        self.peers.iter().flat_map(|(peer, received)| {
            let tracks = received.audio.iter();
            tracks.filter_map(move |(source, audio)| {
                Some(((*peer, source), received, audio.as_ref()?))
            })
        })
    }

    /// Returns what an audio track carries: the mix that is signalled of it. A program of an
    /// earlier version signals none, and its `a=msid` names the only one.
    fn mix_of<'a>(&'a self, (peer, source): TrackKey, audio: &'a RemoteAudio) -> &'a str {
        let signalled = self.signalled_tracks.get(&peer).zip(audio.id.as_ref());
        let track = signalled.and_then(|(tracks, id)| tracks.find(id, source));
        track.map_or_else(|| audio.track.source_id(), |track| track.mix.as_str())
    }

    fn is_decoded(&self, track: TrackRef) -> bool {
        match self.decode {
            Decode::Always => true,
            Decode::WhenSeen | Decode::WhenTapped => self.track_sinks.has_frame_taps(track),
        }
    }

    fn open_speaker(&mut self) -> Speaker {
        let events = self.events.clone();
        let notify = move |state| report_device_state(&events, DeviceKind::Speaker, state);
        let before = self.closing.take();
        Speaker::open(&self.speaker_spec, before, self.far_end.clone(), Arc::new(notify))
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

/// Returns the tracks whose audio is played: one copy of each audio stream among those
/// that may be played, if possible one whose sender is not muted. A participant may be muted in one
/// session and speak in another.
fn select_audible(
    copies: impl Iterator<Item = (TrackKey, AudioStreamKey, AudioRouting)>,
) -> BTreeSet<TrackKey> {
    let mut best: BTreeMap<AudioStreamKey, (TrackKey, bool)> = BTreeMap::new();
    for (track, stream, AudioRouting { is_audible, expects_audio }) in copies {
        if !is_audible {
            continue;
        }
        let copy = best.entry(stream).or_insert((track, expects_audio));
        if expects_audio && !copy.1 {
            *copy = (track, expects_audio);
        }
    }
    best.into_values().map(|(track, _)| track).collect()
}

impl PeerTracks {
    fn new(participant: ParticipantKey, hub: HubRef) -> Self {
        let (video, audio) = (PerSource::default(), PerSource::default());
        Self { participant, hub, video, audio }
    }

    /// The statistics of the first track of each medium.
    fn stats(&self) -> PeerStats {
        PeerStats {
            video: self.videos().next().map(|video| video.track.stats()),
            audio: self.audios().next().map(|audio| audio.voice.stats()),
            tone: self.audios().next().and_then(|audio| audio.tone.clone()),
            ..PeerStats::default()
        }
    }

    fn videos(&self) -> impl Iterator<Item = &RemoteVideo> {
        self.video.iter().filter_map(|(_, track)| track.as_ref())
    }

    fn audios(&self) -> impl Iterator<Item = &RemoteAudio> {
        self.audio.iter().filter_map(|(_, track)| track.as_ref())
    }

    /// Adds the track's id and its playout to the stream that carries it.
    fn add_playout(&self, stream: &mut InboundRtpStats) {
        if let Some(RemoteVideo { track, .. }) =
            self.videos().find(|video| video.track.ssrc() == stream.ssrc)
        {
            stream.track_identifier = Some(track.source_id().to_owned());
            stream.playout = Some(PlayoutStats::Video(track.playout_stats()));
        }
        if let Some(RemoteAudio { track, voice, .. }) =
            self.audios().find(|audio| audio.track.ssrc() == stream.ssrc)
        {
            stream.track_identifier = Some(track.source_id().to_owned());
            stream.playout = Some(PlayoutStats::Audio(voice.playout_stats()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{KeyframeRequest, RoundTripTime, SenderReports, TrackFailure};

    const fn key(peer: u64) -> TrackKey {
        (PeerId(peer), Source::Microphone)
    }

    /// Received media without a speaker device.
    fn remote_media() -> RemoteMedia {
        let options = EngineOptions::without_devices();
        let shared = (TrackSinks::default(), FarEnd::default());
        RemoteMedia::new(&options, shared, mpsc::channel(64).0)
    }

    /// An audio track "0" of participant "a" arrives, with that track id in its `a=msid`.
    fn add_audio(media: &mut RemoteMedia, peer: u64, msid: &str) {
        let track = IncomingTrack {
            peer: PeerId(peer),
            id: TrackId::new("0"),
            source: Source::Microphone,
            codec: Codec::Opus,
            ssrc: 1,
            stream_id: "stream".to_owned(),
            source_id: msid.to_owned(),
            packets: mpsc::channel(1).1,
            keyframe_request: KeyframeRequest::default(),
            sender_reports: SenderReports::default(),
            round_trip: RoundTripTime::default(),
            failure: TrackFailure::default(),
        };
        let session = SessionId::parse(&format!("s{peer}")).unwrap();
        let participant: ParticipantId = serde_json::from_value("a".into()).unwrap();
        media.add_track(track, (session, participant), HubRef::Default);
    }

    /// The remote peer signals what its track "0" carries.
    fn signal_mix(media: &mut RemoteMedia, peer: u64, source: &str, mix: &str) {
        let entry = format!(r#"[{{"id":"0","source":"{source}","on":true,"mix":"{mix}"}}]"#);
        media.set_signalled_tracks(PeerId(peer), serde_json::from_str(&entry).unwrap());
    }

    fn played(media: &RemoteMedia) -> Vec<u64> {
        media.audible_tracks().into_iter().map(|(peer, _)| peer.0).collect()
    }

    #[tokio::test]
    async fn the_routing_follows_the_signalled_mix() {
        let mut media = remote_media();
        add_audio(&mut media, 1, "m");
        add_audio(&mut media, 2, "m");
        assert_eq!(played(&media), [1], "no mix is signalled: one track of each msid");
        signal_mix(&mut media, 1, "microphone", "m");
        assert_eq!(played(&media), [1], "the other program has not signalled yet");
        signal_mix(&mut media, 2, "microphone", "whisper");
        assert_eq!(played(&media), [1, 2], "the second track carries something else now");
        signal_mix(&mut media, 1, "microphone", "whisper");
        assert_eq!(played(&media), [1]);
        signal_mix(&mut media, 1, "microphone", "m");
        media.remove_peer(PeerId(1));
        assert_eq!(played(&media), [2]);
    }

    #[tokio::test]
    async fn equal_mixes_are_played_once_whatever_their_msid() {
        let mut media = remote_media();
        signal_mix(&mut media, 2, "microphone", "m");
        add_audio(&mut media, 1, "m");
        add_audio(&mut media, 2, "random");
        assert_eq!(played(&media), [1], "the signal may come before the track");
        signal_mix(&mut media, 2, "hologram", "m");
        assert_eq!(played(&media), [1, 2], "an unknown source is ignored");
    }

    /// Returns the peer connections that are played, of copies: id, mix, may be played, is sending.
    fn audible(copies: &[(u64, &str, bool, bool)]) -> Vec<u64> {
        let participant: ParticipantId = serde_json::from_value("a".into()).unwrap();
        let copies = copies.iter().map(|(peer, mix, is_audible, expects_audio)| {
            let routing = AudioRouting { is_audible: *is_audible, expects_audio: *expects_audio };
            (key(*peer), (HubRef::Default, participant.clone(), (*mix).to_owned()), routing)
        });
        select_audible(copies).into_iter().map(|(peer, _)| peer.0).collect()
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
            (key(peer), (hub, participant.clone(), "m".to_owned()), routing)
        };
        // With the same key, the one that is sending would replace the muted one.
        let copies = [copy(1, HubRef::Default, false), copy(2, elsewhere, true)];
        assert_eq!(select_audible(copies.into_iter()), [key(1), key(2)].into());
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
