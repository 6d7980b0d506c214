//! Replays a trace against a fresh core.

use serde_json::Value;

use super::{FORMAT, FirstLine, Line, TraceFormat};
use crate::conference::Conference;
use crate::model::MediaTime;

/// What a trace contains, if the replay does the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// How many inputs.
    pub inputs: usize,
    /// How many times a timer ran out.
    pub timers: usize,
    /// How many effects.
    pub effects: usize,
    /// Whether the trace ends in the middle: its program was killed.
    pub is_cut: bool,
}

/// Why a trace could not be replayed, or the first difference. Lines are counted from one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplayError {
    /// The first line is not that of a trace.
    #[error("this is not a trace of Quintet")]
    NotATrace,
    /// The trace has another format.
    #[error("the trace has the format {0}, and this program reads the format {FORMAT}")]
    Format(u32),
    /// A line cannot be read.
    #[error("line {line} cannot be read: {reason}")]
    Malformed {
        /// The line.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// Lines are missing.
    #[error("{count} lines are missing at line {line}, because the disk was too slow")]
    Gap {
        /// The line.
        line: usize,
        /// How many.
        count: u64,
    },
    /// The core does something else than in the trace.
    #[error(
        "the first difference is in line {line}, after the input or timer of line {cause}:\n\
         trace:  {traced}\nreplay: {replayed}"
    )]
    Differs {
        /// The line.
        line: usize,
        /// The line of the input or the timer before it.
        cause: usize,
        /// What the trace has there.
        traced: String,
        /// What the core does.
        replayed: String,
    },
}

/// Feeds the inputs and timers of a trace to a fresh core, and compares its effects with those of
/// the trace.
///
/// # Errors
/// Returns the first difference, or why the trace cannot be replayed.
pub fn replay(trace: &str) -> Result<Replayed, ReplayError> {
    let mut lines = (1..).zip(trace.split_inclusive('\n'));
    let first = lines.next().and_then(|(_, text)| serde_json::from_str::<FirstLine>(text).ok());
    let FirstLine { quintet_trace, redacted, .. } = first.ok_or(ReplayError::NotATrace)?;
    if quintet_trace != FORMAT {
        return Err(ReplayError::Format(quintet_trace));
    }
    let format = TraceFormat { with_chat: !redacted.iter().any(|one| one == "chat") };
    let mut replay =
        Replay { core: Conference::new(), format, cause: 1, done: Replayed::default() };
    for (number, text) in lines {
        if !text.ends_with('\n') {
            replay.done.is_cut = true;
            return Ok(replay.done);
        }
        let line = serde_json::from_str(text)
            .map_err(|error| ReplayError::Malformed { line: number, reason: error.to_string() })?;
        replay.handle_line(number, line)?;
    }
    // The last effects may not have been written.
    Ok(replay.done)
}

/// The state of a replay.
struct Replay {
    core: Conference,
    format: TraceFormat,
    /// The line of the last input or timer.
    cause: usize,
    done: Replayed,
}

/// What a difference shows where one side has no effect or timer.
const NOTHING: &str = "nothing";

impl Replay {
    fn handle_line(&mut self, number: usize, line: Line) -> Result<(), ReplayError> {
        let Line { at, input, effect, timer, session, participant, lost } = line;
        if let Some(count) = lost {
            return Err(ReplayError::Gap { line: number, count });
        }
        if let Some(effect) = effect {
            self.done.effects += 1;
            let next = self.next_effect(at);
            return self.compare(number, Some(effect), next);
        }
        let next = self.next_effect(at);
        self.compare(number, None, next)?;
        if let Some(input) = input {
            self.done.inputs += 1;
            self.core.handle(input, at);
        } else if let Some(name) = timer {
            self.done.timers += 1;
            let traced = (name.as_str(), session.as_ref(), participant.as_ref());
            let next = self.core.poll_timeout().map(|next| next.timer);
            let replayed = next.map(|timer| (timer.name.name(), timer.session, timer.participant));
            if replayed != Some(traced) {
                let replayed = next.map_or(NOTHING.to_owned(), |timer| timer.to_string());
                return Err(self.differs(number, format!("the timer {name}"), replayed));
            }
            self.core.handle_timeout(at);
        } else {
            let reason = "it has no input, effect or timer".to_owned();
            return Err(ReplayError::Malformed { line: number, reason });
        }
        self.cause = number;
        Ok(())
    }

    /// The core's next effect, as it would be in the trace.
    fn next_effect(&mut self, at: MediaTime) -> Option<Value> {
        let effect = self.core.poll_effect()?;
        let line = self.format.effect(&effect, at);
        serde_json::from_str::<Line>(&line).expect("a line that was just made").effect
    }

    fn compare(
        &self,
        number: usize,
        traced: Option<Value>,
        replayed: Option<Value>,
    ) -> Result<(), ReplayError> {
        if traced == replayed {
            return Ok(());
        }
        let text = |value: Option<Value>| value.map_or(NOTHING.to_owned(), |it| it.to_string());
        Err(self.differs(number, text(traced), text(replayed)))
    }

