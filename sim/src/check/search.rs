//! Is there any order at all? A search for one in which every call on a key takes effect at once,
//! between its beginning and its end, and is answered as a register would: by Wing and Gong
//! (1993) with Lowe's memory of configurations (2017). It uses no revision and no log, so it checks
//! also when those are what is wrong. Calls on many keys are checked key by key.
//!
//! A call without an answer may take effect at any time, or never. The search gives a key up when it
//! would have to remember too much.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    compare::CompareResult, compare::CompareTarget, compare::TargetUnion, request_op::Request,
    response_op::Response,
};

use super::bounded;
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation};
use crate::facts::verdict::{Proof, Violation};

/// Configurations that are remembered for one key.
const CONFIGURATIONS_MAX: usize = 4_096;
/// Calls under way at once on one key, those that never ended included.
const OPEN_MAX: usize = 60;

/// What a key holds: a written value by its number, or nothing.
type State = Option<u32>;

/// What a call does to one key, and what its answer has of that key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Read(State),
    Write(u32),
    /// With an answer that shows whether the key was there.
    Delete(Option<bool>),
    /// Takes place only if the test holds, or does not, as the answer has it; unknown otherwise.
    If {
        test: Test,
        write: Option<u32>,
        delete: bool,
    },
    /// A txn that was answered: the test was so, and then the key was left as it was.
    Saw(Test),
}

/// What a txn's compares require of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Test {
    Is(State),
    IsNot(State),
    Exists(bool),
    /// Nothing that could be checked.
    Any,
}

#[derive(Clone, Debug)]
struct Step<'a> {
    effect: Effect,
    began: Instant,
    /// None: it may take effect whenever, or never.
    ended: Option<Instant>,
    operation: &'a Operation,
}

/// Every key of which no order explains the calls.
pub fn check(record: &Record) -> Vec<Violation> {
    let mut values = Values::default();
    let mut keys: BTreeMap<Bytes, Vec<Step<'_>>> = BTreeMap::new();
    let hidden = Hidden::new(&record.operations);
    for key in single_keys(&record.operations).into_iter().filter(|key| !hidden.hides(key)) {
        keys.insert(key, Vec::new());
    }
    for operation in &record.operations {
        for (key, steps) in touched(&mut keys, operation) {
            for effect in effects(key, operation, &mut values) {
                let (began, answered) = (operation.began, operation.answered());
                let ended = answered.then_some(operation.ended);
                steps.push(Step { effect, began, ended, operation });
            }
        }
    }
    let stuck = keys.iter().filter_map(|(key, steps)| match search(steps) {
        Found::Order | Found::TooMuch => None,
        Found::Stuck(step) => Some(violation(record, key, steps[step].operation)),
    });
    bounded(stuck.collect())
}

fn violation(record: &Record, key: &[u8], operation: &Operation) -> Violation {
    let at = record.at(operation.began);
    let text = format!(
        "no earlier call to {} explains client {} at {:.3} s: {:?}",
        key.escape_ascii(),
        operation.client,
        at.as_secs_f64(),
        operation.call
    );
    let began_us = at.as_micros() as u64;
    Violation::new("search", "some order explains all answers", text)
        .proved_by(Proof::Operation { client: operation.client, began_us })
}

/// Numbers for values, so that states are small.
#[derive(Default)]
struct Values(BTreeMap<Bytes, u32>);

impl Values {
    fn number(&mut self, value: &Bytes) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(value.clone()).or_insert(next)
    }
}

/// Keys that calls name by themselves.
fn single_keys(operations: &[Operation]) -> BTreeSet<Bytes> {
    let mut keys = BTreeSet::new();
    for operation in operations {
        match &operation.call {
            Call::Put(put, _) => drop(keys.insert(put.key.clone())),
            Call::Delete(delete, _) if delete.range_end.is_empty() => {
                keys.insert(delete.key.clone());
            }
            Call::Txn(txn, _) => keys.extend(written(txn)),
            _ => {}
        }
    }
    keys
}

