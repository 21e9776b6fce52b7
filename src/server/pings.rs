//! Clients that ping too often are sent away, with etcd's measure and gRPC's words: GOAWAY with
//! ENHANCE_YOUR_CALM and `too_many_pings` (gRPC proposal A8, as grpc-go carries it out). Our HTTP/2 library
//! answers pings by itself and tells nobody, so the frames are watched as they pass; nothing is changed
//! in them.
//!
//! A ping is a strike when it comes sooner than `time_min` after the one before, or than two
//! hours when the client has no call open. What the server sends for a call in between clears the
//! strikes: libraries ping to measure bandwidth. Two strikes are forgiven.

use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use super::authority::PREFACE;
use crate::env::{BoxConn, Env};
use crate::plant;

const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const ENHANCE_YOUR_CALM: u32 = 0xb;
const WHY: &[u8] = b"too_many_pings";

/// Between two pings of a client without a call.
const IDLE_TIME_MIN: Duration = Duration::from_secs(2 * 3600);
const STRIKES_MAX: u32 = 2;

/// A connection whose client's pings are counted.
pub(super) struct Policed {
    conn: BoxConn,
    env: Env,
    police: Police,
    incoming: Frames,
    outgoing: Frames,
    /// What is still to be said before the connection ends.
    farewell: Option<Vec<u8>>,
}

impl Policed {
    pub fn new(conn: BoxConn, env: Env, time_min: Duration) -> Self {
        let (incoming, outgoing) = (Frames::Preface(0), Frames::BETWEEN);
        Self { conn, env, police: Police::new(time_min), incoming, outgoing, farewell: None }
    }

    fn received(&mut self, bytes: &[u8]) {
        let (env, police) = (&self.env, &mut self.police);
        let mut too_many = false;
        self.incoming.follow(bytes, |frame| too_many |= police.received(frame, || env.now()));
        if too_many && self.farewell.is_none() {
            debug!("a client pings too often and is sent away");
            self.farewell = Some(goaway(self.police.newest));
        }
    }

    /// Notes so many bytes of what was offered for writing.
    fn sent<'a>(&mut self, bufs: impl Iterator<Item = &'a [u8]>, mut count: usize) {
        // What does not speak HTTP/2 has no frames.
        if matches!(self.incoming, Frames::None) {
            return;
        }
        for buf in bufs {
            let part = &buf[..buf.len().min(count)];
            let police = &mut self.police;
            self.outgoing.follow(part, |frame| police.sent(frame));
            count -= part.len();
        }
    }

    /// Says why and closes; between two frames only, for within one it would not be understood.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.outgoing.is_between() {
            while let Some(bytes) = self.farewell.as_mut().filter(|bytes| !bytes.is_empty()) {
                let written = ready!(Pin::new(&mut self.conn).poll_write(cx, bytes))?;
                bytes.drain(..written);
            }
            ready!(Pin::new(&mut self.conn).poll_flush(cx))?;
            ready!(Pin::new(&mut self.conn).poll_shutdown(cx))?;
        }
        Poll::Ready(Err(io::Error::other("got too many pings from the client")))
    }
}

impl AsyncRead for Policed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            let before = buf.filled().len();
            ready!(Pin::new(&mut self.conn).poll_read(cx, buf))?;
            self.received(&buf.filled()[before..]);
        }
        match self.farewell {
            None => Poll::Ready(Ok(())),
            Some(_) => self.poll_farewell(cx),
        }
    }
}

impl AsyncWrite for Policed {
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

/// A frame's head, as far as it matters here.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
}

/// Where in one direction of the connection the next byte is.
pub(super) enum Frames {
    /// So many bytes of the client's preface have been seen.
    Preface(usize),
    /// So many bytes of a frame's head.
    Head([u8; HEAD_BYTES], usize),
    /// So many bytes of a frame are still to come.
    Skip(usize),
    /// This is not HTTP/2.
    None,
}

