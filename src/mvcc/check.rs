//! What is wrong with a request by itself, before any state is looked at. Follows the order in which
//! etcd 3.7 checks (`server/etcdserver/api/v3rpc/key.go`), since the first complaint is the answer.

use quorate_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

use super::overlaps::refuse_doubles;
use super::range::{has_filters, natural_order};
use crate::error::Refused;
use crate::limits::{TXN_INLINE_OPS, TXN_NESTED_MAX};
use crate::mark;

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
/// have as many operations as the ones around it leave of `ops_max`, and be nested as deep as the log
/// can hold it. May take milliseconds for a txn that [`is_large`].
pub fn check_txn(txn: &TxnRequest, ops_max: usize) -> Result<(), Refused> {
    check_ops(txn, ops_max, TXN_NESTED_MAX)?;
    refuse_doubles(&txn.success)?;
    refuse_doubles(&txn.failure)
}

/// Whether a txn has so many operations and comparisons, nested ones counted, that looking at all of
/// them takes longer than a thread of the runtime should be held.
pub fn is_large(txn: &TxnRequest) -> bool {
    let mut left = TXN_INLINE_OPS;
    !fits(txn, &mut left)
}

fn fits(txn: &TxnRequest, left: &mut usize) -> bool {
    let ops = txn.compare.len() + txn.success.len() + txn.failure.len();
    let Some(rest) = left.checked_sub(ops) else { return false };
    *left = rest;
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestTxn(txn)) => fits(txn, left),
        _ => true,
    })
}

fn check_ops(txn: &TxnRequest, ops_max: usize, depth_max: usize) -> Result<(), Refused> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let Some(left) = ops_max.checked_sub(ops) else { return Err(Refused::TooManyOps) };
    if txn.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refused::EmptyKey);
    }
    txn.success.iter().chain(&txn.failure).try_for_each(|op| check_op(op, left, depth_max))
}

fn check_op(op: &RequestOp, ops_max: usize, depth_max: usize) -> Result<(), Refused> {
    match &op.request {
        Some(Request::RequestRange(range)) => check_range(range),
        Some(Request::RequestPut(put)) => check_put(put),
        Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete),
        Some(Request::RequestTxn(txn)) => {
            let depth_max = depth_max.checked_sub(1).ok_or_else(|| {
                mark::TXN_TOO_DEEP.reached();
                Refused::TooManyOps
            })?;
            check_ops(txn, ops_max, depth_max)
        }
        None => Err(Refused::KeyNotFound),
    }
}
