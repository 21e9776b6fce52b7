//! Fingerprints that members compare, etcd's to the bit: of the history up to a revision (HashKV), and
//! of the whole store (Hash); and of the history in a file, without an engine. Follows etcd 3.7
//! `server/storage/mvcc/hash.go`.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::keys::{Rev, RevKey};
use super::reader::{Found, Reader};
use super::record::KvRef;
use super::store::meta;
use super::{Halt, Outcome, View, settle};
use crate::engine::Cf;
use crate::error::{Fatal, Refused};
use crate::types::Revision;

/// A fingerprint of history; comparable between members where all three agree or the first is a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    /// -1 when nothing was ever compacted.
    pub compact_revision: Revision,
    pub hash_revision: Revision,
}

impl std::fmt::Display for HashKv {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hash, compact_revision, hash_revision } = self;
        write!(f, "hash {hash} at revision {hash_revision}, compact revision {compact_revision}")
    }
}

impl View {
    /// Fingerprint of the history up to `revision`, 0 for all of it. Does not depend on how far the
    /// deletions of a compaction are.
    pub fn hash_kv(&self, revision: i64) -> Outcome<HashKv> {
        settle(hash_kv(self.reader(), revision))
    }

    /// Fingerprint of the history up to the newest compaction, as it was while only `before` was
    /// compacted. Of a moment at which no deletion of the newest compaction has begun.
    pub fn hash_compaction(&self, before: Revision) -> Outcome<HashKv> {
        let compaction = self.position.compacted.0;
        let mut then = self.clone();
        then.position.compacted = before;
        settle(hash_kv(then.reader(), compaction))
    }

    /// Fingerprint of all buckets; members that applied the same entries need not agree on it.
    pub fn hash(&self) -> Result<u32, Fatal> {
        let ignored = |key: &[u8]| {
            key == meta::CONSISTENT_INDEX
                || key == meta::TERM
                || key == meta::STORAGE_VERSION
                || key.starts_with(meta::OWN_PREFIX)
        };
        let mut hash = 0;
        for cf in Cf::BUCKETS {
            hash = crc32c::crc32c_append(hash, cf.name().as_bytes());
            let mut cursor = self.reader().cursor(cf, None);
            cursor.seek(&[])?;
            while let Some((key, value)) = cursor.entry()? {
                if cf != Cf::Meta || !ignored(key) {
                    hash = crc32c::crc32c_append(hash, key);
                    hash = crc32c::crc32c_append(hash, value);
                }
                cursor.next()?;
            }
        }
        Ok(hash)
    }
}

fn hash_kv(reader: Reader<'_>, revision: i64) -> Result<HashKv, Halt> {
    let rev = reader.resolve(revision)?;
    let kept = kept(reader, rev)?;
    let mut hash = crc32c::crc32c(Cf::Key.name().as_bytes());
    let upper = RevKey::new(Rev::first(rev + 1), false);
    let mut cursor = reader.cursor(Cf::Key, Some(upper.as_bytes()));
    cursor.seek(&[])?;
    while let Some((key, record)) = cursor.entry()? {
        let (at, tombstone) = RevKey::parse(key)?;
        // Older members delete a deletion made at the compaction, newer ones keep it.
        let disputed = tombstone && at.main == reader.compacted;
        // A change of no key, which a restored backup may begin with, is no key's newest and counts.
        let counts = kept.counts(at, reader.compacted) || record.is_empty();
        if counts && !disputed {
            hash = crc32c::crc32c_append(hash, key);
            hash = crc32c::crc32c_append(hash, record);
        }
        cursor.next()?;
    }
    Ok(HashKv { hash, compact_revision: Revision(reader.compacted), hash_revision: Revision(rev) })
}

/// Which changes at or before the compaction are part of the fingerprint: of each key alive at the
/// requested revision, the newest. 16 bytes for each key whose newest is that old.
struct Kept {
    any: bool,
    /// Sorted.
    old: Vec<Rev>,
}

