//! The shared handle: opens the state, hands out views, admits one writer at a time and publishes
//! what it commits. No request semantics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use super::compact::Progress;
use super::counts::Chunks;
use super::keys::{RevKey, be_i64};
use super::{View, Write};
use crate::engine::{Batch, Cf, Engine, Snapshot};
use crate::error::Fatal;
use crate::limits;
use crate::plant;
use crate::types::{Index, Revision, Term};

/// Where a state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The newest main revision.
    pub revision: Revision,
    /// The newest compaction, or -1.
    pub compacted: Revision,
    /// The newest compaction whose deletions are all done, or -1.
    pub cleaned: Revision,
    /// The last raft entry whose effects are in.
    pub applied: Index,
    /// Its term.
    pub term: Term,
    /// What history takes: keys and values of `Cf::Key`. Counted, not measured, so it is the same for
    /// the same entries and costs nothing to read.
    pub live_bytes: u64,
}

/// The state; clones share it.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Engine,
    /// The last committed moment. Replaced as a whole, so no reader sees a revision of one moment with
    /// the data of another.
    published: RwLock<View>,
    writing: AtomicBool,
    /// Of the compaction's deletions; belongs to the writer.
    progress: Mutex<Progress>,
    /// Kept from one batch to the next; gone after a batch that was not committed, and read again.
    chunks: Mutex<Option<Chunks>>,
}

const LOCK: &str = "nothing panics while it holds the lock";

/// Keys of `Cf::Meta`: etcd's, and ours with a prefix that no etcd uses.
pub(super) mod meta {
    pub const CONSISTENT_INDEX: &[u8] = b"consistent_index";
    pub const TERM: &[u8] = b"term";
    pub const SCHEDULED_COMPACT: &[u8] = b"scheduledCompactRev";
    pub const STORAGE_VERSION: &[u8] = b"storageVersion";
    pub const FINISHED_COMPACT: &[u8] = b"finishedCompactRev";
    pub const OWN_PREFIX: &[u8] = b"quorate.";
    pub const REVISION: &[u8] = b"quorate.revision";
    pub const LIVE_BYTES: &[u8] = b"quorate.live_bytes";
}

impl Position {
    /// Of a store in which nothing ever happened.
    pub const EMPTY: Self = Self {
        revision: Revision(1),
        compacted: Revision(-1),
        cleaned: Revision(-1),
        applied: Index(0),
        term: Term(0),
        live_bytes: 0,
    };

    /// Reads it from the snapshot. A handful of keys, however large the store is.
    pub(super) fn load(snapshot: &Snapshot) -> Result<Self, Fatal> {
        let number = |key: &[u8]| -> Result<Option<i64>, Fatal> {
            let Some(value) = snapshot.get(Cf::Meta, key)? else { return Ok(None) };
            let broken = || Fatal::new("meta", format!("{} is {value:02x?}", key.escape_ascii()));
            be_i64(&value).map(Some).ok_or_else(broken)
        };
        let revision = |key: &[u8]| -> Result<Option<i64>, Fatal> {
            let Some(value) = snapshot.get(Cf::Meta, key)? else { return Ok(None) };
            Ok(Some(RevKey::parse(&value)?.0.main))
        };
        let scheduled = revision(meta::SCHEDULED_COMPACT)?;
        let finished = revision(meta::FINISHED_COMPACT)?;
        let newest = number(meta::REVISION)?.unwrap_or(Self::EMPTY.revision.0);
        let forgotten = plant::HEAD_COMPACTION_FORGOTTEN.is_planted();
        let compacted = scheduled.max(finished).filter(|at| !(forgotten && *at == newest));
        Ok(Self {
            revision: Revision(newest),
            compacted: Revision(compacted.unwrap_or(-1)),
            cleaned: Revision(finished.unwrap_or(-1)),
            applied: Index(number(meta::CONSISTENT_INDEX)?.unwrap_or(0) as u64),
            term: Term(number(meta::TERM)?.unwrap_or(0) as u64),
            live_bytes: number(meta::LIVE_BYTES)?.unwrap_or(0) as u64,
        })
    }
}