impl Frames {
    const BETWEEN: Self = Self::Head([0; HEAD_BYTES], 0);

    fn is_between(&self) -> bool {
        matches!(self, Self::Head(_, 0))
    }

    /// Tells of each frame whose head ends in `bytes`.
    pub fn follow(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let used = match self {
                Self::None => return,
                Self::Preface(seen) => {
                    let used = bytes.len().min(PREFACE.len() - *seen);
                    let fits = bytes[..used] == PREFACE[*seen..*seen + used];
                    *seen += used;
                    match (fits, *seen == PREFACE.len()) {
                        (false, _) => *self = Self::None,
                        (true, true) => *self = Self::BETWEEN,
                        (true, false) => {}
                    }
                    used
                }
                Self::Head(head, seen) => {
                    let used = bytes.len().min(HEAD_BYTES - *seen);
                    head[*seen..*seen + used].copy_from_slice(&bytes[..used]);
                    *seen += used;
                    if *seen == HEAD_BYTES {
                        let [a, b, c, kind, flags, stream @ ..] = *head;
                        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
                        each(Frame { kind, flags, stream });
                        *self = match u32::from_be_bytes([0, a, b, c]) as usize {
                            0 => Self::BETWEEN,
                            length => Self::Skip(length),
                        };
                    }
                    used
                }
                Self::Skip(left) => {
                    let used = bytes.len().min(*left);
                    *left -= used;
                    if *left == 0 {
                        *self = Self::BETWEEN;
                    }
                    used
                }
            };
            bytes = &bytes[used..];
        }
    }
}

/// What is known of one client.
struct Police {
    time_min: Duration,
    /// Calls that the server has not ended.
    open: BTreeSet<u32>,
    /// The newest call's stream.
    newest: u32,
    last_ping: Option<Instant>,
    strikes: u32,
    /// The server has sent something for a call since the last ping.
    forgiven: bool,
}

impl Police {
    fn new(time_min: Duration) -> Self {
        let open = BTreeSet::new();
        Self { time_min, open, newest: 0, last_ping: None, strikes: 0, forgiven: false }
    }

    /// Whether this is one ping too many.
    fn received(&mut self, frame: Frame, now: impl FnOnce() -> Instant) -> bool {
        match frame.kind {
            // Trailers of a client come on a stream that is open already.
            HEADERS if frame.stream > self.newest => {
                self.newest = frame.stream;
                self.open.insert(frame.stream);
            }
            RST_STREAM => drop(self.open.remove(&frame.stream)),
            PING if frame.flags & ACK == 0 => return self.pinged(now()),
            _ => {}
        }
        false
    }

    fn sent(&mut self, frame: Frame) {
        if matches!(frame.kind, DATA | HEADERS) {
            self.forgiven = true;
            if frame.flags & END_STREAM != 0 {
                self.open.remove(&frame.stream);
            }
        } else if frame.kind == RST_STREAM {
            self.open.remove(&frame.stream);
        }
    }

    fn pinged(&mut self, now: Instant) -> bool {
        let last = self.last_ping.replace(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return false;
        }
        let least = if self.open.is_empty() { IDLE_TIME_MIN } else { self.time_min };
        if last.is_some_and(|last| now < last + least) {
            self.strikes += 1;
        }
        self.strikes > STRIKES_MAX && !plant::PINGS_UNCOUNTED.is_planted()
    }
}

