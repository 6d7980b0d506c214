//! Planted faults: a shim around a core that makes it behave as if it had a bug.

use std::collections::BTreeSet;

use quintet::{
    conference::{Conference, Effect, HubEvent, HubNews, HubRef, Input, MemberNews, SessionNews},
    model::{
        ChatMessage, ClientMessage, CloseReason, Command, DescriptionKind, MuteSwitch,
        ParticipantId, Payload, PeerCommand, PeerEvent, PeerId, PerDevice, PerSource, Source,
        Track, TrackList,
    },
};

/// A bug that a core might have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutant {
    /// It accepts a remote offer without rolling its own back.
    DropsRollback,
    /// Some programs are never polite.
    SwapsPoliteness,
    /// It loses a needed ICE restart.
    DropsIceRestart,
    /// It ignores that a participant left.
    IgnoresLeft,
    /// It ignores that a participant is away from the hub.
    IgnoresPresence,
    /// It sends an offer that it is already rolling back.
    SendsStaleOffer,
    /// It ignores that a connection is silent.
    IgnoresSilence,
    /// It closes connections when the hub is down.
    ClosesWithHub,
    /// It keeps sending when a switch is muted.
    SendsWhileMuted,
    /// It does not signal what it sends.
    HidesMuteState,
    /// It takes a duplicate text for a new one.
    AcceptsDuplicateTexts,
    /// It does not send texts again that were lost with a connection.
    DropsRetransmittedTexts,
    /// It sends each text on another connection too.
    SendsTextsToOthers,
    /// It ignores that a participant changed its name.
    IgnoresRenames,
    /// It does not notify the hub of its new name.
    DropsOwnRename,
    /// It ends a session whose opener was lost.
    EndsOnOpenerLost,
    /// It ignores that leaving was undone.
    IgnoresUndo,
    /// It sends one source in place of the other.
    SwapsSentSources,
    /// It signals that it sends one source in place of the other.
    SwapsSignalledSources,
    /// It takes a signal about one source for one about the other.
    SwapsReceivedSignals,
    /// It opens the device of one source in place of the other.
    SwapsNeededSources,
    /// It mutes one source in place of the other.
    SwapsSwitches,
    /// It does not follow what others signal that their tracks carry.
    IgnoresSignalledTracks,
}

impl Mutant {
    pub(crate) const ALL: [Self; 23] = [
        Self::DropsRollback,
        Self::SwapsPoliteness,
        Self::DropsIceRestart,
        Self::IgnoresLeft,
        Self::IgnoresPresence,
        Self::SendsStaleOffer,
        Self::IgnoresSilence,
        Self::ClosesWithHub,
        Self::SendsWhileMuted,
        Self::HidesMuteState,
        Self::AcceptsDuplicateTexts,
        Self::DropsRetransmittedTexts,
        Self::SendsTextsToOthers,
        Self::IgnoresRenames,
        Self::DropsOwnRename,
        Self::EndsOnOpenerLost,
        Self::IgnoresUndo,
        Self::SwapsSentSources,
        Self::SwapsSignalledSources,
        Self::SwapsReceivedSignals,
        Self::SwapsNeededSources,
        Self::SwapsSwitches,
        Self::IgnoresSignalledTracks,
    ];
}

/// The shim between one core and its world.
#[derive(Default)]
pub(crate) struct Shim {
    peers: Vec<PeerId>,
    /// The connections whose data channel is open.
    open_channels: BTreeSet<PeerId>,
    /// The number of texts that arrived.
    received_texts: u64,
}

/// The events with which the shim answers in place of a connection.
type Replies = Vec<(PeerId, PeerEvent)>;

