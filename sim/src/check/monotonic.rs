//! Does time ever run backwards? What ended before something else began has a smaller revision if the
//! other is a write, and none larger if it is a read of the newest state. What a member reports of itself
//! never goes back either, whether or not it was started again in between.

use std::collections::BTreeMap;
use std::time::Instant;

use super::order::Order;
use crate::facts::evidence::Record;
use crate::facts::history::Operation;
use crate::facts::verdict::Violation;

pub fn check(record: &Record) -> Vec<Violation> {
    let mut violations = real_time(record);
    violations.extend(members(record));
    violations
}

/// Linearizable answers follow real time.
fn real_time(record: &Record) -> Vec<Violation> {
    let order = Order::new(record);
    let checked = record.operations.iter().filter(|op| op.answered() && op.linearizable());
    checked
        .filter_map(|operation| {
            let revision = operation.revision()?;
            let floor = order.floor(operation);
            let late = if operation.call.wrote() { revision > floor } else { revision >= floor };
            (!late).then(|| {
                let text = format!("{operation}: got {revision} after {floor} had been answered");
                let violation = Violation::new("monotonic", "revisions follow real time", text);
                let violation = violation.proved_by(operation.proof());
                match teller(record, floor, operation.began) {
                    Some(teller) => violation.proved_by(teller.proof()),
                    None => violation,
                }
            })
        })
        .collect()
}

/// A call that had been answered with that revision by then.
fn teller(record: &Record, revision: i64, before: Instant) -> Option<&Operation> {
    let mut told = record.operations.iter();
    told.find(|op| op.ended < before && op.revision() == Some(revision))
}

/// A later request to a member is answered with no older revision. What a proxy has kept is no
/// answer of a member's.
fn members(record: &Record) -> Vec<Violation> {
    let mut words: BTreeMap<u64, Vec<Word<'_>>> = BTreeMap::new();
    for operation in record.operations.iter().filter(|operation| !operation.may_be_kept()) {
        let Some(header) = operation.header().filter(|header| header.member_id != 0) else {
            continue;
        };
        words.entry(header.member_id).or_default().push((header.revision, operation));
    }
    words.into_iter().flat_map(|(member, words)| backwards(member, words)).collect()
}

/// A revision that a member gave as its own, and when.
type Word<'a> = (i64, &'a Operation);

fn backwards(member: u64, mut words: Vec<Word<'_>>) -> Vec<Violation> {
    let mut ended: Vec<_> = words.iter().map(|(revision, op)| (op.ended, *revision)).collect();
    ended.sort_unstable();
    words.sort_by_key(|(_, operation)| operation.began);
    let mut newest = 0;
    let mut next = 0;
    let mut violations = Vec::new();
    for (revision, operation) in words {
        while next < ended.len() && ended[next].0 < operation.began {
            newest = newest.max(ended[next].1);
            next += 1;
        }
        if revision < newest {
            let text = format!("{operation}: {member:x} is at {revision} after {newest}");
            let violation = Violation::new("monotonic", "no member's revision goes back", text);
            violations.push(violation.proved_by(operation.proof()));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use quorate_proto::etcdserverpb::{RangeResponse, ResponseHeader};

    use super::*;
    use crate::check::fixture::{Fixture, get, put, texts};
    use crate::facts::history::Call;
    use crate::facts::request;

    fn said(fixture: Fixture) -> String {
        texts(&check(&fixture.record))
    }

    #[test]
    fn real_time_is_kept() {
        let write = || Fixture::default().call(0, 2, put("a", "1", Some(2)));
        assert_eq!(said(write().call(3, 4, get("a", 2, vec![]))), "");
        assert_eq!(said(write().call(1, 4, get("a", 1, vec![]))), "", "at the same time");
        assert!(said(write().call(3, 4, get("a", 1, vec![]))).contains("got 1 after 2"));
        assert!(said(write().call(3, 4, put("a", "2", Some(2)))).contains("got 2 after 2"));
    }

    #[test]
    fn members_do_not_go_back() {
        let told = |member_id, revision| {
            let header = Some(ResponseHeader { revision, member_id, ..Default::default() });
            let request = quorate_proto::etcdserverpb::RangeRequest {
                serializable: true,
                ..request::get("a")
            };
            Call::Range(request, Ok(RangeResponse { header, ..Default::default() }))
        };
        let first = || Fixture::default().call(0, 1, told(1, 5));
        assert_eq!(said(first().call(2, 3, told(2, 4))), "", "another member may be behind");
        assert!(said(first().call(2, 3, told(1, 4))).contains("is at 4 after 5"));
    }
}
