//! One client stream with its watchers: takes requests, keeps every watcher moving, sends responses.
//! The rules of etcd's Watch RPC are here, in [`requests`](super::requests) and in
//! [`catchup`](super::catchup); the stream itself, authentication and deadlines are the edge's.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::Stream;
use futures::StreamExt;
use quorate_proto::etcdserverpb::{WatchCreateRequest, WatchRequest};
use quorate_proto::otlp::common::v1::KeyValue;
use tokio::sync::{Semaphore, mpsc};

use super::Bounds;
use super::catchup::Reading;
use super::counters::Counters;
use super::history::History;
use super::hub::{HubHandle, Join};
use super::link::{Delivery, Link, Slot, Stopped, ToSession};
use super::outbox::{HeaderSource, Outbox};
use super::record::Response;
use super::watchers::{State, Watchers};
use crate::env::Env;
use crate::error::{Error, Unavailable};
use crate::latest;
use crate::limits;
use crate::plant;
use crate::trace;
use crate::types::Revision;

/// Decides whether the client may watch `(key, range_end)`, given as they are watched: in etcd's
/// convention, with an empty key and a zero byte as end already understood. Refuses with the text
/// that the client gets as the reason.
pub type Allow = Arc<dyn Fn(&[u8], &[u8]) -> Result<(), String> + Send + Sync>;

/// What a session needs to know beside its streams.
#[derive(Clone)]
pub struct Options {
    pub header: HeaderSource,
    /// `None`: every client may watch everything.
    pub allow: Option<Allow>,
    /// Time between progress notifications, before up to a tenth of it is added by chance.
    pub progress_interval: Duration,
    /// Size of a message, bytes, from which on it is split for watchers that allow it.
    pub fragment_bytes: usize,
    /// `None`: the stream is not traced.
    pub span: Option<Traced>,
}

/// The span of a stream, in which each of its watchers has one, and the attributes of a watcher.
#[derive(Clone)]
pub struct Traced {
    pub span: trace::Span,
    pub attributes: fn(&WatchCreateRequest) -> Vec<KeyValue>,
}

impl Traced {
    pub(super) fn watcher(&self, request: &WatchCreateRequest) -> trace::Span {
        self.span.within("watch", (self.attributes)(request))
    }
}

impl Options {
    /// etcd's defaults.
    pub fn new(header: HeaderSource) -> Self {
        Self {
            header,
            allow: None,
            progress_interval: limits::WATCH_PROGRESS_INTERVAL,
            fragment_bytes: limits::REQUEST_BYTES_MAX + limits::GRPC_OVERHEAD_BYTES,
            span: None,
        }
    }
}

/// Serves one stream until its responses are not taken any more. The end of `requests` is a client
/// that sends no more requests: its watchers go on.
pub async fn run(
    env: Env,
    hub: HubHandle,
    history: Arc<dyn History>,
    mut requests: impl Stream<Item = WatchRequest> + Send + Unpin,
    responses: mpsc::Sender<Result<Response, Error>>,
    options: Options,
) {
    let _open = OpenStream::new(hub.counters().clone());
    let serving = async {
        let mut over = pin!(async {
            tokio::select! {
                biased; // As below: a stream without a reader ends before anything else.
                () = responses.closed() => Ok(()),
                () = hub.stopped() => Err(Stopped),
            }
        });
        // A stream that is silent has no session: of these there may be many.
        let first = tokio::select! {
            biased; // The same.
            ended = &mut over => return ended,
            first = requests.next() => first,
        };
        // Without a request nothing is watched, now or later.
        let Some(first) = first else { return over.await };
        Session::new(env, &hub, history, options).run(first, requests, &responses).await
    };
    if let Err(Stopped) = serving.await {
        // There may be no room and no reader: the stream ends all the same.
        let _ = responses.try_send(Err(Unavailable::Stopped.into()));
    }
}

/// Counts an open stream until it is dropped: a stream ends with its session's last response, or when
/// its task is abandoned at any point because the client is gone.
struct OpenStream(Arc<Counters>);

impl OpenStream {
    fn new(counters: Arc<Counters>) -> Self {
        counters.streams.add(1);
        Self(counters)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.streams.sub(1);
    }
}

/// Waits until another response may be sent: a place is free, and of the bytes bound something is left,
/// of which `sent` were used since the channel was last seen empty. Returns whether there is a receiver.
async fn room(responses: &mpsc::Sender<Result<Response, Error>>, sent: usize) -> bool {
    if sent < limits::WATCH_ANSWER_BYTES {
        responses.reserve().await.is_ok()
    } else {
        responses.reserve_many(responses.max_capacity()).await.is_ok()
    }
}

