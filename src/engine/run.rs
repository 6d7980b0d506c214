//! The loop: inputs into the core, effects out of it, and nothing waits for a reply.

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

/// Commands that may wait; a person makes a few a second.
const REQUESTS: usize = 64;

/// Inputs that may wait for the core. They are small and rare; a full queue makes sockets wait.
const INPUTS: usize = 1024;

/// Events that may wait to be printed or drawn.
const EVENTS: usize = 4096;

/// Addresses of one signal that are noted.
const NOTED: usize = 16;

/// A running engine: owns the core, the devices, the connections and the hubs.
pub struct Engine {
    core: Conference,
    options: EngineOptions,
    instances: Instances,
    keys: Keys,
    /// How the person is called at every hub.
    name: watch::Sender<String>,
    links: BTreeMap<HubRef, (LinkNumber, HubLink)>,
    /// How many links there were.
    linked: u64,
    connections: BTreeMap<PeerId, Fed>,
    /// The ways to others, for the connections that are opened later.
    paths: KnownPaths,
    /// What bounds the checks that connections send on a participant's word.
    checks: CheckBudgets<Option<(HubRef, ParticipantId)>>,
    studio: Studio,
    reception: Reception,
    ledger: Ledger,
    /// A hub that says more than is heard here waits; devices have a queue of their own.
    hub_words: mpsc::Sender<HubWord>,
    outlets: Outlets,
    events: mpsc::Sender<Event>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    news: Bell,
    /// Something was announced and nobody was woken for it yet.
    has_news: bool,
    /// When the effects that are being performed were decided.
    decided: MediaTime,
}

/// A connection, and what it is fed with: a medium that goes on is not begun anew.
struct Fed {
    connection: Connection,
    /// The hub that vouches for the other end.
    hub: HubRef,
    audio: bool,
    video: Option<Layer>,
}

/// Something that was done or happened elsewhere in this process.
#[derive(Debug)]
pub(super) enum Deed {
    /// To be told to the core.
    Core(Input),
    /// The first of a track was decoded.
    First {
        /// On which connection.
        peer: PeerId,
        /// Of which medium.
        media: Media,
    },
}

/// What a hub link tells; void if the link is not in use any more.
#[derive(Debug)]
pub(super) struct HubWord {
    /// Which link.
    pub(super) link: LinkNumber,
    /// To which hub.
    pub(super) hub: HubRef,
    /// What.
    pub(super) event: HubEvent,
}

/// Everything the loop waits for.
struct Inbox {
    requests: mpsc::Receiver<Request>,
    deeds: mpsc::Receiver<Deed>,
    hubs: mpsc::Receiver<HubWord>,
    peers: mpsc::Receiver<(PeerId, PeerEvent)>,
    tracks: mpsc::Receiver<IncomingTrack>,
    gallery: Gallery,
}

/// One thing from the inbox, or that the core's deadline has come.
enum Arrival {
    Request(Option<Request>),
    Deed(Deed),
    Hub(HubWord),
    Peer(PeerId, PeerEvent),
    Track(IncomingTrack),
    /// Somebody looks at something, or does not any more.
    Looks,
    Deadline,
}

