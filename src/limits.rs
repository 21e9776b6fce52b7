//! Every bound in one place, and the relations between them as constant assertions. Values that
//! flags can change are the defaults here.

use std::time::Duration;

/// Largest marshalled proposal (`--max-request-bytes`).
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// What a gRPC message may be larger than a proposal: etcd's overhead allowance.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Operations in one txn branch (`--max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;
/// Live bytes above which writes are refused when `--quota-backend-bytes` is 0.
pub const QUOTA_BYTES: u64 = 2 << 30;
/// Largest lease TTL, seconds.
pub const LEASE_TTL_MAX_S: i64 = 9_000_000_000;

/// Log entries kept in memory below the applied index for followers that lag
/// (`--snapshot-catchup-entries`).
pub const CATCHUP_ENTRIES: u64 = 5_000;
/// Applied entries between two flushes of the state (`--snapshot-count`).
pub const SNAPSHOT_COUNT: u64 = 10_000;
/// Committed but not applied entries above which proposals are refused with "too many requests".
pub const APPLY_GAP_MAX: u64 = 5_000;

/// Messages that wait for the replica's driver.
pub const REPLICA_INBOX: usize = 4_096;
/// Committed batches that wait for the applier.
pub const COMMITTED_BATCHES: usize = 16;
/// Entry bytes in one committed batch, and in one MsgApp.
pub const BATCH_BYTES_MAX: u64 = 1 << 20;
/// MsgApp in flight to one follower.
pub const INFLIGHT_MSGS_MAX: usize = 512;
/// Proposals accepted but not committed, bytes.
pub const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// Proposals of this member that wait for an answer.
pub const PROPOSALS_MAX: usize = 16_384;
/// Messages that wait for one stream to one peer; more are dropped.
pub const PEER_QUEUE: usize = 4_096;

/// Jobs that wait for one worker thread; the caller blocks when there are more.
pub const WORKER_QUEUE: usize = 1_024;

/// A WAL segment is preallocated to this and cut when it is passed.
pub const WAL_SEGMENT_BYTES: u64 = 64_000_000;

/// Pieces in which a bbolt file is written.
pub const BBOLT_CHUNK_BYTES: usize = 64 * 1024;

/// Events that wait for one watch stream before it falls back to catch-up.
pub const WATCH_BUFFER_EVENTS: usize = 1_024;
/// Revisions read from history in one catch-up step of one watcher.
pub const WATCH_CATCHUP_REVISIONS: usize = 1_000;
/// Responses that wait for one watch stream's connection.
pub const WATCH_ANSWERS: usize = 16;
/// Answers that wait for one keep-alive stream's connection.
pub const KEEP_ALIVE_ANSWERS: usize = 16;
/// Publications that wait for the watch hub.
pub const HUB_INBOX: usize = 1_024;

/// Keys in a freshly cut counted chunk. A count walks two chunks at most and adds up the rest.
pub const COUNT_CHUNK_KEYS: i64 = 512;
/// Bytes that the installation of a snapshot gathers before it writes them.
pub const INSTALL_BATCH_BYTES: usize = 1 << 20;

/// Peer I/O: dial, read and write.
pub const PEER_IO_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = assert!(BATCH_BYTES_MAX < UNCOMMITTED_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX < UNCOMMITTED_BYTES_MAX as usize);
const _: () = assert!((REQUEST_BYTES_MAX as u64) < WAL_SEGMENT_BYTES);

/// A request's time: etcd's 5 s plus two election timeouts.
pub fn request_timeout(election_timeout: Duration) -> Duration {
    Duration::from_secs(5) + 2 * election_timeout
}