/// Keys that are not checked: those that go with leases, as no call does it, and those that
/// txns inside of txns change.
#[derive(Default)]
struct Hidden {
    keys: BTreeSet<Bytes>,
    ranges: Vec<(Bytes, Bytes)>,
}

impl Hidden {
    fn new(operations: &[Operation]) -> Self {
        let mut hidden = Self::default();
        for operation in operations {
            match &operation.call {
                Call::Put(put, _) => hidden.put(put),
                Call::Txn(txn, _) => hidden.txn(txn, false),
                _ => {}
            }
        }
        hidden
    }

    fn hides(&self, key: &[u8]) -> bool {
        self.keys.contains(key) || self.ranges.iter().any(|(from, end)| within(key, from, end))
    }

    fn put(&mut self, put: &PutRequest) {
        if put.lease != 0 || put.ignore_lease || put.ignore_value {
            self.keys.insert(put.key.clone());
        }
    }

    fn txn(&mut self, txn: &TxnRequest, inside: bool) {
        for op in txn.success.iter().chain(&txn.failure) {
            match &op.request {
                Some(Request::RequestPut(put)) if inside => drop(self.keys.insert(put.key.clone())),
                Some(Request::RequestPut(put)) => self.put(put),
                Some(Request::RequestDeleteRange(delete)) if inside => {
                    self.ranges.push((delete.key.clone(), delete.range_end.clone()));
                }
                Some(Request::RequestTxn(nested)) => self.txn(nested, true),
                _ => {}
            }
        }
    }
}

/// All keys that a txn may put, in whatever branch and depth.
fn written(txn: &TxnRequest) -> Vec<Bytes> {
    let mut keys = Vec::new();
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestPut(put)) => keys.push(put.key.clone()),
            Some(Request::RequestTxn(nested)) => keys.extend(written(nested)),
            _ => {}
        }
    }
    keys
}

/// The keys that a call may concern.
fn touched<'k, 'o>(
    keys: &'k mut BTreeMap<Bytes, Vec<Step<'o>>>,
    operation: &Operation,
) -> Vec<(&'k Bytes, &'k mut Vec<Step<'o>>)> {
    let one = match &operation.call {
        Call::Put(put, _) => Some(&put.key),
        Call::Delete(delete, _) if delete.range_end.is_empty() => Some(&delete.key),
        Call::Range(range, _) if range.range_end.is_empty() => Some(&range.key),
        Call::Range(..) | Call::Delete(..) | Call::Txn(..) => None,
        _ => return Vec::new(),
    };
    match one {
        Some(key) => keys.range_mut(key.clone()..=key.clone()).collect(),
        None => keys.iter_mut().collect(),
    }
}

/// What the call does to the key; nothing when it does not concern it or proves nothing.
fn effects(key: &Bytes, operation: &Operation, values: &mut Values) -> Vec<Effect> {
    if operation.failure().is_some_and(|failure| failure.never) {
        return Vec::new();
    }
    // A read-only txn that any member may answer is about some past state.
    if matches!(operation.call, Call::Txn(..)) && !operation.linearizable() {
        return Vec::new();
    }
    match &operation.call {
        Call::Put(put, _) => vec![Effect::Write(values.number(&put.value))],
        Call::Delete(delete, answer) if within(key, &delete.key, &delete.range_end) => {
            let one = delete.range_end.is_empty();
            let deleted = answer.as_ref().ok().filter(|_| one).map(|answer| answer.deleted > 0);
            vec![Effect::Delete(deleted)]
        }
        Call::Range(range, Ok(answer)) => read(key, range, answer, values).into_iter().collect(),
        Call::Txn(txn, answer) => match answer {
            Ok(answer) => txn_answered(key, txn, answer, values),
            Err(_) => txn_unknown(key, txn, values),
        },
        _ => Vec::new(),
    }
}

fn within(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        _ => key >= from && key < end,
    }
}

