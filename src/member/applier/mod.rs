//! The task that owns the state: applies committed entries in batches ([`batch`]), compacts, flushes and
//! installs snapshots. It is the same task at work and at recovery. It never waits for a task that waits for
//! it.

mod batch;
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use quorate_proto::raftpb::{ConfState, SnapshotMetadata};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::apply::{Notice, Release, StateMachine};
use crate::env::{BoxFuture, Env};
use crate::error::Fatal;
use crate::limits;
use crate::mark;
use crate::member::lessor::Lessor;
use crate::member::propose::Waiter;
use crate::member::signals::Signals;
use crate::member::snapshot;
use crate::member::tokens::Tokens;
use crate::member::upkeep::{Finished, Hashes, Quota};
use crate::metrics::{ApplySeconds, Metrics, observe_ms};
use crate::mvcc::Store;
use crate::peer;
use crate::plant;
use crate::replica::{Committed, Replica, ToApply};
use crate::types::{ClusterId, Index, MemberId, Term};
use crate::watch::{HubHandle, Publication};
use batch::Batch;

pub(in crate::member) use tally::read_only_txn;

pub(in crate::member) struct Applier {
    pub env: Env,
    pub machine: StateMachine,
    pub store: Store,
    pub replica: Replica<Waiter>,
    pub hub: HubHandle,
    pub signals: Arc<Signals>,
    pub lessor: Arc<Lessor>,
    pub tokens: Arc<Tokens>,
    /// Logins up to this index were committed before this start: their tokens ended with the process.
    pub known_commit: Index,
    pub metrics: Arc<Metrics>,
    pub apply_seconds: ApplySeconds,
    pub snap_dir: std::path::PathBuf,
    pub conf_state: ConfState,
    pub term: Term,
    pub lease_ttl_min_s: i64,
    pub learners_max: usize,
    pub release: Release,
    /// Bounds on live bytes.
    pub quota: Option<Quota>,
    /// Keeps the fingerprints of compactions.
    pub hashes: Hashes,
    /// The member that this state belongs to.
    pub member: MemberId,
    pub cluster: ClusterId,
    /// The state is flushed when this many entries were applied since the last time.
    pub flush_every: u64,
    pub catchup_entries: u64,
    /// An entry that takes longer is logged.
    pub warning: Duration,
    /// Revisions deleted in one step of a compaction, and the pause after it.
    pub compaction_step: usize,
    pub compaction_pause: Duration,
    /// When the compaction under way took its first step.
    pub compacting_since: Option<Instant>,
    /// States that it has deleted so far.
    pub compacted_keys: usize,
    pub flushed: Index,
    /// Whether this process has installed a snapshot.
    pub has_installed: bool,
}

/// A flush under way, and the position up to which it lets the log be cut.
struct Flush {
    done: BoxFuture<'static, Result<(), Fatal>>,
    index: Index,
    term: Term,
    conf_state: ConfState,
}

impl Applier {
    /// Runs until the replica stops (`Ok`) or the state cannot be kept (`Err`).
    pub async fn run(mut self, mut inbox: mpsc::Receiver<ToApply<Waiter>>) -> Result<(), Fatal> {
        let mut flush: Option<Flush> = None;
        let mut compacting = self.store.compaction_pending();
        self.publish_space();
        loop {
            tokio::select! {
                biased; // A finished flush frees the log; entries go before housekeeping.
                done = finished(&mut flush) => self.flushed(done?).await,
                message = inbox.recv() => match message {
                    None => return Ok(()),
                    Some(ToApply::Entries(entries)) => {
                        self.entries(entries).await?;
                        compacting = self.store.compaction_pending();
                        if compacting {
                            // Entries may come faster than the pause below can end.
                            let busy_step = self.compaction_step.min(limits::COMPACT_STEP_BUSY);
                            compacting = self.compact(busy_step)?;
                        }
                    }
                    Some(ToApply::Snapshot(metadata, done)) => {
                        // The old state's flush must not land on top of the new state.
                        if let Some(running) = flush.take() {
                            running.done.await?;
                        }
                        self.install(metadata).await?;
                        // A replica that stops does not wait for the answer.
                        let _ = done.send(());
                    }
                },
                () = self.env.sleep(self.compaction_pause), if compacting => {
                    compacting = self.compact(self.compaction_step)?;
                }
            }
            self.publish_space();
            if flush.is_none() && self.store.applied().0 >= self.flushed.0 + self.flush_every {
                flush = Some(self.begin_flush());
            }
        }
    }

