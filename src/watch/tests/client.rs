//! A client that holds the server to etcd's guarantees, response by response: ordered, unique, atomic,
//! reliable, resumable, bookmarkable, filtered, with the state before.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use prost::Message;
use quorate_proto::etcdserverpb::watch_request::RequestUnion;
use quorate_proto::etcdserverpb::{
    ResponseHeader, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
    WatchResponse,
};
use quorate_proto::mvccpb::{Event, event::EventType};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::memory::Memory;
use super::world::World;
use crate::error::Error;
use crate::watch::record::{Response, key_of};
use crate::watch::span::Span;
use crate::watch::{History, HubHandle, Options, run};

pub const FRAGMENT_BYTES: usize = 150;

pub struct Client {
    requests: Option<mpsc::UnboundedSender<WatchRequest>>,
    responses: mpsc::Receiver<Result<Response, Error>>,
    store: Memory,
    /// Creates that were not answered, with the store's revision when they were sent.
    creates: VecDeque<(WatchCreateRequest, i64)>,
    cancels: BTreeSet<i64>,
    watchers: BTreeMap<i64, WatcherState>,
}

struct WatcherState {
    request: WatchCreateRequest,
    span: Span,
    /// Everything below was received.
    next: i64,
    /// Events of `next` that were received in fragments.
    taken: usize,
}

impl Client {
    /// Opens a stream. `room` is how many responses are on their way before the server must wait.
    pub fn open(
        world: &World,
        hub: &HubHandle,
        store: &Memory,
        room: usize,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let (requests, stream) = mpsc::unbounded_channel();
        let (sender, responses) = mpsc::channel(room);
        let header = || ResponseHeader { member_id: 7, raft_term: 3, ..<_>::default() };
        let mut options = Options::new(std::sync::Arc::new(header));
        options.fragment_bytes = FRAGMENT_BYTES;
        change(&mut options);
        let history = std::sync::Arc::new(store.clone());
        let requests_in = UnboundedReceiverStream::new(stream);
        let session = run(world.env().clone(), hub.clone(), history, requests_in, sender, options);
        world.env().spawn("watch session", session);
        Self {
            requests: Some(requests),
            responses,
            store: store.clone(),
            creates: VecDeque::new(),
            cancels: BTreeSet::new(),
            watchers: BTreeMap::new(),
        }
    }

    pub fn create(&mut self, request: WatchCreateRequest) {
        self.creates.push_back((request.clone(), self.store.current().0));
        self.send(RequestUnion::CreateRequest(request));
    }

