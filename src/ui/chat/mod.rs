//! The chats: the messages and the draft of each session, and the panel that shows one chat.

mod links;
mod panel;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use eframe::egui::Vec2;

use links::{Piece, pieces};

use crate::model::{ChatText, Event, SessionId, Snapshot};

/// Maximum number of entries of one chat: enough for a long evening. The oldest are dropped.
const LINES: usize = 500;

/// The chats of all sessions, and which one is open.
#[derive(Debug, Default)]
pub(crate) struct Chats {
    talks: BTreeMap<SessionId, Talk>,
    open: Option<SessionId>,
    /// Whether the message box is to get the focus, because the chat has just opened.
    wants_focus: bool,
}

/// The chat of one session.
#[derive(Debug, Default)]
struct Talk {
    lines: VecDeque<Line>,
    /// The entries that were visible in the last frame.
    seen: Range<usize>,
    /// The number of entries from others that arrived while the chat was closed.
    unread: usize,
    /// The draft of a message.
    draft: String,
    /// Why the draft cannot be sent. Cleared when the draft is edited.
    refused: Option<String>,
}

/// An entry of a chat.
#[derive(Clone, PartialEq, Debug)]
struct Line {
    /// When it arrived, `14:05`.
    at: String,
    said: Said,
    /// Whether it contains a URL, which Tab must reach.
    has_link: bool,
    /// Its width and height when it was last drawn.
    size: Option<Vec2>,
}

/// The content of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Said {
    /// A message of this user.
    ByMe(ChatText),
    /// A message of another participant: name and text.
    By(String, ChatText),
    /// A number of messages that did not reach the named participant.
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
    /// Adds an event to its chat. `at` is the time of day.
    pub(crate) fn note(&mut self, event: &Event, at: &str) {
        let (session, content) = match event {
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
        let chat = self.talks.entry(session.clone()).or_default();
        chat.unread += usize::from(!is_open && !matches!(content, Said::ByMe(_)));
        let has_url = content.has_link();
        chat.lines.push_back(Line {
            at: at.to_owned(),
            said: content,
            has_link: has_url,
            size: None,
        });
        if chat.lines.len() > LINES {
            chat.lines.pop_front();
        }
    }

    /// The number of unread entries of a session's chat.
    pub(crate) fn unread(&self, session: &SessionId) -> usize {
        self.talks.get(session).map_or(0, |chat| chat.unread)
    }

    /// Whether a session's chat is open.
    pub(crate) fn is_open(&self, session: &SessionId) -> bool {
        self.open.as_ref() == Some(session)
    }

    /// Whether any chat is open.
    pub(crate) const fn any_open(&self) -> bool {
        self.open.is_some()
    }

    /// Opens a session's chat in place of another, or closes it if it is open.
    pub(crate) fn toggle(&mut self, session: SessionId) {
        let opens = !self.is_open(&session);
        self.wants_focus = opens;
        if opens {
            self.talks.entry(session.clone()).or_default().unread = 0;
        }
        self.open = opens.then_some(session);
    }

    /// Closes the open chat.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Drops the chats of sessions that are no longer shown.
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
    fn a_chat_keeps_its_newest_entries() {
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
        let entries = &chats.talks[&session].lines;
        assert_eq!(entries.len(), LINES);
        let first = Said::By("Ada".into(), ChatText::new("2").unwrap());
        assert_eq!(entries[0].said, first);
        assert_eq!(chats.unread(&session), LINES + 2);
    }
}
