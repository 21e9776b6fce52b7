//! The log task: everything queued while one write is under way goes into the next, with one fsync.
//! The write runs on a thread of its own; the driver never waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_proto::walpb;
use tokio::sync::oneshot;

use super::core;
use crate::env::{Env, Worker};
use crate::error::Fatal;
use crate::limits;
use crate::metrics::{Metrics, observe};
use crate::types::Index;
use crate::wal::{Save, SaveStats, Wal};

/// What the driver needs of a log on disk. Errors are final.
pub trait LogStore: Send + 'static {
    fn save(&mut self, batch: &[Save]) -> Result<SaveStats, Fatal>;
    /// What an earlier save has not synced.
    fn sync(&mut self) -> Result<(), Fatal>;
    fn release(&mut self, up_to: Index) -> Result<usize, Fatal>;
    /// Makes ready, while there is time, what a later save will need.
    fn prepare(&mut self) -> Result<(), Fatal>;
}

impl LogStore for Wal {
    fn save(&mut self, batch: &[Save]) -> Result<SaveStats, Fatal> {
        Ok(Wal::save(self, batch)?)
    }

    fn sync(&mut self) -> Result<(), Fatal> {
        Wal::sync(self)?;
        Ok(())
    }

    fn release(&mut self, up_to: Index) -> Result<usize, Fatal> {
        Ok(Wal::release(self, up_to)?)
    }

    fn prepare(&mut self) -> Result<(), Fatal> {
        Ok(Wal::prepare(self)?)
    }
}

pub struct LogTask {
    metrics: Arc<Metrics>,
    worker: Arc<dyn Worker>,
    /// Here while nothing is under way.
    store: Option<Box<dyn LogStore>>,
    queued: Batch,
    under_way: Option<UnderWay>,
    bytes_since_prepare: u64,
    /// The newest snapshot that was queued: the log begins after it.
    snapshot: u64,
}

/// What one trip to the disk does, in this order.
#[derive(Default)]
struct Batch {
    saves: Vec<Save>,
    /// Newest number that core is owed.
    number: Option<u64>,
    release: Option<Index>,
    sync: bool,
}

struct UnderWay {
    since: Instant,
    number: Option<u64>,
    result: oneshot::Receiver<(Box<dyn LogStore>, Result<SaveStats, Fatal>)>,
}

impl LogTask {
    pub fn new(env: &Env, store: Box<dyn LogStore>, metrics: Arc<Metrics>) -> Self {
        Self {
            worker: env.rt.worker("log"),
            metrics,
            store: Some(store),
            queued: Batch::default(),
            under_way: None,
            // The first trip prepares.
            bytes_since_prepare: limits::WAL_SEGMENT_BYTES,
            snapshot: 0,
        }
    }

    /// Queues what core has to save.
    pub fn push(&mut self, save: core::Save) {
        if let Some(metadata) = save.snapshot {
            self.snapshot = self.snapshot.max(metadata.index);
            // Before the hard state whose commit index it explains (etcd issue 10219).
            self.queued.saves.push(Save::Snapshot(walpb::Snapshot {
                index: metadata.index,
                term: metadata.term,
                conf_state: metadata.conf_state,
            }));
        }
        if save.must_sync {
            self.queued.number = Some(save.number);
        }
        self.queued.sync |= save.sync_commit;
        let lazy = save.entries.is_empty() && !save.must_sync;
        if let (true, Some(Save::Entries { hard_state: Some(last), entries })) =
            (lazy, self.queued.saves.last_mut())
            && let Some(hard_state) = save.hard_state
            && (last.term, last.vote) == (hard_state.term, hard_state.vote)
            && entries.is_empty()
        {
            *last = hard_state;
            return;
        }
        if save.hard_state.is_some() || !save.entries.is_empty() {
            let (hard_state, entries) = (save.hard_state, save.entries);
            self.queued.saves.push(Save::Entries { hard_state, entries });
        }
    }

    /// Queues the mark of a state that is durable up to `mark`, and the release of what it covers. A mark
    /// below a snapshot that was received meanwhile is of no use: the log has nothing from there on, and a
    /// start before the installation ends must find the snapshot's own mark as the last.
    pub fn push_mark(&mut self, mark: walpb::Snapshot) {
        if mark.index < self.snapshot {
            return;
        }
        self.queued.release = Some(Index(mark.index));
        self.queued.saves.push(Save::Snapshot(mark));
    }

    /// Starts a write if none is under way and one is needed: something waits for it, or, with
    /// `lazy`, there is anything at all. A commit index alone is written at the next tick.
    pub fn kick(&mut self, now: Instant, lazy: bool) {
        let wanted = self.queued.number.is_some()
            || self.queued.release.is_some()
            || self.queued.sync
            || (lazy && !self.queued.saves.is_empty());
        let Some(mut store) = self.store.take_if(|_| wanted) else { return };
        let batch = std::mem::take(&mut self.queued);
        // When nothing waits for this trip; when a segment is nearly full, at any rate.
        let spare = limits::WAL_SEGMENT_BYTES / if batch.number.is_none() { 4 } else { 2 };
        let prepare = self.bytes_since_prepare > spare;
        if prepare {
            self.bytes_since_prepare = 0;
        }
        let (done, result) = oneshot::channel();
        self.under_way = Some(UnderWay { since: now, number: batch.number, result });
        let job = Box::new(move || {
            let result = batch.run(&mut *store, prepare);
            // Without a driver the result has no receiver.
            let _ = done.send((store, result));
        });
        // The job runs whether its future is waited for or not.
        drop(self.worker.run(job));
    }

    /// Ready when the write under way is durable, with the newest number that it covers.
    pub async fn finished(&mut self) -> Result<Option<u64>, Fatal> {
        let Some(under_way) = &mut self.under_way else { return std::future::pending().await };
        let result = (&mut under_way.result).await;
        let number = under_way.number;
        self.under_way = None;
        let (store, result) = result.map_err(|e| Fatal::new("the log's thread has ended", e))?;
        self.store = Some(store);
        let stats = result?;
        self.bytes_since_prepare += stats.bytes;
        self.metrics.wal_write_bytes.add(i64::try_from(stats.bytes).unwrap_or(i64::MAX));
        if stats.bytes > 0 {
            observe(&self.metrics.wal_write_seconds, stats.writing);
        }
        if stats.fsync {
            observe(&self.metrics.wal_fsync_seconds, stats.syncing);
        }
        Ok(number)
    }

    /// Writes and syncs all that is queued. For an orderly end.
    pub async fn drain(&mut self, now: Instant) -> Result<(), Fatal> {
        self.queued.sync = true;
        while self.under_way.is_some() || self.queued.sync {
            self.kick(now, true);
            self.finished().await?;
        }
        Ok(())
    }

    /// How long the write under way has taken so far.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        let since = self.under_way.as_ref().map(|under_way| under_way.since);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

impl Batch {
    fn run(self, store: &mut dyn LogStore, prepare: bool) -> Result<SaveStats, Fatal> {
        let stats = match self.saves.is_empty() {
            true => SaveStats::default(),
            false => store.save(&self.saves)?,
        };
        if self.sync {
            store.sync()?;
        }
        if let Some(up_to) = self.release {
            store.release(up_to)?;
        }
        if prepare {
            store.prepare()?;
        }
        Ok(stats)
    }
}
