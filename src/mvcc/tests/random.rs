//! Random work on the store and on the model, batch by batch, with crashes that lose what was not
//! flushed, compactions in pieces and installations in between; every answer, every event and every
//! readable revision must agree.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
    RangeResponse, RequestOp, ResponseOp, TxnRequest, TxnResponse, compare::TargetUnion,
    request_op::Request, response_op::Response,
};
use quorate_proto::mvccpb::{Event, KeyValue};

use super::model::{Model, within};
use super::{entry, grant, next_entry, open, place, revoke};
use crate::engine::{Cf, Place};
use crate::error::Refused;
use crate::mvcc::counts::Chunks;
use crate::mvcc::keys::{RevKey, attached_key, version_key};
use crate::mvcc::record::{Head, shared_kv};
use crate::mvcc::{
    Most, Pages, RangeStream, Ranged, Share, Store, TxnRead, View, Write, check_delete_range,
    check_put, check_range, check_range_stream, check_txn,
};
use crate::types::{Index, LeaseId, Revision};

/// A log entry.
#[derive(Clone, Debug)]
enum Command {
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Range(RangeRequest),
    /// To so many revisions before the present.
    Compact(i64),
    Grant(i64),
    Revoke(i64),
}

#[derive(Clone, Debug, PartialEq)]
enum Reply {
    Put(PutResponse),
    Delete(DeleteRangeResponse),
    Txn(TxnResponse),
    Range(RangeResponse),
    Done,
    Refused(Refused),
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Command>),
    Read(RangeRequest),
    ReadTxn(TxnRequest),
    Flush,
    /// Loses what was not flushed; the log is applied again in batches of this size.
    Crash(usize),
    Sweep(usize),
    Install,
}

struct World {
    place: Place,
    /// Gone only while it crashes.
    store: Option<Store>,
    model: Model,
    /// With what the model answered and what happened.
    log: Vec<(Command, Reply, Vec<Event>)>,
    flushed: usize,
}