    pub fn cancel(&mut self, watch_id: i64) {
        self.cancels.insert(watch_id);
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }));
    }

    pub fn ask_progress(&mut self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {}));
    }

    /// Ends the requests.
    pub fn half_close(&mut self) {
        self.requests = None;
    }

    pub fn ids(&self) -> Vec<i64> {
        self.watchers.keys().copied().collect()
    }

    fn send(&self, request: RequestUnion) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(WatchRequest { request_union: Some(request) });
        }
    }

    /// The next response, checked.
    pub fn read(&mut self) -> Option<Result<WatchResponse, Error>> {
        let response = self.responses.try_recv().ok()?;
        Some(response.map(|response| {
            let encoded = response.encoded_len();
            let response = WatchResponse::from(response);
            self.check(&response, encoded);
            response
        }))
    }

    /// Checks that nothing is owed: every watcher has everything that was ever written.
    pub fn check_complete(&self) {
        assert!(self.creates.is_empty(), "unanswered: {:?}", self.creates);
        for (id, watched) in &self.watchers {
            let missing = self.expected(watched, i64::MAX);
            assert!(missing.is_empty(), "watcher {id} at {} misses {missing:?}", watched.next);
        }
    }

    fn check(&mut self, response: &WatchResponse, encoded: usize) {
        let id = response.watch_id;
        let header = response.header.as_ref().expect("every response has a header");
        assert_eq!((header.member_id, header.raft_term), (7, 3));
        let revision = header.revision;
        assert!(revision <= self.store.current().0, "{response:?} is from the future");
        if response.created {
            self.check_created(response, revision);
        } else if response.canceled {
            let watched = self.watchers.remove(&id).expect("only a watcher can be cancelled");
            let compacted = response.compact_revision;
            if compacted == 0 {
                assert!(self.cancels.contains(&id), "nobody cancelled {id}");
            } else {
                assert_eq!(revision, 0, "as etcd");
                assert!(watched.next < compacted && compacted <= self.store.compacted());
            }
        } else if !response.events.is_empty() {
            self.check_events(response, revision, encoded);
        } else if id == -1 {
            assert!(!self.watchers.is_empty(), "there is nobody whose progress this is");
            self.watchers.values().for_each(|watched| self.check_progress(watched, revision));
        } else {
            let watched = self.watchers.get(&id).expect("progress is of a watcher");
            assert!(watched.request.progress_notify, "{id} did not ask for progress");
            self.check_progress(watched, revision);
        }
    }

    fn check_created(&mut self, response: &WatchResponse, revision: i64) {
        let (request, sent_at) = self.creates.pop_front().expect("a request was sent");
        assert!(revision >= sent_at, "created at {revision}, asked at {sent_at}");
        let key = if request.key.is_empty() { [0][..].into() } else { request.key.clone() };
        let span = Span::new(key, request.range_end.clone());
        if response.canceled {
            assert_eq!(response.watch_id, -1);
            let denied = response.cancel_reason.starts_with("denied");
            let fine =
                !denied && request.start_revision >= 0 && span.is_some() && request.watch_id == 0;
            assert!(!fine, "refused without a reason: {request:?}");
            return;
        }
        let start = request.start_revision;
        assert!(start >= 0, "a negative start was accepted");
        let next = if start == 0 { revision + 1 } else { start };
        let watched =
            WatcherState { span: span.expect("a range of keys"), next, taken: 0, request };
        let asked = watched.request.watch_id;
        assert!(asked == 0 || asked == response.watch_id);
        let twin = self.watchers.insert(response.watch_id, watched);
        assert!(twin.is_none(), "the id {} was given twice", response.watch_id);
    }

    fn check_events(&mut self, response: &WatchResponse, revision: i64, encoded: usize) {
        let id = response.watch_id;
        let watched = self.watchers.get(&id).expect("events after created, before canceled");
        let expected = self.expected(watched, i64::MAX);
        let got = &response.events;
        assert!(expected.starts_with(got), "watcher {id}: got {got:?}, expected {expected:?}");

        let of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let last = got.last().map_or(0, of);
        assert!(revision >= last, "the header {revision} is below the event {last}");
        let rest = expected.get(got.len()).is_some_and(|event| of(event) == last);
        if response.fragment {
            assert!(watched.request.fragment, "{id} did not allow fragments");
        } else {
            assert!(!rest, "watcher {id}: revision {last} was torn apart");
        }
        if watched.request.fragment {
            assert!(encoded < FRAGMENT_BYTES || got.len() == 1, "{encoded} bytes in one message");
        }
        let taken = got.iter().filter(|event| of(event) == last).count();
        let watched = self.watchers.get_mut(&id).expect("it was there");
        let (next, before) = (watched.next, watched.taken);
        watched.taken = match (rest, next == last) {
            (false, _) => 0,
            (true, true) => before + taken,
            (true, false) => taken,
        };
        watched.next = if rest { last } else { last + 1 };
    }

    /// A bookmark: everything up to it was received.
    fn check_progress(&self, watched: &WatcherState, revision: i64) {
        let missing = self.expected(watched, revision);
        assert!(missing.is_empty(), "told progress {revision}, misses {missing:?}");
        assert!(revision >= watched.request.start_revision, "progress before the start");
        assert!(revision + 1 >= watched.next, "progress {revision} below events that came before");
    }

    /// What the watcher has to receive up to revision `to`.
    fn expected(&self, watched: &WatcherState, to: i64) -> Vec<Event> {
        let request = &watched.request;
        let wanted = |event: &Event| {
            let delete = event.r#type == EventType::Delete as i32;
            watched.span.contains(key_of(event)) && !request.filters.contains(&i32::from(delete))
        };
        let events = self.store.log(watched.next, to);
        let events = events.iter().flat_map(|it| it.events.iter()).filter(|event| wanted(event));
        let stripped = events.map(|event| Event {
            prev_kv: event.prev_kv.clone().filter(|_| request.prev_kv),
            ..event.clone()
        });
        stripped.skip(watched.taken).collect()
    }
}
