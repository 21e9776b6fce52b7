//! Hashes of the last compactions, each over the history up to a compaction as it was before its deletions
//! began. Every member computes the same ones at the same positions of the log, so they can be compared at any
//! later time, and so that a client finds the history at a compacted revision unchanged. They are computed
//! beside the applier, one after the other, each from a snapshot.

use std::collections::VecDeque;
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
    /// Compactions whose fingerprints are to be computed; the first one is under way.
    waiting: Mutex<VecDeque<Compaction>>,
}

#[derive(Clone)]
struct Compaction {
    /// The first view to have it.
    view: View,
    /// The compaction before it.
    before: Revision,
}

impl Hashes {
    /// Begins to compute the hash of a compaction, of which `view` is the first to include it; the previous one
    /// was at `before`. Skipped when as many compactions wait as fingerprints are kept.
    pub fn compute(&self, env: &Env, signals: &Arc<Signals>, view: View, before: Revision) {
        {
            let mut waiting =
                self.0.waiting.lock().expect("nothing panics while it holds the lock");
            if waiting.len() == COMPACTION_HASHES {
                return;
            }
            waiting.push_back(Compaction { view, before });
            if waiting.len() > 1 {
                return;
            }
        }
        let (hashes, signals, inner) = (self.clone(), signals.clone(), env.clone());
        env.spawn("compaction hash", async move {
            while let Some(Compaction { view, before }) = hashes.first() {
                let compaction = move || view.hash_compaction(before);
                match inner.blocking("compaction hash", compaction).await {
                    Ok(Ok(hash)) => hashes.keep(hash),
                    // Compacted once more meanwhile.
                    Ok(Err(_)) => {}
                    Err(fatal) => signals.stop_with(fatal),
                }
                hashes
                    .0
                    .waiting
                    .lock()
                    .expect("nothing panics while it holds the lock")
                    .pop_front();
            }
        });
    }

    /// Whether there are fingerprints yet to come.
    pub fn are_pending(&self) -> bool {
        self.first().is_some()
    }

    fn first(&self) -> Option<Compaction> {
        self.0.waiting.lock().expect("nothing panics while it holds the lock").front().cloned()
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