impl World {
    fn new() -> Self {
        let place = place();
        let store = open(&place);
        Self { place, store: Some(store), model: Model::new(), log: Vec::new(), flushed: 0 }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("it is not crashing")
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Batch(commands) => {
                let from = self.log.len();
                for command in commands {
                    let (reply, events) = play(&mut self.model, &command);
                    self.log.push((command, reply, events));
                }
                self.apply(from..self.log.len());
            }
            Step::Read(request) => {
                let ours = self.store().view().range(&request).expect("works");
                assert_eq!(ours, self.model.range(&request), "{request:?}");
                let view = self.store().view();
                if check_range_stream(&request).is_ok() && request.sort_target == 0 {
                    assert_eq!(joined(&view, &request), ours, "{request:?}");
                }
                assert_eq!(turned(&view, &request), ours, "{request:?}");
                let within = view.range_within(&request, 40).expect("works");
                let fits = |range: &RangeResponse| keys_bytes(&range.kvs) <= 40;
                match within {
                    // One key above the limit is looked at, and values that only the order needs.
                    Ok(None) if request.limit > 0 || request.keys_only => {}
                    Ok(None) => assert!(!ours.as_ref().is_ok_and(fits)),
                    other => assert_eq!(other.map(|range| range.expect("it is some")), ours),
                }
            }
            Step::ReadTxn(request) => {
                let (view, expected) = (self.store().view(), self.model.clone().txn(&request));
                let whole = view.txn_within(&request, 1 << 20).expect("works");
                assert_eq!(whole.map(|whole| whole.expect("it is small")), expected, "{request:?}");
                assert_eq!(turned_txn(&view, &request), expected, "{request:?}");
                let weight = view.weigh_txn(&request, u64::MAX).expect("works");
                let read = expected.map_or(0, |answer| {
                    answer.responses.iter().map(|op| range_of(op).kvs.len()).sum::<usize>() as u64
                });
                assert!(weight >= read * size_of::<KeyValue>() as u64, "{weight} for {request:?}");
            }
            Step::Flush => {
                assert_eq!(self.store().flush().expect("works"), Index(self.log.len() as u64));
                self.flushed = self.log.len();
            }
            Step::Crash(batch) => {
                self.store = None;
                self.store = Some(open(&self.place));
                assert_eq!(self.store().applied(), Index(self.flushed as u64));
                let mut from = self.flushed;
                while from < self.log.len() {
                    let to = (from + batch).min(self.log.len());
                    self.apply(from..to);
                    from = to;
                }
            }
            Step::Sweep(changes) => {
                self.store().compact_step(changes).expect("works");
            }
            Step::Install => {
                let view = self.store().view();
                self.place = place();
                let store = open(&self.place);
                let position = store.install(view.export()).expect("works");
                assert_eq!(
                    (position.revision, position.applied),
                    (view.revision(), view.applied())
                );
                assert_eq!(position.compacted, view.compact_revision());
                self.store = Some(store);
                self.flushed = self.log.len();
            }
        }
        self.check();
    }

    /// Applies a stretch of the log as one batch.
    fn apply(&mut self, entries: std::ops::Range<usize>) {
        let store = self.store.as_ref().expect("it is not crashing");
        let mut write = store.begin();
        for (command, reply, events) in &self.log[entries] {
            next_entry(&mut write);
            assert_eq!(&carry_out(&mut write, command), reply, "{command:?}");
            assert_eq!(&write.take_changed().events, events, "{command:?}");
        }
        write.commit().expect("commits");
    }

    fn check(&self) {
        let view = self.store().view();
        if view.applied() != Index(self.log.len() as u64) {
            return;
        }
        assert_eq!(view.revision().0, self.model.revision());
        assert_eq!(view.compact_revision().0, self.model.compacted);
        for revision in self.model.compacted.max(1)..=self.model.revision() {
            let everything = RangeRequest { revision, ..all() };
            assert_eq!(view.range(&everything).expect("works"), self.model.range(&everything));
        }
        for lease in LEASES {
            let attached = view.attached(LeaseId(lease)).expect("works");
            assert_eq!(attached, self.model.attached(lease));
        }
        self.check_events(&view);
        check_derived(&view);
        if !self.store().compaction_pending() {
            self.check_kept(&view);
        }
    }

    /// In pieces, as a watcher reads them.
    fn check_events(&self, view: &View) {
        let mut from = self.model.compacted.max(0);
        while from <= self.model.revision() {
            let (to, wanted) =
                (Revision(self.model.revision()), |key: &[u8]| within(key, b"a", b"b"));
            let most = Most { changes: 3, bytes: 8 };
            let found = view.events(Revision(from), to, most, true, &wanted).expect("works");
            let found = found.expect("is not compacted");
            let mut expected = Vec::new();
            for main in from..found.next.0 {
                let compacted = main == self.model.compacted;
                let events = self.model.events[main as usize].iter().cloned();
                let events = events.filter(|event| {
                    event.kv.as_ref().is_some_and(|kv| wanted(&kv.key))
                        && (!compacted || self.model.is_kept(main, event))
                });
                expected.extend(events.map(|event| {
                    let prev_kv = event.prev_kv.filter(|_| !compacted);
                    Event { prev_kv, ..event }
                }));
            }
            // Until it is swept, a put that its own txn deleted again stays at the compaction's revision.
            let pending = self.store().compaction_pending();
            let mut events = found.events;
            events.retain(|event| {
                let main = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                !pending || main != self.model.compacted || self.model.is_kept(main, event)
            });
            assert_eq!(events, expected);
            assert!(found.next.0 > from);
            from = found.next.0;
        }
        let compacted =
            view.events(Revision(self.model.compacted - 1), Revision(1), ONE, false, &|_| true);
        assert_eq!(compacted.expect("works"), Err(Refused::Compacted));
    }

    /// After the deletions of a compaction, history holds what it must and nothing else.
    fn check_kept(&self, view: &View) {
        let mut kept = Vec::new();
        for (main, events) in self.model.events.iter().enumerate() {
            for (sub, event) in events.iter().enumerate() {
                if self.model.is_kept(main as i64, event) {
                    let mark: &[u8] = if event.r#type == 1 { b"t" } else { b"" };
                    let (main, sub) = (main as u64, sub as u64);
                    kept.push([&main.to_be_bytes()[..], b"_", &sub.to_be_bytes(), mark].concat());
                }
            }
        }
        let stored = view.scan(Cf::Key).map(|row| row.expect("reads").0.to_vec());
        assert_eq!(stored.collect::<Vec<_>>(), kept);
    }
}

