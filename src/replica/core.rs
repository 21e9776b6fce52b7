//! Consensus without I/O: raft-rs's `RawNode` with our log, our wire types, a deterministic election
//! timeout and guards against what raft-rs 0.7 does not survive (listed in [`super`]). No clock, no
//! task, no disk, no socket: time is [`Core::tick`], the disk is [`Core::persisted`].

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use quorate_proto::raftpb;
use raft::eraftpb::{self, EntryType, MessageType};
use raft::{Progress, ProgressState, RawNode, SnapshotStatus, StateRole};

use super::guard;
use super::log::Log;
use super::message;
use super::outbox;
use super::slog;
use crate::error::Fatal;
use crate::limits;
use crate::plant;
use crate::types::MemberId;

/// Read requests of followers held back while the leader has not committed in its term. Requests beyond
/// this are dropped, and their senders retry.
const HELD_READS_MAX: usize = 1_024;
/// Forwarded proposals that wait for a conf change or a change of leaders: messages, and bytes of their
/// entries. What comes beyond is dropped, and its proposer runs out of time.
const HELD_PROPOSALS_MAX: usize = 1_024;
const HELD_PROPOSALS_BYTES_MAX: usize = 16 << 20;
/// Election timeouts for which they wait at most; later their proposers have given up.
const HELD_PROPOSALS_ELECTIONS: u64 = 3;

pub struct CoreConfig {
    pub id: u64,
    /// Ticks without a leader's sign of life before an election, at least; twice that at most.
    pub election_ticks: usize,
    pub pre_vote: bool,
    /// Drawn once a process; the only randomness of elections.
    pub boot_seed: u64,
    /// Position of the state machine at start.
    pub applied: u64,
}

/// What was read from the disk at start.
#[derive(Clone, Debug, Default)]
pub struct Boot {
    pub hard_state: raftpb::HardState,
    /// In force at `applied`.
    pub conf_state: raftpb::ConfState,
    /// Index and term of the entry before `entries`.
    pub snapshot: (u64, u64),
    pub entries: Vec<raftpb::Entry>,
}

/// The work of one turn. The caller sends the messages, hands `save` to the disk in the order given, and
/// applies `snapshot` before `committed`.
#[derive(Debug, Default)]
pub struct Output {
    /// May be sent at once.
    pub messages: Vec<raftpb::Message>,
    pub save: Option<Save>,
    /// Installed by the peer layer, recorded in the WAL by now: the state machine takes it over.
    pub snapshot: Option<raftpb::SnapshotMetadata>,
    /// Each entry once, in order.
    pub committed: Vec<raftpb::Entry>,
    pub reads: Vec<ReadState>,
}

#[derive(Clone, Debug)]
pub struct Save {
    pub number: u64,
    pub snapshot: Option<raftpb::SnapshotMetadata>,
    pub hard_state: Option<raftpb::HardState>,
    pub entries: Vec<raftpb::Entry>,
    /// [`Core::persisted`] is owed for this number; without it only the commit index has moved and
    /// nothing waits for the write.
    pub must_sync: bool,
    /// The commit index, this one's or an earlier one's, must be durable with it.
    pub sync_commit: bool,
}

/// The read request marked `context` may be answered from a state at `index` or later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadState {
    pub context: Bytes,
    pub index: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// Why a proposal was not taken; nothing has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// No leader, a leader that is handing over, or too much uncommitted: may be tried again.
    NotNow,
    /// Bound to a term that this member does not lead.
    OtherTerm,
}

pub struct Core {
    node: RawNode<Log>,
    boot_seed: u64,
    /// Handed to the disk and not reported back, oldest first.
    unsaved: VecDeque<Unsaved>,
    /// Newest term known to be on disk.
    durable_term: u64,
    /// Newest commit index known to be on disk.
    durable_commit: u64,
    /// Committed entries from a conf change on whose commit index is not known to be durable. A member
    /// that the change removes ends once others have applied it: after a power cut they must not need
    /// its vote to find out what is committed.
    held_entries: VecDeque<raftpb::Entry>,
    /// Waited for the disk and may go now.
    released: Vec<eraftpb::Message>,
    /// Recorded in the WAL, to be taken over by the state machine.
    restored: Option<raftpb::SnapshotMetadata>,
    /// Read requests that came before this leader has committed in its term.
    held_reads: Vec<eraftpb::Message>,
    /// Forwarded proposals that raft would drop or replace now, oldest first.
    held_proposals: VecDeque<ForwardedProposal>,
    held_proposals_bytes: usize,
    /// Ticks since start.
    ticks: u64,
    /// Where a conf change may be pending (term, index), and whether it was found to remove a member.
    removal: ((u64, u64), bool),
    /// Messages refused since start.
    refused: u64,
}

