//! The first manifest of a new store, which names all column families and is synced once. RocksDB brings each
//! missing family to disk by itself, one sync after the other, and each is a wait where the disk stalls. It
//! opens what is written here as a store with nothing in it, and begins a manifest of its own.
//!
//! The formats are RocksDB's: `db/version_edit.cc` for the edits, `db/log_format.h` for the records, of which
//! all fit into one block here.

use std::io;
use std::path::Path;

use super::cf::Cf;
use crate::env::{Disk, Open};

const MANIFEST: &str = "MANIFEST-000001";
const CURRENT: &str = "CURRENT";
/// [`CURRENT`] until it is whole, as RocksDB calls it.
const NEXT: &str = "000001.dbtmp";

/// Tags of an edit.
const COMPARATOR: u32 = 1;
const LOG_NUMBER: u32 = 2;
const NEXT_FILE_NUMBER: u32 = 3;
const LAST_SEQUENCE: u32 = 4;
const FAMILY: u32 = 200;
const FAMILY_ADD: u32 = 201;

const BYTEWISE: &[u8] = b"leveldb.BytewiseComparator";

/// A record that is whole.
const FULL: u8 = 1;

/// Begins the store in `dir` unless there is something in it, other than what an earlier call has left that
/// was cut short. Blocks.
pub fn begin(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    disk.create_dir_all(dir)?;
    let found = disk.list(dir)?;
    if found.iter().any(|name| name != MANIFEST && name != NEXT) {
        return Ok(());
    }
    for name in found {
        disk.remove(&dir.join(name))?;
    }
    for (name, content) in [(MANIFEST, manifest()), (NEXT, format!("{MANIFEST}\n").into_bytes())] {
        let file = disk.open(&dir.join(name), Open::CreateNew)?;
        file.write_all_at(&content, 0)?;
        file.sync_data()?;
    }
    disk.rename(&dir.join(NEXT), &dir.join(CURRENT))?;
    disk.sync_dir(dir)
}

/// One edit for the store and one for each family, in the order in which RocksDB creates them.
fn manifest() -> Vec<u8> {
    let mut store = Vec::new();
    text(&mut store, COMPARATOR, BYTEWISE);
    for (tag, number) in [(LOG_NUMBER, 0), (NEXT_FILE_NUMBER, 2), (LAST_SEQUENCE, 0)] {
        varint(&mut store, tag);
        varint(&mut store, number);
    }
    let mut records = record(&store);
    for (id, cf) in (1..).zip(Cf::ALL) {
        let mut edit = Vec::new();
        text(&mut edit, COMPARATOR, BYTEWISE);
        varint(&mut edit, LOG_NUMBER);
        varint(&mut edit, 0);
        varint(&mut edit, FAMILY);
        varint(&mut edit, id);
        text(&mut edit, FAMILY_ADD, cf.name().as_bytes());
        records.extend(record(&edit));
    }
    records
}

/// A checksum, the length, the kind and the edit.
fn record(edit: &[u8]) -> Vec<u8> {
    let length = u16::try_from(edit.len()).expect("names of families are short");
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[FULL]), edit);
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    let mut record = masked.to_le_bytes().to_vec();
    record.extend(length.to_le_bytes());
    record.push(FULL);
    record.extend(edit);
    record
}

fn text(edit: &mut Vec<u8>, tag: u32, text: &[u8]) {
    varint(edit, tag);
    varint(edit, u32::try_from(text.len()).expect("names of families are short"));
    edit.extend(text);
}

