//! Bodies of requests and answers: whole, or piece by piece from a channel; and reading a body of
//! limited size. No HTTP semantics.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::client::broken;
use crate::env::Env;

/// What this side sends.
#[derive(Debug)]
pub enum Body {
    /// Nothing, or one piece of known length.
    Whole(Option<Bytes>),
    /// As many pieces as the channel brings; an error breaks the connection off, so that the other
    /// end cannot take what it has for the whole.
    Pieces { pieces: mpsc::Receiver<io::Result<Bytes>>, taken: Arc<AtomicU64> },
}

impl Body {
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }

    /// `taken` counts the bytes that the connection has taken over.
    pub(super) fn pieces(pieces: mpsc::Receiver<io::Result<Bytes>>, taken: Arc<AtomicU64>) -> Self {
        Self::Pieces { pieces, taken }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let piece = match &mut *self {
            Self::Whole(bytes) => bytes.take().map(Ok),
            Self::Pieces { pieces, taken } => {
                let piece = ready!(pieces.poll_recv(cx));
                if let Some(Ok(bytes)) = &piece {
                    taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                }
                piece
            }
        };
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Pieces { .. } => SizeHint::default(),
        }
    }
}

/// The next piece of a body; `None` at its proper end. An error when it breaks off, or when the
/// other end falls silent for as long as it may.
pub(super) async fn next_piece(
    env: &Env,
    patience: Duration,
    body: &mut Incoming,
) -> io::Result<Option<Bytes>> {
    loop {
        let frame = env
            .timeout(patience, body.frame())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "body timed out"))?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(broken(error)),
            // Trailers carry nothing.
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// Why [`read_whole`] has no body to give.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("request body too large")]
    TooLarge,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The whole body, which may be `limit` bytes at most.
pub(super) async fn read_whole(
    env: &Env,
    patience: Duration,
    body: &mut Incoming,
    limit: usize,
) -> Result<Bytes, ReadError> {
    let Some(first) = next_piece(env, patience, body).await? else { return Ok(Bytes::new()) };
    let mut whole = BytesMut::new();
    let mut piece = first;
    loop {
        if whole.len() + piece.len() > limit {
            return Err(ReadError::TooLarge);
        }
        let next = next_piece(env, patience, body).await?;
        let Some(next) = next else {
            // The common case, one piece, is not copied.
            if whole.is_empty() {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
            return Ok(whole.freeze());
        };
        whole.extend_from_slice(&piece);
        piece = next;
    }
}
