//! Random runs: writers, slow readers, creates and cancels, compactions, snapshots, with bounds so
//! small that every fallback is taken; the clients check what they read as they go.

use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_proto::etcdserverpb::WatchCreateRequest;
use tokio::sync::mpsc;

use super::client::Client;
use super::memory::{Change, Memory};
use super::world::{World, pause};
use crate::types::Revision;
use crate::watch::hub::{HubHandle, start};
use crate::watch::{Bounds, History, Publication};

const STREAMS: usize = 3;
const KEYS: [&str; 4] = ["a", "b", "ba", "c"];

#[derive(Clone, Debug)]
enum Op {
    Write(Vec<(usize, bool)>),
    /// The same, but published to the hub with its first and last key only.
    WriteMany(Vec<(usize, bool)>),
    /// The store is replaced by one with more revisions, which are not published.
    Restore(Vec<usize>),
    Compact(prop::sample::Index),
    Create {
        stream: usize,
        span: usize,
        start: Start,
        id: i64,
        flags: u8,
    },
    Cancel {
        stream: usize,
        pick: prop::sample::Index,
    },
    AskProgress(usize),
    Reopen(usize),
    Read {
        stream: usize,
        responses: usize,
    },
    Run(usize),
    Tick,
}

#[derive(Clone, Debug)]
enum Start {
    Now,
    Past(prop::sample::Index),
    Future(i64),
    Negative,
}

fn starts() -> impl Strategy<Value = Start> {
    prop_oneof![
        4 => Just(Start::Now),
        5 => any::<prop::sample::Index>().prop_map(Start::Past),
        2 => (1..6i64).prop_map(Start::Future),
        1 => Just(Start::Negative),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        12 => prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.7)), 1..4).prop_map(Op::Write),
        2 => prop::collection::vec((0..KEYS.len(), prop::bool::weighted(0.7)), 1..4)
            .prop_map(Op::WriteMany),
        1 => prop::collection::vec(0..KEYS.len(), 1..3).prop_map(Op::Restore),
        1 => index().prop_map(Op::Compact),
        5 => (0..STREAMS, 0..7usize, starts(), 0..4i64, any::<u8>())
            .prop_map(|(stream, span, start, id, flags)| Op::Create { stream, span, start, id, flags }),
        1 => (0..STREAMS, index()).prop_map(|(stream, pick)| Op::Cancel { stream, pick }),
        2 => (0..STREAMS).prop_map(Op::AskProgress),
        1 => (0..STREAMS).prop_map(Op::Reopen),
        10 => (0..STREAMS, 1..6usize).prop_map(|(stream, responses)| Op::Read { stream, responses }),
        14 => (1..25usize).prop_map(Op::Run),
        1 => Just(Op::Tick),
    ]
}

/// So small that buffers fill, gaps outgrow the ring and history takes many steps.
fn bounds() -> impl Strategy<Value = Bounds> {
    (1..6usize, 1..5usize, 1..5usize, 1..4usize, 1..120usize).prop_map(
        |(buffer, ring, catchup, outbox, response_bytes)| Bounds {
            buffer_events: buffer,
            ring_publications: ring,
            catchup_revisions: catchup,
            outbox_responses: outbox,
            response_bytes,
            ..Bounds::default()
        },
    )
}

enum Publish {
    Revision(Publication),
    Passed(Revision, Bytes, Bytes),
    Restored(Revision),
}

struct Run {
    world: World,
    store: Memory,
    hub: HubHandle,
    applier: mpsc::UnboundedSender<Publish>,
    clients: Vec<Client>,
    values: usize,
}

impl Run {
    fn new(seed: u64, bounds: Bounds) -> Self {
        let world = World::new(seed);
        let store = Memory::default();
        let hub = start(world.env(), store.current(), bounds);
        let (applier, mut work) = mpsc::unbounded_channel();
        let publisher = hub.clone();
        // Publishes later than it is committed, several revisions at a time when they are there.
        world.env().spawn("applier", async move {
            while let Some(first) = work.recv().await {
                pause(3).await;
                let mut batch = Vec::new();
                let mut next = Some(first);
                while let Some(publish) = next {
                    match publish {
                        Publish::Revision(publication) => batch.push(publication),
                        Publish::Passed(revision, first, last) => {
                            publisher.publish(std::mem::take(&mut batch)).await;
                            publisher.pass(revision, first, last).await;
                        }
                        Publish::Restored(current) => {
                            publisher.publish(std::mem::take(&mut batch)).await;
                            publisher.restored(current).await;
                        }
                    }
                    next = work.try_recv().ok();
                }
                publisher.publish(batch).await;
            }
        });
        let clients = (0..STREAMS).map(|_| Self::open(&world, &hub, &store)).collect();
        Self { world, store, hub, applier, clients, values: 0 }
    }

