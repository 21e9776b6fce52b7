//! Every bound in one place, and the relations between them as constant assertions. Values that
//! flags can change are the defaults here.

use std::time::Duration;

/// Largest marshalled proposal (`--max-request-bytes`).
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// What `--max-request-bytes` may be set to: two entries of this size fit into one message to a peer. Above
/// 32 MiB one request may take more than all requests together otherwise have, and is then let in alone: as a
/// pending proposal, as one that waits for a leader, as the uncommitted end of the log.
pub const REQUEST_BYTES_LIMIT: usize = PEER_MESSAGE_BYTES_MAX / 2;
/// What a gRPC message may be larger than a proposal: etcd's overhead allowance.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// How many times larger a request may be in JSON: base64 makes four bytes of three, and a client may
/// write any byte of it as six.
pub const GATEWAY_JSON_FACTOR: usize = 8;
/// One message of a client over WebSocket.
pub const GATEWAY_WEBSOCKET_BYTES: usize = 1 << 20;
/// The time in which a client over WebSocket takes the Close that ends its connection.
pub const WEBSOCKET_FAREWELL: Duration = Duration::from_secs(1);
/// Objects and lists in each other in JSON, the number of Go's library.
pub const GATEWAY_JSON_DEPTH: usize = 10_000;
/// JSON of a request that is read before other tasks run.
pub const GATEWAY_STEP_BYTES: usize = 16 << 10;
/// An answer that a gateway turns into JSON at once; a larger one is while it comes, a piece at a time.
pub const GATEWAY_WHOLE_BYTES: usize = 64 << 10;
pub const GATEWAY_PIECE_BYTES: usize = 64 << 10;
/// Operations in one txn branch (`--max-txn-ops`).
pub const TXN_OPS_MAX: usize = 128;
/// Txns around the innermost one: what is decoded at the edge must decode in the log.
pub const TXN_NESTED_MAX: usize = quorate_proto::depth::NESTED_MAX;
/// Operations and comparisons of a txn, nested ones counted, that are checked on the caller's thread.
pub const TXN_INLINE_OPS: usize = 1_000;
/// Ranges that a txn which writes may read, compare or delete before it is found out how many keys they
/// hold, and how many these may be in sum, the largest range aside: the applier reads them all.
pub const TXN_WALKS_UNWEIGHED: usize = 4;
pub const TXN_WALKED_KEYS_MAX: usize = 1 << 20;
/// Live bytes above which writes are refused when `--quota-backend-bytes` is 0.
pub const QUOTA_BYTES: u64 = 2 << 30;
/// Learners in a cluster (`--max-learners`).
pub const LEARNERS_MAX: usize = 1;
/// The last revision, log index and term that a state from elsewhere may stand at: whatever is counted
/// on from there has room.
pub const REVISION_MAX: i64 = i64::MAX / 2;
/// Moments for which a member remembers its revision, 24 bytes each.
pub const REVISION_TIMES_MAX: usize = 8_192;
/// Largest lease TTL, seconds.
pub const LEASE_TTL_MAX_S: i64 = 9_000_000_000;

/// Work of hashing a password, and what it may be set to (`--bcrypt-cost`).
pub const BCRYPT_COST: u32 = 10;
pub const BCRYPT_COSTS: std::ops::RangeInclusive<u32> = 4..=31;
/// Passwords that are hashed or compared at the same time, and calls of one user that may wait for it.
pub const PASSWORDS_AT_ONCE: usize = 2;
pub const PASSWORDS_WAITING_MAX: usize = 256;

