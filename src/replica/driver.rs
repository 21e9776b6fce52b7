//! The task that owns [`Core`]: it turns what comes in (time, finished writes, messages, proposals,
//! readers) into steps of raft, and what raft has ready into messages, writes and committed entries.
//! It never waits for a disk, for the applier or for a peer.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quorate_proto::{raftpb, walpb};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::core::{Core, Output, Role};
use super::disk::LogTask;
use super::handle::{Committed, Progress, ReplicaConfig, Status, ToApply, Transport};
use super::proposals::{Proposal, ProposalKind, Proposals, Reply, Terms};
use super::reads::{Reader, Reads};
use crate::env::{BoxFuture, Env};
use crate::error::{Fatal, Unavailable};
use crate::latest;
use crate::limits;
use crate::plant;
use crate::types::{Index, MemberId, Term};

/// Events of one kind handled between two looks at the clock.
const BURST: usize = 256;
/// Applied entries after which the log in memory is cut again.
const COMPACT_EVERY: u64 = 256;
/// Received snapshots that are remembered; the next start removes what was forgotten.
const RECEIVED_MAX: usize = 64;
/// Ticks between two sweeps of handles without a waiter.
const PRUNE_TICKS: u64 = 10;

/// How long the end waits for the disk. What is not written then was not acknowledged.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Input from other tasks.
pub enum Event {
    Step(raftpb::Message),
    ReadIndex(Reader),
    ApplyConfChange(raftpb::ConfChange, oneshot::Sender<raftpb::ConfState>),
    Checkpoint(walpb::Snapshot, Index),
    Unreachable(MemberId),
    TransferLeader(MemberId),
    Progress(MemberId, oneshot::Sender<Option<Progress>>),
    Shutdown(oneshot::Sender<()>),
}

/// Why the driver woke up.
#[expect(clippy::large_enum_variant, reason = "one is made and taken apart at a time")]
enum Wake<R> {
    Tick,
    Saved(Result<Option<u64>, Fatal>),
    Event(Option<Event>),
    SnapshotSent(MemberId, bool),
    Applied,
    Room(bool),
    Proposal(Proposal<R>),
}

/// The driver's ends of the channels.
pub struct Ends<R> {
    pub to_apply: mpsc::Sender<ToApply<R>>,
    pub applied: latest::Receiver<Index>,
    pub status: latest::Sender<Status>,
    pub inbox: mpsc::Receiver<Event>,
    pub snapshot_reports: mpsc::UnboundedReceiver<(MemberId, bool)>,
    pub proposed: mpsc::Receiver<Proposal<R>>,
}

pub struct Driver<R> {
    env: Env,
    config: ReplicaConfig,
    core: Core,
    log: LogTask,
    transport: Arc<dyn Transport>,
    ends: Ends<R>,
    proposals: Proposals<R>,
    reads: Reads,
    /// Committed and not given to the applier for want of room. What it holds is in the log too, so
    /// it costs a little more memory than the log does.
    committed: VecDeque<ToGive>,
    /// Indexes of snapshots received and not passed by the state machine.
    received: BTreeSet<u64>,
    /// Conf changes given to the applier and not come back.
    changes: VecDeque<u64>,
    conf_state: Arc<raftpb::ConfState>,
    ticks: u64,
    last_tick: Instant,
    next_tick: Instant,
    timer: BoxFuture<'static, ()>,
    /// A shutdown is under way: its acknowledgement, and the tick at which it comes at the latest.
    stopping: Option<(oneshot::Sender<()>, u64)>,
}

enum ToGive {
    Entry(raftpb::Entry),
    Snapshot(raftpb::SnapshotMetadata),
}

impl<R: Reply> Driver<R> {
    pub fn new(
        env: Env,
        config: ReplicaConfig,
        core: Core,
        log: LogTask,
        transport: Arc<dyn Transport>,
        ends: Ends<R>,
    ) -> Self {
        let retry =
            limits::READ_INDEX_RETRY.as_nanos().div_ceil(config.heartbeat.as_nanos().max(1));
        let retry = u32::try_from(retry).unwrap_or(u32::MAX);
        let last_tick = env.now();
        let next_tick = last_tick + config.heartbeat;
        Self {
            timer: env.sleep_until(next_tick),
            last_tick,
            next_tick,
            conf_state: Arc::new(core.conf_state()),
            reads: Reads::new(config.id.0, config.boot_seed, retry),
            proposals: Proposals::new(),
            committed: VecDeque::new(),
            received: BTreeSet::new(),
            changes: VecDeque::new(),
            ticks: 0,
            stopping: None,
            env,
            config,
            core,
            log,
            transport,
            ends,
        }
    }

