//! Inspects the head of a request before the HTTP parser, which accepts lines that end in a bare
//! line feed. Programs on the path that disagree about the end of a line may disagree about the
//! request, so such a request is refused (RFC 9112, section 2.2).

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that inspects the head of its first request; all bytes pass unchanged.
#[derive(Debug)]
pub(super) struct HeadInspector<S> {
    stream: S,
    state: State,
    has_bare_line_feed: Arc<AtomicBool>,
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
    /// After the head, or after a bare line feed in it.
    Done,
}

impl<S> HeadInspector<S> {
    /// A stream that is inspected from its first byte on, and whether a bare line feed was found.
    /// The flag is set before the parser gets that byte.
    pub(super) fn new(stream: S) -> (Self, Arc<AtomicBool>) {
        let has_bare_feed = Arc::new(AtomicBool::new(false));
        (
            Self { stream, state: State::LeadingLines, has_bare_line_feed: has_bare_feed.clone() },
            has_bare_feed,
        )
    }

    fn inspect(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.state = match (self.state, byte) {
                (State::Done, _) => return,
                (State::LeadingCr, b'\n') => State::LeadingLines,
                (State::Cr, b'\n') => State::LineEnd,
                (State::FinalCr, b'\n') => State::Done,
                (State::LeadingLines | State::InLine | State::LineEnd, b'\n') => {
                    self.has_bare_line_feed.store(true, Ordering::Relaxed);
                    State::Done
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
        if self.state != State::Done {
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

    /// Whether a bare line feed is found in a stream of these pieces.
    async fn finds(pieces: &[&[u8]]) -> bool {
        let stream = Pieces(pieces.iter().map(|piece| piece.to_vec()).collect());
        let (mut watched, found) = HeadInspector::new(stream);
        let mut read = vec![];
        watched.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, pieces.concat(), "all bytes pass");
        found.load(Ordering::Relaxed)
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
}