/// Log entries kept in memory below the applied index for followers that lag
/// (`--snapshot-catchup-entries`).
pub const CATCHUP_ENTRIES: u64 = 5_000;
/// Applied entries between two flushes of the state (`--snapshot-count`).
pub const SNAPSHOT_COUNT: u64 = 10_000;
/// Committed but not applied entries above which proposals are refused with "too many requests"; the
/// ends of leases, as etcd's, above twice that.
pub const APPLY_GAP_MAX: u64 = 5_000;
pub const APPLY_GAP_VITAL_MAX: u64 = 2 * APPLY_GAP_MAX;

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
/// Proposals of this member that wait for an answer, and their bytes; with what is kept of both for
/// the ends of leases, changes of members and alarms.
pub const PROPOSALS_MAX: usize = 16_384;
pub const PROPOSALS_RESERVED: usize = 1_024;
pub const PROPOSAL_BYTES_MAX: usize = 64 << 20;
pub const PROPOSAL_BYTES_RESERVED: usize = 4 << 20;
/// Proposals of this member that wait for a leader, bytes.
pub const WAITING_BYTES_MAX: usize = 64 << 20;
/// Linearizable reads of this member that wait for the next round, and what is kept of them for
/// leases, health and membership.
pub const READERS_MAX: usize = 65_536;
pub const READERS_RESERVED: usize = 4_096;
/// After this time a missing read index is requested again.
pub const READ_INDEX_RETRY: Duration = Duration::from_millis(500);
/// Entries kept in memory for followers that lag, bytes; fewer entries are kept when they are large.
pub const CATCHUP_BYTES_MAX: usize = 128 << 20;
/// Messages that wait for one stream to one peer; more are dropped.
pub const PEER_QUEUE: usize = 4_096;
/// Messages that wait for single POSTs to one peer, and how many are on their way at once.
pub const PEER_PIPELINE_QUEUE: usize = 64;
pub const PEER_PIPELINE_IN_FLIGHT: usize = 4;
/// Largest raft message taken from a peer; it is read as it arrives, never allocated ahead.
pub const PEER_MESSAGE_BYTES_MAX: usize = 512 << 20;
/// Largest raft message in front of a database snapshot.
pub const PEER_SNAPSHOT_ENVELOPE_BYTES_MAX: usize = 64 << 20;
/// Largest body of a lease or hash request from a peer.
pub const PEER_REQUEST_BYTES_MAX: usize = 64 << 10;
/// Largest answer read from a peer: the time-to-live of a lease lists its keys.
pub const PEER_ANSWER_BYTES_MAX: usize = 100 << 20;
/// Stream bytes gathered for one write, and snapshot bytes gathered for one disk write.
pub const PEER_WRITE_BYTES: usize = 256 << 10;
pub const PEER_SNAPSHOT_WRITE_BYTES: usize = 1 << 20;
/// Database snapshots received at once.
pub const PEER_SNAPSHOTS_IN: usize = 4;
/// Senders that are not members yet and are still answered; further ones are not.
pub const PEER_REMOTES_MAX: usize = 64;
/// Senders that are no members by this member's table: about how many others are asked at once, and how
/// many members are asked about one.
pub const PEER_VOUCHES: usize = 4;
pub const PEER_VOUCHERS_MAX: usize = 16;

// What a stranger may cost. A stranger is a client that has not identified itself: it has made no gRPC call
// yet or, where authentication is enabled, none with a valid token or certificate.
//
// | bound | of what | above it |
// |---|---|---|
// | `DESCRIPTORS_RESERVED` | descriptors that are no connection's | connections get the rest |
// | `PEER_CONNECTIONS_MAX`, `peer_connections_max` | connections of the peer port | the oldest idle one is closed |
// | `connections_max` | connections of all client ports | strangers are closed first, then idle ones |
// | `STRANGERS_MAX` | strangers' connections | the oldest one is closed |
// | `ADDRESS_SHARE` | connections from one address | one of that address is closed, or the new one |
// | `STRANGER_STREAMS_MAX` | open HTTP/2 streams of all strangers | the connection that opens more is closed |
// | `CONNECTION_STREAMS_MAX` | open HTTP/2 streams of one connection | it is closed |
// | `TURN_BYTES`, `TURN_STREAMS` | what a connection brings at once | other connections go first |
// | `CROWD_READ_BYTES` | the same, above `CROWD_STREAMS` open streams | other connections go first |
// | `GATEWAY_STEP_BYTES` | JSON of a request that is read at once | other tasks go first |
// | `TXN_INLINE_OPS` | operations of a txn that are checked at once | they are checked on another thread |
// | `PASSWORDS_AT_ONCE` | passwords that are hashed at once | calls wait for their turn |
// | `PASSWORDS_WAITING_MAX` | calls of one user that wait for it | the call is refused |
// | `ARRIVING_BYTES_MAX` | requests that have begun and not arrived, streams without a message | the oldest one ends |
// | `METADATA_BYTES_MAX` | metadata of one request | that request is refused |
// | `METADATA_ARRIVING_BYTES_MAX` | metadata on its way | the connection that sends more is closed |
// | `GREETING_TIMEOUT` | the time until a connection has shown its protocol | it is closed |
// | `TLS_HANDSHAKE_TIMEOUT` | the time of a handshake | it is closed |
// | `HTTP_HEAD_TIMEOUT` | the time between two HTTP/1 requests, the second one's head included | it is closed |
// | `BODY_STALL` | the time without a byte of an HTTP request's body | it fails |
// | `ANSWER_STALL` | the time in which nothing of an answer is taken, streams of events aside | its stream is reset |