impl Kept {
    /// If nothing at all is kept, etcd skips nothing.
    fn counts(&self, at: Rev, compacted: i64) -> bool {
        at.main > compacted || !self.any || self.old.binary_search(&at).is_ok()
    }
}

fn kept(reader: Reader<'_>, rev: i64) -> Result<Kept, Fatal> {
    let mut kept = Kept { any: false, old: Vec::new() };
    let all = super::KeyRange::all();
    reader.walk(&all, rev, &mut |found| {
        kept.any = true;
        let at = match found {
            Found::Newest(sub, KvRef { modified: main, .. }) => Rev { main, sub },
            Found::Older(_, outline) => outline.rev,
        };
        if at.main <= reader.compacted {
            kept.old.push(at);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    kept.old.sort_unstable();
    Ok(kept)
}

/// Rows of bucket `key`, in order.
pub type Changes<'a> = Box<dyn Iterator<Item = io::Result<(Bytes, Bytes)>> + 'a>;

/// The history in a snapshot file or another database with etcd's buckets.
pub trait Rows {
    /// A row of bucket `meta`.
    fn meta(&self, key: &[u8]) -> io::Result<Option<Bytes>>;

    /// All rows of bucket `key`, in order.
    fn changes(&self) -> io::Result<Changes<'_>>;
}

/// [`View::hash_kv`] of a history that is in no engine, as `etcdutl hashkv` computes it: a compaction that
/// is only scheduled counts as done. Reads the rows twice and keeps the name of every key that is alive in
/// memory.
pub fn hash_file(rows: &dyn Rows, revision: i64) -> Outcome<HashKv> {
    settle(hash_rows(rows, revision))
}

fn hash_rows(rows: &dyn Rows, revision: i64) -> Result<HashKv, Halt> {
    let unreadable = |e: io::Error| Fatal::new("reading a history", e);
    let mut compacted = None;
    for key in [meta::SCHEDULED_COMPACT, meta::FINISHED_COMPACT] {
        if let Some(value) = rows.meta(key).map_err(unreadable)? {
            compacted = compacted.max(Some(RevKey::parse(&value)?.0.main));
        }
    }
    // The states that the fingerprint's revision sees: of each key that is alive, the newest.
    let mut alive: HashMap<Box<[u8]>, Rev> = HashMap::new();
    // As a store in which nothing ever happened.
    let mut current = 1.max(compacted.unwrap_or(1));
    for row in rows.changes().map_err(unreadable)? {
        let (key, record) = row.map_err(unreadable)?;
        let (at, tombstone) = RevKey::parse(&key)?;
        current = current.max(at.main);
        if revision != 0 && at.main > revision {
            continue;
        }
        let kv = KvRef::parse(&record)?;
        match tombstone {
            true => alive.remove(kv.key),
            false => alive.insert(kv.key.into(), at),
        };
    }
    let compacted = compacted.unwrap_or(-1);
    if revision > 0 && revision < compacted {
        return Err(Refused::Compacted.into());
    }
    if revision > current {
        return Err(Refused::FutureRevision.into());
    }
    let rev = if revision == 0 { current } else { revision };
    let any = !alive.is_empty();
    let mut old: Vec<Rev> = alive.into_values().filter(|at| at.main <= compacted).collect();
    old.sort_unstable();
    let kept = Kept { any, old };
    let mut hash = crc32c::crc32c(Cf::Key.name().as_bytes());
    for row in rows.changes().map_err(unreadable)? {
        let (key, record) = row.map_err(unreadable)?;
        let (at, tombstone) = RevKey::parse(&key)?;
        let disputed = tombstone && at.main == compacted;
        if at.main <= rev && kept.counts(at, compacted) && !disputed {
            hash = crc32c::crc32c_append(hash, &key);
            hash = crc32c::crc32c_append(hash, &record);
        }
    }
    Ok(HashKv { hash, compact_revision: Revision(compacted), hash_revision: Revision(rev) })
}
