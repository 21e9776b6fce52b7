//! Installing a state: what a crash or an error on the way leaves, and what a stream may not be.

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::mvccpb::KeyValue;

use super::{entry, open, place, put};
use crate::engine::{Cf, EngineError};
use crate::limits::REVISION_MAX;
use crate::mvcc::keys::{Rev, RevKey};
use crate::mvcc::{Position, Store};
use crate::types::Index;

type Rows = Vec<Result<(Cf, Bytes, Bytes), String>>;

fn source(puts: &'static [&'static str]) -> Rows {
    let store = open(&place());
    for key in puts {
        entry(&store, |write| drop(write.put(&put(key, "x")).expect("works").expect("is valid")));
    }
    rows(&store)
}

fn rows(store: &Store) -> Rows {
    store
        .view()
        .export()
        .map(|row: Result<_, EngineError>| row.map_err(|e| e.to_string()))
        .collect()
}

#[test]
fn a_broken_stream_leaves_nothing_that_could_be_taken_for_a_state() {
    let place = place();
    let store = open(&place);
    for key in ["a", "b", "c"] {
        entry(&store, |write| drop(write.put(&put(key, "x")).expect("works").expect("is valid")));
    }
    store.flush().expect("works");
    let mut broken = source(&["d", "e"]);
    broken.insert(2, Err("the peer went away".into()));
    let error = store.install(broken.into_iter()).expect_err("it is broken");
    assert_eq!(error.to_string(), "reading a snapshot: the peer went away");
    // Durable or not, the cleared state is at entry 0.
    store.engine().flush().expect("works");
    drop(store);
    assert_eq!(open(&place).position(), Position::EMPTY);
}

#[test]
fn a_crash_before_the_end_leaves_the_old_state_or_none() {
    let place = place();
    let store = open(&place);
    entry(&store, |write| drop(write.put(&put("a", "x")).expect("works").expect("is valid")));
    store.flush().expect("works");
    let view = store.view();
    store.install(source(&["d", "e"]).into_iter().take(1)).expect("a state without a position");
    assert_eq!(store.applied(), Index(0));
    assert_eq!(view.applied(), Index(1), "views of the old state stay what they are");
    assert!(view.get_head(b"a").expect("works").is_some());
}

#[test]
fn history_out_of_order_is_refused() {
    let mut rows = source(&["d", "e"]);
    rows.swap(0, 1);
    let error = open(&place()).install(rows.into_iter()).expect_err("it is out of order");
    assert!(error.to_string().contains("comes after"), "{error}");
}

#[test]
fn a_state_survives_the_trip() {
    let rows_before = source(&["d", "e", "d", "f"]);
    let place = place();
    let store = open(&place);
    let position = store.install(rows_before.clone().into_iter()).expect("works");
    assert_eq!((position.revision.0, position.applied), (5, Index(4)));
    assert_eq!(rows(&store), rows_before);
    drop(store);
    // Durable by itself.
    let store = open(&place);
    assert_eq!(store.position(), position);
    assert_eq!(rows(&store), rows_before);
}

/// The row that `etcdutl snapshot status` shows: it is in every copy, in its place, and never stored.
#[test]
fn a_copy_names_the_release_whose_data_it_is() {
    let store = open(&place());
    let meta = |store: &Store| -> Vec<(Bytes, Bytes)> {
        let rows = rows(store).into_iter().map(|row| row.expect("works"));
        rows.filter(|(cf, ..)| *cf == Cf::Meta).map(|(_, key, value)| (key, value)).collect()
    };
    let version = |store: &Store| {
        let rows = meta(store);
        assert!(rows.is_sorted(), "{rows:?}");
        let row = rows.into_iter().find(|(key, _)| *key == b"storageVersion"[..]);
        row.map(|(_, value)| String::from_utf8(value.into()).expect("a version is text"))
    };
    assert_eq!(version(&store), None, "the cluster has not agreed on a version");
    for (cluster, stored) in [("3.5.0", None), ("3.6.0", Some("3.6.0")), ("3.7.0", Some("3.7.0"))] {
        entry(&store, |write| {
            write.put_raw(Cf::Cluster, &b"clusterVersion"[..], cluster.as_bytes());
        });
        assert_eq!(version(&store).as_deref(), stored, "{cluster}");
    }
    let copy = open(&place());
    copy.install(rows(&store).into_iter()).expect("works");
    entry(&copy, |write| {
        write.put_raw(Cf::Cluster, &b"clusterVersion"[..], &b"3.6.0"[..]);
    });
    assert_eq!(version(&copy).as_deref(), Some("3.6.0"), "a cluster that is lowered");
}

