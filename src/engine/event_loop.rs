//! The event loop: it passes inputs to the core and carries out its effects. It never waits for a
//! reply.

mod figures;

use std::{collections::BTreeMap, future::pending, sync::Arc};

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::sleep,
};
use tracing::Span;

use super::{
    EngineOptions, Handle,
    active_peer::ActivePeer,
    core_trace::TracedCore,
    handle::{Call, Request},
    hub_task::{HubHandle, HubTaskId, HubTaskOptions},
    instances::Instances,
    local_media::LocalMedia,
    remote_media::{AudioRouting, RemoteMedia},
    secret_store::SecretStore,
    session_stats::StatsCollector,
    sound_check::SoundChecks,
    speakers::SpeakerWatch,
    uplink::Uplink,
    wanted_sizes::WantedSizes,
};
use crate::{
    conference::{Effect, HubEvent, HubNews, HubRef, Input, MemberNews, Playback, SessionNews},
    media::{self, FarEnd, IncomingTrack, Notifier, TrackSinks},
    model::{
        Command, Event, JoinTarget, Media, MediaTime, MixId, OpenRequest, ParticipantId, Payload,
        PeerEvent, PeerId, PeerMedia, PerDevice, PerSource, SessionId, Snapshot, Stats,
        VoiceProcessing, candidate_addresses,
    },
    network::KnownPaths,
    supervision::catch_async,
    transport::{CheckBudgets, Connection, ConnectionConfig, EventSinks},
};

/// Requests that may wait; a user makes a few a second.
const REQUEST_QUEUE: usize = 64;

/// Inputs of one kind that may wait for the core. They are small and rare; a full queue makes
/// sockets wait.
const INPUT_QUEUE: usize = 1024;

/// Events that may wait to be printed or drawn.
const EVENT_QUEUE: usize = 4096;

/// The most addresses that are noted from one signalling message.
const MAX_SIGNAL_ADDRESSES: usize = 16;

/// A running engine: owns the core, the devices, the connections and the hubs.
pub struct Engine {
    core: TracedCore,
    options: EngineOptions,
    instances: Instances,
    secrets: SecretStore,
    /// The user's name at every hub.
    name: watch::Sender<String>,
    hubs: BTreeMap<HubRef, (HubTaskId, HubHandle)>,
    /// How many hub tasks were started.
    hub_tasks_started: u64,
    peers: BTreeMap<PeerId, ActivePeer>,
    /// The uplink of this machine, which they share.
    uplink: Uplink,
    /// The addresses known to reach remote peers, for peer connections that are opened later.
    paths: KnownPaths,
    /// Limits the ICE checks that peer connections send to the addresses that one participant
    /// names.
    check_budgets: CheckBudgets<Option<(HubRef, ParticipantId)>>,
    local_media: LocalMedia,
    remote_media: RemoteMedia,
    wanted_sizes: WantedSizes,
    speakers: SpeakerWatch,
    session_stats: StatsCollector,
    sound_checks: SoundChecks,
    /// Events of hub tasks. They have their own queue: a hub that sends faster than the engine
    /// reads waits, and does not delay devices.
    hub_events: mpsc::Sender<HubTaskEvent>,
    event_sinks: EventSinks,
    events: mpsc::Sender<Event>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    notifier: Notifier,
    /// Whether an event was announced since subscribers were last woken.
    has_announced: bool,
    /// When the core decided the effects that are being performed.
    decided_at: MediaTime,
}

/// An event from another part of this process.
#[derive(Debug)]
pub(super) enum EngineEvent {
    /// An input for the core.
    Core(Input),
    /// Three seconds of the microphone, at 48 kHz.
    Recorded(Vec<f32>),
    /// The first frame or packet of a remote track was decoded.
    FirstMedia {
        /// The peer connection of the track.
        peer: PeerId,
        /// The kind of the track.
        media: Media,
    },
}

/// An event from a hub task; ignored if the task is not in use any more.
#[derive(Debug)]
pub(super) struct HubTaskEvent {
    /// The task that sends the event.
    pub(super) task: HubTaskId,
    /// The hub of the task.
    pub(super) hub: HubRef,
    /// The event.
    pub(super) event: HubEvent,
}