    fn open(world: &World, hub: &HubHandle, store: &Memory) -> Client {
        Client::open(world, hub, store, 2, |options| {
            options.progress_interval = Duration::from_secs(1);
        })
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Write(changes) => {
                if let Some(publication) = self.write(changes) {
                    let _ = self.applier.send(Publish::Revision(publication));
                }
            }
            Op::WriteMany(changes) => {
                if let Some(Publication { revision, events }) = self.write(changes) {
                    let keys = || events.iter().filter_map(|event| event.kv.as_ref());
                    let first = keys().map(|kv| kv.key.clone()).min().unwrap_or_default();
                    let last = keys().map(|kv| kv.key.clone()).max().unwrap_or_default();
                    let _ = self.applier.send(Publish::Passed(revision, first, last));
                }
            }
            Op::Restore(keys) => {
                for key in keys {
                    self.write(vec![(key, true)]);
                }
                let _ = self.applier.send(Publish::Restored(self.store.current()));
            }
            Op::Compact(pick) => {
                self.store.compact(pick.index(self.store.current().0 as usize + 1) as i64);
            }
            Op::Create { stream, span, start, id, flags } => {
                let request = self.request(span, start, id, flags);
                self.clients[stream].create(request);
            }
            Op::Cancel { stream, pick } => {
                let ids = self.clients[stream].ids();
                // Sometimes one that is not there.
                let id = ids.get(pick.index(ids.len() + 1)).copied().unwrap_or(99);
                self.clients[stream].cancel(id);
            }
            Op::AskProgress(stream) => self.clients[stream].ask_progress(),
            Op::Reopen(stream) => {
                self.clients[stream] = Self::open(&self.world, &self.hub, &self.store);
            }
            Op::Read { stream, responses } => {
                for _ in 0..responses {
                    let _ = self.clients[stream].read();
                    self.world.turn(2);
                }
            }
            Op::Run(turns) => drop(self.world.turn(turns)),
            Op::Tick => self.world.advance(Duration::from_millis(1_200)),
        }
    }

    fn write(&mut self, changes: Vec<(usize, bool)>) -> Option<Publication> {
        let mut changes: Vec<Change> = changes
            .into_iter()
            .map(|(key, put)| {
                self.values += 1;
                (KEYS[key].to_owned(), put.then(|| format!("value {}", self.values)))
            })
            .collect();
        changes.sort();
        changes.dedup_by(|one, other| one.0 == other.0);
        self.store.write(&changes)
    }

    fn request(&self, span: usize, start: Start, id: i64, flags: u8) -> WatchCreateRequest {
        let (key, end) =
            [("a", ""), ("b", ""), ("a", "c"), ("b", "bb"), ("b", "\0"), ("", "\0"), ("b", "a")]
                [span];
        let current = self.store.current().0;
        let start = match start {
            Start::Now => 0,
            Start::Past(pick) => pick.index(current as usize) as i64 + 1,
            Start::Future(ahead) => current + ahead,
            Start::Negative => -1,
        };
        let flag = |bit: u8| flags & (1 << bit) != 0;
        let filters = [(flag(0) && flag(1), 0), (flag(2) && flag(3), 1), (flag(4), 9)];
        WatchCreateRequest {
            key: key.into(),
            range_end: end.into(),
            start_revision: start,
            progress_notify: flag(5),
            filters: filters.into_iter().filter_map(|(on, filter)| on.then_some(filter)).collect(),
            prev_kv: flag(6),
            watch_id: id,
            fragment: flag(7),
        }
    }

    /// Lets all tasks finish; for each stream whether it received the progress of all its watchers.
    fn drain(&mut self) -> [bool; STREAMS] {
        let mut progress = [false; STREAMS];
        for _ in 0..100_000 {
            self.world.settle();
            let mut read = false;
            for (stream, progress) in progress.iter_mut().enumerate() {
                while let Some(response) = self.clients[stream].read() {
                    let response = response.expect("the stream goes on");
                    read = true;
                    *progress |= response.watch_id == -1 && !response.created;
                }
            }
            if !read {
                return progress;
            }
        }
        panic!("responses without end");
    }

    fn finish(mut self) {
        self.drain();
        self.clients.iter().for_each(Client::check_complete);
        // Future watchers reach their start.
        for _ in 0..6 {
            self.step(Op::Write(vec![(0, true)]));
        }
        self.drain();
        self.clients.iter().for_each(Client::check_complete);
        self.clients.iter_mut().for_each(Client::ask_progress);
        let progress = self.drain();
        for (client, told) in self.clients.iter().zip(progress) {
            assert_eq!(told, !client.ids().is_empty(), "progress of {:?}", client.ids());
        }
        let counters = self.hub.counters();
        let watchers: usize = self.clients.iter().map(|client| client.ids().len()).sum();
        assert_eq!(counters.watchers.get(), watchers as i64);
        assert_eq!(counters.hub_watchers.get(), watchers as i64);
        assert_eq!(counters.slow_watchers.get(), 0);
        assert_eq!(counters.pending_events.get(), 0);
        assert_eq!(counters.streams.get(), STREAMS as i64);
        self.clients.clear();
        self.world.settle();
        assert_eq!(counters.watchers.get(), 0);
        assert_eq!(counters.hub_watchers.get(), 0);
        assert_eq!(counters.streams.get(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn keeps_every_guarantee(
        seed: u64,
        bounds in bounds(),
        ops in prop::collection::vec(ops(), 1..150),
    ) {
        let mut run = Run::new(seed, bounds);
        for op in ops {
            run.step(op);
        }
        run.finish();
    }
}