    /// Runs until it is stopped or cannot go on.
    pub async fn run(mut self, fatal: oneshot::Sender<Fatal>) {
        let result = self.work().await;
        let stopped = Unavailable::Stopped.into();
        self.ends.inbox.close();
        self.ends.proposed.close();
        self.proposals.refuse_all(&stopped);
        self.reads.refuse_all(&stopped);
        while let Ok(proposal) = self.ends.proposed.try_recv() {
            proposal.refuse(Unavailable::Stopped);
        }
        if let Err(error) = result {
            warn!(%error, "consensus cannot go on");
            // The member may be gone.
            let _ = fatal.send(error);
        }
        if let Some((done, _)) = self.stopping {
            let _ = done.send(());
        }
    }

    async fn work(&mut self) -> Result<(), Fatal> {
        loop {
            caught("consensus", || self.turn())?;
            if self.is_done() {
                return self.drain().await;
            }
            match self.wake().await {
                Wake::Tick => caught("consensus, at a tick", || self.tick())?,
                Wake::Saved(number) => {
                    let number = number?;
                    caught("consensus, after a write", || self.saved(number))?;
                }
                Wake::Event(Some(event)) => {
                    caught("consensus, at an event", || self.events(event))??
                }
                Wake::SnapshotSent(id, ok) => {
                    caught("consensus, after a snapshot", || self.core.report_snapshot(id.0, ok))?;
                }
                Wake::Applied => caught("consensus, after applying", || self.note_applied())?,
                Wake::Proposal(proposal) => self.take_proposal(proposal),
                Wake::Room(true) => {}
                // All handles are dropped, or the applier has ended.
                Wake::Event(None) | Wake::Room(false) => return self.drain().await,
            }
            caught("consensus", || self.sweep())?;
        }
    }

    /// Writes what is queued, unless the disk is too slow for an end in order.
    async fn drain(&mut self) -> Result<(), Fatal> {
        match self.env.timeout(DRAIN_TIMEOUT, self.log.drain(self.env.now())).await {
            Ok(result) => result,
            Err(elapsed) => {
                warn!(%elapsed, "the log is not written to its end");
                Ok(())
            }
        }
    }

    async fn wake(&mut self) -> Wake<R> {
        let to_give = !self.committed.is_empty();
        let room = self.proposals.len() < limits::PROPOSALS_MAX;
        tokio::select! {
            // Time first, so that heartbeats and elections wait for nothing. Finished writes next: messages
            // and answers wait for them. Peers and the applier before new proposals, so that what is under
            // way ends before more begins.
            biased;
            () = &mut self.timer => Wake::Tick,
            number = self.log.finished() => Wake::Saved(number),
            Some((id, ok)) = self.ends.snapshot_reports.recv() => Wake::SnapshotSent(id, ok),
            event = self.ends.inbox.recv() => Wake::Event(event),
            Ok(()) = self.ends.applied.changed() => Wake::Applied,
            permit = self.ends.to_apply.reserve(), if to_give => Wake::Room(permit.is_ok()),
            Some(proposal) = self.ends.proposed.recv(), if room => Wake::Proposal(proposal),
        }
    }

    /// Polls what a busy inbox would starve.
    fn sweep(&mut self) {
        if self.ends.applied.has_changed().unwrap_or(false) {
            self.note_applied();
        }
        for _ in 0..BURST {
            if self.proposals.len() >= limits::PROPOSALS_MAX {
                break;
            }
            match self.ends.proposed.try_recv() {
                Ok(proposal) => self.take_proposal(proposal),
                Err(_) => break,
            }
        }
    }

    /// Does all that can be done now. The order within one output is that of raft's Ready contract.
    fn turn(&mut self) {
        let mut messages = Vec::new();
        if self.config.initial_election_tick_advance {
            self.core.lead_alone();
        }
        loop {
            self.ask_reads();
            self.propose();
            let Some(output) = self.core.ready() else { break };
            self.take(output, &mut messages);
        }
        if !messages.is_empty() {
            self.transport.send(messages);
        }
        self.log.kick(self.env.now(), false);
        self.give();
        self.publish();
    }

