//! Events as lines: JSON objects for programs, sentences for people.

use std::{collections::BTreeMap, io, sync::Arc, time::Instant};

use serde_json::{Value, json};

use crate::{
    model::{
        Event, Failure, FailureCode, LeaveReason, ParticipantId, ParticipantState, RemovedPerson,
        SessionId, SessionKind, SourceKind, Stats, turns_text,
    },
    process::Output,
};

/// Prints events, one a line: on standard output, but what went wrong, told as a sentence, on
/// standard error. Nothing here waits for whoever reads: see [`Output`].
pub(super) struct Lines {
    json: bool,
    start: Instant,
    /// What sessions and participants are called in sentences.
    kinds: BTreeMap<SessionId, SessionKind>,
    names: BTreeMap<ParticipantId, String>,
}

impl Lines {
    /// Lines whose `t_ms` counts from now.
    pub(super) fn new(json: bool) -> Self {
        let (kinds, names, start) = (BTreeMap::new(), BTreeMap::new(), Instant::now());
        Output::stdout().say_lost(move |lines| say_lost(json, lines, start));
        Self { json, start, kinds, names }
    }

    /// Why nothing can be printed any more: the reader went away, the disk is full.
    pub(super) fn broken(&self) -> Option<Arc<io::Error>> {
        Output::stdout().broken()
    }

    /// Prints an event.
    pub(super) fn event(&mut self, event: &Event) {
        if self.json {
            return self.object(as_json(event));
        }
        self.learn(event);
        match (event, self.sentence(event)) {
            (Event::Failed(_), Some(sentence)) => Output::stderr().line(&printable(&sentence)),
            (_, Some(sentence)) => self.line(&sentence),
            (_, None) => {}
        }
    }

    /// Prints the figures of this second; for programs only.
    pub(super) fn stats(&mut self, stats: &Stats) {
        if let (true, Some(value)) = (self.json, figures("stats", stats)) {
            // The next ones say it better than old ones that nobody read.
            Output::stdout().figures(&stamped(value, self.start));
        }
    }

    /// Prints the figures of the whole run.
    pub(super) fn summary(&self, stats: &Stats) {
        if !self.json {
            self.line(&in_words(stats));
        } else if let Some(value) = figures("summary", stats) {
            self.object(value);
        }
    }

    /// Prints an object with `event` and, added here, `t_ms`.
    pub(super) fn object(&self, value: Value) {
        self.line(&stamped(value, self.start));
    }

    /// Prints a line.
    pub(super) fn line(&self, line: &str) {
        Output::stdout().line(&printable(line));
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::Opened { session, kind, .. } | Event::Joined { session, kind } => {
                self.kinds.insert(session.clone(), *kind);
            }
            Event::Participant { participant, name, .. }
            | Event::Renamed { participant, name, .. } => {
                self.names.insert(participant.clone(), name.clone());
            }
            Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubBack { .. }
            | Event::Waiting { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            | Event::LeftOut { .. }
            | Event::Message { .. }
            | Event::Said { .. }
            | Event::Undelivered { .. }
            | Event::Failed(_)
            | Event::Ended { .. } => {}
        }
    }

