//! What the rest of the process sees of consensus: [`start`], the [`Replica`] handle and the types that
//! cross the channels. The work is in [`super::driver`].

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::{raftpb, walpb};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::core::{Boot, Core, CoreConfig, Role};
use super::disk::{LogStore, LogTask};
use super::driver::{Driver, Ends, Event};
use super::proposals::{Proposal, Reply};
use crate::env::Env;
use crate::error::{Error, Fatal, Unavailable};
use crate::latest;
use crate::limits;
use crate::metrics::Metrics;
use crate::types::{Index, MemberId, Term};
use crate::wal::Wal;

/// Why an entry that another member sends is refused; `Ok` for one that can be applied.
pub type Check = fn(&raftpb::Entry) -> Result<(), String>;

#[derive(Clone, Debug)]
pub struct ReplicaConfig {
    pub id: MemberId,
    /// One tick.
    pub heartbeat: Duration,
    /// Ticks without a leader before an election, at least.
    pub election_ticks: usize,
    pub pre_vote: bool,
    /// A lone voter leads at once instead of waiting for an election timeout.
    pub initial_election_tick_advance: bool,
    /// Drawn anew at every start: it makes elections and read requests distinct.
    pub boot_seed: u64,
    /// Where the state machine stands.
    pub applied: Index,
    /// Applied entries kept in memory for followers that lag.
    pub catchup_entries: u64,
    /// Where what happens is counted.
    pub metrics: Arc<Metrics>,
    /// Judges entries that other members propose here, and those of a leader's log.
    pub check_proposed: Check,
    pub check_appended: Check,
}

impl ReplicaConfig {
    /// etcd's defaults.
    pub fn new(id: MemberId) -> Self {
        Self {
            id,
            heartbeat: Duration::from_millis(100),
            election_ticks: 10,
            pre_vote: true,
            initial_election_tick_advance: true,
            boot_seed: 0,
            applied: Index(0),
            catchup_entries: limits::CATCHUP_ENTRIES,
            metrics: Arc::new(Metrics::new()),
            check_proposed: |_| Ok(()),
            check_appended: |_| Ok(()),
        }
    }

    /// The shortest time without a leader before an election.
    pub fn election_timeout(&self) -> Duration {
        self.heartbeat * u32::try_from(self.election_ticks).unwrap_or(u32::MAX)
    }
}

/// What was recovered from the disk.
pub struct Start {
    pub hard_state: raftpb::HardState,
    /// In force at [`ReplicaConfig::applied`].
    pub conf_state: raftpb::ConfState,
    /// The log begins after it.
    pub snapshot: (Index, Term),
    pub entries: Vec<raftpb::Entry>,
    pub wal: Wal,
}

/// The way to the other members. A snapshot message carries no data: the transport streams the state,
/// which is at the message's position or beyond.
pub trait Transport: Send + Sync + 'static {
    /// Never blocks; may drop.
    fn send(&self, messages: Vec<raftpb::Message>);
    /// The state machine has passed the snapshot that was received at `index`, whether raft took it or
    /// not: its database is of no use any more. Never blocks.
    fn discard_snapshot(&self, index: Index);
}

/// What the state machine has to do, in order.
pub enum ToApply<R> {
    Entries(Vec<Committed<R>>),
    /// Take over the snapshot that was received up to this position. It is recorded in the log.
    Snapshot(raftpb::SnapshotMetadata, oneshot::Sender<()>),
}

pub struct Committed<R> {
    pub entry: raftpb::Entry,
    /// Where the proposer waits, when it was this member.
    pub reply: Option<R>,
}

