//! What a participant signals that it sends.

use crate::model::{PerSource, ShownSize, Source, TrackId, TrackList, WantedTracks};

/// What a participant signals that it sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SignalledMedia {
    /// The sources that it sends.
    pub(super) sources: PerSource<bool>,
    /// The tracks of the peer connection; none if its program is of an earlier version.
    pub(super) tracks: TrackList,
    /// What it shows of our video; `None` if it wants all in full size.
    pub(super) wants: Option<WantedTracks>,
}

impl SignalledMedia {
    /// What `media` says. The list of tracks counts if there is one: an earlier version has only
    /// the two sources.
    pub(super) fn new(
        (microphone, camera): (bool, bool),
        tracks: Option<TrackList>,
        wants: Option<WantedTracks>,
    ) -> Self {
        if let Some(tracks) = tracks {
            return Self { sources: tracks.sources_on(), tracks, wants };
        }
        let mut sources = PerSource::NONE;
        sources[Source::Microphone] = microphone;
        sources[Source::Camera] = camera;
        Self { sources, tracks: TrackList::default(), wants }
    }

    /// The size at which it shows our track with this id; `None` for full size.
    pub(super) fn shown(&self, track: Option<&TrackId>) -> Option<ShownSize> {
        self.wants.as_ref().zip(track).map(|(wants, id)| wants.size_of(id))
    }

    /// The peer connection is closed: the ids of its tracks mean nothing on another.
    pub(super) fn forget_tracks(&mut self) {
        (self.tracks, self.wants) = (TrackList::default(), None);
    }
}

impl Default for SignalledMedia {
    /// What a participant is assumed to send until it signals it: everything.
    fn default() -> Self {
        Self { sources: PerSource::ALL, tracks: TrackList::default(), wants: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Effect, Input, tests::fixture::*};
    use super::*;
    use crate::model::{
        Command, DataUse, Layer, MixId, MuteSwitch, NegotiatedMedia, Payload, PeerEvent, PeerId,
        PeerState, Track, TrackId,
    };

    /// A connection to "a" is up, with these tracks for our sources.
    fn connected(tracks: PerSource<Option<TrackId>>) -> Fixture {
        let mut fixture = Fixture::opened(MESH);
        let agreed = NegotiatedMedia { tracks, ..NegotiatedMedia::default() };
        fixture
            .receive(participant_joined(member("a")))
            .peer_event(1, PeerEvent::Negotiated(agreed))
            .peer_state(1, PeerState::Connected);
        fixture
    }

    fn both_tracks() -> PerSource<Option<TrackId>> {
        PerSource { camera: TrackId::new("1"), microphone: TrackId::new("0") }
    }

    /// The tracks of the signals that were sent: id, source, whether it is on.
    fn signalled(fixture: &Fixture) -> Vec<Option<Vec<(TrackId, Source, bool)>>> {
        let signals = fixture.signals().into_iter().filter_map(|payload| {
            let Payload::Media { tracks, .. } = payload else { return None };
            let read = |track: &Track| (track.id.clone(), track.source.unwrap(), track.on);
            Some(tracks.map(|tracks| tracks.iter().map(read).collect()))
        });
        signals.collect()
    }

    fn media_with(mix: &str, on: bool) -> Payload {
        let track = Track {
            id: TrackId::new("0").unwrap(),
            source: Some(Source::Microphone),
            on,
            mix: MixId::new(mix).unwrap(),
        };
        let tracks = Some([track].into_iter().collect());
        Payload::Media { microphone: !on, camera: true, tracks, wants: None }
    }

    /// The mixes of the tracks that the engine was given, by the connection.
    fn remote_mixes(fixture: &Fixture) -> Vec<(PeerId, Vec<String>)> {
        let set = fixture.effects.iter().filter_map(|effect| {
            let Effect::SetRemoteTracks { peer, tracks } = effect else { return None };
            Some((*peer, tracks.iter().map(|track| track.mix.as_str().to_owned()).collect()))
        });
        set.collect()
    }

    #[test]
    fn each_of_our_tracks_is_signalled_by_its_id() {
        let mut fixture = connected(both_tracks());
        let (camera, microphone) = (TrackId::new("1").unwrap(), TrackId::new("0").unwrap());
        let all = |is_sent| {
            Some(vec![
                (camera.clone(), Source::Camera, is_sent),
                (microphone.clone(), Source::Microphone, true),
            ])
        };
        assert_eq!(signalled(&fixture), [all(true)]);
        fixture.set_switch(None, MuteSwitch::Source(Source::Camera), false);
        assert_eq!(signalled(&fixture), [all(false)]);
    }

    #[test]
    fn a_track_is_signalled_with_the_mix_of_its_msid() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a")));
        let mixes = fixture.effects.iter().find_map(|effect| {
            if let Effect::OpenPeer { mixes, .. } = effect { Some(mixes.clone()) } else { None }
        });
        let fixture = connected(both_tracks());
        let signals = fixture.signals();
        let [Payload::Media { tracks: Some(tracks), .. }] = &signals[..] else {
            panic!("{signals:?}")
        };
        for track in tracks.iter() {
            assert_eq!(Some(&track.mix), mixes.as_ref().map(|mixes| &mixes[track.source.unwrap()]));
        }
    }

