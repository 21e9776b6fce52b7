//! Leases over a real store: what is granted, what a revoke takes with it, what a restart finds.

use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::etcdserverpb::{LeaseCheckpoint, PutRequest};
use quorate_proto::leasepb;

use super::{Lease, Leases, check_row, find, list};
use crate::engine::{Engine, Options, Place};
use crate::error::Refused;
use crate::limits::LEASE_TTL_MAX_S;
use crate::mvcc::{Store, Write};
use crate::types::{Index, LeaseId, Revision, Term};

fn open(place: &Place) -> Store {
    let engine = Engine::open(Path::new("/db"), &Options::in_memory(place.clone()));
    Store::open(engine.expect("opens")).expect("loads")
}

fn entry<T>(store: &Store, apply: impl FnOnce(&mut Write<'_>) -> T) -> T {
    let mut write = store.begin();
    let index = Index(write.applied().0 + 1);
    write.start_entry(index, Term(1));
    let done = apply(&mut write);
    write.commit().expect("commits");
    done
}

fn put(store: &Store, key: &'static str, lease: i64) {
    let key = Bytes::from(key);
    let request = PutRequest { key, lease, ..PutRequest::default() };
    entry(store, |write| drop(write.put(&request).expect("works").expect("is valid")));
}

#[test]
fn grants_are_checked_and_raised() {
    let store = open(&Place::mem_env().expect("an environment"));
    let mut leases = Leases::load(&store).expect("loads").with_ttl_min(2);
    entry(&store, |write| {
        assert_eq!(leases.grant(write, LeaseId(0), 10), Err(Refused::LeaseNotFound));
        let (long, one) = (LEASE_TTL_MAX_S + 1, LeaseId(1));
        assert_eq!(leases.grant(write, one, long), Err(Refused::LeaseTtlTooLarge));
        assert_eq!(leases.grant(write, one, LEASE_TTL_MAX_S), Ok(LEASE_TTL_MAX_S));
        assert_eq!(leases.grant(write, one, 10), Err(Refused::LeaseExists));
        assert_eq!(leases.grant(write, LeaseId(2), -1), Ok(2));
    });
    assert_eq!(list(&store.view()).expect("works").len(), 2);
}

#[test]
fn a_revoke_takes_its_keys_in_order_under_one_revision() {
    let store = open(&Place::mem_env().expect("an environment"));
    let mut leases = Leases::load(&store).expect("loads");
    entry(&store, |write| leases.grant(write, LeaseId(7), 10)).expect("is granted");
    for (key, lease) in [("b", 7), ("a", 7), ("c", 0)] {
        put(&store, key, lease);
    }
    entry(&store, |write| {
        assert_eq!(leases.revoke(write, LeaseId(7)).expect("works"), Ok(()));
        let keys =
            write.take_changed().events.into_iter().filter_map(|event| event.kv).map(|kv| kv.key);
        assert_eq!(keys.collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(leases.revoke(write, LeaseId(7)).expect("works"), Err(Refused::LeaseNotFound));
    });
    assert_eq!(store.revision(), Revision(5));
    assert_eq!(find(&store.view(), LeaseId(7)).expect("works"), None);
}

#[test]
fn a_restart_finds_leases_and_checkpoints_as_of_the_flush() {
    let place = Place::mem_env().expect("an environment");
    let store = open(&place);
    let mut leases = Leases::load(&store).expect("loads");
    entry(&store, |write| leases.grant(write, LeaseId(7), 600)).expect("is granted");
    let checkpoint = |id, remaining_ttl| LeaseCheckpoint { id, remaining_ttl };
    entry(&store, |write| leases.checkpoint(write, &[checkpoint(7, 30), checkpoint(8, 5)]));
    store.flush().expect("works");
    entry(&store, |write| leases.revoke(write, LeaseId(7)).expect("works")).expect("is revoked");
    drop(store);
    let leases = Leases::load(&open(&place)).expect("loads");
    assert_eq!(leases.get(LeaseId(7)), Some(Lease { ttl_s: 600, remaining_s: 30 }));
    assert_eq!(leases.iter().count(), 1, "a checkpoint does not make a lease");
}

#[test]
fn a_record_from_elsewhere_that_no_grant_makes_is_refused() {
    let row = |id: i64, ttl, remaining_ttl| leasepb::Lease { id, ttl, remaining_ttl };
    let cases = [
        (row(7, i64::MAX, 0), "TTL 9223372036854775807 is not between 0 and 9000000000"),
        (row(7, LEASE_TTL_MAX_S + 1, 0), "TTL 9000000001 is not"),
        (row(7, -1, 0), "TTL -1 is not"),
        (row(7, 1, i64::MAX), "remaining TTL 9223372036854775807 is not"),
        (row(7, 1, -1), "remaining TTL -1 is not"),
        (row(8, 1, 0), "it is of lease 8"),
    ];
    for (lease, why) in cases {
        let refused = check_row(&7_i64.to_be_bytes(), lease.encode_to_vec().into());
        let error = refused.expect_err(why).to_string();
        assert!(error.contains(why) && error.contains("07]"), "{error}");
    }
    let fine = row(7, LEASE_TTL_MAX_S, LEASE_TTL_MAX_S);
    assert_eq!(check_row(&7_i64.to_be_bytes(), fine.encode_to_vec().into()).expect("fits"), fine);
    assert!(check_row(b"\0", fine.encode_to_vec().into()).is_err(), "a key that is no id");
}