/// The queues and notifications that the event loop waits for.
struct EngineInputs {
    requests: mpsc::Receiver<Request>,
    events: mpsc::Receiver<EngineEvent>,
    hub_events: mpsc::Receiver<HubTaskEvent>,
    peer_events: mpsc::Receiver<(PeerId, PeerEvent)>,
    tracks: mpsc::Receiver<IncomingTrack>,
    track_sinks: TrackSinks,
}

/// One input of the event loop.
enum EngineInput {
    Request(Option<Request>),
    Event(EngineEvent),
    Hub(HubTaskEvent),
    Peer(PeerId, PeerEvent),
    Track(IncomingTrack),
    /// A tap was opened or dropped.
    VisibilityChanged,
    /// The deadline of the core has passed.
    Timeout,
}

impl Engine {
    /// Starts an engine on the current runtime. Returns its handle and its events; no event is lost
    /// while they are read.
    ///
    /// # Errors
    /// Fails if the system gives no random bytes.
    pub fn start(
        options: EngineOptions,
    ) -> Result<(Handle, mpsc::Receiver<Event>), getrandom::Error> {
        let instances = Instances::fresh()?;
        let (requests, request_receiver) = mpsc::channel(REQUEST_QUEUE);
        let (engine_events, engine_event_receiver) = mpsc::channel(INPUT_QUEUE);
        let (hub_events, hub_event_receiver) = mpsc::channel(INPUT_QUEUE);
        let (peer_events, peer_event_receiver) = mpsc::channel(INPUT_QUEUE);
        let (tracks, track_receiver) = mpsc::channel(INPUT_QUEUE);
        let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
        let (snapshots, snapshot_receiver) = watch::channel(Arc::default());
        let (track_sinks, notifier) = (TrackSinks::default(), Notifier::default());
        let far_end = FarEnd::default();
        let engine = Self {
            core: TracedCore::new(options.trace.clone()),
            instances,
            secrets: if options.keeps_secrets {
                SecretStore::of_this_user()
            } else {
                SecretStore::in_memory()
            },
            name: watch::channel(options.name.clone()).0,
            hubs: BTreeMap::new(),
            hub_tasks_started: 0,
            peers: BTreeMap::new(),
            uplink: uplink(engine_events.clone()),
            paths: KnownPaths::default(),
            check_budgets: CheckBudgets::new(),
            local_media: LocalMedia::new(
                &options,
                (&track_sinks, far_end.clone()),
                engine_events.clone(),
            ),
            remote_media: RemoteMedia::new(
                &options,
                (track_sinks.clone(), far_end),
                engine_events.clone(),
            ),
            wanted_sizes: WantedSizes::default(),
            speakers: SpeakerWatch::default(),
            session_stats: StatsCollector::default(),
            sound_checks: SoundChecks::new(engine_events.clone()),
            hub_events,
            event_sinks: EventSinks { events: peer_events, tracks },
            events,
            snapshots,
            notifier: notifier.clone(),
            has_announced: false,
            decided_at: media::now(),
            options,
        };
        let inputs = EngineInputs {
            requests: request_receiver,
            events: engine_event_receiver,
            hub_events: hub_event_receiver,
            peer_events: peer_event_receiver,
            tracks: track_receiver,
            track_sinks: track_sinks.clone(),
        };
        let (panics, panicked) = watch::channel(None);
        let on_panic = notifier.clone();
        // The handle and the closers own it: it ends when they are dropped.
        tokio::spawn(async move {
            if let Err(panicked) = catch_async("engine", engine.run(inputs)).await {
                panics.send_replace(Some(panicked));
                on_panic.notify();
            }
        });
        let snapshots = snapshot_receiver;
        Ok((Handle { requests, snapshots, track_sinks, notifier, panicked }, event_receiver))
    }

