//! What a connection sends, gathered: the answers that are ready at about the same time leave in one write.
//! Each is written by the task that has made it, one after the other; the connection's own task, which the
//! first of them wakes, lets the others run once before it writes. With one call open nothing waits.
//!
//! Only HTTP/2 is gathered. What is gathered is bounded; above the bound a write goes to the socket.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::env::BoxConn;
use crate::limits::{GATHER_BYTES_KEPT, GATHER_BYTES_MAX};

/// A connection whose writes are gathered while it is polled; clones share it.
#[derive(Clone)]
pub(super) struct Outlet(Arc<Mutex<State>>);

struct State {
    conn: BoxConn,
    /// Accepted for writing, not written.
    gathered: Vec<u8>,
    /// So many bytes of it are written.
    written: usize,
    /// The protocol and how many calls are open allow to gather.
    gathers: bool,
    several: bool,
    /// All is written, and not flushed.
    unflushed: bool,
    /// Others had their turn since the first byte was gathered.
    yielded: bool,
    /// A write in the background failed; the next use of the connection reports it.
    failed: Option<io::Error>,
}

impl Outlet {
    pub fn new(conn: BoxConn) -> Self {
        Self(Arc::new(Mutex::new(State {
            conn,
            gathered: Vec::new(),
            written: 0,
            gathers: false,
            several: false,
            unflushed: false,
            yielded: false,
            failed: None,
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, writes are gathered, for as long as [`Self::poll`] polls the connection.
    pub fn gather(&self, several_calls: bool) {
        let mut state = self.state();
        (state.gathers, state.several) = (true, several_calls);
    }

    /// Polls a `connection` that writes here, and writes what it has gathered.
    pub fn poll<C: Future>(
        &self,
        connection: Pin<&mut C>,
        cx: &mut Context<'_>,
    ) -> Poll<C::Output> {
        let polled = connection.poll(cx);
        if polled.is_pending() {
            self.state().leave(cx);
        }
        polled
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.gathered.is_empty() && !self.unflushed
    }

    /// The end of a turn of the connection's task.
    fn leave(&mut self, cx: &mut Context<'_>) {
        if self.is_empty() {
            self.yielded = false;
            return;
        }
        if self.several && !self.yielded {
            self.yielded = true;
            // Behind the tasks that are ready now.
            cx.waker().wake_by_ref();
            return;
        }
        match self.poll_drain(cx) {
            // The rest needs no other turn: the socket's room wakes the task.
            Poll::Pending => self.yielded = true,
            Poll::Ready(Ok(())) => self.yielded = false,
            Poll::Ready(Err(error)) => {
                self.failed = Some(error);
                cx.waker().wake_by_ref();
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        while self.written < self.gathered.len() {
            let rest = &self.gathered[self.written..];
            let count = ready!(Pin::new(&mut self.conn).poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        if !self.gathered.is_empty() {
            (self.written, self.unflushed) = (0, true);
            self.gathered.clear();
            // An idle connection keeps little.
            self.gathered.shrink_to(GATHER_BYTES_KEPT);
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.conn).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn check(&mut self) -> io::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }
}

impl AsyncRead for Outlet {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.state();
        state.check()?;
        Pin::new(&mut state.conn).poll_read(cx, buf)
    }
}

impl AsyncWrite for Outlet {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state();
        state.check()?;
        let bytes: usize = bufs.iter().map(|buf| buf.len()).sum();
        if !state.gathers || state.gathered.len() + bytes > GATHER_BYTES_MAX {
            // What came before goes first; large pieces are not copied.
            ready!(state.poll_drain(cx))?;
            if !state.gathers || bytes > GATHER_BYTES_MAX / 2 {
                return Pin::new(&mut state.conn).poll_write_vectored(cx, bufs);
            }
        }
        for buf in bufs {
            state.gathered.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bytes))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is gathered is flushed at the end of the task's turn.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        state.check()?;
        if !state.is_empty() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut state.conn).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state();
        ready!(state.poll_drain(cx))?;
        Pin::new(&mut state.conn).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::task::{ArcWake, noop_waker, waker};
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A socket with so much room, and what was written to it.
    #[derive(Default)]
    struct Socket {
        writes: Vec<Vec<u8>>,
        room: usize,
        broken: bool,
    }

    #[derive(Clone)]
    struct Near(Arc<Mutex<Socket>>);

    impl Near {
        fn new(room: usize) -> Self {
            Self(Arc::new(Mutex::new(Socket { room, ..Socket::default() })))
        }

        fn socket(&self) -> MutexGuard<'_, Socket> {
            self.0.lock().expect("no test goes on after a panic")
        }

        fn writes(&self) -> Vec<Vec<u8>> {
            self.socket().writes.clone()
        }
    }

    impl AsyncRead for Near {
        fn poll_read(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            _buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Near {
        fn poll_write(
            self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let mut socket = self.socket();
            if socket.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let count = buf.len().min(socket.room);
            if count == 0 {
                return Poll::Pending;
            }
            socket.room -= count;
            socket.writes.push(buf[..count].to_vec());
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl ArcWake for Wakes {
        fn wake_by_ref(wakes: &Arc<Self>) {
            wakes.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A turn of a connection that writes these pieces and never ends; how often it woke itself.
    fn turn(outlet: &Outlet, pieces: &[&[u8]]) -> usize {
        let mut socket = outlet.clone();
        let mut connection = Box::pin(async move {
            for piece in pieces {
                socket.write_all(piece).await.expect("it is open");
                socket.flush().await.expect("it is open");
            }
            std::future::pending::<()>().await;
        });
        let wakes = Arc::<Wakes>::default();
        let waker = waker(wakes.clone());
        let polled = outlet.poll(connection.as_mut(), &mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        wakes.0.load(Ordering::Relaxed)
    }

    #[test]
    fn answers_of_several_calls_leave_in_one_write() {
        let near = Near::new(1 << 20);
        let outlet = Outlet::new(Box::new(near.clone()));
        outlet.gather(true);
        assert_eq!(turn(&outlet, &[b"one ", b"two "]), 1, "others have their turn");
        assert!(near.writes().is_empty());
        assert_eq!(turn(&outlet, &[b"three"]), 0);
        assert_eq!(near.writes(), [b"one two three"]);
        assert_eq!(turn(&outlet, &[]), 0, "nothing is left");
    }

    #[test]
    fn the_answer_of_one_call_does_not_wait() {
        let near = Near::new(1 << 20);
        let outlet = Outlet::new(Box::new(near.clone()));
        outlet.gather(false);
        assert_eq!(turn(&outlet, &[b"head ", b"body"]), 0);
        assert_eq!(near.writes(), [b"head body"]);
    }

    #[test]
    fn what_is_no_http2_is_written_at_once() {
        let near = Near::new(1 << 20);
        let outlet = Outlet::new(Box::new(near.clone()));
        turn(&outlet, &[b"a", b"b"]);
        assert_eq!(near.writes(), [b"a", b"b"]);
    }

    #[test]
    fn a_socket_without_room_bounds_what_is_gathered_and_loses_nothing() {
        let near = Near::new(10);
        let outlet = Outlet::new(Box::new(near.clone()));
        outlet.gather(true);
        let pieces: Vec<Vec<u8>> = (0..100).map(|n| vec![n; GATHER_BYTES_MAX / 10]).collect();
        let mut socket = outlet.clone();
        let all = pieces.concat();
        let mut connection = Box::pin(async move {
            for piece in &pieces {
                socket.write_all(piece).await.expect("it is open");
            }
            // Written as a whole: larger than what is gathered.
            socket.write_all(&[255; 2 * GATHER_BYTES_MAX]).await.expect("it is open");
            poll_fn(|cx| Pin::new(&mut socket).poll_shutdown(cx)).await.expect("it is open");
        });
        let waker = noop_waker();
        let mut polls = 0;
        while outlet.poll(connection.as_mut(), &mut Context::from_waker(&waker)).is_pending() {
            let state = outlet.state();
            assert!(state.gathered.len() <= GATHER_BYTES_MAX);
            drop(state);
            near.socket().room += 7_000;
            polls += 1;
            assert!(polls < 1_000, "it gets on");
        }
        assert_eq!(near.writes().concat(), [&all[..], &[255; 2 * GATHER_BYTES_MAX]].concat());
        assert!(outlet.state().gathered.capacity() <= 2 * GATHER_BYTES_KEPT);
    }

    #[test]
    fn a_failed_write_is_reported_to_the_connection() {
        let near = Near::new(1 << 20);
        let outlet = Outlet::new(Box::new(near.clone()));
        outlet.gather(false);
        near.socket().broken = true;
        assert_eq!(turn(&outlet, &[b"lost"]), 1, "the connection looks again");
        let mut socket = outlet.clone();
        let mut cx = Context::from_waker(futures::task::noop_waker_ref());
        let mut buf = [0; 8];
        let read = Pin::new(&mut socket).poll_read(&mut cx, &mut ReadBuf::new(&mut buf));
        assert!(matches!(read, Poll::Ready(Err(e)) if e.kind() == io::ErrorKind::BrokenPipe));
    }
}
