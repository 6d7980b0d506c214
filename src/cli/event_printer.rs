//! Prints events, one per line: JSON objects for programs, sentences for users.

use std::{collections::BTreeMap, io, sync::Arc, time::Instant};

use serde_json::{Value, json};

use super::summary;
use crate::{
    model::{
        ActiveSpeaker, DeviceKind, Event, Failure, FailureCode, LeaveReason, Media, MediaTime,
        ParticipantId, ParticipantState, RemovedParticipant, RtcRates, SessionId, SessionKind,
        Stats, changes_text_direction,
    },
    process::Output,
    wording,
};

/// Prints events, one per line, to standard output. Sentences about failures go to standard error.
/// Printing never waits for the reader: see [`Output`].
pub(super) struct EventPrinter {
    json: bool,
    start: Instant,
    /// Adds bitrates and frame rates to the statistics.
    rates: RtcRates,
    /// The kinds of sessions, for sentences.
    kinds: BTreeMap<SessionId, SessionKind>,
    /// The names of participants, for sentences.
    names: BTreeMap<ParticipantId, String>,
}

impl EventPrinter {
    /// Returns a printer whose `t_ms` counts from now.
    pub(super) fn new(json: bool) -> Self {
        let (kinds, names, start) = (BTreeMap::new(), BTreeMap::new(), Instant::now());
        Output::stdout().format_lost_with(move |lines| lines_lost(json, lines, start));
        Self { json, start, rates: RtcRates::default(), kinds, names }
    }

    /// Returns why nothing can be printed any more: the reader has closed the pipe, or the disk is
    /// full.
    pub(super) fn write_error(&self) -> Option<Arc<io::Error>> {
        Output::stdout().error()
    }

    /// Prints an event.
    pub(super) fn print_event(&mut self, event: &Event) {
        if self.json {
            return self.print_object(as_json(event));
        }
        self.note_names(event);
        match (event, self.sentence(event)) {
            (Event::Failed(_), Some(sentence)) => {
                Output::stderr().write_line(&printable(&sentence))
            }
            (_, Some(sentence)) => self.print_line(&sentence),
            (_, None) => {}
        }
    }

    /// Whether the statistics of each second are printed: only for programs.
    pub(super) const fn prints_stats(&self) -> bool {
        self.json
    }

    /// Prints the statistics of this second, which were taken at `now`; only if
    /// [`Self::prints_stats`].
    pub(super) fn print_stats(&mut self, mut stats: Stats, now: MediaTime) {
        self.rates.update(&mut stats, now);
        if let Some(value) = stats_object("stats", &stats) {
            // Statistics that were not read are replaced by newer ones.
            Output::stdout().write_stats(&with_timestamp(value, self.start));
        }
    }

    /// Prints the statistics of the whole run.
    pub(super) fn print_summary(&self, stats: &Stats) {
        if !self.json {
            self.print_line(&summary::sentence(stats));
        } else if let Some(value) = stats_object("summary", stats) {
            self.print_object(value);
        }
    }

    /// Prints an object that has the key `event`, and adds the key `t_ms`.
    pub(super) fn print_object(&self, value: Value) {
        self.print_line(&with_timestamp(value, self.start));
    }

    /// Prints the fingerprint of a hub's certificate.
    pub(super) fn print_certificate(&self, sha256: &str) {
        if self.json {
            self.print_object(json!({"event": "certificate", "sha256": sha256}));
        } else {
            self.print_line(&format!("certificate SHA-256 {sha256}"));
        }
    }

    /// Prints a line.
    pub(super) fn print_line(&self, line: &str) {
        Output::stdout().write_line(&printable(line));
    }