    /// The event in words; none for what only a program wants to know.
    fn sentence(&self, event: &Event) -> Option<String> {
        Some(match event {
            Event::Listening { hub } if hub.is_loopback() => {
                format!("hub         {hub} (only programs on this computer reach it)")
            }
            Event::Listening { hub } => format!("hub         {hub}"),
            Event::LinkChanged { session, link } => format!(
                "link        {}: {link} (the hub's address changed: who is still to come needs \
                 this one)",
                self.place(session)
            ),
            Event::HubLost { reason, .. } => format!("hub lost    {reason}; trying again"),
            Event::HubBack { hub } => format!("hub back    {hub}"),
            Event::Opened { kind, link, .. } => format!("opened      {kind:<28} {link}"),
            Event::Waiting { session, hubs } => {
                let hubs: Vec<_> = hubs.iter().map(|hub| hub.as_str()).collect();
                if self.kinds.contains_key(session) {
                    let place = self.place(session);
                    return Some(format!("waiting     the host of {place} lost connection"));
                }
                format!(
                    "waiting     {session} is not open yet at {}; if it lives elsewhere, use its \
                     link",
                    hubs.join(", ")
                )
            }
            Event::Joined { session, kind } => format!("joined      {kind:<28} {session}"),
            Event::Participant { session, name, state, reason, .. } => {
                let place = self.place(session);
                match state {
                    // An error says it, with the reason.
                    ParticipantState::Connecting | ParticipantState::Unreachable => return None,
                    ParticipantState::Live => format!("here        {name}, in {place}"),
                    ParticipantState::Reconnecting => {
                        format!("silent      {name}, in {place}; waiting for an answer")
                    }
                    ParticipantState::Gone => {
                        format!("gone        {name}, from {place}; the seat is kept a minute")
                    }
                    ParticipantState::Left if *reason == Some(LeaveReason::Ejected) => {
                        format!("sent out    {name}, from {place}")
                    }
                    ParticipantState::Left => format!("left        {name}, from {place}"),
                }
            }
            Event::Renamed { session, before, name, .. } => {
                format!("renamed     {before} is {name} now, in {}", self.place(session))
            }
            Event::Access { session, locked, removed } => {
                let who: Vec<_> = removed.iter().map(|one| one.name.as_str()).collect();
                let how = if *locked { "locked, nobody new is let in" } else { "open" };
                let kept_out = match &who[..] {
                    [] => String::new(),
                    who => format!("; kept out: {}", who.join(", ")),
                };
                format!("access      {}: {how}{kept_out}", self.place(session))
            }
            Event::FirstFrame { session, participant, ms } => {
                let name = self.names.get(participant).map_or("somebody", String::as_str);
                let place = self.place(session);
                format!("received    {name}, in {place}, after {:.1} s", *ms as f64 / 1000.0)
            }
            Event::Message { session, name, text, .. } => {
                let text = text.as_str().replace(['\n', '\t'], " ");
                format!("message     {name}, in {}: {text}", self.place(session))
            }
            Event::Said { .. } => return None,
            Event::Undelivered { session, name, count, .. } => {
                let what = if *count == 1 { "a message" } else { "messages" };
                format!(
                    "lost        {what} to {name}, in {}, perhaps: {count}",
                    self.place(session)
                )
            }
            Event::LeftOut { message, .. } => format!("note        {message}"),
            Event::Failed(failure) => format!("error       {}", told(failure)),
            Event::Ended { session, reason } => {
                format!("ended       {}: {}", self.place(session), reason.name().replace('-', " "))
            }
        })
    }

    /// A session as people tell it from others: its kind, and its id.
    fn place(&self, session: &SessionId) -> String {
        self.kinds
            .get(session)
            .map_or_else(|| session.to_string(), |kind| format!("{kind} {session}"))
    }
}

/// The object as a line, with its time.
fn stamped(mut value: Value, start: Instant) -> String {
    value["t_ms"] = (start.elapsed().as_millis() as u64).into();
    escaped(&value.to_string())
}

