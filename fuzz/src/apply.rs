//! Commands into the state machine, with compactions in steps, flushes, crashes that lose what was not
//! flushed and are made good from the log, against the model that the unit tests have.

use std::path::Path;

use arbitrary::Arbitrary;
use bytes::Bytes;
use quorate::apply::{self, Reply, StateMachine};
use quorate::engine::{Engine, Options, Place};
use quorate::mvcc::{Store, Write, check_delete_range, check_put, check_range, check_txn};
use quorate::types::{Index, Term};
use quorate_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RequestHeader, RequestOp, TxnRequest, compare::TargetUnion,
    request_op::Request,
};

use crate::error::{Error, Refused};
use crate::model::Model;
use crate::{noises, structured};

#[derive(Arbitrary, Debug)]
enum Step {
    Do(Command),
    Sweep(u8),
    Flush,
    Crash,
}

#[derive(Arbitrary, Clone, Debug)]
enum Command {
    Put(Put),
    Delete(Keys, bool),
    Range(Read),
    Txn(Txn),
    Compact(u8),
    Grant(u8),
    Revoke(u8),
}

#[derive(Arbitrary, Clone, Debug)]
struct Put {
    key: u8,
    value: u8,
    lease: u8,
    prev_kv: bool,
    ignore_value: bool,
    ignore_lease: bool,
}

#[derive(Arbitrary, Clone, Debug)]
struct Keys {
    from: u8,
    to: u8,
}

#[derive(Arbitrary, Clone, Debug)]
struct Read {
    keys: Keys,
    revision: u8,
    limit: u8,
    order: u8,
    target: u8,
    keys_only: bool,
    count_only: bool,
    min_mod: u8,
    max_create: u8,
}

#[derive(Arbitrary, Clone, Debug)]
struct Txn {
    compares: Vec<(Keys, u8, u8, u8)>,
    success: Vec<Op>,
    failure: Vec<Op>,
}

#[derive(Arbitrary, Clone, Debug)]
enum Op {
    Put(Put),
    Delete(Keys, bool),
    Range(Read),
    Txn(Box<Txn>),
}

fn key(number: u8) -> Bytes {
    let letters = [&b"a"[..], b"b", b"c", b"ab", b"a\0", b"\0", b"\xff", b"d"];
    Bytes::from_static(letters[usize::from(number) % letters.len()])
}

fn end(number: u8) -> Bytes {
    match number % 11 {
        0..4 => Bytes::new(),
        4 => Bytes::from_static(b"\0"),
        _ => key(number),
    }
}

impl Put {
    fn request(&self) -> PutRequest {
        PutRequest {
            key: key(self.key),
            value: if self.ignore_value { Bytes::new() } else { vec![self.value].into() },
            lease: if self.ignore_lease { 0 } else { i64::from(self.lease % 4) },
            prev_kv: self.prev_kv,
            ignore_value: self.ignore_value,
            ignore_lease: self.ignore_lease,
        }
    }
}

impl Keys {
    fn delete(&self, prev_kv: bool) -> DeleteRangeRequest {
        DeleteRangeRequest { key: key(self.from), range_end: end(self.to), prev_kv }
    }
}

impl Read {
    fn request(&self) -> RangeRequest {
        RangeRequest {
            key: key(self.keys.from),
            range_end: end(self.keys.to),
            revision: i64::from(self.revision % 32),
            limit: i64::from(self.limit % 5),
            sort_order: i32::from(self.order % 3),
            sort_target: i32::from(self.target % 5),
            keys_only: self.keys_only,
            count_only: self.count_only,
            min_mod_revision: i64::from(self.min_mod % 6),
            max_create_revision: i64::from(self.max_create % 6),
            ..RangeRequest::default()
        }
    }
}

impl Txn {
    fn request(&self, depth: usize) -> TxnRequest {
        let ops = |ops: &[Op]| ops.iter().take(6).map(|op| op.request(depth)).collect();
        let compare = self.compares.iter().take(4).map(|(keys, result, target, operand)| {
            let number = i64::from(operand % 8);
            let (target, union) = match target % 5 {
                0 => (0, TargetUnion::Version(number)),
                1 => (1, TargetUnion::CreateRevision(number)),
                2 => (2, TargetUnion::ModRevision(number)),
                3 => (3, TargetUnion::Value(vec![*operand].into())),
                _ => (4, TargetUnion::Lease(number % 4)),
            };
            Compare {
                result: i32::from(result % 4),
                target,
                key: key(keys.from),
                range_end: end(keys.to),
                target_union: Some(union),
            }
        });
        TxnRequest {
            compare: compare.collect(),
            success: ops(&self.success),
            failure: ops(&self.failure),
        }
    }
}

impl Op {
    fn request(&self, depth: usize) -> RequestOp {
        RequestOp {
            request: Some(match self {
                Self::Put(put) => Request::RequestPut(put.request()),
                Self::Delete(keys, prev_kv) => Request::RequestDeleteRange(keys.delete(*prev_kv)),
                Self::Range(read) => Request::RequestRange(read.request()),
                Self::Txn(txn) if depth > 0 => Request::RequestTxn(txn.request(depth - 1)),
                Self::Txn(_) => Request::RequestTxn(TxnRequest::default()),
            }),
        }
    }
}