pub(super) struct Session {
    pub env: Env,
    pub link: Link,
    pub history: Arc<dyn History>,
    pub options: Options,
    pub watchers: Watchers,
    pub outbox: Outbox,
    /// Watchers that must read history, the one whose turn it is first.
    pub behind: VecDeque<Slot>,
    /// Watchers that wait for the next join.
    pub ready: Vec<Slot>,
    /// Watchers of the join that the hub has not answered.
    joining: Option<Vec<Slot>>,
    /// Places for reads, which all sessions share.
    pub readers: Arc<Semaphore>,
    pub reading: Reading,
    /// Live watchers have everything up to here in the outbox.
    settled: Revision,
    /// Bytes of events sent since the channel was last seen empty.
    sent_bytes: usize,
    /// The store's revision when the client requested the progress of all watchers.
    asked: Option<Revision>,
    /// Requests that were of no kind, and when that was last logged.
    pub invalid: u64,
    pub invalid_logged: Option<Instant>,
    /// Tells when the hub has moved on, for an answer that waits for it.
    reached: latest::Receiver<Revision>,
    interval: Duration,
    /// Shapes the indexes of catch-up steps.
    pub seed: u64,
    pub bounds: Bounds,
}

impl Session {
    fn new(env: Env, hub: &HubHandle, history: Arc<dyn History>, options: Options) -> Self {
        let (link, counters) = (hub.open(), hub.counters());
        let interval = options.progress_interval.max(limits::WATCH_PROGRESS_INTERVAL_MIN);
        // Streams that were opened together must not be notified together for ever.
        let jitter = env.random_u64() % (interval.as_nanos() as u64 / 10);
        Self {
            outbox: Outbox::new(
                options.header.clone(),
                options.fragment_bytes,
                hub.bounds(),
                counters.clone(),
            ),
            bounds: hub.bounds(),
            watchers: Watchers::new(counters.clone()),
            behind: VecDeque::new(),
            ready: Vec::new(),
            joining: None,
            readers: hub.readers(),
            reading: Reading::None,
            settled: Revision(0),
            sent_bytes: 0,
            asked: None,
            invalid: 0,
            invalid_logged: None,
            reached: link.watch_reached(),
            interval: interval + Duration::from_nanos(jitter),
            seed: env.random_u64(),
            env,
            link,
            history,
            options,
        }
    }

    async fn run(
        mut self,
        first: WatchRequest,
        mut requests: impl Stream<Item = WatchRequest> + Send + Unpin,
        responses: &mpsc::Sender<Result<Response, Error>>,
    ) -> Result<(), Stopped> {
        let mut half_closed = false;
        self.request(first);
        let mut tick = self.env.sleep(self.interval);
        let mut gone = pin!(responses.closed());
        loop {
            self.advance();
            let idle = self.outbox.is_empty();
            let listens = !half_closed && self.has_room();
            tokio::select! {
                // A stream without a reader ends before anything else. Then what is due goes out:
                // nothing new is taken in before, so that what waits here is bounded. Requests come
                // before events, so that a cancel is not late. A page of history comes before live
                // events: the next one takes a while, and they are served meanwhile.
                biased;
                () = &mut gone => return Ok(()),
                open = room(responses, self.sent_bytes), if !idle => {
                    if !open {
                        return Ok(());
                    }
                    self.send_ready(responses);
                }
                request = requests.next(), if listens => match request {
                    Some(request) => self.request(request),
                    None => half_closed = true,
                },
                result = self.reading.finish(idle) => self.step_finished(result)?,
                message = self.link.recv(), if idle => {
                    self.receive(message?);
                    self.drain(self.bounds.buffer_events);
                }
                () = &mut tick, if idle => {
                    self.notify_progress();
                    tick = self.env.sleep(self.interval);
                }
                moved = self.reached.changed(), if self.asked.is_some() => {
                    moved.map_err(|_| Stopped)?;
                }
            }
        }
    }

    /// Starts whatever can start.
    fn advance(&mut self) {
        // First, because a message of the hub may be that there is work to start.
        if self.has_room() {
            self.answer_progress();
        }
        self.start_step();
        if self.joining.is_none() && !self.ready.is_empty() {
            self.join();
        }
    }

    /// Whether more may be taken in beside what waits to be sent.
    fn has_room(&self) -> bool {
        self.outbox.len() < self.bounds.outbox_responses
    }

    /// Sends what fits without waiting.
    fn send_ready(&mut self, responses: &mpsc::Sender<Result<Response, Error>>) {
        if responses.capacity() == responses.max_capacity() {
            self.sent_bytes = 0;
        }
        while !self.outbox.is_empty() && self.sent_bytes < limits::WATCH_ANSWER_BYTES {
            let Ok(permit) = responses.try_reserve() else { return };
            if let Some(response) = self.outbox.pop() {
                self.sent_bytes += response.events.iter().map(Bytes::len).sum::<usize>();
                permit.send(Ok(response));
            }
        }
    }