/// A change of bucket `key` with everything right but what `spoil` makes of it.
fn change(main: i64, spoil: impl FnOnce(&mut KeyValue)) -> (Cf, Bytes, Bytes) {
    let mut kv = KeyValue {
        key: "k".into(),
        create_revision: main.min(2),
        mod_revision: main,
        version: 1,
        ..KeyValue::default()
    };
    spoil(&mut kv);
    let key = RevKey::new(Rev::first(main), false).to_bytes();
    (Cf::Key, key, kv.encode_to_vec().into())
}

fn meta(name: &'static [u8], value: impl AsRef<[u8]>) -> (Cf, Bytes, Bytes) {
    (Cf::Meta, Bytes::from_static(name), Bytes::copy_from_slice(value.as_ref()))
}

#[test]
fn numbers_that_no_member_writes_are_refused_with_their_row() {
    let rev = |main| RevKey::new(Rev::first(main), false);
    let sub = |sub| RevKey::new(Rev { main: 2, sub }, false).to_bytes();
    let (_, _, fine) = change(2, |_| ());
    let refused = [
        (change(i64::MAX, |_| ()), "revision 9223372036854775807 is not between"),
        (change(i64::MAX - 1, |_| ()), "revision 9223372036854775806 is not between"),
        (change(REVISION_MAX + 1, |_| ()), "is not between 1 and"),
        (change(0, |_| ()), "revision 0 is not between 1"),
        ((Cf::Key, sub(i64::MAX), fine.clone()), "change 9223372036854775807 of a revision"),
        ((Cf::Key, Bytes::from_static(b"short"), fine), "is not a revision"),
        ((Cf::Key, rev(2).to_bytes(), Bytes::from_static(b"\xff")), "is not a KeyValue"),
        (change(2, |kv| kv.mod_revision = 3), "mod_revision is 3"),
        (change(2, |kv| kv.mod_revision = i64::MAX), "mod_revision is 9223372036854775807"),
        (change(2, |kv| kv.mod_revision = -1), "mod_revision is -1"),
        (change(2, |kv| kv.create_revision = 3), "create_revision 3 is not between 1 and 2"),
        (change(2, |kv| kv.create_revision = 0), "create_revision 0 is not between 1 and 2"),
        (change(3, |kv| kv.version = 3), "version 3 is not between 1 and 2"),
        (change(3, |kv| kv.version = 0), "version 0 is not between 1 and 2"),
        (change(3, |kv| kv.version = i64::MAX), "is not between 1 and 2"),
        (change(2, |kv| kv.key.clear()), "its key is empty"),
        (meta(b"scheduledCompactRev", rev(i64::MAX).as_bytes()), "is above"),
        (meta(b"finishedCompactRev", rev(REVISION_MAX + 1).as_bytes()), "is above"),
        (meta(b"finishedCompactRev", b"\0"), "is not a revision"),
        (meta(b"consistent_index", u64::MAX.to_be_bytes()), "18446744073709551615 is above"),
        (meta(b"consistent_index", i64::MAX.to_be_bytes()), "is above"),
        (meta(b"term", u64::MAX.to_be_bytes()), "is above"),
        (meta(b"term", b"1"), "is not a number"),
    ];
    for (row, why) in refused {
        let name = format!("row {} of bucket {}", row.1.escape_ascii(), row.0.name());
        let rows: Rows = vec![Ok(row)];
        let error = open(&place()).install(rows.into_iter()).expect_err(why).to_string();
        assert!(error.contains(why) && error.contains(&name), "{error}");
    }
}

#[test]
fn the_largest_numbers_that_are_taken_in_leave_room_for_work() {
    let rev = RevKey::new(Rev::first(REVISION_MAX), false);
    let rows: Rows = vec![
        Ok(change(REVISION_MAX, |kv| kv.version = REVISION_MAX - 1)),
        Ok(meta(b"consistent_index", REVISION_MAX.to_be_bytes())),
        Ok(meta(b"term", 1_u64.to_be_bytes())),
        Ok(meta(b"scheduledCompactRev", rev.as_bytes())),
    ];
    let store = open(&place());
    store.install(rows.into_iter()).expect("is taken in");
    entry(&store, |write| write.put(&put("k", "x")).expect("works").expect("is valid"));
    entry(&store, |write| write.compact(REVISION_MAX + 1).expect("works").expect("is valid"));
    while !store.compact_step(10).expect("works").finished {}
    let head = store.view().get_head(b"k").expect("works").expect("is there");
    assert_eq!((head.mod_revision, head.version), (REVISION_MAX + 1, REVISION_MAX));
}
