//! Reading: one moment of the engine, single keys and cursors over it.

use std::sync::Arc;

use bytes::Bytes;
use rocksdb::{DBRawIterator, ReadOptions};

use super::{Cf, Engine, EngineError};

/// One moment of the engine. Clones share it; it may cross threads and outlive every other handle.
#[derive(Clone)]
pub struct Snapshot {
    moment: Arc<Moment>,
}

/// Fields are dropped in this order: what points into the database goes first, the handle that keeps
/// the database open last.
struct Moment {
    /// Options of single reads, with the snapshot set.
    single: ReadOptions,
    snapshot: rocksdb::Snapshot<'static>,
    engine: Engine,
}

/// A key and its value, in the engine's memory.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A position in one column family of a snapshot. Dropped in this order: iterator, then snapshot.
pub struct Cursor {
    raw: DBRawIterator<'static>,
    moment: Arc<Moment>,
}

impl Snapshot {
    pub(super) fn take(engine: &Engine) -> Self {
        // SAFETY: the database is inside the `Arc` that `engine` holds, so it does not move, and it is
        // alive as long as the clone of `engine` in the same struct, which is dropped after the
        // snapshot. The 'static lifetime is not visible outside of this module.
        let db: &'static rocksdb::DB =
            unsafe { &*std::ptr::from_ref::<rocksdb::DB>(engine.inner().db()) };
        let snapshot = db.snapshot();
        let mut single = ReadOptions::default();
        single.set_snapshot(&snapshot);
        Self { moment: Arc::new(Moment { single, snapshot, engine: engine.clone() }) }
    }

    /// The value of `key`.
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        self.get_with(cf, key, Bytes::copy_from_slice)
    }

    /// What `read` makes of the value of `key`, without copying it first.
    pub fn get_with<T>(
        &self,
        cf: Cf,
        key: &[u8],
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<Option<T>, EngineError> {
        let inner = self.moment.engine.inner();
        match inner.db().get_pinned_cf_opt(&inner.family(cf), key, &self.moment.single) {
            Ok(pinned) => Ok(pinned.map(|value| read(&value))),
            Err(e) => Err(inner.error("read", e)),
        }
    }

    /// A cursor that sees keys below `upper` only. Not positioned: seek first.
    pub fn cursor(&self, cf: Cf, upper: Option<&[u8]>) -> Cursor {
        let mut options = ReadOptions::default();
        if let Some(upper) = upper {
            options.set_iterate_upper_bound(upper);
        }
        let inner = self.moment.engine.inner();
        let raw = self.moment.snapshot.raw_iterator_cf_opt(&inner.family(cf), options);
        // SAFETY: as in `take`: the iterator points into the database and the snapshot, both kept by
        // `moment`, which the cursor drops after it.
        let raw = unsafe { std::mem::transmute::<DBRawIterator<'_>, DBRawIterator<'static>>(raw) };
        Cursor { raw, moment: Arc::clone(&self.moment) }
    }

    /// Every pair with a key in `[lower, upper)`, in order, copied.
    pub fn scan(
        &self,
        cf: Cf,
        lower: &[u8],
        upper: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), EngineError>> + Send + use<> {
        let mut cursor = self.cursor(cf, upper);
        cursor.seek(lower);
        std::iter::from_fn(move || match cursor.entry() {
            Ok(Some((key, value))) => {
                let pair = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
                cursor.next();
                Some(Ok(pair))
            }
            Ok(None) => None,
            Err(e) => Some(Err(e)),
        })
    }

    /// The greatest key of the column family.
    pub fn last_key(&self, cf: Cf) -> Result<Option<Bytes>, EngineError> {
        let mut cursor = self.cursor(cf, None);
        cursor.raw.seek_to_last();
        Ok(cursor.entry()?.map(|(key, _)| Bytes::copy_from_slice(key)))
    }

    /// The engine it was taken from.
    pub fn engine(&self) -> &Engine {
        &self.moment.engine
    }
}

impl Cursor {
    /// Goes to the first key at or after `key`.
    pub fn seek(&mut self, key: &[u8]) {
        self.raw.seek(key);
    }

    /// Goes to the next key; stays at the end when it is there.
    pub fn next(&mut self) {
        self.raw.next();
    }

    /// The pair at the position; none at the end, or before the first seek.
    pub fn entry(&self) -> Result<Option<Pair<'_>>, EngineError> {
        match self.raw.item() {
            Some(pair) => Ok(Some(pair)),
            None => {
                let inner = self.moment.engine.inner();
                self.raw.status().map(|()| None).map_err(|e| inner.error("iterate", e))
            }
        }
    }
}