/// Where consensus stands, as this member sees it. Watchers are woken when role, term, leader or
/// configuration change; positions are up to date whenever they are read.
#[derive(Clone, Debug, Default)]
pub struct Status {
    pub id: MemberId,
    pub role: Role,
    pub term: Term,
    /// [`MemberId::NONE`] when unknown.
    pub leader: MemberId,
    pub commit: Index,
    pub last_index: Index,
    pub applied: Index,
    pub conf_state: Arc<raftpb::ConfState>,
    /// Accepted here and not answered.
    pub proposals_pending: usize,
    /// Refused here since start.
    pub proposals_failed: u64,
    /// Read rounds retried, and failed, since start.
    pub reads_slow: u64,
    pub reads_failed: u64,
}

/// How far a member's log has come, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// What the member has acknowledged; `None` when it is not in the configuration.
    pub matched: Option<Index>,
    /// What the leader has on its own disk.
    pub own: Index,
}

/// The handle of one member's consensus; clones are the same member.
pub struct Replica<R> {
    inbox: mpsc::Sender<Event>,
    snapshot_reports: mpsc::UnboundedSender<(MemberId, bool)>,
    proposals: mpsc::Sender<Proposal<R>>,
    applied: Arc<latest::Sender<Index>>,
    status: latest::Receiver<Status>,
    fatal: Arc<Mutex<oneshot::Receiver<Fatal>>>,
}

impl<R> Clone for Replica<R> {
    fn clone(&self) -> Self {
        Self {
            inbox: self.inbox.clone(),
            snapshot_reports: self.snapshot_reports.clone(),
            proposals: self.proposals.clone(),
            applied: self.applied.clone(),
            status: self.status.clone(),
            fatal: self.fatal.clone(),
        }
    }
}

/// Starts consensus. What it commits comes out of the receiver, after [`ReplicaConfig::applied`].
pub fn start<R: Reply>(
    env: Env,
    config: ReplicaConfig,
    start: Start,
    transport: Arc<dyn Transport>,
) -> Result<(Replica<R>, mpsc::Receiver<ToApply<R>>), Fatal> {
    let Start { hard_state, conf_state, snapshot: (index, term), entries, wal } = start;
    let wal = wal.timed_by(env.rt.clone());
    let boot = Boot { hard_state, conf_state, snapshot: (index.0, term.0), entries };
    start_on(env, config, boot, Box::new(wal), transport)
}

/// As [`start`], on any log.
pub(super) fn start_on<R: Reply>(
    env: Env,
    config: ReplicaConfig,
    boot: Boot,
    store: Box<dyn LogStore>,
    transport: Arc<dyn Transport>,
) -> Result<(Replica<R>, mpsc::Receiver<ToApply<R>>), Fatal> {
    let core_config = CoreConfig {
        id: config.id.0,
        election_ticks: config.election_ticks,
        pre_vote: config.pre_vote,
        boot_seed: config.boot_seed,
        applied: config.applied.0,
    };
    let core = super::driver::caught("start of consensus", || Core::new(&core_config, boot))??;
    let (inbox, events) = mpsc::channel(limits::REPLICA_INBOX);
    let (snapshot_reports, reported) = mpsc::unbounded_channel();
    let (proposals, proposed) = mpsc::channel(limits::REPLICA_INBOX);
    let (to_apply, committed) = mpsc::channel(limits::COMMITTED_BATCHES);
    let (applied, applied_changes) = latest::channel(config.applied);
    let (status, status_changes) = latest::channel(Status::default());
    let (fatal, fatal_result) = oneshot::channel();
    let log = LogTask::new(&env, store, config.metrics.clone());
    let ends = Ends {
        to_apply,
        applied: applied_changes,
        status,
        inbox: events,
        snapshot_reports: reported,
        proposed,
    };
    let driver = Driver::new(env.clone(), config, core, log, transport, ends);
    env.spawn("replica", driver.run(fatal));
    let replica = Replica {
        inbox,
        snapshot_reports,
        proposals,
        applied: Arc::new(applied),
        status: status_changes,
        fatal: Arc::new(Mutex::new(fatal_result)),
    };
    Ok((replica, committed))
}

