//! What a compaction costs for a key that is written all the time, in entries of the engine that its
//! cursors pass: deleted ones stay in memory as marks, and passing them takes as long as passing live
//! ones.

use super::{entry, open, place, put};
use crate::engine::marks_passed;
use crate::mvcc::Store;

/// Compacts up to `revision`, in steps of so many changes.
fn compact(store: &Store, revision: i64, step: usize) {
    entry(store, |write| write.compact(revision).expect("works").expect("is valid"));
    while !store.compact_step(step).expect("works").finished {}
}

fn write(store: &Store, times: usize) {
    for _ in 0..times {
        entry(store, |write| drop(write.put(&put("k", "v")).expect("works").expect("is valid")));
    }
}

#[test]
fn steps_do_not_pass_what_the_steps_before_them_deleted() {
    let store = open(&place());
    write(&store, 4_000);
    let passed = marks_passed(|| compact(&store, store.revision().0, 20));
    // Two hundred steps over up to four thousand marks would be four hundred thousand.
    assert!(passed < 4_000, "{passed} marks were passed");
    assert_eq!(store.view().get_head(b"k").expect("works").map(|kv| kv.version), Some(4_000));
}

#[test]
fn compactions_do_not_pass_what_the_compactions_before_them_deleted() {
    let store = open(&place());
    let passed = marks_passed(|| {
        for _ in 0..200 {
            write(&store, 20);
            compact(&store, store.revision().0, 100);
        }
    });
    assert!(passed < 4_000, "{passed} marks were passed");
}

#[test]
fn a_compaction_that_is_overtaken_does_not_pass_what_it_deleted() {
    let store = open(&place());
    write(&store, 4_000);
    let passed = marks_passed(|| {
        for revision in (20..4_000).step_by(20) {
            entry(&store, |write| write.compact(revision).expect("works").expect("is valid"));
            store.compact_step(19).expect("works");
        }
        while !store.compact_step(100).expect("works").finished {}
    });
    assert!(passed < 4_000, "{passed} marks were passed");
}