/// Descriptors kept back for the log, the store and the tools of the process, etcd's number.
pub const DESCRIPTORS_RESERVED: usize = 150;
/// Open connections to the peer port, and of what is left of the descriptors the part for them.
pub const PEER_CONNECTIONS_MAX: usize = 1_024;
pub const PEER_CONNECTIONS_SHARE: usize = 8;
/// Open connections to all client ports, however many descriptors there are.
pub const CONNECTIONS_MAX: usize = 1 << 20;
/// Connections of strangers.
pub const STRANGERS_MAX: usize = 2_048;
/// The part of all connections that one address may have: three of four.
pub const ADDRESS_SHARE: (usize, usize) = (3, 4);
/// Connections that are being closed, above which no further one is accepted until some have ended.
pub const CONNECTIONS_LEAVING_MAX: usize = 32;
/// How many connections are looked at for one that is idle.
pub const IDLE_LOOKED_AT: usize = 64;
/// Open HTTP/2 streams of all strangers, and those that each may have in any case.
pub const STRANGER_STREAMS_MAX: usize = 4_096;
pub const STRANGER_STREAMS_MIN: usize = 8;
/// Open HTTP/2 streams of one connection, a known client's too: far above what clients have.
pub const CONNECTION_STREAMS_MAX: usize = 1 << 16;
/// Bytes that a connection's task reads, and streams that it opens, before other tasks run.
pub const TURN_BYTES: usize = 64 << 10;
pub const TURN_STREAMS: usize = 64;
/// A connection with more open streams than clients have that opens still more, and what is read of it before
/// other tasks run: each stream is a task or two, behind which the others wait.
pub const CROWD_STREAMS: usize = 1_024;
pub const CROWD_READ_BYTES: usize = 1 << 10;
/// Bytes of requests that have begun and not arrived, and what a stream takes that waits for its first
/// message.
pub const ARRIVING_BYTES_MAX: usize = 96 << 20;
pub const ARRIVING_STREAM_BYTES: usize = 24 << 10;
/// What a byte of unfinished JSON takes: a token is kept in a buffer that doubles as it grows.
pub const JSON_KEPT_FACTOR: usize = 2;
/// [`ARRIVING_BYTES_MAX`] where single requests may be larger than usual: there is room for one as JSON.
pub fn arriving_bytes_max(request_bytes_max: usize) -> usize {
    let one = request_bytes_max.saturating_mul(JSON_KEPT_FACTOR * GATEWAY_JSON_FACTOR);
    ARRIVING_BYTES_MAX.max(one)
}
/// Metadata of one request; a larger one is refused, a much larger one ends its connection.
pub const METADATA_BYTES_MAX: usize = 512 << 10;
pub const METADATA_READ_BYTES_MAX: u32 = 4 << 20;
/// Metadata that is on its way in all connections, those small enough for one frame aside.
pub const METADATA_ARRIVING_BYTES_MAX: usize = 32 << 20;
/// The time in which a connection must show its protocol.
pub const GREETING_TIMEOUT: Duration = Duration::from_secs(10);
/// What an idle HTTP/1 connection gets to send the next request's head.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// An HTTP request's body of which nothing comes for so long fails.
pub const BODY_STALL: Duration = Duration::from_secs(30);
/// What a known client's idle connection gets to end when its place is needed.
pub const CONNECTION_LEAVE: Duration = Duration::from_secs(1);