    /// Notes the kinds of sessions and the names of participants.
    fn note_names(&mut self, event: &Event) {
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
            | Event::HubRestored { .. }
            | Event::Waiting { .. }
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
            | Event::Undelivered { .. }
            | Event::Failed(_)
            | Event::Ended { .. } => {}
        }
    }

    /// Returns the event as a sentence; `None` for events that only programs need.
    fn sentence(&self, event: &Event) -> Option<String> {
        Some(match event {
            Event::Listening { hub } if hub.is_loopback() => {
                format!("hub         {hub} (only programs on this computer reach it)")
            }
            Event::Listening { hub } => format!("hub         {hub}"),
            Event::LinkChanged { session, link } => format!(
                "link        {}: {link} (the hub's address has changed; new guests need this link)",
                self.session_label(session)
            ),
            Event::HubLost { reason, .. } => format!("hub lost    {reason}; trying again"),
            Event::HubRestored { hub } => format!("hub back    {hub}"),
            Event::Opened { kind, link, .. } => format!("opened      {kind:<28} {link}"),
            Event::Waiting { session, hubs } => {
                let hubs: Vec<_> = hubs.iter().map(|hub| hub.as_str()).collect();
                if self.kinds.contains_key(session) {
                    let place = self.session_label(session);
                    return Some(format!("waiting     the host of {place} lost connection"));
                }
                format!(
                    "waiting     {session} is not open yet at {}; if it is at another hub, use \
                     its link",
                    hubs.join(", ")
                )
            }
            Event::Joined { session, kind } => format!("joined      {kind:<28} {session}"),
            Event::Participant { session, name, state, reason, .. } => {
                let place = self.session_label(session);
                match state {
                    // An error event reports this, with the reason.
                    ParticipantState::Connecting | ParticipantState::Unreachable => return None,
                    ParticipantState::Live => format!("here        {name}, in {place}"),
                    ParticipantState::Reconnecting => {
                        format!("silent      {name}, in {place}; reconnecting")
                    }
                    ParticipantState::Gone => {
                        format!("gone        {name}, from {place}; the seat is kept for a minute")
                    }
                    ParticipantState::Left if *reason == Some(LeaveReason::Ejected) => {
                        format!("ejected     {name}, from {place}")
                    }
                    ParticipantState::Left => format!("left        {name}, from {place}"),
                }
            }
            Event::Renamed { session, before, name, .. } => {
                format!("renamed     {before} is {name} now, in {}", self.session_label(session))
            }
            Event::Access { session, locked, removed } => {
                let names: Vec<_> = removed.iter().map(|one| one.name.as_str()).collect();
                let state = if *locked { "locked, nobody new can join" } else { "open" };
                let ejected = match &names[..] {
                    [] => String::new(),
                    names => format!("; ejected: {}", names.join(", ")),
                };
                format!("access      {}: {state}{ejected}", self.session_label(session))
            }
            Event::FirstFrame { session, participant, ms } => {
                let name = self.names.get(participant).map_or("somebody", String::as_str);
                let place = self.session_label(session);
                format!("received    {name}, in {place}, after {:.1} s", *ms as f64 / 1000.0)
            }
            Event::MessageReceived { session, name, text, .. } => {
                let text = text.as_str().replace(['\n', '\t'], " ");
                format!("message     {name}, in {}: {text}", self.session_label(session))
            }
            Event::MessageSent { .. } | Event::ActiveSpeaker { .. } => return None,
            Event::Undelivered { session, name, count, .. } => {
                let messages = if *count == 1 { "message" } else { "messages" };
                format!(
                    "lost        {count} {messages} to {name}, in {}, may not have arrived",
                    self.session_label(session)
                )
            }
            Event::LeftOut { session, name, media, has_rest, .. } => {
                format!("note        {}", wording::left_out(name, session, *media, *has_rest))
            }
            Event::MicrophoneSilent => format!("note        {}", wording::MICROPHONE_SILENT),
            Event::SpeakingWhileMuted => {
                format!("note        {}", wording::SPEAKING_WHILE_MUTED)
            }
            Event::EncoderLate => format!("note        {}", wording::ENCODER_LATE),
            Event::UploadFull => format!("note        {}", wording::UPLOAD_FULL),
            Event::UploadOk => format!("note        {}", wording::UPLOAD_OK),
            Event::Failed(failure) => format!("error       {}", failure_message(failure)),
            Event::Ended { session, reason } => {
                format!(
                    "ended       {}: {}",
                    self.session_label(session),
                    reason.name().replace('-', " ")
                )
            }
        })
    }

    /// Returns the label of a session: its kind, if known, and its id.
    fn session_label(&self, session: &SessionId) -> String {
        self.kinds
            .get(session)
            .map_or_else(|| session.to_string(), |kind| format!("{kind} {session}"))
    }
}

/// Returns the object as a line of JSON, with the time `t_ms`.
fn with_timestamp(mut value: Value, start: Instant) -> String {
    value["t_ms"] = (start.elapsed().as_millis() as u64).into();
    escape_control(&value.to_string())
}

/// Escapes control characters and bidirectional formatting characters as `\uXXXX`, so that they do
/// not move a terminal's cursor or reverse its text. They occur in JSON strings only, where the
/// escape has the same meaning (RFC 8259, section 7).
fn escape_control(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_control() || changes_text_direction(c) {
            line.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            line.push(c);
        }
    }
    line
}

/// Returns the statistics as an object of the event `event`.
fn stats_object(event: &str, stats: &Stats) -> Option<Value> {
    match serde_json::to_value(stats) {
        Ok(mut value) => {
            value["event"] = event.into();
            Some(value)
        }
        Err(error) => {
            tracing::error!(%error, "statistics not written as JSON");
            None
        }
    }
}

