//! The lines of standard input, for chats or commands.

use std::{
    future::pending,
    io::{self, BufRead as _, Read as _},
    thread,
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::model::{
    ChatText, MAX_CHAT_BYTES, ParticipantState, SessionId, SessionState, Snapshot, TextError,
};

/// The pause after each line: well below the rate at which another program reads a chat, so that a
/// whole file arrives. A program that writes to our standard input waits meanwhile.
const LINE_INTERVAL: Duration = Duration::from_millis(100);

/// The lines of standard input.
pub(super) struct StdinLines {
    lines: mpsc::Receiver<Vec<u8>>,
    next_at: Instant,
}

impl StdinLines {
    /// Starts to read standard input, on a thread that ends with the input or the process: a read
    /// that waits for input cannot be cancelled.
    ///
    /// # Errors
    /// Fails if the system gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        // One line at most is buffered: other unsent lines stay in the pipe.
        let (sender, lines) = mpsc::channel(1);
        thread::Builder::new().name("standard input".into()).spawn(move || {
            while let Some(line) = read_line(&mut io::stdin().lock()) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { lines, next_at: Instant::now() })
    }

    /// Returns the next line that is not empty as a chat text; never returns if there is none.
    /// Cancel safe.
    ///
    /// # Errors
    /// Fails if the line is too long.
    pub(super) async fn next_chat_text(lines: &mut Option<Self>) -> Result<ChatText, TextError> {
        loop {
            let text = ChatText::new(&Self::next_line(lines).await);
            if text != Err(TextError::Empty) {
                return text;
            }
        }
    }

    /// Returns the next line; never returns if there is none. Cancel safe.
    pub(super) async fn next_line(lines: &mut Option<Self>) -> String {
        let Some(stdin) = lines else { return pending().await };
        sleep_until(stdin.next_at).await;
        let Some(line) = stdin.lines.recv().await else { return pending().await };
        stdin.next_at = Instant::now() + LINE_INTERVAL;
        String::from_utf8_lossy(&line).into_owned()
    }
}

/// Reads the next line, at most [`MAX_CHAT_BYTES`] of it: the remainder of a longer line is
/// returned as the next one. `None` at the end, and if the input cannot be read.
fn read_line(input: &mut impl io::BufRead) -> Option<Vec<u8>> {
    let mut line = vec![];
    let bytes = input.take(MAX_CHAT_BYTES as u64).read_until(b'\n', &mut line).ok()?;
    (bytes > 0).then_some(line)
}

/// Returns the sessions in whose chat we may write and in which a participant is connected.
pub(super) fn chat_sessions(snapshot: &Snapshot) -> Vec<SessionId> {
    let is_open = |state: &SessionState| {
        matches!(state, SessionState::Live | SessionState::Reconnecting { .. })
    };
    let sessions = snapshot.sessions.iter().filter(|session| {
        let may_write = session.kind.is_some_and(|kind| kind.may_chat(session.role));
        let live = session.participants.iter().any(|one| one.state == ParticipantState::Live);
        may_write && live && is_open(&session.state)
    });
    sessions.map(|session| session.session.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Role, fixtures};

    #[test]
    fn lines_are_read_whole_and_an_overlong_one_in_pieces() {
        let mut input = io::Cursor::new(format!("one\ntwo\n{}", "x".repeat(20_000)));
        let lengths: Vec<_> =
            std::iter::from_fn(|| read_line(&mut input)).map(|l| l.len()).collect();
        assert_eq!(lengths, [4, 4, 16_384, 3616]);
    }

    #[test]
    fn a_line_is_sent_to_sessions_with_a_live_participant_where_we_may_write() {
        let session = |id: &str, kind: &str, role, state| {
            let mut session = fixtures::session_status(id, kind.parse().unwrap(), role, 1);
            session.participants[0].state = state;
            session
        };
        let live = ParticipantState::Live;
        let sessions = vec![
            session("mesh", "data/many-to-many", Role::Guest, live),
            session("viewer", "data/one-way", Role::Guest, live),
            session("opener", "audio+data/one-way", Role::Opener, live),
            session("silent", "av-conference", Role::Opener, live),
            session("early", "data/one-to-one", Role::Opener, ParticipantState::Connecting),
        ];
        let found = chat_sessions(&crate::model::fixtures::snapshot_of(sessions));
        let names: Vec<_> = found.iter().map(SessionId::as_str).collect();
        assert_eq!(names, ["mesh", "opener"]);
    }
}
