//! The options of the command line. Their doc comments are the text of `--help`.

mod parse;

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use anyhow::bail;
use clap::{
    Arg, CommandFactory as _, Parser, Subcommand,
    builder::{OsStringValueParser, StringValueParser, TypedValueParser},
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::{
    certificate::CertificateArgs,
    data_use::DataUseArgs,
    link_source::LinkSource,
    priority::PriorityArgs,
    serve::ServeOptions,
    trace::{TraceArgs, TraceTask},
    values::{Listen, parse_hub, parse_listen, parse_subnet, parse_time},
    voice::VoiceArgs,
};
use parse::{parse_camera, parse_id, parse_kind, parse_microphone, parse_name};

use crate::{
    bench::BenchTask,
    capture::SourceSpec,
    engine::{Decode, EngineOptions, HubChoice, Impairment, OwnHubOptions},
    model::{
        Command, DeviceKind, HubUrl, JoinTarget, OpenRequest, SessionId, SessionKind,
        VoiceProcessing, parse_target,
    },
    playback::SpeakerSpec,
    signalling::{OpensFor, Subnet},
};

/// One camera and one microphone, captured once, encoded once, live in many sessions. Without a
/// command, the window opens.
#[derive(Parser, Debug)]
#[command(version, about, after_long_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// The task; without one, the window opens.
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Links of sessions to join in the window (`http://HOST:PORT/s/ID`). If a window is open
    /// already, it takes them and comes to the front.
    #[arg(value_name = "LINK", value_parser = LinkParser)]
    pub links: Vec<JoinTarget>,
    /// Open a separate window for another user, even if one is open already.
    #[arg(long)]
    pub new_window: bool,
    /// What is done to the sound of the microphone.
    #[command(flatten)]
    pub voice: VoiceArgs,
    /// What is traced.
    #[command(flatten)]
    pub trace: TraceArgs,
}

impl Args {
    /// Parses a command line; the first argument is the program's name.
    ///
    /// # Errors
    /// Returns what is wrong with it, or the help that it asks for: [`clap::Error::exit`] prints
    /// both.
    pub fn read<I>(arguments: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let first = arguments.get(1).cloned();
        Self::try_parse_from(arguments).map_err(|error| {
            // After a mistyped command, clap complains about the arguments that follow it.
            let command = Self::command();
            let mistyped = first.filter(|argument: &OsString| {
                error.kind() == ErrorKind::UnknownArgument && is_mistyped(&command, argument)
            });
            mistyped
                .map_or(error, |argument| unknown_command(&command, &argument.to_string_lossy()))
        })
    }
}

/// Returns whether an argument is neither a command nor an option nor a link.
fn is_mistyped(command: &clap::Command, argument: &OsStr) -> bool {
    let text = argument.to_string_lossy();
    !text.starts_with('-') && !text.contains('/') && command.find_subcommand(&*text).is_none()
}

/// Parses links as the window does. Any other argument is reported as a mistyped command, also an
/// id: otherwise a mistyped command would be taken for an id.
#[derive(Clone)]
struct LinkParser;

impl TypedValueParser for LinkParser {
    type Value = JoinTarget;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<JoinTarget, clap::Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        let error = match parse_target(&text) {
            Ok((hub @ Some(_), session)) => return Ok(JoinTarget { session, hub }),
            Ok((None, _)) => None,
            Err(error) => text.contains('/').then(|| error.to_string()),
        };
        Err(error.map_or_else(
            || unknown_command(command, &text),
            |error| {
                clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")).with_cmd(command)
            },
        ))
    }
}

