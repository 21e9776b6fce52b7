//! HashKV of a database file: what `etcdctl endpoint hashkv` prints for a member with these keys (etcd 3.7,
//! `server/storage/mvcc/hash.go`). Keeps the newest revision of each key in memory.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::mvccpb::KeyValue;

use crate::bbolt::{Database, Scan, Source};
use crate::engine::Cf;
use crate::mvcc::HashKv;
use crate::types::Revision;

/// A revision: main and sub, big-endian, with `_` between; a tombstone has one byte more.
const REVISION_BYTES: usize = 17;
/// Rows of bucket `meta` with the newest compaction, begun and finished.
const COMPACTIONS: [&[u8]; 2] = [b"scheduledCompactRev", b"finishedCompactRev"];

/// Main and sub revision.
type At = (i64, i64);

/// The fingerprint of all history in the file.
pub(super) fn hash_kv(database: &Database) -> io::Result<HashKv> {
    let mut compacted = -1;
    for row in COMPACTIONS {
        if let Some(row) = database.get(Cf::Meta.name().as_bytes(), row)? {
            compacted = compacted.max(parse(&row)?.0.0);
        }
    }
    let kept = Kept::read(rows(database)?)?;
    let mut hash = crc32c::crc32c(Cf::Key.name().as_bytes());
    let mut revision = compacted.max(1);
    for row in rows(database)? {
        let (key, record) = row?;
        let (at, tombstone) = parse(&key)?;
        revision = revision.max(at.0);
        // Older members delete a deletion made at the compaction, newer ones keep it.
        let disputed = tombstone && at.0 == compacted;
        let counts = at.0 > compacted || kept.counts(&record, at)?;
        if counts && !disputed {
            hash = crc32c::crc32c_append(hash, &key);
            hash = crc32c::crc32c_append(hash, &record);
        }
    }
    Ok(HashKv { hash, compact_revision: Revision(compacted), hash_revision: Revision(revision) })
}

/// The newest change of each key, deletions apart.
struct Kept {
    newest: HashMap<Bytes, At>,
}

impl Kept {
    fn read(rows: Scan) -> io::Result<Self> {
        let mut newest = HashMap::new();
        for row in rows {
            let (key, record) = row?;
            let (at, tombstone) = parse(&key)?;
            // A change of no key, which a restored backup may begin with.
            if record.is_empty() {
                continue;
            }
            let key = user_key(&record)?;
            if tombstone {
                newest.remove(&key);
            } else {
                newest.insert(key, at);
            }
        }
        Ok(Self { newest })
    }

    /// Whether a change at or before the compaction is part of the fingerprint. Without any key that
    /// lives, etcd skips nothing.
    fn counts(&self, record: &Bytes, at: At) -> io::Result<bool> {
        if self.newest.is_empty() || record.is_empty() {
            return Ok(true);
        }
        Ok(self.newest.get(&user_key(record)?) == Some(&at))
    }
}

fn rows(database: &Database) -> io::Result<Scan> {
    database.scan(&Bytes::from_static(Cf::Key.name().as_bytes()))
}

/// Copied: a row's memory is that of its page.
fn user_key(record: &Bytes) -> io::Result<Bytes> {
    let record = KeyValue::decode(record.clone()).map_err(|_| bad("a key's record"))?;
    Ok(Bytes::copy_from_slice(&record.key))
}

/// The revision in a key of bucket `key`, and whether it is a deletion's.
fn parse(revision: &[u8]) -> io::Result<(At, bool)> {
    let numbers = revision.first_chunk::<8>().zip(revision.get(9..REVISION_BYTES));
    let (main, sub) = numbers.ok_or_else(|| bad("a revision"))?;
    let sub = sub.try_into().map_err(|_| bad("a revision"))?;
    let at = (i64::from_be_bytes(*main), i64::from_be_bytes(sub));
    Ok((at, revision.len() > REVISION_BYTES))
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} does not decode"))
}
