//! The event loop: it passes inputs to the core and carries out its effects. It never waits for a
//! reply.

use std::{collections::BTreeMap, future::pending, sync::Arc};

use cpu_time::ProcessTime;
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot, watch,
    },
    time::sleep,
};

use super::{
    EngineOptions, Handle,
    handle::Request,
    hub_link::{HubLink, HubLinkOptions, LinkNumber},
    instances::Instances,
    keys::Keys,
    ledger::Ledger,
    reception::{Hearing, Reception},
    studio::Studio,
};
use crate::{
    conference::{Conference, Effect, HubEvent, HubRef, Input},
    media::{self, Bell, Gallery, IncomingTrack},
    model::{
        Command, Event, HubMessage, JoinTarget, Layer, Media, MediaTime, OpenRequest,
        ParticipantId, Payload, PeerEvent, PeerId, PeerMedia, Snapshot, Stats, candidate_addresses,
    },
    network::KnownPaths,
    transport::{CheckBudgets, Connection, ConnectionConfig, Outlets},
};

/// Requests that may wait; a user makes a few a second.
const REQUESTS: usize = 64;

/// Inputs of one kind that may wait for the core. They are small and rare; a full queue makes
/// sockets wait.
const INPUTS: usize = 1024;

/// Events that may wait to be printed or drawn.
const EVENTS: usize = 4096;

/// The most addresses that are noted from one signalling message.
const NOTED: usize = 16;

/// A running engine: owns the core, the devices, the connections and the hubs.
pub struct Engine {
    core: Conference,
    options: EngineOptions,
    instances: Instances,
    keys: Keys,
    /// The user's name at every hub.
    name: watch::Sender<String>,
    links: BTreeMap<HubRef, (LinkNumber, HubLink)>,
    /// How many hub tasks were started.
    linked: u64,
    connections: BTreeMap<PeerId, Fed>,
    /// The addresses known to reach remote peers, for peer connections that are opened later.
    paths: KnownPaths,
    /// Limits the ICE checks that peer connections send to the addresses that one participant
    /// names.
    checks: CheckBudgets<Option<(HubRef, ParticipantId)>>,
    studio: Studio,
    reception: Reception,
    ledger: Ledger,
    /// Events of hub tasks. They have their own queue: a hub that sends faster than the engine
    /// reads waits, and does not delay devices.
    hub_words: mpsc::Sender<HubWord>,
    outlets: Outlets,
    events: mpsc::Sender<Event>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    news: Bell,
    /// Whether an event was announced since subscribers were last woken.
    has_news: bool,
    /// When the core decided the effects that are being performed.
    decided: MediaTime,
}

/// A peer connection, and the media that it sends now: media that continue are not restarted.
struct Fed {
    connection: Connection,
    /// The hub at which the remote participant is known.
    hub: HubRef,
    audio: bool,
    video: Option<Layer>,
}

/// An event from another part of this process.
#[derive(Debug)]
pub(super) enum Deed {
    /// An input for the core.
    Core(Input),
    /// The first frame or packet of a remote track was decoded.
    First {
        /// The peer connection of the track.
        peer: PeerId,
        /// The kind of the track.
        media: Media,
    },
}

/// An event from a hub task; ignored if the task is not in use any more.
#[derive(Debug)]
pub(super) struct HubWord {
    /// The task that sends the event.
    pub(super) link: LinkNumber,
    /// The hub of the task.
    pub(super) hub: HubRef,
    /// The event.
    pub(super) event: HubEvent,
}

/// The queues and notifications that the event loop waits for.
struct Inbox {
    requests: mpsc::Receiver<Request>,
    deeds: mpsc::Receiver<Deed>,
    hubs: mpsc::Receiver<HubWord>,
    peers: mpsc::Receiver<(PeerId, PeerEvent)>,
    tracks: mpsc::Receiver<IncomingTrack>,
    gallery: Gallery,
}

