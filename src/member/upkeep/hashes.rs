//! Fingerprints of the last compactions, each of the history up to a compaction as it was before its
//! deletions began. Every member comes to the same ones at the same places of the log, whenever it is
//! asked, so that they can be compared long after. They are computed beside the applier, from a
//! snapshot, and only where they are asked for: each reads the whole history.

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
    /// Begins to compute the fingerprint of the compaction that `view` is the first one to have; the
    /// one before it was at `before`. A compaction that comes while another one is at it is passed over.
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

    /// The fingerprint of the compaction at exactly this revision.
    pub fn at(&self, revision: Revision) -> Option<HashKv> {
        self.list().into_iter().find(|hash| hash.hash_revision == revision)
    }

    /// The newest first.
    pub fn list(&self) -> Vec<HashKv> {
        let kept = self.0.kept.lock().expect("nobody panics with it in hand");
        kept.iter().rev().copied().collect()
    }

    /// What was computed of a state that has been replaced.
    pub fn clear(&self) {
        self.0.kept.lock().expect("nobody panics with it in hand").clear();
    }

    fn keep(&self, hash: HashKv) {
        info!(
            hash = hash.hash,
            revision = hash.hash_revision.0,
            compact_revision = hash.compact_revision.0,
            "storing new hash"
        );
        let mut kept = self.0.kept.lock().expect("nobody panics with it in hand");
        kept.push(hash);
        kept.sort_unstable_by_key(|hash| hash.hash_revision);
        let more = kept.len().saturating_sub(COMPACTION_HASHES);
        kept.drain(..more);
    }
}
