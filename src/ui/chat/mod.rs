//! The chats: the messages and the draft of each session, and the panel that shows one chat.

mod panel;
mod urls;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use eframe::egui::Vec2;

use urls::{Piece, pieces};

use crate::model::{ChatText, Event, SessionId, Snapshot};

/// Maximum number of entries of one chat: enough for a long evening. The oldest are dropped.
const MAX_ENTRIES: usize = 500;

/// The chats of all sessions, and which one is open.
#[derive(Debug, Default)]
pub(crate) struct Chats {
    by_session: BTreeMap<SessionId, SessionChat>,
    open: Option<SessionId>,
    /// Whether the message box is to get the focus, because the chat has just opened.
    wants_focus: bool,
}

/// The chat of one session.
#[derive(Debug, Default)]
struct SessionChat {
    entries: VecDeque<ChatEntry>,
    /// The entries that were visible in the last frame.
    visible: Range<usize>,
    /// The number of entries from others that arrived while the chat was closed.
    unread: usize,
    /// The draft of a message.
    draft: String,
    /// Why the draft cannot be sent. Cleared when the draft is edited.
    draft_error: Option<String>,
}

/// An entry of a chat.
#[derive(Clone, PartialEq, Debug)]
struct ChatEntry {
    /// When it arrived, `14:05`.
    at: String,
    content: EntryContent,
    /// Whether it contains a URL, which Tab must reach.
    has_url: bool,
    /// Its width and height when it was last drawn.
    size: Option<Vec2>,
}

/// The content of an entry.
#[derive(Clone, PartialEq, Eq, Debug)]
enum EntryContent {
    /// A message of this user.
    Own(ChatText),
    /// A message of another participant: name and text.
    Remote(String, ChatText),
    /// A number of messages that did not reach the named participant.
    Undelivered(usize, String),
}

impl EntryContent {
    fn has_url(&self) -> bool {
        match self {
            Self::Own(text) | Self::Remote(_, text) => {
                pieces(text.as_str()).iter().any(|piece| matches!(piece, Piece::Url(_)))
            }
            Self::Undelivered(..) => false,
        }
    }
}

impl Chats {
    /// Adds an event to its chat. `at` is the time of day.
    pub(crate) fn on_event(&mut self, event: &Event, at: &str) {
        let (session, content) = match event {
            Event::MessageReceived { session, name, text, .. } => {
                (session, EntryContent::Remote(name.clone(), text.clone()))
            }
            Event::MessageSent { session, text } => (session, EntryContent::Own(text.clone())),
            Event::Undelivered { session, name, count, .. } => {
                (session, EntryContent::Undelivered(*count, name.clone()))
            }
            Event::Listening { .. }
            | Event::LinkChanged { .. }
            | Event::HubLost { .. }
            | Event::HubRestored { .. }
            | Event::Opened { .. }
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
            | Event::Failed(_)
            | Event::Ended { .. } => return,
        };
        let is_open = self.open.as_ref() == Some(session);
        let chat = self.by_session.entry(session.clone()).or_default();
        chat.unread += usize::from(!is_open && !matches!(content, EntryContent::Own(_)));
        let has_url = content.has_url();
        chat.entries.push_back(ChatEntry { at: at.to_owned(), content, has_url, size: None });
        if chat.entries.len() > MAX_ENTRIES {
            chat.entries.pop_front();
        }
    }

    /// The number of unread entries of a session's chat.
    pub(crate) fn unread(&self, session: &SessionId) -> usize {
        self.by_session.get(session).map_or(0, |chat| chat.unread)
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
            self.by_session.entry(session.clone()).or_default().unread = 0;
        }
        self.open = opens.then_some(session);
    }

    /// Closes the open chat.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }

    /// Drops the chats of sessions that are no longer shown.
    pub(crate) fn update(&mut self, snapshot: &Snapshot) {
        let is_shown = |id: &SessionId| snapshot.sessions.iter().any(|one| one.session == *id);
        self.by_session.retain(|id, _| is_shown(id) || snapshot.is_departing(id));
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
        for index in 0..MAX_ENTRIES + 2 {
            let text = ChatText::new(&index.to_string()).unwrap();
            let (participant, name) = (ParticipantId::from_digest([0; 10]), "Ada".to_owned());
            chats.on_event(
                &Event::MessageReceived { session: session.clone(), participant, name, text },
                "9:00",
            );
        }
        let entries = &chats.by_session[&session].entries;
        assert_eq!(entries.len(), MAX_ENTRIES);
        let first = EntryContent::Remote("Ada".into(), ChatText::new("2").unwrap());
        assert_eq!(entries[0].content, first);
        assert_eq!(chats.unread(&session), MAX_ENTRIES + 2);
    }
}
