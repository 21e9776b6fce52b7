//! The task that owns the state: takes committed entries, carries them out in one batch, then tells
//! whoever must know. It is the same task at work and at recovery; it talks to nobody who waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use quorate_proto::etcdserverpb::InternalRaftRequest;
use quorate_proto::raftpb::{ConfChange, ConfChangeType, ConfState, SnapshotMetadata};
use tokio::sync::mpsc;
use tracing::{debug, info};

use super::Signals;
use super::hashes::Hashes;
use super::propose::Waiter;
use super::quota::Quota;
use super::slow;
use super::snapshot;
use super::tally;
use super::tokens::Tokens;
use crate::apply::{Command, Notice, Outcome, Reply, StateMachine, position};
use crate::env::{BoxFuture, Env};
use crate::error::{Fatal, Refused};
use crate::limits;
use crate::metrics::{ApplySeconds, Metrics, observe, observe_ms};
use crate::mvcc::Store;
use crate::peer;
use crate::plant;
use crate::replica::{Committed, Replica, ToApply};
use crate::types::{Index, MemberId, Term};
use crate::watch::{HubHandle, Publication};

pub(super) struct Applier {
    pub env: Env,
    pub machine: StateMachine,
    pub store: Store,
    pub replica: Replica<Waiter>,
    pub hub: HubHandle,
    pub signals: Arc<Signals>,
    pub tokens: Arc<Tokens>,
    /// Logins up to here were committed before this start: their tokens ended with the process.
    pub known_commit: Index,
    pub metrics: Arc<Metrics>,
    pub apply_seconds: ApplySeconds,
    pub snap_dir: std::path::PathBuf,
    pub conf_state: ConfState,
    pub term: Term,
    pub lease_ttl_min_s: i64,
    pub learners_max: usize,
    /// What live bytes are compared with.
    pub quota: Option<Quota>,
    /// Where the fingerprints of compactions go, if anybody wants them.
    pub hashes: Option<Hashes>,
    /// Whose state this is.
    pub member: MemberId,
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
    pub flushed: Index,
}

