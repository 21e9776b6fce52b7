//! Are all answers explained by one order of all writes? The log of events, as a watch from the
//! beginning tells it, is replayed through a plain map; every answer must be what the map says at its
//! revision, revisions must follow real time, every acknowledged write must be there, and no write
//! may be there that nobody asked for, or twice.
//!
//! Each written value is unique, so a value in the log names the call that wrote it. As revisions are
//! part of every answer, this decides linearizability without a search.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, compare::CompareResult,
    compare::TargetUnion, request_op::Request, response_op::Response,
};
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use crate::history::{Call, Operation};

/// The key space after one revision.
type State = BTreeMap<Bytes, KeyValue>;

/// All events of one revision, by revision.
pub type Log = BTreeMap<i64, Vec<Event>>;

/// What does not fit, in words; empty when everything does.
pub fn check(log: &Log, operations: &[Operation]) -> Vec<String> {
    let mut faults = Vec::new();
    let states = replay(log, &mut faults);
    for operation in operations.iter().filter(|operation| operation.answered()) {
        if let Err(fault) = explain(log, &states, operation) {
            faults.push(format!("client {}: {fault}: {:?}", operation.client, operation.call));
        }
    }
    real_time(operations, &mut faults);
    origins(log, operations, &mut faults);
    faults
}

/// The state after every revision, from 1 (empty) on. Checks what every event says of itself.
fn replay(log: &Log, faults: &mut Vec<String>) -> BTreeMap<i64, State> {
    let mut states = BTreeMap::from([(1, State::new())]);
    let mut state = State::new();
    let mut last = 1;
    for (revision, events) in log {
        if *revision != last + 1 {
            faults.push(format!("the log goes from revision {last} to {revision}"));
        }
        last = *revision;
        for event in events {
            let Some(kv) = &event.kv else {
                faults.push(format!("an event of revision {revision} has no key"));
                continue;
            };
            if kv.mod_revision != *revision {
                faults.push(format!("an event of revision {revision} says {}", kv.mod_revision));
            }
            if event.r#type() == EventType::Delete {
                if state.remove(&kv.key).is_none() {
                    faults.push(format!("revision {revision} deletes {:?}, not there", kv.key));
                }
                continue;
            }
            let (created, version) = match state.get(&kv.key) {
                Some(before) => (before.create_revision, before.version + 1),
                None => (*revision, 1),
            };
            if (kv.create_revision, kv.version) != (created, version) {
                faults.push(format!("revision {revision}: {kv:?} should be {created}/{version}"));
            }
            state.insert(kv.key.clone(), kv.clone());
        }
        states.insert(*revision, state.clone());
    }
    states
}

/// Whether the answer is what the map says.
fn explain(log: &Log, states: &BTreeMap<i64, State>, operation: &Operation) -> Result<(), String> {
    let revision = operation.revision().ok_or("an answer without a header")?;
    let after = states.get(&revision).ok_or_else(|| format!("revision {revision} is lost"))?;
    let before = |changed: bool| if changed { states.get(&(revision - 1)) } else { Some(after) };
    match &operation.call {
        Call::Put(put, Some(_)) => {
            let written = log.get(&revision).is_some_and(|events| {
                events.iter().any(|e| e.kv.as_ref().is_some_and(|kv| kv.value == put.value))
            });
            if written { Ok(()) } else { Err(format!("not in the log at revision {revision}")) }
        }
        Call::Delete(delete, Some(answer)) => {
            let state = before(answer.deleted > 0).ok_or("no state before it")?;
            let there = select(state, &delete.key, &delete.range_end).count() as i64;
            if there == answer.deleted {
                Ok(())
            } else {
                Err(format!("deleted {}, there were {there}", answer.deleted))
            }
        }
        Call::Range(request, Some(answer)) => range(after, request, answer),
        Call::Txn(txn, Some(answer)) => {
            let taken = if answer.succeeded { &txn.success } else { &txn.failure };
            let changed = changed(answer);
            let state = before(changed).ok_or("no state before it")?;
            if holds(state, txn) != answer.succeeded {
                return Err(format!("took the wrong branch at revision {revision}"));
            }
            branch(state, taken, answer)
        }
        _ => Ok(()),
    }
}

