//! Requests that have begun and not arrived: streams without a message, parts of messages, unfinished
//! bodies. A client needs no permission to begin one, so what all of them may hold is bounded in bytes,
//! and when there is no room the oldest one is ended. A request that arrives at once is not counted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::env::{BoxFuture, Env};
use crate::grpc::body::Boundaries;
use crate::limits::{ARRIVING_STREAM_BYTES, BODY_STALL, JSON_KEPT_FACTOR};
use crate::plant;

/// The requests of a server that have begun and not arrived; clones share them.
#[derive(Clone)]
pub(super) struct Arrivals {
    env: Env,
    state: Arc<Mutex<State>>,
}

struct State {
    next: u64,
    bytes: usize,
    bytes_max: usize,
    waiting: BTreeMap<u64, Waiting>,
}

struct Waiting {
    bytes: usize,
    end: Arc<End>,
}

/// Ends a request from elsewhere.
#[derive(Default)]
struct End {
    ended: AtomicBool,
    waker: AtomicWaker,
}

/// How the body of a request is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One gRPC message after the other.
    Grpc,
    /// A body as a whole, up to its end.
    Whole,
    /// Any number of JSON objects, one after the other.
    Pieces,
}

impl Arrivals {
    /// `bytes_max` bounds all requests together.
    pub fn new(env: &Env, bytes_max: usize) -> Self {
        let state = State { next: 0, bytes: 0, bytes_max, waiting: BTreeMap::new() };
        Self { env: env.clone(), state: Arc::new(Mutex::new(state)) }
    }

