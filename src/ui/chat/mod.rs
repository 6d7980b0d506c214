//! The chats: what was said in each session, what is being written, and the panel that shows one.

mod links;
mod panel;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use eframe::egui::Vec2;

use links::{Piece, pieces};

use crate::model::{ChatText, Event, SessionId, Snapshot};

/// Lines that are kept of one chat: a long evening's; the oldest give way.
const LINES: usize = 500;

/// The chats of all sessions, and which of them is open.
#[derive(Debug, Default)]
pub(crate) struct Chats {
    talks: BTreeMap<SessionId, Talk>,
    open: Option<SessionId>,
    /// The box is to get the focus: the panel was opened just now.
    wants_focus: bool,
}

/// What was said in one session.
#[derive(Debug, Default)]
struct Talk {
    lines: VecDeque<Line>,
    /// The lines that were seen when they were drawn last.
    seen: Range<usize>,
    /// Lines of others that came while the chat was not open.
    unread: usize,
    /// What is being written.
    draft: String,
    /// Why what was written cannot be said; until it is edited.
    refused: Option<String>,
}

/// One line.
#[derive(Clone, PartialEq, Debug)]
struct Line {
    /// When it came, `14:05`.
    at: String,
    said: Said,
    /// Tab stops in it.
    has_link: bool,
    /// Its width and height when it was drawn last.
    size: Option<Vec2>,
}

/// What a line tells.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    /// We said something.
    ByMe(ChatText),
    /// Somebody else did.
    By(String, ChatText),
    /// So many texts did not reach somebody.
    Lost(usize, String),
}

impl Said {
    fn has_link(&self) -> bool {
        match self {
            Self::ByMe(text) | Self::By(_, text) => {
                pieces(text.as_str()).iter().any(|piece| matches!(piece, Piece::Link(_)))
            }
            Self::Lost(..) => false,
        }
    }
}

impl Chats {
    /// Takes in what happened at that time of day.
    pub(crate) fn note(&mut self, event: &Event, at: &str) {
        let (session, said) = match event {
            Event::Message { session, name, text, .. } => {
                (session, Said::By(name.clone(), text.clone()))
            }
            Event::Said { session, text } => (session, Said::ByMe(text.clone())),
            Event::Undelivered { session, name, count, .. } => {
                (session, Said::Lost(*count, name.clone()))
            }
            Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubBack { .. }
            | Event::Opened { .. }
            | Event::Waiting { .. }
            | Event::Joined { .. }
            | Event::Participant { .. }
            | Event::Renamed { .. }
            | Event::Access { .. }
            | Event::FirstFrame { .. }
            | Event::LeftOut { .. }
            | Event::Failed(_)
            | Event::Ended { .. } => return,
        };
        let is_open = self.open.as_ref() == Some(session);
        let talk = self.talks.entry(session.clone()).or_default();
        talk.unread += usize::from(!is_open && !matches!(said, Said::ByMe(_)));
        let has_link = said.has_link();
        talk.lines.push_back(Line { at: at.to_owned(), said, has_link, size: None });
        if talk.lines.len() > LINES {
            talk.lines.pop_front();
        }
    }

    /// How many lines of a session's chat were not seen yet.
    pub(crate) fn unread(&self, session: &SessionId) -> usize {
        self.talks.get(session).map_or(0, |talk| talk.unread)
    }

    /// Whether a session's chat is open.
    pub(crate) fn is_open(&self, session: &SessionId) -> bool {
        self.open.as_ref() == Some(session)
    }

    /// Whether a chat is open.
    pub(crate) const fn any_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens a session's chat in place of another, or closes it.
    pub(crate) fn toggle(&mut self, session: SessionId) {
        let opens = !self.is_open(&session);
        self.wants_focus = opens;
        if opens {
            self.talks.entry(session.clone()).or_default().unread = 0;
        }
        self.open = opens.then_some(session);
    }

    /// Closes the chat that is open.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Forgets the chats of sessions that are not shown any more.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot) {
        let is_shown = |id: &SessionId| snapshot.sessions.iter().any(|one| one.session == *id);
        self.talks.retain(|id, _| is_shown(id) || snapshot.is_departing(id));
        self.open = self.open.take().filter(is_shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ParticipantId;

    #[test]
    fn a_chat_keeps_its_newest_lines() {
        let mut chats = Chats::default();
        let session = SessionId::parse("a").unwrap();
        for index in 0..LINES + 2 {
            let text = ChatText::new(&index.to_string()).unwrap();
            let (participant, name) = (ParticipantId::from_digest([0; 10]), "Ada".to_owned());
            chats.note(
                &Event::Message { session: session.clone(), participant, name, text },
                "9:00",
            );
        }
        let lines = &chats.talks[&session].lines;
        assert_eq!(lines.len(), LINES);
        let first = Said::By("Ada".into(), ChatText::new("2").unwrap());
        assert_eq!(lines[0].said, first);
        assert_eq!(chats.unread(&session), LINES + 2);
    }
}
