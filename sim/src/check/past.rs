//! The past and its end: what was compacted is refused from then on, with etcd's words, and what was
//! not compacted can be read; a revision that does not exist yet is refused too.

use std::time::Instant;

use quorate_proto::etcdserverpb::{RangeRequest, RequestOp, request_op::Request};
use tonic::Code;

use super::model::{COMPACTED, FUTURE};
use super::order::Order;
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation};
use crate::facts::verdict::Violation;

pub fn check(record: &Record) -> Vec<Violation> {
    let compactions: Vec<_> = record
        .compactions()
        .map(|(revision, op)| Compaction {
            revision,
            began: op.began,
            done: op.answered().then_some(op.ended),
        })
        .collect();
    let order = Order::new(record);
    let checked = record.operations.iter();
    checked
        .filter_map(|operation| {
            let fault = examine(&compactions, &order, record, operation)?;
            let text = format!("{operation}: {fault}");
            let violation =
                Violation::new("past", "compaction ends the past, nothing else does", text);
            Some(violation.proved_by(operation.proof()))
        })
        .collect()
}

/// A compaction that was requested and not refused.
struct Compaction {
    revision: i64,
    began: Instant,
    /// When it was answered.
    done: Option<Instant>,
}

fn examine(
    compactions: &[Compaction],
    order: &Order,
    record: &Record,
    operation: &Operation,
) -> Option<String> {
    let mut wanted = wanted(&operation.call);
    let compacted = operation.failure().is_some_and(|failure| failure.text == COMPACTED);
    if operation.streamed && compacted && wanted.is_none() {
        // Pinned at the present when it began, and overtaken on its way.
        let at = order.floor(operation);
        wanted = Some(Wanted { least: at, most: at, exclusive: false });
    }
    let wanted = wanted?;
    let failure = operation.failure();
    if let Some(failure) = failure
        && [COMPACTED, FUTURE].contains(&failure.text.as_str())
        && failure.code != Code::OutOfRange
    {
        return Some(format!("refused with code {:?}", failure.code));
    }
    match failure.map(|failure| failure.text.as_str()) {
        Some(COMPACTED) => {
            let begun = compactions.iter().filter(|it| it.began <= operation.ended);
            let furthest = begun.map(|it| it.revision).max().unwrap_or(0);
            let furthest = furthest.max(aged(order, record, operation.ended));
            let (refused, least) = (wanted.refused_at(furthest), wanted.least);
            (!refused).then(|| format!("{least} was refused, {furthest} at most is compacted"))
        }
        // A member that lags answers a serializable read from the state that it has.
        Some(FUTURE) if operation.linearizable() => {
            let (floor, most) = (order.floor(operation), wanted.most);
            (most <= floor).then(|| format!("{most} was refused, there was {floor} already"))
        }
        None if operation.linearizable() => {
            let done =
                compactions.iter().filter(|it| it.done.is_some_and(|at| at < operation.began));
            let furthest = done.map(|it| it.revision).max().unwrap_or(0);
            let (refused, least) = (wanted.refused_at(furthest), wanted.least);
            refused.then(|| format!("{least} was there, {furthest} had been compacted"))
        }
        _ => None,
    }
}

/// How far leaders may have compacted by themselves: to what was the newest revision so long before.
fn aged(order: &Order, record: &Record, at: Instant) -> i64 {
    // Clocks need not run alike.
    let age = record.auto_compaction.map(|age| age * 99 / 100);
    let since = age.and_then(|age| at.checked_sub(age));
    since.map_or(0, |since| order.ceiling_at(since, i64::MAX))
}

/// The revisions that a call names by number.
struct Wanted {
    least: i64,
    most: i64,
    /// Whether the revision that was compacted last is refused too: one cannot compact to it again.
    exclusive: bool,
}

impl Wanted {
    fn refused_at(&self, compacted: i64) -> bool {
        self.least < compacted || (self.exclusive && self.least == compacted)
    }
}

