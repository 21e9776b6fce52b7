//! Replacing the whole state by another member's, and giving ours away: etcd's buckets as a stream of
//! pairs. What we derive from them is derived again on the way in. Knows no file format.

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use super::compact::Progress;
use super::counts::Chunks;
use super::foreign::Rows;
use super::keys::{Rev, RevKey};
use super::overlay::Overlay;
use super::reader::Reader;
use super::record::{KvRef, shared_kv};
use super::store::{Position, Writer, meta};
use super::{Store, View, change};
use crate::engine::{Cf, EngineError, Snapshot};
use crate::error::Fatal;
use crate::limits::INSTALL_BATCH_BYTES;
use crate::plant;
use crate::types::{Index, Revision, Term};

impl View {
    /// Everything that belongs to another member's copy of this state: the buckets in the order of
    /// [`Cf::BUCKETS`], each in key order.
    pub fn export(
        &self,
    ) -> impl Iterator<Item = Result<(Cf, Bytes, Bytes), EngineError>> + Send + use<> {
        let view = self.clone();
        Cf::BUCKETS.into_iter().flat_map(move |cf| {
            view.export_bucket(cf).map(move |row| row.map(|(key, value)| (cf, key, value)))
        })
    }

    /// The part of [`View::export`] that is one bucket.
    pub fn export_bucket(
        &self,
        cf: Cf,
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), EngineError>> + Send + use<> {
        let left_out = plant::SNAPSHOT_WITHOUT_LEASES.is_planted() && cf == Cf::Lease;
        let own = move |key: &[u8]| cf == Cf::Meta && key.starts_with(meta::OWN_PREFIX);
        let thin = plant::SNAPSHOT_LOSES_ROWS.is_planted() && cf == Cf::Key;
        let mut number = 0_u64;
        let rows = self.snapshot.scan(cf, &[], None).filter(move |_| {
            number += 1;
            !(left_out || thin && number.is_multiple_of(64))
        });
        let rows = rows.filter(move |row| !matches!(row, Ok((key, _)) if own(key)));
        let mut version = match cf {
            Cf::Meta => self.storage_version().transpose(),
            _ => None,
        };
        rows.flat_map(move |row| {
            let follows = matches!(&row, Ok((key, _)) if **key > *meta::STORAGE_VERSION);
            let before = if follows { version.take() } else { None };
            before.into_iter().chain([row])
        })
    }

    /// The row of `meta` with the storage version, as etcd keeps it from 3.6 on: it follows from the
    /// cluster's version, so it is not stored.
    fn storage_version(&self) -> Result<Option<(Bytes, Bytes)>, EngineError> {
        let version = self.snapshot.get(Cf::Cluster, b"clusterVersion")?;
        let known = |version: &Bytes| {
            let text = std::str::from_utf8(version).ok()?;
            let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
            Some((parts.next()??, parts.next()??) >= (3, 6))
        };
        let version = version.filter(|version| known(version) == Some(true));
        Ok(version.map(|version| (Bytes::from_static(meta::STORAGE_VERSION), version)))
    }
}

/// The rows of `meta` with the position of a state in the log: what another cluster's copy must have
/// differently to be the beginning of a new one.
pub fn position_rows(applied: Index, term: Term) -> [(Bytes, Bytes); 2] {
    let row =
        |key, number: u64| (Bytes::from_static(key), Bytes::copy_from_slice(&number.to_be_bytes()));
    [row(meta::CONSISTENT_INDEX, applied.0), row(meta::TERM, term.0)]
}

/// The newest main revision among keys of bucket `key`, if `key` is the last of them.
pub fn revision_of(key: &[u8]) -> Result<Revision, Fatal> {
    Ok(Revision(RevKey::parse(key)?.0.main))
}

/// What makes `revision` the newest one of a state, with all before it compacted, as etcdutl's
/// `--bump-revision` does it: a change of no key in bucket `key`, and a row of `meta` that schedules the
/// compaction.
pub fn raised_rows(revision: Revision) -> [(Bytes, Bytes); 2] {
    let key = RevKey::new(Rev::first(revision.0), false).to_bytes();
    [(key.clone(), Bytes::new()), (Bytes::from_static(meta::SCHEDULED_COMPACT), key)]
}

impl Store {
    /// Replaces everything by `source`: pairs of etcd's buckets, those of [`Cf::Key`] in key order.
    /// Readers see the old state until the new one is whole and durable. Blocks.
    ///
    /// A crash on the way leaves either the old state or one whose applied index is 0, which means that
    /// it must be installed again.
    pub fn install<E>(
        &self,
        source: impl Iterator<Item = Result<(Cf, Bytes, Bytes), E>>,
    ) -> Result<Position, Fatal>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut install = Install::begin(self)?;
        for row in source {
            let (cf, key, value) = row.map_err(|e| Fatal::new("reading a snapshot", e))?;
            install.rows.check(cf, &key, &value)?;
            match cf {
                Cf::Key => install.change(&key, value)?,
                // Follows from the cluster's version.
                Cf::Meta if *key == *meta::STORAGE_VERSION => {}
                Cf::Meta => install.meta.push((key, value)),
                _ => install.overlay.set(cf, &key[..], &value[..]),
            }
            if install.overlay.bytes() >= INSTALL_BATCH_BYTES {
                install.write()?;
            }
        }
        install.finish()
    }
}

