//! Reads that any member may answer from what it has are about some state that there was: one revision,
//! whole, and none that is still to come. How old it may be is nowhere promised, except behind a proxy: what
//! was written through it is not older than what is kept there, and where it keeps answers in order
//! they are.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_proto::etcdserverpb::request_op::Request;

use super::model::Misfit;
use super::replay::explain;
use super::space::{Space, inside};
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation};
use crate::facts::verdict::Violation;

pub fn check(record: &Record) -> Vec<Violation> {
    let (space, _) = Space::replay(&record.log);
    let local = |op: &&Operation| {
        op.answered() && !op.linearizable() && matches!(op.call, Call::Range(..) | Call::Txn(..))
    };
    let checked = record.operations.iter().filter(local);
    let mut violations = proxies(record);
    violations.extend(checked.filter_map(|operation| {
        let fault = examine(&space, record, operation)?;
        let text = format!("{operation}: {fault}");
        let violation = Violation::new("serializable", "reads are of one past state", text);
        Some(violation.proved_by(operation.proof()))
    }));
    violations
}

/// What was answered through proxies is as new as it has to be.
fn proxies(record: &Record) -> Vec<Violation> {
    let mut through: BTreeMap<usize, Vec<&Operation>> = BTreeMap::new();
    for operation in record.operations.iter().filter(|operation| operation.answered()) {
        if let Some(proxy) = operation.proxy {
            through.entry(proxy).or_default().push(operation);
        }
    }
    let mut violations = Vec::new();
    for operations in through.values() {
        for read in operations {
            let (Some(revision), Some(least)) = (read.revision(), least(record, operations, read))
            else {
                continue;
            };
            if revision < least {
                let text = format!("{read}: got {revision}, the proxy had answered {least}");
                let property = "a proxy does not go back behind its answers";
                let violation = Violation::new("serializable", property, text);
                violations.push(violation.proved_by(read.proof()));
            }
        }
    }
    violations
}

/// The least revision that an answer through a proxy may have, after all that went through it before.
fn least(record: &Record, operations: &[&Operation], read: &Operation) -> Option<i64> {
    let before = operations.iter().filter(|other| other.ended < read.began);
    match &read.call {
        Call::Range(range, _) if range.serializable => {
            if !record.proxies_see_their_writes || range.revision != 0 {
                return None;
            }
            let span = (&range.key, &range.range_end);
            let met = before.filter(|other| meets(&other.call, span));
            met.filter_map(|other| other.revision()).max()
        }
        Call::Range(..) | Call::Txn(..) if record.proxies_ordered => {
            let about_keys = |call: &Call| {
                matches!(call, Call::Range(..) | Call::Txn(..) | Call::Put(..) | Call::Delete(..))
            };
            let told = before.filter(|other| about_keys(&other.call) && !other.may_be_kept());
            told.filter_map(|other| other.revision()).max()
        }
        _ => None,
    }
}

/// Whether a call has written where these keys are.
fn meets(call: &Call, (key, end): (&Bytes, &Bytes)) -> bool {
    let overlap = |from: &Bytes, to: &Bytes| inside(from, key, end) || inside(key, from, to);
    match call {
        Call::Put(put, _) => inside(&put.key, key, end),
        Call::Delete(delete, _) => overlap(&delete.key, &delete.range_end),
        Call::Txn(txn, Ok(answer)) => {
            let ops = if answer.succeeded { &txn.success } else { &txn.failure };
            ops.iter().any(|op| match &op.request {
                Some(Request::RequestPut(put)) => inside(&put.key, key, end),
                Some(Request::RequestDeleteRange(delete)) => {
                    overlap(&delete.key, &delete.range_end)
                }
                _ => false,
            })
        }
        _ => false,
    }
}

fn examine(space: &Space, record: &Record, operation: &Operation) -> Option<String> {
    let Some(revision) = operation.revision() else {
        return Some("an answer without a header".into());
    };
    if revision > space.last && !record.whole {
        return None;
    }
    if revision > space.last {
        return Some(format!(
            "revision {revision} is not in the log, which ends at {}",
            space.last
        ));
    }
    match explain(space, &record.log, operation, revision) {
        Ok(()) => None,
        Err(Misfit::Refused(text)) => Some(format!("was not refused with {text:?}")),
        Err(Misfit::Differs(text)) => Some(text),
    }
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::RangeRequest;

    use super::*;
    use crate::check::fixture::{Fixture, get, kv, put, texts};

    #[test]
    fn mixed_states_in_serializable_reads_are_violations() {
        let said = |revision, found| {
            let Call::Range(request, answer) = get("a", revision, found) else { unreachable!() };
            let request = RangeRequest { serializable: true, range_end: "z".into(), ..request };
            let log = Fixture::default().wrote(2, "a", "1").wrote(3, "b", "2");
            texts(&check(&log.call(4, 5, Call::Range(request, answer)).record))
        };
        let (a, b) = (kv(2, "a", "1"), kv(3, "b", "2"));
        assert_eq!(said(3, vec![a.clone(), b.clone()]), "");
        assert_eq!(said(2, vec![a.clone()]), "", "the past is allowed");
        assert_eq!(said(1, vec![]), "", "however far");
        assert!(said(2, vec![a, b.clone()]).contains("counted 2, there are 1"), "two states mixed");
        assert!(said(3, vec![b]).contains("counted 1, there are 2"));
        assert!(said(4, vec![]).contains("is not in the log"));
    }

    /// A put of `a` at 3 and a read of some kind after it, through proxies of these numbers.
    fn through(proxies: [usize; 2], read: RangeRequest, revision: i64) -> String {
        let Call::Range(_, answer) = get("a", revision, Vec::new()) else { unreachable!() };
        let log = Fixture::default().call(0, 1, put("a", "1", Some(3)));
        let mut fixture = log.call(4, 5, Call::Range(read, answer));
        for (operation, proxy) in fixture.record.operations.iter_mut().zip(proxies) {
            operation.proxy = Some(proxy);
        }
        fixture.record.proxies_see_their_writes = true;
        fixture.record.proxies_ordered = true;
        texts(&super::proxies(&fixture.record))
    }

    #[test]
    fn proxies_do_not_forget() {
        let read = |key: &'static str, serializable| RangeRequest {
            key: key.into(),
            serializable,
            ..Default::default()
        };
        assert_eq!(through([0, 0], read("a", true), 3), "");
        assert!(through([0, 0], read("a", true), 2).contains("got 2, the proxy had answered 3"));
        assert_eq!(through([0, 1], read("a", true), 2), "", "another proxy may be behind");
        assert_eq!(through([0, 0], read("b", true), 2), "", "it may have been kept since");
        let past = RangeRequest { revision: 1, ..read("a", true) };
        assert_eq!(through([0, 0], past, 2), "", "the past stays what it was");
        assert!(through([0, 0], read("b", false), 2).contains("the proxy had answered 3"));
    }
}
