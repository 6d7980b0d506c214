//! The command line, as `--help` explains it.

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

use super::invitation::Invitation;
use parse::{
    parse_camera, parse_hub, parse_id, parse_kind, parse_listen, parse_microphone, parse_name,
    parse_subnet, parse_time,
};

use crate::{
    bench::BenchTask,
    capture::SourceSpec,
    engine::{Decode, EngineOptions, HubChoice, Impairment, ListenAt, OwnHubOptions},
    model::{
        Command, HubUrl, JoinTarget, OpenRequest, SessionId, SessionKind, SourceKind, parse_target,
    },
    playback::SpeakerSpec,
    signalling::{OpensFor, Subnet},
};

/// One camera and one microphone, captured once, encoded once, live in many sessions. Without a
/// command, the window opens.
#[derive(Parser, Debug)]
#[command(version, about, after_long_help = EXIT_CODES, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// What to do; without it, the window opens.
    #[command(subcommand)]
    pub task: Option<Task>,
    /// Links to join in the window (`http://HOST:PORT/s/ID`). If a window is open already, it gets
    /// them and comes to the front.
    #[arg(value_name = "LINK", value_parser = LinkParser)]
    pub links: Vec<JoinTarget>,
    /// Open a window of its own, for another person, whatever is open already.
    #[arg(long)]
    pub new_window: bool,
}

impl Args {
    /// Reads a command line, the program's name first.
    ///
    /// # Errors
    /// What is wrong with it, or the help that it asks for: [`clap::Error::exit`] prints both.
    pub fn read<I>(words: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item: Into<OsString>>,
    {
        let words: Vec<OsString> = words.into_iter().map(Into::into).collect();
        let first = words.get(1).cloned();
        Self::try_parse_from(words).map_err(|error| {
            // What follows a mistyped command is not what is wrong.
            let command = Self::command();
            let mistyped = first.filter(|word: &OsString| {
                error.kind() == ErrorKind::UnknownArgument && is_mistyped(&command, word)
            });
            mistyped.map_or(error, |word| no_command(&command, &word.to_string_lossy()))
        })
    }
}

/// Whether a word is neither a command nor an option nor a link.
fn is_mistyped(command: &clap::Command, word: &OsStr) -> bool {
    let word = word.to_string_lossy();
    !word.starts_with('-') && !word.contains('/') && command.find_subcommand(&*word).is_none()
}

/// Takes links, as the window's box does. Other words are mistyped commands: a bare id would hide
/// them.
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
        let wrong = match parse_target(&text) {
            Ok((hub @ Some(_), session)) => return Ok(JoinTarget { session, hub }),
            Ok((None, _)) => None,
            Err(error) => text.contains('/').then(|| error.to_string()),
        };
        Err(wrong.map_or_else(
            || no_command(command, &text),
            |wrong| {
                clap::Error::raw(ErrorKind::ValueValidation, format!("{wrong}\n")).with_cmd(command)
            },
        ))
    }
}

/// That a word is none of the commands, and which is the nearest.
fn no_command(command: &clap::Command, word: &str) -> clap::Error {
    let mut error = clap::Error::new(ErrorKind::InvalidSubcommand).with_cmd(command);
    error.insert(ContextKind::InvalidSubcommand, ContextValue::String(word.to_owned()));
    let usage = command.clone().render_usage();
    error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
    let names = command.get_subcommands().map(clap::Command::get_name);
    let near = names.map(|name| (strsim::jaro(name, word), name));
    let near = near.filter(|(likeness, _)| *likeness > LIKE);
    let nearest = near.max_by(|one, other| one.0.total_cmp(&other.0));
    if nearest.is_none() && SessionId::parse(word).is_ok() {
        let tip = format!("`quintet join {word}` joins the session of that id").into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    if let Some((_, name)) = nearest {
        error
            .insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(vec![name.to_owned()]));
    }
    error
}

/// How alike a mistyped command and the right one are at least; what `clap` takes for its own.
const LIKE: f64 = 0.7;

const EXIT_CODES: &str = "\
Exit codes:
  0  what was asked for happened
  1  something unexpected failed; standard error says what
  2  the command line is wrong
  3  the hub cannot be reached, or one of our own cannot be started
  4  a session was refused: no-such-session, id-taken, session-full, not-allowed, …
  5  a session ended against our will: ejected, replaced
  6  a session was still awaited when the time was up
  7  a camera, microphone, speaker or file that was wanted could not be used, and still was
     not at the end
  8  a session was joined, but nobody in it was ever connected

