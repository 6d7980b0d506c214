//! One peer connection to one participant: its negotiation, its state, and the media that it sends.

use std::time::Duration;

use super::{
    context::{ParticipantContext, SessionInfo},
    deadline::{Deadline, TimerName},
    effects::{Effect, EffectQueue, PeerOwner, Playback},
    negotiation::{Action, Negotiation, NegotiationNeeded},
    reachability::Reachability,
    signalled_media::SignalledMedia,
};
use crate::model::{
    ConnectionFailure, DataUse, Enabled, Layer, Media, MediaTime, NegotiatedMedia, ParticipantId,
    Payload, PeerCommand, PeerEvent, PeerId, PeerMedia, PeerState, PerSource, ShownSize, Source,
    Track, TrackList, WantedTrack, WantedTracks,
};

/// An open peer connection.
#[derive(Debug)]
pub(super) struct Peer {
    id: PeerId,
    generation: u32,
    polite: bool,
    media: PeerMedia,
    /// The media that the two ends negotiated.
    negotiated: NegotiatedMedia,
    /// The sources that it sends.
    sending: PerSource<bool>,
    /// The highest layer of video that it sends.
    highest_layer: Layer,
    /// How its audio is played.
    playback: Playback,
    /// Of which sources video is expected.
    expects_video: PerSource<bool>,
    /// The tracks that the remote peer signals.
    remote_tracks: TrackList,
    /// At which size we show its videos; `None` for full size.
    shown: PerSource<Option<ShownSize>>,
    /// At which size it shows ours.
    shown_there: PerSource<Option<ShownSize>>,
    media_state: MediaState,
    negotiation: Negotiation,
    ice_restarted: bool,
    /// Since when this machine lacks the address that media were sent from, until ICE is restarted.
    address_lost_at: Option<MediaTime>,
    reachability: Reachability,
}

/// Whether media flows on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MediaState {
    /// None has arrived yet.
    New { since: MediaTime },
    /// Packets arrive.
    Connected { since: MediaTime },
    /// No packet has arrived for some seconds; the connection may recover.
    Disconnected { since: MediaTime },
}

/// How long a connection may take until packets flow.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a connection may be silent while its remote peer is at the hub, before it is replaced.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long no packet has arrived when a connection reports `Disconnected`.
pub(super) const DISCONNECTED_AFTER: Duration = Duration::from_secs(3);

/// How long an offer on a running connection may stay unanswered before it is made again.
///
/// That takes so long only if a signal was lost on the way through the hub; media goes on
/// meanwhile.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is silent before ICE is restarted, by the impolite and by the polite end:
/// staggered, so that their offers seldom collide.
const ICE_RESTART_AFTER: [Duration; 2] = [Duration::from_millis(5000), Duration::from_millis(7500)];

impl Peer {
    /// Opens a connection of that generation to a participant.
    pub(super) fn open(
        generation: u32,
        to: &ParticipantId,
        cx: &mut ParticipantContext<'_>,
    ) -> Self {
        let media = cx.info.peer_media();
        let polite = cx.info.me > *to;
        let (session, hub) = (cx.info.session.clone(), cx.info.hub.clone());
        let owner = PeerOwner { session, participant: to.clone(), hub, generation };
        let mixes = PerSource::from_fn(|source| cx.info.mix(source));
        let id = cx.effects.open_peer(owner, media, mixes);
        let media_state = MediaState::New { since: cx.now };
        let negotiation = Negotiation::new(polite, generation);
        Self {
            id,
            generation,
            polite,
            media,
            negotiated: NegotiatedMedia::default(),
            sending: PerSource::NONE,
            highest_layer: Layer::Full,
            playback: Playback { is_audible: true, is_expected: true },
            expects_video: PerSource::ALL,
            remote_tracks: TrackList::default(),
            shown: PerSource::default(),
            shown_there: PerSource::default(),
            media_state,
            negotiation,
            ice_restarted: false,
            address_lost_at: None,
            reachability: Reachability::default(),
        }
    }

