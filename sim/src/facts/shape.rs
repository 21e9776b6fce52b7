//! The shape of a cluster: how many members, with which options, behind which proxies. Small bounds make
//! rare paths common.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use quorate::apply::Release;
use quorate::member;

use super::addresses::PEER_PORT;

/// Where members keep their data, and the log of those that keep it apart.
pub const DATA: &str = "/data";
pub const WAL_APART: &str = "/log";
/// Hosts that the members of one plan use up at most.
pub const FRESH_MAX: usize = 12;
/// Bounds of answers, small enough that many come in pages, that a few dozen keys are not sorted at once,
/// and that now and then one has to wait.
pub const ANSWERS: member::ResponseMemory = member::ResponseMemory {
    most: 4 << 20,
    counted: 1 << 10,
    inline: 4 << 10,
    page: 4 << 10,
    sorted: 18 << 10,
};

/// What differs between clusters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub members: usize,
    /// Members beside those that vote.
    pub learners: usize,
    pub heartbeat: Duration,
    pub election_timeout: Duration,
    pub pre_vote: bool,
    pub snapshot_count: u64,
    pub catchup_entries: u64,
    pub wal_segment_bytes: u64,
    /// Whether the log lies outside of the data directory.
    pub wal_apart: bool,
    /// Open files and sockets of each member at most; none for more than it will ever have.
    pub descriptors: Option<usize>,
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    /// Live bytes; none for more than any run writes.
    pub quota_bytes: Option<u64>,
    /// Clients' proposals of one member that wait for an answer; none for more than any run has.
    pub proposals: Option<usize>,
    /// How often the leader compares all members, at its revision and at compactions; none for never.
    /// Where it does, a member also compares itself before it serves.
    pub corrupt_check: Option<Duration>,
    /// How often leaders write down what is left of a lease; none for never.
    pub lease_checkpoint: Option<Duration>,
    /// The age at which leaders compact the past by themselves; none for never.
    pub auto_compaction: Option<Duration>,
    pub watch_progress_interval: Duration,
    /// Events that wait for a slow watch stream; what waits elsewhere on a watcher's way goes with it.
    pub watch_buffer: usize,
    /// Calls of a million that members export to a collector; at 0 there is none.
    pub traced: u32,
    /// Whether members, proxies and clients use TLS, and no client is accepted without a certificate.
    pub tls: bool,
    pub proxies: Proxies,
    /// The release of etcd that the members begin as; those that migrate, and new ones, are ours.
    pub etcd: Option<Release>,
}

impl Shape {
    /// Members with bounds small enough that segments are cut and states flushed all the time.
    pub fn small(members: usize) -> Self {
        let defaults = member::Options::single("m0", "/data", ([0, 0, 0, 0], PEER_PORT).into());
        Self {
            members,
            learners: 0,
            heartbeat: defaults.heartbeat,
            election_timeout: defaults.election_timeout,
            pre_vote: defaults.pre_vote,
            snapshot_count: 200,
            catchup_entries: 100,
            wal_segment_bytes: 64 << 10,
            wal_apart: false,
            descriptors: None,
            request_bytes_max: defaults.request_bytes_max,
            txn_ops_max: defaults.txn_ops_max,
            quota_bytes: None,
            proposals: None,
            corrupt_check: None,
            lease_checkpoint: None,
            auto_compaction: None,
            watch_progress_interval: defaults.watch_progress_interval,
            watch_buffer: defaults.watch_bounds.buffer_events,
            traced: 0,
            tls: false,
            proxies: Proxies::default(),
            etcd: None,
        }
    }

    /// The version of a cluster in which members of that release may be.
    pub fn cluster_version(&self) -> &'static str {
        let older = self.etcd.and_then(Release::older);
        older.map_or(member::CLUSTER_VERSION, |(_, cluster)| cluster)
    }
}

/// Proxies, and their options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    pub count: usize,
    /// What members answer through one never goes back in revision.
    pub ordered: bool,
    /// How often they fetch the cluster's members; none for never.
    pub sync: Option<Duration>,
    /// The prefix of all keys behind them; empty for none.
    pub namespace: String,
}

/// How a client writes its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Speaks {
    /// gRPC.
    #[default]
    Plain,
    /// JSON over HTTP/1.
    Json,
    /// gRPC with compressed messages.
    Gzip,
}

/// A flag that is missing from the command that starts a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Where the log is, if it is apart from the data.
    WalDir,
    DataDir,
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::WalDir => "wal-dir",
            Self::DataDir => "data-dir",
        })
    }
}

impl FromStr for Flag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wal-dir" => Ok(Self::WalDir),
            "data-dir" => Ok(Self::DataDir),
            _ => Err(format!("{text:?} is not forgotten: wal-dir, data-dir")),
        }
    }
}