impl Engine {
    /// Starts an engine on the current runtime. Returns what one holds of it, and its events,
    /// none of which is skipped while they are read.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn start(
        options: EngineOptions,
    ) -> Result<(Handle, mpsc::Receiver<Event>), getrandom::Error> {
        let instances = Instances::fresh()?;
        let (requests, request_inbox) = mpsc::channel(REQUESTS);
        let (deeds, deed_inbox) = mpsc::channel(INPUTS);
        let (hub_words, hub_inbox) = mpsc::channel(INPUTS);
        let (peer_events, peer_inbox) = mpsc::channel(INPUTS);
        let (tracks, track_inbox) = mpsc::channel(INPUTS);
        let (events, event_inbox) = mpsc::channel(EVENTS);
        let (snapshots, latest) = watch::channel(Arc::default());
        let (gallery, news) = (Gallery::default(), Bell::default());
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
            studio: Studio::new(&options, &gallery, deeds.clone()),
            reception: Reception::new(&options, gallery.clone(), deeds),
            ledger: Ledger::default(),
            hub_words,
            outlets: Outlets { events: peer_events, tracks },
            events,
            snapshots,
            news: news.clone(),
            has_news: false,
            decided: media::now(),
            options,
        };
        let inbox = Inbox {
            requests: request_inbox,
            deeds: deed_inbox,
            hubs: hub_inbox,
            peers: peer_inbox,
            tracks: track_inbox,
            gallery: gallery.clone(),
        };
        tokio::spawn(engine.run(inbox));
        Ok((Handle { requests, snapshots: latest, gallery, news }, event_inbox))
    }

    async fn run(mut self, mut inbox: Inbox) {
        self.equip();
        loop {
            self.perform_all();
            match inbox.next(self.core.poll_timeout()).await {
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
                    let fed = self.connections.get(&track.peer);
                    if let (Some(source), Some(fed)) = (self.core.peer(track.peer), fed) {
                        self.reception.begin(track, source, fed.hub.clone());
                    }
                }
                Arrival::Looks => self.look(),
                Arrival::Deadline => self.core.handle_timeout(media::now()),
            }
        }
    }

    /// Notes the addresses that the other end of a connection names, before the connection is
    /// opened that answers.
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
            // Who asked may have gone meanwhile.
            Request::Stats(reply) => drop(reply.send(self.stats(false))),
            Request::Close(_) => unreachable!("the loop ends with it"),
        }
    }

    /// Tells the core what there is to be sent.
    fn equip(&mut self) {
        let (camera, microphone) = self.studio.equipment();
        self.core.handle(Input::Equipped { camera, microphone }, media::now());
    }

    /// Shows what somebody looks at, and nothing else.
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

    /// Carries out what the core wants, and shows how everything is then.
    fn perform_all(&mut self) {
        self.decided = media::now();
        while let Some(effect) = self.core.poll_effect() {
            self.perform(effect);
        }
        let snapshot = self.core.snapshot();
        let is_other = self.snapshots.send_if_modified(|latest| {
            let changed = **latest != snapshot;
            if changed {
                *latest = Arc::new(snapshot);
            }
            changed
        });
        if std::mem::take(&mut self.has_news) || is_other {
            self.news.ring();
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::ConnectHub(hub) => self.connect(hub),
            Effect::DisconnectHub(hub) => {
                if let Some((_, link)) = self.links.remove(&hub) {
                    tokio::spawn(link.close());
                }
            }
            Effect::Send { hub, message } => {
                if let Some((_, link)) = self.links.get(&hub) {
                    link.send(message);
                }
            }
            Effect::SetName(name) => drop(self.name.send_replace(name)),
            Effect::OpenPeer { peer, session: _, hub, media } => {
                self.open_peer(peer, hub, media);
            }
            Effect::ClosePeer(peer) => {
                if let Some((source, figures)) = self.reception.end(peer) {
                    self.ledger.keep(&source, figures);
                }
                self.connections.remove(&peer);
            }
            Effect::Peer { peer, command } => {
                if let Some(fed) = self.connections.get(&peer) {
                    fed.connection.command(command);
                }
            }
            Effect::SetSending { peer, audio, video } => {
                if let Some(fed) = self.connections.get_mut(&peer) {
                    fed.feed(&self.studio, audio, video);
                }
            }
            Effect::SetHeard { peer, heard, speaks } => {
                self.reception.hear(peer, Hearing { heard, speaks });
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
        // One mix while every gate is open: each session of a hub carries the same camera and
        // microphone.
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
        // Whoever has gone wants no events any more.
        if let Err(TrySendError::Full(_)) = self.events.try_send(event) {
            tracing::error!("an event is lost");
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

    /// Leaves every session, tells the hubs, and ends.
    async fn close(mut self, reply: oneshot::Sender<Stats>) {
        let stats = self.stats(true);
        self.command(Command::LeaveAll);
        self.perform_all();
        for (_, (_, link)) in std::mem::take(&mut self.links) {
            link.close().await;
        }
        let _ = reply.send(stats);
    }
}

impl Fed {
    /// Begins and ends what is to be; the rest goes on.
    fn feed(&mut self, studio: &Studio, audio: bool, video: Option<Layer>) {
        if audio != self.audio {
            self.connection.send_audio(audio.then(|| studio.audio()));
            self.audio = audio;
        }
        if video != self.video {
            self.connection.send_video(video.map(|layer| studio.video(layer)));
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
            Some(deed) = self.deeds.recv() => Arrival::Deed(deed),
            Some(word) = self.hubs.recv() => Arrival::Hub(word),
            Some((peer, event)) = self.peers.recv() => Arrival::Peer(peer, event),
            Some(track) = self.tracks.recv() => Arrival::Track(track),
            () = self.gallery.changed() => Arrival::Looks,
            () = deadline => Arrival::Deadline,
        }
    }
}
