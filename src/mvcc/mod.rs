//! The key space with its history, as etcd keeps it: every change gets a revision, and reads may name
//! any revision that was not compacted. Pure state over the engine: no clock, no tasks, no random
//! numbers, no hash order, so equal entries make equal stores on every member.
//!
//! # Layout
//!
//! | column family | key | value |
//! |---|---|---|
//! | `Key` (etcd's) | revision, deletions marked | `KeyValue` |
//! | `Head` | user key | newest `KeyValue` with its sub revision; deletions are kept until compacted |
//! | `Versions` | user key, revision, newest first | create revision and version of a *superseded* state |
//! | `Attached` | lease, user key | nothing |
//! | `Counts` | first user key of a chunk | how many keys live in it |
//! | `Sums` | first user key of some chunks | how many keys live in them |
//! | `Meta` (etcd's) | `consistent_index`, `term`, `scheduledCompactRev`, `finishedCompactRev`, `quorate.revision` | |
//!
//! A read at the present is one scan of `Head`. A read in the past takes the record of `Head` where it
//! is old enough and looks among the versions where it is not. Only superseded states are there, so a
//! key that was written once costs nothing twice.
//!
//! # Invariants
//!
//! * What an entry does and the applied index are in one engine batch. There is no second way to make
//!   an effect durable.
//! * The current revision is stored; it is never derived from keys that survived a compaction.
//! * A [`View`] is a snapshot and the position that belongs to it, published together.
//! * A request is refused before its first change or not at all.
//! * Every key of `Key` that is its user key's newest is in `Head`, and every other one is in `Versions`.
//!
//! Reading order: [`Store`], [`View`], [`Write`], then `range`, `pages`, `sorted`, `stream` and `txn` for
//! what requests mean, `changed` for their events, `keys` and `record` for the formats, `compact`,
//! `history`, `hash`, `install`.

mod change;
mod changed;
mod check;
mod compact;
mod counts;
mod foreign;
mod hash;
mod history;
mod install;
mod interval;
mod keys;
mod overlaps;
mod overlay;
mod pages;
mod range;
mod reader;
mod record;
mod sorted;
mod store;
mod stream;
mod sums;
#[cfg(test)]
mod tests;
mod txn;
mod verify;
mod view;
mod walks;
mod write;

pub use changed::Changed;
pub use check::{
    check_delete_range, check_put, check_range, check_range_stream, check_txn, is_large,
};
pub use foreign::{Rows, raised};
pub use hash::{Changes, HashKv, Rows as History, hash_file};
pub use history::{Events, Most};
pub use install::{position_rows, raised_rows, revision_of};
pub use interval::KeyRange;
pub use pages::{Pages, Ranged, Share, TxnRead};
pub use range::is_sorted;
pub use store::{Position, Store};
pub use stream::RangeStream;
pub use txn::{is_read_only, is_serializable, reads_much};
pub use verify::Verified;
pub use view::View;
pub use walks::walks_much;
pub use write::{Committed, Write};

use crate::engine::EngineError;
use crate::error::{Fatal, Refused};

/// What a request came to, unless the process must stop.
pub type Outcome<T> = Result<Result<T, Refused>, Fatal>;

/// Why work on a request stopped; keeps the two kinds apart on their way up to [`settle`].
enum Halt {
    Refused(Refused),
    Fatal(Fatal),
}

impl From<Refused> for Halt {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Fatal> for Halt {
    fn from(fatal: Fatal) -> Self {
        Self::Fatal(fatal)
    }
}

impl From<EngineError> for Halt {
    fn from(error: EngineError) -> Self {
        Self::Fatal(error.into())
    }
}

fn settle<T>(result: Result<T, Halt>) -> Outcome<T> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Halt::Refused(refused)) => Ok(Err(refused)),
        Err(Halt::Fatal(fatal)) => Err(fatal),
    }
}
