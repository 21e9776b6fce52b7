//! Everything that was seen of a run from outside the servers, in one place: what clients called and
//! were answered, what watchers received, what members reported of themselves. Checkers read it; workloads
//! and observers add to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quorate_proto::etcdserverpb::{
    LeaseTimeToLiveResponse, RangeRequest, RangeResponse, StatusResponse, WatchCreateRequest,
    WatchResponse,
};

use crate::facts::history::{Answer, Call, Log, Operation};
use crate::facts::seen::Seen;
use crate::facts::verdict::Violation;

/// Cheap to clone: all parts of a run add to the same evidence.
#[derive(Clone, Default)]
pub struct Evidence(Arc<Mutex<Record>>);

/// What has been seen.
#[derive(Default)]
pub struct Record {
    /// Calls, in the order in which they ended.
    pub operations: Vec<Operation>,
    /// Watch streams, in the order in which they were opened.
    pub streams: Vec<Stream>,
    pub samples: Vec<Sample>,
    /// What observers saw of members besides.
    pub seen: Seen,
    /// All events by revision, from 1 on, as the one watcher of everything has received them.
    pub log: Log,
    /// Backups that were restored, with what was read there.
    pub backups: Vec<Backup>,
    /// What workloads found to be wrong while they ran.
    pub violations: Vec<Violation>,
    /// Turns that clients had, for certain, in a queue of which one may have it at a time.
    pub tenures: Vec<Tenure>,
    /// Whether the log is known to end with the last revision there is.
    pub whole: bool,
    /// The members' bounds: bytes of a request, operations of a txn.
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    /// Of live bytes, where the plan has one.
    pub quota_bytes: Option<u64>,
    /// How often leaders write down what is left of a lease, where they do.
    pub lease_checkpoint: Option<Duration>,
    /// The age at which leaders compact the past by themselves, where they do.
    pub auto_compaction: Option<Duration>,
    /// Whether members export spans of their calls.
    pub traced: bool,
    /// Nothing is done to the cluster but that its leaders change, and its certificates.
    pub steady: bool,
    /// Nothing is done but that members are restarted one by one, and leaders change: all members reach
    /// each other, as a rule.
    pub calm: bool,
    /// How often leaders compare all members' histories, where they do.
    pub corrupt_check: Option<Duration>,
    pub election_timeout: Duration,
    /// What was written through a proxy is in what is read through it from then on, whatever kind of
    /// read it is: its answers are ordered, or come from one member only.
    pub proxies_see_their_writes: bool,
    /// What members answer through a proxy does not go back in revision.
    pub proxies_ordered: bool,
    /// How far members' clocks may run too fast or too slow, in parts of a million.
    pub clock_rate_ppm: u32,
    /// The instant at which the world began.
    pub start: Option<Instant>,
    /// What the members raise the cluster's version to.
    pub cluster_version: String,
    /// Since when the cluster has been whole for good.
    pub healthy: Option<Instant>,
    /// When the load ended.
    pub ended: Option<Instant>,
}

/// One watch on one connection, from its creation to its end.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Streams of one watcher follow each other: each resumes where the one before was broken.
    pub watcher: usize,
    /// Watches of one connection have the same number here: progress may be for all at once.
    pub connection: usize,
    /// `host:port` of the member it was opened to.
    pub endpoint: String,
    pub request: WatchCreateRequest,
    pub created: Instant,
    /// The id in the answer with `created`; none if there never was one.
    pub watch_id: Option<i64>,
    /// The header revision of that answer.
    pub created_revision: Option<i64>,
    /// The responses in order of arrival, the one with `created` included: events, progress, cancellation.
    pub responses: Vec<(Instant, WatchResponse)>,
    /// When the client requested the cancellation.
    pub cancelled: Option<Instant>,
    pub end: Option<End>,
}

/// How a client's part in a watch came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub at: Instant,
    pub how: How,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// The client or the member broke the stream: later events are not guaranteed.
    Broken(String),
    /// It was cancelled, by one of the two sides.
    Cancelled,
    /// The client waited, in a healthy cluster, until all events up to this revision were due.
    Complete(i64),
}

/// A turn that a client had in a queue.
#[derive(Clone, Debug)]
pub struct Tenure {
    pub workload: &'static str,
    pub client: usize,
    /// Fences off the previous holder of the turn.
    pub token: i64,
    pub from: Instant,
    pub until: Instant,
}

/// A read from a restored server.
pub type Read = (RangeRequest, Answer<RangeResponse>);
/// A lease that it listed, and the answer about it.
pub type Lease = (i64, Answer<LeaseTimeToLiveResponse>);

/// A backup that was restored as a cluster of its own.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The host of the member that made the backup, and the number of its process there.
    pub source: String,
    pub process: u64,
    /// When it was requested.
    pub began: Instant,
    /// What was read, the newest revision first of all.
    pub reads: Vec<Read>,
    /// All leases that it listed.
    pub leases: Vec<Lease>,
}

/// A status that a member reported.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Instant,
    pub host: String,
    /// The process that reported it: the number of processes started on the host by then.
    pub process: u64,
    /// How many times the host's disk had been replaced by then.
    pub disk: u64,
    pub status: StatusResponse,
}

impl Evidence {
    /// The record, to add to or to read; not to be held over an await.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Revisions that no compaction may reach yet, so that the scribe always finds what comes next.
const KEPT_BEHIND: i64 = 5;

impl Record {
    /// Simulated time since the world began, of an instant of a clock without skew.
    pub fn at(&self, instant: Instant) -> Duration {
        self.start.map_or(Duration::ZERO, |start| instant.saturating_duration_since(start))
    }

    /// The newest revision of the log.
    pub fn last_revision(&self) -> i64 {
        self.log.keys().next_back().copied().unwrap_or(1)
    }

    /// How far a compaction may go now.
    pub fn compactable(&self) -> i64 {
        self.last_revision() - KEPT_BEHIND
    }

    /// How many calls were answered.
    pub fn answered(&self) -> usize {
        self.operations.iter().filter(|operation| operation.answered()).count()
    }

    /// Compactions that may have taken effect: the revision, and when it was requested.
    pub fn compactions(&self) -> impl Iterator<Item = (i64, &Operation)> {
        self.operations.iter().filter_map(|operation| match &operation.call {
            Call::Compact(_, Err(failure)) if failure.never => None,
            Call::Compact(request, _) => Some((request.revision, operation)),
            _ => None,
        })
    }

    /// Events since a revision on may have lost what was before them, when this is above it.
    pub fn compacted_at_most(&self) -> i64 {
        let asked = self.compactions().map(|(revision, _)| revision).max().unwrap_or(0);
        // By the end every revision is old enough.
        let aged = self.auto_compaction.map_or(0, |_| self.last_revision());
        asked.max(aged)
    }
}