/// A flush under way, and what the log may forget once it is done.
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
        self.tell_space();
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
            self.tell_space();
            if flush.is_none() && self.store.applied().0 >= self.flushed.0 + self.flush_every {
                flush = Some(self.begin_flush());
            }
        }
    }

    /// One step of the compaction under way; whether there are more.
    fn compact(&mut self, changes_max: usize) -> Result<bool, Fatal> {
        let began = self.env.now();
        let step = self.store.compact_step(changes_max)?;
        let now = self.env.now();
        let since = *self.compacting_since.get_or_insert(began);
        observe_ms(&self.metrics.compaction_pause_ms, now - began);
        self.metrics.compacted_keys.inc_by(step.forgotten as u64);
        if step.finished {
            self.compacting_since = None;
            observe_ms(&self.metrics.compaction_ms, now - since);
            let at = self.env.wall().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.metrics.compacted_last.set(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
        }
        Ok(!step.finished)
    }

    async fn entries(&mut self, entries: Vec<Committed<Waiter>>) -> Result<(), Fatal> {
        let mut replies = Vec::with_capacity(entries.len());
        let mut notices = Vec::new();
        // Each with what is to be told behind it.
        let (mut told, mut publications) = (Vec::new(), Vec::new());
        let mut changed = false;
        let store = self.store.clone();
        let mut write = store.begin().with_events_max(self.hub.bounds().events_bytes);
        for Committed { entry, reply } in entries {
            let started = self.env.now();
            let (index, term) = position(&entry);
            assert!(index > self.store.applied(), "entry {index} was applied before");
            write.start_entry(index, term);
            self.term = term;
            let gone = reply.as_ref().is_some_and(Waiter::has_gone);
            if gone || reply.is_none() {
                write.unheard();
            }
            let mut kind = None;
            let outcome: Outcome = match Command::decode(&entry)? {
                Command::Nothing => Ok((Reply::Done, None)),
                Command::Request(_) if plant::ABANDONED_REQUEST_SKIPPED.is_planted() && gone => {
                    Ok((Reply::Done, None))
                }
                Command::Request(_) if self.passes_over(index) => Ok((Reply::Done, None)),
                Command::Request(mut request) => {
                    self.distort(index, &mut request);
                    kind = Some(tally::kind(&request));
                    self.machine.apply(&mut write, *request)?
                }
                Command::Change(change) => {
                    let refused = self.machine.change(&mut write, &change).err();
                    self.conf_state = self.reconfigure(change, refused).await?;
                    StateMachine::remember_conf_state(&mut write, &self.conf_state);
                    changed = true;
                    let members = Reply::Members(self.machine.members.list());
                    refused.map_or(Ok((members, Some(Notice::Members))), |r| Err(r.into()))
                }
            };
            let news = write.take_changed();
            if let Ok((reply, notice)) = &outcome {
                tally::applied(&self.metrics, reply, notice.as_ref(), &news);
            }
            let took = self.env.now() - started;
            if let Some(kind) = kind {
                let done = tally::succeeded(&outcome);
                self.apply_seconds.observe(&self.metrics, kind, done, took);
            }
            if took > self.warning {
                let outcome = outcome.clone().map(|(answer, _)| answer);
                slow::warn_of_entry(&self.metrics, took, self.warning, &entry, &outcome);
            }
            let revision = write.revision();
            if !news.events.is_empty() {
                publications.push(Publication { revision, events: news.events.into() });
            } else if let Some(between) = news.between {
                told.push((std::mem::take(&mut publications), revision, between));
            }
            let outcome = outcome.map(|(answer, notice)| {
                notices.extend(notice.map(|notice| (index, notice)));
                answer
            });
            replies.extend(reply.map(|reply| (reply, outcome)));
        }
        let (began, compacted) = (self.env.now(), store.compact_revision());
        write.commit()?;
        observe(&self.metrics.commit_seconds, self.env.now() - began);
        if let Some(hashes) = self.hashes.as_ref().filter(|_| store.compact_revision() > compacted)
        {
            // Of this very moment: the first deletion comes after it.
            hashes.compute(&self.env, &self.signals, store.view(), compacted);
        }
        self.tell(notices, changed);
        for (publications, revision, (first, last)) in told {
            self.publish(publications).await;
            self.hub.pass(revision, first, last).await;
        }
        self.publish(publications).await;
        let applied = self.store.applied();
        self.replica.applied(applied, self.term);
        self.signals.applied.send_replace(applied);
        for (reply, outcome) in replies {
            reply.answer(outcome);
        }
        Ok(())
    }

    async fn publish(&self, publications: Vec<Publication>) {
        if !publications.is_empty() {
            self.hub.publish(publications).await;
        }
    }

    /// Consensus takes the change when the member table did, and a change of nobody when not.
    async fn reconfigure(
        &self,
        change: ConfChange,
        refused: Option<Refused>,
    ) -> Result<ConfState, Fatal> {
        let ghost = plant::GHOST_VOTER.is_planted()
            && change.r#type() == ConfChangeType::ConfChangeRemoveNode;
        let change = match refused {
            None if ghost => ConfChange { node_id: 0, ..change },
            Some(refused) => {
                info!(?change, %refused, "configuration change refused");
                ConfChange { node_id: 0, ..change }
            }
            None => change,
        };
        let state = self.replica.apply_conf_change(change).await;
        Ok(state.unwrap_or_else(|| self.conf_state.clone()))
    }

    /// Two mistakes that the simulator plants: an entry that some members, or one after a long page,
    /// take for done.
    fn passes_over(&self, index: Index) -> bool {
        let own = self.member.0.is_multiple_of(2) && index.0.is_multiple_of(50);
        let page = index.0 > self.store.applied().0 + 8;
        (plant::APPLY_DEPENDS_ON_MEMBER.is_planted() && own)
            || (plant::PAGE_TAKEN_FOR_ALL.is_planted() && page)
    }

    /// A mistake that the simulator plants, for the checks for corruption to find: one member stores
    /// another value now and then.
    fn distort(&self, index: Index, request: &mut InternalRaftRequest) {
        let planted = plant::ROW_SILENTLY_DIFFERS.is_planted()
            || plant::CORRUPT_CHECK_ACCUSES_WRONG_MEMBER.is_planted();
        let first = self.machine.members.members.keys().next() == Some(&self.member);
        if planted
            && first
            && index.0.is_multiple_of(40)
            && let Some(put) = &mut request.put
        {
            put.value = [&put.value, &b"!"[..]].concat().into();
        }
    }

    fn tell(&self, notices: Vec<(Index, Notice)>, reconfigured: bool) {
        let now = self.env.now();
        let (mut members, mut auth) = (reconfigured, false);
        for (index, notice) in notices {
            match notice {
                Notice::LeaseGranted(id, ttl) => {
                    let ttl = Duration::from_secs(u64::try_from(ttl).unwrap_or(0));
                    self.signals.clock().grant(now, id, ttl);
                }
                Notice::LeaseRevoked(id) => self.signals.revoke(id),
                Notice::Alarms => {
                    drop(self.signals.alarms.send_replace(Arc::new(self.machine.alarms.clone())))
                }
                Notice::Members => members = true,
                Notice::TokenGiven { .. } if index <= self.known_commit => {}
                about_auth => {
                    auth |= !matches!(about_auth, Notice::TokenGiven { .. });
                    self.tell_tokens(now, about_auth);
                }
            }
        }
        if auth {
            self.tell_auth();
        }
        if members {
            self.tell_members();
        }
    }

    /// Simple tokens are in no bucket: this is how they come and go, on every member alike.
    fn tell_tokens(&self, now: Instant, notice: Notice) {
        let Tokens::Simple(tokens) = &*self.tokens else { return };
        match notice {
            Notice::TokenGiven { user, token } if !token.is_empty() => {
                tokens.give(now, user, token);
            }
            Notice::UserTokensEnd(user) => tokens.end_of(&user),
            Notice::TokensEnd => tokens.end_all(),
            _ => {}
        }
    }

    fn tell_auth(&self) {
        self.signals.auth.send_replace(Arc::new(self.machine.auth.clone()));
    }

    /// Tells of the member table; a member that is no longer in it comes to its end.
    fn tell_members(&self) {
        let members = &self.machine.members;
        self.signals.members.send_replace(Arc::new(members.clone()));
        if members.removed.contains(&self.member) {
            self.signals.removed.send_replace(true);
        }
    }

    fn tell_space(&self) {
        if let Some(quota) = self.quota {
            self.signals.tell_space(quota.level(self.store.live_bytes()));
        }
    }

    fn load(&self) -> Result<StateMachine, Fatal> {
        let machine = StateMachine::load(&self.store)?.with_lease_ttl_min(self.lease_ttl_min_s);
        Ok(machine.with_learners_max(self.learners_max))
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

    /// What was applied when the flush began is safe without the log now.
    async fn flushed(&mut self, flush: Flush) {
        debug!(index = %flush.index, "state flushed");
        self.flushed = flush.index;
        let keep_from = Index(flush.index.0.saturating_sub(self.catchup_entries));
        self.replica.checkpoint(flush.index, flush.term, flush.conf_state, keep_from).await;
    }

    /// Replaces the state by the one a leader has sent.
    async fn install(&mut self, metadata: SnapshotMetadata) -> Result<(), Fatal> {
        let index = Index(metadata.index);
        let (store, path) = (self.store.clone(), peer::snapshot_path(&self.snap_dir, index));
        let env = self.env.clone();
        let disk = env.disk.clone();
        self.metrics.apply_snapshots.set(1);
        let at = metadata.clone();
        env.blocking("install snapshot", move || snapshot::install(&*disk, &store, &path, &at))
            .await?;
        self.metrics.apply_snapshots.set(0);
        self.machine = self.load()?;
        if let Some(hashes) = &self.hashes {
            hashes.clear();
        }
        self.conf_state = metadata.conf_state.unwrap_or_default();
        self.term = Term(metadata.term);
        self.flushed = index;
        self.tell_members();
        // Logins, changed passwords and deleted users were passed over: none of the tokens is sure.
        self.tell_tokens(self.env.now(), Notice::TokensEnd);
        self.tell_auth();
        self.signals.alarms.send_replace(Arc::new(self.machine.alarms.clone()));
        self.hub.restored(self.store.revision()).await;
        self.replica.applied(index, self.term);
        self.signals.applied.send_replace(index);
        info!(%index, revision = %self.store.revision(), "snapshot installed");
        Ok(())
    }
}

/// Waits for the flush under way; for ever when there is none.
async fn finished(flush: &mut Option<Flush>) -> Result<Flush, Fatal> {
    match flush {
        None => std::future::pending().await,
        Some(running) => {
            running.done.as_mut().await?;
            Ok(flush.take().expect("it was there a moment ago"))
        }
    }
}
