//! What `View::verify` finds: nothing in a store that the writer made, and each row that was taken away,
//! added or changed behind its back.

use bytes::Bytes;
use quorate_proto::etcdserverpb::PutRequest;

use super::{delete, entry, grant, open, place, put};
use crate::engine::{Batch, Cf};
use crate::mvcc::Store;
use crate::mvcc::store::meta;

fn life() -> Store {
    let store = open(&place());
    entry(&store, |write| grant(write, 7)).expect("is valid");
    for (key, value) in [("a", "1"), ("b", "2"), ("a", "3"), ("c", "4"), ("d", "5"), ("e", "6")] {
        entry(&store, |write| drop(write.put(&put(key, value)).expect("works").expect("is valid")));
    }
    let leased = PutRequest { lease: 7, ..put("leased", "x") };
    entry(&store, |write| drop(write.put(&leased).expect("works").expect("is valid")));
    entry(&store, |write| drop(write.delete_range(&delete("c", "")).expect("works")));
    store
}

/// The problems of a store after a change to its rows.
fn problems(change: impl FnOnce(&Store, &mut Batch)) -> Vec<String> {
    let store = life();
    let mut batch = store.engine().batch();
    change(&store, &mut batch);
    store.engine().write(batch).expect("works");
    let store = Store::open(store.engine().clone()).expect("loads");
    let mut found = Vec::new();
    store.view().verify(&mut |_| {}, &mut |why| found.push(why)).expect("is readable");
    found
}

fn first(store: &Store, cf: Cf) -> (Bytes, Bytes) {
    store.view().scan(cf).next().expect("has rows").expect("reads")
}

#[test]
fn a_store_agrees_with_its_history_also_while_a_compaction_deletes() {
    assert_eq!(problems(|_, _| {}), [""; 0]);
    let store = life();
    entry(&store, |write| write.compact(6)).expect("works").expect("is valid");
    loop {
        let mut found = Vec::new();
        let verified = store.view().verify(&mut |_| {}, &mut |why| found.push(why));
        let verified = verified.expect("is readable");
        assert_eq!(found, [""; 0]);
        assert_eq!((verified.keys, verified.attached), (5, 1));
        if !store.compaction_pending() {
            break;
        }
        store.compact_step(1).expect("works");
    }
}

#[test]
fn every_row_that_is_missing_added_or_changed_is_found() {
    for cf in [Cf::Key, Cf::Head, Cf::Versions, Cf::Attached, Cf::Counts, Cf::Lease] {
        let found = problems(|store, batch| batch.delete(cf, &first(store, cf).0));
        assert!(!found.is_empty(), "a missing row of {}", cf.name());
    }
    for cf in [Cf::Versions, Cf::Attached] {
        let found = problems(|_, batch| batch.put(cf, b"\0\0nothing", b""));
        assert_eq!(found.len(), 1, "a row too much in {}: {found:?}", cf.name());
    }
    for cf in [Cf::Head, Cf::Versions] {
        let found = problems(|store, batch| {
            let (key, mut value) = (first(store, cf).0, first(store, cf).1.to_vec());
            *value.last_mut().expect("has bytes") ^= 1;
            batch.put(cf, &key, &value);
        });
        assert!(!found.is_empty(), "a changed row of {}", cf.name());
    }
    let found = problems(|_, batch| batch.put(Cf::Meta, meta::LIVE_BYTES, &1_i64.to_be_bytes()));
    assert!(found[0].contains("were counted"), "{found:?}");
    let found = problems(|_, batch| batch.put(Cf::Meta, meta::REVISION, &2_i64.to_be_bytes()));
    assert!(found[0].contains("the newest is 2"), "{found:?}");
}