fn varint(edit: &mut Vec<u8>, mut number: u32) {
    while number > 0x7f {
        edit.push(number as u8 | 0x80);
        number >>= 7;
    }
    edit.push(number as u8);
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rocksdb::statistics::Histogram;
    use rocksdb::{Cache, ColumnFamilyDescriptor, DB};

    use super::*;
    use crate::engine::{Engine, Options};
    use crate::env::tokio::env;
    use crate::wal::MemDisk;

    /// Opens the store and returns its families, and how often its manifest was synced meanwhile.
    fn opened(dir: &Path) -> (Vec<String>, u64) {
        let options = Options::default();
        let mut database = options.database().expect("the options are known");
        database.enable_statistics();
        let cache = Cache::new_lru_cache(1 << 20);
        let family = |cf: Cf| ColumnFamilyDescriptor::new(cf.name(), options.family(cf, &cache));
        let default = ColumnFamilyDescriptor::new("default", options.family(Cf::Meta, &cache));
        let families = Cf::ALL.into_iter().map(family).chain([default]);
        drop(DB::open_cf_descriptors(&database, dir, families).expect("it opens"));
        let syncs = database.get_histogram_data(Histogram::ManifestFileSyncMicros).count();
        (DB::list_cf(&database, dir).expect("it has families"), syncs)
    }

    #[tokio::test]
    async fn a_new_store_is_synced_once_and_not_for_each_family() {
        let (ours, theirs) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
        begin(&*env().disk, ours.path()).expect("an empty folder");
        let (families, syncs) = opened(ours.path());
        let (by_itself, each) = opened(theirs.path());
        assert_eq!(families, by_itself, "in RocksDB's order");
        assert!(each as usize > Cf::COUNT, "RocksDB syncs for each family: {each}");
        assert!(syncs <= 2, "{syncs} syncs of the manifest");
        assert_eq!(opened(ours.path()).0, families);
    }

    #[tokio::test]
    async fn a_store_that_was_begun_keeps_what_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        begin(&*env().disk, dir.path()).expect("an empty folder");
        for life in 0..3_u8 {
            let engine = Engine::open(dir.path(), &Options::default()).expect("it opens");
            let mut batch = engine.batch();
            for cf in Cf::ALL {
                batch.put(cf, &[life], cf.name().as_bytes());
            }
            engine.write(batch).expect("it is written");
            engine.flush().expect("it is flushed");
            drop(engine);
            begin(&*env().disk, dir.path()).expect("nothing is begun anew");
        }
        let engine = Engine::open(dir.path(), &Options::default()).expect("it opens");
        for (life, cf) in (0..3_u8).flat_map(|life| Cf::ALL.map(|cf| (life, cf))) {
            let value = engine.get(cf, &[life]).expect("it can be read").expect("it was flushed");
            assert_eq!(value, cf.name());
        }
    }

    /// The power goes at each step: what is there is a whole store, or is begun anew.
    #[test]
    fn half_a_beginning_is_no_store() {
        let dir = Path::new("/member/store");
        let steps = {
            let disk = MemDisk::default();
            begin(&disk, dir).expect("the disk works");
            disk.operations()
        };
        for (cut, seed) in (0..=steps).flat_map(|cut| (0..40).map(move |seed| (cut, seed))) {
            let disk = MemDisk::default();
            disk.create_dir_all(dir).expect("the disk works");
            disk.fail_after(cut);
            let done = begin(&disk, dir).is_ok();
            let mut state = seed;
            disk.crash(|below| {
                state = state * 5 + 1;
                state / 3 % below
            });
            if done || disk.exists(&dir.join(CURRENT)).expect("the disk works") {
                assert_eq!(disk.read(&dir.join(CURRENT)), b"MANIFEST-000001\n", "{cut} {seed}");
                assert_eq!(disk.read(&dir.join(MANIFEST)), manifest(), "{cut} {seed}");
            }
            begin(&disk, dir).expect("the disk works again");
            assert_eq!(disk.read(&dir.join(MANIFEST)), manifest(), "{cut} {seed}");
            let current = disk.read(&dir.join(CURRENT));
            assert_eq!(current, b"MANIFEST-000001\n", "{cut} {seed}");
        }
    }

    #[tokio::test]
    async fn a_folder_with_something_in_it_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("000009.sst"), "a store without its head").expect("a file");
        begin(&*env().disk, dir.path()).expect("nothing to do");
        let names = fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(names, 1);
    }
}
