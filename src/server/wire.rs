//! A client's connection as bytes, between the socket and the HTTP library: the frames of HTTP/2 are
//! followed, which counts pings and open streams, merges small frames and mends the first request's
//! authority; a client that sends nothing is disconnected after a time, and one that sends much lets others
//! go first. HTTP/1 passes as it is.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::authority::Mending;
use super::frames::{CONTINUATION, END_HEADERS, Frame, Frames, GOAWAY, HEADERS};
use super::outlet::Outlet;
use super::pings::PingLimit;
use crate::env::places::{Standing, Streams};
use crate::env::{BoxFuture, Env};
use crate::limits::{
    CONNECTION_STREAMS_MAX, CROWD_READ_BYTES, CROWD_STREAMS, GREETING_TIMEOUT, TURN_BYTES,
    TURN_STREAMS,
};
use crate::plant;

const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A connection that is followed.
pub(super) struct Wire {
    conn: Outlet,
    env: Env,
    incoming: Frames,
    outgoing: Frames,
    ping_limit: PingLimit,
    streams: Streams,
    /// Whether several calls are open, as last set at the outlet.
    several: Option<bool>,
    /// Bytes of a request's metadata that has not ended.
    metadata: usize,
    mending: Option<Mending>,
    /// Received and looked at, not yet passed on.
    ready: Vec<u8>,
    /// Ready when the client had enough time to begin a protocol; none once it has.
    greeting: Option<BoxFuture<'static, ()>>,
    /// What is still to be sent before the connection ends, and why it ends.
    farewell: Option<(Vec<u8>, &'static str)>,
    turn: Turn,
    /// There are many open streams, and the last read opened more.
    crowded: bool,
}

/// What was read since other tasks had their turn. The runtime counts reads, each of which may bring hundreds
/// of streams.
#[derive(Default)]
struct Turn {
    bytes: usize,
    streams: usize,
}

impl Turn {
    fn is_over(&self) -> bool {
        self.bytes >= TURN_BYTES || self.streams >= TURN_STREAMS
    }
}

impl Wire {
    pub fn new(conn: Outlet, env: Env, standing: Standing, ping_time_min: Duration) -> Self {
        let greeting = Some(env.sleep(GREETING_TIMEOUT));
        Self {
            conn,
            env,
            incoming: Frames::Preface(0),
            outgoing: Frames::BETWEEN,
            ping_limit: PingLimit::new(ping_time_min),
            streams: Streams::of(standing),
            several: None,
            metadata: 0,
            mending: Some(Mending::new()),
            ready: Vec::new(),
            greeting,
            farewell: None,
            turn: Turn::default(),
            crowded: false,
        }
    }

    /// Follows what was received; returns how much of it is left after merging.
    fn received(&mut self, bytes: &mut [u8]) -> usize {
        let (env, ping_limit) = (&self.env, &mut self.ping_limit);
        let (mut too_many_pings, metadata) = (false, &mut self.metadata);
        self.turn.bytes += bytes.len();
        let (before, turn) = (self.turn.streams, &mut self.turn);
        let each = |frame: Frame| {
            too_many_pings |= ping_limit.received(frame, || env.now());
            if matches!(frame.kind, HEADERS | CONTINUATION) {
                let ends = frame.flags & END_HEADERS != 0;
                *metadata = if ends { 0 } else { *metadata + frame.len };
                turn.streams += usize::from(frame.kind == HEADERS);
            }
        };
        let left = self.incoming.follow_and_merge(bytes, each);
        if !matches!(self.incoming, Frames::Preface(_)) {
            self.greeting = None;
        }
        let open = self.ping_limit.open();
        self.crowded = open > CROWD_STREAMS && self.turn.streams > before;
        let may_open = self.streams.set(open) && open <= CONNECTION_STREAMS_MAX;
        self.gather();
        let has_room = self.streams.set_metadata(self.metadata);
        if self.farewell.is_none() {
            if too_many_pings {
                debug!("a client that pings too often is disconnected");
                let bytes = goaway(self.ping_limit.newest, b"too_many_pings");
                self.farewell = Some((bytes, "got too many pings from the client"));
            } else if !may_open {
                debug!("a client with too many open streams is disconnected");
                let bytes = goaway(self.ping_limit.newest, b"too_many_streams");
                self.farewell = Some((bytes, "the client has too many open streams"));
            } else if !has_room {
                debug!(
                    "a client that sends much metadata is disconnected: there is no room for it"
                );
                let bytes = goaway(self.ping_limit.newest, b"too_much_metadata");
                self.farewell = Some((bytes, "there is no room for the client's metadata"));
            }
        }
        left
    }