/// Returns the line that says how many lines are missing because the reader was too slow.
fn lines_lost(json: bool, lines: u64, start: Instant) -> String {
    if json {
        return with_timestamp(json!({"event": "lines-lost", "lines": lines}), start);
    }
    format!("lost        {lines} lines of this output, as they were not read in time")
}

/// Removes bidirectional formatting characters from a line, and replaces control characters: parts
/// of the line may be untrusted input, and must not move a terminal's cursor or reverse its text.
fn printable(line: &str) -> String {
    let shown = line.chars().filter(|c| !changes_text_direction(*c));
    shown.map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Returns the message of a failure; for a device or a hub, it adds the option that helps.
fn failure_message(failure: &Failure) -> String {
    let message = wording::failure(failure);
    let way_out = match failure.code() {
        FailureCode::Device(DeviceKind::Source(source)) => {
            let test = if source.media() == Media::Audio { "tone" } else { "pattern" };
            format!("--{} {test} or none", source.name())
        }
        FailureCode::Device(DeviceKind::Speaker) => "--speaker file:PATH.wav or none".to_owned(),
        // The message already names an option.
        FailureCode::HubUnreachable if message.contains("--") => return message,
        FailureCode::HubUnreachable => "another --hub, or `quintet serve` there".to_owned(),
        FailureCode::Hub(_)
        | FailureCode::AlreadyHere
        | FailureCode::Connection(_)
        | FailureCode::Chat
        | FailureCode::Command
        | FailureCode::Rename => return message,
    };
    format!("{message}; or use {way_out}")
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
        Event::HubRestored { hub } => json!({"event": "hub-back", "hub": hub.as_str()}),
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
            let one = |one: &RemovedParticipant| json!({"participant": one.participant, "name": one.name});
            let removed: Vec<_> = removed.iter().map(one).collect();
            json!({"event": "access", "session": session, "locked": locked, "removed": removed})
        }
        Event::FirstFrame { session, participant, ms } => json!({
            "event": "first-frame", "session": session, "participant": participant, "ms": ms,
        }),
        Event::MessageReceived { session, participant, name, text } => json!({
            "event": "message", "session": session, "participant": participant, "name": name,
            "text": text,
        }),
        Event::MessageSent { session, text } => {
            json!({"event": "said", "session": session, "text": text})
        }
        Event::Undelivered { session, participant, name, count } => json!({
            "event": "undelivered", "session": session, "participant": participant, "name": name,
            "count": count,
        }),
        Event::LeftOut { session, participant, name, media, has_rest } => json!({
            "event": "left-out", "session": session, "participant": participant,
            "media": media, "message": wording::left_out(name, session, *media, *has_rest),
        }),
        Event::ActiveSpeaker { session, speaker, name } => {
            let participant = speaker.as_ref().and_then(ActiveSpeaker::participant);
            let is_own = *speaker == Some(ActiveSpeaker::Own);
            json!({
                "event": "active-speaker", "session": session, "participant": participant,
                "name": name, "own": is_own,
            })
        }
        Event::MicrophoneSilent => {
            json!({"event": "microphone-silent", "message": wording::MICROPHONE_SILENT})
        }
        Event::SpeakingWhileMuted => {
            json!({"event": "speaking-while-muted", "message": wording::SPEAKING_WHILE_MUTED})
        }
        Event::EncoderLate => {
            json!({"event": "encoder-late", "message": wording::ENCODER_LATE})
        }
        Event::UploadFull => json!({"event": "upload-full", "message": wording::UPLOAD_FULL}),
        Event::UploadOk => json!({"event": "upload-ok", "message": wording::UPLOAD_OK}),
        Event::Failed(failure) => {
            let mut value = json!({
                "event": "error", "code": failure.code().name(), "message": failure_message(failure),
            });
            if let FailureCode::Connection(fault) = failure.code() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChatText, ConnectionFailure, EndReason, Failure, FailureCause, HubUrl};

    #[test]
    fn control_characters_in_a_name_are_replaced() {
        assert_eq!(printable("\u{1b}[2JAda\n"), "\u{fffd}[2JAda\u{fffd}");
    }

    #[test]
    fn bidirectional_characters_are_removed_from_sentences_and_escaped_in_json() {
        let bidi: String = ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').collect();
        assert_eq!(printable(&format!("a{bidi}b")), "ab");
        let object = json!({ "text": format!("a{bidi}\u{9b}\u{7f}b") });
        let line = with_timestamp(object.clone(), Instant::now());
        assert!(line.contains("\\u202e") && line.is_ascii(), "{line}");
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["text"], object["text"], "the escaped text has the same value");
    }

    #[test]
    fn lost_lines_are_reported_as_json_or_as_a_sentence() {
        let start = Instant::now();
        let object: Value = serde_json::from_str(&lines_lost(true, 12, start)).unwrap();
        assert_eq!((&object["event"], &object["lines"]), (&"lines-lost".into(), &12.into()));
        assert!(lines_lost(false, 12, start).starts_with("lost        12 lines"));
    }

    #[test]
    fn an_event_is_an_object_with_its_name_and_fields() {
        let session = SessionId::parse("town-hall").unwrap();
        let event = Event::Joined { session: session.clone(), kind: SessionKind::FIVE[0] };
        let expected = json!({"event": "joined", "session": "town-hall", "kind": "av-conference"});
        assert_eq!(as_json(&event), expected);
        let mut printer = EventPrinter::new(false);
        let sentence = printer.sentence(&event).unwrap();
        assert_eq!(sentence, "joined      av-conference                town-hall");
        printer.note_names(&event);
        let ejected = Event::Participant {
            session: session.clone(),
            participant: ParticipantId::from_digest([0; 10]),
            name: "Guest 2".to_owned(),
            state: ParticipantState::Left,
            reason: Some(LeaveReason::Ejected),
        };
        let sentence = printer.sentence(&ejected).unwrap();
        assert_eq!(sentence, "ejected     Guest 2, from av-conference town-hall");
        assert_eq!(as_json(&ejected)["state"], "left");
        let ended = Event::Ended { session: session.clone(), reason: EndReason::OpenerLeft };
        let sentence = printer.sentence(&ended).unwrap();
        assert_eq!(sentence, "ended       av-conference town-hall: opener left");
        let (text, name) = (ChatText::new("one\ntwo").unwrap(), "Ada".to_owned());
        let participant = ParticipantId::from_digest([0; 10]);
        let event = Event::MessageReceived { session: session.clone(), participant, name, text };
        let expected = json!({
            "event": "message", "session": "town-hall", "participant": "0000000000000000",
            "name": "Ada", "text": "one\ntwo",
        });
        assert_eq!(as_json(&event), expected);
        let sentence = printer.sentence(&event).unwrap();
        assert_eq!(sentence, "message     Ada, in av-conference town-hall: one two");
        let speaker = Some(ActiveSpeaker::Participant(ParticipantId::from_digest([0; 10])));
        for (speaker, name, expected) in [
            (speaker, Some("Ada"), json!(["0000000000000000", "Ada", false])),
            (Some(ActiveSpeaker::Own), None, json!([null, null, true])),
            (None, None, json!([null, null, false])),
        ] {
            let (session, name) = (session.clone(), name.map(str::to_owned));
            let event = Event::ActiveSpeaker { session, speaker, name };
            let object = as_json(&event);
            assert_eq!(
                (&object["event"], &object["session"]),
                (&json!("active-speaker"), &json!("town-hall"))
            );
            assert_eq!(json!([object["participant"], object["name"], object["own"]]), expected);
            assert_eq!(printer.sentence(&event), None, "it would be said each few seconds");
        }
        let (device, reason) = (DeviceKind::CAMERA, "no camera".to_owned());
        let failure = Failure { cause: FailureCause::Device { device, reason }, session: None };
        let message = "no camera; or use --camera pattern or none";
        let expected = json!({"event": "error", "code": "device", "message": message});
        assert_eq!(as_json(&Event::Failed(failure)), expected);
        let (name, failure) = ("Ada".to_owned(), ConnectionFailure::NoPairAnswered);
        let cause = FailureCause::NoConnection { name, failure };
        let failure = Failure { cause, session: Some(session.clone()) };
        let message = wording::failure(&failure);
        let expected = json!({
            "event": "error", "code": "connection", "reason": "no-pair-answered",
            "message": message, "session": "town-hall",
        });
        assert_eq!(as_json(&Event::Failed(failure)), expected);
        let link = "http://192.168.9.33:7340".parse::<HubUrl>().unwrap().link(&session);
        let event = Event::LinkChanged { session, link };
        let expected = json!({
            "event": "link-changed", "session": "town-hall",
            "link": "http://192.168.9.33:7340/s/town-hall",
        });
        assert_eq!(as_json(&event), expected);
        let sentence = printer.sentence(&event).unwrap();
        assert!(sentence.contains("town-hall: http://192.168.9.33:7340/s/town-hall"), "{sentence}");
    }
}