impl<R: Reply> Replica<R> {
    /// Gives a proposal to consensus, waiting for room. The outcome goes to its reply handle: from
    /// the applier, or a refusal from here. A proposal that is lost on its way is never answered.
    pub async fn propose(&self, proposal: Proposal<R>) -> Result<(), Error> {
        self.proposals.send(proposal).await.map_err(|_| Unavailable::Stopped.into())
    }

    /// An index such that a state at or above it holds all that was acknowledged anywhere before the
    /// call. Waits while there is no leader: the caller limits the time.
    pub async fn read_index(&self) -> Result<Index, Error> {
        let (reader, answer) = oneshot::channel();
        self.send(Event::ReadIndex(reader)).await?;
        answer.await.unwrap_or(Err(Unavailable::Stopped.into()))
    }

    /// A message from a peer; dropped when too many wait.
    pub fn step(&self, message: raftpb::Message) {
        let _ = self.inbox.try_send(Event::Step(message));
    }

    /// Messages to this member are being lost.
    pub fn report_lost_contact(&self, id: MemberId) {
        let _ = self.inbox.try_send(Event::Unreachable(id));
    }

    /// A snapshot to this member has arrived or not. Every snapshot message given to the transport is
    /// reported, or the follower gets nothing more until the leader changes; so a report is not
    /// dropped when the inbox is full. At most one snapshot is on its way to a follower.
    pub fn report_snapshot(&self, id: MemberId, ok: bool) {
        let _ = self.snapshot_reports.send((id, ok));
    }

    pub fn status(&self) -> latest::Receiver<Status> {
        self.status.clone()
    }

    /// Requests that leadership is handed to `to`; [`Self::status`] shows whether it was.
    pub async fn transfer_leader(&self, to: MemberId) -> Result<(), Error> {
        self.send(Event::TransferLeader(to)).await
    }

    /// How far the log of `id` has come; `None` when this member does not lead.
    pub async fn progress(&self, id: MemberId) -> Result<Option<Progress>, Error> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::Progress(id, reply)).await?;
        answer.await.map_err(|_| Unavailable::Stopped.into())
    }

    /// Called by the applier once for every conf change entry, in order; with node id 0 when the
    /// state machine has rejected it. `None` when the replica has stopped.
    pub async fn apply_conf_change(&self, change: raftpb::ConfChange) -> Option<raftpb::ConfState> {
        let (reply, answer) = oneshot::channel();
        self.send(Event::ApplyConfChange(change, reply)).await.ok()?;
        answer.await.ok()
    }

    /// The state machine has reached `index`. Never waits.
    pub fn applied(&self, index: Index, _term: Term) {
        self.applied.send_if_modified(|applied| {
            let rises = index > *applied;
            *applied = index.max(*applied);
            rises
        });
    }

    /// The state is durable up to `index`: the log on disk may go below it, the one in memory below
    /// `keep_from`.
    pub async fn checkpoint(
        &self,
        index: Index,
        term: Term,
        conf_state: raftpb::ConfState,
        keep_from: Index,
    ) {
        let (index, term, conf_state) = (index.0, term.0, Some(conf_state));
        let mark = walpb::Snapshot { index, term, conf_state };
        // A replica that has stopped keeps its log.
        let _ = self.send(Event::Checkpoint(mark, keep_from)).await;
    }

    /// Hands leadership over if another voter can take it, writes what is queued, and stops. Waiting
    /// proposals and reads are refused.
    pub async fn shutdown(&self) {
        let (done, stopped) = oneshot::channel();
        if self.send(Event::Shutdown(done)).await.is_ok() {
            let _ = stopped.await;
        }
    }

    /// Ready when consensus cannot go on, for the first caller.
    pub async fn fatal(&self) -> Fatal {
        match (&mut *self.fatal.lock().await).await {
            Ok(fatal) => fatal,
            Err(_) => std::future::pending().await,
        }
    }

    async fn send(&self, event: Event) -> Result<(), Error> {
        self.inbox.send(event).await.map_err(|_| Unavailable::Stopped.into())
    }
}