    fn differs(&self, line: usize, traced: String, replayed: String) -> ReplayError {
        ReplayError::Differs { line, cause: self.cause, traced, replayed }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::TraceHeader;
    use super::*;
    use crate::conference::{Input, tests::fixture::*};
    use crate::model::{
        ChatMessage, ChatText, Command, DataChannelKind, DescriptionKind, DeviceKind, DeviceState,
        HubUrl, NegotiatedMedia, OperationId, Payload, PeerEvent, PeerId, PeerState, PerSource,
        Source,
    };

    const NOW: MediaTime = MediaTime::from_micros(1_000_000);

    /// A core whose inputs, timers and effects are traced.
    struct Traced {
        core: Conference,
        now: MediaTime,
        trace: String,
    }

    const FORMAT: TraceFormat = TraceFormat { with_chat: false };

    impl Traced {
        fn new() -> Self {
            let (version, system) = ("0".to_owned(), "test".to_owned());
            let header = TraceHeader { version, system, unix_us: 7, at: NOW };
            Self { core: Conference::new(), now: NOW, trace: FORMAT.header(header) }
        }

        fn handle(&mut self, input: Input) {
            self.trace += &FORMAT.input(&input, self.now);
            self.core.handle(input, self.now);
            self.fetch();
        }

        fn fetch(&mut self) {
            while let Some(effect) = self.core.poll_effect() {
                self.trace += &FORMAT.effect(&effect, self.now);
            }
        }

        fn advance(&mut self, time: Duration) {
            let end = self.now + time;
            while let Some(next) = self.core.poll_timeout().filter(|next| next.at <= end) {
                self.now = next.at;
                self.trace += &FORMAT.timer(next.timer, self.now);
                self.core.handle_timeout(self.now);
                self.fetch();
            }
            self.now = end;
        }
    }

    const SDP: &str = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:hunter2\r\n";

    fn peer(event: PeerEvent) -> Input {
        Input::Peer(PeerId(1), event)
    }

    /// A run with inputs of all kinds, in which secrets are planted.
    fn run() -> Traced {
        let mut run = Traced::new();
        let chat = |text: &str| ChatText::new(text).unwrap();
        run.handle(Input::SourcesAvailable(PerSource::ALL));
        run.handle(Fixture::open_input(MESH));
        run.handle(Fixture::up_input(own_url()));
        run.handle(hub_input(opened(MESH, vec![])));
        run.handle(hub_input(participant_joined(member("a"))));
        let (operation, kind, sdp) = (OperationId(1), DescriptionKind::Offer, SDP.to_owned());
        run.handle(peer(PeerEvent::LocalDescription { operation, kind, sdp }));
        let answer = Payload::Answer { generation: 1, sdp: SDP.to_owned() };
        run.handle(hub_input(signal("a", answer)));
        run.handle(peer(PeerEvent::Applied { operation: OperationId(2) }));
        run.handle(peer(PeerEvent::Negotiated(NegotiatedMedia::default())));
        run.handle(peer(PeerEvent::State(PeerState::Connected)));
        run.handle(peer(PeerEvent::ChannelOpen(DataChannelKind::Chat)));
        let session = session();
        run.handle(Input::Command(Command::SendMessage { session, text: chat("hunter2") }));
        let message = ChatMessage::Text { number: 1, text: chat("hunter2") };
        run.handle(peer(PeerEvent::ChannelMessage(message)));
        run.handle(Input::Preview(PerSource::ALL));
        let failed = DeviceState::Failed { message: "it is gone".to_owned() };
        run.handle(Input::Device(DeviceKind::Source(Source::Camera), failed));
        run.handle(peer(PeerEvent::State(PeerState::Disconnected)));
        run.advance(Duration::from_secs(40));
        run
    }

    fn own_url() -> HubUrl {
        url("10.0.0.1:7340")
    }

    #[test]
    fn a_trace_is_replayed_without_a_difference_and_contains_no_secret() {
        let run = run();
        assert!(!run.trace.contains("hunter2"), "{}", run.trace);
        let replayed = replay(&run.trace).unwrap_or_else(|error| panic!("{error}"));
        let lines = replayed.inputs + replayed.timers + replayed.effects;
        assert_eq!(lines + 1, run.trace.lines().count());
        assert!(replayed.timers >= 3 && !replayed.is_cut, "{replayed:?}");
    }

    #[test]
    fn the_first_difference_is_reported_with_its_line() {
        let trace = run().trace;
        let changed = |from: &str, to: &str| {
            assert!(trace.contains(from), "{from} in {trace}");
            replay(&trace.replacen(from, to, 1)).unwrap_err()
        };
        let offer = (1..).zip(trace.lines()).find(|(_, line)| line.contains("make-offer"));
        let (line, _) = offer.expect("an offer is made");
        let differs = |error: ReplayError| {
            let ReplayError::Differs { line, cause, traced, replayed } = error else {
                panic!("{error}");
            };
            (line, cause, traced, replayed)
        };
        let found = differs(changed("\"restart_ice\":false", "\"restart_ice\":true"));
        assert_eq!((found.0, found.2.contains("true")), (line, true), "{found:?}");
        assert!(found.1 < line && found.3.contains("false"), "{found:?}");
        let timer = differs(changed("\"timer\":\"ice-restart\"", "\"timer\":\"connect\""));
        assert_eq!(timer.3, "ice-restart of session s for participant a");
        let missing: Vec<_> = trace.lines().filter(|line| !line.contains("make-offer")).collect();
        let missing = differs(replay(&format!("{}\n", missing.join("\n"))).unwrap_err());
        assert!(missing.2 == "nothing" || missing.0 == line, "{missing:?}");
        let cut = replay(&trace[..trace.len() - 5]).unwrap();
        assert!(cut.is_cut);
        assert_eq!(replay("{}\n"), Err(ReplayError::NotATrace));
        let gap = format!("{trace}{}", TraceFormat::gap(3));
        let line = trace.lines().count() + 1;
        assert_eq!(replay(&gap), Err(ReplayError::Gap { line, count: 3 }));
    }
}
