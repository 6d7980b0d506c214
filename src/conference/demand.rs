//! Which sources are needed, and whether the speaker is: for the media that peer connections send
//! and receive, and for what is displayed here.
//!
//! A source that every switch mutes is not needed: if the user mutes the microphone everywhere, the
//! device itself is closed five seconds later. Opening it again takes as long as the device needs.

use std::time::Duration;

use super::{
    deadline::{Deadline, TimerName},
    effects::{Effect, EffectQueue},
    media_use::MediaUse,
};
use crate::model::{MediaTime, PerDevice, PerSource, SoundCheckStage, Source};

/// The local devices that are needed.
#[derive(Debug, Default)]
pub(super) struct Demand {
    sources: PerSource<SourceUse>,
    speaker: bool,
    /// The sources that are displayed here.
    preview: PerSource<bool>,
    sound_check: Option<SoundCheckStage>,
}

/// Whether a source is needed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum SourceUse {
    #[default]
    Unused,
    InUse,
    /// Not needed any more, but kept open for a while.
    Lingering {
        until: MediaTime,
    },
}

/// How long a source is kept open without use. A participant that reconnects takes one or two
/// seconds; a camera takes as long to open, and its light blinks.
const LINGER: Duration = Duration::from_secs(5);

impl Demand {
    /// Sets which sources are displayed here.
    pub(super) fn set_preview(&mut self, preview: PerSource<bool>) {
        self.preview = preview;
    }

    /// Sets what a check of the user's own sound does.
    pub(super) fn set_sound_check(&mut self, stage: Option<SoundCheckStage>) {
        self.sound_check = stage;
    }

    /// Updates the demand from what the peer connections of all sessions use.
    pub(super) fn settle(
        &mut self,
        sessions: impl Iterator<Item = MediaUse>,
        now: MediaTime,
        effects: &mut EffectQueue,
    ) {
        let before = self.wanted();
        let (mut used, mut speaker) = (self.preview, self.sound_check.is_some());
        used.microphone |= self.sound_check.is_some_and(SoundCheckStage::records);
        for session in sessions {
            used = used.or(session.sends);
            speaker |= session.receives_audio;
        }
        for source in Source::ALL {
            self.sources[source].settle(used[source], now);
        }
        self.speaker = speaker;
        let after = self.wanted();
        if after != before {
            effects.push(Effect::Demand(after));
        }
    }

    /// When the next source is not needed any more.
    pub(super) fn next_deadline(&self) -> Option<Deadline<'_>> {
        let next = self.sources.iter().filter_map(|(_, source)| source.until()).min();
        next.map(|at| TimerName::SourceLinger.at(at))
    }

    fn wanted(&self) -> PerDevice<bool> {
        let sources = self.sources.map(|source| source != SourceUse::Unused);
        PerDevice { sources, speaker: self.speaker }
    }
}

impl SourceUse {
    fn settle(&mut self, is_used: bool, now: MediaTime) {
        *self = match *self {
            _ if is_used => Self::InUse,
            Self::InUse => Self::Lingering { until: now + LINGER },
            Self::Lingering { until } if now < until => Self::Lingering { until },
            Self::Unused | Self::Lingering { .. } => Self::Unused,
        };
    }

    const fn until(self) -> Option<MediaTime> {
        match self {
            Self::Lingering { until } => Some(until),
            Self::Unused | Self::InUse => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::*;
    use crate::model::{LeaveReason, MediaSet, PeerState, SessionKind, Topology};

    use super::*;

    /// The changes of the needed devices: the sources, and whether the speaker is needed.
    fn demands(fixture: &Fixture) -> Vec<(PerSource<bool>, bool)> {
        let demands = fixture.effects.iter().filter_map(|effect| {
            let Effect::Demand(needed) = effect else { return None };
            Some((needed.sources, needed.speaker))
        });
        demands.collect()
    }

    #[test]
    fn sources_run_from_the_first_connected_peer_to_a_while_after_the_last() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a")));
        assert_eq!(demands(&fixture), [(NEITHER, true)], "the speaker from the start");
        fixture.peer_state(1, PeerState::Connected);
        assert_eq!(demands(&fixture), [(BOTH, true)]);
        fixture.receive(participant_joined(member("b"))).peer_state(2, PeerState::Connected);
        assert_eq!(demands(&fixture), []);
        fixture
            .receive(participant_left("a", LeaveReason::Left))
            .receive(participant_left("b", LeaveReason::Left));
        assert_eq!(demands(&fixture), [(BOTH, false)]);
        fixture.advance_ms(4999);
        assert_eq!(demands(&fixture), []);
        fixture.advance_ms(1);
        assert_eq!(demands(&fixture), [(NEITHER, false)]);
    }

    #[test]
    fn a_participant_that_joins_in_time_finds_the_camera_running() {
        let mut fixture = Fixture::opened(MESH);
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        fixture.receive(participant_left("a", LeaveReason::Left)).advance_ms(3000);
        fixture
            .receive(participant_joined(member("b")))
            .peer_state(2, PeerState::Connected)
            .advance_ms(60_000);
        assert_eq!(demands(&fixture), []);
    }

    #[test]
    fn a_viewer_captures_nothing_and_an_opener_of_an_audio_session_opens_no_camera() {
        let mut opener = member("o");
        opener.role = crate::model::Role::Opener;
        let mut fixture = Fixture::joined(BROADCAST, vec![opener]);
        fixture.receive(signal("o", offer(1)));
        assert_eq!(demands(&fixture), [(NEITHER, true)]);
        fixture.peer_state(1, PeerState::Connected);
        assert_eq!(demands(&fixture), []);
        assert!(!fixture.effects.iter().any(|one| matches!(one, Effect::SetSending { .. })));

        let kind = SessionKind { media: MediaSet::AUDIO, topology: Topology::OneWay };
        let mut fixture = Fixture::opened(kind);
        fixture.receive(participant_joined(member("a"))).peer_state(1, PeerState::Connected);
        assert_eq!(demands(&fixture), [(MICROPHONE, false)]);
    }
}
