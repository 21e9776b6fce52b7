//! Names and attributes of spans: etcd's (3.7, `server/etcdserver/v3_server.go`).

use quorate_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest, request_op::Request as Op,
};
use quorate_proto::otlp::common::v1::KeyValue;

use crate::mvcc;
use crate::trace::span::{number, text, truth};

pub(in crate::member) const RANGE: &str = "range";
pub(in crate::member) const RANGE_STREAM: &str = "range_streaming";
pub(in crate::member) const PUT: &str = "put";
pub(in crate::member) const DELETE_RANGE: &str = "delete_range";
pub(in crate::member) const TXN: &str = "txn";
pub(in crate::member) const COMPACT: &str = "compact";
pub(in crate::member) const LEASE_GRANT: &str = "lease_grant";
pub(in crate::member) const LEASE_REVOKE: &str = "lease_revoke";
pub(in crate::member) const LEASE_RENEW: &str = "lease_renew";

pub(in crate::member) fn range(request: &RangeRequest) -> Vec<KeyValue> {
    let mut attributes = range_stream(request);
    attributes.push(truth("keys_only", request.keys_only));
    attributes
}

pub(in crate::member) fn range_stream(request: &RangeRequest) -> Vec<KeyValue> {
    vec![
        text("range_begin", &request.key),
        text("range_end", &request.range_end),
        number("rev", request.revision),
        number("limit", request.limit),
        truth("count_only", request.count_only),
    ]
}

pub(in crate::member) fn put(request: &PutRequest) -> Vec<KeyValue> {
    vec![text("key", &request.key)]
}

pub(in crate::member) fn delete_range(request: &DeleteRangeRequest) -> Vec<KeyValue> {
    vec![text("range_begin", &request.key), text("range_end", &request.range_end)]
}

pub(in crate::member) fn txn(request: &TxnRequest) -> Vec<KeyValue> {
    let length = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let TxnRequest { compare, success, failure } = request;
    let compared = compare.iter().map(|compare| &compare.key[..]).find(|key| !key.is_empty());
    vec![
        text("compare_first_key", compared.unwrap_or_default()),
        text("success_first_key", first_key(success)),
        text("success_first_type", first_kind(success).as_bytes()),
        number("success_first_lease", first_lease(success)),
        number("compare_len", length(compare.len())),
        number("success_len", length(success.len())),
        number("failure_len", length(failure.len())),
        truth("read_only", mvcc::is_read_only(request)),
    ]
}

pub(in crate::member) fn compact(request: &CompactionRequest) -> Vec<KeyValue> {
    vec![truth("is_physical", request.physical), number("rev", request.revision)]
}

pub(in crate::member) fn lease_grant(request: &LeaseGrantRequest) -> Vec<KeyValue> {
    vec![number("id", request.id), number("ttl", request.ttl)]
}

pub(in crate::member) fn lease(id: i64) -> Vec<KeyValue> {
    vec![number("id", id)]
}

/// A watcher, from its creation to its end.
pub(in crate::member) fn watch(request: &WatchCreateRequest) -> Vec<KeyValue> {
    // An open range has no end here.
    let range_end = Some(&request.range_end[..]).filter(|end| *end != [0]);
    vec![
        text("key", &request.key),
        text("range_end", range_end.unwrap_or_default()),
        number("start_rev", request.start_revision),
        truth("progress_notify", request.progress_notify),
        truth("prev_kv", request.prev_kv),
        truth("fragment", request.fragment),
    ]
}

/// The first key that is not empty; nested txns have none.
fn first_key(ops: &[RequestOp]) -> &[u8] {
    let keys = ops.iter().filter_map(|op| match op.request.as_ref()? {
        Op::RequestPut(put) => Some(&put.key[..]),
        Op::RequestRange(range) => Some(&range.key[..]),
        Op::RequestDeleteRange(delete) => Some(&delete.key[..]),
        Op::RequestTxn(_) => None,
    });
    keys.into_iter().find(|key| !key.is_empty()).unwrap_or_default()
}

fn first_kind(ops: &[RequestOp]) -> &'static str {
    let kinds = ops.iter().filter_map(|op| op.request.as_ref());
    kinds.map(kind).next().unwrap_or_default()
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::RequestPut(_) => PUT,
        Op::RequestRange(_) => RANGE,
        Op::RequestDeleteRange(_) => DELETE_RANGE,
        Op::RequestTxn(_) => TXN,
    }
}

/// The lease of the first put; -1 without a put.
fn first_lease(ops: &[RequestOp]) -> i64 {
    let leases = ops.iter().filter_map(|op| match op.request.as_ref()? {
        Op::RequestPut(put) => Some(put.lease),
        _ => None,
    });
    leases.into_iter().next().unwrap_or(-1)
}