const ONE: Most = Most { changes: 1, bytes: 1 };

/// What is derived from history must agree with it, also in the middle of a compaction's
/// deletions.
fn check_derived(view: &View) {
    let mut states: BTreeMap<Bytes, Vec<Head>> = BTreeMap::new();
    for row in view.scan(Cf::Key) {
        let (key, record) = row.expect("reads");
        let rev = RevKey::parse(&key).expect("is a revision").0;
        let kv = KeyValue { mod_revision: rev.main, ..shared_kv(&record).expect("is a record") };
        states.entry(kv.key.clone()).or_default().push(Head { rev, kv });
    }
    let [mut heads, mut versions, mut attached] =
        [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
    for (key, states) in &states {
        let (newest, older) = states.split_last().expect("it has one");
        heads.insert(key.clone(), Head::encode(newest.rev.sub, &newest.kv).0.into());
        for state in older {
            versions.insert(version_key(key, state.rev).into(), state.outline().encode().into());
        }
        if newest.kv.lease != 0 {
            attached.insert(attached_key(LeaseId(newest.kv.lease), key).into(), Bytes::new());
        }
    }
    for (cf, expected) in [(Cf::Head, heads), (Cf::Versions, versions), (Cf::Attached, attached)] {
        let rows: BTreeMap<Bytes, Bytes> = view.scan(cf).map(|row| row.expect("reads")).collect();
        assert_eq!(rows, expected, "{}", cf.name());
    }
    let row = |row: Result<(Bytes, Bytes), _>| {
        row.map_or(0, |(key, value): (Bytes, Bytes)| key.len() + value.len())
    };
    assert_eq!(view.live_bytes(), view.scan(Cf::Key).map(row).sum::<usize>() as u64);
    let alive = |states: &&Vec<Head>| states.last().is_some_and(|head| !head.is_tombstone());
    let alive = states.values().filter(alive).map(|states| states[0].kv.key.clone());
    let alive: Vec<Bytes> = alive.collect();
    let chunks = Chunks::load(view.snapshot()).expect("works");
    for pieces in [chunks.rows(), chunks.sums()] {
        let starts: Vec<&Bytes> = pieces.keys().collect();
        for (i, (start, keys)) in pieces.iter().enumerate() {
            let inside =
                |key: &&Bytes| *key >= start && starts.get(i + 1).is_none_or(|next| key < next);
            assert_eq!(*keys, alive.iter().filter(inside).count() as i64, "{start:?}");
        }
    }
    assert!(chunks.sums().keys().all(|start| chunks.rows().contains_key(start)));
}

fn all() -> RangeRequest {
    let zero = Bytes::from_static(b"\0");
    RangeRequest { key: zero.clone(), range_end: zero, ..RangeRequest::default() }
}

fn play(model: &mut Model, command: &Command) -> (Reply, Vec<Event>) {
    let before = model.revision();
    let refused = Reply::Refused;
    let reply = match command {
        Command::Put(put) => model.put(put).map_or_else(refused, Reply::Put),
        Command::Delete(delete) => Reply::Delete(model.delete_range(delete)),
        Command::Txn(txn) => model.txn(txn).map_or_else(refused, Reply::Txn),
        Command::Range(range) => model.range(range).map_or_else(refused, Reply::Range),
        Command::Compact(back) => {
            model.compact(before - back).map_or_else(refused, |()| Reply::Done)
        }
        Command::Grant(id) if model.leases.insert(*id) => Reply::Done,
        Command::Grant(_) => Reply::Refused(Refused::LeaseExists),
        Command::Revoke(id) if model.revoke(*id) => Reply::Done,
        Command::Revoke(_) => Reply::Refused(Refused::LeaseNotFound),
    };
    let changed = model.revision() > before;
    (reply, if changed { model.events[model.revision() as usize].clone() } else { Vec::new() })
}

fn carry_out(write: &mut Write<'_>, command: &Command) -> Reply {
    let refused = Reply::Refused;
    match command {
        Command::Put(put) => write.put(put).expect("works").map_or_else(refused, Reply::Put),
        Command::Delete(delete) => {
            write.delete_range(delete).expect("works").map_or_else(refused, Reply::Delete)
        }
        Command::Txn(txn) => write.txn(txn).expect("works").map_or_else(refused, Reply::Txn),
        Command::Range(range) => {
            write.range(range).expect("works").map_or_else(refused, Reply::Range)
        }
        Command::Compact(back) => {
            let to = write.revision().0 - back;
            write.compact(to).expect("works").map_or_else(refused, |()| Reply::Done)
        }
        Command::Grant(id) => grant(write, *id).map_or_else(refused, |()| Reply::Done),
        Command::Revoke(id) => revoke(write, *id).map_or_else(refused, |()| Reply::Done),
    }
}

const LEASES: [i64; 3] = [1, 2, 0x0123_4567_89ab_cdef];

fn key() -> impl Strategy<Value = Bytes> {
    let letter = select(vec![0_u8, b'a', b'b', 0xff]);
    proptest::collection::vec(letter, 1..=2).prop_map(Bytes::from)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![3 => Just(Bytes::new()), 1 => Just(Bytes::from_static(b"\0")), 2 => key()]
}

fn value() -> impl Strategy<Value = Bytes> {
    select(vec!["", "1", "2", "3"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 1 => select(LEASES.to_vec())]
}

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

fn put() -> impl Strategy<Value = PutRequest> {
    (key(), value(), lease(), any::<bool>(), rarely(), rarely())
        .prop_map(|(key, value, lease, prev_kv, ignore_value, ignore_lease)| PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        })
        .prop_filter("valid", |put| check_put(put).is_ok())
}

fn delete() -> impl Strategy<Value = DeleteRangeRequest> {
    (key(), range_end(), any::<bool>())
        .prop_map(|(key, range_end, prev_kv)| DeleteRangeRequest { key, range_end, prev_kv })
        .prop_filter("valid", |delete| check_delete_range(delete).is_ok())
}

fn revision() -> impl Strategy<Value = i64> {
    prop_oneof![3 => Just(0), 4 => 1_i64..40, 1 => -3_i64..0]
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0), 1 => 1_i64..30]
}

