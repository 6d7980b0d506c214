//! The lines of standard input, which are said in chats or are commands.

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

/// The pause after each line: far below what another program reads, so that a whole file gets
/// through. Whoever writes to our standard input waits meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// The lines of standard input.
pub(super) struct Speech {
    lines: mpsc::Receiver<Vec<u8>>,
    next: Instant,
}

impl Speech {
    /// Reads standard input from now on, on a thread of its own that ends with the input or the
    /// process: nothing else ends waiting for a person who writes nothing.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn begin() -> io::Result<Self> {
        // One line: what is not said yet stays in the pipe.
        let (sender, lines) = mpsc::channel(1);
        thread::Builder::new().name("standard input".into()).spawn(move || {
            while let Some(line) = read_line(&mut io::stdin().lock()) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { lines, next: Instant::now() })
    }

    /// The next line that is not empty; for ever pending without one. May be dropped and called
    /// again.
    ///
    /// # Errors
    /// If it is too long.
    pub(super) async fn next(speech: &mut Option<Self>) -> Result<ChatText, TextError> {
        loop {
            let text = ChatText::new(&Self::line(speech).await);
            if text != Err(TextError::Empty) {
                return text;
            }
        }
    }

    /// The next line; for ever pending without one. May be dropped and called again.
    pub(super) async fn line(speech: &mut Option<Self>) -> String {
        let Some(one) = speech else { return pending().await };
        sleep_until(one.next).await;
        let Some(line) = one.lines.recv().await else { return pending().await };
        one.next = Instant::now() + PAUSE;
        String::from_utf8_lossy(&line).into_owned()
    }
}

/// The next line, at the latest what fits into memory easily: the rest of a longer one is another.
/// `None` at the end, and if the input cannot be read.
fn read_line(input: &mut impl io::BufRead) -> Option<Vec<u8>> {
    let mut line = vec![];
    let bytes = input.take(MAX_CHAT_BYTES as u64).read_until(b'\n', &mut line).ok()?;
    (bytes > 0).then_some(line)
}

/// The sessions in which we may write and somebody is.
pub(super) fn audience(snapshot: &Snapshot) -> Vec<SessionId> {
    let is_open = |state: &SessionState| {
        matches!(state, SessionState::Live | SessionState::Reconnecting { .. })
    };
    let hearing = snapshot.sessions.iter().filter(|session| {
        let may_write = session.kind.is_some_and(|kind| kind.may_write(session.role));
        let live = session.participants.iter().any(|one| one.state == ParticipantState::Live);
        may_write && live && is_open(&session.state)
    });
    hearing.map(|session| session.session.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Role, staged};

    #[test]
    fn lines_are_read_whole_and_an_endless_one_in_pieces() {
        let mut input = io::Cursor::new(format!("one\ntwo\n{}", "x".repeat(20_000)));
        let lengths: Vec<_> =
            std::iter::from_fn(|| read_line(&mut input)).map(|l| l.len()).collect();
        assert_eq!(lengths, [4, 4, 16_384, 3616]);
    }

    #[test]
    fn a_line_is_said_where_somebody_is_and_we_may_write() {
        let session = |id: &str, kind: &str, role, state| {
            let mut session = staged::session(id, kind.parse().unwrap(), role, 1);
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
        let found = audience(&Snapshot { sessions, ..Snapshot::default() });
        let names: Vec<_> = found.iter().map(SessionId::as_str).collect();
        assert_eq!(names, ["mesh", "opener"]);
    }
}