fn goaway(newest: u32) -> Vec<u8> {
    let length = u8::try_from(8 + WHY.len()).expect("a few words");
    let head = [0, 0, length, GOAWAY, 0, 0, 0, 0, 0];
    [&head, &newest.to_be_bytes()[..], &ENHANCE_YOUR_CALM.to_be_bytes(), WHY].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
    }

    fn ping() -> Vec<u8> {
        frame(PING, 0, 0, &[7; 8])
    }

    fn call(stream: u8) -> Vec<u8> {
        frame(HEADERS, 4, stream, b"block")
    }

    /// Both directions of a connection, and a clock.
    struct World {
        incoming: Frames,
        outgoing: Frames,
        police: Police,
        now: Instant,
        chunk: usize,
    }

    impl World {
        #[allow(clippy::disallowed_methods, reason = "any moment will do")]
        fn new(chunk: usize) -> Self {
            let (incoming, outgoing) = (Frames::Preface(0), Frames::BETWEEN);
            let police = Police::new(Duration::from_secs(5));
            let mut world = Self { incoming, outgoing, police, now: Instant::now(), chunk };
            world.client(PREFACE);
            world
        }

        fn client(&mut self, bytes: &[u8]) -> bool {
            let (police, now) = (&mut self.police, self.now);
            let mut too_many = false;
            for bytes in bytes.chunks(self.chunk) {
                self.incoming.follow(bytes, |frame| too_many |= police.received(frame, || now));
            }
            too_many
        }

        fn server(&mut self, bytes: &[u8]) {
            for bytes in bytes.chunks(self.chunk) {
                let police = &mut self.police;
                self.outgoing.follow(bytes, |frame| police.sent(frame));
            }
        }

        fn pings(&mut self, count: usize, every: Duration) -> usize {
            (0..count)
                .take_while(|_| {
                    self.now += every;
                    !self.client(&ping())
                })
                .count()
        }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_fourth_ping_in_a_row_is_too_many() {
        for chunk in [1, 4, 1000] {
            let mut world = World::new(chunk);
            world.client(&call(1));
            assert_eq!(world.pings(10, 4 * SECOND), 3);
            let mut world = World::new(chunk);
            world.client(&call(1));
            assert_eq!(world.pings(100, 5 * SECOND), 100, "this is slow enough");
            let mut world = World::new(chunk);
            assert_eq!(world.pings(10, 3600 * SECOND), 3, "there is no call to ping for");
        }
    }

    #[test]
    fn answers_clear_the_strikes() {
        let mut world = World::new(3);
        world.client(&call(1));
        for _ in 0..10 {
            assert_eq!(world.pings(2, SECOND), 2);
            world.server(&frame(DATA, 0, 1, b"event"));
        }
        // Pings are answered, which clears nothing.
        world.server(&frame(PING, ACK, 0, &[7; 8]));
        assert_eq!(world.pings(10, SECOND), 3);
    }

    #[test]
    fn calls_end_with_their_streams() {
        let mut world = World::new(1000);
        world.client(&[call(1), call(3), call(5), call(5)].concat());
        assert_eq!(world.police.open.len(), 3);
        world.server(&frame(HEADERS, END_STREAM, 1, b"trailers"));
        world.server(&frame(RST_STREAM, 0, 3, &[0; 4]));
        world.client(&frame(RST_STREAM, 0, 5, &[0; 4]));
        assert!(world.police.open.is_empty());
        assert_eq!(world.police.newest, 5);
        world.client(&frame(PING, ACK, 0, &[7; 8]));
        assert!(world.police.last_ping.is_none(), "an answer is no ping");
    }

    #[test]
    fn what_is_not_http_2_is_left_alone() {
        let mut world = World::new(5);
        world.incoming = Frames::Preface(0);
        world.client(b"GET /health HTTP/1.1\r\n\r\n");
        assert!(matches!(world.incoming, Frames::None));
    }

    #[test]
    fn the_farewell_is_a_frame() {
        let bytes = goaway(7);
        let mut kinds = Vec::new();
        let mut frames = Frames::BETWEEN;
        frames.follow(&bytes, |frame| kinds.push((frame.kind, frame.stream)));
        assert_eq!(kinds, [(GOAWAY, 0)]);
        assert!(frames.is_between());
        assert!(bytes.ends_with(b"\0\0\0\x07\0\0\0\x0btoo_many_pings"));
    }
}