/// Returns the error for an unknown command; it names the most similar command.
fn unknown_command(command: &clap::Command, text: &str) -> clap::Error {
    let mut error = clap::Error::new(ErrorKind::InvalidSubcommand).with_cmd(command);
    error.insert(ContextKind::InvalidSubcommand, ContextValue::String(text.to_owned()));
    let usage = command.clone().render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    let names = command.get_subcommands().map(clap::Command::get_name);
    let similar = names.map(|name| (strsim::jaro(name, text), name));
    let similar = similar.filter(|(similarity, _)| *similarity > MIN_SIMILARITY);
    let nearest = similar.max_by(|one, other| one.0.total_cmp(&other.0));
    if nearest.is_none() && SessionId::parse(text).is_ok() {
        let tip = format!("`quintet join {text}` joins the session of that id").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    if let Some((_, name)) = nearest {
        error
            .insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![name.to_owned()]));
    }
    error
}

/// The least similarity at which a command is suggested for a mistyped one; `clap` uses the same
/// value.
const MIN_SIMILARITY: f64 = 0.7;

const EXIT_CODES: &str = "\
Exit codes:
  0  the task was carried out
  1  something unexpected failed; standard error has the reason
  2  the command line is wrong
  3  the hub cannot be reached, or this program cannot start a hub
  4  a session was refused: no-such-session, id-taken, session-full, not-allowed, …
  5  the user was ejected from a session, or another program took it over with the owner key
  6  a session was not open yet when the time was up
  7  a camera, microphone, speaker or file could not be used, and still could not at the end
  8  a session was joined, but no participant in it was ever connected

KIND is av-conference, av-broadcast, audio-conference, audio-broadcast, video-broadcast, or
MEDIA/DIRECTION: media audio, video, data joined by '+'; direction one-way, one-to-one,
one-to-many or many-to-many. Example: audio+video/one-to-one.

SPEC is default, none, a device's name or id as `quintet devices` lists them, pattern[:1280x720@30]
(camera), busy[:1280x720@30] (camera, noise and motion that use the encoder's whole bitrate),
tone[:440] (microphone), or file:PATH (camera .y4m, microphone .wav, speaker a .wav to write).";

/// The task of a command line.
#[derive(Subcommand, Debug)]
pub enum Task {
    /// Open one session, or five, and stay until Ctrl-C.
    Open {
        /// Open the five: av-conference, av-broadcast, audio-conference, audio-broadcast and
        /// video-broadcast.
        #[arg(long)]
        five: bool,
        /// The kind of a session to open; can be given several times, and together with --five.
        #[arg(long, value_name = "KIND", value_parser = parse_kind)]
        kind: Vec<SessionKind>,
        /// The id of the session; without it, an id is generated that only this program can open
        /// again. With several sessions, give one id for each, in the same order.
        #[arg(long, value_name = "ID", value_parser = parse_id)]
        id: Vec<SessionId>,
        /// The maximum number of participants in each session, including the opener.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=256))]
        limit: Option<u16>,
        /// Options of both `open` and `join`.
        #[command(flatten)]
        common: Common,
    },
    /// Join sessions by link or id, and stay until Ctrl-C.
    Join {
        /// Links (`http://HOST:PORT/s/ID`) or ids; `-` reads one from standard input, `@FILE` from
        /// a file, so that no other user of the machine sees it. An id is looked up at the default
        /// hub and at the hubs of the given links.
        #[arg(required_unless_present = "link_file", value_name = "LINK_OR_ID",
            value_parser = LinkSource::parse)]
        sessions: Vec<LinkSource>,
        /// A file with a link, like `@FILE`; can be given several times.
        #[arg(long, value_name = "FILE")]
        link_file: Vec<PathBuf>,
        /// Also open a session of this kind, in the same process; can be given several times.
        #[arg(long, value_name = "KIND", value_parser = parse_kind)]
        open: Vec<SessionKind>,
        /// Options of both `open` and `join`.
        #[command(flatten)]
        common: Common,
    },
    /// Run a hub alone, until Ctrl-C.
    Serve(ServeOptions),
    /// Measure the cost of sending and the latency of video on this machine.
    Bench {
        /// The measurement.
        #[command(subcommand)]
        bench: BenchTask,
    },
    /// List cameras, microphones and speakers.
    Devices {
        /// Print one JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Read a file that `--trace` wrote.
    Trace {
        /// The task.
        #[command(subcommand)]
        task: TraceTask,
    },
}