KIND is av-conference, av-broadcast, audio-conference, audio-broadcast, video-broadcast, or
MEDIA/DIRECTION: media audio, video, data joined by '+'; direction one-way, one-to-one,
one-to-many or many-to-many. Example: audio+video/one-to-one.

SPEC is default, none, a device's name or id as `quintet devices` lists them, pattern[:1280x720@30]
(camera), busy[:1280x720@30] (camera, noise and motion that need the encoder's whole rate),
tone[:440] (microphone), or file:PATH (camera .y4m, microphone .wav, speaker a .wav to be written).";

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Task {
    /// Open one session, or five, and stay until Ctrl-C.
    Open {
        /// Open the five: av-conference, av-broadcast, audio-conference, audio-broadcast and
        /// video-broadcast.
        #[arg(long)]
        five: bool,
        /// The kind of a session to open; may be given several times, and beside --five.
        #[arg(long, value_name = "KIND", value_parser = parse_kind)]
        kind: Vec<SessionKind>,
        /// An own id for the session; without it, one that belongs to this program. With several sessions, give as
        /// many ids, in the same order.
        #[arg(long, value_name = "ID", value_parser = parse_id)]
        id: Vec<SessionId>,
        /// How many may be in each session, the opener included.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(2..=256))]
        limit: Option<u16>,
        /// Options of both `open` and `join`.
        #[command(flatten)]
        common: Common,
    },
    /// Join sessions by link or id, and stay until Ctrl-C.
    Join {
        /// Links (`http://HOST:PORT/s/ID`) or bare ids; `-` reads one from standard input, `@FILE`
        /// from a file, so that no other user of the machine sees it. A bare id is sought at the
        /// default hub and at the hubs of the links beside it.
        #[arg(required_unless_present = "link_file", value_name = "LINK_OR_ID",
            value_parser = Invitation::parse)]
        sessions: Vec<Invitation>,
        /// A file with a link, as `@FILE`; may be given several times.
        #[arg(long, value_name = "FILE")]
        link_file: Vec<PathBuf>,
        /// Open these as well, in the same process; may be given several times.
        #[arg(long, value_name = "KIND", value_parser = parse_kind)]
        open: Vec<SessionKind>,
        /// Options of both `open` and `join`.
        #[command(flatten)]
        common: Common,
    },
    /// Run a hub alone, until Ctrl-C.
    Serve {
        /// Where to listen: ADDRESS, ADDRESS:PORT or :PORT; without it, on port 7340 of all
        /// addresses. 0.0.0.0 means all of IPv4 only, :: all of IPv6 only.
        #[arg(long, value_name = "ADDR", default_value = ":7340", value_parser = parse_listen)]
        listen: Listen,
        /// The address by which people reach this hub, such as `https://hub.example`: links carry it,
        /// and the hub answers to its host name. Without it, the hub answers to IP addresses,
        /// localhost and the name of this machine.
        #[arg(long, alias = "public", value_name = "URL", value_parser = parse_hub)]
        public_url: Option<HubUrl>,
        /// A proxy in front of the hub, or several: ADDRESS or ADDRESS/PREFIX. It is believed when it
        /// tells, in X-Forwarded-For or Forwarded, whom a connection is for; nobody else is.
        #[arg(long, value_name = "ADDR", value_parser = parse_subnet)]
        trusted_proxy: Vec<Subnet>,
        /// One JSON object a line instead of sentences.
        #[arg(long)]
        json: bool,
        /// Stop after that long, such as 20s, 5m or 500ms.
        #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
        time: Option<Duration>,
    },
    /// Measure what sending costs on this machine, and how long a picture takes.
    Bench {
        /// What to measure.
        #[command(subcommand)]
        bench: BenchTask,
    },
    /// List cameras, microphones and speakers.
    Devices {
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
}