/// A command as the log has it; none for what is refused before it is proposed.
fn proposal(command: &Command, model: &Model) -> Option<apply::Request> {
    Some(match command {
        Command::Put(put) => {
            let put = put.request();
            check_put(&put).ok()?;
            put.into()
        }
        Command::Delete(keys, prev_kv) => {
            let delete = keys.delete(*prev_kv);
            check_delete_range(&delete).ok()?;
            delete.into()
        }
        Command::Range(read) => {
            let range = read.request();
            check_range(&range).ok()?;
            Box::new(range).into()
        }
        Command::Txn(txn) => {
            let txn = txn.request(4);
            check_txn(&txn, 128).ok()?;
            txn.into()
        }
        Command::Compact(back) => {
            let revision = model.revision() - i64::from(back % 8);
            CompactionRequest { revision, physical: false }.into()
        }
        Command::Grant(id) => LeaseGrantRequest { id: i64::from(id % 4), ttl: 60 }.into(),
        Command::Revoke(id) => LeaseRevokeRequest { id: i64::from(id % 4) }.into(),
    })
}

/// What the model answers; none where an answer has nothing to compare.
fn expected(model: &mut Model, request: &apply::Request) -> Result<Option<Reply>, Refused> {
    match request {
        apply::Request::Put(put) => model.put(put).map(|reply| Some(Reply::Put(reply))),
        apply::Request::DeleteRange(delete) => {
            Ok(Some(Reply::DeleteRange(model.delete_range(delete))))
        }
        apply::Request::Range(range) => model.range(range).map(|reply| Some(Reply::Range(reply))),
        apply::Request::Txn(txn) => model.txn(txn).map(|reply| Some(Reply::Txn(reply))),
        apply::Request::Compaction(compaction) => model.compact(compaction.revision).map(|()| None),
        apply::Request::LeaseGrant(grant) => match grant.id {
            0 => Err(Refused::LeaseNotFound),
            id if model.leases.insert(id) => Ok(None),
            _ => Err(Refused::LeaseExists),
        },
        apply::Request::LeaseRevoke(revoke) if model.revoke(revoke.id) => Ok(None),
        apply::Request::LeaseRevoke(_) => Err(Refused::LeaseNotFound),
        other => unreachable!("{} is not among the commands", other.kind()),
    }
}

type Answer = Result<Option<Reply>, Refused>;

struct World {
    place: Place,
    running: Option<(Store, StateMachine)>,
    model: Model,
    log: Vec<(apply::Request, Answer)>,
    flushed: usize,
}

fn open(place: &Place) -> (Store, StateMachine) {
    let engine = Engine::open(Path::new("/db"), &Options::in_memory(place.clone()));
    let store = Store::open(engine.expect("opens")).expect("loads");
    let machine = StateMachine::load(&store).expect("loads");
    (store, machine)
}

impl World {
    fn apply(&mut self, entry: usize) {
        let (request, expected) = &self.log[entry];
        let (store, machine) = self.running.as_mut().expect("it runs");
        let mut write: Write<'_> = store.begin();
        write.start_entry(Index(entry as u64 + 1), Term(1));
        let payload = request.encode(&RequestHeader::default());
        let (header, command) = apply::Request::decode(payload).expect("a request");
        let command = command.expect("a command of this version");
        let outcome = machine.apply(&mut write, header, command).expect("works");
        write.commit().expect("commits");
        match (outcome, expected) {
            (Ok((reply, _)), Ok(Some(expected))) => assert_eq!(reply, *expected, "{request:?}"),
            (Ok(_), Ok(None)) => {}
            (Err(Error::Refused(refused)), Err(expected)) => assert_eq!(refused, *expected),
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}: {request:?}"),
        }
    }

    fn step(&mut self, step: Step) {
        let store = || self.running.as_ref().expect("it runs").0.clone();
        match step {
            Step::Do(command) => {
                let Some(request) = proposal(&command, &self.model) else { return };
                let answer = expected(&mut self.model, &request);
                self.log.push((request, answer));
                self.apply(self.log.len() - 1);
            }
            Step::Sweep(changes) => {
                store().compact_step(usize::from(changes % 8) + 1).expect("works");
            }
            Step::Flush => {
                store().flush().expect("works");
                self.flushed = self.log.len();
            }
            Step::Crash => {
                self.running = None;
                self.running = Some(open(&self.place));
                assert_eq!(store_applied(self), self.flushed);
                (self.flushed..self.log.len()).for_each(|entry| self.apply(entry));
            }
        }
    }
}

fn store_applied(world: &World) -> usize {
    world.running.as_ref().expect("it runs").0.applied().0 as usize
}

pub fn run(input: &[u8]) {
    let Some(steps) = structured::<Vec<Step>>(input) else { return };
    let place = Place::mem_env().expect("an environment in memory");
    let running = Some(open(&place));
    let mut world = World { place, running, model: Model::new(), log: Vec::new(), flushed: 0 };
    for step in steps.into_iter().take(64) {
        world.step(step);
    }
    let all = RangeRequest { key: b"\0"[..].into(), range_end: b"\0"[..].into(), ..<_>::default() };
    let store = &world.running.as_ref().expect("it runs").0;
    for revision in 0..=world.model.revision() {
        let range = RangeRequest { revision, ..all.clone() };
        assert_eq!(store.view().range(&range).expect("works"), world.model.range(&range));
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    noises()
}