/// Options of `open` and `join`.
#[derive(clap::Args, Debug)]
pub struct Common {
    /// The hub to use; without it, your own hub on this machine (127.0.0.1, port 7340 or a
    /// following one), or, if there is none, a hub that this program starts.
    #[arg(long, value_name = "URL", value_parser = parse_hub, conflicts_with = "tls")]
    hub: Option<HubUrl>,
    /// Where a hub that this program starts listens: ADDRESS, ADDRESS:PORT or :PORT; without it, on
    /// all addresses. 0.0.0.0 means all IPv4 addresses only, :: all IPv6 addresses only. With a
    /// port, a hub is started there, and no other hub is used.
    #[arg(long, value_name = "ADDR", value_parser = parse_listen, conflicts_with = "hub")]
    listen: Option<Listen>,
    /// The URL by which clients reach the hub that this program starts, if it does: links contain
    /// it, and the hub accepts requests to its host name.
    #[arg(long, value_name = "URL", value_parser = parse_hub, conflicts_with = "hub")]
    public_url: Option<HubUrl>,
    /// Who may open sessions at the hub that this program starts, if it does: `mine` for your own
    /// programs only, or `everyone`. Everyone may join sessions that are open.
    #[arg(long, value_name = "WHO", default_value = "mine", conflicts_with = "hub")]
    hub_for: HubFor,
    /// A proxy in front of the hub that this program starts: ADDRESS or ADDRESS/PREFIX; can be
    /// given several times. The client addresses in X-Forwarded-For and Forwarded are trusted from
    /// these proxies only.
    #[arg(long, value_name = "ADDR", value_parser = parse_subnet, conflicts_with = "hub")]
    trusted_proxy: Vec<Subnet>,
    /// https at the hub that this program starts, if it does.
    #[command(flatten)]
    certificate: CertificateArgs,
    /// Your name, as other participants see it.
    #[arg(long, default_value = "", value_parser = parse_name, hide_default_value = true)]
    name: String,
    /// The source of the video to send.
    #[arg(long, value_name = "SPEC", default_value = "default",
        value_parser = OsStringValueParser::new().try_map(parse_camera))]
    camera: SourceSpec,
    /// The source of the audio to send.
    #[arg(long, value_name = "SPEC", default_value = "default",
        value_parser = OsStringValueParser::new().try_map(parse_microphone))]
    microphone: SourceSpec,
    /// What is done to the sound of the microphone.
    #[command(flatten)]
    voice: VoiceArgs,
    /// How much data the sessions use.
    #[command(flatten)]
    pub(super) data_use: DataUseArgs,
    /// Whose turn the sessions are.
    #[command(flatten)]
    pub(super) priority: PriorityArgs,
    /// The output for received audio.
    #[arg(long, value_name = "SPEC", default_value = "default",
        value_parser = OsStringValueParser::new().try_map(SpeakerSpec::parse))]
    pub(super) speaker: SpeakerSpec,
    /// Stop after this time, such as 20s, 5m or 500ms.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub(super) time: Option<Duration>,
    /// Print one JSON object per line instead of sentences.
    #[arg(long)]
    pub(super) json: bool,
    /// Send each line of standard input to every session with `data` in which you may write and a
    /// participant is connected. Reading starts when there is such a session, at most ten lines a
    /// second.
    #[arg(long)]
    pub(super) say: bool,
    /// Read commands for the sessions that you own from standard input, one per line:
    /// `eject PERSON [in SESSION] [--address]` (for 10 minutes; with --address, everyone at that
    /// address), `allow PERSON [in SESSION]`, `lock [SESSION]` (no new participants),
    /// `unlock [SESSION]`.
    #[arg(long, conflicts_with = "say")]
    pub(super) commands: bool,
    /// Fail at once if a session to join is not open.
    #[arg(long)]
    no_wait: bool,
    /// Simulate a bad network, for tests: loss=0.05,burst=3,flip=0.01,delay=50ms,jitter=20ms,
    /// rate=1Mbit,queue=300ms,seed=7.
    #[arg(long, value_name = "NETWORK")]
    impair: Option<Impairment>,
    /// Write all received and sent RTP and RTCP packets, decrypted, to a file for Wireshark (pcap).
    /// It contains all audio and video; only you can read it.
    #[arg(long, value_name = "FILE")]
    pub(super) rtp_dump: Option<PathBuf>,
    /// What is traced.
    #[command(flatten)]
    pub(super) trace: TraceArgs,
}