    /// Requests the hub to take the ready watchers in, each from exactly where it is.
    fn join(&mut self) {
        let slots = std::mem::take(&mut self.ready);
        let mut joins = Vec::with_capacity(slots.len());
        for &slot in &slots {
            self.watchers.set_state(slot, State::Joining);
            if let Some(watcher) = self.watchers.get(slot) {
                joins.push(Join { slot, span: watcher.span.clone(), interest: watcher.interest() });
            }
        }
        if !joins.is_empty() {
            self.link.join(joins);
            self.joining = Some(slots);
        }
    }

    fn receive(&mut self, message: ToSession) {
        match message {
            ToSession::Events(delivery) => self.take_live(&delivery),
            ToSession::Joined => {
                for slot in self.joining.take().unwrap_or_default() {
                    self.watchers.set_state(slot, State::Live);
                }
            }
            ToSession::Behind { reached } => {
                let current = self.history.current();
                assert!(current >= reached, "history is never behind the hub");
                let slots = self.joining.take().unwrap_or_default();
                let gap = if plant::WATCH_GAP_SKIPPED.is_planted() {
                    reached.next()
                } else {
                    Revision(0)
                };
                self.fall_behind(slots, gap);
            }
            ToSession::Lagging { from } => {
                let slots: Vec<_> = self.watchers.in_state(State::Live).collect();
                let from = Revision(from.0 + i64::from(plant::SLOW_WATCHER_SKIPS.is_planted()));
                self.fall_behind(slots, from);
            }
        }
    }

    /// Sends watchers back to history, where they go on at `from` or where they are, if that is later.
    pub(super) fn fall_behind(&mut self, slots: Vec<Slot>, from: Revision) {
        for slot in slots {
            let Some(watcher) = self.watchers.get_mut(slot) else { continue };
            watcher.next = watcher.next.max(from);
            self.watchers.set_state(slot, State::Behind);
            self.behind.push_back(slot);
        }
    }

    fn take_live(&mut self, delivery: &Delivery) {
        let revision = delivery.record.revision;
        for matched in &delivery.matches {
            // A watcher that was cancelled may still have had events on their way.
            let Some(watcher) = self.watchers.get_mut(matched.slot) else { continue };
            assert!(revision >= watcher.next, "a watcher's events come in order and once");
            let event = delivery.record.encoded(matched.event, watcher.prev_kv);
            self.outbox.push_event(watcher, revision, revision, event);
        }
        for matched in &delivery.matches {
            if let Some(watcher) = self.watchers.get_mut(matched.slot) {
                watcher.next = revision.next();
            }
        }
        self.settled = self.settled.max(revision);
    }

    /// Takes what is in the buffer, `limit` messages at most.
    fn drain(&mut self, limit: usize) {
        for _ in 0..limit {
            let Some(message) = self.link.try_recv() else { return };
            self.receive(message);
        }
    }

    /// Advances the live watchers to the revision that the hub has reported: everything that was in the
    /// buffer at that moment is in the outbox afterwards, and only then does the revision count for them.
    fn settle(&mut self) {
        let reached = self.link.reached();
        while let Some(message) = self.link.try_recv() {
            let newer = matches!(&message, ToSession::Events(it) if it.record.revision > reached);
            self.receive(message);
            if newer {
                break; // Everything up to `reached` came before; the rest can wait.
            }
        }
        self.settled = self.settled.max(reached);
    }

    /// Handles a request for the progress of the watchers. The answer waits until it covers what is
    /// committed now.
    pub fn ask_progress(&mut self) {
        if self.watchers.len() > 0 {
            self.asked = Some(self.history.current());
        }
    }

    /// One answer for all watchers, once all are live. A watcher that starts in the future has no
    /// progress to report: then there is none, as in etcd.
    fn answer_progress(&mut self) {
        let Some(asked) = self.asked else { return };
        if plant::PROGRESS_FROM_THE_HEAD.is_planted() {
            self.asked = None;
            let head = self.history.current();
            return self.outbox.push(head, Response { watch_id: -1, ..Response::default() });
        }
        self.settle();
        if self.watchers.len() == 0 {
            self.asked = None;
        } else if self.watchers.all_live() && self.settled >= asked {
            let settled = self.settled;
            if self.watchers.iter_mut().any(|watcher| watcher.reported() > settled) {
                return; // The hub gets there in a moment: what history held is about to be published.
            }
            self.asked = None;
            if self.watchers.iter_mut().all(|watcher| watcher.start <= settled) {
                self.outbox.push(settled, Response { watch_id: -1, ..Response::default() });
            }
        }
    }

    /// The tick: sends progress to each watcher that has requested it, if it is live and nothing else
    /// was sent to it since the last tick.
    fn notify_progress(&mut self) {
        self.settle();
        for watcher in self.watchers.iter_mut() {
            let quiet = std::mem::replace(&mut watcher.quiet, true);
            let live = watcher.state == State::Live && watcher.start <= self.settled;
            if watcher.progress_notify && quiet && live {
                let response = Response { watch_id: watcher.id, ..Response::default() };
                self.outbox.push(self.settled.max(watcher.reported()), response);
            }
        }
    }
}