/// What a read of the present has of the key.
fn read(
    key: &Bytes,
    range: &RangeRequest,
    answer: &RangeResponse,
    values: &mut Values,
) -> Option<Effect> {
    let plain = !range.serializable
        && range.revision == 0
        && !range.count_only
        && !range.keys_only
        && (range.min_mod_revision, range.max_mod_revision) == (0, 0)
        && (range.min_create_revision, range.max_create_revision) == (0, 0);
    if !plain || !within(key, &range.key, &range.range_end) {
        return None;
    }
    let found = answer.kvs.iter().find(|kv| kv.key == *key);
    match found {
        Some(kv) => Some(Effect::Read(Some(values.number(&kv.value)))),
        // Left out, perhaps, for want of room.
        None if answer.more => None,
        None => Some(Effect::Read(None)),
    }
}

/// What an answered txn was to the key: its compares held or did not, then came its operations.
fn txn_answered(
    key: &Bytes,
    txn: &TxnRequest,
    answer: &TxnResponse,
    values: &mut Values,
) -> Vec<Effect> {
    let taken = if answer.succeeded { &txn.success } else { &txn.failure };
    // All of several compares held, or any of them did not.
    let checked = match &txn.compare[..] {
        [only] => vec![test(key, only, answer.succeeded, values)],
        all if answer.succeeded => all.iter().map(|one| test(key, one, true, values)).collect(),
        _ => Vec::new(),
    };
    let checked = checked.into_iter().filter(|test| *test != Test::Any);
    // One step must be at once: the reads before a write, and the compares, are checked together with
    // it only when there is but one of them.
    let mut tests: Vec<Test> = checked.collect();
    let mut write = None;
    let mut delete = false;
    for (op, response) in taken.iter().zip(&answer.responses) {
        match (&op.request, &response.response) {
            (Some(Request::RequestRange(range)), Some(Response::ResponseRange(answer)))
                if write.is_none() && !delete =>
            {
                if let Some(Effect::Read(state)) = read(key, range, answer, values) {
                    tests.push(Test::Is(state));
                }
            }
            (Some(Request::RequestPut(put)), _) if put.key == *key => {
                (write, delete) = (Some(values.number(&put.value)), false);
            }
            (Some(Request::RequestDeleteRange(request)), _)
                if within(key, &request.key, &request.range_end) =>
            {
                (write, delete) = (None, true);
            }
            _ => {}
        }
    }
    // The strongest of them stands for all: what the key was is more than whether it was.
    tests.sort_by_key(|test| match test {
        Test::Is(_) => 0,
        Test::Exists(_) => 1,
        Test::IsNot(_) => 2,
        Test::Any => 3,
    });
    let test = tests.first().copied().unwrap_or(Test::Any);
    match (test, write, delete) {
        (Test::Any, None, false) => Vec::new(),
        (test, None, false) => vec![Effect::Saw(test)],
        (test, write, delete) => vec![Effect::If { test, write, delete }],
    }
}

/// A txn without an answer may have taken either branch; both are let happen to the key.
fn txn_unknown(key: &Bytes, txn: &TxnRequest, values: &mut Values) -> Vec<Effect> {
    let mut effects = Vec::new();
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(Request::RequestPut(put)) if put.key == *key => {
                effects.push(Effect::Write(values.number(&put.value)));
            }
            Some(Request::RequestDeleteRange(delete))
                if within(key, &delete.key, &delete.range_end) =>
            {
                effects.push(Effect::Delete(None));
            }
            _ => {}
        }
    }
    effects
}