    #[test]
    fn without_the_id_of_each_track_none_is_listed() {
        let fixture = connected(PerSource { camera: None, microphone: TrackId::new("0") });
        assert_eq!(signalled(&fixture), [None], "a list without the camera would say it is off");
    }

    #[test]
    fn the_tracks_of_a_participant_count_and_their_mixes_are_followed() {
        let mut fixture = connected(both_tracks());
        fixture.receive(signal("a", media_with("m", true)));
        assert_eq!(remote_mixes(&fixture), [(PeerId(1), vec!["m".to_owned()])]);
        assert_eq!(fixture.status().participants[0].sends, MICROPHONE);
        fixture.receive(signal("a", media_with("m", true)));
        assert_eq!(remote_mixes(&fixture), []);
        fixture.receive(signal("a", media_with("whisper", false)));
        assert_eq!(remote_mixes(&fixture), [(PeerId(1), vec!["whisper".to_owned()])]);
        assert_eq!(fixture.status().participants[0].sends, NEITHER);
        fixture.receive(signal("a", media(CAMERA)));
        assert_eq!(remote_mixes(&fixture), [(PeerId(1), vec![])], "it lists none any more");
        assert_eq!(fixture.status().participants[0].sends, CAMERA);
    }

    /// The sizes of our videos that the engine was given, by the connection.
    fn limits(fixture: &Fixture) -> Vec<(PeerId, Option<ShownSize>)> {
        let set = fixture.effects.iter().filter_map(|effect| {
            let Effect::LimitVideo { peer, size, .. } = effect else { return None };
            Some((*peer, *size))
        });
        set.collect()
    }

    const SMALL: ShownSize = ShownSize { width: 320, height: 180 };