/// Connections of the peer port under a limit of so many descriptors.
pub fn peer_connections_max(descriptors: usize) -> usize {
    let free = descriptors.saturating_sub(DESCRIPTORS_RESERVED);
    (free / PEER_CONNECTIONS_SHARE).clamp(16, PEER_CONNECTIONS_MAX)
}

/// Connections of all client ports together, likewise.
pub fn connections_max(descriptors: usize) -> usize {
    let kept = DESCRIPTORS_RESERVED.saturating_add(peer_connections_max(descriptors));
    descriptors.saturating_sub(kept).clamp(16, CONNECTIONS_MAX)
}

/// TLS: a handshake's time (etcd's).
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificates on disk are compared with those in use when the last comparison is older than this.
pub const TLS_FILES_FRESH: Duration = Duration::from_millis(500);
/// Largest certificate, key, CA or revocation list file.
pub const TLS_FILE_BYTES_MAX: u64 = 64 << 20;

/// Jobs of clients that run where blocking is allowed, at once: of each kind, see `env::Work`. The rest of
/// the threads there are the member's own.
pub const BLOCKING_READS_MAX: usize = 32;
pub const BLOCKING_HASHES_MAX: usize = 2;
pub const BLOCKING_PASSWORDS_MAX: usize = 2;
pub const BLOCKING_TLS_MAX: usize = 4;
pub const BLOCKING_NAMES_MAX: usize = 8;
/// Threads on which blocking is allowed: what tokio starts at most.
pub const BLOCKING_THREADS_MAX: usize = 512;

/// Jobs that wait for one worker thread; the caller blocks when there are more.
pub const WORKER_QUEUE: usize = 1_024;

/// A WAL segment is preallocated to this and cut when it is passed.
pub const WAL_SEGMENT_BYTES: u64 = 64_000_000;
/// The most that one WAL write covers before it is synced, a single larger record aside.
pub const WAL_WRITE_BYTES_MAX: u64 = 4 << 20;

/// Pieces in which a bbolt file is written.
pub const BBOLT_CHUNK_BYTES: usize = 64 * 1024;

