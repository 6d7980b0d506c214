//! Which sound belongs to which video.

use std::collections::BTreeSet;

use super::{PeerTracks, RemoteAudio, RemoteMedia, TrackKey};

impl RemoteMedia {
    /// Plays each video in sync with the sound of the same participant and stream, where that is
    /// heard: the same microphone may arrive over several connections, of which one is played.
    pub(super) fn link_sound(&self, audible: &BTreeSet<TrackKey>) {
        for (peer, received) in &self.peers {
            for video in received.videos() {
                let stream = video.track.stream_id();
                let belongs = |(key, other, audio): &(TrackKey, &PeerTracks, &RemoteAudio)| {
                    audible.contains(key)
                        && (&other.hub, &other.participant.1)
                            == (&received.hub, &received.participant.1)
                        && audio.track.stream_id() == stream
                };
                // A stream without an id belongs to no other (RFC 8830, section 2).
                let has_id = !matches!(stream, "" | "-");
                let sounds = self.audio_tracks().filter(|one| has_id && belongs(one));
                let nearest = sounds.min_by_key(|(key, ..)| key.0 != *peer);
                let clock = nearest.map(|(_, _, audio)| audio.voice.sound_clock());
                video.player.set_sound(clock);
            }
        }
    }
}
