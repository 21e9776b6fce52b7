//! Looking up states of keys at a revision, in a snapshot with, perhaps, an uncommitted batch above
//! it. No request semantics: those are in `range`.

use std::ops::ControlFlow;

use bytes::Bytes;
use quorate_proto::mvccpb::KeyValue;

use super::interval::KeyRange;
use super::keys::{Rev, RevKey, push_version, version_prefix, version_rev};
use super::overlay::{Cursor, Overlay};
use super::record::{Head, KvRef, Outline, shared_kv};
use crate::engine::{Cf, Snapshot};
use crate::error::{Fatal, Refused};
use crate::plant;

/// One consistent state to read from.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub snapshot: &'a Snapshot,
    pub overlay: Option<&'a Overlay>,
    /// The newest main revision that this reader sees, the one under construction included.
    pub revision: i64,
    /// The newest compaction, or -1.
    pub compacted: i64,
}

/// A key that is alive at the requested revision.
pub(super) enum Found<'a> {
    /// Its newest state, with its sub revision.
    Newest(i64, KvRef<'a>),
    /// An older state, whose value has to be fetched.
    Older(&'a [u8], Outline),
}

impl Found<'_> {
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Newest(_, kv) => kv.key,
            Self::Older(key, _) => key,
        }
    }

    /// The main revision of the state.
    pub fn modified(&self) -> i64 {
        match self {
            Self::Newest(_, kv) => kv.modified,
            Self::Older(_, outline) => outline.rev.main,
        }
    }

    /// How many times the key was written since it came to life.
    pub fn version(&self) -> i64 {
        match self {
            Self::Newest(_, kv) => kv.version,
            Self::Older(_, outline) => outline.version,
        }
    }

    /// The main revision at which the key came to life.
    pub fn created(&self) -> i64 {
        match self {
            Self::Newest(_, kv) => kv.create,
            Self::Older(_, outline) => outline.create,
        }
    }
}

impl<'a> Reader<'a> {
    pub fn get(&self, cf: Cf, key: &[u8]) -> Result<Option<Bytes>, Fatal> {
        if let Some(value) = self.overlay.and_then(|overlay| overlay.get(cf, key)) {
            return Ok(value.map(Bytes::copy_from_slice));
        }
        Ok(self.snapshot.get(cf, key)?)
    }

    pub fn cursor(&self, cf: Cf, upper: Option<&[u8]>) -> Cursor<'a> {
        Cursor::new(self.snapshot, self.overlay, cf, upper)
    }

    /// The revision to read at for a requested one: not above the present, not below the compaction;
    /// nothing or less means the present (etcd 3.7 `mvcc.rangeKeys`).
    pub fn resolve(&self, requested: i64) -> Result<i64, Refused> {
        if requested > self.revision && !plant::FUTURE_REVISION_SERVED.is_planted() {
            return Err(Refused::FutureRevision);
        }
        let at = if requested <= 0 { self.revision } else { requested };
        let kept = at >= self.compacted || plant::COMPACTED_REVISION_SERVED.is_planted();
        if !kept { Err(Refused::Compacted) } else { Ok(at) }
    }

    /// The newest state of a key, which may be its deletion.
    pub fn head(&self, key: &[u8]) -> Result<Option<Head>, Fatal> {
        self.get(Cf::Head, key)?.map(|bytes| Head::parse(&bytes)).transpose()
    }

    /// The state of a key at a revision, if it is alive then.
    pub fn at(&self, key: &[u8], rev: i64) -> Result<Option<KeyValue>, Fatal> {
        match self.head(key)? {
            None => Ok(None),
            Some(head) if head.rev.main <= rev => Ok((!head.is_tombstone()).then_some(head.kv)),
            Some(_) => match Versions::new(*self).newest(key, rev)? {
                Some(outline) if !outline.is_tombstone() => self.fetch(outline.rev).map(Some),
                _ => Ok(None),
            },
        }
    }

    /// The `KeyValue` that was put at exactly this revision.
    pub fn fetch(&self, rev: Rev) -> Result<KeyValue, Fatal> {
        let record = self.get(Cf::Key, RevKey::new(rev, false).as_bytes())?;
        let record = record.ok_or_else(|| {
            Fatal::new("history", format!("revision {}.{} is missing", rev.main, rev.sub))
        })?;
        shared_kv(&record)
    }

    /// Passes every key of `range` that is alive at `rev` to `visit`, in key order, until it breaks.
    pub fn walk(
        &self,
        range: &KeyRange,
        rev: i64,
        visit: &mut dyn FnMut(Found<'_>) -> Result<ControlFlow<()>, Fatal>,
    ) -> Result<(), Fatal> {
        let mut versions = Versions::new(*self);
        if let Some(key) = range.single() {
            if let Some(bytes) = self.get(Cf::Head, key)? {
                let _ = show(&bytes, rev, &mut versions, visit)?;
            }
            return Ok(());
        }
        let mut cursor = self.cursor(Cf::Head, range.upper());
        cursor.seek(range.lower())?;
        while let Some((_, bytes)) = cursor.entry()? {
            if show(bytes, rev, &mut versions, visit)?.is_break() {
                break;
            }
            cursor.next()?;
        }
        Ok(())
    }
}

