//! What a snapshot file holds, as `etcdutl snapshot status` shows it. Reads the whole file, and keeps
//! the keys that live at its end in memory, as etcdutl does.

use std::collections::HashSet;
use std::io;
use std::path::Path;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::mvccpb::KeyValue;

use crate::bbolt::{Database, Seal, check_seal};
use crate::env::{Disk, Open};

const KEY_BUCKET: &[u8] = b"key";
/// A revision: main and sub, big-endian, with `_` between; a tombstone has one byte more.
const REVISION_BYTES: usize = 17;

/// What etcdutl prints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// CRC-32C over names, keys and values of all buckets.
    pub hash: u32,
    pub revision: i64,
    pub total_keys: usize,
    pub total_bytes: u64,
    /// Empty when the store does not have it, as before 3.6.
    pub version: String,
}

/// `progress` gets how many bytes of how many were read.
pub fn status(
    disk: &dyn Disk,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> io::Result<Status> {
    // That it is none at all comes before a hash that is wrong.
    let database = Database::open(disk.open(path, Open::Read)?)?;
    if matches!(check_seal(&*disk.open(path, Open::Read)?)?, Seal::Broken { .. }) {
        return Err(damaged("the hash at its end is not that of what stands before it"));
    }
    let (mut hash, mut revision, mut live, mut read) = (0, 0, HashSet::new(), 0);
    for bucket in database.buckets()? {
        hash = crc32c::crc32c_append(hash, &bucket);
        for row in database.iter(&bucket)?.into_iter().flatten() {
            let (key, value) = row?;
            hash = crc32c::crc32c_append(hash, &key);
            hash = crc32c::crc32c_append(hash, &value);
            read += (key.len() + value.len()) as u64;
            if bucket == KEY_BUCKET {
                revision = follow(&mut live, &key, value)?;
            }
            progress(read, database.used_bytes());
        }
    }
    let version = database.get(b"meta", b"storageVersion")?.unwrap_or_default();
    Ok(Status {
        hash,
        revision,
        total_keys: live.len(),
        total_bytes: database.used_bytes(),
        version: String::from_utf8_lossy(&version).into_owned(),
    })
}

/// Follows the keys through one revision and returns it.
fn follow(live: &mut HashSet<Box<[u8]>>, revision: &[u8], value: Bytes) -> io::Result<i64> {
    let main = revision.first_chunk().ok_or_else(|| damaged("a revision is too short"))?;
    let record = KeyValue::decode(value);
    let key = record.map_err(|_| damaged("a key's record does not decode"))?.key;
    match revision.len() {
        // A copy: the record is a part of its page, which would stay in memory.
        REVISION_BYTES => live.insert(Box::from(&key[..])),
        _ => live.remove(&key[..]),
    };
    Ok(i64::from_be_bytes(*main))
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_live_until_their_tombstone() {
        let mut live = HashSet::new();
        let record = |key: &'static str| {
            Bytes::from(KeyValue { key: key.into(), ..KeyValue::default() }.encode_to_vec())
        };
        let revision =
            |main: i64, tail: &[u8]| [&main.to_be_bytes()[..], b"_", &[0; 8], tail].concat();
        assert_eq!(follow(&mut live, &revision(2, b""), record("a")).expect("valid"), 2);
        assert_eq!(follow(&mut live, &revision(3, b""), record("b")).expect("valid"), 3);
        assert_eq!(follow(&mut live, &revision(4, b"t"), record("a")).expect("valid"), 4);
        assert_eq!(live.len(), 1);
        assert!(follow(&mut live, b"short", record("a")).is_err());
    }
}
