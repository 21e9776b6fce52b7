//! Short ways to write requests down. No choice is made here, and nothing is sent.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
};

pub fn get(key: impl Into<Bytes>) -> RangeRequest {
    RangeRequest { key: key.into(), ..Default::default() }
}

/// All keys that begin so.
pub fn list(prefix: impl Into<Bytes>) -> RangeRequest {
    let key = prefix.into();
    RangeRequest { range_end: end_of(&key), key, ..Default::default() }
}

pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

pub fn delete(key: impl Into<Bytes>) -> DeleteRangeRequest {
    DeleteRangeRequest { key: key.into(), ..Default::default() }
}

/// Deletes all keys that begin so.
pub fn delete_all(prefix: impl Into<Bytes>) -> DeleteRangeRequest {
    let key = prefix.into();
    DeleteRangeRequest { range_end: end_of(&key), key, ..Default::default() }
}

/// The first key after those that begin with `prefix`, whose last byte is not 255.
pub fn end_of(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}

pub fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { compare, success, failure }
}

/// Holds if the key was last changed at this revision; at 0, if it is not there.
pub fn unchanged(key: impl Into<Bytes>, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Mod as i32,
        key: key.into(),
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

/// Holds if the key was created at this revision; at 0, if it is not there.
pub fn created(key: impl Into<Bytes>, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.into(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

pub trait Op {
    /// As an operation of a txn.
    fn op(self) -> RequestOp;
}

macro_rules! ops {
    ($($request:ident: $kind:ident,)*) => {$(
        impl Op for $request {
            fn op(self) -> RequestOp {
                RequestOp { request: Some(Request::$kind(self)) }
            }
        }
    )*};
}

ops! {
    RangeRequest: RequestRange,
    PutRequest: RequestPut,
    DeleteRangeRequest: RequestDeleteRange,
    TxnRequest: RequestTxn,
}
