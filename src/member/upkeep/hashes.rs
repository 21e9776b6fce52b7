//! Hashes of the last compactions, each over the history up to a compaction as it was before its deletions
//! began. Every member computes the same ones at the same positions of the log, so they can be compared at
//! any later time, and so that a client finds the history at a compacted revision unchanged. They are
//! computed beside the applier, one after the other, each from a snapshot; the log line of a compaction waits
//! for its own.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tracing::info;

use crate::codec;
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
    /// Compactions whose fingerprints are to be computed; the first one is under way.
    waiting: Mutex<VecDeque<Compaction>>,
}

struct Compaction {
    /// The first view to have it.
    view: View,
    /// The compaction before it.
    before: Revision,
    /// Its deletions, when they ended first.
    finished: Option<Finished>,
}

/// What the deletions of a compaction did.
#[derive(Clone, Copy, Debug)]
pub(in crate::member) struct Finished {
    pub revision: Revision,
    pub took: Duration,
    pub keys: usize,
    /// Live bytes afterwards.
    pub bytes: u64,
}

impl Finished {
    fn log(self, hash: Option<HashKv>) {
        info!(
            compact_revision = self.revision.0,
            took = codec::go_duration(self.took),
            number_of_keys_compacted = self.keys,
            hash = hash.map(|hash| hash.hash),
            current_db_size_bytes = self.bytes,
            current_db_size = codec::humanize(self.bytes),
            current_db_size_in_use_bytes = self.bytes,
            current_db_size_in_use = codec::humanize(self.bytes),
            "finished scheduled compaction"
        );
    }
}

impl Hashes {
    /// Begins to compute the hash of a compaction, of which `view` is the first to include it; the previous
    /// one was at `before`. Skipped when as many compactions wait as fingerprints are kept.
    pub fn compute(&self, env: &Env, signals: &Arc<Signals>, view: View, before: Revision) {
        {
            let mut waiting = self.waiting();
            if waiting.len() == COMPACTION_HASHES {
                return;
            }
            waiting.push_back(Compaction { view, before, finished: None });
            if waiting.len() > 1 {
                return;
            }
        }
        let (hashes, signals, inner) = (self.clone(), signals.clone(), env.clone());
        env.spawn("compaction hash", async move {
            while let Some((view, before)) = hashes.first() {
                let compaction = move || view.hash_compaction(before);
                let hash = match inner.blocking("compaction hash", compaction).await {
                    Ok(Ok(hash)) => Some(hash),
                    // Compacted once more meanwhile.
                    Ok(Err(_)) => None,
                    Err(fatal) => {
                        signals.stop_with(fatal);
                        None
                    }
                };
                hashes.computed(hash);
            }
        });
    }

    /// Keeps the fingerprint of the compaction that was under way.
    fn computed(&self, hash: Option<HashKv>) {
        if let Some(hash) = hash {
            self.keep(hash);
        }
        let done = self.waiting().pop_front().expect("it was under way");
        if let Some(finished) = done.finished {
            finished.log(hash);
        }
    }

    /// Logs what the deletions of a compaction did, with its fingerprint: at once when that is kept, later
    /// while it is being computed, without one when it is not to be computed.
    pub fn finished(&self, finished: Finished) {
        let mut waiting = self.waiting();
        let compaction =
            waiting.iter_mut().find(|one| one.view.compact_revision() == finished.revision);
        match compaction {
            Some(compaction) => compaction.finished = Some(finished),
            None => {
                drop(waiting);
                finished.log(self.at(finished.revision));
            }
        }
    }

    /// Whether there are fingerprints yet to come.
    pub fn are_pending(&self) -> bool {
        self.first().is_some()
    }

    fn first(&self) -> Option<(View, Revision)> {
        self.waiting().front().map(|compaction| (compaction.view.clone(), compaction.before))
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Compaction>> {
        self.0.waiting.lock().expect("nothing panics while it holds the lock")
    }

    /// The fingerprint of the compaction at exactly this revision.
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