fn range() -> impl Strategy<Value = RangeRequest> {
    let bounds = (bound(), bound(), bound(), bound());
    let order = (0..3_i32, prop_oneof![2 => Just(0), 1 => 0..5_i32]);
    let limit = prop_oneof![1 => Just(0_i64), 1 => 1_i64..8];
    (key(), range_end(), limit, revision(), order, rarely(), rarely(), bounds)
        .prop_map(|(key, range_end, limit, revision, order, keys_only, count_only, bounds)| {
            RangeRequest {
                key,
                range_end,
                limit,
                revision,
                sort_order: order.0,
                sort_target: order.1,
                serializable: false,
                keys_only,
                count_only,
                min_mod_revision: bounds.0,
                max_mod_revision: bounds.1,
                min_create_revision: bounds.2,
                max_create_revision: bounds.3,
            }
        })
        .prop_filter("valid", |range| check_range(range).is_ok())
}

fn compare() -> impl Strategy<Value = Compare> {
    let number = prop_oneof![Just(0_i64), 1_i64..20];
    (0..4_i32, 0..5_i32, key(), range_end(), number, value()).prop_map(
        |(result, target, key, range_end, number, value)| Compare {
            result,
            target,
            key,
            range_end,
            target_union: Some(match target {
                0 => TargetUnion::Version(number),
                1 => TargetUnion::CreateRevision(number),
                2 => TargetUnion::ModRevision(number),
                3 => TargetUnion::Value(value),
                _ => TargetUnion::Lease(number),
            }),
        },
    )
}

fn txn() -> impl Strategy<Value = TxnRequest> {
    let op = prop_oneof![
        put().prop_map(Request::RequestPut),
        delete().prop_map(Request::RequestDeleteRange),
        range().prop_map(Request::RequestRange),
    ];
    let leaf = tree(op.clone().boxed());
    let op = prop_oneof![4 => op, 1 => leaf.prop_map(Request::RequestTxn)];
    tree(op.boxed()).prop_filter("valid", |txn| check_txn(txn, 16).is_ok())
}

fn tree(op: BoxedStrategy<Request>) -> impl Strategy<Value = TxnRequest> {
    let op = op.prop_map(|request| RequestOp { request: Some(request) });
    let ops = proptest::collection::vec(op, 0..4);
    (proptest::collection::vec(compare(), 0..3), ops.clone(), ops)
        .prop_map(|(compare, success, failure)| TxnRequest { compare, success, failure })
}