/// A forwarded proposal, and the tick at which it came.
struct ForwardedProposal {
    since: u64,
    bytes: usize,
    message: eraftpb::Message,
}

struct Unsaved {
    number: u64,
    /// Newest Ready that needs no further write.
    covers: u64,
    term: u64,
    commit: u64,
    snapshot: Option<raftpb::SnapshotMetadata>,
    messages: Vec<eraftpb::Message>,
}

impl Core {
    pub fn new(config: &CoreConfig, boot: Boot) -> Result<Self, Fatal> {
        let context = |what: &str| format!("start of consensus: {what}");
        let durable_commit = boot.hard_state.commit.max(config.applied);
        let log = open_log(config, boot).map_err(|e| Fatal::new(context("log"), e))?;
        let durable_term = raft::Storage::initial_state(&log)
            .map_err(|e| Fatal::new(context("log"), e))?
            .hard_state
            .term;
        let raft_config = raft::Config {
            id: config.id,
            election_tick: config.election_ticks,
            heartbeat_tick: 1,
            applied: config.applied,
            max_size_per_msg: limits::BATCH_BYTES_MAX,
            max_inflight_msgs: limits::INFLIGHT_MSGS_MAX,
            check_quorum: !plant::QUORUM_UNCHECKED.is_planted(),
            pre_vote: config.pre_vote,
            max_uncommitted_size: limits::UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: limits::BATCH_BYTES_MAX,
            ..Default::default()
        };
        let node = RawNode::new(&raft_config, log, &slog::logger())
            .map_err(|e| Fatal::new(context("configuration"), e))?;
        let mut core = Self {
            node,
            boot_seed: config.boot_seed,
            unsaved: VecDeque::new(),
            durable_term,
            durable_commit,
            held_entries: VecDeque::new(),
            released: Vec::new(),
            restored: None,
            held_reads: Vec::new(),
            held_proposals: VecDeque::new(),
            held_proposals_bytes: 0,
            ticks: 0,
            removal: ((0, 0), false),
            refused: 0,
        };
        core.settle();
        Ok(core)
    }

    /// One heartbeat interval has passed.
    pub fn tick(&mut self) {
        self.ticks += 1;
        if self.role() == Role::Leader || self.may_campaign() {
            self.node.tick();
        }
        self.settle();
    }

    /// Campaigns at once if this is the only voter. raft refuses while a conf change is not applied.
    pub fn lead_alone(&mut self) {
        let raft = &self.node.raft;
        let alone = raft.promotable() && raft.prs().is_singleton();
        if alone && self.role() != Role::Leader && self.may_campaign() {
            // The only error there is means that nothing happens.
            let _ = self.node.campaign();
            self.settle();
        }
    }

