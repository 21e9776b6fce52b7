//! The key space against etcd's rules: a naive model under random work, scripts that tell what
//! requests mean, and fingerprints taken from a real etcd.

mod hash;
mod install;
mod model;
mod random;
mod scripts;

use std::path::Path;

use bytes::Bytes;
use quorate_proto::etcdserverpb::{DeleteRangeRequest, PutRequest};

use super::{Store, Write};
use crate::engine::{Engine, Options};
use crate::types::{Index, Term};

/// A place for an engine that survives its handles.
pub(super) fn place() -> rocksdb::Env {
    rocksdb::Env::mem_env().expect("an environment in memory")
}

/// Opens the store in a place; after its handles are dropped, only what was flushed is there.
pub(super) fn open(place: &rocksdb::Env) -> Store {
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

pub(super) fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: Bytes::from(key), value: Bytes::from(value), ..PutRequest::default() }
}

pub(super) fn delete(key: &'static str, range_end: &'static str) -> DeleteRangeRequest {
    let (key, range_end) = (Bytes::from(key), Bytes::from(range_end));
    DeleteRangeRequest { key, range_end, prev_kv: false }
}
