//! Opening, writing, flushing and measuring. Reads are in `snapshot`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use bytes::Bytes;
use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    FlushOptions, WriteBatch, WriteOptions, properties,
};

use super::{Cf, Options, Snapshot};
use crate::error::Fatal;

/// The disk, or RocksDB, failed. Always fatal to the process.
#[derive(Debug, thiserror::Error)]
#[error("engine {path}: cannot {doing}: {source}")]
pub struct EngineError {
    pub path: String,
    pub doing: &'static str,
    pub source: rocksdb::Error,
}

impl From<EngineError> for Fatal {
    fn from(error: EngineError) -> Self {
        Fatal::new("storage engine", error)
    }
}

/// An open engine; clones share it. It closes, without flushing, when the last clone, snapshot and
/// cursor is gone.
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    /// By [`Cf::position`]. Point into `db`, see [`Inner::open_as`].
    families: [&'static ColumnFamily; Cf::COUNT],
    unlogged: WriteOptions,
    path: PathBuf,
    /// In the simulator, where RocksDB does nothing by itself.
    simulated: bool,
    /// Bytes of all batches so far.
    written: AtomicU64,
    /// All of it is being compacted.
    compacting: AtomicBool,
    db: DB,
}

/// Table files of one family, each from one flush, that a read may have to look into.
const FILES_BEFORE_COMPACTION: u64 = 8;

impl Engine {
    /// Opens the database in `dir`, creating what is missing. Blocks; in the simulator it must not run
    /// on a simulated thread (RocksDB registers a timer that compares real and simulated clocks).
    pub fn open(dir: &Path, options: &Options) -> Result<Self, EngineError> {
        Ok(Self { inner: Arc::new(Inner::open_as(dir, options, false)?) })
    }

    /// Opens the database in `dir` as its files have it, for reading only: nothing is created or changed.
    /// Blocks.
    pub fn open_read_only(dir: &Path, options: &Options) -> Result<Self, EngineError> {
        Ok(Self { inner: Arc::new(Inner::open_as(dir, options, true)?) })
    }

    /// An empty batch for this engine.
    pub fn batch(&self) -> Batch {
        Batch { engine: self.clone(), changes: WriteBatch::default() }
    }

    /// Makes the batch visible to later snapshots, as a whole. Not durable before a flush.
    pub fn write(&self, batch: Batch) -> Result<(), EngineError> {
        debug_assert!(Arc::ptr_eq(&self.inner, &batch.engine.inner), "a batch of another engine");
        let inner = &self.inner;
        inner.written.fetch_add(batch.bytes() as u64, Relaxed);
        inner.db.write_opt(batch.changes, &inner.unlogged).map_err(|e| inner.error("write", e))
    }