/// JSON in which what would move a terminal's cursor, or turn the text, is written in digits: it can
/// only stand in strings, where that means the same (RFC 8259, section 7).
fn escaped(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() || turns_text(c) {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line
}

fn figures(event: &str, stats: &Stats) -> Option<Value> {
    match serde_json::to_value(stats) {
        Ok(mut value) => {
            value["event"] = event.into();
            Some(value)
        }
        Err(error) => {
            tracing::error!(%error, "figures are not JSON");
            None
        }
    }
}

/// Tells a reader who was too slow how many lines are missing.
fn say_lost(json: bool, lines: u64, start: Instant) -> String {
    if json {
        return stamped(json!({"event": "lines-lost", "lines": lines}), start);
    }
    format!("lost        {lines} lines of this output, as nobody read them")
}

/// The line without what would move a terminal's cursor or turn the text: what is in it may come from
/// strangers.
fn printable(line: &str) -> String {
    let shown = line.chars().filter(|c| !turns_text(*c));
    shown.map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A failure's sentence; after one about a device or a hub, what the command line can do.
fn told(failure: &Failure) -> String {
    let way_out = match failure.code {
        FailureCode::Device(SourceKind::Camera) => "--camera pattern or none",
        FailureCode::Device(SourceKind::Microphone) => "--microphone tone or none",
        FailureCode::Device(SourceKind::Speaker) => "--speaker file:PATH.wav or none",
        // What it says names the way out.
        FailureCode::HubUnreachable if failure.message.contains("--") => {
            return failure.message.clone();
        }
        FailureCode::HubUnreachable => "another --hub, or `quintet serve` there",
        FailureCode::Hub(_)
        | FailureCode::AlreadyHere
        | FailureCode::Connection(_)
        | FailureCode::Chat
        | FailureCode::Command
        | FailureCode::Rename => return failure.message.clone(),
    };
    format!("{}; or use {way_out}", failure.message)
}

fn as_json(event: &Event) -> Value {
    match event {
        Event::Listening { hub } => json!({"event": "listening", "hub": hub.as_str()}),
        Event::LinkChanged { session, link } => {
            json!({"event": "link-changed", "session": session, "link": link.to_string()})
        }
        Event::HubLost { hub, reason } => {
            json!({"event": "hub-lost", "hub": hub.as_str(), "message": reason})
        }
        Event::HubBack { hub } => json!({"event": "hub-back", "hub": hub.as_str()}),
        Event::Opened { session, kind, link } => json!({
            "event": "opened", "session": session, "kind": kind.to_string(),
            "link": link.to_string(),
        }),
        Event::Waiting { session, hubs } => {
            let hubs: Vec<_> = hubs.iter().map(|hub| hub.as_str()).collect();
            json!({"event": "waiting", "session": session, "hubs": hubs})
        }
        Event::Joined { session, kind } => {
            json!({"event": "joined", "session": session, "kind": kind.to_string()})
        }
        Event::Participant { session, participant, name, state, .. } => json!({
            "event": "participant", "session": session, "participant": participant,
            "name": name, "state": state.name(),
        }),
        Event::Renamed { session, participant, before, name } => json!({
            "event": "renamed", "session": session, "participant": participant, "name": name,
            "before": before,
        }),
        Event::Access { session, locked, removed } => {
            let one =
                |one: &RemovedPerson| json!({"participant": one.participant, "name": one.name});
            let removed: Vec<_> = removed.iter().map(one).collect();
            json!({"event": "access", "session": session, "locked": locked, "removed": removed})
        }
        Event::FirstFrame { session, participant, ms } => json!({
            "event": "first-frame", "session": session, "participant": participant, "ms": ms,
        }),
        Event::Message { session, participant, name, text } => json!({
            "event": "message", "session": session, "participant": participant, "name": name,
            "text": text,
        }),
        Event::Said { session, text } => {
            json!({"event": "said", "session": session, "text": text})
        }
        Event::Undelivered { session, participant, name, count } => json!({
            "event": "undelivered", "session": session, "participant": participant, "name": name,
            "count": count,
        }),
        Event::LeftOut { session, participant, media, message } => json!({
            "event": "left-out", "session": session, "participant": participant,
            "media": media, "message": message,
        }),
        Event::Failed(failure) => {
            let mut value = json!({
                "event": "error", "code": failure.code.name(), "message": told(failure),
            });
            if let FailureCode::Connection(fault) = failure.code {
                value["reason"] = fault.name().into();
            }
            if let Some(session) = &failure.session {
                value["session"] = session.as_str().into();
            }
            value
        }
        Event::Ended { session, reason } => {
            json!({"event": "ended", "session": session, "reason": reason.name()})
        }
    }
}

fn in_words(stats: &Stats) -> String {
    let participants: usize = stats.sessions.iter().map(|one| one.participants.len()).sum();
    format!(
        "summary     sessions {}, participants {participants}; opened: camera {}×, microphone {}×; \
         CPU {:.1} s",
        stats.sessions.len(),
        stats.captures.video,
        stats.captures.audio,
        stats.cpu_seconds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChatText, ConnectionFault, EndReason, Failure, FailureCode, HubUrl};

    #[test]
    fn a_name_cannot_move_the_cursor() {
        assert_eq!(printable("\u{1b}[2JAda\n"), "\u{fffd}[2JAda\u{fffd}");
    }

    #[test]
    fn what_turns_text_is_left_out_of_sentences_and_written_in_digits_in_json() {
        let turned: String = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').collect();
        assert_eq!(printable(&format!("a{turned}b")), "ab");
        let said = json!({ "text": format!("a{turned}\u{9b}\u{7f}b") });
        let line = stamped(said.clone(), Instant::now());
        assert!(line.contains("\\u202e") && line.is_ascii(), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["text"], said["text"], "nothing is lost");
    }

    #[test]
    fn a_reader_who_was_too_slow_is_told_in_its_own_form() {
        let start = Instant::now();
        let object: Value = serde_json::from_str(&say_lost(true, 12, start)).unwrap();
        assert_eq!((&object["event"], &object["lines"]), (&"lines-lost".into(), &12.into()));
        assert!(say_lost(false, 12, start).starts_with("lost        12 lines"));
    }

    #[test]
    fn an_event_is_an_object_with_its_name_and_fields() {
        let session = SessionId::parse("town-hall").unwrap();
        let event = Event::Joined { session: session.clone(), kind: SessionKind::FIVE[0] };
        let expected = json!({"event": "joined", "session": "town-hall", "kind": "av-conference"});
        assert_eq!(as_json(&event), expected);
        let mut lines = Lines::new(false);
        let sentence = lines.sentence(&event).unwrap();
        assert_eq!(sentence, "joined      av-conference                town-hall");
        lines.learn(&event);
        let out = Event::Participant {
            session: session.clone(),
            participant: ParticipantId::from_digest([0; 10]),
            name: "Guest 2".to_owned(),
            state: ParticipantState::Left,
            reason: Some(LeaveReason::Ejected),
        };
        let sentence = lines.sentence(&out).unwrap();
        assert_eq!(sentence, "sent out    Guest 2, from av-conference town-hall");
        assert_eq!(as_json(&out)["state"], "left");
        let ended = Event::Ended { session: session.clone(), reason: EndReason::OpenerLeft };
        let sentence = lines.sentence(&ended).unwrap();
        assert_eq!(sentence, "ended       av-conference town-hall: opener left");
        let (text, name) = (ChatText::new("one\ntwo").unwrap(), "Ada".to_owned());
        let participant = ParticipantId::from_digest([0; 10]);
        let event = Event::Message { session: session.clone(), participant, name, text };
        let expected = json!({
            "event": "message", "session": "town-hall", "participant": "0000000000000000",
            "name": "Ada", "text": "one\ntwo",
        });
        assert_eq!(as_json(&event), expected);
        let sentence = lines.sentence(&event).unwrap();
        assert_eq!(sentence, "message     Ada, in av-conference town-hall: one two");
        let failure = Failure {
            code: FailureCode::Device(SourceKind::Camera),
            message: "no camera".into(),
            session: None,
        };
        let message = "no camera; or use --camera pattern or none";
        let expected = json!({"event": "error", "code": "device", "message": message});
        assert_eq!(as_json(&Event::Failed(failure)), expected);
        let failure = Failure {
            code: FailureCode::Connection(ConnectionFault::NoPairAnswered),
            message: "no path".into(),
            session: Some(session.clone()),
        };
        let expected = json!({
            "event": "error", "code": "connection", "reason": "no-pair-answered",
            "message": "no path", "session": "town-hall",
        });
        assert_eq!(as_json(&Event::Failed(failure)), expected);
        let link = "http://192.168.9.33:7340".parse::<HubUrl>().unwrap().link(&session);
        let event = Event::LinkChanged { session, link };
        let expected = json!({
            "event": "link-changed", "session": "town-hall",
            "link": "http://192.168.9.33:7340/s/town-hall",
        });
        assert_eq!(as_json(&event), expected);
        let sentence = lines.sentence(&event).unwrap();
        assert!(sentence.contains("town-hall: http://192.168.9.33:7340/s/town-hall"), "{sentence}");
    }
}