    async fn run(mut self, mut inputs: EngineInputs) {
        self.report_sources();
        self.report_voice_processing();
        loop {
            self.perform_effects();
            let deadlines = [
                self.core.next_deadline(),
                self.wanted_sizes.next_deadline(),
                self.speakers.next_deadline(),
            ];
            match inputs.next(deadlines.into_iter().flatten().min()).await {
                EngineInput::Request(None) => return,
                EngineInput::Request(Some(Request::Close(reply))) => {
                    return self.close(reply).await;
                }
                EngineInput::Request(Some(Request::Call(call))) => self.handle_call(call),
                EngineInput::Event(EngineEvent::Core(input)) => {
                    self.core.handle(input, media::now())
                }
                EngineInput::Event(EngineEvent::Recorded(samples)) => {
                    self.sound_checks.play_back(samples, &mut self.remote_media);
                }
                EngineInput::Hub(HubTaskEvent { task: link, hub, event }) => {
                    if self.hubs.get(&hub).is_some_and(|(number, _)| *number == link) {
                        self.note_remote_addresses(&event);
                        self.core.handle(Input::Hub(hub, event), media::now());
                    }
                }
                EngineInput::Event(EngineEvent::FirstMedia { peer, media }) => {
                    self.on_first_media(peer, media)
                }
                EngineInput::Peer(peer, event) => {
                    let span = self.peers.get(&peer).map(|active| active.span.clone());
                    let handle = || self.core.handle(Input::Peer(peer, event), media::now());
                    span.unwrap_or_else(Span::none).in_scope(handle);
                }
                EngineInput::Track(track) => {
                    let active = self.peers.get(&track.peer);
                    if let (Some(source), Some(active)) =
                        (self.core.session_of_peer(track.peer), active)
                    {
                        let (hub, span) = (active.hub.clone(), track_span(active, &track));
                        span.in_scope(|| self.remote_media.add_track(track, source, hub));
                        self.speakers.start(media::now());
                    }
                }
                EngineInput::VisibilityChanged => self.report_previews(),
                EngineInput::Timeout => {
                    self.report_shown_sizes();
                    self.report_speakers();
                    self.core.handle_timeout(media::now());
                }
            }
        }
    }

    /// Notes the addresses that a remote peer names in an offer, an answer or a candidate, before
    /// the peer connection that answers is opened.
    fn note_remote_addresses(&self, event: &HubEvent) {
        let HubEvent::News(HubNews::Session(_, SessionNews::Member(news))) = event else { return };
        let MemberNews::Signal { payload, .. } = news else { return };
        let text = match payload {
            Payload::Offer { sdp, .. } | Payload::Answer { sdp, .. } => sdp,
            Payload::Candidate { candidate, .. } => candidate,
            Payload::Media { .. } | Payload::Unknown => return,
        };
        candidate_addresses(text)
            .take(MAX_SIGNAL_ADDRESSES)
            .for_each(|ip| self.paths.record_remote(ip));
    }

    fn handle_call(&mut self, call: Call) {
        match call {
            Call::Command(command) => self.handle_command(command),
            Call::Camera(spec) => {
                self.local_media.set_camera(spec);
                self.report_sources();
            }
            Call::Microphone(spec) => {
                self.local_media.set_microphone(spec);
                self.report_sources();
            }
            Call::Speaker(spec) => self.remote_media.set_speaker(spec),
            Call::Stats(reply) => self.stats(false).reply(reply),
            #[cfg(test)]
            Call::Panic => panic!("planted"),
        }
    }

    /// Reports to the core which sources there are to send.
    fn report_sources(&mut self) {
        let available = self.local_media.available_sources();
        self.core.handle(Input::SourcesAvailable(available), media::now());
    }

    /// Reports to the core what is done to the sound of the microphone, if it does not know.
    fn report_voice_processing(&mut self) {
        let chosen = self.options.voice_processing;
        if chosen != VoiceProcessing::default() {
            self.core.handle(Input::Command(Command::SetVoiceProcessing(chosen)), media::now());
        }
    }

    /// Updates which video is decoded, and reports to the core which local previews have taps.
    fn report_previews(&mut self) {
        let previews = self.remote_media.update_visibility();
        self.core.handle(Input::Preview(previews), media::now());
        self.report_shown_sizes();
    }

    /// Reports to the core at which sizes the videos of remote peers are shown.
    fn report_shown_sizes(&mut self) {
        let sizes = self.peers.keys().map(|peer| (*peer, self.remote_media.shown_sizes(*peer)));
        for (peer, sizes) in self.wanted_sizes.update(sizes, media::now()) {
            self.core.handle(Input::Shown(peer, sizes), media::now());
        }
    }

    fn handle_command(&mut self, command: Command) {
        let now = media::now();
        if let Command::Open(OpenRequest { session, .. })
        | Command::Reopen(OpenRequest { session, .. })
        | Command::Join { target: JoinTarget { session, .. }, .. } = &command
        {
            self.session_stats.on_requested(session, now);
        }
        self.core.handle(Input::Command(command), now);
    }