/// Whether a txn got a revision of its own.
fn changed(answer: &TxnResponse) -> bool {
    answer.responses.iter().any(|op| match &op.response {
        Some(Response::ResponsePut(_)) => true,
        Some(Response::ResponseDeleteRange(deleted)) => deleted.deleted > 0,
        _ => false,
    })
}

/// The compares our workloads use: mod revision, version, value of one key.
fn holds(state: &State, txn: &TxnRequest) -> bool {
    txn.compare.iter().all(|compare| {
        let kv = state.get(&compare.key);
        let ordering = match &compare.target_union {
            Some(TargetUnion::ModRevision(wanted)) => {
                kv.map_or(0, |kv| kv.mod_revision).cmp(wanted)
            }
            Some(TargetUnion::Version(wanted)) => kv.map_or(0, |kv| kv.version).cmp(wanted),
            Some(TargetUnion::CreateRevision(wanted)) => {
                kv.map_or(0, |kv| kv.create_revision).cmp(wanted)
            }
            Some(TargetUnion::Value(wanted)) => match kv {
                Some(kv) => kv.value.cmp(wanted),
                None => return false,
            },
            _ => return true,
        };
        match compare.result() {
            CompareResult::Equal => ordering.is_eq(),
            CompareResult::Greater => ordering.is_gt(),
            CompareResult::Less => ordering.is_lt(),
            CompareResult::NotEqual => ordering.is_ne(),
        }
    })
}

/// Reads inside a txn that come before its first write see the state before it.
fn branch(state: &State, taken: &[RequestOp], answer: &TxnResponse) -> Result<(), String> {
    if taken.len() != answer.responses.len() {
        return Err(format!("{} operations, {} answers", taken.len(), answer.responses.len()));
    }
    for (op, response) in taken.iter().zip(&answer.responses) {
        match (&op.request, &response.response) {
            (Some(Request::RequestRange(request)), Some(Response::ResponseRange(answer))) => {
                range(state, request, answer)?;
            }
            (Some(Request::RequestPut(_)), Some(Response::ResponsePut(_)))
            | (Some(Request::RequestDeleteRange(_)), Some(Response::ResponseDeleteRange(_))) => {
                return Ok(());
            }
            _ => return Err("an answer of another kind".into()),
        }
    }
    Ok(())
}

fn range(state: &State, request: &RangeRequest, answer: &RangeResponse) -> Result<(), String> {
    let all: Vec<_> = select(state, &request.key, &request.range_end).cloned().collect();
    if answer.count != all.len() as i64 {
        return Err(format!("counted {}, there are {}", answer.count, all.len()));
    }
    let limit = usize::try_from(request.limit).unwrap_or(0);
    let cut = limit > 0 && all.len() > limit;
    let wanted = if cut { &all[..limit] } else { &all[..] };
    if answer.kvs != wanted || answer.more != cut {
        return Err(format!("read {:?}, there is {wanted:?}", answer.kvs));
    }
    Ok(())
}

/// etcd's ranges: one key, up to an end, or from a key on.
fn select<'a>(state: &'a State, key: &Bytes, end: &Bytes) -> impl Iterator<Item = &'a KeyValue> {
    let (key, end) = (key.clone(), end.clone());
    let inside = move |kv: &&KeyValue| match &end[..] {
        [] => kv.key == key,
        [0] => kv.key >= key,
        _ => kv.key >= key && kv.key < end,
    };
    state.values().filter(inside)
}

/// What ended before something else began has a smaller revision if that is a write, and none larger
/// if it is a read.
fn real_time(operations: &[Operation], faults: &mut Vec<String>) {
    let mut answered: Vec<_> = operations.iter().filter(|op| op.answered()).collect();
    answered.sort_by_key(|operation| operation.began);
    let mut ended: Vec<_> = answered.clone();
    ended.sort_by_key(|operation| operation.ended);
    let (mut newest, mut next) = (0, 0);
    for operation in answered {
        while next < ended.len() && ended[next].ended < operation.began {
            newest = newest.max(ended[next].revision().unwrap_or(0));
            next += 1;
        }
        let revision = operation.revision().unwrap_or(0);
        if revision < newest && !serializable(&operation.call) {
            faults.push(format!(
                "client {} got revision {revision} after {newest} had been answered: {:?}",
                operation.client, operation.call
            ));
        }
    }
}

