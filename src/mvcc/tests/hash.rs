//! Fingerprints of a fixed history, taken from a real etcd (3.4.23, `etcdctl endpoint hashkv`), and
//! their independence of how the history was cut into batches.

use std::io;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};

use super::{delete, entry, next_entry, open, place, put};
use crate::engine::Cf;
use crate::error::Refused;
use crate::mvcc::{Changes, HashKv, History, Store, View, Write, hash_file};
use crate::types::Revision;

type Step = Box<dyn Fn(&mut Write<'_>)>;

/// The history up to revision 11.
fn history() -> Vec<Step> {
    fn puts(key: &'static str, value: &'static str) -> Step {
        Box::new(move |write| drop(write.put(&put(key, value)).expect("works").expect("is valid")))
    }
    fn deletes(key: &'static str, end: &'static str) -> Step {
        Box::new(move |write| {
            drop(write.delete_range(&delete(key, end)).expect("works").expect("is valid"));
        })
    }
    let op = |request| RequestOp { request: Some(request) };
    let txn = TxnRequest {
        success: vec![
            op(Request::RequestPut(put("k1", "v1"))),
            op(Request::RequestPut(put("k2", "v2"))),
            op(Request::RequestDeleteRange(delete("c", ""))),
        ],
        ..TxnRequest::default()
    };
    vec![
        puts("a", "1"),
        puts("b", "2"),
        puts("a", "3"),
        deletes("b", ""),
        puts("c", "x"),
        puts("ab", "4"),
        deletes("a", "b"),
        puts("b", "5"),
        Box::new(move |write| drop(write.txn(&txn).expect("works").expect("is valid"))),
        puts("empty", ""),
    ]
}

/// By the engine; the same must come out of the bare rows, as a snapshot file has them.
fn hash(store: &Store, revision: i64) -> HashKv {
    let view = store.view();
    let hash = view.hash_kv(revision).expect("works").expect("is readable");
    let of_rows = hash_file(&Exported(view), revision).expect("works").expect("is readable");
    assert_eq!(of_rows, hash, "at {revision}");
    hash
}

/// The rows that a snapshot file would have.
struct Exported(View);

impl History for Exported {
    fn meta(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.0.get(Cf::Meta, key).expect("works"))
    }

    fn changes(&self) -> io::Result<Changes<'_>> {
        Ok(Box::new(self.0.export_bucket(Cf::Key).map(|row| Ok(row.expect("works")))))
    }
}

#[test]
fn fingerprints_are_those_of_a_real_etcd() {
    let store = open(&place());
    for step in history() {
        entry(&store, |write| step(write));
    }
    for (revision, expected) in [
        (0, 1_925_083_482),
        (2, 2_587_454_935),
        (5, 1_125_682_900),
        (8, 3_631_837_251),
        (9, 3_028_189_046),
    ] {
        let hash = hash(&store, revision);
        assert_eq!(hash.hash, expected, "at {revision}");
        assert_eq!(hash.compact_revision, Revision(-1));
    }

    for (key, value) in [("k1", "v3"), ("k2", "v4")] {
        entry(&store, |write| drop(write.put(&put(key, value)).expect("works").expect("is valid")));
    }
    entry(&store, |write| {
        drop(write.delete_range(&delete("k2", "")).expect("works").expect("is valid"))
    });
    entry(&store, |write| drop(write.put(&put("b", "6")).expect("works").expect("is valid")));
    let compacted = [
        (
            10,
            vec![
                (0, 2_724_802_119),
                (11, 623_249),
                (12, 825_609_280),
                (13, 1_481_921_602),
                (14, 1_159_920_291),
            ],
        ),
        (13, vec![(0, 803_364_177)]),
    ];
    for (compaction, hashes) in compacted {
        entry(&store, |write| write.compact(compaction)).expect("works").expect("is valid");
        // Before, while and after what was compacted is deleted.
        loop {
            for (revision, expected) in &hashes {
                let hash = hash(&store, *revision);
                assert_eq!(hash.hash, *expected, "at {revision} compacted to {compaction}");
                assert_eq!(hash.compact_revision, Revision(compaction));
            }
            if !store.compaction_pending() {
                break;
            }
            store.compact_step(1).expect("works");
        }
    }
}

/// The fingerprint that a member keeps at a compaction is that of members which had compacted as little.
#[test]
fn the_fingerprint_of_a_compaction_is_of_the_moment_before() {
    let store = open(&place());
    for step in history() {
        entry(&store, |write| step(write));
    }
    for (before, compaction) in [(-1, 4), (4, 8), (8, 11)] {
        let expected = hash(&store, compaction);
        assert_eq!(expected.compact_revision, Revision(before));
        // More may be written in the batch that has the compaction.
        let mut write = store.begin();
        next_entry(&mut write);
        write.compact(compaction).expect("works").expect("is valid");
        next_entry(&mut write);
        drop(write.put(&put("later", "1")).expect("works").expect("is valid"));
        write.commit().expect("commits");
        let kept = store.view().hash_compaction(Revision(before)).expect("works");
        assert_eq!(kept.expect("is readable"), expected, "to {compaction}");
        while !store.compact_step(1).expect("works").finished {}
        assert_ne!(hash(&store, compaction).compact_revision, Revision(before));
    }
}

#[test]
fn batching_leaves_no_trace() {
    let (single, together) = (open(&place()), open(&place()));
    let mut write = together.begin();
    for step in history() {
        entry(&single, |write| step(write));
        next_entry(&mut write);
        step(&mut write);
    }
    write.commit().expect("commits");
    assert_eq!(hash(&single, 0), hash(&together, 0));
    assert_eq!(single.view().hash().expect("works"), together.view().hash().expect("works"));
    let all = |store: &Store| {
        let snapshot = store.engine().snapshot();
        let rows =
            crate::engine::Cf::ALL.map(|cf| snapshot.scan(cf, &[], None).collect::<Vec<_>>());
        rows.map(|rows| {
            rows.into_iter().map(|row| row.expect("reads")).collect::<Vec<(Bytes, Bytes)>>()
        })
    };
    assert_eq!(all(&single), all(&together));
}

#[test]
fn revisions_outside_of_a_file_are_refused_as_etcd_does() {
    let store = open(&place());
    for step in history() {
        entry(&store, |write| step(write));
    }
    entry(&store, |write| write.compact(5)).expect("works").expect("is valid");
    let of_rows = |revision| hash_file(&Exported(store.view()), revision).expect("works");
    assert_eq!(of_rows(4), Err(Refused::Compacted));
    assert_eq!(of_rows(12), Err(Refused::FutureRevision));
    assert_eq!(of_rows(5).map(|hash| hash.hash_revision), Ok(Revision(5)));
    // The name of the bucket, and no change at all.
    assert_eq!(of_rows(-1).map(|hash| hash.hash), Ok(1_084_519_789));
}
