//! Clients that ping too often are disconnected, by etcd's measure and with gRPC's words: GOAWAY with
//! ENHANCE_YOUR_CALM and `too_many_pings` (gRPC proposal A8, as grpc-go implements it). The HTTP/2 library
//! answers pings without reporting them, so the frames are counted as they pass.
//!
//! A ping is a strike when it comes sooner than `time_min` after the one before, or than two
//! hours when the client has no call open. What the server sends for a call in between clears the
//! strikes: libraries ping to measure bandwidth. Two strikes are forgiven.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::frames::{ACK, DATA, END_STREAM, Frame, HEADERS, PING, RST_STREAM};
use crate::plant;

/// Between two pings of a client without a call.
const IDLE_TIME_MIN: Duration = Duration::from_secs(2 * 3600);
const STRIKES_MAX: u32 = 2;

/// The calls and pings of one client.
pub(super) struct PingLimit {
    time_min: Duration,
    /// Calls that the server has not ended.
    open: BTreeSet<u32>,
    /// The newest call's stream.
    pub newest: u32,
    last_ping: Option<Instant>,
    strikes: u32,
    /// The server has sent something for a call since the last ping.
    forgiven: bool,
}

impl PingLimit {
    pub fn new(time_min: Duration) -> Self {
        let open = BTreeSet::new();
        Self { time_min, open, newest: 0, last_ping: None, strikes: 0, forgiven: false }
    }

    /// The number of open calls.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Follows a frame of the client; returns whether it is one ping too many.
    pub fn received(&mut self, frame: Frame, now: impl FnOnce() -> Instant) -> bool {
        match frame.kind {
            // A client's trailers arrive on a stream that is open already.
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

    pub fn sent(&mut self, frame: Frame) {
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

#[cfg(test)]
mod tests {
    use super::super::frames::{Frames, PREFACE};
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let frame = Frame { len: payload.len(), kind, flags, stream };
        [&frame.head()[..], payload].concat()
    }

    fn ping() -> Vec<u8> {
        frame(PING, 0, 0, &[7; 8])
    }

    fn call(stream: u32) -> Vec<u8> {
        frame(HEADERS, 4, stream, b"block")
    }

    /// Both directions of a connection, and a clock.
    struct World {
        incoming: Frames,
        outgoing: Frames,
        ping_limit: PingLimit,
        now: Instant,
        chunk: usize,
    }

    impl World {
        #[allow(clippy::disallowed_methods, reason = "any moment will do")]
        fn new(chunk: usize) -> Self {
            let (incoming, outgoing) = (Frames::Preface(0), Frames::BETWEEN);
            let ping_limit = PingLimit::new(Duration::from_secs(5));
            let mut world = Self { incoming, outgoing, ping_limit, now: Instant::now(), chunk };
            world.client(PREFACE);
            world
        }

        fn client(&mut self, bytes: &[u8]) -> bool {
            let (ping_limit, now) = (&mut self.ping_limit, self.now);
            let mut too_many = false;
            for bytes in bytes.chunks(self.chunk) {
                self.incoming.follow(bytes, |frame| too_many |= ping_limit.received(frame, || now));
            }
            too_many
        }

        fn server(&mut self, bytes: &[u8]) {
            for bytes in bytes.chunks(self.chunk) {
                let ping_limit = &mut self.ping_limit;
                self.outgoing.follow(bytes, |frame| ping_limit.sent(frame));
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
        assert_eq!(world.ping_limit.open.len(), 3);
        world.server(&frame(HEADERS, END_STREAM, 1, b"trailers"));
        world.server(&frame(RST_STREAM, 0, 3, &[0; 4]));
        world.client(&frame(RST_STREAM, 0, 5, &[0; 4]));
        assert!(world.ping_limit.open.is_empty());
        assert_eq!(world.ping_limit.newest, 5);
        world.client(&frame(PING, ACK, 0, &[7; 8]));
        assert!(world.ping_limit.last_ping.is_none(), "an answer is no ping");
    }
}
