//! The key space against etcd's rules: a naive model under random work, scripts that show what
//! requests mean, and fingerprints taken from a real etcd.

mod counts;
mod hash;
mod hot_key;
mod install;
mod model;
mod overlaps;
mod random;
mod scripts;
mod sorted;
mod verify;
mod walks;

use std::path::Path;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest};

use super::{Store, Write};
use crate::engine::{Cf, Engine, Options, Place};
use crate::error::Refused;
use crate::types::{Index, LeaseId, Term};

/// A place for an engine that survives its handles.
pub(super) fn place() -> Place {
    Place::mem_env().expect("an environment in memory")
}

/// Opens the store in a place; after its handles are dropped, only what was flushed is there.
pub(super) fn open(place: &Place) -> Store {
    let options = Options::in_memory(place.clone());
    Store::open(Engine::open(Path::new("/db"), &options).expect("opens")).expect("loads")
}

/// Begins the next entry of term 1.
pub(super) fn next_entry(write: &mut Write<'_>) {
    let index = Index(write.applied().0 + 1);
    write.start_entry(index, Term(1));
}

/// Applies one entry in a batch of its own.
pub(super) fn entry<T>(store: &Store, apply: impl FnOnce(&mut Write<'_>) -> T) -> T {
    let mut write = store.begin();
    next_entry(&mut write);
    let done = apply(&mut write);
    write.commit().expect("commits");
    done
}

/// As the lease table does it, which stands above the key space.
pub(super) fn grant(write: &mut Write<'_>, id: i64) -> Result<(), Refused> {
    if write.get_raw(Cf::Lease, &id.to_be_bytes()).expect("works").is_some() {
        return Err(Refused::LeaseExists);
    }
    write.put_raw(Cf::Lease, &id.to_be_bytes(), b"");
    Ok(())
}

/// Likewise.
pub(super) fn revoke(write: &mut Write<'_>, id: i64) -> Result<(), Refused> {
    if write.get_raw(Cf::Lease, &id.to_be_bytes()).expect("works").is_none() {
        return Err(Refused::LeaseNotFound);
    }
    write.delete_attached(LeaseId(id)).expect("works");
    write.delete_raw(Cf::Lease, &id.to_be_bytes());
    Ok(())
}

pub(super) fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: Bytes::from(key), value: Bytes::from(value), ..PutRequest::default() }
}

pub(super) fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    let (key, range_end) = (Bytes::from(key), Bytes::from(range_end));
    DeleteRangeRequest { key, range_end, prev_kv: false }
}