/// Shows one record of `Cf::Head`, or what it was at `rev`.
fn show(
    bytes: &[u8],
    rev: i64,
    versions: &mut Versions<'_>,
    visit: &mut dyn FnMut(Found<'_>) -> Result<ControlFlow<()>, Fatal>,
) -> Result<ControlFlow<()>, Fatal> {
    let (sub, kv) = KvRef::parse_head(bytes)?;
    if kv.modified <= rev || plant::OLD_READ_GETS_NEWEST.is_planted() {
        let alive = kv.version != 0;
        return if alive { visit(Found::Newest(sub, kv)) } else { Ok(ControlFlow::Continue(())) };
    }
    match versions.newest(kv.key, rev)? {
        Some(outline) if !outline.is_tombstone() => visit(Found::Older(kv.key, outline)),
        _ => Ok(ControlFlow::Continue(())),
    }
}

/// Looks for superseded states; keeps its cursor from one key to the next.
pub(super) struct Versions<'a> {
    reader: Reader<'a>,
    cursor: Option<Cursor<'a>>,
}

impl<'a> Versions<'a> {
    pub fn new(reader: Reader<'a>) -> Self {
        Self { reader, cursor: None }
    }

    /// The newest superseded state of `key` at or before the main revision. Only valid when the
    /// head is newer than that, else the head is the answer.
    pub fn newest(&mut self, key: &[u8], main: i64) -> Result<Option<Outline>, Fatal> {
        self.at_or_before(key, Rev::last(main))
    }

    /// The newest superseded state of `key` at or before `rev`.
    pub fn at_or_before(&mut self, key: &[u8], rev: Rev) -> Result<Option<Outline>, Fatal> {
        let mut at = version_prefix(key);
        let prefix = at.len();
        push_version(&mut at, rev);
        let cursor = self.cursor.get_or_insert_with(|| self.reader.cursor(Cf::Versions, None));
        cursor.seek(&at)?;
        outline_here(cursor, &at[..prefix])
    }

    /// The newest superseded state of `key` strictly before `rev`.
    pub fn before(&mut self, key: &[u8], rev: Rev) -> Result<Option<Outline>, Fatal> {
        self.at_or_before(key, rev.before())
    }
}

fn outline_here(cursor: &Cursor<'_>, prefix: &[u8]) -> Result<Option<Outline>, Fatal> {
    let Some((key, value)) = cursor.entry()? else { return Ok(None) };
    version_rev(prefix, key).map(|rev| Outline::parse(rev, value)).transpose()
}