/// Events that wait for one watch stream before it falls back to catch-up.
pub const WATCH_BUFFER_EVENTS: usize = 1_024;
/// Bytes of keys and values that wait for one watch stream before it falls back to catch-up.
pub const WATCH_BUFFER_BYTES: usize = 4 << 20;
/// Pairs of event and watcher that wait for one watch stream before it falls back to catch-up.
pub const WATCH_BUFFER_MATCHES: usize = 65_536;
/// Watchers of one watch stream.
pub const WATCHERS_PER_STREAM_MAX: usize = 1 << 20;
/// Responses that wait in a watch session above which it takes no further request.
pub const WATCH_OUTBOX_RESPONSES: usize = 64;
/// Bytes of events above which events of another revision go into another response.
pub const WATCH_RESPONSE_BYTES: usize = 256 << 10;
/// Revisions read from history in one catch-up step of one watcher.
pub const WATCH_CATCHUP_REVISIONS: usize = 1_000;
/// Bytes of keys and values in one catch-up step above which no further revision is read.
pub const WATCH_CATCHUP_BYTES: usize = 1 << 20;
/// Watch streams that read history at the same time.
pub const WATCH_CATCHUP_READERS: usize = 8;
/// Between two log lines about requests of one watch stream that are of no kind.
pub const WATCH_INVALID_LOG_INTERVAL: Duration = Duration::from_secs(1);
/// Time between progress notifications of a watch stream (`--watch-progress-notify-interval`).
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// The shortest such time.
pub const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Recent publications that the hub keeps to serve the last gap of a watcher that goes live.
pub const WATCH_RING_PUBLICATIONS: usize = 1_024;
/// Bytes of keys and values in them.
pub const WATCH_RING_BYTES: usize = 4 << 20;
/// Responses that wait for one watch stream's connection, and their bytes, a larger one aside. A
/// stream whose client reads nothing keeps these, what its connection has taken of them, a page of
/// history, and twice a buffer of events, which it shares with other such streams.
pub const WATCH_ANSWERS: usize = 16;
pub const WATCH_ANSWER_BYTES: usize = 256 << 10;
/// Bytes that a connection gathers for one write, and what it keeps allocated while it is idle.
pub const GATHER_BYTES_MAX: usize = 32 << 10;
pub const GATHER_BYTES_KEPT: usize = 4 << 10;
/// Answers that wait for one keep-alive stream's connection.
pub const KEEP_ALIVE_ANSWERS: usize = 16;
/// Client versions that are counted apart.
pub const CLIENT_VERSIONS_MAX: usize = 64;
/// Pieces of a snapshot on their way to a peer that may wait.
pub const SNAPSHOT_CHUNKS: usize = 4;
/// A range for at most this many keys is read without leaving the caller's thread, if its keys and
/// values take no more than [`INLINE_RANGE_BYTES`].
pub const INLINE_RANGE_KEYS: i64 = 1_000;
pub const INLINE_RANGE_BYTES: usize = 1 << 20;
/// Answers of ranges on their way to clients, bytes: what is being built and what waits to be sent.
pub const ANSWER_BYTES_MAX: usize = 128 << 20;
/// Answers below this are not counted: there are about as many as there are requests.
pub const ANSWER_COUNTED_BYTES: usize = 16 << 10;
/// Keys and values that are read at once of an answer that is larger.
pub const ANSWER_PAGE_BYTES: usize = 256 << 10;
/// What is set aside for an answer that must be sorted, and for a txn's, bytes.
pub const ANSWER_SORTED_BYTES: usize = ANSWER_BYTES_MAX / 8;
/// A large answer of which its client takes nothing for so long is given up: it holds its moment.
pub const ANSWER_STALL: Duration = Duration::from_secs(60);
/// Data of an answer that the HTTP library may hold alone, when its client takes nothing.
pub const ANSWER_WHOLE_BYTES: usize = 16 << 10;
/// What it is given at a time of larger data. This much must be taken in the time of [`ANSWER_STALL`].
pub const ANSWER_PIECE_BYTES: usize = 64 << 10;
/// Answers that may wait until others are sent.
pub const ANSWERS_WAITING_MAX: usize = 4_096;
/// Bytes of a compressed message that are inflated, and of an answer that are compressed, before other
/// calls run. Bytes inflate to at most a thousand times as many (RFC 1951).
pub const GZIP_STEP_IN_BYTES: usize = 2 << 10;
pub const GZIP_STEP_OUT_BYTES: usize = 32 << 10;
/// The largest message that etcd sends: a signed number of four bytes counts them.
pub const ANSWER_MESSAGE_BYTES_MAX: u64 = i32::MAX as u64;
/// Single keys that a txn which writes may read before it is found out how much that is; of ranges it
/// always is.
pub const TXN_READS_UNWEIGHED: usize = 8;
/// Keys in the first chunk of a RangeStream, etcd's number; the next ones grow or shrink by their size.
pub const STREAM_CHUNK_KEYS: usize = 10;
/// Revisions deleted in one step of a compaction, between which entries are applied
/// (`--compaction-batch-limit`).
pub const COMPACT_STEP_REVISIONS: usize = 256;
/// Pause between two steps of a compaction, so that entries go first (`--compaction-sleep-interval`).
pub const COMPACT_PAUSE: Duration = Duration::from_millis(2);
/// The same, after each batch of entries: what keeps a busy member's compaction going.
pub const COMPACT_STEP_BUSY: usize = 128;
/// How often a client that waits for a compaction's end looks.
pub const COMPACTION_POLL: Duration = Duration::from_millis(10);
/// What a store without any key is counted as: its members, version and position, bytes.
pub const STORE_BYTES_MIN: u64 = 4 << 10;
/// Fingerprints of compactions that a member keeps, the newest ones.
pub const COMPACTION_HASHES: usize = 10;
/// Time between two comparisons of compactions (`--compact-hash-check-time`).
pub const COMPACT_HASH_CHECK_TIME: Duration = Duration::from_secs(60);
/// Expired leases revoked at the same time, at first and when the log is slow, and at most.
pub const LEASE_REVOKES_MIN: usize = 16;
pub const LEASE_REVOKES_MAX: usize = 512;
/// Leases whose remaining time one log entry records.
pub const LEASE_CHECKPOINTS_MAX: usize = 1_000;
/// Between two such entries about one lease.
pub const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Events of one entry that take more bytes are not kept for watchers, which read them from history.
pub const EVENTS_BYTES_MAX: usize = 16 << 20;
/// Publications that wait for the watch hub.
pub const HUB_INBOX: usize = 1_024;

