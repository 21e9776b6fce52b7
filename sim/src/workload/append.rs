//! Lists that only grow: every reader must find a beginning of the list as it is in the end, and
//! nothing that was appended for certain may be missing from it, or be there twice.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use quorate_proto::etcdserverpb::request_op::Request;

use super::{Client, Work, Workload, calls};
use crate::facts::evidence::{Evidence, Record};
use crate::facts::history::{Call, Operation};
use crate::facts::request::{Op, get, put, txn, unchanged};
use crate::facts::verdict::Violation;

const LISTS: u64 = 4;

pub struct Append;

impl Workload for Append {
    fn name(&self) -> &'static str {
        "append"
    }

    fn step<'a>(&'a mut self, client: &'a Client) -> Work<'a> {
        Box::pin(async move {
            let key = Bytes::from(format!("append/{}", client.below(LISTS)));
            let answer = client.range(get(key.clone())).await;
            let Ok(found) = &answer else { return client.rest(&answer, 0).await };
            let list = found.kvs.first();
            let revision = list.map_or(0, |kv| kv.mod_revision);
            let mut longer = list.map_or(Vec::new(), |kv| kv.value.to_vec());
            longer.extend_from_slice(&client.value());
            longer.push(b' ');
            let success = vec![put(key.clone(), longer).op()];
            let append = txn(vec![unchanged(key, revision)], success, vec![]);
            let answer = client.txn(append).await;
            client.rest(&answer, 60).await;
        })
    }

    fn check(&self, evidence: &Evidence) -> Vec<Violation> {
        examine(&evidence.record())
    }
}

fn examine(record: &Record) -> Vec<Violation> {
    let mut last: BTreeMap<&Bytes, (i64, &Bytes)> = BTreeMap::new();
    for operation in calls(record, "append") {
        for kv in read(operation) {
            let known = last.entry(&kv.key).or_insert((kv.mod_revision, &kv.value));
            if known.0 < kv.mod_revision {
                *known = (kv.mod_revision, &kv.value);
            }
        }
    }
    let mut violations = Vec::new();
    let mut fault = |property, operation: &Operation, list: &Bytes| {
        let text = format!("{operation}: the list is {}", String::from_utf8_lossy(list));
        violations.push(Violation::new("append", property, text).proved_by(operation.proof()));
    };
    for operation in calls(record, "append") {
        for kv in read(operation) {
            if !last[&kv.key].1.starts_with(&kv.value) {
                fault("a list only grows", operation, last[&kv.key].1);
            }
            let elements: Vec<_> = kv.value.split(|byte| *byte == b' ').collect();
            if elements.iter().collect::<BTreeSet<_>>().len() != elements.len() {
                fault("an element is there once", operation, &kv.value);
            }
        }
        let Some((key, revision, list)) = appended(operation) else { continue };
        // What was read later must go on from there.
        if let Some((at, longest)) = last.get(key)
            && *at >= revision
            && !longest.starts_with(list)
        {
            fault("what was appended stays", operation, longest);
        }
    }
    violations
}

fn read(operation: &Operation) -> &[quorate_proto::mvccpb::KeyValue] {
    match &operation.call {
        Call::Range(_, Ok(answer)) => &answer.kvs,
        _ => &[],
    }
}

/// What a txn that was answered appended: to which list, at which revision, and all of it then.
fn appended(operation: &Operation) -> Option<(&Bytes, i64, &Bytes)> {
    let Call::Txn(txn, Ok(answer)) = &operation.call else { return None };
    match &txn.success.first()?.request {
        Some(Request::RequestPut(put)) if answer.succeeded => {
            Some((&put.key, operation.revision()?, &put.value))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::TxnResponse;

    use super::*;
    use crate::check::fixture::{Fixture, get as found, header, kv, texts};

    #[test]
    fn what_is_lost_or_twice_is_found() {
        let read = |at: i64, list| found("append/0", at, vec![kv(at, "append/0", list)]);
        let said = |lists: &[(i64, &'static str)]| {
            let append = txn(vec![], vec![put("append/0", "a ").op()], vec![]);
            let answer = TxnResponse { header: header(2), succeeded: true, responses: vec![] };
            let fixture = Fixture::default();
            let mut fixture = fixture.call_of(0, "append", 0, 1, Call::Txn(append, Ok(answer)));
            for (at, list) in lists {
                fixture = fixture.call_of(0, "append", 2, 3, read(*at, list));
            }
            texts(&examine(&fixture.record))
        };
        assert_eq!(said(&[(2, "a "), (3, "a b "), (4, "a b c ")]), "");
        assert!(said(&[(3, "b ")]).contains("what was appended stays"));
        assert!(said(&[(3, "a b "), (4, "a c ")]).contains("a list only grows"));
        assert!(said(&[(3, "a b a ")]).contains("is there once"));
    }
}