    #[test]
    fn what_a_participant_shows_of_our_video_is_passed_on() {
        let mut fixture = connected(both_tracks());
        let media = |wants: &str| {
            let text = format!(r#"{{"type":"media","microphone":true,"camera":true{wants}}}"#);
            signal("a", serde_json::from_str(&text).unwrap())
        };
        fixture.receive(media(r#","wants":[{"id":"1","width":320,"height":180}]"#));
        assert_eq!(limits(&fixture), [(PeerId(1), Some(SMALL))]);
        fixture.receive(media(r#","wants":[{"id":"1","width":320,"height":180},7]"#));
        assert_eq!(limits(&fixture), []);
        fixture.receive(media(r#","wants":[{"id":"0","width":320,"height":180}]"#));
        assert_eq!(limits(&fixture), [(PeerId(1), Some(ShownSize::HIDDEN))]);
        fixture.receive(media(""));
        assert_eq!(limits(&fixture), [(PeerId(1), None)], "an earlier version wants all");
    }

    #[test]
    fn what_we_show_of_a_participant_is_signalled() {
        let wants = |fixture: &Fixture| {
            let signals = fixture.signals().into_iter().filter_map(|payload| {
                let Payload::Media { wants, .. } = payload else { return None };
                Some(serde_json::to_string(&wants).unwrap())
            });
            signals.collect::<Vec<_>>()
        };
        let shown = |camera| Input::Shown(PeerId(1), PerSource { camera, microphone: None });
        let mut fixture = connected(both_tracks());
        fixture.handle(shown(None));
        assert_eq!(wants(&fixture), [""; 0], "as it is by default");
        fixture.handle(shown(Some(SMALL)));
        assert_eq!(wants(&fixture), [r#"[{"id":"1","width":320,"height":180}]"#]);
        fixture.handle(shown(Some(SMALL)));
        assert_eq!(wants(&fixture), [""; 0]);
        fixture.handle(shown(Some(ShownSize::HIDDEN)));
        assert_eq!(wants(&fixture), [r#"[{"id":"1","width":0,"height":0}]"#]);
        fixture.handle(shown(None));
        assert_eq!(wants(&fixture), ["null"]);
    }

    /// What was set to be sent, and what was signalled that we want, since the last call.
    fn changes(fixture: &mut Fixture, data_use: DataUse) -> (Vec<Option<Layer>>, Vec<String>) {
        let session = session();
        fixture.handle(Input::Command(Command::SetDataUse { session, data_use }));
        let sent = fixture.effects.iter().filter_map(|effect| {
            let Effect::SetSending { layers, .. } = effect else { return None };
            Some(layers.camera)
        });
        let wants = fixture.signals().into_iter().filter_map(|payload| {
            let Payload::Media { wants, .. } = payload else { return None };
            Some(serde_json::to_string(&wants).unwrap())
        });
        (sent.collect(), wants.collect())
    }

    #[test]
    fn a_session_that_saves_data_receives_and_sends_the_smallest_layer_or_no_video() {
        let mut fixture = connected(both_tracks());
        let small = r#"[{"id":"1","width":320,"height":180}]"#.to_owned();
        let hidden = r#"[{"id":"1","width":0,"height":0}]"#.to_owned();
        let saving = changes(&mut fixture, DataUse::Saving);
        assert_eq!(saving, (vec![Some(Layer::Quarter)], vec![small.clone()]));
        assert_eq!(fixture.status().data_use, DataUse::Saving);
        assert_eq!(changes(&mut fixture, DataUse::Saving), (vec![], vec![]));
        assert_eq!(changes(&mut fixture, DataUse::AudioOnly), (vec![None], vec![hidden]));
        assert!(fixture.effects.iter().any(|effect| {
            matches!(effect, Effect::ExpectVideo { source: Source::Camera, expected: false, .. })
        }));
        let full = changes(&mut fixture, DataUse::Full);
        assert_eq!(full, (vec![Some(Layer::Full)], vec!["null".to_owned()]));
        // The size at which it is shown still counts.
        let camera = Some(ShownSize { width: 1280, height: 720 });
        fixture.handle(Input::Shown(PeerId(1), PerSource { camera, microphone: None }));
        assert_eq!(changes(&mut fixture, DataUse::Saving).1, [small]);
        // Another participant of the session gets no more either.
        fixture.receive(participant_joined(member("b"))).peer_state(2, PeerState::Connected);
        let layers = fixture.effects.iter().find_map(|effect| {
            let Effect::SetSending { peer: PeerId(2), layers } = effect else { return None };
            Some(layers.camera)
        });
        assert_eq!(layers, Some(Some(Layer::Quarter)));
    }

    #[test]
    fn the_tracks_of_a_connection_mean_nothing_on_the_next_one() {
        let mut fixture = connected(both_tracks());
        fixture
            .receive(signal("a", media_with("m", true)))
            .peer_state(1, PeerState::Failed)
            .advance_ms(600);
        assert_eq!((fixture.opened_peers(), remote_mixes(&fixture)), (vec![2], vec![]));
        fixture.peer_state(2, PeerState::Connected);
        assert_eq!(remote_mixes(&fixture), []);
    }
}