/// One input of the event loop.
enum Arrival {
    Request(Option<Request>),
    Deed(Deed),
    Hub(HubWord),
    Peer(PeerId, PeerEvent),
    Track(IncomingTrack),
    /// A tap was opened or dropped.
    Looks,
    /// The deadline of the core has passed.
    Deadline,
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
        let (requests, request_receiver) = mpsc::channel(REQUESTS);
        let (engine_events, engine_event_receiver) = mpsc::channel(INPUTS);
        let (hub_events, hub_event_receiver) = mpsc::channel(INPUTS);
        let (peer_events, peer_event_receiver) = mpsc::channel(INPUTS);
        let (tracks, track_receiver) = mpsc::channel(INPUTS);
        let (events, event_receiver) = mpsc::channel(EVENTS);
        let (snapshots, snapshot_receiver) = watch::channel(Arc::default());
        let (video_sinks, notifier) = (Gallery::default(), Bell::default());
        let engine = Self {
            core: Conference::new(),
            instances,
            keys: if options.keeps_secrets { Keys::of_this_user() } else { Keys::none() },
            name: watch::channel(options.name.clone()).0,
            links: BTreeMap::new(),
            linked: 0,
            connections: BTreeMap::new(),
            paths: KnownPaths::default(),
            checks: CheckBudgets::new(),
            studio: Studio::new(&options, &video_sinks, engine_events.clone()),
            reception: Reception::new(&options, video_sinks.clone(), engine_events),
            ledger: Ledger::default(),
            hub_words: hub_events,
            outlets: Outlets { events: peer_events, tracks },
            events,
            snapshots,
            news: notifier.clone(),
            has_news: false,
            decided: media::now(),
            options,
        };
        let inputs = Inbox {
            requests: request_receiver,
            deeds: engine_event_receiver,
            hubs: hub_event_receiver,
            peers: peer_event_receiver,
            tracks: track_receiver,
            gallery: video_sinks.clone(),
        };
        tokio::spawn(engine.run(inputs));
        let snapshots = snapshot_receiver;
        Ok((Handle { requests, snapshots, gallery: video_sinks, news: notifier }, event_receiver))
    }

    async fn run(mut self, mut inputs: Inbox) {
        self.equip();
        loop {
            self.perform_all();
            match inputs.next(self.core.poll_timeout()).await {
                Arrival::Request(None) => return,
                Arrival::Request(Some(Request::Close(reply))) => return self.close(reply).await,
                Arrival::Request(Some(request)) => self.request(request),
                Arrival::Deed(Deed::Core(input)) => self.core.handle(input, media::now()),
                Arrival::Hub(HubWord { link, hub, event }) => {
                    if self.links.get(&hub).is_some_and(|(number, _)| *number == link) {
                        self.note_paths(&event);
                        self.core.handle(Input::Hub(hub, event), media::now());
                    }
                }
                Arrival::Deed(Deed::First { peer, media }) => self.first(peer, media),
                Arrival::Peer(peer, event) => {
                    self.core.handle(Input::Peer(peer, event), media::now());
                }
                Arrival::Track(track) => {
                    let active = self.connections.get(&track.peer);
                    if let (Some(source), Some(active)) = (self.core.peer(track.peer), active) {
                        self.reception.begin(track, source, active.hub.clone());
                    }
                }
                Arrival::Looks => self.look(),
                Arrival::Deadline => self.core.handle_timeout(media::now()),
            }
        }
    }

    /// Notes the addresses that a remote peer names in an offer, an answer or a candidate, before
    /// the peer connection that answers is opened.
    fn note_paths(&self, event: &HubEvent) {
        let HubEvent::Message(HubMessage::Signal { payload, .. }) = event else { return };
        let text = match payload.known() {
            Payload::Offer { sdp, .. } | Payload::Answer { sdp, .. } => sdp,
            Payload::Candidate { candidate, .. } => candidate,
            Payload::Media { .. } | Payload::Unknown => return,
        };
        candidate_addresses(text).take(NOTED).for_each(|ip| self.paths.note_other(ip));
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::Command(command) => self.command(command),
            Request::Camera(spec) => {
                self.studio.set_camera(spec);
                self.equip();
            }
            Request::Microphone(spec) => {
                self.studio.set_microphone(spec);
                self.equip();
            }
            Request::Speaker(spec) => self.reception.move_to(spec),
            // The requester may have gone meanwhile.
            Request::Stats(reply) => drop(reply.send(self.stats(false))),
            Request::Close(_) => unreachable!("`run` handles it and ends"),
        }
    }

    /// Reports to the core whether there are a camera and a microphone to send.
    fn equip(&mut self) {
        let (camera, microphone) = self.studio.equipment();
        self.core.handle(Input::Equipped { camera, microphone }, media::now());
    }

    /// Updates which video is decoded, and reports to the core which local previews have taps.
    fn look(&mut self) {
        let (camera, microphone) = self.reception.look();
        self.core.handle(Input::Preview { camera, microphone }, media::now());
    }

    fn command(&mut self, command: Command) {
        let now = media::now();
        if let Command::Open(OpenRequest { session, .. })
        | Command::Reopen(OpenRequest { session, .. })
        | Command::Join { target: JoinTarget { session, .. }, .. } = &command
        {
            self.ledger.ask(session, now);
        }
        self.core.handle(Input::Command(command), now);
    }

    /// Carries out all effects of the core, then publishes the snapshot if it has changed.
    fn perform_all(&mut self) {
        self.decided = media::now();
        while let Some(effect) = self.core.poll_effect() {
            self.perform(effect);
        }
        let snapshot = self.core.snapshot();
        let has_changed = self.snapshots.send_if_modified(|latest| {
            let changed = **latest != snapshot;
            if changed {
                *latest = Arc::new(snapshot);
            }
            changed
        });
        if std::mem::take(&mut self.has_news) || has_changed {
            self.news.ring();
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::ConnectHub(hub) => self.connect(hub),
            Effect::DisconnectHub(hub) => {
                if let Some((_, task)) = self.links.remove(&hub) {
                    tokio::spawn(task.close());
                }
            }
            Effect::Send { hub, message } => {
                if let Some((_, task)) = self.links.get(&hub) {
                    task.send(message);
                }
            }
            Effect::SetName(name) => drop(self.name.send_replace(name)),
            Effect::OpenPeer { peer, session: _, hub, media } => {
                self.open_peer(peer, hub, media);
            }
            Effect::ClosePeer(peer) => {
                if let Some((source, stats)) = self.reception.end(peer) {
                    self.ledger.keep(&source, stats);
                }
                self.connections.remove(&peer);
            }
            Effect::Peer { peer, command } => {
                if let Some(active) = self.connections.get(&peer) {
                    active.connection.command(command);
                }
            }
            Effect::SetSending { peer, audio, video } => {
                if let Some(active) = self.connections.get_mut(&peer) {
                    active.feed(&self.studio, audio, video);
                }
            }
            Effect::SetHeard { peer, heard, speaks } => {
                let routing = Hearing { heard, speaks };
                self.reception.hear(peer, routing);
            }
            Effect::ExpectPictures { peer, expected } => {
                self.reception.expect_pictures(peer, expected);
            }
            Effect::Demand { camera, microphone, speaker } => {
                self.studio.demand(camera, microphone);
                self.reception.demand(speaker);
            }
            Effect::Announce(event) => self.announce(event),
        }
    }

    fn connect(&mut self, hub: HubRef) {
        self.linked += 1;
        let number = LinkNumber(self.linked);
        let options = HubLinkOptions {
            number,
            choice: self.options.hub.clone(),
            own_hub: self.options.own_hub.clone(),
            name: self.name.subscribe(),
            instance: self.instances.at(&hub),
            keys: self.keys.clone(),
            paths: self.paths.clone(),
            words: self.hub_words.clone(),
        };
        self.links.insert(hub.clone(), (number, HubLink::start(hub, options)));
    }

    fn open_peer(&mut self, peer: PeerId, hub: HubRef, media: PeerMedia) {
        // One mix id per source: each session of a hub carries the same camera and microphone.
        let instance = self.instances.at(&hub);
        let instance = instance.as_str();
        let config = ConnectionConfig {
            peer,
            media,
            stream: instance.to_owned(),
            audio_mix: format!("microphone-{instance}"),
            video_mix: format!("camera-{instance}"),
            impairment: self.options.impairment,
            paths: self.paths.clone(),
            checks: self.checks.of(self.core.participant(peer)),
        };
        self.reception.expect(peer);
        let connection = Connection::open(config, self.outlets.clone());
        self.connections.insert(peer, Fed { connection, hub, audio: false, video: None });
    }

    fn first(&mut self, peer: PeerId, media: Media) {
        if let Some(source) = self.core.peer(peer)
            && let Some(event) = self.ledger.first(&source, media, media::now())
        {
            self.announce(event);
        }
    }

    fn announce(&mut self, event: Event) {
        self.ledger.note(&event, self.decided);
        self.has_news = true;
        // A receiver that is closed needs no events.
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            tracing::error!("the event queue is full, an event is lost");
        }
    }

    fn stats(&self, with_past: bool) -> Stats {
        let (captures, encoders) = self.studio.counts();
        Stats {
            captures,
            encoders,
            cpu_seconds: ProcessTime::try_now()
                .map_or(0.0, |time| time.as_duration().as_secs_f64()),
            sessions: self.ledger.sessions(self.reception.figures(), with_past),
        }
    }

    /// Leaves every session, waits until the hubs are notified, and ends.
    async fn close(mut self, reply: oneshot::Sender<Stats>) {
        let stats = self.stats(true);
        self.command(Command::LeaveAll);
        self.perform_all();
        for (_, (_, task)) in std::mem::take(&mut self.links) {
            task.close().await;
        }
        let _ = reply.send(stats);
    }
}

impl Fed {
    /// Starts and stops sending audio and video; media that continue are not interrupted.
    fn feed(&mut self, local_media: &Studio, audio: bool, video: Option<Layer>) {
        if audio != self.audio {
            self.connection.send_audio(audio.then(|| local_media.audio()));
            self.audio = audio;
        }
        if video != self.video {
            self.connection.send_video(video.map(|layer| local_media.video(layer)));
            self.video = video;
        }
    }
}

impl Inbox {
    async fn next(&mut self, deadline: Option<MediaTime>) -> Arrival {
        let deadline = async {
            match deadline {
                Some(at) => sleep(at.since(media::now())).await,
                None => pending().await,
            }
        };
        tokio::select! {
            request = self.requests.recv() => Arrival::Request(request),
            Some(event) = self.deeds.recv() => Arrival::Deed(event),
            Some(event) = self.hubs.recv() => Arrival::Hub(event),
            Some((peer, event)) = self.peers.recv() => Arrival::Peer(peer, event),
            Some(track) = self.tracks.recv() => Arrival::Track(track),
            () = self.gallery.changed() => Arrival::Looks,
            () = deadline => Arrival::Deadline,
        }
    }
}