/// Keys in a freshly cut counted chunk, and chunks in a freshly cut sum of them. A count walks two
/// chunks at most, and adds up the chunks of two sums and the sums between.
pub const COUNT_CHUNK_KEYS: i64 = 512;
pub const COUNT_SUM_CHUNKS: i64 = 32;
/// Bytes that the installation of a snapshot gathers before it writes them.
pub const INSTALL_BATCH_BYTES: usize = 1 << 20;

/// Ended spans that wait for the exporter (more are dropped), how many it sends at once, and how long it
/// waits for more: those of OpenTelemetry's libraries.
pub const SPANS_WAITING_MAX: usize = 2_048;
pub const SPANS_BATCH_MAX: usize = 512;
pub const SPANS_DELAY: Duration = Duration::from_secs(5);
/// What the collector gets to answer, and how often a batch is sent that it does not take; the pause
/// before the next time, which doubles.
pub const SPANS_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
pub const SPANS_ATTEMPTS_MAX: u32 = 5;
pub const SPANS_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// What a server that stops gives the collector to take the rest.
pub const SPANS_FLUSH: Duration = Duration::from_secs(3);
/// Of one text in a span, bytes; and how much may have happened in it.
pub const SPAN_TEXT_BYTES_MAX: usize = 1_024;
pub const SPAN_EVENTS_MAX: usize = 128;

/// A gateway's connecting to one endpoint.
pub const GATEWAY_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Answers that a proxy keeps, etcd's number, and the bytes of all of them.
pub const PROXY_CACHE_ANSWERS: usize = 2_048;
pub const PROXY_CACHE_BYTES: usize = 64 << 20;
/// Responses that wait for one watch stream of a proxy.
pub const PROXY_WATCH_INBOX: usize = 1_024;
/// The time that a watch stream has to take the next response, where others wait for the same one and
/// where none does; then it is ended.
pub const PROXY_WATCH_PATIENCE_SHARED: Duration = Duration::from_millis(50);
pub const PROXY_WATCH_PATIENCE: Duration = Duration::from_secs(10);
/// The largest request that a proxy takes: what gRPC's Go library lets a server receive.
pub const PROXY_REQUEST_BYTES_MAX: usize = 4 << 20;

/// Peer I/O: dial, read and write.
pub const PEER_IO_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to open a stream.
pub const PEER_DIAL_RETRY: Duration = Duration::from_millis(100);
/// How long a member may take to return the list of members, and how long its answer is used.
pub const PEER_VOUCH_TIMEOUT: Duration = Duration::from_secs(1);
pub const PEER_VOUCHED: Duration = Duration::from_secs(1);
/// Between two link heartbeats on a stream: three fit into the reader's timeout.
pub const PEER_LINK_HEARTBEAT: Duration = Duration::from_millis(5_000 / 3);
/// Between two probes of a peer.
pub const PEER_PROBE_INTERVAL: Duration = Duration::from_secs(4);
/// A message POSTed on its own must be answered within this.
pub const PEER_POST_TIMEOUT: Duration = Duration::from_secs(10);
/// A snapshot on its way may stand still this long: the receiver syncs its file before it answers.
pub const PEER_SNAPSHOT_STALL: Duration = Duration::from_secs(60);

