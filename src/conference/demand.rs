//! Which sources are wanted, and whether the speaker is: whatever some connection is fed with, or
//! the person looks at.
//!
//! A source that every gate holds back is wanted by nobody: who mutes everything has the
//! microphone itself closed five seconds later. Opening it again takes as long as the device does.

use std::time::Duration;

use super::{
    outbox::{Effect, Outbox},
    peer::Peer,
};
use crate::model::MediaTime;

/// What is wanted of the devices of here.
#[derive(Debug, Default)]
pub(super) struct Demand {
    camera: Want,
    microphone: Want,
    speaker: bool,
    /// Camera, microphone.
    preview: (bool, bool),
}

/// Whether a source is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Want {
    #[default]
    No,
    Yes,
    /// By nobody any more, but somebody may come.
    Lingering {
        until: MediaTime,
    },
}

/// How long a source is kept open for nobody: a participant who connects anew takes about a second
/// or two, and a camera takes as long to open and blinks.
const LINGER: Duration = Duration::from_secs(5);

impl Demand {
    /// The person looks at that much of what is captured here: camera, microphone.
    pub(super) fn preview(&mut self, preview: (bool, bool)) {
        self.preview = preview;
    }

    /// Brings the demand in line with the connections that are open.
    pub(super) fn settle<'a>(
        &mut self,
        peers: impl Iterator<Item = &'a Peer>,
        now: MediaTime,
        out: &mut Outbox,
    ) {
        let before = self.wanted();
        let ((mut camera, mut microphone), mut speaker) = (self.preview, false);
        for peer in peers {
            let (audio, video) = peer.fed();
            camera |= video;
            microphone |= audio;
            speaker |= peer.sounds();
        }
        self.camera.settle(camera, now);
        self.microphone.settle(microphone, now);
        self.speaker = speaker;
        let after = self.wanted();
        if after != before {
            let (camera, microphone, speaker) = after;
            out.push(Effect::Demand { camera, microphone, speaker });
        }
    }

    /// When a source is not wanted any more.
    pub(super) fn due(&self) -> Option<MediaTime> {
        [self.camera, self.microphone].into_iter().filter_map(Want::until).min()
    }

    fn wanted(&self) -> (bool, bool, bool) {
        (self.camera != Want::No, self.microphone != Want::No, self.speaker)
    }
}

impl Want {
    fn settle(&mut self, is_used: bool, now: MediaTime) {
        *self = match *self {
            _ if is_used => Self::Yes,
            Self::Yes => Self::Lingering { until: now + LINGER },
            Self::Lingering { until } if now < until => Self::Lingering { until },
            Self::No | Self::Lingering { .. } => Self::No,
        };
    }

    const fn until(self) -> Option<MediaTime> {
        match self {
            Self::Lingering { until } => Some(until),
            Self::No | Self::Yes => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::stage::*;
    use crate::model::{LeaveReason, MediaSet, PeerState, SessionKind, Topology};

    use super::*;

    fn demands(stage: &Stage) -> Vec<(bool, bool, bool)> {
        let demands = stage.done.iter().filter_map(|effect| {
            let Effect::Demand { camera, microphone, speaker } = effect else { return None };
            Some((*camera, *microphone, *speaker))
        });
        demands.collect()
    }

    #[test]
    fn sources_run_from_the_first_connected_peer_to_a_while_after_the_last() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a")));
        assert_eq!(demands(&stage), [(false, false, true)], "the speaker from the start");
        stage.state(1, PeerState::Connected);
        assert_eq!(demands(&stage), [(true, true, true)]);
        stage.hear(came(member("b"))).state(2, PeerState::Connected);
        assert_eq!(demands(&stage), []);
        stage.hear(left("a", LeaveReason::Left)).hear(left("b", LeaveReason::Left));
        assert_eq!(demands(&stage), [(true, true, false)]);
        stage.pass_ms(4999);
        assert_eq!(demands(&stage), []);
        stage.pass_ms(1);
        assert_eq!(demands(&stage), [(false, false, false)]);
    }

    #[test]
    fn somebody_who_comes_in_time_finds_the_camera_running() {
        let mut stage = Stage::opened(MESH);
        stage.hear(came(member("a"))).state(1, PeerState::Connected);
        stage.hear(left("a", LeaveReason::Left)).pass_ms(3000);
        stage.hear(came(member("b"))).state(2, PeerState::Connected).pass_ms(60_000);
        assert_eq!(demands(&stage), []);
    }

    #[test]
    fn a_viewer_captures_nothing_and_an_opener_of_sound_opens_no_camera() {
        let mut opener = member("o");
        opener.role = crate::model::Role::Opener;
        let mut stage = Stage::joined(BROADCAST, vec![opener]);
        stage.hear(word("o", offer(1)));
        assert_eq!(demands(&stage), [(false, false, true)]);
        stage.state(1, PeerState::Connected);
        assert_eq!(demands(&stage), []);
        assert!(!stage.done.iter().any(|one| matches!(one, Effect::SetSending { .. })));

        let kind = SessionKind { media: MediaSet::AUDIO, topology: Topology::OneWay };
        let mut stage = Stage::opened(kind);
        stage.hear(came(member("a"))).state(1, PeerState::Connected);
        assert_eq!(demands(&stage), [(false, true, false)]);
    }
}
