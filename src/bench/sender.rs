//! The sender: an engine in this process with open sessions.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use crate::{
    engine::{Decode, Engine, EngineOptions, Handle, HubChoice, Impairment, SourceSpec},
    model::{Bitrate, Command, Event, MediaSet, OpenRequest, SessionKind, SessionLink, Topology},
    wording,
};

/// How long sessions may take to open. They take a few milliseconds.
const OPEN_TIMEOUT: Duration = Duration::from_secs(20);

/// Open sessions, with their hub, in this process. Dropping it ends them.
pub(super) struct Sender {
    pub(super) handle: Handle,
    pub(super) links: Vec<SessionLink>,
}

/// The options of the sender.
pub(super) struct SenderOptions {
    pub(super) camera: SourceSpec,
    pub(super) bitrate: Option<Bitrate>,
    pub(super) sends_audio: bool,
    pub(super) sessions: usize,
    /// What happens to the packets that it sends.
    pub(super) impairment: Option<Impairment>,
}

/// Why the sender could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The system gives no random bytes.
    #[error("the engine cannot start: {0}")]
    Start(#[from] getrandom::Error),
    /// A session was refused, or the hub is not running.
    #[error("the sessions cannot be opened: {0}")]
    Refused(String),
    /// The sessions were not open in time.
    #[error("the sessions were not open within 20 s")]
    TimedOut,
}

impl Sender {
    /// Opens broadcasts at an embedded hub, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// Fails if they do not open.
    pub(super) async fn open(options: SenderOptions) -> Result<Self, SenderError> {
        let engine_options = EngineOptions {
            hub: HubChoice::Embed(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()),
            name: "bench".to_owned(),
            camera: options.camera,
            video_bitrate: options.bitrate,
            microphone: match options.sends_audio {
                true => SourceSpec::Tone { hz: 440.0 },
                false => SourceSpec::None,
            },
            decode: Decode::WhenSeen,
            impairment: options.impairment,
            ..EngineOptions::without_devices()
        };
        let (handle, mut events) = Engine::start(engine_options)?;
        let media = if options.sends_audio { MediaSet::AUDIO_VIDEO } else { MediaSet::VIDEO };
        let kind = SessionKind { media, topology: Topology::OneWay };
        for _ in 0..options.sessions {
            let session = crate::engine::fresh_session_id();
            handle.send(Command::Open(OpenRequest { session, kind, limit: None })).await;
        }
        let opened = opened(&mut events, options.sessions);
        let links = timeout(OPEN_TIMEOUT, opened).await.map_err(|_| SenderError::TimedOut)??;
        tokio::spawn(async move { while events.recv().await.is_some() {} });
        Ok(Self { handle, links })
    }
}

/// Waits until that many sessions are open and returns their links.
async fn opened(
    events: &mut mpsc::Receiver<Event>,
    sessions: usize,
) -> Result<Vec<SessionLink>, SenderError> {
    let mut links = vec![];
    while links.len() < sessions {
        match events.recv().await {
            Some(Event::Opened { link, .. }) => links.push(link),
            Some(Event::Failed(failure)) => {
                return Err(SenderError::Refused(wording::failure(&failure)));
            }
            Some(Event::Ended { reason, .. }) => {
                return Err(SenderError::Refused(reason.name().to_owned()));
            }
            Some(
                Event::Listening { .. }
                | Event::LinkChanged { .. }
                | Event::HubLost { .. }
                | Event::HubRestored { .. }
                | Event::Waiting { .. }
                | Event::Joined { .. }
                | Event::Participant { .. }
                | Event::Renamed { .. }
                | Event::Access { .. }
                | Event::FirstFrame { .. }
                | Event::LeftOut { .. }
                | Event::MicrophoneSilent
                | Event::ActiveSpeaker { .. }
                | Event::SpeakingWhileMuted
                | Event::EncoderLate
                | Event::UploadFull
                | Event::UploadOk
                | Event::MessageReceived { .. }
                | Event::MessageSent { .. }
                | Event::Undelivered { .. },
            ) => {}
            None => return Err(SenderError::Refused("the engine ended".to_owned())),
        }
    }
    Ok(links)
}
