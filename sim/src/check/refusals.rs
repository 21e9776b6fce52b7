//! What must be refused for what it is, whatever the state: requests without a key, with a value that
//! is to be ignored, with more operations than a txn may have, with one key twice. etcd's texts, in
//! etcd's order (`server/etcdserver/api/v3rpc/key.go`).

use std::collections::BTreeSet;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};
use tonic::Code;

use super::space::inside;
use crate::facts::evidence::Record;
use crate::facts::history::{Call, Operation};
use crate::facts::verdict::Violation;

/// Txns around a txn at most: the log cannot hold what nests deeper.
const NESTED_MAX: usize = 48;
const EMPTY_KEY: &str = "etcdserver: key is not provided";
const VALUE_PROVIDED: &str = "etcdserver: value is provided";
const LEASE_PROVIDED: &str = "etcdserver: lease is provided";
const TOO_MANY_OPS: &str = "etcdserver: too many operations in txn request";
const DUPLICATE_KEY: &str = "etcdserver: duplicate key given in txn request";
const INVALID_SORT: &str = "etcdserver: invalid sort option";
const ALL: [&str; 6] =
    [EMPTY_KEY, VALUE_PROVIDED, LEASE_PROVIDED, TOO_MANY_OPS, DUPLICATE_KEY, INVALID_SORT];

/// Whether all such requests were refused as they must be, and no others.
pub fn check(record: &Record) -> Vec<Violation> {
    record
        .operations
        .iter()
        .filter_map(|operation| examine(operation, record.txn_ops_max))
        .collect()
}

fn examine(operation: &Operation, ops_max: usize) -> Option<Violation> {
    let wanted = refusal(&operation.call, ops_max);
    let fault = |text: String| {
        let violation = Violation::new("refusals", "bad requests are refused, others not", text);
        Some(violation.proved_by(operation.proof()))
    };
    match (wanted, operation.failure()) {
        (Some(wanted), None) => fault(format!("{operation}: not refused with {wanted:?}")),
        (Some(wanted), Some(failure)) if failure.code == Code::InvalidArgument => {
            let right = failure.text == wanted;
            if right { None } else { fault(format!("{operation}: {failure:?}, not {wanted:?}")) }
        }
        (None, Some(failure)) if ALL.contains(&failure.text.as_str()) => {
            fault(format!("{operation}: refused with {failure:?}"))
        }
        _ => None,
    }
}

fn refusal(call: &Call, ops_max: usize) -> Option<&'static str> {
    match call {
        Call::Range(request, _) => range(request),
        Call::Put(request, _) => put(request),
        Call::Delete(request, _) => delete(request),
        Call::Txn(request, _) => {
            let repeats = || {
                let twice = [&request.success, &request.failure].map(|ops| repeats(ops).is_none());
                twice.contains(&true).then_some(DUPLICATE_KEY)
            };
            txn(request, ops_max, 0).or_else(repeats)
        }
        _ => None,
    }
}

fn range(request: &RangeRequest) -> Option<&'static str> {
    if request.key.is_empty() {
        return Some(EMPTY_KEY);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    (!known).then_some(INVALID_SORT)
}

fn put(request: &PutRequest) -> Option<&'static str> {
    if request.key.is_empty() {
        Some(EMPTY_KEY)
    } else if request.ignore_value && !request.value.is_empty() {
        Some(VALUE_PROVIDED)
    } else if request.ignore_lease && request.lease != 0 {
        Some(LEASE_PROVIDED)
    } else {
        None
    }
}

fn delete(request: &DeleteRangeRequest) -> Option<&'static str> {
    request.key.is_empty().then_some(EMPTY_KEY)
}

/// `depth` txns are around it; etcd has no bound of its own for them, its log and ours have.
fn txn(request: &TxnRequest, ops_max: usize, depth: usize) -> Option<&'static str> {
    if depth > NESTED_MAX {
        return Some(TOO_MANY_OPS);
    }
    let widest = request.compare.len().max(request.success.len()).max(request.failure.len());
    if widest > ops_max {
        return Some(TOO_MANY_OPS);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Some(EMPTY_KEY);
    }
    let mut ops = request.success.iter().chain(&request.failure);
    ops.find_map(|op| match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete(request),
        Some(Request::RequestTxn(request)) => txn(request, ops_max - widest, depth + 1),
        None => None,
    })
}

/// What a branch writes.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a DeleteRangeRequest>,
}

impl<'a> Writes<'a> {
    fn deletes(&self, key: &[u8]) -> bool {
        self.deletes.iter().any(|delete| inside(key, &delete.key, &delete.range_end))
    }

    /// Takes a put in, unless the key is written already; `spared` may be put again.
    fn put(&mut self, key: &'a Bytes, spared: &BTreeSet<&Bytes>) -> Option<()> {
        if self.deletes(key) || (!self.puts.insert(key) && !spared.contains(key)) {
            return None;
        }
        Some(())
    }
}

/// What a branch writes, or nothing when it writes a key twice. The two branches of one nested txn may
/// put the same keys: only one of them is taken.
fn repeats(ops: &[RequestOp]) -> Option<Writes<'_>> {
    let mut all = Writes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            all.deletes.push(delete);
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(nested)) = &op.request else { continue };
        let (then, otherwise) = (repeats(&nested.success)?, repeats(&nested.failure)?);
        for key in &then.puts {
            all.put(key, &BTreeSet::new())?;
        }
        for key in &otherwise.puts {
            all.put(key, &then.puts)?;
        }
        all.deletes.extend(then.deletes);
        all.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        if let Some(Request::RequestPut(put)) = &op.request {
            all.put(&put.key, &BTreeSet::new())?;
        }
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::fixture::{Fixture, failed};
    use crate::facts::request::{Op, delete_all, get, put, txn};

    #[test]
    fn unfit_requests_served_and_fit_ones_refused_are_violations() {
        let put_answered = |key: &'static str| Call::Put(put(key, "1"), Ok(Default::default()));
        let refused = |text| Call::Put(put("", "1"), failed(Code::InvalidArgument, text));
        let said = |call| check(&Fixture::default().call(0, 1, call).record).len();
        assert_eq!(said(put_answered("a")), 0);
        assert_eq!(said(put_answered("")), 1, "accepted");
        assert_eq!(said(refused(EMPTY_KEY)), 0);
        assert_eq!(said(refused(VALUE_PROVIDED)), 1, "another text");
        let sound = Call::Range(get("a"), failed(Code::InvalidArgument, EMPTY_KEY));
        assert_eq!(said(sound), 1, "refused for nothing");
    }

    #[test]
    fn a_key_is_written_once() {
        let said = |success: Vec<RequestOp>| {
            refusal(&Call::Txn(txn(vec![], success, vec![]), Ok(Default::default())), 128)
        };
        let either = || {
            let one = vec![put("a", "1").op()];
            txn(vec![], one.clone(), one).op()
        };
        assert_eq!(said(vec![either()]), None);
        assert_eq!(said(vec![either(), put("b", "1").op()]), None);
        assert_eq!(said(vec![either(), put("a", "1").op()]), Some(DUPLICATE_KEY));
        assert_eq!(said(vec![put("a", "1").op(), delete_all("a").op()]), Some(DUPLICATE_KEY));
        let many: Vec<_> = (0..129).map(|n| put(n.to_string(), "1").op()).collect();
        assert_eq!(said(many), Some(TOO_MANY_OPS));
    }
}