    /// A message from a peer. What cannot be used is dropped, as the network might have done.
    pub fn step(&mut self, message: raftpb::Message) {
        if message.to != self.id() {
            return;
        }
        let (kind, from) = (message.r#type().as_str_name(), message.from);
        let m = message::from_wire(message).map_err(|why| why.to_string());
        let checked = m.and_then(|m| match guard::check(&self.node.raft, &m) {
            Ok(()) => Ok(m),
            Err(why) => Err(why.to_string()),
        });
        let mut m = match checked {
            Ok(m) => m,
            Err(why) => return self.refuse(kind, from, &why),
        };
        if self.admit(&mut m) {
            // Every error here means "ignored": an unknown sender, a proposal without a leader.
            let _ = self.node.step(m);
        }
        self.settle();
    }

    /// Drops a message that raft must not see. Logged at the first of a row and then ever more rarely: a
    /// sender may repeat it for ever.
    pub fn refuse(&mut self, kind: &str, from: u64, why: &str) {
        self.refused += 1;
        if self.refused.is_power_of_two() {
            let (from, refused) = (MemberId(from), self.refused);
            tracing::warn!(kind, %from, why, refused, "refused a raft message");
        }
    }

    /// Guards in front of raft; false when the message is not to be stepped.
    fn admit(&mut self, m: &mut eraftpb::Message) -> bool {
        let leader = self.role() == Role::Leader;
        match m.get_msg_type() {
            // raft drops it, and the reader would wait for its timeout.
            MessageType::MsgReadIndex if leader && !self.node.raft.commit_to_current_term() => {
                self.hold_read(std::mem::take(m));
                false
            }
            // raft would forward it with its term, which it asserts a message has not.
            MessageType::MsgTransferLeader => leader,
            MessageType::MsgTimeoutNow => self.may_campaign(),
            // etcd never makes one; joint consensus is not ours to enter.
            MessageType::MsgPropose if proposes(m, EntryType::EntryConfChangeV2) => false,
            MessageType::MsgPropose if self.must_wait(m) => {
                self.hold_proposal(std::mem::take(m));
                false
            }
            MessageType::MsgAppendResponse if leader && m.reject => self.above_matched(m),
            _ => true,
        }
    }

    /// A rejection may not move a follower's next index to or below what it has acknowledged
    /// (mended in raft-rs after 0.7.0). False when the rejection is stale.
    fn above_matched(&self, m: &mut eraftpb::Message) -> bool {
        let Some(matched) = self.node.raft.prs().get(m.from).map(|progress| progress.matched)
        else {
            return false;
        };
        let log = &self.node.raft.raft_log;
        let hint = match m.log_term {
            0 => m.reject_hint,
            term => log.find_conflict_by_term(m.reject_hint, term).0,
        };
        if hint < matched {
            m.reject_hint = matched;
            m.log_term = 0;
        }
        m.index > matched
    }

    fn hold_read(&mut self, m: eraftpb::Message) {
        let same = |held: &eraftpb::Message| held.from == m.from && held.entries == m.entries;
        if self.held_reads.len() < HELD_READS_MAX && !self.held_reads.iter().any(same) {
            self.held_reads.push(m);
        }
    }

    /// Proposes one entry; with `only_in_term` it is appended by this member as the leader of
    /// exactly that term or not at all.
    pub fn propose(
        &mut self,
        entry: raftpb::Entry,
        only_in_term: Option<u64>,
    ) -> Result<(), NotTaken> {
        if only_in_term.is_some_and(|term| !self.leads(term)) {
            return Err(NotTaken::OtherTerm);
        }
        self.propose_all(vec![entry])
    }

    /// Proposes entries, all or none: appended here when leader, else forwarded to the leader.
    /// Terms and indexes are raft's to give.
    pub fn propose_all(&mut self, entries: Vec<raftpb::Entry>) -> Result<(), NotTaken> {
        assert!(!entries.is_empty(), "a proposal has at least one entry");
        if self.removal_pending() {
            return Err(NotTaken::NotNow);
        }
        let mut m = eraftpb::Message::default();
        m.set_msg_type(MessageType::MsgPropose);
        m.from = self.id();
        m.entries = entries.into_iter().map(message::entry_in).collect::<Vec<_>>().into();
        let taken = self.node.step(m).map_err(|_| NotTaken::NotNow);
        self.settle();
        taken
    }

    /// Requests a read index. The answer is a [`ReadState`] with the same context; it may get lost, so the
    /// caller retries. Contexts are unique in the cluster, over restarts too.
    pub fn read_index(&mut self, context: Bytes) {
        let mut m = eraftpb::Message::default();
        m.set_msg_type(MessageType::MsgReadIndex);
        m.entries.push(eraftpb::Entry { data: context, ..Default::default() });
        if self.admit(&mut m) {
            let _ = self.node.raft.step(m);
        }
        self.settle();
    }

    /// What there is to do now; `None` when nothing. The numbers are those of raft-rs's Ready
    /// contract, see [`super`].
    pub fn ready(&mut self) -> Option<Output> {
        self.release_reads();
        self.release_proposals();
        let nothing = self.released.is_empty() && self.restored.is_none() && !self.may_release();
        if nothing && !self.node.has_ready() {
            return None;
        }
        let mut output = Output { snapshot: self.restored.take(), ..Default::default() };
        let mut messages = std::mem::take(&mut self.released);
        if self.node.has_ready() {
            self.take_ready(&mut output, &mut messages);
        }
        if let Some(snapshot) = &output.snapshot {
            self.held_entries.retain(|entry| entry.index > snapshot.index);
        }
        while self.may_release() {
            output.committed.extend(self.held_entries.pop_front());
        }
        output.messages = outbox::coalesce(messages).into_iter().map(message::to_wire).collect();
        Some(output)
    }

    fn take_ready(&mut self, output: &mut Output, now: &mut Vec<eraftpb::Message>) {
        // 1. and 2. Committed entries and read states leave at once, but for what a conf change holds;
        //    raft-rs gives out only what this member has persisted.
        let mut ready = self.node.ready();
        let committed = ready.take_committed_entries().into_iter().map(message::entry_out);
        self.held_entries.extend(committed);
        output.reads = ready.take_read_states().into_iter().map(read_state_out).collect();

        // 3. to 5. Snapshot, entries and hard state: readable through Storage at once, durable later.
        let save = self.store(&ready);

        // 6. A leader sends before its own disk has written (thesis 10.2.1), but only once its term
        //    is durable: alone among learners it has become leader without waiting for a vote.
        let term_is_durable = self.term_is_durable();
        let mut later = ready.take_persisted_messages();
        if plant::ACK_BEFORE_FSYNC.is_planted() {
            now.append(&mut later);
        }
        match ready.take_messages() {
            messages if term_is_durable => now.extend(messages),
            messages => later.extend(messages),
        }
        now.extend(later.extract_if(.., |m| outbox::waits_for_no_disk(m)));

        // 7. The Ready is handled as far as raft's memory goes; `persisted` does the rest.
        let (number, must_sync) = (save.number, save.must_sync);
        self.node.advance_append_async(ready);
        if must_sync {
            let (term, snapshot) = (self.node.raft.term, save.snapshot.clone());
            let commit = self.commit();
            let unsaved =
                Unsaved { number, covers: number, term, commit, snapshot, messages: later };
            self.unsaved.push_back(unsaved);
            if plant::LEADER_COUNTS_UNSYNCED.is_planted() {
                self.node.on_persist_ready(number);
            }
        } else if let Some(newest) = self.unsaved.back_mut() {
            newest.covers = number;
            newest.messages.extend(later);
        } else {
            self.node.on_persist_ready(number);
            now.extend(later);
        }
        let anything = must_sync || save.hard_state.is_some();
        output.save = anything.then_some(save);
    }

    /// Appends what the Ready has to store to the log in memory.
    fn store(&mut self, ready: &raft::Ready) -> Save {
        let sync_commit = !ready.must_sync() && self.waits_for_commit();
        let log = self.node.mut_store();
        let metadata = (!ready.snapshot().is_empty()).then(|| ready.snapshot().get_metadata());
        if let Some(metadata) = metadata {
            log.restore(metadata);
        }
        log.append(ready.entries());
        if let Some(hard_state) = ready.hs() {
            log.set_hard_state(hard_state.clone());
        }
        Save {
            number: ready.number(),
            snapshot: metadata.map(|m| message::snapshot_metadata_out(m.clone())),
            hard_state: ready
                .hs()
                .filter(|_| !plant::VOTE_NOT_KEPT.is_planted())
                .map(message::hard_state_out),
            entries: ready.entries().iter().cloned().map(message::entry_out).collect(),
            must_sync: ready.must_sync() || sync_commit,
            sync_commit,
        }
    }

    /// Whether a conf change is held back whose commit index has not been handed to a synced write.
    fn waits_for_commit(&self) -> bool {
        let handed_over = self.unsaved.back().map_or(self.durable_commit, |unsaved| unsaved.commit);
        self.held_entries.iter().any(|entry| is_change(entry) && entry.index > handed_over)
    }

    /// Whether the first of the entries held back can go.
    fn may_release(&self) -> bool {
        let first = self.held_entries.front();
        let early = plant::CHANGE_BEFORE_ITS_COMMIT_IS_KEPT.is_planted();
        first.is_some_and(|entry| !is_change(entry) || entry.index <= self.durable_commit || early)
    }

    /// Everything up to and with the save of this number is durable.
    pub fn persisted(&mut self, number: u64) {
        while self.unsaved.front().is_some_and(|unsaved| unsaved.number <= number) {
            let saved = self.unsaved.pop_front().expect("there is a front");
            self.durable_term = saved.term;
            self.durable_commit = self.durable_commit.max(saved.commit);
            self.node.on_persist_ready(saved.covers);
            if let Some(snapshot) = saved.snapshot {
                // raft's configuration is the snapshot's since it was received; to raft the
                // snapshot is applied. The state machine takes it from the output.
                if snapshot.index > self.node.raft.raft_log.applied {
                    self.node.advance_apply_to(snapshot.index);
                }
                self.restored = Some(snapshot);
            }
            self.released.extend(saved.messages);
        }
        self.settle();
    }

    /// The state machine has reached `index`.
    pub fn applied(&mut self, index: u64) {
        if index > self.node.raft.raft_log.applied {
            self.node.advance_apply_to(index);
        }
        let log = self.node.mut_store();
        // Below the start: a snapshot has overtaken this report.
        if index > log.applied() && index + 1 >= log.first_index() {
            log.set_applied(index);
        }
        self.settle();
    }

    /// The committed change at `index` takes effect; a change that raft has no part in leaves the
    /// configuration as it is.
    pub fn apply_conf_change(
        &mut self,
        index: u64,
        change: &raftpb::ConfChange,
    ) -> Result<raftpb::ConfState, raft::Error> {
        if let Some(cc) = message::conf_change_in(change) {
            let conf_state = self.node.apply_conf_change(&cc)?;
            self.node.mut_store().set_configuration(index, conf_state);
        }
        if self.role() == Role::Leader && !self.node.raft.prs().conf().voters().contains(self.id())
        {
            // raft-rs goes on as the leader and fails at the next response. The others are sent the
            // commit index once more, then elect among themselves.
            self.node.raft.bcast_append();
            self.step_down();
        }
        self.settle();
        Ok(self.conf_state())
    }

    /// Keeps at most `entries` applied entries, and of those no more than fit `bytes` with the ones
    /// not applied.
    pub fn compact(&mut self, entries: u64, bytes: usize) {
        let awaited = self.awaited();
        let log = self.node.mut_store();
        let index = log.applied().saturating_sub(entries).min(awaited).max(log.index_to_fit(bytes));
        log.compact(index.min(log.applied()));
        log.forget_configurations(log.applied());
    }

    /// The index from which on some follower will need entries soon: it is being sent a snapshot, or
    /// has been sent one and is probed for the position from which it can go on. Without them it would be
    /// sent one snapshot after the other, each older than the log when it arrives (etcd 3.7 pauses
    /// compaction, `server/etcdserver/server.go`, `inflightSnapshots`).
    fn awaited(&self) -> u64 {
        if self.node.raft.state != StateRole::Leader {
            return u64::MAX;
        }
        let of = |progress: &Progress| match progress.state {
            ProgressState::Snapshot => Some(progress.pending_snapshot),
            ProgressState::Probe if progress.recent_active => Some(progress.next_idx - 1),
            _ => None,
        };
        let followers = self.node.raft.prs().iter();
        followers.filter_map(|(_, progress)| of(progress)).min().unwrap_or(u64::MAX)
    }

    /// What the log in memory costs.
    pub fn log_bytes(&self) -> usize {
        self.node.store().bytes()
    }

    pub fn transfer_leader(&mut self, to: u64) {
        self.node.transfer_leader(to);
        self.settle();
    }

    /// The voter that can take over soonest: recently active, with the longest log.
    pub fn best_transferee(&self) -> Option<u64> {
        let prs = self.node.raft.prs();
        let voters = prs.iter().filter(|(id, progress)| {
            **id != self.id() && prs.conf().voters().contains(**id) && progress.recent_active
        });
        voters.max_by_key(|(id, progress)| (progress.matched, **id)).map(|(id, _)| *id)
    }

    pub fn has_other_voters(&self) -> bool {
        let voters = self.conf_state().voters;
        voters.iter().any(|id| *id != self.id())
    }

    /// Ceases to lead without a successor; the others elect one.
    pub fn step_down(&mut self) {
        let term = self.node.raft.term;
        self.node.raft.become_follower(term, 0);
        self.settle();
    }

    pub fn report_unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
        self.settle();
    }