const _: () = assert!(BATCH_BYTES_MAX < UNCOMMITTED_BYTES_MAX);
const _: () = assert!(LEASE_REVOKES_MAX < PROPOSALS_MAX);
const _: () = assert!(REQUEST_BYTES_MAX < UNCOMMITTED_BYTES_MAX as usize);
const _: () = assert!((REQUEST_BYTES_MAX as u64) < WAL_SEGMENT_BYTES);
const _: () = assert!(REQUEST_BYTES_MAX <= PROPOSAL_BYTES_RESERVED);
// What was let in is not turned away for want of a leader.
const _: () = assert!(PROPOSAL_BYTES_MAX <= WAITING_BYTES_MAX);
const _: () = assert!((REQUEST_BYTES_MAX as u64) < WAL_WRITE_BYTES_MAX);
const _: () = assert!(BATCH_BYTES_MAX < WAL_WRITE_BYTES_MAX);
const _: () = assert!(WAL_WRITE_BYTES_MAX < WAL_SEGMENT_BYTES);
const _: () = assert!(REQUEST_BYTES_MAX < PEER_MESSAGE_BYTES_MAX);
const _: () = assert!(3 * PEER_LINK_HEARTBEAT.as_millis() <= PEER_IO_TIMEOUT.as_millis());
const _: () = assert!(PEER_PROBE_INTERVAL.as_millis() < PEER_IO_TIMEOUT.as_millis());
const _: () = assert!(ADDRESS_SHARE.0 < ADDRESS_SHARE.1);
const _: () = assert!(CONNECTIONS_LEAVING_MAX < DESCRIPTORS_RESERVED);
// One request in JSON that is being read leaves room for others.
const _: () =
    assert!(4 * JSON_KEPT_FACTOR * GATEWAY_JSON_FACTOR * REQUEST_BYTES_MAX <= ARRIVING_BYTES_MAX);
const _: () = assert!(METADATA_BYTES_MAX < REQUEST_BYTES_MAX);
const _: () = assert!(METADATA_BYTES_MAX < METADATA_READ_BYTES_MAX as usize);
const _: () = assert!(4 * (METADATA_READ_BYTES_MAX as usize) < METADATA_ARRIVING_BYTES_MAX);
const _: () = assert!(GREETING_TIMEOUT.as_millis() <= HTTP_HEAD_TIMEOUT.as_millis());
// Whatever clients do, most threads are left to the member.
const _: () = assert!(
    2 * (BLOCKING_READS_MAX
        + BLOCKING_HASHES_MAX
        + BLOCKING_PASSWORDS_MAX
        + BLOCKING_TLS_MAX
        + BLOCKING_NAMES_MAX)
        <= BLOCKING_THREADS_MAX
);
const _: () = assert!(TLS_FILES_FRESH.as_millis() <= 1_000);
const _: () = assert!(SPANS_BATCH_MAX <= SPANS_WAITING_MAX);
const _: () = assert!(WATCH_RESPONSE_BYTES < REQUEST_BYTES_MAX);
const _: () = assert!(WATCH_RESPONSE_BYTES <= WATCH_CATCHUP_BYTES);
const _: () = assert!(WATCH_BUFFER_BYTES <= EVENTS_BYTES_MAX);
const _: () = assert!(ANSWER_COUNTED_BYTES <= INLINE_RANGE_BYTES);
const _: () = assert!(16 * ANSWER_PAGE_BYTES <= ANSWER_BYTES_MAX);
const _: () = assert!(8 * ANSWER_PAGE_BYTES <= ANSWER_SORTED_BYTES);
const _: () = assert!(ANSWER_BYTES_MAX <= u32::MAX as usize);
// A gap of single writes that the ring holds fits an empty buffer: the join ends with it.
const _: () = assert!(WATCH_RING_PUBLICATIONS <= WATCH_BUFFER_EVENTS);
const _: () = assert!(WATCH_RING_BYTES <= WATCH_BUFFER_BYTES);

/// A request's time: etcd's 5 s plus two election timeouts.
pub fn request_timeout(election_timeout: Duration) -> Duration {
    Duration::from_secs(5) + 2 * election_timeout
}