impl Shim {
    /// The input that the core gets.
    pub(crate) fn filter_input(
        &mut self,
        mutant: Option<Mutant>,
        index: usize,
        input: Input,
    ) -> Option<Input> {
        let input = with_swapped_sources(mutant, input);
        let is_heard = match (mutant, &input, member_news(&input)) {
            (Some(Mutant::IgnoresLeft), _, Some(MemberNews::Left { .. }))
            | (Some(Mutant::IgnoresPresence), _, Some(MemberNews::Presence { .. }))
            | (Some(Mutant::IgnoresRenames), _, Some(MemberNews::Renamed { .. }))
            | (Some(Mutant::IgnoresUndo), Input::Command(Command::Undo), _) => false,
            (Some(Mutant::IgnoresSilence), Input::Peer(_, PeerEvent::State(state)), _) => {
                *state == quintet::model::PeerState::Connected
            }
            _ => true,
        };
        if let Input::Peer(peer, PeerEvent::ChannelOpen(_)) = &input {
            self.open_channels.insert(*peer);
        }
        match input {
            Input::Peer(peer, PeerEvent::ChannelMessage(ChatMessage::Text { number, text }))
                if mutant == Some(Mutant::AcceptsDuplicateTexts) =>
            {
                self.received_texts += 1;
                let number = number + self.received_texts * 1_000_000_000_000;
                let message = ChatMessage::Text { number, text };
                Some(Input::Peer(peer, PeerEvent::ChannelMessage(message)))
            }
            Input::Hub(
                hub,
                HubEvent::News(HubNews::Session(session, SessionNews::Closed { .. })),
            ) if mutant == Some(Mutant::EndsOnOpenerLost) => {
                let closed = SessionNews::Closed { reason: CloseReason::OpenerLeft };
                Some(Input::Hub(hub, HubEvent::News(HubNews::Session(session, closed))))
            }
            Input::Hub(hub, HubEvent::Up { url, endpoint, instance, name, .. })
                if mutant == Some(Mutant::SwapsPoliteness) && index % 2 == 1 =>
            {
                let participant = ParticipantId::from_digest([0; 10]);
                let up = HubEvent::Up { url, endpoint, participant, instance, name };
                Some(Input::Hub(hub, up))
            }
            Input::Command(_)
            | Input::Hub(..)
            | Input::Peer(..)
            | Input::Device(..)
            | Input::MicrophoneActivity(_)
            | Input::EncoderLate(_)
            | Input::UploadFull(_)
            | Input::SourcesAvailable(_)
            | Input::Preview(_)
            | Input::ActiveSpeaker(..)
            | Input::SoundCheck(_)
            | Input::Shown(..) => is_heard.then_some(input),
        }
    }

    /// The effects that the world gets.
    pub(crate) fn filter_effects(
        &mut self,
        mutant: Option<Mutant>,
        (core, cause): (Option<&Conference>, Option<&Input>),
        effects: Vec<Effect>,
    ) -> (Vec<Effect>, Replies) {
        let (mut seen, mut replies) = (vec![], vec![]);
        for effect in effects.into_iter().map(|effect| sent_with_swapped_sources(mutant, effect)) {
            if let Effect::OpenPeer { peer, .. } = &effect {
                self.peers.push(*peer);
            }
            if let Effect::ClosePeer(peer) = &effect {
                self.open_channels.remove(peer);
            }
            if mutant == Some(Mutant::SendsTextsToOthers) {
                seen.extend(self.text_to_other_peer(&effect));
            }
            match (mutant, &effect) {
                (
                    Some(Mutant::DropsRollback),
                    Effect::Peer { peer, command: PeerCommand::Rollback { operation } },
                ) => replies.push((*peer, PeerEvent::Applied { operation: *operation })),
                (
                    Some(Mutant::DropsIceRestart),
                    Effect::Peer {
                        command: PeerCommand::MakeOffer { restart_ice: true, .. }, ..
                    },
                ) => {}
                (
                    Some(Mutant::SendsStaleOffer),
                    Effect::Peer { peer, command: PeerCommand::Rollback { .. } },
                ) => {
                    let stale = stale_offer(*peer, core, cause);
                    seen.push(effect);
                    seen.extend(stale);
                }
                (
                    Some(Mutant::DropsRetransmittedTexts),
                    Effect::Peer {
                        command: PeerCommand::SendChannelMessage(ChatMessage::Text { .. }),
                        ..
                    },
                ) if is_acknowledgement(cause) => {}
                (Some(Mutant::IgnoresSignalledTracks), Effect::SetRemoteTracks { .. }) => {}
                (
                    Some(Mutant::DropsOwnRename),
                    Effect::Send { message: ClientMessage::Rename { .. }, .. },
                )
                | (
                    Some(Mutant::SendsWhileMuted),
                    Effect::SetSending { layers: PerSource { microphone: None, .. }, .. },
                ) => {}
                (
                    Some(Mutant::HidesMuteState),
                    Effect::Send { message: ClientMessage::Signal { payload, .. }, .. },
                ) if matches!(payload.known(), Payload::Media { camera: false, .. }) => {}
                _ => seen.push(effect),
            }
        }
        if let (Some(Mutant::ClosesWithHub), Some(Input::Hub(_, HubEvent::Down { .. }))) =
            (mutant, cause)
        {
            seen.extend(self.peers.pop().map(Effect::ClosePeer));
        }
        (seen, replies)
    }
}

