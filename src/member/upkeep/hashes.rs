//! Hashes of the last compactions, each over the history up to a compaction as it was before its deletions
//! began. Every member computes the same ones at the same positions of the log, so they can be compared at any
//! later time. They are computed beside the applier, from a snapshot, and only if enabled: each reads the whole
//! history.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tracing::info;

use crate::env::Env;
use crate::limits::COMPACTION_HASHES;
use crate::member::signals::Signals;
use crate::mvcc::{HashKv, View};
use crate::types::Revision;

#[derive(Clone, Default)]
pub(in crate::member) struct Hashes(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// By the compaction's revision, the newest last.
    kept: Mutex<Vec<HashKv>>,
    busy: AtomicBool,
}

impl Hashes {
    /// Begins to compute the hash of a compaction, of which `view` is the first to include it; the previous one
    /// was at `before`. Skipped while another computation runs.
    pub fn compute(&self, env: &Env, signals: &Arc<Signals>, view: View, before: Revision) {
        if self.0.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        let (hashes, signals, inner) = (self.clone(), signals.clone(), env.clone());
        env.spawn("compaction hash", async move {
            let compaction = move || view.hash_compaction(before);
            match inner.blocking("compaction hash", compaction).await {
                Ok(Ok(hash)) => hashes.keep(hash),
                // Compacted once more meanwhile.
                Ok(Err(_)) => {}
                Err(fatal) => signals.stop_with(fatal),
            }
            hashes.0.busy.store(false, Ordering::Release);
        });
    }

    /// The hash of the compaction at exactly this revision.
    pub fn at(&self, revision: Revision) -> Option<HashKv> {
        self.list().into_iter().find(|hash| hash.hash_revision == revision)
    }

    /// The newest first.
    pub fn list(&self) -> Vec<HashKv> {
        let kept = self.0.kept.lock().expect("nothing panics while it holds the lock");
        kept.iter().rev().copied().collect()
    }

    /// Forgets the hashes of a state that was replaced.
    pub fn clear(&self) {
        self.0.kept.lock().expect("nothing panics while it holds the lock").clear();
    }

    fn keep(&self, hash: HashKv) {
        info!(
            hash = hash.hash,
            revision = hash.hash_revision.0,
            compact_revision = hash.compact_revision.0,
            "storing new hash"
        );
        let mut kept = self.0.kept.lock().expect("nothing panics while it holds the lock");
        kept.push(hash);
        kept.sort_unstable_by_key(|hash| hash.hash_revision);
        let more = kept.len().saturating_sub(COMPACTION_HASHES);
        kept.drain(..more);
    }
}