    /// The body of a request with so many bytes of `metadata`. A request of a `stranger` counts until it
    /// ends, whatever has arrived.
    pub fn watch<B>(&self, body: B, metadata: usize, kind: Kind, stranger: bool) -> Arriving<B> {
        let base = ARRIVING_STREAM_BYTES + metadata;
        let boundaries = Boundaries::default();
        let objects = Objects::default();
        let arrivals = self.clone();
        Arriving {
            body,
            arrivals,
            kind,
            stranger,
            base,
            boundaries,
            objects,
            arrived: false,
            entry: None,
            stall: None,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts so many bytes until the result is dropped.
    pub fn enter(&self, bytes: usize) -> Entry {
        let end = Arc::<End>::default();
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.bytes += bytes;
        state.waiting.insert(number, Waiting { bytes, end: end.clone() });
        state.make_room();
        Entry { arrivals: self.clone(), number, end }
    }
}

impl State {
    fn make_room(&mut self) {
        while self.bytes > self.bytes_max && !plant::ARRIVALS_UNBOUNDED.is_planted() {
            let Some((_, oldest)) = self.waiting.pop_first() else { return };
            self.bytes -= oldest.bytes;
            oldest.end.ended.store(true, Ordering::Release);
            oldest.end.waker.wake();
        }
    }
}

/// A request that has not arrived, while this is held.
pub(super) struct Entry {
    arrivals: Arrivals,
    number: u64,
    end: Arc<End>,
}

impl Entry {
    /// It holds so many bytes more.
    pub fn grow(&self, bytes: usize) {
        let mut state = self.arrivals.state();
        let Some(waiting) = state.waiting.get_mut(&self.number) else { return };
        waiting.bytes += bytes;
        state.bytes += bytes;
        state.make_room();
    }

    /// Whether it must end, because there is no room; if not, `cx` is woken when it must.
    pub fn poll_ended(&self, cx: &Context<'_>) -> bool {
        self.end.waker.register(cx.waker());
        self.has_ended()
    }

    fn has_ended(&self) -> bool {
        self.end.ended.load(Ordering::Acquire)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.arrivals.state();
        if let Some(waiting) = state.waiting.remove(&self.number) {
            state.bytes -= waiting.bytes;
        }
    }
}

/// The position in a JSON object. Malformed JSON need not be recognized here: it ends the call.
#[derive(Default)]
struct Objects {
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Objects {
    /// Whether an object is whole at the end of `data`.
    fn follow(&mut self, data: &[u8]) -> bool {
        for byte in data {
            match byte {
                _ if std::mem::take(&mut self.escaped) => {}
                b'\\' if self.in_text => self.escaped = true,
                b'"' => self.in_text = !self.in_text,
                _ if self.in_text => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
        self.depth == 0 && !self.in_text
    }
}

/// A request's body that is watched while it arrives.
pub(super) struct Arriving<B> {
    body: B,
    arrivals: Arrivals,
    kind: Kind,
    stranger: bool,
    /// What the request takes before anything of its body has come.
    base: usize,
    boundaries: Boundaries,
    objects: Objects,
    /// Nothing begun is unfinished.
    arrived: bool,
    entry: Option<Entry>,
    /// The instant at which a body without further bytes fails.
    stall: Option<BoxFuture<'static, ()>>,
}

impl<B> Arriving<B> {
    /// No part of the request is available now.
    fn waits(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.entry.is_none() && (!self.arrived || self.stranger) {
            self.entry = Some(self.arrivals.enter(self.base));
        }
        if let Some(entry) = &self.entry
            && entry.poll_ended(cx)
        {
            return Poll::Ready(Some(Err(ended())));
        }
        if self.kind == Kind::Whole {
            let env = &self.arrivals.env;
            let stall = self.stall.get_or_insert_with(|| env.sleep(BODY_STALL));
            if stall.as_mut().poll(cx).is_ready() {
                let why = "the rest of the request's body does not arrive";
                return Poll::Ready(Some(Err(Status::deadline_exceeded(why))));
            }
        }
        Poll::Pending
    }

    fn received(&mut self, data: &[u8]) -> Result<(), Status> {
        self.stall = None;
        let bytes = match self.kind {
            Kind::Grpc => data.len(),
            Kind::Whole | Kind::Pieces => JSON_KEPT_FACTOR * data.len(),
        };
        self.arrived = match self.kind {
            Kind::Grpc => {
                let Ok(()) = self.boundaries.follow(data, |_, _| Ok::<_, Infallible>(()));
                self.boundaries.is_between()
            }
            Kind::Whole => false,
            Kind::Pieces => self.objects.follow(data),
        };
        let Some(entry) = &self.entry else {
            if !self.arrived {
                self.entry = Some(self.arrivals.enter(self.base + bytes));
            }
            return Ok(());
        };
        if entry.has_ended() {
            return Err(ended());
        }
        if !self.arrived {
            entry.grow(bytes);
        } else if !self.stranger {
            self.entry = None;
        }
        Ok(())
    }
}

/// With etcd's text for more than it takes.
fn ended() -> Status {
    Status::resource_exhausted("etcdserver: too many requests")
}

impl<B> Body for Arriving<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        Poll::Ready(match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Pending => return this.waits(cx),
            Poll::Ready(None) => {
                this.entry = None;
                None
            }
            Poll::Ready(Some(Err(error))) => Some(Err(Status::from_error(error.into()))),
            Poll::Ready(Some(Ok(frame))) => {
                // A body that ends here has arrived.
                let whole = this.kind == Kind::Whole && this.body.is_end_stream();
                let data = frame.data_ref().filter(|_| !whole);
                let received = data.map_or(Ok(()), |data| this.received(data));
                Some(received.map(|()| frame))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::mpsc;
    use futures::{StreamExt as _, poll};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::env::clocks::Ahead;
    use crate::limits::ARRIVING_BYTES_MAX;

    type Sender = mpsc::UnboundedSender<Result<Frame<Bytes>, std::io::Error>>;

    struct World(Arrivals);

    impl World {
        fn new() -> Self {
            Self(Arrivals::new(&Ahead::hurried(), ARRIVING_BYTES_MAX))
        }

        fn begin(&self, kind: Kind, stranger: bool) -> (Sender, impl Body<Data = Bytes> + Unpin) {
            let (sender, receiver) = mpsc::unbounded();
            let body = StreamBody::new(receiver.boxed());
            (sender, self.0.watch(body, 0, kind, stranger))
        }

        fn count(&self) -> usize {
            self.0.state().waiting.len()
        }
    }

    fn send(sender: &Sender, data: &[u8]) {
        let frame = Frame::data(Bytes::copy_from_slice(data));
        sender.unbounded_send(Ok(frame)).expect("the body is there");
    }

    /// What came and what was wrong.
    async fn next(body: &mut (impl Body<Data = Bytes> + Unpin)) -> Option<usize> {
        let frame = body.frame().await?.ok()?;
        Some(frame.into_data().expect("data").len())
    }

    #[tokio::test]
    async fn what_arrives_at_once_is_not_counted() {
        let world = World::new();
        let (sender, mut body) = world.begin(Kind::Grpc, false);
        send(&sender, b"\0\0\0\0\x03abc");
        assert_eq!(next(&mut body).await, Some(8));
        assert!(poll!(Box::pin(body.frame())).is_pending());
        assert_eq!(world.count(), 0, "a stream between two messages");
        send(&sender, b"\0\0\0\0\x03a");
        next(&mut body).await;
        assert_eq!(world.count(), 1, "part of a message");
        send(&sender, b"bc");
        next(&mut body).await;
        assert_eq!(world.count(), 0);
    }

    #[tokio::test]
    async fn the_oldest_silent_streams_end_when_there_are_too_many() {
        let world = World::new();
        let most = ARRIVING_BYTES_MAX / ARRIVING_STREAM_BYTES;
        let mut streams = Vec::new();
        for _ in 0..most + 3 {
            let (sender, mut body) = world.begin(Kind::Grpc, false);
            assert!(poll!(Box::pin(body.frame())).is_pending());
            streams.push((sender, body));
        }
        assert_eq!(world.count(), most);
        for (_, body) in &mut streams[..3] {
            assert!(body.frame().await.expect("an error").is_err(), "the oldest");
        }
        let (sender, body) = &mut streams[3];
        send(sender, b"\0\0\0\0\0");
        assert_eq!(next(body).await, Some(5));
        assert_eq!(world.count(), most - 1);
        drop(streams);
        assert_eq!((world.count(), world.0.state().bytes), (0, 0));
    }

    #[tokio::test]
    async fn parts_of_messages_are_bounded_in_bytes() {
        let world = World::new();
        let piece = vec![0xff; 1 << 20];
        let mut streams = Vec::new();
        for _ in 0..ARRIVING_BYTES_MAX / piece.len() + 1 {
            let (sender, mut body) = world.begin(Kind::Grpc, false);
            send(&sender, &piece);
            next(&mut body).await;
            streams.push((sender, body));
        }
        assert!(world.0.state().bytes <= ARRIVING_BYTES_MAX);
        let (sender, body) = &mut streams[0];
        send(sender, b"more");
        assert!(body.frame().await.expect("an error").is_err());
    }

    #[tokio::test]
    async fn unfinished_objects_of_a_stream_count() {
        let world = World::new();
        let (sender, mut body) = world.begin(Kind::Pieces, false);
        send(&sender, br#" {"a":"\"}", "b":[{}]} "#);
        next(&mut body).await;
        assert_eq!(world.count(), 0, "between two objects");
        send(&sender, br#"{"a":[{"b":"\\}]}"#);
        next(&mut body).await;
        assert_eq!(world.count(), 1, "within a text");
        send(&sender, br#""}]}"#);
        next(&mut body).await;
        assert_eq!(world.count(), 0);
    }

    #[tokio::test]
    async fn streams_of_strangers_count_until_they_end() {
        let world = World::new();
        let (sender, mut body) = world.begin(Kind::Grpc, true);
        send(&sender, b"\0\0\0\0\0");
        next(&mut body).await;
        assert!(poll!(Box::pin(body.frame())).is_pending());
        assert_eq!(world.count(), 1);
        drop(sender);
        assert!(body.frame().await.is_none());
        assert_eq!(world.count(), 0);
    }

    #[tokio::test]
    async fn half_a_body_is_not_waited_for() {
        let world = World::new();
        let (sender, mut body) = world.begin(Kind::Whole, false);
        send(&sender, b"{\"key\":");
        assert_eq!(next(&mut body).await, Some(7));
        let late = body.frame().await.expect("an error");
        assert!(late.is_err());
        let (_sender, mut pieces) = world.begin(Kind::Pieces, false);
        let env = Ahead::hurried();
        assert!(env.timeout(100 * BODY_STALL, pieces.frame()).await.is_err(), "still open");
    }
}