fn wanted(call: &Call) -> Option<Wanted> {
    let (revisions, exclusive) = match call {
        Call::Range(request, _) => (revisions(request), false),
        Call::Txn(request, Ok(answer)) if answer.succeeded => (flat(&request.success), false),
        Call::Txn(request, Ok(_)) => (flat(&request.failure), false),
        // Which branch a refused txn would have taken is not known.
        Call::Txn(request, Err(_)) => {
            ([flat(&request.success), flat(&request.failure)].concat(), false)
        }
        Call::Compact(request, _) => (vec![request.revision], true),
        _ => return None,
    };
    let (least, most) = (revisions.iter().min()?, revisions.iter().max()?);
    Some(Wanted { least: *least, most: *most, exclusive })
}

fn revisions(request: &RangeRequest) -> Vec<i64> {
    if request.revision > 0 { vec![request.revision] } else { Vec::new() }
}

/// Not of nested txns: no workload reads the past in one.
fn flat(ops: &[RequestOp]) -> Vec<i64> {
    let of = |op: &RequestOp| match &op.request {
        Some(Request::RequestRange(range)) => revisions(range),
        _ => Vec::new(),
    };
    ops.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use quorate_proto::etcdserverpb::{CompactionRequest, CompactionResponse};

    use super::*;
    use crate::check::fixture::{Fixture, failed, header, put, texts};
    use crate::facts::history::Answer;
    use crate::facts::request;

    fn compact(revision: i64) -> Call {
        let request = CompactionRequest { revision, physical: false };
        Call::Compact(request, Ok(CompactionResponse { header: header(9) }))
    }

    fn read(revision: i64, answer: Answer<()>) -> Call {
        let answer = answer.map(|()| Default::default());
        Call::Range(RangeRequest { revision, ..request::get("a") }, answer)
    }

    #[test]
    fn reads_across_the_compaction_and_the_future_are_violations() {
        let said = |call| {
            let before = Fixture::default().call(0, 1, put("a", "1", Some(9)));
            texts(&check(&before.call(2, 3, compact(5)).call(4, 5, call).record))
        };
        let refused = |text| failed(Code::OutOfRange, text);
        assert_eq!(said(read(5, Ok(()))), "");
        assert_eq!(said(read(4, refused(COMPACTED))), "");
        assert!(said(read(4, Ok(()))).contains("5 had been compacted"));
        assert!(said(read(5, refused(COMPACTED))).contains("5 at most is compacted"));
        assert_eq!(said(read(10, refused(FUTURE))), "");
        assert!(said(read(9, refused(FUTURE))).contains("there was 9 already"));
        let lagging = RangeRequest { revision: 9, serializable: true, ..request::get("a") };
        let answer = refused(FUTURE).map(|(): ()| Default::default());
        assert_eq!(said(Call::Range(lagging, answer)), "");
        assert!(said(read(4, failed(Code::Internal, COMPACTED))).contains("code Internal"));
        assert!(said(compact(5)).contains("5 had been compacted"), "twice to one revision");
        assert_eq!(said(compact(6)), "");
    }

    #[test]
    fn leaders_forget_by_themselves_what_is_old() {
        let said = |age_s| {
            let before = Fixture::default().call(0, 1, put("a", "1", Some(5)));
            let refused = read(7, failed(Code::OutOfRange, COMPACTED));
            let mut fixture = before.call(4, 5, put("a", "2", Some(9))).call(10, 11, refused);
            fixture.record.auto_compaction = Some(Duration::from_secs(age_s));
            texts(&check(&fixture.record))
        };
        assert_eq!(said(8), "", "after three seconds there may have been 8");
        assert!(said(12).contains("7 was refused, 4 at most is compacted"));
    }

    #[test]
    fn a_stream_may_be_overtaken_and_is_not_refused_for_nothing() {
        let said = |revision, streamed| {
            let before = Fixture::default().call(0, 1, put("a", "1", Some(9)));
            let refused = failed(Code::OutOfRange, COMPACTED);
            let read = Call::Range(request::list("a"), refused);
            let mut fixture = before.call(2, 3, compact(revision)).call(2, 5, read);
            fixture.record.operations[2].streamed = streamed;
            texts(&check(&fixture.record))
        };
        assert_eq!(said(10, true), "");
        assert!(said(9, true).contains("9 was refused, 9 at most is compacted"));
    }
}
