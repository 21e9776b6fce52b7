//! Installing a state: what a crash or an error on the way leaves, and what a stream may not be.

use bytes::Bytes;

use super::{entry, open, place, put};
use crate::engine::{Cf, EngineError};
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
    // Durable or not, the cleared state says that nothing was applied.
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
