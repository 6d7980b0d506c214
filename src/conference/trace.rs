//! Traces of the core: one line of JSON for each input, effect and timer, in order, from which a
//! run can be replayed.
//!
//! A trace contains no secret. Passwords in descriptions are overwritten, and so is the text of
//! chat messages unless it is asked for. What is overwritten keeps its length: the core never reads
//! it, so a replay makes the same decisions.

mod replay;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Effect, Input, Timer};
use crate::model::{MediaTime, ParticipantId, SessionId, redact};

pub use replay::{ReplayError, Replayed, replay};

/// The version of the format.
const FORMAT: u32 = 1;

/// Makes the lines of a trace, each with a line break at its end.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceFormat {
    /// Whether the text of chat messages is in it.
    pub with_chat: bool,
}

/// The first line of a trace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceHeader {
    /// The version of the program that wrote it.
    pub version: String,
    /// The operating system and the processor.
    pub system: String,
    /// The wall clock at the start, in microseconds since 1970.
    pub unix_us: u64,
    /// The engine's clock at the same moment. All times in a trace are on this clock.
    pub at: MediaTime,
}

/// A line of a trace as it is read. Exactly one of the options is set, apart from the ids of a
/// timer.
#[derive(Deserialize)]
struct Line {
    at: MediaTime,
    input: Option<Input>,
    effect: Option<Value>,
    timer: Option<String>,
    session: Option<SessionId>,
    participant: Option<ParticipantId>,
    lost: Option<u64>,
}

/// The first line as it is written.
#[derive(Serialize, Deserialize)]
struct FirstLine {
    quintet_trace: u32,
    #[serde(flatten)]
    header: TraceHeader,
    /// What is overwritten.
    redacted: Vec<String>,
}

impl TraceFormat {
    /// The first line.
    pub fn header(self, header: TraceHeader) -> String {
        let chat = (!self.with_chat).then_some("chat");
        let redacted = chat.into_iter().chain(["passwords", "keys"]).map(str::to_owned).collect();
        line(&FirstLine { quintet_trace: FORMAT, header, redacted })
    }

    /// The line of an input that the core is about to handle.
    pub fn input(self, input: &Input, at: MediaTime) -> String {
        #[derive(Serialize)]
        struct Line {
            at: MediaTime,
            input: Value,
        }
        line(&Line { at, input: self.value(input) })
    }

    /// The line of a timer that has run out.
    pub fn timer(self, timer: Timer<'_>, at: MediaTime) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            at: MediaTime,
            timer: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            session: Option<&'a SessionId>,
            #[serde(skip_serializing_if = "Option::is_none")]
            participant: Option<&'a ParticipantId>,
        }
        let Timer { name, session, participant } = timer;
        line(&Line { at, timer: name.name(), session, participant })
    }

    /// The line of an effect of the last input or timer.
    pub fn effect(self, effect: &Effect, at: MediaTime) -> String {
        #[derive(Serialize)]
        struct Line {
            at: MediaTime,
            effect: Value,
        }
        line(&Line { at, effect: self.value(effect) })
    }

    /// The line in the place of so many lines that were left out.
    pub fn gap(lost: u64) -> String {
        format!("{{\"at\":0,\"lost\":{lost}}}\n")
    }

    fn value(self, item: &impl Serialize) -> Value {
        let mut value = serde_json::to_value(item).expect("inputs and effects are always JSON");
        redact(&mut value, self.with_chat);
        value
    }
}

fn line(item: &impl Serialize) -> String {
    let mut text = serde_json::to_string(item).expect("ids, numbers and values are always JSON");
    text.push('\n');
    text
}
