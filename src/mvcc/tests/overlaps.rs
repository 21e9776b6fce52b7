//! Which txns are refused for writing a key twice: etcd's rule by a model that compares everything with
//! everything, and sizes at which that would not end.

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use quorate_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};

use super::{delete, put};
use crate::error::Refused;
use crate::limits::TXN_NESTED_MAX;
use crate::mvcc::{check_txn, is_large};

/// What a branch writes: keys put, each once, and `[begin, end)` of deletes with the end as it stands in the
/// request.
type Writes = (Vec<Bytes>, Vec<(Bytes, Bytes)>);

/// etcd 3.7 `checkIntervals` in its own order, without any structure; none for a key written twice.
fn model(ops: &[RequestOp]) -> Option<Writes> {
    let (mut puts, mut deletes) = (Vec::new(), Vec::new());
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            let behind = || [&delete.key[..], &[0]].concat().into();
            let end = Some(delete.range_end.clone()).filter(|end| !end.is_empty());
            deletes.push((delete.key.clone(), end.unwrap_or_else(behind)));
        }
    }
    let deleted = |deletes: &[(Bytes, Bytes)], key: &Bytes| {
        deletes.iter().any(|(begin, end)| begin <= key && key < end)
    };
    for op in ops {
        let Some(Request::RequestTxn(txn)) = &op.request else { continue };
        let (then, otherwise) = (model(&txn.success)?, model(&txn.failure)?);
        for key in &then.0 {
            if puts.contains(key) || deleted(&deletes, key) {
                return None;
            }
            puts.push(key.clone());
        }
        for key in &otherwise.0 {
            let twice = puts.contains(key) && !then.0.contains(key);
            if twice || deleted(&deletes, key) {
                return None;
            }
            if !puts.contains(key) {
                puts.push(key.clone());
            }
        }
        deletes.extend(then.1.into_iter().chain(otherwise.1));
    }
    for op in ops {
        let Some(Request::RequestPut(put)) = &op.request else { continue };
        if puts.contains(&put.key) || deleted(&deletes, &put.key) {
            return None;
        }
        puts.push(put.key.clone());
    }
    Some((puts, deletes))
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn then(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

/// `depth` txns around one that has these operations.
fn nested(depth: usize, ops: Vec<RequestOp>) -> TxnRequest {
    (0..depth).fold(then(ops), |txn, _| then(vec![op(Request::RequestTxn(txn))]))
}

fn ops() -> impl Strategy<Value = Vec<RequestOp>> {
    let keys = || select(vec!["a", "a\0", "b", "ba", "c", "d", "e", "f", "\0"]);
    let ends = || select(vec!["", "", "\0", "a", "b", "b\0", "c", "d", "g", "\u{7f}"]);
    let leaf = prop_oneof![
        3 => keys().prop_map(|key| op(Request::RequestPut(put(key, "v")))),
        2 => (keys(), ends()).prop_map(|(key, end)| op(Request::RequestDeleteRange(delete(key, end)))),
    ];
    let nested = leaf.prop_recursive(4, 24, 4, |inner| {
        let branch = || proptest::collection::vec(inner.clone(), 0..4);
        (branch(), branch()).prop_map(|(success, failure)| {
            op(Request::RequestTxn(TxnRequest { compare: Vec::new(), success, failure }))
        })
    });
    proptest::collection::vec(nested, 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_txn_is_refused_for_the_keys_that_etcd_refuses_it_for(success in ops(), failure in ops()) {
        let fits = model(&success).and(model(&failure)).is_some();
        let txn = TxnRequest { compare: Vec::new(), success, failure };
        let expected = if fits { Ok(()) } else { Err(Refused::DuplicateKey) };
        prop_assert_eq!(check_txn(&txn, 128), expected);
    }
}

#[test]
fn only_the_two_branches_of_one_txn_may_put_the_same_key() {
    let f = || op(Request::RequestPut(put("f", "v")));
    let txn = |success, failure| {
        op(Request::RequestTxn(TxnRequest { compare: Vec::new(), success, failure }))
    };
    let both = || txn(vec![f()], vec![f()]);
    for fits in
        [vec![both()], vec![txn(vec![both()], vec![])], vec![txn(vec![both()], vec![both()])]]
    {
        assert_eq!(check_txn(&then(fits.clone()), 128), Ok(()), "{fits:?}");
    }
    let twice = [
        vec![both(), f()],
        vec![both(), both()],
        vec![txn(vec![both()], vec![]), f()],
        vec![txn(vec![both(), f()], vec![])],
        vec![txn(vec![f()], vec![]), txn(vec![], vec![f()])],
    ];
    for ops in twice {
        assert_eq!(check_txn(&then(ops.clone()), 128), Err(Refused::DuplicateKey), "{ops:?}");
    }
}

#[test]
fn ninety_thousand_deletes_before_as_many_puts_are_checked() {
    // In four hundred nested txns, as a request of a megabyte and a half has them within the limits.
    let number = |n: usize| Bytes::from(n.to_string());
    let of = |kind: fn(Bytes) -> Request, from: usize| {
        let txns = (0..100_usize).map(|t| (t, (0..900).map(move |n| from + t * 900 + n)));
        txns.map(|(_, keys)| {
            op(Request::RequestTxn(then(keys.map(|n| op(kind(number(n)))).collect())))
        })
        .collect::<Vec<_>>()
    };
    let delete = |key| {
        Request::RequestDeleteRange(super::DeleteRangeRequest {
            key,
            ..super::DeleteRangeRequest::default()
        })
    };
    let put = |key| Request::RequestPut(super::PutRequest { key, ..super::PutRequest::default() });
    let both = |puts_from| {
        let (deletes, puts) = (of(delete, 0), of(put, puts_from));
        then(vec![op(Request::RequestTxn(then(deletes))), op(Request::RequestTxn(then(puts)))])
    };
    assert!(is_large(&both(1_000_000)));
    assert_eq!(check_txn(&both(1_000_000), 2_000), Ok(()));
    assert_eq!(check_txn(&both(89_999), 2_000), Err(Refused::DuplicateKey));
}

#[test]
fn what_is_at_the_bottom_of_many_txns_is_not_copied_at_each_level() {
    let puts = (0..20_000).map(|n| {
        op(Request::RequestPut(super::PutRequest {
            key: n.to_string().into(),
            ..super::PutRequest::default()
        }))
    });
    let deep = nested(TXN_NESTED_MAX, puts.collect());
    assert_eq!(check_txn(&deep, 30_000), Ok(()));
}

#[test]
fn a_txn_nested_deeper_than_the_log_can_hold_has_too_many_operations() {
    let put = || vec![op(Request::RequestPut(put("k", "v")))];
    assert_eq!(check_txn(&nested(TXN_NESTED_MAX, put()), 128), Ok(()));
    assert_eq!(check_txn(&nested(TXN_NESTED_MAX + 1, put()), 128), Err(Refused::TooManyOps));
}

#[test]
fn operations_are_counted_along_the_nesting_as_etcd_counts_them() {
    let puts = |n: usize| (0..n).map(|_| op(Request::RequestTxn(TxnRequest::default()))).collect();
    assert_eq!(check_txn(&nested(3, puts(125)), 128), Ok(()));
    assert_eq!(check_txn(&nested(4, puts(125)), 128), Err(Refused::TooManyOps));
    assert!(!is_large(&nested(3, puts(125))));
}