/// What the input reports about a member of a session.
const fn member_news(input: &Input) -> Option<&MemberNews> {
    let Input::Hub(_, HubEvent::News(HubNews::Session(_, SessionNews::Member(news)))) = input
    else {
        return None;
    };
    Some(news)
}

/// The input, with one source in place of the other if the mutant swaps them there.
fn with_swapped_sources(mutant: Option<Mutant>, input: Input) -> Input {
    match (mutant, input) {
        (
            Some(Mutant::SwapsReceivedSignals),
            Input::Hub(
                hub,
                HubEvent::News(HubNews::Session(
                    session,
                    SessionNews::Member(MemberNews::Signal { from, payload }),
                )),
            ),
        ) => {
            let payload = swapped_payload(payload);
            let news = SessionNews::Member(MemberNews::Signal { from, payload });
            Input::Hub(hub, HubEvent::News(HubNews::Session(session, news)))
        }
        (
            Some(Mutant::SwapsSwitches),
            Input::Command(Command::SetEnabled {
                session,
                switch: MuteSwitch::Source(source),
                enabled,
            }),
        ) => {
            let switch = MuteSwitch::Source(other_source(source));
            Input::Command(Command::SetEnabled { session, switch, enabled })
        }
        (_, input) => input,
    }
}

/// The effect, with one source in place of the other if the mutant swaps them there.
fn sent_with_swapped_sources(mutant: Option<Mutant>, effect: Effect) -> Effect {
    match (mutant, effect) {
        (Some(Mutant::SwapsSentSources), Effect::SetSending { peer, layers }) => {
            let layers = PerSource::from_fn(|source| layers[other_source(source)]);
            Effect::SetSending { peer, layers }
        }
        (Some(Mutant::SwapsNeededSources), Effect::Demand(PerDevice { sources, speaker })) => {
            let sources = PerSource::from_fn(|source| sources[other_source(source)]);
            Effect::Demand(PerDevice { sources, speaker })
        }
        (
            Some(Mutant::SwapsSignalledSources),
            Effect::Send { hub, message: ClientMessage::Signal { session, to, payload } },
        ) => {
            let payload = swapped_payload(payload.known().clone()).into();
            Effect::Send { hub, message: ClientMessage::Signal { session, to, payload } }
        }
        (_, effect) => effect,
    }
}

fn swapped_payload(payload: Payload) -> Payload {
    match payload {
        Payload::Media { microphone, camera, tracks, wants } => {
            let swap = |tracks: TrackList| {
                let all = tracks.iter().cloned();
                all.map(|one| Track { source: one.source.map(other_source), ..one }).collect()
            };
            let tracks = tracks.map(swap);
            Payload::Media { microphone: camera, camera: microphone, tracks, wants }
        }
        other @ (Payload::Offer { .. }
        | Payload::Answer { .. }
        | Payload::Candidate { .. }
        | Payload::Unknown) => other,
    }
}

const fn other_source(source: Source) -> Source {
    match source {
        Source::Camera => Source::Microphone,
        Source::Microphone => Source::Camera,
    }
}

/// Whether the cause is an acknowledgement of the remote peer, which also comes first on a new
/// connection.
const fn is_acknowledgement(cause: Option<&Input>) -> bool {
    matches!(cause, Some(Input::Peer(_, PeerEvent::ChannelMessage(ChatMessage::Received { .. }))))
}

impl Shim {
    /// A text, on another connection than its own.
    fn text_to_other_peer(&self, effect: &Effect) -> Option<Effect> {
        let Effect::Peer { peer, command: command @ PeerCommand::SendChannelMessage(message) } =
            effect
        else {
            return None;
        };
        let other = self.open_channels.iter().find(|other| *other != peer)?;
        let is_text = matches!(message, ChatMessage::Text { .. });
        is_text.then(|| Effect::Peer { peer: *other, command: command.clone() })
    }
}

/// The offer whose rollback is pending, sent nevertheless.
fn stale_offer(peer: PeerId, core: Option<&Conference>, cause: Option<&Input>) -> Option<Effect> {
    let Some(Input::Peer(of, PeerEvent::LocalDescription { kind, sdp, .. })) = cause else {
        return None;
    };
    if *of != peer || *kind != DescriptionKind::Offer {
        return None;
    }
    let (session, to) = core?.session_of_peer(peer)?;
    let payload = Payload::Offer { generation: 1, sdp: sdp.clone() }.into();
    let message = ClientMessage::Signal { session, to, payload };
    Some(Effect::Send { hub: HubRef::Default, message })
}