/// Who may open sessions at a hub of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum HubFor {
    /// Programs of this user.
    Mine,
    /// Every client that can reach it.
    Everyone,
}

impl From<HubFor> for OpensFor {
    fn from(value: HubFor) -> Self {
        match value {
            HubFor::Mine => Self::Mine,
            HubFor::Everyone => Self::Everyone,
        }
    }
}

impl Common {
    /// Returns the options of the engine.
    pub(super) fn engine_options(&self) -> EngineOptions {
        let hub = match (&self.hub, self.listen) {
            (Some(hub), _) => HubChoice::At(hub.clone()),
            (None, Some(listen)) if listen.port_given => HubChoice::Embed(listen.at),
            (None, listen) => HubChoice::Find { listen: listen.and_then(|listen| listen.at.ip) },
        };
        EngineOptions {
            hub,
            own_hub: OwnHubOptions {
                public_url: self.public_url.clone(),
                opens_for: self.hub_for.into(),
                trusted_proxies: self.trusted_proxy.clone(),
                certificate: self.certificate.choice(),
            },
            name: self.name.clone(),
            camera: self.camera.clone(),
            video_bitrate: None,
            microphone: self.microphone.clone(),
            voice_processing: self.voice.choice().or(VoiceProcessing::default()),
            speaker: self.speaker.clone(),
            decode: Decode::Always,
            measures_tones: self.json,
            keeps_secrets: true,
            impairment: self.impair,
            rtp_dump: None,
            trace: None,
        }
    }

    /// Returns the sources that were named; they are checked at once. Default sources are opened,
    /// and their failures reported, when they are needed.
    pub(super) fn named_sources(&self) -> Vec<(DeviceKind, SourceSpec)> {
        let all = [(DeviceKind::CAMERA, &self.camera), (DeviceKind::MICROPHONE, &self.microphone)];
        let is_named =
            |spec: &SourceSpec| matches!(spec, SourceSpec::File(_) | SourceSpec::Device(_));
        let named = all.into_iter().filter(|(_, spec)| is_named(spec));
        named.map(|(kind, spec)| (kind, spec.clone())).collect()
    }
}

impl Task {
    /// Reads the links from files and standard input; blocks meanwhile.
    ///
    /// # Errors
    /// Fails if one cannot be read.
    pub(super) fn read_links(&mut self) -> anyhow::Result<()> {
        let Self::Join { sessions, link_file, common, .. } = self else { return Ok(()) };
        LinkSource::read_all(sessions, link_file, common.say || common.commands)
    }