/// Options of `open` and `join`.
#[derive(clap::Args, Debug)]
pub struct Common {
    /// The hub to use; without it, the one on 127.0.0.1:7340, or one of our own.
    #[arg(long, value_name = "URL", value_parser = parse_hub)]
    hub: Option<HubUrl>,
    /// Where a hub of our own listens: ADDRESS, ADDRESS:PORT or :PORT; without it, on all
    /// addresses. 0.0.0.0 means all of IPv4 only, :: all of IPv6 only. With a port, one is run there
    /// and no other is looked for.
    #[arg(long, value_name = "ADDR", value_parser = parse_listen, conflicts_with = "hub")]
    listen: Option<Listen>,
    /// The address by which people reach a hub of our own, if one is started: links carry it, and
    /// the hub answers to its host name.
    #[arg(long, value_name = "URL", value_parser = parse_hub, conflicts_with = "hub")]
    public_url: Option<HubUrl>,
    /// Who may open sessions at a hub of our own, if one is started: `mine` for your own programs
    /// only, or `everyone`. Everybody may join those that are open.
    #[arg(long, value_name = "WHO", default_value = "mine", conflicts_with = "hub")]
    hub_for: HubFor,
    /// A proxy in front of a hub of our own, or several: ADDRESS or ADDRESS/PREFIX. It is believed
    /// when it tells, in X-Forwarded-For or Forwarded, whom a connection is for; nobody else is.
    #[arg(long, value_name = "ADDR", value_parser = parse_subnet, conflicts_with = "hub")]
    trusted_proxy: Vec<Subnet>,
    /// Your name, as the others see it.
    #[arg(long, default_value = "", value_parser = parse_name, hide_default_value = true)]
    name: String,
    /// What to send as picture.
    #[arg(long, value_name = "SPEC", default_value = "default",
        value_parser = OsStringValueParser::new().try_map(parse_camera))]
    camera: SourceSpec,
    /// What to send as sound.
    #[arg(long, value_name = "SPEC", default_value = "default",
        value_parser = OsStringValueParser::new().try_map(parse_microphone))]
    microphone: SourceSpec,
    /// Where to play what is received.
    #[arg(long, value_name = "SPEC", default_value = "default",
        value_parser = OsStringValueParser::new().try_map(SpeakerSpec::parse))]
    pub(super) speaker: SpeakerSpec,
    /// Stop after that long, such as 20s, 5m or 500ms.
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    pub(super) time: Option<Duration>,
    /// One JSON object a line instead of sentences.
    #[arg(long)]
    pub(super) json: bool,
    /// Say each line of standard input in the chats: in every session with `data` in which we may
    /// write and somebody is. Nothing is read before that, and at most ten lines a second.
    #[arg(long)]
    pub(super) say: bool,
    /// Take commands for own sessions from standard input, one a line: `eject PERSON [in SESSION]
    /// [--address]` (out for 10 minutes, with --address everybody at that address), `allow PERSON
    /// [in SESSION]`, `lock [SESSION]` (nobody new comes in), `unlock [SESSION]`.
    #[arg(long, conflicts_with = "say")]
    pub(super) commands: bool,
    /// Fail at once if a session to be joined is not open.
    #[arg(long)]
    no_wait: bool,
    /// Make our own network worse, for tests: loss=0.05,flip=0.01,delay=50ms,jitter=20ms,rate=1Mbit,
    /// seed=7.
    #[arg(long, value_name = "WORSE")]
    impair: Option<Impairment>,
}

/// Who may open sessions at a hub of our own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum HubFor {
    /// Programs of this user.
    Mine,
    /// Everybody who reaches it.
    Everyone,
}

impl From<HubFor> for OpensFor {
    fn from(whom: HubFor) -> Self {
        match whom {
            HubFor::Mine => Self::Mine,
            HubFor::Everyone => Self::Everyone,
        }
    }
}

/// Where a hub of our own listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen {
    /// The addresses and the port.
    pub at: ListenAt,
    /// Whether the port was asked for, so that no other will do.
    pub port_given: bool,
}

impl Common {
    /// The engine's options.
    pub(super) fn engine(&self) -> EngineOptions {
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
            },
            name: self.name.clone(),
            camera: self.camera.clone(),
            rate: None,
            microphone: self.microphone.clone(),
            speaker: self.speaker.clone(),
            decode: Decode::Always,
            keeps_secrets: true,
            impairment: self.impair,
        }
    }
}

impl Common {
    /// The sources that were named, to be looked for at once. Default ones are opened when
    /// somebody wants them, and then told of.
    pub(super) fn sources(&self) -> Vec<(SourceKind, SourceSpec)> {
        let all = [(SourceKind::Camera, &self.camera), (SourceKind::Microphone, &self.microphone)];
        let is_named =
            |spec: &SourceSpec| matches!(spec, SourceSpec::File(_) | SourceSpec::Device(_));
        let named = all.into_iter().filter(|(_, spec)| is_named(spec));
        named.map(|(kind, spec)| (kind, spec.clone())).collect()
    }
}