    /// The value of `key` as of now.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let inner = &self.inner;
        let found = inner.db.get_pinned_cf(&inner.family(cf), key);
        let found = found.map_err(|e| inner.error("read", e))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// This moment.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::take(self)
    }

    /// Makes everything written so far durable, atomically over column families. Blocks.
    pub fn flush(&self) -> Result<(), EngineError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let families: Vec<&ColumnFamily> = self.inner.families.to_vec();
        self.inner
            .db
            .flush_cfs_opt(&families, &options)
            .map_err(|e| self.inner.error("flush", e))?;
        if self.inner.simulated {
            self.compact_pile();
        }
        Ok(())
    }

    /// Flushes, and merges all table files of each family, so that what was deleted takes no space on
    /// disk. Blocks, for as long as it takes to rewrite the store; readers and writers go on. Returns at
    /// once while another call is at it.
    pub fn compact(&self) -> Result<(), EngineError> {
        if self.inner.compacting.swap(true, Acquire) {
            return Ok(());
        }
        let flushed = self.flush();
        if flushed.is_ok() {
            let mut options = CompactOptions::default();
            options.set_exclusive_manual_compaction(false);
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            for cf in self.inner.families {
                self.inner.db.compact_range_cf_opt(cf, None::<&[u8]>, None::<&[u8]>, &options);
            }
        }
        self.inner.compacting.store(false, Release);
        flushed
    }

    /// What RocksDB does by itself in production: merges the table files of those families that have
    /// gathered many, without which reads come to cost as much as there were flushes.
    fn compact_pile(&self) {
        let files = properties::num_files_at_level(0);
        for cf in self.inner.families {
            let gathered = self.inner.db.property_int_value_cf(cf, &files).ok().flatten();
            if gathered.is_some_and(|gathered| gathered >= FILES_BEFORE_COMPACTION) {
                self.inner.db.compact_range_cf(cf, None::<&[u8]>, None::<&[u8]>);
            }
        }
    }

    /// Bytes in table files and in memory. Files that are on their way out are not counted: when they
    /// go is up to RocksDB's threads.
    pub fn total_bytes(&self) -> u64 {
        self.size(properties::LIVE_SST_FILES_SIZE)
    }

    /// An estimate of the bytes that would remain if everything were cleaned up now.
    pub fn live_bytes(&self) -> u64 {
        self.size(properties::ESTIMATE_LIVE_DATA_SIZE)
    }

    /// Bytes in files, by that property, and in memory. In the simulator, what was written since the
    /// engine was opened: sizes of skip lists and of table files depend on thread addresses and on
    /// random identifiers inside of RocksDB.
    fn size(&self, files: &rocksdb::properties::PropName) -> u64 {
        match self.inner.simulated {
            true => self.inner.written.load(Relaxed),
            false => self.sum(files) + self.sum(properties::CUR_SIZE_ALL_MEM_TABLES),
        }
    }

    /// Where it lives.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    fn sum(&self, property: &rocksdb::properties::PropName) -> u64 {
        let of = |cf: &&ColumnFamily| self.inner.db.property_int_value_cf(cf, property);
        self.inner.families.iter().filter_map(|cf| of(cf).ok().flatten()).sum()
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Inner {
    fn open_as(dir: &Path, options: &Options, read_only: bool) -> Result<Self, EngineError> {
        let fail = |source| EngineError { path: dir.display().to_string(), doing: "open", source };
        let cache = Cache::new_lru_cache(options.block_cache_bytes);
        let descriptors = Cf::ALL
            .map(|cf| ColumnFamilyDescriptor::new(cf.name(), options.family(cf, &cache)))
            .into_iter()
            .chain([ColumnFamilyDescriptor::new("default", options.family(Cf::Meta, &cache))]);
        let database = options.database().map_err(fail)?;
        let db = match read_only {
            true => DB::open_cf_descriptors_read_only(&database, dir, descriptors, false),
            false => DB::open_cf_descriptors(&database, dir, descriptors),
        };
        let db = db.map_err(fail)?;

        let families = Cf::ALL.map(|cf| {
            let family = db.cf_handle(cf.name()).expect("open created every column family");
            // SAFETY: `family` lives in a node of the map of column families inside `db`. Nodes stay where
            // they are while the map is not changed, moves of `db` included, and changing it takes `&mut
            // DB`, which is handed out nowhere after this function. The reference never leaves this module
            // and goes away with `db`, in the same struct.
            unsafe { &*std::ptr::from_ref::<ColumnFamily>(family) }
        });
        let mut unlogged = WriteOptions::default();
        unlogged.disable_wal(true);
        let (path, simulated) = (dir.to_owned(), options.mem.is_some());
        let (written, compacting) = (AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { families, unlogged, path, simulated, written, compacting, db })
    }

    pub(super) fn db(&self) -> &DB {
        &self.db
    }

    pub(super) fn family(&self, cf: Cf) -> &ColumnFamily {
        self.families[cf.position()]
    }

    pub(super) fn error(&self, doing: &'static str, source: rocksdb::Error) -> EngineError {
        EngineError { path: self.path.display().to_string(), doing, source }
    }
}

/// Changes that become visible, and durable, together.
pub struct Batch {
    engine: Engine,
    changes: WriteBatch,
}

impl Batch {
    pub fn put(&mut self, cf: Cf, key: &[u8], value: &[u8]) {
        self.changes.put_cf(&self.engine.inner.family(cf), key, value);
    }

    pub fn delete(&mut self, cf: Cf, key: &[u8]) {
        self.changes.delete_cf(&self.engine.inner.family(cf), key);
    }

    /// Deletes `[from, to)`.
    pub fn delete_range(&mut self, cf: Cf, from: &[u8], to: &[u8]) {
        self.changes.delete_range_cf(&self.engine.inner.family(cf), from, to);
    }

    /// Deletes everything that `snapshot` shows in the column family.
    pub fn clear(&mut self, cf: Cf, snapshot: &Snapshot) -> Result<(), EngineError> {
        // A range has no open end, and no key is known to be greater than all: end at the last one.
        if let Some(last) = snapshot.last_key(cf)? {
            self.delete_range(cf, &[], &last);
            self.delete(cf, &last);
        }
        Ok(())
    }

    /// Size so far.
    pub fn bytes(&self) -> usize {
        self.changes.size_in_bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}