    fn take(&mut self, output: Output, messages: &mut Vec<raftpb::Message>) {
        messages.extend(output.messages);
        if let Some(save) = output.save {
            self.log.push(save);
        }
        if let Some(metadata) = output.snapshot {
            info!(
                snapshot_index = metadata.index,
                snapshot_term = metadata.term,
                "applied incoming Raft snapshot"
            );
            self.conf_state = Arc::new(self.core.conf_state());
            self.committed.push_back(ToGive::Snapshot(metadata));
        }
        self.committed.extend(output.committed.into_iter().map(ToGive::Entry));
        for state in &output.reads {
            self.reads.answered(state);
        }
    }

    fn ask_reads(&mut self) {
        let leader = (self.core.leader(), self.core.term());
        if let Some(context) = self.reads.ask(leader) {
            self.core.read_index(context);
        }
    }

    /// Proposes what waits, in batches, as long as there is a leader to take it.
    fn propose(&mut self) {
        while self.core.leader() != 0 && !self.core.is_transferring() {
            let leads = self.core.role() == Role::Leader;
            let batch = self.proposals.batch(Terms {
                leading: leads.then_some(self.core.term()),
                change_pending: self.core.conf_change_pending(),
            });
            if batch.is_empty() || self.core.propose_all(batch.clone()).is_err() {
                break;
            }
            if plant::PROPOSAL_SENT_TWICE.is_planted() && batch.len() > 1 {
                let _ = self.core.propose_all(batch.clone());
            }
            self.proposals.taken(&batch);
        }
    }

