//! One address for TLS and for plain streams, where the URLs ask for both: the first byte tells, as in
//! etcd. What is spoken then is not known here.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::env::{BoxConn, Env};
use crate::limits::TLS_HANDSHAKE_TIMEOUT;

/// How a TLS stream begins: with a record of a handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// Whether a connection begins as TLS does, and the connection, of which nothing has been read as far
/// as others can see. `None` when nothing comes.
pub async fn is_tls(env: &Env, mut conn: BoxConn) -> Option<(bool, BoxConn)> {
    let first = env.timeout(TLS_HANDSHAKE_TIMEOUT, conn.read_u8()).await.ok()?.ok()?;
    Some((first == HANDSHAKE, Box::new(Begun { first: Some(first), conn })))
}

/// A connection whose first byte has been read already.
struct Begun {
    first: Option<u8>,
    conn: BoxConn,
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        match self.first.take() {
            Some(first) => {
                buf.put_slice(&[first]);
                Poll::Ready(Ok(()))
            }
            None => Pin::new(&mut self.conn).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.conn).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.conn).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.conn).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }
}
