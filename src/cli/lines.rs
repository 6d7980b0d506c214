//! Events as lines: JSON objects for programs, sentences for people.

use std::{io::Write as _, time::Instant};

use serde_json::{Value, json};

use crate::model::{Event, Stats};

/// Prints events on standard output, one a line.
pub(super) struct Lines {
    json: bool,
    start: Instant,
}

impl Lines {
    /// Lines whose `t_ms` counts from now.
    pub(super) fn new(json: bool) -> Self {
        Self { json, start: Instant::now() }
    }

    /// Prints an event.
    pub(super) fn event(&self, event: &Event) {
        if self.json { self.object(as_json(event)) } else { self.line(&sentence(event)) }
    }

    /// Prints the figures of this second; for programs only.
    pub(super) fn stats(&self, stats: &Stats) {
        if self.json {
            self.figures("stats", stats);
        }
    }

    /// Prints the figures of the whole run.
    pub(super) fn summary(&self, stats: &Stats) {
        if self.json {
            self.figures("summary", stats);
        } else {
            self.line(&in_words(stats));
        }
    }

    fn figures(&self, event: &str, stats: &Stats) {
        match serde_json::to_value(stats) {
            Ok(mut value) => {
                value["event"] = event.into();
                self.object(value);
            }
            Err(error) => tracing::error!(%error, "figures are not JSON"),
        }
    }

    /// Prints an object with `event` and, added here, `t_ms`.
    pub(super) fn object(&self, mut value: Value) {
        value["t_ms"] = (self.start.elapsed().as_millis() as u64).into();
        self.line(&value.to_string());
    }

    /// A reader that went away (`| head`) is no reason to stop the sessions.
    pub(super) fn line(&self, line: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

fn as_json(event: &Event) -> Value {
    match event {
        Event::Listening { hub } => json!({"event": "listening", "hub": hub.as_str()}),
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
        Event::Participant { session, participant, name, state } => json!({
            "event": "participant", "session": session, "participant": participant,
            "name": name, "state": state.name(),
        }),
        Event::FirstFrame { session, participant, ms } => json!({
            "event": "first-frame", "session": session, "participant": participant, "ms": ms,
        }),
        Event::Failed(failure) => {
            let mut value = json!({
                "event": "error", "code": failure.code.name(), "message": failure.message,
            });
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

fn sentence(event: &Event) -> String {
    match event {
        Event::Listening { hub } => format!("hub         {hub}"),
        Event::Opened { kind, link, .. } => format!("opened      {kind:<18} {link}"),
        Event::Waiting { session, hubs } => {
            let hubs: Vec<_> = hubs.iter().map(|hub| hub.as_str()).collect();
            format!(
                "waiting     {session} is not open yet at {}; if it lives elsewhere, use its link",
                hubs.join(", ")
            )
        }
        Event::Joined { session, kind } => format!("joined      {kind:<18} {session}"),
        Event::Participant { session, name, state, .. } => {
            format!("participant {name} is {} in {session}", state.name())
        }
        Event::FirstFrame { session, ms, .. } => format!("first frame {session} after {ms} ms"),
        Event::Failed(failure) => format!("error       {}", failure.message),
        Event::Ended { session, reason } => {
            format!("ended       {session}: {}", reason.name().replace('-', " "))
        }
    }
}

fn in_words(stats: &Stats) -> String {
    let participants: usize = stats.sessions.iter().map(|one| one.participants.len()).sum();
    format!(
        "summary     {} sessions, {participants} participants, {} camera and {} microphone \
         captured, {:.1} s of CPU",
        stats.sessions.len(),
        stats.captures.video,
        stats.captures.audio,
        stats.cpu_seconds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Failure, FailureCode, SessionId, SessionKind};

    #[test]
    fn an_event_is_an_object_with_its_name_and_fields() {
        let session = SessionId::parse("town-hall").unwrap();
        let event = Event::Joined { session: session.clone(), kind: SessionKind::FIVE[0] };
        let expected = json!({"event": "joined", "session": "town-hall", "kind": "av-conference"});
        assert_eq!(as_json(&event), expected);
        assert_eq!(sentence(&event), "joined      av-conference      town-hall");
        let failure =
            Failure { code: FailureCode::Device, message: "no camera".into(), session: None };
        let expected = json!({"event": "error", "code": "device", "message": "no camera"});
        assert_eq!(as_json(&Event::Failed(failure)), expected);
    }
}
