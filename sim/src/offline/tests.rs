//! Each invariant of a member's buckets is broken by hand, and must be reported.

use prost::Message;
use quorate_proto::leasepb;
use quorate_proto::mvccpb::{Event, KeyValue, event::EventType};

use super::store::Store;
use super::{equal, keyspace, members};
use crate::facts::history::Log;

fn kv(key: &'static str, created: i64, revision: i64, version: i64, lease: i64) -> KeyValue {
    let value = "value".into();
    let key = key.into();
    KeyValue { key, create_revision: created, mod_revision: revision, version, value, lease }
}

fn rev(main: i64, sub: i64, deletes: bool) -> Vec<u8> {
    let mut key = [&main.to_be_bytes()[..], b"_", &sub.to_be_bytes()].concat();
    if deletes {
        key.push(b't');
    }
    key
}

/// A state of three revisions: `a` written twice, the second time with a lease, then `b` written and
/// deleted; and the log of its events.
fn sound() -> (Store, Log) {
    let mut store = Store::default();
    let mut put = |bucket: &'static str, key: &[u8], value: Vec<u8>| {
        store.0.entry(bucket).or_default().insert(key.to_vec(), value);
    };
    let (first, second, third) = (kv("a", 2, 2, 1, 0), kv("a", 2, 3, 2, 9), kv("b", 3, 3, 1, 0));
    let gone = KeyValue { key: "b".into(), ..KeyValue::default() };
    let rows = [
        (rev(2, 0, false), &first),
        (rev(3, 0, false), &second),
        (rev(3, 1, false), &third),
        (rev(4, 0, true), &gone),
    ];
    let bytes: usize = rows.iter().map(|(key, kv)| key.len() + kv.encoded_len()).sum();
    for (key, kv) in rows {
        put("key", &key, kv.encode_to_vec());
    }
    let head = |sub: u8, kv: &KeyValue| [&[sub][..], &kv.encode_to_vec()].concat();
    put("quorate.head", b"a", head(0, &second));
    put("quorate.head", b"b", head(0, &KeyValue { mod_revision: 4, ..gone.clone() }));
    let version = |key: &[u8], main: i64, sub: i64| {
        [key, &[0, 0], &(!main).to_be_bytes(), &(!sub).to_be_bytes()].concat()
    };
    put("quorate.versions", &version(b"a", 2, 0), vec![2, 1, first.encoded_len() as u8]);
    put("quorate.versions", &version(b"b", 3, 1), vec![3, 1, third.encoded_len() as u8]);
    put("quorate.attached", &[&9_i64.to_be_bytes()[..], b"a"].concat(), Vec::new());
    put("quorate.counts", b"", 1_i64.to_be_bytes().to_vec());
    put("quorate.sums", b"", 1_i64.to_be_bytes().to_vec());
    let lease = leasepb::Lease { id: 9, ttl: 60, remaining_ttl: 0 };
    put("lease", &9_i64.to_be_bytes(), lease.encode_to_vec());
    for (name, number) in
        [("consistent_index", 7), ("quorate.revision", 4), ("quorate.live_bytes", bytes as i64)]
    {
        put("meta", name.as_bytes(), number.to_be_bytes().to_vec());
    }
    put("meta", b"confState", br#"{"voters":[10],"learners":[11]}"#.to_vec());
    put("members", b"a", br#"{"id":10,"peerURLs":[]}"#.to_vec());
    put("members", b"b", br#"{"id":11,"peerURLs":[],"isLearner":true}"#.to_vec());
    let event = |kind: EventType, kv| Event { r#type: kind as i32, kv: Some(kv), prev_kv: None };
    let log = Log::from([
        (2, vec![event(EventType::Put, first)]),
        (3, vec![event(EventType::Put, second), event(EventType::Put, third)]),
        (4, vec![event(EventType::Delete, KeyValue { mod_revision: 4, ..gone })]),
    ]);
    (store, log)
}

fn said(change: impl FnOnce(&mut Store)) -> String {
    let (mut store, log) = sound();
    change(&mut store);
    let mut faults = keyspace::inside(&store);
    faults.extend(keyspace::against(&store, &log));
    faults.extend(members::inside(&store));
    faults.join("; ")
}

fn row<'a>(store: &'a mut Store, bucket: &'static str, key: &[u8]) -> &'a mut Vec<u8> {
    let rows = store.0.get_mut(bucket).expect("it has rows");
    rows.get_mut(key).expect("it is there")
}

#[test]
fn a_sound_state_is_sound() {
    assert_eq!(said(|_| {}), "");
}

#[test]
fn every_row_counts() {
    let (store, _) = sound();
    for (bucket, rows) in &store.0 {
        for key in rows.keys().filter(|key| *bucket != "lease" && *key != b"consistent_index") {
            let without = said(|store| {
                store.0.get_mut(bucket).expect("it has rows").remove(key);
            });
            assert_ne!(without, "", "{bucket} without {}", key.escape_ascii());
        }
    }
}

#[test]
fn every_wrong_value_is_told() {
    let cases: [(&'static str, &[u8], Vec<u8>, &str); 8] = [
        ("quorate.counts", b"", 2_i64.to_be_bytes().to_vec(), "there are 1"),
        ("quorate.sums", b"", 2_i64.to_be_bytes().to_vec(), "sums: Some(2) keys"),
        ("quorate.head", b"a", vec![0], "head: a is"),
        ("meta", b"quorate.live_bytes", 1_i64.to_be_bytes().to_vec(), "live bytes"),
        ("meta", b"quorate.revision", 3_i64.to_be_bytes().to_vec(), "but holds 4"),
        ("meta", b"confState", br#"{"voters":[10,11]}"#.to_vec(), "consensus has"),
        ("members", b"a", br#"{"id":12}"#.to_vec(), "member c is filed under a"),
        ("key", &rev(2, 0, false), kv("a", 2, 2, 2, 0).encode_to_vec(), "it was"),
    ];
    for (bucket, key, value, expected) in cases {
        let said = said(|store| *row(store, bucket, key) = value);
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let orphan = said(|store| store.0.get_mut("lease").expect("one").clear());
    assert!(orphan.contains("a has lease 9, which is gone"), "{orphan}");
    let zombie = said(|store| {
        store.0.entry("members_removed").or_default().insert(b"a".to_vec(), b"removed".to_vec());
    });
    assert!(zombie.contains("member a is there and was removed"), "{zombie}");
}

/// What a compaction at 3 leaves: nothing of revision 2, and the deletion at 4.
#[test]
fn a_compaction_takes_what_it_must_and_no_more() {
    let compacted = |store: &mut Store, at: i64| {
        for name in ["scheduledCompactRev", "finishedCompactRev"] {
            let meta = store.0.get_mut("meta").expect("it has rows");
            meta.insert(name.as_bytes().to_vec(), rev(at, 0, false));
        }
    };
    let (mut store, log) = sound();
    compacted(&mut store, 3);
    let said = keyspace::against(&store, &log).join("; ");
    assert!(said.contains("revision (2, 0) is there, and should not be"), "{said}");
    store.0.get_mut("key").expect("it has rows").remove(&rev(2, 0, false));
    assert_eq!(keyspace::against(&store, &log), Vec::<String>::new());
    compacted(&mut store, 4);
    store.0.get_mut("key").expect("it has rows").remove(&rev(3, 1, false));
    assert_eq!(keyspace::against(&store, &log), Vec::<String>::new(), "a deletion at it stays");
    store.0.get_mut("key").expect("it has rows").remove(&rev(4, 0, true));
    let said = keyspace::against(&store, &log).join("; ");
    assert!(said.contains("revision (4, 0) is missing"), "{said}");
}

#[test]
fn members_at_one_index_are_compared() {
    let (one, _) = sound();
    let mut other = one.clone();
    let both = |other: &Store| equal(&[("m0".into(), one.clone()), ("m1".into(), other.clone())]);
    assert!(both(&other).is_empty());
    *row(&mut other, "meta", b"quorate.live_bytes") = vec![0; 8];
    assert!(both(&other).is_empty(), "each member's own");
    other.0.get_mut("lease").expect("one").clear();
    assert_eq!(both(&other).len(), 1);
    *row(&mut other, "meta", b"consistent_index") = 8_i64.to_be_bytes().to_vec();
    assert!(both(&other).is_empty(), "elsewhere in the log");
}