    /// Runs one step of the compaction under way; returns whether more are needed.
    fn compact(&mut self, changes_max: usize) -> Result<bool, Fatal> {
        let began = self.env.now();
        let step = self.store.compact_step(changes_max)?;
        let now = self.env.now();
        let since = *self.compacting_since.get_or_insert(began);
        observe_ms(&self.metrics.compaction_pause_ms, now - began);
        self.metrics.compacted_keys.inc_by(step.forgotten as u64);
        self.compacted_keys += step.forgotten;
        if step.finished {
            self.compaction_finished(now - since);
            self.compacting_since = None;
            observe_ms(&self.metrics.compaction_ms, now - since);
            let at = self.env.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.metrics.compacted_last.set(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
        }
        Ok(!step.finished)
    }

    fn compaction_finished(&mut self, took: Duration) {
        self.hashes.finished(Finished {
            revision: self.store.compact_revision(),
            took,
            keys: std::mem::take(&mut self.compacted_keys),
            bytes: self.store.live_bytes(),
        });
    }

    async fn entries(&mut self, entries: Vec<Committed<Waiter>>) -> Result<(), Fatal> {
        let store = self.store.clone();
        let mut batch = Batch::begin(self, &store, entries.len());
        for entry in entries {
            batch.apply(self, entry).await?;
        }
        let mut effects = batch.commit(self)?;
        effects.publish(self).await;
        effects.answer();
        Ok(())
    }

    pub(in crate::member) async fn publish(&self, publications: Vec<Publication>) {
        if !publications.is_empty() {
            self.hub.publish(publications).await;
        }
    }

    /// Publishes what the member's tasks must know of applied entries.
    pub(in crate::member) fn notify(&self, notices: Vec<(Index, Notice)>, reconfigured: bool) {
        let now = self.env.now();
        let (mut members, mut auth) = (reconfigured, false);
        for (index, notice) in notices {
            match notice {
                Notice::LeaseGranted(id, ttl) => {
                    self.lessor.grant(now, id, ttl);
                }
                Notice::LeaseRevoked(id) => self.lessor.revoke(id),
                Notice::Alarms => {
                    drop(self.signals.alarms.send_replace(Arc::new(self.machine.alarms.clone())))
                }
                Notice::Members => members = true,
                Notice::TokenGiven { .. } if index <= self.known_commit => {}
                Notice::TokenGiven { .. } => self.change_tokens(now, notice),
                Notice::Auth | Notice::UserTokensEnd(_) | Notice::TokensEnd => {
                    auth = true;
                    self.change_tokens(now, notice);
                }
            }
        }
        if auth {
            self.publish_auth();
        }
        if members {
            self.publish_members();
        }
    }

    /// Adds and removes simple tokens, which are stored in no bucket, in the same way on every member.
    fn change_tokens(&self, now: Instant, notice: Notice) {
        let Tokens::Simple(tokens) = &*self.tokens else { return };
        match notice {
            Notice::TokenGiven { user, token } if !token.is_empty() => {
                tokens.give(now, user, token);
            }
            Notice::UserTokensEnd(user) => tokens.end_of(&user),
            Notice::TokensEnd => tokens.end_all(),
            // Without a token where it is signed, not stored.
            Notice::TokenGiven { .. } | Notice::Auth => {}
            Notice::LeaseGranted(..) | Notice::LeaseRevoked(_) => {}
            Notice::Alarms | Notice::Members => {}
        }
    }

    fn publish_auth(&self) {
        self.signals.auth.send_replace(Arc::new(self.machine.auth.clone()));
    }

    /// Publishes the member table; a member that is no longer in it ends.
    fn publish_members(&self) {
        let members = &self.machine.members;
        self.signals.members.send_replace(Arc::new(members.clone()));
        if members.removed.contains(&self.member) {
            self.signals.removed.send_replace(true);
        }
    }

    fn publish_space(&self) {
        if let Some(quota) = self.quota {
            self.signals.publish_space(quota.level(self.store.live_bytes()));
        }
    }

    fn load(&self) -> Result<StateMachine, Fatal> {
        let machine = StateMachine::load(&self.store)?.with_lease_ttl_min(self.lease_ttl_min_s);
        Ok(machine.with_learners_max(self.learners_max).with_release(self.release))
    }

    fn begin_flush(&self) -> Flush {
        let (env, store) = (self.env.clone(), self.store.clone());
        let flush = move || {
            if plant::FLUSH_SKIPPED.is_planted() { Ok(store.applied()) } else { store.flush() }
        };
        let done = Box::pin(async move { env.blocking("flush", flush).await.map(drop) });
        Flush {
            done,
            index: self.store.applied(),
            term: self.term,
            conf_state: self.conf_state.clone(),
        }
    }

    /// Lets the log be cut up to the index of a finished flush.
    async fn flushed(&mut self, flush: Flush) {
        debug!(index = %flush.index, "state flushed");
        self.flushed = flush.index;
        let keep_from = Index(flush.index.0.saturating_sub(self.catchup_entries));
        self.replica.checkpoint(flush.index, flush.term, flush.conf_state, keep_from).await;
    }

    /// Replaces the state by a snapshot received from a leader.
    async fn install(&mut self, metadata: SnapshotMetadata) -> Result<(), Fatal> {
        let index = Index(metadata.index);
        let (store, path) = (self.store.clone(), peer::snapshot_path(&self.snap_dir, index));
        let env = self.env.clone();
        let disk = env.disk.clone();
        mark::INSTALL_BEGINS.reached();
        mark::INSTALL_WITH_WATCHES.reached_if(self.hub.counters().hub_watchers.get() > 0);
        mark::INSTALL_WITH_LEASES.reached_if(self.machine.leases().iter().next().is_some());
        mark::INSTALL_WITH_TOKENS.reached_if(self.tokens.are_given());
        mark::INSTALL_AGAIN.reached_if(self.has_installed);
        self.has_installed = true;
        self.metrics.apply_snapshots.set(1);
        let at = metadata.clone();
        env.blocking("install snapshot", move || snapshot::install(&*disk, &store, &path, &at))
            .await?;
        self.metrics.apply_snapshots.set(0);
        self.machine = self.load()?;
        self.hashes.clear();
        self.conf_state = metadata.conf_state.unwrap_or_default();
        self.term = Term(metadata.term);
        self.flushed = index;
        self.publish_members();
        // Logins, changed passwords and deleted users were skipped, so no token can be trusted.
        self.change_tokens(self.env.now(), Notice::TokensEnd);
        self.publish_auth();
        self.signals.alarms.send_replace(Arc::new(self.machine.alarms.clone()));
        self.hub.restored(self.store.revision()).await;
        self.replica.applied(index, self.term);
        self.signals.applied.send_replace(index);
        mark::INSTALL_ENDS.reached();
        let revision = self.store.revision();
        info!(incoming_leader_snapshot_index = %index, %revision, "applied snapshot");
        Ok(())
    }
}

/// Waits for the flush under way; forever without one.
async fn finished(flush: &mut Option<Flush>) -> Result<Flush, Fatal> {
    match flush {
        None => std::future::pending().await,
        Some(running) => {
            running.done.as_mut().await?;
            Ok(flush.take().expect("it was there a moment ago"))
        }
    }
}
