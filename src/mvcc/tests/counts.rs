//! Counted pieces of the key space under many keys: every range has as many keys as were put there.

use bytes::Bytes;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest};

use super::{entry, open, place};
use crate::engine::{Cf, Engine, Options};
use crate::mvcc::Store;

const KEYS: usize = 150;

fn name(n: usize) -> Bytes {
    format!("k{n:04}").into()
}

fn put(store: &Store, n: usize) {
    let request = PutRequest { key: name(n), ..PutRequest::default() };
    entry(store, |write| drop(write.put(&request).expect("works").expect("is valid")));
}

fn delete(store: &Store, n: usize) {
    let request = DeleteRangeRequest { key: name(n), ..DeleteRangeRequest::default() };
    entry(store, |write| drop(write.delete_range(&request).expect("works").expect("is valid")));
}

/// Compares ranges of all sizes with what is there.
fn check(store: &Store, alive: &[bool]) {
    for (from, to) in [(0, KEYS), (0, 1), (3, 140), (7, 9), (70, KEYS), (149, 150), (20, 20)] {
        let (key, range_end) = (name(from), name(to));
        let request = RangeRequest { key, range_end, count_only: true, ..RangeRequest::default() };
        let count = store.view().range(&request).expect("works").expect("is valid").count;
        let there = alive[from..to].iter().filter(|alive| **alive).count();
        assert_eq!(count, there as i64, "{from}..{to}");
    }
}

#[test]
fn counts_follow_keys_that_come_and_go() {
    let store = open(&place());
    let mut alive = vec![false; KEYS];
    // Scattered, so that pieces are cut in the middle.
    for n in (0..KEYS).map(|n| n * 67 % KEYS) {
        put(&store, n);
        alive[n] = true;
        check(&store, &alive);
    }
    for n in (0..KEYS).map(|n| n * 31 % KEYS).filter(|n| n % 8 != 0) {
        delete(&store, n);
        alive[n] = false;
        check(&store, &alive);
    }
}

#[test]
fn states_from_before_there_were_sums_get_them() {
    let place = place();
    let store = open(&place);
    (0..100).for_each(|n| put(&store, n));
    store.flush().expect("works");
    drop(store);
    let options = Options::in_memory(place.clone());
    let engine = Engine::open(std::path::Path::new("/db"), &options).expect("opens");
    let mut batch = engine.batch();
    batch.clear(Cf::Sums, &engine.snapshot()).expect("works");
    engine.write(batch).expect("works");
    engine.flush().expect("works");
    drop(engine);

    let store = open(&place);
    let mut alive: Vec<bool> = (0..KEYS).map(|n| n < 100).collect();
    check(&store, &alive);
    for n in 95..KEYS {
        put(&store, n);
        alive[n] = true;
        check(&store, &alive);
    }
    assert!(store.view().scan(Cf::Sums).count() > 5, "they are stored");
}