    /// Sets whether writes are gathered, once the client has begun to use HTTP/2.
    fn gather(&mut self) {
        if matches!(self.incoming, Frames::None | Frames::Preface(_)) {
            return;
        }
        let several = self.ping_limit.open() > 1;
        if self.several.replace(several) != Some(several) {
            self.conn.gather(several);
        }
    }

    /// Follows so many bytes of what was offered for writing.
    fn sent<'a>(&mut self, bufs: impl Iterator<Item = &'a [u8]>, mut count: usize) {
        // HTTP/1 has no frames.
        if matches!(self.incoming, Frames::None) {
            return;
        }
        for buf in bufs {
            let part = &buf[..buf.len().min(count)];
            let ping_limit = &mut self.ping_limit;
            self.outgoing.follow(part, |frame| ping_limit.sent(frame));
            count -= part.len();
        }
        self.streams.set(self.ping_limit.open());
        self.gather();
    }

    /// Sends the reason and closes; between two frames only, as within one it would be read as payload.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let why = self.farewell.as_ref().map_or("", |(_, why)| *why);
        if self.outgoing.is_between() {
            while let Some((bytes, _)) = self.farewell.as_mut().filter(|(left, _)| !left.is_empty())
            {
                let written = ready!(Pin::new(&mut self.conn).poll_write(cx, bytes))?;
                bytes.drain(..written);
            }
            ready!(Pin::new(&mut self.conn).poll_flush(cx))?;
            ready!(Pin::new(&mut self.conn).poll_shutdown(cx))?;
        }
        Poll::Ready(Err(io::Error::other(why)))
    }

    /// Reads into `buf`, whose first `before` bytes were there already.
    fn poll_plain(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        before: usize,
    ) -> Poll<io::Result<()>> {
        if self.turn.is_over() || self.crowded && self.turn.bytes > 0 {
            self.turn = Turn::default();
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = if self.crowded {
            let mut space = [0; CROWD_READ_BYTES];
            let mut part = ReadBuf::new(&mut space[..CROWD_READ_BYTES.min(buf.remaining())]);
            let polled = Pin::new(&mut self.conn).poll_read(cx, &mut part)?;
            buf.put_slice(part.filled());
            polled
        } else {
            Pin::new(&mut self.conn).poll_read(cx, buf)?
        };
        if polled.is_pending() {
            self.turn = Turn::default();
            if let Some(greeting) = &mut self.greeting
                && !plant::SILENT_CONNECTIONS_KEPT.is_planted()
            {
                ready!(greeting.as_mut().poll(cx));
                debug!("a client with an unknown protocol is disconnected");
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return Poll::Pending;
        }
        let left = self.received(&mut buf.filled_mut()[before..]);
        buf.set_filled(before + left);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.farewell.is_none() {
            if !this.ready.is_empty() {
                let len = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..len]);
                this.ready.drain(..len);
                return Poll::Ready(Ok(()));
            }
            let Some(mut mending) = this.mending.take().filter(|mending| !mending.is_done()) else {
                let before = buf.filled().len();
                ready!(this.poll_plain(cx, buf, before))?;
                if this.farewell.is_some() {
                    // Neither an error nor a wait may leave anything in the caller's buffer.
                    buf.set_filled(before);
                    break;
                }
                return Poll::Ready(Ok(()));
            };
            let mut space = [0; 4096];
            let mut read = ReadBuf::new(&mut space);
            let polled = this.poll_plain(cx, &mut read, 0);
            mending.take(read.filled(), &mut this.ready);
            this.mending = Some(mending);
            ready!(polled)?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        this.poll_farewell(cx)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.farewell.is_some() {
            ready!(self.poll_farewell(cx))?;
        }
        let written = ready!(Pin::new(&mut self.conn).poll_write(cx, buf))?;
        self.sent([buf].into_iter(), written);
        Poll::Ready(Ok(written))
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
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.farewell.is_some() {
            ready!(self.poll_farewell(cx))?;
        }
        let written = ready!(Pin::new(&mut self.conn).poll_write_vectored(cx, bufs))?;
        self.sent(bufs.iter().map(|buf| &**buf), written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.is_write_vectored()
    }
}

fn goaway(newest: u32, why: &[u8]) -> Vec<u8> {
    let frame = Frame { len: 8 + why.len(), kind: GOAWAY, flags: 0, stream: 0 };
    [&frame.head(), &newest.to_be_bytes()[..], &ENHANCE_YOUR_CALM.to_be_bytes(), why].concat()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::frames::{DATA, END_STREAM, PREFACE};
    use super::*;
    use crate::env::clocks::Ahead;
    use crate::env::places::Places;

    async fn wire() -> (Wire, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let place = Places::new(8).enter(None).await.expect("there is one");
        let standing = place.standing().clone();
        let near = Outlet::new(Box::new(near));
        let wire = Wire::new(near, Ahead::hurried(), standing, Duration::from_secs(5));
        (wire, far)
    }

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let frame = Frame { len: payload.len(), kind, flags, stream };
        [&frame.head()[..], payload].concat()
    }

    #[test]
    fn the_farewell_is_a_frame() {
        let bytes = goaway(7, b"too_many_pings");
        let mut kinds = Vec::new();
        let mut frames = Frames::BETWEEN;
        frames.follow(&bytes, |frame| kinds.push((frame.kind, frame.stream)));
        assert_eq!(kinds, [(GOAWAY, 0)]);
        assert!(frames.is_between());
        assert!(bytes.ends_with(b"\0\0\0\x07\0\0\0\x0btoo_many_pings"));
    }

    #[tokio::test]
    async fn half_a_preface_is_not_waited_for() {
        for sent in [&b""[..], &PREFACE[..7]] {
            let (mut wire, mut far) = wire().await;
            far.write_all(sent).await.expect("there is room");
            let mut got = Vec::new();
            let error = wire.read_to_end(&mut got).await.expect_err("nothing more comes");
            assert_eq!((error.kind(), &got[..]), (io::ErrorKind::TimedOut, sent));
        }
    }

    #[tokio::test]
    async fn a_client_that_has_begun_may_be_silent() {
        for sent in [PREFACE, b"GET /health HTTP/1.1\r\n"] {
            let (mut wire, mut far) = wire().await;
            far.write_all(sent).await.expect("there is room");
            let mut got = vec![0; sent.len()];
            wire.read_exact(&mut got).await.expect("it was sent");
            let env = Ahead::hurried();
            let day = Duration::from_secs(24 * 3600);
            assert!(env.timeout(day, wire.read_u8()).await.is_err(), "it is still open");
        }
    }

    #[tokio::test]
    async fn a_burst_of_small_messages_comes_as_few_frames() {
        let (mut wire, mut far) = wire().await;
        let message = frame(DATA, 0, 1, &[7; 17]);
        let bytes = [PREFACE, &frame(HEADERS, 4, 1, b"block"), &message.repeat(6_000)].concat();
        far.write_all(&[&bytes[..], &frame(DATA, END_STREAM, 1, b"end")].concat())
            .await
            .expect("there is room");
        drop(far);
        let mut got = Vec::new();
        wire.read_to_end(&mut got).await.expect("all of it");
        let (mut frames, mut count, mut payload) = (Frames::Preface(0), 0, 0);
        frames.follow(&got, |frame| {
            count += 1;
            payload += if frame.kind == DATA { frame.len } else { 0 };
        });
        assert_eq!(payload, 6_000 * 17 + 3);
        assert!(count < 200, "{count} frames");
    }

    #[tokio::test]
    async fn what_a_client_brings_at_once_is_read_in_turns() {
        let calls = (0..2_000u32).flat_map(|n| frame(HEADERS, 5, 2 * n + 1, b"b"));
        for bytes in [[PREFACE, &calls.collect::<Vec<_>>()].concat(), vec![b' '; 500 << 10]] {
            let (mut wire, mut far) = wire().await;
            wire.streams.make_known();
            far.write_all(&bytes).await.expect("there is room");
            let (mut got, mut turns) = (0, 0);
            let mut space = vec![0; 1 << 10];
            // Without the runtime's own count of reads.
            tokio::task::unconstrained(async {
                while got < bytes.len() {
                    match futures::poll!(Box::pin(wire.read(&mut space))) {
                        Poll::Ready(read) => got += read.expect("it was sent"),
                        Poll::Pending => turns += 1,
                    }
                }
            })
            .await;
            assert!((5..=20).contains(&turns), "{turns} turns");
        }
    }

    #[tokio::test]
    async fn a_crowd_of_streams_grows_in_small_steps() {
        let (mut wire, mut far) = wire().await;
        wire.streams.make_known();
        let calls = |from: u32, count: u32| -> Vec<u8> {
            let calls = (from..from + count).map(|n| 2 * n + 1);
            calls.flat_map(|stream| frame(HEADERS, 4, stream, &[b'b'; 100])).collect()
        };
        let crowd = CROWD_STREAMS as u32 + 1;
        let (first, more) = (calls(0, crowd), calls(crowd, 200));
        let data = frame(DATA, 0, 1, &[7; 16_000]).repeat(8);
        far.write_all(&[PREFACE, &first, &more, &data].concat()).await.expect("there is room");
        // What is read in each turn.
        let (mut got, mut turns, mut space) = (0, vec![0], vec![0; 16 << 10]);
        let all = PREFACE.len() + first.len() + more.len() + data.len();
        tokio::task::unconstrained(async {
            while got < all {
                match futures::poll!(Box::pin(wire.read(&mut space))) {
                    Poll::Ready(read) => {
                        let read = read.expect("it was sent");
                        got += read;
                        *turns.last_mut().expect("one") += read;
                    }
                    Poll::Pending => turns.push(0),
                }
            }
        })
        .await;
        // About ten streams each, and then the same share as other connections.
        let small = turns.iter().filter(|read| **read == CROWD_READ_BYTES).count();
        assert!((10..=25).contains(&small), "{turns:?}");
        assert!(turns.len() <= small + 25, "{turns:?}");
    }

    #[tokio::test]
    async fn no_client_opens_streams_without_end() {
        let (mut wire, mut far) = wire().await;
        wire.streams.make_known();
        let calls = (0..CONNECTION_STREAMS_MAX as u32 + 1).map(|n| 2 * n + 1);
        let calls = calls.flat_map(|stream| frame(HEADERS, 4, stream, b"b"));
        let bytes = [PREFACE, &calls.collect::<Vec<_>>()].concat();
        far.write_all(&bytes).await.expect("there is room");
        let mut got = vec![0; bytes.len() - 10];
        wire.read_exact(&mut got).await.expect("so many may be open");
        let error = wire.read_to_end(&mut got).await.expect_err("one too many");
        assert_eq!(error.to_string(), "the client has too many open streams");
    }

    #[tokio::test]
    async fn a_stranger_with_too_many_streams_is_sent_away() {
        let (mut wire, mut far) = wire().await;
        far.write_all(PREFACE).await.expect("there is room");
        let calls = (0..crate::limits::STRANGER_STREAMS_MAX as u32 + 1).map(|n| 2 * n + 1);
        let calls: Vec<u8> = calls.flat_map(|stream| frame(HEADERS, 4, stream, b"b")).collect();
        far.write_all(&calls).await.expect("there is room");
        let error = wire.read_to_end(&mut Vec::new()).await.expect_err("one too many");
        assert_eq!(error.to_string(), "the client has too many open streams");
        drop(wire);
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).await.expect("a farewell");
        assert!(answer.ends_with(b"too_many_streams"));
    }
}
