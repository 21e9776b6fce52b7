//! What was acknowledged is there in the end, on every member: checked by what the members answer when
//! all is over, not by the log.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use super::order::Order;
use super::space::inside;
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation};
use crate::facts::verdict::Violation;

const PROPERTY: &str = "acknowledged writes are there";

pub fn check(record: &Record) -> Vec<Violation> {
    let closing = record.operations.iter().filter(|op| op.workload == "closing");
    let order = Order::new(record);
    let puts = newest_puts(record);
    closing.flat_map(|read| examine(record, &order, &puts, read)).collect()
}

/// By key, the acknowledged put with the newest revision.
fn newest_puts(record: &Record) -> BTreeMap<&Bytes, (i64, &Operation)> {
    let mut newest: BTreeMap<&Bytes, (i64, &Operation)> = BTreeMap::new();
    for operation in &record.operations {
        let (Call::Put(put, Ok(_)), Some(revision)) = (&operation.call, operation.revision())
        else {
            continue;
        };
        let known = newest.entry(&put.key).or_insert((revision, operation));
        if known.0 < revision {
            *known = (revision, operation);
        }
    }
    newest
}

/// One member's account of everything.
fn examine(
    record: &Record,
    order: &Order,
    puts: &BTreeMap<&Bytes, (i64, &Operation)>,
    read: &Operation,
) -> Vec<Violation> {
    let Call::Range(request, Ok(answer)) = &read.call else { return Vec::new() };
    let there: BTreeMap<&Bytes, &KeyValue> = answer.kvs.iter().map(|kv| (&kv.key, kv)).collect();
    let mut violations = Vec::new();
    let floor = order.floor(read);
    let at = read.revision().unwrap_or(0);
    if at < floor && request.serializable {
        // A learner that is not there yet: the read is repeated.
        return violations;
    }
    if at < floor {
        let text = format!("{read}: is at {at}, {floor} had been answered");
        violations.push(Violation::new("durability", PROPERTY, text).proved_by(read.proof()));
    }
    for (key, (revision, put)) in puts {
        if put.ended >= read.began || !inside(key, &request.key, &request.range_end) {
            continue;
        }
        let kept = match there.get(key) {
            Some(kv) => kv.mod_revision >= *revision,
            None => put_on_lease(put) || record.operations.iter().any(|op| may_delete(op, key)),
        };
        if !kept {
            let text = format!("{put}: at {revision}, in the end there is {:?}", there.get(key));
            let violation = Violation::new("durability", PROPERTY, text);
            violations.push(violation.proved_by(put.proof()).proved_by(read.proof()));
        }
    }
    violations
}

fn put_on_lease(operation: &Operation) -> bool {
    matches!(&operation.call, Call::Put(put, _) if put.lease != 0 || put.ignore_lease)
}

/// Whether a call may have deleted the key. Txns are taken to delete anything, and to hang it on
/// leases: the replay knows better.
fn may_delete(operation: &Operation, key: &[u8]) -> bool {
    match &operation.call {
        Call::Delete(delete, _) => inside(key, &delete.key, &delete.range_end),
        Call::Txn(..) => true,
        Call::Put(put, _) => put.key == key && put.lease != 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{RangeRequest, RangeResponse};

    use super::*;
    use crate::check::fixture::{Fixture, header, kv, put, texts};
    use crate::facts::request;

    #[test]
    fn keys_lost_and_found_again_are_violations() {
        let said = |revision: i64, kvs: Vec<KeyValue>, deleted: bool| {
            let everything = RangeRequest { range_end: vec![0].into(), ..request::get("\0") };
            let answer = RangeResponse { header: header(revision), kvs, ..Default::default() };
            let read = Call::Range(everything, Ok(answer));
            let mut fixture = Fixture::default().call(0, 1, put("a", "1", Some(2)));
            if deleted {
                let silence = Err(crate::facts::history::Failure::silence());
                fixture = fixture.call(2, 3, Call::Delete(request::delete("a"), silence));
            }
            texts(&check(&fixture.call_of(1, "closing", 4, 5, read).record))
        };
        assert_eq!(said(2, vec![kv(2, "a", "1")], false), "");
        assert_eq!(said(3, vec![kv(3, "a", "2")], false), "", "overwritten");
        assert!(said(2, vec![], false).contains("in the end there is None"));
        assert_eq!(said(3, vec![], true), "", "it may have been deleted");
        assert!(said(2, vec![kv(1, "a", "0")], false).contains("at 2, in the end"));
        assert!(said(1, vec![], false).contains("2 had been answered"));
    }
}
