//! Deleting history that a compaction gave up, a bounded piece at a time. Readers notice nothing:
//! they are refused below the compaction before the first deletion.
//!
//! Kept, as by etcd since 3.5.16 (`server/storage/mvcc/key_index.go`): of each key the newest state at
//! or before the compaction C if it is alive then, and a deletion made *at* C, for watchers that begin
//! there.
//!
//! A state to remove is found through the change that superseded it, so the cost of a compaction depends on
//! what was written since the last one, not on what is stored: every change in (last compaction, C]
//! removes the previous state of its key; a deletion in [last compaction, C) removes itself.
//!
//! There is at most one such state, since earlier changes have removed theirs. Each is found by one seek that
//! lands on it: deleted entries stay in the engine as marks until its own compaction, and a scan over
//! the marks of a key that is written all the time costs as much as all its history.

use std::collections::BTreeSet;

use super::keys::{Rev, RevKey, version_key};
use super::reader::Versions;
use super::record::{KvRef, Outline};
use super::{Position, Store};
use crate::engine::{Batch, Cf};
use crate::error::Fatal;
use crate::plant;

/// How far the deletions of the current compaction are. Not stored: a restart begins anew and finds less
/// to delete.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Progress {
    /// The compaction this is about.
    target: i64,
    /// The first change not looked at.
    next: Option<Rev>,
}

impl Progress {
    /// Where to go on. A deletion at an older target was judged by that target, so it is looked at
    /// again.
    fn resume(self, position: Position) -> Resume {
        let begin = Rev::first(position.cleaned.0.max(0));
        let next = self.next.unwrap_or(begin).max(begin);
        let from = if self.target == position.compacted.0 {
            next
        } else {
            next.min(Rev::first(self.target)).max(begin)
        };
        // At the last compaction, too, every change has given up what was before it.
        Resume { from, fresh: next.max(Rev::first(position.cleaned.0.saturating_add(1))) }
    }
}

/// Where a step begins.
#[derive(Clone, Copy)]
struct Resume {
    /// The first change to look at.
    from: Rev,
    /// The first whose predecessor may still be there.
    fresh: Rev,
}

/// What one step has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether it was the compaction's last.
    pub finished: bool,
    /// States that were deleted.
    pub forgotten: usize,
}

impl Store {
    /// Whether there is anything for [`Store::compact_step`] to do.
    pub fn compaction_pending(&self) -> bool {
        let position = self.position();
        position.cleaned < position.compacted
    }

    /// Looks at up to `changes_max` changes and deletes what they gave up. Called by the one writer,
    /// between batches. Deletes only what no reader can reach, so it may be lost, or done again, without
    /// harm.
    pub fn compact_step(&self, changes_max: usize) -> Result<Step, Fatal> {
        let mut writer = self.enter();
        let mut position = writer.base.position;
        let target = position.compacted.0;
        if position.cleaned == position.compacted {
            return Ok(Step { finished: true, forgotten: 0 });
        }
        let mut batch = writer.batch();
        let resume = self.progress().resume(position);
        let swept = sweep(&writer.base.reader(), &mut batch, resume, target, changes_max)?;
        let next = swept.next;
        position.live_bytes -= swept.bytes;
        if next.is_none() {
            position.cleaned = position.compacted;
        }
        writer.commit(batch, position)?;
        self.set_progress(Progress { target, next });
        Ok(Step { finished: next.is_none(), forgotten: swept.gone.len() })
    }
}

/// Looks at changes up to main revision `target`.
fn sweep(
    reader: &super::reader::Reader<'_>,
    batch: &mut Batch,
    resume: Resume,
    target: i64,
    changes_max: usize,
) -> Result<Swept, Fatal> {
    let upper = RevKey::new(Rev::first(target + 1), false);
    let mut cursor = reader.cursor(Cf::Key, Some(upper.as_bytes()));
    cursor.seek(RevKey::new(resume.from, false).as_bytes())?;
    let mut versions = Versions::new(*reader);
    let mut swept = Swept::default();
    for _ in 0..changes_max {
        let Some((key, record)) = cursor.entry()? else { return Ok(swept) };
        let (rev, tombstone) = RevKey::parse(key)?;
        let kv = KvRef::parse(record)?;
        // Before a key's first state there can only be a deletion, which removes itself.
        let supersedes = tombstone || kv.version != 1;
        if rev >= resume.fresh
            && supersedes
            && let Some(older) = versions.before(kv.key, rev)?
        {
            swept.forget(batch, kv.key, older);
        }
        let kept_until = target + i64::from(plant::COMPACTION_DROPS_TOMBSTONE.is_planted());
        if tombstone && rev.main < kept_until {
            let bytes = record.len() as u64;
            swept.forget(batch, kv.key, Outline { rev, create: 0, version: 0, bytes });
            let newest = reader.head(kv.key)?;
            if newest.is_some_and(|head| head.rev == rev) {
                batch.delete(Cf::Head, kv.key);
            }
        }
        if plant::COMPACTION_GOES_TOO_FAR.is_planted() && !tombstone && rev.main == target {
            let bytes = record.len() as u64;
            let (create, version) = (kv.create, kv.version);
            swept.forget(batch, kv.key, Outline { rev, create, version, bytes });
        }
        cursor.next()?;
    }
    let next = cursor.entry()?.map(|(key, _)| RevKey::parse(key)).transpose()?;
    swept.next = next.map(|(rev, _)| rev);
    Ok(swept)
}

/// What a step has found.
#[derive(Default)]
struct Swept {
    /// Where to go on, if not at the end.
    next: Option<Rev>,
    /// States that were deleted.
    gone: BTreeSet<Rev>,
    bytes: u64,
}

impl Swept {
    /// Deletes a state, once.
    fn forget(&mut self, batch: &mut Batch, key: &[u8], state: Outline) {
        if self.gone.insert(state.rev) {
            self.bytes += state.stored_bytes();
            batch.delete(Cf::Key, RevKey::new(state.rev, state.is_tombstone()).as_bytes());
            batch.delete(Cf::Versions, &version_key(key, state.rev));
        }
    }
}