    /// Carries out all effects of the core, then publishes the snapshot if it has changed.
    fn perform_effects(&mut self) {
        self.decided_at = media::now();
        while let Some(effect) = self.core.poll_effect() {
            self.perform(effect);
        }
        let snapshot = self.core.snapshot();
        if snapshot.sessions.iter().any(|session| session.sending.microphone) {
            self.speakers.start(self.decided_at);
        }
        let has_changed = self.snapshots.send_if_modified(|latest| {
            let has_changed = !Arc::ptr_eq(latest, &snapshot);
            *latest = snapshot;
            has_changed
        });
        if std::mem::take(&mut self.has_announced) || has_changed {
            self.notifier.notify();
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::ConnectHub(hub) => self.connect_hub(hub),
            Effect::DisconnectHub(hub) => {
                if let Some((_, task)) = self.hubs.remove(&hub) {
                    tokio::spawn(task.close());
                }
            }
            Effect::Send { hub, message } => {
                if let Some((_, task)) = self.hubs.get(&hub) {
                    task.send(message);
                }
            }
            Effect::SetName(name) => drop(self.name.send_replace(name)),
            Effect::OpenPeer { peer, session, hub, media, mixes } => {
                self.open_peer(peer, (session, hub), (media, mixes));
            }
            Effect::ClosePeer(peer) => self.close_peer(peer),
            Effect::Peer { peer, command } => {
                if let Some(active) = self.peers.get(&peer) {
                    active.connection.command(command);
                }
            }
            Effect::SetSending { peer, layers } => {
                if let Some(active) = self.peers.get_mut(&peer) {
                    active.set_sending(&mut self.local_media, (peer, layers));
                }
            }
            Effect::SetPlayback { peer, playback: Playback { is_audible, is_expected } } => {
                let routing = AudioRouting { is_audible, expects_audio: is_expected };
                self.remote_media.set_audio_routing(peer, routing);
            }
            Effect::SetRemoteTracks { peer, tracks } => {
                self.remote_media.set_signalled_tracks(peer, tracks);
            }
            Effect::ExpectVideo { peer, source, expected } => {
                self.remote_media.set_video_expected(peer, source, expected);
            }
            Effect::LimitVideo { peer, source, size } => {
                if let Some(active) = self.peers.get_mut(&peer) {
                    active.shown_there[source] = size;
                    active.update_video(&mut self.local_media, (peer, source));
                }
            }
            Effect::Demand(PerDevice { sources, speaker }) => {
                self.local_media.set_demand(sources);
                self.remote_media.set_speaker_demand(speaker);
            }
            Effect::SetPriority { session } => {
                let priority = self.core.priority(&session);
                let peers = self.peers.values().filter(|active| active.session == session);
                peers.for_each(|active| active.uplink.set_priority(priority));
            }
            Effect::SetVoiceProcessing(chosen) => self.local_media.set_voice_processing(chosen),
            Effect::StartSoundCheck(check) => {
                self.sound_checks.start(check, (&self.local_media, &mut self.remote_media));
            }
            Effect::Announce(event) => self.announce(event),
        }
    }

    fn connect_hub(&mut self, hub: HubRef) {
        self.hub_tasks_started += 1;
        let number = HubTaskId(self.hub_tasks_started);
        let options = HubTaskOptions {
            id: number,
            choice: self.options.hub.clone(),
            own_hub: self.options.own_hub.clone(),
            name: self.name.subscribe(),
            instance: self.instances.for_hub(&hub),
            secrets: self.secrets.clone(),
            paths: self.paths.clone(),
            events: self.hub_events.clone(),
        };
        self.hubs.insert(hub.clone(), (number, HubHandle::start(hub, options)));
    }

    fn open_peer(
        &mut self,
        peer: PeerId,
        (session, hub): (SessionId, HubRef),
        (media, mixes): (PeerMedia, PerSource<MixId>),
    ) {
        let config = ConnectionConfig {
            peer,
            media,
            stream: self.instances.for_hub(&hub).as_str().to_owned(),
            mixes: mixes.map(String::from),
            impairment: self.options.impairment,
            rtp_dump: self.options.rtp_dump.clone(),
            network: None,
            paths: self.paths.clone(),
            checks: self.check_budgets.for_participant(self.core.hub_of_peer(peer)),
        };
        self.remote_media.register_peer(peer);
        let (span, sinks) = (self.core.peer_span(peer), self.event_sinks.clone());
        let connection = span.in_scope(|| Connection::open(config, sinks));
        let uplink = self.uplink.add(peer, &connection, self.core.priority(&session));
        let (layers, shown_there) = (PerSource::default(), PerSource::default());
        let participant = self.core.session_of_peer(peer);
        let active =
            ActivePeer { connection, uplink, session, hub, participant, layers, shown_there, span };
        self.peers.insert(peer, active);
        self.report_shown_sizes();
    }