fn serializable(call: &Call) -> bool {
    matches!(call, Call::Range(request, _) if request.serializable)
}

/// Every value in the log was asked for, by one call, and is there once.
fn origins(log: &Log, operations: &[Operation], faults: &mut Vec<String>) {
    let mut asked = BTreeSet::new();
    for operation in operations {
        match &operation.call {
            Call::Put(put, _) => drop(asked.insert(put.value.clone())),
            Call::Txn(txn, _) => {
                for op in txn.success.iter().chain(&txn.failure) {
                    if let Some(Request::RequestPut(put)) = &op.request {
                        asked.insert(put.value.clone());
                    }
                }
            }
            _ => {}
        }
    }
    let mut seen = BTreeMap::new();
    for (revision, events) in log {
        for kv in
            events.iter().filter(|e| e.r#type() == EventType::Put).filter_map(|e| e.kv.as_ref())
        {
            if !asked.contains(&kv.value) {
                faults.push(format!("revision {revision} writes {:?}, which nobody did", kv.value));
            }
            if let Some(first) = seen.insert(kv.value.clone(), *revision) {
                faults.push(format!("{:?} is written at {first} and at {revision}", kv.value));
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any instant will do: only differences count")]
mod tests {
    use std::time::{Duration, Instant};

    use quorate_proto::etcdserverpb::{PutRequest, PutResponse, ResponseHeader};

    use super::*;

    fn header(revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..Default::default() })
    }

    fn kv(key: &str, value: &str, revision: i64) -> KeyValue {
        KeyValue {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            lease: 0,
        }
    }

    fn put(start: Instant, at: u64, key: &str, value: &str, revision: Option<i64>) -> Operation {
        let request = PutRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
            ..Default::default()
        };
        let answer = revision.map(|at| PutResponse { header: header(at), prev_kv: None });
        operation(start, at, Call::Put(request, answer))
    }

    fn get(start: Instant, at: u64, key: &str, revision: i64, found: Vec<KeyValue>) -> Operation {
        let request =
            RangeRequest { key: Bytes::copy_from_slice(key.as_bytes()), ..Default::default() };
        let count = found.len() as i64;
        let answer = RangeResponse { header: header(revision), kvs: found, more: false, count };
        operation(start, at, Call::Range(request, Some(answer)))
    }

    fn operation(start: Instant, at: u64, call: Call) -> Operation {
        let began = start + Duration::from_secs(at);
        Operation { client: 0, began, ended: began + Duration::from_millis(500), call }
    }

    fn log(kvs: &[KeyValue]) -> Log {
        let event = |kv: &KeyValue| Event { r#type: 0, kv: Some(kv.clone()), prev_kv: None };
        kvs.iter().map(|kv| (kv.mod_revision, vec![event(kv)])).collect()
    }

    /// Each way to be wrong is told, and what is right is not.
    #[test]
    fn faults_are_found() {
        let t = Instant::now();
        let (a, b) = (kv("a", "1", 2), kv("b", "2", 3));
        let good = log(&[a.clone(), b.clone()]);
        let said = |log: &Log, operations: &[Operation]| check(log, operations).join("; ");
        let puts = [put(t, 0, "a", "1", Some(2)), put(t, 1, "b", "2", Some(3))];
        assert_eq!(said(&good, &puts), "");

        let unanswered = [puts[0].clone(), put(t, 1, "b", "2", None)];
        assert_eq!(said(&good, &unanswered), "", "it may have happened");
        assert_eq!(said(&log(std::slice::from_ref(&a)), &unanswered), "", "or not");

        let lost = said(&log(std::slice::from_ref(&a)), &puts);
        assert!(lost.contains("revision 3 is lost"), "{lost}");
        let stale = [puts[0].clone(), get(t, 1, "a", 1, vec![])];
        assert!(said(&log(std::slice::from_ref(&a)), &stale).contains("got revision 1 after 2"));
        let wrong = [puts[0].clone(), get(t, 1, "a", 2, vec![])];
        assert!(said(&log(std::slice::from_ref(&a)), &wrong).contains("counted 0, there are 1"));
        assert!(said(&good, &puts[..1]).contains("which nobody did"));
        let twice = log(&[a.clone(), KeyValue { value: "1".into(), ..b }]);
        assert!(said(&twice, &puts[..1]).contains("is written at 2 and at 3"));
    }
}
