//! What is wrong with a request by itself, before any state is looked at. Follows the order in which
//! etcd 3.7 checks (`server/etcdserver/api/v3rpc/key.go`), since the first complaint is the answer.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

use super::interval::KeyRange;
use super::range::{has_filters, natural_order};
use crate::error::Refused;

pub fn check_range(request: &RangeRequest) -> Result<(), Refused> {
    if request.key.is_empty() {
        return Err(Refused::EmptyKey);
    }
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_err() || target.is_err() {
        return Err(Refused::InvalidSortOption);
    }
    Ok(())
}

/// A RangeStream sends keys as it finds them, so it can neither sort nor filter.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), Refused> {
    check_range(request)?;
    if !natural_order(request) {
        return Err(Refused::StreamSortOrder);
    }
    if has_filters(request) {
        return Err(Refused::StreamRevisionFilter);
    }
    Ok(())
}

pub fn check_put(request: &PutRequest) -> Result<(), Refused> {
    if request.key.is_empty() {
        return Err(Refused::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refused::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refused::LeaseProvided);
    }
    Ok(())
}

pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), Refused> {
    if request.key.is_empty() { Err(Refused::EmptyKey) } else { Ok(()) }
}

/// Checks a txn: its size, every operation, then that no branch writes a key twice. A nested txn may
/// have as many operations as the ones around it leave of `ops_max`.
pub fn check_txn(txn: &TxnRequest, ops_max: usize) -> Result<(), Refused> {
    check_ops(txn, ops_max)?;
    Writes::of(&txn.success)?;
    Writes::of(&txn.failure)?;
    Ok(())
}

fn check_ops(txn: &TxnRequest, ops_max: usize) -> Result<(), Refused> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let Some(left) = ops_max.checked_sub(ops) else { return Err(Refused::TooManyOps) };
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refused::EmptyKey);
    }
    txn.success.iter().chain(&txn.failure).try_for_each(|op| check_op(op, left))
}

fn check_op(op: &RequestOp, ops_max: usize) -> Result<(), Refused> {
    match &op.request {
        Some(Request::RequestRange(range)) => check_range(range),
        Some(Request::RequestPut(put)) => check_put(put),
        Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete),
        Some(Request::RequestTxn(txn)) => check_ops(txn, ops_max),
        None => Err(Refused::KeyNotFound),
    }
}

/// What one branch writes, nested txns included.
#[derive(Default)]
struct Writes {
    puts: BTreeSet<Bytes>,
    deletes: Vec<KeyRange>,
}

impl Writes {
    /// Collects them in etcd's order: this level's deletes, then the nested txns one by one, then this
    /// level's puts. A delete in a later nested txn is therefore not held against a put in an earlier
    /// one; it is carried out after it.
    fn of(ops: &[RequestOp]) -> Result<Self, Refused> {
        let mut writes = Self::default();
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.push(KeyRange::new(&delete.key, &delete.range_end));
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(txn)) = &op.request {
                writes.add_nested(Self::of(&txn.success)?, Self::of(&txn.failure)?)?;
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                writes.add_put(put.key.clone())?;
            }
        }
        Ok(writes)
    }

    /// Only one of the two branches will be carried out, so they may write the same keys.
    fn add_nested(&mut self, success: Self, failure: Self) -> Result<(), Refused> {
        let fresh: Vec<Bytes> = failure.puts.difference(&success.puts).cloned().collect();
        self.refuse_deleted(&failure.puts)?;
        for key in success.puts.into_iter().chain(fresh) {
            self.add_put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: Bytes) -> Result<(), Refused> {
        if self.deletes.iter().any(|range| range.contains(&key)) || !self.puts.insert(key) {
            return Err(Refused::DuplicateKey);
        }
        Ok(())
    }

    fn refuse_deleted(&self, puts: &BTreeSet<Bytes>) -> Result<(), Refused> {
        let hit = |range: &KeyRange| match range.single() {
            Some(key) => puts.contains(key),
            None => {
                let from = (Bound::Included(range.lower()), Bound::Unbounded);
                puts.range::<[u8], _>(from).next().is_some_and(|key| range.contains(key))
            }
        };
        if self.deletes.iter().any(hit) { Err(Refused::DuplicateKey) } else { Ok(()) }
    }
}
