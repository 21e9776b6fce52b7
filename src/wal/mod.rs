//! The log on disk, in etcd's WAL format: tools that read an etcd WAL read this one, byte for byte.
//!
//! A folder holds segments `<seq>-<index>.wal`, preallocated and filled one after the other. A segment
//! is a row of frames, each one record with a checksum that runs over all records since the log
//! began: it starts with the checksum so far, the metadata (member and cluster) and the newest hard
//! state, and goes on with entries, hard states and snapshot marks in the order raft produced them.
//! An entry replaces all that came before with its index or a higher one. A snapshot mark means that
//! the state up to it is durable elsewhere.
//!
//! ```text
//! 0000000000000000-0000000000000000.wal   crc 0 | metadata | snapshot 0 | entry 1 | state | ... |
//! 0000000000000001-00000000000003e9.wal   crc c | metadata | state | entry 1001 | ... | 0 0 0 0 ...
//! 0.tmp                                   the next segment, allocated ahead
//! ...wal.broken                           a copy of a segment before its torn end was cut
//! ```
//!
//! Invariants:
//! * Nothing is acknowledged before it is durable: [`Wal::save`] returns after its fsync, or needs none.
//! * At most one write, of bounded size, is not durable at any time. Whatever lies farther from a
//!   damaged spot than that bound was written after the spot had been durable.
//! * A segment exists only when its head is durable and the one before is complete and durable.
//! * A failed write or fsync is final: the log takes nothing more.
//! * What recovery has read is durable before it is relied on, however the previous process ended.
//! * Recovery takes away only what can be explained by the one write that was not durable, keeps a
//!   copy of it, and refuses to start on anything else.
//! * A segment is released only when a durable snapshot mark covers it.
//!
//! Not here: what the entries mean, when to snapshot, the lock of the data directory.
//!
//! Reading order: `log` (the writer), `record` (the format), `recover` (files to records),
//! `reader` (one segment), `table` (the decisions), `replay` (records to a log), `segment` (names), `read`
//! (records for tools).

mod error;
mod log;
mod read;
mod reader;
mod record;
mod recover;
mod replay;
mod segment;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use quorate_proto::{etcdserverpb::Metadata, raftpb, walpb};

use crate::limits;

pub use error::WalError;
pub use log::Wal;
pub use read::{Found, Item, Torn, inspect, read};
#[cfg(test)]
pub(crate) use tests::MemDisk;

/// What differs between production and tests.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment's preallocated size; it is cut when it has grown past it.
    pub segment_bytes: u64,
    /// The most that one write covers, a single larger record aside. Must not shrink between writing
    /// a log and reading it.
    pub write_bytes_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes: limits::WAL_SEGMENT_BYTES,
            write_bytes_max: limits::WAL_WRITE_BYTES_MAX,
        }
    }
}

/// One thing to append.
#[derive(Clone, Debug, PartialEq)]
pub enum Save {
    /// Entries, then the hard state, if it changed.
    Entries { hard_state: Option<raftpb::HardState>, entries: Vec<raftpb::Entry> },
    /// The state up to the snapshot is durable. Must come before the hard state that commits it.
    Snapshot(walpb::Snapshot),
}

/// What a save did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveStats {
    pub bytes: u64,
    /// Whether it waited for the disk.
    pub fsync: bool,
    /// What its writes and its fsyncs took; nothing where the log has no clock.
    pub writing: Duration,
    pub syncing: Duration,
}

/// What an opened log holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    pub metadata: Metadata,
    pub hard_state: raftpb::HardState,
    /// The newest recorded snapshot that the state has reached; index 0 when there is none.
    pub snapshot: walpb::Snapshot,
    /// All entries after the snapshot, without gaps.
    pub entries: Vec<raftpb::Entry>,
    pub repaired: Option<Repair>,
}

/// A torn end that was cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub file: PathBuf,
    /// Where the file's records end now.
    pub offset: u64,
    /// How many bytes after that were in use.
    pub bytes: u64,
    /// The copy from before.
    pub broken: PathBuf,
}