impl Store {
    /// Takes the state as the engine has it. Costs the same for any number of keys.
    pub fn open(engine: Engine) -> Result<Self, Fatal> {
        let snapshot = engine.snapshot();
        let position = Position::load(&snapshot)?;
        let published = RwLock::new(View { snapshot, position });
        let shared = Shared {
            engine,
            published,
            writing: AtomicBool::new(false),
            progress: Mutex::default(),
            chunks: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The last committed moment.
    pub fn view(&self) -> View {
        self.published(View::clone)
    }

    /// Begins a batch. There is one writer, the applier: a second one at the same time is a bug.
    pub fn begin(&self) -> Write<'_> {
        Write::new(self.enter())
    }

    pub fn position(&self) -> Position {
        self.published(|view| view.position)
    }

    pub fn revision(&self) -> Revision {
        self.position().revision
    }

    pub fn compact_revision(&self) -> Revision {
        self.position().compacted
    }

    pub fn applied(&self) -> Index {
        self.position().applied
    }

    /// What the store is counted as, by quotas and as its size: history, compacted parts that are not
    /// deleted yet included, and what a store without any key takes. Never 0.
    pub fn live_bytes(&self) -> u64 {
        self.position().live_bytes + limits::STORE_BYTES_MIN
    }

    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// Makes what is committed durable. Returns the last entry that is. Blocks.
    pub fn flush(&self) -> Result<Index, Fatal> {
        // Taken before: the flush may take in more, never less.
        let applied = self.applied();
        self.shared.engine.flush()?;
        Ok(applied)
    }

    fn published<T>(&self, read: impl FnOnce(&View) -> T) -> T {
        read(&self.shared.published.read().expect(LOCK))
    }

    pub(super) fn progress(&self) -> Progress {
        *self.shared.progress.lock().expect(LOCK)
    }

    pub(super) fn set_progress(&self, progress: Progress) {
        *self.shared.progress.lock().expect(LOCK) = progress;
    }

    /// Becomes the writer.
    pub(super) fn enter(&self) -> Writer<'_> {
        let busy = self.shared.writing.swap(true, Ordering::Acquire);
        assert!(!busy, "the store has one writer, and it is writing already");
        Writer { store: self, base: self.view() }
    }
}

/// The right to write, held by one at a time.
pub(super) struct Writer<'a> {
    store: &'a Store,
    /// What was committed when it began; there is one writer, so this is the present.
    pub base: View,
}

impl Writer<'_> {
    pub fn batch(&self) -> Batch {
        self.store.shared.engine.batch()
    }

    pub fn take_chunks(&mut self) -> Result<Chunks, Fatal> {
        let kept = self.store.shared.chunks.lock().expect(LOCK).take();
        kept.map_or_else(|| Chunks::load(&self.base.snapshot), Ok)
    }

    pub fn keep_chunks(&mut self, chunks: Option<Chunks>) {
        if chunks.is_some() {
            *self.store.shared.chunks.lock().expect(LOCK) = chunks;
        }
    }

    pub fn engine(&self) -> &Engine {
        &self.store.shared.engine
    }

    /// Writes a batch as it is, without showing it to readers: for what replaces the whole state.
    pub fn write(&self, batch: Batch) -> Result<(), Fatal> {
        Ok(self.store.shared.engine.write(batch)?)
    }

    /// Writes the batch with the position in it, then publishes both together.
    pub fn commit(&mut self, mut batch: Batch, position: Position) -> Result<(), Fatal> {
        let before = self.base.position;
        assert!(position.revision >= before.revision, "{position:?} goes back from {before:?}");
        assert!(position.compacted >= before.compacted, "{position:?} goes back from {before:?}");
        assert!(position.applied >= before.applied, "{position:?} goes back from {before:?}");
        self.save(&mut batch, position);
        self.store.shared.engine.write(batch)?;
        self.publish(position);
        Ok(())
    }

    fn save(&self, batch: &mut Batch, position: Position) {
        let before = self.base.position;
        let mut number = |key: &[u8], value: u64| batch.put(Cf::Meta, key, &value.to_be_bytes());
        let kept_back = plant::REVISION_LEFT_OUT.is_planted() && position.revision.0 % 8 != 0;
        if position.revision != before.revision && !kept_back {
            number(meta::REVISION, position.revision.0 as u64);
        }
        if position.live_bytes != before.live_bytes {
            number(meta::LIVE_BYTES, position.live_bytes);
        }
        let apart =
            plant::APPLIED_INDEX_APART.is_planted() && !position.applied.0.is_multiple_of(32);
        if position.applied != before.applied && !apart {
            number(meta::CONSISTENT_INDEX, position.applied.0);
        }
        if position.term != before.term {
            number(meta::TERM, position.term.0);
        }
        let mut revision = |key: &[u8], value: Revision| {
            let rev = super::keys::Rev::first(value.0);
            batch.put(Cf::Meta, key, RevKey::new(rev, false).as_bytes());
        };
        if position.compacted != before.compacted {
            revision(meta::SCHEDULED_COMPACT, position.compacted);
        }
        if position.cleaned != before.cleaned {
            revision(meta::FINISHED_COMPACT, position.cleaned);
        }
    }

    /// Shows readers the engine as it is now.
    pub fn publish(&mut self, position: Position) {
        let view = View { snapshot: self.store.shared.engine.snapshot(), position };
        self.base = view.clone();
        let mut published = self.store.shared.published.write().expect(LOCK);
        let old = std::mem::replace(&mut *published, view);
        // Often the last holder of its snapshot: let go of it when readers need not wait.
        drop(published);
        drop(old);
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.store.shared.writing.store(false, Ordering::Release);
    }
}
