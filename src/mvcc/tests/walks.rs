//! How many keys a txn would visit, before it is carried out.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request,
};

use super::{delete, entry, open, place};
use crate::limits::TXN_WALKS_UNWEIGHED;
use crate::mvcc::{Store, walks_much};

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// A store with so many keys, `k000` and on.
fn store(keys: usize) -> Store {
    let store = open(&place());
    entry(&store, |write| {
        for n in 0..keys {
            let key = Bytes::from(format!("k{n:03}"));
            write.put(&PutRequest { key, ..<_>::default() }).expect("works").expect("is taken");
        }
    });
    store
}

fn compare(key: &'static str, range_end: &'static str) -> Compare {
    Compare { key: key.into(), range_end: range_end.into(), ..Compare::default() }
}

fn within(store: &Store, txn: &TxnRequest, keys_max: usize) -> bool {
    store.view().txn_walks_within(txn, keys_max).expect("works")
}

#[test]
fn compares_of_the_same_keys_are_counted_each_time_but_the_largest() {
    let store = store(100);
    let compare = vec![compare("k", "l"); 5];
    let txn = TxnRequest { compare, ..TxnRequest::default() };
    assert!(within(&store, &txn, 400));
    assert!(!within(&store, &txn, 399));
    assert!(within(&store, &TxnRequest { compare: vec![everything()], ..<_>::default() }, 0));
    assert!(walks_much(&txn), "{TXN_WALKS_UNWEIGHED}");
}

fn everything() -> Compare {
    compare("\0", "\0")
}

#[test]
fn deletes_and_reads_count_in_both_branches_and_in_nested_txns() {
    let store = store(100);
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..<_>::default() };
    let read = op(Request::RequestRange(all.clone()));
    let few = op(Request::RequestRange(RangeRequest { limit: 9, ..all.clone() }));
    let count = op(Request::RequestRange(RangeRequest { count_only: true, ..all.clone() }));
    let sorted =
        op(Request::RequestRange(RangeRequest { limit: 1, sort_target: 4, sort_order: 2, ..all }));
    let deletes = op(Request::RequestDeleteRange(delete("k05", "k06")));
    let nested = TxnRequest { failure: vec![deletes, sorted], ..<_>::default() };
    let success = vec![read, few, count];
    let failure = vec![op(Request::RequestTxn(nested))];
    let txn = TxnRequest { success, failure, ..<_>::default() };
    // 100 and 10 are read, 10 deleted, 100 sorted; the first of the largest is free.
    assert!(within(&store, &txn, 120));
    assert!(!within(&store, &txn, 119));
}

#[test]
fn a_txns_own_puts_are_what_its_ranges_find() {
    let store = store(0);
    let puts = (0..50).map(|n| {
        op(Request::RequestPut(PutRequest { key: format!("k{n}").into(), ..<_>::default() }))
    });
    let reads = (0..50).map(|_| {
        let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..<_>::default() };
        op(Request::RequestRange(all))
    });
    let txn = TxnRequest { success: puts.chain(reads).collect(), ..<_>::default() };
    assert!(within(&store, &txn, 49 * 50));
    assert!(!within(&store, &txn, 49 * 50 - 1));
}

#[test]
fn single_keys_are_no_walks() {
    let compare = vec![compare("k", ""); 100];
    let txn = TxnRequest { compare, ..TxnRequest::default() };
    assert!(!walks_much(&txn));
    assert!(within(&store(3), &txn, 0));
}