    pub(super) const fn id(&self) -> PeerId {
        self.id
    }

    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) const fn media_state(&self) -> MediaState {
        self.media_state
    }

    /// Whether no media has ever arrived on it.
    pub(super) const fn is_new(&self) -> bool {
        matches!(self.media_state, MediaState::New { .. })
    }

    /// Whether both descriptions are set, so that packets could flow.
    pub(super) const fn has_negotiated(&self) -> bool {
        self.negotiation.has_negotiated()
    }

    /// The sources that it sends.
    pub(super) const fn sending(&self) -> PerSource<bool> {
        self.sending
    }

    /// Those of the enabled sources that go to the remote peer.
    pub(super) fn enabled_sources(&self, enabled: PerSource<bool>) -> PerSource<bool> {
        enabled.and(self.media.sends()).and(self.negotiated.sends)
    }

    /// Sets the negotiated media. Returns `false` if none is left.
    pub(super) fn set_negotiated(&mut self, negotiated: NegotiatedMedia) -> bool {
        self.negotiated = negotiated;
        !self.negotiated.is_empty(self.media)
    }

    /// Applies the mute switches to what it sends and to how its media is received, given
    /// what the remote peer signals that it sends.
    pub(super) fn apply_enabled(
        &mut self,
        enabled: Enabled,
        signalled: &SignalledMedia,
        cx: &mut ParticipantContext<'_>,
    ) {
        let (data_use, effects) = (cx.info.data_use, &mut *cx.effects);
        let theirs = signalled.sources.and(self.negotiated.receives);
        let sending =
            if self.is_new() { PerSource::NONE } else { self.enabled_sources(enabled.sources) };
        if (sending, data_use.layer()) != (self.sending, self.highest_layer) {
            (self.sending, self.highest_layer) = (sending, data_use.layer());
            let layers = sending.map(|is_sent| is_sent.then_some(data_use.layer()));
            effects.push(Effect::SetSending { peer: self.id, layers });
        }
        let is_silent = matches!(self.media_state, MediaState::Disconnected { .. });
        let is_expected = theirs.microphone && !is_silent;
        let playback = Playback { is_audible: enabled.listening, is_expected };
        if self.receives_audio() && playback != self.playback {
            self.playback = playback;
            effects.push(Effect::SetPlayback { peer: self.id, playback });
        }
        let receives = self.media.receives();
        let is_video = |source: &Source| source.media() == Media::Video && receives[*source];
        for source in Source::ALL.into_iter().filter(is_video) {
            let expected = theirs[source] && data_use.has_video();
            if std::mem::replace(&mut self.expects_video[source], expected) != expected {
                effects.push(Effect::ExpectVideo { peer: self.id, source, expected });
            }
        }
        self.limit_video(signalled, effects);
        if signalled.tracks != self.remote_tracks {
            self.remote_tracks = signalled.tracks.clone();
            let tracks = signalled.tracks.clone();
            effects.push(Effect::SetRemoteTracks { peer: self.id, tracks });
        }
    }

    /// Passes on at which size the remote peer shows our videos.
    fn limit_video(&mut self, signalled: &SignalledMedia, effects: &mut EffectQueue) {
        let sends = self.media.sends();
        let is_video = |source: &Source| source.media() == Media::Video && sends[*source];
        for source in Source::ALL.into_iter().filter(is_video) {
            let size = signalled.shown(self.negotiated.tracks[source].as_ref());
            if std::mem::replace(&mut self.shown_there[source], size) != size {
                effects.push(Effect::LimitVideo { peer: self.id, source, size });
            }
        }
    }

    /// Sets at which size we show the videos of the remote peer.
    pub(super) fn set_shown(&mut self, shown: PerSource<Option<ShownSize>>) {
        self.shown = shown;
    }

    /// The videos of the remote peer that we show; `None` if we want all in full size.
    fn wants(&self, data_use: DataUse) -> Option<WantedTracks> {
        let received = self.media.receives().and(self.negotiated.receives);
        let videos: Vec<_> = Source::ALL
            .into_iter()
            .filter(|source| source.media() == Media::Video && received[*source])
            .collect();
        let shown = self.shown.map(|size| data_use.limit(size));
        if videos.iter().all(|source| shown[*source].is_none()) {
            return None;
        }
        let wanted = videos.into_iter().map(|source| {
            let size = shown[source].unwrap_or(ShownSize::MAX);
            Some(WantedTrack { id: self.negotiated.tracks[source].clone()?, size })
        });
        // A list that lacks a track whose id is not known would say that it is not shown.
        wanted.collect()
    }

    /// The signal that tells the remote peer that we send these sources now.
    pub(super) fn media_signal(&self, on: PerSource<bool>, info: &SessionInfo) -> Payload {
        let sent = self.media.sends().and(self.negotiated.sends);
        let track = |source: Source| {
            let id = self.negotiated.tracks[source].clone()?;
            Some(Track { id, source: Some(source), on: on[source], mix: info.mix(source) })
        };
        // A list that lacks a track whose id is not known would say that it is off.
        let tracks = Source::ALL.into_iter().filter(|source| sent[*source]).map(track);
        let tracks = tracks.collect::<Option<TrackList>>().filter(|tracks| !tracks.is_empty());
        let wants = self.wants(info.data_use);
        Payload::Media { microphone: on.microphone, camera: on.camera, tracks, wants }
    }

    /// Whether it may receive audio.
    pub(super) fn receives_audio(&self) -> bool {
        self.media.receives().microphone
    }

    /// Whether the remote peer hears us if no switch mutes our microphone.
    pub(super) fn may_send_audio(&self) -> bool {
        self.enabled_sources(PerSource::ALL).microphone
    }

    /// Makes an offer, as soon as that is legal.
    pub(super) fn offer(
        &mut self,
        to: &ParticipantId,
        cx: &mut ParticipantContext<'_>,
    ) -> Result<(), ConnectionFailure> {
        self.negotiation.request(NegotiationNeeded::Initial);
        self.run_actions(to, cx)
    }

    /// Handles a signal of the remote peer about this connection.
    pub(super) fn handle_signal(
        &mut self,
        payload: Payload,
        from: &ParticipantId,
        cx: &mut ParticipantContext<'_>,
    ) -> Result<(), ConnectionFailure> {
        match &payload {
            Payload::Offer { sdp, .. } | Payload::Answer { sdp, .. } => {
                self.reachability.note_theirs(sdp)
            }
            Payload::Candidate { candidate, .. } => self.reachability.note_theirs(candidate),
            Payload::Media { .. } | Payload::Unknown => {}
        }
        self.negotiation.handle_signal(payload);
        self.run_actions(from, cx)
    }

    /// Handles an event of the connection.
    pub(super) fn handle_event(
        &mut self,
        event: PeerEvent,
        of: &ParticipantId,
        cx: &mut ParticipantContext<'_>,
    ) -> Result<(), ConnectionFailure> {
        match &event {
            PeerEvent::State(state) => return self.on_state(*state, cx),
            PeerEvent::LocalDescription { sdp, .. } => self.reachability.note_ours(sdp),
            PeerEvent::Candidate(candidate) => self.reachability.note_ours(&candidate.line),
            PeerEvent::AddressLost => self.address_lost_at = Some(cx.now),
            PeerEvent::Applied { .. }
            | PeerEvent::Failed { .. }
            | PeerEvent::Negotiated(_)
            | PeerEvent::ChannelOpen(_)
            | PeerEvent::ChannelMessage(_) => {}
        }
        self.negotiation.handle_event(event, cx.now);
        self.run_actions(of, cx)
    }

    /// Handles the deadlines that have passed. Returns an error if the connection has timed out.
    pub(super) fn handle_timeout(
        &mut self,
        with: &ParticipantId,
        cx: &mut ParticipantContext<'_>,
    ) -> Result<(), ConnectionFailure> {
        let Some(due) = self.next_deadline() else { return Ok(()) };
        if cx.now < due.at {
            return Ok(());
        }
        match self.media_state {
            MediaState::New { .. } => return Err(self.connect_failure()),
            MediaState::Disconnected { since } if cx.now >= since + SILENCE_TIMEOUT => {
                return Err(ConnectionFailure::Silent);
            }
            MediaState::Connected { .. } | MediaState::Disconnected { .. }
                if self.address_lost_at.take().is_some() =>
            {
                self.negotiation.request(NegotiationNeeded::IceRestart);
            }
            MediaState::Disconnected { .. } => {
                self.ice_restarted = true;
                self.negotiation.request(NegotiationNeeded::IceRestart);
            }
            MediaState::Connected { .. } => self.negotiation.retry_offer(),
        }
        self.run_actions(with, cx)
    }

    /// The next deadline, as long as the remote peer can be reached through the hub.
    pub(super) fn next_deadline(&self) -> Option<Deadline<'_>> {
        let lost = self.address_lost_at.filter(|_| !self.is_new());
        let restart = lost.map(|at| TimerName::IceRestart.at(at));
        restart.into_iter().chain(self.media_deadline()).min()
    }

    fn media_deadline(&self) -> Option<Deadline<'_>> {
        let next = match self.media_state {
            MediaState::New { since } => TimerName::ConnectTimeout.at(since + CONNECT_TIMEOUT),
            MediaState::Connected { since } => {
                let offered = self.negotiation.unanswered_since()?;
                TimerName::AnswerTimeout.at(offered.max(since) + ANSWER_TIMEOUT)
            }
            MediaState::Disconnected { since } if self.ice_restarted => {
                TimerName::SilenceTimeout.at(since + SILENCE_TIMEOUT)
            }
            MediaState::Disconnected { since } => {
                TimerName::IceRestart.at(since + ICE_RESTART_AFTER[usize::from(self.polite)])
            }
        };
        Some(next)
    }

    /// Closes the connection.
    pub(super) fn close(self, cx: &mut ParticipantContext<'_>) {
        cx.effects.close_peer(self.id);
    }

    /// Why no packets have ever arrived on it.
    pub(super) fn connect_failure(&self) -> ConnectionFailure {
        if !self.has_negotiated() {
            return ConnectionFailure::NoAnswer;
        }
        self.reachability.diagnosis()
    }

    fn on_state(
        &mut self,
        state: PeerState,
        cx: &mut ParticipantContext<'_>,
    ) -> Result<(), ConnectionFailure> {
        match (state, self.media_state) {
            (PeerState::Connected, MediaState::New { .. }) => {
                self.media_state = MediaState::Connected { since: cx.now };
            }
            (PeerState::Connected, MediaState::Disconnected { .. }) => {
                self.media_state = MediaState::Connected { since: cx.now };
                (self.ice_restarted, self.address_lost_at) = (false, None);
            }
            (PeerState::Disconnected, MediaState::Connected { since }) => {
                let since_silence = cx.time_before(DISCONNECTED_AFTER).max(since);
                self.media_state = MediaState::Disconnected { since: since_silence };
            }
            (PeerState::Failed, MediaState::New { .. }) => return Err(self.connect_failure()),
            (PeerState::Failed, MediaState::Connected { .. } | MediaState::Disconnected { .. }) => {
                return Err(ConnectionFailure::BrokenOff);
            }
            (PeerState::Connecting, _)
            | (PeerState::Connected, MediaState::Connected { .. })
            | (PeerState::Disconnected, MediaState::New { .. } | MediaState::Disconnected { .. }) =>
                {}
        }
        Ok(())
    }

    fn run_actions(
        &mut self,
        with: &ParticipantId,
        cx: &mut ParticipantContext<'_>,
    ) -> Result<(), ConnectionFailure> {
        while let Some(next) = self.negotiation.poll_action() {
            match next {
                Action::Command(command) => self.send_command(command, cx),
                Action::Signal(payload) => cx.send_signal(with, payload),
                Action::Fail(reason) => {
                    return Err(ConnectionFailure::NotAgreed { reason });
                }
            }
        }
        Ok(())
    }

    fn send_command(&self, command: PeerCommand, cx: &mut ParticipantContext<'_>) {
        cx.effects.push(Effect::Peer { peer: self.id, command });
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::*;
    use super::*;
    use crate::model::{LeaveReason, OperationId};

    #[test]
    fn a_connection_sends_from_when_it_is_connected() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a")));
        let is_set_sending = |one: &&Effect| matches!(one, Effect::SetSending { .. });
        assert_eq!(fixture.effects.iter().filter(is_set_sending).count(), 0);
        fixture.peer_state(1, PeerState::Connecting).peer_state(1, PeerState::Connected);
        let (peer, layers) = (PeerId(1), PerSource::from_fn(|_| Some(Layer::Full)));
        assert!(fixture.effects.contains(&Effect::SetSending { peer, layers }));
        fixture.peer_state(1, PeerState::Connected);
        assert_eq!(fixture.effects, []);
    }

    #[test]
    fn events_of_a_closed_connection_are_ignored() {
        let mut fixture = Fixture::opened(MESH);
        fixture
            .receive(participant_joined(member("a")))
            .receive(participant_left("a", LeaveReason::Left));
        let sdp = "late".to_owned();
        let kind = crate::model::DescriptionKind::Offer;
        fixture.peer_event(1, PeerEvent::LocalDescription { operation: OperationId(1), kind, sdp });
        fixture
            .peer_state(1, PeerState::Connected)
            .peer_event(1, PeerEvent::Applied { operation: OperationId(1) });
        assert_eq!(fixture.effects, []);
    }

    #[test]
    fn the_end_with_the_greater_id_is_polite() {
        for (other, gives_way) in [("a", true), ("z", false)] {
            let mut fixture = Fixture::opened(MESH);
            fixture.receive(participant_joined(member(other)));
            let (kind, sdp) = (crate::model::DescriptionKind::Offer, "mine".to_owned());
            fixture.peer_event(
                1,
                PeerEvent::LocalDescription { operation: OperationId(1), kind, sdp },
            );
            fixture.receive(signal(other, offer(1)));
            let rolls_back =
                fixture.commands().iter().any(|one| matches!(one, PeerCommand::Rollback { .. }));
            assert_eq!(rolls_back, gives_way, "we are m, the other is {other}");
        }
    }

    #[test]
    fn nothing_is_signalled_through_a_hub_that_is_down() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a"))).hub_down(&super::super::HubRef::Default);
        let (kind, sdp) = (crate::model::DescriptionKind::Offer, "mine".to_owned());
        fixture.peer_event(1, PeerEvent::LocalDescription { operation: OperationId(1), kind, sdp });
        assert_eq!(fixture.sent(), []);
    }
}