/// An installation under way.
struct Install<'a> {
    writer: Writer<'a>,
    /// What was written so far.
    snapshot: Snapshot,
    overlay: Overlay,
    chunks: Chunks,
    /// Of history so far.
    bytes: u64,
    /// What came so far, checked.
    rows: Rows,
    /// Held back to the end: it holds the position of the state.
    meta: Vec<(Bytes, Bytes)>,
}

impl<'a> Install<'a> {
    /// Clears the store, its position first of all and in the same batch.
    fn begin(store: &'a Store) -> Result<Self, Fatal> {
        let mut writer = store.enter();
        // What the writer has cached belongs to the old state.
        writer.take_chunks()?;
        store.set_progress(Progress::default());
        let mut batch = writer.batch();
        for cf in Cf::ALL {
            batch.clear(cf, &writer.base.snapshot)?;
        }
        writer.write(batch)?;
        let snapshot = store.engine().snapshot();
        let (overlay, chunks) = (Overlay::default(), Chunks::empty());
        let (rows, meta) = (Rows::default(), Vec::new());
        Ok(Self { writer, snapshot, overlay, chunks, bytes: 0, rows, meta })
    }

    fn reader(&self) -> Reader<'_> {
        let revision = self.rows.last().map_or(0, |rev| rev.main);
        let overlay = Some(&self.overlay);
        Reader { snapshot: &self.snapshot, overlay, revision, compacted: -1 }
    }

    fn change(&mut self, key: &[u8], record: Bytes) -> Result<(), Fatal> {
        let (rev, tombstone) = RevKey::parse(key)?;
        if record.is_empty() {
            // A change of no key: see `raised_rows`. Members must agree on history byte for byte.
            self.bytes += key.len() as u64;
            self.overlay.set(Cf::Key, key, []);
            return Ok(());
        }
        let kv = if tombstone {
            let key = Bytes::copy_from_slice(KvRef::parse(&record)?.key);
            KeyValue { key, mod_revision: rev.main, ..KeyValue::default() }
        } else {
            shared_kv(&record)?
        };
        let newest = self.reader().head(&kv.key)?;
        self.bytes +=
            change::record(&mut self.overlay, &mut self.chunks, rev, newest.as_ref(), &kv);
        Ok(())
    }

    fn write(&mut self) -> Result<(), Fatal> {
        let cuts = self.chunks.cuts(self.reader())?;
        self.chunks.settle(&mut self.overlay, cuts);
        let mut batch = self.writer.batch();
        std::mem::take(&mut self.overlay).write_to(&mut batch);
        self.writer.write(batch)?;
        self.snapshot = self.writer.engine().snapshot();
        Ok(())
    }

    fn finish(mut self) -> Result<Position, Fatal> {
        self.write()?;
        let mut batch = self.writer.batch();
        for (key, value) in &self.meta {
            if !key.starts_with(meta::OWN_PREFIX) {
                batch.put(Cf::Meta, key, value);
            }
        }
        // etcd does not store its revision: it is that of the last change, or of a compaction that left
        // no change behind.
        let last = self.rows.last().map_or(Position::EMPTY.revision.0, |rev| rev.main);
        let compacted = self.compacted()?.unwrap_or(-1);
        batch.put(Cf::Meta, meta::REVISION, &last.max(compacted).to_be_bytes());
        batch.put(Cf::Meta, meta::LIVE_BYTES, &self.bytes.to_be_bytes());
        self.writer.write(batch)?;
        if !plant::INSTALL_NOT_FLUSHED.is_planted() {
            self.writer.engine().flush()?;
        }
        let position = Position::load(&self.writer.engine().snapshot())?;
        assert!(position.revision >= Revision(last), "{position:?} is before its last change");
        self.writer.publish(position);
        self.writer.keep_chunks(Some(self.chunks));
        Ok(position)
    }

    /// The newest compaction that is in the stream.
    fn compacted(&self) -> Result<Option<i64>, Fatal> {
        let names = [meta::SCHEDULED_COMPACT, meta::FINISHED_COMPACT];
        let rows = self.meta.iter().filter(|(key, _)| names.contains(&&key[..]));
        let mut mains = rows.map(|(_, value)| RevKey::parse(value).map(|(rev, _)| rev.main));
        mains.try_fold(None, |newest, main| Ok(newest.max(Some(main?))))
    }
}
