//! The options of a member, validated.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::apply::Release;
use crate::engine;
use crate::limits;
use crate::member::tokens::TokenKind;
use crate::member::upkeep::compactor::AutoCompaction;
use crate::mvcc;
use crate::peer;
use crate::tls::{self, Listen};
use crate::watch;

/// etcd's default of the time after which a call is logged as slow.
pub const UNARY_WARNING: Duration = Duration::from_millis(300);

#[derive(Clone)]
pub struct Options {
    pub name: String,
    pub data_dir: PathBuf,
    /// Where the log lies; `None` for `data_dir/member/wal`.
    pub wal_dir: Option<PathBuf>,
    pub listen_peer: Vec<Listen>,
    /// For listening, and for connecting to members with https URLs.
    pub peer_tls: tls::Settings,
    pub peer_patience: peer::Patience,
    /// Published to the other members and to clients.
    pub advertise_peer_urls: Vec<String>,
    pub advertise_client_urls: Vec<String>,
    /// `(name, peer URLs)` of every initial member, this one among them.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    pub initial_cluster_token: String,
    pub initial_state: InitialState,
    /// Begin a cluster of this member alone, with its present state and log.
    pub force_new_cluster: bool,
    /// Refuse changes of the membership that would endanger the quorum.
    pub strict_reconfig_check: bool,
    /// Learners that there may be at a time; the same on all members.
    pub learners_max: usize,
    /// What this member raises the cluster's version to at most, `major.minor.0`.
    pub cluster_version_max: String,
    /// Another one than this program's in simulations only.
    pub release: Release,
    /// One tick.
    pub heartbeat: Duration,
    pub election_timeout: Duration,
    pub pre_vote: bool,
    /// Start with most of the first election timeout already counted.
    pub initial_election_tick_advance: bool,
    pub snapshot_count: u64,
    pub catchup_entries: u64,
    /// Size of one preallocated log segment, bytes.
    pub wal_segment_bytes: u64,
    pub request_bytes_max: usize,
    pub txn_ops_max: usize,
    pub proposals: Proposals,
    pub response_memory: ResponseMemory,
    /// Bytes of live data above which writes are refused; `None` for no bound.
    pub quota_bytes: Option<u64>,
    /// Compare with the peers before serving (feature gate `InitialCorruptCheck`).
    pub initial_corrupt_check: bool,
    /// How often a leader compares all members; zero for never.
    pub corrupt_check_time: Duration,
    /// Fingerprint compactions, and compare them as leader (feature gate `CompactHashCheck`).
    pub compact_hash_check: bool,
    pub compact_hash_check_time: Duration,
    /// Between two checkpoints of a lease (feature gate `LeaseCheckpoint`); `None` for no checkpoints.
    pub lease_checkpoint_interval: Option<Duration>,
    /// Name, stage and state of etcd's feature gates, for the metric.
    pub feature_gates: Vec<(&'static str, &'static str, bool)>,
    /// `None` keeps every revision until a client compacts.
    pub auto_compaction: Option<AutoCompaction>,
    pub watch_progress_interval: Duration,
    pub watch_bounds: watch::Bounds,
    pub tokens: TokenKind,
    /// The work that a password's hash takes: two to the power of this; 4 to 31.
    pub bcrypt_cost: u32,
    /// What takes longer to apply, or to read, is logged.
    pub apply_warning: Duration,
    /// A unary call that takes longer is logged.
    pub unary_warning: Duration,
    /// Revisions deleted in one step of a compaction, and the pause after it.
    pub compaction_step: usize,
    pub compaction_pause: Duration,
    pub engine: engine::Options,
}

/// Bounds on pending proposals, in number and bytes, and the part of both that is reserved for vital ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposals {
    pub number: usize,
    pub bytes: usize,
    pub number_reserved: usize,
    pub bytes_reserved: usize,
}

impl Default for Proposals {
    fn default() -> Self {
        Self {
            number: limits::PROPOSALS_MAX,
            bytes: limits::PROPOSAL_BYTES_MAX,
            number_reserved: limits::PROPOSALS_RESERVED,
            bytes_reserved: limits::PROPOSAL_BYTES_RESERVED,
        }
    }
}

/// Memory for range responses, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseMemory {
    /// All responses together, without those below `counted`.
    pub most: usize,
    pub counted: usize,
    /// The largest response read on the caller's thread.
    pub inline: usize,
    /// A page of a larger response.
    pub page: usize,
    /// Reserved for a response that must be sorted, and for that of a txn.
    pub sorted: usize,
}