impl Task {
    /// Reads the links that are in files or come on standard input; blocks meanwhile.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn read_links(&mut self) -> anyhow::Result<()> {
        let Self::Join { sessions, link_file, common, .. } = self else { return Ok(()) };
        Invitation::read_all(sessions, link_file, common.say || common.commands)
    }

    /// The sessions to ask the engine for, in order.
    ///
    /// # Errors
    /// If the ids given do not match the sessions.
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
                        "what is to be opened? --five, or --kind KIND as in --kind av-conference"
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
                // A bare id is sought at the hubs that are in use: those of the links come first.
                let mut known = BTreeSet::new();
                let sessions: Vec<_> = sessions
                    .iter()
                    .filter_map(Invitation::session)
                    .filter(|target| known.insert((&target.hub, &target.session)))
                    .collect();
                let links = sessions.iter().copied().filter(|target| target.hub.is_some());
                let bare = sessions.iter().copied().filter(|target| target.hub.is_none());
                let joins = links
                    .chain(bare)
                    .map(|target| Command::Join { target: target.clone(), wait: !common.no_wait });
                Ok(open(kinds, &[], None)?.into_iter().chain(joins).collect())
            }
            Self::Serve { .. } | Self::Devices { .. } | Self::Bench { .. } => Ok(vec![]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(line: &str) -> anyhow::Result<Vec<Command>> {
        let args = Args::try_parse_from(line.split_whitespace())?;
        let mut count = 0;
        args.task.expect("a task").commands(|| {
            count += 1;
            SessionId::from_random([count; 10])
        })
    }

    #[test]
    fn the_command_line_holds_together() {
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
    fn own_ids_go_with_their_kinds_in_order() {
        let line = "quintet open --kind audio/one-to-one --id boss --kind av-broadcast --id all";
        let commands = commands(line).unwrap();
        assert!(matches!(&commands[1], Command::Open(request)
            if request.session.as_str() == "all" && request.kind == SessionKind::FIVE[1]));
        assert!(super::tests::commands("quintet open --five --id one").is_err());
    }

    #[test]
    fn links_go_before_the_bare_ids_that_are_sought_at_their_hubs() {
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
    fn more_people_than_a_kind_takes_are_refused_by_name() {
        let wrong = commands("quintet open --kind av-conference --limit 200").unwrap_err();
        assert!(wrong.to_string().contains("at most 12"), "{wrong}");
        assert!(commands("quintet open --kind av-broadcast --limit 200").is_ok());
    }

    #[test]
    fn a_wrong_option_names_itself_and_the_nearest_right_one() {
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
    fn links_alone_are_for_the_window() {
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
    fn a_mistyped_command_is_no_session() {
        let args = |line: &str| Args::read(line.split_whitespace());
        for line in ["quintet jion", "quintet jion http://one/s/a", "quintet jion --name Ada"] {
            let wrong = args(line).unwrap_err().to_string();
            assert!(wrong.contains("'jion'") && wrong.contains("'join'"), "{wrong}");
        }
        let wrong = args("quintet town-hall").unwrap_err().to_string();
        assert!(wrong.contains("quintet join town-hall") && wrong.contains("Usage"), "{wrong}");
    }

    #[test]
    fn an_address_to_listen_on_has_four_forms() {
        let listen = |text| {
            let Listen { at: ListenAt { ip, port }, port_given } = parse_listen(text)?;
            let ip = ip.map_or_else(|| "all".to_owned(), |ip| ip.to_string());
            anyhow::Ok((ip, port, port_given))
        };
        assert_eq!(listen("127.0.0.1").unwrap(), ("127.0.0.1".into(), 7340, false));
        assert_eq!(listen("127.0.0.1:0").unwrap(), ("127.0.0.1".into(), 0, true));
        assert_eq!(listen(":80").unwrap(), ("all".into(), 80, true));
        assert_eq!(listen("::1").unwrap(), ("::1".into(), 7340, false));
        // What is said explicitly is meant: one family.
        assert_eq!(listen("0.0.0.0:80").unwrap(), ("0.0.0.0".into(), 80, true));
        assert_eq!(listen("[::]:80").unwrap(), ("::".into(), 80, true));
        assert_eq!(listen("::").unwrap(), ("::".into(), 7340, false));
        assert!(listen("nowhere").is_err() && listen(":x").is_err());
    }

    #[test]
    fn the_public_address_of_a_hub_has_one_option_and_keeps_its_older_name() {
        for option in ["--public-url", "--public"] {
            let line = ["quintet", "serve", option, "https://hub.example"];
            let Some(Task::Serve { public_url: Some(url), .. }) =
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
        let public = common.engine().own_hub.public_url.map(|url| url.to_string());
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