    fn close_peer(&mut self, peer: PeerId) {
        let received = self.remote_media.remove_peer(peer);
        self.wanted_sizes.remove(peer);
        let Some(mut active) = self.peers.remove(&peer) else { return };
        active.set_sending(&mut self.local_media, (peer, PerSource::default()));
        let mut stats = received.map(|(_, stats)| stats).unwrap_or_default();
        stats.add_connection(active.connection.stats());
        stats.rtc.clear();
        if let Some(participant) = &active.participant {
            self.session_stats.on_connection_closed(participant, stats);
        }
    }

    fn on_first_media(&mut self, peer: PeerId, media: Media) {
        if let Some(source) = self.core.session_of_peer(peer)
            && let Some(event) = self.session_stats.on_first_media(&source, media, media::now())
        {
            self.announce(event);
        }
    }

    fn announce(&mut self, event: Event) {
        self.session_stats.on_event(&event, self.decided_at);
        self.has_announced = true;
        // A receiver that is closed needs no events.
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            tracing::error!("the event queue is full, an event is lost");
        }
    }

    /// Leaves every session, waits until the hubs are notified, and ends.
    async fn close(mut self, reply: oneshot::Sender<Stats>) {
        let stats = self.stats(true);
        self.handle_command(Command::LeaveAll);
        self.perform_effects();
        for (_, (_, task)) in std::mem::take(&mut self.hubs) {
            task.close().await;
        }
        stats.reply(reply);
    }
}

/// The uplink of this machine, which tells the core when it is full. A change that does not fit into
/// the engine's queue is lost, as the next one corrects it.
fn uplink(events: mpsc::Sender<EngineEvent>) -> Uplink {
    let uplink = Uplink::default();
    uplink.set_full_report(Box::new(move |is_full| {
        let _ = events.try_send(EngineEvent::Core(Input::UploadFull(is_full)));
    }));
    uplink
}

/// The span of a remote track, inside that of its peer connection.
fn track_span(active: &ActivePeer, track: &IncomingTrack) -> Span {
    let media = track.codec.media().name();
    tracing::warn_span!(parent: &active.span, "track", media)
}

impl EngineInputs {
    async fn next(&mut self, deadline: Option<MediaTime>) -> EngineInput {
        let deadline = async {
            match deadline {
                Some(at) => sleep(at.since(media::now())).await,
                None => pending().await,
            }
        };
        tokio::select! {
            request = self.requests.recv() => EngineInput::Request(request),
            Some(event) = self.events.recv() => EngineInput::Event(event),
            Some(event) = self.hub_events.recv() => EngineInput::Hub(event),
            Some((peer, event)) = self.peer_events.recv() => EngineInput::Peer(peer, event),
            Some(track) = self.tracks.recv() => EngineInput::Track(track),
            () = self.track_sinks.taps_changed() => EngineInput::VisibilityChanged,
            () = deadline => EngineInput::Timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::HubChoice;

    /// Options without devices and without a hub that answers.
    pub(crate) fn options() -> EngineOptions {
        let hub = HubChoice::At("http://127.0.0.1:9".parse().expect("an address"));
        EngineOptions { hub, name: "Ada".to_owned(), ..EngineOptions::without_devices() }
    }

    #[tokio::test]
    async fn a_panic_of_the_engine_ends_its_events_wakes_the_window_and_is_told() {
        let (handle, mut events) = Engine::start(options()).unwrap();
        assert_eq!(handle.failure(), None);
        let (wake, mut woken) = mpsc::channel(1);
        handle.requests.send(Request::Call(Call::Panic)).await.unwrap();
        handle.subscribe(Arc::new(move || wake.try_send(()).unwrap_or(())));
        assert_eq!(handle.ended().await.unwrap().message, "planted");
        assert_eq!(events.recv().await, None);
        woken.recv().await.expect("the window reads the failure");
        assert_eq!(handle.failure().unwrap().to_string(), "the engine stopped unexpectedly");
        assert!(handle.try_send(Command::LeaveAll).is_err());
        assert_eq!(handle.close().await, Stats::default());
    }
}