    pub fn report_snapshot(&mut self, id: u64, ok: bool) {
        let status = if ok { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(id, status);
        self.settle();
    }

    pub fn id(&self) -> u64 {
        self.node.raft.id
    }

    pub fn role(&self) -> Role {
        match self.node.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::PreCandidate => Role::PreCandidate,
            StateRole::Candidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    pub fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Whether the disk has the term, and with it this member's vote.
    pub fn term_is_durable(&self) -> bool {
        self.durable_term == self.node.raft.term
    }

    /// 0 when unknown.
    pub fn leader(&self) -> u64 {
        self.node.raft.leader_id
    }

    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    pub fn first_index(&self) -> u64 {
        self.node.store().first_index()
    }

    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Messages refused since start.
    #[cfg(test)]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    pub fn applied_index(&self) -> u64 {
        self.node.store().applied()
    }

    pub fn conf_state(&self) -> raftpb::ConfState {
        message::conf_state_out(self.node.raft.prs().conf().to_conf_state())
    }

    /// Whether this member leads `term` and takes proposals.
    pub fn leads(&self, term: u64) -> bool {
        self.role() == Role::Leader && self.term() == term && !self.is_transferring()
    }

    pub fn is_transferring(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// A leader would replace a conf change by an empty entry now: an earlier one may not be applied.
    pub fn conf_change_pending(&self) -> bool {
        self.role() == Role::Leader && self.node.raft.has_pending_conf()
    }

    /// Whether this leader has to let a removal take effect before anything else. A removed member that
    /// has applied its removal cannot be elected any more; with entries that others lack it would not vote
    /// for them either, and they may need its vote until they know of the commit as well.
    fn removal_pending(&mut self) -> bool {
        if !self.conf_change_pending() {
            return false;
        }
        let at = (self.term(), self.node.raft.pending_conf_index);
        if self.removal.0 != at {
            let pending = self.entries(self.node.raft.raft_log.applied);
            self.removal = (at, pending.iter().any(removes));
        }
        self.removal.1
    }

    /// What a member of the configuration has acknowledged of this leader's log.
    pub fn matched(&self, id: u64) -> Option<u64> {
        self.node.raft.prs().get(id).map(|progress| progress.matched)
    }

    /// Entries of the log after `start`, as far as they are in memory.
    pub fn entries(&self, start: u64) -> Vec<raftpb::Entry> {
        let context = raft::GetEntriesContext::empty(false);
        let entries = self.node.raft.raft_log.entries(start + 1, None, context);
        entries.unwrap_or_default().into_iter().map(message::entry_out).collect()
    }

    /// raft reads unapplied entries when it campaigns, which a snapshot on its way to the disk has
    /// taken from the log; and a lone voter becomes leader on the spot, for which all of its log
    /// must be durable.
    fn may_campaign(&self) -> bool {
        let raft = &self.node.raft;
        let installing = raft.raft_log.applied + 1 < raft.raft_log.first_index();
        let lone_and_unsaved = raft.prs().is_singleton() && !self.unsaved.is_empty();
        !installing && !lone_and_unsaved
    }

    /// Gives held read requests to raft when it can answer them. A member that lost the lead drops
    /// them: its own driver and its peers retry.
    fn release_reads(&mut self) {
        if self.held_reads.is_empty() {
            return;
        }
        if self.role() != Role::Leader {
            self.held_reads.clear();
        } else if self.node.raft.commit_to_current_term() {
            for m in std::mem::take(&mut self.held_reads) {
                let _ = self.node.raft.step(m);
            }
            self.settle();
        }
    }

    /// Whether raft would drop a proposal now, or put an empty entry in its place: while there is no
    /// leader or one that hands over, while too much is uncommitted, and while a conf change is under way.
    /// Its proposer would wait until its timeout.
    fn must_wait(&mut self, m: &eraftpb::Message) -> bool {
        if self.role() != Role::Leader {
            return self.leader() == 0;
        }
        let change = proposes(m, EntryType::EntryConfChange);
        let uncommitted = self.node.raft.uncommitted_size();
        let max = usize::try_from(limits::UNCOMMITTED_BYTES_MAX).unwrap_or(usize::MAX);
        let full = uncommitted > 0 && uncommitted + data_bytes(m) > max;
        self.is_transferring()
            || full
            || self.removal_pending()
            || (change && self.conf_change_pending())
    }

    fn hold_proposal(&mut self, message: eraftpb::Message) {
        let bytes = data_bytes(&message);
        // One above the bound is held alone.
        let fits = self.held_proposals_bytes == 0
            || self.held_proposals_bytes + bytes <= HELD_PROPOSALS_BYTES_MAX;
        if fits && self.held_proposals.len() < HELD_PROPOSALS_MAX {
            self.held_proposals_bytes += bytes;
            self.held_proposals.push_back(ForwardedProposal { since: self.ticks, bytes, message });
        }
    }

    /// Gives raft the held proposals that it takes now: as the leader to append them, as a follower to pass
    /// them on to the leader. None of them was appended before, so none is appended twice.
    fn release_proposals(&mut self) {
        let patience = HELD_PROPOSALS_ELECTIONS * self.node.raft.election_timeout() as u64;
        for held in std::mem::take(&mut self.held_proposals) {
            if self.ticks > held.since + patience {
                self.held_proposals_bytes -= held.bytes;
            } else if self.must_wait(&held.message) {
                self.held_proposals.push_back(held);
            } else {
                self.held_proposals_bytes -= held.bytes;
                let _ = self.node.step(held.message);
                self.settle();
            }
        }
    }

    /// Replaces the election timeout that raft drew from the thread's generator by a pure function of
    /// what distinguishes this election, so that a run can be repeated.
    fn settle(&mut self) {
        let raft = &mut self.node.raft;
        let mut hash = splitmix64(self.boot_seed);
        for part in [raft.id, raft.term, raft.state as u64] {
            hash = splitmix64(hash ^ part);
        }
        let ticks = raft.election_timeout();
        raft.set_randomized_election_timeout(ticks + (hash % ticks as u64) as usize);
    }
}

/// The log as it was read. Its hard state is brought up to what the rest of it proves: the state
/// machine may have been flushed ahead of the commit index (which is written lazily), and entries
/// may have been written ahead of the term they came with.
fn open_log(config: &CoreConfig, boot: Boot) -> Result<Log, String> {
    let (start, start_term) = boot.snapshot;
    let entries: Vec<_> = boot.entries.into_iter().map(message::entry_in).collect();
    if let Some(first) = entries.first().filter(|first| first.index != start + 1) {
        return Err(format!("it begins at {} instead of {}", first.index, start + 1));
    }
    let (last, last_term) = entries.last().map_or((start, start_term), |e| (e.index, e.term));
    let mut hard_state = message::hard_state_in(&boot.hard_state);
    hard_state.commit = hard_state.commit.max(config.applied).max(start);
    if hard_state.commit > last {
        return Err(format!("it ends at {last}, below the committed index {}", hard_state.commit));
    }
    if hard_state.term < last_term {
        hard_state.term = last_term;
        hard_state.vote = 0;
    }
    let conf_state = message::conf_state_in(boot.conf_state);
    Ok(Log::new(hard_state, conf_state, boot.snapshot, entries, config.applied))
}

fn removes(entry: &raftpb::Entry) -> bool {
    let change = is_change(entry).then(|| raftpb::ConfChange::decode(&entry.data[..]));
    change.is_some_and(|change| {
        change.is_ok_and(|change| change.r#type() == raftpb::ConfChangeType::ConfChangeRemoveNode)
    })
}

fn is_change(entry: &raftpb::Entry) -> bool {
    entry.r#type() != raftpb::EntryType::EntryNormal
}

fn data_bytes(m: &eraftpb::Message) -> usize {
    m.entries.iter().map(|entry| entry.data.len()).sum()
}

fn proposes(m: &eraftpb::Message, kind: EntryType) -> bool {
    m.entries.iter().any(|entry| entry.get_entry_type() == kind)
}

fn read_state_out(state: raft::ReadState) -> ReadState {
    ReadState { context: state.request_ctx.into(), index: state.index }
}

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014), the finalizer.
fn splitmix64(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