    /// Returns the commands that open and join the sessions, in order.
    ///
    /// # Errors
    /// Fails if the given ids do not match the sessions, or a limit is too high.
    pub(super) fn commands(
        &self,
        mut fresh: impl FnMut() -> SessionId,
    ) -> anyhow::Result<Vec<Command>> {
        let mut open = |kinds: &[SessionKind], ids: &[SessionId], limit: Option<u16>| {
            let requests = kinds.iter().enumerate().map(|(index, kind)| {
                let session = ids.get(index).cloned().unwrap_or_else(&mut fresh);
                let most = kind.default_limit();
                if limit.is_some_and(|limit| limit > most) {
                    bail!("a session of the kind {kind} takes at most {most} participants");
                }
                Ok(Command::Open(OpenRequest { session, kind: *kind, limit }))
            });
            requests.collect::<anyhow::Result<Vec<_>>>()
        };
        match self {
            Self::Open { five, kind, id, limit, common: _ } => {
                let five = if *five { &SessionKind::FIVE[..] } else { &[] };
                let kinds = [five, kind].concat();
                if kinds.is_empty() {
                    bail!(
                        "no session to open; give --five, or --kind KIND as in --kind av-conference"
                    );
                }
                if !id.is_empty() && id.len() != kinds.len() {
                    bail!(
                        "--id is given {} times for {} to open; give one for each, or none",
                        id.len(),
                        if kinds.len() == 1 {
                            "one session".to_owned()
                        } else {
                            format!("{} sessions", kinds.len())
                        }
                    );
                }
                open(&kinds, id, *limit)
            }
            Self::Join { sessions, open: kinds, common, link_file: _ } => {
                // An id is looked up at the hubs in use, so the sessions with links come first.
                let mut known = BTreeSet::new();
                let sessions: Vec<_> = sessions
                    .iter()
                    .filter_map(LinkSource::session)
                    .filter(|target| known.insert((&target.hub, &target.session)))
                    .collect();
                let links = sessions.iter().copied().filter(|target| target.hub.is_some());
                let bare = sessions.iter().copied().filter(|target| target.hub.is_none());
                let joins = links
                    .chain(bare)
                    .map(|target| Command::Join { target: target.clone(), wait: !common.no_wait });
                Ok(open(kinds, &[], None)?.into_iter().chain(joins).collect())
            }
            Self::Serve(_) | Self::Devices { .. } => Ok(vec![]),
            Self::Bench { .. } | Self::Trace { .. } => Ok(vec![]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AudioContent, Processing};

    fn commands(line: &str) -> anyhow::Result<Vec<Command>> {
        let args = Args::try_parse_from(line.split_whitespace())?;
        let mut count = 0;
        args.task.expect("a task").commands(|| {
            count += 1;
            SessionId::from_random([count; 10])
        })
    }

    #[test]
    fn the_command_line_passes_the_checks_of_clap() {
        Args::command().debug_assert();
    }

    #[test]
    fn five_sessions_have_five_kinds_and_five_ids() {
        let commands = commands("quintet open --five").unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for (command, kind) in commands.iter().zip(SessionKind::FIVE) {
            let Command::Open(request) = command else { panic!("{command:?}") };
            assert_eq!(request.kind, kind);
            ids.insert(request.session.clone());
        }
        assert_eq!((commands.len(), ids.len()), (5, 5));
    }

    #[test]
    fn given_ids_belong_to_the_kinds_in_order() {
        let line = "quintet open --kind audio/one-to-one --id boss --kind av-broadcast --id all";
        let commands = commands(line).unwrap();
        assert!(matches!(&commands[1], Command::Open(request)
            if request.session.as_str() == "all" && request.kind == SessionKind::FIVE[1]));
        assert!(super::tests::commands("quintet open --five --id one").is_err());
    }

    #[test]
    fn sound_is_processed_by_default_only_from_microphones() {
        let default = VoiceProcessing::default();
        for (options, chosen) in [
            ("", default),
            (
                "--echo off --noise on",
                VoiceProcessing {
                    echo_cancellation: Processing::Off,
                    noise_suppression: Processing::Always,
                    ..default
                },
            ),
            ("--audio music", VoiceProcessing { content: AudioContent::Music, ..default }),
        ] {
            let line = format!("quintet open --five {options}");
            let args = Args::try_parse_from(line.split_whitespace()).unwrap();
            let Some(Task::Open { common, .. }) = args.task else { panic!("{line}") };
            assert_eq!(common.engine_options().voice_processing, chosen, "{line}");
            let window = format!("quintet {options}");
            let args = Args::try_parse_from(window.split_whitespace()).unwrap();
            assert_eq!(args.voice.choice().or(default), chosen);
        }
    }

    #[test]
    fn sessions_with_links_are_joined_before_bare_ids() {
        let commands = commands("quintet join a http://one/s/b c http://two/s/d").unwrap();
        let ids: Vec<_> = commands.iter().map(|one| one.session().unwrap().as_str()).collect();
        assert_eq!(ids, ["b", "d", "a", "c"]);
    }

    #[test]
    fn a_link_that_is_given_twice_is_joined_once() {
        let commands = commands("quintet join http://one/s/b a http://one/s/b a").unwrap();
        assert_eq!(commands.len(), 2);
    }

    #[test]
    fn a_limit_above_that_of_the_kind_is_refused() {
        let wrong = commands("quintet open --kind av-conference --limit 200").unwrap_err();
        assert!(wrong.to_string().contains("at most 12"), "{wrong}");
        assert!(commands("quintet open --kind av-broadcast --limit 200").is_ok());
    }

    #[test]
    fn the_error_for_a_wrong_option_names_it_and_the_nearest_right_one() {
        let wrong = commands("quintet open --fife").unwrap_err().to_string();
        assert!(wrong.contains("--fife") && wrong.contains("--five"), "{wrong}");
        let wrong = commands("quintet open --kind av-confrence").unwrap_err().to_string();
        assert!(wrong.contains("av-confrence") && wrong.contains("av-conference"), "{wrong}");
        let wrong = commands("quintet join http://x/y").unwrap_err().to_string();
        assert!(wrong.contains("/s/ID"), "{wrong}");
        let wrong = commands("quintet open --kind av-broadcast --id hall.").unwrap_err();
        assert!(wrong.to_string().contains("it is read as \"hall\""), "{wrong}");
    }

    #[test]
    fn links_without_a_task_are_for_the_window() {
        let args = |line: &str| Args::try_parse_from(line.split_whitespace());
        let both = args("quintet http://one/s/a https://two/s/b --new-window").unwrap();
        let ids: Vec<_> = both.links.iter().map(|one| one.session.as_str()).collect();
        assert_eq!((ids, both.new_window), (vec!["a", "b"], true));
        assert!(args("quintet").unwrap().task.is_none());
        assert!(args("quintet --new-window open --five").is_err());
        let wrong = args("quintet http://one/a").unwrap_err().to_string();
        assert!(wrong.contains("/s/ID"), "{wrong}");
    }

    #[test]
    fn a_mistyped_command_is_not_taken_for_a_session() {
        let args = |line: &str| Args::read(line.split_whitespace());
        for line in ["quintet jion", "quintet jion http://one/s/a", "quintet jion --name Ada"] {
            let wrong = args(line).unwrap_err().to_string();
            assert!(wrong.contains("'jion'") && wrong.contains("'join'"), "{wrong}");
        }
        let wrong = args("quintet town-hall").unwrap_err().to_string();
        assert!(wrong.contains("quintet join town-hall") && wrong.contains("Usage"), "{wrong}");
    }

    #[test]
    fn the_public_address_of_a_hub_has_one_option_and_keeps_its_older_name() {
        for option in ["--public-url", "--public"] {
            let line = ["quintet", "serve", option, "https://hub.example"];
            let Some(Task::Serve(ServeOptions { public_url: Some(url), .. })) =
                Args::try_parse_from(line).unwrap().task
            else {
                panic!("{option} is an option of serve");
            };
            assert_eq!(url.as_str(), "https://hub.example:443");
        }
        let open = "quintet open --five --public-url http://olga.example:7340";
        let Some(Task::Open { common, .. }) =
            Args::try_parse_from(open.split_whitespace()).unwrap().task
        else {
            panic!("an option of open");
        };
        let public = common.engine_options().own_hub.public_url.map(|url| url.to_string());
        assert_eq!(public.as_deref(), Some("http://olga.example:7340"));
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(parse_time("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(parse_time("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_time("20").unwrap(), Duration::from_secs(20));
        for wrong in ["20x", "s", "0s", "18000000000000000000s"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