fn read_txn() -> impl Strategy<Value = TxnRequest> {
    tree(range().prop_map(Request::RequestRange).boxed())
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => put().prop_map(Command::Put),
        4 => delete().prop_map(Command::Delete),
        5 => txn().prop_map(Command::Txn),
        2 => range().prop_map(Command::Range),
        3 => (-1_i64..8).prop_map(Command::Compact),
        2 => select(LEASES.to_vec()).prop_map(Command::Grant),
        1 => select(LEASES.to_vec()).prop_map(Command::Revoke),
    ]
}

/// What the chunks of a stream come to.
fn joined(view: &View, request: &RangeRequest) -> Result<RangeResponse, Refused> {
    let mut stream = RangeStream::new(request.clone(), 16);
    let mut kvs = Vec::new();
    loop {
        let chunk = view.range_chunk(&mut stream).expect("works")?;
        kvs.extend(chunk.kvs.iter().cloned());
        if stream.is_over() {
            return Ok(RangeResponse { kvs, ..chunk });
        }
        assert_eq!(chunk.header, None, "{chunk:?}");
    }
}

/// What the pages of an answer come to, which is as long as was announced.
fn turned(view: &View, request: &RangeRequest) -> Result<RangeResponse, Refused> {
    match view.range_paged(request, SHARE).expect("works")? {
        Ranged::Whole(range) => Ok(range),
        Ranged::Paged(pages) => Ok(all_of(*pages)),
    }
}

/// There is room for two or three keys at a time.
const SHARE: Share = Share { page: 16, sort: 600 };

fn all_of(mut pages: Pages) -> RangeResponse {
    let (mut kvs, said) = (Vec::new(), pages.bytes());
    loop {
        let page = pages.next(24).expect("works");
        if page.is_empty() {
            assert_eq!(keys_bytes(&kvs) as u64, said, "{kvs:?}");
            return RangeResponse { kvs, ..pages.frame().clone() };
        }
        kvs.extend(page);
    }
}

/// What a txn's answer comes to, its pages in their places.
fn turned_txn(view: &View, request: &TxnRequest) -> Result<TxnResponse, Refused> {
    let TxnRead { mut response, pages } = view.txn_paged(request, SHARE).expect("works")?;
    for (n, pages) in pages {
        response.responses[n].response = Some(Response::ResponseRange(all_of(pages)));
    }
    Ok(response)
}

/// Keys that a filter leaves out between two pages are counted once.
#[test]
fn pages_count_what_lies_between_them_once() {
    let store = open(&place());
    let put = |key: String| {
        let request = PutRequest { key: key.into(), ..PutRequest::default() };
        entry(&store, |write| drop(write.put(&request).expect("works").expect("valid")));
    };
    (0..12).for_each(|n| put(format!("k{n:02}")));
    // From revision 14 on: every third key once more.
    (0..12).step_by(3).for_each(|n| put(format!("k{n:02}")));
    let request = RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        min_mod_revision: 14,
        ..RangeRequest::default()
    };
    let answer = turned(&store.view(), &request).expect("valid");
    assert_eq!((answer.kvs.len(), answer.count), (4, 12));
}

fn range_of(op: &ResponseOp) -> &RangeResponse {
    match &op.response {
        Some(Response::ResponseRange(range)) => range,
        other => panic!("{other:?} in the answer of a txn that only reads"),
    }
}

/// What they take in an answer.
fn keys_bytes(kvs: &[KeyValue]) -> usize {
    RangeResponse { kvs: kvs.to_vec(), ..RangeResponse::default() }.encoded_len()
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => proptest::collection::vec(command(), 1..8).prop_map(Step::Batch),
        6 => range().prop_map(Step::Read),
        2 => read_txn().prop_map(Step::ReadTxn),
        2 => Just(Step::Flush),
        1 => (1..10_usize).prop_map(Step::Crash),
        3 => (1..8_usize).prop_map(Step::Sweep),
        3 => Just(Step::Sweep(1000)),
        1 => Just(Step::Install),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn the_store_agrees_with_the_model(steps in proptest::collection::vec(step(), 1..25)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
    }
}