impl Default for ResponseMemory {
    fn default() -> Self {
        Self {
            most: limits::ANSWER_BYTES_MAX,
            counted: limits::ANSWER_COUNTED_BYTES,
            inline: limits::INLINE_RANGE_BYTES,
            page: limits::ANSWER_PAGE_BYTES,
            sorted: limits::ANSWER_SORTED_BYTES,
        }
    }
}

impl ResponseMemory {
    /// The memory of a paged response: a page as read, as encoded, and twice that in the connection.
    pub fn paged(&self) -> usize {
        4 * self.page
    }

    /// The shares of so many bytes for a page and for sorting.
    pub fn share(&self, bytes: usize) -> mvcc::Share {
        mvcc::Share { page: self.page, sort: bytes.saturating_sub(self.paged()) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialState {
    New,
    Existing,
}

impl Options {
    /// etcd's defaults for a single member that listens on `listen_peer`.
    pub fn single(name: &str, data_dir: impl Into<PathBuf>, listen_peer: SocketAddr) -> Self {
        let url = format!("http://{listen_peer}");
        Self {
            name: name.into(),
            data_dir: data_dir.into(),
            wal_dir: None,
            listen_peer: vec![listen_peer.into()],
            peer_tls: tls::Settings::default(),
            peer_patience: peer::Patience::default(),
            advertise_peer_urls: vec![url.clone()],
            advertise_client_urls: vec!["http://localhost:2379".into()],
            initial_cluster: vec![(name.into(), vec![url])],
            initial_cluster_token: "etcd-cluster".into(),
            initial_state: InitialState::New,
            force_new_cluster: false,
            strict_reconfig_check: true,
            learners_max: limits::LEARNERS_MAX,
            cluster_version_max: super::CLUSTER_VERSION.into(),
            release: Release::default(),
            heartbeat: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            pre_vote: true,
            initial_election_tick_advance: true,
            snapshot_count: limits::SNAPSHOT_COUNT,
            catchup_entries: limits::CATCHUP_ENTRIES,
            wal_segment_bytes: limits::WAL_SEGMENT_BYTES,
            request_bytes_max: limits::REQUEST_BYTES_MAX,
            txn_ops_max: limits::TXN_OPS_MAX,
            proposals: Proposals::default(),
            response_memory: ResponseMemory::default(),
            quota_bytes: Some(limits::QUOTA_BYTES),
            initial_corrupt_check: false,
            corrupt_check_time: Duration::ZERO,
            compact_hash_check: false,
            compact_hash_check_time: limits::COMPACT_HASH_CHECK_TIME,
            lease_checkpoint_interval: None,
            feature_gates: Vec::new(),
            auto_compaction: None,
            watch_progress_interval: limits::WATCH_PROGRESS_INTERVAL,
            watch_bounds: watch::Bounds::default(),
            tokens: TokenKind::Simple { ttl: Duration::from_secs(300) },
            bcrypt_cost: limits::BCRYPT_COST,
            apply_warning: Duration::from_millis(100),
            unary_warning: UNARY_WARNING,
            compaction_step: limits::COMPACT_STEP_REVISIONS,
            compaction_pause: limits::COMPACT_PAUSE,
            engine: engine::Options::default(),
        }
    }

    /// The version that this member reports.
    pub fn version(&self) -> &'static str {
        self.release.older().map_or(super::ETCD_VERSION, |(version, _)| version)
    }

    /// The version of the clusters that it serves in at most.
    pub fn serves_in(&self) -> &'static str {
        self.release.older().map_or(super::CLUSTER_VERSION, |(_, cluster)| cluster)
    }

    pub fn member_dir(&self) -> PathBuf {
        self.data_dir.join("member")
    }

    pub fn wal_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.member_dir().join("wal"))
    }

    /// Where a received snapshot is stored until it is installed.
    pub fn snap_dir(&self) -> PathBuf {
        self.member_dir().join("snap")
    }

    pub fn store_dir(&self) -> PathBuf {
        self.member_dir().join("store")
    }

    /// One and a half election timeouts, in whole seconds, rounded up.
    pub fn lease_ttl_min_s(&self) -> i64 {
        let ticks = (3 * self.election_ticks()) / 2;
        let least = self.heartbeat * u32::try_from(ticks).unwrap_or(u32::MAX);
        i64::try_from(least.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
    }

    pub fn election_ticks(&self) -> usize {
        let ticks = self.election_timeout.as_millis() / self.heartbeat.as_millis().max(1);
        usize::try_from(ticks).unwrap_or(usize::MAX)
    }
}
