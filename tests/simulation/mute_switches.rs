//! Checks of the mute switches: nothing is sent that is muted, and others see it as muted.

use quintet::{
    conference::Playback,
    model::{
        Direction, Enabled, MixId, PeerId, PeerMedia, PeerState, PerSource, SessionId,
        SessionStatus, TrackList,
    },
};

use super::world::{Verdict, World};

impl World {
    /// A connection sends other media from now on.
    pub(crate) fn check_sending(
        &mut self,
        index: usize,
        peer: PeerId,
        sent: PerSource<bool>,
    ) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} sends on {peer}, which is not open"));
        };
        let expected = self.enabled_media(index, at);
        let one = &mut self.connections[at];
        if one.state == PeerState::Connecting || sent != expected {
            return Err(format!("P{index} sends {sent:?} on {peer}, not {expected:?}"));
        }
        if std::mem::replace(&mut one.sending, sent) == sent {
            return Err(format!("P{index} sets {sent:?} on {peer} again"));
        }
        Ok(())
    }

    /// The audio of a connection is played differently from now on.
    pub(crate) fn check_playback(
        &mut self,
        index: usize,
        peer: PeerId,
        playback: Playback,
    ) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} plays {peer}, which is not open"));
        };
        let listens = self.enabled(index, &self.connections[at].session).listening;
        let before = std::mem::replace(&mut self.connections[at].playback, playback);
        if before == playback || playback.is_audible != listens {
            return Err(format!("P{index} plays {peer}: {playback:?} after {before:?}"));
        }
        Ok(())
    }

    /// A program signals what it sends on a connection.
    pub(crate) fn check_media_signal(
        &mut self,
        index: usize,
        at: usize,
        (signalled, tracks): (PerSource<bool>, Option<&TrackList>),
    ) -> Verdict {
        let expected = self.enabled_media(index, at);
        let instance = &self.programs[index].instance;
        let one = &mut self.connections[at];
        let says_the_same = tracks.is_none_or(|tracks| {
            tracks.sources_on() == expected
                && tracks.iter().all(|track| {
                    track.source.is_some_and(|one| track.mix == MixId::of_source(one, instance))
                })
        });
        one.signalled_tracks = tracks.cloned();
        if one.state == PeerState::Connecting || signalled != expected || !says_the_same {
            return Err(format!("P{index} signals on {} that it sends {signalled:?}", one.peer));
        }
        Ok(())
    }

    /// The core says what the tracks of the other end carry.
    pub(crate) fn set_remote_tracks(
        &mut self,
        index: usize,
        peer: PeerId,
        tracks: TrackList,
    ) -> Verdict {
        let Some(at) = self.programs[index].peers.get(&peer).copied() else {
            return Err(format!("P{index} is told of tracks of {peer}, which is not open"));
        };
        if std::mem::replace(&mut self.connections[at].remote_tracks, tracks.clone()) == tracks {
            return Err(format!("P{index} says again what the tracks of {peer} carry"));
        }
        Ok(())
    }

    /// Checks that the core knows what the tracks of a connection carry: what the other end has
    /// signalled, unless its program is of version 1.
    pub(crate) fn check_remote_tracks(&self, at: usize) -> Verdict {
        let one = &self.connections[at];
        let Some(other) = one.remote.map(|uid| &self.connections[uid as usize]) else {
            return Ok(());
        };
        let signalled = other.signalled_tracks.clone().unwrap_or_default();
        let expected =
            if is_of_version_1(other.program) { TrackList::default() } else { signalled };
        if one.remote_tracks != expected {
            let (peer, tracks) = (one.peer, &one.remote_tracks);
            return Err(format!("the tracks of {peer} are {tracks:?}, not {expected:?}"));
        }
        Ok(())
    }

    /// Checks that each connection of a program sends and plays exactly what the switches enable.
    pub(crate) fn check_media(&self, index: usize) -> Verdict {
        for at in self.programs[index].peers.values() {
            let one = &self.connections[*at];
            let starts = one.state == PeerState::Connecting;
            let expected = if starts { PerSource::NONE } else { self.enabled_media(index, *at) };
            if one.sending != expected {
                return Err(format!("P{index} sends on {}: {:?}", one.peer, one.sending));
            }
            let receives = one.media.sections.microphone.is_some_and(Direction::receives);
            if receives && one.playback.is_audible != self.enabled(index, &one.session).listening {
                return Err(format!("P{index} plays {}: {:?}", one.peer, one.playback));
            }
        }
        Ok(())
    }

    /// The media that a member of a session sends, as other members must see it.
    pub(crate) fn sends(
        &self,
        index: usize,
        id: &SessionId,
        status: &SessionStatus,
    ) -> PerSource<bool> {
        let switches = self.programs[index].snapshot().enabled.and(status.enabled);
        let media = self.plan.media(id, index, &self.programs[index]);
        media.map_or(PerSource::NONE, |media| enabled_sections(switches, media))
    }

    /// The media that the switches enable on a connection.
    fn enabled_media(&self, index: usize, at: usize) -> PerSource<bool> {
        let one = &self.connections[at];
        enabled_sections(self.enabled(index, &one.session), one.media)
    }

    /// The media that is enabled in a session.
    fn enabled(&self, index: usize, session: &SessionId) -> Enabled {
        let snapshot = self.programs[index].snapshot();
        let mut departing = snapshot.departure.iter().flat_map(|departure| &departure.sessions);
        if departing.any(|one| one.session == *session) {
            return Enabled::NONE;
        }
        let own = snapshot.sessions.iter().find(|one| one.session == *session);
        snapshot.enabled.and(own.map(|one| one.enabled).unwrap_or_default())
    }
}

/// The sources that the switches enable and that a section sends.
fn enabled_sections(switches: Enabled, media: PeerMedia) -> PerSource<bool> {
    let sends = |direction: Option<Direction>| direction.is_some_and(Direction::sends);
    let enabled = switches.sources;
    PerSource {
        camera: enabled.camera && sends(media.sections.camera),
        microphone: enabled.microphone && sends(media.sections.microphone),
    }
}

/// Whether the signals of a program are those of version 1, without tracks.
pub(crate) const fn is_of_version_1(program: usize) -> bool {
    program % 3 == 2
}
