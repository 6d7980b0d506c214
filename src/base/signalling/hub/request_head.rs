//! Inspects the heads of requests before the HTTP parser, which accepts lines that end in a bare
//! line feed. Programs on the path that disagree about the end of a line may disagree about the
//! request, so such a request is refused (RFC 9112, section 2.2).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that inspects the heads of its requests; all bytes pass unchanged.
///
/// It takes what follows a head for the next head. So a request with a body must be the last one of
/// its connection: the inspector does not know where the body ends.
#[derive(Debug)]
pub(super) struct HeadInspector<S> {
    stream: S,
    state: State,
    /// The number of complete heads.
    heads: u32,
    findings: Arc<HeadFindings>,
}

/// What an inspector has found so far.
#[derive(Debug)]
pub(super) struct HeadFindings {
    /// The number of the first head with a bare line feed; the first head has the number 0.
    first_bad: AtomicU32,
    is_stopped: AtomicBool,
}

impl HeadFindings {
    /// Whether there was a bare line feed in the head of that number, or in one before it. Known as
    /// soon as the parser has the head.
    pub(super) fn is_bad(&self, number: u32) -> bool {
        self.first_bad.load(Ordering::Relaxed) <= number
    }

    /// Ends the inspection: what follows is not HTTP.
    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }
}

/// The position in the head after the last byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// In empty lines before the request, which the parser skips (RFC 9112, section 2.2).
    LeadingLines,
    /// After a carriage return there.
    LeadingCr,
    /// Within a line.
    InLine,
    /// After a carriage return within a line.
    Cr,
    /// At the end of a line.
    LineEnd,
    /// After a carriage return at the start of a line.
    FinalCr,
    /// After a bare line feed: nothing after it is accepted.
    Bad,
}

impl<S> HeadInspector<S> {
    /// A stream that is inspected from its first byte on, and what is found in it.
    pub(super) fn new(stream: S) -> (Self, Arc<HeadFindings>) {
        let (first_bad, is_stopped) = (AtomicU32::new(u32::MAX), AtomicBool::new(false));
        let findings = Arc::new(HeadFindings { first_bad, is_stopped });
        (
            Self { stream, state: State::LeadingLines, heads: 0, findings: findings.clone() },
            findings,
        )
    }

    fn inspect(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = match (self.state, byte) {
                (State::Bad, _) => return,
                (State::LeadingCr, b'\n') => State::LeadingLines,
                (State::Cr, b'\n') => State::LineEnd,
                (State::FinalCr, b'\n') => {
                    self.heads = self.heads.saturating_add(1);
                    State::LeadingLines
                }
                (State::LeadingLines | State::InLine | State::LineEnd, b'\n') => {
                    self.findings.first_bad.store(self.heads, Ordering::Relaxed);
                    State::Bad
                }
                (State::LeadingLines, b'\r') => State::LeadingCr,
                (State::LineEnd, b'\r') => State::FinalCr,
                (_, b'\r') => State::Cr,
                (_, _) => State::InLine,
            };
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadInspector<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.state != State::Bad && !self.findings.is_stopped.load(Ordering::Relaxed) {
            self.inspect(&buffer.filled()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadInspector<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// The number of the first head with a bare line feed in a stream of these pieces.
    async fn first_bad(pieces: &[&[u8]]) -> Option<u32> {
        let stream = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
        let (mut watched, found) = HeadInspector::new(stream);
        let mut read = vec![];
        watched.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, pieces.concat(), "all bytes pass");
        (0..9).find(|number| found.is_bad(*number))
    }

    async fn finds(pieces: &[&[u8]]) -> bool {
        first_bad(pieces).await == Some(0)
    }

    /// A stream that returns one piece on each read.
    struct Pieces(std::collections::VecDeque<Vec<u8>>);

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn a_bare_line_feed_is_found_in_the_head_only() {
        let good = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".as_slice();
        assert!(!finds(&[good]).await);
        assert!(!finds(&[good, b"body\nwith\n\nlines"]).await);
        assert!(!finds(&[[good, b"\n"].concat().as_slice()]).await, "in one piece");
        let bytes: Vec<&[u8]> = good.chunks(1).collect();
        assert!(!finds(&bytes).await, "byte by byte");
        assert!(!finds(&[b"\r\n\r\n", good, b"\n"]).await, "empty lines before it");
        for bad in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: h\n\r\n",
            "\r\n\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\rx\n\r\n",
        ] {
            assert!(finds(&[bad.as_bytes()]).await, "{bad:?}");
            let bytes: Vec<&[u8]> = bad.as_bytes().chunks(1).collect();
            assert!(finds(&bytes).await, "{bad:?}");
        }
    }

    #[tokio::test]
    async fn each_head_of_a_connection_is_inspected() {
        let good = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".as_slice();
        let bad = b"GET / HTTP/1.1\r\nHost: h\n\r\n".as_slice();
        assert_eq!(first_bad(&[good, good, good]).await, None);
        for stream in [[good, good, bad].concat(), [good, b"\r\n", good, bad].concat()] {
            assert_eq!(first_bad(&[&stream]).await, Some(2), "one read");
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            assert_eq!(first_bad(&bytes).await, Some(2), "byte by byte");
        }
        assert_eq!(first_bad(&[good, bad, bad]).await, Some(1), "the first one counts");
    }

    #[tokio::test]
    async fn nothing_is_inspected_after_the_last_request() {
        let good = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        let (mut watched, found) = HeadInspector::new(Pieces([good, b"\n".to_vec()].into()));
        watched.read_buf(&mut vec![]).await.unwrap();
        found.stop();
        watched.read_to_end(&mut vec![]).await.unwrap();
        assert!(!found.is_bad(1));
    }
}
