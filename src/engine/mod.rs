//! The ordered key-value engine under the state: the only place that names RocksDB. Knows column
//! families, batches and snapshots; knows nothing of revisions, leases or raft.
//!
//! # Guarantees
//!
//! * A [`Batch`] is atomic over all column families, in memory and on disk.
//! * RocksDB's own log is off. What is durable is what a flush wrote: an explicit
//!   [`Engine::flush`], or one that RocksDB did by itself because its memory filled up. A crash loses
//!   a suffix of the batches, never a middle one, because flushes are atomic over column families.
//!   The caller keeps its position in the raft log inside the batches and replays from there.
//! * A [`Snapshot`] is one moment of the whole engine and stays so while batches go on. It owns what
//!   it needs, so it may travel to other threads and outlive the [`Engine`] handle it came from.
//!
//! Reading order: `cf` the column families, `options` the tuning, `first` a new store's first file, `db` the
//! engine, `snapshot` reads.

mod cf;
mod db;
mod first;
mod options;
mod snapshot;
#[cfg(test)]
mod tests;

pub use cf::Cf;
pub use db::{Batch, Engine, EngineError};
pub use first::begin;
pub use options::Options;
/// Where an engine's files live; in memory, for tests and the simulator.
pub use rocksdb::Env as Place;
pub use snapshot::{Cursor, Pair, Snapshot};
#[cfg(test)]
pub(crate) use tests::marks_passed;