/// What follows for the key from a compare that held, or did not.
fn test(key: &Bytes, compare: &Compare, held: bool, values: &mut Values) -> Test {
    if compare.key != *key || !compare.range_end.is_empty() {
        return Test::Any;
    }
    let equal = match compare.result() {
        CompareResult::Equal => held,
        CompareResult::NotEqual => !held,
        CompareResult::Greater | CompareResult::Less => return Test::Any,
    };
    match (compare.target(), &compare.target_union) {
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => {
            let state = Some(values.number(value));
            // A compare of the value of a key that is not there never holds.
            match (compare.result(), equal) {
                (_, true) if held => Test::Is(state),
                (CompareResult::Equal, false) => Test::IsNot(state),
                _ => Test::Any,
            }
        }
        (CompareTarget::Version, Some(TargetUnion::Version(0)))
        | (CompareTarget::Create, Some(TargetUnion::CreateRevision(0)))
        | (CompareTarget::Mod, Some(TargetUnion::ModRevision(0))) => Test::Exists(!equal),
        // Other versions and revisions are what is not to be relied on here.
        (_, Some(_)) if held && equal => Test::Exists(true),
        _ => Test::Any,
    }
}

enum Found {
    Order,
    /// No order explains this step after those before it.
    Stuck(usize),
    TooMuch,
}

/// The state, and which of the open steps have taken effect, by slot.
type Configuration = (State, u64);

/// Goes through beginnings and ends in the order of time with all configurations that are possible.
fn search(steps: &[Step<'_>]) -> Found {
    let mut events: Vec<(Instant, bool, usize)> = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        events.push((step.began, false, at));
        events.extend(step.ended.map(|ended| (ended, true, at)));
    }
    // At one instant beginnings come first: what touches may be concurrent.
    events.sort_unstable();
    let mut slots: Vec<Option<usize>> = Vec::new();
    let mut slot_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut possible: BTreeSet<Configuration> = BTreeSet::from([(None, 0)]);
    for (_, ends, at) in events {
        if !ends {
            let free = slots.iter().position(Option::is_none).unwrap_or(slots.len());
            if free == OPEN_MAX {
                return Found::TooMuch;
            }
            if free == slots.len() {
                slots.push(None);
            }
            slots[free] = Some(at);
            slot_of.insert(at, free);
            continue;
        }
        let slot = slot_of.remove(&at).expect("it has begun");
        let Some(next) = taken(&possible, slot, &slots, steps) else { return Found::TooMuch };
        if next.is_empty() {
            return Found::Stuck(at);
        }
        slots[slot] = None;
        possible = next;
    }
    Found::Order
}

/// All configurations in which the step in `slot` has taken effect; its slot is free again in them.
/// None when there are too many to look at.
fn taken(
    possible: &BTreeSet<Configuration>,
    slot: usize,
    slots: &[Option<usize>],
    steps: &[Step<'_>],
) -> Option<BTreeSet<Configuration>> {
    let bit = 1_u64 << slot;
    let mut next = BTreeSet::new();
    let mut seen = possible.clone();
    let mut to_look: Vec<Configuration> = possible.iter().copied().collect();
    while let Some((state, done)) = to_look.pop() {
        if done & bit != 0 {
            next.insert((state, done & !bit));
            continue;
        }
        for (other, at) in slots.iter().enumerate() {
            let Some(at) = at.filter(|_| done & (1 << other) == 0) else { continue };
            if let Some(after) = apply(state, steps[at].effect)
                && seen.insert((after, done | 1 << other))
            {
                to_look.push((after, done | 1 << other));
            }
        }
        if seen.len() > CONFIGURATIONS_MAX {
            return None;
        }
    }
    Some(next)
}

/// The state after the effect; none if it cannot take place in this state.
fn apply(state: State, effect: Effect) -> Option<State> {
    let holds = |test: Test| match test {
        Test::Is(wanted) => state == wanted,
        Test::IsNot(other) => state != other,
        Test::Exists(wanted) => state.is_some() == wanted,
        Test::Any => true,
    };
    match effect {
        Effect::Read(seen) => (state == seen).then_some(state),
        Effect::Write(value) => Some(Some(value)),
        Effect::Delete(None) => Some(None),
        Effect::Delete(Some(there)) => (state.is_some() == there).then_some(None),
        Effect::Saw(test) => holds(test).then_some(state),
        Effect::If { test, write, delete } => {
            let after = if delete { None } else { write.or(state) };
            holds(test).then_some(after)
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests;