    /// Gives the applier what it has room for. Only this task sends, so a permit once free stays free.
    fn give(&mut self) {
        while !self.committed.is_empty() {
            let Ok(permit) = self.ends.to_apply.try_reserve() else { return };
            let mut entries = Vec::new();
            let mut bytes = 0;
            while let Some(ToGive::Entry(entry)) = self.committed.front() {
                bytes += entry.data.len() as u64;
                if !entries.is_empty() && bytes > limits::BATCH_BYTES_MAX {
                    break;
                }
                let Some(ToGive::Entry(entry)) = self.committed.pop_front() else { break };
                if entry.r#type() != raftpb::EntryType::EntryNormal {
                    self.changes.push_back(entry.index);
                }
                let reply = self.proposals.committed(&entry);
                entries.push(Committed { entry, reply });
            }
            if !entries.is_empty() {
                permit.send(ToApply::Entries(entries));
            } else if let Some(ToGive::Snapshot(metadata)) = self.committed.pop_front() {
                // The applier reports the new position as it does after entries.
                permit.send(ToApply::Snapshot(metadata, oneshot::channel().0));
            }
        }
    }

    fn publish(&mut self) {
        // A lone voter is elected before its vote is durable. It leads for others, and for itself, from
        // then on: a crash before that would take the term back.
        let elected = self.core.role() == Role::Leader && !self.core.term_is_durable();
        let (role, leader) = match elected {
            true => (Role::Candidate, 0),
            false => (self.core.role(), self.core.leader()),
        };
        let now = Status {
            id: self.config.id,
            role,
            term: Term(self.core.term()),
            leader: MemberId(leader),
            commit: Index(self.core.commit()),
            last_index: Index(self.core.last_index()),
            applied: Index(self.core.applied_index()),
            conf_state: self.conf_state.clone(),
            proposals_pending: self.proposals.len(),
            proposals_failed: self.proposals.failed,
            reads_slow: self.reads.slow,
            reads_failed: self.reads.failed,
        };
        self.ends.status.send_if_modified(|status| {
            let changed =
                (status.role, status.term, status.leader) != (now.role, now.term, now.leader);
            if changed {
                info!(role = ?now.role, term = %now.term, leader = %now.leader, "role");
            }
            let notify = changed || !Arc::ptr_eq(&status.conf_state, &now.conf_state);
            *status = now;
            notify
        });
    }

    fn tick(&mut self) {
        let now = self.env.now();
        self.ticks += 1;
        self.report_late(now.saturating_duration_since(self.last_tick));
        self.last_tick = now;
        // Ticks that were missed are not made up for: a process that was stopped does not hold an
        // election the moment it goes on.
        self.next_tick =
            (self.next_tick + self.config.heartbeat).max(now + self.config.heartbeat / 2);
        self.timer = self.env.sleep_until(self.next_tick);
        self.core.tick();
        if let Some(context) = self.reads.tick() {
            self.core.read_index(context);
        }
        if self.ticks.is_multiple_of(PRUNE_TICKS) {
            self.proposals.prune();
        }
        self.yield_when_stalled(self.log.stalled_for(now));
        self.hand_over();
        self.log.kick(now, true);
    }

    /// Others are sent heartbeats by ticks: one that comes after the time of two is late (etcd's bound).
    fn report_late(&self, took: Duration) {
        let interval = self.config.heartbeat;
        let raftpb::ConfState { voters, learners, .. } = &*self.conf_state;
        let others = (voters.len() + learners.len()).saturating_sub(1);
        if self.core.role() == Role::Leader && took > 2 * interval && others > 0 {
            warn!(
                heartbeat_interval = ?interval, expected_duration = ?2 * interval,
                exceeded_duration = ?(took - 2 * interval),
                "leader failed to send out heartbeat on time; took too long, leader is overloaded \
                 likely from slow disk"
            );
            self.config.metrics.heartbeats_late.inc_by(others as u64);
        }
    }

    /// A leader that cannot write keeps its followers from having one that can: it hands over, or,
    /// when that does not come about, steps down.
    fn yield_when_stalled(&mut self, stalled: Duration) {
        let patience = self.config.election_timeout();
        if self.core.role() != Role::Leader || stalled <= patience {
            return;
        }
        let Some(to) = self.core.best_transferee() else { return };
        if stalled > 2 * patience {
            warn!(?stalled, "a write of the log stalls; stepping down");
            self.core.step_down();
        } else if !self.core.is_transferring() {
            warn!(?stalled, to = %MemberId(to), "a write of the log stalls; handing over");
            self.core.transfer_leader(to);
        }
    }

    fn saved(&mut self, number: Option<u64>) {
        if let Some(number) = number {
            self.core.persisted(number);
        }
    }

    fn note_applied(&mut self) {
        let index = self.ends.applied.borrow_and_update().0;
        self.core.applied(index);
        self.discard_snapshots();
        if index >= self.core.first_index() + self.config.catchup_entries + COMPACT_EVERY
            || self.core.log_bytes() > limits::CATCHUP_BYTES_MAX
        {
            self.core.compact(self.config.catchup_entries, limits::CATCHUP_BYTES_MAX);
        }
    }

    /// Handles an event and those that wait behind it, up to a burst.
    fn events(&mut self, first: Event) -> Result<(), Fatal> {
        self.event(first)?;
        for _ in 1..BURST {
            match self.ends.inbox.try_recv() {
                Ok(event) => self.event(event)?,
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> Result<(), Fatal> {
        match event {
            Event::Step(message) => self.step(message),
            Event::ReadIndex(reader) => self.reads.push(reader),
            Event::ApplyConfChange(change, reply) => {
                let conf_state = self.apply_conf_change(&change)?;
                // The applier may have ended.
                let _ = reply.send(conf_state);
            }
            Event::Checkpoint(mark, keep_from) => {
                let keep = mark.index.saturating_sub(keep_from.0);
                debug!(index = mark.index, "state is durable");
                self.core.compact(keep, limits::CATCHUP_BYTES_MAX);
                self.log.push_mark(mark);
            }
            Event::Unreachable(id) => self.core.report_unreachable(id.0),
            Event::TransferLeader(to) => self.core.transfer_leader(to.0),
            Event::Progress(of, reply) => {
                // The caller may have given up.
                let _ = reply.send(self.progress(of));
            }
            Event::Shutdown(done) => self.begin_to_stop(done),
        }
        Ok(())
    }

    fn step(&mut self, message: raftpb::Message) {
        let snapshot = message.snapshot.as_ref().and_then(|snapshot| snapshot.metadata.as_ref());
        let snapshot = snapshot.map(|metadata| metadata.index);
        let is_snapshot = message.r#type() == raftpb::MessageType::MsgSnap;
        if let Err(why) = self.check_entries(&message) {
            return self.core.refuse(message.r#type().as_str_name(), message.from, &why);
        }
        self.core.step(message);
        if let Some(index) = snapshot.filter(|_| is_snapshot) {
            self.received.insert(index);
            if self.received.len() > RECEIVED_MAX {
                self.received.pop_last();
            }
            self.discard_snapshots();
        }
    }

    /// An entry that cannot be applied must not be committed, so it is neither appended nor acknowledged.
    fn check_entries(&self, message: &raftpb::Message) -> Result<(), String> {
        let check = match message.r#type() {
            raftpb::MessageType::MsgProp => self.config.check_proposed,
            raftpb::MessageType::MsgApp => self.config.check_appended,
            _ => return Ok(()),
        };
        message.entries.iter().try_for_each(check)
    }

    /// Has the databases of passed snapshots removed: those that were installed, and those that raft ignored
    /// because this member had come further by the time they were complete.
    fn discard_snapshots(&mut self) {
        let applied = self.core.applied_index();
        while self.received.first().is_some_and(|index| *index <= applied) {
            let index = self.received.pop_first().expect("there is a first");
            self.transport.discard_snapshot(Index(index));
        }
    }

    fn apply_conf_change(
        &mut self,
        change: &raftpb::ConfChange,
    ) -> Result<raftpb::ConfState, Fatal> {
        let index = self.changes.pop_front().unwrap_or(self.core.applied_index() + 1);
        let conf_state = self
            .core
            .apply_conf_change(index, change)
            .map_err(|e| Fatal::new(format!("conf change at entry {index}"), e))?;
        let ids = |ids: &[u64]| ids.iter().map(|id| MemberId(*id).to_string()).collect::<Vec<_>>();
        info!(
            index, r#type = change.r#type().as_str_name(), node = %MemberId(change.node_id),
            voters = ?ids(&conf_state.voters), learners = ?ids(&conf_state.learners), "configuration",
        );
        self.conf_state = Arc::new(conf_state.clone());
        Ok(conf_state)
    }

    fn progress(&self, of: MemberId) -> Option<Progress> {
        let own = self.core.matched(self.core.id()).filter(|_| self.core.role() == Role::Leader)?;
        Some(Progress { matched: self.core.matched(of.0).map(Index), own: Index(own) })
    }

    fn take_proposal(&mut self, proposal: Proposal<R>) {
        let gap = self.core.commit().saturating_sub(self.core.applied_index());
        let gap_max =
            if proposal.vital { limits::APPLY_GAP_VITAL_MAX } else { limits::APPLY_GAP_MAX };
        if self.stopping.is_some() {
            self.proposals.refuse(proposal, Unavailable::Stopped);
        } else if gap > gap_max && proposal.kind == ProposalKind::Normal {
            self.proposals.refuse(proposal, Unavailable::TooManyRequests);
        } else {
            self.proposals.push(proposal);
        }
    }

    fn begin_to_stop(&mut self, done: oneshot::Sender<()>) {
        // Two election timeouts: one for the transfer, one for an election without it.
        let patience = match self.core.role() {
            Role::Leader if self.core.has_other_voters() => 2 * self.config.election_ticks as u64,
            _ => 0,
        };
        self.stopping = Some((done, self.ticks + patience));
        self.hand_over();
    }

    /// Gives leadership away before the end.
    fn hand_over(&mut self) {
        let leads = self.core.role() == Role::Leader && !self.core.is_transferring();
        if let (true, true, Some(to)) =
            (self.stopping.is_some(), leads, self.core.best_transferee())
        {
            info!(transferee_member_id = %MemberId(to), "leadership transfer starting");
            self.core.transfer_leader(to);
        }
    }

    /// Whether it may end: another member leads, or it took too long. Until then it goes on voting,
    /// which its successor may need.
    fn is_done(&self) -> bool {
        let Some((_, latest)) = &self.stopping else { return false };
        let leader = self.core.leader();
        self.ticks >= *latest || (leader != 0 && leader != self.core.id())
    }
}

/// raft-rs panics when an invariant is broken; such a panic is fatal with its text, not a silent end of
/// this task.
pub fn caught<T>(doing: &str, work: impl FnOnce() -> T) -> Result<T, Fatal> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
        Fatal::new(doing, words.unwrap_or("panicked").to_owned())
    })
}
